"""Scorers of sentences: probabilities that sum to 1, and perplexities that do not hang on what else is judged."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixops.pipelines.corpus.scorers import CausalLMScorer, NGramModel
from mixops.pipelines.corpus.tagged import TaggedCorpus
from real_peers import torchvision_schemas

import mixops as mx

SENTENCES = st.lists(st.lists(st.sampled_from("abcde"), max_size=6), min_size=1, max_size=8)


def naive(sentences: list[list[str]], order: int, history: tuple[str, ...], word: str, size: int) -> float:
    """p(word | history) by the definition: Counters of all n-grams, the shorter histories first."""
    chance = 1 / size
    for k in range(order):
        counts: Counter[str] = Counter()
        for words in sentences:
            line = [*["<s>"] * (order - 1), *words, "</s>"]
            for i in range(order - 1, len(line)):
                if tuple(line[i - k : i]) == history[len(history) - k :]:
                    counts[line[i]] += 1
        if counts:
            chance = (counts[word] + len(counts) * chance) / (counts.total() + len(counts))
    return chance


# -- n-grams ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(SENTENCES, st.integers(1, 4), st.lists(st.sampled_from("abcx"), max_size=4), st.booleans())
def test_the_probabilities_after_any_history_are_the_definitions_and_sum_to_one(
    sentences: list[list[str]], order: int, history: list[str], rare: bool
) -> None:
    model = NGramModel.of(sentences, order, min_count=2 if rare else 1)
    counts = Counter(word for words in sentences for word in words)
    kept = [word for word, count in counts.items() if count >= 1 + rare]
    assert sorted(model.words) == sorted(kept)
    read = [[word if word in kept else "?" for word in words] for words in sentences]
    before = (*["<s>"] * (order - 1), *(word if word in kept else "?" for word in history))
    total = 0.0
    for word in (*kept, "?", None):
        chance = model.probability(word, history)
        assert chance == pytest.approx(naive(read, order, before, word or "</s>", len(kept) + 2), rel=1e-9)
        total += chance
    assert total == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(SENTENCES, SENTENCES, st.integers(1, 3))
def test_a_perplexity_is_that_of_the_probabilities_and_of_its_sentence_alone(
    train: list[list[str]], judged: list[list[str]], order: int
) -> None:
    model = NGramModel.of(train, order)
    scores = model(judged)
    for words, score in zip(judged, scores, strict=True):
        logs = [math.log(model.probability(word, words[:i])) for i, word in enumerate([*words, None])]
        assert score == pytest.approx(math.exp(-sum(logs) / len(logs)))
        assert model([words]).tolist() == [score]


def test_what_it_was_trained_on_is_likelier_than_the_same_in_disorder() -> None:
    sentences = [["the", "play", "was", "written", "by", "her"], ["the", "book", "was", "read", "by", "him"]]
    model = NGramModel.of(sentences)
    assert (model(sentences) < model([words[::-1] for words in sentences])).all()


def test_case_counts_only_where_it_is_asked_to() -> None:
    assert NGramModel.of([["So", "good"]])([["so", "GOOD"]]) == NGramModel.of([["So", "good"]])([["So", "good"]])
    cased = NGramModel.of([["So", "good"]], lower=False)
    assert cased([["so", "good"]]) > cased([["So", "good"]])


def test_a_corpus_is_taken_as_it_is_and_no_sentences_have_no_scores() -> None:
    corpus = TaggedCorpus([(["so", "good"], ["O", "O"])])
    model = NGramModel.of(corpus, 2)
    assert model(corpus).tolist() == model([["so", "good"]]).tolist()
    assert model([]).shape == (0,)
    assert repr(model) == "<NGramModel: order 2, 2 words, 3 longer n-grams>"


@pytest.mark.parametrize(
    ("sentences", "change", "message"),
    [
        ([], {}, "no sentence"),
        (["so good"], {}, "sentence 0 is str"),
        ([["so"], 3], {}, "sentence 1 is int"),
        ([["so", 3]], {}, "has 3 in it"),
        ([["so"]], {"order": 0}, "order=0"),
        ([["so"]], {"min_count": True}, "min_count=True"),
    ],
)
def test_what_no_model_can_be_made_of_is_refused(sentences: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        NGramModel.of(sentences, **change)


# -- causal language models -------------------------------------------------------------------------------------------

WORDS = ["<end>", "so", "good", "dull", "play", "the", "was"]


@pytest.fixture(scope="module")
def gpt2() -> Any:
    torchvision_schemas()
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    size = {"n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.5}
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), n_positions=12, bos_token_id=0, eos_token_id=0, **size))


def tokenizer(**special: str) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="so"))
    made.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


JUDGED = [
    ["the", "play", "was", "good"],
    ["dull"],
    ["so", "so", "so", "dull", "the", "play"],
    ["good", "the"],
    ["was", "the", "play", "so", "dull"],
]


def by_hand(model: Any, ids: list[int]) -> float:
    import torch

    with torch.no_grad():
        logs = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return math.exp(-float(np.mean([logs[i, ids[i + 1]] for i in range(len(ids) - 1)])))


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_perplexity_is_the_same_in_any_batch(gpt2: Any, batch_size: int) -> None:
    scorer = CausalLMScorer(gpt2.eval(), tokenizer(eos_token="<end>"), batch_size)
    wanted = [by_hand(gpt2, [0, *(WORDS.index(word) for word in words)]) for words in JUDGED]
    np.testing.assert_allclose(scorer(JUDGED), wanted, rtol=1e-5)


def test_without_a_token_to_begin_with_the_first_word_is_not_judged(gpt2: Any) -> None:
    scores = CausalLMScorer(gpt2.eval(), tokenizer())([*JUDGED, []])
    wanted = [by_hand(gpt2, [WORDS.index(word) for word in words]) for words in JUDGED if len(words) > 1]
    np.testing.assert_allclose(scores[[0, 2, 3, 4]], wanted, rtol=1e-5)
    assert np.isnan(scores[[1, 5]]).all()


def test_long_sentences_are_judged_by_what_the_model_can_hold(gpt2: Any) -> None:
    scorer = CausalLMScorer(gpt2.eval(), tokenizer(eos_token="<end>"))
    long = ["the", "play", "was", "so", "dull"] * 5
    assert scorer([long]) == pytest.approx(scorer([long[:11]]))


def test_a_model_in_training_is_judged_without_dropout_and_left_in_training(gpt2: Any) -> None:
    scorer = CausalLMScorer(gpt2, tokenizer(eos_token="<end>"), device="cpu")
    wanted = scorer(JUDGED)
    gpt2.train()
    assert scorer(JUDGED).tolist() == wanted.tolist()
    assert gpt2.training


def test_words_are_joined_as_told(gpt2: Any) -> None:
    scorer = CausalLMScorer(gpt2.eval(), tokenizer(eos_token="<end>"), join=lambda words: " ".join(words[::-1]))
    plain = CausalLMScorer(gpt2, tokenizer(eos_token="<end>"))
    assert scorer(JUDGED).tolist() == plain([words[::-1] for words in JUDGED]).tolist()


def test_what_is_no_language_model_is_refused(gpt2: Any) -> None:
    with pytest.raises(mx.MixError, match="batch_size=0"):
        CausalLMScorer(gpt2, tokenizer(), 0)
    with pytest.raises(mx.MixError, match="model is str"):
        CausalLMScorer("gpt2", tokenizer())
    with pytest.raises(mx.MixError, match="tokenizer is NoneType"):
        CausalLMScorer(gpt2, None)
    with pytest.raises(mx.MixError, match="GPT2Model returns no logits"):
        CausalLMScorer(gpt2.transformer, tokenizer(eos_token="<end>"))([["so"]])
    with pytest.raises(mx.MixError, match="got a text"):
        CausalLMScorer(gpt2, tokenizer())("so good")


def test_a_model_that_sees_what_it_is_to_predict_is_refused(gpt2: Any) -> None:
    from transformers import BertConfig, BertLMHeadModel

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    bert = BertLMHeadModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=12, initializer_range=0.5, **size))
    scorer = CausalLMScorer(bert.eval(), tokenizer(eos_token="<end>"))
    with pytest.raises(mx.MixError, match="BertLMHeadModel sees the tokens that it is to predict"):
        scorer(JUDGED)
    bert.config.is_decoder = True
    causal = BertLMHeadModel(bert.config)
    assert np.isfinite(CausalLMScorer(causal, tokenizer(eos_token="<end>"))(JUDGED)).all()
