"""How tags mark where entities begin: the schemes that are in use, told apart and converted.

Inside the library tags are BIO2: B- begins every entity, I- goes on with it, O is outside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from mixops import MixValueError

from .tagged import OUTSIDE

#: plain: tags of tokens, not of entities, parts of speech say. IO: I- only. IOB1: B- only where an entity follows one
#: of its type at once. BIO2: B- begins every entity. BIOES: E- ends it, and S- is one of a single token; BILOU's L- and
#: U- are the same.
SCHEMES = ("plain", "IO", "IOB1", "BIO2", "BIOES")

Place = Callable[[int, int], str]

_PREFIXED = re.compile(r"([A-Za-z])-(.+)", re.DOTALL)
_SAME = {"L": "E", "U": "S"}


def find_scheme(rows: Iterable[Sequence[str]], place: Place | None = None) -> str:
    """The scheme that all these tags keep.

    Args:
        rows: tags of each sentence.
        place: (row, token) to the words that an error begins with; None: "row 0, token 0".

    Returns:
        One of SCHEMES; "BIO2" where there is no entity at all.

    Raises:
        MixError: if a tag has a prefix of no scheme or, among others that have one, none; or if the tags keep neither
            IOB1 nor BIO2, or break BIOES: the place of the first such tag is named.

    Example:
        >>> find_scheme([["O", "I-PER", "I-PER", "B-PER"]]), find_scheme([["NOUN", "VERB"]])
        ('IOB1', 'plain')
    """
    rows = list(rows)
    place = place or _place
    prefixes = {match[1] for row in rows for tag in row if tag != OUTSIDE and (match := _PREFIXED.fullmatch(tag))}
    if not prefixes:
        return "plain" if any(tag != OUTSIDE for row in rows for tag in row) else "BIO2"
    for i, row in enumerate(rows):
        for j, tag in enumerate(row):
            _split(tag, lambda i=i, j=j: place(i, j))  # type: ignore[misc]  # mypy knows no defaults of a lambda
    if prefixes & {"E", "S", "L", "U"}:
        return "BIOES"
    if prefixes == {"I"}:
        return "IO"
    late = _first(rows, lambda prefix, begun: prefix == "I" and begun)
    if late is None:
        return "BIO2"
    early = _first(rows, lambda prefix, begun: prefix == "B" and begun)
    if early is None:
        return "IOB1"
    before = rows[late[0]][late[1] - 1] if late[1] else "the beginning"
    raise MixValueError(
        f"{place(*late)}: {rows[late[0]][late[1]]} after {before} begins an entity as in IOB1, but "
        f"{rows[early[0]][early[1]]} in {place(*early)} begins one as in BIO2: mend one of them, or give "
        'scheme="IOB1" to take both as beginnings'
    )


def to_bio2(tags: Sequence[str], scheme: str, place: Callable[[int], str] | None = None) -> tuple[str, ...]:
    """Tags of one sentence in BIO2.

    Args:
        tags: in the scheme; for "IO" and "IOB1", an I- begins an entity where none of its type goes on, and a B-
            always.
        scheme: one of SCHEMES; "plain" leaves them as they are.
        place: token to the words that an error begins with; None: "token 0".

    Raises:
        MixError: if the scheme is another, or a tag breaks it; its place is named.

    Example:
        >>> to_bio2(["I-PER", "I-PER", "B-PER", "O"], "IOB1")
        ('B-PER', 'I-PER', 'B-PER', 'O')
        >>> to_bio2(["B-PER", "E-PER", "S-LOC"], "BIOES")
        ('B-PER', 'I-PER', 'B-LOC')
    """
    check_scheme(scheme)
    if scheme == "plain":
        return tuple(tags)
    place = place or _token
    made: list[str] = []
    running = ""  # type of the entity that the token before is in; in BIOES, of one that has not ended
    for i, tag in enumerate(tags):
        prefix, kind = _split(tag, lambda i=i: place(i))  # type: ignore[misc]  # as above
        if scheme == "BIOES":
            if running and (prefix not in ("I", "E") or kind != running):
                raise MixValueError(
                    f"{place(i)}: {tag} after {tags[i - 1]}, expected I-{running} or E-{running}: BIOES"
                )
            if not running and prefix in ("I", "E"):
                raise MixValueError(f"{place(i)}: {tag} {_after(tags, i)}, expected an entity to begin with B- or S-")
            made.append(tag if prefix == OUTSIDE else f"{'B' if prefix in 'BS' else 'I'}-{kind}")
            running = kind if prefix in ("B", "I") else ""
            continue
        if prefix in ("E", "S"):
            raise MixValueError(f"{place(i)}: {tag} is no tag of {scheme}: give scheme='BIOES', or none to find it")
        if scheme == "BIO2" and prefix == "I" and kind != running:
            raise MixValueError(
                f"{place(i)}: {tag} {_after(tags, i)}, expected B-{kind} to begin an entity: BIO2; give "
                "scheme='IOB1' if I- begins entities there"
            )
        begins = prefix == "B" or kind != running
        made.append(tag if prefix == OUTSIDE else f"{'B' if begins else 'I'}-{kind}")
        running = kind
    if running and scheme == "BIOES":
        raise MixValueError(
            f"{place(len(tags) - 1)}: {tags[-1]} at the end, expected E-{running} or S-{running}: BIOES"
        )
    return tuple(made)


def from_bio2(tags: Sequence[str], scheme: str) -> tuple[str, ...]:
    """BIO2 tags of one sentence in another scheme; "IO" loses where an entity follows one of its type at once.

    Raises:
        MixError: if the scheme is none of SCHEMES, or the tags are no BIO2.

    Example:
        >>> from_bio2(["B-PER", "I-PER", "B-PER", "O"], "IOB1")
        ('I-PER', 'I-PER', 'B-PER', 'O')
        >>> from_bio2(["B-PER", "I-PER", "B-LOC"], "BIOES")
        ('B-PER', 'E-PER', 'S-LOC')
    """
    check_scheme(scheme)
    if scheme == "plain":
        return tuple(tags)
    tags = to_bio2(tags, "BIO2")
    made = []
    for i, tag in enumerate(tags):
        if tag == OUTSIDE:
            made.append(tag)
            continue
        prefix, kind = tag[0], tag[2:]
        follows = i > 0 and tags[i - 1][2:] == kind
        goes_on = i + 1 < len(tags) and tags[i + 1] == f"I-{kind}"
        if scheme == "IO" or (scheme == "IOB1" and not follows):
            prefix = "I"
        elif scheme == "BIOES" and not goes_on:
            prefix = "S" if prefix == "B" else "E"
        made.append(f"{prefix}-{kind}")
    return tuple(made)


def check_scheme(scheme: str) -> None:
    """Refuse what is none of SCHEMES."""
    if scheme not in SCHEMES:
        raise MixValueError(f"scheme={scheme!r}, expected one of {', '.join(SCHEMES)}, or None to find it")


def _split(tag: str, place: Callable[[], str]) -> tuple[str, str]:
    """(prefix, type) of a tag that has a prefix, ("O", "") of one outside."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    match = _PREFIXED.fullmatch(tag)
    prefix = _SAME.get(match[1], match[1]) if match else ""
    if match is None or prefix not in ("B", "I", "E", "S"):
        what = f"the prefix {match[1]!r}" if match else "no prefix"
        raise MixValueError(
            f"{place()}: the tag {tag!r} has {what}, expected B-, I-, E-, S- (L-, U-) before its type, or O; give "
            'scheme="plain" for tags that mark no entities'
        )
    return prefix, match[2]


def _first(rows: Sequence[Sequence[str]], wanted: Callable[[str, bool], bool]) -> tuple[int, int] | None:
    """(row, token) of the first tag with a prefix for which wanted(prefix, the token before is of no such entity)."""
    for i, row in enumerate(rows):
        before = ""
        for j, tag in enumerate(row):
            kind = tag[2:]
            if tag != OUTSIDE and wanted(tag[0], kind != before):
                return i, j
            before = kind
    return None


def _after(tags: Sequence[str], i: int) -> str:
    return f"after {tags[i - 1]}" if i else "at the beginning"


def _place(row: int, token: int) -> str:
    return f"row {row}, token {token}"


def _token(token: int) -> str:
    return f"token {token}"
