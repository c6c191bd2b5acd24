"""Spec: what an operator must know of a batch before it draws: how many rows, how large, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .dlpack import Loan, is_foreign
from .errors import MixTypeError, MixValueError
from .layout import box_axes_of, check_extents, check_rank, parse_layout
from .traced import is_tracer

_NUMPY_FLOATS = ("torch.float16", "torch.float32", "torch.float64")


@dataclass(frozen=True, eq=False)
class Spec:
    """How many rows a batch has, how large they are, and at which point of the training it stands.

    Args:
        n: rows, 0 or more.
        shape: extents of the axes that boxes are drawn on: ``(h, w)``, ``(t,)``, ``(t, h, w)``; ``()`` for whole rows.
        lengths: (n,) integers, tokens or frames of each row that are real; None where every row is full.
        epoch: the epoch, for operators that stop at one (``until=``).
        training: False in evaluation: every operator then draws the identity.
        step: step of the training, counted from 0 over all epochs, for operators that start at one (``start_step=``).

    Raises:
        MixError: if n, epoch or step is negative, an extent is below 1, there are more than three, or lengths do not
            fit.

    Example:
        >>> Spec(n=64, shape=(224, 224)).n
        64
    """

    n: int
    shape: tuple[int, ...] = ()
    lengths: np.ndarray | None = None
    epoch: int | None = None
    training: bool = field(default=True)
    step: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.n, (int, np.integer)) or isinstance(self.n, bool) or self.n < 0:
            raise MixValueError(f"Spec n={self.n!r}: expected a number of rows, 0 or more")
        shape = check_extents("Spec shape", self.shape)
        object.__setattr__(self, "n", int(self.n))
        object.__setattr__(self, "shape", shape)
        for name, when in (("epoch", self.epoch), ("step", self.step)):
            if when is not None and (isinstance(when, bool) or not isinstance(when, (int, np.integer)) or when < 0):
                raise MixValueError(f"Spec {name}={when!r}: expected a whole number of 0 or more, or None")
        if self.lengths is not None:
            lengths = plain_array("Spec lengths", self.lengths)
            if lengths.shape != (self.n,) or lengths.dtype.kind not in "iu":
                raise MixValueError(
                    f"Spec lengths: got {lengths.dtype} of shape {lengths.shape}, expected integers, ({self.n},)"
                )
            if self.n and (lengths.min() < 0 or (shape and lengths.max() > shape[0])):
                most = shape[0] if shape else "more"
                raise MixValueError(f"Spec lengths reach from {lengths.min()} to {lengths.max()}: expected 0 to {most}")
            object.__setattr__(self, "lengths", lengths)

    @classmethod
    def like(
        cls,
        array: Any,
        layout: str,
        *,
        lengths: Any = None,
        epoch: int | None = None,
        training: bool = True,
        step: int | None = None,
    ) -> Spec:
        """Read the spec off an array (or a list of equally sized samples) and its layout.

        Args:
            array: NumPy array, torch tensor, anything with ``shape``; or a list of samples.
            layout: axis names, "b c h w"; boxes are drawn on "h w", "t" or "t h w", whichever are named.
            lengths: see Spec.
            epoch: see Spec.
            training: see Spec.
            step: see Spec.

        Returns:
            The Spec.

        Raises:
            MixError: if the layout does not name every axis.

        Example:
            >>> Spec.like(np.zeros((8, 3, 32, 40)), "b c h w").shape
            (32, 40)
        """
        names = parse_layout(layout)
        shape = shape_of(array, names)
        check_rank(names, len(shape))
        extent = dict(zip(names, shape, strict=True))
        return cls(extent["b"], tuple(extent[a] for a in box_axes_of(names)), lengths, epoch, training, step)


def plain_array(name: str, value: Any) -> np.ndarray:
    """The value as an array, or a MixError that names it: its rows have different lengths.

    Tensors may have gradients, be on any device, and hold floats that NumPy lacks, bfloat16 say, which become float32.
    """
    if is_tracer(value):
        raise MixTypeError(
            f"{name}: its values are traced by JAX and not known before the compiled function runs; draw outside of "
            "jax.jit and pass the plan in"
        )
    if is_foreign(value):
        value = Loan(value).x
    if hasattr(value, "detach"):
        value = value.detach()
        if value.is_floating_point() and str(value.dtype) not in _NUMPY_FLOATS:
            value = value.float()
        return np.asarray(value.cpu().numpy())
    if isinstance(value, (list, tuple)) and any(hasattr(row, "detach") for row in value):
        value = [plain_array(name, row) for row in value]
    try:
        return np.asarray(value)
    except ValueError:
        raise MixValueError(f"{name}: rows of different lengths, expected an array") from None


def shape_of(array: Any, names: tuple[str, ...]) -> tuple[int, ...]:
    """Shape of an array, or the shape a list of samples would stack to in this layout."""
    if isinstance(array, Sequence) and not hasattr(array, "shape"):
        if not array:
            raise MixValueError("an empty list of samples has no shape: pass an array of 0 rows instead")
        if not hasattr(array[0], "shape"):
            raise MixTypeError(f"a list of {type(array[0]).__name__}: expected arrays or tensors of one size")
        first = array[0]
        if not _alike(array):
            _refuse_uneven(array)
        sample = list(first.shape)
        sample.insert(names.index("b"), len(array))
        return tuple(sample)
    if not hasattr(array, "shape"):
        raise MixTypeError(f"{type(array).__name__} has no shape: expected an array, a tensor or a list of samples")
    return tuple(array.shape)


def _alike(samples: Sequence[Any]) -> bool:
    """Have all samples one shape and one dtype?"""
    try:
        return len({s.shape for s in samples}) == 1 and len({s.dtype for s in samples}) == 1
    except (AttributeError, TypeError):
        return False


def _refuse_uneven(samples: Sequence[Any]) -> None:
    """Raise a MixError that names the first sample that is not like sample 0."""
    first = samples[0]
    for i, other in enumerate(samples):
        if getattr(other, "shape", None) != first.shape or other.dtype != first.dtype:
            what = f"{other.dtype} {tuple(other.shape)}" if hasattr(other, "shape") else type(other).__name__
            raise MixValueError(
                f"sample 0 is {first.dtype} {tuple(first.shape)}, sample {i} is {what}: expected samples of one "
                "size and dtype; crop or pad them first"
            )
