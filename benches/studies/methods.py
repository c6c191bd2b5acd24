"""Cutout, Mixup, CutMix, and Cutout with Mixup beside plain training: python -m benches.studies methods"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import figures
from evidence import Claim, Measure
from grid import Case
from image_runs import (
    CIFAR,
    CYCLE,
    FASHION,
    PAPER,
    SMALL,
    TINY,
    YUN,
    ZHANG,
    images_of,
    network,
    quality,
    share_right,
    training,
    watched,
)
from study import Study

import mixops as mx

DEVRIES, THULASIDASAN = "DeVries and Taylor 2017", "Thulasidasan et al. 2019"
BOTH = "Cutout then Mixup"
#: The side of a hole is half that of the image, as in the papers on CIFAR-10.
CUTOUT, MIXUP = mx.Cutout(fraction=0.5), mx.Mixup(1.0)
OPERATORS: dict[str, mx.Operator | None] = {
    "none": None,
    "Cutout": CUTOUT,
    "Mixup": MIXUP,
    "CutMix": mx.CutMix(1.0),
    BOTH: CUTOUT | MIXUP,
}


def cases(profile: str) -> dict[str, Case]:
    """The data sets of a profile."""
    if profile == "tiny":
        return {"made up": {**TINY, "watched": 60}}
    if profile == "default":
        return {
            "CIFAR-10": {**SMALL, "files": [CIFAR], "watched": 2000},
            "Fashion-MNIST": {**SMALL, "files": [FASHION], "watched": 2000},
        }
    return {
        "CIFAR-10": {**PAPER, "watched": 2000},
        "CIFAR-100": {**PAPER, "fetch": "CIFAR100", "classes": 100, "watched": 2000},
    }


def train(case: Case, method: str, seed: int) -> dict[str, Any]:
    """One network from first weights to last."""
    data = images_of(case)
    net = network(case, data, seed)
    rows, test_rows = (watched(case["watched"], len(x)) for x in (data.x, data.test_x))
    test_accuracy = [
        share_right(net, data.test_x[test_rows], data.test_y[test_rows])
        for _ in training(net, case, data, OPERATORS[method], seed)
    ]
    return {
        **quality(net, data),
        "train_accuracy": share_right(net, data.x[rows], data.y[rows]),
        "test_accuracy": test_accuracy,
    }


def claims() -> list[Claim]:
    """What the papers say of error and calibration, and what this library asks beside."""
    plain = "training without mixing"
    cifar10, cifar100 = "CIFAR-10, PyramidNet-200: error", "CIFAR-100, PyramidNet-200: error"
    pairs = (
        ("Cutout", "none", DEVRIES, "CIFAR-10, ResNet-18: error 4.72 % -> 3.99 %"),
        ("Mixup", "none", ZHANG, "CIFAR-10, PreAct ResNet-18: error 5.6 % -> 4.2 %"),
        ("CutMix", "none", YUN, f"{cifar10} 3.85 % -> 2.88 %"),
        (BOTH, "none", YUN, f"{cifar100} 16.45 % -> 15.46 %"),
        ("CutMix", "Cutout", YUN, f"{cifar10} 3.10 % -> 2.88 %"),
        ("CutMix", "Mixup", YUN, f"{cifar10} 3.09 % -> 2.88 %"),
        ("CutMix", BOTH, YUN, f"{cifar100} 15.46 % -> 14.47 %"),
        (BOTH, "Cutout", YUN, f"{cifar100} 16.53 % -> 15.46 %"),
        (BOTH, "Mixup", YUN, f"{cifar100} 15.63 % -> 15.46 %"),
    )
    found = [
        Claim(
            f"{method} has a higher test accuracy than {plain if against == 'none' else against}",
            source,
            "accuracy",
            method,
            against,
            paper=paper,
        )
        for method, against, source, paper in pairs
    ]
    found.append(
        Claim(
            f"Mixup has a lower calibration error than {plain}",
            THULASIDASAN,
            "ece",
            "Mixup",
            direction="lower",
            paper='"significantly better calibrated"',
        )
    )
    for measure, says in (("nll", "test NLL"), ("ece", "calibration error")):
        for method in ("Cutout", "CutMix"):
            text = f"{method} has a lower {says} than {plain}"
            found.append(Claim(text, "asked here", measure, method, direction="lower"))
    found.append(Claim(f"Mixup has a lower test NLL than {plain}", "asked here", "nll", "Mixup", direction="lower"))
    return found


def curve_figure(report: Mapping[str, Any]) -> Any:
    """Test accuracy over the epochs."""
    return figures.learning_curves(report, {"test_accuracy": Measure("test accuracy, %", "", 100)})


STUDY = Study(
    name="methods",
    title="Cutout, Mixup and CutMix beside plain training",
    question=(
        "Cutout (DeVries and Taylor 2017) hides a square of each image, Mixup (Zhang et al. 2018) blends two images "
        "and their labels, CutMix (Yun et al. 2019) pastes a box of one into the other and weighs the labels by its "
        "area. "
        "Each is said to lower the test error, CutMix the most; Yun et al. also combine Cutout with Mixup. The same "
        "residual network is trained with each and with none, from the same first weights, on the same batches in the "
        "same order."
    ),
    cases=cases,
    methods={
        "none": "training without mixing",
        "Cutout": "`Cutout(fraction=0.5)`: a square hole of half the side in every image, filled with the mean",
        "Mixup": "`Mixup(alpha=1.0)`, one λ a batch",
        "CutMix": "`CutMix(alpha=1.0)`, one λ and one box a batch",
        BOTH: "`Cutout(fraction=0.5) | Mixup(alpha=1.0)`",
    },
    work=train,
    claims=claims(),
    measures={"train_accuracy": Measure("accuracy on training images, %", "", 100, " points", 2)},
    figures={"curves": curve_figure},
    notes=(
        "An error in % is 100 less the accuracy in %.",
        "Images are averaged over squares of `pool` x `pool` pixels, training sets are 10,000 images, trainings are "
        "short, networks small, and there is no other augmentation: the papers train large networks on 50,000 whole "
        "images, moved and mirrored, for 200 to 300 epochs. `--full` is the setting of Zhang et al.",
        CYCLE,
        "Numbers of the papers are each from their own setting: what can be compared is the direction.",
        "The split is the same for all seeds: intervals tell of first weights and order, not of other data.",
    ),
    packages=("matplotlib", "torchvision"),
    seeds=6,
    gpu=True,
)
