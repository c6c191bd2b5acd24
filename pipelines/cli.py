"""The command ``mixops``: see what an operator does, plot how much it mixes, read a saved plan."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import mixops as mx

try:
    import click
    from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own
except ModuleNotFoundError as missing:  # they come with an extra
    raise SystemExit(f"mixops: the command line needs {missing.name}: pip install 'mixops[cli]'") from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True})
@click.version_option(package_name="mixops", message="mixops %(version)s")
def commands() -> None:
    """Look at Mixup, CutMix, Cutout and their kin.

    An operator OP is written as in Python, "OneOf([Mixup(0.8), CutMix(1.0)]) | Cutout(16)", and never run as code.
    """


def main(args: list[str] | None = None) -> int:
    """Run the command line ``mixops``; see ``run_command``."""
    try:
        from .corpus.command import corpus_commands
        from .text.__main__ import train_command  # it needs run_command, and so comes after this module
        from .trying.command import try_operators
    except KeyboardInterrupt:  # loading takes most of a second
        return _complain("mixops", "stopped", 130)
    commands.add_command(corpus_commands, "corpus")
    commands.add_command(train_command, "text")
    commands.add_command(try_operators, "try")
    return run_command(commands, "mixops", args)


def run_command(command: click.Command, name: str, args: list[str] | None = None) -> int:
    """Run a command as a program does, with errors as one line on stderr.

    Args:
        command: of click.
        name: that the program goes by.
        args: in place of those of the process.

    Returns:
        The exit code: 0, or what the command says; 2 after an error; 130 when stopped from the keyboard.
    """
    try:
        code = command.main(args=args, prog_name=name, standalone_mode=False)
    except click.Abort:
        return _complain(name, "stopped", 130)
    except click.exceptions.NoArgsIsHelpError as error:  # a group without a command: all of its help, as it stands
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        return _complain(name, error.format_message())
    except ModuleNotFoundError as error:
        return _complain(name, f"this needs {error.name}: pip install 'mixops[all]'")
    except (mx.MixError, OSError) as error:
        return _complain(name, str(error))
    return code if isinstance(code, int) else 0


def _complain(name: str, message: str, code: int = 2) -> int:
    click.echo(f"{name}: {' '.join(message.split())}", err=True)
    return code


def path_ending(*endings: str) -> Callable[[click.Context, click.Parameter, Path | None], Path | None]:
    """A check, before any work is done, of a path to write: its ending is one of these and its folder is there."""

    def check(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
        if path is None:
            return None
        if path.suffix.lower() not in endings:
            raise click.BadParameter(f"{path} ends in {path.suffix or 'nothing'!r}, expected {' or '.join(endings)}")
        if not path.parent.is_dir():
            raise click.BadParameter(f"there is no folder {path.parent} to write {path.name} into: make it first")
        return path

    return check


_FILE = click.Path(dir_okay=False, path_type=Path)
_COUNT = click.IntRange(min=1)
_SEED = click.IntRange(min=0, max=(1 << 64) - 1)


@commands.command()
@click.argument("words", metavar="[OP] IMAGES...", nargs=-1, required=True)
@click.option("-o", "--out", type=_FILE, callback=path_ending(".png"), default="preview.png", help="Picture to write.")
@click.option(
    "--size", type=click.IntRange(8, 4096), show_default="224, or the plan's", help="Side of a tile in pixels."
)
@click.option("--rows", type=_COUNT, default=3, help="Draws to show.")
@click.option("--columns", type=_COUNT, default=6, help="Most tiles side by side.")
@click.option("--seed", type=_SEED, default=0, help="Of the draws; the same seed, the same picture.")
@click.option("--plan", "save", type=_FILE, callback=path_ending(".npz"), help="Also save what was drawn.")
@click.option("--like", type=_FILE, help="Replay a saved plan; leave OP out.")
def preview(
    words: tuple[str, ...],
    out: Path,
    size: int | None,
    rows: int,
    columns: int,
    seed: int,
    save: Path | None,
    like: Path | None,
) -> None:
    """Mix IMAGES by the operator OP and write a picture of it.

    Every tile says whose image it is and the label shares; each image counts as a class of its own. An image that
    cannot be read is named and left out.
    """
    from .preview import draw_rows, preview_page, read_photos

    if like is None:
        if len(words) < 2 or Path(words[0]).exists():
            raise click.UsageError('expected an operator and images: mixops preview "Mixup(0.8)" one.jpg two.jpg ...')
        op, title, paths = mx.parse_op(words[0]), words[0], words[1:]
        side = (size or 224,) * 2
    else:
        plan, title, paths = mx.Plan.load(like), f"replay of {like.name}", words
        if len(plan.shape) not in (0, 2):
            raise mx.MixValueError(f"{like}: boxes on {plan.shape}, expected a plan for images, shape (h, w)")
        side = (size, size) if size else (plan.shape or (224, 224))  # type: ignore[assignment]  # two extents
        plan = plan.rescaled(side) if plan.shape else plan
    with tqdm(paths, "reading", unit="image", disable=None, leave=False, delay=1) as bar:
        photos, names, problems = read_photos(bar, side)
    for problem in problems:
        click.echo(f"mixops: left out {problem}", err=True)
    if like is None:
        plan = draw_rows(op, mx.Spec(len(photos), side), rows, seed)
    page = preview_page(photos, names, plan, title=" ".join(title.split()), columns=columns)
    if save is not None:
        plan.save(save)
        click.echo(f"plan: {save}")
    page.save(out)
    click.echo(f"picture: {out} ({page.width} x {page.height})")


@commands.command()
@click.argument("op")
@click.option("-n", "--n", type=_COUNT, default=20_000, help="Rows to draw.")
@click.option("--batch", type=_COUNT, default=16, help="Rows of one batch.")
@click.option("--size", type=click.IntRange(1, 1 << 20), default=224, help="Side of the images.")
@click.option("--seed", type=_SEED, default=0, help="Of the draws.")
@click.option("-o", "--out", type=_FILE, callback=path_ending(".png", ".svg", ".pdf"), default="lam.png")
def plot(op: str, n: int, batch: int, size: int, seed: int, out: Path) -> None:
    """Plot the distribution of λ and of the label weights that OP draws."""
    from .plots import sample_shares, shares_figure

    operator = mx.parse_op(op)
    bar = partial(tqdm, desc="drawing", unit="batch", disable=None, leave=False, delay=1)
    shares = sample_shares(operator, n, batch=batch, shape=(size, size), seed=seed, progress=bar)
    shares_figure(shares, " ".join(op.split())).savefig(out)
    for name, value in shares.summary().items():
        click.echo(f"{name:>34}  {value:.4f}")
    click.echo(f"plot: {out}")


@commands.group()
def plan() -> None:
    """Saved plans."""


@plan.command()
@click.argument("file", type=_FILE)
def show(file: Path) -> None:
    """Print what a saved plan does, row by row."""
    click.echo(repr(mx.Plan.load(file)))


@commands.command()
@click.argument("names", nargs=-1)
def ops(names: tuple[str, ...]) -> None:
    """List the operators and their parameters, all or those NAMED."""
    known = mx.operators()
    for name in names or sorted(known):
        if name not in known:
            mx.parse_op(f"{name}()")  # refuses it, with what was perhaps meant
        click.echo("\n".join(_described(known[name])))


@commands.command()
@click.argument("frameworks", nargs=-1)
@click.option(
    "--op", "operators", multiple=True, help="Only this operator of the rows, as they are written; repeatable."
)
@click.option("--jobs", type=_COUNT, default=2, help="Frameworks that run at the same time.")
def matrix(frameworks: tuple[str, ...], operators: tuple[str, ...], jobs: int) -> None:
    """Replay one saved plan of every operator in FRAMEWORKS, all for none, and print how far each is from NumPy.

    A cell is "equal", or the largest distance in units of the last place (ulp). Bytes have to be equal, floats within
    the documented bound; the exit code is 1 where they are not. Everything runs on the CPU.
    """
    from .matrix import compare
    from .replaying import find_frameworks

    made = compare(find_frameworks(frameworks), operators, jobs=jobs)
    click.echo(str(made))
    if not made.good:
        raise click.exceptions.Exit(1)


def _described(kind: type[mx.Operator]) -> Iterator[str]:
    """The operator on one line, then each parameter on one."""
    text = inspect.getdoc(kind) or ""
    said = _arguments(text)
    yield f"{kind.__name__}: {text.splitlines()[0]}"
    for name, parameter in inspect.signature(kind).parameters.items():
        value = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        yield textwrap.shorten(f"    {name}{value}: {said.get(name, '')}", 400, initial_indent="    ")
    yield ""


def _arguments(text: str) -> dict[str, str]:
    """name -> description, from the Args section of a docstring."""
    found: dict[str, str] = {}
    name = ""
    for line in text.partition("Args:\n")[2].splitlines():
        if not line.strip():
            break
        if line.startswith("        "):
            found[name] += " " + line.strip()
        else:
            name, _, rest = line.strip().partition(": ")
            found[name] = rest
    return found


if __name__ == "__main__":
    sys.exit(main())
