"""The stand-ins for timm's and torchvision's mixing: the same results for the same draws, in the same places."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import real_peers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixops.pipelines import KeyedBatchSampler, keyed
from mixops.pipelines.drop_in.timm_ import FastCollateMixup, Mixup
from mixops.pipelines.drop_in.torchvision_ import BatchMix, CutMix, MixUp
from torch.utils.data import DataLoader, default_collate

import mixops as mx

v2 = real_peers.torchvision_v2()
tv_tensors = pytest.importorskip("torchvision.tv_tensors")
CLASSES = 10


def images(n: int = 6, *, channels: int = 3, size: tuple[int, int] = (8, 9), dtype: Any = torch.float32) -> Any:
    made = torch.from_numpy(np.random.default_rng(n).integers(0, 256, (n, channels, *size), np.uint8))
    return made.to(dtype)


def ids(n: int = 6) -> Any:
    return torch.arange(n) % CLASSES


# -- timm --------------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_timm_mixup_makes_what_timm_makes_of_the_same_draws_in_place(seed: int) -> None:
    case = real_peers.record_timm(seed)
    x, n = torch.from_numpy(case.x.copy()), len(case.x)
    mixup_fn = Mixup(**case.options, label_smoothing=0.0, num_classes=n)
    mixed, soft = mixup_fn(x, torch.arange(n), **case.draw)
    assert mixed is x
    largest = np.abs(case.x) + np.abs(case.x[::-1])
    assert (np.abs(mixed.double().numpy() - case.out) <= 2.0**-22 * largest * case.blends).all()
    np.testing.assert_allclose(soft, case.target, rtol=0, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("multi_label", [False, True])
def test_targets_are_smoothed_as_timm_does(smoothing: float, multi_label: bool) -> None:
    target = torch.eye(CLASSES)[ids(4)] + torch.eye(CLASSES)[3] * (torch.arange(4) == 1)[:, None]
    target = target if multi_label else ids(4)
    mixup_fn = Mixup(label_smoothing=smoothing, num_classes=CLASSES, multi_label=multi_label)
    _, soft = mixup_fn(images(4), target, lam=0.3)
    theirs = real_peers.timm_mixup().mixup_target(target, CLASSES, 0.3, smoothing, multi_label)
    assert soft.dtype == theirs.dtype
    torch.testing.assert_close(soft, theirs)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), mode=st.sampled_from(["batch", "pair", "elem"]), cut=st.booleans())
def test_fast_collate_makes_what_timm_makes_of_the_same_draws(seed: int, mode: str, cut: bool) -> None:
    rng, n = real_peers.seeded(seed), 4
    samples = [(rng.integers(0, 256, (3, 7, 9), np.uint8), i) for i in range(n)]
    options = {"mixup_alpha": float(not cut), "cutmix_alpha": float(cut), "mode": mode, "num_classes": n}
    with real_peers.listening(np.random, "rand", "beta", "randint") as heard:
        theirs, target = real_peers.timm_mixup().FastCollateMixup(**options)(copy.deepcopy(samples))
    draw = real_peers.timm_draw(heard, n, mode, (options["mixup_alpha"], options["cutmix_alpha"]), 1.0, False)
    ours, soft = FastCollateMixup(**options)(samples, **draw)
    assert ours.dtype == theirs.dtype == torch.uint8
    assert (ours.int() - theirs.int()).abs().max() <= (not cut)
    torch.testing.assert_close(soft, target.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_odd_batches_are_taken_and_the_middle_row_meets_itself(mode: str) -> None:
    x = images(5)
    mixed, soft = Mixup(mode=mode, label_smoothing=0, num_classes=CLASSES, seed=1)(x.clone(), ids(5))
    torch.testing.assert_close(mixed[2], x[2])
    torch.testing.assert_close(soft[2], torch.eye(CLASSES)[2])
    assert not torch.equal(mixed[0], x[0])


def test_mixing_that_is_disabled_only_smooths() -> None:
    ours, x = Mixup(cutmix_alpha=1.0, num_classes=CLASSES), images(4)
    theirs = real_peers.timm_mixup().Mixup(cutmix_alpha=1.0, num_classes=CLASSES)
    ours.mixup_enabled = theirs.mixup_enabled = False
    mixed, soft = ours(x.clone(), ids(4))
    torch.testing.assert_close((mixed, soft), theirs(x.clone(), ids(4)))
    ours.mixup_enabled = True
    assert not torch.equal(ours(x.clone(), ids(4))[0], x)


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_timms_loaders_switch_a_collate_off_that_was_copied_or_sent_too(travel: Any) -> None:
    peer = real_peers.timm_mixup()
    from timm.data.loader import PrefetchLoader

    collate = travel(FastCollateMixup(cutmix_alpha=1.0, label_smoothing=0.0, num_classes=CLASSES, seed=7))
    assert isinstance(collate, peer.FastCollateMixup)
    loading = PrefetchLoader(DataLoader(Samples(), 4, collate_fn=collate), device=torch.device("cpu"))
    plain = torch.eye(CLASSES)[ids(16)]
    assert loading.mixup_enabled
    assert not torch.equal(torch.cat([soft for _, soft in loading]), plain)
    loading.mixup_enabled = False
    assert torch.equal(torch.cat([soft for _, soft in loading]), plain)


def test_attributes_are_those_of_timm_and_may_be_changed() -> None:
    ours, theirs = Mixup(0.8, 0.3, (0.2, 0.8)), real_peers.timm_mixup().Mixup(0.8, 0.3, (0.2, 0.8))
    assert vars(theirs).items() <= vars(ours).items()
    ours.mixup_alpha = 0.0
    ours(images(4, size=(20, 20)), ids(4))
    assert set(ours.plan.opacity.ravel().tolist()) == {1.0}  # CutMix is all that is left
    assert Mixup(cutmix_minmax=[0.2, 0.8]).op.cutmix_minmax == (0.2, 0.8)


def test_what_is_refused_leaves_the_images_as_they_were() -> None:
    x = images(4)
    before = x.clone()
    for mixup_fn, target, match in [
        (Mixup(num_classes=2), ids(4), "class 3"),
        (Mixup(), ids(3), "4 images and 3 targets"),
        (Mixup(multi_label=True), ids(4), "multi_label=True"),
        (Mixup(), None, "target is NoneType"),
        (Mixup(), torch.tensor(3), "target is Tensor"),
    ]:
        with pytest.raises(mx.MixError, match=match):
            mixup_fn(x, target)
    with pytest.raises(mx.MixTypeError, match="expected images"):
        Mixup()([1.0, 2.0], ids(2))
    assert torch.equal(x, before)
    Mixup(inplace=False)(x, ids(4))
    assert torch.equal(x, before)
    for wrong in (
        {"mode": "half"},
        {"num_classes": 0},
        {"label_smoothing": 1.0},
        {"mixup_alpha": -1.0},
        {"cutmix_minmax": 0.2},
        {"seed": -1},
    ):
        with pytest.raises(mx.MixError):
            Mixup(**wrong)
    for samples in ([], [{"image": x[0], "label": 1}], list(x), "samples"):
        with pytest.raises(mx.MixTypeError, match=r"expected samples \(image, target\)"):
            FastCollateMixup(num_classes=4)(samples)


def test_without_cutmix_other_arrays_will_do_and_bytes_too() -> None:
    for x in (torch.rand(4, 5), torch.rand(4, 2, 9), images(4, dtype=torch.uint8), torch.rand(4, 1, 2, 3, 4)):
        mixed, _ = Mixup(seed=3)(x.clone(), ids(4))
        assert mixed.dtype == x.dtype
        assert not torch.equal(mixed, x)
    frames = torch.rand(4, 3, 2, 8, 8)
    mixed, _ = Mixup(0.0, 1.0)(frames.clone(), ids(4), lam=0.5, at=[4, 4])
    assert torch.equal((mixed != frames).any(1)[0, 0], (mixed != frames).any(1)[0, 1])  # one box in all frames


# -- where the draws come from -----------------------------------------------------------------------------------------


def test_torchs_seed_makes_the_draws_come_out_again() -> None:
    x, drawn = images(8), []
    for _ in range(2):
        torch.manual_seed(5)
        mixup_fn, transform = Mixup(seed=None), CutMix(num_classes=CLASSES)
        for _step in range(2):
            mixup_fn(x.clone(), ids(8))
            transform(x, ids(8))
            drawn += [mixup_fn.plan, transform.plan]
    assert drawn[:4] == drawn[4:]
    assert drawn[0] != drawn[2]


def test_a_seed_of_its_own_depends_on_the_call_alone_and_goes_on_from_a_state() -> None:
    def plans(mixup_fn: Mixup, count: int) -> list[Any]:
        made = []
        for _ in range(count):
            mixup_fn(images(4), ids(4))
            made.append(mixup_fn.plan)
        return made

    one = Mixup(seed=7)
    first = plans(one, 3)
    torch.manual_seed(1)
    assert plans(Mixup(seed=7), 3) == first
    state = one.draws.state_dict()
    rest = plans(one, 2)
    other = Mixup(seed=7)
    other.draws.load_state_dict(state)
    assert plans(other, 2) == rest
    other.draws.set_epoch(1)
    assert plans(other, 1)[0] not in first
    with pytest.raises(mx.MixError, match="seed"):
        Mixup(seed=8).draws.load_state_dict(state)
    assert len({str(plan.lam) for plan in [*first, *rest]}) == 5


class Samples:
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> Any:
        return images(16, dtype=torch.uint8)[index].numpy(), index % CLASSES


def test_a_seed_in_workers_follows_the_key_of_the_batch_and_is_refused_without_one() -> None:
    def batches(workers: int) -> list[Any]:
        collate = FastCollateMixup(0.8, 1.0, num_classes=CLASSES, seed=7)
        sampler = KeyedBatchSampler(Samples(), 4, seed=1, shuffle=True)
        loading = DataLoader(keyed(Samples()), batch_sampler=sampler, collate_fn=collate, num_workers=workers)
        return list(loading)

    for alone, worked in zip(batches(0), batches(2), strict=True):
        assert torch.equal(alone[0], worked[0])
        assert torch.equal(alone[1], worked[1])
    with pytest.raises(mx.MixError, match=r"keyed\(dataset\)"):
        list(DataLoader(Samples(), 4, collate_fn=FastCollateMixup(seed=7), num_workers=1))


def test_workers_without_a_seed_differ_as_torch_seeds_them() -> None:
    transform = MixUp(num_classes=CLASSES)

    def collate(samples: list[Any]) -> Any:
        return transform(*default_collate(samples))

    lists = [(torch.zeros(3, 4, 4), i % 2) for i in range(8)]

    def shares() -> list[Any]:
        torch.manual_seed(3)
        return [soft[0].max().item() for _, soft in DataLoader(lists, 2, collate_fn=collate, num_workers=2)]

    assert shares() == shares()
    assert len(set(shares())) == 4


# -- torchvision -------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(n=st.integers(1, 6), h=st.integers(1, 12), w=st.integers(1, 12), seed=st.integers(0, 2**32), cut=st.booleans())
def test_transforms_make_what_torchvision_makes_of_the_same_parameters(
    n: int, h: int, w: int, seed: int, cut: bool
) -> None:
    x, y = images(n, size=(h, w)), ids(n)
    ours = (CutMix if cut else MixUp)(alpha=0.6, num_classes=CLASSES, seed=seed)
    mixed, soft = ours(x, y)
    plan = ours.plan
    params = {"labels": y, "batch_size": n, "lam": float(plan.lam[0]), "lam_adjusted": float(plan.lam[0])}
    if cut:
        y1, y2, x1, x2 = plan.box[0, 0].tolist()
        params["box"] = (x1, y1, x2, y2)
    theirs = (v2.CutMix if cut else v2.MixUp)(alpha=0.6, num_classes=CLASSES)
    torch.testing.assert_close(mixed, theirs.transform(x, params), rtol=2e-7, atol=2e-5)
    torch.testing.assert_close(soft, theirs.transform(y, params))


def test_any_nest_comes_back_as_it_was_with_images_and_labels_mixed() -> None:
    x, y, other = tv_tensors.Image(images()), ids(), torch.rand(6, 4)
    batch = {"pixels": x, "meta": [other, "name", None], "Labels": y, "video": tv_tensors.Video(images()[:, None])}
    transform = CutMix(num_classes=CLASSES, seed=1)
    mixed = transform(batch)
    assert list(mixed) == list(batch)
    assert mixed["meta"][0] is other
    assert mixed["meta"][1:] == ["name", None]
    assert type(mixed["pixels"]) is tv_tensors.Image
    assert type(mixed["video"]) is tv_tensors.Video
    assert torch.equal(mixed["video"][:, 0], mixed["pixels"])
    assert torch.equal(mixed["pixels"], mx.mix(images(), transform.plan, "b c h w"))
    assert torch.equal(mixed["Labels"], mx.soft_targets(y, transform.plan, CLASSES))
    assert torch.equal(x, images())


@pytest.mark.parametrize(
    ("getter", "batch"),
    [
        ("default", (images(), ids())),
        ("default", {"image": images(), "my_label": ids()}),
        ("default", (images(), {"labels": ids()})),
        (lambda batch: batch[2], (images(), "between", ids())),
    ],
)
def test_labels_are_found_where_torchvision_finds_them(getter: Any, batch: Any) -> None:
    torch.manual_seed(0)
    theirs = v2.MixUp(num_classes=CLASSES, labels_getter=getter)(batch)
    ours = MixUp(num_classes=CLASSES, labels_getter=getter)(batch)
    shape = torch.utils._pytree.tree_map(lambda leaf: getattr(leaf, "shape", leaf), ours)
    assert shape == torch.utils._pytree.tree_map(lambda leaf: getattr(leaf, "shape", leaf), theirs)


def test_masks_are_pasted_as_ids_and_blends_are_refused_or_go_to_the_heavier() -> None:
    mask = tv_tensors.Mask(torch.arange(6)[:, None, None].expand(6, 8, 9).clone())
    op = mx.CutMix(1.0) | mx.Cutout(size=2)
    transform = BatchMix(op, num_classes=CLASSES, fill=255, seed=4)
    _, soft, mixed = transform(tv_tensors.Image(images()), ids(), mask)
    field = mx.Field("b h w", "discrete", fill=255)
    expected = mx.mix_batch({"m": torch.Tensor(mask).long()}, transform.plan, {"m": field})["m"]
    assert type(mixed) is tv_tensors.Mask
    assert torch.equal(torch.as_tensor(mixed), expected)
    assert (mixed == 255).any()
    assert soft.shape == (6, CLASSES)
    small = tv_tensors.Mask(mask[:, None, ::2, ::3].clone())
    assert CutMix(num_classes=CLASSES)(tv_tensors.Image(images()), ids(), small)[2].shape == small.shape
    with pytest.raises(mx.MixTypeError, match="discrete"):
        MixUp(num_classes=CLASSES)(tv_tensors.Image(images()), ids(), mask)
    heavier = MixUp(num_classes=CLASSES, on_blend="heavier")(tv_tensors.Image(images()), ids(), mask)[2]
    assert torch.equal(heavier, mask) or torch.equal(heavier, mask.roll(1, 0))


def test_they_work_in_compose_and_choice_and_stop_after_eval() -> None:
    chain = v2.Compose([v2.RandomChoice([CutMix(num_classes=CLASSES), MixUp(num_classes=CLASSES)]), v2.Identity()])
    mixed, soft = chain(images(dtype=torch.uint8), ids())  # bytes: torchvision's MixUp fails on them
    assert mixed.dtype == torch.uint8
    torch.testing.assert_close(soft.sum(1), torch.ones(6))
    transform = BatchMix(mx.Mixup(1.0), num_classes=CLASSES, smoothing=0.1).eval()
    mixed, soft = transform(images(), ids())
    assert torch.equal(mixed, images())
    torch.testing.assert_close(soft, torch.eye(CLASSES)[ids()] * 0.9 + 0.01)
    assert "Mixup(" in repr(transform)
    again = pickle.loads(pickle.dumps(CutMix(num_classes=CLASSES, seed=3)))
    assert torch.equal(again(images(), ids())[0], CutMix(num_classes=CLASSES, seed=3)(images(), ids())[0])


def test_labels_that_an_operator_needs_reach_it_and_none_need_be_there() -> None:
    transform = BatchMix(mx.Mixup(1.0, pairing="same_class"), num_classes=3)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    _, soft = transform(images(), labels)
    torch.testing.assert_close(soft, torch.eye(3)[labels])
    alone = BatchMix(mx.CutMix(1.0), labels_getter=None)(images())
    assert alone.shape == images().shape


@pytest.mark.parametrize(
    ("transform", "batch", "match"),
    [
        (MixUp(), (images(), ids()), "num_classes"),
        (MixUp(num_classes=3), (images(), torch.eye(CLASSES)[ids()]), "3"),
        (MixUp(num_classes=CLASSES), (images(), "label"), "labels are str"),
        (MixUp(num_classes=CLASSES), {"image": images()}, "labels are NoneType"),
        (MixUp(num_classes=CLASSES), images(), "labels are NoneType"),
        (MixUp(num_classes=CLASSES), (images(), ids(5)), "rows"),
        (MixUp(num_classes=CLASSES), (images()[0], ids(3)), "after samples are collated"),
        (MixUp(num_classes=CLASSES), ("nothing", ids()), "no image"),
        (MixUp(num_classes=CLASSES, labels_getter=lambda b: b[1] + 0), (images(), ids()), "not in the input"),
        (
            CutMix(num_classes=CLASSES),
            (images(), ids(), tv_tensors.BoundingBoxes(torch.zeros(6, 4), format="XYXY", canvas_size=(8, 9))),
            "BoundingBoxes",
        ),
        (CutMix(num_classes=CLASSES), (tv_tensors.Image(images()), ids(), tv_tensors.Mask(torch.zeros(9))), "a mask"),
    ],
)
def test_batches_that_do_not_fit_are_refused(transform: Any, batch: Any, match: str) -> None:
    with pytest.raises(mx.MixError, match=match):
        transform(batch)


@pytest.mark.parametrize(
    "wrong", [{"on_blend": "planes"}, {"on_blend": "no"}, {"labels_getter": "first"}, {"num_classes": 0}, {"seed": -1}]
)
def test_arguments_that_cannot_be_meant_are_refused_at_once(wrong: Any) -> None:
    with pytest.raises(mx.MixError):
        BatchMix(mx.Mixup(), **wrong)
    with pytest.raises(mx.MixError):
        BatchMix("mixup")  # type: ignore[arg-type]
