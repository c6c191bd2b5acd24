"""TokenTable: the nearest admissible row, held to the loop over all rows in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mixops as mx
from mixops import nearest


def brute(embedding: Any, queries: Any, banned: Any = None, exclude: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """The definition: for each query, the lowest id of the least float64 distance."""
    table = np.asarray(embedding).astype(np.float64)
    ids, distances = [], []
    for q, query in enumerate(np.asarray(queries).astype(np.float64)):
        squares = np.square(table - query).sum(1)
        if banned is not None:
            squares[np.asarray(banned)] = np.inf
        if exclude is not None:
            squares[[e for e in exclude[q] if e >= 0]] = np.inf
        best = int(squares.argmin())
        ids.append(best if squares[best] < np.inf else -1)
        distances.append(np.sqrt(squares[best]))
    with np.errstate(over="ignore"):
        return np.array(ids, np.int64).reshape(-1), np.array(distances).astype(np.float32)


def held(embedding: Any, queries: Any, banned: Any = None, exclude: Any = None) -> None:
    ids, distances = mx.TokenTable(embedding, banned).nearest(queries, exclude)
    expected = brute(embedding, queries, banned, exclude)
    assert (ids.dtype, distances.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_array_equal(distances, expected[1])


#: What makes the ranking by float32 products go wrong: ties, near ties, an offset, rows of very different norms.
KINDS = ("plain", "few values", "offset", "copies", "one step apart", "norms", "blends")


def table_of(kind: str, rng: np.random.Generator, rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(embedding, queries), float32."""
    table = rng.standard_normal((rows, width)).astype(np.float32)
    queries = rng.standard_normal((9, width)).astype(np.float32)
    if kind == "few values":
        table, queries = np.float32(rng.integers(-1, 2, table.shape)), np.float32(rng.integers(-1, 2, queries.shape))
    if kind == "offset":
        table, queries = table + np.float32(4096), queries + np.float32(4096)
    if kind == "copies":
        table[rows // 2 :] = table[: rows - rows // 2]
        queries[:5] = table[rng.integers(0, rows, 5)]
    if kind == "one step apart":
        table[:] = table[0]
        table = np.where(rng.random(table.shape) < 0.2, np.nextafter(table, np.float32(9)), table)
    if kind == "norms":
        table *= np.float32(10.0) ** rng.integers(-6, 7, (rows, 1)).astype(np.float32)
        queries *= np.float32(10.0) ** rng.integers(-6, 7, (9, 1)).astype(np.float32)
    if kind == "blends":
        one, other = rng.integers(0, rows, (2, 9))
        queries = np.float32(0.5) * table[one] + np.float32(0.5) * table[other]
    return table, queries


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1 << 20), rows=st.integers(1, 70), width=st.integers(1, 40))
@settings(max_examples=60)
def test_it_is_the_lowest_id_of_the_least_distance(kind: str, seed: int, rows: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    table, queries = table_of(kind, rng, rows, width)
    held(table, queries)
    banned = rng.random(rows) < 0.3
    banned[rng.integers(rows)] = False
    held(table, queries, banned, rng.integers(-1, rows, (9, 3)))


def test_a_real_size_agrees_with_the_loop() -> None:
    rng = np.random.default_rng(5)
    table = (rng.standard_normal((30_000, 64)) * 0.05 + 0.02).astype(np.float32)
    pairs = rng.integers(0, len(table), (25, 2))
    share = rng.beta(8, 8, (25, 1)).astype(np.float32)
    queries = share * table[pairs[:, 0]] + (1 - share) * table[pairs[:, 1]]
    held(table, queries, rng.random(len(table)) < 0.2, pairs)


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-19, 1e15, 1e19, 3e37])
def test_numbers_whose_squares_leave_float32_are_ranked_alike(scale: float) -> None:
    rng = np.random.default_rng(0)
    table = np.clip(rng.standard_normal((50, 6)), -3, 3)
    queries = np.clip(rng.standard_normal((12, 6)), -3, 3)
    held((table * scale).astype(np.float32), (queries * scale).astype(np.float32), exclude=rng.integers(0, 50, (12, 2)))
    held(table.astype(np.float32), (queries * scale).astype(np.float32))
    held((table * scale).astype(np.float32), queries.astype(np.float32))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("asked", ["float16", "float32", "float64"])
def test_every_float_dtype_is_searched_as_it_is(dtype: str, asked: str) -> None:
    rng = np.random.default_rng(1)
    # Of float64 rows many are one and the same in float32.
    table = (1 + rng.standard_normal((60, 5)) * (1e-9 if dtype == "float64" else 0.1)).astype(dtype)
    held(table, (1 + rng.standard_normal((20, 5)) * 1e-9).astype(asked))


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_any_size_give_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table, queries = table_of(kind, np.random.default_rng(3), 40, 7)
    whole = mx.TokenTable(table).nearest(queries, np.arange(18).reshape(9, 2))
    for block in (1, 700, 5000):
        monkeypatch.setattr(nearest, "BLOCK", block)
        part = mx.TokenTable(table).nearest(queries, np.arange(18).reshape(9, 2))
        np.testing.assert_array_equal(whole[0], part[0])
        np.testing.assert_array_equal(whole[1], part[1])


def test_a_query_without_an_admissible_id_gets_none() -> None:
    table = mx.TokenTable(np.float32([[0], [1], [2], [1e30]]), [False, True, False, True])
    ids, distances = table.nearest(np.float32([[0], [1], [1e25]]), [[0, 2], [-1, 0], [2, 0]])
    assert ids.tolist() == [-1, 2, -1]
    assert distances.tolist() == [np.inf, 1, np.inf]


def test_no_queries_give_no_ids() -> None:
    table = mx.TokenTable(np.eye(3, dtype=np.float32))
    ids, distances = table.nearest(np.zeros((0, 3), np.float32), np.zeros((0, 2), int))
    assert ids.shape == distances.shape == (0,)
    assert table.nearest(np.zeros((1, 3), np.float32), np.zeros((1, 0)))[0].tolist() == [0]


def test_the_table_is_a_copy_and_inputs_may_be_read_only() -> None:
    embedding, queries = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[::-1]
    exclude = np.array([[3], [1], [1], [-1]])
    frozen = [a.copy() for a in (embedding, queries, exclude)]
    for array in frozen:
        array.setflags(write=False)
    table = mx.TokenTable(frozen[0])
    assert table.nearest(frozen[1], frozen[2])[0].tolist() == [0, 2, 0, 0]
    loose = mx.TokenTable(embedding)
    embedding[:] = 7
    np.testing.assert_array_equal(loose.nearest(queries, exclude)[0], table.nearest(queries, exclude)[0])
    assert (len(table), repr(table)) == (4, "TokenTable(4 rows of 4, 0 banned)")


def test_tensors_in_bfloat16_are_tables_and_queries_too() -> None:
    table = torch.tensor([[0.0, 0], [3, 4], [1, 0]], dtype=torch.bfloat16, requires_grad=True)
    ids, distances = mx.TokenTable(table).nearest(table[[1, 2]] + 0.25)
    assert (ids.tolist(), distances.dtype) == ([1, 2], np.float32)
    np.testing.assert_allclose(distances, np.sqrt(0.125), rtol=1e-6)


def test_tensors_are_tables_and_queries_too() -> None:
    weight = torch.nn.Embedding(20, 4).weight
    ids, distances = mx.TokenTable(weight).nearest(weight[:5], torch.arange(5)[:, None])
    expected = brute(weight.detach(), weight[:5].detach(), None, np.arange(5)[:, None])
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_array_equal(distances, expected[1])


EYE = np.eye(3, dtype=np.float32)


@pytest.mark.parametrize(
    ("embedding", "banned", "says"),
    [
        (np.eye(3, dtype=int), None, "embedding: got int64, expected float32"),
        (EYE[0], None, r"shape \(3,\), expected \(V, D\)"),
        (np.zeros((0, 3), np.float32), None, r"shape \(0, 3\)"),
        (np.zeros((3, 0), np.float32), None, r"shape \(3, 0\)"),
        (np.where(EYE[[0, 1, 2]] > 0, np.float32(np.nan), EYE), None, "row 0 has a number that is NaN"),
        (np.array([[0.0], [1e39]]), None, "row 1 has a number that is NaN, infinite or beyond float32"),
        (EYE, [True, True, True], "all 3 ids are banned"),
        (EYE, [True, False], r"banned: got bool of shape \(2,\), expected bools of shape \(3,\)"),
        (EYE, [0, 1, 2], "banned: got int64"),
    ],
)
def test_a_table_that_is_none_is_refused(embedding: Any, banned: Any, says: str) -> None:
    with pytest.raises(mx.MixError, match=says):
        mx.TokenTable(embedding, banned)


@pytest.mark.parametrize(
    ("queries", "exclude", "says"),
    [
        (EYE[:, :2], None, r"shape \(3, 2\), expected \(Q, 3\), as wide as the embedding"),
        (EYE[0], None, r"shape \(3,\)"),
        (EYE.astype(int), None, "queries: got int64"),
        (np.full((2, 3), np.inf), None, "queries: row 0"),
        (EYE, [[0], [1]], r"exclude: got int64 of shape \(2, 1\), expected ids of shape \(3, E\)"),
        (EYE, [0, 1, 2], "exclude"),
        (EYE, [[0.5]] * 3, "exclude: got float64"),
        (EYE, [[0], [1], [3]], "exclude reaches from 0 to 3: expected ids from 0 to 2"),
        (EYE, [[0], [1], [-2]], "exclude reaches from -2"),
        (EYE, [[0], [1, 2], [0]], "rows of different lengths"),
    ],
)
def test_queries_that_do_not_fit_are_refused(queries: Any, exclude: Any, says: str) -> None:
    with pytest.raises(mx.MixError, match=says):
        mx.TokenTable(EYE).nearest(queries, exclude)
