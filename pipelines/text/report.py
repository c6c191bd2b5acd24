"""Runs as a folder: ``report.json`` with every number, and ``index.html`` that shows them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import mixops as mx

from ..folders import check_replaceable, whole_folder
from ..metrics import paired_interval
from ..versions import made_with
from .report_page import report_html
from .training import TextRun

MARK = "mixops text report, version 1"
#: Of a run after each epoch: name, and whether less of it is better.
MEASURES: dict[str, bool] = {"accuracy": False, "nll": True, "ece": True}


def check_out(out: Path) -> None:
    """Refuse, before any training, a folder that ``write_text_report`` would not replace or could not make.

    Raises:
        MixError: if it holds something that is no report of this program, or there cannot be such a folder.
    """
    check_replaceable(out, MARK)
    near = next(folder for folder in out.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=near):
            pass
    except OSError as error:
        raise mx.MixValueError(f"{out}: no folder can be made in {near} ({error.strerror}): name another one") from None


def write_text_report(out: str | Path, runs: Sequence[TextRun]) -> Path:
    """Write ``index.html`` and ``report.json`` of some runs, whole or not at all.

    Runs of one operator on several seeds are shown together. Where there are several operators on the same two seeds or
    more, each is compared with the first one, seed by seed.

    Args:
        out: folder to write; an earlier report there is replaced at the very end.
        runs: of ``train_text``, at least one, all of equally many epochs.

    Returns:
        Path of the page.

    Raises:
        MixError: if there is no run, their epochs differ, two have one operator and one seed, or ``out`` holds
            something that is no earlier report.
    """
    out = Path(out)
    numbers = report_numbers(runs)
    with whole_folder(out, MARK) as folder:
        (folder / "report.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
        (folder / "index.html").write_text(report_html(numbers), encoding="utf-8")
    return out / "index.html"


def report_numbers(runs: Sequence[TextRun]) -> dict[str, Any]:
    """What ``report.json`` holds: plain JSON values, the page is made of them alone."""
    if not runs:
        raise mx.MixValueError("write_text_report: got no run, expected at least one")
    if len({len(run.loss) for run in runs}) > 1:
        raise mx.MixValueError(
            f"write_text_report: runs of {sorted({len(run.loss) for run in runs})} epochs, expected equally many in all"
        )
    by_method: dict[str, dict[int, TextRun]] = {}
    for run in runs:
        of_seed = by_method.setdefault(run.config["op"] or "none", {})
        if run.config["seed"] in of_seed:
            raise mx.MixValueError(
                f"write_text_report: two runs of {run.config['op'] or 'none'} on seed {run.config['seed']}, expected "
                "one of each operator on a seed"
            )
        of_seed[run.config["seed"]] = run
    return {
        "format": MARK,
        "about": made_with(),
        "methods": list(by_method),
        "runs": [_run_numbers(run) for run in runs],
        "summary": {method: _summary(by_method, method) for method in by_method},
    }


def _run_numbers(run: TextRun) -> dict[str, Any]:
    curves = {name: getattr(run, name).tolist() for name in ("loss", *MEASURES, "seconds")}
    coverage = {
        name: None if found is None else asdict(found)
        for name, found in (("coverage", run.coverage), ("test_coverage", run.test_coverage))
    }
    return {"config": run.config, **curves, **coverage, "mixing": {**asdict(run.mixing), "lam": run.mixing.mean_lam}}


def _summary(by_method: Mapping[str, Mapping[int, TextRun]], method: str) -> dict[str, Any]:
    """Mean and spread over seeds after the last epoch, and the difference to the first method on the same seeds."""
    first = by_method[next(iter(by_method))]
    own = by_method[method]
    shared = sorted(set(own) & set(first))
    found: dict[str, Any] = {"seeds": sorted(own)}
    for name, less_is_better in MEASURES.items():
        last = np.array([getattr(own[seed], name)[-1] for seed in sorted(own)])
        one: dict[str, Any] = {"mean": float(last.mean()), "sd": float(last.std(ddof=1)) if len(last) > 1 else None}
        if own is not first and len(shared) > 1:
            difference = np.array([getattr(own[s], name)[-1] - getattr(first[s], name)[-1] for s in shared])
            one["paired"] = _paired(difference, -1 if less_is_better else 1)
        found[name] = one
    return found


def _paired(difference: np.ndarray, better: int) -> dict[str, Any]:
    """The mean difference with its 95 % t-interval, and on how many seeds it had the sign that is better."""
    mean, low, high = paired_interval(difference)
    won = int((np.sign(difference) == better).sum())
    return {"mean": mean, "low": low, "high": high, "seeds": len(difference), "better": won}
