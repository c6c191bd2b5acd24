"""The operators. A new one is one file here and one line below."""

from .base import Op, Operator
from .combine import Chain, OneOf, Sometimes
from .cutmix import CutMix
from .cutoff import Cutoff
from .cutout import Cutout
from .edits import TokenDelete, TokenSwap
from .hidden_cut import HiddenCut
from .manifold_mixup import ManifoldMixup
from .mixup import Mixup
from .random_erasing import RandomErasing
from .sentence_mixup import SentenceMixup
from .seqmix import SeqMix
from .spans import SpanMix, SSMix
from .tmix import TMix
from .word_mixup import WordMixup

__all__ = [
    "Chain",
    "CutMix",
    "Cutoff",
    "Cutout",
    "HiddenCut",
    "ManifoldMixup",
    "Mixup",
    "OneOf",
    "Op",
    "Operator",
    "RandomErasing",
    "SSMix",
    "SentenceMixup",
    "SeqMix",
    "Sometimes",
    "SpanMix",
    "TMix",
    "TokenDelete",
    "TokenSwap",
    "WordMixup",
]
