"""Rows on loaders: an epoch of mixed, erased, normalised float32 batches with soft targets, from uint8 images."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import loader_peers
import numpy as np
import torch
from batches import LAYOUT, Setup, off
from harness import Contender, FloorCopy, PlainCopy, Ratio, Row, summary
from loader_peers import ALPHA, MEAN, STD
from mixops.pipelines import ArrayLoader, KeyedBatchSampler, MixCollator, MixLoader, image_folder, keyed, photographs
from rates import with_rates
from torch.utils.data import DataLoader
from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own

import mixops as mx
from mixops import streams

SEED = 7
OP = mx.OneOf([mx.Mixup(ALPHA), mx.CutMix()]) | mx.RandomErasing()
TO = mx.Output(LAYOUT, "float32", mean=MEAN, std=STD)
#: Batches of an epoch: of ours, and of those that take ten times as long.
MANY, FEW = 48, 8
#: Most rounds: an epoch is a mean over many batches already.
ROUNDS = 5
CORES = 2
#: Averages in float32 may be rounded in another order.
ROUNDING = 1e-5
THREADS, MAPPED = f"mixops ArrayLoader, {CORES} threads", f"mixops ArrayLoader, {CORES} threads, memory map"
WORKERS = f"mixops MixCollator, DataLoader, {CORES} workers"
TURNS = (
    "times are for one batch; a turn is a whole epoch, from asking for its iterator to its end, so that nothing made "
    "ahead is left out or left over; a DataLoader's worker processes stay from epoch to epoch"
)


class Images:
    """Samples out of arrays in memory, (image, label) or a dict of them: views, not copies."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, *, named: bool = False) -> None:
        self.images, self.labels, self.named = images, labels, named

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        image, label = self.images[index], int(self.labels[index])
        return {"image": image, "label": label} if self.named else (image, label)


# -- ours --------------------------------------------------------------------------------------------------------------


class Ours:
    """Our loaders over one data set: the same seed gives all of them the same batches."""

    def __init__(self, data: Any, batch_size: int, classes: int) -> None:
        self.data, self.batch_size, self.classes = data, batch_size, classes
        self.fields = {"image": mx.Field("b h w c", fill="mean"), "label": mx.Labels(classes)}
        self.to = {"image": TO}

    def array_loader(self, images: np.ndarray, labels: np.ndarray, threads: int) -> Iterable[Any]:
        arrays = {"image": images, "label": labels}
        return ArrayLoader(arrays, OP, self.fields, self.batch_size, seed=SEED, to=self.to, threads=threads)

    def sampler(self) -> KeyedBatchSampler:
        return KeyedBatchSampler(range(len(self.data)), self.batch_size, seed=SEED, shuffle=True)

    def collator(self, workers: int) -> Iterable[Any]:
        """The mixing in the collate function of a plain DataLoader."""
        return self._loader(keyed(self.data), workers, MixCollator(OP, self.fields, SEED, to=self.to))

    def around(self, workers: int) -> Iterable[Any]:
        """A plain DataLoader that stacks uint8 batches; the main process mixes them."""
        return MixLoader(self._loader(self.data, workers, None), OP, self.fields, SEED, to=self.to)

    def _loader(self, data: Any, workers: int, collate: Any) -> Any:
        return DataLoader(
            data,
            batch_sampler=self.sampler(),
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers else None,
        )

    def nodes(self) -> Iterable[Any]:
        """torchdata.nodes: one thread fetches samples, others mix batches."""
        from mixops.pipelines.nodes import mixer
        from torchdata import nodes  # type: ignore[import-untyped]

        def fetched(indices: Sequence[int]) -> dict[str, Any]:
            samples = [self.data[i] for i in indices]
            return {
                "image": [torch.as_tensor(sample["image"]) for sample in samples],
                "label": torch.tensor([sample["label"] for sample in samples]),
            }

        source = nodes.Mapper(nodes.SamplerWrapper(self.sampler()), fetched)
        return nodes.Loader(mixer(source, OP, self.fields, SEED, num_workers=CORES, to=self.to))

    def first_batch(self) -> tuple[Any, Any]:
        """Images and targets of the first batch, the plain torch way."""
        indices = next(iter(self.sampler()))
        samples = [self.data[i] for i in indices]
        images = torch.stack([torch.as_tensor(sample["image"]) for sample in samples])
        labels = torch.tensor([sample["label"] for sample in samples])
        plan = OP.draw(streams.plan_stream(SEED, *indices.key), mx.Spec(len(samples), tuple(images.shape[1:3])))
        mixed = mx.mix(images, plan, "b h w c", fill="mean", to=TO, backend="torch")
        return mixed, mx.soft_targets(labels, plan, self.classes)

    def contender(self, name: str, make: Callable[[], Iterable[Any]]) -> Contender:
        """One of these loaders, held to the plain way by its first batch."""

        def difference() -> float:
            images, targets = self.first_batch()
            batch = next(iter(make()))
            return max(off(batch["image"], images), off(batch["label"], targets))

        return Contender(name, partial(_epoch, make()), True, difference)


def _epoch(loader: Iterable[Any], x: Any, k: int) -> int:
    """Take what an epoch delivers, as a training loop does, and count it."""
    count = 0
    for _batch in loader:
        count += 1
    return count


def _peer(name: str, loader: Iterable[Any], classes: int) -> Contender:
    """A peer's loader. It draws for itself, so its first batch is only held to what such a batch is."""

    def difference() -> float:
        images, targets = next(iter(loader))
        right = images.dtype == torch.float32 and images.shape[1] == 3 and targets.shape == (len(images), classes)
        return float((targets.sum(1) - 1).abs().max()) if right and bool(images.isfinite().all()) else float("inf")

    return Contender(name, partial(_epoch, loader), False, difference)


# -- taking turns ------------------------------------------------------------------------------------------------------


def raced(row: Row, rounds: int, copies: int) -> dict[str, Any]:
    """As ``measure`` does, but a turn is an epoch of any number of batches, and the times are for one batch.

    Args:
        row: its contenders' steps run an epoch and return how many batches it had.
        rounds: times each contender is timed.
        copies: how many copies of a batch make a turn of "copy" and "floor".

    Raises:
        ValueError: if a contender's result is further from what it should be than the row tolerates.
    """
    differences = {c.name: c.check() if c.check else None for c in row.contenders}
    for name, difference in differences.items():
        if difference is not None and not difference <= row.tolerance:
            raise ValueError(f"{row.name}: {name} is off by {difference:g}, expected at most {row.tolerance:g}")
    copy, floor = PlainCopy(row.result, row.threads), FloorCopy(int(row.moved) // 2, row.threads)

    def repeated(step: Callable[[int], None]) -> int:
        for turn in range(copies):
            step(turn)
        return copies

    turns: dict[str, Callable[[], int]] = {c.name: lambda c=c: c.step(None, 0) for c in row.contenders}  # type: ignore[misc]
    turns |= {"copy": lambda: repeated(copy.step), "floor": lambda: repeated(floor.step)}
    names = list(turns)
    seconds = {name: np.zeros(rounds) for name in names}
    for name in names:
        turns[name]()
    gc.collect()
    gc.disable()
    try:
        for r in tqdm(range(rounds), desc=row.name, unit="round", leave=False, disable=None):
            for name in names[r % len(names) :] + names[: r % len(names)]:
                start = time.perf_counter()
                batches = turns[name]()
                seconds[name][r] = (time.perf_counter() - start) / batches
    finally:
        gc.enable()
    return summary(row, seconds, differences)


def _raced(
    setup: Setup, name: str, title: str, contenders: list[Contender], ratios: Sequence[Ratio], notes: Sequence[str]
) -> Iterator[dict[str, Any]]:
    rows, extent = setup.large
    size = rows * extent * extent * 3
    row = Row(
        name,
        f"{title}, batches of {rows} at {extent} pixels: Mixup or CutMix, erasing, normalised float32, soft targets",
        [None],
        1,
        contenders,
        ratios,
        moved=5.0 * size,
        result=4 * size,
        threads=CORES,
        tolerance=ROUNDING,
        notes=(TURNS, *notes),
    )
    yield with_rates(raced(row, min(setup.rounds, ROUNDS), 2 if setup.tiny else MANY), rows, "img")


def _many_threads(measure: Callable[[Setup], Iterator[dict[str, Any]]]) -> Callable[[Setup], Iterator[dict[str, Any]]]:
    """With torch's own threads too, in the process that iterates: that is how it comes."""

    def measured(setup: Setup) -> Iterator[dict[str, Any]]:
        before = torch.get_num_threads()
        torch.set_num_threads(CORES)
        try:
            yield from measure(setup)
        finally:
            torch.set_num_threads(before)

    return measured


# -- the rows ----------------------------------------------------------------------------------------------------------


def _data(setup: Setup, batches: int) -> tuple[np.ndarray, np.ndarray]:
    rows, extent = setup.large
    rng = np.random.default_rng(0)
    images = np.frombuffer(rng.bytes(batches * rows * extent * extent * 3), np.uint8)
    # A copy, since what bytes() gives is read-only, of which torch warns.
    return images.reshape(-1, extent, extent, 3).copy(), rng.integers(0, setup.classes, batches * rows)


def in_memory(setup: Setup) -> Iterator[dict[str, Any]]:
    """A uint8 set in memory."""
    rows, classes = setup.large[0], setup.classes
    many, few = (4, 2) if setup.tiny else (MANY, FEW)
    images, labels = _data(setup, many)
    ours = Ours(Images(images, labels, named=True), rows, classes)
    some = Images(images[: few * rows], labels[: few * rows])
    more = Images(images[: 2 * few * rows], labels[: 2 * few * rows])
    planes = Images(np.ascontiguousarray(some.images.transpose(0, 3, 1, 2)), some.labels)
    contenders = [
        ours.contender(THREADS, lambda: ours.array_loader(images, labels, CORES)),
        ours.contender("mixops ArrayLoader, 1 thread", lambda: ours.array_loader(images, labels, 1)),
        ours.contender("mixops MixCollator, DataLoader, 0 workers", lambda: ours.collator(0)),
        ours.contender(WORKERS, lambda: ours.collator(CORES)),
        ours.contender("mixops MixLoader around a DataLoader, 0 workers", lambda: ours.around(0)),
        ours.contender(f"mixops MixLoader around a DataLoader, {CORES} workers", lambda: ours.around(CORES)),
        ours.contender(f"mixops torchdata.nodes, {CORES} threads", ours.nodes),
    ]
    peers = [
        *(
            _peer(f"{name}, {workers} workers", make(data, rows, workers, classes), classes)
            for name, make, data in (
                ("torchvision v2", loader_peers.torchvision, some),
                ("timm", loader_peers.timm, planes),
                ("albumentations", loader_peers.albumentations, some),
            )
            for workers in (0, CORES)
        ),
        *(
            _peer(
                f"torch by hand, torchdata.nodes, {CORES} {what}",
                loader_peers.torchdata(more, rows, method, classes),
                classes,
            )
            for what, method in (("threads", "thread"), ("processes", "process"))
        ),
    ]
    alone = loader_peers.data_loader(Images(images, labels), rows, CORES)
    stacking = Contender(f"stacking uint8 alone, DataLoader, {CORES} workers", partial(_epoch, alone))
    least = {"timm": 12, "torchvision v2": 30}
    yield from _raced(
        setup,
        "loaders",
        "uint8 images in memory",
        [*contenders, *peers, stacking],
        [
            *(Ratio(peer.name, THREADS, at_least=least.get(peer.name.split(",")[0])) for peer in peers),
            Ratio("floor", THREADS, at_least=0.8),
            Ratio(THREADS, WORKERS, at_least=0.8),
            Ratio("mixops ArrayLoader, 1 thread", THREADS),
        ],
        (
            f"an epoch has {many} batches for ours, {few} for the peers and {2 * few} for torch by hand, whose threads "
            "or processes torchdata starts anew each epoch",
            "timm is given images that lie as planes already, its faster way",
            "the peers erase with their own rules, one box in every image; all draw for themselves",
        ),
    )


def memory_map(setup: Setup) -> Iterator[dict[str, Any]]:
    """A uint8 set in a file of 1 GiB that is mapped into memory, its pages in the system's cache."""
    rows, classes = setup.large[0], setup.classes
    many, few = (4, 2) if setup.tiny else (112, FEW)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        images, labels = _data(setup, many)
        with path.open("wb") as file:
            np.save(file, images)
            file.flush()
            os.fsync(file.fileno())  # or the system writes it out while we measure
        mapped = np.load(path, mmap_mode="r")
        data = Images(np.load(path, mmap_mode="c"), labels, named=True)  # writable, or torch warns; nobody writes
        ours = Ours(data, rows, classes)
        order = np.random.default_rng(1).permutation(len(labels)).reshape(-1, rows)
        gather = Contender("NumPy, taking the uint8 rows alone", lambda x, k: sum(len(mapped[i]) > 0 for i in order))
        some = Images(data.images[: few * rows], labels[: few * rows])
        planes = loader_peers.Mapped(some, lambda image: image.transpose(2, 0, 1))
        contenders = [
            ours.contender(MAPPED, lambda: ours.array_loader(mapped, labels, CORES)),
            ours.contender("mixops ArrayLoader, 1 thread, memory map", lambda: ours.array_loader(mapped, labels, 1)),
            ours.contender(THREADS, lambda: ours.array_loader(images, labels, CORES)),
            ours.contender("mixops MixCollator, DataLoader, 0 workers, memory map", lambda: ours.collator(0)),
            gather,
            _peer("timm, 0 workers, memory map", loader_peers.timm(planes, rows, 0, classes), classes),
        ]
        yield from _raced(
            setup,
            "loaders-memory-map",
            f"uint8 images in a mapped file of {path.stat().st_size / 2**30:.2g} GiB",
            contenders,
            [
                Ratio("timm, 0 workers, memory map", MAPPED, at_least=12),
                Ratio("floor", MAPPED, at_least=0.8),
                Ratio(MAPPED, THREADS),
            ],
            (
                f"an epoch has {many} batches, timm's {few}",
                "the file was just written: its pages are in memory, as they are after a first epoch",
            ),
        )


def jpeg(setup: Setup) -> Iterator[dict[str, Any]]:
    """JPEG files decoded, cropped and resized by PIL in front of everything."""
    from PIL import Image

    (rows, extent), classes = setup.large, setup.classes
    batches = 2 if setup.tiny else 4
    with tempfile.TemporaryDirectory() as folder:
        pictures, _ = photographs((375, 500))
        for i in range(batches * rows):
            shifted = np.roll(pictures[i % len(pictures)], 37 * (i // len(pictures)), axis=1)
            place = Path(folder) / f"{i % 2}"
            place.mkdir(exist_ok=True)
            Image.fromarray(shifted).save(place / f"{i:04}.jpg", quality=90)
        named = image_folder(folder, extent, check=False)
        size = sum(path.stat().st_size for path in named.paths) / len(named.paths)
        ours = Ours(named, rows, classes)
        pairs = Pairs(named)
        planes = loader_peers.Mapped(pairs, lambda image: np.ascontiguousarray(image.transpose(2, 0, 1)))
        decoding = f"decoding and stacking uint8 alone, {CORES} workers"
        mixed = f"mixops MixCollator, DataLoader, {CORES} workers"
        contenders = [
            Contender(decoding, partial(_epoch, loader_peers.data_loader(pairs, rows, CORES))),
            ours.contender(mixed, lambda: ours.collator(CORES)),
            ours.contender(f"mixops MixLoader around a DataLoader, {CORES} workers", lambda: ours.around(CORES)),
            _peer(f"timm, {CORES} workers", loader_peers.timm(planes, rows, CORES, classes), classes),
            _peer(f"torchvision v2, {CORES} workers", loader_peers.torchvision(pairs, rows, CORES, classes), classes),
        ]
        yield from _raced(
            setup,
            "loaders-jpeg",
            f"JPEG files of 500 x 375 pixels and {size / 1000:.0f} kB, decoded by PIL",
            contenders,
            [Ratio(c.name, mixed) for c in contenders if c.name != mixed],
            (
                "the decoding decides here: how fast the mixing is shows only in what little is left of the difference",
                f"an epoch has {batches} batches",
            ),
        )


class Pairs:
    """The dict samples of a folder as (image, label)."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        sample = self.samples[index]
        return sample["image"], sample["label"]


ROWS: dict[str, Callable[[Setup], Iterator[dict[str, Any]]]] = {
    "loaders": _many_threads(in_memory),
    "loaders-memory-map": _many_threads(memory_map),
    "loaders-jpeg": _many_threads(jpeg),
}
HEADLINE = ("loaders", "loaders-memory-map", "loaders-jpeg")
