"""The peers' loaders, each as its users write it: samples in, mixed, erased, normalised float32 batches out.

Every function takes samples that can be indexed as (image, label), an image being a uint8 array (h, w, c), and returns
what an epoch iterates over. They draw for themselves: all switch between Mixup and CutMix and erase one box in every
image.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from peers import torchvision_schemas
from torch.utils.data import DataLoader, default_collate

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Of Mixup's Beta; CutMix has 1.
ALPHA = 0.8


class Mapped:
    """Samples whose image goes through a function first, as a data set's ``transform`` does it."""

    def __init__(self, samples: Any, transform: Callable[[Any], Any]) -> None:
        self.samples, self.transform = samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.samples[index]
        return self.transform(image), label


def data_loader(data: Any, batch_size: int, workers: int, collate: Callable[[list[Any]], Any] | None = None) -> Any:
    """torch's DataLoader, shuffled, with workers that stay."""
    return DataLoader(
        data,
        batch_size,
        shuffle=True,
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,
    )


def torchvision(samples: Any, batch_size: int, workers: int, classes: int) -> Iterable[Any]:
    """Transforms v2 sample by sample; MixUp or CutMix in the collate function, as its documentation shows."""
    v2 = _quietly(_load_v2)
    transform = v2.Compose(
        [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD), v2.RandomErasing(p=1.0)]
    )
    return data_loader(Mapped(samples, transform), batch_size, workers, _mixed_by(v2, classes))


def _mixed_by(v2: Any, classes: int) -> Callable[[list[Any]], Any]:
    either = v2.RandomChoice([v2.MixUp(alpha=ALPHA, num_classes=classes), v2.CutMix(num_classes=classes)])
    return lambda batch: either(*default_collate(batch))


def timm(samples: Any, batch_size: int, workers: int, classes: int) -> Iterable[Any]:
    """FastCollateMixup in the workers; its loader normalises and erases batches in the main process."""

    def load() -> Any:
        from timm.data import loader, mixup

        return loader, mixup

    loader, mixup = _quietly(load)
    collate = mixup.FastCollateMixup(ALPHA, 1.0, mode="batch", label_smoothing=0.0, num_classes=classes)
    feed = data_loader(samples, batch_size, workers, collate)
    return loader.PrefetchLoader(feed, MEAN, STD, device=torch.device("cpu"), re_prob=1.0)


def albumentations(samples: Any, batch_size: int, workers: int, classes: int) -> Iterable[Any]:
    """Its own transforms sample by sample; it has no batches, so torchvision mixes them in the collate function."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or it asks the network for its newest version

    def load() -> Any:
        import albumentations  # type: ignore[import-untyped]

        return albumentations

    library, v2 = _quietly(load), _quietly(_load_v2)
    compose = library.Compose([library.Normalize(MEAN, STD), library.Erasing(p=1.0), library.ToTensorV2()])
    data = Mapped(samples, lambda image: compose(image=image)["image"])
    return data_loader(data, batch_size, workers, _mixed_by(v2, classes))


def torchdata(samples: Any, batch_size: int, method: str, classes: int) -> Iterable[Any]:
    """torchdata.nodes, two workers: each stacks a batch and takes it through the chain as written in torch."""
    from torchdata import nodes  # type: ignore[import-untyped]

    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (MEAN, STD))

    def chain(indices: Sequence[int]) -> Any:
        if method == "process":
            torch.set_num_threads(1)  # as a DataLoader's worker has it: the parent's pool of threads is not forked
        images, labels = default_collate([samples[i] for i in indices])
        x = images.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)
        return erase_by_hand(x), mix_by_hand(x, labels, classes)

    order = nodes.SamplerWrapper(torch.utils.data.RandomSampler(samples))
    batches = nodes.Batcher(order, batch_size)
    mapper = nodes.ParallelMapper(
        batches, chain, num_workers=2, method=method, multiprocessing_context="fork" if method == "process" else None
    )
    return nodes.Loader(mapper)


def mix_by_hand(x: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Mixup or CutMix of a batch in place with one λ; returns the soft targets."""
    partner = torch.randperm(len(x))
    height, width = x.shape[2:]
    if random.random() < 0.5:
        lam = float(np.random.default_rng().beta(ALPHA, ALPHA))
        x.copy_(lam * x + (1 - lam) * x[partner])
    else:
        side = (1 - float(np.random.default_rng().beta(1.0, 1.0))) ** 0.5
        y, cut_height = random.randrange(height), int(height * side)
        x_, cut_width = random.randrange(width), int(width * side)
        rows = slice(max(y - cut_height // 2, 0), y + cut_height // 2)
        columns = slice(max(x_ - cut_width // 2, 0), x_ + cut_width // 2)
        patch = x[partner, :, rows, columns]
        x[:, :, rows, columns] = patch
        lam = 1 - patch.shape[2] * patch.shape[3] / (height * width)
    soft = torch.nn.functional.one_hot(labels, classes).float()
    return lam * soft + (1 - lam) * soft[partner]


def erase_by_hand(x: torch.Tensor) -> torch.Tensor:
    """One box of every image set to 0, in place."""
    height, width = x.shape[2:]
    for image in x:
        area, aspect = random.uniform(0.02, 1 / 3) * height * width, random.uniform(0.3, 3.3)
        high, wide = min(int((area * aspect) ** 0.5), height - 1), min(int((area / aspect) ** 0.5), width - 1)
        top, left = random.randint(0, height - high), random.randint(0, width - wide)
        image[:, top : top + high, left : left + wide] = 0
    return x


def _load_v2() -> Any:
    from torchvision.transforms import v2  # type: ignore[import-untyped]

    return v2


def _quietly(load: Callable[[], Any]) -> Any:
    torchvision_schemas()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
        return load()
