"""``mixops corpus seqmix train.conll -o new.jsonl --embedding glove.6B.50d.txt``: a tagged corpus, augmented."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own

import mixops as mx
from mixops import MixValueError

from ..text.checkpoint import PACKAGE, checkpoint_folder, read_checkpoint
from ..text.vectors import WordVectors, word_vectors
from .blocks import Counts
from .generate import Generation
from .judging import Score
from .mix_command import check_engine, engine_options, mix_rows
from .reading import read_tagged
from .schemes import SCHEMES
from .scorers import CausalLMScorer, NGramModel
from .tagged import TaggedCorpus
from .writing import ENDINGS, write_augmented

_FILE = click.Path(dir_okay=False, path_type=Path)
_SEED = click.IntRange(min=0, max=(1 << 64) - 1)
_NEEDS = (
    "the words that new sentences are made of come from word vectors: a text file as GloVe's, an .npz, package:NAME, "
    "or the folder of a Hugging Face model"
)


@click.group()
def corpus_commands() -> None:
    """Whole corpora, augmented offline."""


corpus_commands.add_command(mix_rows, "mix")


def _column(ctx: click.Context, param: click.Parameter, value: str | None) -> str | int | None:
    """A name, or a position, counted from the end if negative."""
    return value if value is None or not value.removeprefix("-").isdecimal() else int(value)


def _writable(ctx: click.Context, param: click.Parameter, path: Path) -> Path:
    if not path.name.lower().endswith(ENDINGS):
        raise click.BadParameter(f"{path} is none of {', '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise click.BadParameter(f"there is no folder {path.parent} to write {path.name} into: make it first")
    return path


@corpus_commands.command()
@click.argument("train", type=_FILE)
@click.option("-o", "--out", type=_FILE, required=True, callback=_writable, help=f"To write: {', '.join(ENDINGS)}.")
@click.option("--embedding", metavar="SOURCE", help="Word vectors: .txt, .npz, package:NAME, or a model's folder.")
@click.option("--keys", default="words,vectors", help="Names of words and vectors in an .npz, joined with a comma.")
@click.option(
    "--among", metavar="WORDS", help="Words that may come in: corpus, those of TRAIN, or a file with one a line.  [all]"
)
@click.option("--token", callback=_column, metavar="COLUMN", help="Of the tokens.  [default: 0, or tokens]")
@click.option("--tag", callback=_column, metavar="COLUMN", help="Of the tags.  [default: -1, or tags]")
@click.option("--scheme", type=click.Choice(SCHEMES), help="Of the tags.  [default: it is found]")
@click.option("--variant", type=click.Choice(["whole", "sub", "label-constrained"]), default="sub")
@click.option("--window", type=int, default=5, help="Tokens of a window.")
@click.option("--min-tags", type=int, help="Least tokens of entities in a window.  [default: 3 of 5]")
@click.option("--density", type=float, help="Least share of such tokens, in place of --min-tags.")
@click.option("--alpha", type=float, default=8.0, help="Of the Beta that shares are drawn from.")
@click.option("--ratio", type=float, default=0.2, help="New sentences for each given one.")
@click.option(
    "--score",
    default="none",
    metavar="HOW",
    help="Perplexity by: ngram, trained on TRAIN; the folder of a causal language model, or package:NAME; or none.",
)
@click.option("--accept", type=float, nargs=2, metavar="LO HI", help="Perplexities that are accepted, LO <= p < HI.")
@click.option("--seed", type=_SEED, default=0, help="Of the run; the same seed, the same file.")
@click.option("--soft/--hard", default=True, help="Write shares of tags, too, or tags alone.")
@engine_options
@click.option("--force", is_flag=True, help="Begin anew, whatever is in the file.")
def seqmix(
    train: Path,
    out: Path,
    embedding: str | None,
    keys: str,
    among: str | None,
    token: str | int | None,
    tag: str | int | None,
    scheme: str | None,
    variant: str,
    window: int,
    min_tags: int | None,
    density: float | None,
    alpha: float,
    ratio: float,
    score: str,
    accept: tuple[float, float] | None,
    seed: int,
    soft: bool,
    engine: str,
    address: str | None,
    workers: int | None,
    force: bool,
) -> None:
    """Make new tagged sentences of those in TRAIN by SeqMix, and write them to a file.

    A run that was stopped or killed goes on when the same command is given again, to the same file as an unbroken one.
    """
    if embedding is None:
        raise click.UsageError(f"--embedding is missing: {_NEEDS}")
    if accept is not None and score == "none":
        raise click.UsageError("--accept needs a --score: ngram, or the folder of a causal language model")
    check_engine(engine, address, workers)
    if out.exists() and train.exists() and out.samefile(train):
        raise click.UsageError(f"{out} is the file to read: write to another")
    op = mx.SeqMix(variant, window, min_tags, density, alpha)
    corpus = read_tagged(train, token=token, tag=tag, scheme=scheme)
    vectors = _vectors(embedding, keys)
    scorer, scored_by = _scorer(score, corpus)
    bounds = (0.0, math.inf) if accept is None else accept
    words = _among(among, corpus)
    generation = Generation(
        corpus, op, embedding=vectors, among=words, score=scorer, accept=bounds, ratio=ratio, seed=seed, soft=soft
    )
    run = {
        **{"mixops": version("mixops"), "corpus": _of_corpus(corpus), "embedding": _of_vectors(vectors)},
        **{"among": "all" if words is None else _digest(f"{word}\n".encode() for word in words)},
        **{"op": repr(op), "score": scored_by, "accept": [str(bound) for bound in bounds]},
        **{"ratio": ratio, "seed": seed, "soft": soft},
    }
    blocks = generation.blocks
    if engine == "ray":
        from ..ray_ import judge_on_ray

        blocks = partial(blocks, judge=partial(judge_on_ray, address=address, workers=workers))
    with tqdm(total=generation.wanted, desc="mixing", unit="sentence", disable=None) as bar:

        def step(sentences: int, counts: Counts) -> None:
            bar.set_postfix_str(f"{counts.candidates} candidates", refresh=False)
            bar.update(sentences - bar.n)

        try:
            written = write_augmented(blocks, out, tag_names=corpus.tag_names, run=run, force=force, progress=step)
        except KeyboardInterrupt:
            bar.clear()
            click.echo(f"mixops: what was made so far is kept: the same command goes on with {out}", err=True)
            raise click.Abort from None
        except OSError as error:
            bar.clear()
            raise click.ClickException(
                f"{out} cannot be written: {error.strerror or error}; what was made so far is kept: make room or give "
                "leave to write there, and the same command goes on"
            ) from None
    click.echo(f"words with a vector: {generation.coverage}")
    if written.complete:
        click.echo(f"{out} is already complete")
    elif written.resumed:
        click.echo(f"went on after {written.resumed} sentences")
    reason = generation.reason(written.counts, written.failure)
    if reason is not None:
        click.echo(f"fewer than the {generation.wanted} that were wanted: {reason}")
    click.echo(f"{written.counts}; {written.sentences} sentences: {out}")


def _vectors(source: str, keys: str) -> WordVectors:
    """Of a model's folder, or of what ``word_vectors`` takes."""
    if Path(source).is_dir() or source.startswith(PACKAGE):
        try:
            folder = checkpoint_folder(source)
        except MixValueError:  # no model: a package of vectors, then
            if not source.startswith(PACKAGE):
                raise MixValueError(f"--embedding {source}: no config.json in this folder: {_NEEDS}") from None
        else:
            model, tokenizer = read_checkpoint(folder, "AutoModel")
            return word_vectors(model, tokenizer=tokenizer)
    return word_vectors(source, keys=[name.strip() for name in keys.split(",")])


def _among(source: str | None, corpus: TaggedCorpus) -> list[str] | None:
    """The words that may come in; None for all that have a vector."""
    if source is None:
        return None
    if source == "corpus":
        return sorted({token for sentence in corpus for token in sentence.tokens})
    try:
        words = Path(source).read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise MixValueError(f"--among {source}: no such file, expected corpus, or a file with a word a line") from None
    except UnicodeDecodeError as error:
        raise MixValueError(f"--among {source}: no UTF-8 text ({error.reason}), expected a word a line") from None
    return [word.strip() for word in words if word.strip()]


def _scorer(how: str, corpus: TaggedCorpus) -> tuple[Score | None, str]:
    """What judges new sentences, and what tells it from others."""
    if how == "none":
        return None, how
    if how == "ngram":
        return NGramModel.of(corpus), how
    if not how.startswith(PACKAGE) and not (Path(how) / "config.json").is_file():
        raise MixValueError(
            f"--score {how}: expected ngram, none, a folder with a causal language model, or package:NAME"
        )
    folder = checkpoint_folder(how)
    model, tokenizer = read_checkpoint(folder, "AutoModelForCausalLM")
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".txt", ".model"))
    return CausalLMScorer(model, tokenizer), _digest(part for path in files for part in _named(path))


def _named(path: Path) -> Sequence[Any]:
    return path.name.encode(), path.read_bytes()


def _of_corpus(corpus: TaggedCorpus) -> str:
    lines = (f"{token}\0{tag}\n" for s in corpus for token, tag in zip(*_columns(s), strict=True))
    return _digest(line.encode() for line in ["\0".join(corpus.tag_names), *lines])


def _columns(sentence: Any) -> tuple[Sequence[str], Sequence[str]]:
    return (*sentence.tokens, ""), (*sentence.tags, "")  # the empty pair parts sentences


def _of_vectors(vectors: WordVectors) -> str:
    return _digest([*(f"{word}\n".encode() for word in vectors.words), vectors.array.tobytes()])


def _digest(parts: Iterable[bytes]) -> str:
    made = hashlib.sha256()
    for part in parts:
        made.update(part)
    return made.hexdigest()[:32]
