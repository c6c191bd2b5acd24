"""Mixing rows of a table in fixed groups: who mixes with whom depends on the number of the group and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # has no stubs of its own

import mixops as mx
from mixops import MixTypeError, MixValueError, streams

from ..collate import check_mixing
from ..sources import image_size
from .columns import Column, as_column, as_lists, column_of

#: What every mixed row says of itself: its number in the source, which of the copies of that row it is, and the rows
#: that it was made of, itself first, with their shares of the label.
ROW, COPY, PARENTS, SHARES = ADDED = ("mix_row", "mix_copy", "mix_parents", "mix_shares")

#: Takes the columns of a group, {name: list of rows}, and returns a sequence of numbers for each row.
Saliency = Callable[[dict[str, list[Any]]], Sequence[Any]]


@dataclass(frozen=True)
class GroupMixer:
    """Mixes groups of rows; each is a function of its rows, its number and what the mixer is made of.

    Args:
        op: the operator.
        fields: {column: Field | Labels}; the other columns go along as they are.
        seed: of the draws, 0 ≤ seed < 2**64; group g of copy c is drawn from ``streams.plan_stream(seed, c, g)``.
        group: rows of a group: g holds the rows g · group to (g + 1) · group - 1 of the source, the last one fewer.
        saliency: makes the evidence of that name, where the rows have no such column.
        size: (height, width) that encoded images are cropped and resized to, or one number for both; None leaves them.

    Raises:
        MixError: if op is no operator, fields are no Fields or Labels, a column of theirs has a name that mixed rows
            add, or a number is out of range.

    Example:
        >>> table = pa.table({"tokens": [["a", "b"], ["c", "d"]], "label": [0, 1]})
        >>> fields = {"tokens": mx.Field("b t", "discrete"), "label": mx.Labels(2)}
        >>> mixed = GroupMixer(mx.SpanMix(0.5, pairing="flip"), fields, seed=7).mix(table)
        >>> [sorted("".join(row)) for row in mixed["tokens"].to_pylist()], mixed["label"].to_pylist()
        ([['a', 'd'], ['b', 'c']], [[0.5, 0.5], [0.5, 0.5]])
    """

    op: mx.Operator
    fields: Mapping[str, Any]
    seed: int = 0
    group: int = 1024
    saliency: Saliency | None = None
    size: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_mixing("mix_corpus", self.op, self.fields, self.seed)
        if isinstance(self.group, bool) or not isinstance(self.group, (int, np.integer)) or self.group < 1:
            raise MixValueError(f"mix_corpus: group={self.group!r}, expected rows of a group, 1 or more")
        if self.saliency is not None and not callable(self.saliency):
            raise MixTypeError(f"mix_corpus: saliency is {type(self.saliency).__name__}, expected a function or None")
        for name in self.fields:
            if not isinstance(name, str) or name in ADDED:
                raise MixValueError(f"mix_corpus: fields name {name!r}, expected the name of a column of the source")
        if self.size is not None:
            object.__setattr__(self, "size", image_size("mix_corpus", self.size))

    def mix(self, table: pa.Table, number: int = 0, copy: int = 0, rows: np.ndarray | None = None) -> pa.Table:
        """The mixed rows of a group.

        Args:
            table: the rows of the group, in order.
            number: of the group.
            copy: how many times the source was mixed before.
            rows: (N,) their numbers in the source; None: those from number · group on.

        Returns:
            The columns of the table, the mixed ones in their places, and those of ``ADDED``. Soft labels are a list of
            shares; labels of other forms are several columns, "label", "label_partner" and "label_lam", or "label_ids"
            and "label_weights".

        Raises:
            MixError: if the columns, the fields and the operator do not fit, or a column has a name that is added.
        """
        rows = np.arange(len(table), dtype=np.int64) + number * self.group if rows is None else rows
        first = int(rows[0]) if len(rows) else 0
        _check_names(table.column_names, self.fields)
        assert not isinstance(self.size, int)  # see __post_init__
        held = {
            name: column_of(table, name, first, self.size, even=not _is_text(field))
            for name, field in self.fields.items()
        }
        batch: dict[str, Any] = {name: column.values for name, column in held.items()}
        lengths = _lengths(held, first)
        batch |= self._evidence(table, held, lengths, first)
        op, fields = self.op, self.fields
        spec = mx.spec_of(batch, fields, epoch=copy)
        plan = op.draw(streams.plan_stream(self.seed, copy, number), spec, **mx.evidence_of(batch, fields, op))
        mixed = mx.mix_batch(batch, plan, fields, threads=1)
        parents, shares = mx.sparse_targets(rows, plan)
        base = np.searchsorted(rows, parents[:, 0])
        if lengths is not None:
            _check_no_fill(op, plan)
            lengths = _lengths_after(lengths, plan)
        made = {name: _taken(table, name, base) for name in table.column_names if name not in held}
        for name, column in held.items():
            made |= _written(name, fields[name], column, mixed[name], lengths)
        # Where they stood: the same order of columns whatever is mixed.
        order = [n for name in table.column_names for n in made if n == name or n in _forms(name, fields.get(name))]
        made[ROW] = pa.array(parents[:, 0])
        made[COPY] = pa.array(np.full(len(base), copy, np.int32))
        some = shares > 0
        some[:, 0] = True  # itself first, whatever is left of it
        counts = some.sum(1)
        made[PARENTS] = as_lists(pa.array(parents[some]), counts)
        made[SHARES] = as_lists(pa.array(shares[some]), counts)
        return pa.table({name: made[name] for name in (*order, *ADDED)})

    def _evidence(
        self, table: pa.Table, held: Mapping[str, Column], lengths: np.ndarray | None, first: int
    ) -> dict[str, np.ndarray]:
        """What the operator needs and uses beyond the fields, of columns and of ``saliency``."""
        needs = [n for n in (*self.op.needs, *self.op.uses) if n not in held and n != "labels"]
        made = {name: column_of(table, name, first).values for name in needs if name in table.column_names}
        if "lengths" in needs and lengths is not None:
            made["lengths"] = lengths
        if "special" in needs and "special" not in made and any(column.words is not None for column in held.values()):
            # Words, unlike the ids of a tokenizer, have no special ones at the ends of a row.
            made["special"] = np.zeros(next(c for c in held.values() if c.words is not None).values.shape, bool)
        if "saliency" in needs and "saliency" not in made and self.saliency is not None:
            given = self.saliency({name: table[name].to_pylist() for name in self.fields})
            try:
                scores = [np.asarray(row, np.float64) for row in given]
                made["saliency"] = column_of(pa.table({"saliency": pa.array(scores)}), "saliency", first).values
            except (TypeError, ValueError) as error:
                raise MixTypeError(f"saliency: {error}; expected numbers for each row, one for each token") from None
        return made


def _check_names(names: Sequence[str], fields: Mapping[str, Any]) -> None:
    """Refuse columns that what is written would take the place of, or hide."""
    forms = [form for name, field in fields.items() for form in _forms(name, field)]
    for name in names:
        if name in ADDED:
            raise MixValueError(
                f"the rows have a column {name!r}, which mixing adds: rename it, or leave it out (these rows are mixed "
                "already)"
            )
        if name in forms:
            raise MixValueError(f"the rows have a column {name!r}, which mixed labels are written to: rename it")
        if names.count(name) > 1:
            raise MixValueError(f"the rows have {names.count(name)} columns {name!r}, expected each name once")


def _taken(table: pa.Table, name: str, base: np.ndarray) -> Any:
    """The rows of a column that the mixed ones begin as."""
    try:
        return table[name].take(pa.array(base))
    except pa.ArrowNotImplementedError as error:
        raise MixTypeError(
            f"column {name!r} is {table[name].type}, whose rows Arrow cannot pick ({error}): cast it, or leave it out"
        ) from None


def _is_text(field: Any) -> bool:
    """Are rows of different lengths meant?"""
    return isinstance(field, mx.Field) and field.layout.split() == ["b", "t"] and field.kind != "continuous"


def _lengths(held: Mapping[str, Column], first: int) -> np.ndarray | None:
    """Those of the columns of lists, which have to agree."""
    found = {name: column.lengths for name, column in held.items() if column.lengths is not None}
    names = list(found)
    for name in names[1:]:
        differ = np.flatnonzero(found[name] != found[names[0]])
        if len(differ):
            row = int(differ[0])
            raise MixValueError(
                f"row {first + row}: {found[names[0]][row]} values in {names[0]!r} and {found[name][row]} in {name!r}, "
                "expected as many: they are mixed by one plan"
            )
    return found[names[0]] if names else None


def _check_no_fill(op: mx.Operator, plan: mx.Plan | mx.PlanSequence) -> None:
    for step in plan.plans if isinstance(plan, mx.PlanSequence) else (plan,):
        if ((step.partner < 0) & (step.opacity > 0)).any():
            raise MixTypeError(
                f"{op!r} blanks or deletes tokens, and rows of lists have no padding to put in their place: expected "
                "an operator that moves tokens, SSMix, SpanMix or TokenSwap"
            )


def _lengths_after(lengths: np.ndarray, plan: mx.Plan | mx.PlanSequence) -> np.ndarray:
    """How long the mixed rows are: where their tokens come from, whether it was a token."""
    real = np.arange(max(int(lengths.max(initial=0)), 1)) < lengths[:, None]  # as wide as the column, see _lists
    moved: np.ndarray = mx.mix(real, plan, "b t", "discrete")
    after: np.ndarray = moved.sum(1)
    return after


def _forms(name: str, field: Any) -> tuple[str, ...]:
    """Further columns that a field becomes."""
    form = getattr(field, "form", None)
    return {"pair": (f"{name}_partner", f"{name}_lam"), "sparse": (f"{name}_ids", f"{name}_weights")}.get(
        form or "", ()
    )


def _written(name: str, field: Any, column: Column, mixed: Any, lengths: np.ndarray | None) -> dict[str, pa.Array]:
    forms = _forms(name, field)
    if not forms:
        return {name: column.back(mixed, lengths)}
    names = forms if len(mixed) == len(forms) else (name, *forms)
    return {one: as_column(values) for one, values in zip(names, mixed, strict=True)}
