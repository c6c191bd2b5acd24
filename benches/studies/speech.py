"""Does mixup of spectrograms help to tell spoken words apart (Zhang et al. 2018, section 3.3)? Spoken digits."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from evidence import Claim
from grid import Case
from image_runs import ZHANG, quality
from small_runs import RECIPE, Rows, fit
from spectrograms import log_mel, made_up, recordings
from study import Study
from torch import Tensor, nn

import mixops as mx

OPERATORS: dict[str, mx.Operator | None] = {
    "none": None,
    "Mixup 0.1": mx.Mixup(0.1),
    "Mixup 0.2": mx.Mixup(0.2),
    "Mixup 1.0": mx.Mixup(1.0),
}
SPLITS = {"same": "speakers known", "new": "speaker unknown"}
SETTINGS: dict[str, Any] = {
    **RECIPE,
    "learning_rate": 3e-3,
    "batch": 20,
    "warm_up": 5,
    "epochs": 30,
    "drops": [10, 20],
    "bands": 32,
    "frames": 48,
    "hop": 130,
    "width": 8,
    "classes": 10,
}


def cases(profile: str) -> dict[str, Case]:
    """Two networks, and speakers that were heard in training or were not."""
    file = ["audio/fsdd_900.npz"]
    sizes: dict[str, Any] = {
        "tiny": {
            "files": [],
            "epochs": 2,
            "warm_up": 1,
            "drops": [1],
            "bands": 16,
            "frames": 24,
            "width": 2,
            "classes": 3,
        },
        "default": {"files": file},
        "full": {"files": file, "bands": 64, "frames": 80, "hop": 80, "width": 64, "epochs": 90, "drops": [30, 60]},
    }[profile]
    return {
        f"{net}, {words}": {**SETTINGS, **sizes, "net": net, "speakers": speakers}
        for speakers, words in SPLITS.items()
        for net in ("LeNet", "VGG")
    }


@cache
def heard(files: tuple[str, ...], bands: int, frames: int, hop: int) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
    """Spectrograms (N, 1, bands, frames), labels, speakers, and which rows are of the usual test set."""
    parts = [recordings(files[0], part) for part in ("train", "test")] if files else [made_up(), made_up()]
    pictures = [log_mel(sound, part.rate, bands, frames, hop=hop) for part in parts for sound in part.sounds]
    labels, speakers = (np.concatenate(both) for both in zip(*((p.labels, p.speakers) for p in parts), strict=True))
    usual = np.repeat([False, True], [len(part.sounds) for part in parts])
    return torch.from_numpy(np.stack(pictures)[:, None]), torch.from_numpy(labels), speakers, usual


def rows(case: Case, seed: int) -> Rows:
    """The usual split; or one speaker, another for each seed, is kept for the test, and all others are trained on."""
    x, y, speakers, usual = heard(tuple(case["files"]), case["bands"], case["frames"], case["hop"])
    test = torch.from_numpy(usual if case["speakers"] == "same" else speakers == seed % (speakers.max() + 1))
    return Rows(x[~test], y[~test], x[test], y[test])


def lenet(width: int, classes: int) -> nn.Sequential:
    """Two convolutions and two linear layers, as in the paper."""
    return nn.Sequential(
        *(nn.Conv2d(1, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 2 * width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(8)),
        *(nn.Flatten(), nn.Linear(128 * width, 8 * width), nn.ReLU(), nn.Linear(8 * width, classes)),
    )


def vgg(width: int, classes: int) -> nn.Sequential:
    """Six convolutions of 3 x 3 with batch normalisation, in three steps of resolution: a small kin of VGG-11."""
    channels = [1, width, width, 2 * width, 2 * width, 4 * width, 4 * width]
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(channels)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if i % 2 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], classes))


def train(case: Case, method: str, seed: int) -> dict[str, Any]:
    """One network from first weights to last."""
    data = rows(case, seed)
    torch.manual_seed(seed)
    net = {"LeNet": lenet, "VGG": vgg}[case["net"]](case["width"], case["classes"])
    fit(net, case, data, OPERATORS[method], seed, "b c h w")
    return quality(net.cpu(), data)


def claims() -> list[Claim]:
    """What Zhang et al. say of speech; where their numbers say otherwise, or they have none, it is asked here."""
    papers = {
        ("LeNet", "Mixup 0.1"): "Google commands, LeNet: test error 10.3 % -> 10.8 %",
        ("LeNet", "Mixup 0.2"): "Google commands, LeNet: test error 10.3 % -> 11.3 %",
        ("VGG", "Mixup 0.1"): "Google commands, VGG-11: test error 4.6 % -> 3.8 %",
        ("VGG", "Mixup 0.2"): "Google commands, VGG-11: test error 4.6 % -> 3.4 %",
    }
    found = []
    for method in list(OPERATORS)[1:]:
        for net in ("VGG", "LeNet"):
            text = f"{net}: {method} has a higher test accuracy than training without mixing"
            paper = papers.get((net, method), "")
            source = ZHANG if net == "VGG" and paper else "asked here"
            found.append(Claim(text, source, "accuracy", method, where={"net": net}, paper=paper))
    for method in ("Mixup 0.2", "Mixup 1.0"):
        text = f"{method} has a lower test NLL than training without mixing"
        found.append(Claim(text, "follows from less overconfidence", "nll", method, direction="lower"))
    return found


STUDY = Study(
    name="speech",
    title="Mixup of spectrograms: spoken digits",
    question=(
        "Zhang et al. 2018 mix the spectrograms of the Google commands just before the network, after five epochs "
        "without mixing, and find a lower error with VGG-11, the larger of two networks, and a higher one with LeNet. "
        "Here the words are 900 spoken digits of six speakers, and the networks small. Once 600 are trained on, and "
        "the test set has the same speakers; once all of one speaker are the test set, who was never heard, another "
        "one for each seed."
    ),
    cases=cases,
    methods={
        "none": "training without mixing",
        "Mixup 0.1": "`Mixup(0.1)` of log-mel spectrograms, one λ a batch, after the warm-up",
        "Mixup 0.2": "`Mixup(0.2)`, likewise",
        "Mixup 1.0": "`Mixup(1.0)`, likewise; not in the paper",
    },
    work=train,
    claims=claims(),
    notes=(
        "As in the paper: Adam, a learning rate of 0.003 divided by 10 after a third and two thirds of the epochs, 30 "
        "epochs, 5 of them warm-up, spectrograms padded with zeros. Other than there: 8 kHz, 32 mel bands, batches of "
        "20 in place of 100, as 600 or 750 recordings are trained on in place of 65,000.",
        "VGG has a quarter of the weights of LeNet here: which of them gains more says nothing of size.",
        "Where the speakers are known the split is the usual one for all seeds. Where one is unknown, the seed says "
        "who, and all of that speaker's 150 recordings are the test set.",
    ),
    packages=("matplotlib",),
    seeds=6,
    gpu=True,
)
