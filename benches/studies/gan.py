"""Does mixup of real and generated samples stabilise the training of a GAN (Zhang et al. 2018, figure 5)?"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import figures
import numpy as np
import torch
import torch.nn.functional as F
from densities import DENSITIES, Density, energy_distance
from evidence import Claim, Measure
from grid import Case
from image_runs import ZHANG
from study import Study
from torch import Tensor, nn

import mixops as mx

OPERATORS: dict[str, mx.Operator | None] = {"none": None, "Mixup": mx.Mixup(0.2, per="sample")}
PLACE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
#: How often samples are looked at, evenly spread over the training.
LOOKS = 12
#: Points of a figure, kept in the JSON.
SHOWN = 200
SETTINGS: dict[str, Any] = {
    "hidden": 3,
    "batch": 128,
    "learning_rate": 1e-3,
    "steps_of_discriminator": 5,
    "looked_at": 1000,
}


def cases(profile: str) -> dict[str, Case]:
    """Two densities, and the two losses that a generator is trained with."""
    sizes: dict[str, Any] = {
        "tiny": {"width": 8, "iterations": 12, "shown": [6, 12], "batch": 16, "looked_at": 100},
        "default": {"width": 64, "iterations": 2000, "shown": [10, 100, 500, 1000, 2000]},
        "full": {"width": 512, "iterations": 20000, "shown": [10, 100, 1000, 10000, 20000]},
    }[profile]
    return {
        f"{density}, {loss}": {**SETTINGS, **sizes, "files": [], "density": density, "loss": loss}
        for loss in ("minimax", "non-saturating")
        for density in DENSITIES
    }


def perceptron(width: int, hidden: int, out: int) -> nn.Sequential:
    """ReLU layers from the plane to ``out`` numbers."""
    widths = [2, *[width] * hidden]
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, out))


def told_apart(d: nn.Module, op: mx.Operator | None, real: Tensor, fake: Tensor, rng: np.random.Generator) -> Tensor:
    """The loss of the discriminator: real samples are 1, generated ones are 0, mixtures are what is real of them.

    Every real sample is mixed with a generated one and the other way round: loss(d(λx + (1 - λ)g(z)), λ), with a λ for
    each of the rows.
    """
    x, y = torch.cat([real, fake]), torch.cat([torch.ones_like(real[:, 0]), torch.zeros_like(fake[:, 0])])
    if op is None:
        return F.binary_cross_entropy_with_logits(d(x)[:, 0], y)
    partner = np.roll(np.arange(len(x)), len(real))
    plan = op.draw(rng, mx.Spec(len(x)), partner=partner)
    return F.binary_cross_entropy_with_logits(d(mx.mix(x, plan, "b d", threads=1))[:, 0], mx.soft_targets(y, plan))


def train(case: Case, method: str, seed: int) -> dict[str, Any]:
    """One generator and its discriminator from first weights to last."""
    density, op, batch = DENSITIES[case["density"]](), OPERATORS[method], case["batch"]
    torch.manual_seed(seed)
    g, d = (perceptron(case["width"], case["hidden"], out).to(PLACE) for out in (2, 1))
    learn_g, learn_d = (torch.optim.Adam(net.parameters(), case["learning_rate"], fused=True) for net in (g, d))
    held_out = density.draw(np.random.default_rng(1), case["looked_at"])
    found: list[dict[str, Any]] = []
    looks = set(np.linspace(0, case["iterations"], LOOKS + 1)[1:].astype(int).tolist())
    for step in range(1, case["iterations"] + 1):
        data = mx.streams.order_stream(seed, step)
        for turn in range(case["steps_of_discriminator"]):
            real = torch.from_numpy(density.draw(data, batch)).to(PLACE)
            with torch.no_grad():
                fake = g(noise(data, batch))
            loss = told_apart(d, op, real, fake, mx.streams.plan_stream(seed, step, turn))
            learn_d.zero_grad()
            loss.backward()
            learn_d.step()
        real, fake = torch.from_numpy(density.draw(data, batch)).to(PLACE), g(noise(data, batch))
        if case["loss"] == "minimax":
            loss = -told_apart(d, op, real, fake, mx.streams.plan_stream(seed, step, case["steps_of_discriminator"]))
        else:
            loss = F.binary_cross_entropy_with_logits(d(fake)[:, 0], torch.ones_like(fake[:, 0]))
        learn_g.zero_grad()
        loss.backward()
        learn_g.step()
        if step in looks or step in case["shown"]:
            found.append(looked_at(g, density, held_out, step))
    late = [one for one in found if one["step"] in looks and 2 * one["step"] > case["iterations"]]
    last = found[-1]
    return {
        "modes": last["modes"] / len(density.centres),
        "good": last["good"],
        "distance": last["distance"],
        "late_distance": float(np.mean([one["distance"] for one in late])),
        "distances": [one["distance"] for one in found if one["step"] in looks],
        **({"points": [one["points"] for one in found if one["step"] in case["shown"]]} if seed == 0 else {}),
    }


def noise(rng: np.random.Generator, n: int) -> Tensor:
    """(n, 2) standard normal input of the generator."""
    return torch.from_numpy(rng.standard_normal((n, 2), dtype=np.float32)).to(PLACE)


@torch.no_grad()
def looked_at(g: nn.Module, density: Density, held_out: np.ndarray, step: int) -> dict[str, Any]:
    """The generator's samples of one noise, the same in all runs, beside samples of the density."""
    points = g(noise(np.random.default_rng(2), len(held_out))).cpu().numpy()
    modes, good = density.modes(points)
    distance = energy_distance(points, held_out)
    return {
        "step": step,
        "modes": modes,
        "good": good,
        "distance": distance,
        "points": points[:SHOWN].round(2).tolist(),
    }


def sample_figure(report: Mapping[str, Any]) -> Any:
    """Samples of seed 0 at some iterations, a row for each case and method, on those of the density.

    The points are pixels in the SVG: as shapes they would make it larger than all others together.
    """
    cases, methods = report["cases"], list(report["methods"])
    shown = max((case["shown"] for case in cases.values()), key=len)
    figure = figures.new_figure(2.2 * len(shown), 2.25 * len(cases) * len(methods) + 0.4)
    axes = figure.subplots(len(cases) * len(methods), len(shown), squeeze=False)
    points = {(r["case"], r["method"]): r["outcome"]["points"] for r in report["runs"] if r["seed"] == 0}
    pairs = [(case, method) for case in cases for method in methods]
    for row, (case, method) in zip(axes, pairs, strict=True):
        real = DENSITIES[cases[case]["density"]]().draw(np.random.default_rng(1), SHOWN)
        for axis, step, found in zip(row, cases[case]["shown"], points[case, method], strict=True):
            axis.scatter(*real.T, s=3, color="#bbbbbb", linewidths=0, rasterized=True)
            axis.scatter(
                *np.transpose(found), s=4, color=figures.colour_of(methods, method), linewidths=0, rasterized=True
            )
            axis.set(xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), aspect="equal", xticks=[], yticks=[])
            axis.set_title(f"{step} iterations", fontsize=8)
        row[0].set_ylabel(f"{case}\n{method}", fontsize=8)
    return figure


def distance_figure(report: Mapping[str, Any]) -> Any:
    """Energy distance while training."""
    panels = {"distances": Measure("energy distance to held-out samples", "")}
    looks = len(report["runs"][0]["outcome"]["distances"])
    iterations = next(iter(report["cases"].values()))["iterations"]
    return figures.learning_curves(report, panels, "iteration", np.linspace(0, iterations, looks + 1)[1:].astype(int))


def claims() -> list[Claim]:
    """What Zhang et al. show in figure 5, as numbers."""
    found = []
    for measure, direction, says in (
        ("late_distance", "lower", "keeps samples nearer to the density, mean over the second half of the training"),
        ("distance", "lower", "ends with samples nearer to the density"),
        ("modes", "higher", "ends with more modes covered"),
        ("good", "higher", "ends with a larger share of samples at a mode"),
    ):
        for loss in ("minimax", "non-saturating"):
            text = f"{loss} loss: mixup of real and generated samples {says}"
            paper = "figure 5, a picture without numbers; α = 0.2" if loss == "minimax" else ""
            where = {"loss": loss}
            found.append(Claim(text, ZHANG, measure, "Mixup", direction=direction, where=where, paper=paper))
    return found


STUDY = Study(
    name="gan",
    title="Mixup for the discriminator of a GAN",
    question=(
        "Zhang et al. 2018 give the discriminator of a GAN mixtures of real and generated samples, λx + (1 - λ)g(z), "
        "which it is to tell λ of, and show by pictures of two densities in the plane that this stabilises the "
        "training. Here a generator learns eight Gaussians on a ring, or 25 on a grid, from the same first weights, "
        "samples and noise, with and without. How far its samples are from the density is measured all along."
    ),
    cases=cases,
    methods={
        "none": "the discriminator sees real and generated samples",
        "Mixup": '`Mixup(0.2, per="sample")`, each real sample paired with a generated one',
    },
    work=train,
    claims=claims(),
    common={
        "late_distance": Measure("energy distance over the second half", "lower", 1, "", 4),
        "distance": Measure("energy distance", "lower", 1, "", 4),
        "modes": Measure("modes covered, %", "higher", 100, " points", 1),
        "good": Measure("good samples, %", "higher", 100, " points", 1),
    },
    figures={"samples": sample_figure, "distances": distance_figure},
    notes=(
        "Minimax is the loss that the paper writes: the generator raises what the discriminator lowers, mixed or not. "
        "Non-saturating is what most people train with: the generator's samples, not mixed, are to be taken for real.",
        "As in the paper: three hidden layers of ReLU, Adam with its usual settings, batches of 128, five steps of the "
        "discriminator for one of the generator. Other than there, unless `--full`: layers of 64, not 512, and 2,000 "
        "iterations, not 20,000.",
        "Distance is the energy distance between 1,000 samples and 1,000 of the density. A sample is good within 4 SD "
        "of a mode; a mode is covered that has a tenth of its share of good samples. Seed 0 is the one in the picture.",
        "The paper draws one λ a batch in its code for images and does not say here; each sample has its own here.",
    ),
    packages=("matplotlib",),
    seeds=6,
    gpu=True,
)
