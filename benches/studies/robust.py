"""Attacks by gradients, and what lies between images: python -m benches.studies robust"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import figures
import numpy as np
import torch
import torch.nn.functional as F
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
    Images,
    images_of,
    quality,
    share_right,
    trained,
    watched,
)
from study import Study
from torch import Tensor, nn

import mixops as mx

OPERATORS: dict[str, mx.Operator | None] = {"none": None, "Mixup": mx.Mixup(1.0), "CutMix": mx.CutMix(1.0)}
#: λ at which the way from one image to another is looked at.
PLACES = tuple(np.linspace(0, 1, 11).round(1).tolist())
#: A network whose gradients another is attacked with has the first weights and the order of this seed more.
ANOTHER = 1000
#: Attack -> its name, and its steps.
ATTACKS = {"fgsm": ("FGSM", 1), "ifgsm": ("I-FGSM", 10)}


def cases(profile: str) -> dict[str, Case]:
    """The data sets of a profile; ``epsilon`` is in steps of 0..255."""
    looks = {"attacked": 1000, "pairs": 1000, "epsilon": 4}
    if profile == "tiny":
        return {"made up": {**TINY, "attacked": 60, "pairs": 40, "epsilon": 4}}
    if profile == "default":
        return {
            "CIFAR-10": {**SMALL, **looks, "files": [CIFAR]},
            "Fashion-MNIST": {**SMALL, **looks, "files": [FASHION]},
        }
    return {"CIFAR-10": {**PAPER, **looks, "attacked": 10000, "pairs": 10000}}


def train(case: Case, method: str, seed: int) -> dict[str, Any]:
    """One network from first weights to last, attacked by its own gradients and by those of another."""
    data = images_of(case)
    net, other = trained(case, data, OPERATORS[method], seed), another(json.dumps(case), seed)
    rows = watched(case["attacked"], len(data.test_x))
    x, y = data.test_x[rows], data.test_y[rows]
    errors = {}
    for attack, (_, steps) in ATTACKS.items():
        for box, guide in (("white", net), ("black", other)):
            near = attacked(guide, x, y, data, case["epsilon"], steps)
            errors[f"{box}_{attack}"] = 1 - share_right(net, near, y)
    misses, norms = between(net, data, case["pairs"], seed)
    return {
        **quality(net, data),
        **errors,
        "misses": float(np.mean(misses)),
        "misses_halfway": misses[PLACES.index(0.5)],
        "gradient": float(np.mean(norms)),
        "miss_curve": misses,
        "gradient_curve": norms,
    }


@lru_cache(maxsize=2)
def another(case: str, seed: int) -> nn.Module:
    """The network that the black box attacks on all methods of a seed take their gradients from, not mixed."""
    said = json.loads(case)
    return trained(said, images_of(said), None, seed + ANOTHER)


def attacked(net: nn.Module, x: Tensor, y: Tensor, data: Images, epsilon: float, steps: int) -> Tensor:
    """Images moved against their labels: x ← clip(x + s·sign ∇ₓL), no value by more than ``epsilon`` of 255.

    One step of s = ε is FGSM (Goodfellow et al. 2015); more of them, each of s = ε/4, are I-FGSM (Kurakin et al.
    2017, whose step is 1 where ε is 4). Values stay between black and white.
    """
    net.eval()
    reach, white = epsilon / 255 / data.sd, (1 - data.mean) / data.sd
    low, high = torch.maximum(x - reach, -data.mean / data.sd), torch.minimum(x + reach, white)
    step = reach if steps == 1 else reach / 4
    near = x
    for _ in range(steps):
        gradient = torch.cat([loss_gradient(net, *part) for part in zip(near.split(500), y.split(500), strict=True)])
        near = torch.clamp(near + step * gradient.sign(), low, high)
    return near


def loss_gradient(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """∇ₓ of the cross-entropy of each image."""
    x = x.detach().requires_grad_()
    (found,) = torch.autograd.grad(F.cross_entropy(net(x), y, reduction="sum"), x)
    return found


def between(net: nn.Module, data: Images, pairs: int, seed: int) -> tuple[list[float], list[float]]:
    """Misses and gradients on the way from one training image to another, x = λ·xᵢ + (1 - λ)·xⱼ, at each λ of PLACES.

    Returns:
        The share of pairs whose likeliest class is neither of their two, and the mean norm of ∇ₓ of the loss
        λ·L(yᵢ) + (1 - λ)·L(yⱼ), both at each λ.
    """
    net.eval()
    rows = watched(pairs, len(data.x))
    x, y = data.x[rows], data.y[rows]
    # The classes of each pair, at all λ: where λ is 0 or 1, targets have one class left.
    own, other, _ = mx.pair_targets(y, pairs_at(0.5, len(x), seed))
    misses, norms = [], []
    for lam in PLACES:
        plan = pairs_at(lam, len(x), seed)
        mixed = mx.mix(x, plan, "b c h w", threads=1)
        found = []
        whole = (mixed, own, other, *mx.pair_targets(y, plan))
        for part, one, two, *targets in zip(*(t.split(500) for t in whole), strict=True):
            part.requires_grad_()
            logits = net(part)
            loss = mx.mixed_loss(F.cross_entropy, logits, *targets) * len(part)  # the sum: each gradient is a row's own
            (gradient,) = torch.autograd.grad(loss, part)
            found.append((missed(logits.detach(), one, two), gradient.flatten(1).norm(dim=1)))
        misses.append(float(torch.cat([neither for neither, _ in found]).float().mean()))
        norms.append(float(torch.cat([norm for _, norm in found]).mean()))
    return misses, norms


def pairs_at(lam: float, rows: int, seed: int) -> mx.Plan:
    """Each image with another, blended by λ: the same stream, and so the same pairs, at each λ."""
    return mx.Mixup(pairing="derange").draw(mx.streams.plan_stream(seed), mx.Spec(rows), lam=lam)


def missed(logits: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """(N,) whether the likeliest class is neither of two."""
    likeliest = logits.argmax(1)
    return (likeliest != own) & (likeliest != other)


def claims() -> list[Claim]:
    """Table 3 and figure 2 of Zhang et al., table 11 and figure 5 of Yun et al."""
    plain, resnet = "training without mixing", "ImageNet, ResNet-101: error"
    found = []
    for measure, says, paper in (
        ("white_fgsm", "FGSM by its own gradients", f"{resnet} 90.7 % -> 75.2 %"),
        ("white_ifgsm", "I-FGSM by its own gradients", f"{resnet} 99.9 % -> 99.6 %"),
        ("black_fgsm", "FGSM by another network's gradients", f"{resnet} 57.0 % -> 46.0 %"),
        ("black_ifgsm", "I-FGSM by another network's gradients", f"{resnet} 57.3 % -> 40.9 %"),
    ):
        text = f"Under {says}, Mixup has a lower error than {plain}"
        found.append(Claim(text, ZHANG, measure, "Mixup", direction="lower", paper=paper))
    for against, beside, paper in (
        ("none", plain, "ImageNet, ResNet-50: error 91.8 % -> 69.0 %"),
        ("Mixup", "Mixup", "ImageNet, ResNet-50: error 75.6 % -> 69.0 %"),
    ):
        text = f"Under FGSM by its own gradients, CutMix has a lower error than {beside}"
        found.append(Claim(text, YUN, "white_fgsm", "CutMix", against, "lower", paper=paper))
    for measure, where, says in (
        ("misses_halfway", "Halfway between", "fewer misses"),
        ("misses", "Between", "fewer misses"),
        ("gradient", "Between", "a smaller gradient"),
    ):
        text = f"{where} training images, Mixup has {says} than {plain}"
        found.append(Claim(text, ZHANG, measure, "Mixup", direction="lower", paper="CIFAR-10: figure 2, at each λ"))
    text = f"Between training images, CutMix has fewer misses than {plain}"
    found.append(Claim(text, YUN, "misses", "CutMix", direction="lower", paper="ImageNet test images: figure 5"))
    return found


#: Error under each attack, in the order of the paper's tables.
UNDER_ATTACK = {
    f"{box}_{attack}": Measure(f"error under {name} ({box} box), %", "lower", 100, " points", 2)
    for box in ("white", "black")
    for attack, (name, _) in ATTACKS.items()
}


def attack_figure(report: Mapping[str, Any]) -> Any:
    """Paired differences of the error under each attack."""
    return figures.differences(report, UNDER_ATTACK)


def between_figure(report: Mapping[str, Any]) -> Any:
    """Misses and gradients over λ."""
    panels = {
        "miss_curve": Measure("neither class, %", "", 100),
        "gradient_curve": Measure("norm of the gradient", ""),
    }
    return figures.learning_curves(report, panels, "λ, the share of the first image", PLACES)


STUDY = Study(
    name="robust",
    title="Attacks by gradients, and what lies between images",
    question=(
        "A network trained with Mixup is said to be harder to attack by gradients, its own (white box) and those of "
        "another network (black box), and to behave better between training images: it predicts one of the two classes "
        "more often, and its loss changes less with the image (Zhang et al. 2018). Yun et al. 2019 find CutMix more "
        "robust still. The same residual network is trained with either and with neither, from the same first weights, "
        "on the same batches in the same order, and asked for all of it."
    ),
    cases=cases,
    methods={
        "none": "training without mixing",
        "Mixup": "`Mixup(alpha=1.0)`, one λ a batch",
        "CutMix": "`CutMix(alpha=1.0)`, one λ and one box a batch",
    },
    work=train,
    claims=claims(),
    measures={
        **UNDER_ATTACK,
        "misses": Measure("neither class between images, %", "lower", 100, " points", 2),
        "misses_halfway": Measure("neither class halfway, %", "lower", 100, " points", 2),
        "gradient": Measure("norm of the gradient between images", "lower", 1, "", 3),
    },
    lead="white_fgsm",
    figures={"attacks": attack_figure, "between": between_figure},
    notes=(
        "Attacks move each value of a test image (`attacked` of them) by at most `epsilon` of 255: FGSM in one step, "
        "I-FGSM in ten steps of a quarter of it, which is the step of Kurakin et al. 2017 at ε = 4; the paper names ε "
        "= 4 and ten iterations, and not how large a step is. Values stay between black and white.",
        "Images are averaged over squares of `pool` x `pool` pixels before they are attacked: 4 of 255 on such a pixel "
        "is a stronger attack than on one of the whole image, and networks here are weaker than the papers'. Compare "
        "directions, and methods with each other.",
        "The other network of the black box is one trained without mixing from other first weights in another order, "
        "the same for all methods of a seed. It is nearer to `none` than to the rest, here as in the paper.",
        "An error under attack holds the error without attack: see the accuracy.",
        "Robust against these attacks is not robust: stronger ones, made for the method, are not tried.",
        "Pairs are `pairs` training images, each with another, in evaluation mode. A miss is a prediction of neither "
        "class of the pair. The gradient is that of the loss λ·L(yᵢ) + (1 - λ)·L(yⱼ) with respect to the image of "
        "mean 0 and SD 1, its norm a mean over the pairs; the tables give means over λ = 0, 0.1, ..., 1.",
        "Near λ = 0 and 1 a miss is nearly an error on a training image, of which one of the two classes is left: the "
        "mean over λ holds these, and a network that fits them less well has more of them; the measure halfway holds "
        "none.",
        "The paper attacks networks of ImageNet, and looks between images of CIFAR-10; default runs here take 10,000 "
        "images of half the side, small networks and short trainings.",
        CYCLE,
        "The split is the same for all seeds: intervals tell of first weights and order, not of other data.",
    ),
    packages=("matplotlib", "torchvision"),
    seeds=5,
    gpu=True,
)
