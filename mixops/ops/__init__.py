"""The operators. A new one is one file here and one line below."""

from .base import Op, Operator
from .combine import Chain, OneOf, Sometimes
from .cutmix import CutMix
from .cutout import Cutout
from .manifold_mixup import ManifoldMixup
from .mixup import Mixup
from .random_erasing import RandomErasing
from .sentence_mixup import SentenceMixup
from .tmix import TMix
from .word_mixup import WordMixup

__all__ = [
    "Chain",
    "CutMix",
    "Cutout",
    "ManifoldMixup",
    "Mixup",
    "OneOf",
    "Op",
    "Operator",
    "RandomErasing",
    "SentenceMixup",
    "Sometimes",
    "TMix",
    "WordMixup",
]
