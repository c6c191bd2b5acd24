"""The report of a benchmark as JSON: the form it must have and its check, and a file that is whole or not there."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 2

_NUMBER = (int, float)
_STATISTICS = {"median": _NUMBER, "q1": _NUMBER, "q3": _NUMBER}
#: A type or several; a dict of keys, all of them needed and no other; a list of what its elements are; ``str: type``
#: for a table of any names.
SCHEMA: dict[str, Any] = {
    "schema": int,
    "benchmark": str,
    "command": str,
    "method": {str: str},
    "environment": {
        "cpu": str,
        "caches": {str: str},
        "machine": str,
        "system": str,
        "libc": str,
        "huge_pages": str,
        "memory_gib": _NUMBER,
        "cores": int,
        "threads": [int],
        "versions": {str: str},
        "commit": str,
        "modified": [str],
        "date": str,
    },
    "allocators": {str: {str: str}},
    "load": {"start": (int, float, type(None)), "end": (int, float, type(None))},
    "seconds": _NUMBER,
    "took": {str: {str: _NUMBER}},
    "failures": [{"name": str, "allocator": str, "error": str}],
    "rows": [
        {
            "name": str,
            "title": str,
            "entry": str,
            "chapter": str,
            "headline": bool,
            "allocator": str,
            "threads": int,
            "draws": int,
            "rounds": int,
            "clean_rounds": int,
            "bytes_moved": _NUMBER,
            "result_bytes": int,
            "contenders": [
                {
                    "name": str,
                    "ours": bool,
                    "ms": {**_STATISTICS, "min": _NUMBER},
                    "over_copy": (int, float, type(None)),
                    "over_floor": (int, float, type(None)),
                    "gb_per_s": (int, float, type(None)),
                    "difference": (int, float, type(None)),
                }
            ],
            "lines": [
                {
                    "what": str,
                    "unit": str,
                    **_STATISTICS,
                    "bound": (str, type(None)),
                    "target": (int, float, type(None)),
                    "margin": (int, float, type(None)),
                    "met": (bool, type(None)),
                }
            ],
            "curves": [
                {
                    "name": str,
                    "axis": str,
                    "points": [{"x": int, "bytes": _NUMBER, "ms": _STATISTICS}],
                    "overhead_ms": _NUMBER,
                    "gb_per_s": _NUMBER,
                    "deviation": _NUMBER,
                }
            ],
            "notes": [str],
        }
    ],
}


def check(report: Any) -> None:
    """Raise a ValueError that names the first place where a report is not what SCHEMA says, or contradicts itself.

    The report of a GPU says in its environment which one, and what its clocks were.
    """
    schema = SCHEMA
    if isinstance(report, dict) and "gpu" in report.get("environment", {}):
        schema = SCHEMA | {"environment": SCHEMA["environment"] | {"gpu": {str: str}}}
    _check(report, schema, "report")
    if report["schema"] != SCHEMA_VERSION:
        raise ValueError(f"report.schema: got {report['schema']}, expected {SCHEMA_VERSION}")
    names = [(row["name"], row["allocator"]) for row in report["rows"]]
    for row in report["rows"]:
        where = f"row {row['name']}"
        if names.count((row["name"], row["allocator"])) > 1:
            raise ValueError(f"{where}: on allocator {row['allocator']} twice")
        if row["allocator"] not in report["allocators"]:
            raise ValueError(f"{where}: allocator {row['allocator']!r} is none of {sorted(report['allocators'])}")
        if not 1 <= row["clean_rounds"] <= row["rounds"]:
            raise ValueError(f"{where}: {row['clean_rounds']} clean rounds of {row['rounds']}")
        for entry in [c["ms"] for c in row["contenders"]] + row["lines"]:
            if not 0 < entry["q1"] <= entry["median"] <= entry["q3"]:
                raise ValueError(f"{where}: quartiles out of order in {entry}")
        for entry in row["lines"]:
            if entry["bound"] not in (None, "at least", "at most"):
                raise ValueError(f"{where}: bound {entry['bound']!r} of {entry['what']}")
            if entry["bound"] is None:
                continue
            met = (
                entry["median"] >= entry["target"]
                if entry["bound"] == "at least"
                else entry["median"] <= entry["target"]
            )
            if met != entry["met"]:
                raise ValueError(f"{where}: {entry['what']} says met={entry['met']}, its numbers say {met}")


def _check(value: Any, schema: Any, where: str) -> None:
    if isinstance(schema, list):
        _check(value, list, where)
        for i, one in enumerate(value):
            _check(one, schema[0], f"{where}[{i}]")
    elif isinstance(schema, dict) and str in schema:
        _check(value, dict, where)
        for key, one in value.items():
            _check(one, schema[str], f"{where}.{key}")
    elif isinstance(schema, dict):
        _check(value, dict, where)
        if set(value) != set(schema):
            raise ValueError(f"{where}: got keys {sorted(value)}, expected {sorted(schema)}")
        for key, one in value.items():
            _check(one, schema[key], f"{where}.{key}")
    else:
        kinds = schema if isinstance(schema, tuple) else (schema,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"{where}: got {value!r}, expected {' or '.join(k.__name__ for k in kinds)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{where}: got {value!r}, expected a finite number")


def write(report: dict[str, Any], path: Path) -> None:
    """Write a report that passes ``check``, whole or not at all."""
    check(report)
    write_text(json.dumps(_rounded(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _rounded(value: Any) -> Any:
    """Floats to five digits: no clock tells more."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
