"""What the rows are measured on: how much of it, batches that rotate, the plans drawn for them, and the check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import Contender, rotation

import mixops as mx
from mixops import streams

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
    boxes: int = 8
    shares: int = 2
    classes: int = 1000

    def spec(self, size: tuple[int, int]) -> mx.Spec:
        return mx.Spec(size[0], (size[1], size[1]))

    @property
    def tiny(self) -> bool:
        """Is this only to show that all runs?"""
        return self.large[1] <= 32


def tiny(rounds: int) -> Setup:
    """So little that a row takes a moment: shows that it runs, and that its contenders do the same work."""
    return Setup(rounds, (4, 32), (4, 16), 2, 2, 30)


@dataclass(frozen=True)
class Tensors:
    """A rotation of batches of tensors with their labels, the plans drawn for them, and memory for a result.

    Args:
        batches: (images, labels), tensors; images have the axes b c h w whatever their order in memory.
        op: what draws the plans, plan k from the generator of seed k.
        plans: one for each draw.
        spec: of a batch.
        classes: of the labels.
        kept: memory for a result.
        threads: how many ours may use.
    """

    batches: list[tuple[torch.Tensor, torch.Tensor]]
    op: mx.Operator
    plans: list[mx.Plan]
    spec: mx.Spec
    classes: int
    kept: torch.Tensor
    threads: int = 1

    @classmethod
    def of(
        cls,
        setup: Setup,
        size: tuple[int, int],
        op: mx.Operator,
        draws: int,
        dtype: str = "float32",
        *,
        channels_last: bool = False,
        threads: int = 1,
    ) -> Tensors:
        import torch

        rows, extent = size
        classes = setup.classes if extent > 64 else max(setup.classes // 10, 2)
        kind = getattr(torch, dtype)
        count = rotation(rows * 3 * extent * extent * kind.itemsize)
        made = torch.Generator().manual_seed(0)

        def images() -> torch.Tensor:
            shape = (rows, extent, extent, 3) if channels_last else (rows, 3, extent, extent)
            if dtype == "uint8":
                x = torch.randint(256, shape, generator=made, dtype=kind)
            else:
                x = torch.rand(shape, generator=made).to(kind)
            return x.permute(0, 3, 1, 2) if channels_last else x

        batches = [(images(), torch.randint(classes, (rows,), generator=made)) for _ in range(count)]
        spec = setup.spec(size)
        plans = plans_of(op, spec, draws)
        shape = (rows, extent, extent, 3) if channels_last else (rows, 3, extent, extent)
        kept = kept_tensor(shape, dtype)
        return cls(batches, op, plans, spec, classes, kept.permute(0, 3, 1, 2) if channels_last else kept, threads)

    def drawing(self, op: mx.Operator) -> Tensors:
        """The same batches with another operator's plans, as many."""
        return replace(self, op=op, plans=plans_of(op, self.spec, len(self.plans)))

    @property
    def bytes(self) -> int:
        return self.kept.nbytes

    def whole(self, *, in_place: bool) -> Step:
        """Draw, images and soft targets."""

        def step(batch: tuple[torch.Tensor, torch.Tensor], k: int) -> Any:
            images, labels = batch
            plan = self.op.draw(stream(k), self.spec)
            mixed = mx.mix(images, plan, LAYOUT, out=images if in_place else self.kept, threads=self.threads)
            return mixed, mx.soft_targets(labels, plan, self.classes)

        return step

    def images(self, plans: Sequence[mx.Plan], *, in_place: bool = False, new: bool = False) -> Step:
        """The images only, of plans drawn before."""

        def step(batch: tuple[torch.Tensor, torch.Tensor], k: int) -> Any:
            images = batch[0]
            out = images if in_place else None if new else self.kept
            return mx.mix(images, plans[k], LAYOUT, out=out, threads=self.threads)

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


def stream(k: int) -> np.random.Generator:
    """What draw k is made from: the generator that the loaders use, keyed by the number of the batch."""
    return streams.plan_stream(0, 0, k)


def kept_memory(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Memory for results that has been written before: aligned, and in huge pages where they are granted.

    Everybody who keeps a buffer gets it from here.
    """
    memory = mx.pool.empty(shape, dtype)
    memory[...] = 1
    return memory


def kept_tensor(shape: Sequence[int], dtype: str) -> torch.Tensor:
    """The same as a tensor."""
    import torch

    if dtype == "bfloat16":
        return torch.from_numpy(kept_memory(shape, np.int16)).view(torch.bfloat16)
    return torch.from_numpy(kept_memory(shape, dtype))


def plans_of(op: mx.Operator, spec: mx.Spec, draws: int) -> list[mx.Plan]:
    """Plan k as the generator of seed k draws it."""
    plans = [op.draw(stream(k), spec) for k in range(draws)]
    assert all(isinstance(plan, mx.Plan) for plan in plans)
    return plans  # type: ignore[return-value]


def pasted(plans: Sequence[mx.Plan], channels: int, itemsize: int) -> float:
    """Bytes inside the boxes of a plan, mean over the plans."""
    cells = [(p.box[..., 1::2] - p.box[..., 0::2]).prod(-1).sum() for p in plans]
    return float(np.mean(cells)) * channels * itemsize


def off(result: Any, expected: Any) -> float:
    """Largest difference of two arrays or tensors."""
    return float(np.abs(_wide(result) - _wide(expected)).max())


def _wide(x: Any) -> np.ndarray:
    # A tensor says its own way to float64: NumPy cannot read bfloat16.
    return x.double().numpy() if hasattr(x, "double") else np.asarray(x, np.float64)


def shape_of(size: tuple[int, int]) -> str:
    """How a title calls batches of this size."""
    return f"({size[0]}, 3, {size[1]}, {size[1]})"
