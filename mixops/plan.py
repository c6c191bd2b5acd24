"""Plan: who mixes with whom, where and how strongly. Small arrays, no tensors, no framework.

out[n] = x[base[n]]
for k in 0..K-1:                  painted in order; donors are rows of the INPUT, never of out
    v = fill -1-partner[n,k] if partner[n,k] < 0 else x[partner[n,k]] at donor[n,k]
    out[n, box[n,k]] = (1 - opacity[n,k]) * out[n, box[n,k]] + opacity[n,k] * v
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import archive
from .constant import ascending, filled, full_box, is_ascending
from .errors import MixTypeError, MixValueError
from .facts import Facts
from .fills import Fills
from .layout import check_extents
from .rules import check_plan
from .spec import plain_array
from .traced import at_hand, has_stand_ins, has_tracers, is_tracer, known, register

if TYPE_CHECKING:
    from .sequence import PlanSequence

_DTYPES: dict[str, np.dtype[Any]] = {
    **dict.fromkeys(("base", "partner", "box", "donor"), np.dtype(np.int32)),
    **dict.fromkeys(("opacity", "weight"), np.dtype(np.float32)),
}
ARRAYS = tuple(_DTYPES)
_FIELDS = (*ARRAYS, "shape", "fills", "layer")
_NO_FILL = Fills.of(0.0)
_ZERO, _ONE, _NOWHERE = np.float32(0), np.float32(1), np.int32(0)


def _array(name: str, value: Any) -> np.ndarray:
    dtype = _DTYPES[name]
    given = plain_array(f"plan {name}", value)
    if given.dtype.kind not in ("iu" if dtype.kind == "i" else "iuf") and given.size:
        raise MixTypeError(f"plan {name}: got {given.dtype}, expected {dtype}")
    if dtype.kind == "i" and given.size and given.dtype.itemsize > 4:
        low, high = int(given.min()), int(given.max())
        if low < -(1 << 31) or high >= 1 << 31:
            raise MixValueError(f"plan {name}: {low if low < 0 else high} does not fit int32")
    array = np.array(given, dtype, order="C")
    array.setflags(write=False)
    return array


def _joined(plans: Sequence[Plan], names: Sequence[str], axis: int) -> dict[str, Any]:
    """Arrays of several plans as one each; donors that lie where their boxes do stay the very array of the boxes."""
    alike = all(plan.donor is plan.box for plan in plans)
    whole = {
        name: np.concatenate([getattr(plan, name) for plan in plans], axis)
        for name in names
        if not (alike and name == "donor")
    }
    return whole | {"donor": whole["box"]} if alike else whole


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """What an operator drew for one batch: N output rows, K patches each, R axes that boxes are measured on.

    Args:
        base: (N,) int32, row of the source that output row n starts from.
        partner: (N, K) int32, donor row of patch k; -1 - i is fill i.
        box: (N, K, 2R) int32, where the patch goes: start, stop of each axis, half open, measured on ``shape``.
        donor: (N, K, 2R) int32, where it comes from in the donor row.
        opacity: (N, K) float32 in [0, 1], the donor's share of the values inside the box.
        weight: (N, K) float32, the donor's share of the target; at least 0, a row sums to at most 1; 0 for fills.
        shape: R extents the boxes are measured on; () speaks of whole rows and fits arrays of any shape.
        fills: a number, a tuple of channel values, a Fill, a list of them, or Fills.
        layer: module whose output is mixed, for hidden-state operators.

    Raises:
        MixError: if an array has another shape or dtype, or breaks one of the rules above.

    Example:
        >>> box, share = np.zeros((2, 1, 0), int), [[0.25], [0.25]]
        >>> plan = Plan([0, 1], [[1], [0]], box, box, share, share, shape=())
        >>> plan.lam.tolist()
        [0.75, 0.75]
    """

    base: np.ndarray
    partner: np.ndarray
    box: np.ndarray
    donor: np.ndarray
    opacity: np.ndarray
    weight: np.ndarray
    shape: tuple[int, ...]
    fills: Fills = field(default_factory=lambda: _NO_FILL)
    layer: str | None = None

    #: Of a plan that JAX has taken apart and put together: what of it is not an array. Its arrays are JAX's then.
    form: ClassVar[Any] = None

    def __post_init__(self) -> None:
        register()
        same = self.donor is self.box
        for name in ARRAYS:
            object.__setattr__(self, name, _array(name, getattr(self, name)))
        if same:
            object.__setattr__(self, "donor", self.box)
        object.__setattr__(self, "shape", check_extents("plan shape", self.shape))
        object.__setattr__(self, "fills", Fills.of(self.fills))
        if self.layer is not None and (not isinstance(self.layer, str) or not self.layer):
            raise MixTypeError(f"plan layer={self.layer!r}: expected the name of a module, or None")
        self.validate()

    @classmethod
    def trusted(cls, like: Plan | None = None, **given: Any) -> Plan:
        """For operators: a plan whose arrays are right by construction, cast and frozen but not checked again.

        Args:
            like: a plan whose fields stand where none is given.
            **given: fields of a Plan; without ``like`` all but fills and layer.

        Returns:
            The plan. The operators' tests call ``validate`` on what they draw, in place of every training step.
        """
        register()
        made: Plan = object.__new__(cls)
        fields = made.__dict__
        if like is None:
            fields["fills"], fields["layer"] = _NO_FILL, None
        else:
            for name in _FIELDS:
                fields[name] = like.__dict__[name]
        fields.update(given)
        same = fields["donor"] is fields["box"]
        for name in given:
            if name in _DTYPES and not (same and name == "donor"):
                array = fields[name] = np.ascontiguousarray(fields[name], _DTYPES[name])
                array.setflags(write=False)
        if same:
            fields["donor"] = fields["box"]
        return made

    # -- what it holds -------------------------------------------------------------------------------------------

    @property
    def n(self) -> int:
        """Rows it makes."""
        return self.base.size

    @property
    def k(self) -> int:
        """Patches a row."""
        return self.partner.shape[1] if self.partner.ndim == 2 else 0

    @property
    def rank(self) -> int:
        """Axes its boxes are measured on."""
        return len(self.shape)

    @property
    def lam(self) -> np.ndarray:
        """(N,) float32: each row's OWN share of its target."""
        given = self.weight[:, 0] if self.k == 1 else self.weight.sum(1, dtype=np.float32)
        if self.form is not None:
            return (1 - given).clip(0)
        return np.maximum(_ONE - given, _ZERO)

    @property
    @at_hand
    def is_identity(self) -> bool:
        """True if mixing by it changes nothing and keeps every row in its place."""
        return not self.opacity.any() and not self.weight.any() and is_ascending(self.base)

    def __len__(self) -> int:
        return self.n

    @at_hand
    def __eq__(self, other: object) -> bool:
        other = known(other) if isinstance(other, Plan) else other
        return (
            isinstance(other, Plan)
            and self.shape == other.shape
            and self.layer == other.layer
            and self.fills == other.fills
            and all(np.array_equal(getattr(self, a), getattr(other, a)) for a in ARRAYS)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays inside: compare, do not hash

    def validate(self, rows: int | None = None) -> None:
        """Check every rule of the class docstring, and that indices stay below ``rows`` where it is given.

        Raises:
            MixError: naming the first rule that is broken and the first row that breaks it.
        """
        if not has_tracers(self):
            check_plan(self, np.iinfo(np.int32).max if rows is None else rows)

    def check_rows(self, rows: int) -> None:
        """Check that no index reaches past the ``rows`` of a source; the other rules held when the plan was made.

        Raises:
            MixError: naming the first row that does.
        """
        if self.n and self.facts.top >= rows:
            check_plan(self, rows)

    @cached_property
    @at_hand
    def has_fills(self) -> bool:
        """Does any patch name a fill, used or not?"""
        return bool(self.partner.size) and bool(np.minimum.reduce(self.partner, None) < 0)

    @cached_property
    @at_hand
    def facts(self) -> Facts:
        """What executors ask of a plan, found once."""
        return Facts(self)

    # -- other plans from it -------------------------------------------------------------------------------------

    @classmethod
    def identity(cls, n: int, shape: tuple[int, ...] = (), k: int = 0) -> Plan:
        """The plan that changes nothing: n rows, k patches of opacity 0."""
        rows = ascending(n)
        boxes = filled((n, k, 2 * len(shape)), 0, np.int32)
        zeros = filled((n, k), 0, np.float32)
        partner = np.repeat(rows[:, None], k, 1)
        return cls.trusted(base=rows, partner=partner, box=boxes, donor=boxes, opacity=zeros, weight=zeros, shape=shape)

    @classmethod
    def whole(cls, partner: np.ndarray, opacity: np.ndarray, *, layer: str | None = None) -> Plan:
        """For operators: one whole-row donor a row with weight = opacity, the plan of Mixup. partner, opacity: (N,)."""
        n = len(opacity)
        share, none = np.asarray(opacity, np.float32).reshape(n, 1), filled((n, 1, 0), 0, np.int32)
        return cls.trusted(
            base=ascending(n),
            partner=partner.reshape(n, 1),
            box=none,
            donor=none,
            opacity=share,
            weight=share,
            shape=(),
            layer=layer,
        )

    @classmethod
    def boxed(
        cls,
        partner: np.ndarray,
        box: np.ndarray,
        opacity: np.ndarray,
        weight: np.ndarray,
        shape: tuple[int, ...],
        fills: Fills = _NO_FILL,
    ) -> Plan:
        """For operators: K patches a row whose donors lie where their boxes do; box (N, K, 2R), the others (N, K)."""
        return cls.trusted(
            base=ascending(len(box)),
            partner=partner,
            box=box,
            donor=box,
            opacity=opacity,
            weight=weight,
            shape=shape,
            fills=fills,
        )

    @at_hand
    def where(self, keep: np.ndarray) -> Plan:
        """The same plan with the rows where ``keep`` is False left untouched: no value, no target changes."""
        keep = np.asarray(keep, bool)
        if keep.shape != (self.n,):
            raise MixValueError(f"keep has shape {keep.shape}, expected ({self.n},)")
        mask = keep[:, None]
        box = np.where(mask[..., None], self.box, _NOWHERE)
        donor = box if self.donor is self.box else np.where(mask[..., None], self.donor, _NOWHERE)
        return self.trusted(
            self,
            box=box,
            donor=donor,
            opacity=np.where(mask, self.opacity, _ZERO),
            weight=np.where(mask, self.weight, _ZERO),
        )

    @at_hand
    def __getitem__(self, rows: Any) -> Plan:
        """The plan of some output rows: an index array, a slice or a mask. They still name the same source."""
        if is_tracer(rows):
            rows = plain_array("plan[rows]", rows)
        if isinstance(rows, (int, np.integer)):
            rows = slice(int(rows), int(rows) + 1 or None)
        chosen = {a: getattr(self, a)[rows] for a in ARRAYS if a != "donor" or self.donor is not self.box}
        return self.trusted(self, **{"donor": chosen["box"], **chosen})

    @at_hand
    def on(self, rows: Any) -> Plan:
        """The same mixing on a larger source: batch row i is row ``rows[i]`` of a data set.

        Raises:
            MixError: if rows are no integers, negative, or fewer than the plan names.
        """
        rows = plain_array("on(rows)", rows)
        rows = rows if rows.size else rows.astype(np.int64)
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise MixTypeError(f"on(rows): got {rows.dtype} of shape {rows.shape}, expected row numbers of the source")
        if rows.size and rows.min() < 0:
            raise MixValueError(f"on(rows): got row {rows.min()}, expected row numbers of the source, 0 or more")
        self.check_rows(len(rows))
        if self.has_fills and len(rows):
            partner = np.where(self.partner < 0, self.partner, rows[np.maximum(self.partner, 0)])
        else:
            partner = self.partner if self.has_fills else rows[self.partner]
        return self.trusted(self, base=rows[self.base], partner=partner)

    @at_hand
    def promoted(self, shape: Sequence[int]) -> Plan:
        """A whole-row plan as boxes on ``shape``: a patch on a whole row is a full box."""
        shape = check_extents("promoted", shape)
        if self.shape == shape:
            return self
        if self.rank:
            raise MixValueError(
                f"plan of shape {self.shape} cannot stand on {shape}: draw both for one shape, or rescale one"
            )
        box = np.where(self.facts.used[..., None], full_box(shape), _NOWHERE)
        return self.trusted(self, box=box, donor=box, shape=shape)

    @at_hand
    def rescaled(self, shape: Sequence[int], round: str = "nearest") -> Plan:
        """The plan for an array of other extents, a mask of stride 4 say. Weights stay as they are.

        Args:
            shape: the new extents, one for each axis of the plan.
            round: "nearest" (halves up), "inward" (boxes shrink to whole cells) or "outward" (they grow to them).

        Raises:
            MixError: if the rank differs or round is unknown.
        """
        shape = check_extents("rescaled", shape)
        if len(shape) != self.rank or round not in ("nearest", "inward", "outward"):
            raise MixValueError(
                f"rescaled({shape}, {round!r}): expected {self.rank} extents and nearest, inward or outward"
            )
        if shape == self.shape:
            return self
        box, donor = self.box.copy(), self.donor.copy()
        for r, (old, new) in enumerate(zip(self.shape, shape, strict=True)):
            scaled = [self.box[..., 2 * r + i].astype(np.int64) * new for i in (0, 1)]
            if round == "nearest":
                ends = [(2 * s + old) // (2 * old) for s in scaled]
            else:
                down, up = [s // old for s in scaled], [-(-s // old) for s in scaled]
                ends = [up[0], np.maximum(down[1], up[0])] if round == "inward" else [down[0], up[1]]
            size = ends[1] - ends[0]
            start = (2 * self.donor[..., 2 * r].astype(np.int64) * new + old) // (2 * old)
            same = self.donor[..., 2 * r] == self.box[..., 2 * r]
            start = np.where(same, ends[0], np.clip(start, 0, new - size))
            box[..., 2 * r], box[..., 2 * r + 1] = ends
            donor[..., 2 * r], donor[..., 2 * r + 1] = start, start + size
        return self.trusted(self, box=box, donor=donor, shape=shape)

    @at_hand
    def then(self, paint: Plan) -> Plan:
        """This plan, then the fills of ``paint`` on top: one plan of more patches.

        Raises:
            MixError: if ``paint`` moves or mixes rows: that needs two plans, one after the other (PlanSequence).
        """
        if not (paint.n == self.n and not (paint.facts.used & (paint.partner >= 0)).any() and is_ascending(paint.base)):
            raise MixValueError(
                "then(): only a plan of fills for the same rows can be painted on top; use a PlanSequence"
            )
        shape = self.shape or paint.shape
        first, second = self.promoted(shape), paint.promoted(shape)
        fills, moved = second.fills, second.partner
        if self.has_fills or self.fills is not _NO_FILL:
            fills = first.fills.joined(second.fills)
            moved = np.where(second.partner < 0, second.partner - len(first.fills), second.partner)
        return self.trusted(
            first,
            partner=np.concatenate([first.partner, moved], 1),
            fills=fills,
            **_joined([first, second], ("box", "donor", "opacity", "weight"), 1),
        )

    @at_hand
    def padded(self, k: int) -> Plan:
        """The same plan with patches of opacity 0 added up to k; a MixError if it has more than k."""
        if k == self.k:
            return self
        if k < self.k:
            raise MixValueError(f"padded({k}): the plan has {self.k} patches already, expected as many or more")
        more = k - self.k
        nothing = Plan.identity(self.n, self.shape, more)
        return self.trusted(
            self,
            partner=np.concatenate([self.partner, np.repeat(self.base[:, None], more, 1)], 1),
            **_joined([self, nothing], ("box", "donor", "opacity", "weight"), 1),
        )

    @classmethod
    def concat(cls, plans: Sequence[Plan]) -> Plan:
        """The rows of several plans over one source, in order; ranks are promoted and patches padded to the largest.

        Raises:
            MixError: if there is none, or two ranked plans have different shapes or layers.
        """
        if not plans:
            raise MixValueError("Plan.concat: got no plan, expected at least one")
        if len({p.layer for p in plans}) > 1:
            raise MixValueError("Plan.concat: the plans are for different layers")
        shape = max((p.shape for p in plans), key=len)
        k = max(p.k for p in plans)
        parts: list[Plan] = []
        fills: Fills | None = None
        for p in plans:
            part = p.promoted(shape).padded(k)
            if p.has_fills or p.fills is not _NO_FILL:
                if fills is not None and fills != p.fills:
                    moved = np.where(part.partner < 0, part.partner - len(fills), part.partner)
                    part = cls.trusted(part, partner=moved)
                    fills = fills.joined(p.fills)
                fills = fills or p.fills
            parts.append(part)
        whole = _joined(parts, ARRAYS, 0)
        return cls.trusted(**whole, shape=shape, fills=fills or _NO_FILL, layer=plans[0].layer)

    # -- on its way ----------------------------------------------------------------------------------------------

    def to(self, *args: Any, **options: Any) -> Plan:
        """Itself: frameworks that move a batch to a device call this on its items, and a plan stays on the host."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        if has_stand_ins(self):
            return {name: self.__dict__[name] for name in (*_FIELDS, "form")}
        return self._state()

    @at_hand
    def _state(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in _FIELDS}  # facts are found again where they are asked for

    def __setstate__(self, state: dict[str, Any]) -> None:
        register()
        self.__dict__.update(state)
        if self.form is None:
            for name in ARRAYS:  # arrays arrive writable from another process
                self.__dict__[name].setflags(write=False)

    # -- on paper and on disk ------------------------------------------------------------------------------------

    @at_hand
    def __repr__(self) -> str:
        from .show import plan_table

        return plan_table(self)

    @at_hand
    def save(self, path: str | PathLike[str]) -> None:
        """Write a versioned ``.npz`` (no pickle) that replays bit for bit; the file appears whole or not at all."""
        archive.write(path, [self])

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Plan | PlanSequence:
        """Read what ``save`` wrote. Runs no code from the file and checks every rule.

        Raises:
            MixError: if the content is no plan, of a newer version, cut off or breaks a rule.
            FileNotFoundError: if there is no such file.
        """
        from .sequence import PlanSequence

        plans = archive.read(path)
        return plans[0] if len(plans) == 1 else PlanSequence(tuple(plans))
