"""Taggers from checkpoints: each word speaks by its first piece, words that are cut off train nothing, soft tags do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mixops.pipelines.corpus import MixedSentence, TaggedCorpus
from mixops.pipelines.tagging import predict_tags, train_tagger
from mixops.pipelines.tagging.batches import tag_batch, target_rows
from mixops.pipelines.tagging.learners import CheckpointTagger
from real_peers import torchvision_schemas

import mixops as mx

torchvision_schemas()  # Transformers imports torchvision where it is installed

from transformers import BertConfig, BertModel, BertTokenizer  # noqa: E402

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ann", "rome", "##s", "##by", "sing", "in", "lee"]
TAGS = ("O", "B-LOC", "B-PER", "I-PER")
DATA = TaggedCorpus(
    [
        (("Ann", "Leesby", "sings", "in", "Rome"), ("B-PER", "I-PER", "O", "O", "B-LOC")),
        (("Rome", "sings"), ("B-LOC", "O")),
        (("in",), ("O",)),
    ]
    * 4,
    TAGS,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two blocks with random weights, and its tokenizer."""
    path = tmp_path_factory.mktemp("bert")
    BertTokenizer(vocab={word: place for place, word in enumerate(WORDS)}).save_pretrained(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = BertConfig(vocab_size=len(WORDS), intermediate_size=48, max_position_embeddings=40, **sizes)
        BertModel(config).save_pretrained(path)
    return path


def test_the_logits_of_a_word_are_those_of_its_first_piece(folder: Path) -> None:
    learner = CheckpointTagger(folder)
    encoded = learner.encode(DATA[0].tokens)
    pieces = learner.tokenizer.convert_ids_to_tokens(encoded.inputs["input_ids"])
    assert pieces == ["[CLS]", "ann", "lee", "##s", "##by", "sing", "##s", "in", "rome", "[SEP]"]
    assert encoded.places.tolist() == [1, 2, 5, 7, 8]
    batch = tag_batch([encoded], learner.fills, [target_rows(DATA[0], TAGS, "a row")])
    assert batch.targets is not None
    assert [TAGS[i] for i in batch.targets.argmax(1)] == list(DATA[0].tags)


def test_a_checkpoint_learns_its_sentences(folder: Path) -> None:
    run = train_tagger(DATA, DATA, model=folder, epochs=20, batch_size=4, lr=5e-3, every=0, seed=2)
    assert run.f1.tolist() == [1.0]
    assert run.tags(DATA) == [one.tags for one in DATA]
    assert run.config["model"] == str(folder)
    assert run.config["longest"] == 256


def test_a_checkpoint_learns_soft_tags(folder: Path) -> None:
    soft = np.array([[0, 0.6, 0.4, 0], [1, 0, 0, 0]], np.float32)
    rows = [MixedSentence(("Lee", "sings"), ("B-LOC", "O"), soft, window=(0, 1), parents=(0, 1), lam=0.6)] * 12
    run = train_tagger(DATA, augmented=rows, model=folder, epochs=20, batch_size=8, lr=5e-3, seed=2)
    assert np.abs(run.predict([("Lee", "sings")])[0] - soft).max() < 0.1


def test_words_that_are_cut_off_train_nothing_and_may_have_any_tag(folder: Path) -> None:
    learner = CheckpointTagger(folder, longest=6)
    encoded = learner.encode(DATA[0].tokens)
    assert encoded.places.tolist() == [1, 2, -1, -1, -1]
    batch = tag_batch([encoded], learner.fills, [target_rows(DATA[0], TAGS, "a row")])
    assert batch.targets is not None
    assert batch.words.tolist() == [0, 1]
    assert len(batch.targets) == 2
    run = train_tagger(DATA, model=folder, epochs=1)
    run.learner.longest = 6  # type: ignore[attr-defined]
    probs = predict_tags(run, [DATA[0]])[0]
    assert probs.shape == (5, 4)
    assert (probs[2:] == 0.25).all()
    assert (probs[:2] != 0.25).all()


def test_vectors_beside_a_checkpoint_and_a_slow_tokenizer_are_refused(folder: Path, tmp_path: Path) -> None:
    from mixops.pipelines.text import WordVectors

    with pytest.raises(mx.MixValueError, match="vectors with the checkpoint"):
        train_tagger(DATA, model=folder, vectors=WordVectors(["a"], np.eye(1)))
    with pytest.raises(mx.MixValueError, match=r"a folder with config\.json"):
        train_tagger(DATA, model=tmp_path)
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "config.json").write_text('{"model_type": "vit"}', encoding="utf-8")
    with pytest.raises(mx.MixValueError, match=r"token classifier|tokenizer"):
        train_tagger(DATA, model=tmp_path / "copy")
