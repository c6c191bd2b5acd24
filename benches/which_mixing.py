"""One page from all results that are committed, studies and benches: python benches/which_mixing.py [--check]

It writes ``results/which-mixing.md`` and ``.html``. ``--check`` writes nothing and has exit status 1 where they are not
those of the JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blocks import Block, Heading, Link, Paragraph, Picture, Said, Table, anchor, html, markdown
from report import SCHEMA_VERSION, write_text

sys.path.append(str(Path(__file__).parent / "studies"))

from evidence import Measure, expected_false, interval, values  # lies in the folder of the studies
from study import SCHEMA as STUDY_SCHEMA

RESULTS = Path(__file__).parent / "results"
TITLE = "Which mixing for what"
#: Studies by what is trained, in the order of the page.
TOPICS = {
    "Images": ("methods", "manifold"),
    "Images under attack": ("robust",),
    "Images with corrupt labels": ("corrupt",),
    "Images, by the strength of Mixup": ("alpha",),
    "Sentences": ("settings", "sizes", "minilm", "ssmix", "mixtext"),
    "Tagged sentences": ("seqmix",),
    "Speech": ("speech",),
    "Tables": ("tabular",),
    "Generators": ("gan",),
    "Time of a step": ("cost",),
    "What must hold": ("limits",),
}
#: The topic whose studies compare no mixings: they have claims alone.
CHECKS = "What must hold"
#: Measures that have a column of their own, beside the one that a study is about.
BESIDE = {"nll": "NLL", "ece": "ECE"}
SPEED = {
    "headline": "Kernels, chains and loaders, beside their peers",
    "tokens": "Spans, words and nearest tokens",
    "hidden_step": "A training step that mixes inside a BERT",
    "ssmix_step": "A training step of SSMix",
    "corpus": "SeqMix sentences made of a tagged corpus",
    "jax_step": "Compiled JAX code",
    "adapter_rows": "What a drop-in adds to a batch",
    "ray_rows": "Corpora on Ray, beside one process",
    "gpu": "CUDA kernels, on a GPU",
}
Report = Mapping[str, Any]


class ResultError(Exception):
    """A result that this page cannot show."""


@dataclass(frozen=True)
class Results:
    """What is committed.

    Args:
        studies: JSON of each study by name.
        benches: JSON of each bench by name.
        pictures: names of the figures of each study.
        plotted: benches that have a page with plots, too.
    """

    studies: Mapping[str, Report]
    benches: Mapping[str, Report]
    pictures: Mapping[str, Sequence[str]]
    plotted: Sequence[str] = ()


def read(folder: Path) -> Results:
    """What lies in a folder of results.

    Raises:
        ResultError: if a file is no JSON, is of another version, or is one that this page has no place for.
    """
    studies, benches = _loaded(folder / "studies"), _loaded(folder)
    _check("studies", studies, [name for names in TOPICS.values() for name in names], STUDY_SCHEMA)
    _check("results", benches, list(SPEED), SCHEMA_VERSION)
    pictures = {name: _pictures(folder / "studies", name) for name in studies}
    return Results(studies, benches, pictures, [name for name in benches if (folder / f"{name}.html").is_file()])


def _pictures(folder: Path, name: str) -> list[str]:
    """The figures of a study; those of its run with --full begin alike, and are that run's own."""
    found = sorted(path.name for path in folder.glob(f"{name}_*.svg"))
    return [one for one in found if not one.startswith(f"{name}_full_")]


def _loaded(folder: Path) -> dict[str, Report]:
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ResultError(f"{path.name} is no JSON ({error}): take the committed file, or run it again") from error
    return found


def _check(kind: str, found: Mapping[str, Report], known: Sequence[str], schema: int) -> None:
    for name, report in found.items():
        if name.removesuffix("_full") not in known:
            raise ResultError(f"{kind}/{name}.json has no place on the page: give it one in benches/which_mixing.py")
        # Some benches write a page of their own, of which there has been one version only.
        version = report.get("schema", None if kind == "studies" else schema)
        if version != schema:
            raise ResultError(f"{kind}/{name}.json: version {version}, expected {schema}: run it again")


def blocks(results: Results) -> list[Block]:
    """The page: the answer, then each study with its cases, claims and curves, then speed."""
    told = results.studies
    topics = {
        topic: [one for name in names for one in (name, f"{name}_full") if one in told]
        for topic, names in TOPICS.items()
    }
    compared = {topic: names for topic, names in topics.items() if topic != CHECKS}
    parts: list[Block] = [
        Heading(1, TITLE),
        Paragraph(_introduction(told)),
        Table(
            ["for", "better", "no difference shown", "worse", "NLL"],
            [_short(topic, {name: told[name] for name in names}) for topic, names in compared.items() if names],
        ),
        Paragraph(_reading([told[name] for names in compared.values() for name in names])),
    ]
    for topic, names in topics.items():
        parts += [Heading(2, topic)] * bool(names)
        for name in names:
            parts += _study(name, told[name], results.pictures[name], compares=topic != CHECKS)
    if results.benches:
        said = "Each page says what was aimed at beside peers or a copy of the same bytes, and which aims were missed."
        columns = ["what", "aims met", "measured", "again"]
        parts += [Heading(2, "Speed"), Paragraph(said), Table(columns, list(_speed(results)))]
    return parts


def _introduction(told: Mapping[str, Report]) -> Said:
    runs = sum(len(report["runs"]) for report in told.values())
    return [
        f"{len(told)} studies, {runs:,} trainings. What each method changed beside training without mixing, from the "
        "same first weights on the same batches: a line for each study, its mean difference over all cases (data sets, "
        "networks, sizes) and the 95 % interval [in brackets]. Better and worse: the interval does not hold zero. On "
        "your own data: ",
        Link("mixops try", "../../docs/try.md"),
        ".",
    ]


def _reading(reports: Sequence[Report]) -> Said:
    count = sum(len(_methods(report)) * len(_shown(report, ("nll",))) for report in reports)
    return [
        "NLL, the negative log likelihood of the true class, says how far the probabilities of a network can be "
        "trusted: lower is better. Differences of percentages are points. Single cases that tell otherwise than the "
        f"mean are named in (parentheses). Of the {count} intervals behind this table about "
        f"{expected_false(count):.0f} would miss zero by chance if nothing were there: trust what is far from zero, "
        "and what recurs. Networks and data sets are of a size for a CPU and trainings are short, which is not where "
        "the papers measured: what does not show here may show there. ",
        Link("How a study is made, and where its data come from", "../studies/README.md"),
        "; everything on this page is made from the JSON beside it by make report.",
    ]


def _methods(report: Report) -> list[str]:
    """The methods that are compared with the first."""
    return list(report["methods"])[1:]


def _shown(report: Report, beside: Sequence[str]) -> list[str]:
    """The measures that a table shows: what a study is about, then those with a column of their own."""
    return list(dict.fromkeys([report["lead"], *(name for name in beside if name in report["measures"])]))


def _heading(name: str, report: Report) -> str:
    return f"{report['title']}, at full size" if name.endswith("_full") else str(report["title"])


def _short(topic: str, reports: Mapping[str, Report]) -> Sequence[Said]:
    """A row of the first table: the methods of all studies of a topic by what they did, the best first."""
    found = []
    for name, report in reports.items():
        measure = Measure(**report["measures"][report["lead"]])
        sign = -1 if measure.better == "lower" else 1
        for method in _methods(report):
            by = over_cases(report, method, report["lead"])
            side = _side(by, measure)
            words = f"{method}: {_difference(by, measure)}{_otherwise(report, method, side)}"
            found.append((sign * by["mean"], side, Link(words, anchor(_heading(name, report)))))
    found.sort(key=lambda one: -one[0])
    columns = [[link for _, where, link in found if where == side] or "–" for side in (1, 0, -1)]
    asked = dict.fromkeys(report["measures"][report["lead"]]["title"] for report in reports.values())
    return [[topic, *asked], *columns, _probabilities(list(reports.values()))]


def over_cases(report: Report, method: str, name: str) -> Mapping[str, float]:
    """Paired difference to the first method, a seed's mean over the cases, as the verdicts of a study take it."""
    first = next(iter(report["methods"]))
    each = [
        values(report["runs"], case, method, name) - values(report["runs"], case, first, name)
        for case in report["cases"]
    ]
    return interval(np.mean(each, axis=0))


def _otherwise(report: Report, method: str, side: int) -> str:
    """The cases whose own interval lies on another side of zero than that of their mean."""
    lead = report["lead"]
    sides = {
        row["case"]: _side(row["difference"], Measure(**report["measures"][lead]))
        for row in report["summary"]
        if (row["method"], row["measure"]) == (method, lead)
    }
    said = []
    for word, other in (("better", 1), ("worse", -1)):
        cases = [case for case, found in sides.items() if found == other != side]
        if cases:
            where = f"on {cases[0]}" if len(cases) == 1 else f"in {len(cases)} of {len(sides)} cases"
            said.append(f"{word} {where}")
    return f" ({', '.join(said)})" if said else ""


def _probabilities(reports: Sequence[Report]) -> Said:
    """Which methods change the NLL, over all cases of a study; and in how many studies, if not in all of theirs."""
    sides: dict[str, list[int]] = {}
    for report in reports:
        if "nll" in report["measures"]:
            measure = Measure(**report["measures"]["nll"])
            for method in _methods(report):
                sides.setdefault(method, []).append(_side(over_cases(report, method, "nll"), measure))
    said = []
    for word, side in (("lower", 1), ("higher", -1)):
        methods = [
            method if set(found) == {side} else f"{method} ({found.count(side)} of {len(found)} studies)"
            for method, found in sides.items()
            if side in found
        ]
        if methods:
            said.append(f"{word}: {'all' if methods == list(sides) and len(sides) > 1 else ', '.join(methods)}")
    return said or "–"


def _study(name: str, report: Report, pictures: Sequence[str], *, compares: bool) -> Iterator[Block]:
    """A study: what is asked, what is better where, what was claimed, its curves, and the way to all of its numbers."""
    title = _heading(name, report)
    yield Heading(3, title)
    yield Paragraph(report["question"])
    yield Table(["method", "is"], list(report["methods"].items()))
    if compares:
        lead = report["measures"][report["lead"]]["title"]
        beside = [f"{BESIDE[one]}, if it differs" for one in _shown(report, list(BESIDE)) if one != report["lead"]]
        columns = [lead, "better", "worse", "no difference shown", *beside]
        yield Table(columns, list(_cases(report)))
    yield Table(["claim", "by", "the paper's number", "here", "by how much"], list(_claims(report)))
    for one in pictures:
        yield Picture(f"studies/{one}", f"{title}: {one}")
    minutes = report["seconds"]["runs"] / 60
    yield Paragraph(
        [
            Link("All numbers, and what to bear in mind", f"studies/{name}.md"),
            f". Again: `{report['command']}`, {len(report['runs'])} trainings, which took {minutes:.0f} minutes in "
            f"all, on {report['device']}.",
        ]
    )


def _cases(report: Report) -> Iterator[Sequence[Said]]:
    """A row for each case: the methods by what they do to it."""
    lead, *beside = _shown(report, list(BESIDE))
    measures = {name: Measure(**report["measures"][name]) for name in (lead, *beside)}
    for case in report["cases"]:
        rows = {(row["method"], row["measure"]): row["difference"] for row in report["summary"] if row["case"] == case}
        sides = {
            (m, name): _side(rows[m, name], measure) for m in _methods(report) for name, measure in measures.items()
        }

        def said(name: str, chosen: Sequence[int], rows: Report = rows, sides: Mapping[Any, int] = sides) -> Said:
            found = [m for m in _methods(report) if sides[m, name] in chosen]
            return [f"{m}: {_difference(rows[m, name], measures[name])}" for m in found] or "–"

        none = ", ".join(m for m in _methods(report) if sides[m, lead] == 0) or "–"
        yield [case, said(lead, [1]), said(lead, [-1]), none, *(said(one, [1, -1]) for one in beside)]


def _side(by: Mapping[str, float], measure: Measure) -> int:
    """1 where the interval lies on the better side of zero, -1 on the worse, 0 where it holds zero."""
    sign = -1 if measure.better == "lower" else 1
    low, high = sorted((sign * by["low"], sign * by["high"]))
    return int(low > 0) - int(high < 0)


def _difference(by: Mapping[str, float], measure: Measure) -> str:
    mean, low, high = (measure.signed(by[one]) for one in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _claims(report: Report) -> Iterator[Sequence[Said]]:
    for verdict in report["verdicts"]:
        word, _, far = verdict["sentence"].partition(": ")
        yield [verdict["claim"], verdict["source"], verdict["paper"] or "–", word, far]


def _speed(results: Results) -> Iterator[Sequence[Said]]:
    for name, what in SPEED.items():
        if name in results.benches:
            told = results.benches[name]
            aims = [line["met"] for row in told["rows"] for line in row.get("lines", [row]) if line["met"] is not None]
            on = told["environment"]
            pages = [Link(what, f"{name}.md"), *[Link("with plots", f"{name}.html")] * (name in results.plotted)]
            yield [pages, f"{sum(aims)} of {len(aims)}", f"{on['date'][:10]}, {on['cpu']}", f"`{told['command']}`"]


def main() -> int:
    parser = argparse.ArgumentParser(description="One page from all results that are committed, studies and benches.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where the pages are others")
    given = parser.parse_args()
    try:
        made = blocks(read(RESULTS))
    except ResultError as error:
        print(f"which_mixing.py: {error}", file=sys.stderr)
        return 1
    pages = {RESULTS / "which-mixing.md": markdown(made), RESULTS / "which-mixing.html": html(TITLE, made)}
    if given.check:
        old = [place.name for place, text in pages.items() if not place.is_file() or place.read_text("utf-8") != text]
        for name in old:
            print(f"{name} is not what the results give: make report")
        return int(bool(old))
    for place, text in pages.items():
        write_text(text, place)
        print(place)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
