"""How well entities were found: precision, recall and F1 over whole entities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mixops import MixTypeError, MixValueError

MODES = ("conll", "strict")


@dataclass(frozen=True)
class TypeScores:
    """Scores of one type of entity, or of all together.

    Args:
        precision: share of the entities found that are right, from 0 to 1; 0 where none was found.
        recall: share of the true entities that were found; 0 where there is none.
        f1: their harmonic mean, 2·precision·recall / (precision + recall); 0 where both are 0.
        support: true entities.
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class EntityScores(TypeScores):
    """Scores over all entities, each counted once whatever its type (micro average), and those of each type.

    Args:
        types: name of a type -> its scores, sorted by name.
    """

    types: dict[str, TypeScores] = field(default_factory=dict)


def entity_scores(
    true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], *, mode: str = "conll"
) -> EntityScores:
    """Precision, recall and F1 of entities: one is right if its type, its first and its last token are.

    Args:
        true: a row of tags for each sentence, "O" or a prefix and a type: "B-PER", "I-PER"; BIO and BIOES alike.
        predicted: as many rows of as many tags.
        mode: "conll": an I- that continues nothing begins an entity, as in the script of the CoNLL shared tasks, whose
            scores papers report; "strict": tags are BIO2 and such an I- is no part of an entity.

    Returns:
        The scores; all 0 where there is no entity in either.

    Raises:
        MixError: if the rows are no sequences of tags, are of different numbers, two rows differ in length (the row is
            named), a tag is neither O nor prefix and type (of "strict", B- and I- alone), or mode is unknown.

    Example:
        >>> found = entity_scores([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O", "O"]])
        >>> found.precision, found.recall, round(found.f1, 3), found.types["LOC"].support
        (1.0, 0.5, 0.667, 1)

    Source: Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 Shared Task"; counted by seqeval.
    """
    from seqeval.metrics import classification_report  # type: ignore[import-untyped]
    from seqeval.scheme import IOB2  # type: ignore[import-untyped]

    if mode not in MODES:
        raise MixValueError(f"entity_scores: mode={mode!r}, expected one of {', '.join(MODES)}")
    prefixes = "BI" if mode == "strict" else "BIES"
    rows, found = _tags("true", true, prefixes), _tags("predicted", predicted, prefixes)
    if len(rows) != len(found):
        raise MixValueError(f"entity_scores: {len(rows)} true and {len(found)} predicted rows, expected as many")
    for place, (own, other) in enumerate(zip(rows, found, strict=True)):
        if len(own) != len(other):
            raise MixValueError(
                f"entity_scores: row {place} has {len(own)} true and {len(other)} predicted tags, expected one for "
                "each token in both"
            )
    begun = "B" if mode == "strict" else "BIES"  # what may begin an entity; seqeval averages nothing without one
    if not any(tag[0] in begun for row in (*rows, *found) for tag in row):
        return EntityScores(0.0, 0.0, 0.0, 0)
    how: dict[str, Any] = {"mode": "strict", "scheme": IOB2} if mode == "strict" else {}
    report = classification_report(rows, found, output_dict=True, zero_division=0, **how)
    scores = {name: _scores(row) for name, row in report.items() if not name.endswith(" avg")}
    whole = _scores(report["micro avg"])
    return EntityScores(whole.precision, whole.recall, whole.f1, whole.support, scores)


def _tags(name: str, rows: Any, prefixes: str) -> list[list[str]]:
    if isinstance(rows, str) or any(isinstance(row, str) for row in rows):
        raise MixTypeError(f"entity_scores: {name} is text, expected a row of tags for each sentence")
    held = [list(row) for row in rows]
    for place, row in enumerate(held):
        for tag in row:
            if not isinstance(tag, str) or not (tag == "O" or (tag[:1] in prefixes and tag[1:2] == "-" and tag[2:])):
                raise MixValueError(
                    f'entity_scores: {name}, row {place}: tag {tag!r}, expected "O", or one of {", ".join(prefixes)} '
                    'and a type: "B-PER"'
                )
    return held


def _scores(row: Any) -> TypeScores:
    return TypeScores(float(row["precision"]), float(row["recall"]), float(row["f1-score"]), int(row["support"]))
