"""The command that augments a tagged corpus: its file, what it says, and errors as one line with exit code 2."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mixops.pipelines.cli import main
from mixops.pipelines.corpus import people_and_places, read_mixed, read_tagged
from mixops.pipelines.corpus.writing import record_of
from real_peers import torchvision_schemas

TRAIN = Path(__file__).parent.parent / "pipelines" / "corpus" / "people.conll"


@pytest.fixture
def vectors(tmp_path: Path) -> str:
    words = sorted({token for sentence in people_and_places() for token in sentence.tokens})
    rows = np.random.default_rng(0).normal(size=(len(words), 5))
    np.savez(tmp_path / "v.npz", words=np.array(words), vectors=rows)
    return str(tmp_path / "v.npz")


def command(out: Path, *more: str, train: Path = TRAIN) -> list[str]:
    return ["corpus", "seqmix", str(train), "-o", str(out), *more]


def failed(capsys: pytest.CaptureFixture[str], args: list[str]) -> str:
    capsys.readouterr()
    assert main(args) == 2
    said = capsys.readouterr().err
    assert said.startswith("mixops: ")
    assert said.count("\n") == 1
    return said


def test_it_writes_what_was_asked_for_and_says_what_became_of_candidates(
    vectors: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new.jsonl"
    more = ("--embedding", vectors, "--min-tags", "2", "--ratio", "0.5", "--score", "ngram", "--accept", "0", "1e9")
    assert main(command(out, *more)) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(read_mixed(out)) == 20
    assert said[-1].endswith(f"20 sentences: {out}")
    assert "20 accepted, 0 rejected by score" in said[-1]
    assert all(one.score is not None and one.soft is not None for one in read_mixed(out))
    assert main(command(out, *more)) == 0
    assert f"{out} is already complete" in capsys.readouterr().out
    assert "seed was 0, is now 1" in failed(capsys, command(out, *more, "--seed", "1"))
    assert main(command(out, *more, "--seed", "1", "--force", "--hard")) == 0
    assert all(one.soft is None for one in read_mixed(out))


def test_words_that_come_in_may_be_named(vectors: str, tmp_path: Path) -> None:
    more = ("--embedding", vectors, "--min-tags", "2", "--ratio", "0.5")
    corpus = {word.lower() for sentence in people_and_places() for word in sentence.tokens}
    own, listed, words = tmp_path / "own.jsonl", tmp_path / "listed.jsonl", tmp_path / "words.txt"
    assert main(command(own, *more, "--among", "corpus")) == 0
    assert all(word.lower() in corpus for one in read_mixed(own) for word in one.tokens)
    words.write_text("\n".join(sorted(corpus)[:60]) + "\n", encoding="utf-8")
    assert main(command(listed, *more, "--among", str(words))) == 0
    assert own.read_bytes() != listed.read_bytes()
    assert main(command(own, *more)) == 2  # another run


@pytest.mark.parametrize("form", [".conll", ".conll.gz", ".jsonl.gz", ".parquet"])
def test_the_same_command_gives_the_same_file(form: str, vectors: str, tmp_path: Path) -> None:
    outs = [tmp_path / f"{name}{form}" for name in "ab"]
    for out in outs:
        assert main(command(out, "--embedding", vectors, "--min-tags", "2")) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert len(read_tagged(outs[0], scheme="plain")) == 8


def test_no_eligible_window_is_said_and_leaves_an_empty_file(
    vectors: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new.conll"
    assert main(command(out, "--embedding", vectors, "--window", "9", "--min-tags", "9")) == 0
    said = capsys.readouterr().out
    assert "fewer than the 8 that were wanted: no two of the 40 sentences have windows that fit" in said
    assert out.read_bytes() == b""


def test_a_range_that_accepts_nothing_ends_and_says_so(
    vectors: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new.jsonl"
    more = ("--embedding", vectors, "--min-tags", "2", "--score", "ngram", "--accept", "0", "0.5")
    assert main(command(out, *more)) == 0
    said = capsys.readouterr().out
    assert "0 of 8 sentences were accepted" in said
    assert out.read_bytes() == b""


def test_ctrl_c_leaves_a_run_that_goes_on(vectors: str, tmp_path: Path) -> None:
    more = ("--embedding", vectors, "--min-tags", "2", "--ratio", "200")
    out = tmp_path / "new.jsonl"
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from mixops.pipelines.cli import main; sys.exit(main(sys.argv[1:]))"
    run = subprocess.Popen([sys.executable, "-c", code, *command(out, *more)], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (out.exists() and out.stat().st_size):
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=30)
    finally:
        run.kill()  # only if it hangs, and then the test has failed
    assert run.returncode == 130
    assert f"the same command goes on with {out}" in said
    assert '"done": false' in record_of(out).read_text()
    assert main(command(out, *more)) == 0
    unbroken = tmp_path / "whole.jsonl"
    assert main(command(unbroken, *more)) == 0
    assert out.read_bytes() == unbroken.read_bytes()


def test_a_full_disk_loses_nothing_and_is_said(vectors: str, tmp_path: Path) -> None:
    more = ("--embedding", vectors, "--min-tags", "2", "--ratio", "40")
    out, unbroken = tmp_path / "new.jsonl", tmp_path / "whole.jsonl"
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
    code += "from mixops.pipelines.cli import main; sys.exit(main(sys.argv[1:]))"
    run = subprocess.run([sys.executable, "-B", "-c", code, *command(out, *more)], capture_output=True, text=True)
    assert run.returncode == 2
    assert f"{out} cannot be written: File too large; what was made so far is kept" in run.stderr
    assert out.stat().st_size == json.loads(record_of(out).read_text())["bytes"] > 0  # and no half block
    assert main(command(out, *more)) == main(command(unbroken, *more)) == 0
    assert out.read_bytes() == unbroken.read_bytes()


def test_what_only_looks_like_a_language_model_judges_nothing(
    vectors: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torchvision_schemas()
    from transformers import BertConfig, BertModel, BertTokenizer

    folder, out = tmp_path / "bert", tmp_path / "new.jsonl"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "moved"]))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=6, **size)).save_pretrained(folder)
    said = failed(capsys, command(out, "--embedding", vectors, "--score", str(folder)))
    assert "no weights for cls.predictions" in said
    assert "expected a checkpoint of a causal language model" in said
    assert not out.exists()


def test_what_is_wrong_is_said_in_one_line(vectors: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new.jsonl"
    broken = tmp_path / "broken.conll"
    broken.write_text("Ada\tB-PER\nran\n")
    mine = tmp_path / "mine.jsonl"
    mine.write_text("{}\n")
    strange = tmp_path / "strange.txt"
    strange.write_text("zzz 1 0\nyyy 0 1\n")
    with_vectors = ("--embedding", vectors)
    for args, said in (
        (command(out), "--embedding is missing: the words that new sentences are made of"),
        (command(out, *with_vectors, train=broken), "broken.conll, line 2: 'ran' has 1 column"),
        (command(out, *with_vectors, train=tmp_path / "none.conll"), "No such file"),
        (command(out, "--embedding", str(tmp_path / "none.txt")), "none.txt"),
        (command(out, "--embedding", str(tmp_path)), "no config.json in this folder"),
        (command(out, "--embedding", "package:no_such_package"), "no_such_package"),
        (command(out, "--embedding", str(strange)), "vector"),
        (command(out, *with_vectors, "--accept", "0", "5"), "--accept needs a --score"),
        (command(out, *with_vectors, "--among", str(tmp_path / "no.txt")), "no such file, expected corpus, or a file"),
        (command(out, *with_vectors, "--score", "gpt"), "--score gpt: expected ngram, none"),
        (command(out, *with_vectors, "--score", "ngram", "--accept", "5", "1"), "accept"),
        (command(out, *with_vectors, "--window", "0"), "window=0"),
        (command(out, *with_vectors, "--ratio", "-1"), "ratio=-1"),
        (command(out, *with_vectors, "--scheme", "BIOES"), "line"),
        (command(tmp_path / "new.xml", *with_vectors), "is none of .jsonl"),
        (command(tmp_path / "no" / "new.jsonl", *with_vectors), "there is no folder"),
        (command(mine, *with_vectors, "--min-tags", "2"), "no run that could go on in it"),
        (command(mine, *with_vectors, train=mine), "is the file to read"),
    ):
        assert said in failed(capsys, args)
        assert not out.exists()
    assert mine.read_text() == "{}\n"
