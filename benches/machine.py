"""The machine and the software that a benchmark ran on, as far as they decide a timing."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("mixops", "numpy", "numba", "llvmlite", "torch", "torchvision", "torchdata", "timm", "kornia"),
    *("albumentations", "opencv-python-headless", "keras", "nlpaug", "transformers", "fastai", "ffcv", "pillow"),
    *("lightning", "jax", "jaxlib", "ray", "pyarrow"),
)

#: glibc gives memory above 32 MiB back to the system at every free, and a fresh result then costs a page fault for
#: every 4 KiB of it. With these it keeps the memory, as jemalloc and others would: the peers' best case.
ALLOCATORS: dict[str, dict[str, str]] = {
    "as it comes": {},
    "tuned": {
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
        "MALLOC_TOP_PAD_": str(64 << 20),
    },
}


def environment(threads: Sequence[int]) -> dict[str, Any]:
    """The machine and the versions; ``threads`` are the numbers that the rows used."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": _cpu(),
        "caches": _caches(),
        "machine": platform.machine(),
        "system": platform.system(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "huge_pages": _read(Path("/sys/kernel/mm/transparent_hugepage/enabled")) or "unknown",
        "memory_gib": round(_memory() / 2**30, 1),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": sorted(set(threads)),
        "versions": versions,
        "commit": _git("rev-parse", "HEAD"),
        "modified": sorted(entry[3:] for entry in _git("status", "--porcelain", "-uno").splitlines()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def load_average() -> float | None:
    """Processes that wanted a core in the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def ran(report: Mapping[str, Any]) -> str:
    """What was run where and when, for a page."""
    machine = report["environment"]
    load = {when: "unknown" if load is None else f"{load:.2f}" for when, load in report["load"].items()}
    return (
        f"`{report['command']}` on {machine['cpu']}, {machine['cores']} cores; {machine['date'][:10]}, "
        f"commit {machine['commit'][:10]}; load {load['start']} before, {load['end']} after"
    )


def _cpu() -> str:
    for entry in _read(Path("/proc/cpuinfo")).splitlines():
        if entry.startswith("model name"):
            return entry.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _caches() -> dict[str, str]:
    """Sizes of the first core's data caches, by level."""
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if _read(index / "type") != "Instruction":
            sizes[f"L{_read(index / 'level')}"] = _read(index / "size")
    return sizes


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return done.stdout.rstrip() if done.returncode == 0 else ""
