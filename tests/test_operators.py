"""What holds for every operator; how rows are paired; what chains and choices of operators mean."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
from conftest import data, token_evidence

import mixops as mx
from mixops.streams import child_streams

SHAPE = (12, 10)
OPERATORS: dict[str, mx.Operator] = {
    "Mixup": mx.Mixup(0.8, per="sample"),
    "CutMix": mx.CutMix(1.0, per="sample", edge="inside"),
    "Cutout": mx.Cutout(4, count=2, fill=(1, 2, 3)),
    "RandomErasing": mx.RandomErasing(noise="pixel", count=2),
    "WordMixup": mx.WordMixup(0.5, per="sample"),
    "SentenceMixup": mx.SentenceMixup(per="pair", fold=True),
    "ManifoldMixup": mx.ManifoldMixup(["input", "layer1", 3]),
    "TMix": mx.TMix({7, 9, 12}, p=0.9, per="sample"),
    "OneOf-layers": mx.OneOf([mx.WordMixup(), mx.SentenceMixup(), mx.TMix([3, 4])]),
    "OneOf": mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)], p=[0.5, 0.4]),
    "OneOf-sample": mx.OneOf([mx.Mixup(0.8), mx.Cutout(3)], per="sample"),
    "Chain": mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)], p=[0.5, 0.5]) | mx.Cutout(size=4),
    "Chain-steps": mx.CutMix() | mx.Mixup(0.8) | mx.Cutout(fraction=0.25),
    "Sometimes": mx.Sometimes(mx.CutMix(per="pair", pairing="flip"), 0.3, per="sample"),
    "Sometimes-always": mx.Sometimes(mx.Mixup(), 1.0),
    "Cutoff": mx.Cutoff(0.3, p=0.9),
    "Cutoff-feature": mx.Cutoff(0.3, "feature"),
    "HiddenCut": mx.HiddenCut(["layer1", 3], top=0.5),
    "TokenSwap": mx.TokenSwap(0.2, p=0.9),
    "TokenDelete": mx.TokenDelete(count=2),
    "SSMix": mx.SSMix(0.3, pairs=True, p=0.9),
    "SpanMix": mx.SpanMix(0.3, pairing="derange"),
    "SpanMix-tokens": mx.SpanMix(0.3, pieces="tokens", align=False),
    "SeqMix": mx.SeqMix(window=2, min_tags=1, p=0.9),
    "OneOf-spans": mx.OneOf([mx.SSMix(0.3), mx.SpanMix(0.2)], per="sample"),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def steps(plan: Any) -> list[mx.Plan]:
    return list(plan.plans) if isinstance(plan, mx.PlanSequence) else [plan]


def draw(name: str, generator: np.random.Generator, n: int, op: mx.Operator | None = None, **when: Any) -> Any:
    """A draw for n rows; of tokens, where the operator looks at them."""
    op = OPERATORS[name] if op is None else op
    spec = mx.Spec(n, SHAPE[:1] if "lengths" in op.needs else SHAPE, **when)
    return op.draw(generator, spec, **token_evidence(op, spec))


# -- what holds for all ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATORS)
def test_the_repr_is_python_that_makes_the_operator_again(name: str) -> None:
    op = OPERATORS[name]
    assert eval(repr(op), vars(mx).copy()) == op  # the text is our own
    assert hash(eval(repr(op), vars(mx).copy())) == hash(op)


def test_counts_given_as_numpy_numbers_print_as_plain_ones() -> None:
    op = mx.Cutout(np.int64(3), count=np.int64(2), p=np.float64(0.5))
    assert repr(op) == "Cutout(p=0.5, size=3, count=2)"
    assert "np." not in repr(mx.RandomErasing(tries=np.int64(3), count=np.int64(2), area=(np.float32(0.5), 1)))


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_frozen(name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        OPERATORS[name].p = 0.5  # type: ignore[misc]


@pytest.mark.parametrize("name", OPERATORS)
def test_the_same_generator_draws_the_same_plan_and_another_one_another(name: str) -> None:
    assert draw(name, rng(3), 16) == draw(name, rng(3), 16)
    assert any(draw(name, rng(3), 16) != draw(name, rng(s), 16) for s in (4, 5, 6))


@pytest.mark.parametrize("name", OPERATORS)
def test_k_rank_and_steps_never_depend_on_chance(name: str) -> None:
    drawn = [draw(name, rng(seed), 6) for seed in range(30)]
    drawn.append(draw(name, rng(), 6, training=False))
    assert {tuple((p.k, p.shape, type(p)) for p in steps(plan)) for plan in drawn}.__len__() == 1
    assert len(steps(drawn[0])) == OPERATORS[name].steps


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_any_number_of_rows_draws_a_valid_plan(name: str, n: int) -> None:
    plan = draw(name, rng(), n)
    assert plan.n == n
    plan.validate(n)


@pytest.mark.parametrize("name", OPERATORS)
def test_it_is_off_in_evaluation_and_from_its_last_epoch_on(name: str) -> None:
    op = OPERATORS[name]
    assert draw(name, rng(), 6, training=False).is_identity
    if isinstance(op, mx.Sometimes):
        ending: mx.Operator = mx.Sometimes(op.ops[0], op.p, per=op.per, until=95)
    else:
        ending = replace(op, until=95)
    assert draw(name, rng(3), 6, ending, epoch=94) == draw(name, rng(3), 6)
    for epoch in (95, 96, 1000):
        assert draw(name, rng(), 6, ending, epoch=epoch).is_identity
    with pytest.raises(mx.MixError, match="epoch"):
        draw(name, rng(), 6, ending)


def test_the_defaults_are_those_of_the_contract() -> None:
    def default(cls: type, name: str) -> Any:
        return inspect.signature(cls).parameters[name].default

    assert default(mx.Mixup, "per") == default(mx.CutMix, "per") == default(mx.OneOf, "per") == "batch"
    assert default(mx.Cutout, "per") == default(mx.RandomErasing, "per") == "sample"
    assert default(mx.Mixup, "pairing") == default(mx.CutMix, "pairing") == "random"
    assert default(mx.CutMix, "edge") == default(mx.Cutout, "edge") == "clip"
    assert all(default(c, "p") == 1.0 for c in (mx.Mixup, mx.CutMix, mx.Cutout, mx.RandomErasing))
    erasing = mx.RandomErasing()
    assert (erasing.area, erasing.aspect, erasing.tries, erasing.count) == ((0.02, 1 / 3), (0.3, 3.3), 10, 1)
    assert not mx.Mixup().fold


# -- pairings ----------------------------------------------------------------------------------------------------------

MIXING = [mx.Mixup, mx.CutMix]


def partner_of(op: mx.Operator, n: int, seed: int = 0, **evidence: Any) -> np.ndarray:
    return np.asarray(steps(op.draw(rng(seed), mx.Spec(n, SHAPE), **evidence))[0].partner[:, 0])


@pytest.mark.parametrize("cls", MIXING)
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_fixed_pairings(cls: Any, n: int) -> None:
    np.testing.assert_array_equal(partner_of(cls(pairing="roll"), n), (np.arange(n) - 1) % n)
    np.testing.assert_array_equal(partner_of(cls(pairing="flip"), n), np.arange(n)[::-1])


@pytest.mark.parametrize("cls", MIXING)
@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_random_pairings_are_permutations_and_derange_leaves_no_row_alone(cls: Any, n: int) -> None:
    for seed in range(20):
        for pairing in ("random", "derange"):
            partner = partner_of(cls(pairing=pairing), n, seed)
            assert sorted(partner) == list(range(n))
        if n > 1:
            assert (partner != np.arange(n)).all()


@pytest.mark.parametrize("cls", MIXING)
@pytest.mark.parametrize("form", ["ids", "one-hot", "list"])
def test_pairings_by_class_keep_to_the_classes(cls: Any, form: str) -> None:
    ids = np.array([0, 0, 1, 2, 2, 2, 0, 1, 5])
    labels = {"ids": ids, "one-hot": np.eye(6)[ids], "list": ids.tolist()}[form]
    for seed in range(20):
        same = partner_of(cls(pairing="same_class"), 9, seed, labels=labels)
        other = partner_of(cls(pairing="other_class"), 9, seed, labels=labels)
        assert (ids[same] == ids).all()
        assert (same[:8] != np.arange(8)).all(), "a row with a classmate meets it"
        assert (ids[other] != ids).all()
    one = np.zeros(4, int)
    np.testing.assert_array_equal(partner_of(cls(pairing="other_class"), 4, labels=one), np.arange(4))


@pytest.mark.parametrize("cls", MIXING)
@pytest.mark.parametrize("pairing", ["random", "flip", "derange"])
def test_pairs_exchange_and_share_what_is_drawn(cls: Any, pairing: str) -> None:
    for n in (2, 7, 8):
        plan = cls(per="pair", pairing=pairing).draw(rng(), mx.Spec(n, SHAPE))
        partner = plan.partner[:, 0]
        np.testing.assert_array_equal(partner[partner], np.arange(n))
        np.testing.assert_array_equal(plan.opacity[partner], plan.opacity)
        np.testing.assert_array_equal(plan.box[partner], plan.box)
        np.testing.assert_array_equal(plan.lam[partner], plan.lam)


@pytest.mark.parametrize("cls", MIXING)
def test_per_says_who_shares_a_draw(cls: Any) -> None:
    def different(per: str) -> int:
        plan = (
            cls(per=per, edge="inside").draw(rng(), mx.Spec(40, (64, 64)))
            if cls is mx.CutMix
            else cls(per=per).draw(rng(), mx.Spec(40))
        )
        return len({(o.tobytes(), b.tobytes()) for o, b in zip(plan.opacity, plan.box, strict=True)})

    assert different("batch") == 1
    assert different("pair") == 20
    assert different("sample") == 40


# -- combinators -------------------------------------------------------------------------------------------------------


def test_a_bar_is_a_chain_however_it_is_bracketed() -> None:
    a, b, c = mx.Mixup(0.8), mx.CutMix(1.0), mx.Cutout(4)
    assert (a | b) | c == a | (b | c) == mx.Chain([a, b, c])
    spec = mx.Spec(6, SHAPE)
    assert ((a | b) | c).draw(rng(), spec) == mx.Chain([a, b, c]).draw(rng(), spec)


@pytest.mark.parametrize("first", [mx.Mixup(0.8), mx.CutMix(per="sample"), mx.Cutout(5, fill=(1, 2, 3))])
def test_a_chain_means_one_operator_after_the_other(first: mx.Operator) -> None:
    x, spec = data("float32", (6, 3, *SHAPE)), mx.Spec(6, SHAPE)
    for later in (
        [mx.Cutout(3, fill=9)],
        [mx.Cutout(3), mx.RandomErasing(noise="pixel")],
        [mx.Mixup(), mx.Cutout(4)],
        [mx.CutMix()],
    ):
        chain = mx.Chain([first, *later])
        plan = chain.draw(rng(7), spec)
        wanted = x
        for op, stream in zip(chain.ops, child_streams(rng(7), len(chain.ops)), strict=True):
            wanted = mx.mix(wanted, op.draw(stream, spec), "b c h w")
        np.testing.assert_array_equal(mx.mix(x, plan, "b c h w"), wanted)


def test_fills_join_the_plan_before_them_and_mixing_what_was_mixed_starts_a_step() -> None:
    spec = mx.Spec(4, SHAPE)
    assert isinstance((mx.Mixup() | mx.Cutout(3) | mx.RandomErasing()).draw(rng(), spec), mx.Plan)
    twice = (mx.CutMix() | mx.Cutout(3) | mx.Mixup() | mx.Cutout(2)).draw(rng(), spec)
    assert isinstance(twice, mx.PlanSequence)
    assert [p.k for p in twice] == [2, 2]
    inside = mx.OneOf([mx.Mixup() | mx.CutMix(), mx.Cutout(2)]).draw(rng(), spec)
    assert isinstance(inside, mx.PlanSequence)
    assert len(inside.plans) == 2


@pytest.mark.parametrize("seed", range(8))
def test_appending_an_operator_shifts_no_other_draw(seed: int) -> None:
    spec, a, b, c = mx.Spec(5, SHAPE), mx.CutMix(), mx.Mixup(per="sample"), mx.Cutout(3)
    short, long = (mx.Chain(ops).draw(rng(seed), spec) for ops in ([a, b], [a, b, mx.Mixup()]))
    assert list(long)[:2] == list(short)
    after = rng(seed), rng(seed)
    mx.Chain([a, b]).draw(after[0], spec), mx.Chain([a, b, c]).draw(after[1], spec)
    assert after[0].random() == after[1].random()
    for per in ("batch", "sample"):
        two = mx.OneOf([a, c], p=[0.4, 0.4], per=per).draw(rng(seed), spec)
        three = mx.OneOf([a, c, mx.Cutout(2)], p=[0.4, 0.4, 0], per=per).draw(rng(seed), spec)
        x = data("float32", (5, 3, *SHAPE))
        np.testing.assert_array_equal(mx.mix(x, two, "b c h w"), mx.mix(x, three, "b c h w"))
        np.testing.assert_array_equal(two.lam, three.lam)


@pytest.mark.parametrize("seed", range(10))
def test_a_row_of_one_of_per_sample_is_that_row_of_the_plan_of_its_choice(seed: int) -> None:
    spec = mx.Spec(12, SHAPE)
    op = mx.OneOf(
        [mx.Mixup(0.8, per="sample"), mx.CutMix(per="sample"), mx.Cutout(3, fill=5)], p=[0.3, 0.3, 0.2], per="sample"
    )
    plan = op.draw(rng(seed), spec)
    assert isinstance(plan, mx.Plan)
    x = data("float64", (12, 3, *SHAPE))
    children = [c.draw(r, spec) for c, r in zip(op.ops, child_streams(rng(seed), 3), strict=True)]
    results = [mx.mix(x, c, "b c h w") for c in children] + [x]
    shares = [c.lam for c in children] + [np.ones(12, np.float32)]
    result = mx.mix(x, plan, "b c h w")
    choices = []
    for n in range(12):
        same = [i for i in range(4) if np.array_equal(result[n], results[i][n]) and plan.lam[n] == shares[i][n]]
        assert same
        choices.append(same[0])
    assert len(set(choices)) > 1


def test_one_of_per_batch_makes_one_choice() -> None:
    op = mx.OneOf([mx.Mixup(0.8), mx.Cutout(3)], p=[0.5, 0.5])
    for seed in range(20):
        plan = op.draw(rng(seed), mx.Spec(6, SHAPE))
        acts = plan.opacity > 0
        assert len(np.unique(plan.partner[acts] < 0)) == 1


def test_evidence_reaches_the_children_that_need_it() -> None:
    op = mx.OneOf([mx.Mixup(pairing="same_class"), mx.CutMix()]) | mx.Cutout(2)
    assert op.needs == ("labels",)
    op.draw(rng(), mx.Spec(4, SHAPE), labels=np.array([0, 0, 1, 1]))
    with pytest.raises(mx.MixError, match="labels"):
        op.draw(rng(), mx.Spec(4, SHAPE))


# -- the label says what the values say --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Mixup", "CutMix", "Chain-steps", "OneOf", "Sometimes", "OneOf-sample"])
@pytest.mark.parametrize("seed", range(5))
def test_label_weights_equal_the_measured_provenance_of_the_values(name: str, seed: int) -> None:
    op = mx.CutMix(per="sample") | mx.Mixup(per="sample") if name == "Chain-steps" else OPERATORS[name]
    if name == "OneOf-sample":
        op = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0, per="sample")], p=[0.4, 0.4], per="sample")
    n, shape = 6, (16, 16)
    plan = op.draw(rng(seed), mx.Spec(n, shape))
    # Row i is 1 in channel i: a channel's mean over the pixels is the share of that row.
    source = np.broadcast_to(np.eye(n)[:, :, None, None], (n, n, *shape)).copy()
    measured = mx.mix(source, plan, "b c h w", backend="reference").mean((2, 3))
    shares = np.eye(n)
    for step in steps(plan):
        share = np.zeros((n, n))
        np.add.at(share, (np.arange(n), step.base), step.lam)
        for k in range(step.k):
            np.add.at(share, (np.arange(n), np.maximum(step.partner[:, k], 0)), step.weight[:, k])
        shares = share @ shares
    np.testing.assert_allclose(measured, shares, atol=1e-6)
