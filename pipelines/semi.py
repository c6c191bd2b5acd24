"""MixText: learn from a few labelled and many unlabelled sentences, all of them mixed in hidden space.

The labels of unlabelled sentences are guessed by the model itself, from several wordings of each (its views), and
sharpened. Labelled rows, originals and views are then one batch that TMix mixes at a layer of the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import mixops as mx
from mixops import MixTypeError, MixValueError

from .hidden import mix_hidden
from .semi_rows import Batch, joined, label_rows, logits_of, rows_of, rows_of_views
from .state import count


def guess_labels(logits: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """The mean prediction of the views of each sentence: p[n] = Σ_k w_k·softmax(logits_k[n]) / Σ_k w_k.

    Args:
        logits: one (N, C) float tensor for each view, one or more views.
        weights: (views,) numbers of 0 or more, one or more of them above 0; None: all equal. A view of weight 0 takes
            no part, whatever its logits are.

    Returns:
        (N, C) float tensor, float32 or wider; rows sum to 1.

    Raises:
        MixError: if there is no view, shapes differ or are not (N, C), there is not one weight for each view, weights
            are negative, not finite or all 0, or a logit of a view that takes part is NaN or infinite.

    Example:
        >>> import torch
        >>> sure, unsure = torch.tensor([[9.0, -9.0]]), torch.tensor([[0.0, 0.0]])
        >>> guess_labels([sure, unsure]).round(decimals=2).tolist()
        [[0.75, 0.25]]

    Source: Chen, Yang, Yang, "MixText", ACL 2020, section 4.2.
    """
    if isinstance(logits, Tensor) or not logits:
        raise MixValueError("guess_labels: expected a list of logits, (N, C) for each view, one or more views")
    for k, view in enumerate(logits):
        if not isinstance(view, Tensor) or view.ndim != 2 or view.shape != logits[0].shape:
            raise MixValueError(
                f"guess_labels: view {k} has logits of shape {tuple(getattr(view, 'shape', ()))}, expected (N, C), as "
                f"many rows and classes as view 0 has: {tuple(getattr(logits[0], 'shape', ()))}"
            )
    shares = _weights("guess_labels", weights, len(logits))
    mean: Any = 0
    for k in np.flatnonzero(shares).tolist():
        _check_finite("guess_labels", f"view {k}", logits[k])
        mean = mean + float(shares[k]) * torch.softmax(_wide(logits[k]), 1)
    return torch.as_tensor(mean)


def sharpen(probs: Tensor, temperature: float) -> Tensor:
    """Make distributions surer of their largest entries: p_c^(1/T) / Σ_d p_d^(1/T).

    Args:
        probs: (N, C) float tensor, each entry from 0 to 1, each row with one above 0.
        temperature: T, above 0; below 1 sharpens, 1 changes nothing, above 1 flattens.

    Returns:
        A tensor like probs, whose rows sum to 1 and keep their order. However small T is, nothing underflows: the
        largest entry of a row tends to 1, or to 1/m where m are equal.

    Raises:
        MixError: if temperature is not a finite number above 0, probs is no (N, C) float tensor, or a row of it holds
            NaN or a negative number, or zeros alone.

    Example:
        >>> import torch
        >>> sharpen(torch.tensor([[0.75, 0.25]]).double(), 0.5).round(decimals=2).tolist()
        [[0.9, 0.1]]

    Source: Berthelot et al. 2019 (MixMatch), as in MixText, section 4.2.
    """
    temperature = _number("sharpen", "temperature", temperature, above=True)
    if not isinstance(probs, Tensor) or probs.ndim != 2 or not probs.is_floating_point():
        what = f"{probs.dtype} {tuple(probs.shape)}" if isinstance(probs, Tensor) else type(probs).__name__
        raise MixTypeError(f"sharpen: got {what}, expected a float tensor of shape (N, C)")
    good = (probs >= 0).all(1) & (probs > 0).any(1)
    if not bool(good.all()):
        row = int((~good).nonzero()[0])
        raise MixValueError(
            f"sharpen: row {row} is {probs[row].tolist()[:8]}, expected shares of 0 or more, one of them above 0: are "
            "these logits? Take their softmax first"
        )
    return torch.softmax(probs.log() / temperature, 1)


def rampup(step: int, steps: int) -> float:
    """How far a weight has risen in a line: min(step / steps, 1); 1 where steps is 0.

    Args:
        step: of the training, counted from 0.
        steps: over which the weight rises, 0 or more.

    Returns:
        A share from 0 to 1.

    Raises:
        MixError: if one of them is no whole number of 0 or more.

    Example:
        >>> [rampup(step, 4) for step in (0, 1, 4, 9)]
        [0.0, 0.25, 1.0, 1.0]
    """
    step, steps = count("rampup", "step", step), count("rampup", "steps", steps)
    return min(step / steps, 1.0) if steps else 1.0


@dataclass(frozen=True, eq=False)
class MixTextLoss:
    """The loss of a step and what it is made of; M rows are labelled rows, originals, then view after view.

    Args:
        total: supervised + weight·unsupervised + hinge_weight·hinge, ready for ``backward()``.
        supervised: soft cross entropy of the labelled rows, mean.
        unsupervised: KL(target ‖ prediction) of the unlabelled rows, mean.
        hinge: max(0, H - margin) of the plain unlabelled rows, mean, H the entropy of a prediction in nats; 0 where its
            weight is 0.
        weight: of ``unsupervised`` in this step: unlabelled_weight, ramped up.
        plan: what was mixed with what; its layer is where. M rows, and then, with a hinge, the originals once more,
            left as they are.
        guessed: (U, C) targets of the unlabelled sentences before mixing: guessed and sharpened.
        targets: (M, C) targets after mixing.
    """

    total: Tensor
    supervised: Tensor
    unsupervised: Tensor
    hinge: Tensor
    weight: float
    plan: mx.Plan
    guessed: Tensor
    targets: Tensor


@dataclass(frozen=True)
class MixText:
    """Semi-supervised learning by mixing labelled, unlabelled and reworded sentences in hidden space.

    A step guesses the labels of U unlabelled sentences from their originals and K views, without gradient, as the model
    is: with dropout if it is in training mode. Then TMix mixes the batch of [labelled, originals, view 1, ..., view K],
    1 layer and 1 λ a step, and

        total = CE(labelled) + w·KL(target ‖ prediction)(unlabelled) + hinge_weight·max(0, H - margin)(originals)

    Args:
        layers: of which one is drawn, as ``TMix`` takes them: 7, 9 and 12 are the authors' for a BERT of 12 layers;
            "words" and "sentence" fit networks without numbered layers.
        alpha: concentration of the Beta that λ is drawn of, 0 or more; 0 does not mix.
        temperature: of the sharpening, above 0.
        view_weights: of [original, view 1, ..., view K] in the guess, 0 or more; None: all equal.
        unlabelled_weight: w at its height, 0 or more.
        rampup: steps over which w rises from 0 in a line; 0: it is at its height from the start.
        hinge_weight: of the entropy hinge, 0 or more; 0 leaves it out and saves the rows it needs.
        hinge_margin: entropy in nats below which a prediction is sure enough, 0 or more.
        separate: mix labelled rows among themselves, and unlabelled rows among themselves.
        fold: use max(λ, 1 - λ), so that a labelled row stays mostly what it is.

    Raises:
        MixError: if a value is out of range or of a wrong type.

    Example:
        >>> MixText((4, 5, 6), temperature=0.5, view_weights=(1, 0.5))
        MixText(layers=(4, 5, 6), alpha=16.0, temperature=0.5, view_weights=(1.0, 0.5), unlabelled_weight=1.0, \
rampup=0, hinge_weight=0.0, hinge_margin=0.7, separate=False, fold=True)

    Source: Chen, Yang, Yang, "MixText: Linguistically-Informed Interpolation of Hidden Space for Semi-Supervised Text
    Classification", ACL 2020, section 4, and its code, whose numbers are the defaults.

    Differs from it:
        Later layers attend to what is real in either row, where the code attends to padding too. The hinge looks at
        plain rows, as the paper says; the code takes mixed ones, and adds it with an option alone. Weights of the
        views are equal unless given (the code has 0 for the views and 1 for the original). KL is finite where a
        probability is 0. The code leaves λ as drawn with separate mixing: give ``fold=False`` for that.
    """

    layers: tuple[str | int, ...] = (7, 9, 12)
    alpha: float = 16.0
    temperature: float = 0.5
    view_weights: tuple[float, ...] | None = None
    unlabelled_weight: float = 1.0
    rampup: int = 0
    hinge_weight: float = 0.0
    hinge_margin: float = 0.7
    separate: bool = False
    fold: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", mx.TMix(self.layers, self.alpha, fold=self.fold).layers)
        for name in ("alpha", "unlabelled_weight", "hinge_weight", "hinge_margin"):
            object.__setattr__(self, name, _number("MixText", name, getattr(self, name)))
        object.__setattr__(self, "temperature", _number("MixText", "temperature", self.temperature, above=True))
        object.__setattr__(self, "rampup", count("MixText", "rampup", self.rampup))
        if not isinstance(self.separate, bool):
            raise MixTypeError(f"MixText: separate={self.separate!r}, expected True or False")
        if self.view_weights is not None:
            _weights("MixText", self.view_weights, None)
            object.__setattr__(self, "view_weights", tuple(float(weight) for weight in self.view_weights))

    @property
    def operator(self) -> mx.TMix:
        """What mixes the batch."""
        return mx.TMix(self.layers, self.alpha, fold=self.fold)

    def plan(
        self,
        rng: np.random.Generator,
        labelled: int,
        unlabelled: int,
        *,
        partner: Any = None,
        lam: Any = None,
        layer: Any = None,
    ) -> mx.Plan:
        """Who is mixed with whom in a batch of ``labelled`` rows and ``unlabelled`` ones, views among them, behind.

        Args:
            rng: of the draw.
            labelled: rows, 1 or more.
            unlabelled: rows, 1 or more.
            partner: (M,) rows, in place of a draw.
            lam: the own share, likewise.
            layer: of the model, likewise.

        Returns:
            A plan of whole rows, M = labelled + unlabelled of them, whose layer is where they are mixed.

        Raises:
            MixError: if a number of rows is none, or what is given in place of a draw does not fit.
        """
        labelled, unlabelled = (
            count("MixText.plan", "labelled", labelled),
            count("MixText.plan", "unlabelled", unlabelled),
        )
        if partner is None and self.separate:
            partner = np.concatenate([rng.permutation(labelled), labelled + rng.permutation(unlabelled)])
        given = {"partner": partner, "lam": lam, "layer": layer}
        spec = mx.Spec(labelled + unlabelled)
        plan = self.operator.draw(rng, spec, **{name: value for name, value in given.items() if value is not None})
        assert isinstance(plan, mx.Plan)  # TMix draws one
        return plan

    def guess(self, model: nn.Module, views: Sequence[Batch], *, pad: int = 0) -> Tensor:
        """Guess and sharpen the labels of unlabelled sentences: one forward over all views that have a weight.

        Args:
            model: gives logits for a batch, or an object with ``.logits``; in whatever mode it is.
            views: [originals, view 1, ...], each of U rows, padded or not.
            pad: id that fills shorter rows.

        Returns:
            (U, C) float tensor without gradient.

        Raises:
            MixError: if there is no view or no row, views have other numbers of rows than the originals, weights do not
                fit, or a logit is not finite.
        """
        rows = rows_of_views(views)
        shares = _weights("MixText", self.view_weights, len(views))
        used = np.flatnonzero(shares)
        with torch.no_grad():
            logits = logits_of(model, joined([views[k] for k in used.tolist()], pad), rows * len(used))
            guessed = guess_labels([logits[k * rows :][:rows] for k in range(len(used))], shares[used].tolist())
        return sharpen(guessed, self.temperature)

    def loss(
        self,
        model: nn.Module,
        labelled: Batch,
        unlabelled: Sequence[Batch],
        *,
        rng: np.random.Generator,
        step: int = 0,
        pad: int = 0,
        partner: Any = None,
        lam: Any = None,
        layer: Any = None,
    ) -> MixTextLoss:
        """The loss of one step: two forwards, of which the first has no gradient.

        Args:
            model: any that ``mix_hidden`` can mix in, called with a batch's entries by name.
            labelled: a batch of B rows with ``labels``: (B,) whole numbers, or (B, C) shares that sum to 1.
            unlabelled: [originals, view 1, ..., view K], batches of U rows each; row i of all of them is one sentence.
                Labels in them are not looked at.
            rng: of the draw, ``streams.plan_stream(seed, epoch, step)`` say.
            step: of the training, counted from 0, for the ramp.
            pad: id that fills rows up to the longest of the step.
            partner: (M,) rows in place of drawn ones, M = B + (K + 1)·U.
            lam: the own share in place of a drawn one.
            layer: in place of a drawn one.

        Returns:
            The loss and its parts.

        Raises:
            MixError: if a batch has no row, views and originals differ in rows, labels do not fit the logits, a logit
                is not finite, batches have different entries, or the model lacks the layer. No gradient has changed.

        Example:
            >>> import mixops as mx, torch
            >>> from mixops.pipelines.text import TextCNN
            >>> model = TextCNN(torch.nn.Embedding(9, 4, padding_idx=0), 2)
            >>> known = {"input_ids": torch.tensor([[1, 2], [3, 4]]), "labels": torch.tensor([0, 1])}
            >>> plain, view = {"input_ids": torch.tensor([[5, 6, 7]])}, {"input_ids": torch.tensor([[5, 8]])}
            >>> rng = mx.streams.plan_stream(7, 0, 0)
            >>> loss = MixText(("words", "sentence")).loss(model, known, [plain, view], rng=rng)
            >>> loss.total.backward()
            >>> loss.plan.n, tuple(loss.guessed.shape)
            (4, (1, 2))
        """
        if not isinstance(labelled, Mapping) or "labels" not in labelled:
            have = list(labelled) if isinstance(labelled, Mapping) else type(labelled).__name__
            raise MixTypeError(f"MixText.loss: labelled is {have}, expected a batch with input_ids and labels")
        ramped = self.unlabelled_weight * rampup(step, self.rampup)
        b, u = rows_of("labelled", labelled), rows_of_views(unlabelled)
        plan = self.plan(rng, b, u * len(unlabelled), partner=partner, lam=lam, layer=layer)
        guessed = self.guess(model, unlabelled, pad=pad)
        known = label_rows(labelled["labels"], b, guessed)
        targets = _mixed(torch.cat([known, guessed.repeat(len(unlabelled), 1)]), plan)
        parts = [labelled, *unlabelled]
        if self.hinge_weight:  # the originals once more, not mixed
            plain = mx.Plan.whole(np.arange(u, dtype=np.int32), np.zeros(u, np.float32), layer=plan.layer)
            plan = mx.Plan.concat([plan, plain.on(np.arange(plan.n, plan.n + u))])
            parts.append(unlabelled[0])
        with mix_hidden(model, None, plan):
            logits = logits_of(model, joined(parts, pad), plan.n)
        if logits.shape[1] != targets.shape[1]:
            raise MixTypeError(f"MixText.loss: {logits.shape[1]} logits a row, and {targets.shape[1]} for the guess")
        _check_finite("MixText.loss", "the mixed batch", logits)
        scores = torch.log_softmax(_wide(logits), 1)
        mixed, plain_scores = scores[: len(targets)], scores[len(targets) :]
        supervised = -(targets[:b] * mixed[:b]).sum(1).mean()
        unsupervised = (torch.xlogy(targets[b:], targets[b:]) - targets[b:] * mixed[b:]).sum(1).mean()
        hinge = scores.new_zeros(())
        if self.hinge_weight:
            entropy = -(plain_scores.exp() * plain_scores).sum(1)
            hinge = (entropy - self.hinge_margin).clamp(min=0).mean()
        total = supervised + ramped * unsupervised + self.hinge_weight * hinge
        return MixTextLoss(
            total, supervised.detach(), unsupervised.detach(), hinge.detach(), ramped, plan, guessed, targets
        )


def _mixed(targets: Tensor, plan: mx.Plan) -> Tensor:
    return torch.as_tensor(mx.mix(targets, plan, "b c"))


def _weights(owner: str, weights: Any, views: int | None) -> np.ndarray:
    """(views,) shares of the views that sum to 1; None checks weights for any number of views."""
    if weights is None:
        return np.full(views or 1, 1 / (views or 1))
    if isinstance(weights, str) or not isinstance(weights, (Sequence, np.ndarray)):
        raise MixTypeError(f"{owner}: weights {weights!r}, expected a number for each view, the original first")
    given = [_number(owner, "weight of a view", weight) for weight in weights]
    if views is not None and len(given) != views:
        raise MixValueError(
            f"{owner}: {len(given)} weights for {views} views, expected one for each, the original first"
        )
    if not any(given):
        raise MixValueError(f"{owner}: weights {given}, expected one or more above 0")
    return np.array(given) / sum(given)


def _number(owner: str, name: str, value: Any, *, above: bool = False) -> float:
    """A finite number of 0 or more, or above 0."""
    expected = "a finite number above 0" if above else "a finite number of 0 or more"
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise MixTypeError(f"{owner}: {name}={value!r}, expected {expected}")
    if not math.isfinite(value) or value < 0 or (above and not value):
        raise MixValueError(f"{owner}: {name}={value!r}, expected {expected}")
    return float(value)


def _check_finite(owner: str, what: str, logits: Tensor) -> None:
    if not bool(torch.isfinite(logits).all()):
        rows = (~torch.isfinite(logits)).any(1).nonzero().flatten().tolist()
        raise MixValueError(
            f"{owner}: {what} has logits that are NaN or infinite, in {len(rows)} rows, the first {rows[0]}: has the "
            "training diverged? Lower the learning rate"
        )


def _wide(logits: Tensor) -> Tensor:
    """Halves as float32: a sum of exponentials needs it."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
