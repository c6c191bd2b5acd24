"""Mixup, CutMix, Cutout and their kin as batch operators: draw a plan once, apply it to any array."""

from .ops import Chain, CutMix, Cutout, Mixup, OneOf, Operator, RandomErasing, Sometimes
from .plan import Plan, PlanSequence
from .errors import MixError, MixTypeError, MixValueError
from .execute import mix
from .fills import Fill, Fills
from .output import Output
from .spec import Spec
from .spell import operators, parse_op
