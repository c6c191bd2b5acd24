"""What the studies on images share: prepared images, the training of a small residual network, its probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from folder import fetched_images, images
from grid import Case
from image_nets import PreActResNet
from mixops.pipelines.hidden import mix_hidden
from mixops.pipelines.metrics import accuracy, calibration_error, negative_log_likelihood
from torch import Tensor

import mixops as mx

CIFAR, FASHION = "images/cifar10_10k.npz", "images/fashion_mnist_10k.npz"
ZHANG, YUN = "Zhang et al. 2018", "Yun et al. 2019"
#: What every case says; see ``Images`` and ``training`` for what the words mean.
RECIPE: dict[str, Any] = {
    "files": [],
    "fetch": "",
    "rows": 0,
    "pool": 1,
    "classes": 10,
    "width": 24,
    "blocks": [1, 1, 1],
    "strides": [2, 2, 2],
    "batch": 100,
    "learning_rate": 0.1,
    "drops": [],
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "crop": 0,
}
#: For two cores: 10,000 images of half the side and a narrow network, less than half a minute a run.
SMALL: dict[str, Any] = {**RECIPE, "pool": 2, "epochs": 15, "width": 16}
#: For seconds, on made-up images.
TINY: dict[str, Any] = {**RECIPE, "pool": 2, "epochs": 2, "width": 4, "batch": 20}
#: Zhang et al. 2018, section 3.2, for a GPU.
PAPER: dict[str, Any] = {
    **RECIPE,
    "fetch": "CIFAR10",
    "width": 64,
    "blocks": [2, 2, 2, 2],
    "strides": [1, 2, 2, 2],
    "batch": 128,
    "drops": [100, 150],
    "weight_decay": 1e-4,
    "crop": 4,
    "epochs": 200,
}
#: What the pages of default runs must say, as a case names one momentum.
CYCLE = (
    "In default runs the learning rate goes up to `learning_rate` and down again in one cycle, and the momentum from "
    "0.95 down to 0.85 and up again, in place of `momentum`."
)


class Images(NamedTuple):
    """Images (N, C, H, W) float32 of mean 0 and SD 1 in each channel of the training set, and labels (N,) int64.

    ``mean`` and ``sd`` (1, C, 1, 1) are those of the training set where black is 0 and white is 1.
    """

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    mean: Tensor
    sd: Tensor


def images_of(case: Case, seed: int = 0) -> Images:
    """The images of a case: made up where it names neither a file of the folder nor a data set to fetch.

    They are averaged over squares of ``pool`` pixels. With ``rows`` above 0 so many of the training images, drawn by
    the seed: fewer are part of more.
    """
    whole = prepared(tuple(case["files"]), case["fetch"], case["pool"])
    if not case["rows"]:
        return whole
    # A stream of its own: that of epoch 0 orders the batches.
    chosen = torch.from_numpy(mx.streams.sample_stream(seed, 0, 0).permutation(len(whole.x))[: case["rows"]])
    chosen = chosen.to(whole.x.device)
    return whole._replace(x=whole.x[chosen], y=whole.y[chosen])


@cache
def prepared(files: tuple[str, ...], fetch: str, pool: int) -> Images:
    """Images of mean 0 and SD 1, averaged over squares of ``pool`` pixels, on the GPU if there is one."""
    found = images(files[0]) if files else fetched_images(fetch) if fetch else made_up()
    x, test_x = (F.avg_pool2d(torch.from_numpy(part).float() / 255, pool) for part in (found[0], found[2]))
    mean, sd = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x, test_x = (((part - mean) / sd).to(place, memory_format=torch.channels_last) for part in (x, test_x))
    y, test_y = (torch.from_numpy(part).to(place) for part in (found[1], found[3]))
    return Images(x, y, test_x, test_y, mean.to(place), sd.to(place))


def made_up() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A few noisy images of ten classes, each a pattern of its own."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (10, 1, 16, 16))
    labels = np.repeat(np.arange(10), 20)
    noisy = [patterns[labels] * 0.4 + rng.integers(0, 150, (200, 1, 16, 16)) for _ in range(2)]
    return noisy[0].astype(np.uint8), labels, noisy[1].astype(np.uint8), labels


def watched(count: int, among: int) -> np.ndarray:
    """So many rows of so many, drawn, as files may be sorted by class; the same in all runs."""
    return mx.streams.order_stream(0, 0).permutation(among)[:count]


def network(case: Case, data: Images, seed: int) -> PreActResNet:
    """A network with the first weights of a seed."""
    torch.manual_seed(seed)
    net = PreActResNet(data.x.shape[1], case["classes"], case["width"], case["blocks"], case["strides"])
    return net.to(data.x.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it


def training(net: torch.nn.Module, case: Case, data: Images, op: mx.Operator | None, seed: int) -> Iterator[int]:
    """Train a network, and stop after each epoch, counted from 1, for a look at it.

    By SGD with Nesterov's momentum. The learning rate is divided by 10 after each epoch that ``drops`` names. Without
    one it rises to ``learning_rate`` and falls in one cycle, and the momentum falls and rises, whatever ``momentum``
    says. With ``crop`` above 0 images are moved and mirrored before they are mixed.
    """
    rate, steps = case["learning_rate"], -(-len(data.x) // case["batch"])
    optimizer = torch.optim.SGD(
        net.parameters(), rate, case["momentum"], weight_decay=case["weight_decay"], nesterov=True
    )
    schedule: torch.optim.lr_scheduler.LRScheduler
    if case["drops"]:
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [epoch * steps for epoch in case["drops"]])
    else:
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rate, steps * case["epochs"], base_momentum=0.85, max_momentum=0.95
        )
    for epoch in range(case["epochs"]):
        order = mx.streams.order_stream(seed, epoch).permutation(len(data.x))
        net.train()
        for step in range(steps):
            chosen = torch.from_numpy(order[step * case["batch"] : (step + 1) * case["batch"]]).to(data.x.device)
            x = data.x[chosen]
            if case["crop"]:
                x = moved(x, case["crop"], mx.streams.sample_stream(seed, epoch, step, stage=1))
            loss = mixed_step(net, op, x, data.y[chosen], mx.streams.plan_stream(seed, epoch, step))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        yield epoch + 1


def trained(case: Case, data: Images, op: mx.Operator | None, seed: int) -> torch.nn.Module:
    """A network from first weights to last."""
    net = network(case, data, seed)
    for _ in training(net, case, data, op, seed):
        pass
    return net


def moved(x: Tensor, pad: int, rng: np.random.Generator) -> Tensor:
    """Each image mirrored or not, and moved by up to ``pad`` pixels along both axes; zeros come in at the edges."""
    n, _, h, w = x.shape
    flip = torch.from_numpy(rng.random(n) < 0.5).to(x.device)[:, None, None, None]
    top, left = torch.from_numpy(rng.integers(0, 2 * pad + 1, (2, n, 1))).to(x.device)
    rows, columns = (start + torch.arange(size, device=x.device) for start, size in ((top, h), (left, w)))
    padded = F.pad(torch.where(flip, x.flip(3), x), (pad,) * 4).movedim(1, 3)
    n_th = torch.arange(n, device=x.device)[:, None, None]
    return padded[n_th, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def mixed_step(
    net: torch.nn.Module,
    op: mx.Operator | None,
    x: Tensor,
    y: Tensor,
    rng: np.random.Generator,
    layout: str = "b c h w",
) -> Tensor:
    """The loss of a batch, mixed by what the operator draws."""
    if op is None:
        return F.cross_entropy(net(x), y)
    plan = op.draw(rng, mx.Spec.like(x, layout))
    targets = mx.pair_targets(y, plan)
    if plan.layer is None:
        return mx.mixed_loss(F.cross_entropy, net(mx.mix(x, plan, layout, threads=1)), *targets)
    with mix_hidden(net, plan.layer, plan, layout):
        logits = net(x)
    return mx.mixed_loss(F.cross_entropy, logits, *targets)


@torch.no_grad()
def probabilities(net: torch.nn.Module, x: Tensor) -> np.ndarray:
    """(N, classes) of images that are not mixed."""
    net.eval()
    return torch.cat([net(part).softmax(1) for part in x.split(500)]).double().cpu().numpy()


class Tested(Protocol):
    """What holds a test set: ``Images``, and other data that are trained on."""

    @property
    def test_x(self) -> Tensor: ...

    @property
    def test_y(self) -> Tensor: ...


def quality(net: torch.nn.Module, data: Tested) -> dict[str, float]:
    """What every study of classification measures, of the whole test set."""
    probs, labels = probabilities(net, data.test_x), data.test_y.cpu().numpy()
    return {
        "accuracy": accuracy(probs, labels),
        "nll": negative_log_likelihood(probs, labels),
        "ece": calibration_error(probs, labels),
    }


def share_right(net: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    """Accuracy on images, as they are."""
    return accuracy(probabilities(net, x), y.cpu().numpy())
