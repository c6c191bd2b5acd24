"""The studies that are not on images or sentences: their densities, spectrograms, tables, twins and clocks."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benching import BENCHES, one_thread
from scipy import stats
from scipy.spatial.distance import cdist

import mixops as mx

sys.path.append(str(BENCHES / "studies"))

# After the path, which leads to them.
import cost  # isort: skip
import densities  # isort: skip
import folder  # isort: skip
import gan  # isort: skip
import grid  # isort: skip
import limits  # isort: skip
import small_runs  # isort: skip
import spectrograms  # isort: skip
import speech  # isort: skip
import study  # isort: skip
import tabular_data  # isort: skip
import tabular  # isort: skip


pytestmark = pytest.mark.usefixtures(one_thread.__name__)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(folder.VARIABLE, str(tmp_path))
    return tmp_path


# -- densities and GANs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "modes"), [("ring", 8), ("grid", 25)])
def test_a_density_draws_from_all_its_modes_alike(name: str, modes: int) -> None:
    density = densities.DENSITIES[name]()
    points = density.draw(np.random.default_rng(0), 5000)
    assert (points.shape, points.dtype) == ((5000, 2), np.float32)
    nearest = cdist(points, density.centres).argmin(1)
    assert stats.chisquare(np.bincount(nearest, minlength=modes)).pvalue > 1e-3
    off = (points - density.centres[nearest]) / density.sd
    assert stats.kstest(off.ravel(), "norm").pvalue > 1e-3
    covered, good = density.modes(points)
    assert covered == modes
    assert good > 0.999


def test_modes_are_counted_by_hand() -> None:
    density = densities.ring(4, sd=0.1)
    near = density.centres[[0, 0, 0, 0, 0, 0, 1, 1, 1]]
    far = np.array([[5.0, 5.0]])
    assert density.modes(np.concatenate([near, far])) == (2, 0.9)
    assert density.modes(density.centres + 0.39) == (0, 0.0)
    assert density.modes(density.centres + np.array([0.39, 0])) == (4, 1.0)
    # One point in a hundred is less than a tenth of a quarter.
    assert density.modes(density.centres[[0] * 99 + [1]])[0] == 1


def test_the_energy_distance_is_that_of_scipy_on_a_line_and_zero_for_the_same() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (40, 1)), rng.normal(1, 2, (30, 1))
    # SciPy gives its root.
    expected = stats.energy_distance(a[:, 0], b[:, 0]) ** 2
    assert densities.energy_distance(a, b) == pytest.approx(expected)
    assert densities.energy_distance(a, a) == pytest.approx(0)


class Noted(torch.nn.Module):
    """A discriminator that keeps what it is shown, and says 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.x = x
        return torch.zeros(len(x), 1, requires_grad=True)


def test_the_discriminator_is_asked_for_what_is_real_of_a_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.Tensor] = []
    right = torch.nn.functional.binary_cross_entropy_with_logits
    monkeypatch.setattr(
        gan.F, "binary_cross_entropy_with_logits", lambda logits, y: (asked.append(y), right(logits, y))[1]
    )
    d, real, fake = Noted(), torch.tensor([[1.0, 3.0]] * 5), torch.tensor([[0.0, 2.0]] * 5)
    gan.told_apart(d, gan.OPERATORS["Mixup"], real, fake, np.random.default_rng(0))
    assert torch.allclose(d.x[:, 0], asked[0])  # 1 where all is real, 0 where nothing is
    assert torch.allclose(d.x[:, 1], 2 + asked[0])
    assert len(set(asked[0].tolist())) == 10
    gan.told_apart(d, None, real, fake, np.random.default_rng(0))
    assert asked[1].tolist() == [1] * 5 + [0] * 5


def test_the_generator_learns_through_mixtures_as_by_the_formula() -> None:
    """loss(d(λx + (1 - λ)g(z)), λ), written out, and its gradient at the samples of the generator."""
    torch.manual_seed(0)
    d, real, fake = torch.nn.Linear(2, 1), torch.randn(6, 2), torch.randn(6, 2, requires_grad=True)
    loss = gan.told_apart(d, gan.OPERATORS["Mixup"], real, fake, np.random.default_rng(3))
    (found,) = torch.autograd.grad(loss, fake)
    drawn = mx.Mixup(0.2, per="sample").draw(np.random.default_rng(3), mx.Spec(12), partner=np.roll(np.arange(12), 6))
    own = torch.from_numpy(drawn.lam.astype(np.float32))
    share = torch.cat([own[:6], 1 - own[6:]])  # what is real of each mixture
    assert share.min() < 0.2 < 0.8 < share.max()
    logits = d(share[:, None] * real.repeat(2, 1) + (1 - share[:, None]) * fake.repeat(2, 1))[:, 0]
    expected = -(share * logits.sigmoid().log() + (1 - share) * (-logits).sigmoid().log()).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(found, torch.autograd.grad(expected, fake)[0], atol=1e-6)


def test_a_generator_of_minimax_raises_the_loss_of_its_discriminator(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a discriminator that stands still, the generator's steps alone must make its loss larger."""
    sizes = {"width": 32, "learning_rate": 0.02, "iterations": 20, "steps_of_discriminator": 0, "shown": []}
    case = {**gan.cases("tiny")["ring, minimax"], **sizes}
    losses: list[float] = []
    told = gan.told_apart

    def listening(*given: Any) -> torch.Tensor:
        loss = told(*given)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(gan, "told_apart", listening)
    gan.train(case, "none", 0)
    assert np.mean(losses[-5:]) > np.mean(losses[:5]) + 0.01


# -- sounds ------------------------------------------------------------------------------------------------------------


def test_mel_filters_are_triangles_whose_corners_are_evenly_spread_on_the_mel_scale() -> None:
    assert spectrograms.mel(1000) == pytest.approx(1000, abs=0.02)
    filters = spectrograms.mel_filters(2, 16, 8000)
    assert filters.shape == (2, 9)
    # By hand: mel(4000) = 2146.06; corners at thirds of it are 0, 620.7, 1791.8 and 4000 Hz; bins are 500 Hz apart.
    low = [0, 500 / 620.7, (1791.8 - 1000) / 1171.1, (1791.8 - 1500) / 1171.1, 0, 0, 0, 0, 0]
    high = [0, 0, 379.3 / 1171.1, 879.3 / 1171.1, 2000 / 2208.2, 1500 / 2208.2, 1000 / 2208.2, 500 / 2208.2, 0]
    assert filters == pytest.approx(np.array([low, high]), abs=1e-3)


def test_a_tone_is_loudest_in_its_band_and_the_end_is_zero() -> None:
    rate, bands = 8000, 20
    t = np.arange(2056) / rate
    corners = np.linspace(0, spectrograms.mel(4000), bands + 2)
    hertz = 700 * (10 ** (corners[13] / 2595) - 1)
    picture = spectrograms.log_mel(1000 * np.sin(2 * np.pi * hertz * t), rate, bands, 30)
    assert (picture.shape, picture.dtype) == ((bands, 30), np.float32)
    assert (picture[:, :19].argmax(0) == 12).all()
    assert (picture[:, 19:] == 0).all()
    assert picture[:, :19].mean() == pytest.approx(0, abs=1e-5)
    assert picture[:, :19].std() == pytest.approx(1, abs=1e-3)


def test_loudness_does_not_change_a_spectrogram_and_a_long_sound_is_cut() -> None:
    sound = np.random.default_rng(0).integers(-9000, 9000, 4000, np.int16)
    quiet, loud = (spectrograms.log_mel(sound * factor, 8000, 8, 10) for factor in (1, 3))
    assert quiet.shape == (8, 10)
    assert quiet == pytest.approx(loud, abs=1e-4)


def test_recordings_come_apart_as_they_were_put_together(data: Path) -> None:
    part = {"audio_test": np.arange(9, dtype=np.int16), "length_test": [2, 4, 3], "y_test": [1, 0, 1]}
    np.savez(data / "a.npz", rate=8000, speaker_test=np.array([0, 0, 2]), **part)
    found = spectrograms.recordings("a.npz", "test")
    assert [one.tolist() for one in found.sounds] == [[0, 1], [2, 3, 4, 5], [6, 7, 8]]
    assert (found.labels.tolist(), found.speakers.tolist(), found.rate) == ([1, 0, 1], [0, 0, 2], 8000)
    with pytest.raises(grid.StudyError, match="expected audio_train too"):
        spectrograms.recordings("a.npz", "train")


def test_an_unknown_speaker_is_in_no_training_set() -> None:
    same, new = (speech.cases("tiny")[f"LeNet, {words}"] for words in ("speakers known", "speaker unknown"))
    x, _, speakers, usual = speech.heard((), same["bands"], same["frames"], same["hop"])
    assert len(speech.rows(same, 0).test_x) == usual.sum() == 120
    for seed in (0, 1):
        data = speech.rows(new, seed)
        assert torch.equal(data.test_x, x[torch.from_numpy(speakers == seed)])
        assert len(data.x) + len(data.test_x) == len(x)


# -- tables ------------------------------------------------------------------------------------------------------------


def test_a_table_is_read_with_its_sex_as_columns_and_its_rings_as_classes(data: Path) -> None:
    np.savez(data / "rings.npz", x=np.array([[2, 0.5], [0, 0.25]]), rings=np.array([9, 4], np.uint8))
    x, y = tabular_data.table("rings.npz")
    assert x.tolist() == [[0, 0, 1, 0.5], [1, 0, 0, 0.25]]
    assert y.tolist() == [1, 0]
    np.savez(data / "plain.npz", x=np.array([[2, 0], [0, 1]], np.uint8), y=np.array([3, 3]))
    assert [part.tolist() for part in tabular_data.table("plain.npz")] == [[[2, 0], [0, 1]], [0, 0]]
    np.savez(data / "neither.npz", x=np.zeros(2))
    with pytest.raises(grid.StudyError, match="expected x, and y or rings"):
        tabular_data.table("neither.npz")


def test_rows_are_split_by_the_seed_and_normalised_by_the_training_set() -> None:
    first, again, other = (tabular.rows((), 0, seed) for seed in (0, 0, 1))
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.y, other.y)
    assert (len(first.x), len(first.test_x)) == (192, 48)
    assert first.x.mean(0).numpy() == pytest.approx(0, abs=1e-5)
    assert first.x.std(0).numpy() == pytest.approx(1, abs=1e-5)
    usual = tabular.rows((), 100, 1)
    assert torch.equal(usual.y, torch.from_numpy(tabular_data.made_up()[1][:100]))


def test_a_column_without_spread_is_zero() -> None:
    x = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
    data = small_runs.Rows(x, torch.tensor([0, 1]), x, torch.tensor([0, 1])).normalised()
    assert data.x[:, 1].tolist() == data.test_x[:, 1].tolist() == [0, 0]


def test_nothing_is_mixed_before_the_warm_up_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    step = small_runs.mixed_step
    monkeypatch.setattr(small_runs, "mixed_step", lambda net, op, *rest: (given.append(op), step(net, op, *rest))[1])
    data, op = tabular.rows((), 0, 0), mx.Mixup(1.0)
    case = {**small_runs.RECIPE, "batch": 96, "epochs": 3, "warm_up": 2}
    small_runs.fit(torch.nn.Linear(5, 3), case, data, op, 0, "b d")
    assert given == [None] * 4 + [op] * 2


# -- files that are broken ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["empty", "cut off", "no archive", "objects", "one array"])
def test_a_file_that_cannot_be_read_is_named(data: Path, fault: str) -> None:
    path = data / f"{fault}.npz"
    np.savez(path, x=np.zeros((9, 2)), y=np.array([1, None, "a"] * 3) if fault == "objects" else np.arange(9))
    if fault == "one array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif fault != "objects":
        path.write_bytes({"empty": b"", "cut off": path.read_bytes()[:-30], "no archive": b"x,y\n1,2\n"}[fault])
    said = rf"^{fault}\.npz cannot be read: .*; benches/studies/README\.md says what it is$"
    with pytest.raises(grid.StudyError, match=said):
        tabular_data.table(path.name)


@pytest.mark.parametrize(
    ("said", "arrays"),
    [(r"shape \(3, 2\) and its classes \(4,\)", {"x": np.zeros((3, 2)), "y": np.zeros(4, int)}),
     (r"shape \(3,\) and its classes \(3,\)", {"x": np.zeros(3), "y": np.zeros(3, int)}),
     ("holds 3, expected a sex", {"x": np.array([[0.0, 1], [3, 1]]), "rings": np.array([1, 2])}),
     ("holds -1, expected a sex", {"x": np.array([[-1.0, 1], [2, 1]]), "rings": np.array([1, 2])})],
)  # fmt: skip
def test_a_table_whose_parts_do_not_fit_is_refused(data: Path, said: str, arrays: dict[str, np.ndarray]) -> None:
    np.savez(data / "odd.npz", **arrays)
    tabular_data.table.cache_clear()
    with pytest.raises(grid.StudyError, match=f"^odd.npz: .*{said}"):
        tabular_data.table("odd.npz")


@pytest.mark.parametrize("other", [{"audio_test": np.arange(8)}, {"y_test": [1, 0]}, {"speaker_test": [1, 0]}])
def test_recordings_whose_parts_do_not_fit_are_refused(data: Path, other: dict[str, Any]) -> None:
    part = {"audio_test": np.arange(9), "length_test": [2, 4, 3], "y_test": [1, 0, 1], "speaker_test": [0, 0, 2]}
    np.savez(data / "odd.npz", rate=8000, **{**part, **other})
    spectrograms.recordings.cache_clear()
    with pytest.raises(grid.StudyError, match=r"^odd\.npz: audio_test, .* and lengths the sum 9, expected"):
        spectrograms.recordings("odd.npz", "test")


def test_a_study_names_the_file_that_stops_it_and_begins_with_a_whole_one(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = data / "a.npz", data / "out.json"
    case = {**tabular.cases("tiny")["made up"], "files": [file.name], "epochs": 1}
    one = dataclasses.replace(tabular.STUDY, cases=lambda profile: {"ours": case})
    words = ["--seeds", "2", "--processes", "1", "--out", str(out)]
    x, y = tabular_data.made_up()
    np.savez(file, x=x, y=y)
    whole = file.read_bytes()
    file.write_bytes(whole[:-30])
    assert study.run_study(one, words) == 1
    assert capsys.readouterr().err.startswith("tabular: a.npz cannot be read: ")
    assert list(data.iterdir()) == [file]
    # What no checksum tells comes to light in the first run.
    np.savez(file, x=x, y=y.astype(object))
    assert study.run_study(one, words) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("tabular: ours, none, seed 0: a.npz cannot be read: ")
    file.write_bytes(whole)
    assert study.run_study(one, words) == 0, capsys.readouterr().err
    assert study.read(out)["done_now"] == 6


# -- limits and cost ---------------------------------------------------------------------------------------------------


def test_twins_are_told_apart_where_they_are_not_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The study would see a form that is not what its twin is."""
    case = {**limits.cases("tiny")["float64"], "batch": 700}
    equal = limits.train(case, "two losses", 0)
    assert equal["gradient"] < 1e-6
    monkeypatch.setitem(limits.FORMS, "two losses", limits.Form(mx.Mixup(1.0), "none"))
    unequal = limits.train(case, "two losses", 0)
    assert unequal["gradient"] > 1e-2
    assert unequal["weights"] > 1e-3


def test_every_twin_is_a_method_of_the_study() -> None:
    assert list(limits.FORMS) == list(limits.STUDY.methods)
    assert {form.twin for form in limits.FORMS.values()} <= set(limits.FORMS)


@pytest.mark.parametrize("place", list(cost.SOURCES))
def test_a_source_mixes_where_it_is_told_to_and_gives_a_batch_for_every_step(place: str) -> None:
    case = cost.cases("tiny")[place]
    lengths = set()
    for op in (None, mx.Mixup(1.0)):
        images = torch.cat([x for x, _ in cost.SOURCES[place](case, op, 0)])
        lengths.add(len(images))
        # Noise of bytes has this spread; the mean of two of them less.
        spread = float(images.std()) * 0.25 * 255
        assert (abs(spread - np.sqrt((256**2 - 1) / 12)) < 1.5) == (op is None)
    assert lengths == {case["batch"] * (cost.WARM_UP + case["turns"] * case["steps"])}


def test_a_slower_method_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that do 32 times as much must be told from plain ones by the clock of the study, on a busy machine, too."""
    plain = cost.SOURCES["in the step"]

    def slow(case: Any, op: Any, seed: int) -> Any:
        for x, loss_of in plain(case, None, seed):
            yield (x if op is None else x.repeat(32, 1, 1, 1)), (loss_of if op is None else lambda logits: logits.sum())

    case = {**cost.cases("tiny")["in the step"], "side": 16, "width": 4}
    monkeypatch.setitem(cost.SOURCES, "in the step", slow)
    assert cost.train(case, "Mixup", 0)["seconds_ratio"] > 2
