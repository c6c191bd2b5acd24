"""Shards: pieces of a stream that are read from their start, or from a place that was saved.

A shard of webdataset has no place of its own: what was read is read over again, undecoded. One of Hugging Face datasets
goes on through its own state.
"""

from __future__ import annotations

import multiprocessing
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from tarfile import HeaderError, ReadError
from typing import Any, Protocol, Self

import numpy as np

from mixops import MixTypeError, MixValueError

from .adapters import as_array
from .state import count

#: Rows that are asked of a Hugging Face data set at a time: a row alone costs up to ten times as much.
_CHUNK = 32

#: Members of a tar file that webdataset keeps for itself.
_META = re.compile(r"__[^/]*__($|/)")

#: Endings of members that hold pickles: to read one is to run it.
_PICKLES = frozenset(("pkl", "pickle", "pyd", "pth"))


class Reading(Protocol):
    """A pass over a shard."""

    def __iter__(self) -> Self: ...

    def __next__(self) -> Any: ...

    def at(self) -> Any:
        """The place of the next sample, in plain JSON values."""
        ...


class Shard(Protocol):
    """A piece of a stream, in an order of its own that does not change."""

    name: str

    def read(self, at: Any = None) -> Reading:
        """A pass from this place on; None: from the start."""
        ...

    def decode(self, raw: Any) -> Any:
        """The sample that was read: what is skipped, or waits to be shuffled, is not decoded."""
        ...


class _Counted:
    """A reading whose place is the number of its samples."""

    def __init__(self, samples: Iterator[Any], at: Any) -> None:
        self._samples, self._count = samples, 0 if at is None else count("StreamLoader", "state at", at)
        self._over: int = self._count

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        over, self._over = self._over, 0
        sample = next(islice(self._samples, over, None))
        self._count += 1
        return sample

    def at(self) -> int:
        return self._count


class PlainShard:
    """Any iterable that gives the same samples in the same order each time it is iterated over."""

    def __init__(self, samples: Iterable[Any], name: str) -> None:
        self.samples, self.name = samples, name

    def read(self, at: Any = None) -> Reading:
        """See Shard."""
        return _Counted(iter(self.samples), at)

    def decode(self, raw: Any) -> Any:
        """See Shard."""
        return raw


def as_shards(owner: str, shards: Any) -> list[Shard]:
    """A list of shards out of a list of shards and iterables."""
    if not isinstance(shards, Sequence) or isinstance(shards, (str, bytes)):
        raise MixTypeError(
            f"{owner}: shards is {type(shards).__name__}, expected a list of shards: tar_shards(urls, ...), "
            "huggingface_shards(dataset, ...), or iterables of samples"
        )
    if not shards:
        raise MixValueError(f"{owner}: there are no shards, expected at least one")
    return [_as_shard(owner, number, shard) for number, shard in enumerate(shards)]


def _as_shard(owner: str, number: int, shard: Any) -> Shard:
    if all(hasattr(shard, name) for name in ("read", "decode", "name")):
        return shard
    if not isinstance(shard, Iterable) or isinstance(shard, Iterator):
        raise MixTypeError(
            f"{owner}: shard {number} is {type(shard).__name__}, expected an iterable that starts anew each time: a "
            "list, or an object whose __iter__ is a generator"
        )
    return PlainShard(shard, f"shard {number}")


def tar_shards(
    urls: str | Sequence[str], columns: Mapping[str, str] | Sequence[str], *, images: str = "rgb8"
) -> list[Shard]:
    """Shards of tar files, as webdataset reads them.

    Args:
        urls: of the files, or one with braces, ``"train-{000..146}.tar"``. All that webdataset opens: paths, http and
            others; ``pipe:`` runs a shell command, so look at a list that somebody else wrote.
        columns: endings to read; a mapping {ending: name} renames. ``"jpg;png"`` takes the first that is there, and
            ``"__key__"`` is the name of the sample. Others are not decoded.
        images: what webdataset makes of image files: "rgb8" (h, w, 3) uint8, "l8" (h, w) uint8, ...

    Returns:
        Shards for StreamLoader; samples are dicts. Images are decoded by pillow, ``.cls``, ``.txt``, ``.json``,
        ``.npy`` and their kin by webdataset, other endings stay bytes; pickles (``.pkl``, ``.pyd``, ``.pth``) are
        refused, for to read one is to run it.

    Raises:
        MixError: if webdataset is not installed, there is no url, one comes twice, or no column is named.
    """
    need("tar_shards", "webdataset")
    from webdataset.shardlists import expand_urls  # type: ignore[import-untyped]

    named = _columns("tar_shards", columns)
    paths = [str(url) for url in (expand_urls(urls) if isinstance(urls, str) else urls)]
    twice = [path for path in paths if paths.count(path) > 1] if len(set(paths)) < len(paths) else []
    if not paths or twice:
        got = "no url" if not paths else f"{twice[0]} twice"
        raise MixValueError(f"tar_shards: got {got}, expected the urls of tar files, each once")
    return [TarShard(path, named, images) for path in paths]


class TarShard:
    """A tar file of webdataset. See tar_shards()."""

    def __init__(self, url: str, columns: Mapping[str, str], images: str) -> None:
        self.url, self.columns, self.images = url, columns, images
        self.name = url.replace("\\", "/").rsplit("/", 1)[-1]
        self._decode1: Callable[[str, bytes], Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return TarShard, (self.url, self.columns, self.images)

    def read(self, at: Any = None) -> Reading:
        """See Shard."""
        return _Counted(self._samples(), at)

    def _samples(self) -> Iterator[Any]:
        from webdataset.gopen import gopen  # type: ignore[import-untyped]
        from webdataset.tariterators import group_by_keys  # type: ignore[import-untyped]

        key = None
        try:
            with gopen(self.url) as stream, tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Member) as members:
                for sample in group_by_keys(self._files(members)):
                    key = sample["__key__"]
                    yield sample
        except Exception as err:  # of tarfile, of what opens the url, of the network
            last = "at its start" if key is None else f"after sample {key!r}"
            reason = err.args[0] if err.args else err
            raise MixValueError(f"{self.url} cannot be read {last}: {type(err).__name__}: {reason}") from err

    def _files(self, members: tarfile.TarFile) -> Iterator[dict[str, Any]]:
        # Not webdataset's own: it leaves files open, and takes a garbled header for the end.
        for member in members:
            file = None if _META.match(member.name) else members.extractfile(member)
            if file is not None:
                yield {"fname": member.name, "data": file.read(), "__url__": self.url}
            members.members = []  # type: ignore[attr-defined]  # else all of them are remembered

    def decode(self, raw: Any) -> dict[str, Any]:
        """See Shard."""
        key = raw["__key__"]
        made = {}
        for endings, name in self.columns.items():
            found = [ending for ending in endings.split(";") if ending in raw]
            if not found:
                have = [ending for ending in raw if not ending.startswith("__")]
                raise MixValueError(f"{key!r} has {have}, expected {endings!r}: write it, or take other columns")
            value = raw[found[0]]
            made[name] = value if found[0].startswith("__") else self._decoded(key, found[0], value)
        return made

    def _decoded(self, key: str, ending: str, value: bytes) -> Any:
        if self._decode1 is None:
            from webdataset.autodecode import Decoder, imagehandler  # type: ignore[import-untyped]

            # Decoder.decode would go on to other members too, and name none of them.
            self._decode1 = Decoder([imagehandler(self.images)], post=[_basic]).decode1
        try:
            return _writable(self._decode1(ending, value))
        except Exception as err:  # whatever PIL, NumPy and json say of broken bytes
            raise MixValueError(f"{key}.{ending} cannot be decoded: {type(err).__name__}: {err}") from err


class _Member(tarfile.TarInfo):
    """A member of a tar file that has to end with its end mark: tarfile takes a garbled header for one."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        """The next member."""
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as err:
            if type(err).__name__ == "EOFHeaderError":
                raise
            raise ReadError(f"{err}: cut off, garbled, or its writer was not closed") from err


def _basic(key: str, data: bytes) -> Any:
    """What webdataset makes of an ending, but for pickles."""
    from webdataset.autodecode import basichandlers

    if key.rsplit(".", 1)[-1] in _PICKLES:
        raise MixValueError("to read a pickle is to run it: write .npy, .json or .txt, or name the other columns")
    return basichandlers(key, data)


def huggingface_shards(dataset: Any, columns: Mapping[str, str] | Sequence[str]) -> list[Shard]:
    """Shards of a ``datasets.IterableDataset``; each goes on through the state_dict of its data set.

    Args:
        dataset: ``load_dataset(..., split=..., streaming=True)``, or ``Dataset.to_iterable_dataset(num_shards=...)``;
            with ``map`` and ``filter`` if you like, but not shuffled and not split by node: StreamLoader does both, and
            a buffer of samples would be lost on a resume.
        columns: to keep; a mapping {column: name} renames.

    Returns:
        Shards for StreamLoader, one for each of the data set; samples are dicts, PIL images (h, w, c) uint8 arrays.

    Raises:
        MixError: if datasets is not installed, it is another kind of data set, split by node, or lacks a column.

    Example:
        >>> from datasets import Dataset
        >>> stream = Dataset.from_dict({"x": [1, 2, 3], "id": [7, 8, 9]}).to_iterable_dataset(num_shards=3)
        >>> shards = huggingface_shards(stream, ["x"])
        >>> len(shards), list(shards[1].read())
        (3, [{'x': 2}])
    """
    need("huggingface_shards", "datasets")
    from datasets import IterableDataset  # type: ignore[import-untyped]

    if not isinstance(dataset, IterableDataset):
        fix = "pass it with keyed(from_huggingface(...)) to a DataLoader, or dataset.to_iterable_dataset(num_shards=8)"
        fix = f"choose a split: dataset[{next(iter(dataset))!r}]" if isinstance(dataset, dict) and dataset else fix
        raise MixTypeError(f"huggingface_shards: got {type(dataset).__name__}, expected an IterableDataset: {fix}")
    if getattr(dataset, "_distributed", None) is not None:
        raise MixValueError("huggingface_shards: this data set is split by node: leave that to StreamLoader(rank=...)")
    if _shuffles(getattr(dataset, "_ex_iterable", None)):
        raise MixValueError(
            "huggingface_shards: this data set is shuffled by itself, and a resume would lose the samples of its "
            "buffer: leave shuffle() away, and give StreamLoader(shuffle=...)"
        )
    named, have = _columns("huggingface_shards", columns), dataset.column_names
    missing = [column for column in named if have is not None and column not in have]
    if missing:
        raise MixValueError(f"huggingface_shards: no column {missing[0]!r}, the data set has {have}")
    return [HuggingFaceShard(dataset, index, named) for index in range(dataset.num_shards)]


def _shuffles(iterable: Any) -> bool:
    """Does a data set of Hugging Face hold a buffer that shuffles? It tells by the names of its parts alone."""
    if type(iterable).__name__.startswith("BufferShuffled"):
        return True
    parts = [getattr(iterable, "ex_iterable", None), *getattr(iterable, "ex_iterables", ())]
    return any(_shuffles(part) for part in parts if part is not None)


class HuggingFaceShard:
    """A shard of an IterableDataset. See huggingface_shards()."""

    def __init__(self, dataset: Any, index: int, columns: Mapping[str, str]) -> None:
        self.dataset, self.index, self.columns = dataset, index, columns
        words = [getattr(dataset.info, "builder_name", None), getattr(dataset.info, "config_name", None), dataset.split]
        known = "/".join(str(word) for word in words if word is not None)
        self.name = f"{known or 'data set'}, shard {index} of {dataset.num_shards}"

    def read(self, at: Any = None) -> Reading:
        """See Shard."""
        return _Rows(self.dataset.shard(num_shards=self.dataset.num_shards, index=self.index), list(self.columns), at)

    def decode(self, raw: Any) -> dict[str, Any]:
        """See Shard."""
        return {name: _writable(as_array(raw[column])) for column, name in self.columns.items()}


class _Rows:
    """The rows of a shard. Its place: the data set's state before a chunk of rows, and how many of them came."""

    def __init__(self, dataset: Any, columns: list[str], at: Any) -> None:
        if multiprocessing.parent_process() is not None and find_spec("fsspec") is not None:
            import fsspec.asyn  # type: ignore[import-untyped]

            fsspec.asyn.reset_lock()  # a fork may hold it: datasets does the same in a worker of a DataLoader
        self._dataset, self._columns = dataset, columns
        self._start, self._skip = _state_at(at)
        if self._start is not None:
            dataset.load_state_dict(self._start)
        # Not iter(dataset): in a worker of a DataLoader it would share this one shard out among the workers.
        self._chunks = dataset.iter(_CHUNK)
        self._end, self._rows, self._used = self._start, list[Any](), 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        while self._used >= len(self._rows):
            chunk = next(self._chunks)
            self._start, self._end = self._end, self._dataset.state_dict()
            self._rows = self._taken_apart(chunk)
            self._used, self._skip = self._skip, 0
        self._used += 1
        return self._rows[self._used - 1]

    def at(self) -> dict[str, Any]:
        if self._used < len(self._rows):
            return {"state": self._start, "skip": self._used}
        return {"state": self._end, "skip": self._skip}

    def _taken_apart(self, chunk: Any) -> list[Any]:
        if not isinstance(chunk, Mapping):
            raise MixTypeError(f"rows come as {type(chunk).__name__}: give the data set .with_format(None) or 'numpy'")
        missing = [column for column in self._columns if column not in chunk]
        if missing:
            raise MixValueError(f"no column {missing[0]!r}, the rows have {list(chunk)}")
        columns = [chunk[column] for column in self._columns]
        return [dict(zip(self._columns, row, strict=True)) for row in zip(*columns, strict=True)]


def _state_at(at: Any) -> tuple[Any, int]:
    if at is None:
        return None, 0
    if (
        not isinstance(at, Mapping)
        or set(at) != {"state", "skip"}
        or not isinstance(at["state"], (Mapping, type(None)))
    ):
        raise MixValueError(f"the state has {at!r}, which is no place in a Hugging Face data set")
    return at["state"], count("StreamLoader", "state skip", at["skip"])


def _writable(value: Any) -> Any:
    """A copy of an array that must not be written to: torch warns of tensors over such memory."""
    return value.copy() if isinstance(value, np.ndarray) and not value.flags.writeable else value


def _columns(owner: str, columns: Any) -> dict[str, str]:
    if isinstance(columns, Mapping):
        named = dict(columns)
    else:
        named = {} if isinstance(columns, str) else {column: column for column in columns}
    if not named or len(set(named.values())) < len(named):
        raise MixValueError(f"{owner}: columns is {columns!r}, expected {{column: name}} or a list, each name once")
    return named


def need(owner: str, package: str) -> None:
    """Refuse where a package is not installed."""
    if find_spec(package) is None:
        raise MixTypeError(
            f'{owner} needs {package}, which is not installed: pip install {package} (or "mixops[streams]")'
        )
