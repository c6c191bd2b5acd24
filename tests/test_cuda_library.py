"""Gradients through the kernel, and the operations that torch.compile sees."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from host_chip import HostChip, on_the_host
from torch.library import opcheck

import mixops as mx
from mixops import backends, execute

SPEC = mx.Spec(6, (8, 8))
TURNING = mx.CutMix(pairing="roll", alpha=4.0) | mx.Cutout(3, per="batch", fill=0.5)
TAIL = mx.Output("b h w c", "float64", mean=(0.1, 0.2, 0.3), std=(0.5, 2.0, 0.25))


@pytest.fixture(autouse=True)
def chip() -> Iterator[HostChip]:
    """Kernels run on CPU tensors."""
    with on_the_host() as one:
        yield one


@pytest.fixture(autouse=True)
def fresh() -> None:
    """No function compiled by another test counts against the limit of compilations."""
    torch.compiler.reset()


def drawn(op: mx.Operator, seed: int = 0) -> mx.Plan:
    plan = op.draw(np.random.default_rng(seed), SPEC)
    assert isinstance(plan, mx.Plan)
    return plan


def images(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(6, 3, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))


# -- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [None, TAIL, mx.Output("b c h w", "float32")], ids=["as it is", "normalised", "cast"])
@pytest.mark.parametrize("op", [mx.Mixup(), TURNING, mx.RandomErasing(noise="pixel")], ids=["Mixup", "chain", "noise"])
def test_gradients_are_those_of_torch_operations_and_one_launch(
    op: mx.Operator, to: mx.Output | None, chip: HostChip
) -> None:
    plan, x = drawn(op), images().requires_grad_()
    out = mx.mix(x, plan, "b c h w", to=to, backend="cuda")
    gradient = torch.randn_like(out)
    (mine,) = torch.autograd.grad(out, x, gradient)
    assert len(chip.launches) == 2
    (wanted,) = torch.autograd.grad(mx.mix(x, plan, "b c h w", to=to, backend="torch"), x, gradient)
    assert mine.dtype == wanted.dtype
    torch.testing.assert_close(mine, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gradients_of_short_floats_are_rounded_once(dtype: torch.dtype) -> None:
    plan, x = drawn(mx.Mixup()), images(dtype).requires_grad_()
    out = mx.mix(x, plan, "b c h w", backend="cuda")
    gradient = torch.randn_like(out)
    (mine,) = torch.autograd.grad(out, x, gradient)
    wide = images().requires_grad_()
    (wanted,) = torch.autograd.grad(mx.mix(wide, plan, "b c h w", backend="torch"), wide, gradient.double())
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(mine.double(), wanted, rtol=step, atol=step)


def second(mixed: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The gradient of a mix with regard to x, and that of this one with regard to the gradient of the output."""
    x, generator = images().requires_grad_(), torch.Generator().manual_seed(1)
    gradient = torch.randn(6, 8, 8, 3, dtype=torch.float64, generator=generator).requires_grad_()
    (first,) = torch.autograd.grad(mixed(x), x, gradient, create_graph=True)
    return first, *torch.autograd.grad(first, gradient, images().flip(0))


@pytest.mark.parametrize("held", [False, True], ids=["Plan", "DevicePlan"])
def test_gradients_have_gradients(held: bool) -> None:
    plan = drawn(TURNING)
    given, backend = (mx.DevicePlan(plan, "cpu", gradients=True), None) if held else (plan, "cuda")
    mine = second(lambda x: mx.mix(x, given, "b c h w", to=TAIL, backend=backend))
    wanted = second(lambda x: mx.mix(x, plan, "b c h w", to=TAIL, backend="torch"))
    torch.testing.assert_close(mine, wanted, rtol=1e-12, atol=1e-12)


def test_gradients_go_through_both_steps_of_a_sequence_and_through_lists(chip: HostChip) -> None:
    both = mx.PlanSequence((drawn(mx.Mixup()), drawn(mx.CutMix(), 1)))
    samples = [part.requires_grad_() for part in images().unbind()]
    mine = torch.autograd.grad(mx.mix(samples, both, "b c h w", backend="cuda").square().sum(), samples)
    assert len(chip.launches) == 4
    wanted = torch.autograd.grad(mx.mix(samples, both, "b c h w", backend="torch").square().sum(), samples)
    torch.testing.assert_close(mine, wanted)


def test_nothing_is_recorded_where_no_gradient_is_asked_for(chip: HostChip) -> None:
    x, plan = images().requires_grad_(), drawn(mx.Mixup(per="sample"))
    with torch.no_grad():
        assert mx.mix(x, plan, "b c h w", backend="cuda").grad_fn is None
    assert len(chip.launches) == 1


@pytest.mark.parametrize(
    ("op", "kind"), [(mx.Mixup(per="sample", pairing="roll"), "continuous"), (mx.CutMix(), "valid")]
)
def test_gradients_that_are_no_mixing_are_torchs_and_that_is_said_once(
    op: mx.Operator, kind: str, chip: HostChip, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    x, plan = images().requires_grad_(), drawn(op)
    with pytest.raises(mx.MixValueError, match='backend="torch" has it'):
        mx.mix(x, plan, "b c h w", kind, backend="cuda")
    # As on a GPU, where the kernel is what is chosen.
    choose = backends.backend_for
    monkeypatch.setattr(execute, "backend_for", lambda x, name: choose(x, name or "cuda"))
    execute._say.cache_clear()
    with caplog.at_level(logging.INFO, "mixops"):
        outs = [mx.mix(x, plan, "b c h w", kind) for _ in range(3)]
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "no mixing by a plan" in caplog.text
    assert not chip.launches
    (mine,) = torch.autograd.grad(outs[-1].sum(), x)
    (wanted,) = torch.autograd.grad(mx.mix(x, plan, "b c h w", kind, backend="torch").sum(), x)
    assert torch.equal(mine, wanted)


def test_a_plan_is_refused_while_a_graph_is_captured_and_a_device_plan_is_not(
    chip: HostChip, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, x = drawn(mx.CutMix()), images()
    by = mx.DevicePlan(plan, "cpu")
    mx.mix(x, plan, "b c h w", backend="cuda")
    monkeypatch.setattr(chip, "capturing", lambda device: True)
    for given in (x, x.clone().requires_grad_()):
        with pytest.raises(mx.MixValueError, match=r"mixops\.DevicePlan"):
            mx.mix(given, plan, "b c h w", backend="cuda")
    assert torch.equal(mx.mix(x, by, "b c h w"), mx.mix(x, plan, "b c h w", backend="torch"))


# -- the operations ----------------------------------------------------------------------------------------------------


def asked(mix: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """The form that a mix is asked for with."""
    from mixops.backends.cuda import library

    seen = []
    read = library.read
    monkeypatch.setattr(library, "read", lambda form: seen.append(form) or read(form))
    mix()
    monkeypatch.setattr(library, "read", read)
    return str(seen[0])


@pytest.mark.parametrize("gradients", [False, True])
def test_torch_finds_nothing_wrong_with_the_operations(gradients: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    by, x = mx.DevicePlan(drawn(TURNING), "cpu", gradients=gradients), images()
    form = asked(lambda: mx.mix(x, by, "b c h w", to=TAIL), monkeypatch)
    opcheck(torch.ops.mixops.mix, (x.clone().requires_grad_(gradients), by.words, form))
    opcheck(torch.ops.mixops.mix_out, (x, by.words, form, torch.empty(6, 8, 8, 3, dtype=torch.float64)))


def test_torch_finds_nothing_wrong_with_the_operation_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    by, x = mx.DevicePlan(drawn(mx.CutMix(pairing="flip")), "cpu", in_place=True), images()
    form = asked(lambda: mx.mix(x, by, "b c h w", out=x), monkeypatch)
    opcheck(torch.ops.mixops.mix_, (x, by.words, form))


@pytest.mark.parametrize(
    "form", ["", "b c|continuous|0||1 2", "b c h w|continuous|0|b;float32;x;|6 1 0 0 1 1 0 6 0 0 8 8"]
)
def test_a_form_that_mix_did_not_write_is_refused(form: str) -> None:
    words = mx.DevicePlan(drawn(mx.CutMix()), "cpu").words
    with pytest.raises(mx.MixError, match="expected what mix writes"):
        torch.ops.mixops.mix(images(), words, form)


def test_words_of_another_plan_or_array_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    by, x = mx.DevicePlan(drawn(mx.CutMix()), "cpu"), images()
    form = asked(lambda: mx.mix(x, by, "b c h w"), monkeypatch)
    for words in (by.words[:-1], by.words.long(), by.words.repeat(2)[::2]):
        with pytest.raises(mx.MixTypeError, match="words"):
            torch.ops.mixops.mix(x, words, form)


# -- torch.compile -----------------------------------------------------------------------------------------------------


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, backend="aot_eager", **options)


def test_a_compiled_function_mixes_by_whatever_plan_was_written_without_being_compiled_again() -> None:
    op, x, to = mx.OneOf([mx.Mixup(), mx.CutMix(), mx.Cutout(3)]), images(torch.float32), TAIL
    by = mx.DevicePlan(drawn(op), "cpu")
    step = compiled(lambda x: mx.mix(x * 2, by, "b c h w", to=to) + 1)
    step(x)
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed in range(6):
            plan = drawn(op, seed)
            by.write(plan)
            assert torch.equal(step(x), mx.mix(x * 2, plan, "b c h w", to=to, backend="cuda") + 1)


def test_a_compiled_function_writes_where_it_is_told_to_and_in_place() -> None:
    by, x = mx.DevicePlan(drawn(mx.Mixup(per="sample")), "cpu"), images(torch.float32)
    wanted = mx.mix(x, by, "b c h w")

    def into(x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        mx.mix(x, by, "b c h w", out=out)
        return out + 1

    out = torch.empty_like(x)
    assert torch.equal(compiled(into)(x, out), wanted + 1)
    assert torch.equal(out, wanted)

    pairs = mx.DevicePlan(drawn(mx.CutMix(per="pair", pairing="flip")), "cpu", in_place=True)

    def over(x: torch.Tensor) -> torch.Tensor:
        mx.mix(x, pairs, "b c h w", out=x)
        return x + 1

    wanted = mx.mix(x, pairs.plan, "b c h w", backend="cuda")
    assert torch.equal(compiled(over)(x), wanted + 1)
    assert torch.equal(x, wanted)


def test_gradients_go_through_a_compiled_function() -> None:
    by, x = mx.DevicePlan(drawn(TURNING), "cpu", gradients=True), images().requires_grad_()
    step = compiled(lambda x: mx.mix(x.tanh(), by, "b c h w", to=TAIL).square().sum())
    for seed in range(3):
        plan = drawn(TURNING, seed)
        by.write(plan)
        (mine,) = torch.autograd.grad(step(x), x)
        other = mx.mix(x.tanh(), plan, "b c h w", to=TAIL, backend="torch").square().sum()
        (wanted,) = torch.autograd.grad(other, x)
        torch.testing.assert_close(mine, wanted)
    without = mx.DevicePlan(drawn(TURNING), "cpu")
    with pytest.raises(Exception, match="gradients=True"):
        compiled(lambda x: mx.mix(x, without, "b c h w").sum())(x)


def test_a_compiled_function_takes_sources_of_other_sizes_and_refuses_those_with_too_few_rows() -> None:
    by, to = mx.DevicePlan(drawn(mx.CutMix()), "cpu"), TAIL
    step = compiled(lambda x: mx.mix(x, by, "b c h w", to=to), dynamic=True)
    for rows in (6, 7, 9):
        x = images().repeat(2, 1, 1, 1)[:rows]
        assert torch.equal(step(x), mx.mix(x, by.plan, "b c h w", to=to, backend="cuda"))
    with pytest.raises(Exception, match="rows, the DevicePlan speaks of 6"):
        step(images()[:5])


def test_ids_that_a_compiled_function_mixes_refuse_later_plans_that_blend() -> None:
    ids = torch.arange(6 * 64).reshape(6, 8, 8)
    by = mx.DevicePlan(drawn(mx.CutMix()), "cpu")
    step = compiled(lambda ids: mx.mix(ids, by, "b h w", "discrete"))
    for seed in range(3):
        plan = drawn(mx.CutMix(), seed)
        by.write(plan)
        assert torch.equal(step(ids), mx.mix(ids, plan, "b h w", "discrete", backend="cuda"))
    with pytest.raises(mx.MixTypeError, match="averaged"):
        by.write(drawn(mx.Mixup()))
