"""The studies on images: labels are corrupted as the papers do, attacks stay in reach, misses are counted right."""

from __future__ import annotations

import gzip
import importlib
import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benching import BENCHES, one_thread
from hypothesis import given, settings
from hypothesis import strategies as st
from real_peers import torchvision_schemas

import mixops as mx

sys.path.append(str(BENCHES / "studies"))

# After the path, which leads to them.
import alpha  # isort: skip
import corrupt  # isort: skip
import evidence  # isort: skip
import folder  # isort: skip
import grid  # isort: skip
import image_runs  # isort: skip
import robust  # isort: skip
import study  # isort: skip

pytestmark = pytest.mark.usefixtures(one_thread.__name__)

TINY = image_runs.TINY
#: The least that trains.
FEW = {**TINY, "rows": 40, "epochs": 1}


def handmade(x: torch.Tensor, y: torch.Tensor) -> image_runs.Images:
    """Images as a study sees them: black is -1 and white is 3."""
    mean, sd = torch.full((1, x.shape[1], 1, 1), 0.25), torch.full((1, x.shape[1], 1, 1), 0.25)
    return image_runs.Images(x, y, x, y, mean, sd)


# -- corrupt labels ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]), st.integers(2, 12))
@settings(max_examples=25)
def test_labels_are_replaced_as_often_as_said_by_any_class_alike(seed: int, share: float, classes: int) -> None:
    rng, rows = np.random.default_rng(seed), 4000
    labels = np.arange(rows) % classes
    found, replaced = corrupt.corrupted(labels, share, classes, rng)
    assert np.array_equal(found[~replaced], labels[~replaced])
    assert abs(replaced.mean() - share) <= 5 * np.sqrt(share * (1 - share) / rows)
    assert found.min() >= 0
    assert found.max() < classes
    if replaced.any():
        of = replaced.sum()
        for kept in np.bincount(found[replaced], minlength=classes) / of, [(found == labels)[replaced].mean()]:
            assert np.abs(np.subtract(kept, 1 / classes)).max() <= 5.5 * np.sqrt(1 / classes / of)


def test_corrupt_labels_depend_on_the_seed_alone_and_leave_the_test_set_as_it_is() -> None:
    case = {**TINY, "rows": 120, "corrupt": 0.5}
    first, bad = corrupt.corrupt_images(case, 3)
    again, same = corrupt.corrupt_images({**case, "width": 8}, 3)
    other, others = corrupt.corrupt_images(case, 4)
    assert torch.equal(first.y, again.y)
    assert torch.equal(bad, same)
    assert not torch.equal(bad, others)
    assert not torch.equal(first.y, other.y)
    clean = image_runs.images_of(case, 3)
    assert torch.equal(first.x, clean.x)
    assert torch.equal(first.test_y, clean.test_y)
    assert torch.equal(first.y[~bad], clean.y[~bad])
    assert not torch.equal(first.y, clean.y)


# -- attacks -----------------------------------------------------------------------------------------------------------


def small_net(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    layers = (torch.nn.Conv2d(2, 6, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(54, 4))
    return torch.nn.Sequential(*layers).double()


@torch.no_grad()
def loss(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    return float(F.cross_entropy(net(x), y))


@given(st.integers(0, 1000), st.floats(0.1, 20), st.sampled_from([1, 10]))
@settings(max_examples=20)
def test_an_attack_stays_in_reach_and_between_black_and_white_and_raises_the_loss(
    seed: int, epsilon: float, steps: int
) -> None:
    net = small_net(seed)
    x = torch.rand(8, 2, 5, 5, dtype=torch.float64) * 4 - 1
    y = torch.arange(8) % 4
    data = handmade(x, y)
    near = robust.attacked(net, x, y, data, epsilon, steps)
    reach = epsilon / 255 / 0.25
    assert float((near - x).abs().max()) <= reach + 1e-6
    assert float(near.min()) >= -1
    assert float(near.max()) <= 3
    assert loss(net, near, y) > loss(net, x, y)
    if steps == 1:  # every value that has room, and a gradient, goes all the way
        room = ((x - reach > -1) & (x + reach < 3)) & (robust.loss_gradient(net, x, y) != 0)
        assert torch.allclose((near - x).abs()[room], torch.tensor(reach, dtype=torch.float64), atol=1e-6)


def test_more_steps_raise_the_loss_of_a_bent_network_further() -> None:
    gained = []
    for seed in range(5):
        net, x, y = small_net(seed), torch.rand(8, 2, 5, 5, dtype=torch.float64) * 4 - 1, torch.arange(8) % 4
        one, ten = (loss(net, robust.attacked(net, x, y, handmade(x, y), 20, n), y) for n in (1, 10))
        gained.append(ten - one)
    assert np.mean(gained) > 0


def test_the_network_of_the_black_box_is_the_same_for_all_methods_and_another_for_each_seed() -> None:
    case = json.dumps(FEW)
    x = image_runs.images_of(json.loads(case)).test_x[:20]
    first = image_runs.probabilities(robust.another(case, 0), x)
    robust.another.cache_clear()
    assert np.array_equal(first, image_runs.probabilities(robust.another(case, 0), x))
    assert not np.array_equal(first, image_runs.probabilities(robust.another(case, 1), x))
    own = image_runs.trained(json.loads(case), image_runs.images_of(json.loads(case)), None, 0)
    assert not np.array_equal(first, image_runs.probabilities(own, x))


# -- between images ----------------------------------------------------------------------------------------------------


def linear(weight: list[list[float]], bias: list[float]) -> torch.nn.Module:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(len(weight[0]), len(bias)))
    net[1].weight.data, net[1].bias.data = torch.tensor(weight), torch.tensor(bias)
    return net


def test_a_prediction_of_neither_class_is_a_miss() -> None:
    logits = torch.tensor([[3.0, 1, 2], [3, 1, 2], [3, 1, 2], [1, 3, 2]])
    own, other = torch.tensor([0, 1, 1, 2]), torch.tensor([1, 0, 2, 2])
    assert robust.missed(logits, own, other).tolist() == [False, False, True, True]


def test_misses_and_gradients_on_the_way_from_one_image_to_another_are_those_worked_out_by_hand() -> None:
    # Class 0 is the first pixel, class 1 the second, and class 2 is sure to 0.55 whatever comes.
    x = torch.eye(2).reshape(2, 1, 1, 2)
    data = handmade(x, torch.tensor([0, 1]))
    weight, bias = torch.tensor([[1.0, 0], [0, 1], [0, 0]]), torch.tensor([0.0, 0, 0.55])
    misses, norms = robust.between(linear(weight.tolist(), bias.tolist()), data, 2, seed=0)
    assert misses == [float(lam == 0.5) for lam in robust.PLACES]
    for lam, norm in zip(robust.PLACES, norms, strict=True):
        # The two images of a pair mirror each other: both have this norm.
        mixed, target = torch.tensor([lam, 1 - lam]), torch.tensor([lam, 1 - lam, 0.0])
        gradient = ((weight @ mixed + bias).softmax(0) - target) @ weight
        assert norm == pytest.approx(float(gradient.norm()), abs=1e-6)


@pytest.mark.parametrize(("label", "share"), [(0, 0.0), (1, 1.0)])
def test_a_network_that_always_says_one_class_misses_all_pairs_without_it(label: int, share: float) -> None:
    data = handmade(torch.rand(6, 1, 2, 2), torch.full((6,), label))
    misses, norms = robust.between(linear([[0.0] * 4] * 3, [1.0, 0, 0]), data, 6, seed=1)
    assert misses == [share] * len(robust.PLACES)
    assert norms == [0.0] * len(robust.PLACES)


def test_one_of_the_two_classes_is_no_miss_even_where_nothing_is_left_of_its_image() -> None:
    data = handmade(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))
    misses, _ = robust.between(linear([[0.0] * 4] * 3, [1.0, 0, 0]), data, 2, seed=1)
    assert misses == [0.0] * len(robust.PLACES)


# -- what the studies share --------------------------------------------------------------------------------------------


def test_images_that_are_moved_and_mirrored_hold_the_image_and_zeros() -> None:
    x = torch.arange(1, 2 * 3 * 4 * 5 + 1, dtype=torch.float32).reshape(2, 3, 4, 5).repeat(8, 1, 1, 1)
    found = image_runs.moved(x, 2, np.random.default_rng(0))
    assert found.shape == x.shape
    places = []
    for one, out in zip(x, found, strict=True):
        ways = {
            (mirrored, top, left): F.pad(one.flip(2) if mirrored else one, (2, 2, 2, 2))[
                :, top : top + 4, left : left + 5
            ]
            for mirrored in (False, True)
            for top in range(5)
            for left in range(5)
        }
        places += [way for way, expected in ways.items() if torch.equal(out, expected)]
    assert len(places) == len(x)
    assert len({mirrored for mirrored, _, _ in places}) == 2
    assert len({place[1:] for place in places}) > 5


def test_fewer_images_are_part_of_more_and_drawn_by_the_seed() -> None:
    few, more, other = (image_runs.images_of({**TINY, "rows": n}, seed) for n, seed in ((20, 1), (50, 1), (20, 2)))
    assert torch.equal(few.x, more.x[:20])
    assert torch.equal(few.y, more.y[:20])
    assert not torch.equal(few.y, other.y)
    assert torch.equal(few.test_x, more.test_x)


@pytest.mark.parametrize("crop", [0, 1])
def test_runs_of_a_seed_see_the_same_batches_from_the_same_weights_whatever_is_drawn_for_mixing(crop: int) -> None:
    """An operator that draws, and mixes nothing, gives the network of a run without one."""
    case = {**FEW, "crop": crop, "batch": 10}
    data = image_runs.images_of(case, 3)
    drawing = mx.OneOf([mx.CutMix(1.0, p=0.0), mx.Mixup(1.0, p=0.0)])
    plain, drawn = (image_runs.trained(case, data, op, 3).state_dict() for op in (None, drawing))
    for name, value in plain.items():
        assert torch.allclose(value, drawn[name], rtol=1e-4, atol=1e-6), name
    mixed = image_runs.trained(case, data, mx.Mixup(1.0), 3).state_dict()
    assert not torch.allclose(plain["head.weight"], mixed["head.weight"], rtol=1e-4, atol=1e-6)


def test_the_learning_rate_drops_after_the_epochs_that_a_case_names() -> None:
    found = []
    for drops in ([1], [2]):
        case = {**FEW, "epochs": 2, "drops": drops, "crop": 1}
        data = image_runs.images_of(case)
        net, after = image_runs.network(case, data, 0), []
        for _ in image_runs.training(net, case, data, mx.CutMix(1.0), 0):
            after.append([p.detach().clone() for p in net.parameters()])
        found.append(after)
    early, late = found
    assert all(torch.equal(a, b) for a, b in zip(early[0], late[0], strict=True))
    way = [sum(float((b - a).norm()) for a, b in zip(*after, strict=True)) for after in found]
    assert way[0] < 0.5 * way[1]


def idx(path: Path, values: np.ndarray) -> None:
    """A file as Fashion-MNIST's loader reads it."""
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    for name, packed in ((path, head + values.tobytes()), (path.with_name(f"{path.name}.gz"), gzip.compress(b""))):
        name.write_bytes(packed)


def test_a_data_set_that_torchvision_keeps_is_read_and_one_it_cannot_fetch_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchvision_schemas()
    monkeypatch.setenv(folder.VARIABLE, str(tmp_path))
    raw = tmp_path / "torchvision" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng, stored = np.random.default_rng(0), {}
    for part, count in (("train", 5), ("t10k", 3)):
        stored[part] = rng.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8)
        idx(raw / f"{part}-images-idx3-ubyte", stored[part][0])
        idx(raw / f"{part}-labels-idx1-ubyte", stored[part][1])
    x, y, test_x, test_y = folder.fetched_images("FashionMNIST")
    assert np.array_equal(x, stored["train"][0][:, None])
    assert np.array_equal(test_x, stored["t10k"][0][:, None])
    assert y.tolist() == [0, 1, 2, 3, 4]
    assert test_y.tolist() == [0, 1, 2]
    assert y.dtype == np.int64
    blocked = tmp_path / "a file"
    blocked.write_text("no folder", encoding="utf-8")
    monkeypatch.setenv(folder.VARIABLE, str(blocked))
    with pytest.raises(grid.StudyError, match="CIFAR100: torchvision neither found it"):
        folder.fetched_images("CIFAR100")


@pytest.mark.parametrize("name", ["methods", "corrupt", "robust", "alpha"])
def test_the_full_profile_is_the_setting_of_the_paper(name: str) -> None:
    for case in importlib.import_module(name).STUDY.cases("full").values():
        assert case["blocks"] == [2, 2, 2, 2]
        assert case["epochs"] == 200
        assert case["drops"] == [100, 150]
        assert case["fetch"] == ("CIFAR100" if case["classes"] == 100 else "CIFAR10")


def test_the_gap_is_the_test_error_less_the_training_error() -> None:
    found = alpha.train({**FEW, "watched": 20}, alpha.ONE, 0)
    assert found["test_error"] == pytest.approx(1 - found["accuracy"])
    assert found["gap"] == pytest.approx(found["test_error"] - found["train_error"])
    assert 0 <= found["train_error"] <= 1


# -- the paper's number ------------------------------------------------------------------------------------------------


def told(case: Any, method: str, seed: int) -> dict[str, Any]:
    return {"accuracy": 0.5 + 0.1 * (method == "mixed") + seed / 100, "nll": 1.0 + seed, "ece": 0.1}


@pytest.mark.parametrize(
    ("paper", "head", "row"),
    [
        ("error 5.6 % -> 4.2 %", "| claim | by | the paper's number | verdict |", "| error 5.6 % -> 4.2 % | Shows"),
        ("", "| claim | by | verdict |", "| it holds | somebody | Shows"),
    ],
)
def test_the_papers_number_has_a_column_where_a_claim_has_one(paper: str, head: str, row: str, tmp_path: Path) -> None:
    claim = evidence.Claim("it holds", "somebody", "accuracy", "mixed", paper=paper)
    one = study.Study("told", "Told", "?", lambda _: {"any": {}}, {"none": "", "mixed": ""}, told, [claim], seeds=2)
    assert study.run_study(one, ["--processes", "1", "--out", str(tmp_path / "told.json")]) == 0
    page = (tmp_path / "told.md").read_text(encoding="utf-8")
    assert head in page
    assert row in page
