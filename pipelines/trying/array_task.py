"""Images and rows of numbers as a task: mixed in an ArrayLoader, learnt by a network, measured on what is held out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

import mixops as mx
from mixops import MixTypeError, MixValueError

from ..array_loader import ArrayLoader
from ..mixed_rows import steps_of
from ..small_net import small_network
from ..text.recipes import Recipe
from ..text.running import diverged, logits_of, one_state, scores_of
from .given_models import training_of
from .held_arrays import HeldArrays
from .tasks import Progress, Scores

if TYPE_CHECKING:
    from torch import nn

OWNER = "try"
#: Rows of a batch that is only measured.
_TEST_BATCH = 256
#: A row that is only measured costs about a third of one that is learnt.
TEST_COST = 1 / 3
#: Draws of an operator that are looked at before it is tried.
_LOOKS = 8
#: Not mixing, through the same chain.
_PLAIN = mx.Mixup(0.0)


class ArrayTask:
    """Rows of arrays and a network on them.

    Args:
        data: the rows.
        model: function of (shape of a row, how many classes) that gives a network of (N, *shape) float32; images
            come as (channels, height, width).
        batch_size: rows a step, 1 or more; a smaller last batch of an epoch is left out.
        lr: of AdamW; it rises over the first fifth of the steps, then falls to 0.
        threads: of torch.
        device: of torch.
        name: of the model, for the report.

    Raises:
        MixError: if there are fewer rows than a batch, or the model gives other things than logits.
    """

    def __init__(
        self,
        data: HeldArrays,
        model: Callable[[tuple[int, ...], int], nn.Module] = small_network,
        *,
        batch_size: int = 64,
        lr: float = 3e-3,
        threads: int = 1,
        device: str = "cpu",
        name: str = "small",
    ) -> None:
        self.recipe = Recipe(1, batch_size, lr, weight_decay=0.05, warmup=0.2)
        if len(data.x) < batch_size:
            raise MixValueError(
                f"{len(data.x)} {data.kind} to learn from, fewer than a batch of {batch_size}: expected as many or "
                f"more, or --batch {len(data.x)}"
            )
        self.kind, self.tested = data.kind, len(data.x_test)
        self.data, self.model, self.name, self.threads, self.device = data, model, name, threads, device
        self.steps = len(data.x) // batch_size
        self.fields, self.to, self.arrays = _prepared(data)
        config = {name: value for name, value in self.recipe.config.items() if name != "epochs"}
        self.facts = {"data": data.facts, "model": name, **config, "device": device}
        with one_state(OWNER, threads, 0, device):
            net = self._network()
            rows = slice(0, min(2, self.tested))
            try:
                self._probs(net, rows)
            except mx.MixError:
                raise
            except Exception as error:  # torch's, of shapes that do not fit, or whatever a user's network raises
                raise MixValueError(
                    f"--model {name} cannot take float32 of shape {(rows.stop, *_sample_shape(data))}: "
                    f"{type(error).__name__}: {error}"
                ) from error

    def work(self, epochs: int) -> float:
        """What a run of so many epochs costs, its measuring too, in training steps' worth."""
        return epochs * self.steps + TEST_COST * self.tested / self.recipe.batch_size

    def check(self, op: mx.Operator) -> None:
        """Refuse an operator that cannot mix such rows, with a MixError."""
        try:
            loader = self._loader(self.arrays["train"], op, 0, plan_key="plan")
            plans = [batch["plan"] for _, batch in zip(range(_LOOKS), loader, strict=False)]
        except mx.MixError as error:
            raise MixValueError(f"{op!r} does not fit {self.kind}: {error}") from None
        for plan in plans:
            self._check_plan(op, plan)

    def train(self, op: mx.Operator | None, seed: int, epochs: int, progress: Progress) -> Scores:
        """Train once. First weights, batches and their order depend on the seed alone; None mixes nothing."""
        recipe = replace(self.recipe, epochs=epochs)
        op, total, done = op or _PLAIN, epochs * self.steps, 0
        with one_state(OWNER, self.threads, seed, self.device), training_of(self.name):
            net = self._network()
            optimizer, schedule = recipe.optimizer(net, total)
            criterion = mx.SoftCrossEntropy()
            loader = self._loader(self.arrays["train"], op, seed, plan_key="plan")
            net.train()
            for _ in range(epochs):
                for batch in loader:
                    self._check_plan(op, batch["plan"])  # a few looks may miss what OneOf seldom draws
                    x, target = batch["x"].to(self.device), batch["y"].to(self.device)
                    logits = logits_of(OWNER, net(x), (len(x), len(self.data.classes)))
                    loss = criterion(logits, target)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                    done += 1
                    value = float(loss.detach())
                    if not math.isfinite(value):
                        raise diverged(OWNER, "in step", done, f"the loss is {value}", recipe)
                    progress(done, total, f"loss {value:.3f}")
            probs = self._probs(net, slice(None))
            if not np.isfinite(probs).all():
                raise diverged(OWNER, "after step", done, "probabilities are not finite", recipe)
            return Scores(*scores_of(probs, self.data.y_test))

    def _check_plan(self, op: mx.Operator, plan: mx.Plan | mx.PlanSequence) -> None:
        if any(step.layer is not None for step in steps_of(plan)):
            raise MixValueError(
                f"{op!r} mixes hidden states, and {self.kind} are mixed before the model here: expected an operator "
                "such as Mixup(0.2), CutMix(1.0) or Cutout(8)"
            )

    def _network(self) -> Any:
        from torch import nn

        shape = _sample_shape(self.data)
        net = self.model(shape, len(self.data.classes))
        if not isinstance(net, nn.Module):
            raise MixTypeError(f"--model made {type(net).__name__} of {(shape, len(self.data.classes))}, not a network")
        return net.to(self.device)

    def _loader(self, rows: Any, op: mx.Operator, seed: int, **options: Any) -> ArrayLoader:
        options = {"shuffle": True, "drop_last": True, "batch_size": self.recipe.batch_size, **options}
        return ArrayLoader(
            rows, op, self.fields, seed=seed, to=self.to, threads=0, rank=0, world_size=1, framework="torch", **options
        )

    def _probs(self, net: Any, rows: slice) -> np.ndarray:
        """(M, C) float64 probabilities of rows that are held out."""
        import torch

        held = {name: array[rows] for name, array in self.arrays["test"].items()}
        options = {"shuffle": False, "drop_last": False, "training": False, "batch_size": _TEST_BATCH}
        found = []
        net.eval()
        with torch.no_grad():
            for batch in self._loader(held, _PLAIN, 0, **options):
                x = batch["x"].to(self.device)
                logits = logits_of(OWNER, net(x), (len(x), len(self.data.classes)))
                found.append(torch.softmax(logits.double(), 1).cpu().numpy())
        return np.concatenate(found)


def _sample_shape(data: HeldArrays) -> tuple[int, ...]:
    """Of what the network is given of one row."""
    shape = data.x.shape[1:]
    return (shape[2], *shape[:2]) if data.layout == "b h w c" else shape


def _prepared(data: HeldArrays) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Fields, outputs and arrays of a loader; values are normalised by those that are learnt from."""
    fields = {"x": mx.Field(data.layout), "y": mx.Labels(len(data.classes))}
    axes = tuple(i for i, axis in enumerate(data.layout.split()) if axis not in "cd")
    unit = 255.0 if data.x.dtype == np.uint8 else 1.0
    mean = data.x.mean(axes, dtype=np.float64) / unit
    std = data.x.std(axes, dtype=np.float64) / unit
    std[std == 0] = 1.0
    x, x_test, to = data.x, data.x_test, {}
    if data.layout == "b d":
        x, x_test = (((a - mean) / std).astype(np.float32) for a in (x, x_test))
    else:
        to = {"x": mx.Output("b c h w", "float32", mean=tuple(mean.tolist()), std=tuple(std.tolist()))}
    return fields, to, {"train": {"x": x, "y": data.y}, "test": {"x": x_test, "y": data.y_test}}
