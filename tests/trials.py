"""Small data that ``mixops try`` learns in seconds, the command in a folder of its own, and what it leaves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mixops.pipelines.cli import main
from PIL import Image

#: Hides the whole of an image of 8 x 8 pixels, so that nothing can be learnt.
BLIND = "Cutout(32)"


def made_up(rows: int, seed: int, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Images of 8 x 8 pixels whose class is where they are bright; a network learns it in an epoch or two."""
    rng, wide = np.random.default_rng(seed), 8 // classes
    labels = np.arange(rows) % classes
    images = rng.integers(0, 120, (rows, 8, 8), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, wide * label : wide * (label + 1)] += 120
    return images, labels


def write_images(folder: Path, rows: int, seed: int, names: tuple[str, str] = ("left", "right")) -> None:
    for i, (image, label) in enumerate(zip(*made_up(rows, seed), strict=True)):
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / names[label] / f"{i}.png")


def write_sentences(path: Path, rows: int = 60, first: int = 0) -> None:
    """Questions of two classes that are numbered from ``first`` on."""
    asked = [
        f"{'who' if i % 2 else 'where'} {'is it' if i % 3 else 'was that'} ?\t{first + i % 2}" for i in range(rows)
    ]
    path.write_text("text\tlabel\n" + "\n".join(asked) + "\n", encoding="utf-8")


def arrays_of(classes: int = 2) -> dict[str, np.ndarray]:
    (x, y), (x_test, y_test) = made_up(160, 0, classes), made_up(60, 1, classes)
    return {"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with data.npz in it; what is imported from it is forgotten."""
    np.savez(tmp_path / "data.npz", **arrays_of())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def run(*args: str, data: str = "data.npz", minutes: float = 60.0, seeds: int = 2) -> int:
    """The command; how many seeds there are is said, and not left to how fast the machine is."""
    options = ["--minutes", str(minutes), "--seeds", str(seeds), "--threads", "1", "--batch", "16"]
    return main(["try", data, *options, *args])


def report(path: str = "try.json") -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def scores_of(path: str = "try.runs.jsonl") -> dict[tuple[str, int], dict[str, float]]:
    lines = Path(path).read_text(encoding="utf-8").splitlines()[1:]
    return {(r["op"], r["seed"]): r["scores"] for r in map(json.loads, lines)}


def failed(capsys: pytest.CaptureFixture[str], *args: str, data: str = "data.npz", **options: Any) -> str:
    """The one line of an error, after which the folder is as it was."""
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if "__pycache__" not in path.parts}
    assert run(*args, data=data, **options) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("mixops: ")
    after = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if "__pycache__" not in path.parts}
    assert after == before
    return said.err
