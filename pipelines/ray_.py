"""Corpora on many machines by Ray: shards by Ray Data, blocks of SeqMix by tasks, and any Ray Dataset that has row ids.

It needs the extra ``ray`` and is imported by name: ``from mixops.pipelines.ray_ import mix_dataset``. Whatever runs
where, and however often it is begun again, the result is the same: work is cut by the numbers of rows, never by what
Ray happens to put into a block.
"""

from __future__ import annotations

import json
import logging
import socket
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from mixops import MixError, MixTypeError, MixValueError

if TYPE_CHECKING:
    from .corpus.blocks import BlockMaker, Judged
    from .corpus.grouped import GroupMixer
    from .corpus.shards import Receipt, ShardMaker

# Blocks of SeqMix that are being made while the first of them is waited for, for each CPU.
_AHEAD = 2
# Seconds until the port of a cluster has to answer.
_PATIENCE = 10
_GROUP = "mix_group"


@contextmanager
def ray_session(address: str | None = None, workers: int | None = None) -> Iterator[Any]:
    """The module ray, connected: to what is connected already, else to a cluster, else to one begun on this machine.

    Args:
        address: see ``ray.init``; None: no cluster.
        workers: CPUs of the one that is begun here; None: all.

    Raises:
        MixError: if Ray is not installed, or there is no cluster at the address.
    """
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise MixTypeError("engine='ray' needs Ray Data, which is not installed: pip install 'mixops[ray]'")
    _check_reached(address)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray about itself
        import ray

        quiet = [(logging.getLogger(name), logging.getLogger(name).level) for name in ("ray", "ray.data")]
        ours = not ray.is_initialized()
        if not ours and address is not None:
            raise MixValueError(
                f"address={address!r}: Ray is connected already: leave address out, or disconnect first"
            )
        if ours:
            options: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False} if address is None else {}
            try:
                ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **options)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise MixValueError(f"no Ray cluster at {address}: {error}") from None
        import ray.data

        for logger, _ in quiet:
            logger.setLevel(logging.ERROR)
        try:
            yield ray
        finally:
            for logger, level in quiet:
                logger.setLevel(level)
            if ours:
                ray.shutdown()


def _check_reached(address: str | None) -> None:
    """Refuse an address where nothing answers: Ray itself would look for it for minutes."""
    host, found, port = (address or "").removeprefix("ray://").rpartition(":")
    if not found or not port.isdecimal():
        return  # "auto" and the like, of which Ray knows at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise MixValueError(
            f"no Ray cluster at {address}: {error}; expected what `ray start --head` told, reached from here"
        ) from None


def make_shards(
    maker: ShardMaker, todo: Sequence[int], *, address: str | None = None, workers: int | None = None
) -> Generator[Receipt, None, None]:
    """Make shards on Ray, each a task of Ray Data; a task whose worker died is done again by another.

    Args:
        maker: of the shards; its folder has to be one that all nodes reach.
        todo: numbers of the shards.
        address: see ``ray_session``.
        workers: shards at a time; None: one for each CPU.

    Returns:
        An iterator of receipts, in the order in which shards get done.

    Raises:
        MixError: what a shard raised, or if a node has another version of mixops.
        OSError: if a shard cannot be written.
    """
    from .corpus.shards import Receipt

    with ray_session(address, workers) as ray:
        context = ray.data.DataContext.get_current()
        bars, context.enable_progress_bars = context.enable_progress_bars, False
        try:
            numbers = ray.data.range(len(todo), override_num_blocks=len(todo))
            held = {"todo": np.asarray(todo, np.int64), "maker": ray.put(maker), "release": version("mixops")}
            pool = None if workers is None else ray.data.TaskPoolStrategy(size=workers)
            done = numbers.map_batches(_make_one, batch_size=1, fn_kwargs=held, compute=pool)
            for row in done.iter_rows():
                told = json.loads(row["told"])
                if "error" in told:
                    raise _raised(told)
                yield Receipt(**told)
        finally:
            context.enable_progress_bars = bars


def _make_one(batch: dict[str, np.ndarray], *, todo: np.ndarray, maker: Any, release: str) -> dict[str, list[str]]:
    """A shard, in a process of Ray. An error travels as what it says: as itself it would come back wrapped by Ray."""
    (place,) = batch["id"].tolist()
    try:
        _check_release(release)
        told = asdict(_fetched(maker).make(int(todo[place])))
    except (MixError, OSError) as error:
        number = error.errno if isinstance(error, OSError) else None
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        told = {"error": type(error).__name__, "said": said, "errno": number, "file": getattr(error, "filename", None)}
    return {"told": [json.dumps(told)]}


def _raised(told: dict[str, Any]) -> Exception:
    kinds = {"MixTypeError": MixTypeError, "MixValueError": MixValueError}
    if told["error"] in kinds:
        return kinds[told["error"]](told["said"])
    number, said, file = told["errno"], told["said"], told["file"]
    return OSError(said) if number is None else OSError(number, said, file)


def judge_on_ray(
    maker: BlockMaker, numbers: Sequence[int], *, address: str | None = None, workers: int | None = None
) -> Iterator[Iterable[Judged]]:
    """The ``judge`` of ``Generation.blocks`` on Ray: candidates are made and judged by tasks, some blocks ahead.

    Args:
        maker: of the blocks. Its scorer goes to the workers: an object that can be sent there.
        numbers: of the blocks.
        address: see ``ray_session``.
        workers: blocks at a time; None: one for each CPU.

    Returns:
        An iterator in the order of the numbers.

    Raises:
        MixError: if the scorer returns anything but a number for each sentence.

    Example:
        ``generation.blocks(judge=partial(judge_on_ray, workers=8))``: the blocks of ``generation.blocks()``.
    """
    with ray_session(address, workers) as ray:
        ahead = _AHEAD * (workers or int(ray.cluster_resources().get("CPU", 1)))
        held = ray.put(maker)
        task = ray.remote(_judged_there).options(max_retries=-1)
        waiting: list[Any] = []
        left = iter(numbers)
        try:
            for _ in numbers:
                while len(waiting) < ahead and (number := next(left, None)) is not None:
                    waiting.append(task.remote([held], number, version("mixops")))
                judged, told = ray.get(waiting.pop(0))
                if told is not None:
                    raise _raised(told)
                yield judged
        finally:
            for one in waiting:
                ray.cancel(one)


def _judged_there(held: list[Any], number: int, release: str) -> tuple[list[Judged], dict[str, Any] | None]:
    try:
        _check_release(release)
        return list(_fetched(held[0]).judged(number)), None
    except MixError as error:
        return [], {"error": type(error).__name__, "said": str(error)}


def mix_dataset(
    dataset: Any, mixer: GroupMixer, *, row: str = "row", copy: int = 0, partitions: int | None = None
) -> Any:
    """Mix the rows of any Ray Dataset: rows of a group are brought together by their ids, wherever they lie.

    This moves every row once over the network. ``mix_corpus(..., engine="ray")`` reads rows that are files group by
    group and moves none.

    Args:
        dataset: a ``ray.data.Dataset``; tensors in it are those of Ray.
        mixer: the operator, fields, seed and size of groups.
        row: column of ids: whole numbers, each once; the group of a row is id // mixer.group.
        copy: how many times the rows were mixed before: another copy, other draws.
        partitions: pieces that rows are sorted into on their way; None: Ray's choice, 200 for most data.

    Returns:
        A Dataset of the mixed rows, see ``GroupMixer.mix``, computed when it is read: ``.write_parquet(...)``. Their
        order is Ray's; "mix_row" tells the rows apart.

    Raises:
        MixError: if dataset is none, has no column of ids, or blocks of which it is known that they differ. What else
            is wrong is raised, wrapped by Ray, when the result is read: ids that come twice, blocks of another schema,
            columns that do not fit the fields.
    """
    if not hasattr(dataset, "groupby") or not hasattr(dataset, "map_batches"):
        raise MixTypeError(f"mix_dataset: {type(dataset).__name__}, expected a ray.data.Dataset")
    import pyarrow as pa  # type: ignore[import-untyped]  # has no stubs of its own

    try:
        schema = dataset.schema()
    except pa.ArrowException as error:
        raise MixValueError(f"mix_dataset: blocks of another schema: {error}: all have to be of one") from None
    kinds = {} if schema is None else {n: str(kind) for n, kind in zip(schema.names, schema.types, strict=True)}
    if row not in kinds:
        raise MixValueError(
            f"mix_dataset: no column {row!r} of row ids among {list(kinds)}: number the rows where they are made, say "
            "which column it is (row=), or read the files by mix_corpus(..., engine='ray'), which numbers them"
        )
    if _GROUP in kinds:
        raise MixValueError(f"mix_dataset: the rows have a column {_GROUP!r}, which is needed on the way: rename it")
    numbered = dataset.map_batches(
        partial(_numbered, row=row, group=mixer.group, kinds=kinds), batch_format="pyarrow", batch_size=None
    )
    return numbered.groupby(_GROUP, num_partitions=partitions).map_groups(
        partial(_mixed, mixer=mixer, row=row, copy=copy), batch_format="pyarrow"
    )


def _numbered(table: Any, *, row: str, group: int, kinds: dict[str, str]) -> Any:
    import pyarrow as pa

    found = {field.name: str(field.type) for field in table.schema}
    for name in dict.fromkeys((*kinds, *found)):
        if found.get(name) != kinds.get(name):
            raise MixValueError(
                f"a block whose column {name!r} is {found.get(name, 'missing')}, expected "
                f"{kinds.get(name, 'no such column')}: all blocks have to be of one schema"
            )
    ids = table[row].to_numpy()
    if ids.dtype.kind not in "iu" or (ids < 0).any():
        raise MixValueError(f"column {row!r} holds {ids.dtype}, expected whole numbers of 0 or more, the ids of rows")
    return table.append_column(_GROUP, pa.array(ids.astype(np.int64) // group))


def _mixed(table: Any, *, mixer: GroupMixer, row: str, copy: int) -> Any:
    table = table.sort_by(row)
    ids = table[row].to_numpy().astype(np.int64)
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if len(twice):
        raise MixValueError(f"the id {ids[twice[0]]} in {row!r} comes twice, expected each once")
    return _for_ray(mixer.mix(table.drop_columns([_GROUP, row]), int(table[_GROUP][0].as_py()), copy, ids))


def _for_ray(table: Any) -> Any:
    """Tensors as Ray has them: those of Arrow do not come through its shuffles."""
    import pyarrow as pa
    from ray.data.extensions import ArrowTensorArray

    for i, field in enumerate(table.schema):
        if isinstance(field.type, pa.FixedShapeTensorType):
            column = table[field.name].combine_chunks()
            values = (column.chunk(0) if isinstance(column, pa.ChunkedArray) else column).to_numpy_ndarray()
            table = table.set_column(i, field.name, ArrowTensorArray.from_numpy(values))
    return table


@lru_cache(maxsize=1)
def _fetched(held: Any) -> Any:
    """What a reference stands for, once in each process of Ray."""
    import ray

    return ray.get(held)


def _check_release(release: str) -> None:
    if version("mixops") != release:
        raise MixValueError(
            f"a node of the cluster has mixops {version('mixops')}, the driver {release}: install the same on all, or "
            "they would draw differently"
        )
