"""Peers run for real: what they drew, what they made of it. Each peer is imported once, when first asked for.

A recorder takes a seed, runs the installed peer on a batch of a random size with its own random functions listened to,
and returns a Case: the numbers that were drawn, under the names that our presets take them, and the peer's output.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch


@dataclass
class Case:
    """One run of a peer.

    Args:
        preset: name of our preset.
        options: its arguments.
        draw: keywords of its ``draw``: what the peer drew.
        x: the images, (n, c, h, w) float32.
        out: what the peer made of them.
        target: (n, n) share of every row in every label, None where labels do not change.
        blends: True if values are averaged: then they agree within the rounding of float32, else bit for bit.
    """

    preset: str
    options: dict[str, Any]
    draw: dict[str, Any]
    x: np.ndarray
    out: np.ndarray
    target: np.ndarray | None = None
    blends: bool = False


@dataclass
class Heard:
    """Results of the functions that were listened to, in order, by name and all together."""

    calls: list[tuple[str, Any]] = field(default_factory=list)

    def of(self, name: str) -> list[Any]:
        return [value for called, value in self.calls if called == name]


@contextmanager
def listening(owner: Any, *names: str, heard: Heard | None = None) -> Iterator[Heard]:
    """Keep what ``owner.name(...)`` returns while the block runs; the functions themselves stay as they are."""
    heard = heard or Heard()
    before = {name: vars(owner).get(name) for name in names}

    def ear(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def listen(*args: Any, **options: Any) -> Any:
            value = function(*args, **options)
            kept = value.detach().clone() if isinstance(value, torch.Tensor) else np.array(value)
            heard.calls.append((name, kept))
            return value

        return listen

    for name in names:
        setattr(owner, name, ear(name, getattr(owner, name)))
    try:
        yield heard
    finally:
        for name, function in before.items():
            if function is None:
                delattr(owner, name)
            else:
                setattr(owner, name, function)


def batch(rng: np.random.Generator, *, even: bool = False, least: int = 2) -> np.ndarray:
    """Images of a random number and size, odd and not square as often as not."""
    n = int(rng.integers(least, 6))
    shape = (n + n % 2 if even else n, 2, int(rng.integers(3, 20)), int(rng.integers(3, 20)))
    return rng.integers(-99, 100, shape).astype(np.float32)


def seeded(seed: int) -> np.random.Generator:
    """Seed every generator that a peer may use."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # timm and mmpretrain draw from the global generator
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


def one_hot(n: int) -> torch.Tensor:
    """Row i has label i: a mixed label then says whose share is whose."""
    return torch.eye(n)


@cache
def torchvision_schemas() -> Any:
    """A CPU build of torch refuses to import torchvision unless these two are known to it."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        try:
            library.define(schema)
        except RuntimeError:  # a build whose extension loads has defined them itself
            continue
    return library


@cache
def torchvision_v2() -> Any:
    torchvision_schemas()
    from torchvision.transforms import v2

    return v2


@cache
def timm_mixup() -> Any:
    torchvision_schemas()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
        from timm.data import mixup
    return mixup


@cache
def timm_random_erasing() -> Any:
    timm_mixup()
    from timm.data import random_erasing

    return random_erasing


@cache
def kornia_augmentation() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
        import kornia.augmentation
    return kornia.augmentation


# -- timm -------------------------------------------------------------------------------------------------------------


def record_timm(seed: int) -> Case:
    """Mixup or CutMix, by batch, pair or row, with any of its switches."""
    rng, peer = seeded(seed), timm_mixup()
    x = batch(rng, even=True)
    n, mode = len(x), str(rng.choice(["batch", "pair", "elem"]))
    alphas = [(1.0, 0.0), (0.0, 1.0), (0.7, 0.3)][rng.integers(3)]
    minmax = (0.2, 0.9) if min(x.shape[2:]) > 5 and alphas[1] and rng.random() < 0.4 else None
    correct = bool(rng.random() < 0.7)
    shared = {"mixup_alpha": alphas[0], "cutmix_alpha": alphas[1], "cutmix_minmax": minmax, "mode": mode}
    prob = 1.0 if mode == "batch" else 0.8
    mixer = peer.Mixup(**shared, prob=prob, correct_lam=correct, label_smoothing=0.0, num_classes=n)
    mixed = torch.from_numpy(x.copy())
    with listening(np.random, "rand", "beta", "randint") as heard:
        mixed, target = mixer(mixed, torch.arange(n))
    draw = timm_draw(heard, n, mode, alphas if minmax is None else (alphas[0], 1.0), prob, minmax is not None)
    return Case(
        "timm", {**shared, "correct_lam": correct}, draw, x, mixed.numpy(), target.numpy(), not np.all(draw["cutmix"])
    )


def timm_draw(
    heard: Heard, n: int, mode: str, alphas: tuple[float, float], prob: float, minmax: bool
) -> dict[str, np.ndarray]:
    """The numbers of timm's calls, one for each row; rows past the middle mirror those before in pairs."""
    rows = {"batch": 1, "pair": n // 2, "elem": n}[mode]
    rands, betas = ([np.broadcast_to(v, rows) for v in heard.of(name)] for name in ("rand", "beta"))
    if mode == "batch":
        rands = rands[::-1]  # the coin of prob comes first in a batch, last otherwise
    cut = rands[0] < 0.5 if min(alphas) > 0 else np.full(rows, alphas[1] > 0)
    lam = np.where(cut, betas[0], betas[-1])
    lam = np.where(rands[-1] < prob, lam, 1)
    if mode != "batch":
        lam = lam.astype(np.float32).astype(np.float64)
    at, size, numbers = np.zeros((rows, 2), int), np.zeros((rows, 2), int), iter(heard.of("randint"))
    for i in np.flatnonzero(cut & (lam != 1)):
        if minmax:
            size[i] = next(numbers), next(numbers)
        at[i] = next(numbers), next(numbers)
    drawn = {"lam": lam, "cutmix": cut, "at": at, **({"size": size} if minmax else {})}
    if mode == "pair":
        return {name: np.concatenate([v, v[::-1]]) for name, v in drawn.items()}
    return {name: np.repeat(v, n // rows, 0) for name, v in drawn.items()}


def record_timm_erasing(seed: int) -> Case:
    rng, peer = seeded(seed), timm_random_erasing()
    x = batch(rng)
    least, most = [(1, 1), (1, 3), (2, 2)][rng.integers(3)]
    options = {
        "probability": 1.0,
        "max_area": float(rng.choice([1 / 3, 0.9])),
        "min_count": least,
        "max_count": most,
        "num_splits": int(rng.choice([0, 2])),
    }
    ears = SimpleNamespace(random=random.random, uniform=random.uniform, randint=random.randint)
    with listening(ears, "random", "uniform", "randint") as heard:
        peer.random = ears
        out = peer.RandomErasing(**options, device="cpu")(torch.from_numpy(x.copy())).numpy()
    peer.random = random
    n, calls = len(x), iter(heard.calls)
    draw = {
        "count": np.full(n, least),
        "area": np.zeros((n, most, 10)),
        "aspect": np.ones((n, most, 10)),
        "at": np.zeros((n, most, 2), int),
    }
    upcoming = next(calls, None)
    for row in range(n // 2 if options["num_splits"] else 0, n):
        assert upcoming is not None
        assert upcoming[0] == "random"
        upcoming = next(calls, None)
        if least < most:
            assert upcoming is not None
            draw["count"][row] = upcoming[1]
            upcoming = next(calls, None)
        for box in range(draw["count"][row]):
            tried = 0
            while tried < 10 and upcoming is not None and upcoming[0] == "uniform":
                draw["area"][row, box, tried] = upcoming[1]
                draw["aspect"][row, box, tried] = np.exp(next(calls)[1])
                tried, upcoming = tried + 1, next(calls, None)
                if upcoming is not None and upcoming[0] == "randint":
                    draw["at"][row, box] = upcoming[1], next(calls)[1]
                    upcoming = next(calls, None)
                    break
    return Case("timm_erasing", options, draw, x, out)


# -- torchvision ------------------------------------------------------------------------------------------------------


def record_torchvision_mixup(seed: int) -> Case:
    rng, v2 = seeded(seed), torchvision_v2()
    x = batch(rng)
    mixer = v2.MixUp(alpha=0.6, num_classes=len(x))
    with listening(mixer._dist, "sample") as heard:
        out, target = mixer(torch.from_numpy(x), torch.arange(len(x)))
    draw = {"lam": heard.of("sample")[0].double().numpy()[0]}
    return Case("torchvision_mixup", {"alpha": 0.6}, draw, x, out.numpy(), target.numpy(), True)


def record_torchvision_cutmix(seed: int) -> Case:
    rng, v2 = seeded(seed), torchvision_v2()
    x = batch(rng)
    mixer = v2.CutMix(alpha=0.6, num_classes=len(x))
    with listening(mixer._dist, "sample") as heard, listening(torch, "randint", heard=heard):
        out, target = mixer(torch.from_numpy(x), torch.arange(len(x)))
    across, down = heard.of("randint")
    draw = {"lam": heard.of("sample")[0].double().numpy()[0], "at": np.array([int(down), int(across)])}
    return Case("torchvision_cutmix", {"alpha": 0.6}, draw, x, out.numpy(), target.numpy())


def record_torchvision_erasing(seed: int) -> Case:
    rng, v2 = seeded(seed), torchvision_v2()
    x = batch(rng)
    options: dict[str, Any] = {"p": 1.0, "scale": [(0.02, 0.33), (0.3, 0.95)][rng.integers(2)], "value": (7.0, -3.0)}
    with listening(torch.Tensor, "uniform_") as heard, listening(torch, "randint", heard=heard):
        out = v2.RandomErasing(**options)(torch.from_numpy(x))
    drawn = heard.of("uniform_")
    area, aspect, at = np.zeros((len(x), 1, 10)), np.ones((len(x), 1, 10)), np.zeros(2, int)
    for i in range(len(drawn) // 2):
        area[..., i], aspect[..., i] = drawn[2 * i].item(), torch.exp(drawn[2 * i + 1]).item()
    for axis, place in enumerate(heard.of("randint")):
        at[axis] = int(place)
    return Case("torchvision_erasing", options, {"area": area, "aspect": aspect, "at": at}, x, out.numpy())


# -- kornia -----------------------------------------------------------------------------------------------------------


def kornia_version() -> str:
    kornia_augmentation()
    import kornia

    return ".".join(kornia.__version__.split(".")[:2])


def _kornia_target(triples: torch.Tensor, *, own: bool = False) -> np.ndarray:
    """Mean over the mixes of kornia's (own label, partner's label, share): (K, n, 3) to (n, n)."""
    n = triples.shape[1]
    share = 1 - triples[..., 2:] if own else triples[..., 2:]
    eye = one_hot(n)
    mixed = (1 - share) * eye[triples[..., 0].long()] + share * eye[triples[..., 1].long()]
    return mixed.mean(0).numpy()


def record_kornia_mixup(seed: int) -> Case:
    rng, peer = seeded(seed), kornia_augmentation()
    x = batch(rng)
    options: dict[str, Any] = {"lambda_val": (0.1, 0.8), "same_on_batch": bool(rng.random() < 0.3)}
    mixer = peer.RandomMixUpV2(**options, p=1.0, data_keys=["input", "class"])
    out, triples = mixer(torch.from_numpy(x), torch.arange(len(x)))
    draw = {
        "partner": mixer._params["mixup_pairs"].numpy(),
        "lam": 1 - mixer._params["mixup_lambdas"].double().numpy(),
    }
    options["version"] = kornia_version()
    return Case("kornia_mixup", options, draw, x, out.numpy(), _kornia_target(triples[None]), True)


def record_kornia_cutmix(seed: int) -> Case:
    from kornia.augmentation.random_generator._2d import cutmix as generator

    rng, peer = seeded(seed), kornia_augmentation()
    x = batch(rng)
    mixes = int(rng.integers(1, 4))
    options: dict[str, Any] = {
        "num_mix": mixes,
        "cut_size": [(0.0, 1.0), (0.2, 0.7), (0.0, 0.02)][rng.integers(3)],
        "same_on_batch": bool(rng.random() < 0.3),
    }
    own = bool(rng.random() < 0.5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="RandomCutMixV2 currently uses", category=DeprecationWarning)
        mixer = peer.RandomCutMixV2(**options, p=1.0, data_keys=["input", "class"], use_correct_lambda=own)
    with listening(generator, "_adapted_rsampling") as heard:
        out, triples = mixer(torch.from_numpy(x), torch.arange(len(x)))
    lam, across, down = (_mixes_by_row(v, mixes, len(x)) for v in heard.of("_adapted_rsampling"))
    draw = {
        "partner": mixer._params["mix_pairs"].numpy().T,
        "lam": lam.astype(np.float64),
        "uniform": np.stack([down, across], -1),
    }
    options["version"] = kornia_version()
    return Case("kornia_cutmix", options, draw, x, out.numpy(), _kornia_target(triples, own=own))


def _mixes_by_row(drawn: torch.Tensor, mixes: int, n: int) -> np.ndarray:
    """kornia's numbers, one for all, one a mix or mix after mix, as (n, mixes)."""
    table = drawn.numpy()
    table = table.reshape(mixes, -1) if table.size > 1 or mixes == 1 else table.reshape(1, 1)
    return np.broadcast_to(table, (mixes, n)).T.copy()


def record_kornia_erasing(seed: int) -> Case:
    from kornia.augmentation.random_generator._2d import rectangle_earase as generator

    rng, peer = seeded(seed), kornia_augmentation()
    x = batch(rng)
    options: dict[str, Any] = {
        "scale": [(0.02, 0.33), (0.0, 0.01), (0.5, 1.0)][rng.integers(3)],
        "ratio": [(0.3, 3.3), (1.5, 2.5)][rng.integers(2)],
        "value": 0.5,
        "same_on_batch": bool(rng.random() < 0.3),
        "p": 1.0,
    }
    with listening(generator, "_adapted_rsampling") as heard:
        out = peer.RandomErasing(**options)(torch.from_numpy(x))
    drawn = [np.broadcast_to(v.numpy(), len(x)) for v in heard.of("_adapted_rsampling")]
    if options["ratio"][0] < 1:
        drawn[1:4] = [np.where(np.rint(drawn[3]) == 1, drawn[1], drawn[2])]
    area, aspect, across, down = drawn
    draw = {"area": area, "aspect": aspect, "uniform": np.stack([down, across], -1)}
    return Case("kornia_erasing", {**options, "version": kornia_version()}, draw, x, out.numpy())


RECORDERS: dict[str, list[Callable[[int], Case]]] = {
    "timm": [record_timm, record_timm_erasing],
    "torchvision": [record_torchvision_mixup, record_torchvision_cutmix, record_torchvision_erasing],
    "kornia": [record_kornia_mixup, record_kornia_cutmix, record_kornia_erasing],
}


# -- on the brink of a whole pixel -------------------------------------------------------------------------------------
# A side of extent * sqrt(1 - lam) that is all but whole falls on one side or the other by the last bit of the
# arithmetic. Random shares hardly ever come near, so these are built.


def brink(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """(n,) float32 shares whose box has a side that is whole, or the next number to it."""
    n, extent = len(x), rng.choice(x.shape[2:])
    whole = np.float32(1 - (rng.integers(1, extent, n) / extent) ** 2)
    return np.nextafter(whole, whole + rng.integers(-1, 2, n).astype(np.float32))


def record_timm_brink(seed: int) -> Case:
    rng, peer = seeded(seed), timm_mixup()
    x = batch(rng, even=True)
    n, lam, mode = len(x), brink(rng, x), ["batch", "elem"][rng.integers(2)]
    mixer = peer.Mixup(0.0, 1.0, mode=mode, label_smoothing=0.0, num_classes=n)
    mixer._params_per_batch = lambda: (float(lam[0]), True)
    mixer._params_per_elem = lambda rows: (lam.copy(), np.ones(rows, bool))
    mixed = torch.from_numpy(x.copy())
    with listening(np.random, "randint") as heard:
        mixed, target = mixer(mixed, torch.arange(n))
    at = np.broadcast_to(np.array(heard.of("randint")).reshape(-1, 2), (n, 2))
    draw = {"lam": lam if mode == "elem" else lam[0], "at": at}
    options = {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "mode": mode}
    return Case("timm", options, draw, x, mixed.numpy(), target.numpy())


def record_torchvision_brink(seed: int) -> Case:
    rng, v2 = seeded(seed), torchvision_v2()
    x = batch(rng)
    lam = brink(rng, x)[0]
    mixer = v2.CutMix(num_classes=len(x))
    mixer._dist = SimpleNamespace(sample=lambda shape: torch.tensor([lam]))
    with listening(torch, "randint") as heard:
        out, target = mixer(torch.from_numpy(x), torch.arange(len(x)))
    across, down = heard.of("randint")
    draw = {"lam": lam, "at": np.array([int(down), int(across)])}
    return Case("torchvision_cutmix", {}, draw, x, out.numpy(), target.numpy())


@contextmanager
def exact_roots() -> Iterator[None]:
    """Let torch.sqrt round float32 correctly: with MKL one root in five is off by the last bit, by machine."""
    root = torch.sqrt
    torch.sqrt = lambda x: root(x.double()).to(x.dtype)
    try:
        yield
    finally:
        torch.sqrt = root


def record_kornia_brink(seed: int) -> Case:
    from kornia.augmentation.random_generator._2d import cutmix as generator

    rng, peer = seeded(seed), kornia_augmentation()
    x = batch(rng)
    lam = brink(rng, x)
    mixer = peer.RandomCutMixV2(data_keys=["input", "class"], use_correct_lambda=True)
    mixer._param_generator.beta_sampler = SimpleNamespace(rsample=lambda shape: torch.from_numpy(lam))
    with exact_roots(), listening(generator, "_adapted_rsampling") as heard:
        out, triples = mixer(torch.from_numpy(x), torch.arange(len(x)))
    across, down = (_mixes_by_row(v, 1, len(x)) for v in heard.of("_adapted_rsampling")[1:])
    draw = {"partner": mixer._params["mix_pairs"].numpy().T, "lam": lam, "uniform": np.stack([down, across], -1)}
    return Case("kornia_cutmix", {"version": kornia_version()}, draw, x, out.numpy(), _kornia_target(triples, own=True))


BRINKS: list[Callable[[int], Case]] = [record_timm_brink, record_torchvision_brink, record_kornia_brink]
