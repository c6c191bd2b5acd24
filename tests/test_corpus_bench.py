"""The benchmark of corpus generation: it runs on a tiny corpus, holds rounds to each other, refuses nonsense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benching import BENCHES

# After benching, which puts the benchmark's folder on the path.
import corpus  # isort: skip


@pytest.fixture(autouse=True)
def _without_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark puts a clock around the search; other tests search without one."""
    import mixops.pipelines.corpus.generate as generating

    monkeypatch.setattr(generating, "WordSpace", generating.WordSpace)


def test_a_tiny_corpus_is_generated_and_told(tmp_path: Path) -> None:
    out = tmp_path / "corpus.json"
    assert corpus.main(["--tiny", "--rounds", "2", "--candidates", "40", "--out", str(out)]) == 0
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["command"] == "python benches/corpus.py --rounds 2 --candidates 40 --tiny"
    assert len(written["rows"]) == 3
    for row in written["rows"]:
        low, high = row["quartiles"]
        assert 0 < low <= row["candidates_per_second"] <= high
        assert row["met"] is (row["candidates_per_second"] >= corpus.AIM)
        assert 0 < row["nearest_share"] < 1
    page = out.with_suffix(".md").read_text(encoding="utf-8")
    assert all(f"| {row['name']} |" in page for row in written["rows"])


def test_a_round_that_gives_other_sentences_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[int] = []

    class Restless(corpus.Generation):
        def __init__(self, *given: Any, **options: Any) -> None:
            made.append(1)
            super().__init__(*given, **options, seed=len(made))

    monkeypatch.setattr(corpus, "Generation", Restless)
    assert corpus.main(["--tiny", "--rounds", "1", "--candidates", "40", "--out", str(tmp_path / "none.json")]) == 1
    assert "other sentences than the one before" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_data_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIXOPS_DATA", str(tmp_path))
    assert corpus.main(["--rounds", "1", "--out", str(tmp_path / "none.json")]) == 1
    assert corpus.CORPUS in capsys.readouterr().err
    assert (BENCHES / "studies" / "README.md").is_file(), "where the message sends people"


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--candidates", "0"], ["--tiny"]])
def test_what_makes_no_sense_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        corpus.main(words)
    assert words[0] in capsys.readouterr().err
