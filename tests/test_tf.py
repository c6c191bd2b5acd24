"""TensorFlow: its tests and doctests, in a process of their own, and what is said where it is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from frameworks import ROOT, run_tests


def test_the_tests_and_examples_of_tensorflow_pass() -> None:
    run_tests("on_tensorflow.py", "tensorflow")


@pytest.mark.parametrize("module", ["tf_", "tf_ops", "tf_plan"])
def test_where_tensorflow_is_missing_the_extra_is_named(module: str) -> None:
    code = f"import sys; sys.modules['tensorflow'] = None; import mixops.pipelines.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert f"mixops.pipelines.{module} needs TensorFlow: pip install 'mixops[tensorflow]'" in done.stderr
