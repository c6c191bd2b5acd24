"""``python -m mixops.pipelines.text --train train.tsv --test test.tsv --op "WordMixup(1.0)" --out out/text``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own

import mixops as mx

from ..cli import run_command
from .sentences import read_sentences
from .vectors import WordVectors, word_vectors

_FILE = click.Path(dir_okay=False, path_type=Path)
_SEED = click.IntRange(min=0, max=(1 << 63) - 1)


def _column(ctx: click.Context, param: click.Parameter, value: str) -> str | int:
    """A name, or the position in a file without a header."""
    return int(value) if value.isdecimal() else value


def _operator(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> list[mx.Operator | None]:
    return [None if text.strip().lower() == "none" else mx.parse_op(text) for text in texts]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110})
@click.option("--train", type=_FILE, required=True, help="Sentences to learn from: .tsv or .csv, with .gz or without.")
@click.option("--test", type=_FILE, required=True, help="Sentences to be measured on, of the same classes.")
@click.option("--text", default="text", callback=_column, help="Column of the sentences: its name, or its position.")
@click.option("--label", default="label", callback=_column, help="Column of the labels, likewise.")
@click.option(
    "--model", default="cnn", help="cnn, lstm, transformer, a checkpoint's folder, or package:NAME that carries one."
)
@click.option(
    "--setting",
    show_default="RandomTune",
    help="Of the word vectors: RandomTune, RandomFix, PretrainTune, PretrainFix; a checkpoint takes none.",
)
@click.option("--vectors", metavar="SOURCE", help="Word vectors: a GloVe text file, an .npz, or package:NAME.")
@click.option("--keys", default="words,vectors", help="Names of words and vectors in an .npz, joined with a comma.")
@click.option(
    "--broken",
    type=click.Choice(["error", "skip"]),
    default="error",
    help="Broken lines of a text file of vectors: stop, or leave them out.",
)
@click.option("--dim", type=click.IntRange(min=1), help="Numbers of a random word vector.  [default: 50]")
@click.option(
    "--op",
    "ops",
    multiple=True,
    default=("none",),
    callback=_operator,
    metavar="OP",
    help='Operator on hidden states, "WordMixup(1.0)", or none; may be given again, the first is the baseline.',
)
@click.option("--seed", "seeds", type=_SEED, multiple=True, help="Of a run; may be given again.  [default: 0]")
@click.option("--seeds", "count", type=click.IntRange(min=1), help="Runs on the seeds 0 to this less one.")
@click.option("--epochs", type=click.IntRange(min=1), show_default="10; 3 of a checkpoint")
@click.option("--batch", type=click.IntRange(min=1), show_default="50; 32 of a checkpoint", help="Sentences a step.")
@click.option("--lr", type=float, show_default="1e-3; 5e-5 of a checkpoint", help="Learning rate of AdamW.")
@click.option("--rows", type=click.IntRange(min=1), help="Learn from so many sentences only, drawn by the seed.")
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Processes that load.")
@click.option("--threads", type=click.IntRange(min=1), default=1, help="Threads of torch.")
@click.option("--device", default="cpu", help="Of torch: cpu, cuda.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default="out/text", help="Folder to write.")
def train_command(
    train: Path,
    test: Path,
    text: str | int,
    label: str | int,
    model: str,
    setting: str | None,
    vectors: str | None,
    keys: str,
    broken: str,
    dim: int | None,
    ops: list[mx.Operator | None],
    seeds: tuple[int, ...],
    count: int | None,
    epochs: int | None,
    batch: int | None,
    lr: float | None,
    rows: int | None,
    workers: int,
    threads: int,
    device: str,
    out: Path,
) -> None:
    """Train a sentence classifier with and without mixing inside it, and write a report of it.

    Every OP is trained on every seed; runs of one seed begin at the same weights and see the same batches.
    """
    from .learners import NETWORKS
    from .report import check_out, write_text_report
    from .settings import setting_of
    from .training import check_operator, train_text

    if seeds and count:
        raise click.UsageError("--seed and --seeds: expected one of the two")
    if setting is not None and model not in NETWORKS:
        raise click.UsageError(f"--setting is for {', '.join(NETWORKS)}: a checkpoint brings its own word vectors")
    names = ("none" if op is None else repr(op) for op in ops)
    for name, given_twice in (("--op", _twice(names)), ("--seed", _twice(seeds))):
        if given_twice is not None:
            raise click.UsageError(f"{name} {given_twice} is given twice: expected one of each operator on a seed")
    for op in ops:
        check_operator(op)
    check_out(out)
    chosen = "RandomTune" if setting is None else setting
    setting_of(chosen)
    learnt = read_sentences(train, text=text, label=label)
    tested = read_sentences(test, text=text, label=label, classes=learnt.classes)
    given = None if vectors is None else _vectors(vectors, keys, broken)
    options: dict[str, Any] = {
        **{"model": model, "setting": chosen, "vectors": given, "dim": dim, "epochs": epochs, "batch_size": batch},
        **{"lr": lr, "workers": workers, "threads": threads, "device": device},
    }
    todo = [(op, seed) for seed in (range(count) if count else seeds or (0,)) for op in ops]
    runs = []
    with tqdm(desc="training", unit="step", disable=None) as bar:
        for op, seed in todo:
            part = learnt if rows is None or rows >= len(learnt) else learnt.split(rows, seed)[0]

            def step(done: int, total: int, said: str) -> None:
                bar.total = total * len(todo)
                bar.set_postfix_str(said, refresh=False)
                bar.update()

            run = train_text(part, tested, op=op, seed=seed, progress=step, **options)
            runs.append(run)
            bar.write(
                f"{'none' if op is None else repr(op)}, seed {seed}: accuracy {100 * run.accuracy[-1]:.2f} %, "
                f"negative log-likelihood {run.nll[-1]:.4f}, calibration error {100 * run.ece[-1]:.2f} %"
            )
    page = write_text_report(out, runs)
    if runs[0].coverage is not None:
        click.echo(f"pretrained vectors: {runs[0].coverage}")
    if given is not None and given.skipped:
        click.echo(f"broken lines of vectors that were left out: {given.skipped}")
    click.echo(f"report: {page}")


def _vectors(source: str, keys: str, broken: str) -> WordVectors:
    names = [name.strip() for name in keys.split(",")]
    return word_vectors(source, keys=names, broken=broken)


def _twice(values: Iterable[Any]) -> Any:
    """The first that is there twice, or None."""
    return next((value for value, times in Counter(values).items() if times > 1), None)


if __name__ == "__main__":
    sys.exit(run_command(train_command, "mixops text"))
