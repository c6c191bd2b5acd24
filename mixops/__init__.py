"""Mixup, CutMix, Cutout and their kin as batch operators: draw a plan once, apply it to any array."""

from typing import TYPE_CHECKING, Any

from . import presets
from .device_plan import DevicePlan
from .errors import MixError, MixTypeError, MixValueError
from .execute import mix, preload
from .fields import Field, Fields, Labels, evidence_of, mix_batch, spec_of
from .fills import Fill, Fills
from .memory import Pool, PoolStats, pool
from .nearest import TokenTable
from .ops import (
    Chain,
    CutMix,
    Cutoff,
    Cutout,
    HiddenCut,
    ManifoldMixup,
    Mixup,
    OneOf,
    Operator,
    RandomErasing,
    SentenceMixup,
    SeqMix,
    Sometimes,
    SpanMix,
    SSMix,
    TMix,
    TokenDelete,
    TokenSwap,
    WordMixup,
)
from .output import Output
from .plan import Plan
from .sequence import PlanSequence
from .spec import Spec
from .spell import operators, parse_op
from .targets import mixed_accuracy, pair_targets, soft_targets, sparse_targets

if TYPE_CHECKING:
    from .losses import SoftCrossEntropy as SoftCrossEntropy
    from .losses import consistency_loss as consistency_loss
    from .pair_loss import mixed_loss as mixed_loss

__all__ = [
    "Chain",
    "CutMix",
    "Cutoff",
    "Cutout",
    "DevicePlan",
    "Field",
    "Fields",
    "Fill",
    "Fills",
    "HiddenCut",
    "Labels",
    "ManifoldMixup",
    "MixError",
    "MixTypeError",
    "MixValueError",
    "Mixup",
    "OneOf",
    "Operator",
    "Output",
    "Plan",
    "PlanSequence",
    "Pool",
    "PoolStats",
    "RandomErasing",
    "SSMix",
    "SentenceMixup",
    "SeqMix",
    "Sometimes",
    "SpanMix",
    "Spec",
    "TMix",
    "TokenDelete",
    "TokenSwap",
    "TokenTable",
    "WordMixup",
    "evidence_of",
    "mix",
    "mix_batch",
    "mixed_accuracy",
    "operators",
    "pair_targets",
    "parse_op",
    "pool",
    "preload",
    "presets",
    "soft_targets",
    "sparse_targets",
    "spec_of",
]

# These need torch or JAX: they load when asked for, and stay out of __all__ so that a star import does without it.
_LAZY = {"SoftCrossEntropy": "losses", "consistency_loss": "losses", "mixed_loss": "pair_loss"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
