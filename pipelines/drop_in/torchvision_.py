"""MixUp, CutMix and BatchMix where ``torchvision.transforms.v2`` has its MixUp and CutMix: called on batches.

In ``collate_fn`` or after the loader, alone or inside ``v2.Compose`` and ``v2.RandomChoice``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

import mixops as mx
from mixops import MixTypeError, MixValueError, presets

from ..collate import check_mixing
from .draws import Draws

#: By number of axes; frames have a name of their own, as boxes are for h and w alone.
_IMAGES = {4: mx.Field("b c h w"), 5: mx.Field("b f c h w")}
_MASKS = {3: "b h w", 4: "b c h w", 5: "b f c h w"}


class BatchMix(torch.nn.Module):
    """Any operator as a transform of batches: ``images, soft = BatchMix(op, num_classes=10)(images, labels)``.

    It takes what torchvision's MixUp takes, any nest of dicts, lists and tuples: every tv_tensors.Image and Video is
    mixed, or, where there is none, the first plain tensor that is not the labels; labels become soft; everything else
    is handed on. Masks are mixed too, as ids that are pasted. Boxes, keypoints and PIL images are refused. After
    ``eval()`` nothing is mixed, and labels keep their soft form.

    Args:
        op: the operator; it draws on the extents of the first image.
        num_classes: C, needed for labels that are ids; floats (N,) without it are numbers to regress on, and blend.
        labels_getter: "default" (the second input if it is a tensor, else its entry "labels", or one with "label" in
            its name), a function of the input, or None: there are no labels.
        smoothing: label smoothing in [0, 1).
        fill: what patches that erase paint into masks, often the ignore index; None leaves masks as they are there.
        on_blend: what a blend does to a mask, see ``Field``: "error", or "heavier": the larger share wins.
        seed: of the draws, 0 ≤ seed < 2**64; None takes a word of torch's generator for each call, see ``Draws``.

    Raises:
        MixError: if op is no operator or an argument is out of range; on a call, if there are no images or labels, or
            images, masks, labels and operator do not fit.

    Example:
        >>> transform = BatchMix(mx.CutMix(1.0) | mx.Cutout(4), num_classes=10, seed=7)
        >>> images, soft = transform(torch.rand(4, 3, 8, 8), torch.arange(4))
        >>> tuple(images.shape), tuple(soft.shape)
        ((4, 3, 8, 8), (4, 10))
    """

    def __init__(
        self,
        op: mx.Operator,
        *,
        num_classes: int | None = None,
        labels_getter: str | Callable[[Any], Any] | None = "default",
        smoothing: float = 0.0,
        fill: int | None = None,
        on_blend: str = "error",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.draws = Draws(owner, seed)
        self.labels = mx.Labels(num_classes, smoothing)
        masks = {ndim: mx.Field(axes, "discrete", fill, on_blend) for ndim, axes in _MASKS.items()}
        check_mixing(owner, op, masks, 0)
        if on_blend == "planes":
            raise MixValueError(f'{owner}(on_blend="planes"): expected "error" or "heavier"; planes are for mix_batch')
        if labels_getter not in ("default", None) and not callable(labels_getter):
            raise MixTypeError(f'{owner}: labels_getter={labels_getter!r}, expected "default", a function or None')
        self.op, self.num_classes, self.labels_getter, self.masks = op, num_classes, labels_getter, masks
        #: What was drawn for the last batch.
        self.plan: mx.Plan | mx.PlanSequence | None = None

    def extra_repr(self) -> str:
        """What was given."""
        return f"{self.op!r}, num_classes={self.num_classes}"

    def forward(self, *inputs: Any) -> Any:
        """The batch, mixed, in the structure it came in."""
        given = inputs if len(inputs) > 1 else inputs[0]
        # Most calls are (images, labels): nothing to take apart.
        flat, spec = (list(given), None) if _are_tensors(given) else tree_flatten(given)
        labels = self._labels_of(given)
        fields = self._fields(flat, labels)
        # Plain tensors of the same memory: a tv_tensor would take part in every step of the mixing.
        plain = [_bare(item) if i in fields else item for i, item in enumerate(flat)]
        drawn_for = mx.spec_of(plain, fields, epoch=self.draws.epoch, training=self.training)
        evidence = mx.evidence_of(plain, fields, self.op)
        plan = self.__dict__["plan"] = self.op.draw(self.draws.stream(), drawn_for, **evidence)  # it is no submodule
        mixed = [_like(new, old) for new, old in zip(mx.mix_batch(plain, plan, fields), flat, strict=True)]
        return tuple(mixed) if spec is None else tree_unflatten(mixed, spec)

    def _fields(self, flat: list[Any], labels: Any) -> dict[int, Any]:
        owner = type(self).__name__
        images: list[int] = []
        for i, item in enumerate(flat):
            if _is(item, "Image", "Video"):
                images.append(i)
            elif _is(item, "BoundingBoxes", "KeyPoints") or hasattr(item, "getbands"):
                raise MixTypeError(
                    f"{owner}: got {type(item).__name__}, expected batches of images and masks as tensors: boxes and "
                    "keypoints cannot be mixed here, PIL images have to be stacked first"
                )
        images = images or [i for i, x in enumerate(flat) if _is_plain(x) and x is not labels][:1]
        if not images:
            raise MixTypeError(f"{owner}: no image in the input, expected a tensor (N, C, H, W)")
        fields: dict[int, Any] = {}
        for i in images:
            if flat[i].ndim not in _IMAGES:
                raise MixValueError(
                    f"{owner}: an image of shape {tuple(flat[i].shape)}, expected a batch (N, C, H, W): use this after "
                    "samples are collated"
                )
            fields[i] = _IMAGES[flat[i].ndim]
        for i, item in enumerate(flat):
            if _is(item, "Mask"):
                if item.ndim not in self.masks:
                    raise MixValueError(f"{owner}: a mask of shape {tuple(item.shape)}, expected (N, H, W)")
                fields[i] = self.masks[item.ndim]
        if labels is not None:
            place = next((i for i, item in enumerate(flat) if item is labels), None)
            if place is None:
                raise MixValueError(f"{owner}: what labels_getter returned is not in the input: return it as it is")
            fields[place] = self.labels
        return fields

    def _labels_of(self, given: Any) -> Any:
        if self.labels_getter is None:
            return None
        labels = self.labels_getter(given) if callable(self.labels_getter) else _default_labels(given)
        if not isinstance(labels, torch.Tensor):
            raise MixTypeError(
                f"{type(self).__name__}: labels are {type(labels).__name__}, expected a tensor of ids (N,) or rows "
                "(N, C): pass labels_getter=, or None if there are none"
            )
        return labels


class MixUp(BatchMix):
    """``torchvision.transforms.v2.MixUp``: one λ a batch, partner the row before. uint8 images blend too.

    Args:
        alpha: concentration of the Beta, 0 or more.
        num_classes: see BatchMix, as for the others.

    Raises:
        MixError: if alpha is negative, NaN or infinite; else see BatchMix.

    Example:
        >>> images, soft = MixUp(alpha=0.2, num_classes=4)(torch.rand(4, 3, 8, 8), torch.arange(4))
        >>> bool(torch.allclose(soft.sum(1), torch.ones(4)))
        True
    """

    def __init__(self, *, alpha: float = 1.0, **options: Any) -> None:
        super().__init__(presets.torchvision_mixup(alpha), **options)
        self.alpha = float(alpha)


class CutMix(BatchMix):
    """``torchvision.transforms.v2.CutMix``: one box a batch, partner the row before; masks are pasted along.

    Args:
        alpha: concentration of the Beta, 0 or more.
        num_classes: see BatchMix, as for the others.

    Raises:
        MixError: if alpha is negative, NaN or infinite; else see BatchMix.

    Example:
        >>> images, soft = CutMix(num_classes=4)(torch.rand(4, 3, 8, 8), torch.arange(4))
        >>> bool(torch.allclose(soft.sum(1), torch.ones(4)))
        True
    """

    def __init__(self, *, alpha: float = 1.0, **options: Any) -> None:
        super().__init__(presets.torchvision_cutmix(alpha), **options)
        self.alpha = float(alpha)


def _default_labels(given: Any) -> Any:
    """Where torchvision looks for labels; None where there are none, an image alone among them."""
    if isinstance(given, (tuple, list)):
        given = given[1] if len(given) > 1 else None
        if not isinstance(given, Mapping):
            return given
    if not isinstance(given, Mapping):
        return None
    names = [name for name in given if isinstance(name, str)]
    exact = [name for name in names if name.lower() == "labels"]
    found = exact or [name for name in names if "label" in name.lower()]
    return given[found[0]] if found else None


def _is(item: Any, *names: str) -> bool:
    """Is it one of these tv_tensors? There are none where torchvision is not loaded; older versions lack some."""
    if _is_plain(item) or not isinstance(item, torch.Tensor):
        return False
    known = sys.modules.get("torchvision.tv_tensors")
    return known is not None and isinstance(item, tuple(getattr(known, n) for n in names if hasattr(known, n)))


def _is_plain(item: Any) -> bool:
    return type(item) in (torch.Tensor, torch.nn.Parameter)


def _are_tensors(given: Any) -> bool:
    """Is it a tuple of tensors?"""
    return type(given) is tuple and all(isinstance(item, torch.Tensor) for item in given)


def _bare(item: Any) -> Any:
    """A tensor without its subclass."""
    return item if type(item) is torch.Tensor or not isinstance(item, torch.Tensor) else item.as_subclass(torch.Tensor)


def _like(new: Any, old: Any) -> Any:
    """The mixed tensor as the kind of tv_tensor that it was; labels and all else as they are."""
    if not _is(old, "TVTensor"):
        return new
    wrapped: Any = sys.modules["torchvision.tv_tensors"].wrap(new, like=old)
    return wrapped
