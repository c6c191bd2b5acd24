"""ArrayLoader: the batches of a keyed DataLoader straight from arrays, in whatever shape and place these come."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from array_loading import collated, loaded
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import CLASSES, N, epochs, same, table
from mixops.pipelines import arrays

import mixops as mx

ROOT = Path(__file__).parent.parent
IMAGE = mx.Field("b c h w")


class Point(NamedTuple):
    image: Any
    label: Any


# -- the same batches --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("tail", [None, "float32", "float16"])
@pytest.mark.parametrize("place", [None, (0, 2), (1, 2)])
def test_batches_are_those_of_a_keyed_dataloader(threads: int, dtype: str, tail: Any, place: Any) -> None:
    given = table()
    data = arrays(**given.fields | {"image": given.fields["image"].astype(dtype)})
    options: dict[str, Any] = {"plan_key": "plan"}
    if tail is not None:
        options["to"] = {"image": mx.Output("b h w c", tail, mean=(0.5, 0.4, 0.3), std=0.25)}
    if place is not None:
        options |= {"rank": place[0], "world_size": place[1]}
    loader, expected = loaded(data, threads=threads, **options), collated(data, **options)
    assert len(loader) == len(expected)
    assert same(epochs(loader, 3), epochs(expected, 3))


@settings(max_examples=25)
@given(
    st.integers(1, 30),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from([(0, 1), (0, 3), (2, 3)]),
)
def test_any_sizes_and_shares_make_those_batches(
    n: int, size: int, shuffle: bool, drop_last: bool, threads: int, prefetch: int, place: tuple[int, int]
) -> None:
    options = {"shuffle": shuffle, "drop_last": drop_last, "rank": place[0], "world_size": place[1]}
    data = table(n)
    loader = loaded(data, size=size, threads=threads, prefetch=prefetch, **options)
    assert same(epochs(loader), epochs(collated(data, size=size, **options)))


SEG = {
    "image": IMAGE,
    "heavier": mx.Field("b h w", "discrete", fill=255, on_blend="heavier"),
    "planes": mx.Field("b h w", "discrete", fill=2, on_blend="planes", num_classes=CLASSES),
    "stride": mx.Field("b h w", "discrete", on_blend="heavier"),
    "label": mx.Labels(CLASSES, form="pair"),
}
TEXT = {
    "embedding": mx.Field("b t d"),
    "late": mx.Field("t b d"),
    "mask": mx.Field("b t", "valid"),
    "score": mx.Field("b"),
    "label": mx.Labels(CLASSES, smoothing=0.1),
}
MIX, TWICE = mx.OneOf([mx.Mixup(0.8), mx.CutMix()], per="sample"), mx.CutMix() | mx.Mixup(0.4) | mx.Cutout(2)


def segments() -> Any:
    rng = np.random.default_rng(2)
    given = table().fields
    masks = {name: rng.integers(0, CLASSES, (N, 8, 8)) for name in ("heavier", "planes")}
    small = rng.integers(0, CLASSES, (N, 4, 4), np.int32)
    return arrays(**given, **masks, stride=small, name=np.array([f"photo {i}" for i in range(N)]))


def texts() -> Any:
    rng = np.random.default_rng(3)
    real = np.arange(6) < rng.integers(1, 7, N)[:, None]
    return arrays(
        embedding=rng.random((N, 6, 5), dtype=np.float32),
        late=rng.random((N, 6, 5), dtype=np.float32),
        mask=real,
        score=rng.random(N),
        label=np.eye(CLASSES, dtype=np.int8)[rng.integers(0, CLASSES, N)],
    )


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize(
    ("data", "op", "fields"),
    [
        (segments(), MIX, SEG),
        (segments(), mx.CutMix(pairing="other_class") | mx.RandomErasing(), SEG),
        (segments(), TWICE, {"image": IMAGE, "planes": SEG["planes"], "label": mx.Labels(CLASSES, form="sparse")}),
        (texts(), mx.Mixup(0.8, per="sample"), TEXT),
        (texts(), mx.CutMix(), {"embedding": TEXT["embedding"], "mask": TEXT["mask"]}),
        (texts(), mx.Mixup(0.8), {"label": mx.Labels(CLASSES)}),
    ],
    ids=["segments", "evidence", "sequence", "text", "unlabelled", "labels"],
)
def test_every_kind_of_field_is_mixed_as_a_collator_does(data: Any, op: Any, fields: Any, threads: int) -> None:
    loader = loaded(data, op, fields, threads=threads)
    assert same(epochs(loader), epochs(collated(data, op, fields)))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, :, 1:7, 2:8],
        lambda x: x[::-1],
        lambda x: np.concatenate([x, x])[::2],
        lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        lambda x: np.asfortranarray(x),
        lambda x: np.broadcast_to(x[:1], x.shape),
    ],
    ids=["crop", "reversed", "strided", "channels last", "fortran", "broadcast"],
)
def test_arrays_may_lie_in_memory_as_they_like(view: Any) -> None:
    fields = table().fields
    data = arrays(image=view(fields["image"]), label=fields["label"])
    assert same(epochs(loaded(data, threads=2)), epochs(collated(data)))


def test_batches_come_in_the_shape_of_the_arrays_that_were_given() -> None:
    image, label = (table().fields[name] for name in ("image", "label"))
    fields = {0: IMAGE, 1: mx.Labels(CLASSES)}
    named = next(iter(loaded({"image": image, "label": label, "id": range(N)})))
    assert list(named) == ["image", "label", "id"]
    for both in ((image, label), [image, label]):
        pair = next(iter(loaded(both, fields=fields)))
        assert isinstance(pair, tuple)
        assert same(pair, (named["image"], named["label"]))
    point = next(iter(loaded(Point(image, label), fields=fields)))
    assert same(point.image, named["image"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_tensors_are_read_where_they_lie(dtype: torch.dtype) -> None:
    image = torch.from_numpy(table().fields["image"]).to(dtype)
    label = torch.from_numpy(table().fields["label"])
    samples = [{"image": one, "label": int(y)} for one, y in zip(image, label, strict=True)]
    tensors, lists = loaded({"image": image, "label": label}), collated(samples)
    got, expected = epochs(tensors), epochs(lists)
    assert {batch["image"].dtype for batch in got[0]} == {dtype}
    assert same([[b["image"].float() for b in e] for e in got], [[b["image"].float() for b in e] for e in expected])
    assert same([[b["label"] for b in e] for e in got], [[b["label"] for b in e] for e in expected])


def test_batches_hold_tensors_or_arrays_as_asked() -> None:
    tensors = next(iter(loaded()))
    plain = next(iter(loaded(framework="numpy")))
    assert all(isinstance(item, torch.Tensor) for item in tensors.values())
    assert all(isinstance(item, np.ndarray) for item in plain.values())
    assert same({name: item.numpy() for name, item in tensors.items()}, plain)
    assert same(next(iter(loaded(framework="torch"))), tensors)
    given = {name: torch.from_numpy(array) for name, array in table().fields.items()}
    assert same(next(iter(loaded(given, framework="numpy"))), plain)


def test_without_torch_the_batches_are_arrays_and_torch_stays_out() -> None:
    code = """
import sys, numpy as np, mixops as mx
from mixops.pipelines import ArrayLoader
x, y = np.zeros((6, 4, 4, 3), np.uint8), np.arange(6)
fields = {"x": mx.Field("b h w c"), "y": mx.Labels(6)}
loader = ArrayLoader({"x": x, "y": y, "s": np.array(list("abcdef"))}, mx.CutMix(), fields, 4, seed=1)
print([[type(item).__name__ for item in batch.values()] for batch in loader], "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == f"{[['ndarray'] * 3] * 2} False"


def test_nothing_is_written_to_the_arrays_and_batches_share_no_memory() -> None:
    given = {name: array.copy() for name, array in table().fields.items()}
    kept = {name: array.copy() for name, array in given.items()}
    for array in given.values():
        array.setflags(write=False)
    batches = list(loaded(given, training=False, threads=2))
    for batch in batches:
        batch["image"].zero_()
        batch["id"].zero_()
    assert same(given, kept)
    assert all(a["image"].data_ptr() != b["image"].data_ptr() for a, b in pairwise(batches))


def test_no_rows_make_no_batches() -> None:
    empty = {"image": np.zeros((0, 3, 8, 8), np.uint8), "label": np.zeros(0, int)}
    loader = loaded(empty, threads=2)
    assert (len(loader), epochs(loader)) == (0, [[], []])
    assert loader.epoch == 2


# -- what is refused ---------------------------------------------------------------------------------------------------

X, Y = np.zeros((6, 3, 8, 8), np.uint8), np.arange(6) % CLASSES


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (X, {}, "arrays is ndarray, expected"),
        ({}, {}, "arrays is dict, expected one or more"),
        ({"image": X, "label": Y[:5]}, {}, "lengths {'image': 6, 'label': 5}"),
        ({"image": X, "label": 3}, {}, "label is a single number"),
        ({"image": X, "label": [None] * 6}, {}, "label holds Python objects"),
        ({"image": X}, {}, "field 'label' is not among the arrays"),
        ({"image": X[:, 0, 0], "label": Y}, {}, "names 4 axes, the array has 2"),
        ({"image": torch.zeros(6, 3, 8, 8, requires_grad=True), "label": Y}, {}, "requires_grad=True"),
        ({"image": torch.zeros(6, 3, 8, 8, device="meta"), "label": Y}, {}, "tensor on meta"),
        ({"image": torch.zeros(6, 3, 8, 8).bfloat16(), "label": Y}, {"framework": "numpy"}, "bfloat16 tensor"),
        ({"image": X, "label": Y}, {"framework": "jax"}, "framework='jax'"),
        ({"image": X, "label": Y}, {"size": 0}, "batch_size=0"),
        ({"image": X, "label": Y}, {"threads": -1}, "threads=-1"),
        ({"image": X, "label": Y}, {"prefetch": 1.5}, "prefetch=1.5"),
        ({"image": X, "label": Y}, {"rank": 2, "world_size": 2}, "expected 0 <= rank < world_size"),
        ({"image": X, "label": Y}, {"plan_key": "image"}, "a name of its own"),
        ({"image": X, "label": Y}, {"to": {"label": mx.Output("b")}}, "to names 'label'"),
        ((X, Y), {"fields": {0: IMAGE}, "plan_key": "plan"}, "needs named arrays"),
        ({"image": X, "label": Y}, {"pin_memory": True, "framework": "numpy"}, "pins tensors"),
    ],
)
def test_what_cannot_work_is_refused_at_once(given: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(mx.MixError) as caught:
        loaded(given, **options)
    assert message in str(caught.value)


def test_what_an_operator_needs_is_looked_for_at_once() -> None:
    with pytest.raises(mx.MixError, match="needs labels, and the batch has none"):
        loaded({"image": X}, mx.Mixup(pairing="same_class"), {"image": IMAGE})


def test_results_are_pinned_where_there_is_cuda_and_else_refused() -> None:
    if torch.cuda.is_available():
        expected, got = next(iter(loaded())), next(iter(loaded(pin_memory=True)))
        assert all(item.is_pinned() for item in got.values())
        assert same(got, expected)
    else:
        with pytest.raises(mx.MixError, match="pin_memory=True without CUDA"):
            loaded(pin_memory=True)


def test_a_loader_prints_readably() -> None:
    assert repr(loaded(table(), threads=2, drop_last=True)).startswith(
        "ArrayLoader({'image': uint8 (19, 3, 8, 8), 'label': int64 (19,), 'id': int64 (19,)}, "
    )
    assert repr(loaded(threads=2, drop_last=True)).endswith("4, seed=7, drop_last=True, threads=2, prefetch=2)")
