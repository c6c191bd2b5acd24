"""Streams that the tests read: the bundled digits in tar and Parquet files, and a training run that can be killed.

Run as: streamed.py FOLDER KIND WORKERS KILL_AFTER, where KIND is "tar" or "parquet" and KILL_AFTER a number of steps,
or 0 for none.
"""

from __future__ import annotations

import io
import json
import os
import sys
from hashlib import sha1
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds
from datasets import Dataset, load_dataset
from mixops.pipelines import MixCollator, MixLoader, PerSample, digits
from mixops.pipelines.streaming import StreamLoader, huggingface_shards, tar_shards
from PIL import Image

import mixops as mx

KINDS = ["tar", "parquet"]
SIZES = (23, 19, 30, 8, 20)
N = sum(SIZES)
OP = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)]) | mx.Cutout(2)
FIELDS = {"image": mx.Field("b h w c"), "label": mx.Labels(10)}


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def rows() -> list[list[dict[str, Any]]]:
    """The first digits, an id with each, in as many parts as there are sizes."""
    images, labels = digits()
    made = [{"id": i, "image": png(images[i, 0]), "label": int(labels[i])} for i in range(N)]
    ends = np.cumsum(SIZES)
    return [made[end - size : end] for size, end in zip(SIZES, ends, strict=True)]


def write_tars(folder: Path) -> None:
    for number, part in enumerate(rows()):
        with wds.TarWriter(str(folder / f"digits-{number}.tar")) as writer:
            for row in part:
                writer.write({"__key__": f"{row['id']:04d}", "png": row["image"], "cls": row["label"], "id": row["id"]})


def write_parquet(folder: Path) -> None:
    for number, part in enumerate(rows()):
        columns = {name: [row[name] for row in part] for name in ("id", "image", "label")}
        Dataset.from_dict(columns).to_parquet(str(folder / f"digits-{number}.parquet"))


def write(folder: Path) -> Path:
    write_tars(folder)
    write_parquet(folder)
    return folder


def parquet(folder: Path) -> Any:
    """The Parquet files as an iterable data set; pictures are bytes there."""
    files = [str(path) for path in sorted(folder.glob("*.parquet"))]
    return load_dataset("parquet", data_files=files, split="train", streaming=True)


def opened(sample: dict[str, Any]) -> dict[str, Any]:
    """With pictures in place of bytes."""
    return {**sample, "image": np.array(Image.open(io.BytesIO(sample["image"])))[..., None]}


def shards(folder: Path, kind: str) -> list[Any]:
    if kind == "tar":
        columns = {"png": "image", "cls": "label", "id": "id"}
        return tar_shards([str(path) for path in sorted(folder.glob("*.tar"))], columns, images="l8")
    return huggingface_shards(parquet(folder).map(opened), ["image", "label", "id"])


def with_channel(sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Turned upside down, or not; (8, 8, 1)."""
    image = np.asarray(sample["image"], np.uint8).reshape(8, 8, 1)
    return {**sample, "image": image[::-1].copy() if rng.random() < 0.5 else image}


def loader(source: list[Any], workers: int = 0, **options: Any) -> StreamLoader:
    return StreamLoader(
        source, 8, **({"seed": 7, "shuffle": 12, "num_workers": workers, "stage": PerSample(with_channel, 5)} | options)
    )


def mixing(source: list[Any], workers: int = 0, **options: Any) -> MixLoader:
    """Mixed in the main process."""
    return MixLoader(loader(source, workers, **options), OP, FIELDS, seed=7)


def mixed(source: list[Any], workers: int = 0, **options: Any) -> StreamLoader:
    """Mixed in the workers."""
    return loader(source, workers, collate=MixCollator(OP, FIELDS, seed=7), **options)


def ids(batches: Any) -> list[int]:
    return [int(i) for batch in batches for i in batch["id"]]


def plain(samples: Any) -> list[Any]:
    """A collate function that leaves the samples as they are."""
    return list(samples)


def digest(batch: dict[str, Any]) -> str:
    """All bytes of a batch, as a short word."""
    return sha1(b"".join(np.ascontiguousarray(batch[name]).tobytes() for name in sorted(batch))).hexdigest()


def main(folder: Path, kind: str, workers: int, kill_after: int) -> None:
    run = mixing(shards(folder, kind), workers)
    saved = folder / "state.json"
    if saved.exists():
        run.load_state_dict(json.loads(saved.read_text()))
    steps = 0
    while run.epoch < 2:
        for batch in run:
            with (folder / "batches.txt").open("a") as file:
                file.write(digest(batch) + "\n")
            saved.write_text(json.dumps(run.state_dict()))
            steps += 1
            if steps == kill_after:
                os._exit(9)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
