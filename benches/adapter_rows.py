"""What a drop-in adds to a batch over the core that it calls: draw, mix and targets by hand, beside the same in it.

    python benches/adapter_rows.py [--rounds N] [--aim N] [--out FILE]

Both sides draw from the same streams and write to the same kind of memory. The batch is small, so that the mixing does
not hide the rest. Exit status 1 if a drop-in adds more microseconds than the aim.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import quantiles
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import from_checkout  # noqa: F401  # this checkout's mixops, whatever is installed
import torch
from machine import environment, load_average, ran
from peers import torchvision_schemas
from report import write_text
from step_command import parsed, typed

torchvision_schemas()  # Lightning imports torchvision
from mixops.pipelines.collate import draw_plan  # noqa: E402
from mixops.pipelines.drop_in import fastai_, huggingface, lightning_  # noqa: E402
from mixops.pipelines.drop_in.draws import Draws  # noqa: E402
from mixops.pipelines.drop_in.timm_ import FastCollateMixup, Mixup  # noqa: E402
from mixops.pipelines.drop_in.torchvision_ import BatchMix  # noqa: E402
from mixops.pipelines.keys import BatchKey  # noqa: E402

import mixops as mx  # noqa: E402

OUT = Path(__file__).parent / "results" / "adapter_rows.json"
COUNTS = ("rounds", "aim")
#: Calls of a drop-in, or of its core, that are timed as one.
CALLS, TINY_CALLS = 100, 2
ROWS, CLASSES, LAYOUT = 16, 10, "b c h w"
X, Y = torch.rand(ROWS, 3, 8, 8), torch.arange(ROWS) % CLASSES
METHOD = {
    "batch": f"{tuple(X.shape)} float32 on the CPU, {CLASSES} classes, one thread",
    "drop-in": f"microseconds of a call, the mean of {CALLS}: our class, called as the library's is",
    "core": "microseconds of the same by hand: the draw from a keyed stream, mix or mix_batch, the targets",
    "adds": "median of the differences within a round, in which both take turns, and their quartiles",
}
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


def row_of(name: str, rounds: int, calls: int, aim: int) -> dict[str, Any]:
    """What one drop-in adds."""
    sides = {"dropin": PAIRS[name][0](), "core": PAIRS[name][1]()}
    for step in sides.values():
        timed(step, max(calls // 5, 1))
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for i in range(rounds):
        for side in sorted(sides, reverse=bool(i % 2)):
            taken[side].append(timed(sides[side], calls))
    taken["adds"] = [a - b for a, b in zip(taken["dropin"], taken["core"], strict=True)]
    told = {what: dict(zip(("q1", "median", "q3"), _quartiles(times), strict=True)) for what, times in taken.items()}
    return {"name": name, **told, "met": told["adds"]["median"] <= aim}


def _quartiles(times: list[float]) -> list[float]:
    return [round(t, 2) for t in (quantiles(times, method="inclusive") if len(times) > 1 else times * 3)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Time all of them, write JSON and the page; 1 if one misses the aim."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31, help="times each is timed (default %(default)s)")
    parser.add_argument("--aim", type=int, default=50, help="most microseconds that one may add (default %(default)s)")
    given = parsed(parser, arguments, COUNTS, OUT)
    threads, started, clock = torch.get_num_threads(), load_average(), time.monotonic()
    torch.set_num_threads(1)
    try:
        rows = [row_of(name, given.rounds, TINY_CALLS if given.tiny else CALLS, given.aim) for name in PAIRS]
    finally:
        torch.set_num_threads(threads)
    report = {
        "benchmark": "adapter_rows",
        "command": typed("adapter_rows.py", given, COUNTS),
        "method": METHOD,
        "environment": environment([1]),
        "load": {"start": started, "end": load_average()},
        "seconds": time.monotonic() - clock,
        "aim": given.aim,
        "rows": rows,
    }
    write_text(json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n", given.out)
    page = markdown(report)
    write_text(page, given.out.with_suffix(".md"))
    print(f"{page}\n{report['seconds']:.0f} s; written to {given.out}, {given.out.with_suffix('.md')}")
    return int(not given.tiny and not all(row["met"] for row in rows))


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        "# What a drop-in adds to a batch",
        "",
        f"{ran(report)}.",
        "",
        *(f"- {name}: {what}" for name, what in report["method"].items()),
        "",
        f"| drop-in | drop-in, µs | core, µs | adds, µs | quartiles | aim {report['aim']} |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for row in report["rows"]:
        whole, core, adds = (row[what] for what in ("dropin", "core", "adds"))
        told = "met" if row["met"] else "not met"
        lines.append(
            f"| {row['name']} | {whole['median']:.1f} | {core['median']:.1f} | {adds['median']:.1f} | "
            f"{adds['q1']:.1f} – {adds['q3']:.1f} | {told} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    raise SystemExit(main())
