"""Write the golden file of one peer version: what it drew and what it made of it, by the real package.

    python tests/golden/make_presets.py PEER VERSION [--source PATH]

writes tests/golden/presets/PEER-VERSION.npz and refuses to if another version of the peer is installed. The script
needs NumPy, PyTorch and the peer; not mixops. Environments, each a virtual one of its own (`python -m venv env`):

    timm 1.0.28          pip install torch torchvision timm==1.0.28
    timm 1.0.31          pip install torch torchvision timm==1.0.31
    torchvision 0.28.0   pip install torch==2.13.0 torchvision==0.28.0
    kornia 0.8.3         pip install torch kornia==0.8.3
    kornia 0.9.0         pip install torch kornia==0.9.0
    keras 3.15.1         pip install torch keras==3.15.1       and run with KERAS_BACKEND=torch
    fastai 2.8.12        pip install fastai==2.8.12
    mmpretrain 1.2.0     pip install numpy torch; pip download --no-deps mmpretrain==1.2.0; unzip the wheel; --source is
                         its folder mmpretrain/models/utils/batch_augments (the package itself wants a compiled mmcv,
                         which these two files do not use)
    clovaai 9dc8245      pip install numpy torch; --source is train.py of github.com/clovaai/CutMix-PyTorch at that
                         commit; its rand_bbox is run, its paste and label are three lines repeated here
    cutout 2017          pip install numpy torch; --source is util/cutout.py of github.com/uoguelph-mlrg/Cutout
                         (the committed file comes from a copy of that class in a project that uses it, not from there)
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from real_peers import RECORDERS, Case, batch, listening, one_hot, seeded  # noqa: E402

CASES = 18


# -- keras ------------------------------------------------------------------------------------------------------------


def _keras(seed: int, layer: Any, *heard: str) -> tuple[torch.Tensor, dict[str, Any], list[Any]]:
    from keras.src.backend.torch import random as numbers

    seeded(seed)
    x = torch.from_numpy(batch(np.random.default_rng(seed)))
    with listening(numbers, *heard) as calls:
        drawn = layer.get_random_transformation({"images": x})
    return x, drawn, [value.numpy() for _, value in calls.calls]


def record_keras_mixup(seed: int) -> Case:
    from keras.layers import MixUp

    layer = MixUp(alpha=0.6, data_format="channels_first", seed=seed)
    x, drawn, (partner, lam) = _keras(seed, layer, "shuffle", "beta")
    out, target = layer.transform_images(x, drawn), layer.transform_labels(one_hot(len(x)), drawn)
    draw = {"partner": partner, "lam": lam}
    return Case("keras_mixup", {"alpha": 0.6}, draw, x.numpy(), out.numpy(), target.numpy(), True)


def record_keras_cutmix(seed: int) -> Case:
    from keras.layers import CutMix

    layer = CutMix(factor=1.0, data_format="channels_first", seed=seed)
    x, drawn, (_, lam, across, down, partner) = _keras(seed, layer, "uniform", "beta", "shuffle")
    out, target = layer.transform_images(x, drawn), layer.transform_labels(one_hot(len(x)), drawn)
    draw = {"partner": partner, "lam": lam, "uniform": np.stack([down, across], -1)}
    return Case("keras_cutmix", {"factor": 1.0}, draw, x.numpy(), out.numpy(), target.numpy())


def record_keras_erasing(seed: int) -> Case:
    from keras.layers import RandomErasing

    options: dict[str, Any] = {"factor": (1.0, 1.0), "scale": [(0.02, 0.33), (0.3, 1.0)][seed % 2], "fill_value": 300.0}
    layer = RandomErasing(**options, data_format="channels_first", seed=seed)
    x, drawn, (share, across, down, *_) = _keras(seed, layer, "uniform")
    draw = {"area": share[:, ::-1], "uniform": np.stack([down, across], -1)}
    return Case("keras_erasing", options, draw, x.numpy(), layer.transform_images(x, drawn).numpy())


# -- fastai -----------------------------------------------------------------------------------------------------------


def _fastai(seed: int, callback: Any) -> tuple[np.ndarray, Any, list[Any]]:
    seeded(seed)
    x = batch(np.random.default_rng(seed))
    images, labels = torch.from_numpy(x.copy()), one_hot(len(x))
    callback.learn = types.SimpleNamespace(x=images, y=labels, xb=(images,), yb=(labels,))
    callback.stack_y = False
    with (
        listening(callback.distrib, "sample") as heard,
        listening(torch, "randperm", "randint", heard=heard),
    ):
        callback.before_batch()
    return x, callback.learn, [value.numpy() for _, value in heard.calls]


def record_fastai_mixup(seed: int) -> Case:
    from fastai.callback.mixup import MixUp

    x, learn, (lam, partner) = _fastai(seed, MixUp(0.4))
    draw = {"partner": partner, "lam": lam}
    return Case("fastai_mixup", {"alpha": 0.4}, draw, x, learn.xb[0].numpy(), learn.yb[0].numpy(), True)


def record_fastai_cutmix(seed: int) -> Case:
    from fastai.callback.mixup import CutMix

    x, learn, (lam, partner, across, down) = _fastai(seed, CutMix(1.0))
    draw = {"partner": partner, "lam": lam[0], "at": np.array([down[0], across[0]])}
    return Case("fastai_cutmix", {"alpha": 1.0}, draw, x, learn.xb[0].numpy(), learn.yb[0].numpy())


# -- read from source files -------------------------------------------------------------------------------------------


def _load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def mmpretrain_recorders(source: Path) -> list[Callable[[int], Case]]:
    registry = types.ModuleType("mmpretrain.registry")
    registry.BATCH_AUGMENTS = types.SimpleNamespace(register_module=lambda: lambda c: c)  # type: ignore[attr-defined]
    folder = types.ModuleType("augments")
    folder.__path__ = [str(source)]
    sys.modules |= {"mmpretrain": types.ModuleType("mmpretrain"), "mmpretrain.registry": registry, "augments": folder}
    mixup, cutmix = (_load(f"augments.{name}", source / f"{name}.py") for name in ("mixup", "cutmix"))

    def run(seed: int, mixer: Any) -> tuple[np.ndarray, Any, list[Any]]:
        rng = seeded(seed)
        x = batch(rng)
        with listening(np.random, "beta", "randint") as heard, listening(torch, "randperm", heard=heard):
            mixed = mixer(torch.from_numpy(x.copy()), one_hot(len(x)))
        return x, mixed, [np.asarray(value) for _, value in heard.calls]

    def record_mixup(seed: int) -> Case:
        x, (out, target), (lam, partner) = run(seed, mixup.Mixup(0.6))
        draw = {"partner": partner, "lam": lam}
        return Case("mmpretrain_mixup", {"alpha": 0.6}, draw, x, out.numpy(), target.numpy(), True)

    def record_cutmix(seed: int) -> Case:
        options: dict[str, Any] = {"alpha": 0.6, "correct_lam": seed % 3 > 0}
        x, (out, target), (lam, partner, *place) = run(seed, cutmix.CutMix(**options))
        draw = {"partner": partner, "lam": lam, "at": np.array(place)}
        return Case("mmpretrain_cutmix", options, draw, x, out.numpy(), target.numpy())

    def record_minmax(seed: int) -> Case:
        options: dict[str, Any] = {"alpha": 1.0, "cutmix_minmax": (0.1, 0.9)}
        x, (out, target), (_, partner, high, wide, *place) = run(seed, cutmix.CutMix(**options))
        draw = {"partner": partner, "size": np.array([high, wide]), "at": np.array(place)}
        return Case("mmpretrain_cutmix", options, draw, x, out.numpy(), target.numpy())

    return [record_mixup, record_cutmix, record_minmax]


def clovaai_recorders(source: Path) -> list[Callable[[int], Case]]:
    tree = ast.parse(source.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "rand_bbox"]
    scope: dict[str, Any] = {"np": np}
    exec(compile(tree, str(source), "exec"), scope)
    setattr(np, "int", int)  # noqa: B010  # the name that the file of 2019 uses; NumPy 1.24 dropped it

    def record(seed: int) -> Case:
        rng = seeded(seed)
        x = batch(rng)
        lam, partner = rng.beta(0.8, 0.8), rng.permutation(len(x))
        with listening(np.random, "randint") as heard:
            top, left, bottom, right = scope["rand_bbox"](x.shape, lam)
        out = x.copy()
        out[:, :, top:bottom, left:right] = x[partner, :, top:bottom, left:right]
        own = 1 - (bottom - top) * (right - left) / (x.shape[2] * x.shape[3])
        target = own * np.eye(len(x)) + (1 - own) * np.eye(len(x))[partner]
        draw = {"partner": partner, "lam": np.array(lam), "at": np.array(heard.of("randint"))}
        return Case("clovaai_cutmix", {"beta": 0.8}, draw, x, out, target)

    return [record]


def cutout_recorders(source: Path) -> list[Callable[[int], Case]]:
    peer = _load("original_cutout", source)

    def record(seed: int) -> Case:
        rng = seeded(seed)
        x = batch(rng)
        options: dict[str, Any] = {"n_holes": int(rng.integers(1, 4)), "length": int(rng.integers(2, 30))}
        hole = peer.Cutout(**options)
        with listening(np.random, "randint") as heard:
            out = np.stack([hole(torch.from_numpy(row)).numpy() for row in x])
        at = np.array(heard.of("randint")).reshape(len(x), options["n_holes"], 2)
        return Case("cutout", options, {"at": at}, x, out)

    return [record]


# -- the file ---------------------------------------------------------------------------------------------------------


def recorders_of(peer: str, version: str, source: Path | None) -> list[Callable[[int], Case]]:
    from_source = {"mmpretrain": mmpretrain_recorders, "clovaai": clovaai_recorders, "cutout": cutout_recorders}
    if peer in from_source:
        if source is None:
            raise SystemExit(f"{peer} is read from source: say where with --source")
        return from_source[peer](source)
    from importlib.metadata import version as installed

    if installed(peer) != version:
        raise SystemExit(f"{peer} {installed(peer)} is installed, not {version}")
    if peer == "keras":
        return [record_keras_mixup, record_keras_cutmix, record_keras_erasing]
    if peer == "fastai":
        return [record_fastai_mixup, record_fastai_cutmix]
    return RECORDERS[peer]


def _small(images: np.ndarray) -> np.ndarray:
    """As int8 where that keeps every value, for the size of the file."""
    small = np.clip(images, -128, 127).astype(np.int8)
    return small if (small == images).all() else images


def write(path: Path, cases: list[Case], version: str) -> None:
    heads: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for i, case in enumerate(cases):
        if case.preset == "timm":
            case.options["version"] = version
        draw = {name: np.asarray(value) for name, value in case.draw.items()}
        heads.append(
            {
                "preset": case.preset,
                "options": case.options,
                "draw": list(draw),
                "target": case.target is not None,
                "blends": case.blends,
            }
        )
        arrays |= {f"{i}.draw.{name}": value for name, value in draw.items()}
        arrays |= {f"{i}.x": _small(case.x), f"{i}.out": _small(case.out.astype(np.float32))}
        if case.target is not None:
            arrays[f"{i}.target"] = case.target.astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, cases=np.array(json.dumps(heads)), **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the golden file of one peer version.")
    parser.add_argument(
        "peer", choices=["timm", "torchvision", "kornia", "keras", "fastai", "mmpretrain", "clovaai", "cutout"]
    )
    parser.add_argument("version")
    parser.add_argument("--source", type=Path, help="source file or folder of a peer that is not installed")
    args = parser.parse_args()
    recorders = recorders_of(args.peer, args.version, args.source)
    cases = [record(seed) for record in recorders for seed in range(CASES // len(recorders))]
    path = HERE / "presets" / f"{args.peer}-{args.version}.npz"
    write(path, cases, args.version)
    print(f"{path.name}: {len(cases)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
