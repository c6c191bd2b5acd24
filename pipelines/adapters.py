"""Data sets of arrays: in memory, or mapped from .npy and .npz files so that only the rows that are used are read."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from os import fspath
from pathlib import Path
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError


class ArrayDataset:
    """A map-style data set of named arrays of equal length; a sample is a dict of rows. See arrays()."""

    def __init__(self, origins: dict[str, Any]) -> None:
        if not origins:
            raise MixValueError("arrays: got nothing, expected arrays(name=array or path, ...)")
        self._origins = origins
        self.fields = {name: _opened(name, origin) for name, origin in origins.items()}
        lengths = {name: len(array) for name, array in self.fields.items()}
        if len(set(lengths.values())) > 1:
            raise MixValueError(f"arrays: lengths {lengths}, expected one length: a row of each makes a sample")

    def __len__(self) -> int:
        return len(next(iter(self.fields.values())))

    def __getitem__(self, index: int) -> dict[str, Any]:
        # A copy of the row: the map is read-only, and torch warns of tensors over memory that it must not write.
        return {name: np.array(array[index])[()] for name, array in self.fields.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        # A spawned worker opens the files for itself; a map would be pickled as all of its bytes.
        return ArrayDataset, (self._origins,)


def arrays(**fields: Any) -> ArrayDataset:
    """A data set over arrays of equal length, named as the batch shall name them.

    Args:
        **fields: for each name an array of shape (n, ...); or the path of a ``.npy`` file; or the path of a ``.npz``
            file that has a member of this name, or (path, member). Files are mapped into memory, read-only; compressed
            members of a ``.npz`` cannot be and are loaded whole.

    Returns:
        An ArrayDataset: ``len``, indexing by row, ``.fields``; samples are dicts of copies of rows.

    Raises:
        MixError: if lengths differ, an array holds Python objects or has no rows' axis, or a file is broken, of another
            format or lacks the member.
        FileNotFoundError: if there is no such file.

    Example:
        >>> data = arrays(x=np.arange(6).reshape(3, 2), y=[0, 1, 0])
        >>> len(data), data[1]["x"].tolist(), int(data[1]["y"])
        (3, [2, 3], 1)
    """
    return ArrayDataset(fields)


def _opened(name: str, origin: Any) -> np.ndarray:
    path, member = (
        origin if isinstance(origin, tuple) and len(origin) == 2 and isinstance(origin[1], str) else (origin, name)
    )
    try:
        fspath(path)
    except TypeError:
        array = _numeric(name, np.asarray(origin))
    else:
        array = _numeric(name, _from_file(Path(path), member))
    if not array.ndim:
        raise MixValueError(f"arrays: {name} is a single number, expected an array of shape (n, ...)")
    return array


def _numeric(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.hasobject:
        raise MixTypeError(f"arrays: {name} holds Python objects ({array.dtype}), expected numbers of one type")
    return array


def _from_file(path: Path, member: str) -> np.ndarray:
    if path.suffix not in (".npy", ".npz"):
        raise MixValueError(f"arrays: {path} is no .npy or .npz file; load it yourself and pass the array")
    try:
        if path.suffix == ".npz":
            return _from_npz(path, member)
        array: np.ndarray = np.load(path, mmap_mode="r" if _has_rows(path) else None, allow_pickle=False)
        return array
    except (ValueError, EOFError, zipfile.BadZipFile, OSError) as err:
        if isinstance(err, (FileNotFoundError, PermissionError, MixValueError)):
            raise
        raise MixValueError(
            f"arrays: {path} cannot be read: {err}; expected numbers saved by np.save or np.savez"
        ) from err


def _has_rows(path: Path) -> bool:
    with path.open("rb") as file:
        shape, _, _ = _npy_header(file)
    return 0 not in shape  # nothing to map in an array of no bytes


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f".npy format {version}, expected (1, 0) or (2, 0)")
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, fortran, dtype


def _from_npz(path: Path, member: str) -> np.ndarray:
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        names = [n.removesuffix(".npy") for n in archive.namelist()]
        if member not in names:
            raise MixValueError(f"arrays: {path} has no member {member!r}, it has {names}: pass (path, member)")
        info = archive.infolist()[names.index(member)]
        if info.compress_type != zipfile.ZIP_STORED:
            with archive.open(info) as unpacked:
                return np.lib.format.read_array(unpacked, allow_pickle=False)
        # The bytes of a stored member begin after its local header: 30 bytes, the name and an extra field.
        file.seek(info.header_offset + 26)
        file.seek(info.header_offset + 30 + sum(np.frombuffer(file.read(4), "<u2").tolist()))
        shape, fortran, dtype = _npy_header(file)
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")


class Adapted:
    """A map-style data set as dict samples, PIL images as uint8 arrays. See from_torchvision and from_huggingface."""

    def __init__(self, dataset: Any, columns: dict[Any, str]) -> None:
        self.dataset, self.columns = dataset, columns

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._named(self.dataset[index])

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Samples of a batch, through the data set's own __getitems__ if it has one."""
        fetch = getattr(self.dataset, "__getitems__", None)
        samples = fetch(list(indices)) if callable(fetch) else [self.dataset[i] for i in indices]
        return [self._named(sample) for sample in samples]

    def _named(self, sample: Any) -> dict[str, Any]:
        try:
            return {name: as_array(sample[column]) for column, name in self.columns.items()}
        except (KeyError, IndexError) as err:
            have = list(sample) if isinstance(sample, dict) else f"{len(sample)} entries"
            raise MixValueError(f"sample has {have}, expected {list(self.columns)}: {err}") from None


def as_array(value: Any) -> Any:
    """A PIL image as (h, w, c) uint8, 1 channel if it is grey, else RGB; anything else as it is."""
    if hasattr(value, "getbands") and hasattr(value, "convert"):
        value = in_bytes(value, getattr(value, "format", None))
        grey = value.mode in ("L", "1", "LA")
        pixels = np.array(value.convert("L" if grey else "RGB"))
        return pixels[..., None] if grey else pixels
    return value


def in_bytes(image: Any, kind: str | None) -> Any:
    """A PIL image, greys of 16 bits as 8: Pillow would cut them off at 255.

    Args:
        image: of any mode.
        kind: of the file that it was read from, "PNG" say.

    Raises:
        MixError: if its pixels are floats or numbers of 32 bits, whose range is not known.
    """
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and kind == "PNG"):  # as Pillow 10 opens them
        return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise MixValueError(
            f"pixels of a PIL image of mode {image.mode}, whose range is not known: expected 8 or 16 bits"
        )
    return image


def from_torchvision(dataset: Any, names: Sequence[str] = ("image", "label")) -> Adapted:
    """Dict samples from a torchvision data set, or any map-style data set of tuples.

    Args:
        dataset: whose samples are tuples, (image, label) say; give it ``transform`` for tensors of one size.
        names: one for each entry of the tuple; fewer leave the last entries out.

    Returns:
        A map-style data set; PIL images become (h, w, c) uint8 arrays.

    Raises:
        MixError: if the data set has no indexing; on access, if a sample has fewer entries.

    Example:
        >>> from_torchvision([(np.zeros((2, 2, 3), np.uint8), 4)])[0]["label"]
        4
    """
    return Adapted(_map_style("from_torchvision", dataset), dict(enumerate(names)))


def from_huggingface(dataset: Any, columns: dict[str, str] | Sequence[str]) -> Adapted:
    """Dict samples from a Hugging Face data set.

    Args:
        dataset: a ``datasets.Dataset`` (not a DatasetDict: choose a split), or anything with rows that are dicts.
        columns: to keep; a mapping {column: name} renames.

    Returns:
        A map-style data set; PIL images become (h, w, c) uint8 arrays.

    Raises:
        MixError: if the data set has no indexing or lacks a column.

    Example:
        >>> from_huggingface([{"img": 1, "label": 4, "id": 9}], {"img": "image", "label": "label"})[0]
        {'image': 1, 'label': 4}
    """
    _map_style("from_huggingface", dataset)
    named = dict(columns) if isinstance(columns, dict) else {column: column for column in columns}
    have = getattr(dataset, "column_names", None)
    if isinstance(dataset, dict):
        raise MixTypeError(f"from_huggingface: got splits {list(dataset)}, expected one: dataset['train']")
    missing = [column for column in named if have is not None and column not in have]
    if missing:
        raise MixValueError(f"from_huggingface: no column {missing[0]!r}, the data set has {have}")
    return Adapted(dataset, named)


def _map_style(owner: str, dataset: Any) -> Any:
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise MixTypeError(
            f"{owner}: {type(dataset).__name__} is no map-style data set: expected a length and indexing"
        )
    return dataset
