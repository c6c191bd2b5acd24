"""Machine-level pieces that Numba has no words for: raw addresses, bit casts, half floats, stores past the cache."""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_X86 = platform.machine().lower() in ("x86_64", "amd64")
_LANES = ir.VectorType(ir.IntType(32), 16)


@intrinsic
def pointer(typingctx: Any, address: Any) -> Any:
    """An address (int64) as the pointer that ``numba.carray`` takes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


@intrinsic
def copy_bytes(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """memcpy between two addresses that do not overlap."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, start = (builder.inttoptr(a, cgutils.voidptr_t) for a in args[:2])
        cgutils.raw_memcpy(builder, to, start, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def _stream_lane(typingctx: Any, target: Any, source: Any) -> Any:
    """Move 64 bytes to a 64-byte aligned address without reading it into the cache first."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, start = (builder.inttoptr(a, _LANES.as_pointer()) for a in args)
        value = builder.load(start, align=1)
        store = builder.store(value, to, align=64)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def fence(typingctx: Any) -> Any:
    """Make streamed stores visible before whatever comes next; other chips than x86 order them themselves."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _X86:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.sfence"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def float_of_bits(typingctx: Any, bits: Any) -> Any:
    """uint32 bits as the float32 they spell."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), codegen


@intrinsic
def bits_of_float(typingctx: Any, value: Any) -> Any:
    """The bits of a float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), codegen


@intrinsic
def float_of_half(typingctx: Any, bits: Any) -> Any:
    """int16 bits of a float16 as float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.int16), codegen


@intrinsic
def half_of_float(typingctx: Any, value: Any) -> Any:
    """A float32 rounded to float16, as int16 bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.int16(types.float32), codegen


@njit(nogil=True)
def stream(target: int, source: int, count: int) -> None:
    """Copy ``count`` bytes to memory that will not be read soon, past the cache; the caller fences once at the end."""
    head = min((-target) & 63, count)
    if head:
        copy_bytes(target, source, head)
    stop = head + ((count - head) & ~63)
    for at in range(head, stop, 64):
        _stream_lane(target + at, source + at)
    if stop < count:
        copy_bytes(target + stop, source + stop, count - stop)
