"""A sentence made of two, with what is known of its making."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixops import MixValueError

from .tagged import TaggedSentence, check_row, row_of


@dataclass(frozen=True, eq=False)
class MixedSentence:
    """A new sentence, its tags, and where it comes from.

    Args:
        tokens: T of them, one or more.
        tags: as many: at each position that of the parent with the larger share.
        soft: (T, C) floats, kept as float32: the share of each tag at each position, in the order of the names of the
            corpus' tags; None where the tags alone are wanted.
        window: (start, stop) of the positions that were mixed.
        parents: rows of the corpus: the sentence that the window was put into, and the one it was mixed with.
        lam: share of the first parent in the window, 0 ≤ lam ≤ 1.
        score: what the scorer said of it; None without one.
        number: of the candidate, counted from 0 over the whole run.

    Raises:
        MixError: if tokens and tags do not fit, soft is of another shape or a row of it does not sum to 1, or the
            window does not lie in the sentence.

    Example:
        >>> mixed = MixedSentence(("Ada", "slept"), ("B-PER", "O"), window=(1, 2), parents=(0, 3), lam=0.75)
        >>> mixed.hard
        TaggedSentence(tokens=('Ada', 'slept'), tags=('B-PER', 'O'))
    """

    tokens: Sequence[str]
    tags: Sequence[str]
    soft: np.ndarray | None = None
    window: tuple[int, int] = field(kw_only=True)
    parents: tuple[int, int] = field(kw_only=True)
    lam: float = field(kw_only=True)
    score: float | None = field(default=None, kw_only=True)
    number: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        tokens, tags = (row_of("MixedSentence", name, getattr(self, name)) for name in ("tokens", "tags"))
        check_row("MixedSentence", tokens, tags)
        start, stop = self.window
        if not 0 <= start <= stop <= len(tokens):
            raise MixValueError(
                f"MixedSentence: window={self.window!r} of {len(tokens)} tokens, expected it within them"
            )
        if not 0 <= self.lam <= 1:  # NaN fails too
            raise MixValueError(f"MixedSentence: lam={self.lam!r}, expected a share from 0 to 1")
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "tags", tags)
        if self.soft is not None:
            object.__setattr__(self, "soft", _shares(self.soft, len(tokens)))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def hard(self) -> TaggedSentence:
        """The sentence with its tags alone."""
        return TaggedSentence(tuple(self.tokens), tuple(self.tags))


def _shares(given: Any, rows: int) -> np.ndarray:
    soft = np.asarray(given, np.float32)
    if soft.ndim != 2 or len(soft) != rows:
        raise MixValueError(
            f"MixedSentence: soft has the shape {soft.shape}, expected ({rows}, C), a row for each token"
        )
    if not ((soft >= 0).all() and (np.abs(soft.sum(1) - 1) <= 1.1e-4).all()):
        raise MixValueError("MixedSentence: soft has a row of other numbers than shares that sum to 1")
    return soft
