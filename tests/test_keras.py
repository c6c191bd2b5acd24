"""Keras 3 on each of its backends, in a process for each, and what is said where it is missing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from frameworks import ROOT, run_tests


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_the_tests_and_examples_of_keras_pass(backend: str) -> None:
    run_tests("on_keras.py", backend)


@pytest.mark.parametrize("module", ["keras_", "keras_layer"])
def test_where_keras_is_missing_the_extra_is_named(module: str) -> None:
    code = f"import sys; sys.modules['keras'] = None; import mixops.pipelines.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert f"mixops.pipelines.{module} needs Keras 3: pip install 'mixops[keras]'" in done.stderr


def test_the_layer_mixes_on_the_numpy_backend_too() -> None:
    code = (
        "import mixops as mx, numpy as np; from mixops.pipelines.keras_layer import MixLayer;"
        "layer = MixLayer(mx.Mixup(), {'x': mx.Field('b d'), 'y': mx.Labels(4)}, seed=7);"
        "mixed = [layer({'x': np.eye(4, dtype='float32'), 'y': np.arange(4)}, training=True) for _ in range(2)];"
        "assert all(np.allclose(one['x'], one['y']) for one in mixed); assert int(layer.step.value) == 2"
    )
    settings = {**os.environ, "KERAS_BACKEND": "numpy"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=settings, timeout=120)
