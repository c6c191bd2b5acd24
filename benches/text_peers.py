"""What text is mixed and jumbled with today: loops over rows, torch without loops, plain Python, and nlpaug."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import torch


def spans_by_loop(
    ids: torch.Tensor, lengths: torch.Tensor, partner: torch.Tensor, scores: torch.Tensor, span: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One row after the other, step by step as the code published with SSMix: (ids, the donor's share of each row)."""
    mixed, shares = ids.clone(), torch.zeros(len(ids))
    others, their_lengths, their_scores = ids[partner], lengths[partner], scores[partner]
    for i in range(len(ids)):
        own, theirs = lengths[i].item() - 2, their_lengths[i].item() - 2
        size = max(int(span * own), 1)
        if size > own or size > theirs:
            continue
        here = _window_means(scores[i, 1 : own + 1], size).argmin() + 1
        there = _window_means(their_scores[i, 1 : theirs + 1], size).argmax() + 1
        mixed[i, here : here + size] = others[i, there : there + size]
        shares[i] = size / own
    return mixed, shares


def _window_means(scores: torch.Tensor, size: int) -> torch.Tensor:
    means: torch.Tensor = torch.nn.functional.avg_pool1d(scores.double()[None, None], size, stride=1)
    return means[0, 0]


def spans_at_once(
    ids: torch.Tensor, lengths: torch.Tensor, partner: torch.Tensor, scores: torch.Tensor, span: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """All rows at once, with what torch has: sums, gathers and a select over all tokens."""
    rows, length = ids.shape
    ordinary = lengths - 2
    size = (span * ordinary).long().clamp(min=1)
    fits = (size <= ordinary) & (size <= ordinary[partner])
    sums = torch.zeros(rows, length + 1, dtype=torch.float64)
    torch.cumsum(scores, 1, dtype=torch.float64, out=sums[:, 1:])
    starts = torch.arange(length)
    stops = starts + size[:, None]

    def means(sums: torch.Tensor, lengths: torch.Tensor, otherwise: float) -> torch.Tensor:
        inside = (starts >= 1) & (stops <= lengths[:, None] - 1)
        return torch.where(inside, sums.gather(1, stops.clamp(max=length)) - sums[:, :-1], otherwise)

    here = means(sums, lengths, torch.inf).argmin(1)[:, None]
    there = means(sums[partner], lengths[partner], -torch.inf).argmax(1)[:, None]
    size = torch.where(fits, size, 0)
    replaced = (starts >= here) & (starts < here + size[:, None])
    source = (starts - here + there).clamp(0, length - 1)
    mixed = torch.where(replaced, ids[partner].gather(1, source), ids)
    return mixed, size / ordinary.clamp(min=1)


def masks_at_once(
    mask: torch.Tensor, partner: torch.Tensor, here: torch.Tensor, there: torch.Tensor, size: torch.Tensor
) -> torch.Tensor:
    """The attention mask that follows pasted spans: own or donor inside a span, own outside; places are (rows, 1)."""
    starts = torch.arange(mask.shape[1])
    inside = (starts >= here) & (starts < here + size)
    source = (starts - here + there).clamp(0, mask.shape[1] - 1)
    return mask | (inside & mask[partner].gather(1, source))


def swap(words: Sequence[str], times: int) -> list[str]:
    """Two words, anywhere, change places; so often."""
    words = list(words)
    for _ in range(times):
        i, j = random.sample(range(len(words)), 2)
        words[i], words[j] = words[j], words[i]
    return words


def delete(words: Sequence[str], times: int) -> list[str]:
    """So many words go."""
    gone = set(random.sample(range(len(words)), times))
    return [word for i, word in enumerate(words) if i not in gone]


#: In the manner of EDA, which swaps and deletes lists of words.
BY_HAND: dict[str, Callable[[Sequence[str], int], list[str]]] = {"swap": swap, "delete": delete}


def nlpaug_words(action: str, times: int) -> Callable[[list[str]], list[str]]:
    """nlpaug's RandomWordAug on a list of sentences."""
    import nlpaug.augmenter.word as naw  # type: ignore[import-untyped]

    augment: Callable[[list[str]], list[str]] = naw.RandomWordAug(action=action, aug_min=times, aug_max=times).augment
    return augment


def sentences(rng: np.random.Generator, lengths: np.ndarray) -> list[str]:
    """Sentences of distinct made-up words, so many in each."""
    pool = ["".join(rng.choice(list("aeioubdfklmnprst"), 6)) for _ in range(500)]
    pool = sorted(set(pool))
    return [" ".join(rng.choice(pool, n, replace=False)) for n in lengths.tolist()]
