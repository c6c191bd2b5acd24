"""ExchangeLoader: partners across ranks. All draw the plan of the global batch, and only rows it asks for travel.

It needs torch, and is imported by name: ``from mixops.pipelines.exchange import ExchangeLoader``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import mixops as mx
from mixops import MixTypeError, MixValueError, streams

from .collate import mix_with_plan
from .keys import BatchKey, process_place
from .loader import MixLoader, _Pass
from .ranks import Ranks, about, differences, digest
from .travel import Column, column_of

_BATCH, _END, _FAILED = 0, 1, 2


class ExchangeLoader(MixLoader):
    """MixLoader whose rows find partners on every rank: W ranks of B rows mix as one process with W · B rows would.

    Each step, every rank draws one and the same plan of the global batch, whose row i of rank r is row i · W + r (so
    W ranks over a KeyedBatchSampler have the batch that one process has). A rank makes its own rows of it: the rows of
    others that its plan asks for, values and labels, come in one exchange (all-to-all) for each field, and no others.
    What an operator looks at (labels, lengths, saliency) is gathered from all. Batches of ranks may differ in rows,
    an epoch's last ones say, but not in number.

    Before it draws, a step compares what all ranks have: seed, operator, fields, sampler, place in the epoch, shapes,
    versions of mixops and NumPy. Where they differ, or one rank failed to read its batch or came to its end before the
    others, every rank raises in words and none waits for ever. All ranks must ask for equally many batches.

    It runs in the main process; workers load. Groups of the backend gloo carry rows through the CPU, those of nccl on
    the current CUDA device. With no torch.distributed it is one rank and does what MixLoader does.

    Args:
        loader: see MixLoader; each rank's share of the data, as DataLoader and KeyedBatchSampler give it.
        op: the operator.
        fields: {name: Field | Labels}; for tuple batches {position: ...}. Entries it does not name stay on their rank.
        seed: of the draws, 0 ≤ seed < 2**64.
        group: ranks that exchange, a ``torch.distributed.new_group``; None: all. Each group draws plans of its own:
            the ranks of one machine, say, where the network between machines is slow.
        training: False draws the identity; also train() and eval().
        to: {name: Output} of fields that are normalised, cast or laid out in the pass that mixes.

    Raises:
        MixError: as MixLoader; while iterating, on every rank, if ranks differ as said above.

    Example:
        >>> batches = [{"x": np.eye(2, dtype=np.float32), "y": np.arange(2)}] * 3
        >>> loader = ExchangeLoader(batches, mx.Mixup(0.8), {"x": mx.Field("b d"), "y": mx.Labels(2)}, seed=7)
        >>> [bool(np.allclose(batch["x"], batch["y"])) for batch in loader]
        [True, True, True]
    """

    def __init__(
        self,
        loader: Any,
        op: mx.Operator,
        fields: Mapping[Any, Any],
        seed: int,
        *,
        group: Any = None,
        training: bool = True,
        to: Mapping[Any, mx.Output] | None = None,
    ) -> None:
        super().__init__(loader, op, fields, seed, training=training, to=to)
        self.group = group

    def __repr__(self) -> str:
        return "ExchangeLoader" + super().__repr__().removeprefix("MixLoader")

    def __iter__(self) -> Iterator[Any]:
        return _SharedPass(self)

    def _words(self) -> dict[str, Any]:
        """What all ranks must have alike for as long as a pass lasts."""
        sampler = self._sampler()
        named = {"seed": self.seed, "op": self.op, "fields": self.fields, "to": self.to}
        return {**about(named), "sampler": None if sampler is None else sampler._identity()}

    def _check_place(self) -> None:
        sampler, place = self._sampler(), process_place()
        if sampler is not None and place[1] > 1 and (sampler.rank, sampler.world_size) != place:
            raise MixValueError(
                f"ExchangeLoader: the sampler shares samples out as rank, world size = {sampler.rank}, "
                f"{sampler.world_size}, but this process is {place[0]}, {place[1]}: leave its rank and world_size out"
            )


@dataclass(frozen=True)
class _Part:
    """A rank's part of a global batch, looked at before any other rank is told of it."""

    key: BatchKey
    batch: Any
    spec: mx.Spec
    evidence: dict[str, np.ndarray]
    columns: dict[Any, Column]

    def words(self) -> dict[str, Any]:
        """What ranks must have alike, rows aside."""
        evidence = {name: f"{e.dtype} rows {e.shape[1:]}" for name, e in self.evidence.items()}
        columns = {str(name): column.kind for name, column in self.columns.items()}
        return {"epoch": self.key.epoch, "step": self.key.step, "shape": self.spec.shape, **columns, **evidence}


class _SharedPass(_Pass):
    """One pass over an ExchangeLoader."""

    _owner: ExchangeLoader

    def __init__(self, owner: ExchangeLoader) -> None:
        super().__init__(owner)
        self._ranks: Ranks | None = None
        self._words: dict[str, Any] = {}
        self._ended = False

    def __next__(self) -> Any:
        owner = self._owner
        if self._ended:
            raise StopIteration
        if self._ranks is None:
            self._ranks, self._words = Ranks(owner.group), owner._words()
        part, error, status = None, None, _BATCH
        try:
            part = self._part()
        except StopIteration:
            status = _END
        except Exception as raised:  # the others must hear of it: they would wait for this rank
            error, status = raised, _FAILED
        try:
            counts = self._agreed(status, part, error)
            mixed = None if part is None else _mixed(part, counts, self._ranks, owner)
        except BaseException:
            owner._failed(self._token, self._step)
            raise
        if part is None:
            self._ended = True
            owner._end_pass(self._token)
            raise StopIteration
        owner._delivered(self._token, part.key.step + 1)
        return mixed

    def _counts_what_came(self) -> bool:
        return False  # a batch that fails on one rank takes its number with it on all

    def _part(self) -> _Part:
        """Read this rank's next batch, and find all in it that can be wrong with it."""
        owner = self._owner
        if self._source is None:
            owner._check_place()
        key, batch = self._read()
        spec = mx.spec_of(batch, owner.fields, epoch=key.epoch, training=owner.training)
        evidence = mx.evidence_of(batch, owner.fields, owner.op)
        columns = {name: column_of(name, batch[name], field) for name, field in owner.fields.items()}
        uneven = {name: c.rows for name, c in columns.items() if c.rows != spec.n}
        if uneven:
            raise MixValueError(f"the fields have {uneven} rows, others {spec.n}: expected the same number in all")
        return _Part(key, batch, spec, evidence, columns)

    def _agreed(self, status: int, part: _Part | None, error: Exception | None) -> np.ndarray:
        """Rows of each rank, none where all have come to their end; raises on every rank where they do not agree."""
        ranks = self._ranks
        assert ranks is not None
        words = {**self._words, "training": self._owner.training, **({} if part is None else part.words())}
        told = ranks.told([status, 0 if part is None else part.spec.n, digest(words)])
        statuses = told[:, 0]
        if error is not None:
            raise error
        if (statuses == _FAILED).any():
            who = np.flatnonzero(statuses == _FAILED).tolist()
            raise MixValueError(f"no rank mixes this batch: rank {who[0]} failed at it, and says why")
        if (told[:, 2] != told[0, 2]).any() and len(set(statuses.tolist())) == 1:
            raise MixValueError(differences(words, ranks))
        if len(set(statuses.tolist())) > 1:
            done = np.flatnonzero(statuses == _END).tolist()
            raise MixValueError(
                f"rank {done[0]} is at the end of its epoch, and rank {int(np.argmin(statuses))} is not: expected "
                "equally many batches on all, which a KeyedBatchSampler gives"
            )
        return told[:, 1]


def _mixed(part: _Part, counts: np.ndarray, ranks: Ranks, owner: ExchangeLoader) -> Any:
    """This rank's rows of the global batch, mixed."""
    holder, held = global_rows(counts)
    total, key = len(holder), part.key
    evidence = {}
    if part.evidence:
        order = np.argsort(np.lexsort((held, holder)))  # from one rank after the other to global rows
        for name, mine in part.evidence.items():
            evidence[name] = np.concatenate(ranks.rows(mine))[order]
    rng = streams.plan_stream(owner.seed, key.epoch, key.step, ranks.first)
    plan = owner.op.draw(rng, replace(part.spec, n=total), **evidence)
    needs = rows_needed(plan, holder, len(counts))
    local, wanted = own_part(plan, needs, ranks.rank, np.flatnonzero(holder == ranks.rank))
    away = needs[0] & (holder != np.arange(len(counts))[:, None])  # (ranks, rows): who lacks what
    batch = part.batch
    if away.any():
        asked = [held[row & (holder == ranks.rank)] for row in away]  # rows of mine, for each rank
        coming = [int((away[ranks.rank] & (holder == r)).sum()) for r in range(len(counts))]
        # They arrive rank by rank, in the order of global rows within each; the plan wants them in global order.
        place = np.argsort(np.argsort(holder[wanted], kind="stable"))
        items = {n: c.joined(c.swapped(ranks, asked, coming), place) for n, c in part.columns.items()}
        batch = _with_items(batch, items)
    return mix_with_plan(batch, local, owner.fields, to=owner.to)


def global_rows(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rank, row there) of every row of a global batch: the first rows of all ranks, then the second ones, and so on.

    Args:
        counts: (ranks,) rows of each.

    Example:
        >>> rank, row = global_rows(np.array([2, 1, 2]))
        >>> rank.tolist(), row.tolist()
        ([0, 1, 2, 0, 2], [0, 0, 0, 1, 1])
    """
    rank = np.repeat(np.arange(len(counts)), counts)
    row = np.concatenate([np.arange(n) for n in counts]) if len(counts) else np.zeros(0, np.int64)
    order = np.lexsort((rank, row))
    return rank[order], row[order]


def rows_needed(plan: mx.Plan | mx.PlanSequence, holder: np.ndarray, ranks: int) -> list[np.ndarray]:
    """Rows that each rank must have, (ranks, rows) bool: of the source, then of what each step of the plan makes.

    Args:
        plan: of the global batch.
        holder: (n,) rank of each row that the plan makes.
        ranks: how many there are.
    """
    steps = plan.plans if isinstance(plan, mx.PlanSequence) else (plan,)
    needs = [holder == np.arange(ranks)[:, None]]
    for step in reversed(steps):
        rows = len(holder)  # steps keep the number of rows: they make a batch of a batch
        before = np.zeros((ranks, rows), bool)
        rank, row = np.nonzero(needs[0])
        before[rank, step.base[row]] = True
        for k in range(step.k):
            donor = step.partner[row, k]
            used = (donor >= 0) & ((step.opacity[row, k] > 0) | (step.weight[row, k] > 0))
            before[rank[used], donor[used]] = True
        needs.insert(0, before)
    return needs


def own_part(
    plan: mx.Plan | mx.PlanSequence, needs: list[np.ndarray], rank: int, own: np.ndarray
) -> tuple[mx.Plan | mx.PlanSequence, np.ndarray]:
    """A rank's part of the plan, over a source of its own rows and those from other ranks behind them.

    Args:
        plan: of the global batch.
        needs: of ``rows_needed``.
        rank: whose part.
        own: (m,) global rows that the rank holds, in its order.

    Returns:
        (part, wanted): wanted are the global rows that come behind its own, ascending.
    """
    wanted = np.setdiff1d(np.flatnonzero(needs[0][rank]), own)
    steps = plan.plans if isinstance(plan, mx.PlanSequence) else (plan,)
    source, parts = np.concatenate([own, wanted]), []
    for i, step in enumerate(steps):
        made = own if i == len(steps) - 1 else np.flatnonzero(needs[i + 1][rank])
        where = np.zeros(needs[0].shape[1], np.int64)  # rows of patches that do nothing stand for row 0
        where[source] = np.arange(len(source))
        parts.append(step[made].on(where))
        source = made
    return (parts[0] if len(parts) == 1 else mx.PlanSequence(tuple(parts))), wanted


def _with_items(batch: Any, items: dict[Any, Any]) -> Any:
    """The batch with these items in place of its own."""
    if isinstance(batch, Mapping):
        return {**batch, **items}
    if not isinstance(batch, (tuple, list)):
        raise MixTypeError(f"batch: got {type(batch).__name__}, expected a dict, a tuple or a list")
    every = [items.get(i, item) for i, item in enumerate(batch)]
    return type(batch)._make(every) if hasattr(batch, "_make") else type(batch)(every)
