"""Rows on the search for tokens: the nearest admissible row of an embedding table to each of many blends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from batches import Setup
from harness import Contender, Ratio, Row, measure
from rates import with_rates
from threadpoolctl import threadpool_limits

import mixops as mx

#: Share of a vocabulary that no blend may become: special tokens, and pieces that continue a word.
BANNED = 0.2
#: The loop of one NumPy distance after the other takes at least this many times as long.
AIM = 50


@dataclass(frozen=True)
class Search:
    """A table, and blends of two of its rows each, which may not become one of the two.

    Args:
        embedding: (V, D) float32.
        banned: (V,) bool.
        queries: (Q, D) float32.
        parents: (Q, 2) ids.
    """

    embedding: np.ndarray
    banned: np.ndarray
    queries: np.ndarray
    parents: np.ndarray

    @classmethod
    def of(cls, rows: int, width: int, queries: int) -> Search:
        rng = np.random.default_rng(0)
        # As in a trained table, the rows have a direction in common.
        table = (0.05 * rng.standard_normal((rows, width)) + 0.03 * rng.standard_normal(width)).astype(np.float32)
        parents = rng.integers(0, rows, (queries, 2))
        share = rng.beta(8, 8, (queries, 1)).astype(np.float32)
        blends = share * table[parents[:, 0]] + (1 - share) * table[parents[:, 1]]
        return cls(table, rng.random(rows) < BANNED, blends, parents)

    def loop(self, distances: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """One query after the other, by distances (or their squares) to all rows."""
        found = np.empty(len(self.queries), np.int64)
        for i, (query, parents) in enumerate(zip(self.queries, self.parents, strict=True)):
            far = distances(query)
            far[self.banned] = np.inf
            far[parents] = np.inf
            found[i] = far.argmin()
        return found

    def by_norms(self) -> np.ndarray:
        return self.loop(lambda query: np.linalg.norm(self.embedding - query, axis=1))

    def by_products(self, squares: np.ndarray) -> np.ndarray:
        return self.loop(lambda query: squares - 2 * (self.embedding @ query))

    def by_neighbours(self, index: Any, ids: np.ndarray) -> np.ndarray:
        """Of three neighbours at most two are parents."""
        near = ids[index.kneighbors(self.queries, return_distance=False)]
        free = (near[:, :, None] != self.parents[:, None]).all(2)
        found: np.ndarray = near[np.arange(len(near)), free.argmax(1)]
        return found

    def wrong(self, step: Callable[[], np.ndarray]) -> float:
        """How many answers are not those of the distances in float64."""
        wide = self.embedding.astype(np.float64)
        return float((step() != self.loop(lambda query: np.square(wide - query).sum(1))).sum())


def nearest(
    setup: Setup, rows: int, width: int, queries: int, threads: int, aim: float | None
) -> Iterator[dict[str, Any]]:
    """Nearest admissible tokens of blends, one NumPy pass over the table for each, or products of blocks."""
    from sklearn.neighbors import NearestNeighbors  # type: ignore[import-untyped]

    if setup.tiny:
        rows, queries = 500, 12
    with threadpool_limits(threads):
        search = Search.of(rows, width, queries)
        ids = np.flatnonzero(~search.banned)
        index = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(search.embedding[ids])
        table = mx.TokenTable(search.embedding, search.banned)
        squares = np.square(search.embedding).sum(1)
        loop = "NumPy, np.linalg.norm for each token"
        steps: dict[str, Callable[[], np.ndarray]] = {
            loop: search.by_norms,
            "NumPy, squared norms kept, a product for each token": partial(search.by_products, squares),
            "scikit-learn, 3 brute-force neighbours of all": partial(search.by_neighbours, index, ids),
            "mixops": lambda: table.nearest(search.queries, search.parents)[0],
        }
        row = Row(
            f"nearest-{rows}x{width}" + (f"-{threads}" if threads > 1 else ""),
            f"nearest admissible tokens of {queries} blends in a table of {rows} x {width} float32",
            [None],
            1,
            [
                Contender(name, lambda x, k, step=step: step(), name == "mixops", partial(search.wrong, step))
                for name, step in steps.items()
            ],
            [Ratio(name, "mixops", at_least=aim if name == loop else None) for name in steps if name != "mixops"],
            threads=threads,
            slow=True,
            notes=(
                f"{BANNED:.0%} of the rows are banned and both parents of a blend are excluded, for everyone; the "
                "difference is the number of answers that are not those of distances in float64, which only mixops "
                "promises to be none",
                "tables are made beforehand: mixops' copy and sums, scikit-learn's fit",
            ),
        )
        yield with_rates(measure(row, setup.rounds), queries, "tokens")


ROWS: dict[str, Callable[[Setup], Iterator[dict[str, Any]]]] = {
    "nearest": lambda s: nearest(s, 30_000, 384, 128, 1, AIM),
    "nearest-threads": lambda s: nearest(s, 30_000, 384, 128, 2, AIM),
    "nearest-large": lambda s: nearest(s, 400_000, 50, 128, 1, AIM),
    "nearest-large-threads": lambda s: nearest(s, 400_000, 50, 128, 2, AIM),
}
HEADLINE: tuple[str, ...] = ()
