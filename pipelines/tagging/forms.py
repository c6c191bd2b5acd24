"""How a word is written, as numbers: a class of capitals, digits and signs, and its characters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Numbers of shapes: 0 is padding.
SHAPES = 11
#: Numbers of characters: 0 is padding, 1 to 256 are the first characters of Unicode, 257 is any other.
CHARACTERS = 258
#: Characters kept of a word: of a longer one its beginning and its end.
WIDTH = 16


def shape_of(word: str) -> int:
    """The class of a word, from 1 to 10.

    Example:
        >>> [shape_of(w) for w in ("ran", "Ann", "USA", "iPhone", "1996", "3rd", "...", "@ann", "#one", "http://a.b")]
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    """
    if word.startswith(("http://", "https://", "www.")):
        return 10
    if len(word) > 1 and word[0] in "@#":
        return 8 if word[0] == "@" else 9
    if not any(c.isalnum() for c in word):
        return 7
    if any(c.isdigit() for c in word):
        return 6 if any(c.isalpha() for c in word) else 5
    if word == word.lower():
        return 1
    if word[0].isupper() and word[1:] == word[1:].lower():
        return 2
    return 3 if word == word.upper() else 4


def forms_of(tokens: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Shapes and characters of words.

    Args:
        tokens: T words.

    Returns:
        ((T,) int64 from 1 to 10, (T, 16) int64 from 0 to 257).

    Example:
        >>> forms_of(["Ann"])[1][0, :4].tolist()
        [66, 111, 111, 0]
    """
    shapes = np.array([shape_of(word) for word in tokens], np.int64)
    chars = np.zeros((len(tokens), WIDTH), np.int64)
    for row, word in zip(chars, tokens, strict=True):
        kept = word if len(word) <= WIDTH else word[: WIDTH // 2] + word[-WIDTH // 2 :]
        row[: len(kept)] = [min(ord(c), 256) + 1 for c in kept]
    return shapes, chars
