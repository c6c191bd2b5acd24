"""Densities in the plane that a generator is to learn, and how near its samples come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Density:
    """A mixture of narrow Gaussians of equal weight.

    Args:
        centres: (modes, 2) where they are.
        sd: of each, along both axes.
    """

    centres: np.ndarray
    sd: float

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """(n, 2) float32 samples."""
        chosen = self.centres[rng.integers(0, len(self.centres), n)]
        return (chosen + self.sd * rng.standard_normal((n, 2))).astype(np.float32)

    def modes(self, points: np.ndarray, reach: float = 4) -> tuple[int, float]:
        """How many modes the points cover, and what share of the points is good.

        A point is good where it is within ``reach`` SD of a centre (of its own samples 99.97 % are, at 4); a mode is
        covered that has at least a tenth of the good points that are its fair share.
        """
        distance = np.linalg.norm(points[:, None] - self.centres, axis=2)
        nearest, good = distance.argmin(1), distance.min(1) <= reach * self.sd
        counts = np.bincount(nearest[good], minlength=len(self.centres))
        return int((counts * 10 * len(self.centres) >= len(points)).sum()), float(good.mean())


def ring(modes: int = 8, radius: float = 1.0, sd: float = 0.05) -> Density:
    """Gaussians on a circle."""
    angle = 2 * np.pi * np.arange(modes) / modes
    return Density(radius * np.stack([np.cos(angle), np.sin(angle)], 1), sd)


def grid(side: int = 5, reach: float = 1.0, sd: float = 0.05) -> Density:
    """Gaussians on a square grid from -reach to reach along both axes."""
    axis = np.linspace(-reach, reach, side)
    return Density(np.stack(np.meshgrid(axis, axis), 2).reshape(-1, 2), sd)


DENSITIES: dict[str, Callable[[], Density]] = {"ring": ring, "grid": grid}


def energy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """2·E|a - b| - E|a - a'| - E|b - b'|: 0 where two sets are alike, larger the further apart; never less than 0.

    Args:
        a: (N, D) points.
        b: (M, D) points.
    """

    def mean_distance(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.linalg.norm(x[:, None] - y, axis=2).mean())

    a, b = a.astype(np.float64), b.astype(np.float64)
    return 2 * mean_distance(a, b) - mean_distance(a, a) - mean_distance(b, b)
