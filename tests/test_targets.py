"""Targets and losses: they are distributions, they say what the pixels say, and their forms agree."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import mixops as mx

SIDE = 8
MIXING = [
    mx.Mixup(0.8),
    mx.Mixup(1.0, per="sample"),
    mx.Mixup(0.4, per="pair", pairing="flip"),
    mx.CutMix(1.0),
    mx.CutMix(1.0, per="sample", edge="inside"),
    mx.CutMix(minmax=(0.2, 0.8), per="sample"),
    mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)], p=[0.4, 0.4], per="sample"),
    mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)]),
    mx.Sometimes(mx.CutMix(1.0), 0.5, per="sample"),
    mx.Mixup(0.8) | mx.CutMix(1.0),
]
SINGLE = MIXING[:-1]
FILLING = [mx.Cutout(3), mx.Mixup(0.8) | mx.Cutout(3, count=2), mx.RandomErasing() | mx.CutMix()]

seeds = st.integers(0, 2**32 - 1)
rows = st.integers(0, 9)


def drawn(op: Any, seed: int, n: int) -> Any:
    return op.draw(np.random.default_rng(seed), mx.Spec(n, (SIDE, SIDE)))


def two_donors() -> mx.Plan:
    """Row 0 has two weighted donors, row 1 one and an unweighted fill."""
    boxes = np.zeros((2, 2, 0), int)
    return mx.Plan([0, 1], [[1, 2], [0, -1]], boxes, boxes, [[0.5, 0.5], [0.25, 0]], [[0.25, 0.5], [0.25, 0]], ())


def matrix(plan: mx.Plan, sources: int) -> np.ndarray:
    """The row-stochastic matrix of a plan, written as loops: share of source row j in the target of row n."""
    shares = np.zeros((plan.n, sources))
    for n in range(plan.n):
        shares[n, plan.base[n]] += 1 - float(plan.weight[n].sum())
        for k in range(plan.k):
            if plan.weight[n, k] > 0:
                shares[n, plan.partner[n, k]] += plan.weight[n, k]
    return shares


# -- the soft form -----------------------------------------------------------------------------------------------------


@given(st.sampled_from(MIXING + FILLING), seeds, rows, st.integers(1, 5), st.sampled_from([0.0, 0.1]))
def test_soft_targets_are_distributions(op: Any, seed: int, n: int, classes: int, smoothing: float) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, n)
    soft = mx.soft_targets(labels, drawn(op, seed, n), classes, smoothing)
    assert soft.dtype == np.float32
    assert soft.shape == (n, classes)
    assert (soft >= smoothing / classes * (1 - 1e-6)).all()
    np.testing.assert_allclose(soft.sum(1), 1, atol=1e-6)


@given(st.sampled_from(MIXING), seeds, st.integers(1, 7))
def test_label_weight_is_the_measured_provenance_of_the_pixels(op: Any, seed: int, n: int) -> None:
    plan = drawn(op, seed, n)
    # Plane j of a row says how much of each pixel comes from row j.
    painted = np.broadcast_to(np.eye(n)[..., None, None], (n, n, SIDE, SIDE)).copy()
    measured = mx.mix(painted, plan, "b c h w").mean((2, 3))
    np.testing.assert_allclose(mx.soft_targets(np.arange(n), plan, n), measured, atol=1e-6)


@given(st.sampled_from(FILLING[:2]), seeds, st.integers(1, 7))
def test_fills_change_no_target(op: Any, seed: int, n: int) -> None:
    plan = drawn(op, seed, n)
    without = mx.Plan(
        **{a: getattr(plan, a)[:, :1] for a in ("partner", "box", "donor", "opacity", "weight")},
        base=plan.base,
        shape=plan.shape,
    )
    labels = np.arange(n)
    np.testing.assert_array_equal(mx.soft_targets(labels, plan, n), mx.soft_targets(labels, without, n))


@given(st.lists(st.sampled_from(SINGLE), min_size=2, max_size=3), seeds, st.integers(1, 7))
def test_targets_of_a_sequence_are_the_product_of_its_matrices(ops: list[Any], seed: int, n: int) -> None:
    plans = [drawn(op, seed + i, n) for i, op in enumerate(ops)]
    product = np.eye(n)
    for plan in plans:
        product = matrix(plan, n) @ product
    sequence = mx.PlanSequence(tuple(plans))
    np.testing.assert_allclose(mx.soft_targets(np.arange(n), sequence, n), product, atol=1e-6)


@given(st.sampled_from(MIXING), seeds, st.integers(1, 7))
def test_one_hot_rows_give_what_their_ids_give(op: Any, seed: int, n: int) -> None:
    plan, ids = drawn(op, seed, n), np.random.default_rng(seed).integers(0, 4, n)
    for smoothing in (0.0, 0.2):
        expected = mx.soft_targets(ids, plan, 4, smoothing)
        for one_hot in (
            np.eye(4)[ids],
            np.eye(4, dtype=np.float16)[ids],
            np.eye(4, dtype=int)[ids],
            np.eye(4)[ids] > 0,
        ):
            np.testing.assert_allclose(mx.soft_targets(one_hot, plan, 4, smoothing), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_ids_of_any_integer_dtype_and_of_tensors_give_the_same(dtype: str) -> None:
    plan, ids = drawn(MIXING[1], 3, 5), np.array([2, 0, 1, 1, 2])
    expected = mx.soft_targets(ids, plan, 3, 0.1)
    np.testing.assert_array_equal(mx.soft_targets(ids.astype(dtype), plan, 3, 0.1), expected)
    soft = mx.soft_targets(torch.from_numpy(ids).to(getattr(torch, dtype)), plan, 3, 0.1)
    assert soft.dtype == torch.float32
    np.testing.assert_array_equal(soft.numpy(), expected)


def test_smoothing_shares_s_among_all_classes() -> None:
    ids, lam, s = np.array([3, 0, 2, 2]), 0.75, 0.1
    plan = mx.Mixup(pairing="flip").draw(np.random.default_rng(0), mx.Spec(4), lam=lam)
    on, off = 1 - s + s / 5, s / 5
    smoothed = np.where(np.eye(5)[ids] == 1, on, off)
    np.testing.assert_allclose(mx.soft_targets(ids, plan, 5, s), lam * smoothed + (1 - lam) * smoothed[::-1], atol=1e-7)


def test_multi_label_rows_blend_as_they_are() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.75, partner=[1, 0])
    rows = np.array([[1, 1, 0], [0, 1, 1]], np.float32)
    expected = [[0.75, 1, 0.25], [0.25, 1, 0.75]]
    assert mx.soft_targets(rows, plan).tolist() == expected
    assert mx.soft_targets(torch.from_numpy(rows), plan, 3).tolist() == expected


def test_numbers_to_regress_on_blend() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.75, partner=[1, 0])
    assert mx.soft_targets(np.array([0.0, 4.0]), plan).tolist() == [1.0, 3.0]
    assert mx.soft_targets(torch.tensor([[0.0, 8.0], [4.0, 0.0]]), plan).tolist() == [[1.0, 6.0], [3.0, 2.0]]


def test_a_label_without_a_share_does_not_leak_its_nan() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(3), lam=[1.0, 0.0, 0.5], partner=[1, 0, 1])
    soft = mx.soft_targets(np.array([1.0, np.nan, 3.0]), plan)
    assert soft[:2].tolist() == [1.0, 1.0]
    assert np.isnan(soft[2])


def test_an_ignored_share_adds_nothing() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(3), lam=0.75, partner=[1, 0, 2])
    labels = np.array([2, -100, 0])
    soft = mx.soft_targets(labels, plan, 3, ignore_index=-100)
    assert soft.tolist() == [[0, 0, 0.75], [0, 0, 0.25], [1, 0, 0]]
    smoothed = mx.soft_targets(labels, plan, 3, 0.3, ignore_index=-100)
    np.testing.assert_allclose(smoothed.sum(1), [0.75, 0.25, 1], atol=1e-6)
    ids, weights = mx.sparse_targets(labels, plan, ignore_index=-100)
    assert ids.min() == 0
    assert weights.tolist() == [[0.75, 0], [0, 0.25], [0.75, 0.25]]


def test_a_plan_on_a_data_set_takes_the_labels_of_the_data_set() -> None:
    plan = drawn(MIXING[1], 5, 4)
    data, chosen = np.arange(50) % 7, np.array([40, 3, 17, 49])
    np.testing.assert_array_equal(mx.soft_targets(data, plan.on(chosen), 7), mx.soft_targets(data[chosen], plan, 7))


# -- the other forms ---------------------------------------------------------------------------------------------------


@given(st.sampled_from(SINGLE + FILLING), seeds, rows)
def test_the_pair_form_adds_up_to_the_soft_form(op: Any, seed: int, n: int) -> None:
    plan, labels = drawn(op, seed, n), np.random.default_rng(seed).integers(0, 6, n)
    ya, yb, lam = mx.pair_targets(labels, plan)
    assert (ya.dtype, lam.dtype, lam.shape) == (labels.dtype, np.float32, (n,))
    blended = lam[:, None] * np.eye(6)[ya] + (1 - lam[:, None]) * np.eye(6)[yb]
    np.testing.assert_allclose(mx.soft_targets(labels, plan, 6), blended, atol=1e-6)


@given(st.sampled_from(MIXING + FILLING), seeds, rows)
def test_the_sparse_form_adds_up_to_the_soft_form(op: Any, seed: int, n: int) -> None:
    plan, labels = drawn(op, seed, n), np.random.default_rng(seed).integers(0, 6, n)
    ids, weights = mx.sparse_targets(labels, plan, num_classes=6)
    assert (ids.dtype, weights.dtype, ids.shape) == (np.int64, np.float32, weights.shape)
    total = np.zeros((n, 6))
    np.add.at(total, (np.arange(n)[:, None], ids), weights)
    np.testing.assert_allclose(mx.soft_targets(labels, plan, 6), total, atol=1e-6)


def test_the_sparse_form_names_the_own_label_first_and_the_donors_in_order() -> None:
    ids, weights = mx.sparse_targets(torch.tensor([7, 8, 9]), two_donors())
    assert ids.tolist() == [[7, 8, 9], [8, 7, 8]]
    assert weights.tolist() == [[0.25, 0.25, 0.5], [0.75, 0.25, 0]]


def test_several_patches_of_one_donor_are_one_pair() -> None:
    boxes = np.zeros((2, 2, 0), int)
    plan = mx.Plan([0, 1], [[1, 1], [0, 1]], boxes, boxes, [[0.5, 0.5]] * 2, [[0.25, 0.5], [0.25, 0.5]], ())
    ya, yb, lam = mx.pair_targets(np.array([4, 5]), plan)
    assert (ya.tolist(), yb.tolist(), lam.tolist()) == ([4, 5], [5, 4], [0.25, 0.75])


def test_the_pair_form_takes_a_sequence_in_which_one_step_weighs() -> None:
    plan = drawn(mx.Mixup(1.0), 4, 5)
    moved = mx.PlanSequence((plan, mx.Plan.identity(5)[[4, 3, 2, 1, 0]]))
    for part, direct in zip(mx.pair_targets(np.arange(5), moved), mx.pair_targets(np.arange(5), plan), strict=True):
        np.testing.assert_array_equal(part, direct[::-1])


def test_the_pair_form_refuses_more_than_one_donor() -> None:
    with pytest.raises(mx.MixValueError, match="row 0 has more than one weighted donor"):
        mx.pair_targets(np.arange(3), two_donors())
    with pytest.raises(mx.MixValueError, match="two steps"):
        mx.pair_targets(np.arange(4), drawn(mx.Mixup(1.0) | mx.CutMix(1.0), 0, 4))


# -- what is refused ---------------------------------------------------------------------------------------------------

PLAN = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.75, partner=[1, 0])


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor], ids=["array", "tensor"])
@pytest.mark.parametrize(
    ("labels", "arguments", "says"),
    [
        ([0, 12], {"num_classes": 10}, "got class 12, expected 0 to 9"),
        ([0, -1], {"num_classes": 10}, "got class -1, expected 0 to 9"),
        ([0, 255], {"num_classes": 10, "ignore_index": 254}, "got class 255"),
        ([0.0, 1.0], {"num_classes": 10}, "expected integer ids"),
        ([0, 1], {}, "expected num_classes"),
        ([0], {"num_classes": 10}, "got 1 rows, the plan names row 1"),
        ([0, 1], {"num_classes": 0}, "num_classes=0"),
        ([0, 1], {"num_classes": 2, "smoothing": 1.0}, "smoothing=1.0"),
        ([0, 1], {"num_classes": 2, "smoothing": -0.1}, "smoothing=-0.1"),
        ([0, 1], {"num_classes": 2, "smoothing": float("nan")}, "smoothing=nan"),
        ([0.0, 1.0], {"smoothing": 0.1}, "without num_classes"),
        ([[0.0, 1.0], [1.0, 0.0]], {"num_classes": 3}, r"expected \(N,\) or \(N, 3\)"),
        ([[0.0, 1.0], [1.0, 0.0]], {"ignore_index": 0}, "labels that are no ids"),
        ([[3, 1], [1, 0]], {"num_classes": 2}, "other values than 0 and 1"),
        ([[[1.0]], [[2.0]]], {}, "Field"),
        (7, {"num_classes": 10}, "expected one for each row"),
    ],
)
def test_labels_that_do_not_fit_are_refused(kind: Any, labels: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(mx.MixError, match=says):
        mx.soft_targets(kind(labels), PLAN, **arguments)


def test_the_sparse_form_refuses_what_is_no_id() -> None:
    with pytest.raises(mx.MixTypeError, match="expected integer ids"):
        mx.sparse_targets(np.array([0.0, 1.0]), PLAN)
    with pytest.raises(mx.MixValueError, match="got class -1, expected 0 or more"):
        mx.sparse_targets(np.array([0, -1]), PLAN)
    with pytest.raises(mx.MixValueError, match="got class 5, expected 0 to 4"):
        mx.sparse_targets(np.array([0, 5]), PLAN, num_classes=5)


def test_words_as_labels_and_plans_of_another_kind_are_refused() -> None:
    with pytest.raises(mx.MixTypeError, match="number the classes"):
        mx.soft_targets(["cat", "dog"], PLAN, 2)
    with pytest.raises(mx.MixTypeError, match="number the classes"):
        mx.soft_targets(torch.zeros(5, dtype=torch.complex64), PLAN, 2)
    with pytest.raises(mx.MixTypeError, match="expected a Plan"):
        mx.soft_targets([0, 1], "Mixup", 2)


# -- losses ------------------------------------------------------------------------------------------------------------


def scores(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), requires_grad=True)


@pytest.mark.parametrize("op", SINGLE, ids=repr)
def test_the_loss_on_pairs_is_the_loss_on_soft_targets_and_so_is_its_gradient(op: Any) -> None:
    plan, labels = drawn(op, 1, 6), torch.tensor([0, 3, 1, 2, 2, 1])
    logits, same = scores(6, 4), scores(6, 4)
    paired = mx.mixed_loss(F.cross_entropy, logits, *mx.pair_targets(labels, plan))
    soft = F.cross_entropy(same, mx.soft_targets(labels, plan, 4))
    torch.testing.assert_close(paired, soft)
    paired.backward()
    soft.backward()
    torch.testing.assert_close(logits.grad, same.grad)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "uint16", "float64", "float32"])
def test_the_loss_takes_labels_of_numpy(dtype: str) -> None:
    plan, labels = drawn(MIXING[1], 1, 6), np.array([0, 3, 1, 2, 2, 1], dtype)
    labels.setflags(write=False)
    fn = F.cross_entropy if labels.dtype.kind in "iu" else F.mse_loss
    logits = scores(6, 4) if fn is F.cross_entropy else scores(6)
    tensors = torch.tensor(labels.astype("int64" if fn is F.cross_entropy else "float32"))
    loss = mx.mixed_loss(fn, logits, *mx.pair_targets(labels, plan))
    torch.testing.assert_close(loss, mx.mixed_loss(fn, logits, *mx.pair_targets(tensors, plan)))
    loss.backward()
    with pytest.raises(mx.MixTypeError, match="expected whole numbers or floats"):
        mx.mixed_loss(fn, logits, np.array(["a"] * 6), tensors, 0.5)


def test_a_criterion_keeps_its_own_reduction() -> None:
    plan, labels = drawn(MIXING[1], 1, 6), torch.tensor([0, 3, 1, 2, 2, 1])
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    before, logits = copy.copy(criterion.__dict__), scores(6, 4)
    loss = mx.mixed_loss(criterion, logits, *mx.pair_targets(labels, plan))
    assert criterion.__dict__ == before
    torch.testing.assert_close(loss, F.cross_entropy(logits, mx.soft_targets(labels, plan, 4, 0.1)))


def test_a_function_that_gives_a_mean_needs_one_lam() -> None:
    def mean_only(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, y)

    logits, ya, yb = scores(3, 4), torch.tensor([0, 1, 2]), torch.tensor([2, 0, 1])
    expected = mx.mixed_loss(F.cross_entropy, logits, ya, yb, 0.3)
    for lam in (0.3, np.float32(0.3), torch.tensor([0.3, 0.3, 0.3])):
        torch.testing.assert_close(mx.mixed_loss(mean_only, logits, ya, yb, lam), expected)
    with pytest.raises(mx.MixValueError, match="lam differs between rows"):
        mx.mixed_loss(mean_only, logits, ya, yb, torch.tensor([0.3, 0.3, 0.4]))


def test_lam_is_spread_over_the_pixels_of_a_row() -> None:
    logits, masks = scores(2, 3, 4, 4), torch.arange(32).reshape(2, 4, 4) % 3
    lam = torch.tensor([0.25, 0.5])
    loss = mx.mixed_loss(F.cross_entropy, logits, masks, masks.flip(0), lam)
    rows = [
        lam[n] * F.cross_entropy(logits[n : n + 1], masks[n : n + 1])
        + (1 - lam[n]) * F.cross_entropy(logits[n : n + 1], masks[1 - n : 2 - n])
        for n in range(2)
    ]
    torch.testing.assert_close(loss, (rows[0] + rows[1]) / 2)


def test_regression_takes_both_parents() -> None:
    guess, y = scores(3), torch.tensor([0.0, 1.0, 4.0])
    lam = torch.tensor([0.25, 0.5, 1.0])
    loss = mx.mixed_loss(torch.nn.MSELoss(), guess, y, y.flip(0), lam)
    torch.testing.assert_close(loss, (lam * (guess - y) ** 2 + (1 - lam) * (guess - y.flip(0)) ** 2).mean())


@pytest.mark.parametrize("lam", [1.5, float("nan"), torch.tensor([0.5, -0.1, 0.5]), torch.tensor([0.5, 0.5])], ids=str)
def test_a_lam_that_is_no_share_is_refused(lam: Any) -> None:
    with pytest.raises(mx.MixValueError, match="lam"):
        mx.mixed_loss(F.cross_entropy, scores(3, 4), torch.tensor([0, 1, 2]), torch.tensor([2, 0, 1]), lam)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3, 2)], ids=str)
def test_soft_cross_entropy_is_that_of_torch_where_targets_sum_to_one(reduction: str, shape: tuple[int, ...]) -> None:
    logits, same = scores(*shape), scores(*shape)
    soft = torch.softmax(scores(*shape, seed=1).detach(), 1)
    ours = mx.SoftCrossEntropy(reduction)(logits, soft)
    theirs = F.cross_entropy(same, soft, reduction=reduction)
    torch.testing.assert_close(ours, theirs)
    ours.sum().backward()
    theirs.sum().backward()
    torch.testing.assert_close(logits.grad, same.grad)


def test_soft_cross_entropy_leaves_ignored_rows_out_of_the_mean_as_torch_does() -> None:
    labels, logits = torch.tensor([0, -100, 2, -100]), scores(4, 3)
    soft = mx.soft_targets(labels, mx.Plan.identity(4), 3, ignore_index=-100)
    torch.testing.assert_close(mx.SoftCrossEntropy()(logits, soft), F.cross_entropy(logits, labels))
    nothing = mx.SoftCrossEntropy()(logits, torch.zeros(4, 3))
    nothing.backward()
    assert nothing.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@given(st.sampled_from(MIXING + FILLING), seeds)
def test_soft_cross_entropy_of_the_sparse_form_is_that_of_the_soft_form(op: Any, seed: int) -> None:
    plan, labels, logits = drawn(op, seed, 5), torch.tensor([3, 0, 2, 1, 1]), scores(5, 4)
    criterion = mx.SoftCrossEntropy()
    sparse = criterion(logits, mx.sparse_targets(labels, plan))
    torch.testing.assert_close(sparse, criterion(logits, mx.soft_targets(labels, plan, 4)))


def test_soft_cross_entropy_computes_halves_in_float32() -> None:
    logits, soft = scores(3, 4).detach().bfloat16(), torch.full((3, 4), 0.25)
    loss = mx.SoftCrossEntropy()(logits, soft)
    torch.testing.assert_close(loss, F.cross_entropy(logits.float(), soft))


def test_soft_cross_entropy_refuses_what_does_not_fit() -> None:
    criterion, ids = mx.SoftCrossEntropy(), torch.tensor([0, 1])
    with pytest.raises(mx.MixValueError, match="reduction='avg'"):
        mx.SoftCrossEntropy("avg")
    for targets in (ids, torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.int64)):
        with pytest.raises(mx.MixTypeError, match="expected floats of that shape"):
            criterion(scores(2, 4), targets)
    with pytest.raises(mx.MixTypeError, match="ya, yb and lam take mixed_loss"):
        criterion(scores(2, 4), (ids, ids, torch.tensor([0.5, 0.5])))


def test_torch_loads_with_the_first_name_that_needs_it() -> None:
    code = (
        "import sys, mixops; assert 'torch' not in sys.modules;"
        "from mixops import *; assert 'torch' not in sys.modules;"
        "assert 'SoftCrossEntropy' in dir(mixops); assert not hasattr(mixops, 'SoftCross');"
        "mixops.SoftCrossEntropy(); assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- accuracy ----------------------------------------------------------------------------------------------------------


@given(st.sampled_from(SINGLE), seeds)
def test_the_forms_give_one_accuracy_and_it_is_the_mass_on_the_prediction(op: Any, seed: int) -> None:
    plan, labels = drawn(op, seed, 6), np.random.default_rng(seed).integers(0, 4, 6)
    logits = np.random.default_rng(seed + 1).random((6, 4))
    soft = mx.soft_targets(labels, plan, 4)
    expected = np.mean([soft[n, logits[n].argmax()] for n in range(6)])
    pair, sparse = mx.pair_targets(labels, plan), mx.sparse_targets(labels, plan)
    for got in (
        mx.mixed_accuracy(logits, soft),
        mx.mixed_accuracy(logits, *pair),
        mx.mixed_accuracy(logits, pair),
        mx.mixed_accuracy(logits, *sparse),
        mx.mixed_accuracy(torch.from_numpy(logits), torch.from_numpy(soft)),
        mx.mixed_accuracy(torch.from_numpy(logits), mx.pair_targets(torch.from_numpy(labels), plan)),
    ):
        assert isinstance(got, float)
        assert got == pytest.approx(expected, abs=1e-6)


def test_accuracy_is_right_where_plain_accuracy_calls_the_other_parent_a_mistake() -> None:
    logits, soft = np.eye(2), np.array([[0.4, 0.6], [0.4, 0.6]])
    assert mx.mixed_accuracy(logits, soft) == pytest.approx(0.5)


def test_accuracy_counts_labelled_mass_only_and_is_nan_without_any() -> None:
    logits = np.eye(3)
    assert mx.mixed_accuracy(logits, np.diag([1.0, 0.5, 0.0])) == 1
    assert np.isnan(mx.mixed_accuracy(logits, np.zeros((3, 3))))


def test_accuracy_of_pixels() -> None:
    logits = scores(2, 3, 4, 4).detach()
    best = logits.argmax(1)
    assert mx.mixed_accuracy(logits, best, best.flip(0), torch.tensor([1.0, 1.0])) == 1
    assert mx.mixed_accuracy(logits, F.one_hot(best, 3).movedim(-1, 1).float()) == 1


def test_accuracy_refuses_other_targets() -> None:
    with pytest.raises(mx.MixTypeError, match="got 0 targets"):
        mx.mixed_accuracy(np.eye(2))
    with pytest.raises(mx.MixValueError, match="same number of rows"):
        mx.mixed_accuracy(np.eye(2), np.eye(3))
    with pytest.raises(mx.MixValueError, match="expected one shape"):
        mx.mixed_accuracy(np.eye(2), np.zeros((2, 3)))
