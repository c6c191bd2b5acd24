"""A whole corpus mixed offline, on this machine or on many, by the same function with the same result."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mixops import MixValueError

from ..folders import UNFINISHED, whole_file
from .grouped import GroupMixer, Saliency
from .rows import open_corpus
from .shards import FORMS, Receipt, ShardMaker, check_alike

ENGINES = ("local", "ray")
#: In the folder: which run it holds, and when all is done what lies in it. Readers of Parquet folders pass over it.
RECORD = "_corpus.json"
_FORMAT = {"format": "mixops.corpus", "version": 1}
_FIX = "name another folder, or begin anew with force (--force)"


@dataclass(frozen=True)
class MixedCorpus:
    """What lies in the folder when a run has ended.

    Args:
        out: the folder.
        rows: in all shards.
        shards: in the order of their numbers.
        resumed: shards that were there when this run began.
        complete: True if the run had ended before, and nothing was to do.
    """

    out: Path
    rows: int
    shards: tuple[Receipt, ...]
    resumed: int
    complete: bool


def mix_corpus(
    source: Any,
    op: Any,
    fields: Mapping[str, Any],
    out: str | Path,
    *,
    seed: int = 0,
    group: int = 1024,
    copies: int = 1,
    shard: int | None = None,
    form: str = "parquet",
    saliency: Saliency | None = None,
    size: int | tuple[int, int] | None = None,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    force: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> MixedCorpus:
    """Mix all rows of a corpus and write them in shards, here or on a Ray cluster: the same files from either.

    Rows are mixed with rows of their own group, ``group`` rows that follow one another in the source. Group g of copy c
    is drawn from (seed, c, g), so a row has the same partners whoever mixes it. Rows that are sorted by class should be
    shuffled before: a group would hold one class. Images of a folder are.

    Args:
        source: see ``open_corpus``: Parquet, JSONL, CoNLL, a folder of images, a pyarrow Table.
        op: the operator. One draw is for a whole group: ``per="sample"`` gives each row a λ of its own.
        fields: {column: Field | Labels}. Lists of texts or of numbers are "b t" and discrete. Others go along.
        out: folder to write into; on a cluster one that every node reaches under this name.
        seed: of the run, 0 ≤ seed < 2**64.
        group: rows among which partners are drawn, 1 or more.
        copies: how many times every row is mixed, 1 or more.
        shard: rows of a file, rounded up to whole groups; None: what the source reads well at a time.
        form: "parquet", or "webdataset" (tar files; images as PNG, other arrays as .npy, the rest as .json).
        saliency: makes what SSMix asks for: takes the columns of the fields of a group, {name: list of rows}, and
            returns a sequence of numbers for each row; None: a column of that name.
        size: (height, width) that images are cropped and resized to, or one number for both; None leaves encoded
            images of a column as they are, and makes those of a folder 224 by 224.
        engine: "local", one shard after the other in this process; or "ray".
        address: of a Ray cluster, see ``ray.init``; None: the one that is connected, else one of this machine.
        workers: shards that Ray makes at a time; None: one for each CPU.
        force: begin anew, whatever run the folder holds.
        progress: called with the rows that are written and all rows, at the beginning and after every shard.

    Returns:
        MixedCorpus. A run that was stopped or killed goes on when it is called again; one that has ended is not
        repeated. Every row has the columns "mix_row" (its number in the source), "mix_copy", "mix_parents" (the rows it
        was made of, itself first) and "mix_shares" (of the label).

    Raises:
        MixError: if source, fields and operator do not fit, a number is out of range, rows are not of one kind
            throughout, the folder holds something else or another run, or Ray is not installed.
        OSError: if a shard cannot be written. No shard is ever there in part.

    Example:
        >>> import tempfile, mixops as mx, pyarrow as pa
        >>> table = pa.table({"image": pa.array([[0.0, 4.0], [4.0, 0.0]]), "label": [0, 1]})
        >>> fields = {"image": mx.Field("b d"), "label": mx.Labels(2)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = mix_corpus(table, mx.Mixup(0.8, per="sample"), fields, folder, seed=7)
        >>> done.rows, [shard.file for shard in done.shards]
        (2, ['part-000000.parquet'])
    """
    _check_choices(engine=(engine, ENGINES), form=(form, FORMS))
    for name, value in (("copies", copies), ("shard", shard), ("workers", workers)):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if value is not None and not (whole and value >= 1):
            raise MixValueError(f"mix_corpus: {name}={value!r}, expected a whole number of 1 or more")
    mixer = GroupMixer(op, fields, seed, group, saliency, size)
    rows = open_corpus(source, size=224 if size is None else size, seed=seed)
    if not len(rows):
        raise MixValueError(f"{rows.name}: no row, expected one or more")
    out = Path(out)
    maker = ShardMaker(rows, mixer, out, math.ceil((shard or rows.step) / group), copies, form)
    maker.check_first()
    run = {
        **{"mixops": version("mixops"), "source": rows.digest, "op": repr(op), "fields": repr(dict(fields))},
        **{"seed": seed, "group": group, "copies": copies, "shard": maker.span, "form": form, "size": mixer.size},
        **{"saliency": None if saliency is None else getattr(saliency, "__qualname__", type(saliency).__qualname__)},
    }
    run = json.loads(json.dumps(run, default=int))  # as it will be read back; NumPy's numbers as plain ones
    receipts = _begun(out, run, force)
    complete = receipts is not None
    if receipts is None:
        _clear(out)
        receipts = maker.made()
    resumed, total = len(receipts), len(rows) * copies
    progress = progress or (lambda written, wanted: None)
    written = sum(receipt.rows for receipt in receipts)
    progress(written, total)
    have = {receipt.number for receipt in receipts}
    todo = [number for number in range(len(maker)) if number not in have]
    check_alike(receipts)
    with closing(_made(maker, todo, engine, address, workers)) as made:  # after an error, too, Ray is let go at once
        for receipt in made:
            check_alike([*receipts[:1], receipt])
            receipts.append(receipt)
            written += receipt.rows
            progress(written, total)
    receipts.sort(key=lambda receipt: receipt.number)
    if not complete:
        if _recorded(out)[0] != run:
            raise MixValueError(f"{out}: another run was begun in it meanwhile: let one at a time write there")
        _save(out, run, receipts)
        for receipt in receipts:
            maker.receipt(receipt.number).unlink(missing_ok=True)
    return MixedCorpus(out, written, tuple(receipts), resumed, complete)


def _made(
    maker: ShardMaker, todo: Sequence[int], engine: str, address: str | None, workers: int | None
) -> Generator[Receipt, None, None]:
    if engine == "local" or not todo:
        return (maker.make(number) for number in todo)
    from ..ray_ import make_shards

    return make_shards(maker, todo, address=address, workers=workers)


def _check_choices(**given: tuple[str, Sequence[str]]) -> None:
    for name, (value, choices) in given.items():
        if value not in choices:
            raise MixValueError(f"mix_corpus: {name}={value!r}, expected one of {', '.join(map(repr, choices))}")


def _begun(out: Path, run: Mapping[str, Any], force: bool) -> list[Receipt] | None:
    """Receipts of a run that has ended in this folder; None if there is something to do. Refuses what else is there."""
    out.mkdir(parents=True, exist_ok=True)
    record = out / RECORD
    if force and record.exists():
        for path in [*out.glob("part-*"), *out.glob(".part-*")]:
            path.unlink()
        _save(out, run, None)
        return None
    if not record.exists():
        other = next((path.name for path in out.iterdir() if not path.name.endswith(UNFINISHED)), None)
        if other is not None:
            raise MixValueError(f"{out} holds {other}, and no run that could go on in it: name another folder")
        _save(out, run, None)
        return None
    held, receipts = _recorded(out)
    if held != run:
        if receipts is None and not any([*out.glob("part-*"), *out.glob(".part-*")]):
            _save(out, run, None)  # it ended before it made anything
            return None
        name = next(name for name in (*run, *held) if held.get(name) != run.get(name))
        raise MixValueError(f"{out} holds another run: {name} was {held.get(name)!r}, is now {run.get(name)!r}: {_FIX}")
    for receipt in receipts or ():
        path = out / receipt.file
        if not path.exists() or path.stat().st_size != receipt.bytes:
            raise MixValueError(f"{path}: not what {RECORD} says was written: it was changed or lost since: {_FIX}")
    return receipts


def _recorded(out: Path) -> tuple[dict[str, Any], list[Receipt] | None]:
    """The run that the folder holds, and its receipts if it has ended."""
    record = out / RECORD
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        if {name: content[name] for name in _FORMAT} != _FORMAT:
            raise ValueError("another format")
        run, shards = dict(content["run"]), content["shards"]
        return run, None if shards is None else [Receipt(**shard) for shard in shards]
    except (ValueError, TypeError, KeyError):
        raise MixValueError(f"{record}: no record of a run, expected one of this version of mixops: {_FIX}") from None


def _clear(out: Path) -> None:
    """Files that a process was writing when it was killed."""
    for path in out.glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)


def _save(out: Path, run: Mapping[str, Any], receipts: Sequence[Receipt] | None) -> None:
    shards = None if receipts is None else [asdict(receipt) for receipt in receipts]
    with whole_file(out / RECORD) as fresh:
        told = json.dumps({**_FORMAT, "run": run, "shards": shards}, ensure_ascii=False, indent=1)
        fresh.write_text(f"{told}\n", encoding="utf-8")
