"""The report of the benchmark: its form is checked, it hides nothing, and the README shows what was committed."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from benching import BENCHES, measured, ratio, report_of

# After benching, which puts the benchmark's folder on the path.
import page  # isort: skip
import plots  # isort: skip
import readme_table  # isort: skip
import report  # isort: skip
import tables  # isort: skip

COMMITTED = BENCHES / "results" / "headline.json"


def committed() -> dict[str, Any]:
    return json.loads(COMMITTED.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


# -- the committed run -------------------------------------------------------------------------------------------------


def test_the_committed_run_obeys_the_schema() -> None:
    report.check(committed())


def test_the_committed_run_answers_every_aim_on_both_allocators() -> None:
    aims = {
        (row["name"], row["allocator"], line["what"]): line["target"]
        for row in committed()["rows"]
        for line in row["lines"]
        if line["target"] is not None
    }
    asked = {
        ("mixup-out", "mixops, images only ÷ floor"): 1.15,
        ("mixup-out", "mixops, images only, in place ÷ floor"): 1.3,
        ("mixup-out-bfloat16", "mixops, images only ÷ floor"): 1.5,
        ("mixup-out-bfloat16", "torch.compile, kept output ÷ mixops, images only"): 1,
        ("mixup-out-uint8", "mixops, images only ÷ floor"): 1.5,
        ("mixup-out-uint8", "torch.compile, kept output ÷ mixops, images only"): 1,
        ("cutmix-inplace", "timm CutMix, mode=batch ÷ mixops"): 12,
        ("erase", "timm RandomErasing, mode=const ÷ mixops"): 1.4,
        ("small-mixup-inplace", "timm Mixup, mode=batch ÷ mixops"): 3,
        ("small-mixup-inplace", "timm Mixup, mode=elem ÷ mixops, per sample"): 15,
        ("small-cutmix-inplace", "timm CutMix, mode=batch ÷ mixops"): 3,
        ("small-cutmix-inplace", "timm CutMix, mode=elem ÷ mixops, per sample"): 15,
        ("small-erase", "timm RandomErasing, mode=const ÷ mixops"): 12,
        ("per-sample-mixup-out", "per sample ÷ per batch"): 1.05,
        ("threads-mixup-out", "mixops, 1 thread ÷ mixops, 2 threads"): 1.6,
    }
    assert len(committed()["allocators"]) == 2
    for (row, what), target in asked.items():
        assert [aims[row, allocator, what] for allocator in committed()["allocators"]] == [target] * 2


def test_the_pages_beside_the_committed_run_are_made_from_it() -> None:
    assert COMMITTED.with_suffix(".html").read_text(encoding="utf-8") == page.html(committed())
    assert COMMITTED.with_suffix(".md").read_text(encoding="utf-8") == page.markdown(committed())


def test_the_readme_shows_the_committed_run() -> None:
    readme = readme_table.README.read_text(encoding="utf-8")
    assert readme == readme_table.updated(readme, committed())
    shown = {line.row for line in readme_table.LINES}
    assert shown <= {row["name"] for row in committed()["rows"]}


def test_a_readme_without_the_marks_is_refused() -> None:
    for text in ("", readme_table.END + readme_table.BEGIN, 2 * (readme_table.BEGIN + readme_table.END)):
        with pytest.raises(ValueError, match="once each"):
            readme_table.updated(text, committed())


# -- the form ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "place"),
    [
        (lambda r: r.pop("load"), "report: got keys"),
        (lambda r: r["rows"][0].update(threads="1"), r"rows\[0\]\.threads"),
        (lambda r: r["rows"][0].update(draws=True), r"rows\[0\]\.draws"),
        (lambda r: r["rows"][0]["contenders"][0].update(gb_per_s=float("nan")), "finite"),
        (lambda r: r["rows"][0].update(clean_rounds=0), "clean rounds"),
        (lambda r: r["rows"][0].update(allocator="other"), "allocator 'other' is none of"),
        (lambda r: r["rows"].append(r["rows"][0]), "twice"),
        (lambda r: r["rows"][0]["contenders"][0]["ms"].update(q1=1e9), "quartiles out of order"),
        (lambda r: r["rows"][0]["lines"][0].update(met=False), "its numbers say"),
        (lambda r: r["rows"][0]["lines"][0].update(bound="about"), "bound 'about'"),
        (lambda r: r.update(schema=0), "report.schema"),
    ],
)
def test_a_report_that_breaks_the_schema_is_refused(spoil: Any, place: str, tmp_path: Path) -> None:
    good = report_of(measured())
    report.check(good)
    spoiled = copy.deepcopy(good)
    spoil(spoiled)
    with pytest.raises(ValueError, match=place):
        report.write(spoiled, tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


def test_writing_replaces_the_report_whole(tmp_path: Path) -> None:
    path, good = tmp_path / "results" / "report.json", report_of(measured())
    report.write(report_of(), path)
    report.write(good, path)
    assert json.loads(path.read_text(encoding="utf-8")) == good
    assert list(path.parent.iterdir()) == [path]


# -- what people read --------------------------------------------------------------------------------------------------


def mixed_fortunes() -> dict[str, Any]:
    """Aims met and missed, a peer that is faster where nothing was aimed at, and a row that failed."""
    return report_of(
        measured("good"),
        measured("missed", lines=[ratio("peer ÷ mixops", 2.0, at_least=4)]),
        measured("far-off", lines=[ratio("peer ÷ mixops", 0.5, at_least=4)], notes=["why <it> is so"]),
        measured("slower", lines=[ratio("peer ÷ mixops", 0.75), ratio("mixops ÷ peer", 0.5)]),
        failures=[{"name": "broken", "allocator": "tuned", "error": "ValueError: not the same work"}],
    )


def test_losses_come_first_the_worst_on_top() -> None:
    listed = [(v.row, v.word, round(v.margin, 3)) for v in tables.verdicts(mixed_fortunes())]
    assert listed == [
        ("far-off", "short", -0.875),
        ("missed", "short", -0.5),
        ("slower", "slower", -0.25),
        ("good", "met", 0.25),
        ("slower", "", 0),
    ]
    said = tables.count(mixed_fortunes())
    assert said.startswith("1 of 3 aims met, 2 short; in 1 more comparisons a peer is faster; 1 rows")


def test_the_text_of_a_row_says_what_was_missed_and_by_how_much() -> None:
    text = tables.row_text(mixed_fortunes()["rows"][1])
    assert "FAIL peer ÷ mixops: 2x (2 – 2), at least 4x: short by 50%" in text
    assert text.index("  peer ") < text.index("  mixops ") < text.index("  copy ")


class Cells(HTMLParser):
    """Everything that an HTML page says, and every tag that it opens."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_both_pages_say_everything_and_need_nothing_else() -> None:
    mixed = mixed_fortunes()
    parsed = Cells(page.html(mixed))
    said = " ".join(parsed.said)
    wanted = ("short by 88%", "a peer is faster by 25%", "could not be measured", "why <it> is so", "what good takes")
    for text in (said, page.markdown(mixed)):
        assert [words for words in wanted if words not in text] == []
        assert text.index("could not be measured") < text.index("short by 88%") < text.index("met, 25% to spare")
    assert not [tag for tag, _ in parsed.tags if tag in ("script", "link", "img")]
    assert not [a for _, a in parsed.tags if "src" in a or (a.get("href") or "#").partition("#")[0]]


def test_rows_of_one_name_stand_together_one_table_for_each_allocator() -> None:
    both = report_of(measured("nap"), measured("rest"), measured("nap", "tuned"), measured("rest", "tuned"))
    text = page.markdown(both)
    assert text.count("### what nap takes") == text.count("### what rest takes") == 1
    assert text.index("`nap`, allocator tuned") < text.index("### what rest takes")


def test_bars_are_as_long_as_the_times_and_lines_mark_the_copy() -> None:
    drawn = ElementTree.fromstring(plots.bars([measured(), measured(allocator="tuned")]))
    tag = "{http://www.w3.org/2000/svg}"
    wide = [float(r.attrib["width"]) for r in drawn.iter(f"{tag}rect")]
    assert wide == pytest.approx([wide[0], wide[0], wide[0] / 2, wide[0] / 2], abs=0.1)
    (line,) = drawn.iter(f"{tag}line")
    assert float(line.attrib["x1"]) - plots.LABEL == pytest.approx(wide[0] / 4, abs=0.1)


def test_a_bar_too_long_for_the_plot_is_cut_and_says_so() -> None:
    row = measured()
    row["contenders"][1]["ms"] = dict.fromkeys(("median", "q1", "q3", "min"), 500.0)
    assert plots.bars([row]).count("500 (bar cut)") == 1


def test_curves_are_drawn_through_their_points() -> None:
    points = [{"x": x, "bytes": 1e6 * x, "ms": dict.fromkeys(("median", "q1", "q3"), 1.0 + x)} for x in (1, 4, 16)]
    curve = {"name": "ours", "axis": "rows", "points": points, "overhead_ms": 1.0, "gb_per_s": 1.0, "deviation": 0.0}
    whole = report_of(measured(curves=[curve]))
    report.check(whole)
    drawn = ElementTree.fromstring(plots.curves(whole["rows"][0]))
    tag = "{http://www.w3.org/2000/svg}"
    dots = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in drawn.iter(f"{tag}circle")]
    (path,) = drawn.iter(f"{tag}polyline")
    fitted = [tuple(map(float, p.split(","))) for p in path.attrib["points"].split()]
    assert len(dots) == 3
    for dot, place in zip(dots, fitted, strict=True):
        assert place == pytest.approx(dot, abs=0.2)
    assert "1000 µs + bytes at 1.0 GB/s" in page.markdown(whole)


def test_the_pages_of_any_run_can_be_made_again(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    report.write(report_of(measured()), path)
    done = subprocess.run([sys.executable, BENCHES / "page.py", path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(path.with_suffix(".html")), str(path.with_suffix(".md"))]
    assert "what naps takes" in path.with_suffix(".md").read_text(encoding="utf-8")


def test_the_pages_of_all_committed_runs_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = sorted((BENCHES / "results").glob("*.json"))
    for path in committed:
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(page, "__file__", str(tmp_path / "page.py"))
    monkeypatch.setattr(page.sys, "argv", ["page.py"])
    assert page.main() == 0
    told = capsys.readouterr().out
    assert "headline.md" in told
    assert "corpus" not in told
    headline = (BENCHES / "results" / "headline.md").read_bytes()
    assert (tmp_path / "results" / "headline.md").read_bytes() == headline
