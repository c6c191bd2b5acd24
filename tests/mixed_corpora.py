"""Small corpora, and what became of them: shared by the tests of mix_corpus with and without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from mixops.pipelines.corpus.columns import as_column, column_of
from mixops.pipelines.corpus.mixing import MixedCorpus, mix_corpus
from pyarrow import parquet

import mixops as mx

IMAGES = {"image": mx.Field("b h w c"), "label": mx.Labels(10)}
BOTH = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)], per="sample")
TEXT = {"tokens": mx.Field("b t", "discrete"), "label": mx.Labels(form="pair")}


def image_table(rows: int = 300) -> pa.Table:
    rng = np.random.default_rng(0)
    image = as_column(rng.integers(0, 256, (rows, 8, 8, 3), np.uint8))
    return pa.table({"image": image, "label": np.arange(rows) % 10, "name": [f"r{i}" for i in range(rows)]})


def text_table(rows: int = 200) -> pa.Table:
    rng = np.random.default_rng(1)
    tokens = [[f"w{i}" for i in rng.integers(0, 50, rng.integers(1, 9))] for _ in range(rows)]
    scores = [rng.normal(size=len(row)) for row in tokens]
    return pa.table({"tokens": tokens, "saliency": scores, "label": rng.integers(0, 4, rows)})


def rows_of(folder: Path) -> list[str]:
    """Every row of a mixed corpus, sorted, values and all."""
    tables = [parquet.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    return sorted(str(row) for table in tables for row in plain(table))


def plain(table: pa.Table) -> list[dict[str, Any]]:
    """Rows whose tensors are lists, whoever's they are."""
    columns = {}
    for name in table.column_names:
        is_tensor = isinstance(table.schema.field(name).type, pa.BaseExtensionType)
        columns[name] = column_of(table, name, 0).values.tolist() if is_tensor else table[name].to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def mixed(source: Any, out: Path, **options: Any) -> MixedCorpus:
    settings: dict[str, Any] = {"seed": 7, "group": 32, "shard": 64, "copies": 2} | options
    return mix_corpus(source, BOTH, IMAGES, out, **settings)


def image_file(folder: Path) -> Path:
    """The images in a file of seven row groups."""
    path = folder / "images.parquet"
    parquet.write_table(image_table(), path, row_group_size=47)
    return path
