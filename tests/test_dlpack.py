"""Arrays that another library has on a GPU: mixed on their own memory, ordered by streams, handed back as they came."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import frames
import numpy as np
import pytest
import torch
from conftest import plans
from frames import Frame, Immutable, Standard, frame, values
from host_chip import on_the_host
from hypothesis import given, settings

import mixops as mx
from mixops import dlpack

PLAN = mx.CutMix(1.0).draw(np.random.default_rng(0), mx.Spec(4, (6, 8)))
IMAGES = np.random.default_rng(1).normal(size=(4, 3, 6, 8)).astype(np.float32)


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        frames.on_a_gpu(patch)
        yield


@pytest.mark.parametrize("kind", [Frame, Standard, Immutable])
def test_a_foreign_array_comes_back_as_an_array_of_its_own_kind(kind: type[Frame]) -> None:
    mixed = mx.mix(frame(IMAGES, kind), PLAN, "b c h w")
    assert isinstance(mixed, Frame)
    np.testing.assert_array_equal(values(mixed), mx.mix(IMAGES, PLAN, "b c h w"))


@pytest.mark.parametrize(("pointer", "asked"), [(0, 1), (4711, 4711)])
def test_the_lender_is_asked_to_make_torchs_current_stream_wait(
    pointer: int, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames.on_a_gpu(monkeypatch, pointer)
    x = frame(IMAGES)
    mx.mix(x, PLAN, "b c h w")
    assert x.streams == [asked]  # 1 is DLPack's name of the default stream


def test_nothing_is_copied_on_the_way() -> None:
    x = frame(IMAGES)
    loan = dlpack.Loan(x)
    assert loan.x.data_ptr() == x.tensor.data_ptr()
    assert loan.settled(loan.x).tensor.data_ptr() == x.tensor.data_ptr()


@settings(max_examples=25)
@given(plans())
def test_every_plan_mixes_foreign_arrays_as_it_mixes_numpy_arrays(drawn: Any) -> None:
    plan, layout, shape = drawn
    x = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(values(mx.mix(frame(x), plan, layout)), mx.mix(x, plan, layout))


def test_the_kernel_takes_an_array_that_lies_where_kernels_run() -> None:
    x = Standard(torch.from_numpy(IMAGES), kind=1)
    with on_the_host() as chip:
        mixed = mx.mix(x, PLAN, "b c h w", backend="cuda")
    assert len(chip.launches) == 1
    np.testing.assert_array_equal(values(mixed), mx.mix(IMAGES, PLAN, "b c h w"))


def test_a_plan_on_the_device_mixes_foreign_arrays_too() -> None:
    with on_the_host():
        mixed = mx.mix(frame(IMAGES), mx.DevicePlan(PLAN, "cpu"), "b c h w")
    np.testing.assert_array_equal(values(mixed), mx.mix(IMAGES, PLAN, "b c h w"))


def test_normalising_casting_and_layout_happen_on_the_way() -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3), np.uint8)
    to = mx.Output("b c h w", "float16", mean=0.5, std=0.25)
    mixed = mx.mix(frame(x), PLAN, "b h w c", to=to)
    np.testing.assert_array_equal(values(mixed), mx.mix(x, PLAN, "b h w c", to=to))


def test_a_list_of_foreign_samples_is_a_source() -> None:
    mixed = mx.mix([frame(row) for row in IMAGES], PLAN, "b c h w")
    np.testing.assert_array_equal(values(mixed), mx.mix(IMAGES, PLAN, "b c h w"))


def test_out_is_written_returned_and_told_to_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys.modules[frames.MODULE], "from_dlpack", told.append)
    x, out = frame(IMAGES, Frame), frame(np.zeros_like(IMAGES), Frame)
    assert mx.mix(x, PLAN, "b c h w", out=out) is out
    np.testing.assert_array_equal(values(out), mx.mix(IMAGES, PLAN, "b c h w"))
    # What it is given lies in the memory of out: taking it over makes the library's stream wait for the kernel.
    assert [tensor.data_ptr() for tensor in told] == [out.tensor.data_ptr()]


def test_out_may_be_the_array_itself() -> None:
    plan = mx.Mixup(pairing="flip").draw(np.random.default_rng(0), mx.Spec(4))
    x = frame(IMAGES)
    assert mx.mix(x, plan, "b c h w", out=x) is x
    np.testing.assert_array_equal(values(x), mx.mix(IMAGES, plan, "b c h w"))


def test_out_of_an_array_that_never_changes_is_refused() -> None:
    x, out = frame(IMAGES, Immutable), frame(np.zeros_like(IMAGES), Immutable)
    with pytest.raises(mx.MixTypeError, match="never change; leave out= away"):
        mx.mix(x, PLAN, "b c h w", out=out)
    assert not values(out).any()


@pytest.mark.parametrize("out", [np.zeros_like(IMAGES), torch.zeros(IMAGES.shape), frame(IMAGES, Frame)])
def test_out_of_another_library_is_refused(out: Any) -> None:
    with pytest.raises(mx.MixTypeError, match=r"out is .*, expected frames_library Standard as x is"):
        mx.mix(frame(IMAGES), PLAN, "b c h w", out=out)


def test_a_dtype_that_the_library_lacks_is_named() -> None:
    with pytest.raises(
        mx.MixTypeError, match=r"cannot take over a bfloat16 result \(no bfloat16 here\): ask for another"
    ):
        mx.mix(frame(IMAGES), PLAN, "b c h w", to=mx.Output("b c h w", "bfloat16"))


def test_a_library_without_from_dlpack_is_refused_before_anything_happens() -> None:
    x = type("Lone", (Frame,), {"__module__": "a_library_that_is_not_there"})(torch.from_numpy(IMAGES.copy()))
    with pytest.raises(mx.MixTypeError, match=r"has from_dlpack.*pass torch\.from_dlpack\(x\)"):
        mx.mix(x, PLAN, "b c h w")
    assert x.streams == []


def test_managed_memory_is_refused_in_words() -> None:
    with pytest.raises(mx.MixTypeError, match="in managed memory, which torch does not take"):
        mx.mix(Standard(torch.from_numpy(IMAGES), kind=13), PLAN, "b c h w")


def test_torch_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(device: Any) -> Any:
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch.cuda, "current_stream", none)
    with pytest.raises(mx.MixTypeError, match=r"Torch not compiled with CUDA enabled.*expected a torch with CUDA"):
        mx.mix(frame(IMAGES), PLAN, "b c h w")


def test_an_array_of_the_standard_on_the_host_is_mixed_on_its_memory_by_numpys_loops() -> None:
    def host(values: Any) -> Standard:
        return Standard(torch.from_numpy(np.array(values)), kind=1)

    x, labels = host(IMAGES), host([2, 0, 1, 1])
    loan = dlpack.Loan(x)
    assert isinstance(loan.x, np.ndarray)
    assert loan.x.ctypes.data == x.tensor.data_ptr()
    want = mx.mix(IMAGES, PLAN, "b c h w")
    for mixed in (
        mx.mix(x, PLAN, "b c h w"),
        mx.mix(x, PLAN, "b c h w", backend="reference"),
        mx.mix([host(row) for row in IMAGES], PLAN, "b c h w"),
    ):
        np.testing.assert_array_equal(values(mixed), want)
    to = mx.Output("b h w c", "float16", mean=0.5)
    np.testing.assert_array_equal(values(mx.mix(x, PLAN, "b c h w", to=to)), mx.mix(IMAGES, PLAN, "b c h w", to=to))
    out = host(np.zeros_like(IMAGES))
    assert mx.mix(x, PLAN, "b c h w", out=out) is out
    np.testing.assert_array_equal(values(out), want)
    soft = mx.mix_batch((x, labels), PLAN, {0: mx.Field("b c h w"), 1: mx.Labels(3)})[1]
    np.testing.assert_array_equal(values(soft), mx.soft_targets(np.array([2, 0, 1, 1]), PLAN, 3))
    np.testing.assert_array_equal(values(x), IMAGES)
    assert mx.Mixup(pairing="other_class").draw(np.random.default_rng(0), mx.Spec(4), labels=labels).n == 4


def test_out_that_is_lent_read_only_is_refused() -> None:
    class Old(Standard):
        def __dlpack__(self, *, stream: Any = None) -> Any:  # type: ignore[override]
            return self.tensor.__dlpack__()

    x, out = Old(torch.from_numpy(IMAGES), kind=1), Old(torch.zeros(IMAGES.shape), kind=1)
    np.testing.assert_array_equal(values(mx.mix(x, PLAN, "b c h w")), mx.mix(IMAGES, PLAN, "b c h w"))
    for into in (x, out):
        with pytest.raises(mx.MixTypeError, match=r"out= with .* Old: .* read only"):
            mx.mix(x, PLAN, "b c h w", out=into)
    assert not values(out).any()


def test_what_numpy_cannot_take_over_is_named() -> None:
    x = Standard(torch.zeros(4, 3, 6, 8, dtype=torch.bfloat16), kind=1)
    with pytest.raises(
        mx.MixTypeError, match=r"frames_library Standard: NumPy cannot take it over \(.*expected a dtype"
    ):
        mx.mix(x, PLAN, "b c h w")


def test_an_array_on_the_host_whose_library_takes_none_is_refused_with_the_way_out() -> None:
    x = type("Lone", (Frame,), {"__module__": "a_library_that_is_not_there"})(torch.from_numpy(IMAGES.copy()), kind=1)
    with pytest.raises(mx.MixTypeError, match=r"Lone: expected .*from_dlpack.*others: numpy\.asarray\(x\)"):
        mx.mix(x, PLAN, "b c h w")


@pytest.mark.parametrize("error", [BufferError("on two devices"), TypeError("deleted")], ids=str)
def test_an_array_that_lies_nowhere_is_refused(error: Exception) -> None:
    class Nowhere(Standard):
        def __dlpack_device__(self) -> tuple[int, int]:
            raise error

    x = Nowhere(torch.from_numpy(IMAGES))
    with pytest.raises(mx.MixTypeError, match="Nowhere: expected"):
        mx.mix(x, PLAN, "b c h w")
    with pytest.raises(mx.MixTypeError, match=f"torch cannot take it over \\({error}\\)"):
        mx.mix(x, PLAN, "b c h w", backend="cuda")


def test_an_error_of_the_mix_leaves_everything_as_it_was() -> None:
    x, out = frame(IMAGES), frame(np.zeros((4, 3, 6, 7), np.float32))
    with pytest.raises(mx.MixValueError, match="out is float32 of shape"):
        mx.mix(x, PLAN, "b c h w", out=out)
    assert not values(out).any()
    np.testing.assert_array_equal(values(x), IMAGES)


def test_a_batch_stays_in_step_and_on_its_device() -> None:
    labels = np.array([2, 0, 1, 1])
    fields = {"image": mx.Field("b c h w"), "label": mx.Labels(3), "mask": mx.Field("b h w", "discrete")}
    mask = np.random.default_rng(3).integers(0, 5, (4, 3, 4))
    batch = {"image": frame(IMAGES), "label": frame(labels), "mask": mask, "name": list("abcd")}
    mixed = mx.mix_batch(batch, PLAN, fields)
    expected = mx.mix_batch({"image": IMAGES, "label": labels, "mask": mask, "name": list("abcd")}, PLAN, fields)
    np.testing.assert_array_equal(values(mixed["image"]), expected["image"])
    np.testing.assert_array_equal(values(mixed["label"]), expected["label"])
    np.testing.assert_array_equal(mixed["mask"], expected["mask"])
    assert mixed["name"] == list("abcd")
    np.testing.assert_array_equal(values(batch["image"]), IMAGES)


def test_a_batch_is_written_into_foreign_arrays() -> None:
    x, out = frame(IMAGES), frame(np.zeros_like(IMAGES))
    mixed = mx.mix_batch((x, frame([0, 1, 2, 0])), PLAN, {0: mx.Field("b c h w"), 1: mx.Labels(3)}, out={0: out})
    assert mixed[0] is out
    np.testing.assert_array_equal(values(out), mx.mix(IMAGES, PLAN, "b c h w"))


def test_a_field_of_a_batch_names_itself_where_an_array_cannot_be_lent() -> None:
    x = frame(IMAGES, Immutable)
    with pytest.raises(mx.MixTypeError, match=r"field 'x': out= with jaxlib"):
        mx.mix_batch({"x": x}, PLAN, {"x": mx.Field("b c h w")}, out={"x": frame(IMAGES, Immutable)})


def test_targets_are_of_the_kind_of_the_labels() -> None:
    labels = np.array([2, 0, 1, 1])
    np.testing.assert_array_equal(values(mx.soft_targets(frame(labels), PLAN, 3)), mx.soft_targets(labels, PLAN, 3))
    for of in (mx.pair_targets, mx.sparse_targets):
        for mine, expected in zip(of(frame(labels), PLAN), of(labels, PLAN), strict=True):
            np.testing.assert_array_equal(values(mine), expected)


def test_evidence_and_specs_are_read_off_foreign_arrays() -> None:
    batch, fields = (frame(IMAGES), frame([2, 0, 1, 1])), {0: mx.Field("b c h w"), 1: mx.Labels(3)}
    assert mx.spec_of(batch, fields).shape == (6, 8)
    evidence = mx.evidence_of(batch, fields, mx.Mixup(pairing="other_class"))
    assert evidence["labels"].tolist() == [2, 0, 1, 1]
    assert isinstance(evidence["labels"], np.ndarray)


def test_what_a_kernel_reads_is_kept_until_it_is_through(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: set[int] = set()

    made: list[Event] = []

    class Event:
        def __init__(self) -> None:
            self.number = len(made)
            made.append(self)

        def record(self, stream: Any) -> None:
            assert isinstance(stream, frames.Stream)

        def query(self) -> bool:
            return self.number in reached

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(dlpack, "_reading", type(dlpack._reading)())
    lent = [SimpleNamespace(is_cuda=True, device="cuda:0", name=i) for i in range(3)]

    dlpack._hold(lent[0])
    dlpack._hold(lent[1])
    assert [one.name for _, one in dlpack._reading] == [0, 1]
    reached.add(0)
    dlpack._hold(lent[2])
    assert [one.name for _, one in dlpack._reading] == [1, 2]
    reached.update((1, 2))
    dlpack._hold(torch.zeros(1))  # on the CPU nothing reads later
    assert not dlpack._reading
