"""Tagged corpora: sentences with a tag for every token, read, augmented by SeqMix offline, written and batched."""

from __future__ import annotations

from .blocks import Block, Counts
from .bundled import people_and_places
from .generate import Augmented, Generation, augment_corpus, generate_blocks
from .mixed import MixedSentence
from .pieces import TaggedDataset, pad_tagged
from .reading import read_tagged
from .records import read_mixed
from .schemes import find_scheme, from_bio2, to_bio2
from .scorers import CausalLMScorer, NGramModel
from .tagged import TaggedCorpus, TaggedSentence
from .writing import Written, write_augmented

__all__ = [
    "Augmented",
    "Block",
    "CausalLMScorer",
    "Counts",
    "Generation",
    "MixedSentence",
    "NGramModel",
    "TaggedCorpus",
    "TaggedDataset",
    "TaggedSentence",
    "Written",
    "augment_corpus",
    "find_scheme",
    "from_bio2",
    "generate_blocks",
    "pad_tagged",
    "people_and_places",
    "read_mixed",
    "read_tagged",
    "to_bio2",
    "write_augmented",
]
