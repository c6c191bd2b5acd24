"""What a training step of SSMix costs beside a plain step and beside the step of the authors' code.

    python benches/ssmix_step.py [--rounds N] [--threads N] [--out FILE]

A step is forward, backward and AdamW of a BERT as large as MiniLM; a mixed step draws its plan, too. All steps take
turns on one model in one process. Before the timing the steps of SSMix are held to the same gradients. Exit status 1 if
they do not do the same work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batches import off, stream
from harness import Contender, Ratio, Row, measure
from hidden_step import AGAIN, METHODS, PLAIN, TOLERANCE, Size, Training
from mixops.pipelines.ssmix import ssmix_backward, ssmix_loss
from step_command import StepBench, run_steps
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own

import mixops as mx

HERE = Path(__file__).parent
OUT = HERE / "results" / "ssmix_step.json"
#: Partners by place: with a batch cut in two this pairs its halves, as the authors do.
OP, SPANS = mx.SSMix(0.1, pairing="flip"), mx.SpanMix(0.1, pairing="flip")
#: Where the authors take the gradient.
BLOCK = "bert.embeddings"
ONE_GO, LOSS, NO_SALIENCY = "ssmix_backward, 2F + 2B", "ssmix_loss, 2F + 3B", "SpanMix, 2F + 2B"
OFFICIAL = "as the authors' code, 4F + 4B"
#: Of the time of the authors' step over ours. A backward is two forwards' work, one to the activations alone is one:
#: 12 over 6 and over 7, less what AdamW adds to both.
AIMS = {ONE_GO: 1.6, LOSS: 1.4}
SIZES = (Size("minilm", 6, 384, 12, length=40),)
TINY = (Size("bert-tiny", 2, 16, 2, rows=4, length=12, words=50),)
SAYS = METHODS | {
    "step": "cross-entropy of the batch as it is and of the mixed one by the shares of the plan, their mean, backward, "
    "AdamW; the plain step: cross-entropy of the batch as it is; all take turns on one model, whose weights go on from "
    "step to step",
    "F and B": "forwards and backwards of the whole batch; the third B of ssmix_loss goes to the activations alone",
    "the authors' code": "written anew after clovaai/ssmix: two halves of the batch; the saliency map of each is made "
    "twice, once for each direction, by a forward and a full backward of its own; its ids are mixed by ours, which "
    "leaves their loop over the examples out",
}
del SAYS["two streams"]


@dataclass(frozen=True)
class Steps:
    """The steps on one model."""

    training: Training

    @property
    def model(self) -> Any:
        return self.training.model

    def named(self, batch: Any) -> dict[str, Tensor]:
        ids, mask, labels = batch
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids) if mask is None else mask, "labels": labels}

    # -- gradients of a step ----------------------------------------------------------------------------------

    def one_go(self, batch: Any, k: int) -> None:
        ssmix_backward(self.model, self.named(batch), OP, stream(k), embedding=BLOCK)

    def of_loss(self, op: mx.Operator, batch: Any, k: int) -> None:
        ssmix_loss(self.model, self.named(batch), op, stream(k), embedding=BLOCK).total.backward()  # type: ignore[no-untyped-call]

    def official(self, batch: Any, k: int) -> None:
        whole = self.named(batch)
        half = len(whole["labels"]) // 2
        left = {name: value[:half] for name, value in whole.items()}
        right = {name: value[half:].flip(0) for name, value in whole.items()}
        losses = [self.loss(one["input_ids"], one) for one in (left, right)]
        for own, donor in ((left, right), (right, left)):
            scores = torch.cat([self.map(own), self.map(donor)])
            ids = torch.cat([own["input_ids"], donor["input_ids"]])
            lengths = torch.cat([own["attention_mask"], donor["attention_mask"]]).sum(1).numpy()
            spec = mx.Spec(2 * half, (ids.shape[1],), lengths)
            plan = OP.draw(stream(k), spec, saliency=scores, partner=np.roll(np.arange(2 * half), half))
            mixed = mx.mix(ids, plan, "b t", "discrete")[:half]
            logits = self.model(input_ids=mixed, attention_mask=own["attention_mask"]).logits
            lam = torch.from_numpy(plan.lam[:half])
            losses.append(mx.mixed_loss(F.cross_entropy, logits, own["labels"], donor["labels"], lam))
        torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]

    def loss(self, ids: Tensor, rows: dict[str, Tensor]) -> Tensor:
        logits = self.model(input_ids=ids, attention_mask=rows["attention_mask"]).logits
        return F.cross_entropy(logits, rows["labels"])

    def map(self, rows: dict[str, Tensor]) -> Tensor:
        """Saliency by a forward and a backward of its own; the gradients of the weights are thrown away."""
        kept: list[Tensor] = []

        def cut(module: Any, args: Any, output: Tensor) -> Tensor:
            kept.append(output.detach().requires_grad_())
            return kept[0]

        handle = self.model.get_submodule(BLOCK).register_forward_hook(cut)
        try:
            self.loss(rows["input_ids"], rows).backward()  # type: ignore[no-untyped-call]
        finally:
            handle.remove()
        self.model.zero_grad()
        assert kept[0].grad is not None
        return kept[0].grad.norm(dim=-1)

    # -- whole steps, and their check ----------------------------------------------------------------------------------

    def step(self, gradients: Callable[[Any, int], None], batch: Any, k: int) -> None:
        gradients(batch, k)
        self.training.optimizer.step()
        self.training.optimizer.zero_grad()

    def difference(self, gradients: Callable[[Any, int], None]) -> float:
        """How far the gradients of a step are from those of the authors', without dropout."""
        self.model.eval()
        try:
            found = 0.0
            for k, batch in enumerate(self.training.batches):
                both = [self.collected(one, batch, k) for one in (gradients, self.official)]
                found = max(found, *(off(a, b) for a, b in zip(*both, strict=True)))
            return found
        finally:
            self.model.train()

    def collected(self, gradients: Callable[[Any, int], None], batch: Any, k: int) -> list[Tensor]:
        gradients(batch, k)
        found = [p.grad.detach().clone() for p in self.model.parameters() if p.grad is not None]
        self.model.zero_grad()
        return found


def row_of(size: Size, padded: bool, threads: int) -> Row:
    """All steps on batches of one kind."""
    training = Training.of(size, padded)
    steps = Steps(training)

    def contender(name: str, gradients: Callable[[Any, int], None], ours: bool, held: bool = True) -> Contender:
        check = partial(steps.difference, gradients) if ours and held else None
        return Contender(name, partial(steps.step, gradients), ours, check)

    contenders = [
        Contender(PLAIN, training.plain),
        contender(ONE_GO, steps.one_go, True),
        contender(LOSS, partial(steps.of_loss, OP), True),
        contender(NO_SALIENCY, partial(steps.of_loss, SPANS), True, held=False),
        contender(OFFICIAL, steps.official, False),
        Contender(AGAIN, training.plain),
    ]
    ratios = [Ratio(OFFICIAL, name, at_least=aim) for name, aim in AIMS.items()]
    ratios += [Ratio(name, PLAIN) for name in (ONE_GO, LOSS, NO_SALIENCY, OFFICIAL, AGAIN)]
    return Row(
        f"{size.name}-{'padded' if padded else 'full'}-ssmix",
        f"a training step of a BERT of {size.layers} layers, {size.width} wide, with SSMix; batch ({size.rows}, "
        f"{size.length}), {'padded, with its mask' if padded else 'no padding'}",
        training.batches,
        1,
        contenders,
        ratios,
        threads=threads,
        tolerance=TOLERANCE,
        slow=True,
        notes=("off by: largest difference of a gradient from that of the authors' step, without dropout",),
    )


def measured(tiny: bool, rounds: int, threads: int) -> Iterator[tuple[dict[str, Any], float]]:
    """Every row as the report holds it, and the seconds it took."""
    torch.set_num_threads(threads)
    for size, padded in tqdm(
        [(s, p) for s in (TINY if tiny else SIZES) for p in (False, True)], unit="row", disable=None
    ):
        started = time.monotonic()
        made = measure(row_of(size, padded, threads), rounds)
        told = {**made, "entry": made["name"], "chapter": "A training step of SSMix", "headline": True}
        yield told | {"allocator": "as it comes"}, time.monotonic() - started


BENCH = StepBench("ssmix", "ssmix_step.py", "What a training step of SSMix costs.", SAYS, OUT, measured)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see ``run_steps``."""
    return run_steps(BENCH, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
