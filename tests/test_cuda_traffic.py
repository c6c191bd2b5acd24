"""What the CUDA kernel reads and writes, counted byte by byte: only what it must, each thread its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import data, to_torch
from host_chip import HostChip
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import launched, mixed, plans_on

import mixops as mx


def rows_touched(marks: np.ndarray, rows: int) -> np.ndarray:
    """(rows, bytes) bool of what was touched."""
    return (marks != 0).reshape(rows, -1)


def pairs(lam: Any = 0.3) -> mx.Plan:
    return mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4), lam=lam, partner=[3, 2, 1, 0])


def test_a_row_that_is_wholly_replaced_is_never_read() -> None:
    x = data("float32", (4, 3, 8, 16))
    replaced = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4), lam=[0, 1, 1, 1], partner=[3, 2, 1, 0])
    _, launch = mixed(x, replaced, "b c h w")
    assert rows_touched(launch.source["reader"], 4).all(1).tolist() == [False, True, True, True]
    assert not rows_touched(launch.source["reader"], 4)[0].any()
    assert launch.read == x.nbytes


def test_a_full_fill_reads_nothing_at_all() -> None:
    box = np.array([[[0, 8, 0, 16]]] * 4)
    plan = mx.Plan(np.arange(4), [[-1]] * 4, box, box, np.ones((4, 1)), np.zeros((4, 1)), (8, 16), 3.0)
    _, launch = mixed(data("float32", (4, 3, 8, 16)), plan, "b c h w")
    assert launch.read == 0


def test_patches_under_an_opaque_one_that_covers_them_are_not_read() -> None:
    box = np.array([[[0, 8, 0, 16]] * 3] * 4)
    partner, opacity = [[1, 2, -1]] * 2 + [[1, 2, 0]] * 2, [[1.0, 0.5, 1.0]] * 4
    plan = mx.Plan(np.arange(4), partner, box, box, opacity, np.zeros((4, 3)), (8, 16), 3.0)
    x = data("float32", (4, 3, 8, 16))
    _, launch = mixed(x, plan, "b c h w")
    assert launch.read == 2 * x[0].nbytes, "rows 2 and 3 read row 0, and nobody anything else"
    assert not rows_touched(launch.source["reader"], 4)[1:].any()


def test_a_donor_of_opacity_0_is_never_read() -> None:
    x = data("float32", (4, 64))
    _, launch = mixed(x, mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4), lam=1.0, partner=[3, 2, 1, 0]), "b d")
    assert launch.read == x.nbytes
    assert (launch.source["reader"] > 0).all(), "a row is read by more than the thread that writes it"


def test_a_donor_is_read_only_where_its_box_lies() -> None:
    x = data("uint8", (2, 1, 8, 32))
    plan = mx.CutMix().draw(np.random.default_rng(0), mx.Spec(2, (8, 32)), box=[2, 4, 16, 32], partner=[1, 1])
    _, launch = mixed(x, plan, "b c h w")
    # Row 1 reads itself; the box of row 0 is two vectors of 16 bytes, which cover what lies under them.
    assert launch.read == x.nbytes
    assert rows_touched(launch.source["reader"], 2)[0].sum() == 8 * 32 - 2 * 16


@given(st.data())
def test_every_element_is_written_once_and_read_at_most_once_a_patch(draw: st.DataObject) -> None:
    plan = draw.draw(plans_on(3, (8, 8)))
    for layout, to in (("b c h w", None), ("b h w c", mx.Output("b c h w", "float32", mean=0.5))):
        x = data("uint8", (3, 3, 8, 8) if layout == "b c h w" else (3, 8, 8, 3))
        result, launch = mixed(x, plan, layout, to=to)
        assert launch.written == result.nbytes
        assert (launch.result["writer"] != 0).all()
        assert launch.read <= (1 + plan.k) * x.nbytes


@pytest.mark.parametrize("chain", [mx.Mixup(per="sample"), mx.CutMix(per="sample"), mx.Mixup() | mx.Cutout(3)])
def test_a_mix_is_one_launch_of_two_reads_and_a_write_at_most(chain: Any) -> None:
    x = data("float32", (8, 3, 8, 16))
    plan = chain.draw(np.random.default_rng(0), mx.Spec.like(x, "b c h w"))
    _, launches = launched(to_torch(x), plan, "b c h w")
    (launch,) = launches
    assert launch.read <= 2 * x.nbytes
    assert launch.written == x.nbytes


# -- in place ---------------------------------------------------------------------------------------------------------


def in_place(x: np.ndarray, plan: Any, layout: str) -> Any:
    array = to_torch(x.copy())
    result, (launch,) = launched(array, plan, layout, out=array)
    assert result is array
    assert launch.form.pairs == 1
    return launch


def test_pairs_in_place_read_and_write_every_row_once() -> None:
    x = data("float32", (4, 3, 8, 16))
    launch = in_place(x, pairs(), "b c h w")
    assert (launch.read, launch.written) == (2 * x.nbytes, x.nbytes)
    assert (launch.source["reader"] > 0).all(), "a byte is read by two threads"
    np.testing.assert_array_equal(launch.source["reader"], launch.source["writer"])


def test_cutmix_in_place_touches_only_the_vectors_of_its_box() -> None:
    x = data("float32", (4, 1, 8, 16))
    plan = mx.CutMix().draw(np.random.default_rng(0), mx.Spec(4, (8, 16)), box=[2, 6, 6, 11], partner=[3, 2, 1, 0])
    launch = in_place(x, plan, "b c h w")
    box = np.zeros((8, 4), bool)
    box[2:6, 1:3] = True  # elements 6 to 10 of a line are its vectors 1 and 2
    touched = np.repeat(box.ravel(), 16)
    for row in rows_touched(launch.source["writer"], 4):
        np.testing.assert_array_equal(row, touched)
    assert launch.written == 4 * touched.sum()
    assert rows_touched(launch.source["reader"], 4).any(0).sum() == 32 * 16, "the others are gathered, and kept"


def test_fills_in_place_leave_the_rest_alone() -> None:
    x = data("uint8", (3, 3, 8, 16))
    plan = mx.Cutout(fraction=0.5, edge="inside", fill=9).draw(np.random.default_rng(0), mx.Spec(3, (8, 16)))
    launch = in_place(x, plan, "b c h w")
    inside = np.zeros((3, 3, 8, 1), bool)
    for n, (top, bottom, _, _) in enumerate(plan.box[:, 0]):
        inside[n, :, top:bottom] = True
    np.testing.assert_array_equal((launch.source["writer"] != 0).reshape(3, 3, 8, 16).any(-1, keepdims=True), inside)


def test_a_plan_of_nothing_in_place_writes_nothing() -> None:
    assert in_place(data("float32", (4, 64)), pairs(1.0), "b d").written == 0


# -- the chip that counts ---------------------------------------------------------------------------------------------


def test_the_host_chip_notices_what_the_kernel_must_not_do() -> None:
    x = torch.zeros(4, 64)
    _, (launch,) = launched(x, pairs(), "b d")

    def again(x: torch.Tensor, out: torch.Tensor) -> None:
        arguments = launch.arguments.copy()
        arguments["x"], arguments["out"] = x.data_ptr(), out.data_ptr()
        HostChip().launch(launch.form, launch.grid, launch.block, arguments, (x, None, None), out)

    out = torch.empty_like(x)
    again(x, out)
    for wrong, given_x, given_out in (
        ("beside the tensors", x[:3], out),
        ("beside the tensors", x, out[:3]),
        ("not aligned", torch.zeros(300)[1:257].view(4, 64), out),
        ("of another thread", x, x),
    ):
        with pytest.raises(AssertionError, match=wrong):
            again(given_x, given_out)
