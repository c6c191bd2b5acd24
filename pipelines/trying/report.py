"""The table and sentences that are printed, and report.json with every number."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mixops import MixValueError

from ..folders import whole_file
from ..versions import made_with
from .judging import Verdict
from .run_file import RunFile

_FORMAT = {"format": "mixops.try", "version": 1}


def check_report(path: Path) -> None:
    """Refuse, with a MixError, a folder that cannot be written to, and to replace what is no report of this version."""
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:  # trained first, it would be lost
        raise MixValueError(f"{path.parent} cannot be written to: {error.strerror}: name another --out") from error
    if not path.exists():
        return
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        found = {name: report[name] for name in _FORMAT}
    except (OSError, ValueError, KeyError, TypeError):
        found = {"format": None}
    remedy = "name another --out, or remove it"
    if found["format"] != _FORMAT["format"]:
        raise MixValueError(f"{path} is there and holds no report of this command: {remedy}")
    if found != _FORMAT:
        raise MixValueError(f"{path} is a report of version {found['version']}, expected 1: {remedy}")


def write_report(path: Path, runs: RunFile, found: Sequence[Verdict], *, minutes: float, finished: bool) -> None:
    """Write every number, the runs' own too; what is there is replaced at one stroke."""
    report: Mapping[str, Any] = {
        **_FORMAT,
        "finished": finished,
        "minutes": minutes,
        "spent_minutes": runs.spent / 60,
        "epochs": runs.epochs,
        "settings": runs.settings,
        "made_with": made_with(),
        "operators": [{**asdict(one), "sentence": one.sentence} for one in found],
        "runs": [asdict(run) for run in runs.runs],
    }
    with whole_file(path) as fresh:
        fresh.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def report_lines(found: Sequence[Verdict], epochs: int | None, spent: float) -> Iterator[str]:
    """The table, a sentence for each operator, and how to take them.

    Args:
        found: none first.
        epochs: of each run.
        spent: minutes of all runs.
    """
    if not found:
        yield "no run is done yet: nothing to say"
        return
    head = ("operator", "accuracy, %", "difference to none, 95 %", "better", "NLL", "s a run")
    rows = [head, *(_row(one) for one in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        first, *rest = (text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths)))  # noqa: B905
        yield "  ".join([first, *rest])
    yield ""
    others = [one for one in found if one.op != "none"]
    yield from (one.sentence for one in others)
    yield ""
    seeds, of = min(one.pairs for one in found), "epoch" if epochs == 1 else "epochs"
    yield (
        f"{seeds} {'seed' if seeds == 1 else 'seeds'} of {epochs} {of}, {spent:.1f} minutes. Short trainings underrate "
        "mixing, which pays in long ones: what hurt here, or could not be told, may help there."
    )
    if len(others) > 1:
        told = f"Helped and hurt hold for all {len(others)} comparisons together (Holm, 5 %)"
        yield f"{told}; each interval is of one alone."


def _row(one: Verdict) -> tuple[str, ...]:
    spread = "" if one.sd is None else f" ± {100 * one.sd:.1f}"
    better = "" if one.better is None else f"{one.better} of {one.pairs}"
    return one.name, f"{100 * one.accuracy:.1f}{spread}", one.difference, better, f"{one.nll:.3f}", f"{one.seconds:.1f}"
