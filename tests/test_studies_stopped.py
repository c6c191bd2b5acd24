"""A study that is stopped, fails or is asked for what cannot be: nothing done is lost, and it says what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from benching import BENCHES, gone

sys.path.append(str(BENCHES / "studies"))

# After the path, which leads to them.
import grid  # isort: skip
import study  # isort: skip

CASES = {"any": {"group": "all"}}
#: Runs that another process can import: seed 0 is done at once, seed 1 is what the test is about.
RUNS = """
import os, time
from pathlib import Path

HERE = Path(__file__).parent

def result(method):
    return {"accuracy": 0.5 + 0.1 * (method == "mixed"), "nll": 1.0, "ece": 0.1, "process": os.getpid()}

def naps(case, method, seed):
    time.sleep(100 * seed)
    return result(method)

def fails(case, method, seed):
    if seed and method == "none":
        while not (HERE / "beside").exists():
            time.sleep(0.01)
        raise ValueError("no such number")
    if seed:
        (HERE / "beside").touch()
        time.sleep(0.5)
    return result(method)

def dies(case, method, seed):
    if seed:
        while (HERE / "dies.runs.jsonl").read_bytes().count(b"\\n") < 3:
            time.sleep(0.01)
        os._exit(9)
    return result(method)
"""
# Whoever runs the tests in the background may have switched the signal off for all that it starts.
SCRIPT = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = {paths!r}
import runs_of_a_test
from study import Study, run_study

CASES = {{"any": {{}}}}
STUDY = Study("naps", "Naps", "?", lambda _: CASES, {{"none": "", "mixed": ""}}, runs_of_a_test.naps, [], seeds=3)

if __name__ == "__main__":
    raise SystemExit(run_study(STUDY, sys.argv[1:]))
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "runs_of_a_test.py").write_text(RUNS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    import runs_of_a_test

    yield runs_of_a_test
    del sys.modules["runs_of_a_test"]


def noted(case: Any, method: str, seed: int) -> dict[str, Any]:
    return {"accuracy": 0.5 + 0.1 * (method == "Mixup α") + seed / 100, "nll": 1.0, "ece": 0.1}


def the_study(cases: Any = CASES) -> study.Study:
    return study.Study("noted", "Notes", "?", lambda profile: cases, {"none": "", "Mixup α": ""}, noted, [], seeds=2)


# -- stopped, failed, died ---------------------------------------------------------------------------------------------


def test_ctrl_c_ends_all_processes_at_once_and_keeps_what_is_done(runs: Any, tmp_path: Path) -> None:
    script, out = tmp_path / "naps.py", tmp_path / "naps.json"
    script.write_text(SCRIPT.format(paths=[str(BENCHES / "studies"), str(tmp_path)]), encoding="utf-8")
    command, work = [sys.executable, str(script), "--out", str(out)], tmp_path / "naps.runs.jsonl"
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not work.exists() or work.read_text(encoding="utf-8").count("\n") < 3):
        time.sleep(0.05)
    time.sleep(0.5)  # into the naps of 100 seconds
    os.killpg(started.pid, signal.SIGINT)
    try:
        _, said = started.communicate(timeout=20)
    finally:
        started.kill()
    assert started.returncode == 1
    assert said.splitlines()[-1] == "naps: stopped; the same command goes on from here"
    assert "Traceback" not in said
    kept = [json.loads(line) for line in work.read_text(encoding="utf-8").splitlines()[1:]]
    assert sorted((one["method"], one["seed"]) for one in kept) == [("mixed", 0), ("none", 0)]
    assert all(gone(one["outcome"]["process"]) for one in kept)


def test_what_runs_beside_a_run_that_fails_is_kept_and_nothing_new_begins(runs: Any, tmp_path: Path) -> None:
    file = grid.WorkFile(tmp_path / "fails.runs.jsonl", "abc")
    with pytest.raises(grid.StudyError, match="any, none, seed 1: ValueError: no such number"):
        grid.run_grid(grid.Grid("fails", CASES, ("none", "mixed"), 3, runs.fails), file, 2)
    assert sorted((job.seed, job.method) for job in file.done) == [(0, "mixed"), (0, "none"), (1, "mixed")]


def test_a_process_that_dies_is_told_from_a_run_that_fails(runs: Any, tmp_path: Path) -> None:
    file = grid.WorkFile(tmp_path / "dies.runs.jsonl", "abc")
    with pytest.raises(grid.StudyError, match=r"a process died, .*any, none, seed 1.*--processes 1"):
        grid.run_grid(grid.Grid("dies", CASES, ("none", "mixed"), 2, runs.dies), file, 2)
    assert sorted(file.done) == [("any", "mixed", 0), ("any", "none", 0)]


# -- the runs that are done --------------------------------------------------------------------------------------------


def test_whatever_a_kill_has_cut_off_the_whole_lines_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "noted.runs.jsonl"
    file = grid.WorkFile(path, "abc")
    job = grid.Job("any", "Mixup α", 0)
    file.add(grid.run_job(noted, CASES["any"], job))
    whole = path.read_bytes()
    line = whole.splitlines(keepends=True)[1]
    for end in range(len(line)):  # in the middle of a letter of two bytes, too
        path.write_bytes(whole + line[:end])
        assert list(grid.WorkFile(path, "abc").done) == [job]
        assert path.read_bytes() == whole


@pytest.mark.parametrize("line", ["{", "3", '{"case": "any"}', "\0\0"])
def test_a_broken_file_of_runs_is_named_and_stays_as_it_is(line: str, tmp_path: Path) -> None:
    path = tmp_path / "noted.runs.jsonl"
    grid.WorkFile(path, "abc")
    path.write_bytes(path.read_bytes() + line.encode() + b"\n")
    before = path.read_bytes()
    with pytest.raises(grid.StudyError, match=r"noted\.runs\.jsonl is broken: .*--fresh"):
        grid.WorkFile(path, "abc")
    assert path.read_bytes() == before
    assert grid.WorkFile(path, "abc", fresh=True).done == {}


def test_the_same_study_twice_at_once_is_noticed_and_what_the_other_wrote_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "noted.runs.jsonl"
    first, second = (grid.WorkFile(path, "abc") for _ in range(2))
    records = [grid.run_job(noted, CASES["any"], grid.Job("any", "none", seed)) for seed in (0, 1)]
    first.add(records[0])
    before = path.read_bytes()
    with pytest.raises(grid.StudyError, match="does the same study run twice"):
        second.add(records[1])
    assert path.read_bytes() == before
    first.add(records[1])
    assert list(grid.WorkFile(path, "abc").done.values()) == records


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "is no report of a study"), ("[1]", "is no report of a study"), ("{}", "version None, expected 2"),
     ('{"schema": 1}', "version 1, expected 2"), ('{"schema": 2, "study": "methods"}', "is of the study methods")],
)  # fmt: skip
def test_a_json_that_is_no_report_of_this_study_gives_no_page(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "noted.json"
    out.write_text(text, encoding="utf-8")
    assert study.run_study(the_study(), ["--page", "--out", str(out)]) == 1
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["noted.json"]


@pytest.mark.parametrize("name", ["noted.md", "noted", "folder.json"])
def test_a_place_that_the_page_would_write_over_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(SystemExit):
        study.run_study(the_study(), ["--out", str(tmp_path / name)])
    assert "expected a file NAME.json" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["folder.json"]


def test_a_place_that_cannot_be_written_is_named_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    assert study.run_study(the_study(), ["--out", str(tmp_path / "file" / "noted.json")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("noted: [Errno ")
    assert str(tmp_path / "file") in said


def test_a_data_set_to_fetch_is_asked_for_once_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MIXOPS_DATA", raising=False)
    cases = {"one": {"fetch": "CIFAR10"}, "two": {"fetch": "CIFAR10"}, "none": {"fetch": ""}}
    assert study.run_study(the_study(cases), ["--out", str(tmp_path / "noted.json")]) == 1
    assert capsys.readouterr().err.startswith("noted: MIXOPS_DATA is not set: expected the folder that holds CIFAR10;")
    assert list(tmp_path.iterdir()) == []


def test_a_page_names_the_settings_that_are_used(tmp_path: Path) -> None:
    case = {"files": [], "fetch": "", "rows": 0, "blocks": [1, 2], "drops": [], "weight_decay": 0.0, "rate": 0.1}
    assert study.run_study(the_study({"one": case}), ["--processes", "1", "--out", str(tmp_path / "noted.json")]) == 0
    page = (tmp_path / "noted.md").read_text(encoding="utf-8")
    assert "\n\nSettings: blocks (1, 2), weight_decay 0, rate 0.1.\n\n" in page
