"""Output: the fused tail. Normalise, cast and change layout in the pass that mixes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from .errors import MixTypeError, MixValueError
from .fills import check_fill_value
from .layout import parse_layout

DTYPES = ("float32", "float64", "float16", "bfloat16", "uint8")


@dataclass(frozen=True)
class Output:
    """What the mixed batch becomes: out = (v - mean) / std in another dtype and layout; uint8 is divided by 255 first.

    Args:
        layout: axis names of the result, the same axes as the input's in any order.
        dtype: "float32", "float64", "float16", "bfloat16" or "uint8" (uint8 only from uint8, and neither divided nor
            normalised).
        mean: subtracted, a number or one for each channel; for uint8 input in units of [0, 1].
        std: divided by, above 0, a number or one for each channel.

    Raises:
        MixError: if dtype is unknown, mean or std is not finite, or std is 0 or less.

    Example:
        >>> Output("b c h w", "float32", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)).dtype
        'float32'
    """

    layout: str
    dtype: str = "float32"
    mean: Any = None
    std: Any = None
    #: The same as one line of text, made here as no code that torch.compile traces can make it.
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parse_layout(self.layout)
        name = self.dtype if isinstance(self.dtype, str) else str(self.dtype).removeprefix("torch.")
        if name not in DTYPES and isinstance(self.dtype, type):  # np.float32, or ml_dtypes.bfloat16
            name = self.dtype.__name__
        if name not in DTYPES:
            raise MixTypeError(f"Output(dtype={self.dtype!r}): expected one of {', '.join(DTYPES)}")
        object.__setattr__(self, "dtype", name)
        for name in ("mean", "std"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_fill_value(getattr(self, name)))
        if self.std is not None and min(self.std) <= 0:
            raise MixValueError(f"Output(std={self.std}): expected numbers above 0")
        if self.dtype == "uint8" and (self.mean is not None or self.std is not None):
            raise MixValueError("Output(dtype='uint8') with mean or std: normalised values need a float dtype")
        moments = ("" if v is None else " ".join(str(number) for number in v) for v in (self.mean, self.std))
        object.__setattr__(self, "text", ";".join((self.layout, self.dtype, *moments)))

    def check(self, names: tuple[str, ...], shape: tuple[int, ...], kind: str, dtype: str) -> None:
        """Raise MixError unless this tail fits an input of these axes, kind and dtype."""
        if kind != "continuous":
            raise MixTypeError(f"to= on a {kind} array: only continuous values are normalised and cast")
        if dtype not in DTYPES:
            raise MixTypeError(f"to= on {dtype}: expected one of {', '.join(DTYPES)}")
        if self.dtype == "uint8" and dtype != "uint8":
            raise MixTypeError(f"Output(dtype='uint8') from {dtype}: expected a float dtype")
        if set(parse_layout(self.layout)) != set(names):
            raise MixValueError(f'Output layout "{self.layout}" for input "{" ".join(names)}": expected the same axes')
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) > 1 and ("c" not in names or shape[names.index("c")] != len(values)):
                raise MixValueError(f"Output({name}={values}): expected one number or one for each channel of axis c")

    def shape(self, names: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the result for an input of these axes and extents."""
        extent = dict(zip(names, shape, strict=True))
        return tuple(extent[a] for a in parse_layout(self.layout))

    def affine(self, dtype: str) -> tuple[np.ndarray, np.ndarray]:
        """(scale, shift), float64 of shape (1,) or (C,): out = v·scale + shift for v in units of the input dtype."""
        unit = 255.0 if dtype == "uint8" and self.dtype != "uint8" else 1.0
        mean = np.array(self.mean if self.mean is not None else (0.0,))
        std = np.array(self.std if self.std is not None else (1.0,))
        mean, std = np.broadcast_arrays(mean, std)
        return 1 / (unit * std), -mean / std

    def scales(self, dtype: str) -> bool:
        """Does it change the values of such an input, and not their type and place alone?"""
        return _scales(self, dtype)

    def mean_fill(self, dtype: str) -> tuple[float, ...]:
        """The fill, in units of the input, that this tail turns into 0."""
        return tuple(m * (255.0 if dtype == "uint8" else 1.0) for m in self.mean or (0.0,))


@lru_cache(maxsize=64)
def _scales(to: Output, dtype: str) -> bool:
    scale, shift = to.affine(dtype)
    return bool((scale != 1).any() or (shift != 0).any())
