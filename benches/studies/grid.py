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
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
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
        """A digest of what is run on what; ``facts`` are versions and digests of data. It knows nothing of the code."""
        said = json.dumps([self.name, self.cases, list(self.methods), facts], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()


class WorkFile:
    """The runs that are done, a line of JSON each, under a line that says what they are runs of.

    Args:
        path: where they lie.
        fingerprint: of the grid.
        fresh: drop what is there.

    Raises:
        StudyError: if the file holds runs of another grid, or is broken; it stays as it is.
    """

    def __init__(self, path: Path, fingerprint: str, fresh: bool = False) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done: dict[Job, dict[str, Any]] = {}
        whole = b"" if fresh or not path.exists() else path.read_bytes()
        # Behind the last line end is what a kill has cut off.
        whole = whole[: whole.rfind(b"\n") + 1]
        try:
            head, *records = map(json.loads, whole.splitlines() or [b"null"])
            self.done = {Job(one["case"], one["method"], one["seed"]): one for one in records}
        except (ValueError, KeyError, TypeError) as error:
            raise StudyError(f"{path} is broken: {error!r}; name another --out, or drop it with --fresh") from error
        if not self.done:
            path.write_text(_line({"fingerprint": fingerprint}), encoding="utf-8")
        elif head == {"fingerprint": fingerprint}:
            os.truncate(path, len(whole))  # not written anew: whatever happens here, no whole line is lost
        else:
            raise StudyError(
                f"{path} holds runs of other settings, versions or data: expected those of this study; name another "
                "--out, or drop them with --fresh"
            )
        self._size = path.stat().st_size

    def add(self, record: dict[str, Any]) -> None:
        """Append a run, on the disk before this returns.

        Raises:
            StudyError: if something else has written to the file, or removed it; it stays as it is.
        """
        if not self.path.exists() or self.path.stat().st_size != self._size:
            raise StudyError(
                f"{self.path} was changed while this ran: does the same study run twice? Give the command again when "
                "the other is done, or name another --out"
            )
        with self.path.open("ab") as file:
            self._size += file.write(_line(record).encode())
            file.flush()
            os.fsync(file.fileno())
        self.done[Job(record["case"], record["method"], record["seed"])] = record


def run_grid(grid: Grid, work_file: WorkFile, processes: int = 2) -> list[dict[str, Any]]:
    """Do the runs that are not done yet.

    Args:
        grid: what is to be run.
        work_file: what is done; each run is added to it.
        processes: that run side by side, with one thread each; 1 runs here.

    Returns:
        A record for each run in the order of ``grid.jobs()``: case, method, seed, seconds, outcome.

    Raises:
        StudyError: if a run fails, or gives what JSON cannot hold, or its process dies; runs that are done are kept,
            those beside one that fails, too.
    """
    jobs = grid.jobs()
    waiting = [job for job in jobs if job not in work_file.done]
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(waiting), desc=grid.name, unit="run", disable=None)
    # Closed at once where this is stopped, and with it the processes.
    with bar, closing(_here(grid, waiting) if processes == 1 else _side_by_side(grid, waiting, processes)) as found:
        for record in found:
            work_file.add(record)
            bar.set_postfix_str(f"{record['case']}, {record['method']}, seed {record['seed']}", refresh=False)
            bar.update()
    return [work_file.done[job] for job in jobs]


def _here(grid: Grid, jobs: Sequence[Job]) -> Generator[dict[str, Any], None, None]:
    for job in jobs:
        try:
            yield run_job(grid.work, grid.cases[job.case], job)
        except Exception as error:
            raise _failed(job, error) from error


def _side_by_side(grid: Grid, jobs: Sequence[Job], processes: int) -> Generator[dict[str, Any], None, None]:
    # Spawned, not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    # The processes live as long as the near end is open: until it is closed here, or this process is gone.
    far, near = context.Pipe(duplex=False)
    left, running = deque(jobs), dict[Future[dict[str, Any]], Job]()
    failed: tuple[Job, Exception] | None = None
    with far, near, ProcessPoolExecutor(processes, context, initializer=_prepare, initargs=(far,)) as pool:
        try:
            while running or (left and not failed):
                # One for each process, and none in reserve: what waits in a pool is run whatever happens here.
                while left and not failed and len(running) < processes:
                    job = left.popleft()
                    running[pool.submit(run_job, grid.work, grid.cases[job.case], job)] = job
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    try:
                        record = future.result()
                    except BrokenProcessPool:
                        raise
                    except Exception as error:  # runs beside it go on to their end, and are kept
                        failed = failed or (running[future], error)
                    else:
                        yield record
                    del running[future]
        except BrokenProcessPool as error:
            runs = "; ".join(map(_named, running.values()))
            raise StudyError(
                f"a process died, for want of memory perhaps, in one of these runs: {runs}. The same command goes on "
                "from here, and takes less memory with --processes 1"
            ) from error
        except BaseException:
            near.close()
            raise
    if failed:
        raise _failed(*failed) from failed[1]


def _failed(job: Job, error: Exception) -> StudyError:
    said = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
    return StudyError(f"{_named(job)}: {said}")


def _named(job: Job) -> str:
    return f"{job.case}, {job.method}, seed {job.seed}"


def _prepare(line: Connection) -> None:
    """One thread a process, no ear for Ctrl-C, and no life after the parent's: an orphan would wait for ever."""
    os.environ["OMP_NUM_THREADS"] = "1"  # for a torch that loads later
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes: the parent sees to it
    threading.Thread(target=_follow, args=(line,), daemon=True).start()


def _follow(line: Connection) -> None:
    line.poll(None)  # nothing is ever sent: it ends when the other end is closed
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


def _line(record: Any) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
