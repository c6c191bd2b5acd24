"""Keras 3 on each of its backends, in a process for each, and what is said where it is missing."""

from __future__ import annotations

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
