"""SSMix and SpanMix: a span of tokens of every row gives way to a span of its partner's, as long as it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..constant import ascending
from ..errors import MixTypeError, MixValueError
from ..plan import Plan
from ..spec import Spec, plain_array
from .base import Operator, check_choice, check_flag, kept, units
from .pairing import BY_LABEL, PAIRINGS, partners
from .span_rows import Runs, find_runs
from .tokens import check_share, sizes_of, token_evidence

PIECES = ("span", "tokens")


@dataclass(frozen=True, repr=False)
class _Spans(Operator):
    """What the two have in common: how long a span is, and who mixes with whom."""

    span: float = 0.1
    pairs: bool = field(default=False, kw_only=True)
    pairing: str = field(default="random", kw_only=True)

    uses: ClassVar[tuple[str, ...]] = ("special",)
    _evidence: ClassVar[tuple[str, ...]] = ("lengths",)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        object.__setattr__(self, "span", check_share(name, self.span, "span"))
        object.__setattr__(self, "pairs", check_flag(name, "pairs", self.pairs))
        check_choice(name, "pairing", self.pairing, PAIRINGS)

    @property
    def needs(self) -> tuple[str, ...]:
        halves = ("segments",) if self.pairs else ()
        return (*self._evidence, *halves, *(("labels",) if self.pairing in BY_LABEL else ()))

    def _rows(
        self, rng: np.random.Generator, spec: Spec, labels: Any, partner: Any, special: Any, segments: Any
    ) -> tuple[np.ndarray, np.ndarray, Runs]:
        """(N,) partners, (N,) which rows are mixed, and the ordinary tokens of each row."""
        donors = partners(self.pairing, rng, spec.n, labels=labels, given=partner)
        acts = kept(rng, self.p, units("sample", spec.n, donors))
        return donors, acts, find_runs(type(self).__name__, spec, special, segments, 1 + self.pairs)


@dataclass(frozen=True, repr=False)
class SSMix(_Spans):
    """Put the partner's most telling span of tokens in the place of the row's least telling one, of the same length.

    m = max(⌊span·n⌋, 1) of n ordinary tokens; ỹ = (1 - m/n)·y + (m/n)·y[partner]. A span is as telling as the mean
    saliency of its tokens. Ordinary tokens are real and not special: no special token is moved, copied or overwritten.

    Args:
        span: share of the ordinary tokens that a span takes, above 0, up to 1.
        pairs: mix each half of a sentence pair with the same half of the partner, by itself; the label is the pair's,
            and each half weighs its span over all ordinary tokens of the row.
        pairing: "random", "derange", "roll", "flip", "same_class", "other_class".
        p: probability that a row is mixed.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of one patch a row (two with ``pairs``) on the axis of tokens, for ``mix(ids, plan,
        "b t", "discrete")``. Where the row or its partner has no room for the span, the row stays as it is and the
        partner weighs 0. ``draw`` takes:

        * ``saliency``: (N, T) finite numbers, one for each token, whoever made them; those of padding and of special
          tokens are not looked at;
        * ``lengths``: (N,) real tokens of each row, or in the spec; in neither: every row is full;
        * ``special``: (N, T) bool or 0 and 1, tokens to leave alone; none given: the first real token of a row and
          the last (with ``pairs`` the last of each half);
        * ``segments``: (N, T) 0 and 1, the halves of a pair (token_type_ids), only with ``pairs``;
        * ``partner``: (N,) in place of the draw.

    Raises:
        MixError: if span is outside (0, 1] or a word unknown; on a draw, if the spec has not one axis, an array has
            another shape or dtype, a saliency is NaN or infinite at an ordinary token, or a segment is neither 0 nor 1.

    Example:
        >>> ids = np.array([[101, 11, 12, 13, 14, 102], [101, 21, 22, 102, 0, 0]])
        >>> saliency = np.array([[9, 0.4, 0.1, 0.7, 0.6, 9], [9, 0.2, 0.3, 9, 0, 0]])
        >>> spec = Spec.like(ids, "b t", lengths=[6, 4])
        >>> plan = SSMix(0.5).draw(np.random.default_rng(0), spec, saliency=saliency, partner=[1, 0])
        >>> import mixops as mx
        >>> mx.mix(ids, plan, "b t", "discrete").tolist(), plan.lam.tolist()
        ([[101, 21, 22, 13, 14, 102], [101, 13, 22, 102, 0, 0]], [0.5, 0.5])

    Source:
        Yoon, Kim, Park, "SSMix: Saliency-Based Span Mixup for Text Classification", Findings of ACL 2021, section 3.

    Differs from it:
        The authors' code lets a span of the partner begin or end at its first or last token where no other fits, and
        so copies [CLS] and [SEP]; divides by zero for rows of two tokens; and sums in float32. Here spans keep to
        ordinary tokens, also where special ones stand in the middle, means are float64, equal means go to the lowest
        start, and ⌊span·n⌋ is taken of span·n + 10⁻⁹, so that 0.29 of 100 tokens are 29. Masks and segments of the
        row stay as they are, in the code as here.
    """

    _evidence: ClassVar[tuple[str, ...]] = ("lengths", "saliency")
    gives: ClassVar[tuple[str, ...]] = ("partner",)

    def _draw(
        self,
        rng: np.random.Generator,
        spec: Spec,
        *,
        saliency: Any,
        special: Any = None,
        segments: Any = None,
        labels: Any = None,
        partner: Any = None,
    ) -> Plan:
        from .. import windows

        donors, acts, runs = self._rows(rng, spec, labels, partner, special, segments)
        scores = token_evidence("saliency", saliency, (spec.n, *spec.shape), "fiu", "real numbers")
        if scores.dtype not in (np.float32, np.float64):
            scores = scores.astype(np.float32 if scores.dtype == np.float16 else np.float64)
        if not (scores.flags.c_contiguous and scores.flags.writeable):  # others would be compiled for anew
            scores = scores.copy()
        patches = runs.count.shape
        box, donor = np.empty((*patches, 2), np.int32), np.empty((*patches, 2), np.int32)
        share, weight = np.empty(patches, np.float32), np.empty(patches, np.float32)
        rows = donors.astype(np.int64)
        wrong = windows.rank_windows(scores, runs.run, runs.count, rows, acts, self.span, box, donor, share, weight)
        if wrong >= 0:
            ordinary = (runs.run[wrong] > 0).any(0)
            place = int(np.argmax(ordinary & ~np.isfinite(scores[wrong])))
            raise MixValueError(
                f"saliency[{wrong}, {place}] is {scores[wrong, place]}: expected a finite number at every ordinary "
                "token: lower the learning rate where gradients have diverged, scale the loss where halves overflow, "
                "or mark the token in special="
            )
        return _pasted(donors, box, donor, share, weight, spec.shape)


@dataclass(frozen=True, repr=False)
class SpanMix(_Spans):
    """Replace a random span of tokens by one of the partner's of the same length: CutMix for text, SSMix blindfolded.

    m = max(⌊span·n⌋, 1) of n ordinary tokens; ỹ = (1 - m/n)·y + (m/n)·y[partner]. Every place where the span fits is
    as likely as any other. Ordinary tokens are real and not special; only they are replaced, and by such only.

    Args:
        span: share of the ordinary tokens that is replaced, above 0, up to 1.
        pieces: "span" (tokens that follow one another) or "tokens" (m single tokens, anywhere).
        align: take the partner's tokens from the same places, drawn among those that are ordinary in both rows; False:
            from places of their own.
        pairs: mix each half of a sentence pair with the same half of the partner, by itself, as SSMix does; aligned
            places then count from the first ordinary token of the half.
        pairing: "random", "derange", "roll", "flip", "same_class", "other_class".
        p: probability that a row is mixed.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of one patch for each half, or max(⌊span·T⌋, 1) patches of one token for each, unused
        ones empty. Where there is no room, the row stays as it is and the partner weighs 0. ``draw`` takes
        ``lengths``, ``special``, ``segments`` and ``partner`` as SSMix does, and in place of the draw ``at`` and
        ``donor_at``: first tokens of the patches in the row and in the partner, whole numbers that spread to (N, K),
        or (N,) for one patch; those of patches that are not used are not looked at. Aligned, one says the other.

    Raises:
        MixError: if span is outside (0, 1] or a word unknown; on a draw, if the spec has not one axis, an array has
            another shape or dtype, a segment is neither 0 nor 1, or a given place does not fit its row.

    Example:
        >>> ids = np.array([[101, 11, 12, 13, 14, 102], [101, 21, 22, 102, 0, 0]])
        >>> spec = Spec.like(ids, "b t", lengths=[6, 4])
        >>> plan = SpanMix(0.5).draw(np.random.default_rng(0), spec, partner=[1, 0], at=[1, 2])
        >>> import mixops as mx
        >>> mx.mix(ids, plan, "b t", "discrete").tolist(), plan.lam.tolist()
        ([[101, 21, 22, 13, 14, 102], [101, 21, 12, 102, 0, 0]], [0.5, 0.5])

    Source:
        Yoon, Kim, Park, "SSMix", Findings of ACL 2021, section 5 (without saliency; without spans); Yun et al.,
        "CutMix", ICCV 2019, for the idea.

    Differs from it:
        The authors' code draws a start in the row alone and leaves the row unmixed where the partner has no token
        there, a quarter of the rows; takes special tokens and masks along; and takes fewer single tokens from a short
        partner. Here places are drawn among those that fit both, and a partner without room leaves the row alone.
    """

    pieces: str = field(default="span", kw_only=True)
    align: bool = field(default=True, kw_only=True)

    gives: ClassVar[tuple[str, ...]] = ("partner", "at", "donor_at")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("SpanMix", "pieces", self.pieces, PIECES)
        object.__setattr__(self, "align", check_flag("SpanMix", "align", self.align))

    def _draw(
        self,
        rng: np.random.Generator,
        spec: Spec,
        *,
        special: Any = None,
        segments: Any = None,
        labels: Any = None,
        partner: Any = None,
        at: Any = None,
        donor_at: Any = None,
    ) -> Plan:
        donors, acts, runs = self._rows(rng, spec, labels, partner, special, segments)
        sizes, single = sizes_of(self.span, runs.count), self.pieces == "tokens"
        size, number = (np.ones_like(sizes), sizes) if single else (sizes, np.ones_like(sizes))
        most = int(sizes_of(self.span, spec.shape[0])) if single else 1
        wanted = ascending(most, np.intp) < number[..., None]
        here, there = runs.run >= size[..., None], runs.run[donors] >= size[..., None]
        own, theirs = (_given_places(name, v, wanted.shape) for name, v in (("at", at), ("donor_at", donor_at)))
        if self.align and (own is None or theirs is None):
            shift = _shift(runs, donors) if self.pairs else np.zeros_like(sizes)
            here = here & _moved(there, shift)
            if theirs is not None:
                own = theirs - shift[..., None]
            start = _drawn_places(rng, here, wanted) if own is None else own
            stop, room = start + shift[..., None], here.sum(-1) >= number
            there = _moved(here, -shift)
        else:
            start = _drawn_places(rng, here, wanted) if own is None else own
            stop = _drawn_places(rng, there, wanted) if theirs is None else theirs
            room = (here.sum(-1) >= number) & (there.sum(-1) >= number)
        used = wanted & (room & acts[:, None])[..., None]
        for name, given, places, fits in (("at", at, start, here), ("donor_at", donor_at, stop, there)):
            if given is not None:
                _check_places(name, places, fits, used)
        long = np.where(used, size[..., None], 0)
        box, donor = (np.where(used[..., None], np.stack([s, s + long], -1), 0) for s in (start, stop))
        weight = long / np.maximum(runs.count.sum(1), 1)[:, None, None]
        patches = (spec.n, used.shape[1] * most)
        flat = (box.reshape(*patches, 2), donor.reshape(*patches, 2), used.reshape(patches), weight.reshape(patches))
        return _pasted(donors, *flat, spec.shape)


def _pasted(
    donors: np.ndarray,
    box: np.ndarray,
    donor: np.ndarray,
    share: np.ndarray,
    weight: np.ndarray,
    shape: tuple[int, ...],
) -> Plan:
    """The plan of patches that come from one partner a row; donors (N,), box and donor (N, K, 2), the others (N, K)."""
    n, patches = share.shape
    return Plan.trusted(
        base=ascending(n),
        partner=donors.reshape(n, 1) if patches == 1 else np.repeat(donors[:, None], patches, 1),
        box=box,
        donor=donor,
        opacity=share,
        weight=weight,
        shape=shape,
    )


# -- places that are drawn, or given; all arrays are (N rows, H halves, T places or pieces) ----------------------------


def _shift(runs: Runs, donors: np.ndarray) -> np.ndarray:
    """(N, H) from where a half begins in the row to where it begins in the partner."""
    begin = (runs.run > 0).argmax(-1)
    shift: np.ndarray = begin[donors] - begin
    return shift


def _moved(fits: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """What ``fits`` says of the places that lie ``shift`` further on; False beyond the ends."""
    extent = fits.shape[-1]
    place = ascending(extent, np.intp) + shift[..., None]
    inside = (place >= 0) & (place < extent)
    moved: np.ndarray = np.take_along_axis(fits, np.where(inside, place, 0), -1) & inside
    return moved


def _drawn_places(rng: np.random.Generator, fits: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """As many different places as are wanted among those that fit, in order; any where too few fit."""
    keys = np.where(fits, rng.random(fits.shape), 2)  # the places of the lowest keys are a fair choice
    if wanted.shape[-1] == 1:
        return keys.argmin(-1)[..., None]
    chosen = np.argsort(keys, -1)[..., : wanted.shape[-1]]
    return np.sort(np.where(wanted, chosen, fits.shape[-1]), -1)


def _given_places(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Places that a user gave, spread over the patches."""
    if value is None:
        return None
    places = plain_array(name, value)
    rows, patches = shape[0], shape[1] * shape[2]
    if places.dtype.kind not in "iu" and places.size:
        raise MixTypeError(f"{name}: got {places.dtype}, expected whole numbers, places of tokens")
    if places.shape == (rows,) and patches == 1:
        places = places[:, None]
    try:
        return np.broadcast_to(places, (rows, patches)).astype(np.int64).reshape(shape)
    except ValueError:
        raise MixValueError(f"{name} has shape {places.shape}: expected ({rows}, {patches})") from None


def _check_places(name: str, places: np.ndarray, fits: np.ndarray, used: np.ndarray) -> None:
    """Raise MixError unless every used piece begins where one fits, each in another place."""
    inside = (places >= 0) & (places < fits.shape[-1])
    good = inside & np.take_along_axis(fits, np.where(inside, places, 0), -1)
    wrong = used & ~good
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        raise MixValueError(
            f"{name} of row {row} is {places[wrong][0]}: a patch that begins there covers a special token or padding, "
            "or ends beyond the row"
        )
    order = np.sort(np.where(used, places, -1 - ascending(places.shape[-1], np.intp)), -1)
    twice = (order[..., 1:] == order[..., :-1]).any((1, 2))
    if twice.any():
        raise MixValueError(f"{name} of row {int(np.argmax(twice))} names a token twice: expected each once")
