"""What the rows are measured on: how much of it, batches that rotate, the plans drawn for them, and the check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import Contender, rotation

import mixops as mx

if TYPE_CHECKING:
    import torch

LAYOUT = "b c h w"
Step = Callable[[Any, int], Any]


@dataclass(frozen=True)
class Setup:
    """How much is measured.

    Args:
        rounds: times each contender is timed.
        large: (rows, extent) of the rows on photographs.
        small: (rows, extent) of the rows on small images.
        boxes: draws a round where boxes decide the time.
        shares: draws a round where only λ is drawn, which decides nothing.
        classes: of the labels of photographs; small images have a tenth.
    """

    rounds: int
    large: tuple[int, int] = (64, 224)
    small: tuple[int, int] = (256, 32)
    boxes: int = 16
    shares: int = 4
    classes: int = 1000

    def spec(self, size: tuple[int, int]) -> mx.Spec:
        return mx.Spec(size[0], (size[1], size[1]))


@dataclass(frozen=True)
class Floats:
    """A rotation of float32 batches with their labels, the plans drawn for them, and memory for a result.

    Args:
        batches: (images, labels), tensors.
        op: what draws the plans, plan k from the generator of seed k.
        plans: one for each draw.
        spec: of a batch.
        classes: of the labels.
        kept: memory for a result.
    """

    batches: list[tuple[torch.Tensor, torch.Tensor]]
    op: mx.Operator
    plans: list[mx.Plan]
    spec: mx.Spec
    classes: int
    kept: torch.Tensor

    @classmethod
    def of(cls, setup: Setup, size: tuple[int, int], op: mx.Operator, draws: int) -> Floats:
        import torch

        rows, extent = size
        classes = setup.classes if size == setup.large else setup.classes // 10
        count = rotation(rows * 3 * extent * extent * 4)
        made = torch.Generator().manual_seed(0)
        batches = [
            (
                torch.rand(rows, 3, extent, extent, generator=made),
                torch.randint(classes, (rows,), generator=made),
            )
            for _ in range(count)
        ]
        spec = setup.spec(size)
        return cls(batches, op, plans_of(op, spec, draws), spec, classes, torch.ones_like(batches[0][0]))

    @property
    def bytes(self) -> int:
        return self.kept.nbytes

    def whole(self, *, in_place: bool) -> Step:
        """Draw, images and soft targets."""

        def step(batch: tuple[torch.Tensor, torch.Tensor], k: int) -> Any:
            images, labels = batch
            plan = self.op.draw(np.random.default_rng(k), self.spec)
            mixed = mx.mix(images, plan, LAYOUT, out=images if in_place else self.kept)
            return mixed, mx.soft_targets(labels, plan, self.classes)

        return step

    def images(self, plans: Sequence[mx.Plan], *, in_place: bool = False, fresh: bool = False) -> Step:
        """The images only, of plans drawn before."""

        def step(batch: tuple[torch.Tensor, torch.Tensor], k: int) -> Any:
            images = batch[0]
            out = images if in_place else None if fresh else self.kept
            return mx.mix(images, plans[k], LAYOUT, out=out)

        return step

    def check(self, step: Step, plans: Sequence[mx.Plan]) -> Callable[[], float]:
        """How far a step's images and targets are from what the plain torch backend makes of the last plan."""

        def difference() -> float:
            k, (images, labels) = len(plans) - 1, self.batches[0]
            expected = mx.mix(images, plans[k], LAYOUT, backend="torch")
            result = step((images.clone(), labels), k)
            if not isinstance(result, tuple):
                return off(result, expected)
            return max(off(result[0], expected), off(result[1], mx.soft_targets(labels, plans[k], self.classes)))

        return difference

    def contender(
        self, name: str, step: Step, *, ours: bool = False, plans: Sequence[mx.Plan] | None = None
    ) -> Contender:
        """A contender whose result is held to its plans, ours if none are given."""
        return Contender(name, step, ours, self.check(step, self.plans if plans is None else plans))

    def unpacked(self, step: Step) -> Step:
        """A step on images as a step on a batch."""
        return lambda batch, k: step(batch[0], k)


def plans_of(op: mx.Operator, spec: mx.Spec, draws: int) -> list[mx.Plan]:
    """Plan k as the generator of seed k draws it."""
    plans = [op.draw(np.random.default_rng(k), spec) for k in range(draws)]
    assert all(isinstance(plan, mx.Plan) for plan in plans)
    return plans  # type: ignore[return-value]


def off(result: Any, expected: Any) -> float:
    """Largest difference of two arrays."""
    return float(np.abs(np.asarray(result, np.float64) - np.asarray(expected, np.float64)).max())


def shape_of(size: tuple[int, int]) -> str:
    """How a title calls batches of this size."""
    return f"({size[0]}, 3, {size[1]}, {size[1]})"
