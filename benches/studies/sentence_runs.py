"""What the studies on sentences share: their data sets, and one training run as the numbers of a study."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import figures
import numpy as np
from evidence import Measure
from folder import data_file
from grid import Case
from mixops.pipelines.text import Sentences, WordVectors, read_sentences, train_text, word_vectors

import mixops as mx

GLOVE = "vectors/glove6b_subset.npz"
OPERATORS: dict[str, mx.Operator | None] = {
    "none": None,
    "WordMixup": mx.WordMixup(1.0),
    "SentenceMixup": mx.SentenceMixup(1.0),
}
METHODS = {
    "none": "training without mixing",
    "WordMixup": "`WordMixup(alpha=1.0)`: blends the word vectors of two sentences, one λ a batch",
    "SentenceMixup": "`SentenceMixup(alpha=1.0)`: blends what the last layer takes, one λ a batch",
}
#: Training and test files; where there is one file, its column "fold" tells them apart and fold 0 is the test set.
FILES: dict[str, tuple[str, ...]] = {
    "TREC-6": ("text/trec_train.tsv.gz", "text/trec_test.tsv.gz"),
    "SST-2": ("text/sst2_train.tsv.gz", "text/sst2_test.tsv.gz"),
    "SST-1": ("text/sst5_train.tsv.gz", "text/sst5_test.tsv.gz"),
    "MR": ("text/mr.tsv.gz",),
    "SUBJ": ("text/subj.tsv.gz",),
    "AG": ("restricted/agnews_test7600_train.tsv.gz", "restricted/agnews_test7600_test.tsv.gz"),
}
#: How each run is trained; cases add to it.
RECIPE: dict[str, Any] = {"model": "cnn", "learning_rate": 2e-3, "weight_decay": 0.01, "rows": 0}


def files_of(data: str, setting: str) -> list[str]:
    """The files of the data folder that a case reads."""
    return [*FILES.get(data, ()), *([GLOVE] if setting.startswith("Pretrain") and data in FILES else [])]


@cache
def sentences(data: str) -> tuple[Sentences, Sentences]:
    """(train, test) of a data set; "made up" is drawn here."""
    if data == "made up":
        return made_up(0, 160), made_up(1, 80)
    paths = [data_file(name) for name in FILES[data]]
    if len(paths) == 2:
        train = read_sentences(paths[0])
        return train, read_sentences(paths[1], classes=train.classes)
    train, test = (read_sentences(paths[0], where=lambda row, k=k: (row["fold"] == "0") == k) for k in (False, True))
    return train, test


def made_up(seed: int, rows: int) -> Sentences:
    """Sentences of drawn words: a few words of each class, among words that say nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    texts = [
        " ".join([*(f"w{k}" for k in rng.integers(0, 40, rng.integers(3, 12))), f"c{label}{rng.integers(8)}"])
        for label in labels
    ]
    return Sentences(texts, labels, ["a", "b", "c"])


@cache
def vectors(data: str) -> WordVectors:
    """The pretrained vectors of a data set."""
    if data == "made up":
        words = [f"w{k}" for k in range(40)] + [f"c{c}{k}" for c in range(3) for k in range(8)]
        return word_vectors((words, np.random.default_rng(2).normal(size=(len(words), 8)).astype(np.float32)))
    return word_vectors(data_file(GLOVE), keys=("words", "v50"))


def train(case: Case, method: str, seed: int) -> dict[str, Any]:
    """One run. With "rows" above 0, on so many training sentences, drawn by the seed: fewer are part of more."""
    whole, test = sentences(case["data"])
    run = train_text(
        drawn(whole, case["rows"], seed) if case["rows"] else whole,
        test,
        model=case["model"],
        setting=case["setting"],
        vectors=vectors(case["data"]) if case["setting"].startswith("Pretrain") else None,
        op=OPERATORS[method],
        seed=seed,
        epochs=case["epochs"],
        batch_size=case["batch"],
        lr=case["learning_rate"],
        weight_decay=case["weight_decay"],
    )
    return numbers_of(run)


def drawn(whole: Sentences, rows: int, seed: int) -> Sentences:
    """So many of the sentences, drawn by the seed: fewer are part of more."""
    # A stream of its own: that of epoch 0 orders the batches.
    return whole.take(mx.streams.sample_stream(seed, 0, 0).permutation(len(whole))[:rows])


def numbers_of(run: Any) -> dict[str, Any]:
    """What a study keeps of a TextRun."""
    return {
        "accuracy": float(run.accuracy[-1]),
        "nll": float(run.nll[-1]),
        "ece": float(run.ece[-1]),
        "best_accuracy": float(run.accuracy.max()),
        "train_loss": run.loss.tolist(),
        "test_accuracy": run.accuracy.tolist(),
        "test_nll": run.nll.tolist(),
    }


#: Beside the common ones.
MEASURES = {"best_accuracy": Measure("accuracy of the best epoch, %", "higher", 100, " points", 2)}


def curve_figure(report: Mapping[str, Any]) -> Any:
    """Test accuracy and NLL over the epochs, case by case."""
    panels = {"test_accuracy": Measure("test accuracy, %", "", 100), "test_nll": Measure("test NLL", "")}
    return figures.learning_curves(report, panels)
