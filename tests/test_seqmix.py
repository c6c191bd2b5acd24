"""SeqMix: which windows are mixed, held to plain loops; that both parents get one blend; how often what is drawn."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import mixops as mx

VARIANTS = ("whole", "sub", "label-constrained")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def naive_windows(op: mx.SeqMix, tags: Any, lengths: Any, special: Any = None) -> list[tuple[int, int, Any]]:
    """(row, start, what two windows must have in common) of every eligible window, by loops."""
    found: list[tuple[int, int, Any]] = []
    for row, line in enumerate(np.asarray(tags).tolist()):
        real = range(int(lengths[row]))
        usable = [t for t in real if line[t] >= 0 and not (special is not None and special[row][t])]
        for start in real:
            size = len(usable) if op.variant == "whole" else op.window
            window = list(range(start, start + size))
            if not size or not set(window) <= set(usable):
                continue
            named = sum(line[t] != op.outside for t in window)
            least = op.min_tags if op.min_tags is not None else -(-3 * op.window // 5)
            if named / size >= op.density if op.density is not None else named >= least:
                content = tuple(line[t] for t in window)
                found.append((row, start, {"whole": size, "sub": 0}.get(op.variant, content)))
    return found


@st.composite
def batches(draw: st.DrawFn) -> tuple[mx.SeqMix, np.ndarray, np.ndarray, np.ndarray | None]:
    """An operator, tags, lengths and special tokens."""
    n, extent = draw(st.integers(0, 7)), draw(st.integers(1, 9))
    generator = rng(draw(st.integers(0, 1 << 20)))
    tags = generator.integers(draw(st.sampled_from([-1, 0])), draw(st.integers(1, 3)), (n, extent))
    if draw(st.booleans()):
        tags = np.where(tags > 0, tags * 1_000_000_007 % (1 << 31), tags)
    lengths = generator.integers(0, extent + 1, n)
    special = generator.random((n, extent)) < 0.1 if draw(st.booleans()) else None
    window = draw(st.integers(1, 5))
    rich: dict[str, Any] = draw(
        st.one_of(
            st.just({}),
            st.builds(lambda k: {"min_tags": min(k, window)}, st.integers(0, 5)),
            st.builds(lambda d: {"density": d}, st.sampled_from([0.2, 0.28, 0.5, 2 / 3, 1.0])),
        )
    )
    op = mx.SeqMix(draw(st.sampled_from(VARIANTS)), window, outside=draw(st.sampled_from([0, 1])), **rich)
    return op, tags, lengths, special


@given(batches())
@settings(max_examples=300)
def test_the_windows_are_those_that_loops_find(batch: Any) -> None:
    op, tags, lengths, special = batch
    row, start, group = op.windows(tags, lengths, special)
    expected = naive_windows(op, tags, lengths, special)
    assert list(zip(row.tolist(), start.tolist(), strict=True)) == [(r, s) for r, s, _ in expected]
    assert {a.dtype for a in (row, start, group)} == {np.dtype(np.int64)}
    content = [c for _, _, c in expected]
    for i, j in product(range(len(content)), repeat=2):
        assert (group[i] == group[j]) == (content[i] == content[j])
    if op.variant != "label-constrained":
        assert group.tolist() == content


@given(batches(), st.integers(0, 1 << 20))
@settings(max_examples=300)
def test_a_plan_mixes_windows_that_fit_and_leaves_a_pair_alone_only_where_none_do(batch: Any, seed: int) -> None:
    op, tags, lengths, special = batch
    n, extent = tags.shape
    plan = op.draw(rng(seed), mx.Spec(n, (extent,), lengths), tags=tags, special=special)
    plan.validate(n)
    assert (plan.k, plan.shape) == (1, (extent,))
    windows = {(r, s): c for r, s, c in naive_windows(op, tags, lengths, special)}
    partner = plan.partner[:, 0]
    np.testing.assert_array_equal(partner[partner], np.arange(n))
    for i, j in enumerate(partner.tolist()):
        fit = [
            (a[1], b[1]) for a, b in product(windows, repeat=2) if (a[0], b[0]) == (i, j) and windows[a] == windows[b]
        ]
        (start, stop), (come, gone) = plan.box[i, 0].tolist(), plan.donor[i, 0].tolist()
        if i == j or not fit:
            assert (start, stop, come, gone, plan.opacity[i, 0], plan.weight[i, 0]) == (0, 0, 0, 0, 0, 0)
            continue
        assert (start, come) in fit
        assert stop - start == gone - come == (windows[i, start] if op.variant == "whole" else op.window)
        np.testing.assert_array_equal(plan.donor[j], plan.box[i])
        assert plan.opacity[i, 0] + plan.opacity[j, 0] == 1
        assert 0 < plan.opacity[i, 0] < 1
        ordinary = sum(not (special is not None and special[i, t]) for t in range(lengths[i]))
        assert plan.weight[i, 0] == pytest.approx(plan.opacity[i, 0] * (stop - start) / ordinary, rel=1e-6)


# -- what the executors make of it -------------------------------------------------------------------------------------


def batch_of(n: int = 8, extent: int = 14) -> tuple[np.ndarray, np.ndarray]:
    return rng(1).integers(0, 4, (n, extent)), rng(2).integers(extent // 2, extent + 1, n)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("backend", ["reference", "cpu", "torch"])
def test_both_parents_get_the_same_window(variant: str, backend: str) -> None:
    tags, lengths = batch_of()
    lengths = np.repeat(lengths[::2], 2)  # whole rows mix with those of their length
    op = mx.SeqMix(variant, 3, 1)
    plan = op.draw(rng(3), mx.Spec(8, (14,), lengths), tags=tags, partner=[1, 0, 3, 2, 5, 4, 7, 6])
    words = rng(4).standard_normal((8, 14, 5)).astype(np.float32)
    mixed = np.asarray(mx.mix(torch.from_numpy(words) if backend == "torch" else words, plan, "b t d", backend=backend))
    one_hot = np.eye(4, dtype=np.float32)[tags]
    soft = mx.mix(one_hot, plan, "b t c", backend="reference")
    field = mx.Field("b t", "discrete", on_blend="planes", num_classes=4)
    planes = mx.mix_batch({"tags": tags}, plan, {"tags": field})["tags"]
    np.testing.assert_allclose(np.moveaxis(planes, 1, 2), soft, atol=1e-6)
    np.testing.assert_allclose(soft.sum(2), 1, atol=1e-6)
    acting = 0
    for i, j in enumerate(plan.partner[:, 0].tolist()):
        (a, b), (c, d), share = plan.box[i, 0].tolist(), plan.donor[i, 0].tolist(), float(plan.opacity[i, 0])
        acting += b > a
        for before, after, exact in ((words, mixed, 1e-6), (one_hot, soft, 0)):
            blend = (1 - share) * before[i, a:b] + share * before[j, c:d]
            np.testing.assert_allclose(after[i, a:b], after[j, c:d], atol=exact)
            np.testing.assert_allclose(after[i, a:b], blend, atol=1e-6)
            np.testing.assert_array_equal(np.delete(after[i], slice(a, b), 0), np.delete(before[i], slice(a, b), 0))
        if variant == "label-constrained":
            np.testing.assert_array_equal(soft[i], one_hot[i])
    assert acting >= 2


def test_a_window_holds_no_special_token_and_none_without_a_tag() -> None:
    tags = np.array([[-100, 1, -100, 1, 1, -100], [-100, 1, 1, 1, 1, -100]])
    special = np.array([[1, 0, 0, 0, 0, 1]] * 2)
    op = mx.SeqMix("sub", 2, 2)
    row, start, _ = op.windows(tags, None, special)
    assert list(zip(row.tolist(), start.tolist(), strict=True)) == [(0, 3), (1, 1), (1, 2), (1, 3)]
    np.testing.assert_array_equal(op.windows(tags)[1], start)
    spared = op.windows(np.ones((2, 6), int), [6, 5], special)
    assert list(zip(*map(np.ndarray.tolist, spared[:2]), strict=True)) == [
        *((0, s) for s in (1, 2, 3)),
        *((1, s) for s in (1, 2, 3)),
    ]
    whole = mx.SeqMix("whole", min_tags=1).windows(tags)
    assert [a.tolist() for a in whole] == [[1], [1], [4]], "the first row has a hole"


def test_the_last_window_takes_part_and_a_window_may_begin_outside() -> None:
    tags = [[0, 0, 0, 1, 1, 1, 1]]
    assert mx.SeqMix(window=5, min_tags=3).windows(tags)[1].tolist() == [1, 2]


def test_evidence_comes_from_lists_tensors_and_dict_batches() -> None:
    tags, lengths = batch_of()
    op, spec = mx.SeqMix(window=3, min_tags=1), mx.Spec(8, (14,), lengths)
    plan = op.draw(rng(), spec, tags=tags)
    assert op.draw(rng(), mx.Spec(8, (14,)), tags=torch.from_numpy(tags), lengths=lengths) == plan
    assert op.draw(rng(), spec, tags=tags.tolist()) == plan
    batch = {"words": np.zeros((8, 14, 2)), "tags": tags, "lengths": lengths}
    fields = {"words": mx.Field("b t d")}
    found = mx.evidence_of(batch, fields, op)
    assert op.draw(rng(), mx.spec_of(batch, fields), **found) == plan
    for before, after in zip(op.windows(tags, lengths), op.windows(torch.from_numpy(tags), lengths), strict=True):
        np.testing.assert_array_equal(before, after)


# -- chance ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_combination_of_windows_is_as_likely(variant: str) -> None:
    tags = np.array([[1, 0, 1, 2, 1, 0, 2], [2, 1, 0, 1, 0, 2, 1]])
    lengths = np.array([7, 7])
    op = mx.SeqMix(variant, 2, 1)
    windows = naive_windows(op, tags, lengths)
    fit = [(a[1], b[1]) for a, b in product(windows, repeat=2) if (a[0], b[0]) == (0, 1) and a[2] == b[2]]
    pairs = 4000  # of the same two rows, in one batch
    spec = mx.Spec(2 * pairs, (7,), np.tile(lengths, pairs))
    plan = op.draw(rng(7), spec, tags=np.tile(tags, (pairs, 1)), partner=np.arange(2 * pairs) ^ 1)
    drawn = Counter(zip(plan.box[::2, 0, 0].tolist(), plan.donor[::2, 0, 0].tolist(), strict=True))
    assert set(drawn) == set(fit)
    assert len(fit) == {"sub": 36, "label-constrained": 8, "whole": 1}[variant]
    if len(fit) > 1:
        assert stats.chisquare([drawn[f] for f in fit]).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.5, 8.0, 40.0])
def test_lam_is_beta_one_for_each_pair(alpha: float) -> None:
    n = 8000
    op = mx.SeqMix("sub", 1, 1, alpha=alpha)
    plan = op.draw(rng(11), mx.Spec(n, (2,)), tags=np.ones((n, 2), int))
    first = np.arange(n) < plan.partner[:, 0]
    share = plan.opacity[first, 0]
    assert len(np.unique(share)) > 0.99 * n / 2
    assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 0.01
    np.testing.assert_array_equal(plan.opacity[plan.partner[first, 0], 0], 1 - share)


@pytest.mark.parametrize("alpha", [1e-12, 1e-320, 1e6, 1e308])
def test_extreme_alphas_give_no_nan(alpha: float) -> None:
    plan = mx.SeqMix("sub", 1, 1, alpha=alpha).draw(rng(), mx.Spec(200, (3,)), tags=np.ones((200, 3), int))
    plan.validate()
    first = plan.opacity[np.arange(200) < plan.partner[:, 0], 0]
    assert set(first.tolist()) == {0.0, 1.0} if alpha < 1 else (np.abs(first - 0.5) < 0.01).all()


def test_p_is_one_coin_for_each_pair() -> None:
    n = 4000
    plan = mx.SeqMix("sub", 1, 1, p=0.3).draw(rng(5), mx.Spec(n, (2,)), tags=np.ones((n, 2), int))
    acts = plan.opacity[:, 0] > 0
    np.testing.assert_array_equal(acts, acts[plan.partner[:, 0]])
    assert stats.binomtest(int(acts.sum()) // 2, n // 2, 0.3).pvalue > 0.01


def test_the_draw_of_a_pair_does_not_hang_on_the_tags_of_others() -> None:
    tags, lengths = batch_of()
    op, spec = mx.SeqMix(window=3, min_tags=1), mx.Spec(8, (14,), lengths)
    partner = [1, 0, 3, 2, 5, 4, 7, 6]
    before = op.draw(rng(), spec, tags=tags, partner=partner)
    tags[:2] = 0
    after = op.draw(rng(), spec, tags=tags, partner=partner)
    assert not after.opacity[:2].any()
    assert before[slice(2, 8)] == after[slice(2, 8)]


# -- what is given, and what is refused --------------------------------------------------------------------------------

PAIR = {"tags": np.ones((2, 4), int), "partner": [1, 0]}


@pytest.mark.parametrize("lam", [0.75, [0.75, 0.25], np.float32([0.75, 0.25])])
def test_lam_is_the_share_of_the_lower_row_or_of_every_row(lam: Any) -> None:
    plan = mx.SeqMix("sub", 2, 1).draw(rng(), mx.Spec(2, (4,)), lam=lam, **PAIR)
    assert plan.opacity[:, 0].tolist() == [0.25, 0.75]
    assert plan.weight[:, 0].tolist() == [0.125, 0.375]


@pytest.mark.parametrize(
    "op", [mx.SeqMix("sub", 2, 1, alpha=0), mx.SeqMix("sub", 2, 1, p=0), mx.SeqMix("sub", 5, 1), mx.SeqMix("sub", 4, 4)]
)
def test_nothing_changes_where_nothing_may(op: mx.SeqMix) -> None:
    tags = np.array([[1, 1, 1, 1], [1, 1, 0, 1]])
    plan = op.draw(rng(), mx.Spec(2, (4,)), tags=tags)
    assert plan.is_identity
    assert not plan.box.any()


def test_an_odd_row_and_a_row_paired_with_itself_stay_as_they_are() -> None:
    tags = np.ones((3, 4), int)
    plan = mx.SeqMix("sub", 2, 1).draw(rng(), mx.Spec(3, (4,)), tags=tags)
    assert ((plan.opacity[:, 0] > 0) == (plan.partner[:, 0] != np.arange(3))).all()
    assert (plan.opacity > 0).sum() == 2
    assert mx.SeqMix("sub", 2, 1).draw(rng(), mx.Spec(3, (4,)), tags=tags, partner=[0, 1, 2]).is_identity


def test_the_default_is_three_of_five_and_a_density_is_exact() -> None:
    tags = [[1, 1, 0, 0, 0, 1, 1, 1, 0, 0]]
    assert mx.SeqMix().windows(tags)[1].tolist() == mx.SeqMix(min_tags=3).windows(tags)[1].tolist() == [3, 4, 5]
    assert mx.SeqMix(window=4).windows(tags)[1].tolist() == mx.SeqMix(window=4, min_tags=3).windows(tags)[1].tolist()
    named = np.r_[np.ones(7, int), np.zeros(18, int)][None]
    assert len(mx.SeqMix(window=25, density=0.28).windows(named)[0]) == 1  # 0.28 · 25 is a little above 7 in floats


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"variant": "token"}, "variant='token'"),
        ({"window": 0}, "window=0"),
        ({"window": 2, "min_tags": 3}, "at most as many tags as the window has tokens"),
        ({"min_tags": -1}, "min_tags=-1"),
        ({"density": 0}, "density=0"),
        ({"density": 1.5}, "density=1.5"),
        ({"min_tags": 3, "density": 0.5}, "expected one of the two"),
        ({"alpha": -1}, "alpha=-1"),
        ({"outside": -100}, "outside=-100"),
        ({"pairing": "roll"}, "expected one of 'random', 'flip'"),
        ({"p": 2}, "p=2"),
    ],
)
def test_numbers_out_of_range_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(mx.MixError, match=says):
        mx.SeqMix(**given)


@pytest.mark.parametrize(
    ("shape", "given", "says"),
    [
        ((4,), {}, "needs tags"),
        ((), {"tags": np.ones((2, 4), int)}, r"spec shape \(\), expected \(T,\)"),
        ((5,), {"tags": np.ones((2, 4), int)}, r"tags has shape \(2, 4\): expected \(2, 5\)"),
        ((4,), {"tags": np.ones((2, 4))}, "tags: got float64"),
        ((4,), {"tags": [[1], [1, 2]]}, "tags: rows of different lengths"),
        ((4,), {"tags": np.full((2, 4), 1 << 31)}, "ids below"),
        ((4,), {"tags": PAIR["tags"], "special": np.zeros((2, 3), bool)}, "special has shape"),
        ((4,), {"tags": PAIR["tags"], "partner": [1, 1]}, "partners that come in pairs"),
        ((4,), {"tags": PAIR["tags"], "partner": [1, 2]}, "partner reaches"),
        ((4,), {**PAIR, "lam": [0.75, 0.75]}, "lam of rows 0 and 1 is 0.75 and 0.75"),
        ((4,), {**PAIR, "lam": 1.5}, "lam 1.5"),
        ((4,), {**PAIR, "lengths": [4, 5]}, "lengths reach from 4 to 5"),
    ],
)
def test_evidence_that_does_not_fit_is_refused(shape: tuple[int, ...], given: dict[str, Any], says: str) -> None:
    with pytest.raises(mx.MixError, match=says):
        mx.SeqMix(window=2).draw(rng(), mx.Spec(2, shape), **given)


def test_windows_of_tags_that_are_no_table_are_refused() -> None:
    for tags in ([1, 2], [[1], [1, 2]], np.ones((1, 2, 3), int)):
        with pytest.raises(mx.MixError, match="tags"):
            mx.SeqMix().windows(tags)
