"""Tagged corpora: sentences with a tag for every token, read, augmented by SeqMix offline, written and batched."""

from __future__ import annotations

from .mixed import MixedSentence
from .tagged import TaggedCorpus, TaggedSentence

__all__ = ["MixedSentence", "TaggedCorpus", "TaggedSentence"]
