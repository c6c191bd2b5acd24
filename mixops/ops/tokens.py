"""What the operators on tokens share: which tokens of a row may be touched, how many, and a draw among them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import MixTypeError, MixValueError
from ..spec import Spec, plain_array
from .base import check_number


def token_evidence(name: str, value: Any, shape: tuple[int, ...], kinds: str, expected: str) -> np.ndarray:
    """An array (of a tensor on any device) of this shape and one of these dtype kinds, or a MixError that names it."""
    array = plain_array(name, value)
    if array.dtype.kind not in kinds:
        raise MixTypeError(f"{name}: got {array.dtype}, expected {expected} of shape {shape}")
    if array.shape != shape:
        raise MixValueError(f"{name} has shape {array.shape}: expected {shape}, one for each token of each row")
    return array


def token_rows(owner: str, spec: Spec, special: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """(n,) int64 real tokens of each row, and (n, T) bool, True at special ones; None where none are named.

    Args:
        owner: name of the operator, for the messages.
        spec: of shape (T,); its lengths, or None where every row is full.
        special: (n, T) bools or integers, those other than 0 meaning True; or None.

    Raises:
        MixError: if the spec is of another rank, or special of another shape or dtype.
    """
    if len(spec.shape) != 1:
        raise MixValueError(
            f"{owner} draws on tokens: spec shape {spec.shape}, expected (T,): Spec.like(ids, 'b t', lengths=...)"
        )
    if special is None:
        return lengths_of(spec), None
    return lengths_of(spec), token_evidence("special", special, (spec.n, *spec.shape), "biu", "True or False") != 0


def ordinary_tokens(owner: str, spec: Spec, special: Any) -> np.ndarray:
    """(n, T) bool: tokens that are real and not special, none being special where special is None; see token_rows."""
    lengths, marks = token_rows(owner, spec, special)
    ordinary = np.arange(spec.shape[0]) < lengths[:, None]
    if marks is not None:
        ordinary &= ~marks
    return ordinary


def lengths_of(spec: Spec) -> np.ndarray:
    """(n,) real tokens of each row of a spec of shape (T,)."""
    return np.full(spec.n, spec.shape[0]) if spec.lengths is None else spec.lengths.astype(np.int64)


def check_share(owner: str, share: Any, name: str = "share") -> float:
    """A number in (0, 1], or a MixError."""
    number = check_number(owner, name, share, 0, 1)
    if not number:
        raise MixValueError(f"{owner}({name}={share!r}): expected a share above 0; to change nothing, leave it out")
    return number


def portion(share: float, of: Any) -> np.ndarray:
    """(...) int64, ⌊share · of⌋ as decimals say it: 0.29 · 100 is 29, though it is 28.999… in binary."""
    return np.asarray(share * np.asarray(of) + 1e-9).astype(np.int64)


def sizes_of(share: float, of: Any) -> np.ndarray:
    """(...) int64, max(⌊share · of⌋, 1): as many as the share says, one at least."""
    return np.maximum(portion(share, of), 1)


def drawn_places(
    rng: np.random.Generator, allowed: np.ndarray, many: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``many`` different places of each row among the allowed ones, every choice and order as likely.

    Args:
        rng: drawn from once for each place.
        allowed: (n, T) bool.
        many: (n,) places to draw, at most those that are allowed.
        most: columns of what comes back, at least the largest of many and at most T.

    Returns:
        ((n, most) places in the order drawn, (n, most) bool: which of them count).
    """
    keys = rng.random(allowed.shape)
    keys[~allowed] = 2
    return np.argsort(keys, 1)[:, :most], np.arange(most) < many[:, None]


def one_place(rng: np.random.Generator, allowed: np.ndarray) -> np.ndarray:
    """(n,) one allowed place of each row, each as likely; any place where none is allowed."""
    upto = np.cumsum(allowed, 1)
    which = rng.random(len(allowed)) * upto[:, -1]
    return (upto > which[:, None]).argmax(1)


def given_places(at: Any, limits: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Places that a user gave, (n, m) with -1 for none, in the form of ``drawn_places``.

    Args:
        at: the places, each once in its row.
        limits: (n,) places of each row lie below it.
        most: columns of what comes back.

    Raises:
        MixError: if there are more of them, one comes twice or lies beyond its row.
    """
    places = plain_array("at", at)
    n = len(limits)
    if (places.dtype.kind not in "iu" and places.size) or places.shape != (n, *places.shape[1:2]) or places.ndim != 2:
        raise MixTypeError(
            f"at: got {places.dtype} of shape {places.shape}, expected whole numbers of shape ({n}, m), -1 for none"
        )
    if places.shape[1] > most:
        raise MixValueError(f"at: got {places.shape[1]} places a row, expected at most the {most} that it can draw")
    wrong = (places < -1) | (places >= limits[:, None])
    if wrong.any():
        row, which = np.argwhere(wrong)[0]
        raise MixValueError(
            f"at of row {row} names place {places[row, which]}: expected 0 to {limits[row] - 1}, or -1 for none"
        )
    in_order = np.sort(places, 1)
    if ((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)).any():
        raise MixValueError("at names a place of a row twice: expected each once")
    whole = np.full((n, most), -1)
    whole[:, : places.shape[1]] = places
    return np.maximum(whole, 0), whole >= 0


def one_token_boxes(places: np.ndarray, used: np.ndarray) -> np.ndarray:
    """(n, K) places → (n, K, 2) boxes of one token; empty at the start of the row where a place is not used."""
    box = np.stack([places, places + 1], -1)
    box[~used] = 0
    return box
