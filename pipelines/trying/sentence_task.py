"""Labelled sentences as a task, for the trainer of mixops.pipelines.text."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import mixops as mx
from mixops import MixValueError

from ..text.learners import NETWORKS
from ..text.recipes import Recipe
from ..text.sentences import Sentences, read_sentences
from ..text.tables import read_table
from ..text.training import check_operator, train_text
from .array_task import TEST_COST
from .given_models import training_of
from .tasks import Progress, Scores

#: Files of sentences, by their endings.
ENDINGS = (".tsv", ".csv", ".tsv.gz", ".csv.gz")
#: So large a share of a file is learnt from, the rest is held out.
_SHARE = 0.8


class SentenceTask:
    """Sentences of a file, split, and a network on words.

    Args:
        path: of a table with the columns text and label.
        model: one of ``NETWORKS``, or a function of (embedding, classes) that gives a network.
        seed: of the split, with equal shares of the classes.
        batch_size: sentences a step; None: the trainer's.
        lr: of AdamW; None: the trainer's.
        threads: of torch.
        device: of torch.
        name: of the model, for the report.

    Raises:
        MixError: if the file is no such table, or there are fewer than two classes or fewer sentences than a batch.
    """

    kind = "sentences"

    def __init__(
        self,
        path: Path,
        model: str | Callable[..., Any] = "cnn",
        *,
        seed: int = 0,
        batch_size: int | None = None,
        lr: float | None = None,
        threads: int = 1,
        device: str = "cpu",
        name: str = "cnn",
    ) -> None:
        if isinstance(model, str) and model not in NETWORKS:
            raise MixValueError(
                f"--model {model}: expected small, {', '.join(NETWORKS)} or MODULE:FUNCTION for sentences"
            )
        there = list(read_table(path, header=True).columns)
        if not {"text", "label"} <= set(there):
            raise MixValueError(f"{path.name} has the columns {there[:12]}, expected text and label: rename them")
        data = _without_gaps(read_sentences(path))
        self.train_rows, self.test_rows = data.split(_SHARE, seed)
        usual = Recipe()
        self.batch_size = usual.batch_size if batch_size is None else batch_size
        if len(self.train_rows) < self.batch_size or not len(self.test_rows):
            raise MixValueError(
                f"{path.name}: {len(self.train_rows)} sentences to learn from and {len(self.test_rows)} held out, "
                f"expected a batch of {self.batch_size} or more, and one: add sentences, or lower --batch"
            )
        learnt = set(self.train_rows.labels.tolist())
        lost = [name for i, name in enumerate(data.classes) if i not in learnt]
        if lost or len(learnt) < 2:
            raise MixValueError(
                f"{path.name}: {f'no sentence of the class {lost[0]!r} to learn from' if lost else 'one class alone'}, "
                "expected two classes or more with some each: are these the labels?"
            )
        self.model, self.name, self.tested = model, name, len(self.test_rows)
        self.steps = -(-len(self.train_rows) // self.batch_size)
        lr = usual.lr if lr is None else lr
        self.options: dict[str, Any] = {"lr": lr, "batch_size": self.batch_size, "threads": threads, "device": device}
        self.facts = {
            "data": {
                "rows": [len(self.train_rows)],
                "held out": self.tested,
                "classes": list(data.classes),
                "checksum": f"{_checksum(self.train_rows):08x}-{_checksum(self.test_rows):08x}",
            },
            "model": name,
            "batch_size": self.batch_size,
            "lr": lr,
            "device": device,
        }

    def work(self, epochs: int) -> float:
        """What a run of so many epochs costs, its measuring after each too, in training steps' worth."""
        return epochs * (self.steps + TEST_COST * self.tested / self.batch_size)

    def check(self, op: mx.Operator) -> None:
        """Refuse an operator that cannot mix inside a network of sentences, with a MixError."""
        check_operator(op)

    def train(self, op: mx.Operator | None, seed: int, epochs: int, progress: Progress) -> Scores:
        """Train once. First weights, batches and their order depend on the seed alone; None mixes nothing."""
        with training_of(self.name):
            run = train_text(
                self.train_rows,
                self.test_rows,
                model=self.model,
                op=op,
                seed=seed,
                epochs=epochs,
                progress=progress,
                **self.options,
            )
        return Scores(float(run.accuracy[-1]), float(run.nll[-1]), float(run.ece[-1]))


def _without_gaps(data: Sentences) -> Sentences:
    """Numbers that no sentence has are no classes: stars from 1 to 5 are five."""
    there = np.unique(data.labels)
    names = [data.classes[i] for i in there]
    return Sentences(data.texts, np.searchsorted(there, data.labels), names)


def _checksum(rows: Sentences) -> int:
    return zlib.crc32("\0".join(rows.texts).encode(), zlib.crc32(rows.labels.tobytes()))
