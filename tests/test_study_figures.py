"""Figures of the studies: what they show can be told apart and read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from benching import BENCHES

# After benching; test_studies puts the folder of the studies on the path in the same way.
import which_mixing  # isort: skip  # noqa: F401
import figures  # isort: skip

REPORTS = sorted((BENCHES / "results" / "studies").glob("*.json"))


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_no_two_methods_of_a_study_have_one_colour(path: Path) -> None:
    methods = list(json.loads(path.read_text(encoding="utf-8"))["methods"])
    assert len({figures.colour_of(methods, method) for method in methods}) == len(methods)


@pytest.mark.parametrize(("labels", "rows"), [(["none", "Mixup"], 1), (["a method of a long name"] * 5, 5)])
def test_a_legend_is_as_wide_as_its_figure_at_most(labels: list[str], rows: int) -> None:
    figure = figures.new_figure(3, 2)
    axis = figure.subplots()
    for label in labels:
        axis.plot([0, 1], [0, 1], label=label)
    figures.legend(figure, axis)
    (made,) = figure.legends
    assert [text.get_text() for text in made.get_texts()] == labels
    figure.draw_without_rendering()
    assert made.get_window_extent().width <= figure.bbox.width
    lines = {round(text.get_window_extent().y0) for text in made.get_texts()}
    assert len(lines) == rows


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_the_figure_of_differences_begins_with_what_the_study_is_about(path: Path) -> None:
    report = json.loads(path.read_text(encoding="utf-8"))
    figure = path.with_name(f"{path.stem}_differences.svg").read_text(encoding="utf-8")
    titles = re.findall(r">([^<>]*), difference to ", figure)
    assert titles[0] == report["measures"][report["lead"]]["title"].split(",")[0]
