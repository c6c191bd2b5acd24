"""Replay saved plans in many frameworks, each in a process of its own, and bring the mixed arrays back as files.

``python -m mixops.pipelines.replaying GROUP FOLDER`` is such a process. Keras takes its backend from the environment,
and TensorFlow fills the process it is in: so no two share one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import mixops as mx
from mixops import MixValueError

AnyPlan = mx.Plan | mx.PlanSequence
#: (x, labels, plan, layout, number of classes) -> the mixed array and its soft targets, of the framework.
Way = Callable[[Any, Any, AnyPlan, str, int], tuple[Any, Any]]


@dataclass(frozen=True)
class Framework:
    """One way to mix.

    Args:
        name: what it is called.
        group: the process it runs in; "keras-jax" is Keras on JAX.
        modules: what has to be installed.
        extra: of mixops, which installs them.
    """

    name: str
    group: str
    modules: tuple[str, ...] = ()
    extra: str = ""

    @property
    def missing(self) -> str:
        """What to install, or nothing where all is there."""
        absent = [module for module in self.modules if not _is_there(module)]
        return f"{self.name} needs {' and '.join(absent)}: pip install 'mixops[{self.extra}]'" if absent else ""


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # what a program has put among the modules by hand has no spec
        return False


FRAMEWORKS = (
    Framework("NumPy", "host"),
    Framework("Numba", "host"),
    Framework("torch", "torch", ("torch",), "torch"),
    Framework("torch.compile", "torch", ("torch",), "torch"),
    Framework("JAX", "jax", ("jax",), "jax"),
    Framework("jax.jit", "jax", ("jax",), "jax"),
    Framework("TensorFlow", "tensorflow", ("tensorflow",), "tensorflow"),
    Framework("tf.function", "tensorflow", ("tensorflow",), "tensorflow"),
    Framework("tf.data", "tensorflow", ("tensorflow",), "tensorflow"),
    Framework("Keras on torch", "keras-torch", ("keras", "torch"), "keras,torch"),
    Framework("Keras on JAX", "keras-jax", ("keras", "jax"), "keras,jax"),
    Framework("Keras on TF", "keras-tensorflow", ("keras", "tensorflow"), "keras,tensorflow"),
)


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch and the file of the plan that mixes it.

    Args:
        plan: file, as Plan.save writes it.
        layout: of every array.
        arrays: the arrays to mix, by name.
        labels: (N,) class ids.
        classes: how many there are.
    """

    plan: Path
    layout: str
    arrays: Mapping[str, np.ndarray]
    labels: np.ndarray
    classes: int


#: What a framework made of a batch: name of the array -> the mixed array and its soft targets.
Made = dict[str, tuple[np.ndarray, np.ndarray]]


def replay(
    batches: Mapping[str, Batch], frameworks: Sequence[Framework], folder: Path, *, jobs: int = 2, limit: float = 600
) -> dict[str, dict[str, Made] | str]:
    """Mix every batch by its saved plan in every framework.

    Args:
        batches: by name.
        frameworks: of FRAMEWORKS, all of them installed.
        folder: an empty one for the files that processes exchange.
        jobs: processes at a time, 1 or more.
        limit: seconds that a process may take.

    Returns:
        Framework -> what it made of each batch; or, where its process failed, the last line that it said.

    Raises:
        OSError: if the folder cannot be written.
    """
    about = {}
    for i, (name, batch) in enumerate(batches.items()):
        entries: dict[str, Any] = {f"x {n}": array for n, array in batch.arrays.items()}
        np.savez(folder / f"{i}.npz", labels=batch.labels, **entries)
        plan = str(batch.plan.resolve())
        about[name] = {"file": f"{i}.npz", "plan": plan, "layout": batch.layout, "classes": batch.classes}
    groups: dict[str, list[str]] = {}
    for framework in frameworks:
        groups.setdefault(framework.group, []).append(framework.name)
    (folder / "batches.json").write_text(json.dumps({"batches": about, "groups": groups}), encoding="utf-8")
    with ThreadPoolExecutor(jobs) as pool:
        said = dict(zip(groups, pool.map(lambda group: _process(group, folder, limit), groups), strict=True))
    return {f.name: said[f.group] or _read(folder / f"{_stem(f.name)}.npz", batches) for f in frameworks}


def _process(group: str, folder: Path, limit: float) -> str:
    """Run one, and return why it failed, or nothing."""
    settings = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "KERAS_BACKEND": group.removeprefix("keras-"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, "-m", __spec__.name, group, str(folder)]
    try:
        done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"took more than {limit:g} s"
    lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
    return lines[-1] if done.returncode else ""


def _stem(framework: str) -> str:
    return f"made by {framework}"


def _read(file: Path, batches: Mapping[str, Batch]) -> dict[str, Made]:
    with np.load(file, allow_pickle=False) as entries:
        return {
            name: {key: (entries[f"{i} {key}"], entries[f"{i} {key} targets"]) for key in batch.arrays}
            for i, (name, batch) in enumerate(batches.items())
        }


# -- in the process ----------------------------------------------------------------------------------------------------


def run_group(group: str, folder: Path) -> None:
    """Mix what ``replay`` wrote in the frameworks of this group, and write what they make."""
    asked = json.loads((folder / "batches.json").read_text(encoding="utf-8"))
    for name, way in _ways(group).items():
        if name not in asked["groups"][group]:
            continue
        made: dict[str, Any] = {}
        for i, about in enumerate(asked["batches"].values()):
            plan = mx.Plan.load(about["plan"])
            with np.load(folder / about["file"], allow_pickle=False) as entries:
                labels = entries["labels"]
                arrays = {key[2:]: entries[key] for key in entries if key.startswith("x ")}
            for key, x in arrays.items():
                mixed, targets = way(x, labels, plan, about["layout"], about["classes"])
                made |= {f"{i} {key}": np.asarray(mixed), f"{i} {key} targets": np.asarray(targets)}
        np.savez(folder / f"{_stem(name)}.npz", **made)


def _ways(group: str) -> dict[str, Way]:
    """The frameworks of a group; what they need is imported here."""
    if group.startswith("keras-"):
        return {next(f.name for f in FRAMEWORKS if f.group == group): _keras_way()}
    return {"host": _host_ways, "torch": _torch_ways, "jax": _jax_ways, "tensorflow": _tensorflow_ways}[group]()


def _host_ways() -> dict[str, Way]:
    def way(backend: str) -> Way:
        return lambda x, labels, plan, layout, classes: (
            mx.mix(x, plan, layout, backend=backend),
            mx.soft_targets(labels, plan, classes),
        )

    return {"NumPy": way("reference"), "Numba": way("cpu")}


def _torch_ways() -> dict[str, Way]:
    import torch

    torch.set_num_threads(1)

    def eager(x: Any, labels: Any, plan: AnyPlan, layout: str, classes: int) -> tuple[Any, Any]:
        mixed = mx.mix(torch.from_numpy(x), plan, layout, backend="torch")
        return mixed, mx.soft_targets(torch.from_numpy(labels), plan, classes)

    def compiled(x: Any, labels: Any, plan: AnyPlan, layout: str, classes: int) -> tuple[Any, Any]:
        torch.compiler.reset()
        mix = torch.compile(lambda x: mx.mix(x, plan, layout))
        return mix(torch.from_numpy(x)), mx.soft_targets(torch.from_numpy(labels), plan, classes)

    return {"torch": eager, "torch.compile": compiled}


def _jax_ways() -> dict[str, Way]:
    import jax
    import jax.numpy as jnp

    def mix(x: Any, labels: Any, plan: AnyPlan, layout: str, classes: int) -> tuple[Any, Any]:
        mixed = mx.mix(jnp.asarray(x), plan, layout, backend="jax")
        return mixed, mx.soft_targets(jnp.asarray(labels), plan, classes)

    return {"JAX": mix, "jax.jit": jax.jit(mix, static_argnums=(3, 4))}


class _Replayed(mx.Operator):
    """An operator that draws what it was given: the plan of a file, for what takes operators only."""

    plan: AnyPlan

    @classmethod
    def of(cls, plan: AnyPlan) -> _Replayed:
        made = cls()
        object.__setattr__(made, "plan", plan)
        return made

    def _draw(self, rng: np.random.Generator, spec: mx.Spec, **evidence: Any) -> AnyPlan:
        return self.plan


def _tensorflow_ways() -> dict[str, Way]:
    import tensorflow as tf  # type: ignore[import-untyped]

    from .tf_ import mixed_dataset
    from .tf_ops import mixed, soft_targets

    def eager(x: Any, labels: Any, plan: AnyPlan, layout: str, classes: int) -> tuple[Any, Any]:
        return mixed(x, plan, layout), soft_targets(labels, plan, classes)

    def compiled(x: Any, labels: Any, plan: AnyPlan, layout: str, classes: int) -> tuple[Any, Any]:
        mix = tf.function(lambda x, labels: eager(x, labels, plan, layout, classes), autograph=False)
        return mix(tf.constant(x), tf.constant(labels))

    def in_data(x: Any, labels: Any, plan: AnyPlan, layout: str, classes: int) -> tuple[Any, Any]:
        fields = {0: mx.Field(layout), 1: mx.Labels(classes)}
        data = tf.data.Dataset.from_tensors((x, labels)).apply(mixed_dataset(_Replayed.of(plan), fields, 0))
        return next(iter(data))

    return {"TensorFlow": eager, "tf.function": compiled, "tf.data": in_data}


def _keras_way() -> Way:
    import keras  # type: ignore[import-untyped]

    from .keras_layer import MixLayer

    def mix(x: Any, labels: Any, plan: AnyPlan, layout: str, classes: int) -> tuple[Any, Any]:
        layer = MixLayer(_Replayed.of(plan), {"x": mx.Field(layout), "y": mx.Labels(classes)}, 0)
        made = layer({"x": x, "y": labels.astype(np.int32)}, training=True)
        return keras.ops.convert_to_numpy(made["x"]), keras.ops.convert_to_numpy(made["y"])

    return mix


def find_frameworks(words: Sequence[str] = ()) -> list[Framework]:
    """The frameworks of these names, all for none; a word names those whose name it begins, in any case.

    Raises:
        MixError: if there is none of a name.
    """
    found: list[Framework] = []
    for word in words:
        of_word = [f for f in FRAMEWORKS if f.name.lower().startswith(word.lower())]
        if not of_word:
            known = ", ".join(f.name for f in FRAMEWORKS)
            raise MixValueError(f"framework {word!r}: expected one of {known}")
        found += of_word
    return [f for f in FRAMEWORKS if f in found or not words]


if __name__ == "__main__":
    try:
        run_group(sys.argv[1], Path(sys.argv[2]))
    except Exception as error:  # whatever a framework raises is told in one line, the last
        sys.exit("\n" + f"{type(error).__name__}: {' '.join(str(error).split())}"[:400])
