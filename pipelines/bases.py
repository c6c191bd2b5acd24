"""Classes that take their base from a package when they are made: importing ours never imports the package."""

from __future__ import annotations


def with_bases(cls: type, bases: tuple[type, ...]) -> type:
    """A class that is ``cls`` first and each of ``bases`` too, under the name of ``cls``."""
    return type(cls.__name__, (cls, *bases), {"__module__": cls.__module__, "__doc__": cls.__doc__})
