"""Passes over an ArrayLoader: the place that is kept, errors in their turn, and threads that end."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from array_loading import collated, gone, loaded, own_threads
from loading import CLASSES, epochs, same, table
from mixops.pipelines import ArrayLoader

import mixops as mx

ROOT = Path(__file__).parent.parent


# -- the place ---------------------------------------------------------------------------------------------------------

DRAWN: list[int] = []


class Counted(mx.Mixup):
    """A Mixup that tells of every draw: of every batch that is made."""

    def _draw(self, rng: Any, spec: Any, **given: Any) -> Any:
        DRAWN.append(spec.n)
        return super()._draw(rng, spec, **given)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("cut", [0, 1, 3, 5])
def test_a_resumed_loader_makes_the_rest_and_only_that(threads: int, cut: int) -> None:
    def made() -> ArrayLoader:
        return loaded(op=Counted(0.8), threads=threads)

    expected = epochs(made())
    first = made()
    running = iter(first)
    head = list(islice(running, cut))
    state = json.loads(json.dumps(first.state_dict()))
    assert (state["epoch"], state["step"]) == (0, cut) == (first.epoch, first.step)
    del running
    assert gone()
    second = made()
    second.load_state_dict(state)
    DRAWN.clear()
    rest = list(second)
    assert sorted(DRAWN) == sorted(len(batch["id"]) for batch in expected[0][cut:])
    assert same(head + rest, expected[0])
    assert same(list(second), expected[1])


def test_the_states_of_a_loader_and_of_a_keyed_sampler_resume_one_another() -> None:
    loader, other = loaded(), collated(table())
    whole = epochs(loader, 1)[0]
    loader.set_epoch(0)
    running = iter(loader)
    head = list(islice(running, 2))
    other.batch_sampler.load_state_dict(loader.state_dict())  # type: ignore[union-attr]
    assert same(head + list(other), whole)


def test_a_loader_keeps_its_place_when_it_refuses_a_state() -> None:
    loader = loaded(threads=2)
    running = iter(loader)
    next(running)
    good = loader.state_dict()
    for broken in (
        {},
        None,
        {**good, "seed": 8},
        {**good, "batch_size": 5},
        {**good, "step": 99},
        {**good, "length": 3},
    ):
        with pytest.raises(mx.MixError):
            loader.load_state_dict(broken)
        assert loader.state_dict() == good
    whole = epochs(loaded(), 1)[0]
    assert same([next(running)], whole[1:2])


def test_each_pass_is_the_next_epoch_and_set_epoch_chooses_one() -> None:
    expected = epochs(loaded(), 4)
    loader = loaded(threads=2)
    assert same(list(loader), expected[0])
    next(iter(loader))  # epoch 1, left in the middle
    assert (loader.epoch, loader.step) == (1, 1)
    assert same(list(loader), expected[2])
    loader.set_epoch(1)
    assert same(list(loader), expected[1])
    loader.set_epoch(0)
    both = list(zip(loader, loader, strict=True))
    assert same([a for a, _ in both], expected[0])
    assert same([b for _, b in both], expected[1])
    assert (loader.epoch, loader.step) == (2, 0)
    with pytest.raises(mx.MixError, match="ArrayLoader: epoch=-1"):
        loader.set_epoch(-1)


def test_a_loaded_place_is_kept_by_set_epoch_of_that_epoch_only() -> None:
    expected = epochs(loaded())
    loader = loaded()
    running = iter(loader)
    list(islice(running, 3))
    state = loader.state_dict()
    loader.load_state_dict(state)
    loader.set_epoch(0)
    assert same(list(loader), expected[0][3:])
    loader.load_state_dict(state)
    loader.set_epoch(1)
    assert same(list(loader), expected[1])


@pytest.mark.parametrize("threads", [0, 2])
def test_train_and_eval_hold_from_the_next_batch_on_though_others_were_made_ahead(threads: int) -> None:
    mixed, plain = epochs(loaded(), 1)[0], epochs(loaded(training=False), 1)[0]
    assert not same(mixed, plain)
    loader = loaded(threads=threads, prefetch=3)
    running = iter(loader)
    got = [next(running)]
    assert loader.eval() is loader
    got += [next(running), next(running)]
    loader.train()
    got += list(running)
    assert same(got, [mixed[0], plain[1], plain[2], *mixed[3:]])


@pytest.mark.parametrize(("threads", "prefetch"), [(0, 2), (1, 0), (2, 0), (2, 3)])
def test_no_more_batches_are_made_ahead_than_was_allowed(threads: int, prefetch: int) -> None:
    loader = loaded(table(64), Counted(0.8), size=2, threads=threads, prefetch=prefetch)
    running = iter(loader)
    DRAWN.clear()
    most = threads + prefetch if threads else 0
    for delivered in range(1, 6):
        next(running)
        end = time.monotonic() + 20
        while len(DRAWN) < delivered + most and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(DRAWN) == delivered + most


# -- errors and threads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_an_error_comes_at_its_batch_and_the_place_is_kept(threads: int) -> None:
    expected = epochs(loaded(shuffle=False), 1)[0]
    fields = {name: array.copy() for name, array in table().fields.items()}
    right, fields["label"][9] = fields["label"][9], CLASSES  # in batch 2
    loader = loaded(fields, shuffle=False, threads=threads)
    running = iter(loader)
    got = [next(running), next(running)]
    for _ in range(2):
        with pytest.raises(mx.MixError, match=f"field 'label': labels: got class {CLASSES}"):
            next(running)
        assert (loader.epoch, loader.step) == (0, 2)
    fields["label"][9] = right
    assert same(got + list(running), expected)


def test_errors_come_one_after_the_other_and_other_batches_can_be_asked_for() -> None:
    expected = epochs(loaded(shuffle=False), 1)[0]
    fields = {name: array.copy() for name, array in table().fields.items()}
    fields["label"][[0, 4]] = -1
    loader = loaded(fields, shuffle=False, threads=3)
    for step in (0, 1):
        with pytest.raises(mx.MixError, match="got class -1"):
            next(iter(loader))
        assert (loader.epoch, loader.step) == (0, step)
        loader.load_state_dict({**loader.state_dict(), "step": step + 1})
    assert same(list(loader), expected[2:])


@pytest.mark.parametrize("how", ["dropped", "closed", "finished"])
def test_threads_end_with_their_pass(how: str) -> None:
    assert gone()
    running: Any = iter(loaded(table(200), threads=3))
    next(running)
    assert own_threads()
    if how == "dropped":
        del running
        gc.collect()
    elif how == "closed":
        running.close()
        assert not own_threads()
        assert list(running) == []
    else:
        list(running)
    assert gone()


def test_a_closed_pass_leaves_the_place_where_it_was() -> None:
    loader = loaded(threads=2)
    running = iter(loader)
    list(islice(running, 2))
    state = loader.state_dict()
    running.close()  # type: ignore[attr-defined]
    assert list(running) == []
    assert loader.state_dict() == state
    loader.load_state_dict(state)
    assert same(list(loader), epochs(loaded(), 1)[0][2:])


ENDLESS = """
import sys, time, numpy as np, mixops as mx
from mixops.pipelines import ArrayLoader
data = {"x": np.zeros((4096, 32, 32, 3), np.uint8)}
loader = ArrayLoader(data, mx.Mixup(), {"x": mx.Field("b h w c")}, 64, seed=1, threads=2, prefetch=4)
running = iter(loader)
next(running)
"""


@pytest.mark.parametrize("tail", ["", "sys.exit(0)", "raise SystemExit(0)"])
def test_the_interpreter_exits_in_the_middle_of_a_pass(tail: str) -> None:
    done = subprocess.run([sys.executable, "-c", ENDLESS + tail], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_keyboard_interrupt_leaves_no_thread_behind() -> None:
    # Whoever runs the tests in the background may have switched the signal off for all that it starts.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = listen + ENDLESS + "print('ready', flush=True)\nwhile True:\n    for batch in loader: pass\n"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()  # only if it hangs, and then the test has failed
    assert process.returncode == -signal.SIGINT
    assert errors.strip().endswith("KeyboardInterrupt")
