"""The page of frameworks: one saved plan, the same photographs, three frameworks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

import mixops as mx

from ..look import document
from ..replaying import Batch, find_frameworks, replay
from ..sources import photographs
from .photos import SHOWN, SIZE, Strip, write_strip

THREE = ("torch", "JAX", "TensorFlow")


@dataclass(frozen=True, eq=False)
class Replayed:
    """What the frameworks made of a plan file.

    Args:
        strips: the photographs that each framework mixed.
        apart: framework -> bytes that are not those of NumPy.
        left_out: a sentence for each framework that did not take part.
    """

    strips: tuple[Strip, ...]
    apart: dict[str, int]
    left_out: tuple[str, ...]


def replay_photos(folder: Path, plan: Path, names: Sequence[str] = THREE) -> Replayed:
    """Mix the bundled photographs by a saved plan in each framework that is installed, and write the tiles.

    Args:
        folder: of the page; tiles go to its sub-folder ``tiles``, which is there.
        plan: the file.
        names: of the frameworks.
    """
    photos, files = photographs(SIZE)
    owners = [name.replace("_", " ") for name in files]
    frameworks = [f for f in find_frameworks(names) if f.name in names]
    batch = Batch(plan, "b h w c", {"photos": photos}, np.arange(len(photos)), len(photos))
    with tempfile.TemporaryDirectory(prefix="mixops-demo-") as place:
        made = replay({"photos": batch}, [f for f in frameworks if not f.missing], Path(place))
    drawn = mx.Plan.load(plan)
    want = mx.mix(photos, drawn, "b h w c")
    strips, apart, left_out = [], {}, [f"{f.missing}." for f in frameworks if f.missing]
    for number, (name, got) in enumerate(made.items(), len(SHOWN) + 1):
        if isinstance(got, str):
            left_out.append(f"{name} failed: {got}")
            continue
        mixed = got["photos"]["photos"][0]
        apart[name] = int((mixed != want).sum())
        said = "Not a byte differs from NumPy's." if not apart[name] else f"{apart[name]:,} bytes differ from NumPy's."
        strips.append(write_strip(folder, number, name, said, mixed, drawn, owners))
    return Replayed(tuple(strips), apart, tuple(left_out))


def frameworks_page_html(replayed: Replayed, tiles: Iterable[str], about: str) -> str:
    """The whole page as HTML; tiles: HTML of the strips."""
    parts = [
        f'<p class="soft">{escape(about)}</p>',
        "<h2>One saved plan, each framework by itself</h2>",
        "<p>The plan of the chain on the first page was saved as <code>plan.npz</code>. A process of its own for each "
        "framework loads that file and mixes the photographs by the framework's operations. <code>mixops matrix</code> "
        "does so with every operator.</p>",
        *(f"<p>{escape(line)}</p>" for line in replayed.left_out),
        *tiles,
    ]
    return document("One plan, three frameworks", parts, {"index.html": "Photographs"})
