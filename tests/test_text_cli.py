"""The command that trains on sentences: its report, its numbers, and errors as one line with exit code 2."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mixops.pipelines.cli import run_command
from mixops.pipelines.text.__main__ import train_command
from mixops.pipelines.text.report import MARK, report_numbers, write_text_report
from mixops.pipelines.text.sentences import Sentences
from mixops.pipelines.text.training import train_text
from scipy.stats import ttest_rel

import mixops as mx


def main(*args: str) -> int:
    return run_command(train_command, "mixops text", list(args))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Sentences to learn from and to test on, and vectors of three of their words."""
    rows = [f"{'who' if i % 2 else 'where'} {'is it' if i % 3 else 'was that'} ?\t{i % 2}" for i in range(24)]
    (tmp_path / "train.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "test.tsv").write_text("text\tlabel\n" + "\n".join(rows[:9]) + "\n", encoding="utf-8")
    (tmp_path / "vectors.txt").write_text("who 1 0 0\nwhere 0 1 0\nis 0 0 1\n", encoding="utf-8")
    return {name: str(tmp_path / name) for name in ("train.tsv", "test.tsv", "vectors.txt", "report")}


def command(files: dict[str, str], *more: str) -> tuple[str, ...]:
    paths = ("--train", files["train.tsv"], "--test", files["test.tsv"], "--out", files["report"])
    return (*paths, "--epochs", "2", "--batch", "8", *more)


def failed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one line that a failing command leaves on stderr."""
    assert main(*args) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert said.err.startswith("mixops text: ")
    return said.err


class Tags(HTMLParser):
    """Whether the tags of a page close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "path", "use", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "use"):
            assert self.open.pop() == tag


def test_a_report_holds_all_runs_and_the_page_says_what_the_numbers_say(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    ops = ("--op", "none", "--op", "WordMixup(1.0)", "--op", "SentenceMixup(lam=0.5)")
    vectors = ("--setting", "PretrainTune", "--vectors", files["vectors.txt"])
    assert main(*command(files, *ops, *vectors, "--seeds", "2")) == 0
    said = capsys.readouterr().out
    assert said.count("accuracy") == 6
    assert "pretrained vectors: 3 of 7 words" in said
    report = Path(files["report"])
    numbers = json.loads((report / "report.json").read_text(encoding="utf-8"))
    text = (report / "index.html").read_text(encoding="utf-8")
    assert Tags(text).open == []
    assert not re.search(r"https?://(?!www\.w3\.org|purl\.org|creativecommons)", text)
    assert numbers["methods"] == ["none", "WordMixup()", "SentenceMixup(lam=0.5)"]
    assert [(run["config"]["op"], run["config"]["seed"]) for run in numbers["runs"]] == [
        (op, seed) for seed in (0, 1) for op in (None, "WordMixup()", "SentenceMixup(lam=0.5)")
    ]
    for method, summary in numbers["summary"].items():
        last = [run["accuracy"][-1] for run in numbers["runs"] if (run["config"]["op"] or "none") == method]
        assert summary["accuracy"]["mean"] == pytest.approx(np.mean(last))
        assert f"{100 * np.mean(last):.2f} % ± {100 * np.std(last, ddof=1):.2f}" in text
        assert f"{summary['nll']['mean']:.4f}" in text
    mixing = numbers["runs"][1]["mixing"]
    assert mixing["layers"] == {"words": 6}
    assert all(pair["own"] in text and f"{pair['lam']:.2f}" in text for pair in mixing["pairs"])
    assert not numbers["runs"][0]["mixing"]["pairs"]


def test_one_run_of_one_epoch_is_a_report_too(files: dict[str, str]) -> None:
    args = ("--train", files["train.tsv"], "--test", files["test.tsv"], "--out", files["report"], "--epochs", "1")
    assert main(*args, "--op", "WordMixup(1.0)", "--model", "transformer", "--seed", "7", "--rows", "10") == 0
    numbers = json.loads((Path(files["report"]) / "report.json").read_text(encoding="utf-8"))
    config = numbers["runs"][0]["config"]
    assert (config["model"], config["seed"], config["train"]) == ("transformer", 7, 10)
    assert "paired" not in numbers["summary"]["WordMixup()"]["accuracy"]


def test_columns_are_names_or_positions(files: dict[str, str], tmp_path: Path) -> None:
    bare = tmp_path / "bare.csv"
    bare.write_text('who,"who, is it ?"\nwhere,where is it ?\n' * 4, encoding="utf-8")
    args = ("--train", str(bare), "--test", str(bare), "--out", files["report"], "--epochs", "1")
    assert main(*args, "--text", "1", "--label", "0") == 0
    numbers = json.loads((Path(files["report"]) / "report.json").read_text(encoding="utf-8"))
    assert numbers["runs"][0]["config"]["classes"] == ["where", "who"]


def test_an_earlier_report_is_replaced_and_nothing_else(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    report = Path(files["report"])
    assert main(*command(files)) == 0
    (report / "old.txt").write_text("old", encoding="utf-8")
    assert main(*command(files, "--op", "WordMixup(1.0)")) == 0
    assert sorted(path.name for path in report.iterdir()) == ["index.html", "report.json"]
    assert [path.name for path in report.parent.iterdir() if path.name.startswith(".")] == []
    capsys.readouterr()
    (report / "report.json").write_text("{}", encoding="utf-8")
    assert "holds no report of this program" in failed(capsys, *command(files))
    assert (report / "report.json").read_text(encoding="utf-8") == "{}"


def test_errors_are_one_line_and_leave_no_report(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean WordMixup?" in failed(capsys, *command(files, "--op", "WordMixpu()"))
    assert "No such file" in failed(capsys, *command(files, "--train", "no.tsv"))
    assert "sentence" in failed(capsys, *command(files, "--text", "sentence"))
    assert "without vectors" in failed(capsys, *command(files, "--setting", "PretrainFix"))
    assert "did you mean PretrainFix" in failed(capsys, *command(files, "--setting", "PretrainFixed"))
    assert "expected cnn, lstm, transformer" in failed(capsys, *command(files, "--model", "bert"))
    assert "expected one of the two" in failed(capsys, *command(files, "--seed", "1", "--seeds", "2"))
    assert "brings its own word vectors" in failed(capsys, *command(files, "--model", "x", "--setting", "RandomFix"))
    assert "lr=0.0" in failed(capsys, *command(files, "--lr", "0"))
    assert "--seed" in failed(capsys, *command(files, "--seed", "-1"))
    assert not Path(files["report"]).exists()


def test_what_would_fail_after_the_training_fails_before_it(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*args: Any, **given: Any) -> None:
        raise AssertionError("a run was trained")

    monkeypatch.setattr("mixops.pipelines.text.training.train_text", trained)
    assert "--seed 1 is given twice" in failed(capsys, *command(files, "--seed", "1", "--seed", "1"))
    assert "--op none is given twice" in failed(capsys, *command(files, "--op", "none", "--op", "none"))
    twice = ("--op", "WordMixup(1.0)", "--op", "WordMixup()")
    assert "--op WordMixup() is given twice" in failed(capsys, *command(files, *twice))
    assert "op=CutMix() cannot be drawn" in failed(capsys, *command(files, "--op", "none", "--op", "CutMix()"))
    assert "op=Mixup() names no layer" in failed(capsys, *command(files, "--op", "none", "--op", "Mixup()"))
    inside = f"{files['train.tsv']}/report"  # in a file
    assert "no folder can be made" in failed(capsys, *command(files, "--out", inside))
    assert sorted(path.name for path in Path(files["report"]).parent.iterdir()) == [
        "test.tsv",
        "train.tsv",
        "vectors.txt",
    ]


def test_broken_lines_of_vectors_stop_or_are_left_out_and_told(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with Path(files["vectors.txt"]).open("a", encoding="utf-8") as file:
        file.write("it 1 x 1\n")
    given = command(files, "--vectors", files["vectors.txt"], "--setting", "PretrainFix")
    assert "1 of 4 lines are broken" in failed(capsys, *given)
    assert main(*given, "--broken", "skip") == 0
    assert "broken lines of vectors that were left out: 1\n" in capsys.readouterr().out


def test_the_module_is_a_program(files: dict[str, str]) -> None:
    program = [sys.executable, "-m", "mixops.pipelines.text", *command(files, "--op", "Nothing()")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("mixops text: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def sentences() -> Sentences:
    return Sentences(
        [f"{'who' if i % 2 else 'where'} is it {i}" for i in range(12)], [i % 2 for i in range(12)], ["a", "b"]
    )


def test_paired_differences_are_those_of_the_t_test() -> None:
    data = sentences()
    ops = (None, mx.WordMixup(1.0))
    runs = [train_text(data, data, op=op, seed=seed, epochs=1, batch_size=4) for seed in range(4) for op in ops]
    numbers = report_numbers(runs)
    paired = numbers["summary"]["WordMixup()"]["nll"]["paired"]
    plain, mixed = ([run.nll[-1] for run in runs[start::2]] for start in (0, 1))
    interval = ttest_rel(mixed, plain).confidence_interval(0.95)
    assert (paired["low"], paired["high"]) == pytest.approx((interval.low, interval.high))
    assert paired["mean"] == pytest.approx(np.mean(mixed) - np.mean(plain))
    assert paired["better"] == sum(a < b for a, b in zip(mixed, plain, strict=True))
    assert numbers["format"] == MARK


def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    data = sentences()
    one, two = (train_text(data, data, epochs=epochs, batch_size=4) for epochs in (1, 2))
    for runs, said in (([], "no run"), ([one, two], "equally many"), ([one, one], "one of each operator")):
        with pytest.raises(mx.MixValueError, match=said):
            write_text_report(tmp_path / "report", runs)
    assert not (tmp_path / "report").exists()
