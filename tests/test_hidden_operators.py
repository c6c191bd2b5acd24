"""The operators whose plans are applied inside a model: what they draw, where, and from which step on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mixops as mx

HIDDEN: dict[str, Any] = {
    "WordMixup": mx.WordMixup,
    "SentenceMixup": mx.SentenceMixup,
    "ManifoldMixup": lambda *a, **k: mx.ManifoldMixup(["layer1"], *a, **k),
    "TMix": lambda *a, **k: mx.TMix([7], *a, **k),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(op: mx.Operator, n: int = 8, seed: int = 0, **spec: Any) -> mx.Plan:
    plan = op.draw(rng(seed), mx.Spec(n, **spec))
    assert isinstance(plan, mx.Plan)
    return plan


@pytest.mark.parametrize("name", HIDDEN)
@given(
    n=st.integers(0, 9),
    seed=st.integers(0, 99),
    per=st.sampled_from(["batch", "pair", "sample"]),
    fold=st.booleans(),
    p=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_plans_are_whole_rows_whose_labels_weigh_what_their_values_do(
    name: str, n: int, seed: int, per: str, fold: bool, p: float
) -> None:
    plan = drawn(HIDDEN[name](per=per, pairing="flip", fold=fold, p=p), n, seed)
    plan.validate(n)
    assert plan.layer
    assert (plan.shape, plan.k) == ((), 1)
    assert np.array_equal(plan.opacity, plan.weight)
    assert not fold or (plan.lam >= 0.5).all()
    if per == "batch":
        assert len(set(plan.lam.tolist())) <= 1
    if per == "pair":
        assert np.array_equal(plan.lam, plan.lam[::-1])


def test_the_layer_is_a_word_by_default_and_any_path_if_given() -> None:
    assert drawn(mx.WordMixup()).layer == "words"
    assert drawn(mx.SentenceMixup()).layer == "sentence"
    assert drawn(mx.WordMixup(layer="bert.embeddings")).layer == "bert.embeddings"
    assert drawn(mx.SentenceMixup(layer=12)).layer == "hidden:12"
    assert mx.ManifoldMixup("layer1") == mx.ManifoldMixup(["layer1"])
    assert mx.TMix(7).layers == (7,)


def test_every_layer_is_drawn_as_often_as_any_other() -> None:
    op, stream = mx.TMix({12, 7, 9}), rng()
    seen = Counter(drawn_with(op, stream).layer for _ in range(3000))
    assert set(seen) == {"hidden:7", "hidden:9", "hidden:12"}
    assert all(900 < count < 1100 for count in seen.values())


def drawn_with(op: mx.Operator, stream: np.random.Generator) -> mx.Plan:
    plan = op.draw(stream, mx.Spec(2))
    assert isinstance(plan, mx.Plan)
    return plan


def test_a_set_of_layers_has_one_order_in_every_process() -> None:
    assert mx.TMix({12, 7, 9}).layers == (7, 9, 12)
    assert mx.ManifoldMixup({"layer2", 3, "input", 0}).layers == (0, 3, "input", "layer2")
    assert mx.ManifoldMixup(["layer2", "input"]).layers == ("layer2", "input")


def test_the_layer_is_part_of_the_saved_draw(tmp_path: Path) -> None:
    plan = drawn(mx.TMix({7, 9, 12}), seed=3)
    plan.save(tmp_path / "plan.npz")
    again = mx.Plan.load(tmp_path / "plan.npz")
    assert again == plan
    assert again.layer == plan.layer
    assert f"layer {plan.layer}" in repr(plan)


def test_what_was_drawn_elsewhere_can_be_given() -> None:
    op = mx.ManifoldMixup(["input", "layer1"])
    plan = op.draw(rng(), mx.Spec(3), partner=[2, 0, 1], lam=[0.25, 0.5, 1.0], layer="layer1")
    assert isinstance(plan, mx.Plan)
    assert plan.layer == "layer1"
    assert plan.partner[:, 0].tolist() == [2, 0, 1]
    assert plan.lam.tolist() == [0.25, 0.5, 1.0]


def test_a_fixed_share_is_taken_as_it_is_and_one_given_to_draw_wins() -> None:
    op = mx.SentenceMixup(lam=0.25)
    assert drawn(op).lam.tolist() == [0.25] * 8
    plan = op.draw(rng(), mx.Spec(2), lam=0.75)
    assert plan.lam.tolist() == [0.75, 0.75]
    assert drawn(mx.SentenceMixup(lam=0.25, fold=True)).lam.tolist() == [0.75] * 8


def test_alpha_0_is_plain_training() -> None:
    for make in HIDDEN.values():
        plan = drawn(make(0))
        assert plan.is_identity
        assert plan.layer


@pytest.mark.parametrize("name", HIDDEN)
def test_it_begins_at_its_step(name: str) -> None:
    op = HIDDEN[name](start_step=100)
    assert drawn(op, step=99).is_identity
    assert drawn(op, step=100) == drawn(HIDDEN[name]())
    assert not drawn(op, step=10**6).is_identity
    assert drawn(op, training=False).is_identity
    with pytest.raises(mx.MixError, match=r"starts at a step.*Spec\(\.\.\., step=\.\.\.\)"):
        drawn(op)


def test_one_of_several_layers_is_one_draw() -> None:
    op = mx.OneOf([mx.WordMixup(), mx.SentenceMixup(start_step=5)])
    assert {drawn(op, seed=s, step=9).layer for s in range(20)} == {"words", "sentence"}
    with pytest.raises(mx.MixError, match="starts at a step"):
        drawn(op)
    with pytest.raises(mx.MixError, match="different layers"):
        mx.OneOf([mx.WordMixup(), mx.SentenceMixup()], per="sample").draw(rng(2), mx.Spec(8))
    alike = mx.OneOf([mx.WordMixup(0.1), mx.WordMixup(5.0)], p=[0.4, 0.4], per="sample")
    assert {drawn(alike, seed=s).layer for s in range(9)} == {"words"}


def test_the_preset_of_mixup_transformer() -> None:
    op = mx.presets.mixup_transformer(start_step=10)
    assert op == mx.SentenceMixup(lam=0.5, start_step=10)
    assert drawn(op, step=10).lam.tolist() == [0.5] * 8
    share = drawn(mx.presets.mixup_transformer(lam=None, alpha=0.4)).lam
    assert len(set(share.tolist())) == 1
    assert share[0] not in (0.5, 1.0)


def test_a_person_may_write_a_set_of_layers() -> None:
    assert mx.parse_op("TMix(layers={7, 9, 12}, alpha=16)") == mx.TMix({7, 9, 12})
    assert mx.parse_op('ManifoldMixup(["input", "layer1"]) | Cutout(4)').steps == 1
    with pytest.raises(mx.MixError, match="numbers and words only"):
        mx.parse_op("TMix({(7,), 9})")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mx.ManifoldMixup([]), "one or more layers"),
        (lambda: mx.ManifoldMixup([7, "hidden:7"]), "each once"),
        (lambda: mx.ManifoldMixup(None), "list of module paths"),  # type: ignore[arg-type]
        (lambda: mx.ManifoldMixup([1.5]), "path of a module"),  # type: ignore[list-item]
        (lambda: mx.TMix([True]), "path of a module"),
        (lambda: mx.TMix([-1]), "0 or more"),
        (lambda: mx.WordMixup(layer=""), "path of a module"),
        (lambda: mx.WordMixup(-1), "alpha=-1"),
        (lambda: mx.WordMixup(lam=1.5), "lam=1.5"),
        (lambda: mx.WordMixup(start_step=-1), "start_step=-1"),
        (lambda: mx.SentenceMixup(per="token"), "per='token'"),
        (lambda: mx.SentenceMixup(pairing="nobody"), "pairing='nobody'"),
        (lambda: mx.SentenceMixup(fold="no"), "fold='no'"),  # type: ignore[arg-type]
        (lambda: mx.Spec(4, step=-1), "step=-1"),
        (lambda: mx.Spec(4, step=True), "step=True"),
        (lambda: mx.WordMixup().draw(rng(), mx.Spec(2), layer=1.5), "path of a module"),
        (lambda: mx.WordMixup(pairing="same_class").draw(rng(), mx.Spec(2)), "needs labels"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, words: str) -> None:
    with pytest.raises(mx.MixError) as caught:
        make()
    assert words in str(caught.value)
