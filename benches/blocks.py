"""A page as a list of blocks, written as Markdown and as HTML: what is said is said once, whatever it is shown in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Link:
    """Words that lead somewhere.

    Args:
        words: that are shown.
        to: a path beside the page, an address, or the ``anchor`` of a heading.
    """

    words: str
    to: str


#: What stands in a paragraph: words and links, one after another; in a cell each has a line of its own. `Code` stands
#: between backticks.
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
class Table:
    """A table: its columns and its rows, each a cell for every column."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Said]]


@dataclass(frozen=True)
class Picture:
    """A picture that lies at a path beside the page."""

    to: str
    words: str


Block = Heading | Paragraph | Table | Picture

STYLE = """
body { font: 15px/1.5 sans-serif; margin: 1em auto; max-width: 1200px; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .6em 0 1.6em; font-size: 13px; line-height: 1.4; display: block;
  overflow-x: auto }
td a { text-decoration: none }
th, td { padding: 4px 10px; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
h2 { margin-top: 2em; border-bottom: 2px solid #ddd } img { max-width: 100%; display: block; margin: 1em 0 }
code { background: #f4f4f2; padding: 0 .2em }
"""


def anchor(words: str) -> str:
    """What a link to a heading leads to, as viewers of Markdown name it: "A, b" is "#a-b"."""
    return "#" + re.sub(r"[^\w -]", "", words.lower()).replace(" ", "-")


def markdown(blocks: Sequence[Block]) -> str:
    """The page as Markdown."""
    return "\n\n".join(map(_in_markdown, blocks)) + "\n"


def _in_markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.words}"
    if isinstance(block, Paragraph):
        return "".join(map(_words_in_markdown, _parts(block.said)))
    if isinstance(block, Picture):
        return f"![{block.words}]({block.to})"
    head = ["| " + " | ".join(block.columns) + " |", "|---" * len(block.columns) + "|"]
    # A bar would end a cell, a line break the row.
    cells = ([_cell_in_markdown(cell).replace("|", "\\|") for cell in row] for row in block.rows)
    return "\n".join([*head, *("| " + " | ".join(row) + " |" for row in cells)])


def _cell_in_markdown(said: Said) -> str:
    return "<br>".join(map(_words_in_markdown, _parts(said)))


def _words_in_markdown(part: str | Link) -> str:
    return f"[{part.words}]({part.to})" if isinstance(part, Link) else part


def html(title: str, blocks: Sequence[Block]) -> str:
    """The page as HTML; ``title`` is that of the window."""
    head = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
    )
    return "\n".join([head, *map(_in_html, blocks)]) + "\n"


def _in_html(block: Block) -> str:
    if isinstance(block, Heading):
        place = escape(anchor(block.words)[1:])
        return f'<h{block.level} id="{place}">{escape(block.words)}</h{block.level}>'
    if isinstance(block, Paragraph):
        return f"<p>{_words_in_html(block.said)}</p>"
    if isinstance(block, Picture):
        return f'<img src="{escape(block.to)}" alt="{escape(block.words)}" loading=lazy>'
    head = "".join(f"<th>{escape(column)}" for column in block.columns)
    rows = ("<tr>" + "".join(f"<td>{_words_in_html(cell, '<br>')}" for cell in row) for row in block.rows)
    return "\n".join([f"<table><tr>{head}", *rows, "</table>"])


def _words_in_html(said: Said, between: str = "") -> str:
    return between.join(
        f'<a href="{escape(part.to)}">{_marked(escape(part.words))}</a>'
        if isinstance(part, Link)
        else _marked(escape(part))
        for part in _parts(said)
    )


def _marked(words: str) -> str:
    """Code as code, and intervals such as [-0.10, +0.20] on one line."""
    whole = re.sub(r"\[[-+][^]]*\]", lambda found: found[0].replace(" ", "&nbsp;"), words)
    return re.sub("`([^`]+)`", r"<code>\1</code>", whole)


def _parts(said: Said) -> Iterator[str | Link]:
    yield from [said] if isinstance(said, (str, Link)) else said
