"""What mixing costs of a training step: nothing that can be told? Steps with and without, in turns, in one process."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from evidence import Claim, Measure
from grid import Case
from image_nets import PreActResNet
from image_runs import ZHANG
from mixops.pipelines import ArrayLoader, KeyedBatchSampler, MixCollator, arrays, keyed
from study import Study
from torch import Tensor, nn
from torch.utils.data import DataLoader

import mixops as mx

OPERATORS: dict[str, mx.Operator | None] = {"none": None, "Mixup": mx.Mixup(1.0), "CutMix": mx.CutMix(1.0)}
#: What a loader is given for no mixing: the same loader, and every draw the identity.
IDENTITY = mx.Mixup(0.0)
FIELDS = {"image": mx.Field("b c h w"), "label": mx.Labels(10)}
TO = {"image": mx.Output("b c h w", "float32", mean=0.5, std=0.25)}
SETTINGS: dict[str, Any] = {"files": [], "side": 32, "batch": 64, "width": 16, "turns": 30, "steps": 2}
#: Steps before the first that is timed.
WARM_UP = 2
#: A step with mixing may take so much of a plain one more.
ALLOWED = 0.05
#: Batches: (images, logits -> loss).
Batches = Generator[tuple[Tensor, Callable[[Tensor], Tensor]], None, None]


def cases(profile: str) -> dict[str, Case]:
    """Where the mixing is done."""
    sizes: dict[str, Any] = {
        "tiny": {"side": 8, "batch": 8, "width": 2, "turns": 2},
        "default": {},
        "full": {"width": 64, "turns": 200},
    }[profile]
    return {place: {**SETTINGS, **sizes, "place": place} for place in SOURCES}


def made_up(case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As many images and labels as one training asks for, of noise: what they show takes no time."""
    rng = np.random.default_rng(seed)
    n = case["batch"] * (WARM_UP + case["turns"] * case["steps"])
    return rng.integers(0, 256, (n, 3, case["side"], case["side"]), np.uint8), rng.integers(0, 10, n)


def in_the_step(case: Case, op: mx.Operator | None, seed: int) -> Batches:
    """Batches of floats that lie ready, mixed by the step itself."""
    images, labels = made_up(case, seed)
    x, y = (torch.from_numpy(images).float() / 255 - 0.5) / 0.25, torch.from_numpy(labels)
    for step, (xs, ys) in enumerate(zip(x.split(case["batch"]), y.split(case["batch"]), strict=True)):
        if op is None:
            yield xs, partial(F.cross_entropy, target=ys)
            continue
        plan = op.draw(mx.streams.plan_stream(seed, 0, step), mx.Spec.like(xs, "b c h w"))
        ya, yb, lam = mx.pair_targets(ys, plan)
        yield mx.mix(xs, plan, "b c h w", threads=1), partial(mx.mixed_loss, F.cross_entropy, ya=ya, yb=yb, lam=lam)


def by_array_loader(case: Case, op: mx.Operator | None, seed: int) -> Batches:
    """Bytes gathered, mixed and normalised in one pass, while the step waits."""
    images, labels = made_up(case, seed)
    data = {"image": images, "label": labels}
    loader = ArrayLoader(data, op or IDENTITY, FIELDS, case["batch"], seed=seed, to=TO, threads=0)
    yield from told(loader)


def by_worker(case: Case, op: mx.Operator | None, seed: int) -> Batches:
    """The same in the worker process of a DataLoader."""
    images, labels = made_up(case, seed)
    data = arrays(image=images, label=labels)
    sampler = KeyedBatchSampler(data, case["batch"], shuffle=True, seed=seed)
    collate = MixCollator(op or IDENTITY, FIELDS, seed=seed, to=TO)
    yield from told(DataLoader(keyed(data), batch_sampler=sampler, collate_fn=collate, num_workers=1))


def told(loader: Iterable[dict[str, Tensor]]) -> Batches:
    """Batches of a loader, whose labels are soft."""
    for batch in loader:
        yield batch["image"], partial(F.cross_entropy, target=batch["label"])


SOURCES: dict[str, Callable[[Case, mx.Operator | None, int], Batches]] = {
    "in the step": in_the_step,
    "ArrayLoader": by_array_loader,
    "DataLoader, one worker": by_worker,
}


class Trainee:
    """A network and its batches; ``seconds`` takes steps and says how long they took."""

    def __init__(self, net: nn.Module, batches: Batches) -> None:
        self.net, self.batches, self.loss = net, batches, 0.0
        self.optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9)

    def seconds(self, steps: int) -> float:
        """Fetch or mix a batch, go forward and backward, and update, ``steps`` times."""
        start = time.perf_counter()
        for _ in range(steps):
            x, loss_of = next(self.batches)
            loss = loss_of(self.net(x))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        taken = time.perf_counter() - start
        self.loss = loss.item()
        return taken


def train(case: Case, method: str, seed: int) -> dict[str, Any]:
    """Two trainings in turns, plain and by the method: AB, BA, AB, ..., so that neither is always first."""
    torch.manual_seed(seed)
    net = PreActResNet(3, 10, case["width"], [1, 1, 1], [1, 2, 2])
    source = SOURCES[case["place"]]
    plain = Trainee(copy.deepcopy(net), source(case, None, seed))
    mixed = Trainee(net, source(case, OPERATORS[method], seed))
    taken = np.empty((case["turns"], 2))
    both = list(enumerate((plain, mixed)))
    for one in (plain, mixed):
        one.seconds(WARM_UP)
    for turn in taken:
        for i, one in both:
            turn[i] = one.seconds(case["steps"])
        both.reverse()
    for one in (plain, mixed):
        one.batches.close()
    return {
        "seconds_ratio": float(np.median(taken[:, 1] / taken[:, 0])),
        "seconds_plain": float(np.median(taken[:, 0])) / case["steps"],
        "seconds_mixed": float(np.median(taken[:, 1])) / case["steps"],
        "loss": mixed.loss,
    }


def claims() -> list[Claim]:
    """What Zhang et al. say of the cost."""
    found = []
    for method in list(OPERATORS)[1:]:
        for place in SOURCES:
            text = f"{method}, {place}: a step takes at most {1 + ALLOWED:g} times a plain one"
            where, paper = {"place": place}, '"minimal computation overhead", without a number'
            found.append(
                Claim(text, ZHANG, "seconds_ratio", method, "none", "lower", where, within=ALLOWED, paper=paper)
            )
    return found


RATIO = Measure("time of a step, plain = 1", "lower", 1, "", 3)
STUDY = Study(
    name="cost",
    title="What mixing costs of a training step",
    question=(
        "Zhang et al. 2018 say of mixup that it is a few lines of code and next to no computation. A small residual "
        "network is trained on images of 32 x 32 in one thread, plain and with mixing in turns of two steps, AB, BA, "
        "AB, and so on, in one process. Steps are timed from the request for a batch to the update of the weights."
    ),
    cases=cases,
    methods={
        "none": "plain against plain: what the clock says where nothing differs",
        "Mixup": "`Mixup(1.0)`, one λ a batch, against plain",
        "CutMix": "`CutMix(1.0)`, one box a batch, against plain",
    },
    work=train,
    claims=claims(),
    common={"seconds_ratio": RATIO},
    measures={
        "seconds_plain": Measure("plain step, ms", "", 1000, " ms", 2),
        "seconds_mixed": Measure("step of the method, ms", "", 1000, " ms", 2),
    },
    notes=(
        "The ratio of a run is the median over its turns. Milliseconds are those of the minutes of a run: between runs "
        "the machine changes by more than mixing costs, so compare ratios.",
        "The network is small: with a larger one, or one thread more, mixing is a smaller part of a step; on a GPU see "
        "the benches.",
        "In the step, plain is cross-entropy against ids and no mixing at all. In a loader, plain is the same loader "
        "with every draw the identity: gathering, normalising and soft labels are in both.",
        "A timing: one process, and on a machine where nothing else runs.",
    ),
    packages=("matplotlib",),
    seeds=5,
    alone=True,
)
