"""WordMixup and SentenceMixup in four settings of the word vectors: python -m benches.studies settings"""

from __future__ import annotations

from typing import Any

from evidence import Claim
from grid import Case
from sentence_runs import MEASURES, METHODS, RECIPE, curve_figure, files_of, train
from study import Study

GUO = "Guo et al. 2019"
SETTINGS = ("RandomTune", "RandomFix", "PretrainTune", "PretrainFix")
#: Epochs of each data set: more where there are fewer sentences.
EPOCHS = {"TREC-6": 10, "SST-2": 6, "MR": 6, "SUBJ": 6, "SST-1": 6}


def cases(profile: str) -> dict[str, Case]:
    """Data set x network x setting."""
    if profile == "tiny":
        made: dict[str, Any] = {**RECIPE, "data": "made up", "epochs": 2, "batch": 40, "files": []}
        return {f"made up, {setting}": {**made, "setting": setting} for setting in ("RandomTune", "PretrainFix")}
    data, models = (tuple(EPOCHS), ("cnn", "lstm")) if profile == "full" else (("TREC-6", "SST-2"), ("cnn",))
    found: dict[str, Case] = {}
    for one in data:
        for model in models:
            for setting in SETTINGS:
                name = f"{one}, {setting}" if profile == "default" else f"{one}, {model.upper()}, {setting}"
                # --full trains twice as long.
                epochs = EPOCHS[one] * (2 if profile == "full" else 1)
                found[name] = {
                    **RECIPE,
                    "data": one,
                    "model": model,
                    "setting": setting,
                    "epochs": epochs,
                    "batch": 100,
                    "files": files_of(one, setting),
                }
    return found


def claims() -> list[Claim]:
    """The paper's: both gain, in every setting; and what mixing is said to do for likelihood and calibration."""
    found = [
        Claim(f"{method} has a higher test accuracy than training without mixing", GUO, "accuracy", method)
        for method in ("WordMixup", "SentenceMixup")
    ]
    for setting in SETTINGS:
        for method in ("WordMixup", "SentenceMixup"):
            text = f"{method} has a higher test accuracy where vectors are {setting}"
            found.append(Claim(text, GUO, "accuracy", method, where={"setting": setting}))
    for method in ("WordMixup", "SentenceMixup"):
        for measure, name in (("nll", "NLL"), ("ece", "calibration error")):
            text = f"{method} has a lower test {name} than training without mixing"
            found.append(Claim(text, "of Mixup: Thulasidasan et al. 2019", measure, method, direction="lower"))
    return found


STUDY = Study(
    name="settings",
    title="Mixing sentences in four settings of the word vectors",
    question=(
        "WordMixup blends the word vectors of two sentences, SentenceMixup their sentence vectors. Guo et al. (2019) "
        "report that both raise the accuracy of a CNN and an LSTM on five tasks, whether word vectors begin at random "
        "or pretrained, and are trained or fixed. Here the same network (Kim 2014's CNN; with `--full` an LSTM too) is "
        "trained with either and with neither, from the same first weights on the same batches in the same order."
    ),
    cases=cases,
    methods=METHODS,
    work=train,
    claims=claims(),
    measures=MEASURES,
    figures={"curves": curve_figure},
    notes=(
        "Test accuracies are after the last epoch, which was fixed beforehand; the best epoch, picked on the test set, "
        "is shown beside it and is no estimate of anything.",
        "Vectors are GloVe of 50 numbers; Guo et al. use 300, and train until the accuracy on held-out sentences no "
        "longer rises.",
        "The split is the same for all seeds: intervals tell of first weights, dropout, order and draws, not of other "
        "sentences. The test set of TREC-6 has 500 questions: one is 0.2 points.",
    ),
)
