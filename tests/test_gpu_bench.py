"""The bench of a GPU: without one all of it runs on the kernel that g++ compiles, and its report says what it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benching import BENCHES
from host_chip import on_the_host

import mixops as mx

# After benching, which puts the benchmark's folder on the path; what imports its peers runs in processes of its own.
import gpu_check  # isort: skip
import gpu_lab  # isort: skip
import gpu_operator_rows  # isort: skip
import gpu_timing  # isort: skip
import report  # isort: skip
from harness import Contender, Ratio  # isort: skip

ROOT = BENCHES.parent
RESULT = BENCHES / "results" / "gpu.json"


def bench(*words: object, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-m", "benches.bench_gpu"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *start, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env={**os.environ, "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""},
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The report of a tiny run over all rows, and where it was written."""
    out = tmp_path_factory.mktemp("run") / "gpu.json"
    done = bench("--tiny", "--rounds", 1, "--out", out)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    written = json.loads(out.read_text(encoding="utf-8"))
    report.check(written)
    return written, out


# -- the whole run -----------------------------------------------------------------------------------------------------


def test_every_row_is_measured_and_every_contender_held_to_the_reference(tiny: tuple[dict[str, Any], Path]) -> None:
    rows = {row["name"]: row for row in tiny[0]["rows"]}
    assert tiny[0]["failures"] == []
    for name in set(rows) - {"copies", "launches", "loader"}:
        differences = {c["name"]: c["difference"] for c in rows[name]["contenders"]}
        unchecked = {who for who, off in differences.items() if off is None}
        assert unchecked <= {"copy", "floor", "kornia RandomMixUpV2, own draws", "a Plan, drawn for the call"}, name


def test_what_is_aimed_at_is_in_the_report(tiny: tuple[dict[str, Any], Path]) -> None:
    aims = {
        (row["name"], line["what"]): (line["bound"], line["target"])
        for row in tiny[0]["rows"]
        for line in row["lines"]
        if line["target"] is not None
    }
    least = {
        ("chain-bfloat16", "timm's chain ÷ mixops"): 7,
        ("chain-bfloat16", "torchvision's chain, a box for all ÷ mixops, a box for all"): 7,
        ("cutmix-inplace-bfloat16", "timm CutMix, mode=batch ÷ mixops"): 4,
        ("elem-mixup-bfloat16", "timm Mixup, mode=elem ÷ mixops"): 50,
        ("elem-cutmix-bfloat16", "timm CutMix, mode=elem ÷ mixops"): 50,
        ("small-float32", "two operations of torch ÷ mixops"): 1,
        ("operators-images", "Mixup ÷ RandomErasing, pixel noise"): 0.85,
        ("operators-states", "Mixup ÷ HiddenCut"): 0.85,
        ("operators-ids", "copy ÷ SSMix"): 0.85,
    }
    for dtype in ("float32", "bfloat16"):
        for row in (f"mixup-{dtype}", f"mixup-inplace-{dtype}"):
            least[row, "copy ÷ mixops"] = 0.85
            least[row, "torch.compile ÷ mixops"] = 1.2
        least[f"mixup-{dtype}", "timm Mixup, in place ÷ mixops"] = 3.5
        least[f"mixup-{dtype}", "torchvision v2 MixUp ÷ mixops"] = 3.5
        least[f"mixup-inplace-{dtype}", "timm Mixup, mode=batch ÷ mixops"] = 3.5
    for place, target in least.items():
        assert aims[place] == ("at least", target)
    for way in ("a Plan", "a Plan, kept output", "a DevicePlan", "a Plan written into a DevicePlan"):
        assert aims["host", f"host, {way}"] == ("at most", pytest.approx(15))


def test_a_run_without_a_gpu_says_that_it_is_none(tiny: tuple[dict[str, Any], Path]) -> None:
    written, out = tiny
    assert written["benchmark"].startswith("no GPU")
    assert written["environment"]["gpu"]["name"].startswith("none")
    assert all(row["notes"][0].startswith("no GPU") for row in written["rows"])
    for page in (out.with_suffix(".md"), out.with_suffix(".html")):
        assert written["environment"]["gpu"]["name"] in page.read_text(encoding="utf-8")


def test_a_report_that_says_of_its_gpu_what_is_no_text_is_refused(tiny: tuple[dict[str, Any], Path]) -> None:
    spoilt = tiny[0] | {"environment": tiny[0]["environment"] | {"gpu": {"name": 200}}}
    with pytest.raises(ValueError, match=r"environment\.gpu\.name"):
        report.check(spoilt)


def test_bytes_are_each_input_and_each_result_once(tiny: tuple[dict[str, Any], Path]) -> None:
    moved = {row["name"]: row["bytes_moved"] for row in tiny[0]["rows"]}
    count = 4 * 3 * 16 * 16
    assert moved["mixup-float32"] == 2 * 4 * count
    assert moved["mixup-inplace-bfloat16"] == 2 * 2 * count
    assert moved["chain-bfloat16"] == moved["nhwc-nchw"] == (1 + 2) * count
    assert moved["chain-float32"] == (1 + 4) * count
    assert moved["odd-uint8"] == 2 * 3 * 3 * 5 * 5
    assert moved["operators-ids"] == 2 * 8 * 6 * 24
    assert 0 < moved["cutmix-inplace-bfloat16"] < moved["mixup-bfloat16"]


def test_contenders_that_do_other_work_fail_their_row_alone(tmp_path: Path) -> None:
    code = (
        "import sys; from benches import bench_gpu; import gpu_peers\n"
        "gpu_peers.torchvision = lambda plans: lambda images, k: images.clone()\n"
        "raise SystemExit(bench_gpu.main(sys.argv[1:]))"
    )
    out = tmp_path / "gpu.json"
    rows = "mixup-float32,mixup-inplace-float32"
    done = bench("--tiny", "--rounds", 1, "--rows", rows, "--out", out, code=code)
    assert done.returncode == 1
    written = json.loads(out.read_text(encoding="utf-8"))
    (failed,) = written["failures"]
    assert failed["name"] == "mixup-float32"
    assert "torchvision v2 MixUp is off by" in failed["error"]
    assert [row["name"] for row in written["rows"]] == ["mixup-inplace-float32"]


#: Calls of the command one after the other in one process, as loading it takes seconds: [status, out, err] of each.
SERIES = """
import contextlib, io, json, sys
from benches import bench_gpu
said = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = bench_gpu.main(words)
        except SystemExit as refused:
            status = refused.code
    said.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(said))
"""
REFUSED = [
    (["--tiny", "--out", str(RESULT)], "a tiny run is none"),
    (["--tiny"], "--tiny and --rows need --out"),
    (["--rows", "mixup*"], "--tiny and --rows need --out"),
    (["--rows", "mixdown", "--out", "x.json"], "--rows mixdown"),
    (["--rounds", "0"], "--rounds 0"),
]


def test_what_makes_no_result_is_refused_and_without_a_gpu_one_line_says_so(
    tmp_path: Path, tiny: tuple[dict[str, Any], Path]
) -> None:
    out = tmp_path / "gpu.json"
    words = [*(words for words, _ in REFUSED), ["--out", str(out)], ["--list"]]
    done = bench(json.dumps(words), code=SERIES)
    assert done.returncode == 0, done.stderr
    *refused, without, listed = json.loads(done.stdout)
    for (status, printed, error), (_, told) in zip(refused, REFUSED, strict=True):
        assert (status, printed) == (2, "")
        assert told in error
    assert without[:2] == [2, ""]
    assert without[2].count("\n") == 1
    assert "no CUDA GPU" in without[2]
    assert list(tmp_path.iterdir()) == []
    assert [line.split()[0] for line in listed[1].splitlines()] == [row["name"] for row in tiny[0]["rows"]]


# -- rows --------------------------------------------------------------------------------------------------------------


def test_every_operator_of_the_library_has_its_place() -> None:
    def kinds(op: mx.Operator) -> set[str]:
        inner = [*getattr(op, "ops", ()), *([op.op] if hasattr(op, "op") else [])]
        return {type(op).__name__}.union(*map(kinds, inner))

    tables = (gpu_operator_rows.IMAGES, gpu_operator_rows.STATES, gpu_operator_rows.IDS, gpu_operator_rows.EDITS)
    timed = set().union(*(kinds(op) for table in tables for op in table.values()))
    assert timed == set(mx.operators())


def test_the_donors_of_a_mix_are_what_it_reads_besides_each_input_once() -> None:
    def plan(opacity: list[float], box: list[int]) -> mx.Plan:
        boxes = np.tile(np.array(box, np.int32), (2, 1, 1))
        shares = np.array(opacity, np.float32)[:, None]
        zero = np.zeros((2, 1), np.float32)
        return mx.Plan(np.arange(2), np.array([[1], [0]]), boxes, boxes, shares, zero, (4, 10))

    half = [0, 4, 0, 5]
    assert gpu_lab.donors([plan([0.5, 0.5], half)], 1e6) == pytest.approx(1.0)
    assert gpu_lab.donors([plan([1.0, 1.0], half)], 1e6) == 0  # a paste reads the donor in place of the own
    assert gpu_lab.donors([plan([0.5, 0.0], half), plan([0.0, 0.0], half)], 1e6) == pytest.approx(0.25)
    painted = mx.Plan(np.arange(1), [[-1]], [[half]], [[half]], [[0.5]], [[0.0]], (4, 10))
    assert gpu_lab.donors([painted], 1e6) == 0


LAB = gpu_lab.Lab(torch.device("cpu"), gpu_timing.HostClock(), large=(4, 8), draws=2, rotated=1)


def images() -> tuple[gpu_lab.Work, list[mx.Plan]]:
    work = gpu_lab.Work(LAB.images(LAB.large, "float32"))
    return work, LAB.plans(mx.CutMix(), mx.Spec(4, (8, 8)))


def test_a_result_that_is_not_written_everywhere_is_off() -> None:
    work, plans = images()
    kept = LAB.empty((4, 3, 8, 8), "float32")
    with on_the_host():
        assert work.difference(LAB, work.ours(plans), plans) == 0
        assert work.difference(LAB, work.ours(plans, out=kept), plans) == 0
        assert work.difference(LAB, work.ours(plans[::-1]), plans) > 0
    hole = kept.clone()
    hole[0, 0, 0, 0] = LAB.empty((1,), "float32")[0]
    assert not work.difference(LAB, lambda x, k: hole, plans) <= 1e9


def test_contenders_whose_package_is_missing_are_left_out_with_a_note() -> None:
    work, plans = images()
    offers = [
        gpu_lab.Offer("mixops", lambda: work.ours(plans), plans, True),
        gpu_lab.Offer("absent", lambda: pytest.fail("made"), plans, package="no_such_package_at_all"),
    ]
    made = gpu_lab.row(
        LAB, "name", "title", work, offers, [Ratio("absent", "mixops"), Ratio("copy", "mixops")], moved=1
    )
    assert [c.name for c in made.contenders] == ["mixops"]
    assert [ratio.over for ratio in made.ratios] == ["copy"]
    assert made.notes == ("absent is not there: no_such_package_at_all is not installed",)


# -- timing ------------------------------------------------------------------------------------------------------------


class LoggingClock(gpu_timing.HostClock):
    """Keeps a diary beside its work."""

    def __init__(self) -> None:
        self.diary: list[str] = []

    def wait(self) -> None:
        self.diary.append("wait")

    def spin(self, seconds: float) -> None:
        self.diary.append("spin")

    def mark(self) -> float:
        self.diary.append("mark")
        return super().mark()


def timed(clock: gpu_timing.Clock, *contenders: Contender, rounds: int = 2, **options: Any) -> dict[str, Any]:
    made = gpu_timing.GpuRow("naps", "how long a nap takes", [None], 2, contenders, **options)
    return gpu_timing.measure(made, rounds, clock, torch.device("cpu"), 1 << 20)


def test_a_burst_starts_behind_a_full_queue_and_is_waited_for() -> None:
    clock = LoggingClock()
    nap = Contender("nap", lambda x, k: clock.diary.append(f"call {k}"))
    timed(clock, nap, bursts=2)
    burst = ["wait", "spin", "mark", "call 0", "call 1", "call 0", "call 1", "mark", "wait"]
    assert clock.diary[:4] == ["wait", "call 0", "call 1", "wait"]  # first calls, apart
    assert clock.diary[4:] == 3 * burst  # one round to warm up, two that count


@pytest.mark.parametrize("by", ["device", "loop", "host"])
def test_times_are_those_of_one_call(by: str) -> None:
    nap = Contender("nap", lambda x, k: time.sleep(0.003), True)
    doze = Contender("doze", lambda x, k: time.sleep(0.03))
    made = timed(gpu_timing.HostClock(), nap, doze, by=by, ratios=[Ratio("doze", "nap", at_least=1)], host=True)
    ms = {c["name"]: c["ms"]["median"] for c in made["contenders"]}
    assert 3 <= ms["nap"] < 30 <= ms["doze"]
    lines = {line["what"]: line for line in made["lines"]}
    assert lines["doze ÷ nap"]["met"]
    assert 3000 <= lines["host, nap"]["median"] < 30000
    assert any(note.startswith("first pass over the draws: nap ") for note in made["notes"])


def test_a_contender_that_is_off_is_never_timed() -> None:
    for off in (1.0, float("nan")):
        wrong = Contender("wrong", lambda x, k: None, check=lambda off=off: off)  # type: ignore[misc]
        with pytest.raises(ValueError, match="wrong is off by"):
            timed(gpu_timing.HostClock(), wrong, tolerance=0.5)


def test_a_peer_that_cannot_be_called_is_left_out_and_ours_is_not() -> None:
    def broken(x: Any, k: int) -> None:
        raise RuntimeError("no compiler")

    nap = Contender("nap", lambda x, k: time.sleep(1e-4), True)
    ratios = [Ratio("peer", "nap"), Ratio("copy", "nap")]
    made = timed(gpu_timing.HostClock(), nap, Contender("peer", broken), ratios=ratios, result=64)
    assert [c["name"] for c in made["contenders"]] == ["nap", "copy"]
    assert [line["what"] for line in made["lines"]] == ["copy ÷ nap"]
    assert "peer could not be run: RuntimeError: no compiler" in made["notes"]
    with pytest.raises(RuntimeError, match="no compiler"):
        timed(gpu_timing.HostClock(), Contender("ours", broken, True))


@pytest.mark.gpu
def test_the_clock_of_a_gpu_tells_how_long_it_was_busy_and_not_how_long_the_host_took() -> None:
    clock = gpu_timing.EventClock(torch.device("cuda", torch.cuda.current_device()))
    took = gpu_timing._device(clock, [lambda: clock.spin(5e-3)] * 4)
    assert took == pytest.approx(5e-3, rel=0.3)
    idle = gpu_timing._device(clock, [lambda: time.sleep(1e-4)])
    assert idle < 1e-3  # the host sleeps while the queue is still full
    assert gpu_timing._host(clock, [lambda: clock.spin(5e-3)] * 4) < 1e-3
    assert gpu_timing._loop(clock, [lambda: clock.spin(5e-3)] * 4) == pytest.approx(5e-3, rel=0.3)


# -- the one command ---------------------------------------------------------------------------------------------------


def test_the_command_for_a_gpu_says_what_it_lacks() -> None:
    done = subprocess.run(
        [sys.executable, BENCHES / "gpu_check.py"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].startswith("gpu_check: torch sees no CUDA GPU here")


def test_a_step_keeps_its_last_line_and_its_verdict() -> None:
    def step(code: str, limit: float = 60) -> gpu_check.Step:
        return gpu_check._run("step", [sys.executable, "-c", code], limit)

    fine = step("print('one'); print('12 passed'); print()")
    assert fine.ok
    assert fine.said.startswith("12 passed (")
    broken = step("import sys; print('boom'); sys.exit(9)")
    assert (broken.ok, broken.said) == (False, "status 9: boom")
    slow = step("import time; time.sleep(60)", limit=0.3)
    assert (slow.ok, slow.said) == (False, "took longer than 0.3 s and was ended")


def test_a_step_that_takes_too_long_is_ended_with_all_that_it_started() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    started = time.monotonic()
    assert gpu_check._run("step", [sys.executable, "-c", code], 1.0).ok is False
    assert time.monotonic() - started < 30


def test_no_tests_found_are_tests_that_were_not_run(tmp_path: Path) -> None:
    (tmp_path / "test_none.py").write_text("")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(tmp_path)]
    assert gpu_check._run("tests", words, 60).ok is None


def test_modules_without_such_tests_are_not_even_collected() -> None:
    found = {path.name for path in gpu_check.modules()}
    assert {"test_gpu_bench.py", "test_gpu_waits.py"} <= found
    assert "test_presets.py" not in found


def test_the_sanitizer_is_found_and_kept_to_our_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    assert gpu_check.sanitizer() is None or gpu_check.sanitizer().startswith("/usr/local/cuda")  # type: ignore[union-attr]
    tool = tmp_path / "toolkit" / "bin" / "compute-sanitizer"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\necho '  --kernel-regex arg   which kernels'\n")
    tool.chmod(0o755)
    assert gpu_check.sanitizer() == str(tool)
    assert gpu_check._ours_only(str(tool)) == ["--kernel-regex", "kernel_substring=mix"]
    tool.write_text("#!/bin/sh\necho nothing\n")
    assert gpu_check._ours_only(str(tool)) == []
