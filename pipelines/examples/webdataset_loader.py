"""Tar shards of WebDataset, mixed in the workers, stopped and gone on with. python webdataset_loader.py"""

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import webdataset as wds
from mixops.pipelines import MixCollator, digits
from mixops.pipelines.streaming import StreamLoader, tar_shards
from PIL import Image

import mixops as mx

op = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)], p=[0.5, 0.5])
collate = MixCollator(op, {"image": mx.Field("b h w"), "label": mx.Labels(10)}, seed=7)


def made(shards: str, workers: int) -> StreamLoader:
    source = tar_shards(shards, {"png": "image", "cls": "label"}, images="l8")
    return StreamLoader(source, 16, seed=7, shuffle=100, num_workers=workers, collate=collate)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        images, labels = digits()
        with wds.ShardWriter(str(Path(folder) / "digits-%d.tar"), maxcount=50, verbose=0) as writer:
            for i in range(200):
                Image.fromarray(images[i, 0]).save(picture := io.BytesIO(), "png")
                writer.write({"__key__": f"{i:04d}", "png": picture.getvalue(), "cls": int(labels[i])})
        shards = str(Path(folder) / "digits-{0..3}.tar")
        whole = list(made(shards, workers=2))
        first = made(shards, workers=2)
        head = [batch for _, batch in zip(range(5), first)]  # noqa: B905
        second = made(shards, workers=0)
        second.load_state_dict(first.state_dict())  # plain JSON values
        again = head + list(second)
        assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(again, whole, strict=True))
        print(f"{len(whole)} batches, the same with two workers, and stopped after 5 and read on by none")
