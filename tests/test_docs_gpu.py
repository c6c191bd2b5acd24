"""docs/gpu.md says what is so: its table holds the messages that come, its blocks name what there is.

Blocks tagged ``python`` run everywhere (test_readme.py); those tagged ``py`` need a GPU and run there (tests/gpu). Here
they are compiled, and every name and argument of mixops in them is looked up.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import frames
import numpy as np
import pytest
import torch
from host_chip import on_the_host
from mixops.pipelines import MixLoader

import mixops as mx
from mixops.backends.cuda import available, cache
from mixops.backends.cuda.form import Form
from mixops.backends.cuda.nvidia import Nvidia

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "gpu.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```py\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
ROWS = dict(re.findall(r"^\| ([^`|]+) \| `(.*)` \|$", PAGE, re.MULTILINE))

PLAN = mx.Mixup(pairing="roll").draw(np.random.default_rng(0), mx.Spec(3))
X = torch.zeros(3, 4)
ELSEWHERE = torch.empty(3, 4, device="meta")


def lacking(
    capability: tuple[int, int] = (9, 0), knows: int = 13000, missing: str = "", fails: str = ""
) -> Callable[[], None]:
    """What is said where a module is missing or fails, or the driver knows only this version of CUDA."""

    def fail() -> Any:
        raise RuntimeError("no such library")

    driver = SimpleNamespace(cuDriverGetVersion=fail if fails == "driver" else lambda: (0, knows))
    nvrtc = SimpleNamespace(
        nvrtcVersion=fail if fails == "nvrtc" else lambda: (0, 13, 0),
        nvrtcGetSupportedArchs=lambda: (0, [75, 80, 90, 121]),
    )

    def load(name: str) -> Any:
        if missing:
            raise ImportError(missing)
        return driver if name.endswith("driver") else nvrtc

    def say() -> None:
        raise mx.MixError(available.missing(capability, "13.0", load) or "nothing is missing")

    return say


def captured() -> None:
    chip = Nvidia(devices=SimpleNamespace(capturing=lambda index: True))
    chip.kernel(Form("float32", "float32", 4, "SAME", *[0] * 13), SimpleNamespace(index=0))


def plan_captured() -> None:
    with on_the_host() as chip:
        chip.capturing = lambda device: True  # type: ignore[method-assign]
        mx.mix(X, PLAN, "b d", backend="cuda")


def plan_elsewhere() -> None:
    with on_the_host():
        mx.mix(X, mx.DevicePlan(PLAN, "meta"), "b d")


def in_place() -> None:
    with on_the_host():
        mx.mix(X, PLAN, "b d", out=X, backend="cuda")


def lent(
    name: str,
    device: int,
    pointer: int | None = 0,
    *,
    in_place: bool = False,
    base: type[frames.Frame] = frames.Standard,
) -> Callable[[], None]:
    """What is said of an array of the class of this name, "library.Class", on a device of this kind."""
    module, _, kind = name.rpartition(".")
    x = type(kind, (base,), {"__module__": module})(X, device)

    def none(device: Any) -> Any:
        raise AssertionError("Torch not compiled with CUDA enabled")

    def say() -> None:
        with pytest.MonkeyPatch.context() as patch:
            frames.on_a_gpu(patch)
            if pointer is None:
                patch.setattr(torch.cuda, "current_stream", none)
            mx.mix(x, PLAN, "b d", out=x if in_place else None)

    return say


def without_gpu(make: Callable[[], Any]) -> Callable[[], None]:
    def say() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: False)
            make()

    return say


#: How to come by each row of the table.
CAUSES: dict[str, Callable[[], Any]] = {
    "no GPU": lambda: mx.mix(X, PLAN, "b d", backend="cuda"),
    "no GPU, MixLoader": without_gpu(lambda: MixLoader([], mx.Mixup(), {0: mx.Field("b d")}, 7, device="cuda")),
    "no GPU, DevicePlan": without_gpu(lambda: mx.DevicePlan(PLAN, "cuda")),
    "no cuda.bindings": lacking(missing="cuda.bindings"),
    "no NVRTC": lacking(fails="nvrtc"),
    "no driver": lacking(fails="driver"),
    "too old a driver": lacking(knows=12000),
    "a GPU that NVRTC does not know": lacking(capability=(6, 1)),
    "a kind of mix that is new while a graph is captured": captured,
    "an array on another device than its DevicePlan": plan_elsewhere,
    "a Plan while a graph is captured": plan_captured,
    "rows that do not exchange two by two, in place": in_place,
    "out on another device": lambda: mx.mix(ELSEWHERE, PLAN, "b d", out=X),
    "samples on several devices": lambda: mx.mix([X[0], ELSEWHERE[0], X[1]], PLAN, "b d"),
    "out with several elements in one place": lambda: mx.mix(X, PLAN, "b d", out=torch.zeros(1, 4).expand(3, 4)),
    "a sparse tensor": lambda: mx.mix(X.to_sparse(), PLAN, "b d"),
    "out= with JAX": lent("jaxlib._jax.ArrayImpl", 2, in_place=True),
    "an array on the CPU whose library takes none": lent("tensorflow.EagerTensor", 1, base=frames.Frame),
    "a torch without CUDA, an array with it": lent("cupy.ndarray", 2, None),
    "managed memory": lent("cupy.ndarray", 13),
}


def test_every_row_of_the_table_has_its_cause() -> None:
    assert list(ROWS) == list(CAUSES)


@pytest.mark.parametrize("wrong", CAUSES)
def test_the_table_holds_the_message_that_comes(wrong: str) -> None:
    with pytest.raises(mx.MixError) as caught:
        CAUSES[wrong]()
    pattern = ".*".join(map(re.escape, ROWS[wrong].split("…")))
    assert re.fullmatch(pattern, str(caught.value)), str(caught.value)


def test_blocks_that_do_not_run_everywhere_stand_on_few_pages() -> None:
    assert len(BLOCKS) == 4
    known = ["drop-ins.md", "keras.md"]  # Composer, which the page says has not been run; run by tests/on_keras.py
    others = [page for page in DOCS.parent.glob("**/*.md") if page.name != "gpu.md" and ".venv" not in page.parts]
    assert sorted(page.name for page in others if "```py\n" in page.read_text(encoding="utf-8")) == known


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_that_needs_a_gpu_names_what_there_is(code: str) -> None:
    calls = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Call)]
    of_mixops = [c for c in calls if re.fullmatch(r"mx(\.\w+)+", ast.unparse(c.func))]
    assert of_mixops
    for call in of_mixops:
        found: Any = mx
        for name in ast.unparse(call.func).split(".")[1:]:
            found = getattr(found, name)
        inspect.signature(found).bind(*[None] * len(call.args), **{k.arg: None for k in call.keywords if k.arg})


def test_the_block_on_compiling_runs_on_the_host_chip() -> None:
    (code,) = [block for block in BLOCKS if "torch.compile" in block]
    on_the_cpu = code.replace('"cuda"', '"cpu"').replace("@torch.compile(fullgraph=True)\n", "")
    with on_the_host() as chip:
        exec(compile(on_the_cpu, "<block>", "exec", dont_inherit=True), {"__name__": "__main__"})
    assert len(chip.launches) == 3


def test_the_folder_of_the_kernels_is_the_one_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "`$MIXOPS_CACHE_DIR`" in PAGE
    assert "`~/.cache/mixops`" in PAGE
    monkeypatch.setenv("MIXOPS_CACHE_DIR", "somewhere")
    assert cache.folder() == Path("somewhere")
    monkeypatch.delenv("MIXOPS_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert cache.folder() == Path.home() / ".cache" / "mixops"
