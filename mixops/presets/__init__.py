"""Peers: operators that draw what another library draws, exact given the same drawn parameters.

One function for each operator of a peer, ``<peer>_<operator>``, with the peer's own argument names; versioned where the
peer changed. What comes back is an ordinary operator: chain it, turn it off after an epoch
(``dataclasses.replace(op, until=95)``), draw plans from it. Numbers that a peer drew can be handed to ``draw`` in place
of a draw; the plan then pastes the same pixels and weighs the labels as the peer does.
"""

from .erasing import PeerErasing
from .keras_ import KerasCutMix, KerasErasing, keras_cutmix, keras_erasing, keras_mixup
from .kornia_ import KorniaCutMix, KorniaErasing, KorniaMixup, kornia_cutmix, kornia_erasing, kornia_mixup
from .others import clovaai_cutmix, cutout, fastai_cutmix, fastai_mixup, mmpretrain_cutmix, mmpretrain_mixup
from .shared import PeerCutMix
from .text import mixup_transformer
from .timm_ import TimmMixup, timm, timm_erasing
from .torchvision_ import torchvision_cutmix, torchvision_erasing, torchvision_mixup

__all__ = [
    "KerasCutMix",
    "KerasErasing",
    "KorniaCutMix",
    "KorniaErasing",
    "KorniaMixup",
    "PeerCutMix",
    "PeerErasing",
    "TimmMixup",
    "clovaai_cutmix",
    "cutout",
    "fastai_cutmix",
    "fastai_mixup",
    "keras_cutmix",
    "keras_erasing",
    "keras_mixup",
    "kornia_cutmix",
    "kornia_erasing",
    "kornia_mixup",
    "mixup_transformer",
    "mmpretrain_cutmix",
    "mmpretrain_mixup",
    "timm",
    "timm_erasing",
    "torchvision_cutmix",
    "torchvision_erasing",
    "torchvision_mixup",
]
