"""Mixup over α and the width of the network: python -m benches.studies alpha"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import figures
import numpy as np
from evidence import Claim, Measure, values
from grid import Case
from image_runs import CIFAR, CYCLE, PAPER, SMALL, TINY, ZHANG, images_of, quality, share_right, trained, watched
from mixops.pipelines.plots import dress
from study import Study

import mixops as mx

ALPHAS = (0.1, 0.4, 1.0, 2.0, 8.0)
NAMES = {alpha: f"α = {alpha:g}" for alpha in ALPHAS}
OPERATORS: dict[str, mx.Operator | None] = {"none": None, **{name: mx.Mixup(alpha) for alpha, name in NAMES.items()}}
LEAST, ONE, MOST = NAMES[0.1], NAMES[1.0], NAMES[8.0]
MEASURES = {
    "train_error": Measure("error on training images, %", "", 100, " points", 2),
    "test_error": Measure("error on test images, %", "lower", 100, " points", 2),
    "gap": Measure("generalisation gap, %", "lower", 100, " points", 2),
}


def cases(profile: str) -> dict[str, Case]:
    """CIFAR-10 for a narrow and a wide network."""
    settings: dict[str, Case] = {
        "default": {**SMALL, "files": [CIFAR], "rows": 5000, "epochs": 20, "watched": 2000},
        "full": {**PAPER, "watched": 10000},
        "tiny": {**TINY, "rows": 100, "watched": 60},
    }
    widths = {"default": (8, 24), "full": (16, 64), "tiny": (2, 4)}[profile]
    return {f"width {width}": {**settings[profile], "width": width, "group": "widths"} for width in widths}


def train(case: Case, method: str, seed: int) -> dict[str, Any]:
    """One network from first weights to last."""
    data = images_of(case, seed)
    net = trained(case, data, OPERATORS[method], seed)
    rows = watched(case["watched"], len(data.x))
    found, train_error = quality(net, data), 1 - share_right(net, data.x[rows], data.y[rows])
    test_error = 1 - found["accuracy"]
    return {**found, "train_error": train_error, "test_error": test_error, "gap": test_error - train_error}


def claims() -> list[Claim]:
    """What the paper says of α and of capacity, in its discussion and in section 3.1."""
    plain, found = "training without mixing", []
    for method in (ONE, MOST):
        text = f"Mixup with {method} has a higher error on training images than {plain}"
        found.append(Claim(text, ZHANG, "train_error", method))
    found.append(
        Claim(
            f"Mixup with {MOST} has a higher error on training images than {LEAST}", ZHANG, "train_error", MOST, LEAST
        )
    )
    for method in (ONE, MOST):
        text = f"Mixup with {method} has a smaller generalisation gap than {plain}"
        found.append(Claim(text, ZHANG, "gap", method, direction="lower"))
    text = f"Mixup with {MOST} has a smaller generalisation gap than {LEAST}"
    found.append(Claim(text, ZHANG, "gap", MOST, LEAST, "lower"))
    text = f"Mixup with {ONE} has a higher test accuracy than {plain}"
    found.append(Claim(text, ZHANG, "accuracy", ONE, paper="CIFAR-10, PreAct ResNet-18: error 5.6 % -> 4.2 %"))
    text = f"The wider the network, the less {MOST} adds to the error on training images"
    found.append(Claim(text, ZHANG, "train_error", MOST, direction="lower", slope_over="width"))
    paper = "ImageNet, 90 epochs: ResNet-101 gains 0.5 points or more, ResNet-50 0.2"
    text = f"The wider the network, the more test accuracy {ONE} gains"
    found.append(Claim(text, ZHANG, "accuracy", ONE, slope_over="width", paper=paper))
    text = f"The wider the network, the better {MOST} is beside {LEAST} in test accuracy"
    found.append(Claim(text, ZHANG, "accuracy", MOST, LEAST, slope_over="width"))
    return found


def error_figure(report: Mapping[str, Any]) -> Any:
    """Errors on training and test images, and the gap between them, over α: a panel each, a line a width."""
    methods, cases = list(report["methods"]), list(report["cases"])
    figure = figures.new_figure(4.2 * len(MEASURES), 3.6)
    axes = figure.subplots(1, len(MEASURES), squeeze=False)[0]
    for axis, (name, measure) in zip(axes, MEASURES.items(), strict=True):
        for case in cases:
            found = measure.scale * np.stack([values(report["runs"], case, method, name) for method in methods], 1)
            figures.band(axis, np.arange(len(methods)), found, figures.colour_of(cases, case), case)
        axis.set_xticks(range(len(methods)), [method.removeprefix("α = ") for method in methods])
        axis.set_title(measure.title, fontsize=10)
        axis.set_xlabel("α")
        dress(axis, figures.INK)
    figures.legend(figure, axes[0])
    return figure


STUDY = Study(
    name="alpha",
    title="Mixup over α and the width of the network",
    question=(
        "The larger α, the more two images are blended alike. Zhang et al. 2018 see the training error rise with α and "
        "the gap between test and training error fall, expect networks of a larger capacity to bear a larger α, and "
        "find that they gain more. A narrow and a wide residual network are trained with several α and without mixing, "
        "from the same first weights, on the same batches in the same order."
    ),
    cases=cases,
    methods={
        "none": "training without mixing, which is α = 0",
        **{name: f"`Mixup(alpha={alpha})`, one λ a batch" for alpha, name in NAMES.items()},
    },
    work=train,
    claims=claims(),
    measures=MEASURES,
    figures={"errors": error_figure},
    notes=(
        "Errors are of images that are not mixed, after the last epoch; on training images, of `watched` of them. The "
        "generalisation gap is the test error less the training error.",
        "Default runs take 5,000 images, drawn by the seed and averaged over squares of 2 x 2 pixels, small networks, "
        "short trainings, and no other augmentation. `--full` is the paper's setting, with a narrower network beside.",
        CYCLE,
        "The paper has no table of α for CIFAR-10: what it says of training error, gap and capacity is in its "
        "discussion. Its ImageNet runs are best with α from 0.1 to 0.4 and underfit with large ones.",
        "A best α is not picked per run: with a few seeds it would be picked by chance. The figure shows where the "
        "curve of each width is lowest, and the last claim whether that moves.",
    ),
    packages=("matplotlib", "torchvision"),
    seeds=5,
    gpu=True,
)
