"""The command line: what it writes, what it prints, and errors as one line with exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mixops.pipelines.cli import main
from PIL import Image

import mixops as mx

OP = "OneOf([Mixup(0.8), CutMix(1.0)]) | Cutout(8)"


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Three pictures of noise, by name."""
    rng = np.random.default_rng(0)
    for name in ("ant", "bee", "cat"):
        Image.fromarray(rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    return [str(tmp_path / f"{name}.png") for name in ("ant", "bee", "cat")]


def failed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one line that a failing command leaves on stderr."""
    assert main(list(args)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("mixops: ")
    return said.err


def test_preview_writes_a_picture_and_its_plan(
    photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plan = tmp_path / "grid.png", tmp_path / "plan.npz"
    args = ["preview", OP, *photos, "-o", str(out), "--size", "32", "--rows", "2", "--plan", str(plan)]
    assert main(args) == 0
    assert str(out) in capsys.readouterr().out
    with Image.open(out) as image:
        assert image.width > 3 * 32
    saved = mx.Plan.load(plan)
    assert saved.n == 6
    assert saved.shape == (32, 32)


def test_a_seed_draws_the_same_picture_again_and_another_seed_another(photos: list[str], tmp_path: Path) -> None:
    pictures = []
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        out = tmp_path / f"{name}.png"
        assert main(["preview", OP, *photos, "-o", str(out), "--size", "32", "--seed", seed]) == 0
        pictures.append(np.asarray(Image.open(out)))
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_like_replays_a_saved_plan(photos: list[str], tmp_path: Path) -> None:
    first, again, plan = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "plan.npz"
    assert main(["preview", "CutMix()", *photos, "-o", str(first), "--size", "64", "--plan", str(plan)]) == 0
    assert main(["preview", "--like", str(plan), *photos, "-o", str(again)]) == 0
    one, two = (np.asarray(Image.open(path)) for path in (first, again))
    differ = (one != two).any((1, 2))
    assert one.shape == two.shape
    assert 0 < differ.sum() <= 3 * 16  # the three headings say something else, every tile and caption is the same


def test_like_at_another_size_rescales_the_boxes(photos: list[str], tmp_path: Path) -> None:
    plan, again = tmp_path / "plan.npz", tmp_path / "again.npz"
    args = ["-o", str(tmp_path / "a.png")]
    assert main(["preview", "CutMix()", *photos, *args, "--size", "64", "--plan", str(plan)]) == 0
    assert main(["preview", "--like", str(plan), *photos, *args, "--size", "32", "--plan", str(again)]) == 0
    assert mx.Plan.load(again) == mx.Plan.load(plan).rescaled((32, 32))


def test_an_unreadable_image_is_named_and_the_rest_goes_on(
    photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, out, plan = tmp_path / "bad.jpg", tmp_path / "grid.png", tmp_path / "plan.npz"
    bad.write_bytes(b"no image")
    args = ["preview", "Mixup()", photos[0], str(bad), photos[1], "-o", str(out), "--rows", "1", "--plan", str(plan)]
    assert main(args) == 0
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "left out" in said.err
    assert "bad.jpg" in said.err
    assert mx.Plan.load(plan).n == 2
    assert out.exists()


def test_preview_without_a_readable_image_fails_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, out = tmp_path / "bad.jpg", tmp_path / "grid.png"
    bad.write_bytes(b"no image")
    assert "none of 1 images could be read" in failed(capsys, "preview", "Mixup()", str(bad), "-o", str(out))
    assert not out.exists()


def test_errors_are_one_line(photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["-o", str(tmp_path / "grid.png")]
    assert "did you mean Cutout?" in failed(capsys, "preview", "Cutuot(3)", *photos, *out)
    assert "alpha=-1" in failed(capsys, "preview", "Mixup(-1)", *photos, *out)
    assert "expected an operator and images" in failed(capsys, "preview", *photos, *out)
    assert "expected an operator and images" in failed(capsys, "preview", "Mixup()", *out)
    assert "expected .png" in failed(capsys, "preview", "Mixup()", *photos, "-o", str(tmp_path / "grid.gif"))
    assert "there is no folder" in failed(capsys, "preview", "Mixup()", *photos, "-o", str(tmp_path / "no" / "a.png"))
    assert "--size" in failed(capsys, "preview", "Mixup()", *photos, *out, "--size", "0")
    assert "No such file" in failed(capsys, "preview", "--like", str(tmp_path / "no.npz"), *photos, *out)
    assert "No such command" in failed(capsys, "prewiev")
    assert "No such file" in failed(capsys, "plan", "show", str(tmp_path / "no.npz"))
    assert "did you mean Mixup?" in failed(capsys, "ops", "mixop")
    assert list(tmp_path.glob("grid*")) == []


def test_a_plan_for_more_images_or_for_text_is_refused(
    photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "plan.npz", ["-o", str(tmp_path / "grid.png")]
    mx.Plan.identity(3).save(file)
    assert "out of range" in failed(capsys, "preview", "--like", str(file), *photos[:2], *out)
    mx.Plan.identity(3, (9,)).save(file)
    assert "expected a plan for images" in failed(capsys, "preview", "--like", str(file), *photos, *out)


def test_plan_show_prints_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = mx.parse_op(OP).draw(np.random.default_rng(0), mx.Spec(3, (32, 32)))
    plan.save(tmp_path / "plan.npz")
    assert main(["plan", "show", str(tmp_path / "plan.npz")]) == 0
    assert capsys.readouterr().out == f"{plan!r}\n"


def test_plan_show_of_a_broken_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.npz").write_bytes(b"PK\x03\x04 no plan")
    assert "not a plan file" in failed(capsys, "plan", "show", str(tmp_path / "plan.npz"))


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_plot_writes_a_figure_and_prints_its_numbers(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"lam{ending}"
    assert main(["plot", "Mixup(0.8)", "--n", "200", "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "mean lam" in said
    assert "rows with lam = 1" in said
    assert out.stat().st_size > 1000


def test_ops_lists_every_operator_and_a_line_for_each_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ops"]) == 0
    said = capsys.readouterr().out
    for name in mx.operators():
        assert f"\n{name}: " in f"\n{said}"
    assert main(["ops", "Mixup"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Mixup: Blend each row")
    assert [line.split("=")[0].strip() for line in lines[1:-1]] == ["alpha", "per", "pairing", "fold", "p", "until"]
    assert all(line.split(": ", 1)[1] for line in lines[1:-1])


def test_every_parameter_of_every_operator_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ops"]) == 0
    parameters = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert parameters
    assert [line for line in parameters if line.endswith(":")] == []


def test_the_version_and_the_help_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mixops ")
    assert main(["preview", "-h"]) == 0
    assert "IMAGES" in capsys.readouterr().out


def test_a_process_ends_with_code_2_and_no_traceback() -> None:
    command = [sys.executable, "-m", "mixops.pipelines.cli", "plot", "Nothing()"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("mixops: operator text, character 1 ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("group", [[], ["corpus"], ["plan"]])
def test_a_group_without_a_command_shows_its_help(group: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(group) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"Usage: mixops {' '.join([*group, ''])}[OPTIONS]")
    assert "\n\nCommands:\n" in said


def test_ctrl_c_while_it_loads_stops_it_in_one_line() -> None:
    code = """
import sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "mixops.pipelines.corpus.command":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
from mixops.pipelines.cli import main
sys.exit(main(["ops"]))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "mixops: stopped\n")
