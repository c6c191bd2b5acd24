"""A study as a grid of runs, cases x methods x seeds, run in two processes, and on from where it was killed.

A run depends on its case, its method and its seed alone. The seed decides split, first weights and order of samples, so
that runs of one case and one seed differ by their method and by nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own

#: What a case is: plain settings that JSON holds. "files" lists the files of the data folder that it reads.
Case = Mapping[str, Any]
#: (case, method, seed) -> numbers, and lists of numbers, by name.
Work = Callable[[Case, str, int], dict[str, Any]]


class StudyError(Exception):
    """A study that cannot start, or a run that failed; the message says what to do."""


class Job(NamedTuple):
    """One run of a grid."""

    case: str
    method: str
    seed: int


@dataclass(frozen=True)
class Grid:
    """What is to be run.

    Args:
        name: of the study.
        cases: name -> settings.
        methods: names; the first is what the others are compared with.
        seeds: how many, counted from 0.
        work: does one run; a function of a module, so that another process finds it by its name.
    """

    name: str
    cases: Mapping[str, Case]
    methods: Sequence[str]
    seeds: int
    work: Work

    def jobs(self) -> list[Job]:
        """Every run, seed by seed: what a killed study has left behind is whole pairs."""
        return [Job(c, m, s) for s in range(self.seeds) for c in self.cases for m in self.methods]

    def fingerprint(self, facts: Mapping[str, Any]) -> str:
        """A digest of all that decides a run but its place in the grid; ``facts`` are versions and digests of data."""
        said = json.dumps([self.name, self.cases, list(self.methods), facts], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()


class WorkFile:
    """The runs that are done, a line of JSON each, under a line that says what they are runs of.

    Args:
        path: where they lie.
        fingerprint: of the grid.
        fresh: drop what is there.

    Raises:
        StudyError: if the file holds runs of another grid.
    """

    def __init__(self, path: Path, fingerprint: str, fresh: bool = False) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done: dict[Job, dict[str, Any]] = {}
        lines = [] if fresh or not path.exists() else list(_whole_lines(path))
        if lines[1:] and lines[0] != {"fingerprint": fingerprint}:
            raise StudyError(
                f"{path.name} holds runs of other settings, versions or data: expected those of this study; "
                "--fresh drops them"
            )
        for record in lines[1:]:
            self.done[Job(record["case"], record["method"], record["seed"])] = record
        # Written anew, without the half line that a kill may have left: what follows must start a line of its own.
        kept = [{"fingerprint": fingerprint}, *self.done.values()]
        path.write_text("".join(_line(one) for one in kept), encoding="utf-8")

    def add(self, record: dict[str, Any]) -> None:
        """Append a run, on the disk before this returns."""
        self.done[Job(record["case"], record["method"], record["seed"])] = record
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())


def run_grid(grid: Grid, work_file: WorkFile, processes: int = 2) -> list[dict[str, Any]]:
    """Do the runs that are not done yet.

    Args:
        grid: what is to be run.
        work_file: what is done; each run is added to it.
        processes: that run side by side, with one thread each; 1 runs here.

    Returns:
        A record for each run in the order of ``grid.jobs()``: case, method, seed, seconds, outcome.

    Raises:
        StudyError: if a run fails, or gives what JSON cannot hold; runs that are done are kept.
    """
    jobs = grid.jobs()
    waiting = [job for job in jobs if job not in work_file.done]
    found = _here(grid, waiting) if processes == 1 else _side_by_side(grid, waiting, processes)
    with tqdm(total=len(jobs), initial=len(jobs) - len(waiting), desc=grid.name, unit="run", disable=None) as bar:
        for record in found:
            work_file.add(record)
            bar.set_postfix_str(f"{record['case']}, {record['method']}, seed {record['seed']}", refresh=False)
            bar.update()
    return [work_file.done[job] for job in jobs]


def _here(grid: Grid, jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
    for job in jobs:
        try:
            yield run_job(grid.work, grid.cases[job.case], job)
        except Exception as error:
            raise _failed(job, error) from error


def _side_by_side(grid: Grid, jobs: Sequence[Job], processes: int) -> Iterator[dict[str, Any]]:
    # Spawned, not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_prepare) as pool:
        running: dict[Future[dict[str, Any]], Job] = {
            pool.submit(run_job, grid.work, grid.cases[job.case], job): job for job in jobs
        }
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    try:
                        yield future.result()
                    except Exception as error:
                        raise _failed(job, error) from error
        finally:
            for future in running:
                future.cancel()


def _failed(job: Job, error: Exception) -> StudyError:
    said = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
    return StudyError(f"{job.case}, {job.method}, seed {job.seed}: {said}")


def _prepare() -> None:
    """One thread a process, and no life after the parent's: an orphan would wait for work for ever."""
    os.environ["OMP_NUM_THREADS"] = "1"  # for a torch that loads later
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in spawned processes alone
    parent.join()
    os._exit(1)


def run_job(work: Work, case: Case, job: Job) -> dict[str, Any]:
    """One run, on one thread, as a record."""
    with _one_thread():
        start = time.perf_counter()
        outcome = work(case, job.method, job.seed)
        seconds = time.perf_counter() - start
    for name, value in outcome.items():
        _check_number(name, value)
    return {**job._asdict(), "seconds": seconds, "outcome": outcome}


@contextmanager
def _one_thread() -> Iterator[None]:
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, list):
        for one in value:
            _check_number(name, one)
    elif isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, expected a finite number or a list of such")


def _whole_lines(path: Path) -> Iterator[Any]:
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def _line(record: Any) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
