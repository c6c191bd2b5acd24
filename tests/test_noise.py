"""Noise: addressed by key, channel and position, the same words as the published generator, and normal enough."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import mixops as mx
from mixops.noise import normal, philox, table

MASK = 0xFFFFFFFF


def philox_by_hand(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 as its paper states it, in whole numbers."""
    x, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [(p1 >> 32) ^ x[1] ^ k[0], p1 & MASK, (p0 >> 32) ^ x[3] ^ k[1], p0 & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return x


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_the_loops_give_the_published_known_answers(counter: str, key: str, answer: str) -> None:
    words = [[int(w, 16) for w in text.split()] for text in (counter, key, answer)]
    assert philox_by_hand(words[0], words[1]) == words[2]


@given(st.integers(0, MASK), st.integers(0, MASK), st.integers(0, 2**64 - 1))
def test_philox_gives_the_words_of_the_loops(c0: int, c1: int, key: int) -> None:
    got = philox(np.array(c0), np.array(c1), key).tolist()
    assert got == philox_by_hand([c0, c1, 0, 0], [key & MASK, key >> 32])


@given(st.integers(0, 2**64 - 1), st.integers(0, 100), st.integers(0, 2**31))
def test_a_number_depends_on_its_address_alone(key: int, channel: int, position: int) -> None:
    alone = normal(key, np.array(channel), np.array(position))
    grid = normal(key, np.arange(channel, channel + 2)[:, None], np.arange(position, position + 9))
    assert alone == grid[0, 0]
    assert grid.dtype == np.float32
    assert grid.shape == (2, 9)
    word = philox_by_hand([position >> 2, channel, 0, 0], [key & MASK, key >> 32])[position & 3]
    two = table()[word & 4095] + table()[word >> 12 & 4095]
    assert alone == two * np.float32(0.5**0.5)


def test_the_numbers_are_normal() -> None:
    numbers = normal(12345, np.arange(3)[:, None], np.arange(60_000)).astype(float)
    assert abs(numbers.mean()) < 0.01
    assert abs(numbers.std() - 1) < 0.01
    assert abs(stats.skew(numbers.ravel())) < 0.03
    assert abs(stats.kurtosis(numbers.ravel())) < 0.06
    assert stats.kstest(numbers.ravel(), stats.norm.cdf).statistic < 0.005
    assert (np.abs(np.corrcoef(numbers) - np.eye(3)) < 0.02).all()
    assert abs(np.corrcoef(numbers[0, :-1], numbers[0, 1:])[0, 1]) < 0.02


def test_keys_channels_and_positions_give_different_numbers() -> None:
    first = normal(1, np.arange(4)[:, None], np.arange(64))
    assert not np.array_equal(first, normal(2, np.arange(4)[:, None], np.arange(64)))
    assert not np.array_equal(first, normal(1 << 32, np.arange(4)[:, None], np.arange(64)))
    assert len(np.unique(first)) > 250


def test_the_table_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        table()[0] = 0


def test_a_fill_of_channel_noise_is_one_number_for_each_channel_of_a_patch() -> None:
    plan = mx.RandomErasing(area=(0.2, 0.3), noise="channel", fill=5, std=2).draw(
        np.random.default_rng(0), mx.Spec(3, (9, 8))
    )
    x = np.zeros((3, 4, 9, 8), np.float32)
    result = mx.mix(x, plan, "b c h w", backend="reference")
    for n in range(3):
        top, bottom, left, right = plan.box[n, 0]
        patch = result[n, :, top:bottom, left:right]
        assert (patch == patch[:, :1, :1]).all()
        assert len(np.unique(patch)) == 4


def test_pixel_noise_has_the_mean_and_spread_of_its_fill() -> None:
    plan = mx.RandomErasing(area=(0.3, 0.33), noise="pixel", fill=(10, 20, 30), std=4).draw(
        np.random.default_rng(0), mx.Spec(8, (64, 64))
    )
    result = mx.mix(np.full((8, 3, 64, 64), np.nan), plan, "b c h w", backend="reference")
    np.testing.assert_allclose(np.nanmean(result, (0, 2, 3)), [10, 20, 30], atol=0.2)
    np.testing.assert_allclose(np.nanstd(result, (0, 2, 3)), 4, rtol=0.03)
    pictures = [result[n][np.isfinite(result[n])] for n in range(8)]
    assert all(not np.array_equal(a[:50], b[:50]) for a, b in pairwise(pictures))


@pytest.mark.parametrize(
    "wrong",
    [
        {"value": np.nan},
        {"value": "red"},
        {"value": ()},
        {"value": [[1, 2]]},
        {"value": 1e300},
        {"noise": "salt"},
        {"noise": 1},
        {"std": -1},
        {"std": np.inf},
        {"std": "wide"},
        {"std": 1e300},
        {"key": -1},
        {"key": 2**64},
        {"key": 1.5},
        {"key": "a"},
    ],
)
def test_a_fill_refuses_what_it_cannot_paint(wrong: dict[str, object]) -> None:
    with pytest.raises(mx.MixError, match="expected"):
        mx.Fill(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fill", [3, 3.0, np.float32(3), np.int64(3), np.array(3.0), (3, 3, 3), [3.0], np.array([3, 3, 3])]
)
def test_a_fill_may_be_any_kind_of_number(fill: object) -> None:
    plan = mx.Cutout(3, fill=2).draw(np.random.default_rng(0), mx.Spec(2, (5, 5)))
    x = np.zeros((2, 3, 5, 5), np.float32)
    wanted = mx.mix(x, plan, "b c h w", fill=3)
    np.testing.assert_array_equal(mx.mix(x, plan, "b c h w", fill=fill), wanted)
