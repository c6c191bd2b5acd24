"""The report that people read, as HTML with plots and as Markdown.

python benches/page.py [results/headline.json ...]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from plots import bars, curves
from report import check, write_text
from tables import cell, count, fits, slowest_first, verdicts

STYLE = """
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 1100px; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .6em 0 1.4em; font-size: 13px }
th, td { padding: 2px 9px; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child, td.words, th.words { text-align: left }
tr.ours td:first-child { font-weight: bold }
tr.short td, tr.slower td { background: #fbe3dd }
tr.met td { background: #e9f3e6 }
details { margin: .5em 0 } svg { max-width: 100%; height: auto }
"""
COLUMNS = ("ms", "quartiles", "least", "÷ copy", "÷ floor", "GB/s", "off by")


def write_pages(report: dict[str, Any], path: Path) -> list[Path]:
    """Write the report beside its JSON: the same name, .html and .md."""
    pages = {path.with_suffix(".html"): html(report), path.with_suffix(".md"): markdown(report)}
    for place, text in pages.items():
        write_text(text, place)
    return list(pages)


def html(report: dict[str, Any]) -> str:
    """One page, plots included, that needs nothing else."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Throughput of mixops</title><style>{STYLE}</style>",
        f"<h1>Throughput of mixops beside its peers</h1><p>{escape(count(report))}</p>",
        "<h2>Aims and losses</h2>",
        _verdict_table(report),
        "<h2>The machine</h2>",
        _pairs(_machine(report)),
        "<h2>How it was measured</h2>",
        _pairs(report["method"].items()),
    ]
    for chapter, names in _chapters(report):
        parts.append(f"<h2>{escape(chapter)}</h2>")
        for rows in names:
            first = rows[0]
            parts.append(f"<h3 id='{escape(first['name'])}'>{escape(first['title'])}</h3>")
            parts += [f"<p>{escape(note)}</p>" for note in first["notes"]]
            parts += [curves(row) for row in rows if row["curves"]] or [bars(rows)] * first["headline"]
            parts += [_table(row) for row in rows]
    return "\n".join([*parts, "</html>\n"])


def _verdict_table(report: dict[str, Any]) -> str:
    rows = [
        f"<tr class='{v.word}'><td><a href='#{escape(v.row)}'>{escape(v.row)}</a><td class=words>{escape(v.allocator)}"
        f"<td class=words>{escape(v.what)}<td>{escape(v.got)}<td>{escape(v.aim)}<td class=words>{escape(v.says)}"
        for v in verdicts(report)
    ]
    lost = [f"<tr class=short><td>{escape(f['name'])}<td>{escape(f['allocator'])}<td colspan=4 class=words>"
            f"could not be measured: {escape(f['error'])}" for f in report["failures"]]  # fmt: skip
    names = ("row", "allocator", "line", "got", "aim", "verdict")
    return _tabled("".join(f"<th class=words>{name}" for name in names), [*lost, *rows])


def _table(row: dict[str, Any]) -> str:
    said = f"{row['name']} (--rows {row['entry']}), allocator {row['allocator']}, threads: {row['threads']}, "
    said += f"{row['clean_rounds']} of {row['rounds']} rounds clean, {row['draws']} draws a round"
    body = []
    for c in slowest_first(row):
        cells = "".join(f"<td>{value}" for value in _values(c))
        body.append(f"<tr{' class=ours' if c['ours'] else ''}><td>{escape(c['name'])}{cells}")
    fitted = "".join(f"<p>{escape(text)}</p>" for text in fits(row))
    table = _tabled("".join(f"<th>{name}" for name in ("", *COLUMNS)), body)
    return f"<details{' open' if row['headline'] else ''}><summary>{escape(said)}</summary>{fitted}{table}</details>"


def _tabled(head: str, body: Sequence[str]) -> str:
    return f"<table><tr>{head}{''.join(body)}</table>"


def _pairs(pairs: Any) -> str:
    return _tabled("", [f"<tr><td>{escape(str(k))}<td class=words>{escape(str(v))}" for k, v in pairs])


def markdown(report: dict[str, Any]) -> str:
    """The same without the plots."""
    out = ["# Throughput of mixops beside its peers", "", count(report), "", "## Aims and losses", ""]
    out += ["| row | allocator | line | got | aim | verdict |", "|---|---|---|---|---|---|"]
    out += [
        _line((f["name"], f["allocator"], f"could not be measured: {f['error']}", "", "", ""))
        for f in report["failures"]
    ]
    out += [_line((v.row, v.allocator, v.what, v.got, v.aim, v.says)) for v in verdicts(report)]
    out += ["", "## The machine", "", *(f"- {name}: {value}" for name, value in _machine(report))]
    out += ["", "## How it was measured", "", *(f"- {name}: {value}" for name, value in report["method"].items())]
    for chapter, names in _chapters(report):
        out += ["", f"## {chapter}"]
        for rows in names:
            out += ["", f"### {rows[0]['title']}", "", *(f"- {note}" for note in rows[0]["notes"])]
            for row in rows:
                out += ["", f"`{row['name']}`, allocator {row['allocator']}, threads: {row['threads']}, "
                        f"{row['clean_rounds']} of {row['rounds']} rounds clean", ""]  # fmt: skip
                out += [*(f"- {text}" for text in fits(row)), ""] if row["curves"] else []
                out += [f"| | {' | '.join(COLUMNS)} |", "|---" + "|--:" * len(COLUMNS) + "|"]
                out += [_line((c["name"], *_values(c))) for c in slowest_first(row)]
    return "\n".join(out) + "\n"


def _line(cells: Sequence[str]) -> str:
    """A line of a table in Markdown, where a bar would end a cell and a line break the table."""
    return f"| {' | '.join(' '.join(text.split()).replace('|', chr(92) + '|') for text in cells)} |"


def _values(c: dict[str, Any]) -> list[str]:
    ms = c["ms"]
    times = [f"{ms['median']:.3f}", f"{ms['q1']:.3f} – {ms['q3']:.3f}", f"{ms['min']:.3f}"]
    ratios = [cell(c["over_copy"], ".2f"), cell(c["over_floor"], ".2f")]
    return [*times, *ratios, cell(c["gb_per_s"], ".1f"), cell(c["difference"], ".1g")]


def _chapters(report: dict[str, Any]) -> Iterator[tuple[str, list[list[dict[str, Any]]]]]:
    """Each chapter with its rows, those of one name together: one for each allocator."""
    order = list(dict.fromkeys(row["chapter"] for row in report["rows"]))
    names = list(dict.fromkeys(row["name"] for row in report["rows"]))
    key = lambda row: (order.index(row["chapter"]), names.index(row["name"]))  # noqa: E731
    rows = sorted(report["rows"], key=key)
    for chapter, inside in groupby(rows, key=lambda row: row["chapter"]):
        yield chapter, [list(same) for _, same in groupby(inside, key=lambda row: row["name"])]


def _machine(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in report["environment"].items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        yield name.replace("_", " "), str(value)
    for name, settings in report["allocators"].items():
        yield f"allocator {name}", ", ".join(f"{k}={v}" for k, v in settings.items()) or "no settings"
    yield "load before and after", f"{report['load']['start']} and {report['load']['end']}"
    yield "command", report["command"]
    longest = sorted((-s, entry) for times in report["took"].values() for entry, s in times.items())[:5]
    told = ", ".join(f"{entry} {-s:.0f} s" for s, entry in longest)
    yield "took", f"{report['seconds']:.0f} s; longest: {told}"


def main() -> int:
    here = Path(__file__).parent / "results"
    named = [Path(word) for word in sys.argv[1:]]
    for path in named or sorted(here.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        if not named and "schema" not in report:  # corpus.py writes a page of its own
            continue
        check(report)
        print(*write_pages(report, path), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
