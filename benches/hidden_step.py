"""What mixing at a layer costs in a training step of a BERT, and what a second stream through its lower layers costs.

    python benches/hidden_step.py [--rounds N] [--threads N] [--out FILE]

A step is forward, backward and AdamW; a mixed step draws its plan, too. Plain steps and mixed ones take turns in one
process. Before the timing every mixed step is held to the same mixing written out by hand. Exit status 1 if the steps
do not do the same work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batches import off, stream
from harness import METHOD, Contender, Ratio, Row, measure
from mixops.pipelines.hidden import mix_hidden
from peers import torchvision_schemas
from step_command import StepBench, run_steps
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own

import mixops as mx

HERE = Path(__file__).parent
# The authors' encoder is written down once, for the tests. Last, as both folders have a module called peers.
sys.path.append(str(HERE.parent / "tests"))

from tmix_reference import two_streams  # noqa: E402

OUT = HERE / "results" / "hidden_step.json"
CLASSES = 6
BATCHES = 4
#: Rows of each size, padded and not: see ``mixes``.
PLACES = 5
#: A mixed step takes at most this many plain ones.
AIM = 1.05
#: Sums may be added up in another order. Another layer, partner or mask changes a logit by a hundred times as much.
TOLERANCE = 1e-4
PLAIN, AGAIN = "plain step", "plain step, again"
METHODS = METHOD | {
    "step": "logits, mean cross-entropy of both labels by the shares of the plan, backward, AdamW; the plain step: "
    "cross-entropy of the label; all take turns on one model, whose weights go on from step to step",
    "rounds": "every round counts: a copy of milliseconds says little of the machine that steps of seconds met",
    "again": "the plain step is a contender twice: how far their ratio is from 1 is what a ratio here can tell",
    "two streams": "the rows and their partners go through the embeddings and the lower layers side by side, as in the "
    "code of TMix's authors; given the same masks as ours, where that code opens all",
}


@dataclass(frozen=True)
class Size:
    """A BERT and its batches.

    Args:
        name: first word of the names of its rows.
        layers: of the encoder.
        width: of the hidden states; a quarter of the inner layers.
        heads: of the attention.
        rows: of a batch.
        length: of its sentences, in tokens.
        words: in the vocabulary.
    """

    name: str
    layers: int
    width: int
    heads: int
    rows: int = 32
    length: int = 128
    words: int = 30_522


SIZES = (Size("bert-6", 6, 256, 4),)
TINY = (Size("bert-tiny", 2, 16, 2, rows=3, length=5, words=50),)


@dataclass(frozen=True)
class Training:
    """A model in training, with its batches: ids (B, T) int64, what of them is real or None, labels (B,)."""

    size: Size
    model: Any
    optimizer: torch.optim.Optimizer
    batches: list[tuple[Tensor, Tensor | None, Tensor]]

    @classmethod
    def of(cls, size: Size, padded: bool) -> Training:
        torchvision_schemas()
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=size.words, hidden_size=size.width, num_hidden_layers=size.layers, num_labels=CLASSES,
            num_attention_heads=size.heads, intermediate_size=4 * size.width, initializer_range=0.1,
        )  # fmt: skip
        model = BertForSequenceClassification(config).train()
        rng, batches = np.random.default_rng(0), []
        for _ in range(BATCHES):
            ids = rng.integers(1, size.words, (size.rows, size.length))
            real = np.arange(size.length) < rng.integers(size.length // 4, size.length + 1, (size.rows, 1))
            labels = torch.from_numpy(rng.integers(0, CLASSES, size.rows))
            mask = torch.from_numpy(real.astype(np.int64)) if padded else None
            batches.append((torch.from_numpy(ids * real if padded else ids), mask, labels))
        return cls(size, model, torch.optim.AdamW(model.parameters(), lr=1e-5), batches)

    def learn(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()

    def plain(self, batch: Any, k: int) -> None:
        ids, mask, labels = batch
        self.learn(F.cross_entropy(self.model(input_ids=ids, attention_mask=mask).logits, labels))

    def mixed(self, op: mx.Operator, logits: Callable[[Any, mx.Plan], Tensor], batch: Any, k: int) -> None:
        """A step that draws a plan and learns from the logits that are mixed by it."""
        plan = op.draw(stream(k), mx.Spec(self.size.rows))
        self.learn(mx.mixed_loss(F.cross_entropy, logits(batch, plan), *mx.pair_targets(batch[2], plan)))

    # -- logits mixed by a plan, by ours and written out ---------------------------------------------------------------

    def ours(self, batch: Any, plan: mx.Plan) -> Tensor:
        ids, mask, _ = batch
        with mix_hidden(self.model, plan.layer, plan):
            return self.model(input_ids=ids, attention_mask=mask).logits  # type: ignore[no-any-return]

    def streams(self, k: int, batch: Any, plan: mx.Plan) -> Tensor:
        """Mixed at hidden state k by two streams."""
        ids, mask, _ = batch
        bert, (partner, lam) = self.model.bert, parts(plan)
        own, other = bert.embeddings(input_ids=ids), bert.embeddings(input_ids=ids[partner])
        masks: list[Tensor | None] = [None, None, None]
        if mask is not None:
            real = mask.bool()[:, None, None, :].expand(-1, 1, self.size.length, -1)
            masks = [real, real[partner], real | real[partner]]
        states = two_streams(list(bert.encoder.layer), own, other, lam[:, None, None], k - 1, *masks)
        return self.model.classifier(self.model.dropout(bert.pooler(states)))  # type: ignore[no-any-return]

    def words(self, batch: Any, plan: mx.Plan) -> Tensor:
        """Mixed word vectors, given to the model in place of ids."""
        ids, mask, _ = batch
        partner, lam = parts(plan)
        vectors = self.model.get_input_embeddings()(ids)
        mixed = lam[:, None, None] * vectors + (1 - lam)[:, None, None] * vectors[partner]
        real = None if mask is None else mask | mask[partner]
        return self.model(inputs_embeds=mixed, attention_mask=real).logits  # type: ignore[no-any-return]

    def sentence(self, batch: Any, plan: mx.Plan) -> Tensor:
        """Mixed vectors of the sentences, given to the classifier."""
        ids, mask, _ = batch
        partner, lam = parts(plan)
        pooled = self.model.dropout(self.model.bert(input_ids=ids, attention_mask=mask).pooler_output)
        mixed = lam[:, None] * pooled + (1 - lam)[:, None] * pooled[partner]
        return self.model.classifier(mixed)  # type: ignore[no-any-return]

    def difference(self, op: mx.Operator, logits: Callable[[Any, mx.Plan], Tensor]) -> float:
        """How far our logits are from others for the same plans, without dropout."""
        self.model.eval()
        try:
            with torch.no_grad():
                plans = [op.draw(stream(k), mx.Spec(self.size.rows)) for k, _ in enumerate(self.batches)]
                pairs = list(zip(self.batches, plans, strict=True))
                return max(off(self.ours(batch, plan), logits(batch, plan)) for batch, plan in pairs)
        finally:
            self.model.train()


def parts(plan: mx.Plan) -> tuple[Tensor, Tensor]:
    """Partners (N,) int64 and own shares (N,) float32."""
    return torch.from_numpy(plan.partner[:, 0].astype(np.int64)), torch.from_numpy(plan.lam)


def mixes(size: Size, training: Training) -> Iterator[tuple[str, mx.Operator, Callable[[Any, mx.Plan], Tensor]]]:
    """Where a step can mix: bottom, middle, top, words, sentences; with each the same written out by hand."""
    for k in sorted({0, size.layers // 2, size.layers}):
        yield f"hidden:{k}", mx.TMix([k]), partial(training.streams, k)
    yield "words", mx.WordMixup(), training.words
    yield "sentence", mx.SentenceMixup(), training.sentence


def rows_of(size: Size, padded: bool, threads: int) -> Iterator[Row]:
    """A row for each place; plain and mixed steps lie next to one another, as machines drift within seconds."""
    training = Training.of(size, padded)
    batch = f"batch ({size.rows}, {size.length}), {'padded, with its mask' if padded else 'no padding'}"
    for where, op, by_hand in mixes(size, training):
        name, other = f"mix_hidden at {where}", f"two streams up to {where}"
        ours = Contender(
            name, partial(training.mixed, op, training.ours), True, partial(training.difference, op, by_hand)
        )
        contenders = [Contender(PLAIN, training.plain), ours, Contender(AGAIN, training.plain)]
        ratios = [Ratio(name, PLAIN, at_most=AIM), Ratio(name, AGAIN), Ratio(AGAIN, PLAIN)]
        if where.startswith("hidden"):
            contenders.append(Contender(other, partial(training.mixed, op, by_hand)))
            ratios += [Ratio(other, PLAIN), Ratio(other, name)]
        yield Row(
            f"{size.name}-{'padded' if padded else 'full'}-{where.replace(':', '-')}",
            f"a training step of a BERT of {size.layers} layers, {size.width} wide, mixed at {where}; {batch}",
            training.batches,
            1,
            contenders,
            ratios,
            threads=threads,
            tolerance=TOLERANCE,
            slow=True,
            notes=(
                f"two streams up to hidden:k call a layer {size.layers} + k times and the embeddings twice, ours "
                f"{size.layers} times and once",
                *(["the attention masks of later layers become those of both rows"] if padded else []),
            ),
        )


def measured(tiny: bool, rounds: int, threads: int) -> Iterator[tuple[dict[str, Any], float]]:
    """Every row as the report holds it, and the seconds it took."""
    torch.set_num_threads(threads)
    sizes = TINY if tiny else SIZES
    with tqdm(total=sum(2 * PLACES for _ in sizes), unit="row", disable=None) as bar:
        for row in (row for size in sizes for padded in (False, True) for row in rows_of(size, padded, threads)):
            started = time.monotonic()
            made = measure(row, rounds)
            told = {**made, "entry": made["name"], "chapter": "Mixing inside a model", "headline": True}
            bar.update()
            yield told | {"allocator": "as it comes"}, time.monotonic() - started


BENCH = StepBench(
    "hidden", "hidden_step.py", "What mixing at a layer costs in a training step.", METHODS, OUT, measured
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see ``run_steps``."""
    return run_steps(BENCH, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
