"""The benchmark of a mixed training step: it runs, and its contenders do the same work or it says they do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from benching import BENCHES
from tmix_reference import two_streams

import mixops as mx

# After benching, which puts the benchmark's folder on the path.
import hidden_step  # isort: skip
import report  # isort: skip

TINY = hidden_step.TINY[0]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The report of a tiny run, and where it was written."""
    out = tmp_path_factory.mktemp("run") / "hidden.json"
    done = subprocess.run(
        [sys.executable, BENCHES / "hidden_step.py", "--tiny", "--rounds", "1", "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TQDM_DISABLE": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    written = json.loads(out.read_text(encoding="utf-8"))
    report.check(written)
    return written, out


def test_every_place_to_mix_at_is_timed_beside_the_plain_step(tiny: tuple[dict[str, Any], Path]) -> None:
    rows = {row["name"]: row for row in tiny[0]["rows"]}
    places = ("hidden:0", "hidden:1", "hidden:2", "words", "sentence")
    names = [(f"bert-tiny-{kind}-{at.replace(':', '-')}", at) for kind in ("full", "padded") for at in places]
    assert list(rows) == [name for name, _ in names]
    assert len(places) == hidden_step.PLACES
    for name, at in names:
        (ours,) = [c for c in rows[name]["contenders"] if c["ours"]]
        assert ours["name"] == f"mix_hidden at {at}"
        assert ours["difference"] <= hidden_step.TOLERANCE
        aims = {line["what"]: line["target"] for line in rows[name]["lines"] if line["target"] is not None}
        assert aims == {f"mix_hidden at {at} ÷ plain step": 1.05}
        streams = f"two streams up to {at}" in {c["name"] for c in rows[name]["contenders"]}
        assert streams == at.startswith("hidden")


def test_the_report_says_what_it_was_measured_with(tiny: tuple[dict[str, Any], Path]) -> None:
    written, out = tiny
    assert written["command"] == "python benches/hidden_step.py --rounds 1 --threads 1 --tiny"
    assert {"torch", "transformers", "mixops"} <= set(written["environment"]["versions"])
    page = out.with_suffix(".md").read_text(encoding="utf-8")
    assert all(c["name"] in page for row in written["rows"] for c in row["contenders"])
    assert out.with_suffix(".html").is_file()


def without_masks(layers: Any, own: Any, other: Any, lam: Any, mix_layer: int, *masks: Any) -> Any:
    return two_streams(layers, own, other, lam, mix_layer, None, None, None)


def one_layer_later(layers: Any, own: Any, other: Any, lam: Any, mix_layer: int, *masks: Any) -> Any:
    return two_streams(layers, own, other, lam, mix_layer + 1, *masks)


@pytest.mark.parametrize("other_work", [without_masks, one_layer_later])
def test_contenders_that_do_other_work_are_told_and_nothing_is_written(
    other_work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hidden_step, "two_streams", other_work)
    before = torch.get_num_threads()
    try:
        status = hidden_step.main(["--tiny", "--rounds", "1", "--out", str(tmp_path / "none.json")])
    finally:
        torch.set_num_threads(before)
    assert status == 1
    assert "not the same work" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("padded", [False, True])
def test_a_mixed_step_trains_every_weight_that_a_plain_one_does(padded: bool) -> None:
    training = hidden_step.Training.of(TINY, padded)
    weights = dict(training.model.named_parameters())

    def moved(step: Any) -> set[str]:
        old = {name: weight.detach().clone() for name, weight in weights.items()}
        step(training.batches[0], 0)
        return {name for name, weight in weights.items() if not torch.equal(old[name], weight)}

    plain = moved(training.plain)
    assert len(plain) == len(weights)
    for op in (mx.TMix([1]), mx.WordMixup(), mx.SentenceMixup()):
        assert moved(lambda batch, k, op=op: training.mixed(op, training.ours, batch, k)) == plain


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--threads", "0"], ["--tiny"]])
def test_what_makes_no_sense_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        hidden_step.main(words)
    assert words[0] in capsys.readouterr().err


def test_the_committed_run_obeys_the_schema() -> None:
    report.check(json.loads(hidden_step.OUT.read_text(encoding="utf-8")))
