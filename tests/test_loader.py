"""MixCollator and MixLoader: the same batches whatever runs them, and after a restart."""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loading import CLASSES, FIELDS, OP, VECTOR, N, epochs, mixing, more_workers, pairs, plain, same, table, worked
from mixops.pipelines import (
    BatchKey,
    Keyed,
    KeyedBatchSampler,
    MixCollator,
    MixLoader,
    keyed,
    numpy_collate,
)
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, default_collate

import mixops as mx


@pytest.fixture(scope="module")
def expected() -> list[list[Any]]:
    """Two epochs, mixed in one process by one thread."""
    return epochs(worked())


@more_workers
@pytest.mark.parametrize(
    ("workers", "options"),
    [
        (1, {"multiprocessing_context": "fork"}),
        (4, {"multiprocessing_context": "fork", "prefetch_factor": 3}),
        (2, {"multiprocessing_context": "fork", "persistent_workers": True}),
        (2, {"multiprocessing_context": "spawn", "persistent_workers": True}),
    ],
)
def test_batches_do_not_depend_on_the_workers(expected: Any, workers: int, options: Any) -> None:
    assert same(epochs(worked(workers, **options)), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_collator_and_the_loader_make_the_same_batches(expected: Any, workers: int) -> None:
    assert same(epochs(mixing(plain(workers))), expected)


def test_threads_make_the_same_batches(expected: Any) -> None:
    data, collate = keyed(table()), MixCollator(OP, FIELDS, 7, plan_key="plan")
    sampler = KeyedBatchSampler(data, 4, seed=3, shuffle=True)
    with ThreadPoolExecutor(4) as pool:
        for epoch in expected:
            assert same(list(pool.map(lambda batch: collate(data.__getitems__(batch)), list(sampler))), epoch)


def test_what_the_plan_says_is_what_the_batch_holds(expected: Any) -> None:
    data = table()
    for batch in expected[0]:
        ids = batch["id"].numpy()
        images, labels = data.fields["image"][ids], data.fields["label"][ids]
        assert np.array_equal(batch["image"], mx.mix(images, batch["plan"], "b c h w"))
        assert np.array_equal(batch["label"], mx.soft_targets(labels, batch["plan"], CLASSES))
    assert [len(batch["id"]) for batch in expected[0]] == [4, 4, 4, 4, 3]
    assert sorted(np.concatenate([b["id"] for b in expected[0]]).tolist()) == list(range(N))


def test_plans_differ_between_epochs_steps_ranks_and_seeds() -> None:
    def plans(**options: Any) -> list[Any]:
        return [batch["plan"] for epoch in epochs(worked(size=3, **options)) for batch in epoch]

    seen = plans(rank=0, world=2) + plans(rank=1, world=2) + plans(seed=8)
    whole = [p for p in seen if len(p) == 3]
    assert len(whole) > 10
    assert not any(a == b for i, a in enumerate(whole) for b in whole[:i])


@given(n=st.integers(1, 9), size=st.integers(1, 5), seed=st.integers(0, 2**64 - 1))
def test_any_size_of_batch_mixes(n: int, size: int, seed: int) -> None:
    data = table(n)
    loader = MixLoader(plain(data=data, size=size), OP, FIELDS, seed)
    got = list(loader)
    assert [len(b["image"]) for b in got] == [min(size, n - i) for i in range(0, n, size)]
    for batch in got:
        assert torch.allclose(batch["label"].sum(1), torch.ones(len(batch["label"])))


def test_tuple_batches_are_keyed_by_position() -> None:
    data, fields = pairs(), {0: FIELDS["image"], 1: FIELDS["label"]}
    sampler = KeyedBatchSampler(range(N), 4, seed=3, shuffle=True)
    in_workers = DataLoader(keyed(data), batch_sampler=sampler, collate_fn=MixCollator(OP, fields, 7), num_workers=2)
    in_main = MixLoader(
        DataLoader(data, batch_sampler=KeyedBatchSampler(range(N), 4, seed=3, shuffle=True)), OP, fields, 7
    )
    by_name = [[b["image"], b["label"]] for b in mixing(plain())]
    assert same(list(in_workers), by_name)
    assert same(list(in_main), by_name)


def test_a_plain_list_of_numpy_batches_needs_no_torch() -> None:
    code = (
        "import sys, numpy as np, mixops as mx\n"
        "from mixops.pipelines import KeyedBatchSampler, MixCollator, MixLoader, PerSample, arrays, keyed\n"
        "data = keyed(arrays(x=np.eye(4, dtype=np.float32), y=np.arange(4)), PerSample(lambda s: s, 1))\n"
        "op, fields = mx.Mixup(0.8), {'x': mx.Field('b d'), 'y': mx.Labels(4)}\n"
        "collate = MixCollator(op, fields, seed=7)\n"
        "one = [collate(data.__getitems__(batch)) for batch in KeyedBatchSampler(data, 2)]\n"
        "two = list(MixLoader([data.dataset[:2], data.dataset[2:]], op, fields, seed=7))\n"
        "for a, b in zip(one, two, strict=True):\n"
        "    assert np.array_equal(a['x'], b['x']) and np.allclose(a['x'], a['y'])\n"
        "assert not {'torch', 'sklearn', 'PIL', 'albumentations'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


def test_a_bad_batch_takes_its_number_with_it_and_the_next_one_comes(expected: Any) -> None:
    good = list(DataLoader(table(), batch_sampler=KeyedBatchSampler(table(), 4, seed=3, shuffle=True)))
    batches = [good[0], {"image": good[1]["image"]}, *good[2:]]
    loader = mixing(batches)
    running = iter(loader)
    first = next(running)
    with pytest.raises(mx.MixError, match="label"):
        next(running)
    assert (loader.epoch, loader.step) == (0, 1)  # the bad batch was not delivered
    assert same([first, *running], [expected[0][0], *expected[0][2:]])
    assert loader.epoch == 1


def test_a_reader_that_fails_leaves_the_place_countable() -> None:
    class Failing:
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Any:
            if index == 5:
                raise RuntimeError("cannot read 5")
            return {"image": np.full((3, 8, 8), index, np.uint8), "label": 0}

    loader = mixing(DataLoader(Failing(), batch_sampler=KeyedBatchSampler(Failing(), 2)))  # type: ignore[arg-type]
    running = iter(loader)
    next(running), next(running)
    with pytest.raises(RuntimeError, match="cannot read 5"):
        next(running)
    assert loader.state_dict()["step"] == 2
    assert next(running)["image"].float().mean() > 5
    assert loader.state_dict()["step"] == 4


def test_a_pass_that_is_left_frees_its_workers_at_once() -> None:
    others = multiprocessing.active_children()
    loader = mixing(plain(2))
    running = iter(loader)
    next(running)
    workers = [child for child in multiprocessing.active_children() if child not in others]
    assert len(workers) == 2
    gc.disable()  # nothing may wait for it: it would close the queues before the workers have heard of the end
    try:
        del running
        assert not any(worker.is_alive() for worker in workers)
    finally:
        gc.enable()


def test_train_and_eval_and_until_switch_the_mixing() -> None:
    loader = MixLoader(plain(), mx.Mixup(0.8, until=1), FIELDS, 7, plan_key="plan")
    on, off = epochs(loader)
    assert not any(b["plan"].is_identity for b in on)
    assert all(b["plan"].is_identity for b in off)
    loader.set_epoch(0)
    loader.eval()
    for batch in loader:
        images = table().fields["image"][batch["id"].numpy()]
        assert np.array_equal(batch["image"], images)
        assert batch["label"].shape == (len(images), CLASSES)
    loader.set_epoch(0)
    assert same(list(loader.train()), on)


def test_a_collator_that_does_not_train_leaves_values_untouched() -> None:
    data = table()
    (batch,) = KeyedBatchSampler(data, N)
    got = MixCollator(OP, FIELDS, 7, training=False)(keyed(data).__getitems__(batch))
    assert np.array_equal(got["image"], data.fields["image"])
    assert np.array_equal(got["label"].argmax(1), data.fields["label"])


def test_a_collate_of_ones_own_is_used() -> None:
    samples = Keyed(pairs(4), BatchKey(0, 0, 0))
    fields = {0: FIELDS["image"], 1: FIELDS["label"]}
    image, label = MixCollator(OP, fields, 7, collate=numpy_collate)(samples)
    assert isinstance(image, np.ndarray)
    torch_image, torch_label = MixCollator(OP, fields, 7)(samples)
    assert np.array_equal(image, torch_image.numpy())
    assert np.array_equal(label, torch_label.numpy())


class Row(NamedTuple):
    image: Any
    label: Any


@pytest.mark.parametrize("kind", ["array", "tensor", "number"])
def test_mixing_from_samples_is_mixing_their_stack(kind: str) -> None:
    convert = {"array": np.asarray, "tensor": torch.as_tensor, "number": lambda a: float(a.sum())}
    images = [convert[kind](table()[i]["image"][0, :4].astype(np.float32)) for i in range(5)]
    field = mx.Field("b" if kind == "number" else "b h w")
    op = mx.Mixup(0.8)
    samples = Keyed([Row(image, i % 3) for i, image in enumerate(images)], BatchKey(0, 0, 0))
    got = MixCollator(op, {0: field, 1: mx.Labels(3)}, 7)(samples)
    stacked = MixCollator(op, {0: field, 1: mx.Labels(3)}, 7, collate=default_collate)(samples)
    assert type(got) is type(stacked) is Row
    assert got.image.dtype == stacked.image.dtype
    assert same(tuple(got), tuple(stacked))


def test_samples_of_different_sizes_are_refused() -> None:
    arrays = [{"x": np.zeros((n, 4))} for n in (2, 3)]
    tensors = [(torch.zeros(n, 4), 0) for n in (2, 3)]
    for samples, name in ((arrays, "x"), (tensors, 0)):
        with pytest.raises(mx.MixError, match=rf"field {name!r}: .*\(2, 4\) and sample 1 \(3, 4\), .*resize, crop"):
            MixCollator(mx.Mixup(), {name: mx.Field("b t d")}, 7)(Keyed(samples, BatchKey(0, 0, 0)))


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (Image.new("RGB", (4, 2)), r"sample 1 is Image, .*np\.asarray\(image\)"),
        ([[0.0] * 4] * 2, r"sample 1 is list, .*array"),
        (torch.zeros(2, 4), "sample 0 is ndarray and sample 1 Tensor"),
    ],
)
def test_samples_that_are_no_arrays_are_refused_with_the_way_out(second: Any, says: str) -> None:
    samples = Keyed([{"image": np.zeros((2, 4))}, {"image": second}], BatchKey(0, 0, 0))
    with pytest.raises(mx.MixError, match="field 'image': " + says):
        MixCollator(mx.Mixup(), {"image": mx.Field("b h w")}, 7)(samples)


def test_labels_reach_operators_that_pair_by_class() -> None:
    loader = MixLoader(plain(size=N), mx.Mixup(pairing="other_class"), FIELDS, 7, plan_key="plan")
    (batch,) = loader
    labels = table().fields["label"][batch["id"].numpy()]
    assert (labels[batch["plan"].partner[:, 0]] != labels).all()


# -- what is refused --------------------------------------------------------------------------------------------------


def test_samples_without_a_key_are_refused_with_the_way_out() -> None:
    collate = MixCollator(OP, FIELDS, 7)
    for loader in (
        DataLoader(table(), 4, collate_fn=collate),
        DataLoader(keyed(table()), 4, collate_fn=collate),
        DataLoader(table(), batch_sampler=KeyedBatchSampler(table(), 4), collate_fn=collate),
    ):
        with pytest.raises(mx.MixError, match=r"keyed\(dataset\).*KeyedBatchSampler.*MixLoader"):
            next(iter(loader))


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


def generator() -> Iterator[Any]:
    yield {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mixing(3), "expected an iterable"),
        (lambda: mixing(generator()), "iterated only once"),
        (lambda: MixLoader([], "Mixup", FIELDS, 7), "op is str"),  # type: ignore[arg-type]
        (lambda: MixLoader([], OP, {}, 7), "fields is {}"),
        (lambda: MixLoader([], OP, {"x": "b d"}, 7), r"fields\['x'\] is str"),
        (lambda: MixLoader([], OP, FIELDS, -7), "seed=-7"),
        (lambda: MixCollator(OP, [], 7), "fields is"),  # type: ignore[arg-type]
        (lambda: next(iter(MixLoader([(1, 2)], OP, FIELDS, 7))), "'image' is not in the batch"),
        (lambda: next(iter(MixLoader([[np.eye(2)]], mx.Mixup(), {0: VECTOR}, 7, plan_key="p"))), "dict batches"),
        (lambda: next(iter(MixLoader([{"p": np.eye(2)}], mx.Mixup(), {"p": VECTOR}, 7, plan_key="p"))), "already"),
        (lambda: mixing([]).set_epoch(-1), "epoch=-1"),
        (lambda: numpy_collate([]), "no sample"),
        (lambda: numpy_collate([np.zeros(2), np.zeros(3)]), r"\(2,\), \(3,\)"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(make: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        make()


def test_loaders_and_collators_print_what_they_do() -> None:
    op, fields, to = mx.Mixup(0.8), {"x": VECTOR, "y": mx.Labels(2)}, {"x": mx.Output("b d")}
    held = "Mixup(alpha=0.8), {'x': Field(layout='b d'), 'y': Labels(num_classes=2)}, seed=7"
    assert repr(MixLoader([1, 2], op, fields, 7).eval()) == f"MixLoader(<list of 2>, {held}, training=False)"
    assert repr(MixCollator(op, fields, 7, plan_key="p")) == f"MixCollator({held}, plan_key='p')"
    assert repr(MixCollator(op, fields, 7, to=to)) == f"MixCollator({held}, to={to!r})"
    assert repr(mixing(DataLoader(Stream()))).startswith("MixLoader(<DataLoader>, Chain([OneOf([")


def test_numpy_collate_keeps_the_structure_of_the_samples() -> None:
    got = numpy_collate([{"a": (np.zeros(2), 1), "b": "x"}, {"a": (np.ones(2), 2), "b": "y"}])
    assert got["a"][0].tolist() == [[0, 0], [1, 1]]
    assert got["a"][1].tolist() == [1, 2]
    assert got["b"] == ["x", "y"]
