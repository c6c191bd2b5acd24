"""Rows of ids in one compiled call: what a batch of tokens costs is the preparation, not the bytes.

A check of its own precedes the general way, which knows every layout, kind and error. This one knows a single case and
leaves everything else, wrong input too, to that way: it answers None, and nothing has happened.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..plan import Plan

#: Batches of more bytes than this gain nothing: there the general way streams them, on several threads.
SMALL = 1 << 20

_IDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def pasted(x: Any, plan: Plan) -> Any:
    """The new rows of a small batch of ids, (B, T), under a plan that only pastes tokens of rows; None for all else.

    Args:
        x: a NumPy array, or a tensor on the CPU.
        plan: of rank 1.

    Returns:
        An array or a tensor like x, or None: the general way is then to be taken.
    """
    torch: Any = sys.modules.get("torch")
    tensor = torch is not None and isinstance(x, torch.Tensor)
    if tensor:
        if not x.is_cpu or x.is_floating_point() or x.is_complex() or x.layout is not torch.strided:
            return None
        array = x.numpy()
    elif type(x) is np.ndarray:
        array = x
    else:
        return None
    if array.ndim != 2 or array.dtype.kind not in "iub" or plan.shape != array.shape[1:] or array.nbytes > SMALL:
        return None
    if not array.flags.c_contiguous:
        return None
    from .token_kernel import paste

    bits = array.view(_IDS[array.itemsize])
    bits.flags.writeable = False  # one compiled form for arrays that may be written and for those that may not
    out = np.empty((plan.base.size, array.shape[1]), bits.dtype)
    if not paste(bits, plan.base, plan.partner, plan.box, plan.donor, plan.opacity, out):
        return None
    result = out.view(array.dtype)
    return torch.from_numpy(result) if tensor else result
