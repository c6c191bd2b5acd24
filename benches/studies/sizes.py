"""The gain of mixing against the number of training sentences: python -m benches.studies sizes"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import figures
import numpy as np
from evidence import COMMON, Claim, interval, values
from grid import Case
from mixops.pipelines.plots import dress
from sentence_runs import MEASURES, METHODS, RECIPE, curve_figure, files_of, train
from study import Study

SUN = "Sun et al. 2020"
#: Training sentences -> epochs: few sentences are seen more often, as they make fewer steps.
SIZES = {100: 80, 250: 40, 500: 25, 1000: 16, 2500: 10, 5000: 8}


def cases(profile: str) -> dict[str, Case]:
    """Data set x network x size."""
    if profile == "tiny":
        made: dict[str, Any] = {**RECIPE, "data": "made up", "setting": "PretrainTune", "batch": 20, "epochs": 2}
        return {f"{rows} rows": {**made, "rows": rows, "group": "made up", "files": []} for rows in (40, 80, 160)}
    groups = (
        [("TREC-6", "cnn")] if profile == "default" else [(d, m) for d in ("TREC-6", "SST-2") for m in ("cnn", "lstm")]
    )
    found: dict[str, Case] = {}
    for data, model in groups:
        for rows, epochs in SIZES.items():
            found[f"{data}, {model.upper()}, {rows:,} rows"] = {
                **RECIPE,
                "data": data,
                "model": model,
                "setting": "PretrainTune",
                "rows": rows,
                "epochs": epochs,
                "batch": 50,
                "group": f"{data}, {model.upper()}",
                "files": files_of(data, "PretrainTune"),
            }
    return found


def claims() -> list[Claim]:
    """The paper's: a gain at every size, and the more of it the fewer the sentences."""
    found = []
    for method in ("SentenceMixup", "WordMixup"):
        text = f"The fewer the training sentences, the more accuracy {method} gains"
        found.append(Claim(text, SUN, "accuracy", method, direction="lower", slope_over="rows"))
        text = f"The fewer the training sentences, the more {method} lowers the test NLL"
        found.append(Claim(text, SUN, "nll", method, slope_over="rows"))
        for rows in SIZES:
            text = f"{method} has a higher test accuracy with {rows:,} training sentences"
            found.append(Claim(text, SUN, "accuracy", method, where={"rows": rows}))
    return found


def gain_figure(report: Mapping[str, Any]) -> Any:
    """Paired difference to training without mixing over the number of sentences: a row a group, a panel a measure."""
    methods, cases = list(report["methods"]), report["cases"]
    groups: dict[str, list[str]] = {}
    for name, case in cases.items():
        groups.setdefault(case["group"], []).append(name)
    figure = figures.new_figure(4.2 * len(COMMON), 3.3 * len(groups) + 0.5)
    axes = figure.subplots(len(groups), len(COMMON), squeeze=False)
    for row, (group, names) in zip(axes, groups.items(), strict=True):
        for axis, (key, measure) in zip(row, COMMON.items(), strict=True):
            for j, method in enumerate(methods[1:]):
                pairs = [
                    values(report["runs"], name, method, key) - values(report["runs"], name, methods[0], key)
                    for name in names
                ]
                found = [interval(measure.scale * d) for d in pairs]
                # A little apart, so that one interval does not hide another.
                x = np.array([cases[name]["rows"] for name in names]) * 1.05 ** (j - (len(methods) - 2) / 2)
                mean = np.array([one["mean"] for one in found])
                ends = [mean - [one["low"] for one in found], [one["high"] for one in found] - mean]
                colour = figures.colour_of(methods, method)
                axis.errorbar(x, mean, ends, color=colour, marker="o", markersize=5, linewidth=1.4, label=method)
            axis.axhline(0, color=figures.INK, linewidth=0.8)
            axis.set_xscale("log")
            axis.set_xticks([cases[name]["rows"] for name in names], [f"{cases[name]['rows']:,}" for name in names])
            axis.minorticks_off()
            axis.set_title(f"{group}: {measure.title.split(',')[0]}, difference to none", fontsize=10)
            axis.set_xlabel("training sentences")
            axis.set_ylabel(f"{measure.unit.strip() or 'nats'} ({measure.better} is better)")
            dress(axis, figures.INK)
    figures.legend(figure, axes[0][0])
    return figure


STUDY = Study(
    name="sizes",
    title="The gain of mixing against the number of training sentences",
    question=(
        "Mixup-Transformer (Sun et al. 2020) blends sentence vectors and reports that the gain grows as training data "
        "shrink. Here Kim's CNN with trained GloVe vectors (with `--full` an LSTM and SST-2 too) learns from 100 to "
        "5,000 questions of TREC-6, without mixing, with SentenceMixup and with WordMixup. A seed draws its questions, "
        "the fewer from the more, and its first weights; all methods get the same."
    ),
    cases=cases,
    methods=METHODS,
    work=train,
    claims=claims(),
    measures=MEASURES,
    figures={"gain": gain_figure, "curves": curve_figure},
    notes=(
        "The paper fine-tunes BERT on GLUE with λ = 0.5; this is a CNN with λ ~ Beta(1, 1). `minilm.py` fine-tunes a "
        "transformer.",
        "Fewer sentences are seen in more epochs (see the settings), and still make fewer steps.",
        "Words of the test that no training sentence has keep their GloVe vectors, which then nobody trains.",
        "Intervals are over seeds: which sentences were drawn, first weights, dropout, order, draws. The 500 questions "
        "of the test set are the same for all: one is 0.2 points.",
    ),
)
