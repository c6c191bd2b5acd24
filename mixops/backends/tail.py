"""The way out of a painted unit: normalise, cast and lay out, whole vectors at a time and past the cache if asked."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .elements import store
from .vector import SIZE, Emit, call_once, load_one, pointer

_I1, _I64 = ir.IntType(1), ir.IntType(64)
_F32, _F64 = ir.FloatType(), ir.DoubleType()
_LINE = 64


def _laying(name: str, hop: int, *, periodic: bool = False) -> Any:
    """An intrinsic that lays out every ``hop``-th element of a painted unit, from its start on.

    The unit is read up to a vector beyond its end. Vectors start on the target's cache lines; what lies before the
    first and after the last whole one is written under a mask, so that a line is never written half past the cache.
    """

    def lay(
        typingctx: Any,
        target: Any,
        start: Any,
        count: Any,
        period: Any,
        scale: Any,
        shift: Any,
        past: Any,
        work: Any,
        result: Any,
    ) -> Any:
        kind, out = work.dtype, result.dtype
        scaled = not isinstance(scale, types.NoneType)

        def values(builder: Any, args: list[Any], index: Any, lanes: int) -> Any:
            # Pieces of one register each: taken apart any wider, the every-third pick costs several times as much.
            piece = min(lanes, _LINE // SIZE[kind])
            found = [
                some(builder, args, builder.add(index, ir.Constant(_I64, first)), piece)
                for first in range(0, lanes, piece)
            ]
            return Emit(builder).joined(found)

        def some(builder: Any, args: list[Any], index: Any, lanes: int) -> Any:
            emit, at = Emit(builder), args[1]
            if hop > 1:
                index = builder.mul(index, ir.Constant(_I64, hop))
            parts = [emit.load(at, builder.add(index, ir.Constant(_I64, i * lanes)), kind, lanes) for i in range(hop)]
            value = emit.every(parts, lanes)
            if kind == out and not scaled:
                return value
            wide = types.float64 if kind == types.float64 else types.float32
            value = emit.widen(value, kind, wide, lanes)
            if scaled:
                every, factor, term = args[3:6]
                if periodic:
                    phase = builder.urem(index, every)
                    factor, term = (emit.load(table, phase, wide, lanes) for table in (factor, term))
                else:
                    factor, term = emit.splat(factor, lanes), emit.splat(term, lanes)
                value = builder.fadd(builder.fmul(value, factor), term)
            if wide == types.float64 and out != types.float64:
                value = builder.fptrunc(value, ir.VectorType(_F32, lanes))
            elif wide == types.float32 and out == types.float64:
                value = builder.fpext(value, ir.VectorType(_F64, lanes))
            return emit.narrow(value, out, lanes)

        def loop(builder: Any, args: list[Any]) -> None:
            to, many, past = args[0], args[2], args[6]
            emit, size = Emit(builder), SIZE[out]
            lanes = _LINE // size
            gap = builder.and_(builder.neg(to), ir.Constant(_I64, _LINE - 1))
            first = builder.udiv(gap, ir.Constant(_I64, size))
            even = builder.icmp_signed("==", builder.mul(first, ir.Constant(_I64, size)), gap)
            first = builder.select(builder.icmp_signed("<", first, many), first, many)
            first = builder.select(even, first, ir.Constant(_I64, 0))
            whole = builder.and_(builder.sub(many, first), ir.Constant(_I64, -lanes))
            last = builder.add(first, whole)

            def masked(index: Any, stop: Any) -> None:
                with builder.if_then(builder.icmp_signed("<", index, stop)):
                    emit.store_some(values(builder, args, index, lanes), to, index, builder.sub(stop, index), out)

            def body(past_cache: bool) -> None:
                step = ir.Constant(_I64, lanes)
                with cgutils.for_range_slice(builder, first, last, step, _I64) as (index, _):
                    emit.store(values(builder, args, index, lanes), to, index, out, past_cache)

            masked(ir.Constant(_I64, 0), first)
            with builder.if_else(builder.and_(past, even)) as (streamed, cached):
                with streamed:
                    body(True)
                with cached:
                    body(False)
            masked(last, many)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            given = list(args[:7])
            if not scaled:
                given[4] = given[5] = ir.Constant(_I1, 0)
            call_once(builder, f"mixops.{name}.{kind}.{out}.{scaled}", given, loop)
            return context.get_dummy_value()

        whole = types.int64
        asked = [whole, whole, whole, whole, scale, shift, types.boolean, work, result]
        return types.void(*asked), codegen

    return intrinsic(lay)


_lay_each = _laying("lay_each", 1)
_lay_third = _laying("lay_third", 3)
_lay_periodic = _laying("lay_periodic", 1, periodic=True)


@njit(nogil=True)
def finish_lines(start, painted_at, elements, channel, run, scale, shift, strides, past_cache, work, like_out):
    """Normalise, cast and lay out painted elements that follow one another here and in the result, from ``start`` on.

    Where ``scale`` goes on beyond its channels it repeats them: elements lie as they did, and a vector takes its
    factors from there, wherever it begins.
    """
    _, _, inner, post, _ = run
    along, within = strides
    size = like_out.itemsize
    count = elements // inner
    flat = inner == 1 or (within == size and along == inner * size)
    if scale is None:
        if flat and along == inner * size:
            _lay_each(start, painted_at, elements, 0, None, None, past_cache, work, like_out)
            return
        if inner == 3 and along == size:
            for i in range(inner):
                at = painted_at + i * work.itemsize
                _lay_third(start + i * within, at, count, 0, None, None, past_cache, work, like_out)
            return
    else:
        first = (channel if channel >= 0 else 0) % len(scale)
        if flat and along == inner * size:
            if channel >= 0 or len(scale) == 1:
                _lay_each(start, painted_at, elements, 0, scale[first], shift[first], past_cache, work, like_out)
                return
            if len(scale) > inner:
                factors, terms = scale.ctypes.data, shift.ctypes.data
                _lay_periodic(start, painted_at, elements, inner, factors, terms, past_cache, work, like_out)
                return
        if inner == 3 and along == size:
            for i in range(inner):
                c = first if channel >= 0 else i // post % len(scale)
                at = painted_at + i * work.itemsize
                _lay_third(start + i * within, at, count, 0, scale[c], shift[c], past_cache, work, like_out)
            return
    _scatter(start, painted_at, count, channel, run, scale, shift, strides, work, like_out)


@njit(nogil=True)
def _scatter(start, painted_at, count, channel, run, scale, shift, strides, work, like_out):
    """The same for places that lie apart in the result, or hold another number of elements."""
    _, _, inner, post, _ = run
    painted = carray(pointer(painted_at), count * inner, work.dtype)
    along, within = strides
    size = like_out.itemsize
    packed = along == size
    hop = 1 if packed else along // size
    for i in range(inner):
        piece = carray(pointer(start + i * within), (count - 1) * hop + 1, like_out.dtype)
        if scale is None:
            for j in range(count):
                piece[j * hop] = _recast(painted[j * inner + i], like_out)
        else:
            c = (channel if channel >= 0 else i // post) % len(scale)
            a, b = scale[c], shift[c]
            if packed:  # a loop of its own: only where the step is known to be 1 does it become vectors
                for j in range(count):
                    piece[j] = store(painted[j * inner + i] * a + b, like_out)
            else:
                for j in range(count):
                    piece[j * hop] = store(painted[j * inner + i] * a + b, like_out)


def _recast(value, like): ...


@overload(_recast)
def _recast_impl(value, like):
    if value == like.dtype:
        return lambda value, like: value
    return lambda value, like: store(load_one(value), like)
