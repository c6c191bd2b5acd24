"""Checkpoints of Hugging Face's form: read from folders and packages, fine-tuned with mixing inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mixops.pipelines.text import Sentences, train_text
from mixops.pipelines.text.checkpoint import Checkpoint, checkpoint_folder
from real_peers import torchvision_schemas

import mixops as mx

torchvision_schemas()  # Transformers imports torchvision where it is installed

from transformers import BertConfig, BertModel, BertTokenizer  # noqa: E402
from transformers.utils import logging  # noqa: E402

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "where", "when", "is", "it", "was", "that", "so", "?"]
DATA = Sentences(
    [f"{('who', 'where', 'when')[i % 3]} {'is it' if i % 2 else 'was that'} {'so ' * (i % 4)}?" for i in range(30)],
    [i % 3 for i in range(30)],
    ["person", "place", "time"],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of three blocks with random weights, and its tokenizer."""
    path = tmp_path_factory.mktemp("carrier") / "carried_bert" / "model"
    path.mkdir(parents=True)
    (path.parent / "__init__.py").write_text("", encoding="utf-8")
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    BertTokenizer(vocab=vocabulary).save_pretrained(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=20,
            initializer_range=0.2,  # large enough that what a word says reaches the head
            hidden_dropout_prob=0.0,
        )
        BertModel(config).save_pretrained(path)
    return path


def test_a_setting_that_would_be_passed_over_is_refused(folder: Path) -> None:
    with pytest.raises(mx.MixValueError, match=r"setting='RandomFix' with the checkpoint .* leave setting out"):
        tuned(folder, setting="RandomFix")


def tuned(folder: Path, op: mx.Operator | None = None, **given: Any) -> Any:
    options = {"epochs": 2, "batch_size": 8, "lr": 1e-3, "seed": 2, **given}
    return train_text(DATA, DATA, model=folder, op=op, **options)


def test_a_checkpoint_is_tuned_by_a_recipe_of_its_own(folder: Path) -> None:
    run = train_text(DATA, DATA, model=str(folder), seed=1)
    config = run.config
    assert (config["epochs"], config["batch_size"], config["lr"], config["warmup"]) == (3, 32, 5e-5, 0.1)
    assert (config["model"], config["vocabulary"]) == (str(folder), len(WORDS))
    assert "setting" not in config
    assert run.coverage is None
    assert run.test_coverage is None
    assert run.model.config.num_labels == 3
    assert run.model.config.problem_type is None


@pytest.mark.parametrize(
    ("op", "layers"),
    [
        (mx.TMix((1, 2)), {"hidden:1", "hidden:2"}),
        (mx.SentenceMixup(1.0), {"sentence"}),
        (mx.WordMixup(1.0), {"words"}),
    ],
    ids=["TMix", "SentenceMixup", "WordMixup"],
)
def test_it_learns_with_mixing_at_any_layer(folder: Path, op: mx.Operator, layers: set[str]) -> None:
    run = tuned(folder, op, epochs=12, lr=5e-3)
    assert set(run.mixing.layers) == layers
    assert sum(run.mixing.layers.values()) == 48
    assert run.accuracy[-1] > 0.9


def test_runs_of_a_seed_begin_with_the_same_head_and_repeat(folder: Path) -> None:
    plain, idle, again = tuned(folder), tuned(folder, mx.WordMixup(0.0)), tuned(folder)
    assert np.array_equal(plain.probs, again.probs)
    assert np.array_equal(plain.probs, idle.probs)
    assert not np.array_equal(plain.probs, tuned(folder, seed=3).probs)


def test_sentences_become_the_ids_of_its_tokenizer_and_long_ones_are_cut(folder: Path) -> None:
    checkpoint = Checkpoint(folder, longest=6)
    assert checkpoint.encode("who is it").tolist() == [2, 5, 8, 9, 3]
    assert checkpoint.encode("who is it so so so so").tolist() == [2, 5, 8, 9, 12, 3]
    assert checkpoint.pad == 0


def test_a_package_that_carries_one_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(folder.parent.parent))
    assert checkpoint_folder("package:carried_bert") == folder
    assert checkpoint_folder("package:carried-bert") == folder
    (tmp_path / "carries_nothing").mkdir()
    (tmp_path / "carries_nothing" / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(mx.MixValueError, match="found none"):
        checkpoint_folder("package:carries_nothing")


def test_loading_is_quiet_and_leaves_the_settings_of_transformers(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    Checkpoint(folder).build(3)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (level, bar)


def test_what_is_no_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(mx.MixValueError, match=r"expected cnn, lstm, transformer, a folder with config\.json"):
        checkpoint_folder(tmp_path)
    with pytest.raises(mx.MixValueError, match="pip install not-there"):
        checkpoint_folder("package:not_there")
    with pytest.raises(mx.MixValueError, match="no package"):
        checkpoint_folder("package:../etc")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(mx.MixValueError, match="no tokenizer can be read there"):
        Checkpoint(tmp_path)
    for given in ({"dim": 5}, {"vectors": object()}):
        with pytest.raises(mx.MixValueError, match="word vectors of its own"):
            tuned(folder, **given)


def test_weights_that_are_broken_are_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(mx.MixValueError, match="no sequence classifier can be made of it"):
        Checkpoint(tmp_path).build(3)
