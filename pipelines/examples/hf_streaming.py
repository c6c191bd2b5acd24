"""Parquet files streamed by Hugging Face datasets, mixed, stopped and gone on with. python hf_streaming.py"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from datasets import Dataset, load_dataset
from mixops.pipelines import MixLoader, digits
from mixops.pipelines.streaming import StreamLoader, huggingface_shards
from PIL import Image

import mixops as mx


def made(files: list[str]) -> MixLoader:
    stream = load_dataset("parquet", data_files=files, split="train", streaming=True)
    source = huggingface_shards(stream, ["image", "label"])
    loader = StreamLoader(source, 16, seed=7, shuffle=64)
    fields = {"image": mx.Field("b h w c"), "label": mx.Labels(10)}
    return MixLoader(loader, mx.CutMix(1.0), fields, seed=7, to={"image": mx.Output("b c h w", "float32")})


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        images, labels = digits()
        files = [str(Path(folder) / f"digits-{i}.parquet") for i in range(4)]
        for i, file in enumerate(files):
            part = slice(50 * i, 50 * (i + 1))
            pictures = [Image.fromarray(image) for image in images[part, 0]]
            Dataset.from_dict({"image": pictures, "label": labels[part]}).to_parquet(file)
        whole = list(made(files))
        first = made(files)
        head = [batch for _, batch in zip(range(5), first)]  # noqa: B905
        second = made(files)
        second.load_state_dict(first.state_dict())
        again = head + list(second)
        assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(again, whole, strict=True))
        print(f"{len(whole)} batches, the same when the run is stopped after 5 and gone on with")
