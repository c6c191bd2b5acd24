"""The studies: the grid goes on where it was killed, its numbers are those of scipy, every script runs whole."""

from __future__ import annotations

import dataclasses
import importlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from benching import BENCHES, gone
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

sys.path.append(str(BENCHES / "studies"))

# After the path, which leads to them.
import evidence  # isort: skip
import folder  # isort: skip
import grid  # isort: skip
import pages  # isort: skip
import study  # isort: skip

STUDIES = BENCHES / "studies"
SCRIPTS = sorted(path.name for path in STUDIES.glob("*.py") if "\nSTUDY = Study(" in path.read_text(encoding="utf-8"))
MEASURES = evidence.COMMON
PARTS = ("train", "test")


def noted(case: Any, method: str, seed: int) -> dict[str, Any]:
    """A run that costs nothing: mixing gains a point, more or less, and less of it on more rows."""
    rng = np.random.default_rng([seed, case["rows"]])
    base, gain = rng.random(), 0.01 * (method == "mixed") * (1 + rng.random()) / np.log2(case["rows"])
    return {"accuracy": 0.5 + base / 10 + gain, "nll": 1 - gain, "ece": 0.1 + gain, "curve": [base, base + gain]}


CASES = {"few": {"rows": 4, "group": "all"}, "many": {"rows": 64, "group": "all"}}
GRID = grid.Grid("noted", CASES, ("none", "mixed"), 6, noted)


def records() -> list[dict[str, Any]]:
    return [grid.run_job(noted, CASES[job.case], job) for job in GRID.jobs()]


# -- statistics --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=30))
def test_the_interval_is_that_of_a_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    got = evidence.interval(a - b)
    if np.ptp(a - b) > 1e-6:
        expected = stats.ttest_rel(a, b).confidence_interval(0.95)
        assert got["low"] == pytest.approx(expected.low, rel=1e-9, abs=1e-9)
        assert got["high"] == pytest.approx(expected.high, rel=1e-9, abs=1e-9)
    assert got["mean"] == pytest.approx((a - b).mean())
    assert (got["above"], got["below"], got["seeds"]) == ((a > b).sum(), (a < b).sum(), len(a))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [evidence.interval(rng.normal(1, 2, 10)) for _ in range(2000)]
    held = np.mean([one["low"] <= 1 <= one["high"] for one in found])
    assert 0.93 < held < 0.97


def test_one_seed_has_no_interval() -> None:
    with pytest.raises(ValueError, match="expected 2 or more"):
        evidence.interval([0.5])


def test_the_summary_pairs_runs_by_seed_whatever_their_order() -> None:
    runs = records()
    rows = evidence.summary(runs[::-1], CASES, ["none", "mixed"], MEASURES)
    assert rows == evidence.summary(runs, CASES, ["none", "mixed"], MEASURES)
    assert len(rows) == 2 * 2 * 3
    mine = {r["seed"]: r["outcome"]["accuracy"] for r in runs if (r["case"], r["method"]) == ("few", "mixed")}
    base = {r["seed"]: r["outcome"]["accuracy"] for r in runs if (r["case"], r["method"]) == ("few", "none")}
    row = next(r for r in rows if (r["case"], r["method"], r["measure"]) == ("few", "mixed", "accuracy"))
    assert row["mean"] == pytest.approx(np.mean(list(mine.values())))
    assert row["sd"] == pytest.approx(np.std(list(mine.values()), ddof=1))
    assert row["difference"] == evidence.interval([mine[s] - base[s] for s in range(6)])


@pytest.mark.parametrize(
    ("direction", "shift", "verdict"),
    [("higher", 1.0, "shows"), ("higher", -1.0, "opposite"), ("higher", 0.0, "does not show"),
     ("lower", -1.0, "shows"), ("lower", 1.0, "opposite"), ("lower", 0.0, "does not show")],
)  # fmt: skip
def test_a_claim_is_judged_by_the_side_of_zero(direction: str, shift: float, verdict: str) -> None:
    noise = [0.1, -0.1, 0.05, -0.05]
    runs = [
        {"case": "one", "method": method, "seed": seed, "outcome": {"nll": (method == "mixed") * (shift + noise[seed])}}
        for seed in range(4)
        for method in ("none", "mixed")
    ]
    claim = evidence.Claim("it holds", "somebody", "nll", "mixed", direction=direction)
    (found,) = evidence.verdicts(runs, {"one": {}}, [claim], MEASURES)
    assert found["verdict"] == found["cases"]["one"]["verdict"] == verdict
    beginning = {"shows": "Shows", "opposite": "The opposite shows", "does not show": "Does not show"}[verdict]
    assert found["sentence"].startswith(f"{beginning}: NLL {shift:+.4f} [")
    as_claimed = {"shows": 4, "opposite": 0, "does not show": 2}[verdict]
    assert found["sentence"].endswith(f"as claimed on {as_claimed} of 4 seeds.")


@pytest.mark.parametrize(
    ("direction", "within", "shift", "verdict"),
    [("equal", 0.5, 0.0, "shows"), ("equal", 0.5, 0.4, "does not show"), ("equal", 0.5, 1.0, "opposite"),
     ("equal", 0.5, -1.0, "opposite"), ("equal", 0.05, 0.0, "does not show"),
     ("lower", 0.5, 0.2, "shows"), ("lower", 0.5, -9.0, "shows"), ("lower", 0.5, 0.5, "does not show"),
     ("lower", 0.5, 1.0, "opposite"), ("higher", 0.5, -0.2, "shows"), ("higher", 0.5, -1.0, "opposite")],
)  # fmt: skip
def test_a_claim_with_a_margin_asks_for_the_whole_interval_inside_it(
    direction: str, within: float, shift: float, verdict: str
) -> None:
    noise = [0.1, -0.1, 0.05, -0.05]
    runs = [
        {"case": "one", "method": method, "seed": seed, "outcome": {"nll": (method == "mixed") * (shift + noise[seed])}}
        for seed in range(4)
        for method in ("none", "mixed")
    ]
    claim = evidence.Claim("it is as good", "somebody", "nll", "mixed", direction=direction, within=within)
    (found,) = evidence.verdicts(runs, {"one": {}}, [claim], MEASURES)
    assert found["verdict"] == found["cases"]["one"]["verdict"] == verdict
    said = {"equal": f"±{within:.4f} counts as equal"}.get(direction, f"{within:.4f} is allowed")
    assert said in found["sentence"]
    far = [{"equal": abs(d), "lower": d, "higher": -d}[direction] for d in (shift + one for one in noise)]
    held = sum(one <= within if direction == "equal" else one < within for one in far)
    assert found["sentence"].endswith(f"as claimed on {held} of 4 seeds.")


def test_what_is_the_same_in_every_run_is_equal_without_a_margin() -> None:
    runs = [{"case": "one", "method": m, "seed": s, "outcome": {"nll": 0.1 * s}} for s in range(3) for m in ("a", "b")]
    claim = evidence.Claim("the same", "somebody", "nll", "b", "a", "equal")
    (found,) = evidence.verdicts(runs, {"one": {}}, [claim], MEASURES)
    assert (found["verdict"], found["as_claimed"]) == ("shows", 3)
    assert found["sentence"].endswith("where no difference at all counts as equal; as claimed on 3 of 3 seeds.")


def test_a_claim_over_cases_takes_the_mean_of_each_seed() -> None:
    runs = records()
    claim = evidence.Claim("it gains", "somebody", "accuracy", "mixed")
    (found,) = evidence.verdicts(runs, CASES, [claim], MEASURES)
    by_seed = [
        np.mean(
            [
                evidence.values(runs, c, "mixed", "accuracy")[s] - evidence.values(runs, c, "none", "accuracy")[s]
                for c in CASES
            ]
        )
        for s in range(6)
    ]
    assert found["by"] == pytest.approx(evidence.interval(by_seed))
    few = evidence.Claim("it gains", "somebody", "accuracy", "mixed", where={"rows": 4})
    (one,) = evidence.verdicts(runs, CASES, [few], MEASURES)
    assert list(one["cases"]) == ["few"]
    assert evidence.verdicts(runs, CASES, [evidence.Claim("", "", "nll", "mixed", where={"rows": 5})], MEASURES) == []


def test_a_trend_is_the_slope_of_each_seed() -> None:
    runs = records()
    claim = evidence.Claim(
        "less data, more gain", "somebody", "accuracy", "mixed", direction="lower", slope_over="rows"
    )
    (found,) = evidence.verdicts(runs, CASES, [claim], MEASURES)
    gain = {
        c: evidence.values(runs, c, "mixed", "accuracy") - evidence.values(runs, c, "none", "accuracy") for c in CASES
    }
    slopes = [np.polyfit([2, 6], [gain["few"][s], gain["many"][s]], 1)[0] for s in range(6)]
    assert found["by"] == pytest.approx(evidence.interval(slopes))
    assert found["verdict"] == "shows"
    assert "for every doubling of rows" in found["sentence"]


# -- the grid ----------------------------------------------------------------------------------------------------------


def test_what_was_done_is_not_done_again_and_a_half_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "noted.runs.jsonl"
    file = grid.WorkFile(path, "abc")
    first = [grid.run_job(noted, CASES[job.case], job) for job in GRID.jobs()[:5]]
    first[0]["outcome"]["accuracy"] = -1.0  # as no run gives it: it must have been kept
    for record in first:
        file.add(record)
    with path.open("a", encoding="utf-8") as handle:
        handle.write('{"case": "few", "met')
    again = grid.WorkFile(path, "abc")
    assert list(again.done.values()) == first
    found = grid.run_grid(GRID, again, 1)
    assert [grid.Job(r["case"], r["method"], r["seed"]) for r in found] == GRID.jobs()
    assert found[:5] == first
    assert [r["outcome"] for r in found[5:]] == [r["outcome"] for r in records()[5:]]
    assert list(grid.WorkFile(path, "abc").done.values()) == found


def test_runs_of_other_settings_are_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "noted.runs.jsonl"
    grid.run_grid(GRID, grid.WorkFile(path, "abc"), 1)
    before = path.read_bytes()
    with pytest.raises(grid.StudyError, match="--fresh"):
        grid.WorkFile(path, "other")
    assert path.read_bytes() == before
    assert grid.WorkFile(path, "other", fresh=True).done == {}


def test_a_fingerprint_tells_cases_methods_and_data_apart() -> None:
    other = [
        GRID.fingerprint({"data": 2}),
        grid.Grid("noted", {**CASES, "few": {"rows": 5}}, GRID.methods, 6, noted).fingerprint({"data": 1}),
        grid.Grid("noted", CASES, ("none",), 6, noted).fingerprint({"data": 1}),
    ]
    assert GRID.fingerprint({"data": 1}) not in other
    more_seeds = grid.Grid("noted", CASES, GRID.methods, 12, noted)
    assert more_seeds.fingerprint({"data": 1}) == GRID.fingerprint({"data": 1})


def broken(case: Any, method: str, seed: int) -> dict[str, Any]:
    return {"accuracy": float("nan")} if seed else noted(case, method, seed)


def test_a_run_that_gives_no_number_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    file = grid.WorkFile(tmp_path / "broken.runs.jsonl", "abc")
    with pytest.raises(grid.StudyError, match=r"few, none, seed 1: ValueError: accuracy is nan"):
        grid.run_grid(grid.Grid("broken", CASES, ("none", "mixed"), 2, broken), file, 1)
    assert len(file.done) == 4


SLOW = """
import os, sys, time
sys.path.insert(0, {folder!r})
from study import Study, run_study

def work(case, method, seed):
    time.sleep(case["nap"])
    return {{"accuracy": 0.5 + 0.1 * (method == "mixed") + 0.01 * seed, "nll": 1.0, "ece": 0.1, "process": os.getpid()}}

STUDY = Study("slow", "Naps", "Do naps help?", lambda profile: {{"nap": {{"nap": 0.15, "files": []}}}},
              {{"none": "awake", "mixed": "asleep"}}, work, [], seeds=12)

if __name__ == "__main__":
    raise SystemExit(run_study(STUDY, sys.argv[1:]))
"""


def kept_in(work: Path) -> list[dict[str, Any]]:
    """The runs of whole lines."""
    lines = work.read_text(encoding="utf-8").splitlines(keepends=True)[1:] if work.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def processes_of(runs: list[dict[str, Any]]) -> set[int]:
    return {run["outcome"]["process"] for run in runs}


def test_a_killed_study_goes_on_in_two_processes_and_leaves_no_orphans(tmp_path: Path) -> None:
    script, out = tmp_path / "slow.py", tmp_path / "slow.json"
    script.write_text(SLOW.format(folder=str(STUDIES)), encoding="utf-8")
    command = [sys.executable, str(script), "--out", str(out)]
    work = tmp_path / "slow.runs.jsonl"
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (len(kept_in(work)) < 5 or len(processes_of(kept_in(work))) < 2):
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = kept_in(work)
    assert 4 < len(kept) < 24
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = study.read(out)
    assert report["done_now"] < 24
    assert processes_of(report["runs"]) > processes_of(kept)
    assert len(processes_of(report["runs"])) == 4
    assert not work.exists()
    for process in processes_of(report["runs"]):
        assert gone(process)


# -- the data folder ---------------------------------------------------------------------------------------------------


def test_a_missing_folder_and_a_missing_file_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(folder.VARIABLE, raising=False)
    with pytest.raises(grid.StudyError, match=r"MIXOPS_DATA is not set: expected the folder that holds text/a\.tsv"):
        folder.data_file("text/a.tsv")
    monkeypatch.setenv(folder.VARIABLE, str(tmp_path))
    with pytest.raises(grid.StudyError, match=r"there is no text/a\.tsv"):
        folder.digests(["text/a.tsv"])


def test_images_are_read_as_they_are_and_from_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(folder.VARIABLE, str(tmp_path))
    x = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 6), np.uint8)
    y = np.arange(4)
    planes = np.stack([x[:, 1], x[:, 0] - x[:, 1], x[:, 2] - x[:, 1]], 1)
    d = np.diff(np.diff(planes, axis=2, prepend=np.uint8(0)), axis=3, prepend=np.uint8(0))
    np.savez(tmp_path / "plain.npz", x_train=x, y_train=y, x_test=x[:2, 0], y_test=y[:2])
    np.savez(tmp_path / "packed.npz", d_train=d, y_train=y, x_test=x, y_test=y)
    np.savez(tmp_path / "neither.npz", z=y)
    for name in ("plain.npz", "packed.npz"):
        assert np.array_equal(folder.images(name)[0], x)
    assert folder.images("plain.npz")[2].shape == (2, 1, 5, 6)
    with pytest.raises(grid.StudyError, match="expected y_train, y_test, x_train"):
        folder.images("neither.npz")


@pytest.mark.parametrize(
    "odd",
    [{"x_test": np.zeros((4, 6, 5, 3), np.uint8)}, {"x_test": np.zeros((4, 6, 5), np.float32)},
     {"x_test": np.zeros((3, 6, 5), np.uint8)}, {"x_test": np.zeros((4, 6), np.uint8)}, {"y_test": np.zeros(4)}],
    ids=["channels last", "floats", "too few", "no images", "no classes"],
)  # fmt: skip
def test_images_that_are_no_bytes_or_lie_otherwise_or_do_not_fit_their_labels_are_refused(
    odd: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv(folder.VARIABLE, str(tmp_path))
    fine = {f"{one}_{part}": np.zeros((4, 6, 5)[: 3 if one == "x" else 1], np.uint8) for one in "xy" for part in PARTS}
    name = f"{request.node.callspec.id}.npz"
    np.savez(tmp_path / name, **{**fine, **odd})
    with pytest.raises(grid.StudyError, match=r"holds images .*, expected uint8 \(N, H, W\) or"):
        folder.images(name)


# -- the scripts -------------------------------------------------------------------------------------------------------


def loaded(script: str) -> Any:
    module = importlib.import_module(Path(script).stem)
    return module.STUDY


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_study_runs_whole_on_made_up_data_and_its_page_is_made_from_the_json_alone(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, out = loaded(script), tmp_path / "tiny.json"
    monkeypatch.delenv(folder.VARIABLE, raising=False)
    said = ["--tiny", "--seeds", "2", "--processes", "1", "--out", str(out)]
    assert study.run_study(one, said) == 0, capsys.readouterr().err
    printed, report = capsys.readouterr().out, study.read(out)
    assert len(report["runs"]) == len(report["cases"]) * len(report["methods"]) * 2
    assert report["data"] == {}
    assert report["verdicts"]
    assert all(v["sentence"] in printed for v in report["verdicts"])
    written = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name != out.name}
    assert {Path(name).suffix for name in written} == {".md", ".svg"}
    page = written["tiny.md"].decode()
    assert all(f"![{name}]({name})" in page for name in written if name.endswith(".svg"))
    assert all(v["sentence"] in page for v in report["verdicts"])
    assert str(tmp_path) not in page + out.read_text(encoding="utf-8")
    for name in written:
        if name.endswith(".svg"):
            ElementTree.fromstring(written[name])
        (tmp_path / name).unlink()
    monkeypatch.setattr(study, "run_grid", None)
    assert study.run_study(one, ["--page", "--out", str(out)]) == 0
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name != out.name} == written


@pytest.mark.parametrize("script", SCRIPTS)
def test_runs_of_a_seed_are_the_same_twice_and_depend_on_it(script: str) -> None:
    one = loaded(script)
    case, method = next(iter(one.cases("tiny").values())), list(one.methods)[-1]
    jobs = [grid.Job("any", method, seed) for seed in (0, 0, 1)]
    first, again, other = (deterministic(grid.run_job(one.work, case, job)["outcome"]) for job in jobs)
    assert first == again
    assert first != other


def deterministic(outcome: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in outcome.items() if "seconds" not in name}


def test_a_study_without_its_data_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(folder.VARIABLE, raising=False)
    readers = [one for one in map(loaded, SCRIPTS) if any(case.get("files") for case in one.cases("default").values())]
    assert len(readers) >= 7
    for one in readers:
        assert study.run_study(one, ["--out", str(tmp_path / "out.json")]) == 1
        assert "MIXOPS_DATA is not set" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("profile", ["default", "full", "tiny"])
def test_every_claim_speaks_of_a_method_and_a_measure_that_are_there(script: str, profile: str) -> None:
    one = loaded(script)
    cases = one.cases(profile)
    assert json.loads(json.dumps(cases)) == cases
    for claim in one.claims:
        assert {claim.method, claim.against} <= set(one.methods)
        assert claim.measure in one.every_measure
        assert claim.direction in ("higher", "lower", "equal")
        assert claim.within >= 0
    if profile != "tiny":
        assert all(any(claim.applies(case) for case in cases.values()) for claim in one.claims)
        assert one.seeds >= 5


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--tiny"], "need --out"), (["--seeds", "3"], "need --out"), (["--seeds", "1"], "2 seeds"),
     (["--full", "--tiny"], "one of them")],
)  # fmt: skip
def test_wrong_options_are_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    one = study.Study("noted", "Notes", "?", lambda profile: CASES, {"none": "", "mixed": ""}, noted, [])
    with pytest.raises(SystemExit):
        study.run_study(one, words)
    assert said in capsys.readouterr().err


def test_a_study_of_times_runs_one_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = study.Study("noted", "Notes", "?", lambda profile: CASES, {"none": "", "mixed": ""}, noted, [], alone=True)
    with pytest.raises(SystemExit):
        study.run_study(one, ["--processes", "2"])
    assert "--processes 2: this study takes times, expected 1" in capsys.readouterr().err
    assert study.run_study(one, ["--out", str(tmp_path / "out.json")]) == 0
    assert study.read(tmp_path / "out.json")["processes"] == 1


def test_a_page_without_a_result_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = study.Study("noted", "Notes", "?", lambda profile: CASES, {"none": "", "mixed": ""}, noted, [])
    assert study.run_study(one, ["--page", "--out", str(tmp_path / "none.json")]) == 1
    assert "run the study without --page first" in capsys.readouterr().err


def test_a_report_is_put_in_other_words_and_judged_by_other_claims_on_the_runs_that_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    one = study.Study("noted", "Notes", "?", lambda profile: CASES, {"none": "", "mixed": ""}, noted, [], seeds=6)
    assert study.run_study(one, ["--processes", "1", "--out", str(out)]) == 0
    before = study.read(out)
    monkeypatch.setattr(study, "run_grid", None)
    reword = ["--reword", "--out", str(out)]
    assert study.run_study(one, reword) == 0
    assert study.read(out) == before
    claim = evidence.Claim("it gains", "somebody", "accuracy", "mixed")
    other = dataclasses.replace(one, title="Other notes", claims=[claim])
    assert study.run_study(other, reword) == 0
    after = study.read(out)
    assert {name for name in after if after[name] != before[name]} == {"title", "verdicts"}
    found = study.run_study(dataclasses.replace(other, cases=lambda profile: {"few": CASES["few"]}), reword)
    assert (found, study.read(out)) == (1, after)
    assert "of other cases than the study has now: run it again" in capsys.readouterr().err
    page = out.with_suffix(".md").read_text(encoding="utf-8")
    assert page.startswith("# Other notes\n")
    assert after["verdicts"][0]["sentence"] in page
    assert [v["verdict"] for v in after["verdicts"]] == ["shows"]


@pytest.mark.parametrize("path", sorted((BENCHES / "results" / "studies").glob("*.json")), ids=lambda p: p.stem)
def test_a_committed_page_says_what_its_json_says(path: Path) -> None:
    report = study.read(path)
    assert report["profile"] in ("default", "full")
    assert report["seeds"] >= 5
    page = path.with_suffix(".md").read_text(encoding="utf-8")
    one = loaded(report["study"])
    figures = [f"{path.stem}_{name}.svg" for name in ("differences", *one.figures)]
    assert page == pages.markdown(report, figures), f"python -m benches.studies {one.name} --page"
    assert all(path.with_name(name).is_file() for name in figures)
    said = report["title"], report["question"], report["notes"], report["methods"]
    claims = [c for c in one.claims if any(map(c.applies, report["cases"].values()))]
    reword = f"python -m benches.studies {one.name} --reword"
    assert said == (one.title, one.question, list(one.notes), dict(one.methods)), reword
    assert [(v["claim"], v["source"], v["paper"]) for v in report["verdicts"]] == [
        (c.text, c.source, c.paper) for c in claims
    ], reword
    again = evidence.summary(report["runs"], report["cases"], list(report["methods"]), one.every_measure)
    stated = {(r["case"], r["method"], r["measure"]): r for r in report["summary"]}
    for row in again:
        kept = stated[row["case"], row["method"], row["measure"]]
        assert kept["mean"] == pytest.approx(row["mean"], rel=1e-4)
        assert (kept["difference"] is None) == (row["difference"] is None)
