"""Writing augmented corpora: any form, read back as it was; runs that are cut off go on to the same bytes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mixops.pipelines.corpus import (
    Counts,
    Generation,
    MixedSentence,
    Written,
    people_and_places,
    read_mixed,
    read_tagged,
    write_augmented,
)
from mixops.pipelines.corpus.writing import record_of

import mixops as mx

FORMS = [".jsonl", ".jsonl.gz", ".conll", ".conll.gz", ".parquet"]
RUN = {"seed": 3}


def generation(soft: bool = True, ratio: float = 0.5) -> Generation:
    """Blocks of three pairs, and words of random vectors: a dozen of blocks."""
    corpus = people_and_places()
    words = sorted({token for sentence in corpus for token in sentence.tokens})
    vectors = np.random.default_rng(0).normal(size=(len(words), 6))
    op = mx.SeqMix(window=4, min_tags=2)
    return Generation(corpus, op, embedding=(words, vectors), ratio=ratio, seed=3, soft=soft, block=3)


def write(out: Path, run: Any = RUN, soft: bool = True, **options: Any) -> Written:
    made = generation(soft)
    return write_augmented(made.blocks, out, tag_names=made.corpus.tag_names, run=run, **options)


def killed(out: Path, blocks: int) -> None:
    """A process of its own that writes to a file and is killed when so many blocks have been recorded."""
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_corpus_writing import write
calls = []
def step(sentences, counts):
    calls.append(1)
    if len(calls) > {blocks}:
        os.kill(os.getpid(), signal.SIGKILL)
write(Path({str(out)!r}), progress=step)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an unbroken run writes, in each form."""
    folder = tmp_path_factory.mktemp("whole")
    for form in FORMS:
        write(folder / f"a{form}")
    return {form: (folder / f"a{form}").read_bytes() for form in FORMS}


@pytest.mark.parametrize("form", [".jsonl", ".conll", ".parquet"])
def test_a_killed_run_goes_on_to_the_bytes_of_an_unbroken_one(
    form: str, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / f"a{form}"
    killed(out, 2)
    held = json.loads(record_of(out).read_text())
    assert held["next_block"] == 2
    assert not held["done"]
    done = write(out)
    assert done.resumed == held["sentences"] > 0
    assert out.read_bytes() == whole[form]
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, record_of(out).name]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tail", [b"", b"x", b"half a sentence\tO\n\n"])
def test_what_was_written_but_not_recorded_is_cut_off(
    form: str, tail: bytes, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / f"a{form}"

    class Stopped(Exception):
        pass

    seen: list[int] = []

    def stop(sentences: int, counts: Counts) -> None:
        seen.append(sentences)
        if len(seen) > 3:
            raise Stopped

    with pytest.raises(Stopped):
        write(out, progress=stop)
    data = Path(f"{out}.part.jsonl") if form == ".parquet" else out
    data.write_bytes(data.read_bytes() + tail)
    assert write(out).resumed == seen[-1]
    assert out.read_bytes() == whole[form]


def test_a_kill_before_the_file_is_there_loses_nothing(whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    killed(out, 0)
    out.unlink(missing_ok=True)
    assert write(out).resumed == 0
    assert out.read_bytes() == whole[".jsonl"]


def test_a_run_that_has_ended_is_not_repeated(whole: dict[str, bytes], tmp_path: Path) -> None:
    for form in FORMS:
        first = write(tmp_path / f"a{form}")
        again = write(tmp_path / f"a{form}")
        assert (first.complete, again.complete) == (False, True)
        assert again.counts == first.counts
        assert again.sentences == first.sentences == 20
        assert (tmp_path / f"a{form}").read_bytes() == whole[form]


def test_another_run_does_not_touch_the_file_unless_forced(whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    write(out)
    with pytest.raises(mx.MixError, match="already holds another run: seed was 3, is now 4"):
        write(out, {"seed": 4})
    assert out.read_bytes() == whole[".jsonl"]
    assert not write(out, {"seed": 4}, force=True).complete
    assert json.loads(record_of(out).read_text())["run"] == {"seed": 4}


def test_a_file_without_a_record_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "a.conll"
    out.write_text("mine\tO\n")
    with pytest.raises(mx.MixError, match="no run that could go on"):
        write(out)
    assert out.read_text() == "mine\tO\n"
    assert not record_of(out).exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_was_changed_is_refused(form: str, tmp_path: Path) -> None:
    out = tmp_path / f"a{form}"
    write(out)
    content = out.read_bytes()
    for other in (content[:-1], content + b"\n", content[:9] + bytes([content[9] ^ 1]) + content[10:]):
        out.write_bytes(other)
        with pytest.raises(mx.MixError, match="changed or cut since"):
            write(out)
        assert out.read_bytes() == other


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"format": "mixops.augmented", "version": 2}'])
def test_a_broken_record_is_named(record: str, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    write(out)
    record_of(out).write_text(record)
    with pytest.raises(mx.MixError, match=r"a\.jsonl\.progress\.json: no record of a run"):
        write(out)


@pytest.mark.parametrize("form", [".jsonl", ".jsonl.gz", ".parquet"])
@pytest.mark.parametrize("soft", [True, False])
def test_sentences_are_read_back_as_they_were(form: str, soft: bool, tmp_path: Path) -> None:
    write(tmp_path / f"a{form}", soft=soft)
    made = generation(soft)
    new = [sentence for block in made.blocks() for sentence in block.sentences]
    back = read_mixed(tmp_path / f"a{form}", made.corpus.tag_names)
    assert len(back) == len(new) == 20
    for one, other in zip(new, back, strict=True):
        for name in ("tokens", "tags", "window", "parents", "lam", "score", "number"):
            assert getattr(one, name) == getattr(other, name)
        assert (one.soft is None) == (other.soft is None) == (not soft)
        if one.soft is not None and other.soft is not None:
            assert np.array_equal(one.soft, other.soft)


@pytest.mark.parametrize("form", [".conll", ".conll.gz", ".jsonl", ".parquet"])
@pytest.mark.parametrize("soft", [True, False])
def test_every_form_is_a_corpus_of_hard_tags(form: str, soft: bool, tmp_path: Path) -> None:
    write(tmp_path / f"a{form}", soft=soft)
    new = [sentence.hard for block in generation(soft).blocks() for sentence in block.sentences]
    assert list(read_tagged(tmp_path / f"a{form}", scheme="plain")) == new


def test_shares_of_conll_stand_between_token_and_tag(tmp_path: Path) -> None:
    write(tmp_path / "a.conll")
    rows = [line.split("\t") for line in (tmp_path / "a.conll").read_text().splitlines() if line]
    told = [row[1] for row in rows if row[1] != "_"]
    assert told
    for shares in told:
        assert abs(sum(float(share.rsplit(":", 1)[1]) for share in shares.split("|")) - 1) < 1e-6


def test_a_token_that_conll_cannot_hold_is_an_error(tmp_path: Path) -> None:
    from mixops.pipelines.corpus import Block

    for token in ("a\tb", "a\nb", " a", "-DOCSTART-x"):
        one = MixedSentence((token,), ("O",), window=(0, 1), parents=(0, 1), lam=0.5)
        blocks = [Block(0, (one,), Counts(1, accepted=1))]
        with pytest.raises(mx.MixError, match=r"cannot stand in a CoNLL file: write \.jsonl"):
            write_augmented(lambda s, b, k=blocks: k, tmp_path / "a.conll", tag_names=["O"], run={}, force=True)  # type: ignore[misc]


def test_a_second_writer_is_noticed(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"

    def meddle(sentences: int, counts: Counts) -> None:
        with out.open("ab") as file:
            file.write(b"x" if sentences else b"")

    with pytest.raises(mx.MixError, match="something else writes into it"):
        write(out, progress=meddle)


def test_another_ending_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(mx.MixError, match=r"a\.txt: a file of another kind"):
        write(tmp_path / "a.txt")
    with pytest.raises(mx.MixError, match=r"expected \.jsonl"):
        read_mixed(tmp_path / "a.conll")


@pytest.mark.parametrize("line", ["[]", "{}", '{"tokens": ["a"], "tags": [], "soft": null}', "{"])
def test_a_line_that_is_no_mixed_sentence_is_an_error(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(mx.MixError, match=r"expected a (file of )?mixed sentence"):
        read_mixed(tmp_path / "a.jsonl")
