"""Tests that run in a process of their own, so that the frameworks they load do not fill that of all the others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Keras' and TensorFlow's own arrays say this to NumPy 2; what is ours stays an error.
THEIRS = "ignore:__array__ implementation:DeprecationWarning"


def run_tests(name: str, backend: str) -> None:
    """Run the tests of a file of this folder with this backend of Keras; every one of them has to pass."""
    settings = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_NUM_INTRAOP_THREADS": "1",
    }
    options = ["-o", "addopts=--import-mode=importlib", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", THEIRS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(ROOT / "tests" / name)],
        cwd=ROOT,
        env=settings,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def shown(word: str) -> list[str]:
    """The blocks of docs/keras.md that hold a word."""
    page = (ROOT / "docs" / "keras.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```py\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [block for block in blocks if word in block]


def run_shown(block: str) -> None:
    """Run a block of a page, as a script of its own."""
    exec(compile(block, "<block>", "exec", dont_inherit=True), {"__name__": "__main__"})
