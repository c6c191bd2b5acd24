"""What operators on spans of tokens read off a batch: which tokens are ordinary, and how many of them a span takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import MixTypeError, MixValueError
from ..spec import Spec, plain_array
from .base import check_number

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


def check_span(owner: str, span: Any) -> float:
    """A share above 0 and up to 1, or a MixError that names it."""
    share = check_number(owner, "span", span, 0, 1)
    if share == 0:
        raise MixValueError(f"{owner}(span=0): expected a share above 0, up to 1; p=0 is plain training")
    return share


def sizes_of(span: float, count: np.ndarray) -> np.ndarray:
    """(...) int64: max(floor(span·count), 1) tokens; 1e-9 lifts products that fall short of a whole number by rounding.

    0.29 of 100 tokens is 28.999999999999996 in float64, and 29 here.
    """
    return np.maximum((span * count + 1e-9).astype(np.int64), 1)


def token_evidence(name: str, value: Any, shape: tuple[int, ...], kinds: str, expected: str) -> np.ndarray:
    """An array (of a tensor on any device) of this shape and one of these dtype kinds, or a MixError that names it."""
    if hasattr(value, "detach"):
        value = value.detach()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).cpu().numpy()
    array = plain_array(name, value)
    if array.dtype.kind not in kinds:
        raise MixTypeError(f"{name}: got {array.dtype}, expected {expected} of shape {shape}")
    if array.shape != shape:
        raise MixValueError(f"{name} has shape {array.shape}: expected {shape}, one for each token of each row")
    return array


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

    if len(spec.shape) != 1:
        raise MixValueError(f"{owner} picks spans of tokens: the spec has shape {spec.shape}, expected Spec(n, (T,))")
    n, extent = whole = spec.n, spec.shape[0]
    lengths = np.full(n, extent) if spec.lengths is None else spec.lengths
    marks = parts = None
    if special is not None:
        marks = token_evidence("special", special, whole, "biu", "True or False") != 0
    if halves == 2:
        parts = token_evidence("segments", segments, whole, "biu", "whole numbers, 0 and 1").astype(np.int64)
    runs = Runs(np.empty((n, halves, extent), np.int32), np.empty((n, halves), np.int64))
    wrong = windows.count_runs(
        lengths.astype(np.int64),
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
