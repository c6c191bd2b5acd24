"""Tagged sentences as word pieces: every label stands at the piece it belongs to."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines import KeyedBatchSampler, PlanCollator, keyed
from mixops.pipelines.corpus import (
    MixedSentence,
    TaggedCorpus,
    TaggedDataset,
    TaggedSentence,
    pad_tagged,
    people_and_places,
)
from mixops.pipelines.text import Vocabulary
from real_peers import torchvision_schemas

import mixops as mx

torchvision_schemas()  # transformers imports torchvision where it is installed

import torch  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

NAMES = ("O", "B-PER", "I-PER", "B-LOC")


@cache
def tokenizer() -> Any:
    """Cuts every word into its letters, "##" before all but the first; [CLS] and [SEP] around the sentence."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = {token: i for i, token in enumerate([*special, *letters, *(f"##{c}" for c in letters)])}
    made = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=4)
sentences = st.lists(st.tuples(words, st.sampled_from(NAMES)), min_size=1, max_size=5).map(
    lambda rows: TaggedSentence(tuple(w for w, _ in rows), tuple(t for _, t in rows))
)


@given(sentence=sentences, inside=st.booleans(), soft=st.booleans())
def test_the_label_of_a_word_stands_at_its_first_piece(sentence: TaggedSentence, inside: bool, soft: bool) -> None:
    data = TaggedDataset([sentence], tokenizer(), NAMES, continuation="inside" if inside else "ignore", soft=soft)
    sample = data[0]
    labels = [-100]
    for word, tag in zip(sentence.tokens, sentence.tags, strict=True):
        later = NAMES.index(f"I-{tag[2:]}") if f"I-{tag[2:]}" in NAMES else NAMES.index(tag)
        labels += [NAMES.index(tag)] + [later if inside else -100] * (len(word) - 1)
    assert sample["labels"].tolist() == [*labels, -100]
    pieces = tokenizer().convert_ids_to_tokens(sample["input_ids"].tolist())
    assert "".join(p.removeprefix("##") for p in pieces[1:-1]) == "".join(sentence.tokens)
    assert sample["special_tokens_mask"].tolist() == [1, *[0] * (len(pieces) - 2), 1]
    assert data.lengths.tolist() == [len(pieces)]
    assert ("soft_labels" in sample) == soft
    if soft:
        told = sample["labels"] >= 0
        assert (sample["soft_labels"][told].argmax(1) == sample["labels"][told]).all()
        assert sample["soft_labels"].sum(1).tolist() == told.tolist()


def test_soft_rows_stand_at_their_words() -> None:
    rows = np.array([[1, 0, 0, 0], [0, 0.75, 0, 0.25], [0.5, 0, 0.5, 0]], np.float32)
    one = MixedSentence(("so", "ab", "c"), ("O", "B-PER", "O"), rows, window=(1, 3), parents=(0, 1), lam=0.75)
    sample = TaggedDataset([one], tokenizer(), NAMES, soft=True)[0]
    zero = [0.0] * 4
    expected = [zero, rows[0].tolist(), zero, rows[1].tolist(), zero, rows[2].tolist(), zero]
    assert sample["soft_labels"].tolist() == expected
    sample = TaggedDataset([one], tokenizer(), NAMES, soft=True, continuation="inside")[0]
    assert sample["soft_labels"][4].tolist() == [0, 0, 0.75, 0.25]  # what was B-PER goes on as I-PER


def test_two_equal_words_side_by_side_are_two_words() -> None:
    one = TaggedSentence(("a", "a"), ("B-PER", "B-PER"))
    assert TaggedDataset([one], tokenizer(), NAMES)[0]["labels"].tolist() == [-100, 1, 1, -100]


@pytest.mark.parametrize("longest", [1, 2, 3, 5])
def test_long_sentences_are_cut_with_their_labels(longest: int) -> None:
    one = TaggedSentence(("ab", "c", "d"), ("O", "B-PER", "B-LOC"))
    whole = TaggedDataset([one], tokenizer(), NAMES)[0]
    if longest > 2:  # room for the two special tokens and more
        cut = TaggedDataset([one], tokenizer(), NAMES, max_length=longest)[0]
        assert cut["labels"][:-1].tolist() == whole["labels"][: longest - 1].tolist()
        assert len(cut["labels"]) == longest
    rows = TaggedDataset([one], Vocabulary(["ab", "c"]), NAMES, max_length=longest)[0]
    assert rows["labels"].tolist() == [0, 1, 3][:longest]


def test_a_vocabulary_gives_each_word_one_id() -> None:
    one = TaggedSentence(("Ab", "it's", "zz"), ("B-PER", "O", "O"))
    data = TaggedDataset([one], Vocabulary(["ab", "it's"]), NAMES)
    assert data[0]["input_ids"].tolist() == [2, 3, 1]
    assert not data[0]["special_tokens_mask"].any()


def test_batches_are_padded_behind() -> None:
    corpus = people_and_places()
    data = TaggedDataset(corpus, Vocabulary.of(" ".join(s.tokens) for s in corpus), soft=True)
    batch = data.collate([data[0], data[7], data[1]])
    longest = int(data.lengths[[0, 7, 1]].max())
    assert all(isinstance(one, torch.Tensor) for one in batch.values())
    for row, index in enumerate((0, 7, 1)):
        size = int(data.lengths[index])
        for name, fill in (("input_ids", 0), ("attention_mask", 0), ("labels", -100), ("special_tokens_mask", 1)):
            assert batch[name][row, :size].tolist() == data[index][name].tolist()
            assert batch[name][row, size:].tolist() == [fill] * (longest - size)
    assert batch["soft_labels"].shape == (3, longest, len(corpus.tag_names))


def test_a_batch_can_be_mixed_by_seqmix() -> None:
    corpus = people_and_places()
    data = TaggedDataset(corpus, Vocabulary.of(" ".join(s.tokens) for s in corpus), soft=True)

    def with_tags(samples: list[Any]) -> dict[str, Any]:
        batch = data.collate(samples)
        return {**batch, "tags": batch["labels"]}

    collate = PlanCollator(mx.SeqMix(window=3, min_tags=1), seed=7, collate=with_tags)
    rows = keyed(data)
    batch = collate(rows.__getitems__(next(iter(KeyedBatchSampler(rows, 40)))))
    plan = batch["plan"]
    assert (plan.weight.sum(1) > 0).mean() > 0.5
    soft = mx.mix(batch["soft_labels"].numpy(), plan, "b t c")
    told = batch["labels"].numpy() >= 0
    assert np.allclose(soft.sum(2), told, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TaggedDataset([TaggedSentence(("a",), ("O",))], tokenizer()), "give tag_names"),
        (lambda: TaggedDataset([TaggedSentence(("a",), ("B-X",))], tokenizer(), NAMES), "row 0 has the tag 'B-X'"),
        (lambda: TaggedDataset([(["a"], ["O"])], tokenizer(), NAMES), "row 0 is tuple"),
        (lambda: TaggedDataset(7, tokenizer(), NAMES), "expected a TaggedCorpus or a list"),
        (lambda: TaggedDataset(TaggedCorpus([(["a"], ["O"])]), str.split), "expected a fast tokenizer"),
        (lambda: TaggedDataset([], tokenizer(), NAMES, continuation="all"), "expected .ignore. or .inside."),
        (lambda: TaggedDataset([], tokenizer(), NAMES, max_length=0), "expected 1 or more"),
        (lambda: pad_tagged([]), "got no sample"),
        (lambda: pad_tagged([{"input_ids": np.ones(2), "labels": np.ones(2)}, {"input_ids": np.ones(1)}]), "sample 1"),
    ],
)
def test_what_does_not_fit_is_an_error(make: Any, said: str) -> None:
    with pytest.raises(mx.MixError, match=said):
        make()


def test_soft_rows_of_another_corpus_are_an_error() -> None:
    one = MixedSentence(("a",), ("O",), np.ones((1, 1)), window=(0, 1), parents=(0, 1), lam=1.0)
    with pytest.raises(mx.MixError, match="row 0 has soft rows of 1 tags, expected 4"):
        TaggedDataset([one], tokenizer(), NAMES, soft=True)
