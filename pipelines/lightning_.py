"""MixCallback: mixing inside the model of a LightningModule, with two lines in its training_step.

It needs lightning or pytorch_lightning, whichever the training uses, and is imported by name:
``from mixops.pipelines.lightning_ import MixCallback``.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import mixops as mx
from mixops import MixTypeError, MixValueError

from .bases import with_bases
from .hidden import mix_hidden
from .plan_collate import check_drawing, layout_inside, leaves_all, plan_of_rows
from .state import VERSION

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


class MixCallback:
    """A Lightning callback that draws the plan of every training batch and mixes inside the model until its step ends.

    The plan depends on (seed, current epoch, index of the batch, rank) alone and is put into the batch, where
    ``training_step`` finds it: ``mx.mixed_loss(F.cross_entropy, logits, *mx.pair_targets(batch["labels"],
    batch["plan"]))``. The model is mixed from the start of the step to its end, backward included. A batch that brings
    its plan keeps it. Validation, test and prediction are not mixed.

    Args:
        op: the operator; ``start_step`` counts the steps of the optimizer, ``trainer.global_step``.
        seed: of the draws, 0 ≤ seed < 2**64.
        rows: entry of the batch that has one row for each sample.
        plan_key: entry that the plan is put into.
        module: path, in the LightningModule, of the network that names of layers are looked up in; None: its one
            child that has parameters, else the LightningModule itself.
        mask: what later layers attend to, see ``mix_hidden``.

    Raises:
        MixError: if op is no operator, the seed is out of range, or neither package is installed; in a training step,
            if the batch is no dict, lacks what the operator needs, or the layer cannot be mixed; on resuming from a
            checkpoint that was saved with another operator or seed.

    Example:
        >>> import mixops as mx
        >>> def fit(module, loader):
        ...     import lightning
        ...
        ...     trainer = lightning.Trainer(max_epochs=3, callbacks=[MixCallback(mx.TMix({7, 9, 12}), seed=7)])
        ...     trainer.fit(module, loader)
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> MixCallback:
        """An instance that is also a Callback of the package in use: to each of the two only its own is one."""
        made: MixCallback = object.__new__(as_callback(cls))
        return made

    def __init__(
        self,
        op: mx.Operator,
        seed: int,
        *,
        rows: str = "input_ids",
        plan_key: str = "plan",
        module: str | None = None,
        mask: str = "union",
    ) -> None:
        check_drawing("MixCallback", op, seed)
        self.op, self.seed, self.rows, self.plan_key = op, seed, rows, plan_key
        self.module, self.mask = module, mask
        self._mixing: AbstractContextManager[Any] | None = None
        self._batch: MutableMapping[str, Any] | None = None

    def __reduce__(self) -> Any:
        # The class of an instance has no name to be found by in another process.
        options = {name: getattr(self, name) for name in ("rows", "plan_key", "module", "mask")}
        return _again, (self.op, self.seed, options)

    def __repr__(self) -> str:
        return f"MixCallback({self.op!r}, seed={self.seed})"

    def state_dict(self) -> dict[str, Any]:
        """The operator and the seed, for a checkpoint."""
        return drawing_state(self.op, self.seed)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Hold them against a checkpoint; raises if they differ."""
        check_drawing_state("MixCallback", state_dict, self.op, self.seed)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Draw the plan, or take it from the batch, and begin to mix."""
        self._leave(_Unfinished())
        if not isinstance(batch, MutableMapping):
            raise MixTypeError(
                f"MixCallback: the batch is {type(batch).__name__}, expected a dict that the plan can join: let the "
                "samples, or collate_fn, give entries names"
            )
        plan = batch.get(self.plan_key)
        if plan is None:
            key = trainer.current_epoch, batch_idx, trainer.global_rank
            plan = plan_of_rows(
                batch, self.op, self.seed, key, owner="MixCallback", rows=self.rows, step=trainer.global_step
            )
            self._batch = batch
        _put_first(batch, self.plan_key, plan)
        if leaves_all(plan):
            return
        try:
            network, layer = self._place(pl_module, plan.layer or "input")
            mixing = mix_hidden(network, layer, plan, layout_inside(plan, "MixCallback"), mask=self.mask)
            mixing.__enter__()
        except BaseException:
            self._take_back()
            raise
        self._mixing = mixing

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop mixing; raises if the layer was never run by a step that has a loss."""
        # A step that returns None skips its batch; one that optimises by hand returns what it likes.
        skipped = not outputs and pl_module.automatic_optimization
        self._leave(_Unfinished() if skipped else None)

    # A step may end otherwise: by an exception, or because on_train_batch_start of the module skipped it.

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Stop mixing."""
        self._leave(exception)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Stop mixing."""
        self._leave(_Unfinished())

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop mixing."""
        self._leave(_Unfinished())

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Stop mixing."""
        self._leave(_Unfinished())

    def _take_back(self) -> None:
        """Leave the batch as it came: a loader may hold it for the next epoch, which has a plan of its own."""
        if self._batch is not None:
            self._batch.pop(self.plan_key, None)
            self._batch = None

    def _leave(self, error: BaseException | None) -> None:
        self._take_back()
        mixing, self._mixing = self._mixing, None
        if mixing is not None:
            mixing.__exit__(None if error is None else type(error), error, None)

    def _place(self, pl_module: Any, layer: str) -> tuple[Any, str]:
        """The network and the name of the layer in it."""
        name = self.module
        if name is None:
            children = [n for n, child in pl_module.named_children() if any(True for _ in child.parameters())]
            alone = len(children) == 1 and not pl_module._parameters
            name = children[0] if alone else ""
        try:
            network = pl_module.get_submodule(name)
        except AttributeError:
            tops = ", ".join(n for n, _ in pl_module.named_children())
            raise MixValueError(
                f"MixCallback: {type(pl_module).__name__} has no module {name!r}, expected the path of one: at the "
                f"top: {tops}"
            ) from None
        inside = layer.removeprefix(f"{name}.")
        known = layer == inside or any(path == layer for path, _ in network.named_modules())
        return network, layer if known else inside


class _Unfinished(Exception):
    """Tells mix_hidden that the step did not come to its end, so that it does not ask whether all was mixed."""


def _put_first(batch: MutableMapping[str, Any], name: str, plan: Any) -> None:
    """Lightning asks all entries for their number of rows, and warns if one after a tensor has none."""
    rest = {key: value for key, value in batch.items() if key != name}
    batch.clear()
    batch[name] = plan
    batch.update(rest)


def _again(op: mx.Operator, seed: int, options: dict[str, Any]) -> MixCallback:
    return MixCallback(op, seed, **options)


def as_callback(cls: type) -> type:
    """The class as a Callback of each package that is loaded, else of one that is installed."""
    loaded = [name for name in _PACKAGES if name in sys.modules]
    if not loaded:
        loaded = [name for name in _PACKAGES if find_spec(name.partition(".")[0]) is not None][:1]
    if not loaded:
        raise MixValueError(
            f"{cls.__name__}: neither lightning nor pytorch_lightning is installed: install one of them"
        )
    return with_bases(cls, tuple(import_module(name).Callback for name in loaded))


def drawing_state(op: mx.Operator, seed: int) -> dict[str, Any]:
    """What a checkpoint keeps of a callback: the place in the training is Lightning's, the plan follows from it."""
    return {"version": VERSION, "op": repr(op), "seed": seed}


def check_drawing_state(owner: str, state: Any, op: mx.Operator, seed: int) -> None:
    """Refuse to go on with other draws than the training that was saved.

    Raises:
        MixError: if the state is of another version, operator or seed.
    """
    for name, value in drawing_state(op, seed).items():
        if state.get(name) != value:
            raise MixValueError(
                f"{owner}: the checkpoint was saved with {name}={state.get(name)!r}, this one has {value!r}: resume "
                f"with that {name}; to go on with another, load the weights alone into a new training"
            )
