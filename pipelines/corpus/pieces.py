"""Tagged sentences as rows of ids with a label for each piece of a word."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError

from ..state import count
from ..text.vocabulary import Vocabulary
from .tagged import TaggedCorpus

#: The label of positions that no loss is taken at: special tokens, padding, pieces that continue a word.
IGNORED = -100

#: Fields of a sample that have a value for each piece, and what fills them up behind it.
_FILLS = {"input_ids": None, "attention_mask": 0, "labels": IGNORED, "special_tokens_mask": 1, "soft_labels": 0}

# Ids of the pieces of a sentence, and of each the word that it belongs to, -1 for special tokens.
_Encode = Callable[[Sequence[str]], tuple[list[int], list[int]]]


class TaggedDataset:
    """A map-style data set of ids and labels, aligned: the label of a word stands at its first piece.

    Each sample is {"input_ids", "attention_mask", "labels", "special_tokens_mask"}, all (T,) int64; labels are numbers
    of tags, -100 at special tokens and at pieces that continue a word. With soft, "soft_labels" beside them is (T, C)
    float32, the share of each tag, and zeros where the label is -100. Sentences are encoded once.

    Args:
        sentences: a TaggedCorpus, or TaggedSentences and MixedSentences, in any mixture.
        tokenizer: a fast one of Hugging Face, or a Vocabulary, which gives each word one id: as it is, in lower case,
            or that of unknown words.
        tag_names: C names, in the order of the numbers; None: those of the corpus.
        max_length: pieces that are kept of a sentence, special ones counted; None: all.
        continuation: "ignore", or "inside": pieces that continue a word are labelled too, with I- where it has B-.
        soft: give soft labels: those of a mixed sentence, and for others 1 for the tag.

    Attributes:
        lengths: (n,) int64, pieces of each sentence, for BucketBatchSampler.

    Raises:
        MixError: if the tokenizer is another, there are no names of tags, a sentence's tag is not among them, or an
            argument is out of range.

    Example:
        >>> from mixops.pipelines.corpus import TaggedCorpus, TaggedDataset
        >>> from mixops.pipelines.text import Vocabulary
        >>> corpus = TaggedCorpus([(["Ada", "left", "Rome"], ["B-PER", "O", "B-LOC"])])
        >>> TaggedDataset(corpus, Vocabulary(["ada", "left"]))[0]["labels"].tolist()
        [2, 0, 1]
    """

    def __init__(
        self,
        sentences: TaggedCorpus | Sequence[Any],
        tokenizer: Any,
        tag_names: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        continuation: str = "ignore",
        soft: bool = False,
    ) -> None:
        if continuation not in ("ignore", "inside"):
            raise MixValueError(f'TaggedDataset: continuation={continuation!r}, expected "ignore" or "inside"')
        if max_length is not None and count("TaggedDataset", "max_length", max_length) < 1:
            raise MixValueError(f"TaggedDataset: max_length={max_length!r}, expected 1 or more, or None")
        if tag_names is None:
            if not isinstance(sentences, TaggedCorpus):
                raise MixTypeError("TaggedDataset: a list of sentences has no names of tags: give tag_names=[...]")
            tag_names = sentences.tag_names
        if not isinstance(sentences, Iterable):
            raise MixTypeError(f"TaggedDataset: {type(sentences).__name__}, expected a TaggedCorpus or a list")
        self.tag_names = tuple(tag_names)
        self.pad = int(getattr(tokenizer, "pad_token_id", 0) or 0)
        self._soft, self._inside = bool(soft), continuation == "inside"
        self._goes_on = _continued(self.tag_names)
        encode = _encoder(tokenizer, max_length)
        self._samples = [self._encoded(f"row {row}", one, encode) for row, one in enumerate(sentences)]
        self.lengths = np.array([len(sample["input_ids"]) for sample in self._samples], np.int64)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return dict(self._samples[index])

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """``pad_tagged`` with the padding of the tokenizer."""
        return pad_tagged(samples, pad=self.pad)

    def _encoded(self, place: str, sentence: Any, encode: _Encode) -> dict[str, np.ndarray]:
        if not hasattr(sentence, "tokens") or not hasattr(sentence, "tags"):
            raise MixTypeError(f"TaggedDataset: {place} is {type(sentence).__name__}, expected a TaggedSentence")
        hard, rows = self._targets(place, sentence)
        ids, words = encode(sentence.tokens)
        word = np.array(words, np.int64)
        special = word < 0
        # The pieces of a word stand side by side: one that follows another of its word continues it.
        later = np.zeros(len(word), bool)
        later[1:] = (word[1:] == word[:-1]) & ~special[1:]
        told = ~special if self._inside else ~special & ~later
        labels = np.full(len(word), IGNORED, np.int64)
        labels[told] = hard[word[told]]
        labels[told & later] = self._goes_on[labels[told & later]]
        sample: dict[str, np.ndarray] = {
            "input_ids": np.array(ids, np.int64),
            "attention_mask": np.ones(len(word), np.int64),
            "labels": labels,
            "special_tokens_mask": special.astype(np.int64),
        }
        if self._soft:
            shares = np.zeros((len(word), len(self.tag_names)), np.float32)
            shares[told] = rows[word[told]]
            shares[told & later] = shares[told & later] @ np.eye(len(self.tag_names), dtype=np.float32)[self._goes_on]
            sample["soft_labels"] = shares
        return sample

    def _targets(self, place: str, sentence: Any) -> tuple[np.ndarray, np.ndarray]:
        """(T,) numbers of tags and (T, C) shares."""
        numbers = {name: i for i, name in enumerate(self.tag_names)}
        for tag in sentence.tags:
            if tag not in numbers:
                raise MixValueError(f"TaggedDataset: {place} has the tag {tag!r}, none of {list(self.tag_names)[:12]}")
        hard = np.array([numbers[tag] for tag in sentence.tags], np.int64)
        rows = getattr(sentence, "soft", None)
        if rows is None:
            rows = np.eye(len(self.tag_names), dtype=np.float32)[hard]
        elif rows.shape[1] != len(self.tag_names):
            raise MixValueError(
                f"TaggedDataset: {place} has soft rows of {rows.shape[1]} tags, expected {len(self.tag_names)}: give "
                "the names of the corpus that it was made of"
            )
        return hard, rows


def pad_tagged(samples: Sequence[Mapping[str, Any]], *, pad: int = 0) -> dict[str, Any]:
    """A batch of samples of a TaggedDataset, padded behind to the longest: a ``collate_fn``.

    Args:
        samples: at least one, all with the same fields.
        pad: id that fills the rest; labels are filled with -100, soft labels and the mask with 0.

    Returns:
        {"input_ids", "attention_mask", "labels", "special_tokens_mask"}, (B, T) int64, and "soft_labels", (B, T, C)
        float32, if there are any: torch tensors if torch is loaded, else NumPy arrays.

    Raises:
        MixError: if there is no sample, or one lacks a field of another.

    Example:
        >>> rows = [{"input_ids": np.array(ids), "labels": np.array(ids)} for ids in ([5, 6], [7])]
        >>> pad_tagged(rows)["labels"].tolist()
        [[5, 6], [7, -100]]
    """
    if not samples:
        raise MixValueError("pad_tagged: got no sample, expected at least one")
    names = [name for name in _FILLS if name in samples[0]]
    fills = {**_FILLS, "input_ids": count("pad_tagged", "pad", pad)}
    longest = max((len(sample.get("input_ids", ())) for sample in samples), default=0)
    batch = {}
    for name in names:
        batch[name] = np.full((len(samples), longest, *np.shape(samples[0][name])[1:]), fills[name], _type(name))
        for i, sample in enumerate(samples):
            if name not in sample or np.shape(sample[name])[:1] != np.shape(sample["input_ids"])[:1]:
                raise MixValueError(
                    f"pad_tagged: sample {i} has not one of {name!r} for each id: samples must be alike"
                )
            batch[name][i, : len(sample[name])] = sample[name]
    torch = sys.modules.get("torch")
    return batch if torch is None else {name: torch.from_numpy(array) for name, array in batch.items()}


def _type(name: str) -> type:
    return np.float32 if name == "soft_labels" else np.int64


def _continued(names: Sequence[str]) -> np.ndarray:
    """(C,) the number of the tag that a word's later pieces have: I- of B-, where there is one."""
    numbers = {name: i for i, name in enumerate(names)}
    inside = [numbers.get(f"I-{name[2:]}", i) if name.startswith("B-") else i for i, name in enumerate(names)]
    return np.array(inside, np.int64)


def _encoder(tokenizer: Any, longest: int | None) -> _Encode:
    if isinstance(tokenizer, Vocabulary):
        numbers = {word: i for i, word in enumerate(tokenizer.words)}

        def look_up(tokens: Sequence[str]) -> tuple[list[int], list[int]]:
            ids = [numbers.get(token) or numbers.get(token.lower()) or 1 for token in tokens[:longest]]
            return ids, list(range(len(ids)))

        return look_up
    if not getattr(tokenizer, "is_fast", False):
        raise MixTypeError(
            f"TaggedDataset: {type(tokenizer).__name__}, expected a fast tokenizer of Hugging Face, which says what "
            "word each piece is of, or a Vocabulary"
        )

    def cut(tokens: Sequence[str]) -> tuple[list[int], list[int]]:
        made = tokenizer(list(tokens), is_split_into_words=True, truncation=longest is not None, max_length=longest)
        return made["input_ids"], [-1 if word is None else word for word in made.word_ids()]

    return cut
