"""Sentences: who was mixed with whom, and a small network on few questions, trained with and without mixing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

import mixops as mx

from ..text.bundled import questions
from .train import LEARNING_RATE, Curves, check_runs
from .verdict import Verdict, verdicts

#: Few training questions, so that there is something to gain; the other 240 are the test set.
TRAIN_QUESTIONS, BATCH = 240, 20
#: As the paper has them (Guo et al. 2019), and not tuned.
METHODS: dict[str, mx.Operator | None] = {
    "none": None,
    "WordMixup": mx.WordMixup(1.0),
    "SentenceMixup": mx.SentenceMixup(1.0),
}
#: What is shown, as one would type it, and what it means; a share for each pair, and no question meets itself.
SHOWN: tuple[tuple[str, str], ...] = (
    (
        "WordMixup(1.0, per='sample', pairing='derange')",
        "At “words”, the vector of each word is blended with the vector of the word in the same place of the partner, "
        "before the network has read either; where one question has ended, the other is blended with zeros.",
    ),
    (
        "SentenceMixup(1.0, per='sample', pairing='derange')",
        "At “sentence”, the network reads the two questions apart and unmixed, and the one vector that it makes of "
        "each is blended, just before the last linear layer.",
    ),
)
#: Questions of the batch that the shown pairs are drawn for, and how many of its rows are shown.
_ROWS, _TILES = 12, 4


@dataclass(frozen=True)
class Question:
    """A question and its share in a mixed row.

    Args:
        text: as it is written.
        kind: its class.
        share: of the values and of the target, from 0 to 1.
    """

    text: str
    kind: str
    share: float


@dataclass(frozen=True)
class Pair:
    """A mixed row.

    Args:
        own: the question that the row starts from.
        other: its partner.
        target: (class, share) of the row, from large to small: one entry where both are of one class.
    """

    own: Question
    other: Question
    target: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """The target in words."""
        return " + ".join(f"{kind} {share:.2f}" for kind, share in self.target)


@dataclass(frozen=True, eq=False)
class Draw:
    """What an operator drew for a batch of questions.

    Args:
        title: the operator as it is typed.
        text: what mixing at its layer means, a sentence.
        layer: where the plan is applied.
        pairs: the first rows of the batch.
        plan: of the whole batch.
    """

    title: str
    text: str
    layer: str
    pairs: tuple[Pair, ...]
    plan: mx.Plan


def text_draws(seed: int) -> list[Draw]:
    """Draw a plan for the same batch of questions by every operator of ``SHOWN``.

    Args:
        seed: of the questions and the draws; operator i is drawn from the stream of step i.
    """
    data = questions()
    rows = mx.streams.order_stream(seed, 0).permutation(len(data))[:_ROWS]
    texts, labels = [data.texts[row] for row in rows], np.asarray(data.labels)[rows]
    draws = []
    for i, (spelled, text) in enumerate(SHOWN):
        plan = mx.parse_op(spelled).draw(mx.streams.plan_stream(seed, step=i), mx.Spec(_ROWS))
        assert isinstance(plan, mx.Plan)
        assert plan.layer is not None  # operators on hidden states say where they act
        soft = np.asarray(mx.soft_targets(labels, plan, len(data.classes)))
        kinds = [data.classes[label] for label in labels.tolist()]
        pairs = []
        for row in range(_TILES):
            other, lam = int(plan.partner[row, 0]), float(plan.lam[row])
            target = [
                (data.classes[c], float(soft[row, c])) for c in np.argsort(-soft[row]).tolist() if soft[row, c] > 0
            ]
            own = Question(texts[row], kinds[row], lam)
            pairs.append(Pair(own, Question(texts[other], kinds[other], 1 - lam), tuple(target)))
        draws.append(Draw(spelled, text, plan.layer, tuple(pairs), plan))
    return draws


# -- training ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """Something that is measured on the test set.

    Args:
        key: in report.json and of ``TextCurves``.
        name: for people.
        scale: what it is multiplied with to be shown.
        digits: behind the point.
        unit: after the number.
        falls: whether less is better.
    """

    key: str
    name: str
    scale: float
    digits: int
    unit: str
    falls: bool

    def show(self, value: float) -> str:
        """A mean, with its unit."""
        return self.spread(value) + self.unit

    def spread(self, value: float) -> str:
        """A standard deviation: no unit."""
        return f"{self.scale * value:.{self.digits}f}"

    def change(self, value: float) -> str:
        """A difference: with its sign."""
        return f"{self.scale * value:+.{self.digits}f}"


MEASURES = (
    Measure("accuracy", "accuracy", 100, 2, " %", falls=False),
    Measure("nll", "negative log-likelihood", 1, 3, "", falls=True),
    Measure("ece", "calibration error", 100, 2, " %", falls=True),
)


@dataclass(frozen=True, eq=False)
class TextCurves:
    """Every run of every method, measured on the test set.

    Args:
        epochs: (e,) after which it was measured.
        runs: key of a measure -> method -> (seeds, e).
    """

    epochs: np.ndarray
    runs: Mapping[str, Mapping[str, np.ndarray]]

    @property
    def seeds(self) -> int:
        """Runs of each method."""
        return len(self.runs["accuracy"]["none"])


def run_count(seeds: int) -> int:
    """How many networks are trained."""
    return seeds * len(METHODS)


def train_questions(seeds: int, epochs: int) -> Iterator[tuple[str, TextCurves | None]]:
    """Train every method on every seed; split, first weights and order of batches depend on the seed alone.

    Args:
        seeds: runs of each method, 2 or more, so that there is a spread.
        epochs: of each run.

    Yields:
        ("method, seed s", None) after each run, then ("", TextCurves).

    Raises:
        MixError: if seeds is below 2 or epochs below 1.
    """
    check_runs(seeds, epochs)
    from ..text.training import train_text

    found: dict[str, dict[str, list[Any]]] = {m.key: {method: [] for method in METHODS} for m in MEASURES}
    for seed in range(seeds):
        train, test = questions().split(TRAIN_QUESTIONS, seed)
        for method, op in METHODS.items():
            run = train_text(train, test, op=op, seed=seed, epochs=epochs, batch_size=BATCH, lr=LEARNING_RATE)
            for measure in MEASURES:
                found[measure.key][method].append(getattr(run, measure.key))
            yield f"questions: {method}, seed {seed}", None
    runs = {key: {m: np.array(rows) for m, rows in methods.items()} for key, methods in found.items()}
    yield "", TextCurves(np.arange(1, epochs + 1), runs)


# -- what the runs say -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What the runs say about one measure.

    Args:
        measure: which.
        verdicts: of each method, "none" first; mean, gain and interval as measured, so that where less is better a
            gain below zero is for the method; ``wins`` counts the seeds on which it was better.
    """

    measure: Measure
    verdicts: tuple[Verdict, ...]

    @property
    def sentences(self) -> list[str]:
        """One for each method but "none": better, worse, or neither."""
        return [self._sentence(v) for v in self.verdicts[1:]]

    def _sentence(self, v: Verdict) -> str:
        change, name = self.measure.change, self.measure.name
        points = " points" if self.measure.unit else ""
        found = f"{change(v.gain)}{points} [{change(v.low)}, {change(v.high)}]"
        better = f"better on {v.wins} of {v.seeds} seeds"
        if v.low <= 0 <= v.high:
            return f"{v.method} shows no difference in {name}: {found} holds zero, {better}."
        turn = "lower" if v.gain < 0 else "higher"
        good = "better" if (v.gain < 0) == self.measure.falls else "worse"
        return f"{v.method} is {good} in {name}, which is {turn}: {found}, {better}."

    def numbers(self) -> dict[str, Any]:
        """For report.json."""
        return {"verdicts": [asdict(v) for v in self.verdicts], "sentences": self.sentences}


def text_findings(curves: TextCurves) -> list[Finding]:
    """Each measure after the last epoch: every method beside "none", on the same seeds.

    Raises:
        MixError: if there are fewer than two seeds.
    """
    found = []
    for measure in MEASURES:
        runs = curves.runs[measure.key]
        sign = -1 if measure.falls else 1
        better_up = verdicts(Curves(curves.epochs, {method: sign * values for method, values in runs.items()}))
        found.append(Finding(measure, tuple(_turned(v) for v in better_up) if measure.falls else tuple(better_up)))
    return found


def _turned(v: Verdict) -> Verdict:
    """The verdict on -x as one on x; the wins stay those of -x."""
    return replace(v, mean=-v.mean, gain=0.0 - v.gain, low=0.0 - v.high, high=0.0 - v.low)
