"""The tokens of a vocabulary as words: which of them stand for a word on their own, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from mixops import MixValueError

# What marks a piece that continues a word ("##"), or one that begins it (the others).
CONTINUES, BEGINS = ("##",), ("Ġ", "▁")
_BYTES = "Ġ"  # vocabularies of this mark spell bytes, each by a printable letter
# A vocabulary is one of pieces where this share of it bears the mark: that of BERT has 19 %, those of GPT-2 and T5 more
# than half; word vectors of tweets know "##", too.
_SHARE = 0.05
# [CLS], [MASK], [unused12] · <s>, </s>, <pad>, <unk>, <extra_id_7>, <0x0A>, <|endoftext|>
_SPECIAL = re.compile(r"\[(?:[A-Z]{2,}\d*|unused\d+)\]|</?[^<>\s]+>|<\|[^<>\s]*\|>")


@dataclass(frozen=True)
class Surfaces:
    """The tokens of a vocabulary, as they are written in a sentence.

    Args:
        texts: of each token, "" where it is no word: special, unused, in the middle of a word, or no text at all.
        pieces: token to number, of all that words can be cut into; the mark of the vocabulary's kind is kept.
        mark: "##", "▁" or "Ġ" where words are cut into pieces, "" where they are whole.
        cased: some word has an upper-case letter.
    """

    texts: tuple[str, ...]
    pieces: dict[str, int]
    mark: str
    cased: bool

    @classmethod
    def of(cls, tokens: Sequence[str], mark: str | None = None) -> Surfaces:
        """Read a vocabulary.

        Args:
            tokens: in the order of their numbers.
            mark: "##", "▁", "Ġ", or "" for whole words; None sees which.

        Returns:
            The surfaces.

        Raises:
            MixError: if mark is another one.

        Example:
            >>> Surfaces.of(["[PAD]", "un", "##able", "able"]).texts
            ('', 'un', '', 'able')
        """
        if mark is None:
            mark = _mark_of(tokens)
        elif mark not in ("", *CONTINUES, *BEGINS):
            raise MixValueError(f'mark={mark!r}, expected "##", "▁", "Ġ", "" for whole words, or None to see which')
        texts = tuple(_text(token, mark) for token in tokens)
        pieces = {token: i for i, token in enumerate(tokens) if not _SPECIAL.fullmatch(token)}
        return cls(texts, pieces, mark, any(text != text.lower() for text in texts))

    def cut(self, word: str) -> tuple[int, ...]:
        """Numbers of the pieces of a word, the longest that fits first; () where it cannot be cut, or is not to be.

        WordPiece cuts words of letters, digits and single other signs in this way. Other tokenizers merge by rank or by
        likelihood, and mostly come to the same pieces.

        Example:
            >>> Surfaces.of(["un", "##able", "##ab", "##le", "@"]).cut("@unable")
            (4, 0, 1)
        """
        if not self.mark:
            return ()
        if self.mark in CONTINUES:  # signs stand on their own there, each like a word
            parts = re.findall(r"[^\W_]+|[\W_]", word)
            found = [self._greedy(part, "", self.mark) for part in parts]
        else:
            spelled = _spelled(word) if self.mark == _BYTES else word
            found = [self._greedy(spelled, self.mark, "")]
        return () if not all(found) else tuple(i for part in found for i in part)

    def _greedy(self, text: str, first: str, later: str) -> list[int]:
        ids: list[int] = []
        start = 0
        while start < len(text):
            before = later if start else first
            stop = len(text)
            while stop > start and before + text[start:stop] not in self.pieces:
                stop -= 1
            if stop == start:
                return []
            ids.append(self.pieces[before + text[start:stop]])
            start = stop
        return ids


def _mark_of(tokens: Sequence[str]) -> str:
    for mark in (*CONTINUES, *BEGINS):
        if sum(token.startswith(mark) and token != mark for token in tokens) > _SHARE * len(tokens):
            return mark
    return ""


def _text(token: str, mark: str) -> str:
    """How a token that begins a word is written; "" for all others."""
    if _SPECIAL.fullmatch(token) or (mark in CONTINUES and token.startswith(mark) and token != mark):
        return ""
    if mark in BEGINS:
        if not token.startswith(mark):
            return ""
        token = token[len(mark) :]
        if mark == _BYTES:
            token = _read(token)
    return token if token.isprintable() and not any(letter.isspace() for letter in token) else ""


@cache
def _letters() -> dict[int, str]:
    """Of every byte the letter that it is spelled by in byte-level vocabularies: itself where it is printable."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _spelled(word: str) -> str:
    letters = _letters()
    return "".join(letters[byte] for byte in word.encode("utf-8"))


def _read(token: str) -> str:
    bytes_of = {letter: byte for byte, letter in _letters().items()}
    try:
        return bytes(bytes_of[letter] for letter in token).decode("utf-8")
    except (KeyError, UnicodeDecodeError):  # a letter of no byte, or bytes that are part of a letter only
        return ""
