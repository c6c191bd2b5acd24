"""Attention masks after rows have been mixed: a mixed row is real wherever one of the rows it is made of is.

Masks come in several forms, and each is united in its own: (B, T), (B, 1, 1, T), (B, 1, Q, T) of bool (True = may be
looked at), of whole numbers (1 = real) or of floats that are added to scores (0 or very low); and those of torch.nn,
True where a token is padding. A mask without a batch axis is the same for all rows and stays.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import mixops as mx
from mixops import MixTypeError, MixValueError

from .layers import MASK_NAMES, PADDING_NAMES, PAIR_NAMES, parameters_of

MASKS = ("union", "own", "ones")

_LAYOUTS = {2: "b t", 3: "b q t", 4: "b h q t"}
_HIDDEN_SCORE = -1e3  # what is added to a score to hide it lies far below this, whatever the dtype
TORCH_BLOCKS = (
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    nn.MultiheadAttention,
)


@dataclass
class Masks:
    """Changes masks, each of them once: blocks that are given one mask get one result.

    Args:
        plan: what the rows are mixed by.
        rows: rows of the batch.
        how: "union" or "ones".
    """

    plan: mx.Plan | mx.PlanSequence
    rows: int
    how: str

    def __post_init__(self) -> None:
        self._done: dict[tuple[int, bool], tuple[Tensor, Tensor]] = {}

    def changed(self, mask: Any, module: nn.Module, name: str, where: str, batch: bool) -> Tensor | None:
        """The mask that mixed rows take in place of this one, or None where it is the same for all rows.

        Args:
            mask: what the module is given.
            module: which module.
            name: of the parameter.
            where: the module as errors call it.
            batch: may a square mask of two axes, as many as there are rows, have a batch axis?

        Returns:
            A new tensor of the same form, or None.

        Raises:
            MixError: if it is no tensor, or its batch axis is not the first.
        """
        if not isinstance(mask, Tensor):
            raise MixTypeError(
                f"{where}: {name} is {type(mask).__name__}, expected a tensor to unite it with that of the partner: "
                'choose attn_implementation="sdpa" or "eager", or mask="own"'
            )
        if not _has_rows(mask, module, name, self.rows, batch):
            if _is_shared(mask, module, name):
                return None
            raise MixValueError(
                f"{where}: {name} has shape {tuple(mask.shape)}, expected the batch axis of {self.rows} first, as in "
                'the plan: draw it for this batch, Spec(n=len(x)), or leave such masks as they are, mask="own"'
            )
        hides = name in PADDING_NAMES or name in PAIR_NAMES or isinstance(module, TORCH_BLOCKS)
        before = self._done.get((id(mask), hides))
        if before is None:  # the mask is kept beside the result, so that its id stays its own
            before = self._done[id(mask), hides] = (mask, self._changed(mask, hides))
        return before[1]

    def _changed(self, mask: Tensor, hides: bool) -> Tensor:
        thin = _thin(mask)
        inverted = hides and not mask.is_floating_point()
        visible = _inverted(thin) if inverted else thin
        if mask.ndim == 3 and mask.shape[0] != self.rows:  # torch.nn: one mask for each head, (B·H, Q, T)
            visible = visible.reshape(self.rows, -1, *thin.shape[1:])
        new = united(visible, self.plan) if self.how == "union" else opened(visible)
        new = new.reshape(thin.shape)
        return (_inverted(new) if inverted else new).expand(mask.shape)


def _inverted(mask: Tensor) -> Tensor:
    return ~mask if mask.dtype == torch.bool else 1 - mask


def _has_rows(mask: Tensor, module: nn.Module, name: str, rows: int, batch: bool) -> bool:
    """Does the mask differ between rows, as far as its shape can tell?"""
    if mask.ndim not in _LAYOUTS:
        return False
    if mask.ndim == 2:
        square = name == "mask" and mask.shape[0] == mask.shape[1] and not batch
        return not _of_pairs(module, name) and not square and mask.shape[0] == rows
    if mask.ndim == 3 and isinstance(module, TORCH_BLOCKS):
        return rows > 0 and mask.shape[0] % rows == 0
    return mask.shape[0] == rows


def _of_pairs(module: nn.Module, name: str) -> bool:
    """Is a mask of two axes (Q, T), as in torch.nn and wherever it is added to scores, and not (B, T)?"""
    return name in (*PAIR_NAMES, "attn_mask") or (name == "mask" and isinstance(module, TORCH_BLOCKS))


def _is_shared(mask: Tensor, module: nn.Module, name: str) -> bool:
    """Is a mask that does not differ between rows one for all of them, rather than one for other rows?"""
    if mask.ndim == 2:
        return _of_pairs(module, name) or mask.shape[0] in (1, mask.shape[1])
    return mask.ndim in _LAYOUTS and mask.shape[0] == 1


def _thin(mask: Tensor) -> Tensor:
    """The mask without the copies that expand() laid over its inner axes."""
    for axis in range(1, mask.ndim - 1):
        if mask.stride(axis) == 0 and mask.shape[axis] > 1:
            mask = mask.narrow(axis, 0, 1)
    return mask


def united(mask: Tensor, plan: mx.Plan | mx.PlanSequence) -> Tensor:
    """Own OR donor's: what the mask of a row is after mixing.

    Args:
        mask: (B, T), (B, Q, T) or (B, H, Q, T), larger where it may be looked at.
        plan: what the rows are mixed by.

    Returns:
        A new tensor of the same shape and dtype.

    Raises:
        MixError: if the plan does not fit.

    Example:
        >>> import numpy as np
        >>> plan = mx.Plan.whole(np.array([1, 0]), np.array([0.5, 0.0]))
        >>> united(torch.tensor([[1, 0, 0], [1, 1, 0]]), plan).tolist()
        [[1, 1, 0], [1, 1, 0]]
    """
    layout = _LAYOUTS[mask.ndim]
    either: Tensor = mx.mix(mask, plan, layout, "valid")
    if mask.ndim < 4 or mask.is_floating_point() or mask.dtype == torch.bool or mask.shape[-1] != mask.shape[-2]:
        return either
    # DeBERTa multiplies: a query that is padding may not look either. What is wanted is the product of the unions,
    # which the union of the products is not where neither row's tokens are all within the other's.
    queries, keys = mask.amax(-1, keepdim=True), mask.amax(-2, keepdim=True)
    product = mx.mix(queries, plan, "b h t q", "valid") * mx.mix(keys, plan, layout, "valid")
    return torch.where((mask == queries * keys).all(), product, either)


def opened(mask: Tensor) -> Tensor:
    """The mask as it would be without padding: all keys open, but for what order or distance forbids.

    Which query may look at which key, apart from padding, depends on how far apart they are. It is read off the keys
    that are real in some row; distances that none of those shows are as the nearest one that is shown.

    Args:
        mask: (B, T), (B, Q, T) or (B, H, Q, T), larger where it may be looked at.

    Returns:
        A new tensor of the same shape and dtype.

    Example:
        >>> causal = torch.ones(3, 3, dtype=torch.bool).tril()
        >>> opened((causal & torch.tensor([True, True, False]))[None])[0].int().tolist()
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    if mask.dtype == torch.bool:
        visible, most = mask, torch.ones((), dtype=torch.bool, device=mask.device)
    elif mask.is_floating_point() and mask.ndim > 2:
        visible, most = mask > _HIDDEN_SCORE, torch.zeros((), dtype=mask.dtype, device=mask.device)
    else:
        visible, most = mask > 0, mask.amax()
    if mask.ndim == 2 or mask.shape[-2] == 1:
        return most.expand(mask.shape).clone()
    queries, keys = mask.shape[-2:]
    seen = visible.flatten(0, -3).any(0)
    known = seen.any(0) & seen.any(1)[:, None]  # a query that is padding may see nothing: that shows no distance
    at = torch.arange(queries, device=mask.device)[:, None] - torch.arange(keys, device=mask.device) + keys - 1
    # By distance: is one known, is one open? amax over all pairs that lie so far apart.
    distances = torch.zeros(2, queries + keys - 1, dtype=torch.uint8, device=mask.device)
    shown = torch.stack([known, seen]).to(torch.uint8).flatten(1)
    distances.scatter_reduce_(1, at.flatten().expand(2, -1), shown, "amax")
    ahead = torch.arange(queries + keys - 1, device=mask.device)
    first = torch.where(distances[0] > 0, ahead, queries + keys).amin()
    last = torch.where(distances[0] > 0, ahead, -1).amax()
    nearest = ahead.clamp(max=last).maximum(first).clamp(0, queries + keys - 2)
    free = distances[1][nearest][at] > 0
    return torch.where(free & ~visible, most, mask)


def given_masks(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The masks that a module is called with, by name, without those that are None.

    A name counts where a module takes any, ``forward(self, **batch)``, too.
    """
    given = {**dict(zip(parameters_of(module), args, strict=False)), **kwargs}
    return {name: value for name, value in given.items() if name in MASK_NAMES and value is not None}


def hides_tokens(name: str, mask: Any, rows: int, extents: Collection[int]) -> bool:
    """Does this mask hide tokens of some rows, of sequences as long as one of the extents? Waits for the device."""
    if not isinstance(mask, Tensor) or mask.ndim < 2 or name in PAIR_NAMES:
        return False
    if mask.shape[0] != rows or mask.shape[-1] not in extents:
        return False
    if name in PADDING_NAMES and not mask.is_floating_point():
        return bool(mask.any())
    return bool((mask < mask.amax() if mask.is_floating_point() else mask == 0).any())


def with_masks(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], changed: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with some masks replaced, where they stood."""
    names = parameters_of(module)
    new = tuple(changed.get(name, value) for name, value in zip(names, args, strict=False)) + args[len(names) :]
    return new, {name: changed.get(name, value) for name, value in kwargs.items()}
