"""The kernels' cache on disk: it notices a change of any of their files, and they do without it where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import types
from numba.core import caching

from mixops import disk_cache

MIX = """
import numpy as np
import mixops as mx
from mixops.backends import kernels, tail
x = np.ones((2, 4), np.float32)
plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.5)
mx.mix(x, plan, "b d", to=mx.Output("b d", mean=0.5))
stats, (finisher,) = kernels.mix_units.stats, tail.finishers()
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), finisher.cache_hits)
"""


def hits_and_misses(package: Path, cache: Path) -> list[int]:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", MIX]  # it finds the package in its working directory
    done = subprocess.run(command, env=environment, cwd=package, capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


def test_a_change_of_any_kernel_file_is_noticed(tmp_path: Path) -> None:
    source = Path(disk_cache.__file__).parent
    copy = shutil.copytree(source, tmp_path / "mixops", ignore=shutil.ignore_patterns("__pycache__"))
    cache = tmp_path / "cache"
    assert hits_and_misses(tmp_path, cache) == [0, 1, 0]
    assert hits_and_misses(tmp_path, cache) == [1, 0, 1]
    changed = copy / "backends" / "vector.py"
    changed.write_text(changed.read_text() + "\n# changed\n")
    assert hits_and_misses(tmp_path, cache) == [0, 1, 0]


def test_a_kernel_compiles_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])

    def twice(x: np.ndarray) -> np.ndarray:
        return x * 2

    assert disk_cache.kept_kernel(twice)(np.ones(2)).tolist() == [2, 2]
    assert disk_cache.kept_callback(types.float64(types.float64), lambda x: x * 2).ctypes(1.5) == 3
