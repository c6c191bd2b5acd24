"""A small network on few handwritten digits, trained with and without mixing through a real DataLoader chain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import mixops as mx

from ..adapters import arrays
from ..collate import MixCollator
from ..keyed_data import keyed
from ..keys import KeyedBatchSampler
from ..small_net import small_network
from ..sources import digits

#: Few training images, so that there is something to gain; the other 1,497 of 1,797 are the test set.
TRAIN_IMAGES, BATCH, LEARNING_RATE = 300, 50, 3e-3
#: Set before any run was looked at, and not tuned: what is usual, with boxes that fit 8 x 8 pixels.
METHODS: dict[str, mx.Operator] = {
    "none": mx.Mixup(0.0),
    "Mixup": mx.Mixup(0.4),
    "Cutout": mx.Cutout(3),
    "CutMix": mx.CutMix(1.0, p=0.5),
}
_FIELDS = {"image": mx.Field("b c h w"), "label": mx.Labels(10)}


@dataclass(frozen=True, eq=False)
class Curves:
    """Test accuracy of every run.

    Args:
        epochs: (e,) after which it was measured.
        accuracy: method -> (seeds, e), each from 0 to 1.
    """

    epochs: np.ndarray
    accuracy: dict[str, np.ndarray]

    def final(self, method: str) -> np.ndarray:
        """(seeds,) accuracy after the last epoch."""
        return np.asarray(self.accuracy[method][:, -1])


def run_count(seeds: int) -> int:
    """How many networks are trained."""
    return seeds * len(METHODS)


def check_runs(seeds: int, epochs: int) -> None:
    """MixError if seeds is below 2 or epochs below 1."""
    if seeds < 2 or epochs < 1:
        raise mx.MixValueError(f"seeds={seeds}, epochs={epochs}: expected at least 2 seeds, for a spread, and 1 epoch")


def train_all(seeds: int, epochs: int, workers: int = 2) -> Iterator[tuple[str, Curves | None]]:
    """Train every method on every seed; split, first weights and order of samples depend on the seed alone.

    Args:
        seeds: runs of each method, 2 or more, so that there is a spread.
        epochs: of each run.
        workers: processes that load and mix.

    Yields:
        ("method, seed s", None) after each run, then ("", Curves).

    Raises:
        MixError: if seeds is below 2 or epochs below 1.
    """
    check_runs(seeds, epochs)
    images, labels = digits()
    measured = np.unique(np.append(np.arange(1, epochs + 1, 4), epochs))
    found: dict[str, list[list[float]]] = {method: [] for method in METHODS}
    for seed in range(seeds):
        order = mx.streams.order_stream(seed, 0).permutation(len(images))
        train, test = order[:TRAIN_IMAGES], order[TRAIN_IMAGES:]
        for method, op in METHODS.items():
            run = _Run(op, images[train], labels[train], seed, epochs, workers)
            found[method].append(run.accuracies(images[test], labels[test], measured))
            yield f"{method}, seed {seed}", None
    yield "", Curves(measured, {method: np.array(rows) for method, rows in found.items()})


class _Run:
    """One network, from first weights to last."""

    def __init__(
        self, op: mx.Operator, images: np.ndarray, labels: np.ndarray, seed: int, epochs: int, workers: int
    ) -> None:
        import torch
        from torch.utils.data import DataLoader

        data: Any = keyed(arrays(image=images, label=labels))
        self.loader: DataLoader[Any] = DataLoader(
            data,
            batch_sampler=KeyedBatchSampler(data, BATCH, seed=seed, shuffle=True),
            collate_fn=MixCollator(op, _FIELDS, seed=seed),
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        torch.manual_seed(seed)
        self.net: Any = small_network((1, 8, 8), 10)
        self.criterion = mx.SoftCrossEntropy()
        self.optimizer = torch.optim.AdamW(self.net.parameters(), LEARNING_RATE, weight_decay=0.05)
        steps = epochs * len(self.loader)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, LEARNING_RATE, steps)
        self.epochs = epochs

    def accuracies(self, images: np.ndarray, labels: np.ndarray, measured: np.ndarray) -> list[float]:
        """Train, and measure on the test set after the epochs ``measured``."""
        found = []
        for epoch in range(1, self.epochs + 1):
            self._train_epoch()
            if epoch in measured:
                found.append(self._accuracy(images, labels))
        return found

    def _train_epoch(self) -> None:
        self.net.train()
        for batch in self.loader:
            loss = self.criterion(self.net(batch["image"].float() / 255), batch["label"])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()

    def _accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        import torch

        self.net.eval()
        with torch.no_grad():
            guess = self.net(torch.from_numpy(images).float() / 255).argmax(1).numpy()
        return float((guess == labels).mean())
