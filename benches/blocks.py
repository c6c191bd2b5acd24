"""A page as a list of blocks, written as Markdown and as HTML: what is said is said once, whatever it is shown in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Link:
    """Words that lead somewhere.

    Args:
        words: that are shown.
        to: a path beside the page, or an address.
    """

    words: str
    to: str


#: What stands in a cell or a paragraph: words and links, one after another.
Said = str | Link | Sequence["str | Link"]


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 or more."""

    level: int
    words: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    said: Said


@dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table: its columns and its rows, each a cell for every column."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Said]]


@dataclass(frozen=True)
class Picture:
    """A picture that lies at a path beside the page."""

    to: str
    words: str


Block = Heading | Paragraph | Commands | Table | Picture

STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .6em 0 1.6em; font-size: 13px }
th, td { padding: 4px 10px; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
img { max-width: 100% } pre { background: #f4f4f2; padding: .7em 1em; overflow-x: auto }
"""


def markdown(blocks: Sequence[Block]) -> str:
    """The page as Markdown."""
    return "\n\n".join(map(_in_markdown, blocks)) + "\n"


def _in_markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.words}"
    if isinstance(block, Paragraph):
        return "".join(map(_words_in_markdown, _parts(block.said)))
    if isinstance(block, Commands):
        return "\n".join(["```sh", *block.lines, "```"])
    if isinstance(block, Picture):
        return f"![{block.words}]({block.to})"
    head = ["| " + " | ".join(block.columns) + " |", "|---" * len(block.columns) + "|"]
    # A bar would end a cell, a line break the row.
    cells = ([" ".join(map(_words_in_markdown, _parts(c))).replace("|", "\\|") for c in row] for row in block.rows)
    return "\n".join([*head, *("| " + " | ".join(row) + " |" for row in cells)])


def _words_in_markdown(part: str | Link) -> str:
    return f"[{part.words}]({part.to})" if isinstance(part, Link) else part


def html(title: str, blocks: Sequence[Block]) -> str:
    """The page as HTML; ``title`` is that of the window."""
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>"
    return "\n".join([head, *map(_in_html, blocks)]) + "\n"


def _in_html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{escape(block.words)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{_words_in_html(block.said)}</p>"
    if isinstance(block, Commands):
        return f"<pre>{escape(chr(10).join(block.lines))}</pre>"
    if isinstance(block, Picture):
        return f'<img src="{escape(block.to)}" alt="{escape(block.words)}">'
    head = "".join(f"<th>{escape(column)}" for column in block.columns)
    rows = ("<tr>" + "".join(f"<td>{_words_in_html(cell, ' ')}" for cell in row) for row in block.rows)
    return "\n".join([f"<table><tr>{head}", *rows, "</table>"])


def _words_in_html(said: Said, between: str = "") -> str:
    return between.join(
        f'<a href="{escape(part.to)}">{escape(part.words)}</a>' if isinstance(part, Link) else escape(part)
        for part in _parts(said)
    )


def _parts(said: Said) -> Iterator[str | Link]:
    yield from [said] if isinstance(said, (str, Link)) else said
