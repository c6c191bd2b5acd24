"""The way out of a painted unit: normalise, cast and lay out, whole vectors at a time and past the cache if asked."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from ..disk_cache import kept_callback
from .elements import store
from .raw import pointer
from .vector import SIZE, Emit, call_once, load_one

_I64 = ir.IntType(64)
_F32, _F64 = ir.FloatType(), ir.DoubleType()
_LINE = 64


def _laying(name: str, hop: int = 1, targets: int = 1, *, periodic: bool = False) -> Any:
    """An intrinsic that lays out a painted unit.

    The unit is read up to a vector beyond its end. Vectors start on the target's cache lines; what lies before the
    first and after the last whole one is written under a mask, so that a line is never written half past the cache.

    Args:
        name: of the loop.
        hop: every so many elements one goes out.
        targets: 1: the elements at 0, hop, 2·hop …; as many as hop: those at 1, 1 + hop … too, each to a target of its
            own. The targets lie alike within their cache lines.
        periodic: the factors of element i are those at i modulo a period; else each target has one.
    """

    def lay(
        typingctx: Any,
        target: Any,
        apart: Any,
        start: Any,
        count: Any,
        period: Any,
        scale: Any,
        shift: Any,
        past: Any,
        like: Any,
        work: Any,
        result: Any,
    ) -> Any:
        kind, out = work.dtype, result.dtype
        scaled = not isinstance(scale, types.NoneType)
        wide = types.float64 if kind == types.float64 else types.float32

        def values(builder: Any, args: list[Any], index: Any, lanes: int) -> list[Any]:
            """The vectors that go to each target at an index."""
            # Pieces of one register each: taken apart any wider, the pick costs several times as much.
            piece = min(lanes, _LINE // SIZE[kind])
            pieces = [
                some(builder, args, builder.add(index, ir.Constant(_I64, first)), piece)
                for first in range(0, lanes, piece)
            ]
            whole = [Emit(builder).joined(list(found)) for found in zip(*pieces, strict=True)]
            if kind == out and not scaled:
                return whole
            nan = like.dtype != types.uint8
            return [Emit(builder).narrow(value, out, lanes, maybe_nan=nan) for value in whole]

        def some(builder: Any, args: list[Any], index: Any, lanes: int) -> list[Any]:
            emit, (at, period) = Emit(builder), (args[2], args[4])
            if hop > 1:
                index = builder.mul(index, ir.Constant(_I64, hop))
            parts = [emit.load(at, builder.add(index, ir.Constant(_I64, i * lanes)), kind, lanes) for i in range(hop)]
            found = []
            for i in range(targets):
                value = emit.every(parts, i, lanes)
                if kind != out or scaled:
                    value = emit.widen(value, kind, wide, lanes)
                    if scaled:
                        place = builder.urem(index, period) if periodic else builder.mul(ir.Constant(_I64, i), period)
                        factor, term = (emit.load(table, place, wide, lanes if periodic else 1) for table in args[5:7])
                        if not periodic:
                            first = ir.Constant(_I64, 0)
                            factor, term = (
                                emit.splat(builder.extract_element(v, first), lanes) for v in (factor, term)
                            )
                        value = builder.fadd(builder.fmul(value, factor), term)
                    value = recast(builder, value, lanes)
                found.append(value)
            return found

        def recast(builder: Any, value: Any, lanes: int) -> Any:
            if wide == types.float64 and out != types.float64:
                return builder.fptrunc(value, ir.VectorType(_F32, lanes))
            if wide == types.float32 and out == types.float64:
                return builder.fpext(value, ir.VectorType(_F64, lanes))
            return value

        def loop(builder: Any, args: list[Any]) -> None:
            to, apart, many, past = args[0], args[1], args[3], args[7]
            emit, size = Emit(builder), SIZE[out]
            lanes = _LINE // size
            places = [builder.add(to, builder.mul(ir.Constant(_I64, i), apart)) for i in range(targets)]
            gap = builder.and_(builder.neg(to), ir.Constant(_I64, _LINE - 1))
            first = builder.udiv(gap, ir.Constant(_I64, size))
            even = builder.icmp_signed("==", builder.mul(first, ir.Constant(_I64, size)), gap)
            first = builder.select(builder.icmp_signed("<", first, many), first, many)
            first = builder.select(even, first, ir.Constant(_I64, 0))
            whole = builder.and_(builder.sub(many, first), ir.Constant(_I64, -lanes))
            last = builder.add(first, whole)

            def masked(index: Any, stop: Any) -> None:
                with builder.if_then(builder.icmp_signed("<", index, stop)):
                    some = builder.sub(stop, index)
                    for value, place in zip(values(builder, args, index, lanes), places, strict=True):
                        emit.store_some(value, place, index, some, out)

            def body(past_cache: bool) -> None:
                step = ir.Constant(_I64, lanes)
                with cgutils.for_range_slice(builder, first, last, step, _I64) as (index, _):
                    for value, place in zip(values(builder, args, index, lanes), places, strict=True):
                        emit.store(value, place, index, out, past_cache)

            masked(ir.Constant(_I64, 0), first)
            with builder.if_else(builder.and_(past, even)) as (streamed, cached):
                with streamed:
                    body(True)
                with cached:
                    body(False)
            masked(last, many)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            given = list(args[:8])
            if not scaled:
                given[5] = given[6] = ir.Constant(_I64, 0)
            call_once(builder, f"mixops.{name}.{kind}.{out}.{like.dtype}.{scaled}", given, loop)
            return context.get_dummy_value()

        whole = types.int64
        asked = [whole, whole, whole, whole, whole, scale, shift, types.boolean, like, work, result]
        return types.void(*asked), codegen

    return intrinsic(lay)


_lay_each = _laying("lay_each")
_lay_repeating = _laying("lay_repeating", periodic=True)
_lay_third = _laying("lay_third", 3)
_lay_thirds = _laying("lay_thirds", 3, 3)


def way_of(inner: int, post: int, strides: tuple[int, int], size: int, in_line: bool, factors: int) -> str:
    """How lines are laid out; places hold ``inner`` elements, channels of ``post``.

    Args:
        inner, post: elements of a place, and of a channel of it.
        strides: bytes in the result from place to place, and within a place.
        size: bytes of an element of the result.
        in_line: do channels lie inside a line?
        factors: how many factors there are, 1 if they change nothing.

    Returns:
        "each": elements stay as they lie, with one factor for a line; "repeating": with the factors of a place over and
        over; "third": every third goes to one of three places; "thirds": which lie alike within their cache lines;
        "any": whatever else.
    """
    along, within = strides
    if along == inner * size and (inner == 1 or within == size):
        if not in_line or factors == 1:
            return "each"
        return "repeating" if inner == factors and post == 1 else "any"
    if inner == 3 and along == size and (post == 1 or factors == 1):
        return "third" if within % _LINE else "thirds"
    return "any"


#: What a finisher is called with: where the first element goes, where it was painted, how many elements there are, the
#: line's channel (-1: channels lie inside it), and the address of int64s: elements of a place and of a channel of it,
#: bytes in the result from place to place and within one, past the cache?, factors, addresses of scale and shift.
_CALL = types.void(*[types.int64] * 5)
_INNER, _POST, _ALONG, _WITHIN, _PAST, _FACTORS, _SCALE, _SHIFT = range(8)


@cache
def finisher(way: str, like: np.dtype, work: np.dtype, out: np.dtype, scaled: bool) -> int:
    """The address of a function that normalises, casts and lays out painted elements that follow one another.

    It is compiled apart from the kernel that calls it: there are as many kernels as inputs and plans, not times tails.

    Args:
        way: see way_of.
        like, work, out: element types of the input, of painted units and of the result.
        scaled: are there factors?
    """
    kinds = [np.empty(0, kind) for kind in (like, work, out)]
    made = kept_callback(_CALL, _WAYS[way](*kinds, scaled))
    _FINISHERS.append(made)  # the address is good only as long as it lives
    return made.address


def finishers() -> list[Any]:
    """What has been compiled, or found on disk, in this process."""
    return list(_FINISHERS)


_FINISHERS: list[Any] = []


@njit(nogil=True)
def _factor(form, which, channel, i, work):
    """The address of a factor, of the type of ``work``: the line's; channel i's where channels lie inside the line."""
    c = (channel if channel >= 0 else i) % form[_FACTORS]
    return form[which] + c * work.itemsize


def _each(like, work, out, scaled):
    def each(start, painted_at, elements, channel, info):
        form = carray(pointer(info), 8, np.int64)
        past = form[_PAST] != 0
        if scaled:
            a, b = _factor(form, _SCALE, channel, 0, work), _factor(form, _SHIFT, channel, 0, work)
            _lay_each(start, 0, painted_at, elements, 0, a, b, past, like, work, out)
        else:
            _lay_each(start, 0, painted_at, elements, 0, None, None, past, like, work, out)

    return each


def _repeating(like, work, out, scaled):
    def repeating(start, painted_at, elements, channel, info):
        form = carray(pointer(info), 8, np.int64)
        a, b = form[_SCALE], form[_SHIFT]
        _lay_repeating(start, 0, painted_at, elements, form[_INNER], a, b, form[_PAST] != 0, like, work, out)

    return repeating


def _third(like, work, out, scaled):
    def third(start, painted_at, elements, channel, info):
        form = carray(pointer(info), 8, np.int64)
        past = form[_PAST] != 0
        for i in range(3):
            to, at = start + i * form[_WITHIN], painted_at + i * work.itemsize
            if scaled:
                a, b = _factor(form, _SCALE, channel, i, work), _factor(form, _SHIFT, channel, i, work)
                _lay_third(to, 0, at, elements // 3, 0, a, b, past, like, work, out)
            else:
                _lay_third(to, 0, at, elements // 3, 0, None, None, past, like, work, out)

    return third


def _thirds(like, work, out, scaled):
    def thirds(start, painted_at, elements, channel, info):
        form = carray(pointer(info), 8, np.int64)
        past, count, within = form[_PAST] != 0, elements // 3, form[_WITHIN]
        if scaled:
            a, b = _factor(form, _SCALE, channel, 0, work), _factor(form, _SHIFT, channel, 0, work)
            step = 1 if channel < 0 and form[_FACTORS] > 1 else 0
            _lay_thirds(start, within, painted_at, count, step, a, b, past, like, work, out)
        else:
            _lay_thirds(start, within, painted_at, count, 0, None, None, past, like, work, out)

    return thirds


def _any(like, work, out, scaled):
    def anything(start, painted_at, elements, channel, info):
        form = carray(pointer(info), 8, np.int64)
        inner, post, along, size = form[_INNER], form[_POST], form[_ALONG], out.itemsize
        painted, count = carray(pointer(painted_at), elements, work.dtype), elements // inner
        packed = along == size
        hop = 1 if packed else along // size
        for i in range(inner):
            piece = carray(pointer(start + i * form[_WITHIN]), (count - 1) * hop + 1, out.dtype)
            if scaled:
                c = i // post
                a = load_number(_factor(form, _SCALE, channel, c, work), work)
                b = load_number(_factor(form, _SHIFT, channel, c, work), work)
                if packed:  # a loop of its own: only where the step is known to be 1 does it become vectors
                    for j in range(count):
                        piece[j] = store(painted[j * inner + i] * a + b, out)
                else:
                    for j in range(count):
                        piece[j * hop] = store(painted[j * inner + i] * a + b, out)
            else:
                for j in range(count):
                    piece[j * hop] = _recast(painted[j * inner + i], out)

    return anything


_WAYS = {"each": _each, "repeating": _repeating, "third": _third, "thirds": _thirds, "any": _any}


@njit(nogil=True)
def load_number(address, work):
    """The painted number at an address."""
    return carray(pointer(address), 1, work.dtype)[0]


def _recast(value, like): ...


@overload(_recast)
def _recast_impl(value, like):
    if value == like.dtype:
        return lambda value, like: value
    return lambda value, like: store(load_one(value), like)
