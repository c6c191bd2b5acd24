"""What the draws are distributed as. Seeds are fixed: a test that fails has found something, it is not bad luck."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

import mixops as mx

SHAPE = (32, 32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def lams(op: mx.Operator, draws: int = 1, n: int = 4000, shape: tuple[int, ...] = ()) -> np.ndarray:
    g = rng(1)
    return np.concatenate([op.draw(g, mx.Spec(n, shape)).lam for _ in range(draws)])


def acted(plan: Any) -> np.ndarray:
    """Which rows something happens to."""
    parts = plan.plans if isinstance(plan, mx.PlanSequence) else [plan]
    return np.any([(p.opacity > 0).any(1) for p in parts], axis=0)


def within(count: int, total: int, p: float) -> bool:
    """Whether a count lies where all but one in ten million binomial counts do."""
    low, high = stats.binom.ppf([5e-8, 1 - 5e-8], total, p)
    return bool(low <= count <= high)


# -- λ -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 2.0, 8.0, 1000.0])
def test_lam_of_each_row_is_beta(alpha: float) -> None:
    drawn = lams(mx.Mixup(alpha, per="sample")).astype(float)
    # λ is stored as a float32 share of the donor: at 0 and 1 it comes in steps, where the test must not look.
    at = np.concatenate([np.linspace(0.001, 0.999, 999), np.linspace(0.4, 0.6, 999)])
    distance = np.abs((drawn[:, None] <= at).mean(0) - stats.beta(alpha, alpha).cdf(at)).max()
    assert distance < stats.kstwobign.isf(1e-4) / np.sqrt(len(drawn))


@pytest.mark.parametrize(("per", "n", "units"), [("batch", 6, 1), ("pair", 6, 3)])
def test_lam_of_a_batch_or_a_pair_is_beta(per: str, n: int, units: int) -> None:
    g = rng(3)
    drawn = [np.unique(mx.Mixup(0.4, per=per, pairing="flip").draw(g, mx.Spec(n)).lam) for _ in range(2000)]
    assert all(len(d) == units for d in drawn)
    assert stats.kstest(np.concatenate(drawn).astype(float), stats.beta(0.4, 0.4).cdf).pvalue > 1e-4


def test_a_folded_lam_is_the_larger_of_the_two_shares() -> None:
    drawn = lams(mx.Mixup(0.7, per="sample", fold=True)).astype(float)
    assert drawn.min() >= 0.5
    beta = stats.beta(0.7, 0.7)
    assert stats.kstest(drawn, lambda v: np.clip(beta.cdf(v) - beta.cdf(1 - v), 0, 1)).pvalue > 1e-4


@pytest.mark.parametrize("alpha", [1e-3, 1e-10, 1e-100, 1e-300, 1e-308, 1e-320])
@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
def test_a_tiny_alpha_is_a_fair_coin_and_never_nan(alpha: float, per: str) -> None:
    g = rng(4)
    for cls in (mx.Mixup, mx.CutMix):
        plans = [cls(alpha, per=per, pairing="flip").draw(g, mx.Spec(4, SHAPE)) for _ in range(400)]
        if cls is mx.Mixup:
            drawn = np.array([p.lam[0] for p in plans])
            assert np.isfinite(drawn).all()
            assert ((drawn < 1e-6) | (drawn > 1 - 1e-6)).mean() > 0.95
            assert within(int((drawn < 0.5).sum()), 400, 0.5)
        assert all(np.isfinite(p.weight).all() and np.isfinite(p.opacity).all() for p in plans)


@pytest.mark.parametrize("alpha", [1e6, 1e100, 1e307, 1.7e308])
def test_a_huge_alpha_halves(alpha: float) -> None:
    np.testing.assert_allclose(lams(mx.Mixup(alpha, per="sample"), n=50), 0.5, atol=0.01)


# -- p -----------------------------------------------------------------------------------------------------------------

P_OF_A_ROW = {
    "Mixup batch": (mx.Mixup(p=0.3), 1),
    "Mixup pair": (mx.Mixup(per="pair", pairing="flip", p=0.3), 4),
    "Mixup sample": (mx.Mixup(per="sample", p=0.3), 8),
    "CutMix batch": (mx.CutMix(minmax=(0.2, 0.5), edge="inside", p=0.3), 1),
    "CutMix sample": (mx.CutMix(minmax=(0.2, 0.5), edge="inside", per="sample", p=0.3), 8),
    "Cutout batch": (mx.Cutout(4, per="batch", p=0.3), 1),
    "Cutout sample": (mx.Cutout(4, count=3, p=0.3), 8),
    "RandomErasing batch": (mx.RandomErasing(area=(0.1, 0.2), per="batch", p=0.3), 1),
    "RandomErasing sample": (mx.RandomErasing(area=(0.1, 0.2), count=2, p=0.3), 8),
    "Sometimes batch": (mx.Sometimes(mx.Mixup(), 0.3), 1),
    "Sometimes sample": (mx.Sometimes(mx.Cutout(4), 0.3, per="sample"), 8),
    "Sometimes of p": (mx.Sometimes(mx.Mixup(p=0.6), 0.5), 1),
    "OneOf batch": (mx.OneOf([mx.Mixup(), mx.Cutout(4)], p=[0.1, 0.2]), 1),
    "OneOf sample": (mx.OneOf([mx.Mixup(), mx.Cutout(4)], p=[0.1, 0.2], per="sample"), 8),
    "OneOf of p": (mx.OneOf([mx.Mixup(p=0.3), mx.Cutout(4, per="batch", p=0.3)]), 1),
    "Chain": (mx.Chain([mx.Mixup(), mx.Cutout(4)], p=0.3), 1),
    "Chain of p": (mx.Chain([mx.Mixup(0), mx.Cutout(4, p=0.3)]), 8),
    "Chain of steps": (mx.Chain([mx.Mixup(), mx.Mixup()], p=0.3), 1),
}


@pytest.mark.parametrize("name", P_OF_A_ROW)
def test_p_is_applied_exactly_once_on_its_unit(name: str) -> None:
    op, units = P_OF_A_ROW[name]
    g, draws = rng(5), 1500
    rows = np.array([acted(op.draw(g, mx.Spec(8, SHAPE))) for _ in range(draws)])
    if units == 1:
        assert (rows == rows[:, :1]).all()
        rows = rows[:, :1]
    if units == 4:
        assert (rows == rows[:, ::-1]).all()
        rows = rows[:, :4]
    assert within(int(rows.sum()), rows.size, 0.3), rows.mean()


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_one_of_chooses_by_its_probabilities_and_leaves_the_remainder(per: str) -> None:
    op = mx.OneOf([mx.Cutout(2, fill=1), mx.Mixup(1e6), mx.Cutout(2, fill=3)], p=[0.5, 0.2, 0.1], per=per)
    g, counts, draws = rng(6), np.zeros(4, int), 3000 if per == "batch" else 400
    for _ in range(draws):
        plan = op.draw(g, mx.Spec(8, SHAPE))
        rows = range(1) if per == "batch" else range(8)
        for n in rows:
            assert plan.k == 1
            if plan.opacity[n, 0] == 0:
                counts[3] += 1
                assert plan.lam[n] == 1
            elif plan.partner[n, 0] >= 0:
                counts[1] += 1
            else:
                counts[0 if plan.fills[int(-1 - plan.partner[n, 0])].value == 1 else 2] += 1
    for count, p in zip(counts, (0.5, 0.2, 0.1, 0.2), strict=True):
        assert within(int(count), int(counts.sum()), p)


def test_one_of_without_p_chooses_evenly() -> None:
    op = mx.OneOf([mx.Cutout(2, fill=i) for i in (1, 2, 3)], per="sample")
    plan = op.draw(rng(7), mx.Spec(3000, SHAPE))
    values = [plan.fills[int(-1 - i)].value for i in plan.partner[:, 0]]
    for value in (1, 2, 3):
        assert within(values.count(value), 3000, 1 / 3)


# -- partners ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", [mx.Mixup(), mx.Mixup(per="pair"), mx.CutMix(), mx.Mixup(pairing="derange")])
def test_every_row_meets_every_other_as_often(op: mx.Operator) -> None:
    n, draws, g = 6, 3000, rng(8)
    met = np.zeros((n, n), int)
    for _ in range(draws):
        np.add.at(met, (np.arange(n), op.draw(g, mx.Spec(n, SHAPE)).partner[:, 0]), 1)
    alone = np.eye(n, dtype=bool)
    chance = 1 / n if getattr(op, "pairing", "") == "random" and getattr(op, "per", "") == "batch" else 1 / (n - 1)
    assert all(within(int(c), draws, chance) for c in met[~alone])
    assert all(within(int(c), draws, chance) if chance == 1 / n else c == 0 for c in met[alone])


@pytest.mark.parametrize("pairing", ["same_class", "other_class"])
def test_pairings_by_class_meet_every_row_they_may(pairing: str) -> None:
    labels, g, draws = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2]), rng(9), 3000
    met = np.zeros((9, 9), int)
    for _ in range(draws):
        np.add.at(met, (np.arange(9), mx.Mixup(pairing=pairing).draw(g, mx.Spec(9), labels=labels).partner[:, 0]), 1)
    same = labels[:, None] == labels
    may = same & ~np.eye(9, dtype=bool) if pairing == "same_class" else ~same
    assert (met[~may] == 0).all()
    expected = may / may.sum(1, keepdims=True)
    assert all(within(int(c), draws, p) for c, p in zip(met[may], expected[may], strict=True))


# -- places and areas --------------------------------------------------------------------------------------------------


def test_the_mean_pasted_area_of_cutmix_is_the_known_one() -> None:
    # E[clipped area] at alpha 1: the side is √u, a centre cuts off s/4 of it on average: E[u·(1 - √u/4)²] = 0.3167.
    clip = 1 - lams(mx.CutMix(per="sample"), n=20000, shape=(224, 224)).mean()
    inside = 1 - lams(mx.CutMix(per="sample", edge="inside"), n=20000, shape=(224, 224)).mean()
    assert clip == pytest.approx(0.3167, abs=0.008)
    assert inside == pytest.approx(0.4975, abs=0.008)


@pytest.mark.parametrize(("shape", "edge"), [((64,), "inside"), ((64, 64), "inside"), ((32, 32, 32), "inside")])
def test_the_share_of_an_inside_box_follows_lam_in_any_number_of_axes(shape: tuple[int, ...], edge: str) -> None:
    drawn = mx.CutMix(per="sample", edge=edge).draw(rng(10), mx.Spec(300, shape), lam=np.linspace(0, 1, 300)).lam
    assert np.abs(drawn - np.linspace(0, 1, 300)).max() < len(shape) * 1.1 / min(shape)


def test_centres_fall_on_every_pixel_and_corners_wherever_a_box_fits() -> None:
    spec = mx.Spec(20000, (5, 7))
    centres = mx.Cutout(1).draw(rng(11), spec).box[:, 0, ::2]
    corners = mx.Cutout(3, edge="inside").draw(rng(12), spec).box[:, 0, ::2]
    for places, extent in ((centres, (5, 7)), (corners, (3, 5))):
        counts = np.zeros(extent, int)
        np.add.at(counts, tuple(places.T), 1)
        assert stats.chisquare(counts.ravel()).pvalue > 1e-4


def test_erasing_areas_are_uniform_and_aspects_log_uniform() -> None:
    op = mx.RandomErasing(area=(0.02, 0.2), aspect=(0.5, 2.0))
    plan = op.draw(rng(13), mx.Spec(4000, (2000, 2000)))
    sides = (plan.box[:, 0, 1::2] - plan.box[:, 0, 0::2]).astype(float)
    area, aspect = sides.prod(1) / 4e6, np.log(sides[:, 0] / sides[:, 1])
    assert stats.kstest(area, stats.uniform(0.02, 0.18).cdf).pvalue > 1e-4
    assert stats.kstest(aspect, stats.uniform(np.log(0.5), np.log(4)).cdf).pvalue > 1e-4
    start = plan.box[:, 0, 0] / (2000 - sides[:, 0])
    assert stats.kstest(start, stats.uniform().cdf).pvalue > 1e-4


def test_erasing_hardly_ever_finds_no_place() -> None:
    plan = mx.RandomErasing().draw(rng(14), mx.Spec(20000, (224, 224)))
    assert (plan.opacity == 1).mean() > 0.9999
    once = mx.RandomErasing(tries=1, area=(0.3, 1 / 3)).draw(rng(14), mx.Spec(4000, (224, 224)))
    assert 0.02 < (once.opacity == 0).mean() < 0.5
