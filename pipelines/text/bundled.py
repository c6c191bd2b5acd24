"""Sentences that come with the library: 480 questions, written for it, sorted by what they ask for."""

from __future__ import annotations

from pathlib import Path

from .sentences import Sentences, read_sentences


def questions() -> Sentences:
    """480 English questions of 3 to 25 words in six classes of 80: what kind of answer does each want?

    A number (ages and prices are numbers), a person, a place, a reason, a thing, or a time (points in time, and how
    long something takes). The first word often tells, but not always: "What is the name of the woman who ..." wants a
    person, "In what month ..." a time. They are for tests and demonstrations: too few to compare methods in earnest.

    Returns:
        Sentences with labels 0 to 5, in the order of the sorted classes.

    Example:
        >>> data = questions()
        >>> len(data), data.classes
        (480, ('number', 'person', 'place', 'reason', 'thing', 'time'))
        >>> data[80]["text"], data.classes[data[80]["label"]]
        ('Who left the gate open?', 'person')
    """
    return read_sentences(Path(__file__).with_name("questions.tsv"), text="question", label="kind")
