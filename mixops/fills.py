"""Fills: what a patch paints when it has no donor: a value, a value per channel, or noise with its key."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from .errors import MixTypeError, MixValueError
from .noise import normal

#: Kinds of noise, by the code that a plan stores.
NOISES = ("none", "channel", "pixel")
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Fill:
    """One fill: ``value + std * noise``.

    Args:
        value: what is painted, in units of the input; one number, or one for each channel.
        noise: "none", "channel" (one normal number for each channel of the patch) or "pixel" (one for each element).
        std: standard deviation of the noise, finite, 0 or more.
        key: 64-bit key of the noise. The same key paints the same noise again.

    Raises:
        MixError: if value or std is not finite, noise is unknown or key is out of range.

    Example:
        >>> Fill((0.5, 0.4, 0.4)).value
        (0.5, 0.4, 0.4)
    """

    value: float | tuple[float, ...] = 0.0
    noise: str = "none"
    std: float = 1.0
    key: int = 0

    def __post_init__(self) -> None:
        value = check_fill_value(self.value)
        object.__setattr__(self, "value", value[0] if len(value) == 1 else value)
        if self.noise not in NOISES:
            raise MixValueError(f"fill noise={self.noise!r}: expected one of {', '.join(NOISES)}")
        if not isinstance(self.std, (int, float, np.integer, np.floating)) or not 0 <= self.std <= _LARGEST:
            raise MixValueError(f"fill std={self.std!r}: expected a finite number of float32, 0 or more")
        if not isinstance(self.key, (int, np.integer)) or not 0 <= self.key < 1 << 64:
            raise MixValueError(f"fill key={self.key!r}: expected a whole number from 0 to 2**64 - 1")
        object.__setattr__(self, "std", float(self.std))
        object.__setattr__(self, "key", int(self.key))


def check_fill_value(value: Any) -> tuple[float, ...]:
    """A fill value as a tuple of floats: one, or one for each channel."""
    try:
        array = np.atleast_1d(np.asarray(value, np.float64))
    except (TypeError, ValueError):
        raise MixTypeError(f"fill {value!r}: expected a number or one number for each channel") from None
    except OverflowError:
        raise MixValueError("fill: a whole number beyond float64, expected finite numbers of float32") from None
    if array.ndim != 1 or not len(array) or not (np.abs(array) <= _LARGEST).all():  # NaN fails too
        raise MixValueError(f"fill {value!r}: expected a finite number of float32, or one for each channel")
    return tuple(float(v) for v in array)


@dataclass(frozen=True, eq=False)
class Fills:
    """The table of a plan's fills as arrays, so that a thousand noise fills cost no more than one.

    Args:
        value: (F, C) float32, C = 1 or the number of channels.
        noise: (F,) uint8, index into ``NOISES``.
        std: (F,) float32.
        key: (F,) uint64.
    """

    value: np.ndarray
    noise: np.ndarray
    std: np.ndarray
    key: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype, ndim in (
            ("value", np.float32, 2),
            ("noise", np.uint8, 1),
            ("std", np.float32, 1),
            ("key", np.uint64, 1),
        ):
            given = np.asarray(getattr(self, name))
            if (
                given.ndim != ndim
                or given.dtype.kind not in "biuf"
                or (np.dtype(dtype).kind == "u" and given.dtype.kind == "f")
            ):
                raise MixValueError(
                    f"fills.{name}: got {given.dtype} of shape {given.shape}, expected {ndim} axes of {np.dtype(dtype)}"
                )
            array = np.array(given, dtype, order="C")  # kernels of another order would be compiled too
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        count = len(self.value)
        if not (len(self.noise) == len(self.std) == len(self.key) == count) or self.value.shape[1] < 1:
            raise MixValueError(
                f"fills: value {self.value.shape}, noise {self.noise.shape}, std {self.std.shape}, "
                f"key {self.key.shape}: expected one row each and at least one channel"
            )
        if count and (
            not np.isfinite(self.value).all()
            or not np.isfinite(self.std).all()
            or self.std.min() < 0
            or self.noise.max() >= len(NOISES)
        ):
            raise MixValueError(f"fills: expected finite values, std of 0 or more and noise codes below {len(NOISES)}")

    @classmethod
    def of(cls, fills: Any) -> Fills:
        """Make the table from a number, a tuple or array of channel values, a Fill, a list of these, or a table."""
        if isinstance(fills, Fills):
            return fills
        if isinstance(fills, float) or (isinstance(fills, tuple) and all(isinstance(v, float) for v in fills)):
            return _constant(fills)
        if isinstance(fills, (Fill, int, float, tuple, np.number, np.ndarray)):
            fills = [fills]
        if not isinstance(fills, list):
            raise MixTypeError(
                f"fills: got {type(fills).__name__}, expected a number, a tuple, a Fill or a list of them"
            )
        return cls._of_list(fills)

    @classmethod
    def _of_list(cls, fills: list[Any]) -> Fills:
        items = [f if isinstance(f, Fill) else Fill(f) for f in fills]
        values = [check_fill_value(f.value) for f in items]
        channels = {len(v) for v in values} - {1}
        if len(channels) > 1:
            raise MixValueError(f"fills have {sorted(channels)} channel values: expected one number of channels")
        width = channels.pop() if channels else 1
        value = np.array([v * width if len(v) == 1 else v for v in values], np.float32).reshape(len(items), width)
        return cls(
            value,
            np.array([NOISES.index(f.noise) for f in items], np.uint8),
            np.array([f.std for f in items], np.float32),
            np.array([f.key for f in items], np.uint64),
        )

    def __len__(self) -> int:
        return len(self.value)

    @cached_property
    def noisy(self) -> bool:
        """Is any of them noise?"""
        return bool(self.noise.any())

    @cached_property
    def words(self) -> np.ndarray:
        """(F, 2) uint32: low and high word of each key, for where there are no whole numbers of 64 bits."""
        words = np.empty((len(self.key), 2), np.uint32)
        words[:, 0], words[:, 1] = self.key & np.uint64(0xFFFFFFFF), self.key >> np.uint64(32)
        return words

    def __getitem__(self, i: int) -> Fill:
        row = self.value[i].tolist()
        value = row[0] if len(set(row)) == 1 else tuple(row)
        return Fill(value, NOISES[self.noise[i]], float(self.std[i]), int(self.key[i]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fills) and all(
            np.array_equal(getattr(self, f), getattr(other, f)) for f in ("value", "noise", "std", "key")
        )

    __hash__ = None  # type: ignore[assignment]  # arrays inside: compare, do not hash

    def joined(self, other: Fills) -> Fills:
        """Both tables, this one first; a value for all channels is spread where the other has one for each."""
        width = max(self.value.shape[1], other.value.shape[1])
        for table in (self, other):
            if table.value.shape[1] not in (1, width):
                raise MixValueError(
                    f"fills of {self.value.shape[1]} and {other.value.shape[1]} channels cannot stand in one plan"
                )
        spread = [np.broadcast_to(t.value, (len(t), width)) for t in (self, other)]
        return Fills(
            np.concatenate(spread),
            np.concatenate([self.noise, other.noise]),
            np.concatenate([self.std, other.std]),
            np.concatenate([self.key, other.key]),
        )

    def painted(self, i: int, channels: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """What fill i paints: float32 for the broadcast of channel numbers and positions (see noise.normal)."""
        value = self.value[i]
        base = value[0] if len(value) == 1 else value[channels]
        if self.noise[i] == 0:
            return np.broadcast_to(base, np.broadcast_shapes(channels.shape, positions.shape)).astype(np.float32)
        if self.noise[i] == 1:
            positions = np.zeros_like(positions)
        return (base + self.std[i] * normal(int(self.key[i]), channels, positions)).astype(np.float32)


@lru_cache(maxsize=256)
def _constant(value: float | tuple[float, ...]) -> Fills:
    """The table of one value: operators ask for theirs at every step."""
    return Fills._of_list([value])
