"""Fields: what each item of a batch is, and mix_batch, which applies one plan to all of them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as parameters
from typing import Any

import numpy as np

from .backends import is_tensor
from .dlpack import Loan, is_foreign
from .errors import MixError, MixTypeError, MixValueError
from .execute import KINDS, prepare
from .fills import check_fill_value
from .layout import BOX_AXES, box_axes_of, check_rank, parse_layout
from .output import Output
from .plan import Plan
from .sequence import PlanSequence
from .spec import Spec, plain_array, shape_of
from .targets import check_classes, check_ignore_index, check_smoothing, pair_targets, soft_targets, sparse_targets
from .traced import is_jax

ON_BLEND = ("error", "heavier", "planes")
FORMS = ("soft", "pair", "sparse")


class Entry(ABC):
    """What a Field and Labels have in common: they say what a plan does to one item of a batch."""

    def __repr__(self) -> str:
        """What was given, without the defaults: a loader prints all its fields."""
        given = [p.name for p in parameters(self) if getattr(self, p.name) != p.default]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in given)})"

    @abstractmethod
    def rows(self, item: Any) -> int:
        """Rows of the item."""

    @abstractmethod
    def ready(
        self, item: Any, plan: Plan | PlanSequence, *, to: Output | None, out: Any, threads: int | None
    ) -> Callable[[], Any]:
        """Check everything and write nothing; what comes back does the work."""


#: {name or place in the batch: Field or Labels}. Names are strings for dicts and numbers for tuples and lists.
Fields = Mapping[Any, Entry]


@dataclass(frozen=True, repr=False)
class Field(Entry):
    """An array of the batch that is mixed value by value.

    Args:
        layout: axis names, "b c h w", "b t".
        kind: "continuous" (values blend), "discrete" (class masks, ids: patches paste) or "valid" (attention masks).
        fill: what fill patches paint here: a number, one for each channel, or "mean"; None: the plan's fills for
            continuous arrays, nothing for the others. For a class mask often the ignore index.
        on_blend: for discrete arrays, what a blend (0 < opacity < 1) does: "error"; "heavier": the larger share wins, a
            patch of opacity above ½ pastes and another leaves the row as it is, exact as long as a row is blended once;
            "planes": the mask "b h w" becomes float32 planes "b c h w", the share of each class at each pixel.
        num_classes: planes that "planes" makes. Pixels and fills of another id (an ignore index) have the share 0 in
            every plane.

    Raises:
        MixError: if a word is unknown, the fill is no fill, on_blend is set for an array that is not discrete, or
            "planes" lacks num_classes or the layout has an axis c already.

    Example:
        >>> Field("b h w", "discrete", fill=255, on_blend="heavier").kind
        'discrete'
    """

    layout: str
    kind: str = "continuous"
    fill: float | tuple[float, ...] | str | None = None
    on_blend: str = "error"
    num_classes: int | None = None

    def __post_init__(self) -> None:
        names = parse_layout(self.layout)
        if self.kind not in KINDS:
            raise MixValueError(f"Field(kind={self.kind!r}): expected one of {', '.join(map(repr, KINDS))}")
        if self.on_blend not in ON_BLEND:
            raise MixValueError(f"Field(on_blend={self.on_blend!r}): expected one of {', '.join(map(repr, ON_BLEND))}")
        if self.on_blend != "error" and self.kind != "discrete":
            raise MixValueError(
                f'Field(kind={self.kind!r}, on_blend={self.on_blend!r}): on_blend is for kind="discrete"'
            )
        if self.on_blend == "planes":
            if self.num_classes is None:
                raise MixValueError('Field(on_blend="planes"): expected num_classes, the number of planes')
            if "c" in names:
                raise MixValueError(
                    f'Field(layout={self.layout!r}, on_blend="planes"): the planes become axis c, expected a layout '
                    "without one"
                )
            check_classes(self.num_classes)
        elif self.num_classes is not None:
            raise MixValueError(
                f'Field(num_classes={self.num_classes!r}): only on_blend="planes" makes classes of values'
            )
        if isinstance(self.fill, str) and self.fill != "mean":
            raise MixValueError(f'Field(fill={self.fill!r}): expected a number, one for each channel, or "mean"')
        if self.fill is not None and not isinstance(self.fill, str):
            value = check_fill_value(self.fill)
            object.__setattr__(self, "fill", value[0] if len(value) == 1 else value)
        if self.kind == "valid" and self.fill is not None:
            raise MixValueError('Field(kind="valid", fill=...): an attention mask is never painted; leave fill out')
        if self.fill is not None and self.kind == "discrete" and not isinstance(self.fill, (int, float)):
            raise MixValueError(f'Field(kind="discrete", fill={self.fill!r}): expected one id')

    def rows(self, item: Any) -> int:
        """See Entry."""
        names = parse_layout(self.layout)
        shape = shape_of(item, names)
        check_rank(names, len(shape))
        return shape[names.index("b")]

    def ready(
        self, item: Any, plan: Plan | PlanSequence, *, to: Output | None, out: Any, threads: int | None
    ) -> Callable[[], Any]:
        """See Entry."""
        plan = self._rescaled(item, plan)
        if self.on_blend == "planes":
            names = parse_layout(self.layout)
            place = names.index("b") + 1
            planes = " ".join((*names[:place], "c", *names[place:]))
            return prepare(
                _one_hot(item, place, self.num_classes or 0),
                _stepwise(plan, _without_fills) if self.fill is None else plan,
                planes,
                fill=self._fill_planes(),
                to=to,
                out=out,
                threads=threads,
            ).run
        if self.on_blend == "heavier":
            plan = _heavier(_stepwise(plan, _without_fills) if self.fill is None else plan)
        return prepare(item, plan, self.layout, self.kind, fill=self.fill, to=to, out=out, threads=threads).run

    def _rescaled(self, item: Any, plan: Plan | PlanSequence) -> Plan | PlanSequence:
        """The plan on the extents of this array, where it has the axes; else mix says what is missing."""
        names = parse_layout(self.layout)
        extent = dict(zip(names, shape_of(item, names), strict=True))
        axes = BOX_AXES[len(plan.shape)]
        if not axes or not all(a in extent for a in axes):
            return plan
        extents = tuple(extent[a] for a in axes)
        return plan if extents == plan.shape else plan.rescaled(extents)

    def _fill_planes(self) -> tuple[float, ...] | None:
        if self.fill is None:
            return None
        return tuple(float(c == self.fill) for c in range(self.num_classes or 0))


@dataclass(frozen=True, repr=False)
class Labels(Entry):
    """The labels of the batch: class ids, one-hot or multi-label rows, or numbers to regress on.

    Args:
        num_classes: C; needed for ids in the soft form.
        smoothing: label smoothing in [0, 1), for the soft form.
        ignore_index: the id that says "no label", for the soft and the sparse form.
        form: "soft" (``soft_targets``), "pair" (``pair_targets``: ya, yb, lam) or "sparse" (``sparse_targets``: ids,
            weights).

    Raises:
        MixError: if num_classes is no whole number of 1 or more, smoothing is outside [0, 1), form is unknown, or an
            argument is given that the form has no use for.

    Example:
        >>> Labels(10, smoothing=0.1).form
        'soft'
    """

    num_classes: int | None = None
    smoothing: float = 0.0
    ignore_index: int | None = None
    form: str = "soft"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise MixValueError(f"Labels(form={self.form!r}): expected one of {', '.join(map(repr, FORMS))}")
        if self.num_classes is not None:
            check_classes(self.num_classes)
        check_smoothing(self.smoothing)
        check_ignore_index(self.ignore_index)
        if self.smoothing and self.form != "soft":
            raise MixValueError(f'Labels(form={self.form!r}, smoothing=...): smooth in the loss, or use form="soft"')
        if self.smoothing and self.num_classes is None:
            raise MixValueError("Labels(smoothing=...) without num_classes: say how many classes share it")
        if self.ignore_index is not None and self.form == "pair":
            raise MixValueError(
                'Labels(form="pair", ignore_index=...): pairs hand the ids on as they are; give it to the loss'
            )

    def rows(self, item: Any) -> int:
        """See Entry."""
        if not hasattr(item, "__len__"):
            raise MixTypeError(f"labels: got {type(item).__name__}, expected one label for each row")
        return len(item)

    def ready(
        self, item: Any, plan: Plan | PlanSequence, *, to: Output | None, out: Any, threads: int | None
    ) -> Callable[[], Any]:
        """See Entry. Targets are new arrays and small: they are made here, where an error harms nothing."""
        if to is not None or out is not None:
            raise MixValueError("to= and out= name a Field, Labels take neither")
        result: Any
        if self.form == "pair":
            result = pair_targets(item, plan)
        elif self.form == "sparse":
            result = sparse_targets(item, plan, num_classes=self.num_classes, ignore_index=self.ignore_index)
        else:
            result = soft_targets(item, plan, self.num_classes, self.smoothing, ignore_index=self.ignore_index)
        return lambda: result


def mix_batch(
    batch: Any,
    plan: Plan | PlanSequence,
    fields: Fields,
    *,
    to: Mapping[Any, Output] | None = None,
    out: Mapping[Any, Any] | None = None,
    threads: int | None = None,
) -> Any:
    """Apply one plan to all items of a batch: arrays, masks and labels stay in step.

    Args:
        batch: a dict, or a tuple or list, of arrays, tensors, lists of samples and anything else.
        plan: what was drawn, on the spec of one of the fields (``spec_of``). A field of other extents, a mask of
            stride 4 say, takes it rescaled, box edges rounded to the nearest cell, halves up; label weights stay.
        fields: what the items are, by name or by place. Items without an entry are handed on as they are, in the order
            they have (a plan that moves or leaves out rows does not move them).
        to: Output of fields that are to be normalised, cast or laid out in the same pass.
        out: arrays of fields to write into, see ``mix``.
        threads: see ``mix``.

    Returns:
        A batch of the same type (named tuples too) with the mixed items in place of the given ones.

    Raises:
        MixError: if the batch has no item of a name, fields differ in rows, or an item, its field and the plan do not
            fit: see ``mix`` and ``soft_targets``. All of it is checked before the first value is written.

    Example:
        >>> import mixops as mx
        >>> batch = {"x": np.array([[0.0, 4.0], [4.0, 0.0]]), "y": np.array([0, 1]), "name": ["a", "b"]}
        >>> plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.75, partner=[1, 0])
        >>> mixed = mix_batch(batch, plan, {"x": Field("b d"), "y": Labels(2)})
        >>> mixed["x"].tolist(), mixed["y"].tolist(), mixed["name"]
        ([[1.0, 3.0], [3.0, 1.0]], [[0.75, 0.25], [0.25, 0.75]], ['a', 'b'])
    """
    if not isinstance(plan, (Plan, PlanSequence)):
        raise MixTypeError(f"mix_batch: plan is {type(plan).__name__}, expected a Plan or a PlanSequence")
    items = _items(batch, fields)
    for name in (*(to or ()), *(out or ())):
        if name not in fields:
            raise MixValueError(f"to= or out= names {name!r}: expected one of the fields {_names(fields)}")
    loans = {}
    for name, item in items.items():
        if is_foreign(item):
            with _About(name):
                loans[name] = Loan(item, (out or {}).get(name))
    if loans:
        lent = _replaced(batch, {name: loan.x for name, loan in loans.items()})
        into = {**(out or {}), **{name: loan.out for name, loan in loans.items()}}
        mixed = mix_batch(lent, plan, fields, to=to, out=into, threads=threads)
        return _replaced(mixed, {name: loan.settled(mixed[name]) for name, loan in loans.items()})
    counts = {}
    for name, item in items.items():
        with _About(name):
            counts[name] = fields[name].rows(item)
    if len(set(counts.values())) > 1:
        raise MixValueError(f"the fields have {counts} rows: expected the same number in all of them")
    jobs = {}
    for name, item in items.items():
        with _About(name):
            jobs[name] = fields[name].ready(
                item, plan, to=(to or {}).get(name), out=(out or {}).get(name), threads=threads
            )
    return _replaced(batch, {name: job() for name, job in jobs.items()})


def spec_of(batch: Any, fields: Fields, *, epoch: int | None = None, training: bool = True) -> Spec:
    """Read the Spec of a batch off its first continuous field with box axes, else its first field, else its labels.

    Args:
        batch: see ``mix_batch``.
        fields: see ``mix_batch``.
        epoch: see Spec.
        training: see Spec.

    Returns:
        The Spec that an operator draws for this batch.

    Raises:
        MixError: if fields is empty, the batch has no item of a name, or a layout does not fit its array.

    Example:
        >>> spec_of((np.zeros((8, 3, 32, 40)), np.zeros(8, int)), {0: Field("b c h w"), 1: Labels(10)}).shape
        (32, 40)
    """
    items = _items(batch, fields)
    arrays = [(name, f) for name, f in fields.items() if isinstance(f, Field)]
    boxed = [(n, f) for n, f in arrays if f.kind == "continuous" and box_axes_of(parse_layout(f.layout))]
    if not arrays:
        name = next(iter(fields))
        with _About(name):
            return Spec(fields[name].rows(items[name]), epoch=epoch, training=training)
    name, field = (boxed or arrays)[0]
    with _About(name):
        return Spec.like(items[name], field.layout, epoch=epoch, training=training)


def evidence_of(batch: Any, fields: Fields, op: Any) -> dict[str, np.ndarray]:
    """What the operator needs and uses beyond the spec, as NumPy arrays: "labels" is the first entry of Labels.

    Any other evidence ("lengths", "saliency") is the item of a dict batch that has its name; what the operator only
    uses may be missing.

    Args:
        batch: see ``mix_batch``.
        fields: see ``mix_batch``.
        op: an operator; its ``needs`` say what.

    Returns:
        Keywords for ``op.draw``; empty for operators that look at nothing.

    Raises:
        MixError: if the batch does not hold what the operator needs.

    Example:
        >>> import mixops as mx
        >>> batch = (np.zeros((2, 4)), np.array([3, 1]))
        >>> evidence_of(batch, {0: Field("b d"), 1: Labels(10)}, mx.Mixup(pairing="other_class"))
        {'labels': array([3, 1])}
    """
    evidence: dict[str, np.ndarray] = {}
    uses = getattr(op, "uses", ())
    if not op.needs and not uses:
        return evidence
    items = _items(batch, fields)
    for need in (*op.needs, *uses):
        source = (
            next((items[n] for n, f in fields.items() if isinstance(f, Labels)), None) if need == "labels" else None
        )
        if source is None and isinstance(batch, Mapping):
            source = batch.get(need)
        if source is None and need in uses:
            continue
        if source is None:
            fix = "add Labels to the fields" if need == "labels" else f"a dict batch with an item {need!r} provides it"
            raise MixValueError(f"{op!r} needs {need}, and the batch has none: {fix}")
        evidence[need] = plain_array(need, source)
    return evidence


# -- what a discrete array makes of a blend ---------------------------------------------------------------------------


def _stepwise(plan: Plan | PlanSequence, change: Callable[[Plan], Plan]) -> Plan | PlanSequence:
    return PlanSequence(tuple(map(change, plan))) if isinstance(plan, PlanSequence) else change(plan)


def _without_fills(plan: Plan) -> Plan:
    """The plan with its fill patches switched off."""
    return replace(plan, opacity=np.where(plan.partner < 0, 0, plan.opacity))


def _heavier(plan: Plan | PlanSequence) -> Plan | PlanSequence:
    """Opacity above ½ pastes, other blends leave the row; a MixError where that would not be the heaviest share."""
    blends = np.zeros(0, np.int64)
    for i, step in enumerate(plan.plans if isinstance(plan, PlanSequence) else (plan,)):
        before = blends if i else np.zeros(1 + max(step.base.max(initial=0), step.partner.max(initial=0)), np.int64)
        donors = np.where((step.partner >= 0) & (step.opacity > 0), step.partner, step.base[:, None])
        here = ((step.opacity > 0) & (step.opacity < 1)).sum(1)
        blends = here + np.maximum(before[step.base], before[donors].max(1, initial=0))
        if (blends > 1).any():
            raise MixValueError(
                f'row {int(np.argmax(blends > 1))} is blended more than once: on_blend="heavier" is exact for one '
                'blend a row; use on_blend="planes"'
            )
    return _stepwise(
        plan,
        lambda p: replace(p, opacity=np.where((p.opacity > 0) & (p.opacity < 1), p.opacity > 0.5, p.opacity)),
    )


def _one_hot(mask: Any, place: int, num_classes: int) -> Any:
    """float32 planes of a mask, the classes as a new axis at ``place``; ids outside the classes are in no plane."""
    if isinstance(mask, Sequence) and not hasattr(mask, "shape"):
        if is_tensor(mask[0]):
            import torch

            mask = torch.stack(list(mask), place - 1)
        elif is_jax(mask[0]):
            import jax.numpy as jnp

            mask = jnp.stack(list(mask), place - 1)
        else:
            mask = np.stack(mask, place - 1)
    shape = [1] * (mask.ndim + 1)
    shape[place] = num_classes
    if is_jax(mask):
        import jax.numpy as jnp

        return (jnp.expand_dims(mask, place) == jnp.arange(num_classes).reshape(shape)).astype(jnp.float32)
    if is_tensor(mask):
        import torch

        classes = torch.arange(num_classes, device=mask.device).reshape(shape)
        return (mask.unsqueeze(place) == classes).to(torch.float32)
    return (np.expand_dims(mask, place) == np.arange(num_classes).reshape(shape)).astype(np.float32)


# -- dicts, tuples and lists ------------------------------------------------------------------------------------------


class _About:
    """Puts the name of the field before the message of a MixError; a generator would take three times as long."""

    def __init__(self, name: Any) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, MixError):
            raise type(error)(f"field {self._name!r}: {error}") from None


def _names(keys: Any) -> str:
    return ", ".join(map(repr, keys)) or "(none)"


def _items(batch: Any, fields: Fields) -> dict[Any, Any]:
    """The items of the batch that have a field, in the order of the fields; all checked to be there."""
    if not isinstance(batch, (dict, tuple, list, Mapping)):
        raise MixTypeError(f"batch: got {type(batch).__name__}, expected a dict, a tuple or a list of arrays")
    # Field and Labels by name: to ask whether something is an abstract Entry takes longer.
    entries = isinstance(fields, (dict, Mapping)) and all(isinstance(f, (Field, Labels)) for f in fields.values())
    if not entries or not fields:
        raise MixTypeError(f"fields: got {fields!r}, expected one or more of {{name: Field(...) or Labels(...)}}")
    keys = range(len(batch)) if isinstance(batch, (tuple, list)) else batch
    for name in fields:
        if name not in keys:
            raise MixValueError(f"field {name!r} is not in the batch: expected one of {_names(keys)}")
    return {name: batch[name] for name in fields}


def _replaced(batch: Any, mixed: dict[Any, Any]) -> Any:
    """A batch of the same type with these items replaced."""
    if isinstance(batch, (dict, MutableMapping)):
        result = copy.copy(batch)
        for name, item in mixed.items():
            result[name] = item
        return result
    if isinstance(batch, Mapping):
        return {**batch, **mixed}
    items = [mixed.get(i, item) for i, item in enumerate(batch)]
    return type(batch)._make(items) if hasattr(batch, "_make") else type(batch)(items)
