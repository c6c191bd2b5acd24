"""What NVRTC makes of the kernel, on a machine without a GPU: it compiles, nothing spills, memory moves in 16 bytes.

Nothing here runs on a GPU: the numbers are the compiler's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from functools import cache

import pytest

from mixops import MixError
from mixops.backends.cuda.compiling import Compiled, architecture, compiled
from mixops.backends.cuda.form import FLOATS, STORES, TYPES, Form
from mixops.backends.cuda.recipe import BLOCK, WORDS, layout_of

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
#: Registers of a multiprocessor, of which a thread takes a multiple of 8.
REGISTERS = 65536
#: Bytes of arguments that a launch takes.
ARGUMENTS = 32764

FLOAT = Form("float32", "float32", 4, "SAME", 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1024, 0, 0)
HALF = replace(FLOAT, source="bfloat16", target="bfloat16", vec=8)
CUT = replace(HALF, rank=2, line=1)
MANY = replace(CUT, patches=0, fill=1)
BYTES = replace(MANY, source="uint8", vec=16, factors=2)
PLANES = replace(BYTES, vec=48, store="PLANES", channels=3, inside=3)
IDS = replace(FLOAT, source="int64", target="int64", vec=2, rank=1)


def pasting(dtype: str, vec: int, **others: int) -> Form:
    return replace(IDS, source=dtype, target=dtype, vec=vec, **others)


@dataclass(frozen=True)
class Case:
    """A form, and how many of its blocks a multiprocessor runs at a time, at least, by its registers.

    Args:
        form: what is compiled.
        blocks: on ARCHITECTURES. 4 is 1024 threads, half of what there can be: enough for a kernel that only moves
            memory. Bytes take more registers, as they are unpacked; each thread then has more of them on the way.
        stack: bytes of a thread's own memory. Only noise takes some: it is drawn in a loop, element by element.
    """

    form: Form
    blocks: tuple[int, int, int] = (4, 4, 4)
    stack: int = 0


CASES = {
    "whole rows": Case(FLOAT),
    "a box": Case(CUT),
    "a box, halves, along h": Case(replace(CUT, source="float16", target="float16", line=0, words=256)),
    "a volume that moves, doubles": Case(
        replace(FLOAT, source="float64", target="float64", vec=2, rank=3, line=2, shift=1, words=4096)
    ),
    "many patches and fills": Case(MANY),
    "many patches and noise": Case(replace(MANY, fill=2, axes=3), stack=32),
    "in place": Case(replace(CUT, pairs=1, words=0)),
    "in place, many patches and noise": Case(replace(MANY, pairs=1, fill=2, axes=3), (3, 3, 2), stack=32),
    "one factor": Case(replace(FLOAT, target="float16", vec=8, factors=1)),
    "many factors": Case(replace(HALF, source="float16", target="float32", factors=3)),
    "doubles to halves": Case(replace(FLOAT, source="float64", target="bfloat16", vec=4)),
    "bytes": Case(replace(BYTES, target="uint8", factors=0), (4, 4, 3)),
    "bytes normalised": Case(BYTES, (4, 4, 3)),
    "bytes normalised, channels inside": Case(replace(BYTES, target="float32", inside=3), (4, 4, 3)),
    "bytes to planes": Case(PLANES, (2, 2, 1)),
    "bytes to planes, one patch": Case(replace(PLANES, target="float32", patches=1, fill=0), (2, 2, 2)),
    "bytes to planes, noise": Case(replace(PLANES, fill=2, axes=3), (2, 2, 1), stack=192),
    "bytes to 4 planes": Case(replace(PLANES, vec=32, channels=4, inside=4, target="float16"), (2, 2, 1)),
    "bytes to 2 planes": Case(replace(PLANES, vec=32, channels=2, inside=2, factors=1, fill=0), (3, 3, 3)),
    "bytes to pixels": Case(replace(BYTES, store="PIXELS", channels=3), (2, 2, 2)),
    "bytes to pixels, noise": Case(replace(BYTES, store="PIXELS", channels=3, fill=2, axes=3), (2, 2, 2), stack=64),
    "floats to 4 places of a pixel": Case(replace(FLOAT, store="PIXELS", channels=4, rank=2, line=1, words=7936)),
    "any layout, noise, doubles": Case(
        replace(
            FLOAT, source="float64", target="float64", vec=1, store="ANY", rank=3, line=2, fill=2, axes=5, patches=0
        )
    ),
    "any layout, wide boxes": Case(replace(FLOAT, vec=1, store="ANY", rank=1, axes=3, wide=1)),
    "ids that move": Case(replace(IDS, shift=1)),
    "short ids that move": Case(pasting("uint16", 8, shift=1, fill=1, patches=0)),
    "masks": Case(pasting("bool", 16, valid=1)),
    "masks of numbers": Case(pasting("int8", 16, valid=1)),
}


def blocks(registers: int) -> int:
    return REGISTERS // (BLOCK * (-(-registers // 8) * 8))


@cache
def made(form: Form, target: str) -> Compiled:
    return compiled(form, target, ("--ptxas-options=-v",))


def counted(pattern: str, text: str) -> int:
    (found,) = re.findall(pattern, text)
    return int(found)


def wide_accesses(ptx: str, access: str) -> int:
    return len(re.findall(rf"{access}\.global(?:\.nc)?\.(?:v4\.\w32|v2\.\w64)", ptx))


def runs(form: Form) -> tuple[int, int]:
    """Bytes that lie together of what a thread reads and of what it writes."""
    size = {name: size_of(name) for name in (form.source, form.target)}
    written = form.vec
    if form.store == "PLANES":
        written //= form.channels
    if form.store == "PIXELS":
        written *= form.channels
    return form.vec * size[form.source], written * size[form.target]


def size_of(dtype: str) -> int:
    return 1 if dtype == "bool" or dtype.endswith("t8") else int(re.findall(r"\d+", dtype)[0]) // 8


@pytest.mark.parametrize("target", ARCHITECTURES)
@pytest.mark.parametrize("name", CASES)
def test_a_form_compiles_without_spills_and_moves_16_bytes_at_a_time(name: str, target: str) -> None:
    case = CASES[name]
    found, form = made(case.form, target), case.form
    spilled = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", found.log)
    assert len(spilled) == 1
    stack, *spills = map(int, spilled[0])
    assert spills == [0, 0]
    assert stack <= case.stack
    registers = counted(r"Used (\d+) registers", found.log)
    assert blocks(registers) >= case.blocks[ARCHITECTURES.index(target)], f"{registers} registers"
    read, written = runs(form)
    if read % 16 == 0:
        assert wide_accesses(found.ptx, "ld") >= read // 16
    if written % 16 == 0:
        assert wide_accesses(found.ptx, "st") >= written // 16


def test_the_forms_stand_for_every_value_of_every_field() -> None:
    forms = [case.form for case in CASES.values()]
    wanted = {
        "store": set(STORES),
        "vec": {1, 2, 4, 8, 16, 32, 48},
        "channels": {0, 2, 3, 4},
        "inside": {0, 2, 3, 4},
        "rank": {0, 1, 2, 3},
        "line": {0, 1, 2},
        "fill": {0, 1, 2},
        "factors": {0, 1, 2, 3},
        "words": {0, *WORDS},
    } | {field: {0, 1} for field in ("patches", "shift", "valid", "pairs", "wide")}
    assert {field: {getattr(form, field) for form in forms} for field in wanted} == wanted
    assert {f.name for f in fields(Form)} == {*wanted, "source", "target", "axes"}


@pytest.mark.parametrize(
    ("source", "target"),
    [(dtype, dtype) for dtype in TYPES]
    + [(source, target) for source in (*FLOATS, "uint8") for target in FLOATS if source != target],
)
def test_every_pair_of_dtypes_compiles(source: str, target: str) -> None:
    blends = source in FLOATS or source == "uint8"
    form = replace(IDS, source=source, target=target, vec=4, fill=1, shift=1, factors=int(blends and target in FLOATS))
    assert compiled(form, "sm_90").binary.startswith(b"\x7fELF")


@pytest.mark.parametrize("name", CASES)
def test_the_arguments_that_are_packed_are_those_that_the_kernel_declares(name: str) -> None:
    form = CASES[name].form
    declared = counted(r"\.param \.align 8 \.b8 mix_param_0\[(\d+)\]", made(form, "sm_90").ptx)
    assert declared == layout_of(form).itemsize <= ARGUMENTS


def test_an_element_at_a_time_moves_no_16_bytes() -> None:
    ptx = made(CASES["any layout, wide boxes"].form, "sm_90").ptx
    assert "ld.global" in ptx
    assert wide_accesses(ptx, "ld") == wide_accesses(ptx, "st") == 0


def test_what_nobody_writes_is_read_past_the_caches_of_writes_and_in_place_nothing_is() -> None:
    assert "ld.global.nc" in made(CUT, "sm_90").ptx
    in_place = made(replace(CUT, pairs=1), "sm_90").ptx
    assert "ld.global" in in_place
    assert "ld.global.nc" not in in_place


def test_a_kernel_that_does_not_compile_says_what_the_compiler_said() -> None:
    with pytest.raises(MixError, match=r"(?s)does not compile for sm_90 \(NVRTC_ERROR_COMPILATION\).*backend=.*error:"):
        compiled(replace(FLOAT, vec=0), "sm_90")
    with pytest.raises(MixError, match=r"for sm_12 \(NVRTC_ERROR_INVALID_OPTION\)"):
        compiled(FLOAT, "sm_12")


def test_a_gpu_gets_the_newest_architecture_of_its_generation_that_is_not_newer() -> None:
    supported = [75, 80, 86, 90, 100, 103, 120]
    assert architecture((8, 9), supported) == 86
    assert architecture((9, 0), supported) == 90
    assert architecture((10, 1), supported) == 100
    assert architecture((12, 0), supported) == 120
    assert architecture((7, 0), supported) is None
    assert architecture((13, 0), supported) is None
