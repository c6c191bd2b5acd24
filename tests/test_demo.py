"""The demonstration: a whole page from real data, honest sentences, and never half a report."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from mixops.pipelines.demo import frameworks, report, speed, train
from mixops.pipelines.demo.verdict import verdicts

import mixops as mx

#: What tells a report of this program from other folders.
FORMAT = "mixops demo report, version 1"


class Tags(HTMLParser):
    """What a page refers to, and whether its tags close in order."""

    VOID = frozenset(("meta", "img", "br", "link"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href") and value and value[0] != "#"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of the smallest size, in the place of an earlier one: two seeds, two epochs of each kind, one round."""
    out = tmp_path_factory.mktemp("demo") / "report"
    out.mkdir()
    (out / "report.json").write_text(json.dumps({"format": FORMAT}))
    (out / "left over").touch()
    told: list[str] = []
    threads = torch.get_num_threads()
    assert report.write_report(out, seeds=2, epochs=2, text_epochs=2, rounds=1, step=told.append) == out / "index.html"
    assert len(told) == report.step_count(2)
    assert torch.get_num_threads() == threads
    return out


@pytest.mark.parametrize(
    ("file", "links"), [("index.html", 6 * 8 + 2), ("text.html", 1), ("frameworks.html", 3 * 8 + 1)]
)
def test_each_page_is_whole_and_refers_only_to_files_of_the_report(made: Path, file: str, links: int) -> None:
    text = (made / file).read_text(encoding="utf-8")
    page = Tags(text)
    assert page.open == []
    assert len(page.links) == len(set(page.links)) == links
    assert all((made / link).is_file() for link in page.links)
    assert not re.search(r"https?://(?!www\.w3\.org|purl\.org|creativecommons)", text)


def test_the_pages_have_their_parts(made: Path) -> None:
    text = (made / "index.html").read_text(encoding="utf-8")
    for heading in ("Photographs, before and after", "A small network", "Images per second", "What the chain drew"):
        assert heading in text
    text = (made / "text.html").read_text(encoding="utf-8")
    for heading in ("Questions, mixed", "A small network on few questions"):
        assert heading in text


def test_the_report_holds_every_number_of_the_page(made: Path) -> None:
    numbers = json.loads((made / "report.json").read_text(encoding="utf-8"))
    training = numbers["training"]
    assert set(training["accuracy"]) == {"none", "Mixup", "Cutout", "CutMix"}
    for runs in training["accuracy"].values():
        assert np.shape(runs) == (2, len(training["epochs"]))
        assert ((np.array(runs) >= 0) & (np.array(runs) <= 1)).all()
    text = (made / "index.html").read_text(encoding="utf-8")
    for verdict in training["verdicts"]:
        assert f"{100 * verdict['mean']:.2f} %" in text
    for pace in numbers["images per second"]:
        assert min(pace["mixed"], pace["loader"], pace["plain"]) > 0
        assert f"{pace['mixed']:,.0f}" in text


def test_the_report_holds_every_number_of_the_text_page(made: Path) -> None:
    numbers = json.loads((made / "report.json").read_text(encoding="utf-8"))["text"]
    text = (made / "text.html").read_text(encoding="utf-8")
    seen = " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split())
    assert set(numbers["methods"]) == {"none", "WordMixup", "SentenceMixup"}
    assert numbers["epochs"] == [1, 2]
    for key, found in numbers["found"].items():
        assert [verdict["method"] for verdict in found["verdicts"]] == list(numbers["methods"])
        for verdict in found["verdicts"]:
            final = np.array(numbers["runs"][key][verdict["method"]])[:, -1]
            assert len(final) == verdict["seeds"] == 2
            assert verdict["mean"] == pytest.approx(final.mean())
            shown = f"{verdict['mean']:.3f}" if key == "nll" else f"{100 * verdict['mean']:.2f} %"
            assert f"{verdict['method']} {shown}" in seen
        for sentence in found["sentences"]:
            assert sentence in seen
    assert set(numbers["found"]) == {"accuracy", "nll", "ece"}
    for title, pairs in numbers["pairs"].items():
        assert title in seen
        for pair in pairs:
            assert pair["own"]["share"] + pair["other"]["share"] == pytest.approx(1)
            assert " + ".join(f"{kind} {share:.2f}" for kind, share in pair["target"]) in seen


def test_the_saved_plan_is_the_one_that_is_shown(made: Path) -> None:
    plan = mx.Plan.load(made / "plan.npz")
    first = repr(plan).splitlines()[0]
    assert first in (made / "index.html").read_text(encoding="utf-8")


def test_three_frameworks_make_the_same_photographs_of_the_saved_plan(made: Path) -> None:
    found = json.loads((made / "report.json").read_text(encoding="utf-8"))["frameworks"]
    assert found == {"bytes that differ": {"torch": 0, "JAX": 0, "TensorFlow": 0}, "left out": []}
    text = (made / "frameworks.html").read_text(encoding="utf-8")
    assert text.count("Not a byte differs") == 3
    first = [(made / f"tiles/{number}-0.png").read_bytes() for number in (5, 6, 7, 8)]
    assert len(set(first)) == 1


def test_a_framework_that_is_missing_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (tmp_path / "tiles").mkdir()
    mx.Plan.identity(8).save(tmp_path / "plan.npz")
    found = frameworks.replay_photos(tmp_path, tmp_path / "plan.npz", ("TensorFlow",))
    assert (found.strips, found.apart) == ((), {})
    page = frameworks.frameworks_page_html(found, (), "")
    assert "TensorFlow needs tensorflow: pip install" in page


def test_an_earlier_report_is_replaced_and_nothing_is_left_beside_it(made: Path) -> None:
    assert json.loads((made / "report.json").read_text(encoding="utf-8"))["format"] == FORMAT
    assert not (made / "left over").exists()
    assert [path.name for path in made.parent.iterdir()] == ["report"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(mx.MixError, match="holds no report of this program"):
        report.write_report(tmp_path, step=lambda _: None)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        report.write_report(tmp_path / "report", step=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_in_the_middle_leaves_no_report(tmp_path: Path) -> None:
    out = tmp_path / "report"
    command = [sys.executable, "-m", "mixops.pipelines.demo", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as run:
        limit = time.monotonic() + 120
        while not list(tmp_path.glob(".report-*/tiles/*.png")):
            assert time.monotonic() < limit
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGKILL)
    assert not out.exists()


@pytest.mark.parametrize("wrong", [{"seeds": 1}, {"epochs": 0}, {"text_epochs": 0}])
def test_too_few_seeds_or_epochs_are_refused_before_anything_is_done(wrong: dict[str, int], tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(mx.MixError, match="at least 2 seeds"):
        report.write_report(tmp_path / "report", step=told.append, **wrong)
    assert told == []
    assert list(tmp_path.iterdir()) == []


# -- what the runs say -------------------------------------------------------------------------------------------------


def curves(**final: list[float]) -> train.Curves:
    return train.Curves(np.array([1]), {name: np.array(values)[:, None] for name, values in final.items()})


def test_a_gain_is_a_gain_only_if_the_interval_is_above_zero() -> None:
    none = [0.90, 0.91, 0.92, 0.93]
    up = [v + d for v, d in zip(none, (0.02, 0.021, 0.019, 0.02), strict=True)]
    down = [v - d for v, d in zip(none, (0.02, 0.021, 0.019, 0.02), strict=True)]
    mixed = [v + d for v, d in zip(none, (0.02, -0.02, 0.03, 0.0), strict=True)]
    found = {v.method: v for v in verdicts(curves(none=none, up=up, down=down, mixed=mixed))}
    assert found["up"].sentence.startswith("up gains: +2.00 points")
    assert found["down"].sentence.startswith("down loses: -2.00 points")
    assert found["mixed"].sentence.startswith("mixed shows no gain: +0.75 points")
    assert found["mixed"].sentence.endswith("better on 2 of 4 seeds.")


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(0)
    none, other = rng.normal(0.9, 0.02, 6), rng.normal(0.91, 0.02, 6)
    found = verdicts(curves(none=none.tolist(), other=other.tolist()))[1]
    interval = ttest_rel(other, none).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_one_seed_has_no_verdict() -> None:
    with pytest.raises(mx.MixError, match="expected at least 2"):
        verdicts(curves(none=[0.9], other=[0.91]))


def test_training_is_the_same_for_any_number_of_workers() -> None:
    runs = []
    for workers in (0, 2):
        *_, (_, found) = train.train_all(2, 1, workers=workers)
        assert found is not None
        runs.append(np.concatenate(list(found.accuracy.values())))
    assert np.array_equal(runs[0], runs[1])


def test_the_contenders_of_the_timing_make_the_same_batch() -> None:
    for _, pace in speed.measure(1):
        assert pace.difference < 2e-6
