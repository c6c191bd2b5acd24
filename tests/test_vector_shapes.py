"""Every engine on shapes that vectors fit: boxes that cut them anywhere, lines of any length, layouts that change.

The table of test_conformance.py has odd extents, so that wide loads, stores and their ends meet few of its arrays.
"""

from __future__ import annotations

from typing import Any

import naive
import numpy as np
import pytest
from conftest import FLOATS, Engine, data
from kernel_cases import OPACITIES, made_plan

import mixops as mx

FILLS = [mx.Fill(7.0), mx.Fill(9.0, "pixel", 40.0, 11), mx.Fill((3.0, 200.0, 90.0), "channel", 60.0, 2**63 + 5)]
SHAPES = {
    "b c h w": [(3, 3, 8, 16), (3, 3, 16, 3), (2, 3, 1, 64), (2, 3, 5, 16)],
    "b h w c": [(3, 8, 16, 3), (2, 16, 4, 3), (3, 4, 8, 3)],
    "b t d": [(3, 8, 16), (4, 3, 32)],
    "b t": [(3, 128), (2, 48)],
    "b c t h w": [(2, 3, 4, 4, 8)],
}


@pytest.mark.parametrize("dtype", [*FLOATS, "uint8", "int64", "bool"])
@pytest.mark.parametrize(("layout", "shape"), [(a, s) for a, shapes in SHAPES.items() for s in shapes])
def test_boxes_cut_vectors_anywhere(writer: Engine, layout: str, shape: tuple[int, ...], dtype: str) -> None:
    extent = dict(zip(layout.split(), shape, strict=True))
    x, blends = data(dtype, shape), dtype in (*FLOATS, "uint8")
    axes = tuple(extent[a] for a in ("t", "h", "w") if a in extent)
    for seed, fills in ((0, ()), (1, FILLS if blends and "c" in extent else FILLS[:1] if dtype != "bool" else ())):
        plan = made_plan(np.random.default_rng(seed), extent["b"], axes, 2, fills, OPACITIES if blends else (1.0, 0.0))
        naive.mix(x, plan, layout).check(writer.numpy(writer.mix(writer.array(x), plan, layout)))


@pytest.mark.parametrize("values", [{}, {"mean": 0.4}, {"mean": (0.48, 0.45, 0.4), "std": (0.22, 0.25, 0.5)}])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("target", ["float32", "bfloat16"])
@pytest.mark.parametrize("source", ["uint8", "float32", "float16"])
@pytest.mark.parametrize(
    ("layout", "target_layout"), [("b h w c", "b c h w"), ("b c h w", "b h w c"), ("b c h w", "b w c h")]
)
def test_channels_leave_pixels_and_enter_them(
    writer: Engine, layout: str, target_layout: str, source: str, target: str, channels: int, values: dict[str, Any]
) -> None:
    extent = {"b": 2, "c": channels, "h": 8, "w": 6}
    x = data(source, tuple(extent[a] for a in layout.split()))
    plan = made_plan(np.random.default_rng(channels), 2, (8, 6), 1, FILLS[1:2])
    moments = {name: v if isinstance(v, float) else (*v, 0.3)[:channels] for name, v in values.items()}
    to = mx.Output(target_layout, target, **moments)
    naive.mix(x, plan, layout, to=to).check(writer.numpy(writer.mix(writer.array(x), plan, layout, to=to)))


@pytest.mark.parametrize("n", [1, 200, 1000, 3000])
def test_plans_of_any_size(writer: Engine, n: int) -> None:
    x = data("float32", (n, 8))
    plan = mx.Mixup(per="sample").draw(np.random.default_rng(n), mx.Spec(n))
    naive.mix(x, plan, "b d").check(writer.numpy(writer.mix(writer.array(x), plan, "b d")))
