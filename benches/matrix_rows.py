"""The whole matrix: every operator, dtype, order in memory, size and number of threads, beside one peer or two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import peers
import torch
from batches import LAYOUT, Setup, Step, Tensors, kept_tensor, off, pasted, stream
from harness import Contender, Ratio, Row, measure
from op_rows import ROUNDING

import mixops as mx

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DTYPES = ("float32", "bfloat16", "float16", "uint8")
#: Photographs, small images, large ones, a handful, and three sizes that fit no vector.
SIZES = ((64, 224), (256, 32), (32, 512), (8, 32), (64, 223), (64, 225), (256, 37))
TINY = ((4, 31),)
NOTE = "flip pairs; mixops, images only and in place leave out the draw and the soft targets"


def operator(kind: str, extent: int) -> mx.Operator:
    """What is drawn; whole batches get one λ or box, holes are of each row's own."""
    ops: dict[str, Callable[[], mx.Operator]] = {
        "mixup": lambda: mx.Mixup(pairing="flip"),
        "cutmix": lambda: mx.CutMix(pairing="flip"),
        "cutout": lambda: mx.Cutout(extent // 4),
        "erasing": mx.RandomErasing,
        "chain": lambda: mx.CutMix(pairing="flip") | mx.Cutout(extent // 4),
    }
    return ops[kind]()


def cells(setup: Setup, kind: str, dtype: str) -> Iterator[dict[str, Any]]:
    """Every order in memory, size and number of threads of one operator on one dtype."""
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for channels_last in (False, True):
            for size in TINY if setup.tiny else SIZES:
                place = f"{'nhwc' if channels_last else 'nchw'}-{size[0]}x{size[1]}-{threads}"
                make = _chain if kind == "chain" else _operation
                row = make(setup, kind, dtype, size, channels_last, threads, f"matrix-{kind}-{dtype}-{place}")
                yield measure(row, max(1, setup.rounds // 2))
    torch.set_num_threads(1)


def _operation(
    setup: Setup, kind: str, dtype: str, size: tuple[int, int], channels_last: bool, threads: int, name: str
) -> Row:
    op, draws, mixes = operator(kind, size[1]), setup.shares, kind in ("mixup", "cutmix")
    data = Tensors.of(setup, size, op, draws, dtype, channels_last=channels_last, threads=threads)
    plans = data.plans

    def erased(batch: Any, k: int) -> Any:
        plan = op.draw(stream(k), data.spec)
        return mx.mix(batch[0], plan, LAYOUT, out=batch[0], threads=threads)

    contenders = [
        data.contender("mixops", data.whole(in_place=True) if mixes else erased, ours=True),
        data.contender("mixops, images only", data.images(plans), ours=True),
        data.contender("mixops, images only, in place", data.images(plans, in_place=True), ours=True),
    ]
    theirs: dict[str, Step] = {}
    if kind == "cutmix" or (kind == "mixup" and dtype != "uint8"):
        theirs["timm, mode=batch"] = peers.timm(plans, data.classes)
    if kind == "erasing":
        theirs["timm RandomErasing"] = data.unpacked(peers.timm_erasing(plans, "const"))
    if kind == "cutout":
        theirs["torch, hole by hole"] = data.unpacked(partial(_holes, plans, 0))
    contenders += [data.contender(name, step) for name, step in theirs.items()]
    ratios = [Ratio(name, "mixops") for name in theirs]
    if kind == "mixup":
        contenders.append(data.contender("torch expression", data.unpacked(peers.expression(plans))))
        ratios.append(Ratio("torch expression", "mixops, images only"))
    inside = pasted(plans, 3, data.kept.itemsize) if kind != "mixup" else data.bytes
    return Row(
        name,
        f"{kind} of {dtype} in place, {_words(size, channels_last)}",
        data.batches,
        draws,
        contenders,
        ratios,
        inside * (2 if mixes else 1),
        data.bytes,
        threads=threads,
        tolerance=ROUNDING[dtype],
        notes=(NOTE,),
    )


def _holes(plans: list[mx.Plan], patch: int, images: torch.Tensor, k: int) -> torch.Tensor:
    for i in range(len(images)):
        top, bottom, left, right = peers.box_of(plans[k], i, patch)
        images[i, :, top:bottom, left:right] = 0
    return images


def _chain(
    setup: Setup, kind: str, dtype: str, size: tuple[int, int], channels_last: bool, threads: int, name: str
) -> Row:
    """uint8 to a mixed, erased batch of a dtype, normalised where that is a float; the order in memory stays."""
    op = operator(kind, size[1])
    data = Tensors.of(setup, size, op, setup.shares, "uint8", channels_last=channels_last, threads=threads)
    plans, floats = data.plans, dtype != "uint8"
    shape = (size[0], size[1], size[1], 3) if channels_last else (size[0], 3, size[1], size[1])
    kept = kept_tensor(shape, dtype)
    kept = kept.permute(0, 3, 1, 2) if channels_last else kept
    order = "b h w c" if channels_last else LAYOUT
    tail = mx.Output(order, dtype, mean=MEAN, std=STD) if floats else mx.Output(order, dtype)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (MEAN, STD))
    fill = "mean" if floats else 0

    def memory(x: torch.Tensor) -> torch.Tensor:
        """A batch with its axes as they lie in memory."""
        return x.permute(0, 2, 3, 1) if channels_last else x

    def mixed(x: torch.Tensor, plan: Any, backend: str | None, out: torch.Tensor | None) -> Any:
        return mx.mix(memory(x), plan, order, fill=fill, to=tail, out=out, threads=threads, backend=backend)

    def ours(batch: Any, k: int) -> Any:
        plan = op.draw(stream(k), data.spec)
        return mixed(batch[0], plan, None, memory(kept)), mx.soft_targets(batch[1], plan, data.classes)

    def by_hand(batch: Any, k: int) -> Any:
        x, labels = batch
        x = x.float().div_(255).sub_(mean).div_(std) if floats else x.clone()
        (top, bottom, left, right), lam = peers.box_of(plans[k]), peers.own_share(plans[k])
        x[:, :, top:bottom, left:right] = x.flip(0)[:, :, top:bottom, left:right]
        y = torch.nn.functional.one_hot(labels, data.classes).float()
        return memory(_holes(plans, 1, x, k).to(kept.dtype)), lam * y + (1 - lam) * y.flip(0)

    def check(step: Step) -> float:
        k, (images, labels) = len(plans) - 1, data.batches[0]
        result, targets = step((images.clone(), labels), k)
        expected = mixed(images, plans[k], "torch", None)
        return max(off(result, expected), off(targets, mx.soft_targets(labels, plans[k], data.classes)))

    return Row(
        name,
        f"uint8 to CutMix, Cutout{', normalised' if floats else ''} {dtype}, {_words(size, channels_last)}",
        data.batches,
        setup.shares,
        [
            Contender("mixops", ours, True, partial(check, ours)),
            Contender("torch, op by op", by_hand, False, partial(check, by_hand)),
        ],
        [Ratio("torch, op by op", "mixops"), Ratio("mixops", "floor")],
        float(data.bytes + kept.nbytes),
        kept.nbytes,
        threads=threads,
        tolerance=ROUNDING[dtype],
        notes=("draw and soft targets included",),
    )


def _words(size: tuple[int, int], channels_last: bool) -> str:
    return f"{size[0]} images of {size[1]} pixels, {'NHWC' if channels_last else 'NCHW'} in memory"


def _cells(kind: str, dtype: str) -> Callable[[Setup], Iterator[dict[str, Any]]]:
    return lambda setup: cells(setup, kind, dtype)


ROWS: dict[str, Callable[[Setup], Iterator[dict[str, Any]]]] = {
    f"matrix-{kind}-{dtype}": _cells(kind, dtype)
    for kind in ("mixup", "cutmix", "cutout", "erasing", "chain")
    for dtype in DTYPES
}
HEADLINE: tuple[str, ...] = ()
