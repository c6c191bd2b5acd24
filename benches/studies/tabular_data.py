"""The tables of the data folder: rows of numbers, and their classes."""

from __future__ import annotations

from functools import cache

import numpy as np
from folder import opened
from grid import StudyError


@cache
def table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and classes of a table.

    Args:
        name: of an .npz file: ``x`` (N, D) numbers and ``y`` (N,) classes, or ``rings`` in place of ``y``: then the
            first column is a sex, 0 to 2, and becomes three columns of 0 and 1.

    Returns:
        (N, D) float32 and (N,) int64: classes count from 0, those that do not occur are left out.

    Raises:
        StudyError: if the file is not there, or holds other arrays, or arrays that do not fit each other.
    """
    with opened(name) as archive:
        target = {"y", "rings"} & set(archive.files)
        if "x" not in archive.files or len(target) != 1:
            raise StudyError(f"{name}: holds {archive.files}, expected x, and y or rings")
        x, y = archive["x"].astype(np.float32), archive[target.pop()]
        if x.ndim != 2 or y.shape != x.shape[:1]:
            raise StudyError(f"{name}: x has the shape {x.shape} and its classes {y.shape}, expected (N, D) and (N,)")
        if "rings" in archive.files:
            odd = x[~np.isin(x[:, 0], range(3)), 0]
            if len(odd):
                raise StudyError(f"{name}: the first column of x holds {odd[0]:g}, expected a sex: 0, 1 or 2")
            x = np.concatenate([np.eye(3, dtype=np.float32)[x[:, 0].astype(np.int64)], x[:, 1:]], 1)
    return x, np.unique(y, return_inverse=True)[1].astype(np.int64)


def made_up() -> tuple[np.ndarray, np.ndarray]:
    """Three clouds of points that overlap."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 80)
    return (rng.standard_normal((3, 5))[y] + 0.8 * rng.standard_normal((240, 5))).astype(np.float32), y
