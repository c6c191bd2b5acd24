"""A small tagged corpus that comes with the library, written for it."""

from __future__ import annotations

from pathlib import Path

from .reading import read_tagged
from .tagged import TaggedCorpus


def people_and_places() -> TaggedCorpus:
    """40 English sentences of invented news, with persons, places and organisations tagged in BIO2.

    They are for tests and demonstrations: too few to compare methods in earnest.

    Example:
        >>> corpus = people_and_places()
        >>> corpus, corpus.tag_names[:3]
        (<TaggedCorpus: 40 sentences, 373 tokens, 7 tags>, ('O', 'B-LOC', 'B-ORG'))
    """
    return read_tagged(Path(__file__).with_name("people.conll"))
