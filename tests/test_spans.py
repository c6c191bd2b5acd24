"""SSMix and SpanMix: which span goes where, how much it weighs, and what never moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines import KeyedBatchSampler, MixCollator, PlanCollator, arrays, keyed
from span_batches import SPANS, Batch, as_float32, batches, mean, rng, spans_by_loop, spans_in

import mixops as mx

GOLDEN = Path(__file__).parent / "golden" / "ssmix_single.npz"


# -- SSMix -------------------------------------------------------------------------------------------------------------


@given(batches(), st.sampled_from(SPANS), st.booleans(), st.sampled_from([np.float64, np.float32, np.float16]))
def test_ssmix_is_what_a_loop_over_the_rows_finds(batch: Batch, span: float, pairs: bool, dtype: Any) -> None:
    batch = batch._replace(saliency=batch.saliency.astype(dtype))
    op = mx.SSMix(span, pairs=pairs)
    plan = op.draw(rng(), batch.spec, **batch.evidence(op))
    plan.validate(plan.n)
    assert (plan.k, plan.shape) == (1 + pairs, (batch.extent,))
    assert spans_in(plan) == as_float32(spans_by_loop(batch, span, pairs))


@given(batches(), st.sampled_from(SPANS))
def test_scores_of_padding_and_special_tokens_are_not_looked_at(batch: Batch, span: float) -> None:
    looked_at = np.array([batch.ordinary(i, 0, False) for i in range(len(batch.lengths))]).reshape(batch.saliency.shape)
    holes = batch._replace(saliency=np.where(looked_at, batch.saliency, np.nan))
    op = mx.SSMix(span)
    assert op.draw(rng(), batch.spec, **batch.evidence(op)) == op.draw(rng(), holes.spec, **holes.evidence(op))


def test_ssmix_mixes_as_the_authors_code_does_on_every_row_of_the_golden_file() -> None:
    golden = np.load(GOLDEN)
    n, extent = golden["ids_a"].shape
    ids, lengths, saliency = (np.concatenate([golden[f"{k}_a"], golden[f"{k}_b"]]) for k in ("ids", "len", "sal"))
    partner = np.concatenate([np.arange(n) + n, np.arange(n)])
    plan = mx.SSMix(0.1).draw(rng(), mx.Spec(2 * n, (extent,), lengths), saliency=saliency, partner=partner)
    assert isinstance(plan, mx.Plan)
    np.testing.assert_array_equal(mx.mix(ids, plan, "b t", "discrete")[:n], golden["mixed_ids"])
    np.testing.assert_allclose(plan.lam[:n], golden["own_weight"], rtol=0, atol=6e-8)  # a rounding of float32


@pytest.mark.parametrize(
    ("span", "count", "size"),
    [
        (0.1, 9, 1),
        (0.1, 10, 1),
        (0.1, 29, 2),
        (0.1, 30, 3),
        (0.29, 100, 29),
        (0.7, 10, 7),
        (0.57, 100, 57),
        (1, 41, 41),
    ],
)
def test_a_span_is_as_long_as_the_decimals_say(span: float, count: int, size: int) -> None:
    for op in (mx.SSMix(span), mx.SpanMix(span)):
        spec, given = mx.Spec(2, (count + 2,)), {"saliency": np.zeros((2, count + 2))}
        plan = op.draw(rng(), spec, **(given if "saliency" in op.needs else {}))
        assert isinstance(plan, mx.Plan)
        assert (plan.box[:, 0, 1] - plan.box[:, 0, 0]).tolist() == [size, size]
        np.testing.assert_allclose(1 - plan.lam, size / count, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [0.1, 1e308, 1e-308])
def test_windows_that_hold_the_same_scores_tie_and_the_lowest_start_wins(scale: float, dtype: Any) -> None:
    scale = min(scale, float(np.finfo(dtype).max))
    pattern = np.resize(np.array([0.3, 0.7, 0.1]) * scale, 62).astype(dtype)
    saliency = np.concatenate([[0], pattern, [0]]).astype(dtype)[None]
    plan = mx.SSMix(0.1).draw(rng(), mx.Spec(1, (64,)), saliency=saliency)  # six tokens: two rounds of the pattern
    assert isinstance(plan, mx.Plan)
    wanted = [min, max]
    for place, choose in zip((plan.box, plan.donor), wanted, strict=True):
        means = [mean(saliency[0].astype(float), s, 6) for s in range(1, 58)]
        assert place[0, 0, 0] == 1 + means.index(choose(means))
        assert place[0, 0, 0] <= 3


def test_halves_of_a_pair_are_mixed_by_themselves_and_separators_stay() -> None:
    ids = np.array([[101, 1, 2, 3, 102, 4, 5, 102, 0], [101, 6, 102, 7, 8, 9, 10, 102, 0]])
    segments = np.array([[0, 0, 0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1, 1, 0]])
    saliency = np.array([[9, 3, 1, 2, 9, 2, 1, 9, 0], [-9, 5, -9, 1, 4, 3, 2, -9, 0.0]])
    spec = mx.Spec.like(ids, "b t", lengths=[8, 8])
    plan = mx.SSMix(0.5, pairs=True).draw(rng(), spec, saliency=saliency, segments=segments, partner=[1, 0])
    assert isinstance(plan, mx.Plan)
    mixed = mx.mix(ids, plan, "b t", "discrete")
    assert mixed.tolist() == [[101, 1, 6, 3, 102, 4, 8, 102, 0], [101, 1, 102, 4, 5, 9, 10, 102, 0]]
    np.testing.assert_allclose(plan.weight, [[1 / 5, 1 / 5], [1 / 5, 2 / 5]], rtol=1e-6)


# -- what holds for both -----------------------------------------------------------------------------------------------

BOTH = {
    "SSMix": mx.SSMix(0.3),
    "SSMix, pairs": mx.SSMix(0.5, pairs=True),
    "SpanMix": mx.SpanMix(0.3),
    "SpanMix, own places, pairs": mx.SpanMix(0.5, align=False, pairs=True),
    "SpanMix, tokens": mx.SpanMix(0.4, pieces="tokens", align=False),
    "SpanMix, tokens, pairs": mx.SpanMix(0.4, pieces="tokens", pairs=True),
}


@pytest.mark.parametrize("name", BOTH)
@given(batches())
def test_the_label_weight_is_the_share_of_ordinary_tokens_and_no_special_token_moves(name: str, batch: Batch) -> None:
    op, ids = BOTH[name], batch.ids
    plan = op.draw(rng(), batch.spec, **batch.evidence(op))
    assert isinstance(plan, mx.Plan)
    mixed = mx.mix(ids, plan, "b t", "discrete")
    np.testing.assert_array_equal(mixed, mx.mix(torch.from_numpy(ids), plan, "b t", "discrete").numpy())
    halves = range(2 if "pairs" in name else 1)
    told = [[any(two) for two in zip(*(batch.ordinary(i, h, "pairs" in name) for h in halves), strict=True)]
            for i in range(len(ids))]  # fmt: skip
    ordinary = np.array(told, bool).reshape(ids.shape)
    np.testing.assert_array_equal(mixed[~ordinary], ids[~ordinary])
    copied = mixed[mixed != ids]
    assert ordinary.reshape(-1)[copied].all(), "a special token was copied"
    for i, j in enumerate(batch.partner.tolist()):
        if i != j:
            assert set((mixed[i] // batch.extent).tolist()) <= {i, j}
            np.testing.assert_allclose(
                1 - plan.lam[i], (mixed[i] // batch.extent == j).sum() / max(ordinary[i].sum(), 1), atol=1e-6
            )


@pytest.mark.parametrize("name", BOTH)
def test_tensors_say_the_same_as_arrays(name: str) -> None:
    op, n, extent = BOTH[name], 5, 12
    special, scores = rng(1).random((n, extent)) < 0.2, rng(2).random((n, extent)).astype(np.float32)
    segments, lengths = np.broadcast_to(np.arange(extent) // 6, (n, extent)), np.array([12, 3, 8, 0, 7])
    batch = Batch(lengths, special, segments.copy(), scores, np.array([2, 0, 4, 1, 3]), extent)
    plain = batch.evidence(op)
    tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in plain.items()}
    wanted = op.draw(rng(), batch.spec, **plain)
    spec = mx.Spec(n, (extent,))
    if "saliency" in tensors:
        tensors["saliency"].requires_grad_(True)
    assert op.draw(rng(), spec, lengths=torch.from_numpy(batch.lengths), **tensors) == wanted
    plain["special"] = special.astype(np.int64)
    assert op.draw(rng(), batch.spec, **plain) == wanted


def test_a_score_in_bfloat16_is_taken_as_it_is() -> None:
    scores = torch.rand((4, 9), generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    plans = [mx.SSMix(0.3).draw(rng(), mx.Spec(4, (9,)), saliency=s) for s in (scores, scores.float().numpy())]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("memory", ["turned", "read-only", "list"])
def test_scores_of_any_memory_say_the_same(memory: str) -> None:
    scores = rng().random((4, 9))
    other: Any = {"turned": np.asfortranarray(scores), "read-only": scores.copy(), "list": scores.tolist()}[memory]
    if memory == "read-only":
        other.setflags(write=False)
    op, spec = mx.SSMix(0.3), mx.Spec(4, (9,))
    assert op.draw(rng(), spec, saliency=other) == op.draw(rng(), spec, saliency=scores)


@pytest.mark.parametrize("length", [0, 1, 2, 3])
@pytest.mark.parametrize("name", ["SSMix", "SpanMix", "SpanMix, tokens"])
def test_short_rows_are_left_alone_and_three_tokens_swap_their_one(name: str, length: int) -> None:
    op, spec = BOTH[name], mx.Spec(2, (6,), np.array([length, 6]))
    given = {"saliency": np.zeros((2, 6))} if "saliency" in op.needs else {}
    plan = op.draw(rng(), spec, partner=[1, 0], **given)
    assert plan.lam[0] == (1 if length < 3 else 0)
    assert plan.lam[1] == (1 if length < 3 else 0.75)


def test_a_partner_shorter_than_the_span_leaves_the_row_alone() -> None:
    spec = mx.Spec(2, (12,), np.array([12, 5]))
    for op in (mx.SSMix(0.5), mx.SpanMix(0.5), mx.SpanMix(0.5, pieces="tokens", align=False)):
        given = {"saliency": np.zeros((2, 12))} if "saliency" in op.needs else {}
        plan = op.draw(rng(), spec, partner=[1, 0], **given)
        assert plan.lam[0] == 1
        np.testing.assert_allclose(plan.lam[1], 2 / 3, rtol=1e-6)


def test_rows_of_special_tokens_only_are_left_alone() -> None:
    for op in BOTH.values():
        batch = Batch(np.full(3, 7), np.ones((3, 7), bool), np.zeros((3, 7), int), np.zeros((3, 7)), np.arange(3), 7)
        assert op.draw(rng(), batch.spec, **batch.evidence(op)).is_identity


def test_p_is_the_share_of_rows_that_are_mixed() -> None:
    spec, saliency = mx.Spec(4000, (12,)), np.zeros((4000, 12))
    for op in (mx.SSMix(0.2, p=0.3), mx.SpanMix(0.2, p=0.3)):
        plan = op.draw(rng(), spec, **({"saliency": saliency} if "saliency" in op.needs else {}))
        assert abs((plan.lam < 1).mean() - 0.3) < 0.03
    never = mx.SSMix(0.2, p=0).draw(rng(), spec, saliency=saliency)
    assert never.is_identity


def test_needs_say_what_a_draw_takes() -> None:
    assert mx.SSMix().needs == ("lengths", "saliency")
    assert mx.SSMix(pairs=True).needs == ("lengths", "saliency", "segments")
    assert mx.SpanMix(pairing="same_class").needs == ("lengths", "labels")
    assert mx.SSMix().uses == mx.SpanMix().uses == ("special",)


def test_classes_pair_rows_where_they_are_asked_to() -> None:
    labels = np.array([0, 1, 0, 1, 2, 2])
    plan = mx.SSMix(0.3, pairing="same_class").draw(rng(), mx.Spec(6, (9,)), saliency=np.zeros((6, 9)), labels=labels)
    assert isinstance(plan, mx.Plan)
    np.testing.assert_array_equal(labels[plan.partner[:, 0]], labels)


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [mx.SSMix, mx.SpanMix])
@pytest.mark.parametrize("span", [0, -0.1, 1.01, float("nan"), "0.1", None, True])
def test_a_span_is_a_share_above_0_and_up_to_1(cls: Any, span: Any) -> None:
    with pytest.raises(mx.MixError, match="span"):
        cls(span)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": 1}, "pairs"),
        ({"pairing": "nobody"}, "pairing"),
        ({"pieces": "words"}, "pieces"),
        ({"align": 0}, "align"),
    ],
)
def test_unknown_words_are_refused(options: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        mx.SpanMix(0.1, **options)


GOOD = {"saliency": np.zeros((2, 6))}


@pytest.mark.parametrize(
    ("op", "spec", "given", "message"),
    [
        (mx.SSMix(), mx.Spec(2, (6,)), {}, "needs saliency"),
        (mx.SSMix(pairs=True), mx.Spec(2, (6,)), GOOD, "needs segments"),
        (mx.SSMix(), mx.Spec(2), GOOD, r"shape \(\), expected \(T,\)"),
        (mx.SpanMix(), mx.Spec(2, (6, 6)), {}, r"shape \(6, 6\), expected \(T,\)"),
        (mx.SSMix(), mx.Spec(2, (7,)), GOOD, r"saliency has shape \(2, 6\): expected \(2, 7\)"),
        (mx.SSMix(), mx.Spec(2, (6,)), {"saliency": np.zeros((2, 6), complex)}, "saliency: got complex128"),
        (mx.SSMix(), mx.Spec(2, (6,)), {"saliency": np.zeros((2, 6), bool)}, "saliency: got bool"),
        (mx.SSMix(), mx.Spec(2, (6,)), {"saliency": [[1, 2], [3]]}, "saliency: rows of different lengths"),
        (mx.SSMix(), mx.Spec(2, (6,)), GOOD | {"special": np.zeros((2, 5), bool)}, "special has shape"),
        (mx.SSMix(), mx.Spec(2, (6,)), GOOD | {"special": np.zeros((2, 6))}, "special: got float64"),
        (mx.SSMix(), mx.Spec(2, (6,)), GOOD | {"lengths": [7, 1]}, "lengths reach from 1 to 7"),
        (mx.SSMix(), mx.Spec(2, (6,)), GOOD | {"partner": [2, 0]}, "partner reaches"),
        (mx.SSMix(pairs=True), mx.Spec(2, (6,)), GOOD | {"segments": np.full((2, 6), 3)}, "segments of row 0 hold 3"),
        (mx.SSMix(pairs=True), mx.Spec(2, (6,)), GOOD | {"segments": np.zeros((2, 6))}, "segments: got float64"),
    ],
)
def test_what_does_not_fit_is_refused(op: mx.Operator, spec: mx.Spec, given: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        op.draw(rng(), spec, **given)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_named(bad: float, dtype: Any) -> None:
    saliency = np.zeros((3, 6), dtype)
    saliency[1, 4], saliency[2, 5] = bad, bad
    with pytest.raises(mx.MixError, match=r"saliency\[1, 4\] is"):
        mx.SSMix(p=0.0).draw(rng(), mx.Spec(3, (6,)), saliency=saliency)  # by chance it would be an error now and then
    saliency[1, 4] = 0
    mx.SSMix().draw(rng(), mx.Spec(3, (6,)), saliency=saliency)


# -- in company --------------------------------------------------------------------------------------------------------


def test_combinators_hand_the_evidence_on() -> None:
    spec, given = mx.Spec(6, (9,), np.array([9, 8, 7, 6, 5, 4])), {"saliency": rng(3).random((6, 9))}
    special = np.zeros((6, 9), bool)
    special[:, 2] = True
    for op in (
        mx.OneOf([mx.SSMix(0.3), mx.SpanMix(0.3)], per="sample"),
        mx.OneOf([mx.SSMix(0.3), mx.Mixup()]),
        mx.Sometimes(mx.SSMix(0.3), 0.5, per="sample"),
        mx.SSMix(0.3) | mx.SpanMix(0.3),
    ):
        assert op.needs == ("lengths", "saliency")
        assert op.uses == ("special",)
        plan = op.draw(rng(), spec, special=special, **given)
        for step in plan.plans if isinstance(plan, mx.PlanSequence) else (plan,):
            pasted = step.opacity == 1
            inside = (step.box[..., 0] <= 2) & (step.box[..., 1] > 2)
            assert not (pasted & inside & (step.rank == 1)).any()
    twice = (mx.SSMix(0.3) | mx.SpanMix(0.3)).draw(rng(), spec, **given)
    ids = np.arange(54).reshape(6, 9)
    targets = mx.soft_targets(np.arange(6), twice, 6)
    assert mx.mix(ids, twice, "b t", "discrete").shape == (6, 9)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)


def test_a_plan_collator_reads_masks_of_a_text_batch() -> None:
    n, extent = 6, 10
    lengths = np.array([10, 9, 8, 7, 6, 3])
    entries = {
        "input_ids": np.arange(n * extent).reshape(n, extent),
        "attention_mask": (np.arange(extent) < lengths[:, None]).astype(np.int64),
        "special_tokens_mask": (np.arange(extent) % 5 == 0).astype(np.int64) * np.ones((n, 1), np.int64),
        "token_type_ids": np.broadcast_to(np.arange(extent) // 5, (n, extent)).copy(),
        "saliency": rng(4).random((n, extent)),
        "labels": np.arange(n) % 2,
    }
    for op in (mx.SSMix(0.5), mx.SSMix(0.5, pairs=True), mx.SpanMix(0.5)):
        collate = PlanCollator(op, seed=3)
        sampler = KeyedBatchSampler(range(n), n)
        batch = collate(keyed(arrays(**entries)).__getitems__(next(iter(sampler))))
        plan = batch["plan"]
        assert plan.shape == (extent,)
        assert (plan.lam < 1).any()
        assert plan.box[plan.opacity > 0].tolist() == [
            box for box in plan.box[plan.opacity > 0].tolist() if not {0, 5} & set(range(*box))
        ]
        reached = (plan.box[..., 1] <= np.array(lengths)[:, None])[plan.opacity > 0]
        assert reached.all()


def test_a_mix_collator_mixes_ids_and_labels_in_the_loader() -> None:
    n, extent = 8, 12
    entries = {
        "ids": np.arange(n * extent).reshape(n, extent),
        "lengths": np.array([12, 11, 10, 9, 8, 7, 6, 5]),
        "saliency": rng(5).random((n, extent)),
        "label": np.arange(n),
    }
    fields = {"ids": mx.Field("b t", "discrete"), "label": mx.Labels(n)}
    collate = MixCollator(mx.SSMix(0.4), fields, seed=1)
    batch = collate(keyed(arrays(**entries)).__getitems__(next(iter(KeyedBatchSampler(range(n), n)))))
    ids, soft = np.asarray(batch["ids"]), np.asarray(batch["label"])
    own = ids // extent == np.arange(n)[:, None]
    ordinary = entries["lengths"] - 2
    np.testing.assert_allclose(soft[np.arange(n), np.arange(n)], 1 - (~own).sum(1) / ordinary, atol=1e-6)
    assert (~own).any()
