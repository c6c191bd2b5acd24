"""Small models with random weights, and mixing inside them done by hand: two streams through the real modules.

The hand-made way runs a batch and its partners through the model each on its own, mixes what one module puts out, and
runs the model once more with that put in its place. It shares no code with mix_hidden.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from real_peers import torchvision_schemas
from torch import Tensor, nn

import mixops as mx

torchvision_schemas()  # Transformers imports torchvision

import transformers as hf  # noqa: E402

VOCABULARY, LENGTH, BLOCKS = 60, 9, 3
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,  # large enough that what a token says reaches the logits
    "num_labels": 3,
}


def _bert(attention: str) -> Any:
    return hf.BertForSequenceClassification(hf.BertConfig(**SIZES, attn_implementation=attention))


def _roberta(attention: str) -> Any:
    return hf.RobertaForSequenceClassification(hf.RobertaConfig(**SIZES, pad_token_id=0, attn_implementation=attention))


def _electra(attention: str) -> Any:
    return hf.ElectraForSequenceClassification(
        hf.ElectraConfig(**SIZES, embedding_size=16, attn_implementation=attention)
    )


def _distilbert(attention: str) -> Any:
    config = hf.DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=32,
        n_layers=BLOCKS,
        n_heads=2,
        hidden_dim=48,
        max_position_embeddings=40,
        initializer_range=0.3,
        num_labels=3,
        attn_implementation=attention,
    )
    return hf.DistilBertForSequenceClassification(config)


def _deberta(attention: str) -> Any:
    config = hf.DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8)
    return hf.DebertaV2ForSequenceClassification(config)


def _gpt2(attention: str) -> Any:
    config = hf.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=BLOCKS,
        n_head=2,
        n_positions=40,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        num_labels=3,
        attn_implementation=attention,
    )
    return hf.GPT2ForSequenceClassification(config)


def _modernbert(attention: str) -> Any:
    config = hf.ModernBertConfig(
        **SIZES,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
        local_attention=4,  # blocks 1 and 2 look two tokens far
        initializer_cutoff_factor=2.0,
        attn_implementation=attention,
    )
    return hf.ModernBertForSequenceClassification(config)


_BUILD: dict[str, tuple[Callable[[str], Any], str]] = {
    "bert": (_bert, "bert.encoder.layer"),
    "roberta": (_roberta, "roberta.encoder.layer"),
    "distilbert": (_distilbert, "distilbert.transformer.layer"),
    "electra": (_electra, "electra.encoder.layer"),
    "deberta": (_deberta, "deberta.encoder.layer"),
    "gpt2": (_gpt2, "transformer.h"),
    "modernbert": (_modernbert, "model.layers"),
}
MODELS = [
    f"{name}-{attention}"
    for name in _BUILD
    for attention in ("sdpa", "eager")
    if (name, attention) != ("deberta", "sdpa")
]


@cache
def hf_model(name: str) -> Any:
    """A model without dropout, the same for all tests: "bert-sdpa"; leave it as it is. float64, where softmax is."""
    model = build(name).eval()
    # ModernBERT hides all keys of a query that is padding, and in float32, which it takes its softmax in, the lowest
    # float64 is infinite.
    return model if name.startswith("modernbert") else model.double()


def build(name: str) -> Any:
    """A new one, in float32 and training mode."""
    family, attention = name.split("-")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return _BUILD[family][0](attention)


def blocks_of(name: str) -> str:
    """The path of a model's blocks."""
    return _BUILD[name.split("-")[0]][1]


def seeded_model(seed: int, make: Callable[[], nn.Module]) -> nn.Module:
    """A module whose weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


# -- batches -----------------------------------------------------------------------------------------------------------


def sentences(lengths: Sequence[int], seed: int = 0, length: int = LENGTH) -> dict[str, Tensor]:
    """Random sentences of these lengths, padded with 0: input_ids and attention_mask."""
    rng = np.random.default_rng(seed)
    ids = torch.from_numpy(rng.integers(3, VOCABULARY, (len(lengths), length)))
    mask = (torch.arange(length) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def plan_of(lam: Sequence[float], partner: Sequence[int], layer: str | None = None) -> mx.Plan:
    """Own shares and partners as a plan."""
    return mx.Plan.whole(np.array(partner), 1 - np.array(lam), layer=layer)


# -- by hand -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spot:
    """A module, and whether what it takes or what it puts out is mixed."""

    module: nn.Module
    takes: bool = False


def spot_of(model: nn.Module, blocks: str, layer: str | int) -> Spot:
    """What a layer of mix_hidden ought to mean in this model."""
    if layer == "words":
        return Spot(model.get_input_embeddings())  # type: ignore[operator]
    if layer == "sentence":
        return Spot([module for module in model.modules() if isinstance(module, nn.Linear)][-1], takes=True)
    assert isinstance(layer, int)
    return Spot(model.get_submodule(f"{blocks}.{max(layer - 1, 0)}"), takes=layer == 0)


def state_at(model: nn.Module, spot: Spot, batch: dict[str, Tensor]) -> Tensor:
    """What is at a spot in a plain run."""
    seen: list[Tensor] = []

    def take(module: nn.Module, args: Any) -> None:
        seen.append(args[0])

    def put_out(module: nn.Module, args: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handle = spot.module.register_forward_pre_hook(take) if spot.takes else spot.module.register_forward_hook(put_out)
    try:
        model(**batch)
    finally:
        handle.remove()
    [state] = seen
    return state


@contextmanager
def put_in(spot: Spot, state: Tensor) -> Iterator[None]:
    """Another value in place of what is at a spot."""

    def take(module: nn.Module, args: Any) -> Any:
        return (state, *args[1:])

    def put_out(module: nn.Module, args: Any, output: Any) -> Any:
        return (state, *output[1:]) if isinstance(output, tuple) else state

    handle = spot.module.register_forward_pre_hook(take) if spot.takes else spot.module.register_forward_hook(put_out)
    try:
        yield
    finally:
        handle.remove()


def union(mask: Tensor, plan: mx.Plan) -> Tensor:
    """Own or partner's tokens, row by row."""
    new = mask.clone()
    for row in range(plan.n):
        if plan.opacity[row, 0] > 0:
            new[row] = mask[row] | mask[int(plan.partner[row, 0])]
    return new


def by_hand(model: nn.Module, spot: Spot, batch: dict[str, Tensor], plan: mx.Plan, seen: Tensor) -> Tensor:
    """Logits of two streams that are mixed at a spot; ``seen`` is the attention mask from there on."""
    partner = torch.from_numpy(plan.partner[:, 0].astype(np.int64))
    own = state_at(model, spot, batch)
    other = state_at(model, spot, {name: value[partner] for name, value in batch.items()})
    share = torch.tensor(plan.opacity[:, 0]).to(own.dtype).reshape(-1, *[1] * (own.ndim - 1))
    with put_in(spot, (1 - share) * own + share * other):
        logits: Tensor = model(**{**batch, "attention_mask": seen}).logits
    return logits


def gradients(model: nn.Module, logits: Tensor) -> list[Tensor]:
    """Gradients of all parameters of a loss that no row and no class is left out of."""
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).reshape(logits.shape)
    parameters = list(model.parameters())
    loss = (weights * logits + logits**2).sum()
    return list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


def assert_alike(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """Equal but for rounding, which is measured by the largest number of each tensor."""
    for a, b in zip(ours, theirs, strict=True):
        eps = 2e-6 if b.dtype == torch.float32 else 1e-10
        torch.testing.assert_close(a, b, rtol=1e-5, atol=eps * (1 + float(b.detach().abs().max())))


def hooks_left(model: nn.Module) -> int:
    """How many hooks of mixops are on its modules; Transformers has some of its own there."""
    hooks = [
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]
    return sum(getattr(hook, "func", hook).__module__.startswith("mixops") for hook in hooks)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny matrices are slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# -- in another process ------------------------------------------------------------------------------------------------


def small_classifier() -> nn.Module:
    """Two blocks with attention over (B, T, D) and a head, dropout 0."""
    block = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(block, 2, enable_nested_tensor=False), nn.Flatten(), nn.Linear(64, 3))


def rank_gradients(rank: int, world: int, folder: str) -> None:
    """One process of a DistributedDataParallel step; each rank has rows and a plan of its own."""
    from mixops.pipelines.hidden import mix_hidden

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    model = nn.parallel.DistributedDataParallel(seeded_model(3, small_classifier))
    x, plan = rank_batch(rank)
    with mix_hidden(model, "0.layers.0", plan):
        logits = model(x)
    logits.square().mean().backward()
    if rank == 0:
        torch.save([p.grad for p in model.module.parameters()], os.path.join(folder, "gradients.pt"))  # noqa: PTH118
    torch.distributed.destroy_process_group()


def rank_batch(rank: int) -> tuple[Tensor, mx.Plan]:
    """Rows and the plan of a rank."""
    x = torch.from_numpy(np.random.default_rng(rank).standard_normal((4, 4, 16)).astype(np.float32))
    return x, plan_of([0.3 + 0.4 * rank] * 4, [1, 0, 3, 2] if rank else [2, 3, 0, 1])
