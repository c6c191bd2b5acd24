"""The plan that carries gradients back: mixing the gradient of an output by it gives the gradient of the input."""

from __future__ import annotations

import numpy as np

from .constant import is_ascending
from .fills import Fills
from .plan import Plan

_NOTHING = Fills.of(0.0)


def adjoint_of(plan: Plan) -> Plan | None:
    """The transpose of a plan's mixing, as a plan.

    Mixing is out = A·x + fills with a matrix A over rows and places, so the gradient of x is Aᵀ times that of out. Row
    m of it is what m kept of itself, plus what it gave to others. That is a mixing again where a row gives away just
    what it takes: patch k of row n comes from m, row m has the same patches at the place where the donor was cut, and
    nobody else takes its patch k from m. So Mixup and CutMix by one draw a batch are such plans with any permutation,
    and so are pairs with one draw each, erased and painted patches, and any of these on top of another.

    Args:
        plan: over a source of ``plan.n`` rows.

    Returns:
        A plan of the same form whose patches have the same boxes and opacities: donors are the rows that took from this
        one, fills paint 0, nothing weighs on a target. None if the transpose is none that a plan can say.

    Example:
        >>> import mixops as mx
        >>> turn = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(3), lam=0.75, partner=[1, 2, 0])
        >>> adjoint_of(turn).partner.ravel().tolist()
        [2, 0, 1]
    """
    n, k = plan.n, plan.k
    if not is_ascending(plan.base) or plan.facts.top >= n or plan.facts.resized is not None:
        return None
    active = plan.facts.used
    if plan.rank:
        active = active & (plan.box[..., 0::2] < plan.box[..., 1::2]).all(-1)
    gives = active & (plan.partner >= 0) if plan.has_fills else active
    opacity = np.where(active, plan.opacity, 0)
    taker, patch = np.nonzero(gives)
    giver = plan.partner[taker, patch]
    turned = np.where(plan.partner < 0, -1, np.arange(n)[:, None])
    turned[giver, patch] = taker
    if not ((turned[giver, patch] == taker).all() and _alike(plan, opacity, gives, giver, taker, patch)):
        return None
    box = plan.box
    donor = box
    if plan.donor is not plan.box:
        donor = np.array(box)
        donor[giver, patch] = box[taker, patch]
    none = np.zeros((n, k), np.float32)
    return Plan.trusted(plan, partner=turned, box=box, donor=donor, opacity=opacity, weight=none, fills=_NOTHING)


def _alike(
    plan: Plan, opacity: np.ndarray, gives: np.ndarray, giver: np.ndarray, taker: np.ndarray, patch: np.ndarray
) -> bool:
    """Has every giver the patches of its taker, moved to where the donor was cut from?"""
    if not (np.array_equal(opacity[giver], opacity[taker]) and np.array_equal(gives[giver], gives[taker])):
        return False
    if not plan.rank:
        return True
    there, here = plan.box[giver], plan.box[taker]
    if plan.facts.shifted is not None:
        here = here + plan.facts.moves[taker, patch][:, None]
    return bool((there == here)[opacity[giver] > 0].all())
