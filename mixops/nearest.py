"""The nearest row of an embedding table to each of many vectors, as wordings of what a blend of embeddings means."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import MixTypeError, MixValueError
from .spec import plain_array

#: Bytes of scores, or of rows to be measured again, that are held at a time.
BLOCK = 64 << 20
#: Queries of a block at most: beyond them the product gains nothing, and short lists stay short.
_QUERIES = 512
#: Largest norms for which no product of float32 numbers overflows.
_LARGEST = float(2**60)
_HALF_STEP, _TINY = 2.0**-24, 2.0**-125


class TokenTable:
    """An embedding table to look nearest tokens up in: argmin over admissible v of ‖eᵥ - q‖, exact.

    Args:
        embedding: (V, D) floats, an array or a tensor; row v belongs to id v. It is copied, float64 as it is and
            narrower floats as float32, beside a float32 copy for the search.
        banned: (V,) bool, True for ids that no query may be given: special tokens, pieces that continue a word. None:
            every id may.

    Raises:
        MixError: if the embedding is not (V, D) floats, one of them is NaN, infinite or beyond float32, or every id is
            banned.

    Example:
        >>> table = TokenTable(np.float32([[0, 0], [3, 4], [1, 0]]), banned=[True, False, False])
        >>> ids, distances = table.nearest(np.float32([[0, 0], [0, 0]]), exclude=[[-1], [2]])
        >>> ids.tolist(), distances.tolist()
        ([2, 1], [1.0, 5.0])

    Source:
        Zhang, Yu, Zhang, "SeqMix: Augmenting Active Sequence Labeling via Sequence Mixup", EMNLP 2020, section 3 and
        appendix C.3: the token of a blend is the nearest one that is neither special nor that of a parent.

    Differs from it:
        The authors' code takes seven near tokens in no order and keeps the first that is admissible, which often is
        not the nearest one; here it always is, and of several at the same distance the lowest id.
    """

    def __init__(self, embedding: Any, banned: Any = None) -> None:
        table = _floats("embedding", embedding)
        if table.ndim != 2 or not table.size:
            raise MixValueError(f"TokenTable: embedding of shape {table.shape}, expected (V, D) with a row for each id")
        self.embedding = np.array(table, np.float64 if table.dtype == np.float64 else np.float32, order="C")
        self.embedding.setflags(write=False)
        _check_finite("embedding", self.embedding)
        self._ids = np.flatnonzero(~_marks(banned, len(table)))
        if not len(self._ids):
            raise MixValueError(f"TokenTable: all {len(table)} ids are banned, expected one or more that may be found")
        self._column = np.full(len(table) + 1, -1)  # of an id among those that may be found; the last entry is for -1
        self._column[self._ids] = np.arange(len(self._ids))
        self._centre = self.embedding.mean(0, dtype=np.float64)
        self._lines, self._longest = self._prepared()

    def __repr__(self) -> str:
        rows, width = self.embedding.shape
        return f"TokenTable({rows} rows of {width}, {rows - len(self._ids)} banned)"

    def __len__(self) -> int:
        return len(self.embedding)

    def _prepared(self) -> tuple[np.ndarray, float]:
        """(A, D + 1) float32 rows (e, -‖e‖²/2) about the centre, whose product with (q, 1) ranks them; and max ‖e‖."""
        width = self.embedding.shape[1]
        lines = np.empty((len(self._ids), width + 1), np.float32)
        longest = 0.0
        step = max(1, BLOCK // (16 * width))
        for start in range(0, len(lines), step):
            rows = self.embedding[self._ids[start : start + step]].astype(np.float64) - self._centre
            squares = np.square(rows).sum(1)
            longest = max(longest, float(squares.max()))
            with np.errstate(over="ignore"):  # such tables are measured without the product
                lines[start : start + step, :width] = rows
                lines[start : start + step, width] = squares / -2
        return lines, float(np.sqrt(longest))

    def nearest(self, queries: Any, exclude: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """The nearest admissible id to each query.

        A product of float32 matrices ranks all ids; those that its rounding could have put too low are measured again
        in float64, so that the answer is that of ``argmin(((embedding - query) ** 2).sum(1))`` in float64. The product
        uses as many threads as NumPy's BLAS is set to.

        Args:
            queries: (Q, D) floats, an array or a tensor, with Q of 0 or more.
            exclude: (Q, E) integers, further ids that a query may not be given, such as the tokens it was made of; -1
                for none.

        Returns:
            (ids (Q,) int64, distances (Q,) float32). Ties go to the lowest id. A query without an admissible id gets
            -1 and infinity.

        Raises:
            MixError: if queries are not (Q, D) finite floats, or exclude is not (Q, E) integers from -1 to V - 1.
        """
        asked = _floats("queries", queries)
        width = self.embedding.shape[1]
        if asked.ndim != 2 or asked.shape[1] != width:
            raise MixValueError(f"queries: got shape {asked.shape}, expected (Q, {width}), as wide as the embedding")
        _check_finite("queries", asked)
        out = self._columns_of(exclude, len(asked))
        ids, distances = np.full(len(asked), -1), np.full(len(asked), np.inf, np.float32)
        most = min(_QUERIES, max(1, BLOCK // (4 * len(self._ids))))
        step = max(1, -(-len(asked) // max(1, -(-len(asked) // most))))  # blocks of one size: a product of few is slow
        held = np.empty((step, len(self._ids)), np.float32)  # fresh memory for every block costs more than its product
        for start in range(0, len(asked), step):
            part = slice(start, start + step)
            here = asked[part].astype(np.float64)
            ids[part], distances[part] = self._block(here, None if out is None else out[part], held[: len(here)])
        return ids, distances

    def _columns_of(self, exclude: Any, count: int) -> np.ndarray | None:
        if exclude is None:
            return None
        ids = plain_array("exclude", exclude)
        if ids.ndim != 2 or len(ids) != count or (ids.dtype.kind not in "iu" and ids.size):
            raise MixTypeError(
                f"exclude: got {ids.dtype} of shape {ids.shape}, expected ids of shape ({count}, E), -1 for none"
            )
        if ids.size and (ids.min() < -1 or ids.max() >= len(self)):
            raise MixValueError(
                f"exclude reaches from {ids.min()} to {ids.max()}: expected ids from 0 to {len(self) - 1}, or -1"
            )
        columns: np.ndarray = self._column[ids.astype(np.int64)]
        return columns

    def _block(self, queries: np.ndarray, out: np.ndarray | None, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``nearest`` for some queries.

        Args:
            queries: (Q, D) float64.
            out: (Q, E) columns that they may not be given, -1 for none; or None.
            scores: (Q, A) float32, memory to work in.
        """
        about = queries - self._centre
        squares = np.square(about).sum(1)
        asked = np.empty((len(queries), about.shape[1] + 1), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            asked[:, :-1], asked[:, -1] = about, 1
            np.matmul(asked, self._lines.T, out=scores)
        wild = np.sqrt(squares) > _LARGEST if self._longest <= _LARGEST else np.ones(len(queries), bool)
        scores[wild] = 0
        if out is not None:
            row, which = np.nonzero(out >= 0)
            scores[row, out[row, which]] = -np.inf
        rows = np.arange(len(queries))
        best = scores.argmax(1)
        found = scores[rows, best] > -np.inf
        at_best = np.full(len(queries), np.inf)
        at_best[found] = self._squares(queries, rows[found], best[found])
        least = self._least_score(squares, at_best)
        least[wild] = -1
        # Where the second best is too low, as nearly always, there is nothing to measure again.
        scores[rows, best] = -np.inf
        close = rows[scores[rows, scores.argmax(1)] >= least]
        scores[close, best[close]] = np.inf
        step = max(1, BLOCK // (64 * len(self._ids)))
        for start in range(0, len(close), step):
            some = close[start : start + step]
            row, column = np.nonzero(scores[some] >= least[some, None])
            again = self._squares(queries, some[row], column)
            order = np.lexsort((column, again, row))
            first = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
            best[some], at_best[some] = column[first], again[first]
        with np.errstate(over="ignore"):  # a distance beyond float32 is infinite there
            return np.where(found, self._ids[best], -1), np.sqrt(at_best).astype(np.float32)

    def _least_score(self, squares: np.ndarray, at_best: np.ndarray) -> np.ndarray:
        """(Q,) float32: no id that is as near as the best-ranked one has a float32 score below this.

        The nearest row e has ‖e‖ ≤ ‖q‖ + d, d being the distance of the best-ranked one, and a score s = q·e - ‖e‖²/2
        of at least (‖q‖² - d²)/2. A sum of D + 1 products in float32, in any order, fused or not, is off by at most
        g·(‖q‖·‖e‖ + ‖e‖²/2) with g = n·u / (1 - n·u), u = 2⁻²⁴ and n = D + 1; the roundings of q, e and ‖e‖² to float32
        add 1 to n each. What underflows, or is flushed to zero, adds 2⁻¹²⁵ a product; the float64 numbers have an
        error of their own.
        """
        width = self.embedding.shape[1]
        steps = (width + 8) * _HALF_STEP
        size = np.sqrt(squares)
        norm = np.minimum(self._longest, size + np.sqrt(at_best))
        rounding = steps / (1 - steps) * (size * norm + norm * norm / 2)
        rounding += (width + 8) * (_TINY * (1 + size + norm) + 2.0**-51 * (squares + at_best))
        least = (squares - at_best) / 2 - rounding
        with np.errstate(over="ignore"):  # only of queries that are measured without the product
            below = np.nextafter(least.astype(np.float32), np.float32(-np.inf))
        return np.where(np.isfinite(at_best), below, np.float32(np.inf))

    def _squares(self, queries: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """(C,) float64: squared distances of queries to columns, pair by pair."""
        squares = np.empty(len(row))
        step = max(1, BLOCK // (16 * queries.shape[1]))
        for start in range(0, len(row), step):
            part = slice(start, start + step)
            squares[part] = np.square(self.embedding[self._ids[column[part]]] - queries[row[part]]).sum(1)
        return squares


def _floats(name: str, value: Any) -> np.ndarray:
    array = plain_array(name, value)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise MixTypeError(f"{name}: got {array.dtype}, expected float32 (float16 and float64 will do too)")
    return array


def _check_finite(name: str, array: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        good = np.isfinite(array.astype(np.float32, copy=False)).all(1)
    if not good.all():
        raise MixValueError(
            f"{name}: row {int(np.argmin(good))} has a number that is NaN, infinite or beyond float32, expected finite "
            "ones"
        )


def _marks(banned: Any, rows: int) -> np.ndarray:
    if banned is None:
        return np.zeros(rows, bool)
    marks = plain_array("banned", banned)
    if marks.shape != (rows,) or marks.dtype != np.bool_:
        raise MixTypeError(f"banned: got {marks.dtype} of shape {marks.shape}, expected bools of shape ({rows},)")
    return marks
