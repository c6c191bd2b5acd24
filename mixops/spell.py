"""Operators written as text, for command lines and settings files: parsed with ``ast``, never evaluated."""

from __future__ import annotations

import ast
import inspect
from difflib import get_close_matches
from typing import Any

from . import ops
from .errors import MixTypeError, MixValueError
from .ops import Operator

_FORM = 'expected calls of operators joined with |, such as "OneOf([Mixup(0.8), CutMix(1.0)]) | Cutout(16)"'
#: A text beyond these is a mistake, or an attempt to exhaust the parser.
MOST_CHARACTERS, DEEPEST, LARGEST = 4096, 32, 1 << 63


def operators() -> dict[str, type[Operator]]:
    """The operators that ``parse_op`` knows, by name: every class of the library that can be drawn from.

    Example:
        >>> sorted(operators())[:3]
        ['Chain', 'CutMix', 'Cutoff']
    """
    public = {name: getattr(ops, name) for name in ops.__all__}
    return {
        name: kind
        for name, kind in public.items()
        if isinstance(kind, type) and issubclass(kind, Operator) and not inspect.isabstract(kind)
    }


def parse_op(text: str) -> Operator:
    """Read an operator from text, ``repr(op)`` or what a person types; nothing in the text is run.

    Args:
        text: calls of operators with numbers, words, lists, tuples and sets, joined with ``|``; at most 4096
            characters. The names may be written with or without ``mx.`` in front.

    Returns:
        The operator; ``parse_op(repr(op)) == op``.

    Raises:
        MixError: if the text is no such expression, names an unknown operator or parameter, or an operator refuses its
            parameters. The message says where.

    Example:
        >>> parse_op("OneOf([Mixup(0.8), CutMix(1.0)]) | Cutout(16)")
        Chain([OneOf([Mixup(alpha=0.8), CutMix()]), Cutout(size=16)])
    """
    if not isinstance(text, str):
        raise MixTypeError(f'parse_op: got {type(text).__name__}, expected text such as "Mixup(0.8) | Cutout(16)"')
    if len(text) > MOST_CHARACTERS:
        raise MixValueError(f"operator text of {len(text)} characters: expected at most {MOST_CHARACTERS}")
    text = text.strip()
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        place = max(error.lineno or 1, 1), max(error.offset or 1, 1) - 1
        raise _refusal(text, place, f"{error.msg}; {_FORM}") from None
    except (ValueError, MemoryError, RecursionError) as error:  # null bytes; nesting beyond the parser's own limits
        raise _refusal(text, (1, 0), f"{str(error) or 'nested too deeply'}; {_FORM}") from None
    reader = _Reader(text)
    value = reader.read(tree.body, 0)
    if not isinstance(value, Operator):
        raise reader.refuse(tree.body, f"{reader.source(tree.body)} is no operator; {_FORM}")
    return value


def _refusal(text: str, place: tuple[int, int], what: str) -> MixValueError:
    """The error for something at (line from 1, character from 0), with a piece of the text around it."""
    line, column = place
    lines = text.splitlines() or [""]
    row = lines[min(line, len(lines)) - 1]
    start = max(0, column - 20)
    near = ("…" if start else "") + row[start : column + 20] + ("…" if len(row) > column + 20 else "")
    where = f"character {column + 1}" if len(lines) == 1 else f"line {line}, character {column + 1}"
    return MixValueError(f"operator text, {where} (near {near!r}): {what}")


def _suggestion(word: str, known: list[str]) -> str:
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), by_lower, 1)
    return f"did you mean {by_lower[close[0]]}? " if close else ""


class _Reader:
    """Turns the few kinds of syntax that are allowed into values."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.known = operators()

    def refuse(self, node: ast.expr, what: str) -> MixValueError:
        line = (self.text.splitlines() or [""])[node.lineno - 1]
        column = len(line.encode()[: node.col_offset].decode(errors="ignore"))  # ast counts bytes, people characters
        return _refusal(self.text, (node.lineno, column), what)

    def source(self, node: ast.expr) -> str:
        """The beginning of what was written there."""
        return (ast.get_source_segment(self.text, node) or "")[:40]

    def read(self, node: ast.expr, depth: int) -> Any:
        if depth > DEEPEST:
            raise self.refuse(node, f"nested more than {DEEPEST} deep")
        if isinstance(node, ast.Constant):
            return self._constant(node)
        if isinstance(node, ast.UnaryOp):
            return self._negative(node, depth)
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            items = [self.read(item, depth + 1) for item in node.elts]
            if isinstance(node, ast.Set):
                return self._set(node, items)
            return items if isinstance(node, ast.List) else tuple(items)
        if isinstance(node, ast.BinOp):
            return self._chain(node, depth)
        if isinstance(node, ast.Call):
            return self._call(node, depth)
        raise self.refuse(node, f"{self.source(node)!r} is not allowed; {_FORM}")

    def _constant(self, node: ast.Constant) -> Any:
        value = node.value
        if value is not None and not isinstance(value, (bool, int, float, str)):
            raise self.refuse(node, f"a value of type {type(value).__name__} is not allowed")
        if isinstance(value, int) and value >= LARGEST:
            raise self.refuse(node, "this whole number is beyond 2**63 - 1")
        return value

    def _set(self, node: ast.Set, items: list[Any]) -> set[Any]:
        if not all(isinstance(item, (int, float, str)) for item in items):
            raise self.refuse(node, "a set may hold numbers and words only")
        return set(items)

    def _negative(self, node: ast.UnaryOp, depth: int) -> Any:
        value = self.read(node.operand, depth + 1)
        if (
            not isinstance(node.op, (ast.USub, ast.UAdd))
            or isinstance(value, bool)
            or not isinstance(value, (int, float))
        ):
            raise self.refuse(node, "only a number can have a sign")
        return -value if isinstance(node.op, ast.USub) else value

    def _chain(self, node: ast.BinOp, depth: int) -> Operator:
        """a | b | c; the tree leans to the left, and a long chain is no deep nesting."""
        parts: list[ast.expr] = []
        left: ast.expr = node
        while isinstance(left, ast.BinOp):
            if not isinstance(left.op, ast.BitOr):
                raise self.refuse(left, "operators are joined with | only")
            parts.append(left.right)
            left = left.left
        chain = [self.read(part, depth + 1) for part in (left, *reversed(parts))]
        for part, value in zip((left, *reversed(parts)), chain, strict=True):
            if not isinstance(value, Operator):
                raise self.refuse(part, f"{self.source(part)!r} is no operator, and | joins operators")
        return ops.Chain(tuple(chain))

    def _call(self, node: ast.Call, depth: int) -> Operator:
        name = self._name(node.func)
        parameters = inspect.signature(self.known[name]).parameters
        args = [self.read(arg, depth + 1) for arg in node.args]
        keywords: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self.refuse(keyword.value, f"** is not allowed; {_FORM}")
            if keyword.arg not in parameters:
                hint = _suggestion(keyword.arg, list(parameters))
                takes = f"It takes {', '.join(parameters)}"
                raise self.refuse(keyword.value, f"{name} has no parameter {keyword.arg!r}; {hint}{takes}")
            keywords[keyword.arg] = self.read(keyword.value, depth + 1)
        try:
            inspect.signature(self.known[name]).bind(*args, **keywords)
        except TypeError as error:
            raise self.refuse(node, f"{name}: {error}; it takes {', '.join(parameters)}") from None
        return self.known[name](*args, **keywords)

    def _name(self, node: ast.expr) -> str:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("mx", "mixops"):
            name = node.attr
        elif isinstance(node, ast.Name):
            name = node.id
        else:
            raise self.refuse(node, f"{self.source(node)!r} cannot be called; {_FORM}")
        if name not in self.known:
            hint = _suggestion(name, list(self.known))
            raise self.refuse(node, f"unknown operator {name}; {hint}Known are {', '.join(sorted(self.known))}")
        return name
