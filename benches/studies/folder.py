"""The data folder of the studies, named by the environment variable MIXOPS_DATA."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

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
        StudyError: if one is not there.
    """
    return {name: hashlib.sha256(data_file(name).read_bytes()).hexdigest() for name in sorted(set(names))}


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
        StudyError: if the file is not there, or holds neither form.
    """
    with np.load(data_file(name), allow_pickle=False) as archive:
        missing = [part for part in ("train", "test") if not {f"x_{part}", f"d_{part}"} & set(archive.files)]
        if missing:
            raise StudyError(f"{name}: holds {archive.files}, expected x_train and x_test, or d_train and d_test")
        found = [
            archive[f"x_{part}"] if f"x_{part}" in archive else _undone(archive[f"d_{part}"])
            for part in ("train", "test")
        ]
        labels = [archive[f"y_{part}"].astype(np.int64) for part in ("train", "test")]
    train, test = (x if x.ndim == 4 else x[:, None] for x in found)
    return train, labels[0], test, labels[1]


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
