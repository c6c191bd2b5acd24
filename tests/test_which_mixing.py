"""The page of all results: it is that of the committed JSON, it puts methods where their intervals lie."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from benching import BENCHES

# After benching, which puts the benchmark's folder on the path; which_mixing adds that of the studies.
import blocks  # isort: skip
import which_mixing  # isort: skip
import evidence  # isort: skip

RESULTS = BENCHES / "results"
MEASURES = {
    "accuracy": {"title": "accuracy, %", "better": "higher", "scale": 100, "unit": " points", "digits": 2},
    "nll": {"title": "NLL", "better": "lower", "scale": 1, "unit": "", "digits": 4},
}
CASES: dict[str, dict[str, Any]] = {"CIFAR-10": {}, "Fashion-MNIST": {}}
#: What a method adds to accuracy, in hundredths, on each of four seeds: the same in both cases, but where one is named.
ADDED = {
    "none": [0, 0, 0, 0],
    "helps": [4, 6, 5, 5],
    "helps, Fashion-MNIST": [-3, -1, -2, -2],
    "hurts": [-1, -3, -2, -2],
    "open": [2, 0, 1, -1],
}


def outcome(case: str, method: str, seed: int) -> dict[str, float]:
    """``hurts`` lowers the NLL; the others make nothing of it."""
    added = ADDED.get(f"{method}, {case}", ADDED[method])[seed]
    return {"accuracy": 0.5 + added / 100, "nll": 1 + (added / 10 if method == "hurts" else 0.0)}


def noted() -> dict[str, Any]:
    """A study of three methods: one helps, though not everywhere, one hurts and lowers NLL, one does not tell."""
    methods = {"none": "", "helps": "`Helps()`", "hurts": "", "open": ""}
    runs = [
        {"case": case, "method": method, "seed": seed, "outcome": outcome(case, method, seed)}
        for case in CASES
        for method in methods
        for seed in range(4)
    ]
    measures = {name: evidence.Measure(**measure) for name, measure in MEASURES.items()}
    claim = {"claim": "a | b", "source": "somebody", "paper": "4.2 %", "sentence": "Shows: <it> & more."}
    return {
        "schema": which_mixing.STUDY_SCHEMA,
        "title": "Noted",
        "question": "Does it?",
        "command": "python -m benches.studies methods",
        "device": "CPU",
        "seconds": {"runs": 120.0},
        "cases": CASES,
        "methods": methods,
        "measures": MEASURES,
        "lead": "accuracy",
        "runs": runs,
        "summary": evidence.summary(runs, CASES, list(methods), measures),
        "verdicts": [claim],
    }


class Reader(HTMLParser):
    """What a page of HTML says, shows and links to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words, self.pictures, self.links, self.places = "", [], [], []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.words += data.replace("\u00a0", " ")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {"src": self.pictures, "href": self.links, "id": self.places}
        for name, value in attrs:
            found.get(name, []).append(str(value))


def test_the_committed_page_is_that_of_the_committed_results() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHES / "which_mixing.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_page_that_is_not_that_of_the_results_is_named_and_wrong_options_write_nothing(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(which_mixing, "RESULTS", results)
    pages = [results / "which-mixing.md", results / "which-mixing.html"]
    monkeypatch.setattr(sys, "argv", ["which_mixing.py", "--chek"])
    with pytest.raises(SystemExit):
        which_mixing.main()
    monkeypatch.setattr(sys, "argv", ["which_mixing.py", "--check"])
    assert which_mixing.main() == 1
    named = "".join(f"{page.name} is not what the results give: make report\n" for page in pages)
    assert capsys.readouterr().out == named
    assert not any(page.exists() for page in pages)
    monkeypatch.setattr(sys, "argv", ["which_mixing.py"])
    assert which_mixing.main() == 0
    pages[1].write_text("another", encoding="utf-8")
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["which_mixing.py", "--check"])
    assert which_mixing.main() == 1
    assert capsys.readouterr().out == "which-mixing.html is not what the results give: make report\n"


def test_every_study_and_bench_that_is_committed_is_on_the_page_with_its_figures_and_links_lead_somewhere() -> None:
    page = (RESULTS / "which-mixing.md").read_text(encoding="utf-8")
    for path in [*RESULTS.glob("*.json"), *(RESULTS / "studies").glob("*.json")]:
        assert f"{path.relative_to(RESULTS).with_suffix('.md').as_posix()})" in page
    for path in (RESULTS / "studies").glob("*.svg"):
        assert f"](studies/{path.name})" in page
    made = Reader((RESULTS / "which-mixing.html").read_text(encoding="utf-8"))
    headings = [blocks.anchor(line.lstrip("# ")) for line in page.splitlines() if line.startswith("#")]
    assert headings == [f"#{place}" for place in made.places]
    assert len(set(headings)) == len(headings)
    assert sorted(made.links + made.pictures) == sorted(line[: line.index(")")] for line in page.split("](")[1:])
    for link in made.links + made.pictures:
        assert link in headings if link.startswith("#") else (RESULTS / link).exists(), link


def test_the_first_table_says_of_a_study_what_its_verdicts_say() -> None:
    compared = 0
    for path in (RESULTS / "studies").glob("*.json"):
        report = json.loads(path.read_text(encoding="utf-8"))
        for verdict in report["verdicts"]:
            first = next(iter(report["methods"]))
            shown = verdict["measure"] in (report["lead"], "nll") and len(verdict["cases"]) == len(report["cases"])
            if shown and verdict["against"] == first:
                found = which_mixing.over_cases(report, verdict["method"], verdict["measure"])
                assert found == pytest.approx(verdict["by"], rel=1e-4, abs=1e-6)
                compared += 1
    assert compared > 20


def test_a_method_stands_where_its_interval_lies() -> None:
    made = blocks.markdown(which_mixing.blocks(which_mixing.Results({"methods": noted()}, {}, {"methods": []})))
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in made.splitlines() if line[:2] == "| "]
    assert [row for row in rows if row[0].startswith("Images")] == [
        [
            "Images<br>accuracy, %",
            "[helps: +1.50 [+0.20, +2.80] (worse on Fashion-MNIST)](#noted)",
            "[open: +0.50 [-1.55, +2.55]](#noted)",
            "[hurts: -2.00 [-3.30, -0.70]](#noted)",
            "lower: hurts",
        ]
    ]
    hurts = "hurts: -2.00 [-3.30, -0.70]"
    assert [row[1:] for row in rows if row[0] in CASES] == [
        ["helps: +5.00 [+3.70, +6.30]", hurts, "open", "hurts: -0.2000 [-0.3299, -0.0701]"],
        ["–", f"helps: -2.00 [-3.30, -0.70]<br>{hurts}", "open", "hurts: -0.2000 [-0.3299, -0.0701]"],
    ]
    assert "| a \\| b | somebody | 4.2 % | Shows | <it> & more. |" in made


def test_checks_are_claims_and_compare_no_mixings() -> None:
    made = blocks.markdown(which_mixing.blocks(which_mixing.Results({"limits": noted()}, {}, {"limits": []})))
    assert "### Noted" in made
    assert "<it> & more." in made
    assert "+1.50" not in made
    assert made.count("no difference shown") == 1  # the columns of the first table, which has no row


def test_html_says_what_markdown_says_and_is_whole() -> None:
    made = which_mixing.blocks(which_mixing.Results({"methods": noted()}, {}, {"methods": ["methods_x.svg"]}))
    page = blocks.html("Noted & such", made)
    told = Reader(page)
    wanted = ("Noted & such", "a | b", "<it> & more.", "helps: +5.00 [+3.70, +6.30]", "lower: hurts", "Helps()")
    assert [one for one in wanted if one not in told.words] == []
    assert "`" not in page
    assert "<code>Helps()</code>" in page
    assert told.pictures == ["studies/methods_x.svg"]
    assert page.count("<table>") == page.count("</table>") == blocks.markdown(made).count("\n|---")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "studies").mkdir()
    shutil.copy(RESULTS / "ray_rows.json", tmp_path)
    (tmp_path / "studies" / "methods.json").write_text(json.dumps(noted()), encoding="utf-8")
    return tmp_path


def test_figures_and_the_heading_of_a_full_run_are_its_own(results: Path) -> None:
    folder = results / "studies"
    (folder / "methods_full.json").write_text(json.dumps(noted()), encoding="utf-8")
    for name in ("methods_curves.svg", "methods_full_curves.svg"):
        (folder / name).touch()
    found = which_mixing.read(results)
    assert found.pictures == {"methods": ["methods_curves.svg"], "methods_full": ["methods_full_curves.svg"]}
    made = blocks.markdown(which_mixing.blocks(found))
    assert "\n### Noted\n" in made
    assert "](#noted-at-full-size)" in made
    assert "\n### Noted, at full size\n" in made


def test_plots_of_a_bench_are_linked_where_there_are_any(results: Path) -> None:
    assert "[with plots]" not in blocks.markdown(which_mixing.blocks(which_mixing.read(results)))
    (results / "ray_rows.html").touch()
    assert "[with plots](ray_rows.html)" in blocks.markdown(which_mixing.blocks(which_mixing.read(results)))


def test_results_of_another_version_or_without_a_place_or_cut_short_are_named(results: Path) -> None:
    assert list(which_mixing.read(results).studies) == ["methods"]
    study = results / "studies" / "methods.json"
    study.write_text(json.dumps(noted() | {"schema": 1}), encoding="utf-8")
    with pytest.raises(which_mixing.ResultError, match=r"studies/methods\.json: version 1, expected 2: run it again"):
        which_mixing.read(results)
    study.write_text(json.dumps(noted())[:50], encoding="utf-8")
    with pytest.raises(which_mixing.ResultError, match=r"methods\.json is no JSON"):
        which_mixing.read(results)
    study.rename(results / "studies" / "new.json").write_text(json.dumps(noted()), encoding="utf-8")
    with pytest.raises(which_mixing.ResultError, match=r"studies/new\.json has no place on the page"):
        which_mixing.read(results)
