"""The matrix, framework x operator: is a saved plan the same batch everywhere? Equal, or how many ulp apart."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import mixops as mx
from mixops import MixValueError

from .replaying import AnyPlan, Batch, Framework, Made, replay

IMAGES, TOKENS, ROWS = "b h w c", "b t d", "b d"
_SHAPES = {IMAGES: (6, 9, 10, 3), TOKENS: (6, 12, 3), ROWS: (6, 20)}
CLASSES = 4

#: Every operator, as one would type it, and the layout of what it mixes here: (text, layout).
OPERATORS: tuple[tuple[str, str], ...] = (
    ("Mixup(0.8)", IMAGES),
    ("CutMix()", IMAGES),
    ("Cutout(4, count=2, fill=(9, 8, 7))", IMAGES),
    ("RandomErasing(area=(0.2, 0.4), noise='pixel', fill=90, std=60)", IMAGES),
    ("OneOf([Mixup(0.8), CutMix(), Cutout(4)], per='sample')", IMAGES),
    ("Sometimes(CutMix(per='sample'), 0.5, per='sample')", IMAGES),
    ("Mixup(0.8) | Cutout(3, fill=5)", IMAGES),
    ("Chain([CutMix(), Mixup(0.8, per='sample'), Cutout(3)])", IMAGES),
    ("WordMixup(1.0, per='sample')", TOKENS),
    ("SentenceMixup(1.0, per='sample')", ROWS),
    ("ManifoldMixup(['input', 'layer1'], per='sample')", IMAGES),
    ("TMix({7, 9, 12})", TOKENS),
    ("Cutoff(0.4, 'span')", TOKENS),
    ("HiddenCut('layer1', share=0.4)", TOKENS),
    ("TokenSwap(0.3)", TOKENS),
    ("TokenDelete(0.3, fill=5)", TOKENS),
    ("SpanMix(0.3, pieces='tokens', align=False)", TOKENS),
    ("SSMix(0.3)", TOKENS),
    ("SeqMix('sub', 2, 1)", TOKENS),
)


@dataclass(frozen=True)
class Cell:
    """How far one framework is from the definition on one operator.

    Args:
        ulp: the largest distance of a value or target, in units of the last place of the values that were blended.
        fault: what is out of bounds, or nothing.
    """

    ulp: float = 0
    fault: str = ""

    def __str__(self) -> str:
        return self.fault or ("equal" if not self.ulp else f"{max(self.ulp, 0.1):.1f} ulp")


@dataclass(frozen=True)
class Matrix:
    """What the frameworks made of the operators.

    Args:
        operators: the rows.
        columns: framework -> one cell an operator.
        missing: one line for each framework that is not installed.
        failed: one line for each framework that raised an error instead; its cells say so too.
    """

    operators: tuple[str, ...]
    columns: Mapping[str, tuple[Cell, ...]]
    missing: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Is every cell within its bound?"""
        return not any(cell.fault for column in self.columns.values() for cell in column)

    def __str__(self) -> str:
        names = [_shortened(op) for op in self.operators]
        table = [["", *names]] + [[name, *map(str, cells)] for name, cells in self.columns.items()]
        widths = [max(map(len, column)) for column in table]
        rows = zip(*table, strict=True)
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *(f"failed: {line}" for line in self.failed), *self.missing])


def _shortened(text: str, most: int = 44) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def compare(frameworks: Sequence[Framework], operators: Sequence[str] = (), *, jobs: int = 2) -> Matrix:
    """Save a plan of every operator, replay the files in every framework, and compare with NumPy's definition.

    Each plan mixes float32 values and bytes, and the labels of the batch. Bytes have to be equal, floats within
    2⁻²²·((1 - o)|own| + o|donor|) for each blend, shares of targets within 2⁻²².

    Args:
        frameworks: to compare; those that are not installed are named in the result.
        operators: texts of OPERATORS, all for none.
        jobs: processes at a time.

    Returns:
        The Matrix.

    Raises:
        MixError: if an operator is not one of OPERATORS, or none of the frameworks is installed.
    """
    known = dict(OPERATORS)
    unknown = [text for text in operators if text not in known]
    if unknown:
        raise MixValueError(f"operator {unknown[0]!r}: expected one of {', '.join(known)}")
    there = [f for f in frameworks if not f.missing]
    missing = tuple(f.missing for f in frameworks if f.missing)
    if not there:
        raise MixValueError(f"nothing to compare with: {'; '.join(missing) or 'no framework was named'}")
    with tempfile.TemporaryDirectory(prefix="mixops-matrix-") as place:
        folder = Path(place)
        batches = {
            text: batch_of(text, known[text], folder / f"{i}.plan.npz") for i, text in enumerate(operators or known)
        }
        made = replay(batches, there, folder, jobs=jobs)
        plans = {text: mx.Plan.load(batch.plan) for text, batch in batches.items()}
    columns = {}
    for f in there:
        got = made[f.name]
        columns[f.name] = tuple(
            Cell(fault="failed") if isinstance(got, str) else _cell(batch, plans[text], got[text])
            for text, batch in batches.items()
        )
    failed = tuple(f"{f.name}: {made[f.name]}" for f in there if isinstance(made[f.name], str))
    return Matrix(tuple(batches), columns, missing, failed)


def batch_of(text: str, layout: str, file: Path) -> Batch:
    """A batch of this layout, and a plan of the operator for it, saved."""
    rng, shape = np.random.default_rng(zlib.crc32(text.encode())), _SHAPES[layout]
    arrays = {"float32": rng.normal(size=shape).astype(np.float32), "uint8": rng.integers(0, 256, shape, np.uint8)}
    op, spec = mx.parse_op(text), mx.Spec.like(arrays["uint8"], layout)
    op.draw(rng, spec, **_evidence(op, spec)).save(file)
    return Batch(file, layout, arrays, np.arange(shape[0]) % CLASSES, CLASSES)


def _evidence(op: mx.Operator, spec: mx.Spec) -> dict[str, np.ndarray]:
    """What an operator of tokens looks at: made up, of rows of many lengths."""
    rng, extent = np.random.default_rng(1), spec.shape[0] if spec.shape else 1
    grid = spec.n, extent
    made = {
        "lengths": np.arange(extent, extent - spec.n, -1).clip(1),
        "saliency": rng.normal(size=grid),
        "segments": np.broadcast_to(np.arange(extent) * 2 // extent, grid),
        "tags": rng.integers(0, 3, grid),
    }
    return {name: made[name] for name in op.needs}


def _cell(batch: Batch, plan: AnyPlan, got: Made) -> Cell:
    steps = plan.plans if isinstance(plan, mx.PlanSequence) else (plan,)
    blends = max(sum(step.k for step in steps), 1)
    soft = mx.soft_targets(batch.labels, plan, batch.classes)
    distances = [0.0]
    for name, x in batch.arrays.items():
        want = mx.mix(x, plan, batch.layout, backend="reference")
        mixed, targets = got[name]
        # What was added up in each place, with no cancellation: the bound is a share of that.
        size = np.abs(mx.mix(np.abs(x), plan, batch.layout, backend="reference"))
        for what, (one, other, unit) in {
            name: (mixed, want, size),
            f"targets beside {name}": (targets, soft, np.ones_like(soft)),
        }.items():
            ulp, fault = _distance(one, other, unit, blends)
            if fault:
                return Cell(ulp, f"{what}: {fault}")
            distances.append(ulp)
    return Cell(max(distances))


def _distance(got: np.ndarray, want: np.ndarray, size: np.ndarray, blends: int) -> tuple[float, str]:
    """Largest distance in units of the last place of ``size``, and what is wrong with it."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return np.inf, f"{got.dtype} {got.shape}"
    apart = np.abs(got.astype(np.float64) - want)
    if want.dtype.kind != "f":
        return float(apart.max(initial=0)), f"{int((apart > 0).sum())} values differ" if apart.any() else ""
    if not np.isfinite(apart).all():
        return np.inf, f"{int((~np.isfinite(apart)).sum())} values are not finite"
    ulp = float((apart / np.spacing(size.astype(np.float32))).max(initial=0))
    return ulp, f"{ulp:.1f} ulp" if (apart > blends * 2.0**-22 * size).any() else ""
