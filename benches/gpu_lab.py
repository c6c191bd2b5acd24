"""What the rows of a GPU are measured on: how much of it, inputs that rotate, and results held to the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from batches import off, plans_of, stream
from gpu_timing import Clock, GpuRow
from harness import Contender, Ratio

import mixops as mx

Step = Callable[[Any, int], Any]
LAYOUT = "b c h w"
#: How far averages may be apart: they may be rounded in another order, and peers round bfloat16 more than once.
ROUNDING = {"float32": 1e-6, "bfloat16": 1.6e-2, "uint8": 1, "int64": 0}


@dataclass(frozen=True)
class Lab:
    """Where rows are measured, and how much of it.

    Args:
        device: of every tensor.
        clock: where time comes from.
        large: (rows, extent) of the rows on photographs.
        odd: the same of images whose rows are no multiple of 16 bytes.
        small: the same of small images.
        hidden: (b, t, d) of hidden states.
        tokens: (b, t) of ids whose spans are mixed.
        edits: (b, t) of ids that are edited one by one.
        draws: plans a row goes through.
        rotated: bytes that the inputs of a row take together.
    """

    device: torch.device
    clock: Clock
    large: tuple[int, int] = (256, 224)
    odd: tuple[int, int] = (256, 299)
    small: tuple[int, int] = (64, 32)
    hidden: tuple[int, int, int] = (128, 512, 768)
    tokens: tuple[int, int] = (1024, 8192)
    edits: tuple[int, int] = (8192, 512)
    draws: int = 8
    rotated: int = 512 << 20

    def many(self, make: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
        """Inputs that rotate: 2 to 64, so many that no cache holds them."""
        first = make()
        count = min(max(2, -(-self.rotated // first.nbytes)), 64)
        return [first, *(make() for _ in range(count - 1))]

    def images(self, size: tuple[int, int], dtype: str, layout: str = LAYOUT) -> list[torch.Tensor]:
        """Random images: bytes, or numbers of [0, 1)."""
        extent = {"b": size[0], "c": 3, "h": size[1], "w": size[1]}
        return self.many(partial(self._random, [extent[a] for a in layout.split()], dtype))

    def _random(self, shape: Sequence[int], dtype: str) -> torch.Tensor:
        kind = getattr(torch, dtype)
        if kind.is_floating_point:
            return torch.rand(shape, device=self.device).to(kind)
        return torch.randint(256, shape, dtype=kind, device=self.device)

    def states(self, dtype: str) -> list[torch.Tensor]:
        """Random hidden states."""
        return self.many(partial(self._random, self.hidden, dtype))

    def ids(self, shape: tuple[int, int]) -> list[torch.Tensor]:
        """Random ids of tokens."""
        return self.many(lambda: torch.randint(30_000, shape, device=self.device))

    def plans(self, op: mx.Operator, spec: mx.Spec, **evidence: np.ndarray) -> list[mx.Plan]:
        """Plan k as the generator of seed k draws it."""
        if not evidence:
            return plans_of(op, spec, self.draws)
        plans = [op.draw(stream(k), spec, **evidence) for k in range(self.draws)]
        assert all(isinstance(plan, mx.Plan) for plan in plans)
        return plans  # type: ignore[return-value]

    def empty(self, shape: Sequence[int], dtype: str) -> torch.Tensor:
        """Memory for results, full of what none of them is."""
        return torch.full(tuple(shape), _poison(dtype), dtype=getattr(torch, dtype), device=self.device)


def spec_of(size: tuple[int, int]) -> mx.Spec:
    """Of images."""
    return mx.Spec(size[0], (size[1], size[1]))


def mix(x: Any, plan: Any, layout: str = LAYOUT, kind: str = "continuous", **options: Any) -> Any:
    """mx.mix by the CUDA kernel and nothing else."""
    return mx.mix(x, plan, layout, kind, backend="cuda", **options)


def _poison(dtype: str) -> float:
    return float("nan") if getattr(torch, dtype).is_floating_point else 255 if dtype == "uint8" else -1


@dataclass(frozen=True)
class Work:
    """What the contenders of a row do.

    Args:
        inputs: what they do it to, in turn.
        layout: of an input.
        kind: see mix.
        to: the tail, or None.
        fill: see mix.
        tolerance: largest difference that still counts as the same result; None: that of the result's dtype.
    """

    inputs: Sequence[torch.Tensor]
    layout: str = LAYOUT
    kind: str = "continuous"
    to: mx.Output | None = None
    fill: float | str | None = None
    tolerance: float | None = None

    @property
    def dtype(self) -> str:
        """Of a result."""
        return str(self.inputs[0].dtype).removeprefix("torch.") if self.to is None else self.to.dtype

    @property
    def result(self) -> int:
        """Bytes of a result."""
        return self.inputs[0].numel() * getattr(torch, self.dtype).itemsize

    @property
    def options(self) -> dict[str, Any]:
        """Of mix, as far as they are not its defaults."""
        given = {"to": self.to, "fill": self.fill}
        return {name: value for name, value in given.items() if value is not None}

    def ours(self, plans: Sequence[Any], *, in_place: bool = False, out: torch.Tensor | None = None) -> Step:
        """A step that mixes."""
        options = self.options if out is None else self.options | {"out": out}
        if in_place:
            return lambda x, k: mix(x, plans[k], self.layout, self.kind, out=x)
        return lambda x, k: mix(x, plans[k], self.layout, self.kind, **options)

    def difference(self, lab: Lab, step: Step, plans: Sequence[mx.Plan]) -> float:
        """How far three rows of a step's result are from what the reference makes of the last plan."""
        k, x = len(plans) - 1, self.inputs[0]
        plan = plans[k]
        rows = np.unique([0, plan.n // 2, plan.n - 1])
        part = plan[rows]
        used = np.unique(np.concatenate([part.base, part.partner[part.partner >= 0]]))
        place = np.searchsorted(used, np.where(part.partner < 0, used[0], part.partner))
        moved = np.where(part.partner < 0, part.partner, place)
        part = replace(part, base=np.searchsorted(used, part.base), partner=moved)
        source = x[torch.from_numpy(used.astype(np.int64)).to(x.device)].cpu()
        source = source.double() if source.is_floating_point() else source
        options = self.options
        if self.to is not None:
            options["to"] = replace(self.to, dtype="float64")
        expected = mx.mix(source.numpy(), part, self.layout, self.kind, backend="reference", **options)
        given = x.clone()
        del source
        # The next result lies where this lay: what is not written shows.
        lab.empty((plan.n, *expected.shape[1:]), self.dtype)
        return off(step(given, k)[torch.from_numpy(rows).to(x.device)].cpu(), expected)


@dataclass(frozen=True)
class Offer:
    """A contender that may not be there.

    Args:
        name: how the table calls it.
        make: makes its step.
        plans: what its results are held to; None where it draws for itself.
        ours: True for mixops.
        package: what it needs, "" for nothing.
        work: where it is another than the row's.
    """

    name: str
    make: Callable[[], Step]
    plans: Sequence[mx.Plan] | None
    ours: bool = False
    package: str = ""
    work: Work | None = None


def row(
    lab: Lab,
    name: str,
    title: str,
    work: Work,
    offers: Sequence[Offer],
    ratios: Sequence[Ratio],
    *,
    moved: float,
    notes: Sequence[str] = (),
    draws: int | None = None,
    **options: Any,
) -> GpuRow:
    """A row of those contenders whose packages are installed; a note names the others."""
    absent = {offer.name: offer.package for offer in offers if offer.package and find_spec(offer.package) is None}
    told = [f"{who} is not there: {package} is not installed" for who, package in absent.items()]
    contenders = []
    for offer in offers:
        if offer.name in absent:
            continue
        step = offer.make()
        held = (offer.work or work).difference
        check = None if offer.plans is None else partial(held, lab, step, offer.plans)
        contenders.append(Contender(offer.name, step, offer.ours, check))
    return GpuRow(
        name,
        title,
        work.inputs,
        draws or lab.draws,
        contenders,
        [ratio for ratio in ratios if not {ratio.over, ratio.by} & set(absent)],
        moved,
        work.result,
        tolerance=ROUNDING[work.dtype] if work.tolerance is None else work.tolerance,
        notes=(*notes, *told),
        **options,
    )


def donors(plans: Sequence[mx.Plan], row_bytes: float) -> float:
    """Megabytes that a mix reads besides each input once, mean over the plans."""
    shares = []
    for plan in plans:
        used = (plan.partner >= 0) & (plan.opacity > 0)
        size = np.ones(plan.partner.shape)
        for axis, extent in enumerate(plan.shape):
            size = size * (plan.box[..., 2 * axis + 1] - plan.box[..., 2 * axis]) / extent
        pasted = used & (plan.opacity == 1)  # what a paste covers is not read of the row's own
        shares.append((size * used).sum() - (size * pasted).sum())
    return float(np.mean(shares)) * row_bytes / 1e6


def donors_said(megabytes: float) -> str:
    """The same as a note."""
    return (
        f"bytes count each input and each result once; donors are {megabytes:.3g} MB more a call, which the "
        "second-level cache may serve"
    )
