"""The page of all results: it is that of the committed JSON, it puts methods where their intervals lie."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from benching import BENCHES

# After benching, which puts the benchmark's folder on the path.
import blocks  # isort: skip
import which_mixing  # isort: skip

RESULTS = BENCHES / "results"
MEASURES = {
    "accuracy": {"title": "accuracy, %", "better": "higher", "scale": 100, "unit": " points", "digits": 2},
    "nll": {"title": "NLL", "better": "lower", "scale": 1, "unit": "", "digits": 4},
}


def row(method: str, measure: str, low: float, high: float) -> dict[str, Any]:
    by = {"mean": (low + high) / 2, "low": low, "high": high, "above": 0, "below": 0, "seeds": 5}
    first = {"case": "CIFAR-10", "method": method, "measure": measure, "mean": 0.5, "sd": 0.1}
    return first | {"difference": None if method == "none" else by}


def noted() -> dict[str, Any]:
    """A study of three methods: one helps, one hurts and lowers NLL, one does not tell."""
    lines = [row(m, name, 0, 0) for m in ("none", "open") for name in MEASURES]
    lines += [row("helps", "accuracy", 0.01, 0.03), row("helps", "nll", -0.1, 0.1)]
    lines += [row("hurts", "accuracy", -0.03, -0.01), row("hurts", "nll", -0.3, -0.1)]
    claim = {"claim": "a | b", "source": "somebody", "paper": "4.2 %", "sentence": "Shows: <it>."}
    return {
        "schema": which_mixing.STUDY_SCHEMA,
        "title": "Noted",
        "command": "python -m benches.studies methods",
        "cases": {"CIFAR-10": {}},
        "methods": {"none": "", "helps": "", "hurts": "", "open": ""},
        "measures": MEASURES,
        "lead": "accuracy",
        "runs": [{}] * 20,
        "summary": lines,
        "verdicts": [claim],
    }


def test_the_committed_page_is_that_of_the_committed_results() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHES / "which_mixing.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_study_and_bench_that_is_committed_is_on_the_page_with_its_figures_and_links_lead_somewhere() -> None:
    page = (RESULTS / "which-mixing.md").read_text(encoding="utf-8")
    for path in [*RESULTS.glob("*.json"), *(RESULTS / "studies").glob("*.json")]:
        assert f"{path.relative_to(RESULTS).with_suffix('.md').as_posix()})" in page
    for path in (RESULTS / "studies").glob("*.svg"):
        assert f"](studies/{path.name})" in page
    for line in page.split("](")[1:]:
        assert (RESULTS / line[: line.index(")")]).resolve().exists()


def test_a_method_stands_where_its_interval_lies() -> None:
    made = blocks.markdown(which_mixing.blocks(which_mixing.Results({"methods": noted()}, {}, {"methods": []})))
    glance = next(line for line in made.splitlines() if line.startswith("| [CIFAR-10]"))
    cells = [cell.strip() for cell in glance.strip("|").split(" | ")]
    assert cells[1:] == [
        "helps +2.00 [+1.00, +3.00]",
        "hurts -2.00 [-3.00, -1.00]",
        "open",
        "hurts -0.2000 [-0.3000, -0.1000]",
        "–",
    ]
    short = [line for line in made.splitlines() if line.startswith("| Images |")]
    assert short == [
        "| Images | open | 0 of 1 | 0 of 1 | – |",
        "| Images | helps | 1 of 1 | 0 of 1 | – |",
        "| Images | hurts | 0 of 1, worse in 1 | 1 of 1 | – |",
    ]
    assert "| a \\| b | somebody | 4.2 % | [Shows: <it>.](studies/methods.md) |" in made


def test_html_says_what_markdown_says_and_is_whole() -> None:
    made = which_mixing.blocks(which_mixing.Results({"methods": noted()}, {}, {"methods": ["methods_x.svg"]}))
    page = blocks.html("Noted & such", made)
    told: list[str] = []
    pictures: list[str] = []

    class Reader(HTMLParser):
        def handle_data(self, data: str) -> None:
            told.append(data)

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            pictures.extend(str(value) for name, value in attrs if tag == "img" and name == "src")

    Reader().feed(page)
    words = "".join(told)
    assert all(one in words for one in ("Noted & such", "a | b", "Shows: <it>.", "helps +2.00 [+1.00, +3.00]"))
    assert pictures == ["studies/methods_x.svg"]
    assert page.count("<table>") == page.count("</table>") == blocks.markdown(made).count("\n|---")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "studies").mkdir()
    shutil.copy(RESULTS / "ray_rows.json", tmp_path)
    (tmp_path / "studies" / "methods.json").write_text(json.dumps(noted()), encoding="utf-8")
    return tmp_path


def test_figures_of_a_full_run_are_its_own(results: Path) -> None:
    folder = results / "studies"
    (folder / "methods_full.json").write_text(json.dumps(noted()), encoding="utf-8")
    for name in ("methods_curves.svg", "methods_full_curves.svg"):
        (folder / name).touch()
    found = which_mixing.read(results).pictures
    assert found == {"methods": ["methods_curves.svg"], "methods_full": ["methods_full_curves.svg"]}


def test_results_of_another_version_or_without_a_place_or_cut_short_are_named(results: Path) -> None:
    assert list(which_mixing.read(results).studies) == ["methods"]
    study = results / "studies" / "methods.json"
    other = copy.deepcopy(noted())
    other["schema"] = 1
    study.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(which_mixing.ResultError, match=r"studies/methods\.json: version 1, expected 2: run it again"):
        which_mixing.read(results)
    study.write_text(json.dumps(noted())[:50], encoding="utf-8")
    with pytest.raises(which_mixing.ResultError, match=r"methods\.json is no JSON"):
        which_mixing.read(results)
    study.rename(results / "studies" / "new.json").write_text(json.dumps(noted()), encoding="utf-8")
    with pytest.raises(which_mixing.ResultError, match=r"studies/new\.json has no place on the page"):
        which_mixing.read(results)
