"""Run the demonstration and write it: into a temporary folder first, so that a report is there whole or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from ..folders import whole_folder
from ..versions import made_with
from .frameworks import frameworks_page_html, replay_photos
from .page import page_html, strips_html
from .photos import SHOWN, Strip, photo_strips
from .speed import CHAINS, Pace, measure
from .text import METHODS as TEXT_METHODS
from .text import Draw, Finding, TextCurves, text_draws, text_findings, train_questions
from .text import run_count as text_run_count
from .text_page import text_page_html
from .train import METHODS, Curves, check_runs, run_count, train_all
from .verdict import Verdict, verdicts

_C = TypeVar("_C")

_MARK = "mixops demo report, version 1"


def step_count(seeds: int) -> int:
    """How many steps ``write_report`` tells of."""
    return 2 + run_count(seeds) + len(CHAINS) + text_run_count(seeds)


def write_report(
    out: Path,
    *,
    seeds: int = 6,
    epochs: int = 40,
    text_epochs: int = 14,
    rounds: int = 15,
    seed: int = 208,
    step: Callable[[str], None] = print,
) -> Path:
    """Do everything and write ``index.html``, ``text.html``, ``frameworks.html``, ``report.json`` and the tiles.

    Args:
        out: folder to write; an earlier report there is replaced at the very end.
        seeds: training runs of each method, 2 or more.
        epochs: of each run on images.
        text_epochs: of each run on sentences.
        rounds: of the timing.
        seed: of the draws that are shown; the default was chosen for shares that the eye can tell apart.
        step: told what was just done, ``step_count(seeds)`` times.

    Returns:
        Path of the first page.

    Raises:
        MixError: if a number is out of range, or ``out`` holds something that is no earlier report.
    """
    for number in (epochs, text_epochs):
        check_runs(seeds, number)
    with whole_folder(out, _MARK) as fresh:
        _fill(fresh, seeds, (epochs, text_epochs), rounds, seed, step)
    return out / "index.html"


def _fill(
    folder: Path, seeds: int, epochs: tuple[int, int], rounds: int, seed: int, step: Callable[[str], None]
) -> None:
    start = time.perf_counter()
    strips, draws = photo_strips(folder, seed), text_draws(seed)
    step("photographs")
    strips[-1].plan.save(folder / "plan.npz")
    replayed = replay_photos(folder, folder / "plan.npz")
    step("frameworks")
    with _one_thread():
        curves = _trained(train_all(seeds, epochs[0]), step)
        paces = _timed(rounds, step)
        text_curves = _trained(train_questions(seeds, epochs[1]), step)
    found, text_found = verdicts(curves), text_findings(text_curves)
    about = made_with()
    line = (
        f"mixops {about['mixops']}, Python {about['python']}, NumPy {about['numpy']}, torch {about['torch']}; "
        f"{about['cpus']} CPUs, {about['machine']}; made in {time.perf_counter() - start:.0f} s"
    )
    numbers = _numbers(about, strips, curves, found, paces, seed) | {
        "text": _text_numbers(draws, text_curves, text_found),
        "frameworks": {"bytes that differ": replayed.apart, "left out": replayed.left_out},
    }
    (folder / "report.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    (folder / "index.html").write_text(page_html(strips, curves, found, paces, line), encoding="utf-8")
    (folder / "text.html").write_text(text_page_html(draws, text_curves, text_found, line), encoding="utf-8")
    page = frameworks_page_html(replayed, strips_html(replayed.strips), line)
    (folder / "frameworks.html").write_text(page, encoding="utf-8")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread: small networks lose by more, and the contenders of the timing stay comparable."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _trained(runs: Iterable[tuple[str, _C | None]], step: Callable[[str], None]) -> _C:
    """Tell of every run, and return the curves that come after the last."""
    for what, curves in runs:
        if curves is not None:
            return curves
        step(what)
    raise AssertionError("the runs end with their curves")


def _timed(rounds: int, step: Callable[[str], None]) -> list[Pace]:
    paces = []
    for chain, pace in measure(rounds):
        paces.append(pace)
        step(f"speed of {chain}")
    return paces


def _numbers(
    about: dict[str, Any],
    strips: Sequence[Strip],
    curves: Curves,
    found: Sequence[Verdict],
    paces: Sequence[Pace],
    seed: int,
) -> dict[str, Any]:
    return {
        "format": _MARK,
        "about": about,
        "photographs": {
            "seed": seed,
            "operators": [spelled for spelled, _ in SHOWN],
            "captions": {strip.title: [str(caption) for caption in strip.captions] for strip in strips},
        },
        "training": {
            "methods": {name: repr(op) for name, op in METHODS.items()},
            "epochs": curves.epochs.tolist(),
            "accuracy": {method: runs.tolist() for method, runs in curves.accuracy.items()},
            "verdicts": [asdict(v) for v in found],
            "sentences": [v.sentence for v in found[1:]],
        },
        "images per second": [asdict(pace) for pace in paces],
    }


def _text_numbers(draws: Sequence[Draw], curves: TextCurves, found: Sequence[Finding]) -> dict[str, Any]:
    return {
        "pairs": {draw.title: [asdict(pair) for pair in draw.pairs] for draw in draws},
        "methods": {name: repr(op) for name, op in TEXT_METHODS.items()},
        "epochs": curves.epochs.tolist(),
        "runs": {key: {method: v.tolist() for method, v in methods.items()} for key, methods in curves.runs.items()},
        "found": {finding.measure.key: finding.numbers() for finding in found},
    }
