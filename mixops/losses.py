"""Losses on mixed targets, for torch: ``import mixops`` loads this module only when one of its names is asked for."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .devices import beside
from .errors import MixTypeError, MixValueError

_HALVES = (torch.float16, torch.bfloat16)


def mixed_loss(fn: Callable[..., Tensor], logits: Tensor, ya: Any, yb: Any, lam: Any) -> Tensor:
    """See ``pair_loss.mixed_loss``."""
    given = torch.as_tensor(np.array(lam) if isinstance(lam, np.ndarray) else lam)
    # On a GPU a look at the values would wait for all the work before it.
    if (
        given.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not bool(((given >= 0) & (given <= 1)).all())
    ):
        raise MixValueError(f"mixed_loss: lam {lam!r}, expected shares from 0 to 1")
    # A single number may stay on the host.
    share = given.to(logits.device, non_blocking=True) if given.ndim else given
    criterion = _unreduced(fn)
    la, lb = criterion(logits, _as_tensor(ya, logits)), criterion(logits, _as_tensor(yb, logits))
    if not la.ndim:
        if share.ndim and len(share) and not bool((given == given[0]).all()):
            raise MixValueError(
                "mixed_loss: the loss function gives one number for the batch, and lam differs between rows: expected "
                'one that takes reduction="none", or an operator with per="batch"'
            )
        share = share.flatten()[0] if share.numel() else share.sum()
    elif share.ndim:
        if share.ndim != 1 or len(share) != len(la):
            raise MixValueError(
                f"mixed_loss: lam has shape {tuple(share.shape)} and the losses {tuple(la.shape)}, expected one lam "
                "for each row"
            )
        share = share.reshape(-1, *[1] * (la.ndim - 1))
    share = share.to(la.dtype)
    return (share * la + (1 - share) * lb).mean()


def _as_tensor(labels: Any, logits: Tensor) -> Any:
    """Labels that are a NumPy array as the tensor that torch's losses take with these logits."""
    if not isinstance(labels, np.ndarray):
        return labels
    # Arrays may be read-only or of a dtype that torch lacks, so they are copied through one that both know.
    if labels.dtype.kind in "biu":
        return beside(labels.astype(np.int64), logits)
    if labels.dtype.kind == "f":
        return beside(np.array(labels, np.float64), logits).to(logits.dtype)
    raise MixTypeError(f"mixed_loss: got labels of {labels.dtype}, expected whole numbers or floats")


def _unreduced(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The loss as one number for each element, where the function can say it so."""
    if isinstance(fn, nn.Module):
        if isinstance(getattr(fn, "reduction", None), str):
            fn = copy.copy(fn)  # shares weights and hooks; only this name differs
            fn.reduction = "none"  # type: ignore[assignment]  # a plain attribute that Module declares as Tensor or Module
        return fn
    try:
        parameters = inspect.signature(fn).parameters
    except ValueError:  # a builtin without a signature
        return fn
    if "reduction" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return lambda logits, y: fn(logits, y, reduction="none")
    return fn


def consistency_loss(*logits: Tensor, reduction: str = "mean") -> Tensor:
    """Jensen-Shannon divergence of several predictions: 1/K · Σ_k KL(p_k ‖ m), p_k = softmax(logits_k), m their mean.

    It is 0 where all say the same, up to rounding, and at most log K. Added to the cross entropy of a batch and of its
    cut views, it asks the model to say the same of all of them.

    Args:
        logits: K = 2 or more tensors (N, C, ...) of one shape, classes on axis 1; gradients flow to each of them.
            Halves are computed in float32. A logit of -inf is a class of probability 0.
        reduction: "mean" over all rows (and positions), "sum", or "none": (N, ...), one for each.

    Returns:
        A scalar tensor, in nats; with "none" one number for each row. The mean of no rows is 0.

    Raises:
        MixError: if there are fewer than two, they differ in shape or are no floats, or reduction is unknown.

    Example:
        >>> clean, cut = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
        >>> round(consistency_loss(clean, cut).item(), 4)
        0.3278

    Source:
        Shen et al., "A Simple but Tough-to-Beat Data Augmentation Approach for Natural Language Understanding and
        Generation" (Cutoff), 2020, section 3; Chen et al., "HiddenCut", ACL 2021.

    Differs from it:
        The codes of both compute KL(m ‖ p_k), the wrong way round.
    """
    if reduction not in ("mean", "sum", "none"):
        raise MixValueError(f"consistency_loss(reduction={reduction!r}): expected 'mean', 'sum' or 'none'")
    shapes = [tuple(one.shape) if isinstance(one, Tensor) and one.is_floating_point() else None for one in logits]
    if len(logits) < 2 or len(set(shapes)) > 1 or shapes[0] is None or len(shapes[0]) < 2:
        got = ", ".join(f"{getattr(one, 'dtype', type(one).__name__)} {tuple(np.shape(one))}" for one in logits)
        raise MixTypeError(
            f"consistency_loss: got {got or 'nothing'}, expected two or more tensors of floats and of one shape (N, C, "
            "...): the logits of the same rows in several views"
        )
    scores = [torch.log_softmax(one, 1, dtype=torch.float32 if one.dtype in _HALVES else None) for one in logits]
    shares = [score.exp() for score in scores]
    # A share that vanishes adds nothing; its logarithm must not make NaN of that, nor of its gradient.
    least = torch.finfo(scores[0].dtype).tiny
    middle = (sum(shares[1:], shares[0]) / len(shares)).clamp(min=least).log()
    terms = [
        (share * torch.where(share > least, score - middle, 0)).sum(1)
        for share, score in zip(shares, scores, strict=True)
    ]
    loss = sum(terms[1:], terms[0]) / len(terms)
    if reduction == "none":
        return loss
    return loss.sum() / (max(loss.numel(), 1) if reduction == "mean" else 1)


class SoftCrossEntropy(nn.Module):
    """Cross entropy on soft targets: loss[n] = -Σ_c ỹ[n, c]·log softmax(logits[n])[c]; "mean" divides by Σ ỹ.

    For targets that sum to 1 it is ``torch.nn.functional.cross_entropy``. A row that sums to less (a share had
    ``ignore_index``) counts for less, as an ignored row does there; a batch without any label has loss 0.

    Args:
        reduction: "mean", "sum" or "none".

    Raises:
        MixError: if reduction is unknown; when called, if logits and targets do not fit.

    Example:
        >>> criterion = SoftCrossEntropy()
        >>> soft = torch.tensor([[0.75, 0.25, 0.0]])
        >>> round(criterion(torch.zeros(1, 3), soft).item(), 4)
        1.0986
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise MixValueError(f"SoftCrossEntropy(reduction={reduction!r}): expected 'mean', 'sum' or 'none'")
        self.reduction = reduction

    def forward(self, logits: Tensor, targets: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """The loss.

        Args:
            logits: (N, C, ...), floats; halves are computed in float32.
            targets: soft targets like logits, or (ids, weights) of shape (N, M) each (``sparse_targets``).

        Returns:
            A scalar, or with "none" the loss of each row (N, ...).

        Raises:
            MixError: if the shapes do not fit, or targets are ids alone.
        """
        scores = torch.log_softmax(logits, 1, dtype=torch.float32 if logits.dtype in _HALVES else None)
        if isinstance(targets, (tuple, list)):
            ids, weights = self._sparse(logits, targets)
            scores = scores.gather(1, ids)
        else:
            weights = targets
            if weights.shape != logits.shape or not weights.is_floating_point():
                raise MixTypeError(
                    f"SoftCrossEntropy: got {targets.dtype} targets of shape {tuple(targets.shape)} for logits "
                    f"{tuple(logits.shape)}, expected floats of that shape, or (ids, weights); plain ids take "
                    "torch.nn.functional.cross_entropy"
                )
        loss = -(weights * scores).sum(1)
        if self.reduction == "none":
            return loss
        if self.reduction == "sum":
            return loss.sum()
        mass = weights.sum()
        return loss.sum() / torch.where(mass > 0, mass, 1)

    @staticmethod
    def _sparse(logits: Tensor, targets: Any) -> tuple[Tensor, Tensor]:
        if len(targets) != 2 or logits.ndim != 2 or any(t.ndim != 2 or len(t) != len(logits) for t in targets):
            shapes = ", ".join(str(tuple(np.shape(t))) for t in targets)
            raise MixTypeError(
                f"SoftCrossEntropy: got {len(targets)} targets of shapes {shapes} for logits {tuple(logits.shape)}, "
                "expected (ids, weights) of shape (N, M) for logits (N, C); ya, yb and lam take mixed_loss"
            )
        ids, weights = targets
        return ids, weights

    def extra_repr(self) -> str:
        """What ``print(model)`` shows of it."""
        return f"reduction={self.reduction!r}"
