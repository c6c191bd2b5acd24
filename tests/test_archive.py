"""Plan files from strangers: whatever is in them, a MixError or a valid plan comes out, and no code runs."""

from __future__ import annotations

import io
import os
import pickle
import resource
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mixops as mx


def plan() -> Any:
    op = mx.OneOf([mx.Mixup(0.8), mx.CutMix()], per="sample") | mx.RandomErasing(noise="pixel") | mx.Mixup()
    return op.draw(np.random.default_rng(0), mx.Spec(5, (9, 8)))


def saved(path: Path, what: Any = None) -> bytes:
    (what or plan()).save(path)
    return path.read_bytes()


def entries(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def refused(path: Path) -> str:
    with pytest.raises(mx.MixError) as caught:
        mx.Plan.load(path)
    message = str(caught.value)
    assert str(path) in message
    return message


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        mx.Plan.load(tmp_path / "nothing.npz")


@pytest.mark.parametrize(
    "content",
    [b"", b"a plan, honestly\n" * 100, b"PK\x03\x04", b"\x93NUMPY", b"\x00" * 4096, bytes(range(256)) * 16],
    ids=["empty", "text", "zip magic", "npy magic", "zeros", "bytes"],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.npz"
    path.write_bytes(content)
    assert "expected" in refused(path)


def test_an_array_file_and_a_foreign_archive_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.arange(9))
    refused(tmp_path / "array.npy")
    np.savez(tmp_path / "other.npz", a=np.arange(9))
    refused(tmp_path / "other.npz")
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    refused(tmp_path / "empty.npz")


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "plan.npz").write_bytes(pickle.dumps({"base": [1, 2]}))
    refused(tmp_path / "plan.npz")


class Bomb:
    """Unpickling this writes a file: proof that code ran."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


@pytest.mark.parametrize("name", ["format", "version", "0.base", "0.shape", "0.layer", "0.fills.key", "1.opacity"])
def test_code_hidden_in_an_object_array_does_not_run(tmp_path: Path, name: str) -> None:
    path, mark = tmp_path / "plan.npz", tmp_path / "ran"
    saved(path)
    hidden = np.empty(1, object)
    hidden[0] = Bomb(mark)
    np.savez(path, allow_pickle=True, **(entries(path) | {name: hidden}))
    refused(path)
    assert not mark.exists()


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.npz"
    whole = saved(path)
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        refused(path)


@given(st.data())
def test_flipped_bits_give_an_error_or_a_valid_plan(
    tmp_path_factory: pytest.TempPathFactory, pick: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.npz"
    content = bytearray(saved(path))
    for at in pick.draw(st.lists(st.integers(0, len(content) * 8 - 1), min_size=1, max_size=4, unique=True)):
        content[at // 8] ^= 1 << at % 8
    path.write_bytes(content)
    try:
        loaded = mx.Plan.load(path)
    except mx.MixError:
        return
    loaded.validate()


def test_every_byte_of_the_directory_may_be_wrong(tmp_path: Path) -> None:
    path = tmp_path / "plan.npz"
    whole = saved(path, mx.Plan.identity(2, (3,), 1))
    start = whole.index(b"PK\x01\x02")
    for at in range(start, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            mx.Plan.load(path).validate()
        except mx.MixError:
            continue


WRONG: dict[str, dict[str, Any]] = {
    "another format": {"format": np.array("mixops-image")},
    "a newer version": {"version": np.array(2)},
    "a version before the first": {"version": np.array(0)},
    "a version of several": {"version": np.array([1, 1])},
    "no plans": {"plans": np.array(0)},
    "fewer plans than said": {"plans": np.array(3)},
    "a billion plans": {"plans": np.array(10**9)},
    "a negative number of plans": {"plans": np.array(-1)},
    "float rows": {"0.base": np.zeros(5)},
    "rows of text": {"0.base": np.array(["a"] * 5)},
    "rows of dates": {"0.base": np.zeros(5, "datetime64[s]")},
    "complex opacity": {"0.opacity": np.zeros((5, 2), complex)},
    "a record": {"0.base": np.zeros(5, [("a", "i4"), ("b", "f4")])},
    "rows below 0": {"0.base": np.full(5, -1, np.int32)},
    "rows beyond int32": {"0.base": np.full(5, 2**40)},
    "rows beyond int64": {"0.base": np.full(5, 2**64 - 1, np.uint64)},
    "opacity NaN": {"0.opacity": np.full((5, 2), np.nan, np.float32)},
    "opacity beyond 1": {"0.opacity": np.full((5, 2), 1e30)},
    "weights beyond 1": {"0.weight": np.full((5, 2), 0.75, np.float32)},
    "weights of another size": {"0.weight": np.zeros((4, 2), np.float32)},
    "boxes outside": {"0.box": np.full((5, 2, 4), 100, np.int32)},
    "partner names no fill": {"0.partner": np.full((5, 2), -100, np.int32)},
    "extents of 0": {"0.shape": np.zeros(2, np.int64)},
    "extents beyond int32": {"0.shape": np.full(2, 2**40)},
    "float extents": {"0.shape": np.full(2, 9.0)},
    "one extent": {"0.shape": np.array(9)},
    "fills that are infinite": {"0.fills.value": np.full((6, 1), np.inf, np.float32)},
    "fills of another length": {"0.fills.std": np.zeros(2, np.float32)},
    "noise of an unknown kind": {"0.fills.noise": np.full(6, 77, np.uint8)},
    "noise keys of floats": {"0.fills.key": np.zeros(6)},
    "a spread below 0": {"0.fills.std": np.full(6, -1, np.float32)},
    "fills without channels": {"0.fills.value": np.zeros((6, 0), np.float32)},
    "a layer of numbers": {"0.layer": np.arange(3)},
    "a layer of several": {"0.layer": np.array(["a", "b"])},
    "a second step on rows that are not there": {"1.partner": np.full((5, 1), 5, np.int32)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_content_is_refused(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "plan.npz"
    saved(path)
    content = entries(path)
    assert set(WRONG[wrong]) <= set(content)
    np.savez(path, **(content | WRONG[wrong]))
    assert len(refused(path)) > len(str(path)) + 10


@pytest.mark.parametrize("name", ["format", "version", "plans", "0.base", "0.fills.key", "0.layer", "1.shape"])
def test_a_missing_entry_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "plan.npz"
    saved(path)
    content = entries(path)
    del content[name]
    np.savez(path, **content)
    refused(path)


def header(text: str) -> bytes:
    """The start of an .npy file with a header of our own."""
    padded = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode()


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<i4', 'fortran_order': False, 'shape': (10000000000000,), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (-5,), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (2**70,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (5,), }",
        "{'descr': __import__('os').mkdir('ran'), 'fortran_order': False, 'shape': (5,), }",
        "[" * 100,
    ],
    ids=["terabytes", "negative", "expression", "objects", "code", "brackets"],
)
def test_hostile_array_headers_are_refused(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "plan.npz"
    saved(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["0.base.npy"] = header(text) + b"\x00" * 20
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    refused(path)
    assert not (tmp_path / "ran").exists()


def test_a_bomb_that_unpacks_to_gigabytes_is_refused_before_it_does(tmp_path: Path) -> None:
    path = tmp_path / "plan.npz"
    zeros = bytes(1 << 24)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("0.base.npy", "w", force_zip64=True) as member,
    ):
        member.write(header("{'descr': '<i4', 'fortran_order': False, 'shape': (285212672,), }"))
        for _ in range(68):
            member.write(zeros)
    assert path.stat().st_size < 1 << 24
    assert "unpacks to" in refused(path)


def test_sizes_that_lie_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.npz"
    whole = bytearray(saved(path))
    at = whole.index(b"PK\x01\x02")
    whole[at + 20 : at + 28] = struct.pack("<II", 0x7FFFFFFF, 0x7FFFFFFF)
    path.write_bytes(whole)
    refused(path)


def test_a_member_twice_over_gives_an_error_or_a_valid_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.npz"
    saved(path)
    buffer = io.BytesIO()
    np.save(buffer, np.full(5, -7, np.int32))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("0.base.npy", buffer.getvalue())
    refused(path)


# -- writing -----------------------------------------------------------------------------------------------------------


def test_saving_goes_where_it_was_told_and_leaves_nothing_else(tmp_path: Path) -> None:
    for name in ("plan.npz", "plan", "a plan.bin"):
        saved(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a plan.bin", "plan", "plan.npz"]
    assert mx.Plan.load(tmp_path / "plan") == plan()


def test_a_write_that_fails_half_way_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "plan.npz"
    before = saved(path, mx.Plan.identity(3))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = plan()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))  # as a full disk would, after the first kilobyte
    try:
        with pytest.raises(OSError, match="too large"):
            large.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["plan.npz"]


def test_threads_that_save_to_one_path_leave_one_whole_file(tmp_path: Path) -> None:
    path, made = tmp_path / "plan.npz", [mx.Plan.identity(n, (3, 3), 2) for n in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda p: p.save(path), made * 10))
    assert mx.Plan.load(path) in made
    assert [p.name for p in tmp_path.iterdir()] == ["plan.npz"]


def test_a_directory_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        plan().save(tmp_path / "nowhere" / "plan.npz")
