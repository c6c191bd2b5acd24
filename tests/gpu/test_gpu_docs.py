"""On a GPU: every block of docs/gpu.md runs as it stands, those of libraries that are not installed aside."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from frames import gpu_libraries

pytestmark = pytest.mark.gpu

PAGE = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```py(?:thon)?\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
#: Blocks that need a library beside torch, by its name.
OTHERS = {
    name: code for code in BLOCKS for name in ("cupy", "jax") if re.search(rf"^import {name}\b", code, re.MULTILINE)
}


def run(code: str) -> None:
    exec(compile(code, "<block>", "exec", dont_inherit=True), {"__name__": "__main__"})


def test_the_blocks_are_found() -> None:
    assert len(BLOCKS) == 8
    assert set(OTHERS) == {"cupy", "jax"}


@pytest.mark.parametrize("number", range(6))
def test_a_block_runs_on_the_gpu(number: int) -> None:
    run([code for code in BLOCKS if code not in OTHERS.values()][number])


def test_blocks_of_libraries_that_are_there_run() -> None:
    for name in gpu_libraries():
        run(OTHERS[name])
