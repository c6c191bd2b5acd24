"""The peers of the whole chain, each as its users write it, but made to draw the λ and the boxes that we drew.

Every function takes the draws and returns a step ``(batch, k) -> (images, targets)`` or ``-> images``. What a peer
would spend on its own draws is not counted, in its favour. Whoever pairs by a rule of its own keeps it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import peers
import torch
from batches import Step
from chain_work import MEAN, SMOOTHING, STD, Batch, Draw

import mixops as mx


@cache
def _constants() -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (MEAN, STD))
    return mean, std


def _soft(labels: torch.Tensor, partner: torch.Tensor, lam: float, classes: int, smoothing: float) -> torch.Tensor:
    y = torch.nn.functional.one_hot(labels, classes).float().mul_(1 - smoothing).add_(smoothing / classes)
    return lam * y + (1 - lam) * y[partner]


# -- timm --------------------------------------------------------------------------------------------------------------


def timm(plans: Sequence[mx.Plan], classes: int, dtype: torch.dtype, form: str, mode: str = "batch") -> Step:
    """timm's FastCollateMixup, then its PrefetchLoader on the CPU: cast, normalise, RandomErasing.

    Args:
        plans: with the partner that timm takes, the row from the end.
        classes: of the labels.
        dtype: of the result; timm normalises in it.
        form: "views" (c h w views of h w c memory, as its ToNumpy leaves them) or "planes" (contiguous).
        mode: "batch" or "elem".
    """
    loading = peers.timm_loader()
    collate = peers.timm_collate(plans, classes, SMOOTHING, mode)
    loader = loading.PrefetchLoader([], MEAN, STD, device=torch.device("cpu"), img_dtype=dtype)
    erase = peers.timm_erasing(plans, "const", patch=1)

    def step(batch: Batch, k: int) -> Any:
        loader.loader = [collate(getattr(batch, form), k)]
        loader.random_erasing = lambda images: erase(images, k)
        return next(iter(loader))

    return step


# -- torchvision -------------------------------------------------------------------------------------------------------


def torchvision(draws: Sequence[Draw], classes: int) -> Step:
    """torchvision v2 as its reference training script: each sample normalised and erased, collated, then mixed.

    The targets are not smoothed: torchvision leaves that to the loss.
    """
    v2 = peers.torchvision_v2()
    eraser = v2.RandomErasing(p=1.0)
    sample = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean=MEAN, std=STD), eraser])
    mixers = [v2.MixUp(alpha=0.8, num_classes=classes), v2.CutMix(alpha=1.0, num_classes=classes)]
    choice = v2.RandomChoice(mixers)
    zero = torch.zeros(1, 1, 1)
    holes = [[{"i": t, "j": le, "h": b - t, "w": r - le, "v": zero} for t, b, le, r in d.holes] for d in draws]

    def give(k: int) -> None:
        draw, given = draws[k], iter(holes[k])
        eraser.make_params = lambda flat: next(given)
        choice.p = [1.0, 0.0] if draw.cut is None else [0.0, 1.0]
        mixers[0].make_params = lambda flat: {"lam": draw.lam}
        if draw.cut is not None:
            top, bottom, left, right = draw.cut
            mixers[1].make_params = lambda flat: {"box": (left, top, right, bottom), "lam_adjusted": draw.lam}

    def step(batch: Batch, k: int) -> Any:
        give(k)
        fetched = [(sample(image), label) for image, label in batch.samples]
        return choice(*torch.utils.data.default_collate(fetched))

    return step


# -- kornia ------------------------------------------------------------------------------------------------------------


def kornia(draws: Sequence[Draw]) -> Step:
    """kornia on a collated float batch: RandomMixUpV2 or RandomCutMixV2, then Normalize and RandomErasing in sequence.

    Its AugmentationSequential takes no mixing that changes class labels. Its targets are (label, label of the partner,
    share) for a loss of its own.
    """
    lib = peers.kornia_augmentation()
    mixers = {
        False: lib.RandomMixUpV2(p=1.0, data_keys=["input", "class"]),
        True: lib.RandomCutMixV2(p=1.0, data_keys=["input", "class"], use_correct_lambda=True),
    }
    eraser = lib.RandomErasing(p=1.0)
    rest = lib.AugmentationSequential(lib.Normalize(torch.tensor(MEAN), torch.tensor(STD), p=1.0), eraser)
    given = [(_kornia_mix(draw), _kornia_holes(draw)) for draw in draws]

    def step(batch: Batch, k: int) -> Any:
        cuts = draws[k].cut is not None
        # Copies: kornia adds entries of its own.
        mixers[cuts].generate_parameters = lambda shape: dict(given[k][0])
        eraser.generate_parameters = lambda shape: dict(given[k][1])
        images, labels = torch.utils.data.default_collate(batch.samples)
        mixed, _ = mixers[cuts](images.permute(0, 3, 1, 2).float() / 255, labels)
        return rest(mixed)

    return step


def _kornia_mix(draw: Draw) -> dict[str, torch.Tensor]:
    n, partner = len(draw.partner), torch.from_numpy(draw.partner)
    if draw.cut is None:
        return {"mixup_pairs": partner, "mixup_lambdas": torch.full((n,), 1 - draw.lam)}
    top, bottom, left, right = draw.cut
    height, width = draw.plan.shape
    # Corners, the last pixel included.
    corners = [[left, top], [right - 1, top], [right - 1, bottom - 1], [left, bottom - 1]]
    return {
        "mix_pairs": partner[None],
        "crop_src": torch.tensor(corners, dtype=torch.float32).expand(1, n, 4, 2),
        "image_shape": torch.tensor([height, width]),
    }


def _kornia_holes(draw: Draw) -> dict[str, torch.Tensor]:
    top, bottom, left, right = torch.tensor(draw.holes, dtype=torch.float32).unbind(1)
    return {
        "widths": right - left,
        "heights": bottom - top,
        "xs": left,
        "ys": top,
        "values": torch.zeros(len(draw.holes)),
    }


# -- albumentations ----------------------------------------------------------------------------------------------------


def albumentations(draws: Sequence[Draw], classes: int) -> Step:
    """albumentations' Normalize, Erasing and ToTensorV2 for each sample, then collated and mixed by lines of torch.

    It mixes nothing between the samples of a batch itself.
    """
    lib = _albumentations()
    eraser = lib.Erasing(p=1.0)
    sample = lib.Compose([lib.Normalize(mean=MEAN, std=STD), eraser, lib.pytorch.ToTensorV2()])
    partners = [torch.from_numpy(draw.partner) for draw in draws]
    holes = [[np.array([[le, t, r, b]], np.int32) for t, b, le, r in draw.holes] for draw in draws]

    def step(batch: Batch, k: int) -> Any:
        draw, partner, given = draws[k], partners[k], iter(holes[k])
        eraser.get_params_dependent_on_data = lambda params, data: {"holes": next(given), "seed": 0}
        fetched = [(sample(image=image)["image"], label) for image, label in batch.samples]
        x, labels = torch.utils.data.default_collate(fetched)
        if draw.cut is None:
            x = draw.lam * x + (1 - draw.lam) * x[partner]
        else:
            top, bottom, left, right = draw.cut
            x[:, :, top:bottom, left:right] = x[partner, :, top:bottom, left:right]
        return x, _soft(labels, partner, draw.lam, classes, SMOOTHING)

    return step


@cache
def _albumentations() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import albumentations as lib  # type: ignore[import-untyped]  # no stubs of its own, nor any of its modules
        import albumentations.pytorch  # type: ignore[import-untyped]

    return lib


# -- torch and NumPy by hand -------------------------------------------------------------------------------------------


def torch_eager(draws: Sequence[Draw], classes: int, dtype: torch.dtype) -> Step:
    """What a careful person writes in torch, from the list of samples."""
    partners = [torch.from_numpy(draw.partner) for draw in draws]

    def step(batch: Batch, k: int) -> Any:
        mean, std = _constants()
        draw, partner = draws[k], partners[k]
        stacked = torch.stack([torch.from_numpy(image) for image, _ in batch.samples])
        labels = torch.tensor([label for _, label in batch.samples])
        x = stacked.permute(0, 3, 1, 2).contiguous().float().div_(255).sub_(mean).div_(std)
        if draw.cut is None:
            x = torch.lerp(x, x[partner], 1 - draw.lam)
        else:
            top, bottom, left, right = draw.cut
            x[:, :, top:bottom, left:right] = x[partner, :, top:bottom, left:right]
        for i, (top, bottom, left, right) in enumerate(draw.holes):
            x[i, :, top:bottom, left:right] = 0
        return x.to(dtype), _soft(labels, partner, draw.lam, classes, SMOOTHING)

    return step


def numpy_by_hand(draws: Sequence[Draw], classes: int) -> Step:
    """What a careful person writes in NumPy, from the list of samples: planes first, then everything in place."""
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (MEAN, STD))
    scale, shift = 1 / (255 * std), mean / std
    table = np.eye(classes, dtype=np.float32) * (1 - SMOOTHING) + np.float32(SMOOTHING / classes)

    def step(batch: Batch, k: int) -> Any:
        draw = draws[k]
        x = np.stack([image.transpose(2, 0, 1) for image, _ in batch.samples]).astype(np.float32)
        x *= scale
        x -= shift
        if draw.cut is None:
            other = x[draw.partner]
            other *= 1 - draw.lam
            x *= draw.lam
            x += other
        else:
            top, bottom, left, right = draw.cut
            x[:, :, top:bottom, left:right] = x[draw.partner, :, top:bottom, left:right]
        for i, (top, bottom, left, right) in enumerate(draw.holes):
            x[i, :, top:bottom, left:right] = 0
        y = table[[label for _, label in batch.samples]]
        return x, draw.lam * y + (1 - draw.lam) * y[draw.partner]

    return step


# -- torch.compile -----------------------------------------------------------------------------------------------------


class Compiled:
    """The chain through torch.compile: one graph for Mixup and CutMix, with masks that are made outside.

    Of the forms that were tried this is the fastest: comparisons inside the kernel, ``torch.where``, and a uint8 NHWC
    source each keep the generated code out of vectors, at up to 18 times the cost on the machine where it was written.
    """

    def __init__(self, draws: Sequence[Draw], classes: int, dtype: torch.dtype) -> None:
        self.draws, self.classes, self.dtype = draws, classes, dtype
        self.partners = [torch.from_numpy(draw.partner) for draw in draws]
        self.masks = [_masks(draw) for draw in draws]
        mean, std = _constants()
        self.scale, self.shift = 1 / (255 * std), mean / std

    def _formula(self, x: torch.Tensor, donor: torch.Tensor, *masks: torch.Tensor) -> torch.Tensor:
        region_rows, region_columns, hole_rows, hole_columns = masks
        own, keep = x.float(), 1 - hole_rows[:, None, :, None] * hole_columns[:, None, None, :]
        mixed = own + (region_rows[:, None] * region_columns) * (donor.float() - own)
        return (mixed * self.scale - self.shift) * keep

    def _targets(self, labels: torch.Tensor, k: int) -> torch.Tensor:
        return _soft(labels, self.partners[k], self.draws[k].lam, self.classes, SMOOTHING)

    def in_one_graph(self) -> Step:
        """As users write it: stacked, then all in one graph, a fresh output."""

        def whole(images: torch.Tensor, partner: torch.Tensor, *masks: torch.Tensor) -> torch.Tensor:
            x = images.permute(0, 3, 1, 2)
            return self._formula(x, x[partner], *masks).to(self.dtype).contiguous()

        fused = peers.compiled(whole)

        def step(batch: Batch, k: int) -> Any:
            stacked = torch.stack([torch.from_numpy(image) for image, _ in batch.samples])
            labels = torch.tensor([label for _, label in batch.samples])
            return fused(stacked, self.partners[k], *self.masks[k]), self._targets(labels, k)

        return step

    def transposed_first(self, planes: torch.Tensor) -> Step:
        """Stacked as planes by torch, then one graph, a fresh output."""

        def whole(x: torch.Tensor, partner: torch.Tensor, *masks: torch.Tensor) -> torch.Tensor:
            return self._formula(x, x[partner], *masks).to(self.dtype)

        fused = peers.compiled(whole)

        def step(batch: Batch, k: int) -> Any:
            torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in batch.samples], out=planes)
            labels = torch.tensor([label for _, label in batch.samples])
            return fused(planes, self.partners[k], *self.masks[k]), self._targets(labels, k)

        return step

    def kept(self, out: torch.Tensor, planes: torch.Tensor) -> Step:
        """The strongest: images only, transposed into kept memory, then one graph into ``out``."""
        fused = self._into()

        def step(batch: Batch, k: int) -> Any:
            planes.copy_(batch.tensor.permute(0, 3, 1, 2))
            return fused(out, planes, self.partners[k], *self.masks[k])

        return step

    def from_planes(self, out: torch.Tensor) -> Step:
        """From a uint8 NCHW batch: images only, one graph into ``out``."""
        fused = self._into()
        return lambda batch, k: fused(out, torch.from_numpy(batch.planar), self.partners[k], *self.masks[k])

    def gathered(self, data: torch.Tensor, labels: torch.Tensor, out: torch.Tensor, planes: torch.Tensor) -> Step:
        """By index: rows of a data set gathered and transposed into kept memory, then one graph into ``out``."""
        fused, taken = self._into(), torch.ones_like(planes.permute(0, 2, 3, 1), memory_format=torch.contiguous_format)

        def step(batch: Batch, k: int) -> Any:
            torch.index_select(data, 0, batch.index, out=taken)
            planes.copy_(taken.permute(0, 3, 1, 2))
            return fused(out, planes, self.partners[k], *self.masks[k]), self._targets(labels[batch.index], k)

        return step

    def channels_last(self, out: torch.Tensor) -> Step:
        """NHWC in, NHWC out: images only, one graph into ``out``."""
        scale, shift = self.scale.view(-1), self.shift.view(-1)

        def into(out: torch.Tensor, x: torch.Tensor, partner: torch.Tensor, *masks: torch.Tensor) -> torch.Tensor:
            region_rows, region_columns, hole_rows, hole_columns = masks
            own, keep = x.float(), 1 - hole_rows[:, :, None, None] * hole_columns[:, None, :, None]
            mixed = own + (region_rows[:, None] * region_columns)[..., None] * (x[partner].float() - own)
            return out.copy_((mixed * scale - shift) * keep)

        fused = peers.compiled(into)
        return lambda batch, k: fused(out, batch.tensor, self.partners[k], *self.masks[k])

    def _into(self) -> Callable[..., torch.Tensor]:
        def into(out: torch.Tensor, x: torch.Tensor, partner: torch.Tensor, *masks: torch.Tensor) -> torch.Tensor:
            return out.copy_(self._formula(x, x[partner], *masks))

        return peers.compiled(into)


def _masks(draw: Draw) -> tuple[torch.Tensor, ...]:
    """Rows (times the donor's share) and columns of the region that mixes, then of each row's hole, as floats."""
    height, width = draw.plan.shape
    region = torch.tensor(draw.cut or (0, height, 0, width))
    share = 1.0 if draw.cut is not None else 1 - draw.lam
    rows, columns = (edge.float() for edge in peers.edges(region, height, width))
    hole_rows, hole_columns = (edge.float() for edge in peers.edges(torch.tensor(draw.holes), height, width))
    return rows * share, columns, hole_rows, hole_columns


# -- Keras -------------------------------------------------------------------------------------------------------------


def keras(draws: Sequence[Draw], classes: int) -> Step:
    """Keras' MixUp or CutMix, RandomErasing, Rescaling and Normalization on torch, channels last, as Keras has it.

    The targets are not smoothed: Keras leaves that to the loss.
    """
    lib = _keras()
    layers, ops = lib.layers, lib.ops
    mixers = {False: layers.MixUp(alpha=0.8), True: layers.CutMix()}
    eraser = layers.RandomErasing(factor=1.0, fill_value=[255 * m for m in MEAN], value_range=(0, 255))
    rescale = layers.Rescaling(1 / 255)
    normalise = layers.Normalization(mean=list(MEAN), variance=[s * s for s in STD])
    partners = [torch.from_numpy(draw.partner) for draw in draws]

    def mixing(draw: Draw, partner: torch.Tensor, shape: tuple[int, ...]) -> dict[str, Any]:
        found = {"permutation_order": partner, "mix_weight": torch.full((shape[0],), draw.lam)}
        if draw.cut is not None:
            top, bottom, left, right = torch.tensor(draw.cut, dtype=torch.float32).expand(shape[0], 4).unbind(1)
            found["batch_masks"] = mixers[True]._generate_batch_mask(shape, (left, right, top, bottom))[0]
        return found

    def erasing(draw: Draw, images: torch.Tensor) -> dict[str, Any]:
        shape = tuple(images.shape)
        top, bottom, left, right = torch.tensor(draw.holes, dtype=torch.float32).unbind(1)
        return {
            "apply_erasing": torch.ones(shape[0], dtype=torch.bool),
            "batch_masks": eraser._generate_batch_mask(shape, (left, right, top, bottom)),
            "fill_value": eraser._get_fill_value(images, shape, None),
        }

    def step(batch: Batch, k: int) -> Any:
        draw, mixer = draws[k], mixers[draws[k].cut is not None]
        mixer.get_random_transformation = lambda data, **options: mixing(draw, partners[k], tuple(data["images"].shape))
        eraser.get_random_transformation = lambda data, **options: erasing(draw, data["images"])
        images, labels = torch.utils.data.default_collate(batch.samples)
        mixed = mixer({"images": images, "labels": ops.one_hot(labels, classes)}, training=True)
        mixed = eraser(mixed, training=True)
        return normalise(rescale(mixed["images"])), mixed["labels"]

    return step


@cache
def _keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras as lib  # type: ignore[import-untyped]  # has no stubs of its own

    return lib


# -- ffcv's semantics --------------------------------------------------------------------------------------------------


def ffcv_semantics(draws: Sequence[Draw], out: np.ndarray) -> Step:
    """What ffcv's ImageMixup, Cutout and NormalizeImage do, written anew for Numba; ffcv itself could not be installed.

    As there: uint8 NHWC in kept memory, one row before as the partner, blends cut off to uint8, holes painted before
    normalising, a table from byte to float, NHWC out; without the temporary arrays that its blend makes. It has no
    CutMix: the paste is ours, in its style. Images only.
    """
    mix, paste, paint, look_up = _ffcv_kernels()
    table = ((np.arange(256)[:, None] / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
    mean = np.rint(255 * np.array(MEAN)).astype(np.uint8)
    kept = np.ones(out.shape, np.uint8)
    holes = [np.array(draw.holes) for draw in draws]

    def step(batch: Batch, k: int) -> Any:
        draw = draws[k]
        if draw.cut is None:
            mix(batch.array, kept, draw.lam)
        else:
            paste(batch.array, kept, *draw.cut)
        paint(kept, holes[k], mean)
        look_up(kept, out, table)
        return out

    return step


@cache
def _ffcv_kernels() -> tuple[Callable[..., None], ...]:
    from numba import njit

    @njit(nogil=True)
    def mix(images: np.ndarray, out: np.ndarray, lam: float) -> None:
        n, height, width, channels = images.shape
        for i in range(n):
            for row in range(height):
                for column in range(width):
                    for c in range(channels):
                        blend = lam * images[i, row, column, c] + (1 - lam) * images[i - 1, row, column, c]
                        out[i, row, column, c] = np.uint8(blend)

    @njit(nogil=True)
    def paste(images: np.ndarray, out: np.ndarray, top: int, bottom: int, left: int, right: int) -> None:
        n, height, width, channels = images.shape
        for i in range(n):
            for row in range(height):
                inside = top <= row < bottom
                for column in range(width):
                    j = i - 1 if inside and left <= column < right else i
                    for c in range(channels):
                        out[i, row, column, c] = images[j, row, column, c]

    @njit(nogil=True)
    def paint(images: np.ndarray, holes: np.ndarray, fill: np.ndarray) -> None:
        for i in range(images.shape[0]):
            for row in range(holes[i, 0], holes[i, 1]):
                for column in range(holes[i, 2], holes[i, 3]):
                    for c in range(images.shape[3]):
                        images[i, row, column, c] = fill[c]

    @njit(nogil=True)
    def look_up(images: np.ndarray, out: np.ndarray, table: np.ndarray) -> None:
        n, height, width, channels = images.shape
        for i in range(n):
            for row in range(height):
                for column in range(width):
                    for c in range(channels):
                        out[i, row, column, c] = table[images[i, row, column, c], c]

    return mix, paste, paint, look_up
