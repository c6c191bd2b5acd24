"""What must hold exactly: α -> 0 is training without mixing, λ = 1 changes nothing, one soft target is two losses."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import figures
import numpy as np
import torch
import torch.nn.functional as F
from evidence import Claim, Measure
from grid import Case
from image_runs import ZHANG, quality
from mixops.pipelines import digits
from small_runs import Rows
from study import Study
from torch import Tensor, nn

import mixops as mx

DEFINITION = "the definition of a plan"
SETTINGS: dict[str, Any] = {"classes": 10, "batch": 64, "learning_rate": 0.1, "momentum": 0.9, "width": 64}
#: Rows of the digits that are trained on; the others are the test set.
TRAINING = 1400


class Form(NamedTuple):
    """A way to train that another must equal.

    Args:
        op: the operator; None for no mixing.
        twin: the method that must give the same.
        lam: given to the draw in place of the λ that it would draw.
        soft: one soft target in place of two weighted losses.
    """

    op: mx.Operator | None
    twin: str
    lam: float | None = None
    soft: bool = False


FORMS = {
    "none": Form(None, "none"),
    "α = 0": Form(mx.Mixup(0.0), "none"),
    "α = 1e-6": Form(mx.Mixup(1e-6), "none"),
    "λ = 1": Form(mx.Mixup(1.0), "none", lam=1.0),
    "two losses": Form(mx.Mixup(1.0), "one soft target"),
    "one soft target": Form(mx.Mixup(1.0), "two losses", soft=True),
}


def cases(profile: str) -> dict[str, Case]:
    """The same training in both precisions."""
    sizes = {"tiny": {"epochs": 1, "batch": 350}, "default": {"epochs": 20}, "full": {"epochs": 200}}[profile]
    return {name: {**SETTINGS, **sizes, "files": [], "dtype": name} for name in ("float32", "float64")}


@cache
def split(seed: int, dtype: str) -> Rows:
    """The digits of scikit-learn, values 0 to 1, another part of them held out for each seed."""
    images, labels = digits()
    order = np.random.default_rng(seed).permutation(len(images))
    x = torch.from_numpy(images[order].reshape(len(images), -1)).to(getattr(torch, dtype)) / 255
    y = torch.from_numpy(labels[order])
    return Rows(x[:TRAINING], y[:TRAINING], x[TRAINING:], y[TRAINING:])


def train(case: Case, method: str, seed: int) -> dict[str, Any]:
    """One network by a method, and beside it, on the same batches and draws, one by its twin."""
    data, form = split(seed, case["dtype"]), FORMS[method]
    torch.manual_seed(seed)
    width = case["width"]
    net = nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, case["classes"])
    ).to(data.x.dtype)
    twin = copy.deepcopy(net)
    mine, other = (torch.optim.SGD(n.parameters(), case["learning_rate"], case["momentum"]) for n in (net, twin))
    apart, train_loss = [], []
    for epoch in range(case["epochs"]):
        order = torch.from_numpy(mx.streams.order_stream(seed, epoch).permutation(len(data.x)))
        losses = []
        for step, rows in enumerate(order.split(case["batch"])):
            batch, key = (data.x[rows], data.y[rows], case["classes"]), (seed, epoch, step)
            expected = gradient(net, FORMS[form.twin], batch, key)[1]
            loss, found = gradient(net, form, batch, key)
            apart.append(relative(found, expected))
            losses.append(loss)
            mine.step()
            gradient(twin, FORMS[form.twin], batch, key)
            other.step()
        train_loss.append(float(np.mean(losses)))
    return {
        **quality(net, data),
        "gradient": max(apart),
        "weights": relative(*(torch.cat([p.detach().flatten() for p in n.parameters()]) for n in (net, twin))),
        "train_loss": train_loss,
    }


def gradient(
    net: nn.Module, form: Form, batch: tuple[Tensor, Tensor, int], key: tuple[int, int, int]
) -> tuple[float, Tensor]:
    """Loss and gradient of a batch; the gradient stays with the parameters, too."""
    net.zero_grad()
    loss = loss_of(net, form, *batch, mx.streams.plan_stream(*key))
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def loss_of(net: nn.Module, form: Form, x: Tensor, y: Tensor, classes: int, rng: np.random.Generator) -> Tensor:
    """The loss of a batch in one of the forms."""
    if form.op is None:
        return F.cross_entropy(net(x), y)
    given = {} if form.lam is None else {"lam": form.lam}
    plan = form.op.draw(rng, mx.Spec(len(x)), **given)
    logits = net(mx.mix(x, plan, "b d", threads=1))
    if form.soft:
        return F.cross_entropy(logits, mx.soft_targets(y, plan, classes).to(logits.dtype))
    return mx.mixed_loss(F.cross_entropy, logits, *mx.pair_targets(y, plan))


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest number expected."""
    return float((found - expected).abs().max() / expected.abs().max())


def loss_figure(report: Mapping[str, Any]) -> Any:
    """The training loss of every method: what is equal lies on each other."""
    return figures.learning_curves(report, {"train_loss": Measure("training loss", "")})


def claims() -> list[Claim]:
    """What follows from the definition, with the margin that rounding is given."""
    single, double = {"dtype": "float32"}, {"dtype": "float64"}
    found = []
    for method, says, source in (("α = 0", "Mixup of α = 0", ZHANG), ("λ = 1", "A plan of λ = 1", DEFINITION)):
        text = f"{says} is training without mixing: equal weights after the last step, to the last bit"
        found.append(Claim(text, source, "weights", method, "none", "equal"))
    text = "Mixup of α = 0.000001, which leaves a batch or swaps whole rows, is training without mixing"
    for method, says, source in (
        ("α = 1e-6", text, ZHANG),
        ("two losses", "Two weighted losses are one soft target", "cross-entropy is linear in its target"),
    ):
        found += [
            Claim(
                f"{says}: equal {what}, {where['dtype']}", source, measure, method, "none", "equal", where, within=bound
            )
            for what, measure, where, bound in (
                ("gradients", "gradient", single, 1e-5),
                ("gradients", "gradient", double, 1e-6),
                ("runs", "weights", double, 1e-5),
            )
        ]
    for method, against in (("α = 1e-6", "none"), ("two losses", "one soft target")):
        text = f"{method} ends at the accuracy of {against}"
        found.append(Claim(text, "follows from equal gradients", "accuracy", method, against, "equal", within=0.005))
    return found


STUDY = Study(
    name="limits",
    title="What must be equal: α near 0, λ = 1, one soft target",
    question=(
        "Zhang et al. 2018 note that mixup with α -> 0 is training without mixing. By the definition of cross-entropy, "
        "one loss against a soft target is the weighted sum of two losses. Neither is a matter of luck: it must hold "
        "to the rounding of floats. A small network is trained on the digits of scikit-learn in each form, and beside "
        "it, from the same weights, on the same batches and draws, a network in the form that must equal it."
    ),
    cases=cases,
    methods={
        "none": "training without mixing; its twin is a second run of the same",
        "α = 0": "`Mixup(0.0)`; twin: none",
        "α = 1e-6": "`Mixup(1e-6)`: λ is 0 or 1; twin: none",
        "λ = 1": "`Mixup(1.0).draw(..., lam=1.0)`; twin: none",
        "two losses": "`Mixup(1.0)`, `mixed_loss` of `pair_targets`; twin: one soft target",
        "one soft target": "`Mixup(1.0)`, cross-entropy against `soft_targets`; twin: two losses",
    },
    work=train,
    claims=claims(),
    measures={
        "gradient": Measure("gradient beside the twin's, ppm", "lower", 1e6, " ppm", 4),
        "weights": Measure("weights beside the twin's, ppm", "lower", 1e6, " ppm", 4),
    },
    figures={"loss": loss_figure},
    notes=(
        "Both measures are the largest difference of two vectors as a share of the largest number in them, in parts "
        "per million: of the gradients at the same weights, the largest over all steps; of the weights after the last.",
        "Steps multiply rounding: in float32 the weights of equal trainings part slowly, which is why equal runs are "
        "claimed in float64 alone. λ is kept in float32: there the two forms differ by its rounding, about 0.1 ppm.",
        "Margins: 10 ppm for gradients in float32 and weights in float64, 1 ppm for gradients in float64, half a point "
        "of accuracy.",
    ),
    packages=("matplotlib", "scikit-learn"),
    seeds=8,
)
