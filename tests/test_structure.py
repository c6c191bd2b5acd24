"""The rules of the folders, read from the imports: what may know what, and what loads when."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import mixops.pipelines
import pytest

import mixops as mx

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "mixops").rglob("*.py"))
PIPELINES = sorted((ROOT / "pipelines").rglob("*.py"))
EVERY = CORE + PIPELINES
BACKENDS = [path for path in CORE if path.is_relative_to(ROOT / "mixops" / "backends")]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def modules(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name or "") of every import in a file, lazy ones included, relative ones made absolute."""
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    if package[0] == "pipelines":
        package.insert(0, "mixops")
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((module, alias.name) for alias in node.names)


def reaches(path: Path, package: str) -> list[str]:
    names = (f"{m}.{n}" if n else m for m, n in modules(path))
    return [n for n in names if n == package or n.startswith(package + ".")]


def test_the_rules_read_real_files() -> None:
    assert len(CORE) > 20
    assert ROOT / "mixops" / "backends" / "cuda" / "engine.py" in BACKENDS
    assert ("mixops.errors", "MixError") in list(modules(ROOT / "mixops" / "archive.py"))
    assert reaches(ROOT / "mixops" / "execute.py", "mixops.backends")


@pytest.mark.parametrize("path", [p for p in CORE if "ops" in p.parent.name or "presets" in p.parent.name], ids=name)
def test_operators_know_no_backend(path: Path) -> None:
    if path.parent.name in ("ops", "presets"):
        assert reaches(path, "mixops.backends") == []
        assert reaches(path, "mixops.execute") == []


@pytest.mark.parametrize("path", BACKENDS, ids=name)
def test_backends_know_no_operator(path: Path) -> None:
    assert reaches(path, "mixops.ops") == []
    assert reaches(path, "mixops.presets") == []


@pytest.mark.parametrize("path", [p for p in EVERY if p not in BACKENDS], ids=name)
def test_only_execute_chooses_a_backend(path: Path) -> None:
    chosen = [n for n in reaches(path, "mixops.backends") if n.rsplit(".", 1)[1] not in ("is_tensor",)]
    assert bool(chosen) == (path == ROOT / "mixops" / "execute.py"), chosen


@pytest.mark.parametrize("path", CORE, ids=name)
def test_the_core_knows_nothing_of_pipelines(path: Path) -> None:
    assert reaches(path, "mixops.pipelines") == []
    assert reaches(path, "pipelines") == []


@pytest.mark.parametrize("path", PIPELINES, ids=name)
def test_pipelines_use_only_public_names(path: Path) -> None:
    public = {*mx.__all__, "mixed_loss", "SoftCrossEntropy", "streams"}
    for module, imported in modules(path):
        if module == "mixops":
            assert not imported or imported in public or imported == "pipelines", f"{imported} is not public"
        elif module.startswith("mixops."):
            assert module.startswith("mixops.pipelines") or module == "mixops.streams", f"{module} is not public"
    used = {
        node.attr
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("mx", "mixops")
    }
    assert used <= public | {"pipelines"}


@pytest.mark.parametrize("path", EVERY, ids=name)
def test_no_module_is_named_like_what_it_holds(path: Path) -> None:
    held = {n.name for n in tree(path).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    assert path.stem not in held


@pytest.mark.parametrize("path", EVERY, ids=name)
def test_no_number_comes_from_a_global_generator_and_no_kernel_from_fast_maths(path: Path) -> None:
    allowed = {"Generator", "Philox", "default_rng", "BitGenerator", "SeedSequence"}
    if path in PIPELINES:
        allowed |= {
            "get_state",
            "set_state",
            "seed",
        }  # a stage of somebody else's may draw there: it is keyed, then put back
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "random":
            owner = node.value.value
            assert not (isinstance(owner, ast.Name) and owner.id in ("np", "numpy") and node.attr not in allowed), (
                node.attr
            )
        if isinstance(node, ast.keyword):
            assert node.arg not in ("fastmath", "parallel"), f"{node.arg}= in line {node.value.lineno}"
    assert path in PIPELINES or not [n for m, n in modules(path) if m == "random" or (m, n) == ("numpy", "random")]
    if path in CORE:
        assert "default_rng()" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", EVERY, ids=name)
def test_nothing_unpickles_or_evaluates(path: Path) -> None:
    called = {n.func.id for n in ast.walk(tree(path)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & {"eval", "exec", "compile", "__import__"}
    assert not {m for m, _ in modules(path)} & {"pickle", "dill", "cloudpickle", "marshal", "shelve"}
    wanted = [n for n in ast.walk(tree(path)) if isinstance(n, ast.keyword) and n.arg == "allow_pickle"]
    assert all(isinstance(k.value, ast.Constant) and k.value.value is False for k in wanted)


@pytest.mark.parametrize("path", [*EVERY, *sorted((ROOT / "tests").glob("*.py"))], ids=name)
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 500


HEAVY = "torch numba llvmlite jax scipy PIL matplotlib sklearn skimage albumentations torchvision ml_dtypes click tqdm"


def loaded(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter has loaded after some code."""
    tail = f"; import sys; print(*[m for m in {HEAVY.split()!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_importing_mixops_loads_numpy_only() -> None:
    assert loaded("import mixops") == set()
    assert loaded("import mixops as mx; dir(mx); from mixops import *; Mixup()") == set()


def test_drawing_and_looking_load_numpy_only() -> None:
    drawn = "mx.OneOf([mx.Mixup(), mx.CutMix()]).draw(np.random.default_rng(0), mx.Spec(4, (8, 8)))"
    assert loaded(f"import numpy as np, mixops as mx; p = {drawn}; print(p, file=open('/dev/null', 'w'))") == set()


def test_mixing_numpy_arrays_loads_no_torch() -> None:
    mixed = "mx.mix(np.zeros((4, 3)), mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4)), 'b d')"
    assert loaded(f"import numpy as np, mixops as mx; {mixed}") <= {"numba", "llvmlite", "scipy", "ml_dtypes"}


def test_names_that_need_torch_are_imported_from_the_pipelines_when_they_are_asked_for() -> None:
    assert "torch" not in loaded("import mixops.pipelines; from mixops.pipelines import *; dir(mixops.pipelines)")
    for name, module in mixops.pipelines._LAZY.items():
        found = getattr(mixops.pipelines, name)
        assert found is getattr(importlib.import_module(f"mixops.pipelines.{module}"), name)
        assert found.__module__ == f"mixops.pipelines.{module}"
        assert name in dir(mixops.pipelines)
    assert {"MixText", "augment_corpus", "embedding_saliency", "mix_hidden", "ssmix_loss"} <= set(
        mixops.pipelines._LAZY
    )
