"""Images by class from a folder, and arrays from an .npz, as rows to learn from and rows that are held out."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError, streams

from ..adapters import arrays
from ..sources import ImageFolder, image_folder, read_image

#: Names of the folder whose images are held out, the first that is there.
_HELD_OUT = ("val", "valid", "validation", "test")
#: Of a folder without one, so large a share of every class is held out.
_SHARE = 0.2
#: What reads may be wrapped in to be counted: (things, what is done) -> the same things.
Watch = Callable[[list[Any], str], Iterable[Any]]


@dataclass(frozen=True, eq=False)
class HeldArrays:
    """Rows in memory, or mapped from a file.

    Args:
        x: (N, h, w, c) or (N, c, h, w) images, uint8 or float; or (N, d) rows of numbers.
        y: (N,) int64 classes.
        x_test: (M, ...) rows that are held out.
        y_test: (M,) their classes.
        classes: names.
        layout: of x, "b h w c", "b c h w" or "b d".
        skipped: what could not be read, and why.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: list[str]
    layout: str
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise MixValueError(f"the one class {self.classes[0]!r} to learn, expected two or more")
        for name, array in (("to learn from", self.x), ("held out", self.x_test)):
            if not len(array):
                raise MixValueError(f"no row {name}, expected some")

    @property
    def kind(self) -> str:
        """What a row is, in the plural."""
        return "rows of numbers" if self.layout == "b d" else "images"

    @property
    def facts(self) -> dict[str, Any]:
        """Shapes, classes and a checksum, as plain JSON values."""
        sums = [zlib.crc32(np.ascontiguousarray(a).data) for a in (self.x, self.y, self.x_test, self.y_test)]
        return {
            "rows": list(self.x.shape),
            "held out": len(self.x_test),
            "classes": self.classes,
            "checksum": "-".join(f"{one:08x}" for one in sums),
        }


def held_folder(path: Path, size: int, seed: int, watch: Watch) -> HeldArrays:
    """Images of a folder: one folder for each class, below train/ and val/ (or test/), or all in one that is split.

    Args:
        path: of the folder.
        size: side in pixels that images are cropped and resized to.
        seed: of the split, a fifth of every class, where there is nothing that is held out already.
        watch: wraps the files while they are read.

    Raises:
        MixError: if there is no such folder, no image or no class folder in it, fewer than two classes, or a class that
            is held out alone, or what is held out has nothing beside it to learn from.
    """
    if not path.is_dir():
        there = "no folder" if path.exists() else "no such folder or file"
        raise MixValueError(
            f"{path}: {there}, expected a folder of images by class, an .npz, or a .tsv or .csv of sentences"
        )
    learn = path / "train" if (path / "train").is_dir() else path
    other = next((path / name for name in _HELD_OUT if (path / name).is_dir()), None) if learn is not path else None
    first = _labelled(learn, size)
    part = next((name for name in first.classes if name.lower() in _HELD_OUT), None) if learn is path else None
    if part is not None:
        raise MixValueError(
            f"{path} has {part}/ and no train/ beside it: expected images to learn from below train/, or folders of "
            "classes alone"
        )
    if len(first.classes) < 2:
        raise MixValueError(f"{learn}: the one class {first.classes[0]!r}, expected two folders of images or more")
    images, labels, skipped = _read(first, learn, watch)
    if other is None:
        out = _drawn(labels, seed)
        halves = images[~out], labels[~out], images[out], labels[out]
        return HeldArrays(*halves, first.classes, "b h w c", skipped)
    second = _labelled(other, size)
    unknown = [name for name in second.classes if name not in first.classes]
    if unknown:
        raise MixValueError(
            f"{other} has the class {unknown[0]!r}, of which {learn} has no image: expected classes of "
            f"{', '.join(first.classes[:12])}"
        )
    held, found, more = _read(second, other, watch)
    names = np.array([first.classes.index(name) for name in second.classes])
    return HeldArrays(images, labels, held, names[found], first.classes, "b h w c", skipped + more)


def held_file(path: Path) -> HeldArrays:
    """x_train, y_train, x_test and y_test of an .npz; nothing in it is unpickled.

    Raises:
        MixError: if an array is missing, of a shape or type that is none of rows to learn, or a class of y_test is none
            of y_train.
        FileNotFoundError: if there is no such file.
    """
    try:
        data = arrays(x=(path, "x_train"), y=(path, "y_train")).fields
        held = arrays(x=(path, "x_test"), y=(path, "y_test")).fields
    except zipfile.BadZipFile as error:  # a member that is cut off
        raise MixValueError(f"{path} cannot be read: {error}") from error
    x, layout = _rows(f"{path}, x_train", data["x"])
    x_test, _ = _rows(f"{path}, x_test", held["x"])
    if x.shape[1:] != x_test.shape[1:] or x.dtype != x_test.dtype:
        raise MixValueError(
            f"{path}: x_train has rows of {x.dtype} {x.shape[1:]} and x_test of {x_test.dtype} {x_test.shape[1:]}, "
            "expected the same"
        )
    names, y = np.unique(_classes(f"{path}, y_train", data["y"]), return_inverse=True)
    known = _classes(f"{path}, y_test", held["y"])
    unknown = known[~np.isin(known, names)]
    if len(unknown):
        raise MixValueError(f"{path}: y_test has the class {unknown[0]!s}, of which y_train has no row")
    y_test = np.searchsorted(names, known)
    return HeldArrays(x, y.astype(np.int64), x_test, y_test.astype(np.int64), [str(n) for n in names], layout)


def _labelled(folder: Path, size: int) -> ImageFolder:
    """The images of class folders, not read yet."""
    found = image_folder(folder, size, check=False)
    if found.labels is None:
        raise MixValueError(
            f"{folder}: {len(found)} images in no class folder, expected a folder for each class, {folder}/cat/1.jpg"
        )
    return found


def _read(folder: ImageFolder, root: Path, watch: Watch) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """(N, size, size, 3) uint8, (N,) labels, and what was left out."""
    assert folder.labels is not None
    assert folder.size is not None
    images = np.empty((len(folder), *folder.size, 3), np.uint8)
    labels: list[int] = []
    skipped: list[str] = []
    why: dict[int, Exception] = {}
    for path, label in zip(watch(folder.paths, "reading"), folder.labels, strict=True):
        try:
            images[len(labels)] = read_image(path, folder.size)
        except (MixValueError, OSError) as error:
            skipped.append(str(error))
            why[label] = error
        else:
            labels.append(label)
    lost = why.keys() - set(labels)
    if lost:
        label = min(lost)
        raise MixValueError(f"no image of the class {folder.classes[label]!r} can be read: {why[label]}")
    names = sorted(one.name for one in root.iterdir() if one.is_dir() and not one.name.startswith("."))
    empty = (f"{root / name}: no image in it" for name in names if name not in folder.classes)
    return images[: len(labels)], np.array(labels, np.int64), (*skipped, *empty)


def _drawn(labels: np.ndarray, seed: int) -> np.ndarray:
    """(N,) bool: which rows are held out; of each class the nearest count to its share, one at least, not all."""
    rng, out = streams.order_stream(seed, 0), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        out[rows[: min(max(round(_SHARE * len(rows)), 1), len(rows) - 1)]] = True
    return out


def _rows(name: str, x: np.ndarray) -> tuple[np.ndarray, str]:
    """Rows with their layout: grey images get an axis of channels, whole numbers beyond bytes become floats."""
    if x.dtype.kind not in "fiu":
        raise MixTypeError(f"{name} is {x.dtype}, expected numbers")
    if x.dtype != np.uint8:
        x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise MixValueError(f"{name} holds values that are no finite numbers: mend them or leave their rows out")
    if x.ndim == 2:
        return x.astype(np.float32), "b d"
    if x.ndim == 3:
        return x[..., None], "b h w c"
    if x.ndim == 4 and x.shape[3] <= 4:
        return x, "b h w c"
    if x.ndim == 4 and x.shape[1] <= 4:
        return x, "b c h w"
    raise MixValueError(f"{name} has shape {x.shape}, expected (n, h, w), (n, h, w, c), (n, c, h, w) or (n, d)")


def _classes(name: str, y: np.ndarray) -> np.ndarray:
    if y.ndim == 2 and y.shape[1] == 1:  # as some public files have them
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iubUS":
        raise MixValueError(
            f"{name} is {y.dtype} {y.shape}, expected one class for each row: (n,) whole numbers or names"
        )
    return np.asarray(y)
