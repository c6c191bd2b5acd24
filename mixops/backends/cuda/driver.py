"""The driver: kernels are loaded and launched here, and nowhere else."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from torch import Tensor

from .form import Form


class Driver(Protocol):
    """What the engine asks of whatever runs kernels."""

    def serves(self, tensor: Tensor) -> bool:
        """Does the tensor lie where kernels run?"""

    def capturing(self, device: Any) -> bool:
        """Is the current stream of the device being captured into a CUDA graph?"""

    def kernel(self, form: Form, device: Any) -> Any:
        """The kernel of a form, compiled and loaded, for a device."""

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


_driver: Driver | None = None


def current() -> Driver:
    """The driver of this process."""
    global _driver
    if _driver is None:
        from .nvidia import Nvidia

        _driver = Nvidia()
    return _driver
