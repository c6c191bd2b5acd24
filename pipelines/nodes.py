"""Nodes for torchdata.nodes: draw in order, apply in parallel, resume in the middle of an epoch.

A ParallelMapper promises that one thread at a time asks its source for the next item. So the ordered place to draw is a
node before it, the Planner, and the parallel place to apply is its map_fn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torchdata import nodes as tn  # type: ignore[import-untyped]

import mixops as mx
from mixops import MixTypeError, Output

from .collate import check_mixing, draw_plan, mix_with_plan
from .keys import BatchKey, process_place
from .state import VERSION, check_state, count


class Planner(tn.BaseNode[tuple[Any, Any]]):  # type: ignore[misc]
    """A node that draws the plan of every batch of its source and yields (batch, plan).

    Each reset without a state is the next epoch, the first one is ``epoch``.

    Args:
        source: a node of dict or tuple batches.
        op: the operator.
        fields: {name: Field | Labels}; for tuple batches {position: ...}.
        seed: of the draws, 0 ≤ seed < 2**64.
        epoch: the first one, counted from 0.
        rank: of this process; None reads torch.distributed, if it is initialised, at each reset.
        training: False draws the identity.

    Raises:
        MixError: if source is no node, op no operator, fields no Field or Labels, or a number is out of range; on a
            reset, if the state is broken or of another seed or version (the node then stays as it was).

    Example:
        >>> import numpy as np
        >>> import mixops as mx
        >>> batches = tn.IterableWrapper([{"x": np.eye(2, dtype=np.float32)}] * 2)
        >>> [plan.n for batch, plan in tn.Loader(Planner(batches, mx.Mixup(), {"x": mx.Field("b d")}, seed=7))]
        [2, 2]
    """

    def __init__(
        self,
        source: tn.BaseNode[Any],
        op: mx.Operator,
        fields: Mapping[Any, Any],
        seed: int,
        *,
        epoch: int = 0,
        rank: int | None = None,
        training: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(source, tn.BaseNode):
            raise MixTypeError(
                f"Planner: source is {type(source).__name__}, expected a torchdata node; wrap an iterable in "
                "IterableWrapper"
            )
        check_mixing("Planner", op, fields, seed)
        self.source, self.op, self.fields, self.seed = source, op, dict(fields), seed
        self.training = training
        self._given_rank = None if rank is None else count("Planner", "rank", rank)
        self._next_epoch = count("Planner", "epoch", epoch)
        self._epoch, self._step, self._rank = self._next_epoch, 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Let the next reset without a state begin this epoch."""
        self._next_epoch = count("Planner", "epoch", epoch)

    def reset(self, initial_state: dict[str, Any] | None = None) -> None:
        """Begin the next epoch, or go on where ``initial_state`` was taken."""
        place = None
        if initial_state is not None:
            place = check_state("Planner", initial_state, {"seed": self.seed}, ("source",))
        super().reset(initial_state)
        self.source.reset(None if initial_state is None else initial_state["source"])
        self._epoch, self._step = (self._next_epoch, 0) if place is None else place
        self._next_epoch = self._epoch + 1
        self._rank = process_place()[0] if self._given_rank is None else self._given_rank

    def next(self) -> tuple[Any, Any]:
        """The next batch of the source and its plan."""
        batch = next(self.source)
        key, self._step = BatchKey(self._epoch, self._step, self._rank), self._step + 1
        return batch, draw_plan(batch, self.op, self.fields, self.seed, key, training=self.training)

    def get_state(self) -> dict[str, Any]:
        """The place of the next batch, and the source's state."""
        return {
            "version": VERSION,
            "epoch": self._epoch,
            "step": self._step,
            "seed": self.seed,
            "source": self.source.state_dict(),
        }


def _mix(
    planned: tuple[Any, Any], fields: Mapping[Any, Any], plan_key: str | None, to: Mapping[Any, Output] | None
) -> Any:
    # One thread each: the parallelism is the mapper's.
    return mix_with_plan(*planned, fields, plan_key, threads=1, to=to)


def mix_planned(
    fields: Mapping[Any, Any], *, plan_key: str | None = None, to: Mapping[Any, Output] | None = None
) -> Callable[[tuple[Any, Any]], Any]:
    """The map_fn that applies what a Planner drew: (batch, plan) to the mixed batch. Safe in threads, and picklable.

    Args:
        fields: those of the Planner.
        plan_key: name under which a dict batch is given its Plan; None leaves it out.
        to: {name: Output} of fields that are normalised, cast or laid out in the pass that mixes.
    """
    return partial(_mix, fields=dict(fields), plan_key=plan_key, to=to)


def mixer(
    source: tn.BaseNode[Any],
    op: mx.Operator,
    fields: Mapping[Any, Any],
    seed: int,
    *,
    num_workers: int = 2,
    epoch: int = 0,
    rank: int | None = None,
    training: bool = True,
    plan_key: str | None = None,
    to: Mapping[Any, Output] | None = None,
) -> tn.BaseNode[Any]:
    """A node of mixed batches: a Planner, and ``num_workers`` threads that apply its plans, in order.

    Args:
        source: a node of dict or tuple batches.
        op: the operator.
        fields: {name: Field | Labels}; for tuple batches {position: ...}.
        seed: of the draws, 0 ≤ seed < 2**64.
        num_workers: threads, 0 mixes in the caller's.
        epoch: the first one, counted from 0.
        rank: see Planner.
        training: False draws the identity.
        plan_key: see mix_planned.
        to: see mix_planned.

    Returns:
        A node for ``torchdata.nodes.Loader``, whose state_dict resumes in the middle of an epoch.

    Raises:
        MixError: as Planner.

    Example:
        >>> import numpy as np
        >>> import mixops as mx
        >>> batches = tn.IterableWrapper([{"x": np.eye(2, dtype=np.float32)}] * 2)
        >>> node = mixer(batches, mx.Mixup(), {"x": mx.Field("b d")}, seed=7, num_workers=0)
        >>> [batch["x"].shape for batch in tn.Loader(node)]
        [(2, 2), (2, 2)]
    """
    planner = Planner(source, op, fields, seed, epoch=epoch, rank=rank, training=training)
    workers = count("mixer", "num_workers", num_workers)
    return tn.ParallelMapper(
        planner, mix_planned(fields, plan_key=plan_key, to=to), num_workers=workers, method="thread"
    )
