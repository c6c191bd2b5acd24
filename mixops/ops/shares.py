"""λ: the share a row keeps of itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..constant import filled
from ..errors import MixTypeError, MixValueError
from .base import spread

#: Beyond this alpha the sampler's sum overflows, and λ is 1/2 long before.
_LARGEST = 1e300


def own_shares(rng: np.random.Generator, alpha: float, n: int, unit: np.ndarray, given: Any = None) -> np.ndarray:
    """(n,) float64 in [0, 1]: λ ~ Beta(alpha, alpha), one for each unit; 1 everywhere for alpha = 0; never NaN.

    Args:
        rng: drawn from only if alpha > 0 and nothing is given.
        alpha: concentration; towards 0 it becomes a fair coin between the row and its partner.
        n: rows.
        unit: (n,) the unit of each row.
        given: λ that replaces the draw, a number or (n,).

    Raises:
        MixError: if a given λ is no number of [0, 1], or not one or n of them.
    """
    if given is not None:
        return _given(given, n)
    if alpha == 0:
        return np.ones(n)
    if not n:
        return np.ones(0)
    if unit is filled((n,), 0, np.intp) or not unit.any():
        return np.full(n, one_share(rng, alpha))
    alpha = min(alpha, _LARGEST)
    drawn = rng.beta(alpha, alpha, n)
    drawn = np.where(np.isnan(drawn), (rng.random(n) < 0.5) * 1.0, drawn)  # see one_share
    return spread(drawn, unit)


def one_share(rng: np.random.Generator, alpha: float) -> float:
    """λ ~ Beta(alpha, alpha) for a whole batch, alpha above 0; never NaN."""
    alpha = min(alpha, _LARGEST)
    drawn, coin = float(rng.beta(alpha, alpha)), rng.random()
    # Below about 1e-300 the sampler divides infinities: the limit of Beta there is the coin.
    return drawn if drawn == drawn else float(coin < 0.5)


def _given(given: Any, n: int) -> np.ndarray:
    try:
        lam = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise MixTypeError(f"lam {given!r}: expected a number or one for each row") from None
    if lam.shape not in ((), (n,)):
        raise MixValueError(f"lam has shape {lam.shape}: expected one number or shape ({n},)")
    if not ((lam >= 0) & (lam <= 1)).all():  # NaN fails too
        raise MixValueError(f"lam {given!r}: expected shares from 0 to 1")
    return np.broadcast_to(lam, n)
