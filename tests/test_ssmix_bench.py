"""The benchmark of the step of SSMix: it runs, its steps have the same gradients, or it says that they have not."""

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

import mixops as mx

# After benching, which puts the benchmark's folder on the path.
import hidden_step  # isort: skip
import report  # isort: skip
import ssmix_step  # isort: skip

TINY = ssmix_step.TINY[0]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The report of a tiny run, and where it was written."""
    out = tmp_path_factory.mktemp("run") / "ssmix.json"
    done = subprocess.run(
        [sys.executable, BENCHES / "ssmix_step.py", "--tiny", "--rounds", "1", "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TQDM_DISABLE": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    written = json.loads(out.read_text(encoding="utf-8"))
    report.check(written)
    return written, out


def test_our_steps_have_the_gradients_of_the_authors_and_are_timed_beside_theirs(
    tiny: tuple[dict[str, Any], Path],
) -> None:
    written, out = tiny
    assert [row["name"] for row in written["rows"]] == ["bert-tiny-full-ssmix", "bert-tiny-padded-ssmix"]
    for row in written["rows"]:
        found = {c["name"]: c for c in row["contenders"]}
        for name in (ssmix_step.ONE_GO, ssmix_step.LOSS):
            assert found[name]["difference"] <= hidden_step.TOLERANCE
        aims = {line["what"]: line["target"] for line in row["lines"] if line["target"] is not None}
        assert aims == {f"{ssmix_step.OFFICIAL} ÷ {name}": aim for name, aim in ssmix_step.AIMS.items()}
    assert written["command"] == "python benches/ssmix_step.py --rounds 1 --threads 1 --tiny"
    page = out.with_suffix(".md").read_text(encoding="utf-8")
    assert all(c["name"] in page for row in written["rows"] for c in row["contenders"])


@pytest.mark.parametrize("padded", [False, True])
def test_each_step_makes_as_many_passes_as_its_name_says(padded: bool) -> None:
    training = ssmix_step.Training.of(TINY, padded)
    steps, (rows, layers) = ssmix_step.Steps(training), (TINY.rows, TINY.layers)
    seen = {"F": 0, "B": 0}

    def forward(module: Any, args: Any, output: torch.Tensor) -> None:
        seen["F"] += len(output)
        output.register_hook(backward)

    def backward(gradient: torch.Tensor) -> None:
        seen["B"] += len(gradient)

    for block in training.model.bert.encoder.layer:
        block.register_forward_hook(forward)
    for name, gradients in (
        (ssmix_step.ONE_GO, steps.one_go),
        (ssmix_step.LOSS, lambda batch, k: steps.of_loss(ssmix_step.OP, batch, k)),
        (ssmix_step.NO_SALIENCY, lambda batch, k: steps.of_loss(ssmix_step.SPANS, batch, k)),
        (ssmix_step.OFFICIAL, steps.official),
    ):
        seen.update(F=0, B=0)
        gradients(training.batches[0], 0)
        f, b = (seen[kind] // (rows * layers) for kind in "FB")
        assert name.endswith(f", {f}F + {b}B")


def test_steps_that_do_other_work_are_told_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ssmix_step, "OP", mx.SSMix(0.5, pairing="roll"))
    before = torch.get_num_threads()
    try:
        status = ssmix_step.main(["--tiny", "--rounds", "1", "--out", str(tmp_path / "none.json")])
    finally:
        torch.set_num_threads(before)
    assert status == 1
    assert "not the same work" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--threads", "0"], ["--tiny"]])
def test_what_makes_no_sense_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ssmix_step.main(words)
    assert words[0] in capsys.readouterr().err


def test_the_committed_run_obeys_the_schema() -> None:
    report.check(json.loads(ssmix_step.OUT.read_text(encoding="utf-8")))
