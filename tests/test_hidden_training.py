"""mix_hidden where training changes how a model runs: checkpointing, several processes, compiled blocks."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hidden_models import (
    MODELS,
    assert_alike,
    blocks_of,
    build,
    hf_model,
    hooks_left,
    one_thread,
    plan_of,
    rank_batch,
    rank_gradients,
    seeded_model,
    sentences,
    small_classifier,
)
from mixops.pipelines.hidden import mix_hidden
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import mixops as mx

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
ASKS_FOR_GRAD = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch.compile
PLAN = plan_of([0.3, 0.8, 0.5], [1, 2, 0])


class Tower(nn.Module):
    """Blocks in a row, each or all of them checkpointed, over embedded tokens."""

    def __init__(self, dropout: float, saved: str, reentrant: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(60, 16)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 24, dropout=dropout, batch_first=True) for _ in range(3)
        )
        self.head = nn.Linear(16, 3)
        self.saved, self.reentrant = saved, reentrant

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        run = partial(checkpoint, use_reentrant=self.reentrant)
        h, hidden = self.table(input_ids), attention_mask == 0
        if self.saved == "stack":
            h = run(self.stack, h, hidden)
        else:
            for block in self.blocks:
                h = run(block, h, None, hidden) if self.saved == "block" else block(h, None, hidden)
        return self.head(h[:, 0])

    def stack(self, h: Tensor, hidden: Tensor) -> Tensor:
        for block in self.blocks:
            h = block(h, None, hidden)
        return h


def step(model: nn.Module, layer: str | int, *, inside: bool = True) -> list[Tensor]:
    """Gradients of one step, backward() inside the block or after it."""
    model.zero_grad()
    torch.manual_seed(11)
    with mix_hidden(model, layer, PLAN):
        out: Any = model(**sentences([4, 9, 2]))
        loss = (out if isinstance(out, Tensor) else out.logits).square().sum()
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def tower(dropout: float, saved: str, reentrant: bool = False) -> nn.Module:
    return seeded_model(5, lambda: Tower(dropout, saved, reentrant)).train()


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("layer", ["words", 0, 2, "blocks.1.linear1", "blocks.2.self_attn"])
@pytest.mark.parametrize("saved", ["block", "stack"])
def test_checkpointing_changes_no_gradient(saved: str, layer: str | int, reentrant: bool, dropout: float) -> None:
    assert_alike(step(tower(dropout, saved, reentrant), layer), step(tower(dropout, ""), layer))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("saved", ["block", "stack"])
def test_backward_after_the_block_is_refused_where_it_would_be_wrong(saved: str, reentrant: bool) -> None:
    for layer in (0, 2, "blocks.1.linear1"):
        model = tower(0.0, saved, reentrant)
        with pytest.raises(mx.MixError, match=r"keep backward\(\) inside the with block"):
            step(model, layer, inside=False)
        assert not hooks_left(model)
    assert_alike(step(tower(0.0, ""), 2, inside=False), step(tower(0.0, ""), 2))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # that is what is tested
@pytest.mark.parametrize("reentrant", [False, True])
def test_no_backward_is_due_where_there_are_no_gradients(reentrant: bool) -> None:
    model = tower(0.0, "stack", reentrant)
    with torch.no_grad(), mix_hidden(model, 2, PLAN):
        model(**sentences([4, 9, 2]))
    with mix_hidden(model, 2, PLAN), torch.no_grad():
        model(**sentences([4, 9, 2]))
    with mix_hidden(model.requires_grad_(False), 2, PLAN):
        model(**sentences([4, 9, 2]))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("saved", ["block", "stack"])
def test_several_backwards_of_one_call_are_right_inside_the_block_and_refused_after_it(
    saved: str, reentrant: bool
) -> None:
    batch = sentences([4, 9, 2])
    for layer in ("words", 0, 2):
        found: list[list[Tensor]] = []
        for model in (tower(0.0, saved, reentrant), tower(0.0, "")):
            with mix_hidden(model, layer, PLAN):
                out = model(**batch)
                for part in out.unbind(1):
                    part.sum().backward(retain_graph=True)
            found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
            if layer == "words" or model.saved == "":
                out.sum().backward()  # nothing of the mixing has to be done again
            else:
                with pytest.raises(mx.MixError, match=r"keep backward\(\) inside the with block"):
                    out.sum().backward()
        assert_alike(*found)


def test_the_step_that_was_not_finished_is_the_one_that_is_refused() -> None:
    model, batch = tower(0.0, "block"), sentences([4, 9, 2])
    with mix_hidden(model, 2, PLAN):
        for _ in range(2):
            model(**batch).sum().backward()

    def forget_the_first() -> None:
        with mix_hidden(model, 2, PLAN):
            model(**batch)
            model(**batch).sum().backward()

    with pytest.raises(mx.MixError, match="inside the with block"):
        forget_the_first()


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_whole_model_may_be_checkpointed(reentrant: bool) -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower, self.one = tower(0.1, ""), nn.Parameter(torch.ones(()))

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            def run(one: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
                return one * self.tower(ids, mask)

            saved: Tensor = checkpoint(run, self.one, input_ids, attention_mask, use_reentrant=reentrant)
            return saved

    for layer in ("words", 1):
        whole = Whole()
        torch.manual_seed(11)
        with mix_hidden(whole.tower, layer, PLAN):
            whole(**sentences([4, 9, 2])).square().sum().backward()
        ours = [torch.zeros_like(p) if p.grad is None else p.grad for p in whole.tower.parameters()]
        assert_alike(ours, step(tower(0.1, ""), layer))
        with pytest.raises(mx.MixError, match="inside the with block"), mix_hidden(whole.tower, layer, PLAN):
            whole(**sentences([4, 9, 2]))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", [m for m in MODELS if m.endswith("sdpa") or m.startswith("deberta")])
def test_checkpointing_of_transformers_changes_no_gradient(name: str, reentrant: bool) -> None:
    plain, saving = (build(name).to(hf_model(name).dtype) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its name is about to change
        saving.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        saving.enable_input_require_grads()
    block = f"{blocks_of(name)}.1"
    inner = next(child for child, _ in plain.get_submodule(block).named_children())
    for layer in ("words", 2, block, f"{block}.{inner}"):
        assert_alike(step(saving, layer), step(plain, layer))


def test_a_checkpoint_wrapper_is_the_block_it_holds() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = tower(0.1, "")
    for i, block in enumerate(model.blocks):  # type: ignore[arg-type]
        model.blocks[i] = checkpoint_wrapper(block)  # type: ignore[index, operator]
    for layer in ("blocks.1", 2, "blocks.1.linear1"):
        assert_alike(step(model, layer), step(tower(0.1, ""), layer))


def test_two_processes_average_what_each_mixes_by_its_own_plan(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(rank_gradients, args=(2, str(tmp_path)), nprocs=2, start_method="spawn")
    ours = torch.load(tmp_path / "gradients.pt", weights_only=True)
    apart: list[list[Tensor]] = []
    for rank in range(2):
        model = seeded_model(3, small_classifier)
        x, plan = rank_batch(rank)
        with mix_hidden(model, "0.layers.0", plan):
            logits = model(x)
        logits.square().mean().backward()
        apart.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(ours) == len(apart[0])
    assert_alike(ours, [(a + b) / 2 for a, b in zip(*apart, strict=True)])
    with pytest.raises(AssertionError):
        assert_alike(ours, apart[0])


def test_data_parallel_is_refused() -> None:
    with (
        pytest.raises(mx.MixError, match="DistributedDataParallel"),
        mix_hidden(nn.DataParallel(tower(0.0, "")), 1, PLAN),
    ):
        pass


@ASKS_FOR_GRAD
def test_a_compiled_model_is_refused_and_compiled_blocks_are_not() -> None:
    whole = torch.compile(tower(0.0, ""), backend="eager")
    inside = tower(0.0, "")
    inside.compile(backend="eager")
    block = tower(0.0, "")
    block.get_submodule("blocks.2").compile(backend="eager")
    for model in (whole, inside, block):
        with pytest.raises(mx.MixError, match="compiled"), mix_hidden(model, 1, PLAN):
            pass
        assert not hooks_left(model)
    assert_alike(step(block, "words"), step(tower(0.0, ""), "words"))  # the mask is changed where the model is called
    model = tower(0.0, "")
    for i, one in enumerate(model.blocks):  # type: ignore[arg-type]
        model.blocks[i] = torch.compile(one, backend="eager")  # type: ignore[index, operator]
    for layer in ("words", 1, 2, "blocks.0"):
        assert_alike(step(model, layer), step(tower(0.0, ""), layer))
        assert_alike(step(model, layer), step(tower(0.0, ""), layer))  # compiled by now
    with pytest.raises(mx.MixError, match=r"blocks\.1 is compiled"), mix_hidden(model, "blocks.1.linear1", PLAN):
        pass


@ASKS_FOR_GRAD
def test_a_compiled_forward_may_mix_by_itself() -> None:
    class Mixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor, plan: mx.Plan) -> Tensor:
            h = mx.mix(torch.relu(self.first(x)), plan, "b t d")
            return self.last(h)

    plain = seeded_model(1, Mixes)
    compiled, x = torch.compile(plain, backend="eager"), torch.linspace(-1, 1, 60).reshape(3, 5, 4)
    for lam, partner in (([0.3] * 3, [1, 2, 0]), ([0.2, 0.5, 1.0], [2, 0, 1]), ([0.9] * 3, [0, 0, 1])):
        plan = plan_of(lam, partner)
        assert_alike([compiled(x, plan)], [plain(x, plan)])
