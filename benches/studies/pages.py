"""The page of a study: Markdown and SVG, made from its JSON alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from evidence import Measure, expected_false

WORDS = {"shows": "shows", "does not show": "does not show", "opposite": "**the opposite**"}


def markdown(report: Mapping[str, Any], figures: Sequence[str]) -> str:
    """The page.

    Args:
        report: the JSON.
        figures: names of the files to show.
    """
    measures = {name: Measure(**measure) for name, measure in report["measures"].items()}
    parts = [f"# {report['title']}", report["question"], "## Verdicts", _verdicts(report), _multiplicity(report)]
    if _by_case(report):
        parts += ["### Case by case", _case_table(report, measures)]
    parts += ["## Figures", *(f"![{name}]({name})" for name in figures), "## Numbers", _how(report)]
    for case, rows in groupby(report["summary"], key=lambda row: row["case"]):
        parts += [f"### {case}", _settings(report["cases"][case]), _table(list(rows), measures)]
    parts += ["## Methods", _list(report["methods"].items())]
    parts += ["## What to bear in mind", "\n".join(f"- {note}" for note in report["notes"])] if report["notes"] else []
    parts += ["## The run", _list(_run(report))]
    return "\n\n".join(parts) + "\n"


def _verdicts(report: Mapping[str, Any]) -> str:
    found = report["verdicts"]
    if not any(v["paper"] for v in found):
        return _tabled("| claim | by | verdict |", ((v["claim"], v["source"], v["sentence"]) for v in found))
    return _tabled(
        "| claim | by | the paper's number | verdict |",
        ((v["claim"], v["source"], v["paper"], v["sentence"]) for v in found),
    )


def _multiplicity(report: Mapping[str, Any]) -> str:
    margins = [_has_margin(v) for v in report["verdicts"]] + [_has_margin(v) for v, _ in _by_case(report)]
    count = margins.count(False)
    said = (
        '"Shows" and "the opposite shows" mean that the 95 % interval of the paired difference lies on one side of '
        f"zero. Of the {count} intervals of this page's verdicts about {expected_false(count):.1f} would do so by "
        "chance if nothing were there."
    )
    bound = (
        'A claim that names a margin, such as "counts as equal", shows where the whole interval lies inside of it, and '
        "its opposite where the whole interval lies outside."
    )
    return " ".join([said] * (count > 0) + [bound] * any(margins))


def _has_margin(verdict: Mapping[str, Any]) -> bool:
    return verdict["direction"] == "equal" or verdict["within"] > 0


def _by_case(report: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str]]:
    """(verdict, case) of claims on several cases; claims that share a case are told of it once."""
    found: dict[tuple[str, ...], tuple[Mapping[str, Any], str]] = {}
    for v in report["verdicts"]:
        for case in v["cases"] if len(v["cases"]) > 1 else ():
            key = v["method"], v["against"], v["measure"], v["direction"], case
            found.setdefault(key, (v, case))
    return list(found.values())


def _case_table(report: Mapping[str, Any], measures: Mapping[str, Measure]) -> str:
    rows = []
    for v, case in _by_case(report):
        one = v["cases"][case]
        by, measure = one["by"], measures[v["measure"]]
        won = one["as_claimed"]
        said = f"{v['method']} against {v['against']}: {measure.title.split(',')[0]} {v['direction']}"
        rows.append((said, case, WORDS[one["verdict"]], _difference(by, measure), f"{won} of {by['seeds']}"))
    return _tabled("| claim | case | verdict | difference | seeds as claimed |", rows)


def _how(report: Mapping[str, Any]) -> str:
    first = next(iter(report["methods"]))
    return (
        f"Mean ± standard deviation over {report['seeds']} seeds. In brackets: 95 % t interval of the mean paired "
        f"difference to {first} on the same seed; then on how many seeds the method was better."
    )


def _settings(case: Mapping[str, Any]) -> str:
    # What is empty, or the whole number 0, is not done: nothing to fetch, no rows left out, no epoch to drop at.
    given = {k: v for k, v in case.items() if k not in ("files", "group") and (v or isinstance(v, float))}
    return f"Settings: {', '.join(f'{key} {_plain(value)}' for key, value in given.items())}."


def _table(rows: Sequence[Mapping[str, Any]], measures: Mapping[str, Measure]) -> str:
    names = list(dict.fromkeys(row["measure"] for row in rows))
    head = "| method | " + " | ".join(measures[name].title for name in names) + " |"
    found = {(row["method"], row["measure"]): row for row in rows}
    methods = dict.fromkeys(row["method"] for row in rows)
    return _tabled(head, ((m, *(_cell(found[m, name], measures[name]) for name in names)) for m in methods))


def _cell(row: Mapping[str, Any], measure: Measure) -> str:
    said = f"{measure.plain(row['mean'])} ± {measure.plain(row['sd'])}"
    by = row["difference"]
    if by is None:
        return said
    won = {"higher": by["above"], "lower": by["below"]}.get(measure.better)
    return f"{said}<br>{_difference(by, measure)}" + ("" if won is None else f", {won}/{by['seeds']}")


def _difference(by: Mapping[str, float], measure: Measure) -> str:
    return f"{measure.signed(by['mean'])} [{measure.signed(by['low'])}, {measure.signed(by['high'])}]"


def _run(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    environment, seconds = report["environment"], report["seconds"]
    yield "command", f"`{report['command']}`"
    yield (
        "took",
        (
            f"{seconds['wall'] / 60:.1f} minutes for {report['done_now']} of {len(report['runs'])} runs, in "
            f"{report['processes']} processes of one thread; {seconds['runs'] / 60:.1f} minutes of runs in all"
        ),
    )
    yield "date", environment["date"]
    yield "machine", f"{environment['cpu']}, {environment['cores']} cores, {environment['system']}"
    yield "device", report["device"]
    yield "commit", environment["commit"] + (" with changes" if environment["modified"] else "")
    yield "versions", ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    for name, digest in report["data"].items():
        yield name, f"sha256 {digest}"


def _list(pairs: Any) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in pairs)


def _tabled(head: str, rows: Any) -> str:
    """A Markdown table; a bar would end a cell."""
    columns = head.count("|") - 1
    lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([head, "|---" * columns + "|", *lines])


def _plain(value: Any) -> str:
    return (
        f"({', '.join(map(_plain, value))})"
        if isinstance(value, list)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
