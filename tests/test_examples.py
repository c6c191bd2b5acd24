"""Every script of pipelines/examples runs to its end, each in a process of its own, and says what it did.

The whole of a script is what a user would type: nothing of it is made smaller here. Its packages are those of the
extras and of constraints.txt.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
EXAMPLES = sorted((TESTS.parent / "pipelines" / "examples").glob("*.py"))
#: What stands before the script: a CPU build of torch lets nobody import torchvision without it, see ``real_peers``.
BEFORE = f"""
import runpy, sys
sys.path.insert(0, {str(TESTS)!r})
from real_peers import torchvision_schemas
torchvision_schemas()
sys.path[0] = {str(TESTS.parent / "pipelines" / "examples")!r}
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_there_are_examples() -> None:
    assert {"timm_mixup", "torchvision_collate", "trainer_vit", "trainer_text"} <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_as_it_stands(path: Path, tmp_path: Path) -> None:
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    before = [] if "torch" not in path.read_text(encoding="utf-8") else ["-c", BEFORE]
    done = subprocess.run(
        [sys.executable, *before, str(path)], cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip(), "an example prints what it did"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_it_is_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 45
    words = text.split('"""')[1]
    assert "python" in words
    assert path.stem in words
