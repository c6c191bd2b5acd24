"""Faults at the data's edge: files that shrink, uneven samples, many threads, forks, and users who keep everything."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loading import CLASSES, FIELDS, OP, epochs, more_workers, same, table
from mixops.pipelines import ArrayLoader, KeyedBatchSampler, MixCollator, arrays, keyed
from torch.utils.data import DataLoader

import mixops as mx

CUT = mx.CutMix(1.0) | mx.Cutout(16)
LARGE = 128  # images of this side are worth a second thread


def photos(n: int = 48, side: int = LARGE) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(5)).integers(0, 256, (n, side, side, 3), np.uint8)


# -- mapped files ------------------------------------------------------------------------------------------------------

FILES = {
    "npy": lambda path, image: np.save(path, image),
    "npz": lambda path, image: np.savez(path, image=image),
}


def made_ahead(running: Any) -> None:
    """Wait until no thread reads any more: a file that is cut while it is read kills the process, as it always did."""
    for order in running._orders:
        if order.made is not None:
            order.made.result()


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("kind", list(FILES))
def test_a_map_whose_file_shrank_is_refused_and_goes_on_once_it_is_back(
    kind: str, threads: int, tmp_path: Path
) -> None:
    path, fields = tmp_path / f"images.{kind}", dict(table().fields)
    fields["image"] = photos(19, 32).transpose(0, 3, 1, 2).copy()
    FILES[kind](path, fields["image"])
    data = arrays(image=path, label=fields["label"], id=fields["id"])
    expected = epochs(ArrayLoader(fields, OP, FIELDS, 4, seed=7))[0]
    loader = ArrayLoader(data, OP, FIELDS, 4, seed=7, threads=threads, prefetch=0)
    running, whole = iter(loader), path.read_bytes()
    got = [next(running), next(running)]
    # What was made ahead while the file was whole still comes; then the error, again and again, and no lost batch.
    made_ahead(running)
    os.truncate(path, 4096)
    message = ""
    for _ in range(4):
        try:
            got.append(next(running))
        except mx.MixError as error:
            message = str(error)
    assert f"{path}, mapped as 'image', has 4096 bytes left of the 58" in message
    step = len(got)
    assert 2 <= step <= 2 + threads
    assert (loader.epoch, loader.step, loader.state_dict()["step"]) == (0, step, step)
    with path.open("r+b") as file:  # into the same file: the map sees it
        file.write(whole)
    got += list(running)
    assert same(got, expected)
    assert (loader.epoch, loader.step) == (1, 0)


def test_a_part_of_a_map_needs_the_whole_file_that_was_mapped(tmp_path: Path) -> None:
    path = tmp_path / "images.bin"
    photos(8).tofile(path)
    part = np.memmap(path, np.uint8, "r", offset=LARGE * LARGE * 3, shape=(6, LARGE, LARGE, 3))[2:]
    loader = ArrayLoader({"image": part}, mx.Mixup(), {"image": mx.Field("b h w c")}, 2, seed=1, threads=1)
    assert len(list(loader)) == 2
    os.truncate(path, 6 * LARGE * LARGE * 3)
    with pytest.raises(mx.MixError, match=f"{path}.*: put it back as it was"):
        next(iter(loader))


def test_a_file_that_was_replaced_by_a_shorter_one_is_read_on_as_it_was_mapped(tmp_path: Path) -> None:
    path, fields = tmp_path / "images.npy", table().fields
    np.save(path, fields["image"])
    loader = ArrayLoader(arrays(image=path, label=fields["label"]), OP, FIELDS, 4, seed=7)
    expected = epochs(ArrayLoader({n: fields[n] for n in ("image", "label")}, OP, FIELDS, 4, seed=7))
    other = tmp_path / "other.npy"
    np.save(other, fields["image"][:2])
    other.replace(path)
    assert same(epochs(loader), expected)


# -- samples that do not fit together ----------------------------------------------------------------------------------


class Uneven:
    """Six images, the one at ``odd`` a pixel wider or of another dtype."""

    def __init__(self, odd: int, kind: str) -> None:
        self.odd, self.kind = odd, kind

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        wide = index == self.odd and self.kind == "size"
        image = np.zeros((3, 8, 9 if wide else 8), np.uint8)
        return {"image": image, "label": index % CLASSES}


@more_workers
@pytest.mark.parametrize("workers", [0, 2])
def test_samples_of_unequal_size_are_named(workers: int) -> None:
    data = Uneven(4, "size")
    loader = DataLoader(
        keyed(data),
        batch_sampler=KeyedBatchSampler(data, 3, seed=1),
        collate_fn=MixCollator(OP, FIELDS, 7),
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    running = iter(loader)
    assert next(running)["image"].shape == (3, 3, 8, 8)
    # A worker's error arrives as its own class, made anew from the text of the worker's traceback.
    with pytest.raises(mx.MixError, match=r"field 'image': sample 0 has shape \(3, 8, 8\) and sample 1 \(3, 8, 9\)"):
        next(running)


# -- many threads at once ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_eight_threads_mix_at_once_from_one_input(threads: int) -> None:
    x, to = photos(), mx.Output("b c h w", "float32", mean=0.5, std=0.25)
    spec = mx.Spec(len(x), (LARGE, LARGE))
    ops = [mx.Mixup(0.8), mx.CutMix(1.0), CUT, mx.RandomErasing()]
    plans = [ops[i % 4].draw(np.random.default_rng(i), spec) for i in range(8)]

    def made(i: int) -> np.ndarray:
        result: np.ndarray = mx.mix(x, plans[i], "b h w c", to=to if i % 2 else None, threads=threads)
        return result

    serial = [made(i) for i in range(8)]
    kept, together = x.copy(), threading.Barrier(8)

    def crowd(i: int) -> bool:
        together.wait()
        return all(np.array_equal(made(j), serial[j]) for j in (i, (i + 3) % 8))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(crowd, range(8)))
    assert np.array_equal(x, kept)


# -- forks -------------------------------------------------------------------------------------------------------------


def in_child(work: Any, patience: float = 60.0) -> int:
    """Exit code of ``work()`` in a forked child: 0 if it returns True; a child that hangs is killed and gives -9."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    end = time.monotonic() + patience
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -9


def test_a_forked_child_mixes_with_threads_of_its_own() -> None:
    x = photos()
    plan = CUT.draw(np.random.default_rng(0), mx.Spec(len(x), (LARGE, LARGE)))
    expected = mx.mix(x, plan, "b h w c", threads=2)
    tensor = torch.from_numpy(x)

    def work() -> bool:
        again = mx.mix(x, plan, "b h w c", threads=2)
        tensors = mx.mix(tensor, plan, "b h w c", threads=2).numpy()
        return np.array_equal(again, expected) and np.array_equal(tensors, expected)

    assert in_child(work) == 0
    assert np.array_equal(mx.mix(x, plan, "b h w c", threads=2), expected)


def test_workers_of_a_dataloader_can_be_forked_after_kernels_and_an_array_loader_were_used() -> None:
    image, label = photos(), np.arange(48) % CLASSES
    data = arrays(image=image, label=label)
    fields = {"image": mx.Field("b h w c"), "label": mx.Labels(CLASSES)}
    loader = ArrayLoader(data, CUT, fields, 16, seed=7, threads=2)
    running = iter(loader)
    got = [next(running)]
    plan = CUT.draw(np.random.default_rng(0), mx.Spec(48, (LARGE, LARGE)))
    mx.mix(image, plan, "b h w c", threads=2)
    collate = MixCollator(CUT, fields, 7)
    sampler = KeyedBatchSampler(data, 16, seed=7, shuffle=True)
    workers = DataLoader(
        keyed(data), batch_sampler=sampler, collate_fn=collate, num_workers=2, multiprocessing_context="fork"
    )
    made = list(workers)
    got += list(running)
    assert same(made, got)


def test_a_pass_goes_on_in_a_forked_child_and_in_its_parent() -> None:
    expected = epochs(ArrayLoader(table(), OP, FIELDS, 4, seed=7), 1)[0]
    loader = ArrayLoader(table(), OP, FIELDS, 4, seed=7, threads=2)
    running = iter(loader)
    first = next(running)
    assert in_child(lambda: same([first, *running], expected)) == 0
    assert same([first, *running], expected)


# -- a user who keeps everything ---------------------------------------------------------------------------------------


def test_batches_that_are_kept_stay_as_they_were() -> None:
    data = arrays(image=photos(), label=np.arange(48) % CLASSES)
    fields = {"image": mx.Field("b h w c"), "label": mx.Labels(CLASSES)}
    to = {"image": mx.Output("b c h w", "float32", mean=0.5, std=0.25)}

    def loader(threads: int) -> ArrayLoader:
        return ArrayLoader(data, OP, fields, 8, seed=7, to=to, threads=threads)

    kept = [batch for epoch in epochs(loader(2), 3) for batch in epoch]
    views = [batch["image"][1:, :, ::2] for batch in loader(2)]  # keeps a part, drops the rest
    starts = {batch["image"].data_ptr() for batch in kept}
    assert len(starts) == len(kept) == 18
    again = [batch for epoch in epochs(loader(0), 3) for batch in epoch]
    assert same(kept, again)
    assert same(views, [batch["image"][1:, :, ::2] for batch in again[:6]])
