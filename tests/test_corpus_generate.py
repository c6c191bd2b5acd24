"""New sentences of a corpus: what a naive reading of the paper makes, and the same whatever interrupts them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixops.pipelines.corpus.blocks import Counts
from mixops.pipelines.corpus.generate import Augmented, Generation, augment_corpus, generate_blocks
from mixops.pipelines.corpus.lookup import WordSpace
from mixops.pipelines.corpus.mixed import MixedSentence
from mixops.pipelines.corpus.pairing import PairIndex
from mixops.pipelines.corpus.surfaces import Surfaces
from mixops.pipelines.corpus.tagged import TaggedCorpus
from mixops.pipelines.text import WordVectors

import mixops as mx

BENCH = Path(__file__).parent.parent / "benches" / "corpus.py"
WORDS = [f"w{i}" for i in range(60)]
VECTORS = WordVectors(WORDS, np.random.default_rng(5).normal(size=(60, 6)))
TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
SUB = mx.SeqMix("sub", window=4, min_tags=2)


def corpus(rows: int = 30, seed: int = 0, words: Sequence[str] = WORDS) -> TaggedCorpus:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(rows):
        tags: list[str] = []
        while len(tags) < rng.integers(4, 12):
            kind = rng.choice(["O", "O", "LOC", "PER"])
            tags += ["O"] if kind == "O" else [f"B-{kind}", f"I-{kind}"]
        made.append((rng.choice(words, len(tags)).tolist(), tags))
    return TaggedCorpus(made, TAGS)


def content(sentence: MixedSentence) -> tuple[object, ...]:
    soft = None if sentence.soft is None else sentence.soft.tobytes()
    return (
        sentence.tokens, sentence.tags, soft, sentence.window, sentence.parents, sentence.lam, sentence.score,
        sentence.number,
    )  # fmt: skip


def length_score(sentences: list[list[str]]) -> np.ndarray:
    """Cheap and different for most: how much a sentence weighs."""
    return np.array([sum(int(word[1:]) for word in words) / len(words) for words in sentences])


# -- what is made -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["sub", "whole", "label-constrained"])
def test_every_new_sentence_is_the_nearest_words_of_a_window_of_its_parents(variant: str) -> None:
    given_corpus = corpus()
    new = augment_corpus(given_corpus, mx.SeqMix(variant, 4, 2), embedding=VECTORS, ratio=2.0, seed=1)
    assert len(new) == 60
    assert new.reason is None
    vector = dict(zip(WORDS, VECTORS.array.astype(np.float64), strict=True))
    starts = set()
    for sentence in new:
        own, other = (given_corpus[i] for i in sentence.parents)
        (start, stop), lam = sentence.window, sentence.lam
        assert sentence.parents[0] != sentence.parents[1]
        assert sentence.tokens[:start] + sentence.tokens[stop:] == own.tokens[:start] + own.tokens[stop:]
        assert stop - start == (len(own) if variant == "whole" else 4)
        found = []
        for c in range(len(other) - (stop - start) + 1):  # where in the other parent is not told: some place fits
            nearest = []
            for mine, theirs in zip(own.tokens[start:stop], other.tokens[c : c + stop - start], strict=True):
                point = lam * vector[mine] + (1 - lam) * vector[theirs]
                left = [word for word in WORDS if word not in (mine, theirs)]
                nearest.append(min(left, key=lambda word: float(((vector[word] - point) ** 2).sum())))
            if tuple(nearest) == sentence.tokens[start:stop]:
                found.append(c)
        assert found, sentence
        starts.add(start)
        rows = []
        for c in found:
            soft = np.eye(5)[given_corpus.tag_ids(sentence.parents[0])]
            theirs = np.eye(5)[given_corpus.tag_ids(sentence.parents[1])[c : c + stop - start]]
            soft[start:stop] = lam * soft[start:stop] + (1 - lam) * theirs
            rows.append(soft)
        assert any(np.allclose(sentence.soft, soft, atol=1e-6) for soft in rows)
        if variant == "label-constrained":
            assert sentence.tags == own.tags
    assert variant == "whole" or len(starts) > 3


def test_the_mixed_window_goes_into_both_parents() -> None:
    new = augment_corpus(corpus(), SUB, embedding=VECTORS, ratio=2.0).sentences
    by_pair: dict[int, list[MixedSentence]] = {}
    for sentence in new:
        by_pair.setdefault(sentence.number // 2, []).append(sentence)
    both = [pair for pair in by_pair.values() if len(pair) == 2]
    assert len(both) > 20
    for first, second in both:
        assert first.parents == second.parents[::-1]
        assert first.lam + second.lam == pytest.approx(1)
        assert first.tokens[slice(*first.window)] == second.tokens[slice(*second.window)]
        np.testing.assert_allclose(first.soft[slice(*first.window)], second.soft[slice(*second.window)], atol=1e-6)


def test_hard_tags_are_valid_bio_and_the_heavier_ones() -> None:
    wide = augment_corpus(corpus(), mx.SeqMix("sub", 3, 1), embedding=VECTORS, ratio=5.0)
    repaired = 0
    for sentence in wide:
        before = "O"
        for tag in sentence.tags:
            assert not tag.startswith("I-") or before[2:] == tag[2:]
            before = tag
        heavier = [TAGS[i] for i in sentence.soft.argmax(1)]
        for tag, told in zip(sentence.tags, heavier, strict=True):
            assert tag == told or (tag[:2], told[:2], tag[2:]) == ("B-", "I-", told[2:])
            repaired += tag != told
    assert repaired > 0


def test_without_soft_there_are_no_rows_and_the_rest_is_the_same() -> None:
    soft = augment_corpus(corpus(), SUB, embedding=VECTORS).sentences
    hard = augment_corpus(corpus(), SUB, embedding=VECTORS, soft=False).sentences
    assert [s.soft for s in hard] == [None] * len(soft)
    assert [content(s)[:2] for s in hard] == [content(s)[:2] for s in soft]


def test_positions_without_a_vector_keep_their_word_and_tag() -> None:
    strange = corpus(words=[*WORDS, *(f"W{i}?" for i in range(60))])
    new = augment_corpus(strange, SUB, embedding=VECTORS, ratio=2.0)
    kept = 0
    for sentence in new:
        ids = strange.tag_ids(sentence.parents[0])
        for i in range(*sentence.window):
            if sentence.tokens[i].endswith("?"):
                assert sentence.tokens[i] == strange[sentence.parents[0]].tokens[i]
                assert sentence.soft[i].tolist() == np.eye(5)[ids[i]].tolist()
                kept += 1
    assert kept > 20
    assert new.coverage.tokens > new.coverage.known_tokens > 0


def test_nothing_is_made_twice_and_no_given_sentence_again() -> None:
    few = corpus(6)
    new = augment_corpus(few, mx.SeqMix("sub", 2, 1), embedding=VECTORS, ratio=50.0, block=16)
    tokens = [s.tokens for s in new]
    assert len(set(tokens)) == len(tokens) == 300
    assert not set(tokens) & {s.tokens for s in few}
    assert new.counts.repeated > 0
    assert sum([new.counts.accepted, new.counts.repeated, new.counts.no_token]) == new.counts.candidates


# -- how many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "wanted"), [(0, 0), (0.2, 6), (0.21, 7), (0.1, 3), (1, 30)])
def test_as_many_are_made_as_are_wanted(ratio: float, wanted: int) -> None:
    new = augment_corpus(corpus(), SUB, embedding=VECTORS, ratio=ratio)
    assert len(new) == new.wanted == new.counts.accepted == wanted


@pytest.mark.parametrize("op", [mx.SeqMix("sub", 4, 2, alpha=0), mx.SeqMix("sub", 4, 2, p=0.0)])
def test_what_never_mixes_ends(op: mx.SeqMix) -> None:
    new = augment_corpus(corpus(), op, embedding=VECTORS)
    assert (len(new), new.counts) == (0, Counts())
    assert "left every pair as it was" in new.reason


def test_a_corpus_without_windows_that_fit_gives_nothing_and_says_why() -> None:
    plain = TaggedCorpus([(s.tokens, ["O"] * len(s)) for s in corpus()])
    new = augment_corpus(plain, SUB, embedding=VECTORS)
    assert (len(new), new.counts) == (0, Counts())
    assert "no two of the 30 sentences have windows that fit" in new.reason
    assert "(0 have" in new.reason


def test_most_candidates_ends_a_range_that_nothing_reaches() -> None:
    new = augment_corpus(
        corpus(), SUB, embedding=VECTORS, score=length_score, accept=(1000, 2000), most_candidates=100, block=10
    )
    assert len(new) == 0
    assert new.counts.candidates == new.counts.rejected + new.counts.repeated == 100
    assert "0 of 6 sentences were accepted when 100 candidates" in new.reason
    assert "a wider range of scores" in new.reason
    new = augment_corpus(corpus(), SUB, embedding=VECTORS, ratio=50, most_candidates=8, block=4)
    assert "scores" not in new.reason


# -- the same, however it is run --------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(1, 6), st.integers(0, 4), st.sampled_from(["sub", "whole", "label-constrained"])
)
def test_blocks_begun_anew_are_those_of_an_unbroken_run(seed: int, block: int, stop: int, variant: str) -> None:
    settings = {"embedding": VECTORS, "seed": seed, "block": block, "ratio": 1.0, "score": length_score,
                "accept": (20, 35)}  # fmt: skip
    op = mx.SeqMix(variant, 4, 2)
    whole = list(generate_blocks(corpus(12), op, **settings))
    stop = min(stop, len(whole))
    before = [s for made in whole[:stop] for s in made.sentences]
    rest = list(generate_blocks(corpus(12), op, start=stop, before=before, **settings))
    assert [made.number for made in rest] == [made.number for made in whole[stop:]]
    assert [made.counts for made in rest] == [made.counts for made in whole[stop:]]
    contents = [[content(s) for s in made.sentences] for made in whole[stop:]]
    assert [[content(s) for s in made.sentences] for made in rest] == contents
    numbers = [s.number for made in whole for s in made.sentences]
    assert numbers == sorted(set(numbers))


def test_the_same_seed_gives_the_same_sentences_and_another_others() -> None:
    def made(seed: int) -> list[tuple[object, ...]]:
        return [content(s) for s in augment_corpus(corpus(), SUB, embedding=VECTORS, seed=seed)]

    assert made(3) == made(3)
    assert made(3) != made(4)


def test_more_sentences_begin_with_those_of_fewer() -> None:
    few = augment_corpus(corpus(), SUB, embedding=VECTORS, ratio=0.3).sentences
    many = augment_corpus(corpus(), SUB, embedding=VECTORS, ratio=3.0).sentences
    assert [content(s) for s in many[: len(few)]] == [content(s) for s in few]


def test_progress_is_told_after_every_block() -> None:
    told: list[tuple[int, int]] = []
    augment_corpus(corpus(), SUB, embedding=VECTORS, ratio=1, block=4, progress=lambda *n: told.append(n))
    assert told[-1] == (30, 30)
    assert told == sorted(told)
    assert len(told) > 3


# -- scores -----------------------------------------------------------------------------------------------------------


def test_those_in_the_range_are_accepted_and_keep_their_score() -> None:
    new = augment_corpus(corpus(), SUB, embedding=VECTORS, score=length_score, accept=(25, 30), ratio=2)
    scores = [s.score for s in new]
    assert all(25 <= score < 30 for score in scores)
    assert scores == pytest.approx(length_score([list(s.tokens) for s in new]))
    assert new.counts.rejected > 0


def test_one_that_fails_or_has_no_number_is_rejected_and_counted() -> None:
    def moody(sentences: list[list[str]]) -> np.ndarray:
        scores = length_score(sentences)
        if any("w7" in words for words in sentences):
            raise OverflowError("seven")
        return np.where(["w9" in words for words in sentences], np.nan, scores)

    every = augment_corpus(corpus(), SUB, embedding=VECTORS, ratio=2)
    new = augment_corpus(corpus(), SUB, embedding=VECTORS, score=moody, ratio=2)
    assert len(new) == 60
    assert not any("w7" in s.tokens or "w9" in s.tokens for s in new)
    good = [s.tokens for s in every if "w7" not in s.tokens and "w9" not in s.tokens]
    assert [s.tokens for s in new][: len(good)] == good
    assert new.counts.failed > 0
    assert new.counts.rejected == 0


def test_a_scorer_that_always_fails_is_told_of() -> None:
    def broken(sentences: list[list[str]]) -> np.ndarray:
        raise KeyError("no such model")

    new = augment_corpus(corpus(), SUB, embedding=VECTORS, score=broken, most_candidates=40, block=20)
    assert new.counts.failed + new.counts.repeated == 40
    assert "KeyError: 'no such model'" in new.reason


def test_an_interrupt_passes_through_a_scorer() -> None:
    def stopped(sentences: list[list[str]]) -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        augment_corpus(corpus(), SUB, embedding=VECTORS, score=stopped)


@pytest.mark.parametrize(
    "answer", [lambda s: 3.0, lambda s: np.zeros(len(s) + 1), lambda s: ["good"] * len(s), lambda s: None]
)
def test_a_scorer_that_returns_no_numbers_is_refused(answer: object) -> None:
    with pytest.raises(mx.MixError, match="the scorer returned"):
        augment_corpus(corpus(), SUB, embedding=VECTORS, score=answer)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": -1}, "ratio=-1"),
        ({"ratio": float("nan")}, "ratio=nan"),
        ({"block": 0}, "block=0"),
        ({"seed": -1}, "seed=-1"),
        ({"most_candidates": 1.5}, "most_candidates=1.5"),
        ({"accept": (5, 5)}, "lower bound below"),
        ({"accept": 500}, "expected two numbers"),
        ({"score": 7}, "score is int"),
        ({"embedding": {"w1": [0.0]}}, "embedding is dict"),
        ({"among": "w1"}, "among is str"),
        ({"among": ["nothing"]}, "none of the 1 words of among"),
        ({"op": mx.Mixup()}, "op is Mixup"),
        ({"op": mx.SeqMix(until=3)}, "leave until out"),
        ({"sentences": [(["w1", "w2"], ["O"])]}, "2 tokens and 1 tags"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"sentences": corpus(), "op": SUB, "embedding": VECTORS, **change}
    with pytest.raises(mx.MixError, match=message):
        augment_corpus(arguments.pop("sentences"), arguments.pop("op"), **arguments)


def test_the_embedding_of_another_vocabulary_is_refused() -> None:
    other = WordVectors([f"palabra{i}" for i in range(9)], np.ones((9, 2)))
    with pytest.raises(mx.MixError, match=r"0 of 58 words known.*another language.*another tokenizer"):
        augment_corpus(corpus(), SUB, embedding=other)


# -- words and pairs --------------------------------------------------------------------------------------------------


def test_new_words_are_words_and_no_pieces() -> None:
    pieces = ["[PAD]", "[unused3]", "[CLS]", "rome", "##s", "oslo", "par", "##is", "##ly", "</s>"]
    vectors = np.zeros((10, 1)) + np.arange(10)[:, None]
    space = WordSpace(["Rome", "romes", "ROMES", "paris"], [1, 1, 1, 1], (pieces, vectors))
    assert space.known.all()
    tokens = space.nearest(np.array([0, 3, 3]), np.array([3, 0, 1]), np.array([1.0, 1.0, 1.0]))
    assert [pieces[token] for token in tokens] == ["oslo", "par", "par"]
    assert space.written(tokens, np.array([0, 2, 3])) == ["Oslo", "PAR", "par"]
    assert WordSpace(["rome"], [1], (pieces, vectors), ["OSLO"]).nearest(
        np.array([0]), np.array([0]), np.array([0.5])
    ).tolist() == [5]


def test_a_vocabulary_with_capitals_is_written_as_it_stands() -> None:
    space = WordSpace(["ROME"], [1], (["ROME", "Oslo", "iPod"], np.array([[0.0], [2.0], [1.0]])))
    token = space.nearest(np.array([0]), np.array([0]), np.array([0.5]))
    assert space.written(token, np.array([0])) == ["iPod"]


@pytest.mark.parametrize(
    ("tokens", "texts"),
    [
        (["Ġcafe", "ĠcafÃ©", "Ã©", "Ġ", "ing", "<|endoftext|>", "ĠÃ"], ["cafe", "café", "", "", "", "", ""]),
        (["▁so", "▁", "able", "<s>", "<0x0A>", "▁über"], ["so", "", "", "", "", "über"]),
        (["so", "##able", "[MASK]", "[", "<3", "##"], ["so", "", "", "[", "<3", "##"]),
        (["so", "a b", "##", "<unk>"], ["so", "", "##", ""]),
    ],
)
def test_what_begins_a_word_is_told_from_what_does_not(tokens: list[str], texts: list[str]) -> None:
    assert list(Surfaces.of(tokens).texts) == texts


def test_words_are_cut_into_the_pieces_of_each_kind_of_vocabulary() -> None:
    assert Surfaces.of(["un", "##able", "@", "a"]).cut("@unable") == (2, 0, 1)
    assert Surfaces.of(["un", "##able"]).cut("unabled") == ()
    assert Surfaces.of(["Ġun", "able", "Ã©"]).cut("unableé") == (0, 1, 2)
    assert Surfaces.of(["▁un", "able"]).cut("unable") == (0, 1)
    assert Surfaces.of(["un", "able"]).cut("unable") == ()


def test_bert_cuts_words_into_the_same_pieces() -> None:
    from tokenizers.models import WordPiece

    words = ["[UNK]", "un", "##aff", "##able", "##a", "aff", "##f", "u", "##n"]
    model = WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    surfaces = Surfaces.of(words)
    for word in ("unaffable", "affable", "unaf", "unaffx", "una", "unnn"):
        ids = tuple(token.id for token in model.tokenize(word))
        assert surfaces.cut(word) == (() if ids == (0,) else ids)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=25), st.integers(0, 2**32))
def test_pairs_are_of_different_sentences_with_windows_of_one_group(windows: list[tuple[int, int]], seed: int) -> None:
    windows.sort()
    row, group = (np.array([w[k] for w in windows], np.int64) for k in (0, 1))
    index = PairIndex(row, group)
    groups = {i: {g for r, g in windows if r == i} for i in range(7)}
    fit = {(i, j) for i in groups for j in groups if i != j and groups[i] & groups[j]}
    assert len(index) == len({i for i, _ in fit})
    if fit:
        drawn = set(map(tuple, index.draw(np.random.default_rng(seed), 2000).tolist()))
        assert drawn <= fit
        assert {i for i, _ in drawn} == {i for i, _ in fit}


def test_counts_add_up_and_read_well() -> None:
    assert str(Counts(3, 1, 2) + Counts(1, failed=1)).startswith("4 candidates: 1 accepted, 2 rejected by score, 1")


def test_a_generation_shows_what_it_has() -> None:
    generation = Generation(corpus(), SUB, embedding=VECTORS, ratio=0.5)
    assert generation.wanted == 15
    new = augment_corpus(corpus(), SUB, embedding=VECTORS, ratio=0.5)
    assert isinstance(new, Augmented)
    assert repr(new).startswith("<Augmented: 15 of 15 sentences; ")


def test_the_benchmark_runs(tmp_path: Path) -> None:
    out = tmp_path / "corpus.json"
    words = ["--tiny", "--rounds", "1", "--candidates", "20", "--out", str(out)]
    done = subprocess.run([sys.executable, BENCH, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [row["met"] for row in rows] == [row["candidates_per_second"] >= row["aim"] for row in rows]
    assert len(rows) == 3
    assert out.with_suffix(".md").read_text(encoding="utf-8").count("| sub, made up") == 2
