"""The data folder of the studies, named by the environment variable MIXOPS_DATA."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from grid import StudyError

VARIABLE = "MIXOPS_DATA"


def data_file(name: str) -> Path:
    """The place of a file of the data folder, such as ``text/trec_train.tsv.gz``.

    Raises:
        StudyError: if the folder is not named, or the file is not in it.
    """
    root = _root(name)
    path = root / name
    if not path.is_file():
        raise StudyError(f"{VARIABLE}={root}: there is no {name} in it; benches/studies/README.md says what it is")
    return path


def _root(name: str) -> Path:
    said = os.environ.get(VARIABLE)
    if not said:
        raise StudyError(
            f"{VARIABLE} is not set: expected the folder that holds {name}; benches/studies/README.md says what "
            "each file is"
        )
    return Path(said)


def digests(names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of each file, so that a reader can tell whether theirs is the same.

    Raises:
        StudyError: if one is not there, or is an archive that is broken: before the first run, not hours into a study.
    """
    return {name: _digest(name) for name in sorted(set(names))}


def _digest(name: str) -> str:
    content = data_file(name).read_bytes()
    with _named(name):
        if name.endswith(".npz"):
            broken = zipfile.ZipFile(io.BytesIO(content)).testzip()
            if broken:
                raise zipfile.BadZipFile(f"the checksum of {broken} is another")
        elif name.endswith(".gz"):
            gzip.decompress(content)
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _named(name: str) -> Iterator[None]:
    """What fails while a file of the data folder is read, as an error that names the file."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, TypeError, ValueError) as error:
        raise StudyError(f"{name} cannot be read: {error}; benches/studies/README.md says what it is") from error


@contextmanager
def opened(name: str) -> Iterator[Any]:
    """The arrays of an .npz file of the data folder, while they are read; nothing in it is unpickled.

    Raises:
        StudyError: if the file is not there, or it or an array in it cannot be read.
    """
    # Opened here: of an archive that is broken, np.load leaves its own handle open.
    with _named(name), data_file(name).open("rb") as file, np.load(file, allow_pickle=False) as archive:
        yield archive


@cache
def images(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images, their labels, test images, their labels, from an .npz file.

    Args:
        name: of the file. It holds y_train and y_test, and x_train and x_test: (N, H, W) or (N, C, H, W) uint8. In
            place of x_* it may hold d_*: colour images as (G, R - G, B - G), each as differences along both axes,
            modulo 256, which packs smaller.

    Returns:
        Images (N, C, H, W) uint8, labels (N,) int64.

    Raises:
        StudyError: if the file is not there, or holds neither form, or images and labels do not fit.
    """
    with opened(name) as archive:
        there = set(archive.files)
        if any(f"y_{part}" not in there or not {f"x_{part}", f"d_{part}"} & there for part in ("train", "test")):
            raise StudyError(
                f"{name}: holds {archive.files}, expected y_train, y_test, x_train and x_test (or d_train and d_test)"
            )
        found = [
            (archive[f"x_{part}"] if f"x_{part}" in there else _undone(archive[f"d_{part}"]), archive[f"y_{part}"])
            for part in ("train", "test")
        ]
    for x, y in found:
        fits = x.dtype == np.uint8 and (x.ndim == 3 or (x.ndim == 4 and x.shape[1] in (1, 3)))
        if not fits or y.dtype.kind not in "iu" or y.shape != x.shape[:1]:
            raise StudyError(
                f"{name}: holds images {x.dtype} {x.shape} and labels {y.dtype} {y.shape}, expected uint8 (N, H, W) or "
                "(N, C, H, W) with 1 or 3 channels, and whole numbers (N,)"
            )
    (train, y_train), (test, y_test) = ((x if x.ndim == 4 else x[:, None], y.astype(np.int64)) for x, y in found)
    return train, y_train, test, y_test


@cache
def fetched_images(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A whole data set by torchvision's loader, which downloads it into the data folder where it is not there yet.

    Args:
        name: of the class in ``torchvision.datasets``, such as "CIFAR100".

    Returns:
        As ``images``.

    Raises:
        StudyError: if the data folder is not named, or torchvision is not there, or can neither find nor fetch it.
    """
    root = _root(name) / "torchvision"
    try:
        from torchvision import datasets

        parts = [getattr(datasets, name)(root, train=train, download=True) for train in (True, False)]
    except (ImportError, OSError, RuntimeError) as error:  # a torchvision built for another torch raises the last
        raise StudyError(
            f"{name}: torchvision neither found it in {root} nor fetched it: {error}; expected torchvision, and a "
            "network or the files that its loader leaves there"
        ) from error
    found = [np.asarray(part.data) for part in parts]
    labels = [np.asarray(part.targets, np.int64) for part in parts]
    train, test = (np.ascontiguousarray(np.moveaxis(x, 3, 1)) if x.ndim == 4 else x[:, None] for x in found)
    return train, labels[0], test, labels[1]


def _undone(d: np.ndarray) -> np.ndarray:
    q = np.cumsum(np.cumsum(d, axis=2, dtype=np.uint8), axis=3, dtype=np.uint8)
    return np.stack([q[:, 1] + q[:, 0], q[:, 0], q[:, 2] + q[:, 0]], 1)
