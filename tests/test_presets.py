"""Presets: exact given the same drawn parameters, and drawn from the same distributions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_peers
from hypothesis import given, settings
from hypothesis import strategies as st

import mixops as mx
from mixops import presets

GOLDEN = sorted((Path(__file__).parent / "golden" / "presets").glob("*.npz"))
LIVE = [recorder for recorders in real_peers.RECORDERS.values() for recorder in recorders] + real_peers.BRINKS


def agree(case: real_peers.Case) -> None:
    """Draw our plan from the peer's numbers; its pixels and label shares are the peer's."""
    n, shape = len(case.x), case.x.shape[2:]
    op = getattr(presets, case.preset)(**case.options)
    plan = op.draw(np.random.default_rng(0), mx.Spec(n, shape), **case.draw)
    ours = mx.mix(case.x, plan, "b c h w")
    if case.blends:
        # Both round in float32: a few units in the last place of what went in.
        largest = np.abs(case.x) + np.abs(case.x[plan.partner[:, 0]])
        assert (np.abs(ours.astype(np.float64) - case.out) <= 2.0**-22 * largest).all()
    else:
        np.testing.assert_array_equal(ours, case.out)
    if case.target is None:
        assert not plan.weight.any()
    else:
        np.testing.assert_allclose(mx.soft_targets(np.arange(n), plan, n), case.target, rtol=0, atol=1e-6)


@pytest.mark.parametrize("record", LIVE, ids=lambda r: r.__name__.removeprefix("record_"))
def test_a_preset_makes_what_the_installed_peer_makes_of_the_same_draws(
    record: Callable[[int], real_peers.Case],
) -> None:
    @settings(max_examples=80)
    @given(seed=st.integers(0, 2**32 - 1))
    def hold(seed: int) -> None:
        agree(record(seed))

    hold()


def golden_cases(path: Path) -> list[real_peers.Case]:
    with np.load(path, allow_pickle=False) as file:
        heads = json.loads(str(file["cases"]))
        return [
            real_peers.Case(
                head["preset"],
                {k: tuple(v) if isinstance(v, list) else v for k, v in head["options"].items()},
                {name: file[f"{i}.draw.{name}"] for name in head["draw"]},
                file[f"{i}.x"].astype(np.float32),
                file[f"{i}.out"].astype(np.float32),
                file[f"{i}.target"] if head["target"] else None,
                head["blends"],
            )
            for i, head in enumerate(heads)
        ]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_a_preset_makes_what_a_peer_version_made_when_it_was_recorded(path: Path) -> None:
    cases = golden_cases(path)
    assert len(cases) >= 10
    for case in cases:
        agree(case)


def test_every_peer_has_a_recorded_version() -> None:
    assert {path.stem.split("-")[0] for path in GOLDEN} == {
        "clovaai",
        "cutout",
        "fastai",
        "keras",
        "kornia",
        "mmpretrain",
        "timm",
        "torchvision",
    }


@pytest.mark.parametrize(
    ("recorded", "other"), [("timm-1.0.28", "1.0.29"), ("timm-1.0.31", "1.0.28"), ("kornia-0.8.3", "0.9")]
)
def test_a_recorded_version_tells_apart_the_rules_of_another(recorded: str, other: str) -> None:
    cases = [c for path in GOLDEN if path.stem == recorded for c in golden_cases(path) if "version" in c.options]
    differ = 0
    for case in cases:
        case.options["version"] = other
        try:
            agree(case)
        except AssertionError:
            differ += 1
    assert differ


# -- what is drawn -----------------------------------------------------------------------------------------------------

IMAGES = mx.Spec(64, (12, 17))
OPERATORS = [
    presets.timm(),
    presets.timm(0.8, 1.0),
    presets.timm(0.0, 1.0, mode="pair", correct_lam=False),
    presets.timm(0.8, cutmix_minmax=(0.2, 0.8), mode="elem", prob=0.5, version="1.0.28"),
    presets.timm_erasing(mode="pixel", max_count=3),
    presets.torchvision_mixup(0.2),
    presets.torchvision_cutmix(0.2),
    presets.torchvision_erasing(value="random"),
    presets.clovaai_cutmix(1.0, 0.5),
    presets.kornia_mixup((0.1, 0.4), same_on_batch=True, version="0.8"),
    presets.kornia_cutmix(3, p=0.5, version="0.8"),
    presets.kornia_cutmix(2, (0.1, 0.9)),
    presets.kornia_erasing(),
    presets.keras_mixup(),
    presets.keras_cutmix(0.5),
    presets.keras_erasing(),
    presets.mmpretrain_mixup(0.2),
    presets.mmpretrain_cutmix(1.0, (0.2, 0.8)),
    presets.fastai_mixup(),
    presets.fastai_cutmix(),
    presets.cutout(2, 9),
]
each_operator = pytest.mark.parametrize("op", OPERATORS, ids=repr)


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@each_operator
def test_repr_is_python_that_makes_the_operator_again(op: mx.Operator) -> None:
    assert eval(repr(op), vars(mx) | vars(presets)) == op


@each_operator
@pytest.mark.parametrize("n", [0, 1, 5])
def test_batches_of_any_size_are_drawn_and_mixed(op: mx.Operator, n: int) -> None:
    x = np.arange(n * 2 * 7 * 9, dtype=np.float32).reshape(n, 2, 7, 9)
    plan = op.draw(rng_of(0), mx.Spec(n, (7, 9)))
    assert mx.mix(x, plan, "b c h w").shape == x.shape


@each_operator
def test_the_same_stream_draws_the_same_plan(op: mx.Operator) -> None:
    assert op.draw(rng_of(5), IMAGES) == op.draw(rng_of(5), IMAGES)


@each_operator
def test_evaluation_and_a_late_epoch_change_nothing(op: mx.Operator) -> None:
    for off in (mx.Spec(64, (12, 17), training=False), mx.Spec(64, (12, 17), epoch=9)):
        assert dataclasses.replace(op, until=9).draw(rng_of(0), off).is_identity


@each_operator
def test_patches_and_axes_never_depend_on_chance(op: mx.Operator) -> None:
    plans = [op.draw(rng_of(seed), IMAGES) for seed in range(8)]
    assert len({(p.k, p.shape) for p in plans if isinstance(p, mx.Plan)}) == 1


def plans_of(op: mx.Operator, times: int, spec: mx.Spec = IMAGES) -> list[mx.Plan]:
    rng = rng_of(1)
    return [plan for plan in (op.draw(rng, spec) for _ in range(times)) if isinstance(plan, mx.Plan)]


def near(shares: Any, p: float) -> bool:
    """True if the mean of independent coins lies within 4.5 standard deviations of p."""
    coins = np.asarray(shares, float).ravel()
    return bool(abs(coins.mean() - p) <= 4.5 * np.sqrt(p * (1 - p) / len(coins)))


def follows(values: Any, distribution: Callable[[np.ndarray], Any]) -> bool:
    """Kolmogorov and Smirnov: no step is far from the distribution function; one false alarm in a million."""
    ordered = np.sort(np.asarray(values, float).ravel())
    steps = np.arange(len(ordered) + 1) / len(ordered)
    expected = np.asarray(distribution(ordered))
    return bool(max((steps[1:] - expected).max(), (expected - steps[:-1]).max()) < 2.7 / np.sqrt(len(ordered)))


@pytest.mark.parametrize(("mode", "units"), [("batch", 1), ("pair", 32), ("elem", 64)])
def test_timm_throws_its_two_coins_for_every_unit(mode: str, units: int) -> None:
    plans = plans_of(presets.timm(1.0, 1.0, prob=0.7, switch_prob=0.2, mode=mode), 4000 // units)
    opacity = np.array([p.opacity[:, 0] for p in plans])
    weight = np.array([p.weight[:, 0] for p in plans])
    one_each = {"batch": slice(0, 1), "pair": slice(0, 32), "elem": slice(0, 64)}[mode]
    assert near(opacity[:, one_each] > 0, 0.7)
    assert near((opacity == 1)[:, one_each][opacity[:, one_each] > 0], 0.2)
    same = np.ptp(weight, axis=1).max() == 0 if mode == "batch" else np.array_equal(weight, weight[:, ::-1])
    assert same == (mode != "elem")


@pytest.mark.parametrize(("version", "last"), [("1.0.28", 0), ("1.0.29", 1)])
def test_timm_minmax_sides_leave_out_the_upper_end_and_old_places_the_last(version: str, last: int) -> None:
    op = presets.timm(0.0, cutmix_minmax=(0.2, 0.8), mode="elem", version=version)
    box = np.concatenate([p.box[:, 0] for p in plans_of(op, 100)])
    for extent, start, stop in ((12, box[:, 0], box[:, 1]), (17, box[:, 2], box[:, 3])):
        sides = stop - start
        assert set(sides.tolist()) == set(range(int(extent * 0.2), int(extent * 0.8)))
        assert start.min() == 0
        assert stop.max() == extent - 1 + last


def test_timm_refuses_sides_that_no_image_of_this_size_has() -> None:
    with pytest.raises(mx.MixError, match=r"leaves no side for extents \(4, 4\)"):
        presets.timm(cutmix_minmax=(0.3, 0.4)).draw(rng_of(0), mx.Spec(2, (4, 4)), cutmix=True)


def test_an_odd_side_loses_a_pixel_before_timm_1_0_29() -> None:
    boxes = {}
    for version in ("0.9.16", "1.0.28", "1.0.29", "1.0.31"):
        op = presets.timm(0.0, 1.0, version=version)
        boxes[version] = op.draw(rng_of(0), mx.Spec(2, (10, 10)), lam=0.9, at=[5, 5]).box[0, 0].tolist()
    assert boxes["0.9.16"] == boxes["1.0.28"] == [4, 6, 4, 6]
    assert boxes["1.0.29"] == boxes["1.0.31"] == [4, 7, 4, 7]


def test_clipped_boxes_paste_a_third_and_inner_boxes_a_half_of_the_image() -> None:
    spec = mx.Spec(64, (64, 64))
    clipped = np.mean([1 - p.lam[0] for p in plans_of(presets.clovaai_cutmix(), 3000, mx.Spec(1, (64, 64)))])
    assert abs(clipped - 0.32 + 0.01) < 0.02  # a lost pixel of odd sides takes about 0.01 of 0.32 off
    inner = np.mean([1 - p.lam for p in plans_of(presets.kornia_cutmix(), 50, spec)])
    assert abs(inner - 0.5 + 0.01) < 0.02


def test_torchvision_erases_one_rectangle_a_batch_or_one_a_row() -> None:
    for per, different in (("batch", 1), ("sample", 50)):
        (plan,) = plans_of(presets.torchvision_erasing(1.0, value="random", per=per), 1)
        assert (len(np.unique(plan.box[:, 0], axis=0)) >= different) == (len(np.unique(plan.partner)) >= different)
        assert (len(np.unique(plan.box[:, 0], axis=0)) == 1) == (per == "batch")


def test_timm_erases_an_even_number_of_boxes_and_leaves_clean_splits() -> None:
    op = presets.timm_erasing(1.0, max_area=0.05, min_count=1, max_count=4, num_splits=4)
    count = np.array([(p.opacity > 0).sum(1) for p in plans_of(op, 60, mx.Spec(64, (64, 64)))])
    assert not count[:, :16].any()
    for boxes in (1, 2, 3, 4):
        assert near(count[:, 16:] == boxes, 0.25)


def test_erased_areas_and_aspects_follow_the_peers() -> None:
    spec = mx.Spec(64, (400, 400))
    for op in (presets.timm_erasing(1.0, 0.02, 0.1), presets.torchvision_erasing(1.0, (0.02, 0.1), per="sample")):
        box = np.concatenate([p.box[:, 0] for p in plans_of(op, 20, spec)]).astype(float)
        high, wide = box[:, 1] - box[:, 0], box[:, 3] - box[:, 2]
        least, most = np.log(op.aspect)
        assert follows(high * wide / 160000, lambda a: np.clip((a - 0.02) / 0.08, 0, 1))
        assert follows(np.log(high / wide), lambda a: np.clip((a - least) / (most - least), 0, 1))  # noqa: B023
    kornia = np.concatenate([p.box[:, 0] for p in plans_of(presets.kornia_erasing((0.02, 0.1), p=1.0), 20, spec)])
    ratio = (kornia[:, 1] - kornia[:, 0]) / (kornia[:, 3] - kornia[:, 2])
    assert follows(ratio[ratio < 1], lambda a: np.clip((a - 0.3) / 0.7, 0, 1))
    assert near(ratio[ratio != 1] < 1, 0.5)


def test_kornia_shares_are_uniform_and_those_of_the_partner() -> None:
    weight = np.concatenate([p.weight for p in plans_of(presets.kornia_mixup((0.2, 0.6)), 40)])
    assert follows(weight, lambda w: np.clip((w - 0.2) / 0.4, 0, 1))
    (same,) = plans_of(presets.kornia_mixup(same_on_batch=True), 1)
    assert np.ptp(same.weight) == 0


@pytest.mark.parametrize("make", [presets.kornia_mixup, presets.kornia_cutmix])
def test_kornia_0_8_applies_p_twice_and_0_9_once(make: Callable[..., mx.Operator]) -> None:
    spec = mx.Spec(16, (40, 40))
    old = np.array([p.opacity[:, 0] > 0 for p in plans_of(make(p=0.6, version="0.8"), 800, spec)])
    new = np.array([p.opacity[:, 0] > 0 for p in plans_of(make(p=0.6, version="0.9"), 800, spec)])
    mixed_old, mixed_new = old.any(1), new.any(1)
    assert near(mixed_old, 0.6)
    assert near(mixed_new, 0.6)
    assert near(old[mixed_old], 0.6)
    assert new[mixed_new].all()


def test_kornia_0_8_lays_every_box_at_one_place_and_off_the_last_rows() -> None:
    (old,) = plans_of(presets.kornia_cutmix(beta=1e6, version="0.8"), 1)
    (new,) = plans_of(presets.kornia_cutmix(beta=1e6, version="0.9"), 1)
    assert len(np.unique(old.box, axis=0)) == 1  # λ is ½ to three digits: every row has the same sides
    assert len(np.unique(new.box, axis=0)) > 5
    reach = max(int(p.box[..., 1].max()) for p in plans_of(presets.kornia_cutmix(beta=1e6, version="0.8"), 100))
    assert reach == 10  # of 12


def test_kornia_labels_the_whole_of_a_box_that_0_8_pastes_a_part_of() -> None:
    op = presets.kornia_cutmix(version="0.8")
    plan = op.draw(rng_of(0), mx.Spec(2, (8, 8)), lam=0.0, uniform=[0.5, 0.5], partner=[1, 0])
    assert plan.box[0, 0].tolist() == [0, 7, 0, 7]
    assert plan.lam.tolist() == [0, 0]


def test_keras_labels_the_real_valued_area_and_pastes_whole_pixels() -> None:
    draw = {"partner": [1, 0], "lam": [0.9, 0.9], "uniform": [[0.0, 0.0], [0.5, 0.5]]}
    plan = presets.keras_cutmix().draw(rng_of(0), mx.Spec(2, (8, 8)), **draw)
    size = (plan.box[:, 0, 1] - plan.box[:, 0, 0]) * (plan.box[:, 0, 3] - plan.box[:, 0, 2])
    np.testing.assert_allclose(plan.lam, 0.9, atol=1e-6)
    assert (size == 9).all()  # 0.141 of the pixels for a label of 0.1


def test_keras_draws_a_concentration_a_batch_and_a_probability_a_row() -> None:
    spread = [np.std(p.lam) for p in plans_of(presets.keras_cutmix((0.0, 1.0)), 60)]
    fixed = [np.std(p.lam) for p in plans_of(presets.keras_cutmix((1.0, 1.0)), 60)]
    assert np.std(spread) > 2 * np.std(fixed)
    erased = np.array([p.opacity > 0 for p in plans_of(presets.keras_erasing((0.2, 0.6), scale=(0.3, 0.9)), 60)])
    assert near(erased, 0.4)


def test_keras_erases_with_noise_that_uint8_images_clip_as_keras_does() -> None:
    plan = presets.keras_erasing((1.0, 1.0), scale=(1.0, 1.0)).draw(rng_of(0), mx.Spec(4, (32, 32)))
    painted = mx.mix(np.full((4, 3, 32, 32), 99, np.uint8), plan, "b c h w")
    assert near(painted[painted != 99] == 0, 0.5 + 0.5 * 0.00156)  # half the noise is below 0, a little rounds to it
    assert near(painted == 255, 0.1589)


def test_fastai_keeps_the_larger_share_and_draws_one_a_row() -> None:
    (plan,) = plans_of(presets.fastai_mixup(), 1)
    assert plan.lam.min() >= 0.5
    assert len(set(plan.lam.tolist())) > 60
    given = presets.fastai_mixup().draw(rng_of(0), mx.Spec(2), lam=[0.2, 0.9])
    np.testing.assert_allclose(given.lam, [0.8, 0.9], atol=1e-6)


def test_a_nominal_label_counts_even_where_the_box_came_out_empty() -> None:
    for op in (presets.timm(0.0, 1.0, correct_lam=False), presets.mmpretrain_cutmix(correct_lam=False)):
        plan = op.draw(rng_of(0), mx.Spec(2, (8, 8)), lam=0.99)
        assert (plan.box[..., 0] == plan.box[..., 1]).all()
        np.testing.assert_allclose(plan.lam, 0.99, atol=1e-6)


def test_cutout_paints_an_even_side() -> None:
    assert presets.cutout(1, 9) == presets.cutout(1, 8) == mx.Cutout(8)
    plan = presets.cutout(2, 5).draw(rng_of(0), mx.Spec(1, (8, 8)), at=[[[1, 4], [7, 7]]])
    assert plan.box[0].tolist() == [[0, 3, 2, 6], [5, 8, 5, 8]]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: presets.timm(mixup_alpha=-1.0), "mixup_alpha=-1.0"),
        (lambda: presets.timm(cutmix_alpha=float("nan")), "cutmix_alpha=nan"),
        (lambda: presets.timm(prob=1.5), r"p=1.5.*from 0 to 1"),
        (lambda: presets.timm(mode="half"), "mode='half'.*'batch', 'pair', 'elem'"),
        (lambda: presets.timm(version="latest"), "version='latest'.*1.0.29"),
        (lambda: presets.timm(version=1.0), "expected a string"),  # type: ignore[arg-type]
        (lambda: presets.timm_erasing(mode="noise"), "mode='noise'"),
        (lambda: presets.timm_erasing(min_count=3, max_count=2), "min_count of at most count=2"),
        (lambda: presets.torchvision_erasing(value="noise"), "value='noise'.*'random'"),
        (lambda: presets.kornia_mixup((0.5, 1.5)), "1.5"),
        (lambda: presets.kornia_mixup(version="0.7.4"), "older ones have not been read"),
        (lambda: presets.kornia_cutmix(0), "count=0"),
        (lambda: presets.kornia_cutmix(cut_size=(1.0, 1.0)), "low=1.0"),
        (lambda: presets.kornia_erasing(value=7.0), "value=7.0.*from 0 to 1"),
        (lambda: presets.keras_cutmix(2.0), "factor=2.0"),
        (lambda: presets.keras_cutmix((0.9, 0.1)), "low <= high"),
        (lambda: presets.keras_erasing(value_range=(255, 0)), "value_range"),
        (lambda: presets.keras_erasing(value_range=3), "two numbers"),  # type: ignore[arg-type]
        (lambda: presets.mmpretrain_cutmix(cutmix_minmax=(0.2, 1.4)), "minmax=1.4"),
        (lambda: presets.cutout(1, 1), "expected 2 or more"),
        (lambda: presets.cutout(0, 4), "n_holes=0"),
    ],
)
def test_a_wrong_argument_is_named(make: Callable[[], mx.Operator], message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        make()


@pytest.mark.parametrize(
    ("op", "draw", "message"),
    [
        (presets.timm(0.8, 1.0), {"cutmix": [1, 0]}, "cutmix: got int64"),
        (presets.timm(0.8, 0.0), {"cutmix": True}, "False where cutmix_alpha is 0"),
        (presets.timm(0.8, 1.0), {"size": [3, 99]}, "size=.*sides from 0 to"),
        (presets.timm(0.8, 1.0), {"size": [3.0, 2.0]}, "size: got float64"),
        (presets.timm(0.8, 1.0, mode="pair"), {"partner": [1, 1]}, "come in pairs"),
        (presets.timm_erasing(), {"count": 2}, "count=2"),
        (presets.timm_erasing(), {"area": float("nan")}, "area=nan"),
        (presets.timm_erasing(), {"aspect": 0.0}, "aspect=0.0"),
        (presets.kornia_cutmix(2), {"partner": np.zeros((2, 3), int)}, r"expected \(2,\) or \(2, 2\)"),
        (presets.kornia_cutmix(2), {"lam": np.zeros(5)}, r"lam has shape \(5,\): expected \(2, 2\)"),
        (presets.kornia_cutmix(2), {"uniform": [0.0, 1.0]}, "below 1"),
        (presets.keras_cutmix(), {"uniform": "left"}, "expected numbers"),
        (presets.keras_cutmix(), {"at": [0, 0]}, "got at=, expected partner, lam, uniform"),
    ],
)
def test_a_wrong_draw_is_named(op: mx.Operator, draw: dict[str, Any], message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        op.draw(rng_of(0), mx.Spec(2, (8, 8)), **draw)


@pytest.mark.parametrize(
    "op",
    [
        presets.timm(0.8, 1.0),
        presets.torchvision_cutmix(),
        presets.kornia_cutmix(),
        presets.kornia_erasing(),
        presets.keras_cutmix(),
        presets.keras_erasing(),
        presets.timm_erasing(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("shape", [(), (8,), (4, 8, 8)])
def test_peers_of_images_ask_for_height_and_width(op: mx.Operator, shape: tuple[int, ...]) -> None:
    with pytest.raises(mx.MixError, match=r"h, w"):
        op.draw(rng_of(0), mx.Spec(2, shape))
