"""Where spans of tokens may begin, in rows of one sentence or of a pair: the runs of ordinary tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import MixValueError
from ..spec import Spec
from .tokens import token_evidence, token_rows

_NONE = {kind: np.zeros((0, 0), kind) for kind in (np.bool_, np.int64)}


@dataclass(frozen=True)
class Runs:
    """Ordinary tokens of the rows: real, not special; H = 2 halves where rows are sentence pairs, else 1.

    Args:
        run: (N, H, T) int32, ordinary tokens of half h from place t on, up to the first that is none.
        count: (N, H) int64, ordinary tokens of each half.
    """

    run: np.ndarray
    count: np.ndarray


def find_runs(owner: str, spec: Spec, special: Any, segments: Any, halves: int) -> Runs:
    """Tell the ordinary tokens of a batch.

    Args:
        owner: name of the operator, for the messages.
        spec: with shape (T,); without lengths every row is full.
        special: (N, T) bool, or whole numbers of which those other than 0 mean True; None: the first real token of a
            row, and the last one of each half.
        segments: (N, T) int, 0 and 1 for the halves of a pair; not looked at with one half.
        halves: 2 for sentence pairs, else 1.

    Raises:
        MixError: if the spec has not one axis, an array has another shape or dtype, or an ordinary token is in
            neither half.
    """
    from .. import windows

    lengths, marks = token_rows(owner, spec, special)
    n, extent = whole = spec.n, spec.shape[0]
    parts = None
    if halves == 2:
        parts = token_evidence("segments", segments, whole, "biu", "whole numbers, 0 and 1").astype(np.int64)
    runs = Runs(np.empty((n, halves, extent), np.int32), np.empty((n, halves), np.int64))
    wrong = windows.count_runs(
        lengths,
        _NONE[np.bool_] if marks is None else np.ascontiguousarray(marks),
        _NONE[np.int64] if parts is None else np.ascontiguousarray(parts),
        runs.run,
        runs.count,
    )
    if wrong >= 0:
        assert parts is not None
        found = sorted(set(parts[wrong, : lengths[wrong]].tolist()) - {0, 1})
        raise MixValueError(
            f"segments of row {wrong} hold {', '.join(map(str, found))}: expected 0 and 1, the halves of a pair, at "
            "every token that is not special"
        )
    return runs
