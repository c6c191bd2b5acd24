"""``mixops try photos/ --op "Mixup(0.2)" --op "CutMix(1.0)" --minutes 10``: which mixing helps on this data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own

from ..cli import path_ending
from ..versions import made_with
from .tasks import Task, candidates

#: Sides of images from a folder, in pixels.
_SIZE = 32
#: What is tried where nothing is said.
_USUAL = {
    "images": ("Mixup(0.2)", "CutMix(1.0)"),
    "rows of numbers": ("Mixup(0.2)",),
    "sentences": ("WordMixup(1.0)", "SentenceMixup(1.0)"),
}


def _finite(ctx: click.Context, param: click.Parameter, value: float) -> float:
    """Refuses "nan" and "inf", which click takes for numbers of any range."""
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} minutes, expected a number above 0")
    return value


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110})
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--op",
    "ops",
    multiple=True,
    metavar="OP",
    help='Operator to try, "CutMix(1.0)"; repeatable. None is always tried.  [default: Mixup and CutMix, or what fits]',
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    callback=_finite,
    default=10.0,
    help="Time for all trainings.",
)
@click.option(
    "--model", default="small", help="small, or MODULE:FUNCTION; of sentences cnn (small), lstm, transformer."
)
@click.option("--size", type=click.IntRange(4, 512), show_default="32", help="Side of images of a folder, in pixels.")
@click.option("--epochs", type=click.IntRange(min=1), show_default="as many as fit", help="Of each training.")
@click.option(
    "--seeds", type=click.IntRange(min=2), show_default="as many as fit", help="Rounds of trainings, at most."
)
@click.option("--batch", type=click.IntRange(min=2), show_default="64; 50 sentences", help="Rows a step.")
@click.option("--lr", type=float, show_default="3e-3; 1e-3 of sentences", help="Learning rate of AdamW.")
@click.option("--seed", type=click.IntRange(min=0, max=(1 << 62) - 1), default=0, help="Of the split and first round.")
@click.option("--threads", type=click.IntRange(min=1), show_default="torch's", help="Threads of torch.")
@click.option("--device", default="cpu", help="Of torch: cpu, cuda.")
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=path_ending(".json"),
    default="try.json",
    help="Report to write; the runs lie beside it.",
)
def try_operators(
    data: Path,
    ops: tuple[str, ...],
    minutes: float,
    model: str,
    size: int | None,
    epochs: int | None,
    seeds: int | None,
    batch: int | None,
    lr: float | None,
    seed: int,
    threads: int | None,
    device: str,
    out: Path,
) -> None:
    """Train a small model on DATA with and without mixing, and say which mixing helped, or that this cannot be told.

    DATA is a folder of images by class (below train/ and val/ or test/, or in one that is split), an .npz with x_train,
    y_train, x_test and y_test, or a .tsv or .csv of text and label. Trainings of one seed share split, first weights
    and batches. A command that was stopped or killed goes on when it is given again; with more minutes, it adds seeds.
    """
    from .given_models import file_sum
    from .judging import verdicts
    from .report import check_report, report_lines, write_report
    from .rounds import run_rounds
    from .run_file import RunFile

    check_report(out)
    tried = candidates(ops) if ops else []
    options = {"batch_size": batch, "lr": lr, "threads": threads or _threads(), "device": device}
    given = {name: value for name, value in options.items() if value is not None}
    task, size = _task(data, model, size, seed, given)
    tried = tried or candidates(_USUAL[task.kind])
    for one in tried:
        if one.op is not None:
            task.check(one.op)
    versions = {name: made_with()[name] for name in ("mixops", "torch")}
    asked = {"kind": task.kind, "size": size, "epochs": epochs, "seed": seed, "ops": [one.key for one in tried]}
    if ":" in model:
        asked["file of the model"] = file_sum(model)
    runs = RunFile(out.with_suffix(".runs.jsonl"), {**asked, **task.facts, **versions})
    resumed, finished = len(runs.runs), True
    with tqdm(desc="trying", unit="step", disable=None, leave=False) as bar:

        def watch(done: int, planned: int, said: str) -> None:
            bar.total = planned or None
            bar.set_postfix_str(said, refresh=False)
            bar.update(done - bar.n)

        try:
            run_rounds(task, tried, runs, budget=60 * minutes, seed=seed, epochs=epochs, most=seeds, watch=watch)
        except KeyboardInterrupt:
            finished = False
    if resumed:
        click.echo(f"went on after {resumed} runs" if len(runs.runs) > resumed else f"all {resumed} runs were done")
    found = verdicts(runs.runs, tried, task.tested)
    for line in report_lines(found, runs.epochs, runs.spent / 60):
        click.echo(line)
    if runs.runs:
        write_report(out, runs, found, minutes=minutes, finished=finished)
        click.echo(f"report: {out}")
    if not finished:
        click.echo("mixops: runs that are done are kept: the same command goes on", err=True)
        raise click.Abort


def _task(data: Path, model: str, size: int | None, seed: int, options: dict[str, Any]) -> tuple[Task, int | None]:
    """The task that DATA is, and the side of its images where that was free."""
    from .given_models import given_model
    from .sentence_task import ENDINGS, SentenceTask

    sentences = data.name.lower().endswith(ENDINGS)
    folder = not sentences and data.suffix.lower() != ".npz"
    if size is not None and not folder:
        raise click.UsageError(f"--size is for a folder of images: {data.name} is taken as it is")
    if sentences:
        named: Any = {"small": "cnn"}.get(model, model)
        return SentenceTask(data, given_model(model) if ":" in model else named, seed=seed, name=named, **options), None
    from .array_task import ArrayTask
    from .held_arrays import held_file, held_folder

    own: dict[str, Any] = {} if model == "small" else {"model": given_model(model)}
    side = (size or _SIZE) if folder else None
    held = held_folder(data, side, seed, _reading) if side is not None else held_file(data)
    for problem in held.skipped:
        click.echo(f"mixops: left out {problem}", err=True)
    return ArrayTask(held, name=model, **own, **options), side


def _reading(paths: list[Any], what: str) -> Iterable[Any]:
    return tqdm(paths, what, unit="image", disable=None, leave=False, delay=1)


def _threads() -> int:
    import torch

    return torch.get_num_threads()
