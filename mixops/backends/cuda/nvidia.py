"""Kernels on an NVIDIA GPU: compiled once, loaded once, launched on torch's current stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import MixTypeError
from .form import Form


class Nvidia:
    """The driver of CUDA tensors."""

    def serves(self, tensor: Tensor) -> bool:
        """Is it on an NVIDIA GPU?"""
        return tensor.is_cuda and torch.version.hip is None

    def capturing(self, device: Any) -> bool:
        """Is the current stream of the device being captured into a CUDA graph?"""
        with torch.cuda.device(device):
            return torch.cuda.is_current_stream_capturing()

    def kernel(self, form: Form, device: Any) -> Any:
        """The kernel of a form, compiled and loaded, for a device."""
        raise MixTypeError(f"kernels are not compiled for {device} yet: leave backend= away")

    def launch(
        self,
        kernel: Any,
        grid: tuple[int, int],
        block: int,
        arguments: np.ndarray,
        read: tuple[Tensor | None, ...],
        written: Tensor,
    ) -> None:
        """Put one launch into the current stream of the device that ``written`` lies on."""
        raise MixTypeError(f"kernels are not launched on {written.device} yet: leave backend= away")
