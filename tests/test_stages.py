"""Per-sample stages: the same sample in any worker, and no trace in global random state."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import albumentations as A
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines import KeyedBatchSampler, PerSample, arrays, keyed
from real_peers import torchvision_v2
from torch.utils.data import DataLoader

import mixops as mx

IMAGE = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)


def everywhere(_: Any) -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002


def disturb() -> None:
    random.seed()
    np.random.seed()  # noqa: NPY002
    torch.default_generator.seed()


def global_state() -> tuple[Any, ...]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002


@given(epoch=st.integers(0, 2**40), index=st.integers(0, 2**40), seed=st.integers(0, 2**64 - 1))
def test_global_random_state_neither_leaks_in_nor_is_left_changed(epoch: int, index: int, seed: int) -> None:
    stage = PerSample(everywhere, seed)
    disturb()
    before = global_state()
    first = stage(None, epoch, index)
    assert global_state() == before
    disturb()
    assert stage(None, epoch, index) == first


def test_streams_differ_by_seed_epoch_index_and_place() -> None:
    calls = [(1, 0, 0, 0), (2, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (1, 0, 0, 1)]
    for fn in (everywhere, lambda s, rng: rng.random()):
        drawn = [PerSample(fn, seed)(None, epoch, index, place) for seed, epoch, index, place in calls]
        assert len(set(drawn)) == len(calls)


def test_a_callable_with_rng_gets_the_stream_of_the_sample() -> None:
    stage = PerSample(lambda s, rng: rng.random(), seed=5)
    assert stage(None, 2, 9) == mx.streams.sample_stream(5, 2, 9).random()


def test_global_state_comes_back_after_an_error() -> None:
    def fails(sample: Any) -> Any:
        random.random()
        raise RuntimeError("broken sample")

    before = global_state()
    with pytest.raises(RuntimeError, match="broken sample"):
        PerSample(fails, 1)(None, 0, 0)
    assert global_state() == before


def pipeline(**options: Any) -> Any:
    return A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.RandomCrop(8, 8)], **options)


@pytest.mark.parametrize("make", [pipeline, lambda: A.ReplayCompose([A.RandomCrop(8, 8)]), lambda: A.RandomCrop(8, 8)])
def test_albumentations_follow_the_key(make: Any) -> None:
    one, two = PerSample(make(), 3), PerSample(make(), 3)
    before = global_state()
    samples = [{"image": IMAGE, "label": i} for i in range(6)]
    forward = [one(s, 0, i) for i, s in enumerate(samples)]
    backward = [two(s, 0, i) for i, s in reversed(list(enumerate(samples)))][::-1]
    assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(forward, backward, strict=True))
    assert [s["label"] for s in forward] == list(range(6))
    assert len({s["image"].tobytes() for s in forward}) > 1
    assert global_state() == before


def test_transforms_of_one_compose_toss_coins_of_their_own() -> None:
    stage = PerSample(A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]), 3, field="image")
    seen = Counter(stage({"image": IMAGE}, 0, i)["image"].tobytes() for i in range(200))
    assert len(seen) == 4
    assert min(seen.values()) > 25  # 50 each expected, standard deviation 6


def test_torchvision_transforms_follow_the_key() -> None:
    v2 = torchvision_v2()
    transform = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(8), v2.ColorJitter(0.5)])
    stage = PerSample(transform, 3, field=0)
    image = torch.from_numpy(IMAGE).permute(2, 0, 1)
    disturb()
    first = [stage((image, i), 0, i) for i in range(4)]
    disturb()
    again = [stage((image, i), 0, i) for i in range(4)]
    assert all(torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(first, again, strict=True))
    assert len({a[0].numpy().tobytes() for a in first}) > 1


class Pair(NamedTuple):
    x: int
    y: int


@pytest.mark.parametrize(
    ("sample", "field", "expected"),
    [
        ({"x": 1, "y": 2}, "x", {"x": -1, "y": 2}),
        ((1, 2), 1, (1, -2)),
        ([1, 2], 0, [-1, 2]),
        (Pair(1, 2), 1, Pair(1, -2)),
        (5, None, -5),
    ],
)
def test_a_field_is_replaced_in_a_copy(sample: Any, field: Any, expected: Any) -> None:
    kept = repr(sample)
    made = PerSample(lambda v: -v, 1, field)(sample, 0, 0)
    assert made == expected
    assert type(made) is type(sample)
    assert repr(sample) == kept


def test_threads_do_not_disturb_one_another() -> None:
    stage = PerSample(everywhere, 1)
    expected = [stage(None, 0, i) for i in range(200)]
    started = threading.Barrier(4)

    def work(part: int) -> list[Any]:
        started.wait()
        return [stage(None, 0, i) for i in range(part, 200, 4)]

    with ThreadPoolExecutor(4) as pool:
        for part, got in enumerate(pool.map(work, range(4))):
            assert got == expected[part::4]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # more workers than CPUs, on purpose
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_samples_are_the_same_for_any_number_of_workers(workers: int) -> None:
    data = arrays(image=np.broadcast_to(IMAGE, (9, 16, 16, 3)).copy())
    stages = [PerSample(pipeline(), 7), PerSample(lambda x: x + torch.randint(9, ()).numpy(), 7, "image")]
    loader = DataLoader(
        keyed(data, stages),
        batch_sampler=KeyedBatchSampler(data, 2, seed=1, shuffle=True),
        num_workers=workers,
    )
    alone = keyed(data, stages)
    for epoch in range(2):
        got = torch.cat([batch["image"] for batch in loader]).numpy()
        sampler = KeyedBatchSampler(data, 9, seed=1, shuffle=True)
        sampler.set_epoch(epoch)
        (order,) = sampler
        assert np.array_equal(got, np.stack([alone.sample(i, epoch)["image"] for i in order]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PerSample(3, 1), "expected a callable"),  # type: ignore[arg-type]
        (lambda: PerSample(len, -1), "seed=-1"),
        (lambda: PerSample(lambda a, b: a, 1), "needs a, b"),
        (lambda: PerSample(len, 1, "x")({"y": 1}, 0, 0), r"no 'x'.*\['y'\]"),
        (lambda: PerSample(len, 1, 4)((1, 2), 0, 0), "no 4.*tuple of 2"),
        (lambda: PerSample(A.HorizontalFlip(), 1)((IMAGE, 0), 0, 0), "field=0"),
        (lambda: PerSample(str, 1)(1, 0, -1), "sample=-1"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        make()
