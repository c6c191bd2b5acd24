"""Plans as words: what is packed can be read back, word for word, and one form serves every draw of an operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import plans, token_evidence
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import plans_on
from operator_table import OPERATORS

import mixops as mx
from mixops.packing import NARROW, Packing, pack


def unpacked(words: np.ndarray, form: Packing) -> dict[str, np.ndarray]:
    """A plan's numbers read back one word at a time, as mix.cu reads them."""
    n, k, rank = form.n, form.k, form.rank
    base, row = np.zeros((2, n), int)
    partner, opacity = np.zeros((n, k), int), np.zeros((n, k), np.float32)
    box, shift = np.zeros((n, k, 2 * rank), int), np.zeros((n, k, rank), int)
    unsigned = words.view(np.uint32)
    for i in range(n):
        at = i * form.record
        base[i], row[i] = words[at], words[at + 1]
        for j in range(k):
            patch = at + 2 + j * form.patch
            partner[i, j], opacity[i, j] = words[patch], words[patch + 1 : patch + 2].view(np.float32)[0]
            for r in range(rank):
                for end in (0, 1):
                    edge = unsigned[patch + 2 + (2 * r + end if form.wide else r)]
                    box[i, j, 2 * r + end] = edge if form.wide else edge >> np.uint32(16 * end) & np.uint32(0xFFFF)
                if form.shift:
                    shift[i, j, r] = words[patch + 2 + rank * (1 + form.wide) + r]
    made = {"base": base, "row": row, "partner": partner, "opacity": opacity, "box": box, "shift": shift}
    table = words[n * form.record :].reshape(form.fills, form.fill)
    made["value"] = np.ascontiguousarray(table[:, : form.values]).view(np.float32)
    if form.noise:
        made["noise"] = table[:, form.values]
        made["std"] = np.ascontiguousarray(table[:, form.values + 1]).view(np.float32)
        made["key"] = np.ascontiguousarray(table[:, form.values + 2 :]).view(np.uint64)[:, 0]
    return made


def check(plan: mx.Plan) -> None:
    form = Packing.of(plan)
    words = np.full(form.words, 0x5A5A5A5A, np.int32)
    pack(plan, form, words)
    back = unpacked(words, form)
    for name in ("base", "partner", "opacity", "box"):
        np.testing.assert_array_equal(back[name], getattr(plan, name))
    np.testing.assert_array_equal(back["row"], np.arange(plan.n))
    if form.shift:
        np.testing.assert_array_equal(back["shift"], (plan.donor - plan.box)[..., 0::2])
    else:
        np.testing.assert_array_equal(plan.donor, plan.box)
    if form.fills:
        np.testing.assert_array_equal(back["value"], plan.fills.value)
    else:
        assert (plan.partner >= 0).all()
    if form.noise:
        for name in ("noise", "std", "key"):
            np.testing.assert_array_equal(back[name], getattr(plan.fills, name))


@given(plans())
def test_what_is_packed_can_be_read_back(drawn: Any) -> None:
    check(drawn[0])


@given(st.data())
def test_boxes_beyond_16_bits_take_a_word_an_edge(draw: st.DataObject) -> None:
    extent = draw.draw(st.sampled_from((NARROW - 1, NARROW, NARROW + 1, 2**31 - 1)))
    plan = draw.draw(plans_on(3, (extent, 5), shifts=False))
    assert Packing.of(plan).wide == (extent > NARROW)
    check(plan)


def test_rows_may_stand_for_others() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(3))
    form = Packing.of(plan)
    words = np.zeros(form.words, np.int32)
    pack(plan, form, words, np.array([2, 0, -1]))
    assert unpacked(words, form)["row"].tolist() == [2, 0, -1]


def test_nothing_is_written_beyond_the_words_of_the_plan() -> None:
    plan = mx.Cutout(3, fill=(1, 2, 3)).draw(np.random.default_rng(0), mx.Spec(3, (9, 9)))
    form = Packing.of(plan)
    words = np.full(form.words + 5, 77, np.int32)
    pack(plan, form, words)
    assert (words[form.words :] == 77).all()


@pytest.mark.parametrize("name", OPERATORS)
def test_every_draw_of_an_operator_takes_one_form(name: str) -> None:
    """One kernel and one size of words serve a training; where a draw paints nothing it may leave out its fills."""
    row = OPERATORS[name]
    shape = {0: (), 1: (21,), 2: (9, 7), 3: (3, 9, 7)}[row.ranks[0]]
    spec = mx.Spec(6, shape)
    forms = set()
    for seed in range(12):
        plan = row.op.draw(np.random.default_rng(seed), spec, **token_evidence(row.op, spec))
        for i, step in enumerate(plan.plans if isinstance(plan, mx.PlanSequence) else (plan,)):
            form = Packing.of(step)
            forms.add((i, form.n, form.k, form.rank, form.wide, form.shift))
    assert len(forms) == len({i for i, *_ in forms})
