"""The matrix, framework x operator: a saved plan is the same batch in every framework, and faults are seen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mixops.pipelines import matrix
from mixops.pipelines.cli import main
from mixops.pipelines.replaying import FRAMEWORKS, Batch, find_frameworks, replay

import mixops as mx

HOST = find_frameworks(["NumPy", "Numba"])


def test_every_operator_of_the_library_is_in_the_matrix() -> None:
    texts = " ".join(text for text, _ in matrix.OPERATORS)
    assert [name for name in mx.operators() if f"{name}(" not in texts and name != "Chain"] == []
    assert any(isinstance(mx.parse_op(text), mx.Chain) for text, _ in matrix.OPERATORS)


@pytest.mark.parametrize(("text", "layout"), matrix.OPERATORS)
def test_no_plan_of_the_matrix_leaves_the_batch_as_it_is(text: str, layout: str, tmp_path: Path) -> None:
    batch = matrix.batch_of(text, layout, tmp_path / "plan.npz")
    plan = mx.Plan.load(batch.plan)
    x = batch.arrays["float32"]
    assert not np.array_equal(mx.mix(x, plan, layout), x)


def test_every_framework_makes_the_same_of_every_saved_plan() -> None:
    made = matrix.compare(FRAMEWORKS)
    assert made.good, str(made)
    assert made.missing == made.failed == ()
    assert list(made.columns) == [f.name for f in FRAMEWORKS]
    assert made.operators == tuple(text for text, _ in matrix.OPERATORS)
    assert {str(cell) for cell in made.columns["NumPy"]} == {"equal"}
    pastes = made.operators.index("CutMix()")
    assert {str(cells[pastes]) for cells in made.columns.values()} == {"equal"}


def test_the_command_prints_the_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "num", "--op", "CutMix()", "--op", "Mixup(0.8)"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NumPy", "Numba"]
    assert lines[1].split() == ["CutMix()", "equal", "equal"]
    assert lines[2].startswith("Mixup(0.8)")


@pytest.mark.parametrize(
    ("name", "place", "said"),
    [("float32", 0, "float32: "), ("uint8", 0, "uint8: 1 values differ"), ("uint8", 1, "targets beside uint8: ")],
)
def test_one_number_out_of_bounds_is_a_fault_and_exit_code_1(
    name: str, place: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tampered(*args: Any, **options: Any) -> Any:
        made = replay(*args, **options)
        array = made["Numba"]["Mixup(0.8)"][name][place]
        array.flat[0] = array.flat[0] + (1 if array.dtype == np.uint8 and array.flat[0] < 255 else -1 / 128)
        return made

    monkeypatch.setattr(matrix, "replay", tampered)
    assert main(["matrix", "Numba", "--op", "Mixup(0.8)"]) == 1
    assert said in capsys.readouterr().out


def test_what_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert main(["matrix", "NumPy", "TensorFlow", "--op", "CutMix()"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "TensorFlow needs tensorflow: pip install 'mixops[tensorflow]'"
    assert main(["matrix", "Tensor"]) == 2
    assert "nothing to compare with" in capsys.readouterr().err


def test_a_framework_that_fails_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    batch = matrix.batch_of("CutMix()", matrix.IMAGES, tmp_path / "plan.npz")
    (tmp_path / "a").mkdir()
    late = replay({"CutMix()": batch}, HOST, tmp_path / "a", limit=0.01)
    assert late["NumPy"] == "took more than 0.01 s"
    gone = Batch(tmp_path / "no.npz", batch.layout, batch.arrays, batch.labels, batch.classes)
    (tmp_path / "b").mkdir()
    said = replay({"gone": gone}, HOST, tmp_path / "b")["Numba"]
    assert isinstance(said, str)
    assert said.startswith("FileNotFoundError")


def test_a_failure_is_in_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "replay", lambda *_, **__: {"NumPy": "MemoryError: none"})
    made = matrix.compare(HOST[:1], ["CutMix()"])
    assert not made.good
    assert str(made).splitlines()[-1] == "failed: NumPy: MemoryError: none"


def test_an_unknown_framework_or_operator_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "mxnet"]) == 2
    assert "framework 'mxnet': expected one of NumPy, Numba" in capsys.readouterr().err
    assert main(["matrix", "NumPy", "--op", "Mixup()"]) == 2
    assert "operator 'Mixup()': expected one of Mixup(0.8)" in capsys.readouterr().err
