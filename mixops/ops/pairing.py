"""Who mixes with whom: each pairing takes a generator and gives every row its donor."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..constant import ascending
from ..errors import MixTypeError, MixValueError
from ..spec import plain_array

PAIRINGS = ("random", "derange", "roll", "flip", "same_class", "other_class")
#: Pairings that look at the labels.
BY_LABEL = ("same_class", "other_class")


def partners(
    pairing: str, rng: np.random.Generator, n: int, *, per: str = "batch", labels: Any = None, given: Any = None
) -> np.ndarray:
    """(n,) donor row of each row.

    Args:
        pairing: "random" (a permutation; with ``per="pair"`` rows are matched two by two), "derange" (no row gets
            itself where n allows it), "roll" (row i - 1), "flip" (row n - 1 - i), "same_class" and "other_class"
            (itself where the batch holds no such row).
        rng: drawn from only where the pairing is random.
        n: rows.
        per: unit of the draw.
        labels: (n,) ids or (n, C) one-hot rows, for the pairings by class.
        given: partners that replace the draw.

    Raises:
        MixError: if given is no row number, or labels do not fit.
    """
    if given is not None:
        return _given(given, n)
    if pairing == "roll":
        return np.roll(np.arange(n), 1)
    if pairing == "flip":
        return ascending(n)[::-1]
    if pairing in BY_LABEL:
        ids = class_ids(labels, n)
        return _same_class(rng, ids) if pairing == "same_class" else _other_class(rng, ids)
    order = rng.permutation(n)
    if per == "pair":
        return _matched(order)
    if pairing == "random":
        return order
    while n > 1 and (order == ascending(n, np.intp)).any():  # about e tries, whatever n
        order = rng.permutation(n)
    return order


def _given(given: Any, n: int) -> np.ndarray:
    partner = plain_array("partner", given)
    if partner.shape != (n,) or (partner.dtype.kind not in "iu" and n):
        raise MixValueError(
            f"partner: got {partner.dtype} of shape {partner.shape}, expected row numbers of shape ({n},)"
        )
    if n and (partner.min() < 0 or partner.max() >= n):
        raise MixValueError(f"partner reaches from {partner.min()} to {partner.max()}: expected rows 0 to {n - 1}")
    return partner.astype(np.intp)


def _matched(order: np.ndarray) -> np.ndarray:
    partner = np.arange(len(order))
    half = len(order) // 2
    one, other = order[:half], order[half : 2 * half]
    partner[one], partner[other] = other, one
    return partner


def class_ids(labels: Any, n: int) -> np.ndarray:
    """(n,) class ids from ids or one-hot rows; a MixError where a row has no one class."""
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu().numpy()
    labels = plain_array("labels", labels)
    if labels.shape == (n,) and labels.dtype.kind in "iu":
        return labels
    if labels.ndim == 2 and len(labels) == n:
        if n and not ((labels != 0).sum(1) == 1).all():
            raise MixValueError("pairing by class needs one class a row: these labels have rows of none or several")
        return labels.argmax(1)
    raise MixTypeError(
        f"labels: got {labels.dtype} of shape {labels.shape}, expected ids of shape ({n},) or one-hot ({n}, C)"
    )


def _classes(rng: np.random.Generator, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows sorted by class and shuffled within it, and where each sorted row's class starts and how long it is."""
    order = rng.permutation(len(ids))
    order = order[np.argsort(ids[order], kind="stable")]
    _, start, inverse, count = np.unique(ids[order], return_index=True, return_inverse=True, return_counts=True)
    return order, start[inverse], count[inverse]


def _same_class(rng: np.random.Generator, ids: np.ndarray) -> np.ndarray:
    order, start, count = _classes(rng, ids)
    partner = np.empty(len(ids), np.intp)
    partner[order] = order[start + (np.arange(len(ids)) - start + 1) % np.maximum(count, 1)]
    return partner


def _other_class(rng: np.random.Generator, ids: np.ndarray) -> np.ndarray:
    n = len(ids)
    order, start, count = _classes(rng, ids)
    others = n - count
    pick = np.minimum((rng.random(n) * others).astype(np.intp), np.maximum(others - 1, 0))
    pick = np.where(pick >= start, pick + count, pick)
    partner = np.empty(n, np.intp)
    partner[order] = np.where(others > 0, order[np.minimum(pick, n - 1)], order)
    return partner
