"""Vector loops that Numba has no words for, written as LLVM: blends and copies of whole runs, stores past the cache.

A loop takes 64 bytes of the result at a time, then smaller bites, then single elements: any length, any alignment.
Where the chip has narrower vectors LLVM splits them. Element types are told by the Numba dtype of an empty array, as in
``kernels``: uint16 stands for bfloat16 bits, int16 for float16 bits, uint32 and uint64 for ids.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_X86 = platform.machine().lower() in ("x86_64", "amd64")
_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_F32, _F64 = ir.FloatType(), ir.DoubleType()
_STORED = {
    types.float32: _F32, types.float64: _F64, types.uint8: ir.IntType(8), types.uint16: _I16, types.int16: _I16,
    types.uint32: _I32, types.uint64: _I64,
}  # fmt: skip
SIZE = {
    types.float32: 4,
    types.float64: 8,
    types.uint8: 1,
    types.uint16: 2,
    types.int16: 2,
    types.uint32: 4,
    types.uint64: 8,
}
_LINE = 64
_IDS = (types.uint32, types.uint64)


class Emit:
    """The few vector instructions the loops are made of."""

    def __init__(self, builder: Any) -> None:
        self.b = builder

    def splat(self, value: Any, lanes: int) -> Any:
        one = self.b.insert_element(
            ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined), value, ir.Constant(_I32, 0)
        )
        zeros = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
        return self.b.shuffle_vector(one, ir.Constant(one.type, ir.Undefined), zeros)

    def number(self, kind: Any, value: float, lanes: int) -> Any:
        return ir.Constant(ir.VectorType(kind, lanes), [ir.Constant(kind, value)] * lanes)

    def load(self, address: Any, index: Any, dtype: Any, lanes: int) -> Any:
        kind = ir.VectorType(_STORED[dtype], lanes)
        return self.b.load(self._at(address, index, dtype, kind), align=1)

    def store(self, value: Any, address: Any, index: Any, dtype: Any, past_cache: bool) -> None:
        store = self.b.store(value, self._at(address, index, dtype, value.type), align=_LINE if past_cache else 1)
        if past_cache:
            store.set_metadata("nontemporal", self.b.module.add_metadata([ir.Constant(_I32, 1)]))

    def store_some(self, value: Any, address: Any, index: Any, count: Any, dtype: Any) -> None:
        """Store the first ``count`` lanes only."""
        lanes, size = value.type.count, SIZE[dtype]
        places = ir.Constant(ir.VectorType(_I32, lanes), [ir.Constant(_I32, i) for i in range(lanes)])
        mask = self.b.icmp_signed("<", places, self.splat(self.b.trunc(count, _I32), lanes))
        kind = ir.FunctionType(ir.VoidType(), [value.type, cgutils.voidptr_t, _I32, mask.type])
        letter = {_F32: "f32", _F64: "f64"}.get(_STORED[dtype], f"i{8 * size}")
        put = cgutils.get_or_insert_function(self.b.module, kind, f"llvm.masked.store.v{lanes}{letter}.p0")
        offset = self.b.mul(index, ir.Constant(_I64, size))
        to = self.b.inttoptr(self.b.add(address, offset), cgutils.voidptr_t)
        self.b.call(put, [value, to, ir.Constant(_I32, 1), mask])

    def joined(self, parts: list[Any]) -> Any:
        """A power of two vectors as one."""
        while len(parts) > 1:
            lanes = 2 * parts[0].type.count
            mask = ir.Constant(ir.VectorType(_I32, lanes), [ir.Constant(_I32, i) for i in range(lanes)])
            parts = [self.b.shuffle_vector(a, b, mask) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def every(self, parts: list[Any], start: int, lanes: int) -> Any:
        """Every n-th element of n vectors that follow one another, from one of the first n on."""
        hop, found = len(parts), parts[0]
        for i, part in enumerate(parts[1:], 1):
            picked = [self._pick(start + hop * lane, lane, i, lanes) for lane in range(lanes)]
            mask = ir.Constant(ir.VectorType(_I32, lanes), [ir.Constant(_I32, place) for place in picked])
            found = self.b.shuffle_vector(found, part, mask)
        return found

    @staticmethod
    def _pick(element: int, lane: int, part: int, lanes: int) -> int:
        """Where a lane comes from when vector ``part`` joins what has been found in those before it."""
        behind = element - part * lanes
        if 0 <= behind < lanes:
            return lanes + behind
        return element if part == 1 and behind < 0 else lane

    def _at(self, address: Any, index: Any, dtype: Any, kind: Any) -> Any:
        offset = self.b.mul(index, ir.Constant(_I64, SIZE[dtype]))
        return self.b.inttoptr(self.b.add(address, offset), kind.as_pointer())

    def widen(self, value: Any, dtype: Any, wide: Any, lanes: int) -> Any:
        """Stored elements as float32 or float64."""
        single, double = ir.VectorType(_F32, lanes), ir.VectorType(_F64, lanes)
        if dtype == types.uint16:
            bits = self.b.shl(self.b.zext(value, ir.VectorType(_I32, lanes)), self.number(_I32, 16, lanes))
            value = self.b.bitcast(bits, single)
        elif dtype == types.int16:
            value = self.b.fpext(self.b.bitcast(value, ir.VectorType(ir.HalfType(), lanes)), single)
        elif dtype == types.uint8:
            value = self.b.uitofp(value, single)
        if wide == types.float64 and dtype != types.float64:
            return self.b.fpext(value, double)
        if wide == types.float32 and dtype == types.float64:
            return self.b.fptrunc(value, single)
        return value

    def narrow(self, value: Any, dtype: Any, lanes: int, *, maybe_nan: bool = True) -> Any:
        """float32 rounded to the stored type; float32 and float64 are stored as they are."""
        if dtype == types.int16:
            return self.b.bitcast(
                self.b.fptrunc(value, ir.VectorType(ir.HalfType(), lanes)), ir.VectorType(_I16, lanes)
            )
        if dtype != types.uint16:
            return value
        # In integer steps, which beat most chips' own conversion, and flush nothing to zero.
        bits = self._rounded(value, lanes, maybe_nan=maybe_nan)
        words = self.b.bitcast(bits, ir.VectorType(_I16, 2 * lanes))
        upper = ir.Constant(ir.VectorType(_I32, lanes), [ir.Constant(_I32, 2 * i + 1) for i in range(lanes)])
        return self.b.shuffle_vector(words, ir.Constant(words.type, ir.Undefined), upper)

    def by_halves(self, own: Any, donor: Any, keep: Any, share: Any, lanes: int) -> Any:
        """keep·own + share·donor of bfloat16 numbers, taken by twos, so that none has to move to another lane.

        The upper one of two is a float32 as it stands, but for its lower bits; the lower one is a shift away.
        """
        b, pairs = self.b, lanes // 2
        two, high = ir.VectorType(_I32, pairs), self.number(_I32, 0xFFFF0000, pairs)
        floats, sixteen = ir.VectorType(_F32, pairs), self.number(_I32, 16, pairs)
        shares = [self.splat(v, pairs) for v in (keep, share)]
        both = [b.bitcast(v, two) for v in (own, donor)]
        halves = []
        for take in (lambda v: b.shl(v, sixteen), lambda v: b.and_(v, high)):
            one, other = (b.fmul(b.bitcast(take(v), floats), s) for v, s in zip(both, shares, strict=True))
            halves.append(self._rounded(b.fadd(one, other), pairs))
        lower, upper = b.lshr(halves[0], sixteen), b.and_(halves[1], high)
        return b.bitcast(b.or_(lower, upper), ir.VectorType(_I16, lanes))

    def _rounded(self, value: Any, lanes: int, *, maybe_nan: bool = True) -> Any:
        """float32 as bits of which the upper 16 are the nearest bfloat16, halves to even."""
        bits = self.b.bitcast(value, ir.VectorType(_I32, lanes))
        odd = self.b.and_(self.b.lshr(bits, self.number(_I32, 16, lanes)), self.number(_I32, 1, lanes))
        even = self.b.add(bits, self.b.add(odd, self.number(_I32, 0x7FFF, lanes)))
        if not maybe_nan:
            return even
        quiet = self.b.or_(bits, self.number(_I32, 0x400000, lanes))  # a NaN must not round to infinity
        return self.b.select(self.b.fcmp_unordered("uno", value, value), quiet, even)

    def blend_bytes(self, own: Any, donor: Any, q: Any, lanes: int) -> Any:
        """((2¹⁶ - q)·own + q·donor + 2¹⁵) >> 16 in 16-bit steps, for 0 <= q <= 2¹⁶.

        With gap = donor - own it is own + (q·gap + 2¹⁵ >> 16). As a signed 16-bit number q is q' = q or q - 2¹⁶; the
        product's high half, plus the top bit of its low half, is the rounded q'·gap >> 16; where q' fell short by
        2¹⁶ the gap is added once more.
        """
        b, short = self.b, ir.VectorType(_I16, lanes)
        one, other = b.zext(own, short), b.zext(donor, short)
        gap = b.sub(other, one)
        q16 = b.trunc(q, _I16)
        upper = b.icmp_signed(">=", q, ir.Constant(_I32, 1 << 15))
        times, again = self.splat(q16, lanes), self.splat(b.sext(upper, _I16), lanes)
        wide = ir.VectorType(_I32, lanes)
        product = b.mul(b.sext(gap, wide), b.sext(times, wide))
        high = b.trunc(b.lshr(product, self.number(_I32, 16, lanes)), short)
        carry = b.lshr(b.mul(gap, times), self.number(_I16, 15, lanes))
        total = b.add(b.add(one, b.and_(gap, again)), b.add(high, carry))
        return b.trunc(total, ir.VectorType(ir.IntType(8), lanes))


def _sweep(
    builder: Any,
    targets: list[Any],
    count: Any,
    dtype: Any,
    past_cache: Any,
    values: Callable[[Any, int], list[Any]],
    ahead: Any = None,
) -> None:
    """Store ``values(index, lanes)`` for the elements 0..count of each target, 64 bytes at a time.

    In cache, the first and the last 64 bytes are stored wherever they fall, what lies between on whole cache lines of
    the first target; they overlap. Both are computed before anything is stored, so that the targets may be what the
    values are made from. Short runs, and the ends of streamed ones, go by quarters and single elements.

    Args:
        past_cache: a bit: store whole lines past the cache; None: never.
        ahead: an address to ask for bytes from while storing, or None.
    """
    emit, size = Emit(builder), SIZE[dtype]
    lanes = _LINE // size

    def put(found: list[Any], index: Any, past: bool = False) -> None:
        for target, value in zip(targets, found, strict=True):
            emit.store(value, target, index, dtype, past)

    def bites(first: Any, stop: Any, lanes: int, line: str = "") -> Any:
        whole = builder.and_(builder.sub(stop, first), ir.Constant(_I64, -lanes))
        last = builder.add(first, whole)
        with cgutils.for_range_slice(builder, first, last, ir.Constant(_I64, lanes), _I64) as (index, _):
            put(values(index, lanes), index, line == "past")
            if line and ahead is not None:
                _fetch(builder, builder.add(ahead, builder.mul(index, ir.Constant(_I64, size))))
        return last

    zero, full = ir.Constant(_I64, 0), ir.Constant(_I64, lanes)
    gap = builder.and_(builder.neg(targets[0]), ir.Constant(_I64, _LINE - 1))
    first = builder.udiv(gap, ir.Constant(_I64, size))

    def few(start: Any) -> None:
        bites(bites(start, count, max(1, lanes // 4)), count, 1)

    def in_cache() -> None:
        with builder.if_else(builder.icmp_signed(">=", count, full)) as (long, short):
            with long:
                end = builder.sub(count, full)
                head, tail = values(zero, lanes), values(end, lanes)
                bites(first, count, lanes, "plain")
                put(head, zero)
                put(tail, end)
            with short:
                few(zero)

    if past_cache is None:
        in_cache()
        return
    # What is streamed must not be touched again through the cache: no overlap there. And an address that is no multiple
    # of the element's size never comes to a whole line.
    even = builder.icmp_signed("==", builder.mul(first, ir.Constant(_I64, size)), gap)
    with builder.if_else(builder.and_(past_cache, even)) as (streamed, cached):
        with streamed:
            start = builder.select(builder.icmp_signed("<", first, count), first, count)
            few(bites(bites(zero, start, 1), count, lanes, "past"))
        with cached:
            in_cache()


def call_once(builder: Any, name: str, args: list[Any], emit: Callable[[Any, list[Any]], None]) -> None:
    """Call a function of the module, emitted at the first call: a loop is compiled once, not at each place of use."""
    function = builder.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(ir.VoidType(), [a.type for a in args])
        function = ir.Function(builder.module, kind, name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        inner = ir.IRBuilder(function.append_basic_block())
        emit(inner, list(function.args))
        inner.ret_void()
    builder.call(function, args)


def _blender(builder: Any, share: Any, kind: Any, result: Any) -> Callable[[Any, Any, int], Any]:
    """(own, donor, lanes) -> blended vector of the type ``result``, for a share of the donor."""
    emit = Emit(builder)
    wide = types.float64 if result == types.float64 else types.float32
    if kind == result == types.uint8:
        scaled = builder.fmul(builder.fpext(share, _F64), ir.Constant(_F64, 65536.0))
        rint = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_F64, [_F64]), "llvm.rint.f64")
        q = builder.fptosi(builder.call(rint, [scaled]), _I32)
        return lambda own, donor, lanes: emit.blend_bytes(own, donor, q, lanes)
    if wide == types.float64:
        share = builder.fpext(share, _F64)
    keep = builder.fsub(ir.Constant(share.type, 1.0), share)

    def floats(own: Any, donor: Any, lanes: int) -> Any:
        if kind == result == types.uint16 and lanes > 1:
            return emit.by_halves(own, donor, keep, share, lanes)
        own, donor = (emit.widen(v, kind, wide, lanes) for v in (own, donor))
        mixed = builder.fadd(builder.fmul(own, emit.splat(keep, lanes)), builder.fmul(donor, emit.splat(share, lanes)))
        return emit.narrow(mixed, result, lanes)

    return floats


@intrinsic
def blend(
    typingctx: Any, target: Any, own: Any, donor: Any, count: Any, take: Any, past_cache: Any, like: Any, work: Any
) -> Any:
    """target = (1 - take)·own + take·donor for ``count`` elements; own may be the target; bytes in whole numbers."""
    kind, result = like.dtype, work.dtype

    def loop(builder: Any, args: list[Any]) -> None:
        to, one, other, many, share, past = args
        emit, mixed = Emit(builder), _blender(builder, share, kind, result)

        def values(index: Any, lanes: int) -> list[Any]:
            own, donor = (emit.load(address, index, kind, lanes) for address in (one, other))
            return [mixed(own, donor, lanes)]

        _sweep(builder, [to], many, result, past, values)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if kind not in _IDS:  # ids are never blended: execute has refused it
            call_once(builder, f"mixops.blend.{kind}.{result}", list(args[:-2]), loop)
        return context.get_dummy_value()

    whole = types.int64
    return types.void(whole, whole, whole, whole, types.float32, types.boolean, like, work), codegen


@intrinsic
def blend_both(typingctx: Any, one: Any, other: Any, count: Any, take: Any, take_other: Any, like: Any) -> Any:
    """Two rows that are each other's donors, in place: each is read once and written once."""
    kind = like.dtype

    def loop(builder: Any, args: list[Any]) -> None:
        a, b, many, share, share_other = args
        emit = Emit(builder)
        mix_a, mix_b = (_blender(builder, s, kind, kind) for s in (share, share_other))

        def values(index: Any, lanes: int) -> list[Any]:
            x, y = (emit.load(address, index, kind, lanes) for address in (a, b))
            return [mix_a(x, y, lanes), mix_b(y, x, lanes)]

        _sweep(builder, [a, b], many, kind, None, values)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if kind not in _IDS:
            call_once(builder, f"mixops.blend_both.{kind}", list(args[:-1]), loop)
        return context.get_dummy_value()

    whole, share = types.int64, types.float32
    return types.void(whole, whole, whole, share, share, like), codegen


@intrinsic
def swap(typingctx: Any, one: Any, other: Any, count: Any, like: Any) -> Any:
    """Exchange ``count`` elements of two rows."""
    kind = like.dtype

    def loop(builder: Any, args: list[Any]) -> None:
        a, b, many = args
        emit = Emit(builder)

        def values(index: Any, lanes: int) -> list[Any]:
            return [emit.load(address, index, kind, lanes) for address in (b, a)]

        _sweep(builder, [a, b], many, kind, None, values)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        call_once(builder, f"mixops.swap.{kind}", list(args[:-1]), loop)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, like), codegen


@intrinsic
def take_over(typingctx: Any, target: Any, source: Any, count: Any, past_cache: Any, like: Any, work: Any) -> Any:
    """target = source for ``count`` elements, from the type of ``like`` to that of ``work``; they must not overlap."""
    kind, result = like.dtype, work.dtype
    wide = types.float64 if result == types.float64 else types.float32

    def loop(builder: Any, args: list[Any]) -> None:
        to, start, many, past = args
        emit = Emit(builder)

        def values(index: Any, lanes: int) -> list[Any]:
            found = emit.load(start, index, kind, lanes)
            return [found if kind == result else emit.narrow(emit.widen(found, kind, wide, lanes), result, lanes)]

        _sweep(builder, [to], many, result, past, values)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        call_once(builder, f"mixops.take_over.{kind}.{result}", list(args[:-2]), loop)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.boolean, like, work), codegen


@intrinsic
def paint(typingctx: Any, target: Any, value: Any, count: Any, past_cache: Any, like: Any) -> Any:
    """target = value for ``count`` elements; the value is of the type of ``like``."""
    kind = like.dtype

    def loop(builder: Any, args: list[Any]) -> None:
        to, one, many, past = args
        emit = Emit(builder)
        _sweep(builder, [to], many, kind, past, lambda index, lanes: [emit.splat(one, lanes)])

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        call_once(builder, f"mixops.paint.{kind}", list(args[:-1]), loop)
        return context.get_dummy_value()

    return types.void(types.int64, kind, types.int64, types.boolean, like), codegen


def _fetch(builder: Any, address: Any, for_writing: int = 0) -> None:
    kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, _I32, _I32, _I32])
    hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    to = builder.inttoptr(address, cgutils.voidptr_t)
    builder.call(hint, [to, *(ir.Constant(_I32, v) for v in (for_writing, 3, 1))])


@intrinsic
def fetch(typingctx: Any, address: Any, for_writing: Any) -> Any:
    """Ask for the 64 bytes at an address ahead of their use. ``for_writing`` is a literal."""
    if not isinstance(for_writing, types.Literal):
        return None
    write = int(for_writing.literal_value)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _fetch(builder, args[0], write)
        return context.get_dummy_value()

    return types.void(types.int64, for_writing), codegen


@intrinsic
def send(typingctx: Any, target: Any, source: Any, count: Any, ahead: Any, like: Any) -> Any:
    """Copy ``count`` elements past the cache and meanwhile ask for the bytes from ``ahead`` on.

    Memory would otherwise lie idle: nothing is read while a painted unit is written, and the other way round.
    """
    kind = like.dtype

    def loop(builder: Any, args: list[Any]) -> None:
        to, start, many, coming = args
        emit, always = Emit(builder), ir.Constant(ir.IntType(1), 1)
        _sweep(builder, [to], many, kind, always, lambda index, lanes: [emit.load(start, index, kind, lanes)], coming)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        call_once(builder, f"mixops.send.{kind}", list(args[:-1]), loop)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, like), codegen


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
def load_one(typingctx: Any, value: Any) -> Any:
    """One stored element as a float."""
    wide = types.float64 if value == types.float64 else types.float32

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        vector = emit.splat(args[0], 1)
        return builder.extract_element(emit.widen(vector, value, wide, 1), ir.Constant(_I32, 0))

    return wide(value), codegen


@intrinsic
def half_bits(typingctx: Any, value: Any, like: Any) -> Any:
    """A float32 rounded to the bits of the half type that ``like`` stands for."""
    kind = like.dtype

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        return builder.extract_element(emit.narrow(emit.splat(args[0], 1), kind, 1), ir.Constant(_I32, 0))

    return kind(types.float32, like), codegen
