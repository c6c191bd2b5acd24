"""The table of the conformance tests: every operator of the library, the arrays that it mixes, a draw for each."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import naive
import numpy as np
from conftest import FLOATS, data, token_evidence

import mixops as mx


@dataclass(frozen=True)
class Row:
    """An operator of the table: the numbers of box axes it draws on, and what it asks of the array."""

    op: mx.Operator
    ranks: tuple[int, ...] = (1, 2, 3)
    channels: bool = False
    blends: bool = False
    noise: bool = False


#: A new operator gets one row here.
OPERATORS = {
    "Mixup": Row(mx.Mixup(1.0), (0, 1, 2, 3), blends=True),
    "Mixup-sample": Row(mx.Mixup(0.7, per="sample", pairing="derange"), (0, 1, 2, 3), blends=True),
    "Mixup-pair": Row(mx.Mixup(2.0, per="pair", pairing="flip", fold=True), (0, 1, 2, 3), blends=True),
    "CutMix": Row(mx.CutMix(1.0)),
    "CutMix-sample": Row(mx.CutMix(0.5, per="sample", pairing="roll", edge="inside", label="nominal")),
    "CutMix-minmax": Row(mx.CutMix(minmax=(0.2, 0.8), per="pair")),
    "Cutout": Row(mx.Cutout(3, count=2, fill=7)),
    "Cutout-channels": Row(mx.Cutout(fraction=0.5, per="batch", edge="inside", fill=(1, 2, 3)), channels=True),
    "RandomErasing": Row(mx.RandomErasing(area=(0.1, 0.4), count=2, fill=9), (1, 2)),
    "RandomErasing-channel": Row(
        mx.RandomErasing(area=(0.2, 0.4), fill=80, noise="channel", std=50), (1, 2), noise=True
    ),
    "RandomErasing-pixel": Row(
        mx.RandomErasing(area=(0.2, 0.4), fill=(9, 8, 7), noise="pixel", std=60), (1, 2), channels=True, noise=True
    ),
    "OneOf": Row(mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)]), blends=True),
    "OneOf-sample": Row(
        mx.OneOf([mx.Mixup(0.8), mx.CutMix(), mx.Cutout(2)], p=[0.4, 0.3, 0.2], per="sample"), blends=True
    ),
    "Chain-fills": Row(mx.Mixup(0.8) | mx.Cutout(2, fill=5) | mx.Cutout(size=1), blends=True),
    "Chain-steps": Row(mx.CutMix(1.0) | mx.Mixup(0.8, per="sample") | mx.Cutout(2), blends=True),
    "WordMixup": Row(mx.WordMixup(1.0), (0, 1), blends=True),
    "SentenceMixup": Row(mx.SentenceMixup(lam=0.5, p=0.5, per="sample"), (0,), blends=True),
    "ManifoldMixup": Row(mx.ManifoldMixup(["input", "layer1"], per="sample"), (1, 2), blends=True),
    "TMix": Row(mx.TMix({7, 9}, fold=True), (1,), blends=True),
    "Sometimes": Row(mx.Sometimes(mx.CutMix(per="sample"), 0.5, per="sample")),
    "Cutoff": Row(mx.Cutoff(0.4, fill=3), (1,)),
    "Cutoff-feature": Row(mx.Cutoff(0.4, "feature"), (2,)),
    "HiddenCut": Row(mx.HiddenCut("layer1", share=0.4), (1,)),
    "TokenSwap": Row(mx.TokenSwap(0.3), (1,)),
    "TokenDelete": Row(mx.TokenDelete(0.3, fill=5), (1,)),
    "SSMix": Row(mx.SSMix(0.3), (1,)),
    "SpanMix-tokens": Row(mx.SpanMix(0.3, pieces="tokens", align=False, pairs=True), (1,)),
    "SeqMix": Row(mx.SeqMix("sub", 2, 1), (1,), blends=True),
}

#: Layouts with odd extents; the channel axis has 3, because the table's fills have.
LAYOUTS = {
    "b c h w": (5, 3, 7, 5),
    "b h w c": (5, 7, 5, 3),
    "b h w": (3, 5, 19),
    "b t d": (5, 9, 3),
    "t b d": (9, 3, 4),
    "b t": (5, 21),
    "b c t h w": (3, 3, 3, 5, 3),
    "b t c h w": (3, 3, 3, 3, 5),
    "b d": (5, 37),
}


def rank_of(layout: str) -> int:
    return len(mx.Spec.like(np.zeros(LAYOUTS[layout]), layout).shape)


def fits(row: Row, layout: str, dtype: str) -> bool:
    if dtype == "int64" and (row.blends or row.noise):
        return False
    return rank_of(layout) in row.ranks and (not row.channels or "c" in layout.split())


TABLE = [(a, n, d) for a in LAYOUTS for n, r in OPERATORS.items() for d in (*FLOATS, "uint8", "int64") if fits(r, a, d)]


def drawn(name: str, x: np.ndarray, layout: str) -> Any:
    rng = np.random.default_rng(zlib.crc32(f"{name} {layout}".encode()))
    op, spec = OPERATORS[name].op, mx.Spec.like(x, layout)
    return op.draw(rng, spec, **token_evidence(op, spec))


@cache
def case(layout: str, name: str, dtype: str) -> tuple[np.ndarray, Any, naive.Expected]:
    x = data(dtype, LAYOUTS[layout])
    plan = drawn(name, x, layout)
    return x, plan, naive.mix(x, plan, layout)
