"""Mixes that are like one before take a short way, and end where the long way does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import naive
import numpy as np
import pytest
import torch
from conftest import data, from_torch, to_torch
from host_chip import HostChip, on_the_host
from hypothesis import given
from hypothesis import strategies as st

import mixops as mx
from mixops.backends.cuda import again


@pytest.fixture
def chip() -> Iterator[HostChip]:
    with on_the_host() as one:
        yield one


def forgotten() -> None:
    again._known.clear()
    again._held.clear()


def drawn(op: mx.Operator, n: int, shape: tuple[int, ...], key: int) -> Any:
    return op.draw(np.random.default_rng(key), mx.Spec(n, shape))


OPERATORS = {
    "mixup": mx.Mixup(),
    "per sample": mx.Mixup(per="sample"),
    "cutmix": mx.CutMix(per="sample"),
    "one of": mx.OneOf([mx.Mixup(), mx.CutMix(), mx.Cutout(2, fill=3)], per="sample"),
    "fills": mx.CutMix() | mx.Cutout(2, fill=7),
    "noise": mx.RandomErasing(noise="pixel"),
    "often nothing": mx.RandomErasing(p=0.3),
}


@given(st.sampled_from(list(OPERATORS)), st.sampled_from(["float32", "bfloat16", "uint8"]), st.integers(0, 1000))
def test_the_short_way_gives_what_the_loops_give(name: str, dtype: str, key: int) -> None:
    x = data(dtype, (3, 2, 4, 6))
    with on_the_host() as chip:
        for more in range(3):
            plan = drawn(OPERATORS[name], 3, (4, 6), key + more)
            result = mx.mix(to_torch(x), plan, "b c h w", backend="cuda")
            naive.mix(x, plan, "b c h w").check(from_torch(result))
    assert len(chip.launches) == 3


@given(st.sampled_from(["flip", "mutual", "fills"]), st.integers(1, 6), st.integers(0, 1000))
def test_the_short_way_in_place_gives_what_the_loops_give(pairing: str, n: int, key: int) -> None:
    x = data("float32", (n, 2, 4, 6))
    with on_the_host() as chip:
        for more in range(3):
            rng = np.random.default_rng(key + more)
            order = rng.permutation(n)
            mutual = np.arange(n)
            mutual[order[: n // 2 * 2 : 2]], mutual[order[1 : n // 2 * 2 : 2]] = order[1::2], order[: n // 2 * 2 : 2]
            op = mx.Cutout(3, fill=2) if pairing == "fills" else mx.CutMix(per="sample", pairing="flip")
            named = {"partner": mutual} if pairing == "mutual" else {}
            plan = op.draw(rng, mx.Spec(n, (4, 6)), **named)
            work = to_torch(x.copy())
            assert mx.mix(work, plan, "b c h w", out=work, backend="cuda") is work
            naive.mix(x, plan, "b c h w").check(work.numpy())
    assert len(chip.launches) == 3


def test_in_place_the_short_way_refuses_what_the_long_one_does(chip: HostChip) -> None:
    x, cycle = torch.zeros(3, 8), mx.Mixup(pairing="roll")
    mx.mix(x, drawn(mx.Mixup(pairing="flip"), 3, (), 0), "b d", out=x, backend="cuda")
    with pytest.raises(mx.MixError, match="out="):
        mx.mix(x, drawn(cycle, 3, (), 0), "b d", out=x, backend="cuda")


@pytest.mark.parametrize("kind", ["discrete", "valid"])
@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32"])
def test_the_short_way_leaves_fills_out_of_ids_and_masks(kind: str, dtype: str) -> None:
    forgotten()
    op = mx.CutMix(per="sample") | mx.Cutout(3, fill=7)
    x = np.random.default_rng(0).integers(0, 2, (3, 4, 6)).astype(dtype)
    with on_the_host() as chip:
        for key in range(4):
            plan = drawn(op, 3, (4, 6), key)
            result = mx.mix(to_torch(x), plan, "b h w", kind, backend="cuda")
            naive.mix(x, plan, "b h w", kind).check(from_torch(result))
    assert len(chip.launches) == 4


def test_a_fill_given_for_a_mask_is_for_that_mix_alone(chip: HostChip) -> None:
    forgotten()
    masks, plan = torch.ones(3, 8, 8, dtype=torch.int64), drawn(mx.Cutout(4, fill=7), 3, (8, 8), 0)
    for _ in range(2):
        assert 5 in mx.mix(masks, plan, "b h w", "discrete", fill=5, backend="cuda")
        assert mx.mix(masks, plan, "b h w", "discrete", backend="cuda").eq(1).all()


def test_the_second_mix_of_a_kind_is_not_checked_again(chip: HostChip, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten()
    x, op = torch.zeros(4, 3, 8, 8), OPERATORS["fills"]
    to = mx.Output("b c h w", "float16", mean=0.5)
    for tail in (None, to):
        mx.mix(x, drawn(op, 4, (8, 8), 0), "b c h w", to=tail, backend="cuda")

    def refuse(*given: Any, **options: Any) -> None:
        raise AssertionError("checked again")

    monkeypatch.setattr("mixops.execute.prepare", refuse)
    for tail in (None, to):
        result = mx.mix(x, drawn(op, 4, (8, 8), 1), "b c h w", to=tail, backend="cuda")
        assert result.dtype == (torch.float32 if tail is None else torch.float16)
    with pytest.raises(AssertionError, match="checked again"):
        mx.mix(x[:2], drawn(op, 2, (8, 8), 1), "b c h w", backend="cuda")


def test_a_result_of_ones_own_and_a_device_plan_take_the_short_way(
    chip: HostChip, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten()
    op, x = OPERATORS["fills"], data("uint8", (4, 3, 8, 8))
    to = mx.Output("b h w c", "float32", mean=(0.1, 0.2, 0.3))
    plans = [drawn(op, 4, (8, 8), key) for key in range(3)]
    held, ids = mx.DevicePlan(plans[0], "cpu"), torch.arange(4 * 64).reshape(4, 8, 8)
    outs = {None: torch.empty(4, 3, 8, 8, dtype=torch.uint8), to: torch.empty(4, 8, 8, 3)}

    def mixes(plan: mx.Plan) -> list[torch.Tensor]:
        held.write(plan)
        made = []
        for by in (plan, held):
            for tail, out in outs.items():
                assert mx.mix(to_torch(x), by, "b c h w", to=tail, out=out, backend="cuda") is out
                made += [out.clone(), mx.mix(to_torch(x), by, "b c h w", to=tail, backend="cuda")]
            made.append(mx.mix(ids, by, "b h w", "discrete", backend="cuda"))
        return made

    mixes(plans[0])
    wanted = [mixes(plan) for plan in plans]

    def refuse(*given: Any, **options: Any) -> None:
        raise AssertionError("checked again")

    monkeypatch.setattr("mixops.execute.prepare", refuse)
    monkeypatch.setattr("mixops.backends.cuda.library.read", refuse)
    for plan, before in zip(plans, wanted, strict=True):
        for one, other in zip(mixes(plan), before, strict=True):
            assert torch.equal(one, other)
    for made in wanted[2][0], wanted[2][1], wanted[2][5]:
        naive.mix(x, plans[2], "b c h w").check(from_torch(made))
    naive.mix(x, plans[2], "b c h w", to=to).check(wanted[2][2].numpy())
    naive.mix(ids.numpy(), plans[2], "b h w", "discrete").check(wanted[2][9].numpy())


def test_a_device_plan_in_place_takes_the_short_way(chip: HostChip, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten()
    op = mx.CutMix(pairing="flip")
    x = data("float32", (5, 2, 4, 4))
    held = mx.DevicePlan(drawn(op, 5, (4, 4), 0), "cpu", in_place=True)
    for key in range(3):
        plan, work = drawn(op, 5, (4, 4), key), to_torch(x.copy())
        held.write(plan)
        assert mx.mix(work, held, "b c h w", out=work) is work
        naive.mix(x, plan, "b c h w").check(work.numpy())
        monkeypatch.setattr("mixops.backends.cuda.library.read", None)
    monkeypatch.undo()
    for out in None, torch.empty(5, 2, 4, 4):
        with pytest.raises(mx.MixError, match="out=x"):
            mx.mix(work, held, "b c h w", out=out)


@pytest.mark.parametrize("by_device_plan", [False, True])
def test_a_result_over_its_source_is_refused_on_the_short_way_too(chip: HostChip, by_device_plan: bool) -> None:
    forgotten()
    plan = drawn(mx.Mixup(), 4, (), 0)
    by = mx.DevicePlan(plan, "cpu") if by_device_plan else plan
    memory = torch.zeros(12, 8)
    for start in (0, 8):  # just before and just behind it
        mx.mix(memory[4:8], by, "b d", out=memory[start : start + 4], backend="cuda")
    for start in (2, 6):
        with pytest.raises(mx.MixError, match="overlaps"):
            mx.mix(memory[4:8], by, "b d", out=memory[start : start + 4], backend="cuda")
    with pytest.raises(mx.MixError, match="gradients"):
        mx.mix(memory[4:8], by, "b d", out=torch.zeros(4, 8, requires_grad=True), backend="cuda")
    for out in (np.zeros((4, 8), np.float32), memory[:4].to_sparse()):
        with pytest.raises(mx.MixError, match="out"):
            mx.mix(memory[4:8], by, "b d", out=out, backend="cuda")


@pytest.mark.parametrize("way", ["cpu", "torch", "cuda", "DevicePlan", "operation"])
def test_autograd_learns_that_a_tensor_was_overwritten(chip: HostChip, way: str) -> None:
    forgotten()
    plan = drawn(mx.Mixup(pairing="flip"), 4, (), 0)
    held = mx.DevicePlan(plan, "cpu", in_place=True)
    for _ in range(2):  # the long way, the short way
        x, weight = torch.ones(4, 8), torch.ones(4, 8, requires_grad=True)
        loss = (x * weight).sum()
        if way == "operation":
            torch.ops.mixops.mix_(x, held.words, f"b d|continuous|0||{held.text}")
        elif way == "DevicePlan":
            mx.mix(x, held, "b d", out=x)
        else:
            mx.mix(x, plan, "b d", out=x, backend=way)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_a_sparse_tensor_and_threads_that_are_none_are_refused_on_the_short_way_too(chip: HostChip) -> None:
    x, plan = torch.ones(4, 8), drawn(mx.Mixup(), 4, (), 0)
    mx.mix(x, plan, "b d", backend="cuda")
    with pytest.raises(mx.MixError, match="to_dense"):
        mx.mix(x.to_sparse(), plan, "b d", backend="cuda")
    with pytest.raises(mx.MixError, match="threads"):
        mx.mix(x, plan, "b d", threads=0, backend="cuda")


def test_ids_that_a_later_plan_would_average_or_paint_are_refused_by_a_device_plan_too(chip: HostChip) -> None:
    ids, plan = torch.zeros(4, 8, dtype=torch.int64), drawn(mx.CutMix(), 4, (8,), 0)
    for later, match in ((drawn(mx.Mixup(), 4, (), 0), "blends"), (drawn(mx.Cutout(3), 4, (8,), 0), "paints")):
        first, second = mx.DevicePlan(plan, "cpu"), mx.DevicePlan(plan, "cpu")
        mx.mix(ids, first, "b t", backend="cuda")
        mx.mix(ids, second, "b t", backend="cuda")  # the short way
        with pytest.raises(mx.MixError, match=match):
            second.write(later)


def test_what_may_not_be_is_refused_on_the_short_way_too(chip: HostChip) -> None:
    x, whole = torch.zeros(3, 8), mx.Plan.identity(3, k=1)

    def with_partner(row: int, opacity: float = 1.0) -> mx.Plan:
        partner, share = np.full((3, 1), row), np.full((3, 1), opacity)
        return mx.Plan(whole.base, partner, whole.box, whole.donor, share, 0 * share, ())

    mx.mix(x, with_partner(2), "b d", backend="cuda")
    with pytest.raises(mx.MixError, match="3"):
        mx.mix(x, with_partner(3), "b d", backend="cuda")
    ids = torch.zeros(3, 8, dtype=torch.int64)
    mx.mix(ids, with_partner(1), "b d", "discrete", backend="cuda")
    with pytest.raises(mx.MixError, match="cannot be averaged"):
        mx.mix(ids, with_partner(1, 0.5), "b d", "discrete", backend="cuda")
    painted = mx.mix(x, with_partner(-1), "b d", backend="cuda")
    assert not painted.any()


def test_fills_that_no_byte_holds_are_refused_on_the_short_way_too(chip: HostChip) -> None:
    x = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    for fill in (7, 9, 7):
        result = mx.mix(x, drawn(mx.Cutout(4, fill=fill), 3, (8, 8), fill), "b c h w", backend="cuda")
        assert sorted(result.unique().tolist()) == [0, fill]
    with pytest.raises(mx.MixError, match="expected 0 to 255"):
        mx.mix(x, drawn(mx.Cutout(4, fill=300), 3, (8, 8), 0), "b c h w", backend="cuda")


def test_tensors_that_lie_elsewhere_take_the_long_way_once(chip: HostChip) -> None:
    x = data("float32", (4, 3, 4, 4))
    wide = torch.from_numpy(np.concatenate([x, x], 3))
    for given_x in (to_torch(x), to_torch(x).contiguous(memory_format=torch.channels_last), wide[..., :4]):
        for key in range(3):
            plan = drawn(mx.CutMix(), 4, (4, 4), key)
            result = mx.mix(given_x, plan, "b c h w", backend="cuda")
            naive.mix(x, plan, "b c h w").check(result.numpy())
            assert result.is_contiguous(memory_format=torch.channels_last) == given_x.is_contiguous(
                memory_format=torch.channels_last
            )


def test_a_known_mix_that_is_under_way_elsewhere_is_done_the_long_way(chip: HostChip) -> None:
    forgotten()
    x, plan = data("float32", (4, 8)), drawn(mx.Mixup(), 4, (), 0)
    mx.mix(to_torch(x), plan, "b d", backend="cuda")
    (known,) = again._known.values()
    with known.lock:
        result = mx.mix(to_torch(x), plan, "b d", backend="cuda")
    naive.mix(x, plan, "b d").check(result.numpy())


def test_no_more_kinds_are_remembered_than_said(chip: HostChip, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten()
    monkeypatch.setattr(again, "MOST", 3)
    for n in range(1, 9):
        mx.mix(torch.zeros(n, 8), drawn(mx.Mixup(), n, (), 0), "b d", backend="cuda")
        assert len(again._known) <= 3
