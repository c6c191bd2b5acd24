"""Which rows there are: collected from the row modules, in the order in which they are measured and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from batches import Setup

Measure = Callable[[Setup], Iterator[dict[str, Any]]]

#: Each holds ROWS, name → what measures it, and HEADLINE, the names that a run without --full takes. A chapter of the
#: report is a module.
MODULES = {
    "limit_rows": "What the memory allows",
    "op_rows": "Single operations",
    "small_rows": "Single operations on small images",
    "chain_rows": "Whole chains",
    "loader_rows": "Loaders",
    "text_rows": "Text",
    "nearest_rows": "Nearest tokens",
    "draw_rows": "Drawing plans",
    "start_rows": "First calls",
    "ratio_rows": "Ragged sizes, per-row parameters, threads",
    "scaling_rows": "Scaling",
    "matrix_rows": "The whole matrix",
}


@dataclass(frozen=True)
class Entry:
    """One name of the benchmark.

    Args:
        name: for ``--rows``.
        chapter: of the report.
        headline: True if a run without ``--full`` measures it.
        measure: yields its measured rows, one or several.
    """

    name: str
    chapter: str
    headline: bool
    measure: Measure


def entries() -> dict[str, Entry]:
    """Every name, in order.

    Raises:
        ValueError: if two modules use one name, or a headline names no row.
    """
    found: dict[str, Entry] = {}
    for module_name, chapter in MODULES.items():
        if find_spec(module_name) is None:
            continue
        module = import_module(module_name)
        stray = set(module.HEADLINE) - set(module.ROWS)
        twice = set(module.ROWS) & set(found)
        if stray or twice:
            raise ValueError(
                f"{module_name}: {', '.join(sorted(stray | twice))}: no such row, or one of that name before"
            )
        for name, measure in module.ROWS.items():
            found[name] = Entry(name, chapter, name in module.HEADLINE, measure)
    return found


def chosen(every: dict[str, Entry], names: Sequence[str] | None, full: bool) -> list[Entry]:
    """The entries asked for by name or by what they start with ("chain*"), or else the headline, or all of them.

    Raises:
        ValueError: if a name is unknown.
    """
    if names is None:
        return [entry for entry in every.values() if full or entry.headline]
    wanted: set[str] = set()
    for name in names:
        fits = {n for n in every if n == name or (name.endswith("*") and n.startswith(name[:-1]))}
        if not fits:
            raise ValueError(f"{name}: expected some of {', '.join(every)}, or the start of a name and *")
        wanted |= fits
    return [entry for entry in every.values() if entry.name in wanted]
