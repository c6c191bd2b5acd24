"""mixed_loss: one name for the losses of torch and of JAX; only the library that the logits are of is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .traced import is_jax


def mixed_loss(fn: Callable[..., Any], logits: Any, ya: Any, yb: Any, lam: Any) -> Any:
    """Loss of a batch on both parents' labels: mean over all elements of lam·fn(logits, ya) + (1 - lam)·fn(logits, yb).

    For cross entropy it equals the loss on soft targets, since that is linear in the target.

    Args:
        fn: for torch a function such as ``F.cross_entropy`` or a criterion such as ``nn.CrossEntropyLoss()``. If it
            knows ``reduction`` it is asked for "none"; a criterion keeps its own. For JAX a function that gives one
            loss for each row, such as ``optax.softmax_cross_entropy_with_integer_labels``. One that only gives a mean
            will do where lam is the same in all rows (in compiled JAX code: where lam is a single number).
        logits: what the model says, (N, ...), a tensor or a JAX array.
        ya: labels of the rows, as fn takes them; with torch NumPy arrays become tensors beside the logits, whole
            numbers int64 and floats of the logits' dtype.
        yb: labels of their partners.
        lam: share of ya in [0, 1]: a number, or an array or tensor of shape (N,); losses of shape (N, ...) take it
            row by row.

    Returns:
        A scalar. It is the plain mean: elements that fn ignores (``ignore_index``) count as 0, class weights are not
        divided out.

    Raises:
        MixError: if fn gives one number for the batch while lam differs between rows, its losses are not one for each
            row, or lam is of another length or, on the CPU and outside of compiled JAX code, outside [0, 1].

    Example:
        >>> import torch
        >>> logits, ya, yb = torch.zeros(2, 4), torch.tensor([0, 1]), torch.tensor([1, 0])
        >>> round(mixed_loss(torch.nn.functional.cross_entropy, logits, ya, yb, torch.tensor([0.3, 0.9])).item(), 4)
        1.3863
    """
    if is_jax(logits):
        from . import jax_targets

        return jax_targets.mixed_loss(fn, logits, ya, yb, lam)
    from . import losses

    return losses.mixed_loss(fn, logits, ya, yb, lam)
