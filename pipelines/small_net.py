"""A small convolutional network for small images, of the size that a CPU trains in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixops import MixValueError

if TYPE_CHECKING:
    from torch import nn

#: Side of the map that the last layer reads, and the least side of an image.
_SIDE = 4
#: Channels of the first block; each that follows has twice as many, up to the most.
_FIRST, _MOST = 16, 64


def small_network(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Convolutions that halve an image, at least once, to a shorter side of 8 pixels or less; then one linear layer.

    Args:
        shape: (channels, height, width) of an image, 4 pixels a side or more; or (features,) of a row of numbers, for
            which it is two hidden layers.
        classes: how many logits.

    Returns:
        A network (N, *shape) float32 -> (N, classes) logits, its first weights drawn from torch's generator.

    Raises:
        MixError: if shape is neither, or an image is smaller.

    Example:
        >>> import torch
        >>> small_network((3, 32, 32), 10)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    from torch import nn

    if len(shape) == 1 and shape[0] > 0:
        return nn.Sequential(
            nn.Linear(shape[0], 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, classes)
        )
    if len(shape) != 3 or shape[0] < 1 or min(shape[1:]) < _SIDE:
        raise MixValueError(
            f"small_network: shape {shape}, expected (features,), or (channels, height, width) of {_SIDE} pixels "
            "a side or more"
        )

    def block(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]

    width, side = _FIRST, min(shape[1:]) // 2
    layers = [*block(shape[0], width), nn.MaxPool2d(2)]
    while side > 2 * _SIDE:
        before, width, side = width, min(2 * width, _MOST), side // 2
        layers += [*block(before, width), nn.MaxPool2d(2)]
    before, width = width, min(2 * width, _MOST)
    layers += [*block(before, width), *block(width, width)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(_SIDE), nn.Flatten(), nn.Linear(width * _SIDE**2, classes))
