"""The plan of the gradient: wherever there is one, it gives what autograd gives through plain torch operations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import plans
from hypothesis import given
from hypothesis import strategies as st

import mixops as mx
from mixops.adjoint import adjoint_of
from mixops.packing import Packing

LAYOUTS = {0: ("b d", (3,)), 1: ("b t d", (6, 2)), 2: ("b c h w", (3, 5, 6)), 3: ("b t h w c", (2, 3, 4, 2))}


def gradients(plan: mx.Plan, layout: str, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """A gradient of the output of a mix in float64, and that of its input as autograd has it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
    out = mx.mix(x, plan, layout, backend="torch")
    given_gradient = torch.randn(out.shape, dtype=torch.float64, generator=generator)
    (wanted,) = torch.autograd.grad(out, x, given_gradient)
    return given_gradient, wanted


def check(plan: mx.Plan, layout: str, shape: tuple[int, ...]) -> mx.Plan:
    """That a plan has an adjoint and that it is right, and its own adjoint too; returns it."""
    back = adjoint_of(plan)
    assert back is not None
    back.validate(plan.n)
    assert not back.weight.any()
    gradient, wanted = gradients(plan, layout, shape)
    torch.testing.assert_close(mx.mix(gradient, back, layout, backend="torch"), wanted, rtol=0, atol=1e-12)
    again = adjoint_of(back)
    assert again is not None
    second, wanted = gradients(back, layout, shape)
    torch.testing.assert_close(mx.mix(second, again, layout, backend="torch"), wanted, rtol=0, atol=1e-12)
    return back


@dataclass(frozen=True)
class Made:
    plan: mx.Plan
    layout: str
    shape: tuple[int, ...]


@st.composite
def turning(draw: st.DrawFn) -> Made:
    """Plans whose rows all have the same patches: each moves the rows around in circles of its own, or paints."""
    rank, n, k = draw(st.integers(0, 3)), draw(st.integers(0, 5)), draw(st.integers(0, 3))
    layout, extents = LAYOUTS[rank]
    boxed = dict(zip(layout.split()[1:], extents, strict=True))
    shape = tuple(boxed[a] for a in ((), ("t",), ("h", "w"), ("t", "h", "w"))[rank])
    partner, box = np.zeros((n, k), int), np.zeros((n, k, 2 * rank), int)
    opacity = np.zeros((n, k))
    for i in range(k):
        partner[:, i] = draw(st.just([-1] * n) | st.permutations(range(n)))
        opacity[:, i] = draw(st.sampled_from([0.0, 1.0, 0.5, 0.3]))
        for r, extent in enumerate(shape):
            box[:, i, 2 * r : 2 * r + 2] = sorted(draw(st.tuples(*[st.integers(0, extent)] * 2)))
    plan = mx.Plan(
        np.arange(n), partner, box, box, opacity, np.zeros((n, k)), shape, fills=draw(st.floats(-3, 3, width=32))
    )
    return Made(plan, layout, (n, *extents))


@given(turning())
def test_rows_that_turn_in_circles_and_share_their_patches_have_one(made: Made) -> None:
    check(made.plan, made.layout, made.shape)


@given(turning(), st.data())
def test_where_one_row_is_another_than_the_rest_what_there_is_is_right(made: Made, data: st.DataObject) -> None:
    plan = made.plan
    if not (plan.n and plan.k):
        return
    row, patch = data.draw(st.integers(0, plan.n - 1)), data.draw(st.integers(0, plan.k - 1))
    fields = {name: getattr(plan, name).copy() for name in ("partner", "opacity", "box")}
    which = data.draw(st.sampled_from(["partner", "opacity", "box"]))
    if which == "partner":
        fields["partner"][row, patch] = data.draw(st.integers(-1, plan.n - 1))
    elif which == "opacity":
        fields["opacity"][row, patch] = data.draw(st.sampled_from([0.0, 1.0, 0.25]))
    else:
        for r, extent in enumerate(plan.shape):
            edges = data.draw(st.tuples(*[st.integers(0, extent)] * 2))
            fields["box"][row, patch, 2 * r : 2 * r + 2] = sorted(edges)
    changed = mx.Plan.trusted(plan, donor=fields["box"], **fields)
    if adjoint_of(changed) is not None:
        check(changed, made.layout, made.shape)


@given(plans())
def test_plans_made_by_hand_have_a_right_one_or_none(made: tuple[mx.Plan, str, tuple[int, ...]]) -> None:
    plan, layout, shape = made
    if shape[layout.split().index("b")] == plan.n and adjoint_of(plan) is not None:
        check(plan, layout, shape)


@given(st.integers(0, 3), st.integers(0, 3), st.integers(1, 3), st.floats(0, 1, width=32))
def test_spans_that_change_places_have_one(one: int, other: int, size: int, opacity: float) -> None:
    box = np.array([[[one, one + size]], [[other, other + size]], [[0, 0]]])
    share = np.full((3, 1), opacity)
    plan = mx.Plan([0, 1, 2], [[1], [0], [2]], box, box[[1, 0, 2]], share, np.zeros((3, 1)), (6,))
    back = check(plan, "b t d", (3, 6, 2))
    np.testing.assert_array_equal(back.box, plan.box)


SPEC = mx.Spec(6, (8, 9))
TURNING = {
    "Mixup": mx.Mixup(),
    "Mixup of pairs": mx.Mixup(per="pair", pairing="flip"),
    "CutMix": mx.CutMix(),
    "CutMix of pairs": mx.CutMix(per="pair", pairing="flip"),
    "Cutout": mx.Cutout(3),
    "noise": mx.RandomErasing(noise="pixel"),
    "one of three": mx.OneOf([mx.Mixup(), mx.CutMix(), mx.Cutout(3)]),
    "a blend, then one square for all": mx.Mixup() | mx.Cutout(3, per="batch"),
    "nothing": mx.Mixup(0),
}


@pytest.mark.parametrize("name", TURNING)
def test_operators_with_one_draw_a_batch_or_pair_and_those_that_only_paint_have_one(name: str) -> None:
    for seed in range(12):
        plan = TURNING[name].draw(np.random.default_rng(seed), SPEC)
        back = check(plan, "b c h w", (6, 3, 8, 9))
        form, same = Packing.of(plan), Packing.of(back)
        assert (same.n, same.k, same.rank, same.shift) == (form.n, form.k, form.rank, form.shift)


@pytest.mark.parametrize(
    ("partner", "share", "stop"),
    [
        ([1, 2, 0], [0.5, 0.25, 0.125], [4, 4, 4]),
        ([1, 1, 1], [0.5, 0.5, 0.5], [4, 4, 4]),
        ([1, 2, 0], [0.5, 0.5, 0.5], [4, 4, 3]),
        ([1, 0, 2], [1.0, 1.0, 0.0], [2, 1, 4]),
    ],
    ids=["other shares", "one donor for all", "another box", "a pair with two boxes"],
)
def test_rows_that_give_more_than_they_take_have_none(partner: list[int], share: list[float], stop: list[int]) -> None:
    box = np.array([[[0, s]] for s in stop])
    opacity = np.array(share)[:, None]
    none = np.zeros((3, 1))
    assert adjoint_of(mx.Plan([0, 1, 2], np.array(partner)[:, None], box, box, opacity, none, (4,))) is None


def test_a_plan_that_moves_rows_or_names_rows_beyond_its_own_has_none() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4), partner=[1, 0, 3, 2], lam=0.5)
    assert adjoint_of(plan) is not None
    assert adjoint_of(plan[[1, 0, 2, 3]]) is None
    assert adjoint_of(plan[:2]) is not None
    assert adjoint_of(plan[[0, 1, 2]]) is None
    assert adjoint_of(plan.on([4, 5, 6, 7])) is None


def test_donors_that_take_no_part_do_not_matter() -> None:
    box = np.zeros((2, 1, 2), int)
    plan = mx.Plan([0, 1], [[1], [1]], box, box, [[1.0], [0.0]], np.zeros((2, 1)), (4,))  # an empty box
    back = check(plan, "b t d", (2, 4, 3))
    assert back.is_identity
