"""Are corrupt labels memorised less where images are mixed?: python -m benches.studies corrupt"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import figures
import numpy as np
import torch
from evidence import Claim, Measure
from grid import Case
from image_runs import (
    CIFAR,
    CYCLE,
    PAPER,
    SMALL,
    TINY,
    ZHANG,
    Images,
    images_of,
    network,
    quality,
    share_right,
    training,
)
from study import Study
from torch import Tensor

import mixops as mx

SHARES = (0.2, 0.5, 0.8)
ALPHAS = (1, 8, 32)
OPERATORS: dict[str, mx.Operator | None] = {"none": None, **{f"Mixup α = {a}": mx.Mixup(float(a)) for a in ALPHAS}}


def cases(profile: str) -> dict[str, Case]:
    """CIFAR-10 with more and more corrupt labels."""
    settings: dict[str, dict[str, Any]] = {
        # Few enough images for a small network to memorise in some twenty seconds.
        "default": {**SMALL, "files": [CIFAR], "rows": 5000, "epochs": 24, "weight_decay": 0.0, "every": 4},
        "full": {**PAPER, "every": 10},
        "tiny": {**TINY, "rows": 100, "every": 1},
    }
    name = "made up" if profile == "tiny" else "CIFAR-10"
    return {f"{name}, {share:.0%} corrupt": {**settings[profile], "corrupt": share} for share in SHARES}


def corrupted(
    labels: np.ndarray, share: float, classes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Replace labels at random: each with probability ``share``, by any class alike, its own among them.

    Returns:
        New labels (N,) int64, and which were replaced (N,) bool.
    """
    replaced = rng.random(len(labels)) < share
    return np.where(replaced, rng.integers(0, classes, len(labels)), labels), replaced


def corrupt_images(case: Case, seed: int) -> tuple[Images, Tensor]:
    """The images of a case with corrupt training labels, and which are corrupt (N,) bool: the same for all methods."""
    data = images_of(case, seed)
    rng = mx.streams.sample_stream(seed, 0, 0, stage=2)
    labels, replaced = corrupted(data.y.cpu().numpy(), case["corrupt"], case["classes"], rng)
    place = data.y.device
    return data._replace(y=torch.from_numpy(labels).to(place)), torch.from_numpy(replaced).to(place)


def train(case: Case, method: str, seed: int) -> dict[str, Any]:
    """One network from first weights to last, on labels that the seed has corrupted."""
    data, bad = corrupt_images(case, seed)
    net = network(case, data, seed)
    test_accuracy, memorised = [], []
    for epoch in training(net, case, data, OPERATORS[method], seed):
        if epoch % case["every"] == 0 or epoch == case["epochs"]:
            test_accuracy.append(share_right(net, data.test_x, data.test_y))
            memorised.append(share_right(net, data.x[bad], data.y[bad]))
    return {
        **quality(net, data),
        "best_accuracy": max(test_accuracy),
        "memorised": memorised[-1],
        "real_accuracy": share_right(net, data.x[~bad], data.y[~bad]),
        "test_curve": test_accuracy,
        "memorised_curve": memorised,
    }


def claims() -> list[Claim]:
    """The paper's table 2: each share with the α that it gives for it, and what is memorised."""
    plain, setting = "training without mixing", "CIFAR-10, PreAct ResNet-18"
    table = {
        0.2: (8, "12.7 % -> 5.9 %", "16.6 % -> 6.4 %"),
        0.5: (32, "18.8 % -> 11.3 %", "44.6 % -> 12.7 %"),
        0.8: (32, "36.5 % -> 35.3 %", "73.9 % -> 46.3 %"),
    }
    found = []
    for share, (alpha, best, last) in table.items():
        for measure, moment, error in (("accuracy", "at the end", last), ("best_accuracy", "at the best epoch", best)):
            method = f"Mixup α = {alpha}"
            text = f"With {share:.0%} of the labels corrupt, {method} has a higher test accuracy {moment} than {plain}"
            paper = f"{setting}: error {error}"
            found.append(Claim(text, ZHANG, measure, method, where={"corrupt": share}, paper=paper))
    kept = {8: "20 % corrupt: error on them 0.28 % -> 86.32 %", 32: "50 % corrupt: error on them 0.64 % -> 85.71 %"}
    for alpha in ALPHAS:
        text = f"Mixup α = {alpha} memorises fewer corrupt labels than {plain}"
        paper = f"{setting}, {kept[alpha]}" if alpha in kept else ""
        found.append(Claim(text, ZHANG, "memorised", f"Mixup α = {alpha}", direction="lower", paper=paper))
    text = "Mixup α = 32 memorises fewer corrupt labels than Mixup α = 1"
    found.append(Claim(text, ZHANG, "memorised", "Mixup α = 32", "Mixup α = 1", "lower"))
    return found


def curve_figure(report: Mapping[str, Any]) -> Any:
    """Test accuracy, and corrupt labels that are memorised, over the epochs."""
    panels = {
        "test_curve": Measure("test accuracy, %", "", 100),
        "memorised_curve": Measure("corrupt labels memorised, %", "", 100),
    }
    case = next(iter(report["cases"].values()))
    places = [*range(case["every"], case["epochs"], case["every"]), case["epochs"]]
    return figures.learning_curves(report, panels, places=places)


STUDY = Study(
    name="corrupt",
    title="Corrupt labels, memorised or not",
    question=(
        "Zhang et al. 2018 replace 20, 50 or 80 % of the training labels by random ones. A large network memorises "
        "them and errs the more on test images; with Mixup, and all the more with a large α, it is said to memorise "
        "fewer. The same residual network is trained with three α and without mixing, on the same corrupt labels, from "
        "the same first weights, on the same batches in the same order."
    ),
    cases=cases,
    methods={
        "none": "training without mixing",
        **{f"Mixup α = {alpha}": f"`Mixup(alpha={float(alpha)})`, one λ a batch" for alpha in ALPHAS},
    },
    work=train,
    claims=claims(),
    measures={
        "best_accuracy": Measure("accuracy of the best epoch, %", "higher", 100, " points", 2),
        "memorised": Measure("corrupt labels memorised, %", "lower", 100, " points", 2),
        "real_accuracy": Measure("accuracy on training images with their own labels, %", "higher", 100, " points", 2),
    },
    lead="memorised",
    figures={"curves": curve_figure},
    notes=(
        "An error in % is 100 less the accuracy in %.",
        "Each training label is replaced with the probability that the case gives, by a class drawn from all alike: "
        "one in ten of the new labels is the old one by chance. Which are replaced, and by what, depends on the seed "
        "alone.",
        "Memorised: the share of replaced labels that the network gives to their training images at the end. A network "
        "that knows nothing of them gives one in ten.",
        "Default runs take 5,000 images of half the side, drawn by the seed, and no other augmentation nor weight "
        "decay, so that a small network can memorise them. The paper takes 50,000 whole images, moved and mirrored, "
        "200 epochs and a weight decay of 0.0001, which `--full` does.",
        CYCLE,
        "The network is looked at after each `every` epochs: the best epoch is the best of those, by the test images, "
        "as in the paper, and so no number to select a method by.",
        "The paper gives each share the α that was best of 1, 2, 8 and 32 there; the claims name it.",
    ),
    packages=("matplotlib", "torchvision"),
    seeds=5,
    gpu=True,
)
