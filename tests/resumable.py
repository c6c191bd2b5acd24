"""A small training run that can be killed: counts its reads, saves its place at each step, resumes from it.

Run as: resumable.py FOLDER WORKERS EPOCHS KILL_AFTER, where KILL_AFTER is a number of steps or 0 for none.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mixops.pipelines import KeyedBatchSampler, MixLoader, PerSample, keyed
from torch.utils.data import DataLoader

import mixops as mx


class Counted:
    """Rows of a table; every read is written down."""

    def __init__(self, log: Path, rows: int = 22) -> None:
        self.log, self.rows = log, rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        with self.log.open("a") as file:
            file.write(f"{index}\n")
        image = np.random.Generator(np.random.PCG64(index)).random((1, 6, 6), np.float32)
        return {"image": image, "label": index % 3}


def digest(batch: dict[str, Any]) -> str:
    """All bytes of a batch, as a short word."""
    from hashlib import sha1

    return sha1(batch["image"].numpy().tobytes() + batch["label"].numpy().tobytes()).hexdigest()


def made(folder: Path, workers: int) -> MixLoader:
    """The loader of the run."""
    data = Counted(folder / "reads.txt")
    stage = PerSample(lambda x, rng: x + rng.random(dtype=np.float32), 7, "image")
    loader = DataLoader(
        keyed(data, stage),
        batch_sampler=KeyedBatchSampler(data, 4, seed=7, shuffle=True),
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    op = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)]) | mx.Cutout(2)
    return MixLoader(loader, op, {"image": mx.Field("b c h w"), "label": mx.Labels(3)}, seed=7)


def main(folder: Path, workers: int, epochs: int, kill_after: int) -> None:
    loader = made(folder, workers)
    saved = folder / "state.json"
    if saved.exists():
        loader.load_state_dict(json.loads(saved.read_text()))
    steps = 0
    while loader.epoch < epochs:
        for batch in loader:
            with (folder / "batches.txt").open("a") as file:
                file.write(digest(batch) + "\n")
            saved.write_text(json.dumps(loader.state_dict()))
            steps += 1
            if steps == kill_after:
                os._exit(9)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
