"""PlanCollator: the plan of a text batch depends on its key alone, and reaches the model as it was drawn."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loading import epochs, more_workers, same
from mixops.pipelines import Keyed, KeyedBatchSampler, arrays, keyed
from mixops.pipelines.plan_collate import PlanCollator
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory
from transformers import BatchEncoding

import mixops as mx
from mixops import streams

N, CLASSES = 19, 4
OP = mx.OneOf([mx.TMix({1, 2}, per="sample"), mx.WordMixup(1.0, pairing="other_class")])


class Sentences:
    """Rows of different lengths, as lists of ids."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": [index + 1] * (1 + index % 5), "label": index % CLASSES}


def padded(samples: list[dict[str, Any]]) -> BatchEncoding:
    """What a data collator of Hugging Face makes."""
    longest = max(len(s["input_ids"]) for s in samples)
    ids = torch.zeros(len(samples), longest, dtype=torch.int64)
    for row, sample in zip(ids, samples, strict=True):
        row[: len(sample["input_ids"])] = torch.tensor(sample["input_ids"])
    labels = torch.tensor([s["label"] for s in samples])
    return BatchEncoding({"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels})


def loader(workers: int = 0, *, op: mx.Operator = OP, seed: int = 7, **options: Any) -> DataLoader[Any]:
    """A loader over sentences of different lengths, padded."""
    data = Sentences()
    collate = PlanCollator(op, seed, collate=padded, **options.pop("collator", {}))
    sampler = KeyedBatchSampler(data, 4, seed=3, shuffle=True, **options.pop("sampler", {}))
    return DataLoader(keyed(data), batch_sampler=sampler, collate_fn=collate, num_workers=workers, **options)


@pytest.fixture(scope="module")
def expected() -> list[list[Any]]:
    """Two epochs, collated in one process."""
    return [[dict(batch) for batch in epoch] for epoch in epochs(loader())]


@more_workers
@pytest.mark.parametrize(("workers", "method"), [(1, "fork"), (3, "fork"), (2, "spawn")])
def test_plans_do_not_depend_on_the_workers(expected: Any, workers: int, method: str) -> None:
    arrived = epochs(loader(workers, multiprocessing_context=method, persistent_workers=True))
    assert same([[dict(batch) for batch in epoch] for epoch in arrived], expected)


def test_a_plan_from_a_worker_is_whole_and_mixes_as_it_did_there(expected: Any) -> None:
    x = np.arange(N * 2, dtype=np.float32).reshape(N, 2)
    for batch, here in zip(loader(1, multiprocessing_context="fork"), expected[0], strict=True):
        batch["plan"].validate(len(batch["input_ids"]))
        assert batch["plan"].layer in ("hidden:1", "hidden:2", "words")
        assert np.array_equal(mx.mix(x, batch["plan"], "b d"), mx.mix(x, here["plan"], "b d"))


def test_the_plan_is_the_draw_of_the_key_and_the_batch_is_left_unmixed(expected: Any) -> None:
    for epoch, batches in enumerate(expected):
        for step, batch in enumerate(batches):
            spec = mx.Spec(len(batch["labels"]), epoch=epoch)
            again = OP.draw(streams.plan_stream(7, epoch, step, 0), spec, labels=batch["labels"].numpy())
            assert batch["plan"] == again
            assert torch.equal(batch["labels"], (batch["input_ids"][:, 0] - 1) % CLASSES)
    assert sorted(int(i) - 1 for batch in expected[0] for i in batch["input_ids"][:, 0]) == list(range(N))


@given(seed=st.integers(0, 2**64 - 1), key=st.tuples(*[st.integers(0, 2**40)] * 3), n=st.integers(1, 6))
def test_equal_keys_give_equal_plans_and_another_seed_epoch_step_or_rank_another_one(
    seed: int, key: tuple[int, int, int], n: int
) -> None:
    samples = [{"input_ids": np.arange(3)}] * n

    def drawn(seed: int, key: tuple[int, int, int]) -> Any:
        return PlanCollator(mx.SentenceMixup(per="sample"), seed)(Keyed(samples, key))["plan"]

    assert drawn(seed, key) == drawn(seed, key)
    others = [(seed ^ 1, key)] + [(seed, tuple(v + (i == j) for j, v in enumerate(key))) for i in range(3)]
    assert all(drawn(seed, key) != drawn(*other) for other in others)


def test_a_batch_keeps_the_type_that_the_collator_gave_it() -> None:
    assert all(type(batch) is BatchEncoding and batch["plan"].n == len(batch["labels"]) for batch in loader())
    fixed = PlanCollator(mx.WordMixup(), 7, collate=lambda samples: MappingProxyType(dict(padded(samples))))
    batch = fixed(Keyed([Sentences()[i] for i in range(3)], (0, 0, 0)))
    assert list(batch) == ["input_ids", "attention_mask", "labels", "plan"]


def test_what_moves_batches_leaves_the_plan_alone() -> None:
    batch = next(iter(loader()))
    assert batch.to("cpu")["plan"] is batch["plan"]
    assert pin_memory({"plan": batch["plan"], "name": "a"})["plan"] is batch["plan"]


def test_it_draws_the_identity_in_evaluation() -> None:
    for batch in loader(collator={"training": False}):
        assert batch["plan"].is_identity


def test_steps_are_counted_over_the_whole_run() -> None:
    op, size = mx.SentenceMixup(lam=0.5, start_step=7), -(-N // 4)
    drawn = epochs(loader(op=op, collator={"steps_per_epoch": size}))
    mixing = [not batch["plan"].is_identity for epoch in drawn for batch in epoch]
    assert mixing == [step >= 7 for step in range(2 * size)]


def test_an_operator_that_starts_at_a_step_says_what_it_needs_to_know() -> None:
    with pytest.raises(mx.MixError, match="steps_per_epoch="):
        next(iter(loader(op=mx.SentenceMixup(start_step=7))))


def test_an_operator_that_stops_at_an_epoch_stops_there() -> None:
    first, second = epochs(loader(op=mx.WordMixup(lam=0.5, until=1)))
    assert not any(batch["plan"].is_identity for batch in first)
    assert all(batch["plan"].is_identity for batch in second)


@dataclass(frozen=True, repr=False)
class Longest(mx.Operator):
    """Gives every row the longest one as its partner; needs the lengths."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("lengths",)

    def _draw(self, rng: np.random.Generator, spec: mx.Spec) -> mx.Plan:
        assert spec.lengths is not None
        return mx.Plan.whole(np.full(spec.n, int(np.argmax(spec.lengths))), np.full(spec.n, 0.5))


@pytest.mark.parametrize("form", [torch.Tensor.clone, torch.Tensor.numpy])
def test_lengths_are_those_of_the_attention_mask(form: Callable[[Any], Any]) -> None:
    collate = PlanCollator(Longest(), 7, collate=lambda s: {k: form(v) for k, v in padded(s).items()})
    batch = collate(Keyed([Sentences()[i] for i in (0, 3, 4, 1)], (0, 0, 0)))
    assert batch["plan"].partner[:, 0].tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("name", ["label", "labels"])
def test_labels_have_either_name(name: str) -> None:
    samples = [{"input_ids": np.arange(2), name: i // 2} for i in range(4)]
    plan = PlanCollator(mx.WordMixup(pairing="same_class"), 7)(Keyed(samples, (0, 0, 0)))["plan"]
    assert plan.partner[:, 0].tolist() == [1, 0, 3, 2]


def test_rows_of_one_length_need_no_collator() -> None:
    data = arrays(input_ids=np.arange(12).reshape(4, 3), labels=np.arange(4))
    sampler = KeyedBatchSampler(data, 4)
    (batch,) = DataLoader(keyed(data), batch_sampler=sampler, collate_fn=PlanCollator(mx.TMix(), 7))
    assert torch.equal(batch["input_ids"], torch.arange(12).reshape(4, 3))


def test_a_resumed_loader_gives_the_remaining_batches_with_their_plans(expected: Any) -> None:
    first = loader(2, multiprocessing_context="fork")
    running = iter(first)
    delivered = [next(running) for _ in range(3)]
    state = json.loads(json.dumps(first.batch_sampler.state_dict(len(delivered))))
    again = loader()
    again.batch_sampler.load_state_dict(state)
    assert same([dict(batch) for batch in again], expected[0][3:])
    assert same([dict(batch) for batch in again], expected[1])


def test_it_can_be_copied_and_sent_and_says_what_it_is() -> None:
    collate = PlanCollator(OP, 7, rows="labels", training=False, plan_key="draw", steps_per_epoch=5)
    for other in (copy.deepcopy(collate), pickle.loads(pickle.dumps(collate))):
        assert repr(other) == repr(collate)
    names = {"PlanCollator": PlanCollator, **{name: getattr(mx, name) for name in mx.__all__}}
    assert repr(eval(repr(collate), names)) == repr(collate)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"op": "mixup"}, "expected an operator"),
        ({"seed": -1}, "seed=-1"),
        ({"collate": "pad"}, "collate is 'pad'"),
        ({"steps_per_epoch": -1}, "steps_per_epoch"),
        ({"steps_per_epoch": 0}, "steps_per_epoch=0, expected 1 or more"),
        ({"rows": 0}, "rows is 0, expected the name"),
        ({"plan_key": None}, "plan_key is None, expected the name"),
    ],
)
def test_bad_arguments_are_refused_before_a_worker_sees_them(options: Any, match: str) -> None:
    with pytest.raises(mx.MixError, match=match):
        PlanCollator(**{"op": mx.WordMixup(), "seed": 7, **options})


ROW = {"input_ids": np.arange(3), "labels": 0}


@pytest.mark.parametrize(
    ("options", "samples", "match"),
    [
        ({}, [ROW, ROW], "carry no key"),
        ({"rows": "ids"}, Keyed([ROW], (0, 0, 0)), "'ids' is not in the batch, which has 'input_ids', 'labels'"),
        ({"plan_key": "labels"}, Keyed([ROW], (0, 0, 0)), "already an entry"),
        ({}, Keyed([(np.arange(3), 0)], (0, 0, 0)), "batch is list"),
        ({}, Keyed([ROW, {**ROW, "input_ids": np.arange(4)}], (0, 0, 0)), "DataCollatorWithPadding"),
        ({}, Keyed([{"input_ids": [1, 2]}], (0, 0, 0)), "is a list"),
        ({"op": mx.WordMixup(pairing="same_class")}, Keyed([{"input_ids": np.arange(3)}], (0, 0, 0)), "needs labels"),
        ({"op": Longest()}, Keyed([ROW], (0, 0, 0)), "'attention_mask'"),
        (
            {"op": mx.SpanMix()},
            Keyed([{**ROW, "attention_mask": np.array([0, 1, 1])}], (0, 0, 0)),
            'padded in front.*padding_side = "right"',
        ),
        ({"collate": lambda samples: {"input_ids": torch.tensor(3)}}, Keyed([ROW], (0, 0, 0)), "array of its rows"),
        ({"collate": lambda samples: {"input_ids": None}}, Keyed([ROW], (0, 0, 0)), "array of its rows"),
        (
            {"collate": lambda samples: {"input_ids": np.ones((1, 6))}},
            Keyed([ROW, ROW], (0, 0, 0)),
            "2 samples .* 1 row",
        ),
    ],
)
def test_batches_that_do_not_fit_are_refused_with_the_fix(options: Any, samples: Any, match: str) -> None:
    collate = PlanCollator(**{"op": mx.WordMixup(), "seed": 7, **options})
    with pytest.raises(mx.MixError, match=match):
        collate(samples)
