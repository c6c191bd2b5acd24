"""One page from all results that are committed, studies and benches: python benches/which_mixing.py [--check]

It writes ``results/which-mixing.md`` and ``.html``. ``--check`` writes nothing and has exit status 1 where they are not
those of the JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocks import Block, Commands, Heading, Link, Paragraph, Picture, Said, Table, html, markdown
from report import SCHEMA_VERSION, write_text

RESULTS = Path(__file__).parent / "results"
#: Version of the JSON of a study that this reads.
STUDY_SCHEMA = 2
TITLE = "Which mixing for what"
#: Studies by what is trained, in the order of the page.
TOPICS = {
    "Images": ("methods", "manifold", "robust"),
    "Images with corrupt labels": ("corrupt",),
    "Images, by the strength of Mixup": ("alpha",),
    "Sentences": ("settings", "sizes", "minilm", "ssmix", "mixtext"),
    "Tagged sentences": ("seqmix",),
    "Speech and tables": ("speech", "tabular"),
    "Generators": ("gan",),
    "What must hold": ("limits", "cost"),
}
#: The topic whose studies compare no mixings: they have their place among the claims alone.
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
SHORT = (
    "In how many cases (a data set, a network, a size) a method is better than training without mixing by more than "
    "chance, and in how many it is worse; the others do not tell. NLL and ECE say how much its probabilities can be "
    "trusted."
)
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
    """

    studies: Mapping[str, Report]
    benches: Mapping[str, Report]
    pictures: Mapping[str, Sequence[str]]


def read(folder: Path) -> Results:
    """What lies in a folder of results.

    Raises:
        ResultError: if a file is no JSON, is of another version, or is one that this page has no place for.
    """
    studies, benches = _loaded(folder / "studies"), _loaded(folder)
    _check("studies", studies, [name for names in TOPICS.values() for name in names], STUDY_SCHEMA)
    _check("results", benches, list(SPEED), SCHEMA_VERSION)
    return Results(studies, benches, {name: _pictures(folder / "studies", name) for name in studies})


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
        if report.get("schema", schema) != schema:
            raise ResultError(f"{kind}/{name}.json: version {report['schema']}, expected {schema}: run it again")


def blocks(results: Results) -> list[Block]:
    """The page."""
    told = results.studies
    topics = {topic: [one for name in names for one in (name, f"{name}_full") if one in told]
              for topic, names in TOPICS.items()}  # fmt: skip
    parts: list[Block] = [Heading(1, TITLE), Paragraph(_introduction(told)), Heading(2, "In short")]
    compared = {topic: names for topic, names in topics.items() if topic != CHECKS}
    rows = [row for topic, names in compared.items() for row in _short(topic, [told[name] for name in names])]
    columns = ["trained", "method", "what is asked: better", *(f"{one}: better" for one in BESIDE.values())]
    parts += [
        Paragraph(SHORT),
        Table(columns, rows),
        Heading(2, "Case by case"),
        Paragraph(_reading([told[name] for names in compared.values() for name in names])),
    ]
    for topic, names in compared.items():
        rows = [row for name in names for row in _glance(name, told[name])]
        if rows:
            beside = (f"{one}, if it differs" for one in BESIDE.values())
            columns = ["trained", "better", "worse", "no difference shown", *beside]
            parts += [Heading(3, topic), Table(columns, rows)]
    parts.append(Heading(2, "What is claimed, and what shows"))
    for topic, names in topics.items():
        rows = [row for name in names for row in _claims(name, told[name])]
        if rows:
            parts += [Heading(3, topic), Table(["claim", "by", "there", "here"], rows)]
    parts.append(Heading(2, "Curves"))
    for name in [name for names in topics.values() for name in names]:
        parts.append(Heading(3, told[name]["title"]))
        parts += [Picture(f"studies/{one}", f"{told[name]['title']}: {one}") for one in results.pictures[name]]
    parts += [Heading(2, "Speed"), Table(["what", "aims met", "measured"], list(_speed(results.benches)))]
    parts += [Heading(2, "Again"), Paragraph("Each study and each bench runs again with the command of its page:")]
    return [*parts, Commands([*(told[n]["command"] for n in told), *(b["command"] for b in results.benches.values())])]


def _introduction(told: Mapping[str, Report]) -> Said:
    runs = sum(len(report["runs"]) for report in told.values())
    return [
        f"{len(told)} studies, {runs:,} trainings on paired seeds: runs of one seed have the same split, the same "
        "first weights and the same batches in the same order, and only what is mixed differs. Networks and data sets "
        "are of a size for a CPU and trainings are short, which is not where the papers measured: what does not show "
        "here may show there. ",
        Link("How a study is made", "../studies/README.md"),
        "; everything on this page is made from the JSON beside it by make report.",
    ]


def _short(topic: str, reports: Sequence[Report]) -> Iterator[Sequence[Said]]:
    """A row for each method of a topic: in how many cases of its studies each measure is better, and worse."""
    sides: dict[str, dict[str, list[int]]] = {}
    for report in reports:
        for row in report["summary"]:
            if row["difference"] is not None and row["measure"] in _shown(report):
                column = BESIDE.get(row["measure"], "")
                found = sides.setdefault(row["method"], {}).setdefault(column, [])
                found.append(_side(row["difference"], report["measures"][row["measure"]]))
    for method, by in sides.items():
        yield [topic, method, *(_counted(by.get(column, [])) for column in ("", *BESIDE.values()))]


def _counted(sides: Sequence[int]) -> str:
    if not sides:
        return "–"
    said = f"{sides.count(1)} of {len(sides)}"
    return f"{said}, worse in {sides.count(-1)}" if -1 in sides else said


def _reading(reports: Sequence[Report]) -> Said:
    count = sum(row["difference"] is not None and row["measure"] in _shown(r) for r in reports for row in r["summary"])
    return (
        "A method stands under better or worse, at what its study is about, with its mean paired difference to "
        "training without mixing, where the 95 % interval [in brackets] lies on that side of zero. Lower NLL and ECE "
        "are better. Of the "
        f"{count} intervals behind these tables about {0.05 * count:.0f} would miss zero by chance if nothing were "
        "there: trust what is far from zero, and what recurs."
    )


def _shown(report: Report) -> list[str]:
    """The measures of a study that the first tables show: what it is about, then those with a column."""
    return list(dict.fromkeys([report["lead"], *(name for name in BESIDE if name in report["measures"])]))


def _glance(name: str, report: Report) -> Iterator[Sequence[Said]]:
    """A row for each case: the methods by what they do to it."""
    lead = report["lead"]
    first = next(iter(report["methods"]))
    for case in report["cases"]:
        rows = {(row["method"], row["measure"]): row["difference"] for row in report["summary"] if row["case"] == case}
        methods = [method for method in report["methods"] if method != first]
        sides = {method: _side(rows[method, lead], report["measures"][lead]) for method in methods}

        def said(chosen: Sequence[str], measure: str, rows: Mapping[Any, Any] = rows) -> str:
            found = [f"{m} {_difference(rows[m, measure], report['measures'][measure])}" for m in chosen]
            return "; ".join(found) or "–"

        beside = [
            said([m for m in methods if _side(rows[m, one], report["measures"][one])], one)
            if one in report["measures"] and one != lead
            else "–"
            for one in BESIDE
        ]
        yield [
            [Link(case, f"studies/{name}.md"), report["measures"][lead]["title"]],
            said([m for m in methods if sides[m] > 0], lead),
            said([m for m in methods if sides[m] < 0], lead),
            ", ".join(m for m in methods if sides[m] == 0) or "–",
            *beside,
        ]


def _side(by: Report, measure: Report) -> int:
    """1 where the interval lies on the better side of zero, -1 on the worse, 0 where it holds zero."""
    sign = -1 if measure["better"] == "lower" else 1
    low, high = sorted((sign * by["low"], sign * by["high"]))
    return int(low > 0) - int(high < 0)


def _difference(by: Report, measure: Report) -> str:
    mean, low, high = (f"{measure['scale'] * by[one]:+.{measure['digits']}f}" for one in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _claims(name: str, report: Report) -> Iterator[Sequence[Said]]:
    for verdict in report["verdicts"]:
        paper = verdict.get("paper") or "–"
        yield [verdict["claim"], verdict["source"], paper, Link(verdict["sentence"], f"studies/{name}.md")]


def _speed(told: Mapping[str, Report]) -> Iterator[Sequence[Said]]:
    for name, what in SPEED.items():
        if name in told:
            aims = [
                line["met"] for row in told[name]["rows"] for line in row.get("lines", [row]) if line["met"] is not None
            ]
            on = told[name]["environment"]
            yield [Link(what, f"{name}.md"), f"{sum(aims)} of {len(aims)}", f"{on['date'][:10]}, {on['cpu']}"]


def main() -> int:
    try:
        made = blocks(read(RESULTS))
    except ResultError as error:
        print(f"which_mixing.py: {error}", file=sys.stderr)
        return 1
    pages = {RESULTS / "which-mixing.md": markdown(made), RESULTS / "which-mixing.html": html(TITLE, made)}
    if "--check" in sys.argv[1:]:
        old = [place.name for place, text in pages.items() if not place.is_file() or place.read_text("utf-8") != text]
        print(*(f"{name} is not what the results give: make report" for name in old), sep="\n")
        return int(bool(old))
    for place, text in pages.items():
        write_text(text, place)
        print(place)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
