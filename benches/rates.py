"""Rates beside times: so many images or sequences a second, from what was measured."""

from __future__ import annotations

from typing import Any

from harness import line


def with_rates(measured: dict[str, Any], items: float, unit: str) -> dict[str, Any]:
    """The row with a line for each contender that says its rate.

    Args:
        measured: a row as ``measure`` or ``summary`` returns it.
        items: how many a step makes.
        unit: of them, "img" say; the line is in thousands of them a second.
    """
    own = [c for c in measured["contenders"] if c["name"] not in ("copy", "floor")]
    lines = [
        line(
            c["name"],
            # items/ms are thousands a second; the slowest quarter in time is the lowest in rate
            {"median": items / c["ms"]["median"], "q1": items / c["ms"]["q3"], "q3": items / c["ms"]["q1"]},
            f" k {unit}/s",
        )
        for c in sorted(own, key=lambda c: c["ms"]["median"])
    ]
    return {**measured, "lines": [*measured["lines"], *lines]}
