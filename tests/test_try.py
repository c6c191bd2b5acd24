"""Trying operators on a user's data: the trainings are pairs, nothing is lost, and what is said is what is known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mixops.pipelines.trying.array_task import ArrayTask
from mixops.pipelines.trying.held_arrays import held_file, held_folder
from mixops.pipelines.trying.run_file import Run, RunFile
from mixops.pipelines.trying.tasks import Candidate, Scores, candidates
from trials import BLIND, arrays_of, failed, here, report, run, scores_of, write_images, write_sentences

import mixops as mx

pytestmark = pytest.mark.usefixtures(here.__name__)

# ---------------------------------------------------------------------------- what it says


def test_an_operator_that_hides_everything_hurts_and_the_report_holds_every_number(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("many.npz", **arrays_of(classes=8))  # so many that nothing is guessed by chance
    assert run("--op", BLIND, "--epochs", "3", seeds=3, data="many.npz") == 0
    out = capsys.readouterr().out
    found = report()
    none, blind = found["operators"]
    assert none["accuracy"] > 0.9
    assert blind["verdict"] == "hurt"
    assert re.search(rf"^{re.escape(BLIND)} hurt: -\d+\.\d points \[-\d+\.\d, -\d+\.\d\]$", out, re.MULTILINE)
    assert "Short trainings underrate mixing" in out
    assert found["finished"]
    assert found["epochs"] == 3
    runs = {(r["op"], r["seed"]): r["scores"] for r in found["runs"]}
    assert runs == scores_of()
    seeds = (0, 1, 2)
    apart = [runs["Cutout(size=32)", s]["accuracy"] - runs["none", s]["accuracy"] for s in seeds]
    assert blind["gain"] == pytest.approx(np.mean(apart))
    assert blind["better"] == 0
    assert none["sd"] == pytest.approx(np.std([runs["none", s]["accuracy"] for s in seeds], ddof=1))


def test_trainings_of_one_seed_differ_by_nothing_but_the_operator(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--op", "Mixup(0.0)", "--epochs", "1") == 0  # mixes nothing, and so is none
    runs = scores_of()
    for seed in (0, 1):
        assert runs["none", seed] == runs["Mixup(alpha=0.0)", seed]
    assert runs["none", 0]["nll"] != runs["none", 1]["nll"]
    assert "Mixup(0.0): cannot tell in this budget: the interval holds zero, +0.0 points" in capsys.readouterr().out


def test_without_operators_the_usual_ones_are_tried(here: Path) -> None:
    assert run("--epochs", "1") == 0
    assert [one["name"] for one in report()["operators"]] == ["none", "Mixup(0.2)", "CutMix(1.0)"]


def test_rows_of_numbers_are_tried_by_whole_row_operators(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = arrays_of()
    flat = {name: a.reshape(len(a), 64) / 255 if name[0] == "x" else a.astype(str) for name, a in arrays.items()}
    np.savez(here / "rows.npz", **flat)
    assert run("--epochs", "3", data="rows.npz") == 0
    none, mixup = report()["operators"]
    assert none["accuracy"] > 0.9
    assert mixup["op"] == "Mixup(alpha=0.2)"
    capsys.readouterr()
    assert "does not fit rows of numbers" in failed(capsys, "--op", "CutMix(1.0)", "-o", "b.json", data="rows.npz")


def test_sentences_are_tried_by_operators_on_hidden_states(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sentences(here / "asked.tsv")
    assert run("--op", "WordMixup(1.0)", "--epochs", "1", data="asked.tsv") == 0
    assert [one["name"] for one in report()["operators"]] == ["none", "WordMixup(1.0)"]
    capsys.readouterr()
    assert "expected one on hidden states" in failed(capsys, "--op", "CutMix(1.0)", "-o", "b.json", data="asked.tsv")
    assert "--model tree: expected small, cnn, lstm" in failed(capsys, "--model", "tree", data="asked.tsv")
    (here / "named.csv").write_text("sentence,stars\nso good,5\n")
    assert "has the columns ['sentence', 'stars'], expected text and label" in failed(capsys, data="named.csv")
    write_sentences(here / "few.tsv", 12)
    assert "few.tsv: 10 sentences to learn from and 2 held out" in failed(capsys, data="few.tsv")


def test_classes_of_sentences_may_be_numbered_from_any_number_on(here: Path) -> None:
    write_sentences(here / "stars.tsv", first=4)
    assert run("--op", "WordMixup(1.0)", "--epochs", "1", data="stars.tsv") == 0
    assert report()["settings"]["data"]["classes"] == ["4", "5"]


def test_a_folder_is_split_alike_for_a_seed_and_images_that_cannot_be_read_are_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(here / "photos", 60, 0)
    (here / "photos" / "left" / "broken.png").write_bytes(b"no image")
    (here / "photos" / "middle").mkdir()
    assert run("--op", "Mixup(0.2)", "--epochs", "1", "--size", "8", data="photos") == 0
    said = capsys.readouterr().err
    assert "left out photos/left/broken.png" in said
    assert "left out photos/middle: no image in it" in said
    data = report()["settings"]["data"]
    assert data["rows"] == [48, 8, 8, 3]
    assert data["held out"] == 12

    def split(seed: int) -> Any:
        return held_folder(Path("photos"), 8, seed, lambda paths, what: paths)

    one, other = split(3), split(4)
    assert one.facts == split(3).facts
    assert one.facts["checksum"] != other.facts["checksum"]
    assert np.bincount(one.y).tolist() == [24, 24]


def test_a_folder_with_images_held_out_keeps_them_apart(here: Path) -> None:
    write_images(here / "photos" / "train", 40, 0)
    write_images(here / "photos" / "val", 10, 1)
    (here / "photos" / "val" / "left").rename(here / "photos" / "val" / "gone")
    for path in (here / "photos" / "val" / "gone").iterdir():
        path.unlink()
    data = held_folder(Path("photos"), 8, 0, lambda paths, what: paths)
    assert (len(data.x), len(data.x_test)) == (40, 5)
    assert data.y_test.tolist() == [1] * 5  # the class keeps its number where another has no image there


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3), (3, 8, 8), (1, 8, 8)])
def test_arrays_are_read_with_their_layout_and_names_become_classes(here: Path, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 256, (6, *shape), dtype=np.uint8)
    y = np.array(["dog", "cat", "eel"] * 2)
    np.savez(here / "given.npz", x_train=x, y_train=y, x_test=x[:3], y_test=y[:3])
    data = held_file(Path("given.npz"))
    assert data.classes == ["cat", "dog", "eel"]
    assert data.y_test.tolist() == [1, 0, 2]
    assert data.layout == ("b c h w" if len(shape) == 3 and shape[0] < 8 else "b h w c")


# ---------------------------------------------------------------------------- nothing is lost


def test_a_run_that_was_killed_goes_on_to_the_runs_of_an_unbroken_one(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("--op", "Mixup(0.2)", "--op", BLIND, "--epochs", "1")
    assert run(*args) == 0
    whole = scores_of()
    lines = Path("try.runs.jsonl").read_bytes().splitlines(keepends=True)
    Path("try.runs.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:20])  # in the middle of the second round
    Path("try.json").unlink()
    assert run(*args) == 0
    assert "went on after 4 runs" in capsys.readouterr().out
    again = scores_of()
    assert again == whole
    assert report()["finished"]


def test_what_is_known_is_printed_when_it_is_stopped(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "stopping_net.py").write_text(
        "from pathlib import Path\n"
        "import torch\n"
        "class Net(torch.nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        if Path('try.runs.jsonl').exists() and Path('try.runs.jsonl').read_text().count('\\n') == 6:\n"
        "            raise KeyboardInterrupt\n"
        "        return super().forward(x)\n"
        "def make(shape, classes):\n"
        "    return Net(torch.nn.Flatten(), torch.nn.Linear(shape[0] * shape[1] * shape[2], classes))\n",
        encoding="utf-8",
    )
    args = ("--op", BLIND, "--model", "stopping_net:make", "--epochs", "1")
    assert run(*args, seeds=9) == 130
    said = capsys.readouterr()
    assert "2 seeds of 1 epoch" in said.out
    assert BLIND in said.out
    assert "the same command goes on" in said.err
    assert not report()["finished"]
    assert len(scores_of()) == 5


def test_other_settings_are_refused_with_what_differs_and_more_seeds_are_added(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("--op", "Mixup(0.2)", "--epochs", "1")
    assert run(*args) == 0
    first = scores_of()
    capsys.readouterr()
    assert "lr was 0.003, now 0.01" in failed(capsys, *args, "--lr", "0.01")
    assert "seed was 0, now 1" in failed(capsys, *args, "--seed", "1")
    assert "ops was" in failed(capsys, "--op", "Mixup(0.3)", "--epochs", "1")
    assert run(*args, seeds=3) == 0
    more = scores_of()
    assert {key: more[key] for key in first} == first
    assert len(more) == 6


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"format": "mixops.try.runs", "version": 2}\n', "is of version 2, expected 1"),
        ('{"format": "other"}\n', "holds no runs of this command"),
        ("not JSON\n", "is broken"),
        ('{"format": "mixops.try.runs", "version": 1}\n', "is broken: KeyError('settings')"),
    ],
)
def test_a_file_of_something_else_is_left_alone(
    here: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    Path("try.runs.jsonl").write_text(text, encoding="utf-8")
    assert told in failed(capsys, "--op", "Mixup(0.2)")
    Path("try.runs.jsonl").unlink()
    Path("try.json").write_text(text, encoding="utf-8")
    assert "holds no report of this command" in failed(capsys, "--op", "Mixup(0.2)")
    Path("try.json").write_text('{"format": "mixops.try", "version": 2}', encoding="utf-8")
    assert "try.json is a report of version 2, expected 1" in failed(capsys, "--op", "Mixup(0.2)")


def test_runs_that_another_command_writes_meanwhile_are_not_written_over(tmp_path: Path) -> None:
    runs = tmp_path / "runs.jsonl"
    one, other = RunFile(runs, {}), RunFile(runs, {})
    done = Run("none", 0, Scores(0.5, 1.0, 0.0), 2.0)
    one.add(done, 1)
    with pytest.raises(mx.MixError, match="is the same command running twice"):
        other.add(done, 1)
    one.add(done, 1)
    assert RunFile(runs, {}).runs == [done, done]


# ---------------------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--op", "Mixpu(0.2)"), "did you mean Mixup?"),
        (("--op", "Mixup(-1)"), "alpha=-1"),
        (("--op", "Mixup(0.2)", "--op", "Mixup(alpha=0.2)"), "is given twice"),
        (("--op", "none"), "nothing to compare with none"),
        (("--op", "SSMix(0.1)"), "does not fit images: SSMix() needs lengths"),
        (("--op", "WordMixup(1.0)"), "mixes hidden states, and images are mixed before the model"),
        (("--op", "Mixup(0.2) | WordMixup(1.0)"), "mixes hidden states, and images are mixed before the model"),
        (("--model", "no_such_module:make"), "no_such_module cannot be imported: ModuleNotFoundError"),
        (("--model", "mixops.pipelines.small_net:small_netwrk"), "did you mean small_network?"),
        (("--model", "mixops.pipelines.small_net:_SIDE"), "expected a function that makes a network"),
        (("--model", "builtins:slice"), "--model made slice"),
        (("--model", "large"), "expected small, or MODULE:FUNCTION"),
        (("--model", "builtins:divmod"), "builtins:divmod failed for ((1, 8, 8), 2): TypeError"),
        (("--batch", "500"), "160 images to learn from, fewer than a batch of 500"),
        (("--size", "8"), "--size is for a folder of images"),
        (("--lr", "-1"), "lr=-1.0, expected a number above 0"),
        (("--out", "try.txt"), "expected .json"),
        (("--out", "no/try.json"), "there is no folder no"),
        (("--out", "/proc/self/try.json"), "/proc/self cannot be written to"),
        (("--device", "nowhere"), "device='nowhere'"),
        (("--minutes", "nan"), "nan minutes, expected a number above 0"),
        (("--minutes", "inf"), "inf minutes, expected a number above 0"),
        (("--minutes", "1e-9"), "is too little: two paired runs of 1 epoch need about"),
        (("--minutes", "1e-9", "--epochs", "7"), "is too little: two paired runs of 7 epochs need about"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], told: str
) -> None:
    assert told in failed(capsys, *args)


def test_what_an_operator_seldom_draws_is_refused_when_it_does(here: Path) -> None:
    task = ArrayTask(held_file(Path("data.npz")), batch_size=16)
    with pytest.raises(mx.MixError, match="mixes hidden states"):
        task.train(mx.OneOf([mx.Mixup(0.2), mx.WordMixup(1.0)]), 0, 5, lambda *told: None)


def test_a_training_that_diverges_says_so_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "lower lr=1e+30" in failed(capsys, "--op", "Mixup(0.2)", "--lr", "1e30")


def test_a_folder_that_does_not_fit_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder or file" in failed(capsys, data="photos")
    photos = here / "photos"
    photos.mkdir()
    assert "has no readable image" in failed(capsys, data="photos")
    write_images(photos, 2, 0, ("left", "left"))
    assert "the one class 'left'" in failed(capsys, data="photos")
    for path in (photos / "left").iterdir():
        path.rename(photos / path.name)
    assert "2 images in no class folder" in failed(capsys, data="photos")
    write_images(here / "split" / "train", 40, 0)
    write_images(here / "split" / "test", 10, 1, ("left", "wrong"))
    assert "the class 'wrong', of which split/train has no image" in failed(capsys, data="split")
    write_images(here / "torn", 40, 0)
    for path in ((here / "torn" / "left" / "0.png"), *(here / "torn" / "right").iterdir()):
        path.write_bytes(b"no image")
    assert "no image of the class 'right' can be read: torn/right/" in failed(capsys, data="torn")
    for part in ("training", "test"):
        write_images(here / "parts" / part, 40, 0)
    assert "parts has test/ and no train/ beside it" in failed(capsys, data="parts")
    (here / "data.json").write_text("[]")
    assert "data.json: no folder, expected a folder of images by class, an .npz, or a .tsv" in failed(
        capsys, data="data.json"
    )


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"x_test": None}, "no member 'x_test'"),
        ({"y_train": np.zeros(160, int)}, "of which y_train has no row"),
        ({"y_train": np.zeros(160, int), "y_test": np.zeros(60, int)}, "the one class '0'"),
        ({"y_train": np.zeros(159, int)}, "lengths"),
        ({"y_train": np.zeros(160)}, "expected one class for each row"),
        ({"x_train": np.full((160, 64), np.nan), "x_test": np.ones((60, 64))}, "no finite numbers"),
        ({"x_train": np.ones((160, 8, 9))}, "expected the same"),
        ({"x_train": np.ones((160, 8, 9, 9)), "x_test": np.ones((60, 8, 9, 9))}, "expected (n, h, w)"),
        ({"x_train": np.ones((160, 8, 8), complex)}, "expected numbers"),
        ({"x_test": np.ones((0, 8, 8), np.uint8), "y_test": np.ones(0, int)}, "no row held out"),
        ({"y_train": np.array([None] * 160)}, "Python objects"),
    ],
)
def test_an_npz_that_does_not_fit_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, Any], told: str
) -> None:
    given = {name: array for name, array in {**arrays_of(), **changed}.items() if array is not None}
    np.savez(here / "given.npz", **given)
    assert told in failed(capsys, data="given.npz")


def test_an_operator_is_known_however_it_is_written() -> None:
    assert [one.key for one in candidates((" mx.CutMix( 1.0 )", "NONE"))] == ["none", "CutMix()"]
    assert candidates(("Mixup( 0.2 )",))[1] == Candidate("Mixup( 0.2 )", mx.Mixup(0.2))
