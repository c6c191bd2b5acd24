"""Fields: one plan moves every item of a batch alike, each by what it is; what does not fit is refused as a whole."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mixops as mx

SIDE = 8
IMAGE, MASK, LABEL = mx.Field("b c h w"), mx.Field("b h w", "discrete"), mx.Labels(5)
seeds = st.integers(0, 2**32 - 1)


def batch_of(n: int = 4, seed: int = 0, side: int = SIDE) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.random((n, 3, side, side), dtype=np.float32),
        "mask": rng.integers(0, 5, (n, side, side)),
        "label": rng.integers(0, 5, n),
        "name": [f"photo {i}" for i in range(n)],
    }


def drawn(op: Any, seed: int = 0, n: int = 4) -> Any:
    return op.draw(np.random.default_rng(seed), mx.Spec(n, (SIDE, SIDE)))


def blend(lam: Any = 0.75, n: int = 4) -> Any:
    return mx.Mixup(pairing="flip").draw(np.random.default_rng(0), mx.Spec(n), lam=lam)


def same(one: Any, other: Any) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


# -- one plan, all items -----------------------------------------------------------------------------------------------


def test_every_item_is_mixed_as_its_field_says_and_the_rest_is_handed_on() -> None:
    batch, plan = batch_of(), drawn(mx.CutMix(per="sample"))
    fields = {"image": IMAGE, "mask": MASK, "label": LABEL}
    mixed = mx.mix_batch(batch, plan, fields)
    assert list(mixed) == list(batch)
    assert mixed["name"] is batch["name"]
    assert same(mixed["image"], mx.mix(batch["image"], plan, "b c h w"))
    assert same(mixed["mask"], mx.mix(batch["mask"], plan, "b h w", "discrete"))
    assert same(mixed["label"], mx.soft_targets(batch["label"], plan, 5))
    assert all(same(v, batch_of()[k]) for k, v in batch.items())


@given(seeds, st.integers(1, 6))
def test_masks_and_images_stay_in_step(seed: int, n: int) -> None:
    plan = drawn(mx.CutMix(per="sample"), seed, n)
    mask = np.random.default_rng(seed).integers(0, 100, (n, SIDE, SIDE))
    batch = {"image": mask[:, None].astype(np.float32), "mask": mask}
    mixed = mx.mix_batch(batch, plan, {"image": IMAGE, "mask": MASK})
    assert same(mixed["image"][:, 0], mixed["mask"])


def test_the_forms_of_labels() -> None:
    labels, plan = np.array([3, 0, 2, 2]), blend()
    for form, expected in (
        (mx.Labels(5, smoothing=0.1), mx.soft_targets(labels, plan, 5, 0.1)),
        (mx.Labels(5, ignore_index=3), mx.soft_targets(labels, plan, 5, ignore_index=3)),
    ):
        assert same(mx.mix_batch((labels,), plan, {0: form})[0], expected)
    for form, parts in (
        (mx.Labels(form="pair"), mx.pair_targets(labels, plan)),
        (mx.Labels(5, form="sparse"), mx.sparse_targets(labels, plan)),
    ):
        result = mx.mix_batch((labels,), plan, {0: form})[0]
        assert len(result) == len(parts)
        assert all(map(same, result, parts))


def test_tensors_and_lists_of_samples_are_batches_too() -> None:
    batch, plan = batch_of(), drawn(mx.CutMix())
    fields = {"image": IMAGE, "label": LABEL}
    expected = mx.mix_batch(batch, plan, fields)
    tensors = {**batch, "image": torch.from_numpy(batch["image"]), "label": torch.from_numpy(batch["label"])}
    mixed = mx.mix_batch(tensors, plan, fields)
    assert isinstance(mixed["image"], torch.Tensor)
    assert isinstance(mixed["label"], torch.Tensor)
    assert same(mixed["image"], expected["image"])
    assert same(mixed["label"], expected["label"])
    samples = {"image": list(batch["image"]), "label": batch["label"].tolist()}
    assert same(mx.mix_batch(samples, plan, fields)["image"], expected["image"])
    assert same(mx.mix_batch(samples, plan, fields)["label"], expected["label"])


def test_a_batch_keeps_its_type() -> None:
    Pair = namedtuple("Pair", "x y")
    x, y = np.eye(4, dtype=np.float32), np.arange(4)
    by_place, by_name = {0: mx.Field("b d"), 1: LABEL}, {"x": mx.Field("b d"), "y": LABEL}
    for given_batch in ((x, y, "kept"), [x, y, "kept"], Pair(x, y)):
        mixed = mx.mix_batch(given_batch, blend(), by_place)
        assert type(mixed) is type(given_batch)
        assert same(mixed[0], mx.mix(x, blend(), "b d"))
        assert mixed[2:] == given_batch[2:]
    for kind in (dict, OrderedDict, UserDict):
        given_dict = kind(x=x, y=y)
        mixed = mx.mix_batch(given_dict, blend(), by_name)
        assert type(mixed) is kind
        assert given_dict["x"] is x
        assert same(mixed["x"], mx.mix(x, blend(), "b d"))
    assert same(mx.mix_batch(MappingProxyType({"x": x, "y": y}), blend(), by_name)["y"], mx.soft_targets(y, blend(), 5))


def test_a_plan_on_a_data_set_mixes_the_data_set() -> None:
    data, plan, chosen = batch_of(20), drawn(mx.CutMix()), np.array([7, 3, 19, 0])
    fields = {"image": IMAGE, "mask": MASK, "label": LABEL}
    direct = mx.mix_batch({k: data[k][chosen] for k in fields}, plan, fields)
    through = mx.mix_batch(data, plan.on(chosen), fields)
    assert all(same(through[k], direct[k]) for k in fields)


def test_outputs_and_out_go_to_their_fields() -> None:
    batch, plan = batch_of(), blend()
    to = mx.Output("b h w c", "float32", mean=0.5, std=0.25)
    fields = {"image": IMAGE, "label": LABEL}
    assert same(
        mx.mix_batch(batch, plan, fields, to={"image": to}, threads=1)["image"],
        mx.mix(batch["image"], plan, "b c h w", to=to),
    )
    expected = mx.mix(batch["image"], plan, "b c h w")
    mixed = mx.mix_batch(batch, plan, fields, out={"image": batch["image"]})
    assert mixed["image"] is batch["image"]
    assert same(batch["image"], expected)


def test_an_array_of_another_extent_takes_the_plan_rescaled() -> None:
    batch, plan = batch_of(), drawn(mx.CutMix(per="sample"))
    small = batch["mask"][:, ::2, ::2].copy()
    mixed = mx.mix_batch({**batch, "mask": small}, plan, {"image": IMAGE, "mask": MASK})
    assert same(mixed["mask"], mx.mix(small, plan.rescaled((4, 4)), "b h w", "discrete"))
    chain = drawn(mx.CutMix() | mx.CutMix())
    mixed = mx.mix_batch({"mask": small}, chain, {"mask": MASK})
    assert same(mixed["mask"], mx.mix(small, chain.rescaled((4, 4)), "b h w", "discrete"))


def test_tags_and_attention_masks_mix_where_the_tokens_do() -> None:
    batch = {
        "ids": np.array([[5, 6, 0, 0], [7, 8, 9, 4]]),
        "tags": np.array([[1, 2, 0, 0], [3, 3, 4, 4]]),
        "valid": np.array([[1, 1, 0, 0], [1, 1, 1, 1]]),
    }
    plan = mx.CutMix().draw(np.random.default_rng(0), mx.Spec(2, (4,)), partner=[1, 0], box=[1, 3])
    ids = mx.Field("b t", "discrete")
    mixed = mx.mix_batch(batch, plan, {"ids": ids, "tags": ids, "valid": mx.Field("b t", "valid")})
    assert mixed["ids"].tolist() == [[5, 8, 9, 0], [7, 6, 0, 4]]
    assert mixed["tags"].tolist() == [[1, 3, 4, 0], [3, 2, 0, 4]]
    assert mixed["valid"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


# -- blends of discrete arrays -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lam", "row"), [(0.75, 0), (0.5, 0), (0.49, 1), (1.0, 0), (0.0, 1)])
def test_heavier_takes_the_larger_share_and_the_own_at_a_tie(lam: float, row: int) -> None:
    mask = np.arange(2 * 9).reshape(2, 3, 3)
    mixed = mx.mix_batch({"m": mask}, blend(lam, 2), {"m": mx.Field("b h w", "discrete", on_blend="heavier")})["m"]
    assert same(mixed[0], mask[row])
    assert same(mixed[1], mask[1 - row])


PAINTED = [
    mx.CutMix(per="sample"),
    mx.OneOf([mx.Mixup(0.8, per="sample"), mx.CutMix(1.0)], per="sample"),
    mx.Mixup(0.8) | mx.CutMix(per="sample"),
]


@given(st.sampled_from(PAINTED[:2]), seeds, st.integers(1, 6))
def test_heavier_is_the_heaviest_plane(op: Any, seed: int, n: int) -> None:
    plan = drawn(op, seed, n)
    mask = np.random.default_rng(seed).integers(0, 5, (n, SIDE, SIDE)).astype(np.uint8)
    fields = [mx.Field("b h w", "discrete", on_blend="heavier"), mx.Field("b h w", "discrete", None, "planes", 5)]
    heavier, planes = (mx.mix_batch((mask,), plan, {0: field})[0] for field in fields)
    assert heavier.dtype == mask.dtype
    share = np.take_along_axis(planes, heavier[:, None].astype(np.intp), 1)[:, 0]
    np.testing.assert_allclose(share, planes.max(1), atol=1e-6)


def test_heavier_refuses_rows_that_are_blended_twice() -> None:
    mask, field = batch_of()["mask"], mx.Field("b h w", "discrete", on_blend="heavier")
    once, twice = (mx.PlanSequence((blend(lam), blend(0.75))) for lam in (0.0, 0.6))
    assert same(mx.mix_batch((mask,), once, {0: field})[0], mask[::-1])
    with pytest.raises(mx.MixValueError, match="row 0 is blended more than once"):
        mx.mix_batch((mask,), twice, {0: field})
    boxes = np.zeros((1, 2, 0), int)
    plan = mx.Plan([0], [[1, 2]], boxes, boxes, [[0.4, 0.4]], [[0.4, 0.4]], ())
    with pytest.raises(mx.MixValueError, match="row 0 is blended more than once"):
        mx.mix_batch((mask,), plan, {0: field})


def test_heavier_copies_what_was_blended_once() -> None:
    mask, field = batch_of()["mask"], mx.Field("b h w", "discrete", on_blend="heavier")
    cut = drawn(mx.CutMix())
    mixed = mx.mix_batch((mask,), mx.PlanSequence((blend(0.3), cut)), {0: field})[0]
    assert same(mixed, mx.mix(mask[::-1], cut, "b h w", "discrete"))


@given(st.sampled_from(PAINTED), seeds, st.integers(1, 6), st.booleans())
def test_planes_hold_the_share_of_each_class_at_each_pixel(op: Any, seed: int, n: int, tensor: bool) -> None:
    plan, mask = drawn(op, seed, n), np.random.default_rng(seed).integers(0, 3, (n, SIDE, SIDE))
    field = mx.Field("b h w", "discrete", on_blend="planes", num_classes=3)
    planes = mx.mix_batch((torch.from_numpy(mask) if tensor else mask,), plan, {0: field})[0]
    one_hot = np.stack([(mask == c).astype(np.float32) for c in range(3)], 1)
    assert isinstance(planes, torch.Tensor) == tensor
    np.testing.assert_allclose(np.asarray(planes), mx.mix(one_hot, plan, "b c h w"), atol=1e-6)
    np.testing.assert_allclose(np.asarray(planes).sum(1), 1, atol=1e-6)


@pytest.mark.parametrize(("fill", "painted"), [(1, [0, 1, 0]), (255, [0, 0, 0]), (None, None)], ids=str)
def test_planes_under_a_fill_patch(fill: int | None, painted: list[float] | None) -> None:
    mask = np.full((2, 4, 4), 2, np.uint8)
    mask[:, 3] = 255
    plan = mx.Cutout(2, fill=9.0).draw(np.random.default_rng(0), mx.Spec(2, (4, 4)), box=[0, 2, 0, 2])
    field = mx.Field("b h w", "discrete", fill, "planes", 3)
    for given_mask in (mask, list(mask), torch.from_numpy(mask), list(torch.from_numpy(mask))):
        planes = np.asarray(mx.mix_batch((given_mask,), plan, {0: field})[0])
        assert planes.shape == (2, 3, 4, 4)
        assert planes[0, :, 0, 0].tolist() == (painted or [0, 0, 1])
        assert planes[0, :, 2, 2].tolist() == [0, 0, 1]
        assert planes[0, :, 3, 3].tolist() == [0, 0, 0]


def test_a_fill_patch_leaves_a_mask_alone_unless_it_has_a_fill() -> None:
    mask = batch_of()["mask"]
    plan = mx.Cutout(2).draw(np.random.default_rng(0), mx.Spec(4, (SIDE, SIDE)), box=[0, 2, 0, 2])
    assert same(mx.mix_batch((mask,), plan, {0: MASK})[0], mask)
    for on_blend in ("error", "heavier"):
        painted = mx.mix_batch((mask,), plan, {0: mx.Field("b h w", "discrete", 255, on_blend)})[0]
        assert (painted[:, :2, :2] == 255).all()
        assert same(painted[:, 2:], mask[:, 2:])


# -- what is refused, and that nothing is half done --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "fields", "says"),
    [
        ({}, {"mask": MASK}, "field 'mask': discrete int64 array with opacity 0.25"),
        ({}, {"pixels": IMAGE}, "field 'pixels' is not in the batch: expected one of 'image', 'mask', 'label', 'name'"),
        ({}, {"label": mx.Labels(2)}, "field 'label': labels: got class"),
        ({}, {"label": mx.Labels()}, "field 'label': labels: got ids"),
        ({}, {"mask": mx.Field("b c h w")}, "field 'mask': layout"),
        ({"label": np.zeros(3, int)}, {"label": LABEL}, "expected the same number"),
        ({"label": 3}, {"label": LABEL}, "expected one label for each row"),
        ({"mask": None}, {"mask": MASK}, "field 'mask': NoneType has no shape"),
    ],
)
def test_an_error_names_the_field_and_leaves_the_batch_as_it_was(
    change: dict[str, Any], fields: dict[str, Any], says: str
) -> None:
    batch = {**batch_of(), **change}
    before = batch["image"].copy()
    with pytest.raises(mx.MixError, match=says):
        mx.mix_batch(batch, blend(), {"image": IMAGE, **fields}, out={"image": batch["image"]})
    assert same(batch["image"], before)


def test_a_later_step_that_does_not_fit_leaves_the_batch_as_it_was() -> None:
    x = np.eye(4, dtype=np.float32)
    plan = mx.PlanSequence((blend(), drawn(mx.CutMix())))
    before = x.copy()
    with pytest.raises(mx.MixValueError, match="no axis 'h'"):
        mx.mix_batch((x,), plan, {0: mx.Field("b d")}, out={0: x})
    assert same(x, before)


def test_a_plan_that_names_more_rows_than_the_batch_has_is_refused() -> None:
    with pytest.raises(mx.MixValueError, match="field 'image': plan row 3: base out of range for 3"):
        mx.mix_batch(batch_of(3), blend(n=4), {"image": IMAGE})


def test_outputs_that_name_no_field_are_refused() -> None:
    batch = batch_of()
    with pytest.raises(mx.MixValueError, match="names 'img': expected one of the fields 'image'"):
        mx.mix_batch(batch, blend(), {"image": IMAGE}, to={"img": mx.Output("b c h w")})
    with pytest.raises(mx.MixValueError, match="Labels take neither"):
        mx.mix_batch(batch, blend(), {"label": LABEL}, out={"label": batch["label"]})


def test_batches_plans_and_fields_of_another_kind_are_refused() -> None:
    batch = batch_of()
    with pytest.raises(mx.MixTypeError, match="batch: got ndarray"):
        mx.mix_batch(batch["image"], blend(), {0: IMAGE})
    with pytest.raises(mx.MixTypeError, match="plan is Mixup"):
        mx.mix_batch(batch, mx.Mixup(), {"image": IMAGE})
    for fields in ({}, {"image": "b c h w"}, [IMAGE]):
        with pytest.raises(mx.MixTypeError, match="fields"):
            mx.mix_batch(batch, blend(), fields)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: mx.Field("c h w"), "batch axis"),
        (lambda: mx.Field("b h w", "mask"), "kind='mask'"),
        (lambda: mx.Field("b h w", "discrete", on_blend="vote"), "on_blend='vote'"),
        (lambda: mx.Field("b h w", on_blend="heavier"), 'kind="discrete"'),
        (lambda: mx.Field("b h w", "discrete", on_blend="planes"), "expected num_classes"),
        (lambda: mx.Field("b h w", "discrete", on_blend="planes", num_classes=0), "num_classes=0"),
        (lambda: mx.Field("b c h w", "discrete", on_blend="planes", num_classes=2), "axis c"),
        (lambda: mx.Field("b h w", "discrete", num_classes=2), "num_classes=2"),
        (lambda: mx.Field("b h w", "discrete", fill=(1, 2)), "expected one id"),
        (lambda: mx.Field("b h w", "discrete", fill="mean"), "expected one id"),
        (lambda: mx.Field("b h w", fill="zero"), "fill='zero'"),
        (lambda: mx.Field("b h w", fill=float("nan")), "finite"),
        (lambda: mx.Field("b t", "valid", fill=0), "never painted"),
        (lambda: mx.Labels(0), "num_classes=0"),
        (lambda: mx.Labels(5, smoothing=1), "smoothing=1"),
        (lambda: mx.Labels(10, "a"), "smoothing='a'"),
        (lambda: mx.Labels(10, float("nan")), "smoothing=nan"),
        (lambda: mx.Labels(10, ignore_index="none"), "ignore_index='none'"),
        (lambda: mx.Labels(smoothing=0.1), "without num_classes"),
        (lambda: mx.Labels(5, form="onehot"), "form='onehot'"),
        (lambda: mx.Labels(5, 0.1, form="pair"), "smooth in the loss"),
        (lambda: mx.Labels(5, ignore_index=3, form="pair"), "give it to the loss"),
    ],
)
def test_fields_are_checked_when_made(make: Any, says: str) -> None:
    with pytest.raises(mx.MixError, match=says):
        make()


def test_fields_print_as_they_are_written() -> None:
    field = mx.Field("b h w", "discrete", fill=255, on_blend="heavier")
    assert repr(field) == "Field(layout='b h w', kind='discrete', fill=255.0, on_blend='heavier')"
    assert repr(mx.Labels(10)) == "Labels(num_classes=10)"


def test_fields_compare_and_hash_by_value() -> None:
    assert mx.Field("b h w", "discrete", fill=255) == mx.Field("b h w", "discrete", fill=255.0)
    assert len({mx.Field("b h w", fill=[0.5, 0.5]), mx.Field("b h w", fill=(0.5, 0.5)), mx.Labels(3)}) == 2


# -- what an operator is told ------------------------------------------------------------------------------------------


def test_the_spec_is_read_off_the_first_continuous_field_with_box_axes() -> None:
    batch = {**batch_of(), "features": np.zeros((4, 7)), "small": batch_of(side=4)["image"]}
    fields = {"mask": MASK, "features": mx.Field("b d"), "image": IMAGE, "small": IMAGE, "label": LABEL}
    spec = mx.spec_of(batch, fields, epoch=3, training=False)
    assert (spec.n, spec.shape, spec.epoch, spec.training) == (4, (SIDE, SIDE), 3, False)
    assert mx.spec_of(batch, {"label": LABEL, "mask": MASK}).shape == (SIDE, SIDE)
    assert mx.spec_of(batch, {"features": mx.Field("b d")}).shape == ()
    assert mx.spec_of(batch, {"label": LABEL}).n == 4


def test_evidence_is_what_the_operator_needs_and_no_more() -> None:
    fields = {0: mx.Field("b d"), 1: mx.Labels(5), 2: mx.Labels(3)}
    batch = (np.eye(3), torch.tensor([1, 2, 1]), np.zeros(3, int))
    assert mx.evidence_of(batch, fields, mx.Mixup()) == {}
    op = mx.Mixup(pairing="same_class") | mx.Mixup(pairing="flip")
    evidence = mx.evidence_of(batch, fields, op)
    assert evidence["labels"].tolist() == [1, 2, 1]
    plan = op.draw(np.random.default_rng(0), mx.spec_of(batch, fields), **evidence)
    assert plan.plans[0].partner[:, 0].tolist() == [2, 1, 0]


class NeedsScores:
    needs = ("saliency",)


def test_evidence_with_a_name_of_its_own_is_an_item_of_the_batch() -> None:
    batch, fields = {"x": np.eye(2), "saliency": torch.ones(2, 2)}, {"x": mx.Field("b d")}
    evidence = mx.evidence_of(batch, fields, NeedsScores())
    assert isinstance(evidence["saliency"], np.ndarray)
    with pytest.raises(mx.MixValueError, match="needs saliency"):
        mx.evidence_of({"x": np.eye(2)}, fields, NeedsScores())
    with pytest.raises(mx.MixValueError, match="add Labels"):
        mx.evidence_of({"x": np.eye(2)}, fields, mx.Mixup(pairing="same_class"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_evidence_may_be_floats_that_numpy_lacks_and_have_a_gradient(dtype: torch.dtype) -> None:
    fields, scores = {"x": mx.Field("b d")}, torch.tensor([[0.5, 2.0], [1.0, -4.0]])
    traced = scores.clone().requires_grad_()
    for one in (scores.to(dtype), list(scores.to(dtype)), traced, list(traced)):
        evidence = mx.evidence_of({"x": np.eye(2), "saliency": one}, fields, NeedsScores())
        assert evidence["saliency"].dtype in (np.float32, np.float16)
        assert evidence["saliency"].tolist() == scores.tolist()


def test_evidence_of_uneven_rows_is_named() -> None:
    with pytest.raises(mx.MixValueError, match="saliency: rows of different lengths"):
        mx.evidence_of({"x": np.eye(2), "saliency": [[1, 2], [3]]}, {"x": mx.Field("b d")}, NeedsScores())


def test_the_names_of_the_batch_are_checked_before_a_spec_is_read() -> None:
    with pytest.raises(mx.MixValueError, match="field 'image' is not in the batch"):
        mx.spec_of({"img": np.zeros((2, 3))}, {"image": IMAGE})
