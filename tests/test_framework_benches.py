"""The benchmarks of compiled JAX code and of the drop-ins: they run, tell every row, and see work of another kind."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from benching import BENCHES

# After benching, which puts the benchmark's folder on the path.
import adapter_rows  # isort: skip
import jax_step  # isort: skip
import report  # isort: skip

CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    yield
    assert CORES is None or os.sched_getaffinity(0) == CORES, "the benchmark keeps the process on fewer cores"


def test_compiled_mixes_are_timed_beside_those_by_hand_and_give_the_same(tmp_path: Path) -> None:
    out = tmp_path / "jax.json"
    assert jax_step.main(["--tiny", "--rounds", "1", "--out", str(out)]) == 0
    written = json.loads(out.read_text(encoding="utf-8"))
    report.check(written)
    assert written["command"] == "python benches/jax_step.py --rounds 1 --threads 1 --tiny"
    assert written["environment"]["versions"]["jax"] == jax.__version__
    assert [row["name"] for row in written["rows"]] == [f"jax-{work.name}-tiny" for work in jax_step.WORKS]
    for row in written["rows"]:
        found = {c["name"]: c for c in row["contenders"]}
        assert found[jax_step.COMPILED]["difference"] <= jax_step.TOLERANCE
        aims = {line["what"]: line["target"] for line in row["lines"] if line["target"] is not None}
        assert aims == {f"{jax_step.COMPILED} ÷ {jax_step.BY_HAND}": jax_step.AIM}
    page = out.with_suffix(".md").read_text(encoding="utf-8")
    assert all(name in page for name in (jax_step.BY_HAND, jax_step.COMPILED, jax_step.EAGER))


def test_a_mix_by_hand_that_does_other_work_is_told_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shifted(x: Any, partner: Any, lam: Any, box: Any) -> Any:
        return jax_step.cutmix(x, partner, lam, box + 1)

    cutmix = jax_step.WORKS[2]
    monkeypatch.setattr(jax_step, "WORKS", [jax_step.Work("cutmix", cutmix.op, "float32", None, shifted)])
    assert jax_step.main(["--tiny", "--rounds", "1", "--out", str(tmp_path / "none.json")]) == 1
    assert "not the same work" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*is deprecated:DeprecationWarning")  # by fastai, imported
def test_every_drop_in_is_timed_beside_its_core(tmp_path: Path) -> None:
    out = tmp_path / "adapters.json"
    assert adapter_rows.main(["--tiny", "--rounds", "1", "--out", str(out)]) == 0
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["command"] == "python benches/adapter_rows.py --rounds 1 --aim 50 --tiny"
    assert [row["name"] for row in written["rows"]] == list(adapter_rows.PAIRS)
    for row in written["rows"]:
        whole, core, adds = (row[what]["median"] for what in ("dropin", "core", "adds"))
        assert min(whole, core) > 0
        assert adds == pytest.approx(whole - core, abs=0.02)
        assert row["met"] == (adds <= 50)
    page = out.with_suffix(".md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in page for name in adapter_rows.PAIRS)


def test_a_drop_in_that_adds_more_than_the_aim_is_an_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing() -> None:
        pass

    def much() -> None:
        sum(range(20_000))

    monkeypatch.setattr(adapter_rows, "PAIRS", {"lean": (lambda: nothing, lambda: nothing)})
    arguments = ["--rounds", "3", "--out", str(tmp_path / "adapters.json")]
    assert adapter_rows.main(arguments) == 0
    monkeypatch.setattr(adapter_rows, "PAIRS", {"heavy": (lambda: much, lambda: nothing)})
    assert adapter_rows.main(arguments) == 1
    assert "| not met |" in (tmp_path / "adapters.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--tiny"]])
@pytest.mark.parametrize("bench", [adapter_rows, jax_step])
def test_what_makes_no_sense_is_refused(bench: Any, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(words)
    assert words[0] in capsys.readouterr().err


def test_the_committed_run_of_jax_obeys_the_schema() -> None:
    report.check(json.loads((BENCHES / "results" / "jax_step.json").read_text(encoding="utf-8")))
