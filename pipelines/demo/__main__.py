"""``python -m mixops.pipelines.demo --out out/demo``."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own

from ..cli import run_command
from .report import step_count, write_report


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default="out/demo", help="Folder to write.")
@click.option("--seeds", type=click.IntRange(min=2), default=6, help="Training runs of each method.")
@click.option("--epochs", type=click.IntRange(min=1), default=40, help="Epochs of each run on images.")
@click.option("--text-epochs", type=click.IntRange(min=1), default=14, help="Epochs of each run on sentences.")
@click.option("--rounds", type=click.IntRange(min=1), default=15, help="Rounds of the timing.")
def demo(out: Path, seeds: int, epochs: int, text_epochs: int, rounds: int) -> None:
    """Mix photographs and sentences, train small networks with and without, time the chain, and write pages of it."""
    with tqdm(total=step_count(seeds), desc="demo", unit="step") as bar:

        def step(what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update()

        page = write_report(out, seeds=seeds, epochs=epochs, text_epochs=text_epochs, rounds=rounds, step=step)
    click.echo(f"report: {page}")


if __name__ == "__main__":
    sys.exit(run_command(demo, "mixops demo"))
