"""SeqMix: two tagged sentences exchange a blend of windows that are rich in entities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..constant import ascending
from ..errors import MixValueError
from ..plan import Plan
from ..spec import Spec
from .base import Operator, check_choice, check_count, check_number, kept, spread, units
from .pairing import partners
from .shares import own_shares
from .tag_windows import Windows, fixed_windows, matched, same_sequences, tag_rows, whole_rows_as_windows
from .tokens import ordinary_tokens

VARIANTS = ("whole", "sub", "label-constrained")
#: The pairings that match rows two by two.
PAIRED = ("random", "flip")
#: Opacities are multiples of this: the shares of two rows then add up to 1 exactly, in float32 too.
_GRID = 1 << 24


@dataclass(frozen=True, repr=False)
class SeqMix(Operator):
    """Blend a window of a row with a window of its partner and put it into both: w̃ = λ·wᵢ + (1 - λ)·wⱼ, tags alike.

    Args:
        variant: "whole" (all tokens of two rows of the same length), "sub" (windows of ``window`` tokens) or
            "label-constrained" (windows of ``window`` tokens with the same tags in the same order, which stay).
        window: tokens of a window, 1 or more; "whole" has no use for it but in the default of ``min_tags``.
        min_tags: least number of tokens within a window that are part of an entity: 0 or more, and at most ``window``
            except for "whole".
        density: least share of such tokens in a window, above 0 and up to 1, in place of ``min_tags``. With neither,
            ``min_tags`` is 3/5 of ``window``, rounded up: 3 of 5.
        alpha: concentration of the Beta that λ is drawn from, one for each pair, 0 or more; 0 is plain training.
        outside: the tag of tokens that are no part of an entity.
        pairing: "random" or "flip", which match rows two by two.
        p: probability that it acts, on each pair.
        until: first epoch at which it is off.

    Returns:
        ``draw`` needs ``tags=``, (n, T) integers, of a ``Spec(n, (T,), lengths)``; ``special=``, (n, T) bool, is True
        at special tokens (None: there are none). No window holds a special token, padding, or a token whose tag is
        negative, such as -100: it has no tag that could be mixed. It returns a Plan of one patch a row, the window of
        the partner, which may lie elsewhere there. The opacities of two partners add up to 1, so that both get the
        same blend, and weight = opacity · window / ordinary tokens of the row. Windows are chosen so that all
        combinations that fit one another are as likely; rows without a partner or a window stay as they are. Keywords
        ``partner=`` (n,), in pairs, and ``lam=`` replace the draw: the share of the lower row of each pair where it is
        a number, else (n,) the own share of every row, adding up to 1 in each pair.

    Raises:
        MixError: if a number is out of range, a word unknown, both ``min_tags`` and ``density`` are given; on a draw,
            if the tags are no integers of shape (n, T), partners do not come in pairs, or shares do not add up to 1.

    Example:
        >>> tags = np.array([[0, 0, 1, 2, 0, 0], [1, 2, 0, 0, 0, 0]])
        >>> op = SeqMix("label-constrained", window=2, min_tags=2)
        >>> plan = op.draw(np.random.default_rng(0), Spec(2, (6,)), tags=tags, partner=[1, 0], lam=0.75)
        >>> plan.box[:, 0].tolist(), plan.donor[:, 0].tolist(), plan.opacity[:, 0].tolist()
        ([[2, 4], [0, 2]], [[0, 2], [2, 4]], [0.25, 0.75])

    Source:
        Zhang, Yu, Zhang, "SeqMix: Augmenting Active Sequence Labeling via Sequence Mixup", EMNLP 2020, section 3;
        windows of 5 with 3 tags and alpha 8 as there for CoNLL-03.

    Differs from it:
        As the paper: a window may begin with any tag, end at the last token, and every window takes part in the draw;
        the authors' code asks for an entity at the first token, never tries the last window and takes the first one
        it finds. The paper goes on to replace each blend by the nearest word of a vocabulary: ``mx.TokenTable``.
    """

    variant: str = "sub"
    window: int = 5
    min_tags: int | None = None
    density: float | None = None
    alpha: float = 8.0
    outside: int = field(default=0, kw_only=True)
    pairing: str = field(default="random", kw_only=True)

    gives: ClassVar[tuple[str, ...]] = ("partner", "lam")
    uses: ClassVar[tuple[str, ...]] = ("special",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("SeqMix", "variant", self.variant, VARIANTS)
        check_choice("SeqMix", "pairing", self.pairing, PAIRED)
        object.__setattr__(self, "window", check_count("SeqMix", "window", self.window, 1))
        object.__setattr__(self, "outside", check_count("SeqMix", "outside", self.outside, 0))
        object.__setattr__(self, "alpha", check_number("SeqMix", "alpha", self.alpha, 0))
        if self.min_tags is not None and self.density is not None:
            raise MixValueError(
                f"SeqMix(min_tags={self.min_tags!r}, density={self.density!r}): expected one of the two"
            )
        if self.min_tags is not None:
            object.__setattr__(self, "min_tags", check_count("SeqMix", "min_tags", self.min_tags, 0))
            if self.min_tags > self.window and self.variant != "whole":
                raise MixValueError(
                    f"SeqMix(window={self.window}, min_tags={self.min_tags}): expected at most as many tags as the "
                    "window has tokens"
                )
        if self.density is not None:
            object.__setattr__(self, "density", check_number("SeqMix", "density", self.density, 0, 1))
            if self.density == 0:
                raise MixValueError("SeqMix(density=0): expected a number above 0; min_tags=0 takes every window")

    @property
    def needs(self) -> tuple[str, ...]:
        return ("lengths", "tags")

    def windows(self, tags: Any, lengths: Any = None, special: Any = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every window that may be mixed: two of them may mix with each other if their rows differ and groups agree.

        Args:
            tags: (N, T) integers.
            lengths: (N,) real tokens of each row; None where every row is full.
            special: (N, T) bool, True at special tokens; None: there are none.

        Returns:
            (row, start, group), each (M,) int64, ordered by row, then start. The group is 0 for "sub", the length of
            the window for "whole", and for "label-constrained" a number that stands for the tags it holds.

        Raises:
            MixError: if tags, lengths and special do not fit one another.

        Example:
            >>> row, start, group = SeqMix(window=2, min_tags=2).windows([[0, 1, 2, 2], [0, 0, 1, 0]])
            >>> row.tolist(), start.tolist(), group.tolist()
            ([0, 0], [1, 2], [0, 0])
        """
        given = tag_rows(tags)
        ordinary = ordinary_tokens("SeqMix.windows", Spec(len(given), given.shape[1:], lengths), special)
        found = self._windows(given, ordinary)
        return found.row, found.start, found.group

    def _windows(self, tags: np.ndarray, ordinary: np.ndarray) -> Windows:
        usable = ordinary & (tags >= 0)
        named = usable & (tags != self.outside)
        if self.variant == "whole":
            row, start, size = whole_rows_as_windows(usable)
            tagged = named[row].sum(1)
            rich = tagged >= self._least if self.density is None else tagged / size >= self.density
            return Windows(row[rich], start[rich], size[rich], size[rich])
        row, start = fixed_windows(usable, named, self.window, self._least)
        constrained = self.variant == "label-constrained"
        group = same_sequences(tags, row, start, self.window) if constrained else np.zeros_like(row)
        return Windows(row, start, np.full_like(row, self.window), group)

    @property
    def _least(self) -> int:
        """Tokens of a window that must be part of an entity; of a whole row where that is no share of it."""
        if self.min_tags is not None:
            return self.min_tags
        share = 0.6 if self.density is None else self.density
        return next(count for count in range(self.window + 1) if count / self.window >= share)

    def _draw(
        self,
        rng: np.random.Generator,
        spec: Spec,
        *,
        tags: Any,
        special: Any = None,
        partner: Any = None,
        lam: Any = None,
        labels: Any = None,
    ) -> Plan:
        ordinary = ordinary_tokens("SeqMix", spec, special)
        tags = tag_rows(tags, (spec.n, spec.shape[0]))
        donors = partners(self.pairing, rng, spec.n, per="pair", given=partner)
        unit = units("pair", spec.n, donors)
        opacity = self._shares(rng, donors, unit, lam)
        acts = kept(rng, self.p, unit) & (self.alpha > 0 or lam is not None)
        # One number a row, whatever windows there are: the draw of a pair does not hang on the rows beside it.
        one, at, to, size = matched(self._windows(tags, ordinary), donors, rng.random(spec.n))
        on = acts[one]
        one, at, to, size = one[on], at[on], to[on], size[on]
        other = donors[one]
        box, donor = np.zeros((2, spec.n, 1, 2), np.int32)
        for row, own, come in ((one, at, to), (other, to, at)):
            box[row, 0, 0], box[row, 0, 1] = own, own + size
            donor[row, 0, 0], donor[row, 0, 1] = come, come + size
        opacity = np.where(box[:, 0, 1] > 0, opacity, 0)
        share = (box[:, 0, 1] - box[:, 0, 0]) / np.maximum(ordinary.sum(1), 1)
        return Plan.trusted(
            base=ascending(spec.n),
            partner=donors[:, None],
            box=box,
            donor=donor,
            opacity=opacity[:, None],
            weight=(opacity * share)[:, None],
            shape=spec.shape,
        )

    def _shares(self, rng: np.random.Generator, donors: np.ndarray, unit: np.ndarray, lam: Any) -> np.ndarray:
        """(n,) the partner's share of each row: two partners' add up to 1."""
        rows = np.arange(len(donors))
        own = own_shares(rng, self.alpha, len(donors), unit, lam)
        if lam is not None and np.ndim(lam):
            off = np.flatnonzero((donors != rows) & (np.abs(own + own[donors] - 1) > 1e-6))
            if len(off):
                i, j = off[0], donors[off[0]]
                raise MixValueError(
                    f"lam of rows {i} and {j} is {own[i]:g} and {own[j]:g}: partners get the same window, expected own "
                    "shares that add up to 1; or one number, the share of the lower row of each pair"
                )
        first = np.rint((1 - spread(own, unit)) * _GRID) / _GRID
        return np.where(rows > donors, 1 - first, first)
