"""Small arrays on their way from the host to a device."""

from __future__ import annotations

from typing import Any

import numpy as np


def beside(array: np.ndarray, like: Any) -> Any:
    """The array as a tensor on the device of ``like``, sent in the order of the current stream: the host does not wait.

    Args:
        array: writable, of a dtype that torch knows; on the CPU the tensor shares its memory.
        like: a tensor.
    """
    import torch

    tensor = torch.from_numpy(array)
    if like.is_cuda:  # from other memory than pinned a copy may wait for all the work before it
        tensor = tensor.pin_memory()
    return tensor.to(like.device, non_blocking=True)
