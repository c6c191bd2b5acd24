"""``mixops corpus mix "CutMix(1.0)" photos/ -o mixed/ --engine ray``: a whole corpus, mixed into shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own

import mixops as mx
from mixops import MixValueError

#: What columns of these names are taken for, where nothing is said.
_USUAL = {
    "image": mx.Field("b h w c"),
    "tokens": mx.Field("b t", "discrete"),
    "input_ids": mx.Field("b t", "discrete"),
    "tags": mx.Field("b t", "discrete"),
}
_LABELS = ("label", "labels")


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where the work is done: the options that the commands of a corpus share."""
    for option in (
        click.option("--workers", type=click.IntRange(min=1), help="Pieces that Ray works on at a time.  [all CPUs]"),
        click.option("--address", help="Of a Ray cluster, auto or HOST:PORT; none begins one on this machine."),
        click.option(
            "--engine", type=click.Choice(["local", "ray"]), default="local", help="This process, or Ray: same result."
        ),
    ):
        command = option(command)
    return command


def check_engine(engine: str, address: str | None, workers: int | None) -> None:
    """Refuse options that only Ray has a use for."""
    if engine == "local" and (address is not None or workers is not None):
        raise click.UsageError("--address and --workers are for --engine ray")


@click.command()
@click.argument("op")
@click.argument("source", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write.")
@click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="COLUMN=LAYOUT[:KIND]",
    help='To mix: image="b h w c", ids="b t:discrete".',
)
@click.option("--label", metavar="COLUMN", help="Of the class ids.  [label or labels, if there is one]")
@click.option("--classes", type=click.IntRange(min=1), help="How many: labels become shares of each.  [own, other, λ]")
@click.option("--seed", type=click.IntRange(min=0, max=(1 << 64) - 1), default=0, help="Of the draws.")
@click.option("--group", type=click.IntRange(min=1), default=1024, help="Rows that partners are drawn among.")
@click.option("--copies", type=click.IntRange(min=1), default=1, help="Times that every row is mixed.")
@click.option("--shard", type=click.IntRange(min=1), help="Rows of a file.  [what the source reads well]")
@click.option("--form", type=click.Choice(["parquet", "webdataset"]), default="parquet")
@click.option("--size", type=click.IntRange(min=1), help="Side of images in pixels.  [224 for a folder of images]")
@engine_options
@click.option("--force", is_flag=True, help="Begin anew, whatever run the folder holds.")
def mix_rows(
    op: str,
    source: tuple[Path, ...],
    out: Path,
    fields: tuple[str, ...],
    label: str | None,
    classes: int | None,
    seed: int,
    engine: str,
    address: str | None,
    workers: int | None,
    **options: Any,
) -> None:
    """Mix all rows of SOURCE by the operator OP, and write them in shards.

    SOURCE is a folder of images, Parquet or JSONL files or a folder of them, or a .conll. OP is written as in Python
    and never run: "CutMix(1.0, per='sample')", "SpanMix(0.1)"; "SSMix(0.1)" takes a column "saliency". A run that was
    stopped or killed goes on when the same command is given again, to the same files as an unbroken one.
    """
    from .mixing import mix_corpus
    from .rows import open_corpus

    check_engine(engine, address, workers)
    operator = mx.parse_op(op)
    size = options["size"]
    rows = open_corpus(list(source), size=size or 224, seed=seed)
    first = next(rows.groups(0, min(1, len(rows)), 1), None)
    if first is None:
        raise MixValueError(f"{rows.name}: no row, expected one or more")
    entries = _fields(fields, label, classes, first.column_names)
    with tqdm(total=len(rows) * options["copies"], desc="mixing", unit="row", disable=None) as bar:
        try:
            done = mix_corpus(
                rows, operator, entries, out, seed=seed, engine=engine, address=address, workers=workers,
                progress=lambda written, wanted: bar.update(written - bar.n) and None, **options,
            )  # fmt: skip
        except KeyboardInterrupt:
            bar.clear()
            click.echo(f"mixops: shards that are done are kept: the same command goes on in {out}", err=True)
            raise click.Abort from None
        except OSError as error:
            bar.clear()
            raise click.ClickException(
                f"{error.filename or out}: {error.strerror or error}; shards that are done are kept: put this right "
                "(make room, give leave to read or write), and the same command goes on"
            ) from None
    if done.complete:
        click.echo(f"{out} is already complete")
    elif done.resumed:
        click.echo(f"went on after {done.resumed} shards")
    click.echo(f"{done.rows} rows in {len(done.shards)} shards: {out}")


def _fields(given: Sequence[str], label: str | None, classes: int | None, names: Sequence[str]) -> dict[str, Any]:
    """What the columns are, said or by their names."""
    entries: dict[str, Any] = {}
    for text in given:
        name, found, what = text.partition("=")
        layout, _, kind = what.partition(":")
        if not found or not name or not layout:
            raise click.UsageError(f'--field {text!r}: expected COLUMN=LAYOUT or COLUMN=LAYOUT:KIND, image="b h w c"')
        entries[name] = mx.Field(layout.strip(), kind.strip() or "continuous")
    if not given:
        entries = {name: field for name, field in _USUAL.items() if name in names}
    if not entries:
        raise MixValueError(f"no column {', '.join(_USUAL)} among {', '.join(names)}: say what to mix, --field x='b d'")
    label = label or next((name for name in _LABELS if name in names), None)
    if label is not None:
        entries[label] = mx.Labels(form="pair") if classes is None else mx.Labels(classes)
    return entries
