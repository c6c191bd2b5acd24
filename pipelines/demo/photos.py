"""Photographs before and after: what each operator does to the pixels and to the labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import mixops as mx

from ..preview import Caption, captions
from ..sources import photographs

SIZE = 176
#: What is shown, as one would type it, and a sentence to each; "derange" so that no photograph meets itself.
SHOWN: tuple[tuple[str, str], ...] = (
    ("Mixup(0.8, per='sample', pairing='derange')", "Two photographs blend; the label shares are those of the blend."),
    (
        "CutMix(1.0, per='sample', pairing='derange')",
        "A box of one photograph is pasted into another; the labels follow the pasted area.",
    ),
    ("Cutout(56)", "A square is painted over; the label stays."),
    (
        "RandomErasing(noise='pixel', fill=128, std=64)",
        "A rectangle of random area and aspect becomes noise; the label stays.",
    ),
    (
        "OneOf([Mixup(0.8, pairing='derange'), CutMix(1.0, pairing='derange')], per='sample') | Cutout(40)",
        "Every photograph draws Mixup or CutMix for itself, then a square is painted over: one plan, one pass.",
    ),
)


@dataclass(frozen=True, eq=False)
class Strip:
    """One row of tiles of the page.

    Args:
        title: the operator, or what the tiles are.
        text: a sentence.
        files: of the tiles, relative to the page.
        captions: one for each tile.
        plan: what was drawn.
    """

    title: str
    text: str
    files: tuple[str, ...]
    captions: tuple[Caption, ...]
    plan: mx.Plan | mx.PlanSequence


def photo_strips(folder: Path, seed: int) -> list[Strip]:
    """Mix the bundled photographs by every operator of ``SHOWN`` and write the tiles.

    Args:
        folder: of the page; tiles go to its sub-folder ``tiles``.
        seed: strip i is drawn from the stream of step i.

    Returns:
        The originals, then one strip an operator.
    """
    photos, files = photographs(SIZE)
    names = [name.replace("_", " ") for name in files]
    (folder / "tiles").mkdir()
    whole = mx.Plan.identity(len(photos))
    text = "What scikit-learn and scikit-image carry; each photograph is a class of its own."
    strips = [write_strip(folder, 0, "originals", text, photos, whole, names)]
    for i, (spelled, text) in enumerate(SHOWN, 1):
        plan = mx.parse_op(spelled).draw(mx.streams.plan_stream(seed, step=i), mx.Spec.like(photos, "b h w c"))
        mixed = mx.mix(photos, plan, "b h w c")
        strips.append(write_strip(folder, i, spelled, text, mixed, plan, names))
    return strips


def write_strip(
    folder: Path,
    number: int,
    title: str,
    text: str,
    tiles: np.ndarray,
    plan: mx.Plan | mx.PlanSequence,
    names: list[str],
) -> Strip:
    """Write the tiles of a strip; ``number`` begins their names."""
    from PIL import Image

    files = tuple(f"tiles/{number}-{i}.png" for i in range(len(names)))
    for file, tile in zip(files, tiles, strict=True):
        Image.fromarray(np.ascontiguousarray(tile)).save(folder / file)
    return Strip(title, text, files, tuple(captions(plan, names)), plan)
