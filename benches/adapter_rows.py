"""What a drop-in adds to a batch over the core that it calls: draw, mix and targets by hand, beside the same in it.

``python benches/adapter_rows.py`` prints a line for each; ``--aim 50`` ends with 1 if one adds more microseconds.
Both sides draw from the same streams and write to the same kind of memory. They take turns, and what is compared is
the median of the differences within a round: the batch is small, so that the mixing does not hide the rest.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import from_checkout  # noqa: F401  # this checkout's mixops, whatever is installed
import torch
from peers import torchvision_schemas

torchvision_schemas()  # Lightning imports torchvision
from mixops.pipelines.collate import draw_plan  # noqa: E402
from mixops.pipelines.drop_in import fastai_, huggingface, lightning_  # noqa: E402
from mixops.pipelines.drop_in.draws import Draws  # noqa: E402
from mixops.pipelines.drop_in.timm_ import FastCollateMixup, Mixup  # noqa: E402
from mixops.pipelines.drop_in.torchvision_ import BatchMix  # noqa: E402
from mixops.pipelines.keys import BatchKey  # noqa: E402

import mixops as mx  # noqa: E402

ROWS, CLASSES, LAYOUT = 16, 10, "b c h w"
X, Y = torch.rand(ROWS, 3, 8, 8), torch.arange(ROWS) % CLASSES
OP = mx.CutMix(1.0)
FIELDS = {0: mx.Field(LAYOUT), 1: mx.Labels(CLASSES)}
IN_PAIRS = {0: FIELDS[0], 1: mx.Labels(form="pair")}
KEY = BatchKey(0, 0, 0)


def core(op: mx.Operator = OP, fields: Any = FIELDS) -> Callable[[], Any]:
    """Draw by key, mix, soft targets: what every drop-in stands on."""

    def step() -> Any:
        return mx.mix_batch([X, Y], draw_plan([X, Y], op, fields, 7, KEY, training=True), fields)

    return step


def core_of_timm(rows: Any = X) -> Callable[[], Any]:
    """The same with timm's operator, in place where there is one tensor."""
    op, draws = mx.presets.timm(1.0), Draws("core", 7)
    out = X.clone() if rows is X else None

    def step() -> Any:
        plan = op.draw(draws.stream(), mx.Spec.like(rows, LAYOUT))
        soft = mx.soft_targets(Y, plan, CLASSES, 0.1)
        return mx.mix(rows if out is None else out, plan, LAYOUT, out=out), soft

    return step


def of_timm() -> Callable[[], Any]:
    mixup_fn, x = Mixup(1.0, num_classes=CLASSES, seed=7), X.clone()
    return lambda: mixup_fn(x, Y)


def of_fast_collate() -> Callable[[], Any]:
    collate, samples = FastCollateMixup(1.0, num_classes=CLASSES, seed=7), list(zip(X, Y.tolist(), strict=True))
    return lambda: collate(samples)


def core_of_fast_collate() -> Callable[[], Any]:
    """The samples' labels become one tensor too."""
    step, labels, collate = core_of_timm(list(X)), Y.tolist(), torch.utils.data.default_collate
    return lambda: (step(), collate(labels))


def of_torchvision() -> Callable[[], Any]:
    transform = BatchMix(OP, num_classes=CLASSES, seed=7)
    return lambda: transform(X, Y)


def of_lightning() -> Callable[[], Any]:
    callback, trainer = lightning_.BatchMixing(OP, FIELDS, seed=7), SimpleNamespace(current_epoch=0, global_rank=0)

    def step() -> None:
        batch = [X, Y]
        callback.on_train_batch_start(trainer, None, batch, 0)
        callback.on_train_batch_end(trainer, None, None, batch, 0)

    return step


def of_the_trainer() -> Callable[[], Any]:
    mixing, state = huggingface.ImageMixing(OP, seed=7), SimpleNamespace(global_step=0, epoch=0.0)
    args = SimpleNamespace(gradient_accumulation_steps=1, process_index=0)
    model, logits = SimpleNamespace(training=True), torch.zeros(ROWS, CLASSES)

    def step() -> Any:
        mixing.on_step_begin(args, state, None)
        mixing._before(model, (), {"pixel_values": X})
        return mixing.loss({"logits": logits}, Y)

    return step


def core_of_the_trainer() -> Callable[[], Any]:
    """With the loss, which is one launch of torch's."""
    mixed, logits = core(), torch.zeros(ROWS, CLASSES)
    return lambda: torch.nn.functional.cross_entropy(logits, mixed()[1])


def of_fastai() -> Callable[[], Any]:
    mixing, learn = fastai_.BatchMixing(OP, seed=7), SimpleNamespace(epoch=0, iter=0)
    mixing.learn = learn

    def step() -> Any:
        learn.xb, learn.yb = (X,), (Y,)
        mixing.before_batch()
        return mx.pair_targets(Y, mixing.plan)

    return step


PAIRS: dict[str, tuple[Callable[[], Callable[[], Any]], Callable[[], Callable[[], Any]]]] = {
    "timm Mixup": (of_timm, core_of_timm),
    "timm FastCollateMixup": (of_fast_collate, core_of_fast_collate),
    "torchvision BatchMix": (of_torchvision, core),
    "Lightning BatchMixing": (of_lightning, core),
    "Trainer ImageMixing": (of_the_trainer, core_of_the_trainer),
    "fastai BatchMixing": (of_fastai, lambda: core(fields=IN_PAIRS)),
}


def timed(step: Callable[[], Any], calls: int) -> float:
    """Microseconds a call."""
    begin = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - begin) / calls * 1e6


def main() -> int:
    """Time all of them; 1 if one misses the aim."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--aim", type=float, help="most microseconds that a drop-in may add")
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    torch.set_num_threads(1)
    missed = 0
    print(f"a batch of {tuple(X.shape)}, one thread, microseconds, median of {options.rounds} rounds")
    for name, (make, make_core) in PAIRS.items():
        adapter, plain = make(), make_core()
        for step in (adapter, plain):
            timed(step, 20)
        rounds = [(timed(adapter, 100), timed(plain, 100)) for _ in range(options.rounds)]
        added = median(a - b for a, b in rounds)
        missed += options.aim is not None and added > options.aim
        print(
            f"{name:24}{median(a for a, _ in rounds):8.1f}, core {median(b for _, b in rounds):8.1f}, adds {added:6.1f}"
        )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
