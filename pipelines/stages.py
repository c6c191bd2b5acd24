"""Per-sample stages: augmentation of single samples, with random numbers keyed by (seed, epoch, sample)."""

from __future__ import annotations

import inspect
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError, streams

# Stream numbers below this belong to the generators that callables are given, those above to the global generators.
_GLOBAL = 1 << 32

# Global random state is one for all threads, so one stage runs at a time. A forked child gets a lock of its own:
# another thread of the parent may hold this one at that moment.
_lock = threading.RLock()


def _fresh_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_lock)


class PerSample:
    """Run a callable on every sample with random numbers that depend on (seed, epoch, sample index, place) alone.

    The result is the same for any number of workers. Python's ``random``, NumPy's and (where torch is loaded) torch's
    global CPU generators are seeded for the call and put back after it, so callables that use them, as torchvision's
    transforms do, are reproducible too and leave no trace. Threads take turns. A callable that takes ``rng`` and says
    ``rng_only = True``, as ours do, is spared that: it costs more than a short sentence's augmentation.

    Args:
        fn: ``fn(sample)``, or with a parameter named ``rng``, ``fn(sample, rng=generator)``; or an albumentations
            transform (Compose, ReplayCompose, a single one), which is called with the entries of the sample as
            keywords.
        seed: of the run, 0 ≤ seed < 2**64.
        field: name or position of the one entry that fn gets and replaces; None: the whole sample. An albumentations
            transform gets that entry as ``image``.

    Raises:
        MixError: if fn cannot be called with a sample, or seed is out of range; on a call, if the sample lacks the
            field, or an albumentations transform without a field gets a sample that is no dict.

    Example:
        >>> stage = PerSample(lambda x, rng: x + int(rng.integers(1000)), seed=7)
        >>> first = stage(0, epoch=0, index=3)
        >>> stage(0, epoch=0, index=3) == first, stage(0, epoch=1, index=3) == first
        (True, False)
    """

    def __init__(self, fn: Callable[..., Any], seed: int, field: str | int | None = None) -> None:
        if not callable(fn):
            raise MixTypeError(f"PerSample: fn is {type(fn).__name__}, expected a callable")
        streams.sample_stream(seed, 0, 0)  # refuses a seed that is none
        self.fn, self.seed, self.field = fn, seed, field
        self._by_keyword = hasattr(fn, "set_random_state") or hasattr(fn, "set_random_seed")
        self._takes_rng = not self._by_keyword and _takes_rng(fn)
        self._rng_only = self._takes_rng and getattr(fn, "rng_only", False) is True

    def __repr__(self) -> str:
        name = getattr(self.fn, "__name__", type(self.fn).__name__)
        field = "" if self.field is None else f", field={self.field!r}"
        return f"PerSample({name}, seed={self.seed}{field})"

    def __call__(self, sample: Any, epoch: int, index: int, place: int = 0) -> Any:
        """The sample after fn; the sample that came is not changed by the stage itself.

        Args:
            sample: a dict, a tuple or list, or, without field, anything.
            epoch: counted from 0.
            index: of the sample in its data set.
            place: of this stage among several, so that two with one seed draw different numbers.
        """
        rng = streams.sample_stream(self.seed, epoch, index, place)
        if self._rng_only:
            return self._called(sample, rng)
        words = streams.sample_stream(self.seed, epoch, index, _GLOBAL + place).integers(1 << 32, size=3)
        with _lock, _seeded(*words.tolist()):
            return self._albumentations(sample, rng) if self._by_keyword else self._called(sample, rng)

    def _called(self, sample: Any, rng: np.random.Generator) -> Any:
        part = sample if self.field is None else _entry(sample, self.field)
        made = self.fn(part, rng=rng) if self._takes_rng else self.fn(part)
        return made if self.field is None else _replaced(sample, self.field, made)

    def _albumentations(self, sample: Any, rng: np.random.Generator) -> Any:
        if hasattr(self.fn, "set_random_state"):
            # One generator for all transforms inside. set_random_seed gives each its own copy of one and the same
            # stream, and then all of them toss the same coin: every sample flipped in x is flipped in y too.
            self.fn.set_random_state(rng, random.Random(int(rng.integers(1 << 63))))
        else:
            self.fn.set_random_seed(int(rng.integers(1 << 32)))  # type: ignore[attr-defined]
        if self.field is not None:
            return _replaced(sample, self.field, self.fn(image=_entry(sample, self.field))["image"])
        if not isinstance(sample, Mapping):
            raise MixTypeError(
                f"PerSample: albumentations takes named entries, the sample is {type(sample).__name__}: say which one "
                "is the image, field=0"
            )
        return self.fn(**sample)


def _takes_rng(fn: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # some callables written in C tell no signature
        return False
    if any(p.name == "rng" for p in parameters):
        return True
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(needed) > 1:
        raise MixTypeError(f"PerSample: fn needs {', '.join(needed)}; expected fn(sample) or fn(sample, rng)")
    return False


@contextmanager
def _seeded(first: int, second: int, third: int) -> Iterator[None]:
    """Seed the global generators of random, NumPy and torch (CPU), and put them back as they were."""
    torch = sys.modules.get("torch")
    # The old generator is what transforms draw from: it has to be seeded itself.
    held = random.getstate(), np.random.get_state()  # noqa: NPY002
    generator = None if torch is None else torch.default_generator
    tensor = None if generator is None else generator.get_state()
    try:
        random.seed(first)
        np.random.seed(second)  # noqa: NPY002
        if generator is not None:
            # Not torch.manual_seed: where CUDA is not up yet, that remembers every call.
            generator.manual_seed(third)
        yield
    finally:
        random.setstate(held[0])
        np.random.set_state(held[1])  # noqa: NPY002
        if generator is not None:
            generator.set_state(tensor)


def _entry(sample: Any, field: str | int) -> Any:
    try:
        return sample[field]
    except (KeyError, IndexError, TypeError):
        have = list(sample) if isinstance(sample, Mapping) else type(sample).__name__
        size = f" of {len(sample)}" if isinstance(sample, (list, tuple)) else ""
        raise MixValueError(f"PerSample: the sample has no {field!r}, it is {have}{size}: set field=") from None


def _replaced(sample: Any, field: Any, value: Any) -> Any:
    if isinstance(sample, Mapping):
        return {**sample, field: value}
    items = list(sample)
    items[field] = value
    if hasattr(sample, "_fields"):
        return type(sample)(*items)
    return type(sample)(items) if isinstance(sample, (list, tuple)) else items
