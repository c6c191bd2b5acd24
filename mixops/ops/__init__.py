"""The operators. A new one is one file here and one line below."""

from .base import Op, Operator
from .combine import Chain, OneOf, Sometimes
from .cutmix import CutMix
from .cutout import Cutout
from .mixup import Mixup
from .random_erasing import RandomErasing

__all__ = ["Chain", "CutMix", "Cutout", "Mixup", "OneOf", "Op", "Operator", "RandomErasing", "Sometimes"]
