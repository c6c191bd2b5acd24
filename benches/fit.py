"""A line through times over sizes: a constant overhead and a cost for each byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def curves(entries: Sequence[dict[str, Any]], moved: dict[str, float], axis: str) -> list[dict[str, Any]]:
    """The contenders called "series, x" as curves of time over x.

    Each has ``overhead_ms`` and ``gb_per_s``, of the line overhead + bytes ÷ rate with the least relative squares, and
    ``deviation``, the largest relative distance of a point from it.

    Args:
        entries: measured contenders.
        moved: bytes that each reads and writes, by name; others are on no curve.
        axis: what x counts.
    """
    series: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        if entry["name"] in moved:
            name, _, x = entry["name"].rpartition(", ")
            ms = {key: entry["ms"][key] for key in ("median", "q1", "q3")}
            series.setdefault(name, []).append({"x": int(x), "bytes": moved[entry["name"]], "ms": ms})
    found = []
    for name, points in series.items():
        size = np.array([p["bytes"] for p in points])
        time = np.array([p["ms"]["median"] for p in points])
        overhead, each = _line(size, time)
        found.append(
            {
                "name": name,
                "axis": axis,
                "points": points,
                "overhead_ms": overhead,
                "gb_per_s": 1e-6 / each,
                "deviation": float(np.abs((overhead + each * size) / time - 1).max()),
            }
        )
    return found


def _line(size: np.ndarray, time: np.ndarray) -> tuple[float, float]:
    """Overhead, 0 or more, and time for each byte, above 0, with the least sum of squared relative deviations."""
    (overhead, each), *_ = np.linalg.lstsq(np.stack([1 / time, size / time], 1), np.ones(len(time)), rcond=None)
    if overhead < 0 or each <= 0:
        overhead, each = 0.0, (size / time).sum() / ((size / time) ** 2).sum()
    return float(overhead), float(each)
