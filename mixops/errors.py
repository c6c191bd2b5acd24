"""The one family of errors. A message says what came, what was expected and what to do about it."""

from __future__ import annotations


class MixError(Exception):
    """Anything that mixops refuses. Catch this one; it is also a ValueError or a TypeError, as fits."""


class MixValueError(MixError, ValueError):
    """A value out of range, a shape that does not match, a file that is broken."""


class MixTypeError(MixError, TypeError):
    """A dtype or a kind of object that the operation has no meaning for."""
