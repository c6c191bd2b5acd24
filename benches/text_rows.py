"""Rows on text: token spans and single words moved by plans, hidden states blended, attention masks joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import text_peers
import torch
from batches import Setup, off, plans_of, stream
from harness import Contender, Ratio, Row, measure, rotation
from rates import with_rates

import mixops as mx

#: Share of a row's ordinary tokens that a span replaces.
SPAN = 0.1
#: Pairs of words that are swapped in each sentence, or words that are deleted.
WORDS = 2
PAD = 0
#: Averages in float32 may be rounded in another order.
ROUNDING = 1e-6


# -- spans -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokens:
    """Token rows: ids with a special token at both ends, lengths, partners, and a score of every token."""

    ids: np.ndarray
    lengths: np.ndarray
    partner: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, rows: int, length: int, seed: int) -> Tokens:
        rng = np.random.default_rng(seed)
        lengths = rng.integers(length // 4, length + 1, rows)
        ids = rng.integers(1000, 30000, (rows, length))
        ids[:, 0] = 101
        ids[np.arange(rows), lengths - 1] = 102
        ids[np.arange(length) >= lengths[:, None]] = PAD
        return cls(ids, lengths, rng.permutation(rows), rng.random((rows, length), np.float32))

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(a) for a in (self.ids, self.lengths, self.partner, self.scores))

    @property
    def spec(self) -> mx.Spec:
        return mx.Spec.like(self.ids, "b t", lengths=self.lengths)

    def span_plan(self, op: mx.SSMix, spec: mx.Spec, k: int = 0) -> mx.Plan:
        plan = op.draw(stream(k), spec, saliency=self.scores, partner=self.partner)
        assert isinstance(plan, mx.Plan)
        return plan


def spans(setup: Setup, rows: int, length: int, *, aims: tuple[float | None, float | None]) -> Iterator[dict[str, Any]]:
    """Spans chosen by a given score and pasted, as SSMix does between its passes through the model."""
    op, batches = mx.SSMix(SPAN), [Tokens.of(rows, length, seed) for seed in range(16)]
    inputs = [(tokens, tokens.tensors, tokens.spec, tokens.span_plan(op, tokens.spec)) for tokens in batches]

    def whole(given: Any, k: int) -> Any:
        plan = given[0].span_plan(op, given[2], k)
        return mx.mix(given[0].ids, plan, "b t", "discrete"), 1 - plan.lam

    steps: dict[str, Callable[[Any, int], Any]] = {
        "loop over the rows, torch": lambda given, k: text_peers.spans_by_loop(*given[1], SPAN),
        "loop-free torch": lambda given, k: text_peers.spans_at_once(*given[1], SPAN),
        "mixops, drawn and mixed": whole,
        "mixops, plan given": lambda given, k: mx.mix(given[0].ids, given[3], "b t", "discrete"),
    }

    def check(step: Callable[[Any, int], Any]) -> float:
        def difference(given: Any) -> float:
            ids, share = text_peers.spans_by_loop(*given[1], SPAN)
            result = step(given, 0)
            if not isinstance(result, tuple):
                return off(result, ids)
            return max(off(result[0], ids), off(result[1], share))

        return max(difference(given) for given in inputs)

    loop, free, ours, ready = steps
    row = Row(
        f"spans-{rows}x{length}",
        f"each row's least telling span gives way to its partner's most telling one, int64 ids ({rows}, {length})",
        inputs,
        10,
        [Contender(name, step, name.startswith("mixops"), partial(check, step)) for name, step in steps.items()],
        [Ratio(loop, ours, at_least=aims[0]), Ratio(loop, ready, at_least=aims[1]), Ratio(free, ours)],
        tolerance=ROUNDING,
        notes=(
            "the score of every token, the lengths and the partners are given to all; a score comes from the model, "
            "and its passes are not timed here",
            "the loop takes the steps of the code published with SSMix, on spans of ordinary tokens and means in "
            "float64, so that all find the same spans",
            "drawn and mixed: mx.SSMix ranks the spans in a compiled loop, and mix pastes by its plan; plan given: mix "
            "alone, by plans that it has met before",
        ),
    )
    yield with_rates(measure(row, setup.rounds), rows, "sequences")


# -- words -------------------------------------------------------------------------------------------------------------


#: What moves ids; without special tokens, as words have none.
EDITS: dict[str, mx.Operator] = {"swap": mx.TokenSwap(count=WORDS), "delete": mx.TokenDelete(count=WORDS)}
DONE = {"swap": "pairs of words swapped in", "delete": "words deleted from"}


def words(setup: Setup, rows: int) -> Iterator[dict[str, Any]]:
    """Two pairs of words of every sentence swapped, or two words deleted: strings, lists of words, ids by a plan."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(15, 26, rows)
    spec = mx.Spec(rows, (int(lengths.max()),), lengths)
    sentences = text_peers.sentences(rng, lengths)
    split = [sentence.split() for sentence in sentences]
    ids = np.where(np.arange(*spec.shape) < lengths[:, None], rng.integers(1000, 30000, (rows, *spec.shape)), PAD)
    tokens = [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)]
    for action, op in EDITS.items():
        augment = text_peers.nlpaug_words(action, WORDS)
        by_hand = text_peers.BY_HAND[action]

        def by_plan(x: Any, k: int, op: mx.Operator = op) -> np.ndarray:
            return mx.mix(ids, op.draw(stream(k), spec), "b t", "discrete", fill=PAD)

        # What each does, how its result reads as lists of words, and what it was given.
        steps: dict[str, tuple[Callable[[Any, int], Any], Callable[[Any], Any], Any]] = {
            f"nlpaug RandomWordAug, {action}, strings": (
                lambda x, k, augment=augment: augment(sentences),
                lambda rows: [sentence.lower().split() for sentence in rows],  # nlpaug capitalises what comes first
                split,
            ),
            "plain Python, lists of words": (
                lambda x, k, by_hand=by_hand: [by_hand(row, WORDS) for row in split],
                lambda rows: rows,
                split,
            ),
            "mixops, ids, drawn and moved": (by_plan, lambda ids: [row[row != PAD].tolist() for row in ids], tokens),
        }
        row = Row(
            f"words-{action}",
            f"{WORDS} {DONE[action]} every sentence, {rows} sentences of 15 to 25 words",
            [None],
            10,
            [
                Contender(name, step, name.startswith("mixops"), partial(_misdone, step, read, given, action))
                for name, (step, read, given) in steps.items()
            ],
            [Ratio(name, "mixops, ids, drawn and moved") for name in steps if not name.startswith("mixops")],
            notes=(
                "not the same input: nlpaug takes strings, splits and joins them; ours takes ids that a tokeniser has "
                "made; mx.TokenSwap and mx.TokenDelete draw, the pairs without overlap, and mix moves: a swap is two "
                "pastes within a row, a deletion moves what follows",
            ),
        )
        yield with_rates(measure(row, setup.rounds), rows, "sequences")


def _misdone(
    step: Callable[[Any, int], Any], read: Callable[[Any], Any], given: Sequence[Sequence[Any]], action: str
) -> float:
    """How many rows are not what swapping or deleting two words can make of them; all, if nothing was done at all."""
    pairs = list(zip(read(step(None, 0)), given, strict=True))
    if all(list(new) == list(old) for new, old in pairs):
        return float(len(pairs))
    return float(sum(not _possible(new, old, action) for new, old in pairs))


def _possible(new: Sequence[Any], old: Sequence[Any], action: str) -> bool:
    """Can this sentence come of that one?"""
    if action == "swap":
        # Where peers swap a word twice, fewer words move, and none where a swap undoes the other.
        return sorted(new) == sorted(old) and sum(a != b for a, b in zip(new, old, strict=True)) <= 2 * WORDS
    rest = iter(old)
    # nlpaug deletes one word only, now and then.
    return len(old) - WORDS <= len(new) < len(old) and all(word in rest for word in new)


# -- hidden states and masks -------------------------------------------------------------------------------------------


def hidden(setup: Setup, *, learn: bool) -> Iterator[dict[str, Any]]:
    """Hidden states of every row blended with its partner's, forward, or forward and backward."""
    shape = (4, 8, 16) if setup.tiny else (32, 128, 768)
    op, spec = mx.Mixup(0.4), mx.Spec(shape[0])
    plans = plans_of(op, spec, setup.shares)
    drawn = [(float(p.lam[0]), torch.from_numpy(p.partner[:, 0].astype(np.int64))) for p in plans]
    made = torch.Generator().manual_seed(0)
    size = int(np.prod(shape)) * 4
    states = [torch.randn(shape, generator=made).requires_grad_(learn) for _ in range(rotation(size))]
    slope, kept = torch.randn(shape, generator=made), torch.ones(shape)

    def expression(h: torch.Tensor, k: int) -> torch.Tensor:
        lam, partner = drawn[k]
        return lam * h + (1 - lam) * h[partner]

    def lerp(h: torch.Tensor, k: int) -> torch.Tensor:
        lam, partner = drawn[k]
        return torch.lerp(h[partner], h, lam)

    steps: dict[str, Callable[[Any, int], Any]] = {
        "torch expression": expression,
        "torch.lerp": lerp,
        "mixops": lambda h, k: mx.mix(h, plans[k], "b t d"),
    }
    if not learn:
        steps["mixops, kept output"] = lambda h, k: mx.mix(h, plans[k], "b t d", out=kept)

    def through(step: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
        def both(h: torch.Tensor, k: int) -> torch.Tensor:
            h.grad = None
            step(h, k).backward(slope)
            assert h.grad is not None
            return h.grad

        return both if learn else step

    def check(step: Callable[[Any, int], Any]) -> float:
        k = len(plans) - 1
        return off(through(step)(states[0], k).detach(), through(expression)(states[0], k).detach())

    row = Row(
        "hidden-backward" if learn else "hidden",
        f"float32 hidden states {shape} blended, {'forward and backward' if learn else 'forward'}",
        states,
        len(plans),
        [
            Contender(name, through(step), name.startswith("mixops"), partial(check, step))
            for name, step in steps.items()
        ],
        [Ratio("torch expression", "mixops"), Ratio("torch.lerp", "mixops")],
        moved=(4.0 if learn else 2.0) * size,
        result=size,
        tolerance=ROUNDING,
        notes=(
            "under autograd ours runs as plain torch operations"
            if learn
            else "torch.compile of the same expression: see mixup-out, which is the same work",
        ),
    )
    yield measure(row, setup.rounds)


def masks(setup: Setup) -> Iterator[dict[str, Any]]:
    """Attention masks that follow a mix: joined where rows blend, and within the span where spans are pasted."""
    tokens = [Tokens.of(32, 128, seed) for seed in range(16)]
    blends = [mx.Mixup().draw(np.random.default_rng(i), mx.Spec(32), partner=t.partner) for i, t in enumerate(tokens)]
    pasted = [t.span_plan(mx.SSMix(SPAN), t.spec) for t in tokens]
    inputs = [
        (
            torch.arange(128) < torch.from_numpy(t.lengths)[:, None],
            torch.from_numpy(t.partner),
            blend,
            span,
            _edges(span),
        )
        for t, blend, span in zip(tokens, blends, pasted, strict=True)
    ]
    steps: dict[str, tuple[Callable[[Any, int], Any], Callable[[Any, int], Any]]] = {
        "rows": (
            lambda given, k: given[0] | given[0][given[1]],
            lambda given, k: mx.mix(given[0], given[2], "b t", "valid"),
        ),
        "spans": (
            lambda given, k: text_peers.masks_at_once(given[0], given[1], *given[4]),
            lambda given, k: mx.mix(given[0], given[3], "b t", "valid"),
        ),
    }
    for kind, (by_hand, ours) in steps.items():
        row = Row(
            f"masks-{kind}",
            f"attention masks (32, 128) joined {'row by row' if kind == 'rows' else 'within pasted spans'}",
            inputs,
            20,
            [
                Contender("torch by hand", by_hand),
                Contender(
                    "mixops",
                    ours,
                    True,
                    lambda ours=ours, by_hand=by_hand: max(off(ours(x, 0), by_hand(x, 0)) for x in inputs),
                ),
            ],
            [Ratio("torch by hand", "mixops")],
            notes=("the plans are drawn beforehand",),
        )
        yield measure(row, setup.rounds)


def _edges(plan: mx.Plan) -> tuple[torch.Tensor, ...]:
    """(start in the row, start in the donor, size) of every row's span, each (rows, 1)."""
    box, donor = torch.tensor(plan.box[:, 0]), torch.tensor(plan.donor[:, 0])
    return box[:, :1], donor[:, :1], box[:, 1:] - box[:, :1]


ROWS: dict[str, Callable[[Setup], Iterator[dict[str, Any]]]] = {
    "spans": lambda s: spans(s, 32, 128, aims=(30, 100)),
    "spans-large": lambda s: spans(s, 256, 512, aims=(None, None)),
    "words": lambda s: words(s, 32),
    "hidden": lambda s: hidden(s, learn=False),
    "hidden-backward": lambda s: hidden(s, learn=True),
    "masks": masks,
}
HEADLINE = ("spans", "words", "hidden", "masks")
