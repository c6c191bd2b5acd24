"""Manifold Mixup beside input Mixup and plain training, on images: python -m benches.studies manifold"""

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
    FASHION,
    RECIPE,
    SMALL,
    TINY,
    Images,
    images_of,
    network,
    probabilities,
    quality,
    share_right,
    training,
    watched,
)
from mixops.pipelines.metrics import negative_log_likelihood
from study import Study
from torch import Tensor

import mixops as mx

LAYERS = ("input", "layer1", "layer2")
OPERATORS: dict[str, mx.Operator | None] = {
    "none": None,
    "Mixup": mx.Mixup(1.0),
    "Manifold Mixup": mx.ManifoldMixup(LAYERS, alpha=2.0),
}
#: Layers whose hidden states are looked at after training, and how many of their singular values are kept.
LOOKED_AT, VALUES = ("layer1", "layer2"), 20
VERMA = "Verma et al. 2019"
#: Where the paper's numbers are from; its later version gives others.
PAPER = "CIFAR-10, PreAct ResNet-18, the first version"


def cases(profile: str) -> dict[str, Case]:
    """The data sets and networks of a profile."""
    looks: dict[str, Any] = {"width": 24, "watched": 2000, "per_class": 100}
    if profile == "tiny":
        return {"made up": {**TINY, "level": 0.3, "watched": 60, "per_class": 8}}
    if profile == "default":
        return {
            "CIFAR-10": {**SMALL, **looks, "files": [CIFAR], "level": 0.55},
            "Fashion-MNIST": {**SMALL, **looks, "files": [FASHION], "level": 0.85},
        }
    nets = {
        "ResNet of width 32": {"width": 32, "blocks": [1, 1, 1], "strides": [1, 2, 2]},
        "PreActResNet18": {"width": 64, "blocks": [2, 2, 2, 2], "strides": [1, 2, 2, 2]},
    }
    return {
        f"{data}, {net}": {**RECIPE, **looks, **sizes, "epochs": 100, "files": [file], "level": level}
        for data, file, level in (("CIFAR-10", CIFAR, 0.6), ("Fashion-MNIST", FASHION, 0.85))
        for net, sizes in nets.items()
    }


def train(case: Case, method: str, seed: int) -> dict[str, Any]:
    """One network from first weights to last."""
    data = images_of(case)
    net = network(case, data, seed)
    rows, test_rows = (watched(case["watched"], len(x)) for x in (data.x, data.test_x))
    labels = data.y[rows].cpu().numpy()
    train_loss, test_accuracy = [], []
    for _ in training(net, case, data, OPERATORS[method], seed):
        train_loss.append(negative_log_likelihood(probabilities(net, data.x[rows]), labels))
        test_accuracy.append(share_right(net, data.test_x[test_rows], data.test_y[test_rows]))
    reached = [epoch for epoch, value in enumerate(test_accuracy, 1) if value >= case["level"]]
    return {
        **quality(net, data),
        "epochs_to_level": reached[0] if reached else case["epochs"] + 1,
        "mean_accuracy": float(np.mean(test_accuracy)),
        "mean_train_loss": float(np.mean(train_loss)),
        "train_loss": train_loss,
        "test_accuracy": test_accuracy,
        **spectra(net, data, case),
    }


@torch.no_grad()
def spectra(net: torch.nn.Module, data: Images, case: Case) -> dict[str, Any]:
    """Singular values of the centred hidden states of each class, as shares of their sum; means over the classes.

    Of some training images of each class. The share of the first is large where a class is flat: it varies along few
    directions.
    """
    net.eval()
    found: dict[str, Any] = {}
    for layer in LOOKED_AT:
        shares, directions = [], []
        kept: list[Tensor] = []
        hook = net.get_submodule(layer).register_forward_hook(lambda _, __, h, kept=kept: kept.append(h))
        for label in range(case["classes"]):
            net(data.x[torch.nonzero(data.y == label)[: case["per_class"], 0]])
            h = kept.pop().flatten(1).double()
            values = torch.linalg.svdvals(h - h.mean(0)).cpu().numpy()
            # The last is 0 where there are no more images than dimensions: their mean is taken off.
            shares.append(values[: min(VALUES, len(values) - 1)] / values.sum())
            energy = values[values > 0] ** 2 / (values**2).sum()
            directions.append(np.exp(-(energy * np.log(energy)).sum()))
        hook.remove()
        mean = np.mean(shares, axis=0)
        found[f"first_{layer}"] = float(mean[0])
        found[f"rank_{layer}"] = float(np.mean(directions))
        found[f"spectrum_{layer}"] = mean.tolist()
    return found


def spectrum_figure(report: Mapping[str, Any]) -> Any:
    """Shares of the singular values, a panel for each case and layer."""
    panels = {f"spectrum_{layer}": Measure(f"{layer}, share of singular value, %", "", 100) for layer in LOOKED_AT}
    return figures.learning_curves(report, panels, "singular value, from the largest")


def curve_figure(report: Mapping[str, Any]) -> Any:
    """Learning curves."""
    panels = {
        "train_loss": Measure("loss on training images that are not mixed", ""),
        "test_accuracy": Measure("test accuracy, %", "", 100),
    }
    return figures.learning_curves(report, panels)


def claims() -> list[Claim]:
    """What Verma et al. say of Manifold Mixup, and the seed of this library on convergence."""
    manifold, found = "Manifold Mixup", []
    for against, beside, error, nll in (
        ("none", "training without mixing", "5.12", "0.2646"),
        ("Mixup", "input Mixup", "3.50", "0.1945"),
    ):
        for measure, direction, says, paper in (
            ("accuracy", "higher", "has a higher test accuracy than", f"error {error} % -> 2.89 %"),
            ("nll", "lower", "has a lower test NLL than", f"NLL {nll} -> 0.1407"),
        ):
            text = f"Manifold Mixup {says} {beside}"
            found.append(Claim(text, VERMA, measure, manifold, against, direction, paper=f"{PAPER}: {paper}"))
    for against, beside in (("none", "training without mixing"), ("Mixup", "input Mixup")):
        for measure, direction, says in (
            ("epochs_to_level", "lower", "reaches the level of accuracy in fewer epochs than"),
            ("mean_accuracy", "higher", "has a higher test accuracy, mean over the epochs, than"),
            ("mean_train_loss", "lower", "has a lower loss on clean training images, mean over the epochs, than"),
        ):
            found.append(
                Claim(f"Manifold Mixup {says} {beside}", "converges more easily", measure, manifold, against, direction)
            )
    for layer in LOOKED_AT:
        for against, beside in (("none", "training without mixing"), ("Mixup", "input Mixup")):
            text = f"Manifold Mixup makes classes flatter at {layer} (larger share of the first singular value) than"
            found.append(Claim(f"{text} {beside}", VERMA, f"first_{layer}", manifold, against))
    text, paper = "Input Mixup has a lower test NLL than training without mixing", f"{PAPER}: NLL 0.2646 -> 0.1945"
    found.append(Claim(text, VERMA, "nll", "Mixup", "none", "lower", paper=paper))
    return found


STUDY = Study(
    name="manifold",
    title="Manifold Mixup beside input Mixup",
    question=(
        "Manifold Mixup (Verma et al. 2019) blends hidden states at a layer that is drawn for every batch. It is said "
        "to give a better test NLL and accuracy than Mixup of the input, to converge more easily, and to flatten the "
        "hidden states of each class. The same small residual network is trained with either and with neither, from "
        "the same first weights, on the same batches in the same order."
    ),
    cases=cases,
    methods={
        "none": "training without mixing",
        "Mixup": "`Mixup(alpha=1.0)` of the images, one λ a batch",
        "Manifold Mixup": f"`ManifoldMixup({list(LAYERS)}, alpha=2.0)`, one layer and one λ a batch",
    },
    work=train,
    claims=claims(),
    measures={
        "epochs_to_level": Measure("epochs to the level", "lower", 1, " epochs", 2),
        "mean_accuracy": Measure("mean accuracy over the epochs, %", "higher", 100, " points", 2),
        "mean_train_loss": Measure("mean clean training loss", "lower", 1, "", 4),
        **{
            f"first_{layer}": Measure(f"first singular value at {layer}, %", "", 100, " points", 2)
            for layer in LOOKED_AT
        },
        **{f"rank_{layer}": Measure(f"directions at {layer}", "", 1, "", 2) for layer in LOOKED_AT},
    },
    figures={"curves": curve_figure, "spectrum": spectrum_figure},
    notes=(
        "Images are averaged over squares of `pool` x `pool` pixels, training sets are 10,000 images, trainings are "
        "short and there is no other augmentation: the papers train for 400 to 2,000 epochs on whole images. `--full` "
        "comes nearer.",
        "After every epoch the network is looked at, in evaluation mode, on `watched` training images that are not "
        "mixed and as many test images; the numbers of the tables are from the whole test set after the last epoch.",
        "The level is an accuracy (`level`) chosen after a look at one run without mixing, and at no other. A run that "
        "never reaches it counts as one epoch more than there were.",
        "Singular values are those of the hidden states of `per_class` training images of a class, less their mean. "
        "The share of the first in their sum, and exp of the entropy of their squares (directions: how many there "
        "would be, were all alike), are means over the classes. Verma et al. compare sums of the values as they are, "
        "which change with the scale of the states; shares do not.",
        "The split is the same for all seeds: intervals tell of first weights and order, not of other data.",
    ),
    packages=("matplotlib",),
    gpu=True,
)
