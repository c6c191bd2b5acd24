"""The report of a benchmark: the machine, the form it must have and its check, a file whole or not there, a table."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
PACKAGES = ("mixops", "numpy", "numba", "llvmlite", "torch", "torchvision", "timm", "kornia")


def environment(threads: Sequence[int]) -> dict[str, Any]:
    """The machine and the software, as far as they decide a timing."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": _cpu(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": sorted(set(threads)),
        "allocator": {k: Path(v).name for k, v in os.environ.items() if k.startswith("MALLOC_") or k == "LD_PRELOAD"},
        "versions": versions,
        "commit": _git("rev-parse", "HEAD"),
        "modified": sorted(entry[3:] for entry in _git("status", "--porcelain", "-uno").splitlines()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def load_average() -> float | None:
    """Processes that wanted a core in the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _cpu() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for entry in listing.read_text(encoding="utf-8").splitlines():
            if entry.startswith("model name"):
                return entry.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return done.stdout.rstrip() if done.returncode == 0 else ""


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
        "machine": str,
        "system": str,
        "cores": int,
        "threads": [int],
        "allocator": {str: str},
        "versions": {str: str},
        "commit": str,
        "modified": [str],
        "date": str,
    },
    "load": {"start": (int, float, type(None)), "end": (int, float, type(None))},
    "rows": [
        {
            "name": str,
            "title": str,
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
            "notes": [str],
        }
    ],
}


def check(report: Any) -> None:
    """Raise a ValueError that names the first place where a report is not what SCHEMA says, or contradicts itself."""
    _check(report, SCHEMA, "report")
    if report["schema"] != SCHEMA_VERSION:
        raise ValueError(f"report.schema: got {report['schema']}, expected {SCHEMA_VERSION}")
    for row in report["rows"]:
        where = f"row {row['name']}"
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
    text = json.dumps(_rounded(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
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


def table(row: dict[str, Any]) -> str:
    """A row as text: the contenders, fastest last, then the lines that were aimed at."""
    head = f"{row['title']}  [{row['name']}, {row['threads']} thread{'s' * (row['threads'] > 1)}, "
    head += f"{row['clean_rounds']} of {row['rounds']} rounds clean]"
    wide = max(len(c["name"]) for c in row["contenders"])
    names = ("ms", 9), ("quartiles", 21), ("least", 9), ("÷ copy", 7), ("÷ floor", 8), ("GB/s", 6), ("off by", 7)
    out = [head, " ".join([" " * (wide + 2), *(f"{name:>{width}}" for name, width in names)])]
    for c in sorted(row["contenders"], key=lambda c: -c["ms"]["median"]):
        times = f"{c['ms']['median']:9.3f} {c['ms']['q1']:10.3f} –{c['ms']['q3']:9.3f} {c['ms']['min']:9.3f}"
        ratios = f"{_cell(c['over_copy'], 7, '.2f')} {_cell(c['over_floor'], 8, '.2f')}"
        out.append(
            f"  {c['name']:{wide}} {times} {ratios} {_cell(c['gb_per_s'], 6, '.1f')} {_cell(c['difference'], 7, '.1g')}"
        )
    out += [f"  {_verdict(entry)}" for entry in row["lines"]]
    return "\n".join([*out, *(f"  note: {note}" for note in row["notes"])])


def _cell(value: float | None, width: int, form: str) -> str:
    return " " * width if value is None else f"{value:{width}{form}}"


def _verdict(entry: dict[str, Any]) -> str:
    unit = entry["unit"]
    said = f"{entry['what']}: {entry['median']:.3g}{unit} ({entry['q1']:.3g} – {entry['q3']:.3g})"
    if entry["bound"] is None:
        return f"     {said}"
    aim = f"{entry['bound']} {entry['target']:g}{unit}"
    return f"pass {said}, {aim}" if entry["met"] else f"FAIL {said}, {aim}: short by {-entry['margin']:.0%}"
