"""BatchMixing: a callback of Lightning that mixes every training batch before its training_step.

It needs lightning or pytorch_lightning once it is made. To mix inside a model see ``mixops.pipelines.lightning_``.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import mixops as mx
from mixops import MixTypeError

from ..collate import check_mixing, draw_plan
from ..keys import BatchKey
from ..lightning_ import as_callback, check_drawing_state, drawing_state


class BatchMixing:
    """A Lightning callback that mixes images and labels where the module is: on the device, before ``training_step``.

    ``training_step`` finds the mixed images and, in the soft form, labels (N, C) for ``F.cross_entropy``. The plan
    depends on (seed, current epoch, index of the batch, rank) alone. Batches are dicts or lists, as default_collate
    makes them, and are given back as they came when the step is over. Validation, test and prediction are not mixed.

    Args:
        op: the operator.
        fields: {name: Field | Labels}; for lists {position: ...}.
        seed: of the draws, 0 ≤ seed < 2**64.

    Raises:
        MixError: if op is no operator, fields are no Field or Labels, the seed is out of range, or neither package is
            installed; in a training step, if the batch is a tuple, or batch, fields and operator do not fit; on
            resuming from a checkpoint that was saved with another operator or seed.

    Example:
        >>> def fit(module, loader):
        ...     import lightning
        ...
        ...     fields = {0: mx.Field("b c h w"), 1: mx.Labels(10)}
        ...     mixing = BatchMixing(mx.CutMix(1.0), fields, seed=7)
        ...     lightning.Trainer(max_epochs=3, callbacks=[mixing]).fit(module, loader)
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> BatchMixing:
        """An instance that is also a Callback of the package in use."""
        made: BatchMixing = object.__new__(as_callback(cls))
        return made

    def __init__(self, op: mx.Operator, fields: Mapping[Any, Any], seed: int) -> None:
        check_mixing("BatchMixing", op, fields, seed)
        self.op, self.fields, self.seed = op, dict(fields), seed
        #: What was drawn for the last batch.
        self.plan: mx.Plan | mx.PlanSequence | None = None
        self._taken: tuple[Any, dict[Any, Any]] | None = None

    def __reduce__(self) -> Any:
        # The class of an instance has no name to be found by in another process.
        return BatchMixing, (self.op, self.fields, self.seed)

    def __repr__(self) -> str:
        return f"BatchMixing({self.op!r}, {self.fields!r}, seed={self.seed})"

    def state_dict(self) -> dict[str, Any]:
        """The operator and the seed, for a checkpoint."""
        return drawing_state(self.op, self.seed)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Hold them against a checkpoint; raises if they differ."""
        check_drawing_state("BatchMixing", state_dict, self.op, self.seed)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Mix the batch."""
        self._give_back()
        if not isinstance(batch, (MutableMapping, list)):
            raise MixTypeError(
                f"BatchMixing: the batch is {type(batch).__name__}, expected a dict or a list whose entries can be "
                "replaced: let collate_fn return one, or wrap the loader in MixLoader"
            )
        key = BatchKey(trainer.current_epoch, batch_idx, trainer.global_rank)
        self.plan = draw_plan(batch, self.op, self.fields, self.seed, key, training=True)
        mixed = mx.mix_batch(batch, self.plan, self.fields)
        self._taken = batch, {name: batch[name] for name in self.fields}
        for name in self.fields:
            batch[name] = mixed[name]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Leave the batch as it came: a loader may hold it for the next epoch."""
        self._give_back()

    # A step may end otherwise: by an exception, or because on_train_batch_start of the module skipped it.

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave the batch as it came."""
        self._give_back()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave the batch as it came."""
        self._give_back()

    def _give_back(self) -> None:
        if self._taken is not None:
            batch, items = self._taken
            for name, item in items.items():
                batch[name] = item
            self._taken = None
