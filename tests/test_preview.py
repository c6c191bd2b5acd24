"""Preview and plots: captions tell the truth of the tiles, and a replay is the same picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixops.pipelines import plots, preview
from PIL import Image

import mixops as mx

NAMES = ["ant", "bee", "cat", "dog"]
OPS = [
    "Mixup(0.8)",
    "CutMix(per='sample')",
    "Cutout(5, count=2)",
    "OneOf([Mixup(0.8), CutMix(1.0)], per='sample') | Cutout(4)",
    "Mixup(0.4) | CutMix(p=0.5) | Cutout(3)",
    "Sometimes(RandomErasing(), 0.5)",
]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def flat(n: int, size: int = 12) -> np.ndarray:
    """Images of one grey each: what a tile holds says whose pixels they are."""
    return np.repeat(np.arange(1, n + 1, dtype=np.uint8)[:, None] * 40, size * size * 3, 1).reshape(n, size, size, 3)


@pytest.mark.parametrize("text", OPS)
@given(seed=st.integers(0, 999))
@settings(deadline=None, max_examples=20)
def test_captions_name_the_shares_of_the_soft_targets(text: str, seed: int) -> None:
    plan = mx.parse_op(text).draw(rng(seed), mx.Spec(4, (12, 12)))
    soft = mx.soft_targets(np.arange(4), plan, 4)
    for row, caption in zip(soft, preview.captions(plan, NAMES), strict=True):
        said = dict.fromkeys(NAMES, 0.0) | dict(caption.shares)
        for name, share in zip(NAMES, row, strict=True):
            assert abs(said[name] - share) < 0.0051  # shares that would be written 0.00 are left out
        assert caption.shares[0][0] == caption.owner


def test_a_caption_reads_as_a_sum_with_the_owner_first() -> None:
    plan = mx.Mixup().draw(rng(), mx.Spec(2), lam=0.25, partner=[1, 0])
    assert [str(c) for c in preview.captions(plan, NAMES[:2])] == ["ant 0.25 + bee 0.75", "bee 0.25 + ant 0.75"]


def test_a_caption_counts_the_fills_that_show() -> None:
    spec = mx.Spec(2, (12, 12))
    one = mx.Cutout(4).draw(rng(), spec, box=[0, 4, 0, 4])
    assert [str(c) for c in preview.captions(one, NAMES[:2])] == ["ant 1.00, cut", "bee 1.00, cut"]
    two = one.then(mx.Cutout(2).draw(rng(), spec))
    assert str(preview.captions(two, NAMES[:2])[0]) == "ant 1.00, 2 cuts"
    assert str(preview.captions(one.where(np.array([True, False])), NAMES[:2])[1]) == "bee 1.00"


def test_the_owner_follows_rows_through_the_steps() -> None:
    moved = mx.Plan.identity(3)[[2, 0, 1]]
    turned = mx.PlanSequence((moved, mx.Plan.identity(3)[[1, 1, 0]]))
    assert [c.owner for c in preview.captions(turned, NAMES[:3])] == ["ant", "ant", "cat"]


def test_captions_refuse_a_plan_of_more_images() -> None:
    with pytest.raises(mx.MixError):
        preview.captions(mx.Plan.identity(5), NAMES)


@pytest.mark.parametrize("text", OPS)
def test_stacked_draws_mix_as_each_draw_does(text: str) -> None:
    op, photos = mx.parse_op(text), rng(1).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    plans = [op.draw(rng(seed), mx.Spec(4, (12, 12))) for seed in range(3)]
    together = mx.mix(photos, preview.stacked(plans), "b h w c")
    apart = np.concatenate([mx.mix(photos, plan, "b h w c") for plan in plans])
    assert (together == apart).all()
    assert np.allclose(
        mx.soft_targets(np.arange(4), preview.stacked(plans), 4),
        np.concatenate([mx.soft_targets(np.arange(4), plan, 4) for plan in plans]),
    )


def test_plans_of_other_numbers_of_steps_do_not_stack() -> None:
    plans = [mx.Plan.identity(2), mx.PlanSequence((mx.Plan.identity(2), mx.Plan.identity(2)))]
    with pytest.raises(mx.MixError, match=r"\[1, 2\] steps"):
        preview.stacked(plans)


def test_draw_d_is_step_d_of_a_run_with_that_seed() -> None:
    op, spec = mx.Mixup(0.8), mx.Spec(4, (12, 12))
    drawn = preview.draw_rows(op, spec, 3, seed=5)
    assert drawn[4:8] == op.draw(mx.streams.plan_stream(5, step=1), spec)


def test_operators_that_pair_by_class_can_be_looked_at() -> None:
    drawn = preview.draw_rows(mx.Mixup(pairing="other_class"), mx.Spec(4), 1, seed=0)
    assert all(len(c.shares) == 2 for c in preview.captions(drawn, NAMES))


def test_photos_are_read_named_and_sized_and_bad_ones_are_listed(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), (255, 0, 0)).save(tmp_path / "red.png")
    Image.new("L", (20, 40), 9).save(tmp_path / "grey.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    names = ["red.png", "broken.jpg", "absent.png", "grey.png"]
    photos, good, problems = preview.read_photos([tmp_path / name for name in names], (16, 12))
    assert photos.shape == (2, 16, 12, 3)
    assert photos.dtype == np.uint8
    assert (photos[0] == (255, 0, 0)).all()
    assert (photos[1] == 9).all()
    assert good == ["red", "grey"]
    assert "broken.jpg" in problems[0]
    assert problems[1] == f"{tmp_path / 'absent.png'}: No such file or directory"


def test_no_readable_photo_is_an_error_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(mx.MixError, match=r"none of 1 images could be read.*a\.png"):
        preview.read_photos([tmp_path / "a.png"], (8, 8))


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("cats", "dogs"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "1.png")
    _, names, _ = preview.read_photos([tmp_path / "cats/1.png", tmp_path / "dogs/1.png"], (8, 8))
    assert names == ["cats/1.png", "dogs/1.png"]


def test_the_page_shows_originals_then_mixed_tiles_pixel_for_pixel() -> None:
    photos = flat(4, size=120)
    plan = preview.draw_rows(mx.parse_op("CutMix(per='sample', pairing='derange')"), mx.Spec(4, (120, 120)), 2, seed=3)
    page = np.asarray(preview.preview_page(photos, NAMES, plan, columns=4))
    mixed = mx.mix(photos, plan, "b h w c")
    found = [0, 0]
    for tiles, which in ((photos, 0), (mixed, 1)):
        for tile in tiles:
            windows = np.lib.stride_tricks.sliding_window_view(page, (120, 120, 3))[:, :, 0]
            corner = (windows[:, :, 0, 0] == tile[0, 0]).all(-1) & (windows[:, :, -1, -1] == tile[-1, -1]).all(-1)
            found[which] += any((windows[y, x] == tile).all() for y, x in np.argwhere(corner)[:4000])
    assert found == [4, 8]


def test_the_grid_wraps_at_columns_and_grows_with_rows() -> None:
    photos, plan = flat(4, 100), mx.Plan.identity(4)
    wide = preview.preview_page(photos, NAMES, plan, columns=4)
    narrow = preview.preview_page(photos, NAMES, plan, columns=1)
    assert narrow.width < wide.width / 3
    assert narrow.height > 3 * wide.height
    with pytest.raises(mx.MixError, match="columns=0"):
        preview.preview_page(photos, NAMES, plan, columns=0)


def test_long_names_are_shortened_and_the_grid_is_no_wider() -> None:
    photos, plan = flat(2, 60), mx.Mixup().draw(rng(), mx.Spec(2), lam=0.5, partner=[1, 0])
    short = preview.preview_page(photos, ["a", "b"], plan)
    long = preview.preview_page(photos, ["x" * 300, "y" * 300], plan)
    assert long.width == short.width


# -- plots -------------------------------------------------------------------------------------------------------------


def test_sampled_shares_are_those_the_operator_promises() -> None:
    summary = plots.sample_shares(mx.Mixup(1.0, per="sample", pairing="derange"), 8000, batch=32).summary()
    assert abs(summary["mean lam"] - 0.5) < 0.02
    assert abs(summary["sd lam"] - 12**-0.5) < 0.01
    assert abs(summary["mean of the largest label share"] - 0.75) < 0.01
    assert summary["rows with a fill"] == 0


def test_fills_are_counted_and_leave_the_labels() -> None:
    shares = plots.sample_shares(mx.Sometimes(mx.Cutout(16), 0.5, per="sample"), 4000, shape=(64, 64))
    assert (shares.lam == 1).all()
    assert (shares.label[:, 0] == 1).all()
    assert 0.45 < shares.painted.mean() < 0.55


def test_lam_multiplies_through_the_steps_of_a_chain() -> None:
    op = mx.Mixup(1e9) | mx.Mixup(1e9)  # so large an alpha draws one half each time
    assert np.allclose(plots.sample_shares(op, 64).lam, 0.25, atol=1e-3)


@pytest.mark.parametrize(("n", "batch"), [(1, 16), (17, 16), (5, 1)])
def test_exactly_n_rows_are_sampled(n: int, batch: int) -> None:
    shares = plots.sample_shares(mx.Mixup(), n, batch=batch)
    assert len(shares.lam) == len(shares.label) == len(shares.painted) == n


def test_no_rows_are_refused() -> None:
    with pytest.raises(mx.MixError, match="n=0"):
        plots.sample_shares(mx.Mixup(), 0)


@pytest.mark.parametrize("text", ["Mixup(0.2)", "Cutout(4)", "Mixup() | CutMix()", "Mixup(0)"])
def test_the_figure_has_two_panels_whose_bars_hold_all_mixed_rows(text: str) -> None:
    shares = plots.sample_shares(mx.parse_op(text), 500, shape=(32, 32))
    left, right = plots.shares_figure(shares, text).axes
    area = sum(float(np.diff(bars.get_data().edges) @ bars.get_data().values) for bars in left.patches)
    assert area == pytest.approx((shares.lam < 1).mean(), abs=1e-6)
    assert left.get_xlim() == right.get_xlim() == (0, 1)
