"""TokenSwap and TokenDelete: words of a row change places or go, as plans on ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..constant import ascending, filled
from ..errors import MixValueError
from ..fills import Fills
from ..plan import Plan
from ..spec import Spec
from .base import Operator, check_count, kept
from .cutoff import check_one_fill
from .tokens import check_share, drawn_places, given_places, lengths_of, ordinary_tokens, sizes_of


@dataclass(frozen=True, repr=False)
class TokenEdit(Operator):
    """Base of the operators that move the tokens of a row within it.

    Args:
        share: edits as a share of the row's ordinary tokens, in (0, 1]; at least one.
        count: edits of every row, 1 or more, in place of the share.
    """

    share: float = 0.1
    count: int | None = None

    uses: ClassVar[tuple[str, ...]] = ("special",)
    gives: ClassVar[tuple[str, ...]] = ("at",)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        object.__setattr__(self, "share", check_share(name, self.share))
        if self.count is not None:
            object.__setattr__(self, "count", check_count(name, "count", self.count, 1))

    @property
    def needs(self) -> tuple[str, ...]:
        return ("lengths",)

    def _edits(self, tokens: Any) -> np.ndarray:
        """Edits of rows of so many ordinary tokens, whether there is room for them or not."""
        return sizes_of(self.share, tokens) if self.count is None else np.full(np.shape(tokens), self.count)

    def _acting(self, rng: np.random.Generator, many: np.ndarray) -> np.ndarray:
        """``many``, with 0 for the rows that p leaves alone."""
        return many if self.p == 1 else many * kept(rng, self.p, ascending(len(many), np.intp))


@dataclass(frozen=True, repr=False)
class TokenSwap(TokenEdit):
    """Let pairs of tokens change places: x̃[i] = x[j], x̃[j] = x[i] for each drawn pair of a row; ỹ = y.

    The plan moves ids "b t" (``kind="discrete"``), and with them tags, masks and embeddings, whatever has an axis t.

    Args:
        share: pairs as a share of the row's n ordinary tokens, in (0, 1]: max(⌊share · n⌋, 1) of them.
        count: pairs of every row, 1 or more, in place of the share.
        p: probability that it acts, on each row.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan on the shape (T,) of two patches a pair, each one token of the same row, opacity 1,
        weight 0. Pairs are drawn without overlap, each choice as likely, so a row has n // 2 at most, and one of 0 or 1
        ordinary tokens is left as it is. It needs "lengths" (or takes them off the spec) and uses "special", (N, T),
        True at tokens that stay in place; without it every real token is ordinary. Keyword ``at=`` replaces the draw:
        (N, 2m) tokens, the first two of a row exchange, the next two, and so on; -1 for none.

    Raises:
        MixError: if share is outside (0, 1] or count below 1; on a draw, if the spec is not (T,) or the evidence of
            another shape.

    Example:
        >>> plan = TokenSwap(count=1).draw(np.random.default_rng(0), Spec(1, (4,)), at=[[0, 2]])
        >>> import mixops as mx
        >>> mx.mix(np.array([[5, 6, 7, 8]]), plan, "b t", "discrete").tolist()
        [[7, 6, 5, 8]]

    Source:
        Wei, Zou, "EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification Tasks", EMNLP
        2019, section 2 (random swap).

    Differs from it:
        The pairs of a row do not overlap, so that all are exchanged at once; in EDA a later swap may move a word again
        or undo an earlier one.
    """

    def _draw(
        self, rng: np.random.Generator, spec: Spec, *, labels: Any = None, special: Any = None, at: Any = None
    ) -> Plan:
        ordinary = ordinary_tokens("TokenSwap", spec, special)
        most = min(int(self._edits(spec.shape[0])), spec.shape[0] // 2)
        if at is not None:
            places, used = given_places(at, lengths_of(spec), 2 * most)
            if (used[:, 0::2] != used[:, 1::2]).any():
                raise MixValueError("TokenSwap at=: a pair names one token only: expected both, or -1 for both")
        else:
            room = ordinary.sum(1)
            many = self._acting(rng, np.minimum(self._edits(room), room // 2))
            places, used = drawn_places(rng, ordinary, 2 * many, 2 * most)
        other = places.reshape(spec.n, most, 2)[..., ::-1].reshape(places.shape)
        return _moved(_boxes(places, places + 1, used), _boxes(other, other + 1, used), spec)


@dataclass(frozen=True, repr=False)
class TokenDelete(TokenEdit):
    """Delete tokens of a row: what follows moves up, and fills take the places left at its end; ỹ = y.

    Rows get shorter, and all that has an axis t follows the same plan: ids with ``fill=`` the id of padding, attention
    masks as ``Field("b t", "discrete", fill=0)``, segments likewise, tags with the ignore index. The new lengths are
    the sums of the new masks.

    Args:
        share: tokens that go as a share of the row's n ordinary ones, in (0, 1]: max(⌊share · n⌋, 1) of them.
        count: tokens that go from every row, 1 or more, in place of the share.
        fill: what continuous arrays are painted with where rows have become shorter.
        p: probability that it acts, on each row.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan on the shape (T,), opacity 1, weight 0: a patch for each token that may go, the run that
        follows it, from the same row, and one of a fill. One ordinary token stays at least: a row of 0 or 1 is left as
        it is. It needs "lengths" (or takes them off the spec) and uses "special", (N, T), True at tokens that are never
        deleted, though they move up; without it every real token is ordinary. Keyword ``at=`` replaces the draw: (N, m)
        tokens that go, -1 for none.

    Raises:
        MixError: if share is outside (0, 1] or count below 1; on a draw, if the spec is not (T,) or the evidence of
            another shape.

    Example:
        >>> plan = TokenDelete(count=1).draw(np.random.default_rng(0), Spec(1, (6,), [4]), at=[[1]])
        >>> import mixops as mx
        >>> mx.mix(np.array([[5, 6, 7, 8, 0, 0]]), plan, "b t", "discrete", fill=0).tolist()
        [[5, 7, 8, 0, 0, 0]]

    Source:
        Wei, Zou, "EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification Tasks", EMNLP
        2019, section 2 (random deletion).

    Differs from it:
        The share of words that go is fixed, where EDA tosses a coin for each word: a plan has a fixed number of
        patches, one for each token that may go, whatever chance says.
    """

    fill: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "fill", check_one_fill("TokenDelete", self.fill))

    def _draw(
        self, rng: np.random.Generator, spec: Spec, *, labels: Any = None, special: Any = None, at: Any = None
    ) -> Plan:
        ordinary, lengths = ordinary_tokens("TokenDelete", spec, special), lengths_of(spec)
        most = min(int(self._edits(spec.shape[0])), spec.shape[0] - 1)
        if at is not None:
            places, used = given_places(at, lengths, most)
        else:
            room = ordinary.sum(1)
            many = self._acting(rng, np.minimum(self._edits(room), np.maximum(room - 1, 0)))
            places, used = drawn_places(rng, ordinary, many, most)
        gone = np.sort(np.where(used, places, spec.shape[0]), 1)
        many, end = used.sum(1), lengths[:, None]
        used = np.arange(most) < many[:, None]
        start = gone + 1
        stop = np.minimum(np.concatenate([gone[:, 1:], end], 1), end)[:, :most]
        up = np.arange(1, most + 1)
        box, donor = _boxes(start - up, stop - up, used), _boxes(start, stop, used)
        freed = np.stack([lengths - many, lengths], 1)[:, None] * (many > 0)[:, None, None]
        box, donor = np.concatenate([box, freed], 1), np.concatenate([donor, freed], 1)
        return _moved(box, donor, spec, Fills.of(self.fill))


def _boxes(start: np.ndarray, stop: np.ndarray, used: np.ndarray) -> np.ndarray:
    """(n, K) starts and stops → (n, K, 2) boxes; empty at the start of the row where they are not used."""
    return np.stack([start, stop], -1) * used[..., None]


def _moved(box: np.ndarray, donor: np.ndarray, spec: Spec, fills: Fills | None = None) -> Plan:
    """The plan that moves tokens of each row within it; with fills, its last patch paints the first of them."""
    partner = np.repeat(ascending(spec.n)[:, None], box.shape[1], 1)
    if fills is not None:
        partner[:, -1] = -1
    on = box[..., 1] > box[..., 0]
    return Plan.trusted(
        base=ascending(spec.n),
        partner=partner,
        box=box,
        donor=donor,
        opacity=on,
        weight=filled(on.shape, 0, np.float32),
        shape=spec.shape,
        fills=Fills.of(0.0) if fills is None else fills,
    )
