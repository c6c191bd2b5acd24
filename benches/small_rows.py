"""The same operations on small images, where what Python does around the loops counts as much as the loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from batches import Setup
from op_rows import cutmix_out, erasing, in_place, mixup_out

ROWS: dict[str, Callable[[Setup], Iterator[dict[str, Any]]]] = {
    "small-mixup-inplace": lambda s: in_place(s, "Mixup", s.small, "small-mixup-inplace", 3, 15),
    "small-mixup-out": lambda s: mixup_out(s, s.small, "small-mixup-out"),
    "small-cutmix-inplace": lambda s: in_place(s, "CutMix", s.small, "small-cutmix-inplace", 3, 15),
    "small-cutmix-out": lambda s: cutmix_out(s, s.small, "small-cutmix-out"),
    "small-erase": lambda s: erasing(s, s.small, "small-erase", "none", 12),
}
HEADLINE = tuple(ROWS)
