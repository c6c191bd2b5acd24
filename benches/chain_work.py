"""What the chains are measured on: the draws in the words of the peers, batches in every form, and what must come out.

The chain: uint8 samples, a switch between Mixup(0.8) and CutMix(1.0), RandomErasing of every row (p = 1: the heavier
case), normalised floats, soft targets with smoothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from batches import LAYOUT, Setup, Step, kept_memory, off, shape_of, stream
from harness import Contender, rotation

import mixops as mx

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMOOTHING = 0.1
SOURCE = "b h w c"
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Draw:
    """One plan of the chain in the words of the peers, who know one switch and one λ a batch.

    Args:
        plan: patch 0 mixes, patch 1 erases.
        lam: the row's own share.
        cut: (top, bottom, left, right) of the box that CutMix pastes; None for Mixup.
        partner: (N,) int64.
        holes: one box a row, empty where the row stays whole.
    """

    plan: mx.Plan
    lam: float
    cut: Box | None
    partner: np.ndarray
    holes: list[Box]

    @classmethod
    def of(cls, plan: mx.Plan) -> Draw:
        holes = [(t, b, le, r) for t, b, le, r in plan.box[:, 1].tolist()]
        top, bottom, left, right = plan.box[0, 0].tolist()
        cut = None if blends(plan) else (top, bottom, left, right)
        return cls(plan, float(plan.lam[0]), cut, plan.partner[:, 0].astype(np.int64), holes)


def blends(plan: mx.Plan) -> bool:
    """True if the switch chose Mixup."""
    return bool(((plan.opacity[:, 0] > 0) & (plan.opacity[:, 0] < 1)).any())


def paired(plan: mx.Plan, rule: str) -> mx.Plan:
    """The same λ and boxes with the partner as drawn ("random"), the row from the end ("flip") or before ("roll")."""
    if rule == "random":
        return plan
    rows = np.arange(plan.n)
    partner = plan.partner.copy()
    partner[:, 0] = rows[::-1] if rule == "flip" else np.roll(rows, 1)
    return replace(plan, partner=partner)


def patch_of(plan: mx.Plan, patch: int) -> mx.Plan:
    """The plan of one patch alone."""
    names = ("partner", "box", "donor", "opacity", "weight")
    taken: dict[str, Any] = {name: getattr(plan, name)[:, patch : patch + 1] for name in names}
    return replace(plan, **taken)


@dataclass(frozen=True)
class Batch:
    """The same uint8 rows as every contender likes them.

    Args:
        rows: where they lie in the data set.
        array: (N, h, w, 3), stacked.
        ids: (N,) int64 class ids.
        samples: (h w c view of the data set, label), what a DataLoader fetched.
        views: (c h w view, label), what timm's ToNumpy makes.
        planar: (N, 3, h, w), stacked.
        planes: (c h w contiguous, label), views of ``planar``.
    """

    rows: np.ndarray
    array: np.ndarray
    ids: np.ndarray
    samples: list[tuple[np.ndarray, int]]
    views: list[tuple[np.ndarray, int]]
    planar: np.ndarray
    planes: list[tuple[np.ndarray, int]]

    @classmethod
    def of(cls, data: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> Batch:
        array, ids = data[rows], labels[rows]
        known = ids.tolist()
        planar = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
        samples = [(data[i], y) for i, y in zip(rows, known, strict=True)]
        views = [(x.transpose(2, 0, 1), y) for x, y in samples]
        return cls(rows, array, ids, samples, views, planar, list(zip(planar, known, strict=True)))

    @cached_property
    def tensor(self) -> torch.Tensor:
        return torch.from_numpy(self.array)

    @cached_property
    def index(self) -> torch.Tensor:
        return torch.from_numpy(self.rows)

    @cached_property
    def labels(self) -> torch.Tensor:
        return torch.from_numpy(self.ids)


class Work:
    """A data set in memory, batches of it in random order, the plans, and memory for results.

    Args:
        setup: how much is measured.
        size: (rows, extent).
        source: layout of what ours start from: SOURCE, or LAYOUT for planes.
        dtype: of the result.
        layout: of the result.
        per: "batch" or "sample": what λ, box and switch are drawn for. There are two plans; for batches one blends
            and one pastes a box of typical size, as a fair coin has it on average.
    """

    def __init__(
        self,
        setup: Setup,
        size: tuple[int, int],
        *,
        source: str = SOURCE,
        dtype: str = "float32",
        layout: str = LAYOUT,
        per: str = "batch",
    ) -> None:
        n, extent = size
        self.setup, self.size, self.source = setup, size, source
        self.classes = setup.classes if size[1] >= setup.large[1] else max(setup.classes // 10, 2)
        self.op = mx.OneOf([mx.Mixup(0.8, per=per), mx.CutMix(1.0, per=per)], per=per) | mx.RandomErasing()
        self.spec = setup.spec(size)
        self.seeds = self._typical(range(64)) if per == "batch" else [0, 1]
        self.plans = [self._drawn(seed) for seed in self.seeds]
        self.to = mx.Output(layout, dtype, mean=MEAN, std=STD)
        self.bytes_in = n * extent * extent * 3
        count = rotation(self.bytes_in)
        rng = np.random.default_rng(0)
        self.data = rng.integers(0, 256, (n * count, extent, extent, 3), np.uint8)
        self.labels = rng.integers(0, self.classes, n * count)
        order = rng.permutation(n * count).reshape(count, n)
        self.batches = [Batch.of(self.data, self.labels, rows) for rows in order]
        self.kept = self.memory()

    def _drawn(self, seed: int) -> mx.Plan:
        plan = self.op.draw(stream(seed), self.spec)
        assert isinstance(plan, mx.Plan)
        return plan

    def _typical(self, seeds: Sequence[int]) -> list[int]:
        """Of these seeds the first that blends, and the one whose pasted area comes nearest the mean of all pastes."""
        plans = {seed: self._drawn(seed) for seed in seeds}
        pasted = {seed: 1 - float(plan.lam[0]) for seed, plan in plans.items() if not blends(plan)}
        mean = np.mean(list(pasted.values()))
        return [
            next(seed for seed, plan in plans.items() if blends(plan)),
            min(pasted, key=lambda seed: abs(pasted[seed] - mean)),
        ]

    def memory(self) -> np.ndarray:
        """Memory for one result."""
        dtype: Any = self.to.dtype
        if dtype == "bfloat16":
            from ml_dtypes import bfloat16 as dtype
        return kept_memory(self.to.shape(("b", "h", "w", "c"), self.batches[0].array.shape), dtype)

    def tensor(self) -> torch.Tensor:
        """The same as a tensor."""
        memory = self.memory()
        if self.to.dtype == "bfloat16":
            return torch.from_numpy(memory.view(np.uint16)).view(torch.bfloat16)
        return torch.from_numpy(memory)

    @property
    def bytes_out(self) -> int:
        return self.kept.nbytes

    @property
    def dtype(self) -> torch.dtype:
        kind = getattr(torch, self.to.dtype)
        assert isinstance(kind, torch.dtype)
        return kind

    @property
    def shape(self) -> str:
        return shape_of(self.size)

    def draws(self, rule: str = "random") -> list[Draw]:
        return [Draw.of(paired(plan, rule)) for plan in self.plans]

    # -- our ways --------------------------------------------------------------------------------------------------

    def _stack(self, batch: Batch) -> np.ndarray:
        return batch.array if self.source == SOURCE else batch.planar

    def _mixed(self, x: Any, plan: Any, out: np.ndarray | None, threads: int | None = None) -> Any:
        return mx.mix(x, plan, self.source, fill="mean", to=self.to, out=out, threads=threads)

    def listed(self, *, fresh: bool = False) -> Step:
        """From the list of samples that a DataLoader fetched."""

        def step(batch: Batch, k: int) -> Any:
            samples = batch.samples if self.source == SOURCE else batch.planes
            plan = self._drawn(self.seeds[k])
            mixed = self._mixed([image for image, _ in samples], plan, None if fresh else self.kept)
            ids = np.array([label for _, label in samples])
            return mixed, mx.soft_targets(ids, plan, self.classes, SMOOTHING)

        return step

    def stacked(self, threads: int | None = None) -> Step:
        """From a batch that somebody stacked."""

        def step(batch: Batch, k: int) -> Any:
            plan = self._drawn(self.seeds[k])
            mixed = self._mixed(self._stack(batch), plan, self.kept, threads)
            return mixed, mx.soft_targets(batch.ids, plan, self.classes, SMOOTHING)

        return step

    def indexed(self, data: np.ndarray) -> Step:
        """From rows of a data-set array, or of a memory map."""

        def step(batch: Batch, k: int) -> Any:
            plan = self._drawn(self.seeds[k]).on(batch.rows)
            return self._mixed(data, plan, self.kept), mx.soft_targets(self.labels, plan, self.classes, SMOOTHING)

        return step

    def images(self) -> Step:
        """The images only, of plans drawn before."""
        return lambda batch, k: self._mixed(self._stack(batch), self.plans[k], self.kept)

    # -- what must come out ------------------------------------------------------------------------------------------

    def contender(
        self,
        name: str,
        step: Step,
        *,
        rule: str = "random",
        expected: Callable[[Batch, mx.Plan], torch.Tensor] | None = None,
        smoothing: float | None = SMOOTHING,
    ) -> Contender:
        """A contender that is checked at both draws.

        Args:
            name: how the table calls it; ours begin with "mixops".
            step: what it does.
            rule: whom it pairs, see ``paired``.
            expected: what its images should be, float32 NCHW; None: mixed, erased, normalised, without rounding.
            smoothing: of its soft targets; None: it has none to compare.
        """
        check = partial(self._difference, step, rule, expected or normalised, smoothing)
        return Contender(name, step, name.startswith("mixops"), check)

    def _difference(
        self,
        step: Step,
        rule: str,
        expected: Callable[[Batch, mx.Plan], torch.Tensor],
        smoothing: float | None,
    ) -> float:
        batch, largest = self.batches[0], 0.0
        for k, drawn in enumerate(self.plans):
            plan = paired(drawn, rule)
            result = step(batch, k)
            images, targets = result if isinstance(result, tuple) else (result, None)
            largest = max(largest, off(_planes(images, self.to.layout), expected(batch, plan)))
            if targets is not None and smoothing is not None:
                soft = mx.soft_targets(batch.ids, plan, self.classes, smoothing)
                largest = max(largest, off(targets, soft))
        return largest


def _planes(images: Any, layout: str) -> np.ndarray:
    """A result as float32 NCHW."""
    array = images.float().numpy() if isinstance(images, torch.Tensor) else np.asarray(images, np.float32)
    return array if layout == LAYOUT else array.transpose(0, 3, 1, 2)


_PLAIN = mx.Output(LAYOUT, "float32", mean=MEAN, std=STD)


def normalised(batch: Batch, plan: mx.Plan) -> torch.Tensor:
    """Mixed, erased, normalised by the plain torch backend, without rounding in between."""
    images: torch.Tensor = mx.mix(batch.tensor, plan, SOURCE, fill="mean", to=_PLAIN, backend="torch")
    return images


def erased_first(batch: Batch, plan: mx.Plan) -> torch.Tensor:
    """Normalised and erased sample by sample, then mixed: the order of those who mix after collating."""
    samples = mx.mix(batch.tensor, patch_of(plan, 1), SOURCE, fill="mean", to=_PLAIN, backend="torch")
    images: torch.Tensor = mx.mix(samples, patch_of(plan, 0), LAYOUT, backend="torch")
    return images


def nearest(own: np.ndarray, donor: np.ndarray, lam: float) -> np.ndarray:
    """A blend as timm rounds it."""
    return np.rint(own * np.float32(lam) + donor * np.float32(1 - lam))


def cut_off(own: np.ndarray, donor: np.ndarray, lam: float) -> np.ndarray:
    """A blend as ffcv casts it."""
    return lam * own + (1 - lam) * donor


def in_bytes(
    blend: Callable[[np.ndarray, np.ndarray, Any], np.ndarray], fill: Any = "mean"
) -> Callable[[Batch, mx.Plan], torch.Tensor]:
    """As ``normalised``, for those who go back to uint8 after the blend."""

    def expected(batch: Batch, plan: mx.Plan) -> torch.Tensor:
        mixed, opacity, one = batch.array.copy(), plan.opacity[:, 0], len(set(plan.lam.tolist())) == 1
        for i, j in enumerate(plan.partner[:, 0]):
            if 0 < opacity[i] < 1:
                lam = float(plan.lam[i]) if one else plan.lam[i]  # 1 - λ is rounded as the peer's own type has it
                mixed[i] = blend(batch.array[i], batch.array[j], lam)
            elif opacity[i]:
                top, bottom, left, right = plan.box[i, 0]
                mixed[i, top:bottom, left:right] = batch.array[j, top:bottom, left:right]
        holes = patch_of(plan, 1)
        images: torch.Tensor = mx.mix(torch.from_numpy(mixed), holes, SOURCE, fill=fill, to=_PLAIN, backend="torch")
        return images

    return expected


def sizes_of_equal_area(size: tuple[int, int], extents: Sequence[int]) -> list[tuple[int, int]]:
    """(rows, extent) for each extent, as many pixels as ``size`` has, to the nearest row."""
    pixels = size[0] * size[1] ** 2
    return [(max(round(pixels / extent**2), 1), extent) for extent in extents]
