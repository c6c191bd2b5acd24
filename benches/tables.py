"""The words of a report: a row as text, and every line of it as a verdict, losses first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Verdicts, in the order in which they are listed.
ORDER = ("short", "slower", "met", "")


@dataclass(frozen=True)
class Verdict:
    """One line that was measured, with what became of it.

    Args:
        row: the name of its row.
        allocator: what it was measured on.
        what: the line.
        got: what came out, with quartiles.
        aim: what was aimed at, "" for nothing.
        word: "short" of the aim, "met", "slower" where nothing was aimed at and a peer was faster than mixops, or "".
        margin: how much better than the aim, or the peer, it is; below 0: how much worse.
    """

    row: str
    allocator: str
    what: str
    got: str
    aim: str
    word: str
    margin: float

    @property
    def says(self) -> str:
        """The verdict in words."""
        if self.word == "short":
            return f"short by {-self.margin:.0%}"
        if self.word == "met":
            return f"met, {self.margin:.0%} to spare"
        return f"a peer is faster by {-self.margin:.0%}" if self.word == "slower" else ""


def verdicts(report: dict[str, Any]) -> list[Verdict]:
    """Every line of every row; first what fell short, then where a peer is faster, the worst of each on top."""
    every = [_verdict(row, line) for row in report["rows"] for line in row["lines"]]
    return sorted(every, key=lambda v: (ORDER.index(v.word), v.margin))


def _verdict(row: dict[str, Any], line: dict[str, Any]) -> Verdict:
    unit = line["unit"]
    got = f"{line['median']:.3g}{unit} ({line['q1']:.3g} – {line['q3']:.3g})"
    aim = "" if line["bound"] is None else f"{line['bound']} {line['target']:g}{unit}"
    if line["bound"] is not None:
        word, margin = "met" if line["met"] else "short", line["margin"]
    else:
        ours = {c["name"] for c in row["contenders"] if c["ours"]}
        over, _, by = line["what"].partition(" ÷ ")
        beaten = by in ours and over not in ours and over not in ("copy", "floor") and line["median"] < 1
        word, margin = "slower" if beaten else "", line["median"] - 1 if beaten else 0.0
    return Verdict(row["name"], row["allocator"], line["what"], got, aim, word, margin)


def count(report: dict[str, Any]) -> str:
    """How many aims were met, in a sentence."""
    words = [v.word for v in verdicts(report)]
    aimed = words.count("met") + words.count("short")
    return (
        f"{words.count('met')} of {aimed} aims met, {words.count('short')} short; in {words.count('slower')} more "
        f"comparisons a peer is faster; {len(report['failures'])} rows could not be measured."
    )


def row_text(row: dict[str, Any]) -> str:
    """A row as text: the contenders, fastest last, then its lines."""
    wide = max(len(c["name"]) for c in row["contenders"])
    names = ("ms", 9), ("quartiles", 21), ("least", 9), ("÷ copy", 7), ("÷ floor", 8), ("GB/s", 6), ("off by", 7)
    out = [head(row), " ".join([" " * (wide + 2), *(f"{name:>{width}}" for name, width in names)])]
    for c in slowest_first(row):
        times = f"{c['ms']['median']:9.3f} {c['ms']['q1']:10.3f} –{c['ms']['q3']:9.3f} {c['ms']['min']:9.3f}"
        ratios = f"{cell(c['over_copy'], '.2f'):>7} {cell(c['over_floor'], '.2f'):>8}"
        rest = f"{cell(c['gb_per_s'], '.1f'):>6} {cell(c['difference'], '.1g'):>7}"
        out.append(f"  {c['name']:{wide}} {times} {ratios} {rest}")
    for line in row["lines"]:
        v = _verdict(row, line)
        mark = {"short": "FAIL", "met": "pass", "slower": "loss"}.get(v.word, "    ")
        out.append(f"  {mark} {v.what}: {v.got}" + (f", {v.aim}" if v.aim else "") + (f": {v.says}" if v.says else ""))
    return "\n".join([*out, *(f"  {text}" for text in fits(row)), *(f"  note: {note}" for note in row["notes"])])


def head(row: dict[str, Any]) -> str:
    """The title of a row, and what it was measured with."""
    threads = f"{row['threads']} thread{'s' * (row['threads'] > 1)}"
    clean = f"{row['clean_rounds']} of {row['rounds']} rounds clean"
    return f"{row['title']}  [{row['name']}, {threads}, {clean}, allocator {row['allocator']}]"


def slowest_first(row: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(row["contenders"], key=lambda c: -c["ms"]["median"])


def fits(row: dict[str, Any]) -> list[str]:
    """What the curves of a row come to, a sentence each."""
    return [
        f"{curve['name']}: {curve['overhead_ms'] * 1e3:.0f} µs + bytes at {curve['gb_per_s']:.1f} GB/s; no point is "
        f"further than {curve['deviation']:.0%} from that line"
        for curve in row["curves"]
    ]


def cell(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
