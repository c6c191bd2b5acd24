"""Compiled kernels on disk: found again by the next process, and never taken from where another user could put them."""

from __future__ import annotations

import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mixops.backends.cuda import cache, compiling
from mixops.backends.cuda.form import Form

FORM = Form("float32", "float32", 4, "SAME", 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 256, 0, 0)
KEY = "0" * 64


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIXOPS_CACHE_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Form, str]]:
    """What was compiled, in order; the compiler itself is the real one."""
    made: list[tuple[Form, str]] = []
    real = compiling.compiled

    def counted(form: Form, architecture: str) -> compiling.Compiled:
        made.append((form, architecture))
        return real(form, architecture)

    monkeypatch.setattr(compiling, "compiled", counted)
    return made


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_a_kernel_is_compiled_once_and_read_from_the_disk_after_that(
    folder: Path, compilations: list[tuple[Form, str]]
) -> None:
    first = compiling.binary(FORM, "sm_90")
    assert first.startswith(b"\x7fELF")
    assert compiling.binary(FORM, "sm_90") == first
    assert compilations == [(FORM, "sm_90")]
    assert compiling.binary(FORM, "sm_80") != first
    compiling.binary(replace(FORM, vec=2), "sm_90")
    assert compilations[1:] == [(FORM, "sm_80"), (replace(FORM, vec=2), "sm_90")]
    assert len(list(folder.iterdir())) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes")
def test_nobody_else_can_read_or_write_what_is_kept(folder: Path) -> None:
    cache.store(KEY, b"kernel")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert only_file(folder).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("keep", [0, 10, 31, 32, -1])
def test_a_truncated_file_is_compiled_again_and_replaced(
    folder: Path, compilations: list[tuple[Form, str]], keep: int
) -> None:
    first = compiling.binary(FORM, "sm_90")
    file = only_file(folder)
    whole = file.read_bytes()
    file.write_bytes(whole[:keep])
    assert compiling.binary(FORM, "sm_90") == first
    assert len(compilations) == 2
    assert only_file(folder).read_bytes() == whole


@pytest.mark.parametrize("at", [0, 31, 32, 40])
def test_a_changed_byte_is_noticed(folder: Path, at: int) -> None:
    cache.store(KEY, b"a kernel of some bytes")
    data = bytearray(only_file(folder).read_bytes())
    data[at] ^= 1
    only_file(folder).write_bytes(data)
    assert cache.load(KEY) is None


def test_the_file_of_another_kernel_is_not_taken_for_this_one(folder: Path) -> None:
    cache.store(KEY, b"kernel")
    other = "1" * 64
    only_file(folder).rename(folder / f"{other}.cubin")
    assert cache.load(other) is None


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such owners")
def test_what_another_user_owns_or_may_write_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store(KEY, b"kernel")
    assert cache.load(KEY) == b"kernel"
    file = only_file(folder)
    for mode in (0o620, 0o602):
        file.chmod(mode)
        assert cache.load(KEY) is None
    file.chmod(0o600)
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert cache.load(KEY) is None
    elsewhere = file.rename(folder / "elsewhere")
    file.symlink_to(elsewhere)
    assert cache.load(KEY) is None


def test_a_folder_that_cannot_be_written_is_done_without_and_without_a_word(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compilations: list[tuple[Form, str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MIXOPS_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    with caplog.at_level(logging.DEBUG):
        assert compiling.binary(FORM, "sm_90") == compiling.binary(FORM, "sm_90")
    assert len(compilations) == 2
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


def test_a_disk_that_is_full_leaves_no_part_of_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    cache.store(KEY, b"kernel")
    assert list(folder.iterdir()) == []


def test_many_can_write_and_read_one_kernel_at_a_time(folder: Path) -> None:
    binary = bytes(range(256)) * 400

    def both(_: int) -> bytes | None:
        cache.store(KEY, binary)
        return cache.load(KEY)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(both, range(64))) == {binary}
    assert only_file(folder).name == f"{KEY}.cubin"


def test_a_change_of_the_source_or_of_the_compiler_is_another_kernel(
    folder: Path, compilations: list[tuple[Form, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiling.binary(FORM, "sm_90")
    sources = compiling.sources()
    for name in sources:
        with monkeypatch.context() as patched:
            patched.setattr(compiling, "sources", lambda name=name: sources | {name: sources[name] + "\n"})
            compiling.binary(FORM, "sm_90")
    assert len(compilations) == 1 + len(sources)
    real = compiling.load_nvrtc()
    newer = SimpleNamespace(**{name: getattr(real, name) for name in dir(real) if name.startswith("nvrtc")})
    newer.nvrtcVersion = lambda: (real.nvrtcResult.NVRTC_SUCCESS, 99, 0)
    monkeypatch.setattr(compiling, "load_nvrtc", lambda: newer)
    compiling.binary(FORM, "sm_90")
    assert len(compilations) == 2 + len(sources)


def test_the_folder_is_where_the_system_keeps_caches_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIXOPS_CACHE_DIR", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.folder() == tmp_path / ".cache" / "mixops"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "mixops"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.folder() == tmp_path / "Library" / "Caches" / "mixops"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache.folder() == tmp_path / "local" / "mixops"
    monkeypatch.delenv("LOCALAPPDATA")
    assert cache.folder() == tmp_path / "AppData" / "Local" / "mixops"


def test_no_home_at_all_is_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MIXOPS_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    cache.store(KEY, b"kernel")
    assert cache.load(KEY) is None
