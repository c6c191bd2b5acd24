"""How much each token matters to the loss of its sentence: scores for SSMix, from gradients or from attention.

Imported by name: ``from mixops.pipelines.saliency import embedding_saliency``. It needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

import mixops as mx
from mixops import MixTypeError, MixValueError

from .layers import check_reachable, find_place

__all__ = ["attention_saliency", "embedding_saliency"]

#: Entries of a batch that are for us and never for the model.
_OURS = frozenset(
    ("labels", "label", "lengths", "special", "special_tokens_mask", "segments", "saliency", "tags", "plan")
)
_HALVES = (torch.float16, torch.bfloat16)


def embedding_saliency(
    model: nn.Module,
    batch: Mapping[str, Any],
    loss: Callable[..., Tensor] | None = None,
    *,
    embedding: str | nn.Module | None = None,
) -> Tensor:
    """Saliency of each token: s[n, t] = ‖∂ loss[n] / ∂ e[n, t]‖₂, e being what the word embedding puts out.

    One forward and one backward that goes to the activations only: the ``grad`` of every parameter stays as it is, and
    no graph is left. The model's mode stays, too: in training mode the scores are those of one draw of dropout, as in
    the code of SSMix's authors. Each row has the gradient of its own loss, so its scores are the same in a batch of any
    size, and their order in a row is that of the batch's mean loss.

    Args:
        model: a sequence classifier: of Hugging Face, or any that is called with the entries of the batch by name and
            gives logits. Frozen embeddings will do.
        batch: what the model takes, ``attention_mask`` (B, T) among it where rows are padded, and ``labels`` (or
            ``label``), (B, ...). Evidence of operators (``special_tokens_mask``, ``segments``, ...) is not passed on.
        loss: fn(logits, labels), used as ``mixed_loss`` uses it; None: cross entropy of class ids.
        embedding: the module whose output e is, (B, T, D): a path or the module itself; None: what the model calls its
            input embeddings, else its one nn.Embedding. The authors take the output of the whole embedding block, after
            positions and LayerNorm: ``embedding="bert.embeddings"`` in a BERT.

    Returns:
        (B, T) tensor of 0 or more on the model's device, float32 (float64 for a float64 model), 0 at padding; made for
        ``SSMix().draw(..., saliency=...)``. It is detached.

    Raises:
        MixError: if there is no such module, several that could be meant, or it does not run or runs twice; if it puts
            out no (B, T, D); if labels or logits are missing or do not fit, or the loss does not depend on the words.

    Example:
        >>> model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2))
        >>> class Named(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.inner = model
        ...     def forward(self, input_ids):
        ...         return self.inner(input_ids)
        >>> batch = {"input_ids": torch.tensor([[1, 5, 2], [1, 7, 2]]), "labels": torch.tensor([0, 1])}
        >>> embedding_saliency(Named(), batch).shape
        torch.Size([2, 3])

    Source: SSMix (Yoon et al. 2021), section 3.1. Their code divides the norms by the root of D and by the largest of
    the row, which changes no order within a row; it is left out.
    """
    owner = "embedding_saliency"
    words = Words(model, embedding, owner)
    labels = labels_of(batch, owner)
    with torch.enable_grad():
        with words:
            outputs = model(**model_inputs(batch))
        value = mean_loss(loss, logits_of(outputs, owner), labels, owner)
    return words.saliency(value, batch)


class Words:
    """A context in which one forward of the model leaves what its word embedding puts out, for gradients to be taken.

    Args:
        model: see ``embedding_saliency``.
        embedding: see ``embedding_saliency``.
        owner: name of the caller, for the messages.

    Raises:
        MixError: if there is no such module or it cannot be reached; on leaving, if it did not run.
    """

    def __init__(self, model: nn.Module, embedding: str | nn.Module | None, owner: str) -> None:
        self._place = find_place(model, "words" if embedding is None else embedding)
        check_reachable(model, [self._place.module], owner, "")
        self._owner = owner
        self._value: Tensor | None = None
        self._gradient: Tensor | None = None
        self._hook: RemovableHandle | None = None

    def __enter__(self) -> Words:
        self._hook = self._place.module.register_forward_hook(self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._hook is not None
        self._hook.remove()
        if error is None and self._value is None:
            raise MixValueError(
                f"{self._owner}: {self._place.name} did not run: expected the module that turns the batch's ids into "
                "vectors; name it with embedding=, and pass ids, no inputs_embeds"
            )

    def _take(self, module: nn.Module, args: Any, output: Any) -> Any:
        if self._value is not None:
            raise MixValueError(
                f"{self._owner}: {self._place.name} ran twice in one forward, as where encoder and decoder share it: "
                "expected a module that runs once: name the encoder's own block with embedding="
            )
        whole = isinstance(output, tuple)
        put_out = output[0] if whole else output
        if not isinstance(put_out, Tensor) or put_out.ndim != 3 or not put_out.is_floating_point():
            what = f"{put_out.dtype} {tuple(put_out.shape)}" if isinstance(put_out, Tensor) else type(put_out).__name__
            raise MixTypeError(
                f"{self._owner}: {self._place.name} put out {what}, expected vectors of the words, (B, T, D): name "
                "another module with embedding="
            )
        # Frozen: a leaf of our own asks for the gradient in place of the weights.
        self._value = put_out if put_out.requires_grad else put_out.detach().requires_grad_()
        # The model goes on with a copy, which it may change in place.
        copied = self._value.clone()
        return (copied, *output[1:]) if whole else copied

    def saliency(self, loss: Tensor, batch: Mapping[str, Any], *, keep: bool = False) -> Tensor:
        """(B, T) norms of the gradient of the rows' own losses, ``loss`` being their mean; ``keep`` keeps the graph."""
        value = self._check(loss)
        each = torch.full_like(loss, len(value))
        (gradient,) = torch.autograd.grad(loss, [value], each, retain_graph=keep, allow_unused=True)
        self._value = None
        return self._norms(gradient, batch)

    def watch(self, loss: Tensor) -> None:
        """Keep the gradient that the next ``backward()`` of this loss sends here, for ``seen``."""
        self._check(loss).register_hook(self._keep)  # type: ignore[no-untyped-call]
        self._value = None

    def seen(self, batch: Mapping[str, Any]) -> Tensor:
        """(B, T) norms of the gradient that ``backward()`` has sent: saliency up to a factor for the whole batch."""
        return self._norms(self._gradient, batch)

    def _keep(self, gradient: Tensor) -> None:
        self._gradient = gradient.detach()

    def _check(self, loss: Tensor) -> Tensor:
        assert self._value is not None
        if not loss.requires_grad:
            raise MixValueError(
                f"{self._owner}: the loss has no gradient: does the model run under no_grad, or the loss detach?"
            )
        return self._value

    def _norms(self, gradient: Tensor | None, batch: Mapping[str, Any]) -> Tensor:
        if gradient is None:
            raise MixValueError(
                f"{self._owner}: the loss does not depend on what {self._place.name} puts out: name the module that it "
                "does depend on with embedding="
            )
        norms = torch.linalg.vector_norm(gradient, dim=-1, dtype=torch.float32 if gradient.dtype in _HALVES else None)
        mask = batch.get("attention_mask")
        if mask is None:
            return norms
        _check_mask(mask, norms, self._owner, f"what {self._place.name} puts out")
        return norms.masked_fill(torch.as_tensor(mask, device=norms.device) == 0, 0)


def attention_saliency(
    attentions: Sequence[Tensor] | Tensor, attention_mask: Tensor | None = None, *, layers: int = 1
) -> Tensor:
    """Attention that each token receives: s[n, k] = mean over layers, heads and real queries q of a[n, h, q, k].

    It costs no backward; a model gives attentions where it is called with ``output_attentions=True`` and was made with
    ``attn_implementation="eager"``.

    Args:
        attentions: (B, H, T, T) of each layer, first to last, as ``outputs.attentions`` has them, or of one layer.
        attention_mask: (B, T), 0 at padding; None where there is none.
        layers: how many of the last layers count, 1 or more.

    Returns:
        (B, T) floats on their device, detached; a row sums to 1 where no attention goes to padding; 0 at padding.

    Raises:
        MixError: if there are no attentions, fewer than layers, of other shapes, or the mask does not fit them.

    Example:
        >>> attentions = torch.full((1, 2, 3, 3), 1 / 3)
        >>> attention_saliency(attentions, torch.tensor([[1, 1, 0]]))
        tensor([[0.3333, 0.3333, 0.0000]])

    Source: one of the scores that SSMix may take in place of gradients; not in the paper.
    """
    each = [attentions] if isinstance(attentions, Tensor) else list(attentions or ())
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 1:
        raise MixValueError(f"attention_saliency: layers={layers!r}, expected a whole number of 1 or more")
    if not each or not all(isinstance(one, Tensor) for one in each):
        raise MixTypeError(
            "attention_saliency: got no attentions, expected (B, H, T, T) of each layer: call the model with "
            'output_attentions=True, and make it with attn_implementation="eager"'
        )
    if len(each) < layers:
        raise MixValueError(f"attention_saliency: layers={layers}, and there are attentions of {len(each)} only")
    used = each[-layers:]
    if any(one.ndim != 4 or one.shape[2] != one.shape[3] or one.shape != used[0].shape for one in used):
        shapes = ", ".join(str(tuple(one.shape)) for one in used)
        raise MixValueError(f"attention_saliency: attentions of shapes {shapes}, expected (B, H, T, T) of each layer")
    with torch.no_grad():
        to_key = torch.stack([one.mean(1, dtype=_wide(one)) for one in used]).mean(0)  # (B, query, key)
        if attention_mask is None:
            return to_key.mean(1)
        _check_mask(attention_mask, to_key[..., 0], "attention_saliency", "the attentions")
        real = (torch.as_tensor(attention_mask, device=to_key.device) != 0).to(to_key.dtype)
        return (to_key * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1) * real


def _wide(value: Tensor) -> torch.dtype:
    return torch.float32 if value.dtype in _HALVES else value.dtype


def _check_mask(mask: Any, scores: Tensor, owner: str, of: str) -> None:
    if tuple(mask.shape) != tuple(scores.shape):
        raise MixValueError(
            f"{owner}: attention_mask has shape {tuple(mask.shape)} and {of} {tuple(scores.shape)} in its first axes, "
            "expected one number for each token"
        )


# -- what a step on text asks of batch, model and loss -----------------------------------------------------------------


def model_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that the model is called with: without labels and evidence of operators."""
    return {name: value for name, value in batch.items() if name not in _OURS}


def labels_of(batch: Any, owner: str) -> Any:
    """The labels of a batch; a MixError if it has none."""
    if not isinstance(batch, Mapping):
        raise MixTypeError(f"{owner}: the batch is {type(batch).__name__}, expected a dict of what the model takes")
    for name in ("labels", "label"):
        if batch.get(name) is not None:
            return batch[name]
    raise MixValueError(f"{owner}: the batch has no 'labels', only {', '.join(map(repr, batch))}: a loss needs them")


def logits_of(outputs: Any, owner: str) -> Any:
    """The logits among what a model returns; a MixError if there are none."""
    if isinstance(outputs, Mapping):
        logits = outputs.get("logits")
    elif isinstance(outputs, tuple):
        logits = outputs[0]
    else:
        logits = getattr(outputs, "logits", outputs)
    if not hasattr(logits, "softmax"):
        raise MixTypeError(
            f"{owner}: the model returned {type(outputs).__name__} without logits, expected an output with 'logits', a "
            "tuple that begins with them, or them alone"
        )
    return logits


def mean_loss(
    loss: Callable[..., Tensor] | None, logits: Tensor, labels: Any, owner: str, *, other: Any = None, lam: Any = 1.0
) -> Tensor:
    """Mean over the rows of lam·loss(labels) + (1 - lam)·loss(other); cross entropy where loss is None."""
    if loss is not None:
        return mx.mixed_loss(loss, logits, labels, labels if other is None else other, lam)
    whole = isinstance(labels, Tensor) and labels.ndim == 1 and not labels.is_floating_point()
    if not whole or logits.ndim != 2 or len(logits) != len(labels):
        what = f"{labels.dtype} {tuple(labels.shape)}" if hasattr(labels, "shape") else type(labels).__name__
        raise MixTypeError(
            f"{owner}: labels {what} and logits {tuple(logits.shape)}, expected a tensor of class ids (B,) with logits "
            "(B, C): anything else takes a loss fn(logits, labels) as loss="
        )
    try:
        return mx.mixed_loss(F.cross_entropy, logits, labels, labels if other is None else other, lam)
    except IndexError:  # of cross entropy, on the CPU
        raise MixValueError(
            f"{owner}: labels from {int(labels.min())} to {int(labels.max())} and logits {tuple(logits.shape)}, "
            f"expected class ids of 0 to {logits.shape[1] - 1}: set num_labels of the model, or number the classes "
            "from 0"
        ) from None
