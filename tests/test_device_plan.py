"""DevicePlan: what it mixes is what its plan mixes, and later plans are held to what the first one allows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from conftest import data, from_torch, to_torch
from host_chip import HostChip, on_the_host

import mixops as mx

SPEC = mx.Spec(6, (8, 8))


@pytest.fixture(autouse=True)
def chip() -> Iterator[HostChip]:
    """Kernels run on CPU tensors."""
    with on_the_host() as one:
        yield one


def drawn(op: mx.Operator, seed: int = 0, spec: mx.Spec = SPEC) -> mx.Plan:
    plan = op.draw(np.random.default_rng(seed), spec)
    assert isinstance(plan, mx.Plan)
    return plan


def held(plan: mx.Plan, **options: Any) -> mx.DevicePlan:
    return mx.DevicePlan(plan, "cpu", **options)


def tensor(dtype: str, *shape: int) -> torch.Tensor:
    return to_torch(data(dtype, shape))


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return from_torch(one).tobytes() == from_torch(other).tobytes()


# -- what it mixes -----------------------------------------------------------------------------------------------------

OPERATORS = {
    "Mixup": mx.Mixup(per="sample"),
    "CutMix": mx.CutMix(per="sample"),
    "any of three": mx.OneOf([mx.Mixup(), mx.CutMix(), mx.Cutout(3)]),
    "a blend, then a square": mx.Mixup(per="sample") | mx.Cutout(3),
    "noise": mx.RandomErasing(noise="pixel", p=0.5),
}


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("name", OPERATORS)
def test_every_plan_that_is_written_is_mixed_as_the_plan_itself(name: str, dtype: str, chip: HostChip) -> None:
    x, plan = tensor(dtype, 6, 3, 8, 8), drawn(OPERATORS[name])
    by = held(plan)
    for seed in range(6):
        if seed:
            plan = drawn(OPERATORS[name], seed)
            by.write(plan)
        assert by.plan is plan
        before = len(chip.launches)
        mixed = mx.mix(x, by, "b c h w")
        assert len(chip.launches) == before + 1
        assert same(mixed, mx.mix(x, plan, "b c h w", backend="cuda"))


def test_what_has_been_launched_reads_the_plan_that_lies_there_when_it_runs(chip: HostChip) -> None:
    """What a CUDA graph does: the same arguments again, after another plan was written."""
    x, first, second = tensor("float32", 6, 8), drawn(mx.Mixup()), drawn(mx.Mixup(), 1)
    by = held(first)
    address = by.words.data_ptr()
    out = mx.mix(x, by, "b d")
    launch = chip.launches[-1]
    by.write(second)
    assert by.words.data_ptr() == address == launch.arguments["plan"][0]
    chip.launch(launch.form, launch.grid, launch.block, launch.arguments, (x, by.words, None), out)
    assert same(out, mx.mix(x, second, "b d", backend="cuda"))


def test_a_tail_a_result_of_ones_own_and_other_memory_go_with_it() -> None:
    x, plan = tensor("uint8", 6, 8, 8, 3), drawn(OPERATORS["any of three"], 2)
    by, to = held(plan), mx.Output("b c h w", "float32", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    wanted = mx.mix(x, plan, "b h w c", to=to, backend="cuda")
    assert same(mx.mix(x, by, "b h w c", to=to), wanted)
    out = torch.empty_like(wanted)
    assert mx.mix(x, by, "b h w c", to=to, out=out) is out
    assert same(out, wanted)
    last = tensor("float32", 6, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    mixed = mx.mix(last, by, "b c h w")
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert same(mixed, mx.mix(last, plan, "b c h w", backend="cuda"))
    gaps = tensor("float32", 6, 3, 8, 16)[..., ::2]
    assert same(mx.mix(gaps, by, "b c h w"), mx.mix(gaps.contiguous(), plan, "b c h w", backend="cuda"))


def test_factors_of_many_channels_are_sent_once(chip: HostChip) -> None:
    x, by = tensor("float32", 6, 5, 8, 8), held(drawn(mx.Mixup()))
    to = mx.Output("b c h w", "float32", mean=(0.1, 0.2, 0.3, 0.4, 0.5))
    first, second = (mx.mix(x, by, "b c h w", to=to) for _ in range(2))
    assert same(first, second)
    addresses = {int(launch.arguments["factors"][0]) for launch in chip.launches}
    assert len(addresses) == 1
    assert 0 not in addresses


def test_factors_are_kept_for_graphs_and_not_sent_within_one(chip: HostChip, monkeypatch: pytest.MonkeyPatch) -> None:
    x, by = tensor("float32", 6, 5, 8, 8), held(drawn(mx.Mixup()))

    def tail(i: int) -> mx.Output:
        return mx.Output("b c h w", "float32", mean=(0.1 + i, 0.2, 0.3, 0.4, 0.5))

    for i in range(100):
        mx.mix(x, by, "b c h w", to=tail(i))
    monkeypatch.setattr(chip, "capturing", lambda device: True)
    mx.mix(x, by, "b c h w", to=tail(0))
    first, *_, last = (int(launch.arguments["factors"][0]) for launch in chip.launches)
    assert first == last
    with pytest.raises(mx.MixError, match="mix once before capturing"):
        mx.mix(x, by, "b c h w", to=tail(100))


def test_a_device_plan_of_inference_mode_is_written_outside_of_it() -> None:
    x, plan = tensor("float32", 6, 8), drawn(mx.Mixup(), 1)
    with torch.inference_mode():
        by = held(drawn(mx.Mixup()))
    by.write(plan)
    assert same(mx.mix(x, by, "b d"), mx.mix(x, plan, "b d", backend="cuda"))


@pytest.mark.parametrize("n", [5, 6])
def test_rows_that_exchange_are_mixed_in_place(n: int) -> None:
    op = mx.CutMix(per="pair", pairing="flip") | mx.Cutout(3)
    by = held(drawn(op, 0, mx.Spec(n, (8, 8))), in_place=True)
    for seed in range(4):
        plan = drawn(op, seed, mx.Spec(n, (8, 8)))
        by.write(plan)
        x = tensor("float32", n, 3, 8, 8)
        wanted = mx.mix(x, plan, "b c h w", backend="cuda")
        assert mx.mix(x, by, "b c h w", out=x) is x
        assert same(x, wanted)


def test_a_source_may_have_more_rows_than_the_plan_makes() -> None:
    x, plan = tensor("float32", 9, 8), drawn(mx.Mixup()).on([8, 1, 6, 3, 0, 5])
    by = held(plan)
    assert by.rows == 9
    assert same(mx.mix(x, by, "b d"), mx.mix(x, plan, "b d", backend="cuda"))
    assert held(drawn(mx.Mixup()), rows=9).rows == 9


def test_masks_and_ids_are_left_alone_where_a_patch_paints() -> None:
    plan = drawn(mx.CutMix() | mx.Cutout(3))
    by = held(plan)
    for dtype, kind in (("int64", "discrete"), ("bool", "valid"), ("float32", "valid")):
        x = tensor(dtype, 6, 8, 8)
        assert same(mx.mix(x, by, "b h w", kind), mx.mix(x, plan, "b h w", kind, backend="cuda"))


# -- later plans -------------------------------------------------------------------------------------------------------


def test_fewer_patches_no_fills_and_whole_rows_suit_a_larger_form() -> None:
    by = held(drawn(mx.CutMix() | mx.RandomErasing(noise="pixel")))
    x = tensor("float32", 6, 3, 8, 8)
    for op in (mx.Mixup(), mx.CutMix(per="sample"), mx.Cutout(3, fill=0.5), mx.Mixup() | mx.Cutout(2)):
        plan = drawn(op, 3)
        by.write(plan)
        assert same(mx.mix(x, by, "b c h w"), mx.mix(x, plan, "b c h w", backend="cuda"))


def shifted() -> mx.Plan:
    box = np.zeros((6, 1, 4), int)
    box[..., 1::2] = 3
    return mx.Plan(np.arange(6), np.zeros((6, 1), int), box, box + 2, np.ones((6, 1)), np.ones((6, 1)), (8, 8))


STEPS = mx.PlanSequence((drawn(mx.CutMix()), drawn(mx.CutMix())))
REFUSED = {
    "rows": (drawn(mx.CutMix(), 0, mx.Spec(5, (8, 8))), "rows 5, expected 6"),
    "extents": (drawn(mx.CutMix(), 0, mx.Spec(6, (8, 9))), r"\(8, 9\)"),
    "patches": (drawn(mx.Mixup() | mx.Cutout(2)), "patches 2, expected 1 or fewer"),
    "noise": (drawn(mx.RandomErasing(noise="pixel", p=1.0)), "fills|noise"),
    "channels": (drawn(mx.Cutout(3, fill=(0.1, 0.2, 0.3))), "fill values 3"),
    "donors elsewhere": (shifted(), "donors elsewhere"),
    "rows beyond": (drawn(mx.CutMix()).on([0, 1, 2, 3, 4, 7]), "row"),
    "steps": (STEPS, "PlanSequence of 2 steps"),
    "a number": (3, "got int"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_plan_of_another_form_is_refused_and_the_one_before_stays(name: str) -> None:
    wrong, message = REFUSED[name]
    first = drawn(mx.CutMix())
    by = held(first)
    words = by.words.clone()
    with pytest.raises(mx.MixError, match=message):
        by.write(wrong)  # type: ignore[arg-type]
    assert by.plan is first
    assert torch.equal(by.words, words)


def test_ids_that_were_mixed_by_it_refuse_plans_that_blend_before_and_after() -> None:
    ids = tensor("int64", 6, 8, 8)
    blend, paste, paint = drawn(mx.Mixup()), drawn(mx.CutMix()), drawn(mx.Cutout(3))
    by = held(blend.promoted((8, 8)))
    for kind in ("discrete", "continuous"):
        with pytest.raises(mx.MixTypeError, match="averaged"):
            mx.mix(ids, by, "b h w", kind)
    by.write(paint)
    by.write(blend)  # nothing has been mixed yet
    by.write(paste)
    assert same(mx.mix(ids, by, "b h w", "discrete"), mx.mix(ids, paste, "b h w", "discrete"))
    with pytest.raises(mx.MixTypeError, match=r"discrete int64 array.*averaged"):
        by.write(blend)
    by.write(paint)
    with pytest.raises(mx.MixTypeError, match="take no fills"):
        mx.mix(ids, by, "b h w")
    by.write(paste)
    mx.mix(ids, by, "b h w")
    with pytest.raises(mx.MixTypeError, match="take no fills"):
        by.write(paint)


def test_bytes_take_fills_that_they_hold_before_and_after() -> None:
    images = tensor("uint8", 6, 8, 8)
    by = held(drawn(mx.Cutout(3, fill=300.0)))
    with pytest.raises(mx.MixValueError, match="0 to 255"):
        mx.mix(images, by, "b h w")
    mx.mix(images.float(), by, "b h w")
    by.write(drawn(mx.Cutout(3, fill=255.0)))
    mx.mix(images, by, "b h w")
    with pytest.raises(mx.MixValueError, match="0 to 255"):
        by.write(drawn(mx.Cutout(3, fill=-1.0)))


# -- what does not fit -------------------------------------------------------------------------------------------------


def test_what_a_device_plan_cannot_be_is_said() -> None:
    plan = drawn(mx.CutMix())
    with pytest.raises(mx.MixTypeError, match=r"PlanSequence of 2 steps.*DevicePlan for each"):
        mx.DevicePlan(STEPS, "cpu")  # type: ignore[arg-type]
    with pytest.raises(mx.MixTypeError, match="got str"):
        mx.DevicePlan("plan", "cpu")  # type: ignore[arg-type]
    with pytest.raises(mx.MixValueError, match="device of torch"):
        mx.DevicePlan(plan, "gpu")
    with pytest.raises(mx.MixValueError, match="rows="):
        mx.DevicePlan(plan, "cpu", rows=-1)
    with pytest.raises(mx.MixError, match="row"):
        mx.DevicePlan(plan, "cpu", rows=3)
    with pytest.raises(mx.MixValueError, match="leave one of the two away"):
        mx.DevicePlan(plan, "cpu", in_place=True, gradients=True)
    with pytest.raises(mx.MixValueError, match="exchange two by two"):
        held(drawn(mx.CutMix(pairing="roll")), in_place=True)
    with pytest.raises(mx.MixValueError, match="per='batch'"):
        held(drawn(mx.Mixup(per="sample", pairing="roll")), gradients=True)


def test_a_machine_without_a_gpu_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(mx.MixError, match="finds no CUDA device"):
        mx.DevicePlan(drawn(mx.CutMix()))


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written() -> None:
    by, x = held(drawn(mx.CutMix()), rows=6), tensor("float32", 6, 3, 8, 8)
    out = torch.full_like(x, 7)
    cases: list[tuple[Any, str, dict[str, Any], str]] = [
        (x[:5], "b c h w", {}, "5 rows"),
        (x, "b c h", {}, "names 3 axes"),
        (x, "b c t w", {}, "no axis 'h'"),
        (x[..., :7], "b c h w", {}, "extent 7"),
        (x, "b c h w", {"kind": "other"}, "kind='other'"),
        (x, "b c h w", {"fill": 1.0}, "fill="),
        (x, "b c h w", {"backend": "torch"}, "backend='torch'"),
        (x.numpy(), "b c h w", {}, "ndarray with a DevicePlan"),
        (x.to(torch.complex64), "b c h w", {}, "no form"),
        (x.clone().requires_grad_(), "b c h w", {}, "gradients=True"),
        (x, "b c h w", {"out": x}, "in_place=True"),
        (x, "b c h w", {"out": out[:5]}, "out is float32 of shape"),
        (x, "b c h w", {"out": out.double()}, "out is float64"),
        (x, "b c h w", {"out": out[:1].expand_as(x)}, "broadcast"),
        (x, "b c h w", {"to": mx.Output("b h w", "float32")}, "same axes"),
        (x.to("meta"), "b c h w", {}, "meta"),
    ]
    for array, layout, options, message in cases:
        before = x.clone()
        with pytest.raises(mx.MixError, match=message):
            mx.mix(array, by, layout, **options)
        assert torch.equal(x, before)
        assert (out == 7).all()
    values = held(drawn(mx.Cutout(3, fill=(0.1, 0.2, 0.3))))
    with pytest.raises(mx.MixValueError, match="3 fill values"):
        mx.mix(tensor("float32", 6, 4, 8, 8), values, "b c h w")


def test_one_that_mixes_in_place_does_nothing_else() -> None:
    by, x = held(drawn(mx.CutMix(pairing="flip")), in_place=True), tensor("float32", 6, 3, 8, 8)
    before = x.clone()
    gaps = tensor("float32", 6, 3, 8, 16)[..., ::2]
    for array, options in (
        (x, {}),
        (x, {"out": torch.empty_like(x)}),
        (x, {"out": x, "to": mx.Output("b c h w")}),
        (gaps, {"out": gaps}),
        (tensor("float32", 7, 3, 8, 8), {}),
    ):
        with pytest.raises(mx.MixValueError):
            mx.mix(array, by, "b c h w", **options)
    assert torch.equal(x, before)


def test_without_a_kernel_for_its_device_it_mixes_nothing() -> None:
    from mixops.backends.cuda import driver

    by, x = held(drawn(mx.CutMix())), tensor("float32", 6, 3, 8, 8)
    chip, driver._driver = driver._driver, None  # as where no test has put its own
    try:
        with pytest.raises(mx.MixError, match="cpu"):
            mx.mix(x, by, "b c h w")
    finally:
        driver._driver = chip


def test_it_says_what_it_is() -> None:
    assert repr(held(drawn(mx.CutMix()))) == "DevicePlan(6 rows of 6, 1 patch a row, boxes on (8, 8), on cpu)"
    text = repr(held(drawn(mx.Mixup(pairing="flip")), in_place=True))
    assert text == "DevicePlan(6 rows of 6, 1 patch a row, whole rows, on cpu, in_place=True)"
