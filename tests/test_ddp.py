"""Distributed training in real processes: plans of ranks, partners across them, checkpoints, a rank that dies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import ddp_worker
import numpy as np
import pytest
import torch
import torch.distributed as dist
from ddp_worker import launch, table, train, trained_ids
from loading import stateful
from mixops.pipelines import KeyedBatchSampler, MixCollator, MixLoader, keyed, numpy_collate, ranks
from mixops.pipelines.exchange import ExchangeLoader
from mixops.pipelines.ranks import Ranks, check_ranks
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

import mixops as mx

N = 21
IMAGE = {"image": mx.Field("b c h w"), "label": mx.Labels(3)}
OPS: dict[str, tuple[mx.Operator, dict[str, Any]]] = {
    "mixup": (mx.Mixup(0.8, per="sample"), IMAGE),
    "pairs of one class": (mx.CutMix(1.0, pairing="same_class"), IMAGE),
    "steps": (mx.CutMix(1.0, per="sample") | mx.Mixup(0.8) | mx.RandomErasing(noise="pixel"), IMAGE),
    "tokens": (
        mx.SSMix(0.3),
        {"ids": mx.Field("b t", "discrete"), "mask": mx.Field("b t", "valid"), "label": mx.Labels(3, form="pair")},
    ),
    "other axes": (mx.Mixup(0.8), {"states": mx.Field("t b d"), "label": mx.Labels(form="sparse")}),
    "nobody": (mx.Mixup(0.8, p=0.0), IMAGE),
}


def sentences(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of everything that the operators above look at, all of it a function of the sample's number."""
    batch = numpy_collate(rows)
    ids = batch["id"]
    rng = [np.random.Generator(np.random.PCG64(int(i))) for i in ids]
    batch["ids"] = np.stack([r.integers(5, 99, 8) for r in rng])
    batch["saliency"] = np.stack([r.random(8) for r in rng])
    batch["lengths"] = 4 + ids % 5
    batch["mask"] = torch.from_numpy((np.arange(8) < batch["lengths"][:, None]).astype(np.int64))
    batch["states"] = torch.from_numpy(np.stack([r.random((2, 3), np.float32) for r in rng], 1))
    return dict(batch)


def loader_of(kind: Any, name: str, size: int, **options: Any) -> Any:
    op, fields = OPS[name]
    sampler = KeyedBatchSampler(range(N), size, seed=3, shuffle=True, pad=False)
    batches = DataLoader(table(N), batch_sampler=sampler, collate_fn=sentences)
    return kind(batches, op, fields, 7, **options)


def plain(batches: Any, name: str) -> list[dict[str, list[np.ndarray]]]:
    """Ids and mixed fields as arrays, rows first: tensors would go to another process by files that end with theirs."""
    got = []
    for batch in batches:
        items = {field: batch[field] for field in ("id", *OPS[name][1])}
        parts = {field: item if isinstance(item, tuple) else (item,) for field, item in items.items()}
        got.append({f: [np.moveaxis(np.asarray(p), int(f == "states"), 0) for p in ps] for f, ps in parts.items()})
    return got


def exchanged(rank: int, world: int) -> dict[str, list[Any]]:
    return {name: plain(loader_of(ExchangeLoader, name, 8 // world), name) for name in OPS}


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_that_exchange_mix_the_batches_of_one_process(world: int, tmp_path: Path) -> None:
    whole = {name: plain(loader_of(MixLoader, name, 8), name) for name in OPS}
    got = launch(tmp_path / "run", world, exchanged)
    for name, alone in whole.items():
        assert [len(batch["id"][0]) for batch in alone] == [8, 8, 5]
        assert all(len(one[name]) == 3 for one in got)
        for step, batch in enumerate(alone):
            for rank, one in enumerate(got):
                assert one[name][step].keys() == batch.keys()
                for field, parts in batch.items():
                    for ours, theirs in zip(one[name][step][field], parts, strict=True):
                        assert ours.dtype == theirs.dtype
                        assert np.array_equal(ours, theirs[rank::world])


def bytes_moved(rank: int, world: int) -> list[tuple[int, int]]:
    moved: list[tuple[int, int]] = []
    plain = Ranks.swapped

    def counted(self: Ranks, data: Any, sent: Any, received: Any) -> Any:
        moved.append((sum(sent), sum(received)))
        return plain(self, data, sent, received)

    Ranks.swapped = counted  # type: ignore[method-assign]  # this process is for this alone
    rows = [{"x": np.full(50, rank * 4 + i, np.float32)} for i in range(4)]
    loader = ExchangeLoader(DataLoader(rows, 4), mx.Mixup(1.0, pairing="roll"), {"x": mx.Field("b d")}, 7)
    list(loader), list(loader.eval())
    return moved


def test_only_rows_that_a_plan_asks_for_travel(tmp_path: Path) -> None:
    # Global rows lie in turn on the two ranks: rolled by one, every row has its partner on the other.
    assert launch(tmp_path / "run", 2, bytes_moved) == [[(800, 800)]] * 2


def plans_of(rank: int, world: int, workers: int) -> list[tuple[Any, list[int], bytes]]:
    data = table(N)
    collate = MixCollator(mx.Mixup(0.8, per="sample"), IMAGE, 7, plan_key="plan")
    loader = DataLoader(
        keyed(data),
        batch_sampler=KeyedBatchSampler(data, 3, seed=5, shuffle=True),
        collate_fn=collate,
        num_workers=workers,
    )
    got = [batch for _ in range(2) for batch in loader]
    return [(batch["plan"].opacity.tobytes(), batch["id"].tolist(), batch["image"].numpy().tobytes()) for batch in got]


def test_ranks_draw_different_plans_and_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    one, two = (launch(tmp_path / str(workers), 2, plans_of, workers) for workers in (0, 2))
    assert one == two
    drawn = [plan for batches in one for plan, _, _ in batches]
    assert len(set(drawn)) == len(drawn) == 2 * 2 * 4
    for epoch in range(2):
        ids = [i for batches in one for _, named, _ in batches[4 * epoch : 4 * epoch + 4] for i in named]
        assert set(ids) == set(range(N))
        assert len(ids) == N + 1  # 21 samples are 11 for each of two


# -- ranks that differ -------------------------------------------------------------------------------------------------


def differing(rank: int, world: int) -> dict[str, str]:
    """What each difference of the last rank makes every rank say."""
    odd = rank == world - 1
    data, mixup = table(12), mx.Mixup(0.8)

    def loader(
        op: mx.Operator = mixup, seed: int = 7, size: int = 2, order: int = 5, rows: Any = data, **options: Any
    ) -> ExchangeLoader:
        sampler = KeyedBatchSampler(rows, size, seed=order, shuffle=True, **options)
        return ExchangeLoader(DataLoader(rows, batch_sampler=sampler), op, IMAGE, seed)

    def versions() -> dict[str, Any]:
        return {"mixops": "9.9.9" if odd else "0.1.0", "numpy": np.__version__}

    class Broken:
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> Any:
            raise OSError("no such disk")

    def resumed() -> ExchangeLoader:
        one = loader()
        if odd:
            one.set_epoch(3)
        return one

    floats = [{**row, "image": row["image"].astype(np.float32)} for row in data]  # type: ignore[attr-defined]
    few = [{"image": data[i]["image"], "label": 0} for i in range(2 if odd else 4)]
    made = {
        "seed": lambda: loader(seed=8 if odd else 7),
        "op": lambda: loader(mx.CutMix() if odd else mx.Mixup(0.8)),
        "order": lambda: loader(order=6 if odd else 5),
        "batch size": lambda: loader(size=3 if odd else 2),
        "dtype": lambda: loader(rows=floats if odd else data),
        "epoch": resumed,
        "training": lambda: loader().train(not odd),
        "failed": lambda: loader(rows=Broken() if odd else data),
        "end": lambda: ExchangeLoader(DataLoader(few, 2), mx.Mixup(), IMAGE, 7),  # type: ignore[arg-type]
        "place": lambda: loader(rank=0, world_size=1),
    }
    said = {}
    for name, make in made.items():
        try:
            list(make())
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"
        dist.barrier()
    ranks.made_with = versions  # type: ignore[attr-defined]  # this process ends here
    for name, make in {
        "version": loader,
        "check": lambda: check_ranks(seed=rank // 2, lr=0.1, loader=made["order"]()),
    }.items():
        try:
            list(make())
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"
        dist.barrier()
    return said


def test_ranks_that_differ_are_refused_in_words_on_every_rank(tmp_path: Path) -> None:
    expected = {
        "seed": "do not agree on seed: 7 on ranks 0, 1; 8 on rank 2",
        "op": "do not agree on op: Mixup(alpha=0.8) on ranks 0, 1; CutMix() on rank 2",
        "order": "do not agree on sampler: seed=5 on ranks 0, 1; seed=6 on rank 2",
        "batch size": "sampler: batch_size=2 on ranks 0, 1; batch_size=3 on rank 2",
        "dtype": "image: tensor of torch.uint8, rows (1, 4, 4) on ranks 0, 1; tensor of torch.float32, rows (1, 4, 4)",
        "epoch": "do not agree on epoch: 0 on ranks 0, 1; 3 on rank 2",
        "training": "do not agree on training: True on ranks 0, 1; False on rank 2",
        "failed": "rank 2 failed at it, and says why",
        "end": "rank 2 is at the end of its epoch, and rank 0 is not",
        "place": "shares samples out as rank, world size = 0, 1, but this process is",
        "version": "do not agree on mixops: 0.1.0 on ranks 0, 1; 9.9.9 on rank 2",
        "check": "seed: 0 on ranks 0, 1; 1 on rank 2, loader: sampler.seed=5 on ranks 0, 1; sampler.seed=6 on rank 2. ",
    }
    for rank, said in enumerate(launch(tmp_path / "run", 3, differing)):
        assert said.keys() == expected.keys()
        for name, words in expected.items():
            if (name, rank) == ("failed", 2):
                assert said[name] == "OSError: no such disk"
            else:
                assert words in said[name]
                assert said[name].startswith("Mix")


class Failing(list[Any]):
    def __getitem__(self, index: Any) -> Any:
        if super().__getitem__(index) is None:
            raise OSError("no such disk")
        return super().__getitem__(index)


def after_a_failure(rank: int, world: int) -> list[list[float]]:
    rows = Failing({"x": np.full((1,), float(i), np.float32), "y": 0} for i in range(8))
    if rank == 1:
        rows[3]["y"] = 9  # no such class: found in batch 1 by whoever makes its targets
        rows[5] = None  # batch 2 cannot be read
    made = StatefulDataLoader(rows, 2)  # type: ignore[arg-type]
    loader = ExchangeLoader(made, mx.Mixup(p=0.0), {"x": mx.Field("b d"), "y": mx.Labels(2)}, 7)
    running, got = iter(loader), []
    for step in range(4):
        try:
            got.append(next(running)["x"].flatten().tolist())
        except (mx.MixError, OSError):
            got.append([])
        if rank == 1:
            assert loader.step == step + 1
    assert next(running, None) is None
    assert next(running, None) is None
    return got


@stateful
def test_a_pass_goes_on_behind_batches_that_one_rank_could_not_make(tmp_path: Path) -> None:
    got = launch(tmp_path / "run", 2, after_a_failure)
    assert got == [[[0, 1], [2, 3], [], [6, 7]], [[0, 1], [], [], [6, 7]]]


def groups(rank: int, world: int) -> list[bytes]:
    halves = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    rows = [{"x": np.full(1, i, np.float32)} for i in range(4)]
    loader = ExchangeLoader(DataLoader(rows, 4), mx.Mixup(1.0), {"x": mx.Field("b d")}, 7, group=halves[rank // 2])
    with pytest.raises(mx.MixError, match="not in the group"):
        Ranks(halves[1 - rank // 2])
    return [batch["x"].numpy().tobytes() for batch in loader]


def test_groups_of_ranks_draw_plans_of_their_own(tmp_path: Path) -> None:
    first, _, third, _ = launch(tmp_path / "run", 4, groups)
    assert first != third


def test_a_group_without_processes_is_refused() -> None:
    with pytest.raises(mx.MixError, match="init_process_group"):
        Ranks(object())


# -- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exchange", [False, True], ids=["local", "exchange"])
def test_a_killed_rank_ends_the_run_and_any_number_of_ranks_goes_on_without_loss(
    exchange: bool, tmp_path: Path
) -> None:
    n, broken = 48, tmp_path / "broken"
    list(ddp_worker.loader_of(n, 8, exchange))
    broken.mkdir()
    got = launch(tmp_path / "first", 4, train, str(broken), n, 2, exchange, 0, (2, 3), killed=2)
    assert all(isinstance(answer, RuntimeError) for rank, answer in enumerate(got) if rank != 2)
    state = torch.load(broken / "checkpoint.pt", weights_only=True)["loader"]
    assert state["step"] == 3
    before = trained_ids(broken, below=3)
    assert len(before) == 24
    for world in (1, 2, 3):
        again = tmp_path / f"again{world}"
        again.mkdir()
        shutil.copy(broken / "checkpoint.pt", again)
        launch(tmp_path / f"run{world}", world, train, str(again), n, 2, exchange, 0, None)
        assert sorted(before + trained_ids(again)) == list(range(n))
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    whole.mkdir(), rest.mkdir()
    shutil.copy(broken / "checkpoint.pt", rest)
    unbroken = launch(tmp_path / "unbroken", 4, train, str(whole), n, 2, exchange, 0, None)
    resumed = launch(tmp_path / "resumed", 4, train, str(rest), n, 2, exchange, 0, None)
    assert [words[3:] for words in unbroken] == resumed
    assert len({word for words in unbroken for word in words}) == 24
    for name in ("weight", "bias"):
        ends = [torch.load(f / "checkpoint.pt", weights_only=True)["model"][name] for f in (whole, rest)]
        torch.testing.assert_close(*ends)  # gloo adds gradients in another order in its first step


def test_another_number_of_loader_workers_trains_on_the_same_batches(tmp_path: Path) -> None:
    words = []
    for workers in (0, 1):
        folder = tmp_path / f"{workers}"
        folder.mkdir()
        words.append(launch(tmp_path / f"run{workers}", 2, train, str(folder), 16, 2, False, workers, None))
    assert words[0] == words[1]
    assert json.dumps(words[0]) != json.dumps(words[0][::-1])


def by_sampler(rank: int, world: int) -> list[list[int]]:
    data = table(11)
    loader = DataLoader(data, batch_sampler=KeyedBatchSampler(DistributedSampler(data, seed=3), 2))
    return [batch["id"].tolist() for batch in ExchangeLoader(loader, mx.Mixup(0.8), IMAGE, 7)]


def test_a_distributed_sampler_underneath_shares_out_as_it_does(tmp_path: Path) -> None:
    got = launch(tmp_path / "run", 2, by_sampler)
    for rank, batches in enumerate(got):
        assert [i for batch in batches for i in batch] == list(DistributedSampler(range(11), 2, rank, seed=3))
