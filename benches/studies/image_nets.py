"""Small residual networks for images, in plain torch: stages named layer1, layer2, ... as in the papers' codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3 x 3 convolutions, normalised and activated before each, around a shortcut (He et al. 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        same = before == after and stride == 1
        self.shortcut = None if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x))
        own = x if self.shortcut is None else self.shortcut(h)
        return self.conv2(F.relu(self.norm2(self.conv1(h)))) + own


class PreActResNet(nn.Module):
    """Residual network whose stage i has ``width``·2ⁱ channels; (N, C, H, W) -> (N, classes) logits.

    Args:
        channels: of the images.
        classes: of the targets.
        width: channels of the first stage.
        blocks: of each stage.
        strides: of the first block of each stage.
    """

    def __init__(self, channels: int, classes: int, width: int, blocks: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        before, self.stages = width, []
        for i, (count, stride) in enumerate(zip(blocks, strides, strict=True)):
            after = width << i
            steps = [Block(before if j == 0 else after, after, stride if j == 0 else 1) for j in range(count)]
            self.stages.append(f"layer{i + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*steps))
            before = after
        self.norm = nn.BatchNorm2d(before)
        self.head = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return self.head(F.relu(self.norm(x)).mean((2, 3)))
