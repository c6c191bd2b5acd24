"""What Mixup, CutMix, Cutout and RandomErasing decide: shares, boxes and holes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import data
from hypothesis import given
from hypothesis import strategies as st

import mixops as mx

SHAPE = (12, 10)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- Mixup -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lam", [0.75, 0.0, 1.0, [0.0, 0.25, 0.5, 1.0]])
@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
def test_mixup_takes_lam_and_partner_in_place_of_a_draw(lam: Any, per: str) -> None:
    plan = mx.Mixup(per=per).draw(rng(), mx.Spec(4), lam=lam, partner=[1, 0, 3, 2])
    np.testing.assert_array_equal(plan.partner[:, 0], [1, 0, 3, 2])
    np.testing.assert_allclose(plan.lam, np.broadcast_to(np.float32(lam), 4))
    np.testing.assert_array_equal(plan.opacity, plan.weight)
    assert (plan.shape, plan.k) == ((), 1)


def test_mixup_folds_to_the_larger_share() -> None:
    plan = mx.Mixup(fold=True).draw(rng(), mx.Spec(4), lam=[0.1, 0.5, 0.9, 0.0])
    np.testing.assert_allclose(plan.lam, [0.9, 0.5, 0.9, 1.0], rtol=1e-6)


@pytest.mark.parametrize("op", [mx.Mixup(0), mx.Mixup(0, per="sample"), mx.CutMix(0), mx.Mixup(0) | mx.CutMix(0)])
def test_alpha_0_is_plain_training(op: mx.Operator) -> None:
    assert op.draw(rng(), mx.Spec(5, SHAPE)).is_identity


# -- CutMix ------------------------------------------------------------------------------------------------------------


@given(
    st.floats(0, 1),
    st.lists(st.integers(2, 30), min_size=1, max_size=3),
    st.sampled_from(["clip", "inside"]),
    st.integers(0, 99),
)
def test_a_cutmix_box_has_the_sides_of_lam_and_the_label_its_area(
    lam: float, extents: list[int], edge: str, seed: int
) -> None:
    shape = tuple(extents)
    plan = mx.CutMix(edge=edge, per="sample").draw(rng(seed), mx.Spec(3, shape), lam=lam)
    ratio = np.sqrt(1 - lam) if len(shape) == 2 else (1 - lam) ** (1 / len(shape))
    for n in range(3):
        box = plan.box[n, 0].reshape(-1, 2)
        sides, area = [int(s * ratio) for s in shape], 1.0
        for (start, stop), side, extent in zip(box, sides, shape, strict=True):
            assert stop - start == side if edge == "inside" and plan.opacity[n, 0] else stop - start <= side
            area *= (stop - start) / extent
        assert plan.weight[n, 0] == np.float32(area)
        assert plan.opacity[n, 0] == (area > 0)
    np.testing.assert_array_equal(plan.donor, plan.box)


@pytest.mark.parametrize("edge", ["clip", "inside"])
@pytest.mark.parametrize("per", ["batch", "sample"])
def test_cutmix_takes_a_share_and_a_place_for_each_row(edge: str, per: str) -> None:
    lam, at = [0.75, 0.0, 0.36, 1.0], [[5, 5], [5, 5], [2, 4], [0, 0]]
    plan = mx.CutMix(per=per, edge=edge).draw(rng(), mx.Spec(4, (10, 10)), lam=lam, at=at)
    if edge == "clip":
        wanted = [[3, 8, 3, 8], [0, 10, 0, 10], [0, 6, 0, 8], [0, 0, 0, 0]]
    else:
        wanted = [[5, 10, 5, 10], [0, 10, 0, 10], [2, 10, 2, 10], [0, 0, 0, 0]]
    np.testing.assert_array_equal(plan.box[:, 0], wanted)
    areas = [(b[1] - b[0]) * (b[3] - b[2]) / 100 for b in wanted]
    np.testing.assert_allclose(plan.lam, 1 - np.array(areas), atol=1e-6)


@pytest.mark.parametrize("edge", ["clip", "inside"])
def test_cutmix_with_a_share_for_each_row_gives_each_its_own_sides(edge: str) -> None:
    lam = np.array([0.75, 0.0, 0.36, 1.0, 0.96])
    for seed in range(10):
        plan = mx.CutMix(edge=edge, label="nominal").draw(rng(seed), mx.Spec(5, (10, 10)), lam=lam)
        sides = plan.box[:, 0, 1::2] - plan.box[:, 0, 0::2]
        assert (sides <= np.array([5, 10, 8, 0, 2])[:, None]).all()
        if edge == "inside":
            np.testing.assert_array_equal(sides, np.repeat([[5], [10], [8], [0], [2]], 2, 1))
            np.testing.assert_allclose(plan.lam, [0.75, 0.0, 0.36, 1.0, 0.96], atol=1e-6)


def test_cutmix_labels_by_the_nominal_share_on_request() -> None:
    plan = mx.CutMix(label="nominal").draw(rng(), mx.Spec(2, (10, 10)), lam=0.3, at=[0, 0])
    np.testing.assert_allclose(plan.lam, [0.3, 0.3], rtol=1e-6)


def test_cutmix_takes_boxes_for_all_or_for_each_row() -> None:
    one = mx.CutMix().draw(rng(), mx.Spec(2, (8, 8)), box=[0, 4, 0, 8], partner=[1, 0])
    np.testing.assert_array_equal(one.lam, [0.5, 0.5])
    each = mx.CutMix(per="batch").draw(rng(), mx.Spec(2, (8, 8)), box=[[0, 4, 0, 8], [0, 8, 0, 8]])
    np.testing.assert_array_equal(each.lam, [0.5, 0.0])
    np.testing.assert_array_equal(each.box[:, 0], [[0, 4, 0, 8], [0, 8, 0, 8]])


def test_cutmix_minmax_draws_each_side_for_itself() -> None:
    plan = mx.CutMix(minmax=(0.25, 0.5), edge="inside", per="sample").draw(rng(), mx.Spec(400, (40, 20)))
    sides = plan.box[:, 0, 1::2] - plan.box[:, 0, 0::2]
    assert set(sides[:, 0]) == set(range(10, 21))
    assert set(sides[:, 1]) == set(range(5, 11))
    assert abs(np.corrcoef(sides.T)[0, 1]) < 0.2


# -- Cutout and RandomErasing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("edge", ["clip", "inside"])
def test_cutout_holes_have_their_size_and_never_change_targets(size: int, edge: str) -> None:
    plan = mx.Cutout(size, count=3, edge=edge).draw(rng(), mx.Spec(50, SHAPE))
    sides = plan.box[..., 1::2] - plan.box[..., 0::2]
    whole = np.minimum(size, SHAPE)
    assert (sides <= whole).all()
    assert (sides > 0).all()
    if edge == "inside":
        assert (sides == whole).all()
    assert (plan.lam == 1).all()
    assert (plan.partner < 0).all()
    assert plan.k == 3


def test_cutout_reaches_half_its_size_around_the_centre() -> None:
    def box(size: int, at: list[int]) -> list[int]:
        return mx.Cutout(size).draw(rng(), mx.Spec(1, (9, 9)), at=at).box[0, 0].tolist()

    assert box(4, [4, 4]) == [2, 6, 2, 6]
    assert box(5, [4, 4]) == [2, 7, 2, 7]
    assert box(4, [0, 8]) == [0, 2, 6, 9]
    assert box(1, [0, 8]) == [0, 1, 8, 9]


def test_cutout_sizes_by_axis_and_by_fraction() -> None:
    by_axis = mx.Cutout((2, 5), edge="inside").draw(rng(), mx.Spec(3, SHAPE))
    assert (by_axis.box[..., 1::2] - by_axis.box[..., 0::2] == [2, 5]).all()
    fraction = mx.Cutout(fraction=0.5, edge="inside").draw(rng(), mx.Spec(3, (12, 9)))
    assert (fraction.box[..., 1::2] - fraction.box[..., 0::2] == [6, 5]).all()


@pytest.mark.parametrize("op", [mx.Cutout(3), mx.RandomErasing()])
def test_per_batch_makes_the_same_holes_in_every_row(op: mx.Operator) -> None:
    plan = replace(op, per="batch").draw(rng(), mx.Spec(9, SHAPE))
    assert len(np.unique(plan.box, axis=0)) == 1
    assert len(np.unique(op.draw(rng(), mx.Spec(9, SHAPE)).box, axis=0)) > 1


def test_cutout_takes_a_place_for_each_row_whatever_per_says() -> None:
    at = np.array([[[1, 1]], [[5, 5]], [[9, 9]]])
    for per in ("batch", "sample"):
        plan = mx.Cutout(2, per=per).draw(rng(), mx.Spec(3, (10, 10)), at=at)
        np.testing.assert_array_equal(plan.box[:, 0], [[0, 2, 0, 2], [4, 6, 4, 6], [8, 10, 8, 10]])


def test_erasing_keeps_within_the_image_and_its_area_and_aspect() -> None:
    plan = mx.RandomErasing(area=(0.1, 0.2), aspect=(0.5, 2.0)).draw(rng(), mx.Spec(500, (100, 80)))
    on = plan.opacity[:, 0] > 0
    sides = (plan.box[on, 0, 1::2] - plan.box[on, 0, 0::2]).astype(float)
    assert on.all()
    assert (sides < [100, 80]).all()
    assert (sides.prod(1) / 8000 > 0.1 * 0.95).all()
    assert (sides.prod(1) / 8000 < 0.2 * 1.05).all()
    assert ((sides[:, 0] / sides[:, 1] > 0.5 * 0.93) & (sides[:, 0] / sides[:, 1] < 2 * 1.07)).all()
    assert (plan.lam == 1).all()


def test_erasing_that_fits_nowhere_leaves_the_row() -> None:
    plan = mx.RandomErasing(area=(0.9, 1.0), aspect=(50, 60)).draw(rng(), mx.Spec(20, (10, 10)))
    assert plan.is_identity


def test_erasing_shares_its_area_among_its_rectangles() -> None:
    plan = mx.RandomErasing(area=(0.3, 0.3), aspect=(1, 1), count=3).draw(rng(), mx.Spec(50, (100, 100)))
    sides = plan.box[..., 1::2] - plan.box[..., 0::2]
    np.testing.assert_array_equal(sides[plan.opacity > 0], 32)


@pytest.mark.parametrize("noise", ["channel", "pixel"])
def test_every_patch_of_noise_has_a_key_of_its_own_that_the_plan_keeps(noise: str) -> None:
    op = mx.RandomErasing(noise=noise, count=2, area=(0.1, 0.2))
    plan = op.draw(rng(), mx.Spec(6, (20, 20)))
    keys = {plan.fills[int(-1 - i)].key for i in plan.partner.ravel()}
    assert len(keys) == 12
    x = data("float32", (6, 3, 20, 20))
    np.testing.assert_array_equal(
        mx.mix(x, plan, "b c h w"), mx.mix(x, op.draw(rng(), mx.Spec(6, (20, 20))), "b c h w")
    )
    same = mx.RandomErasing(noise=noise, per="batch").draw(rng(), mx.Spec(6, (20, 20)))
    assert len(set(same.partner.ravel().tolist())) == 1
