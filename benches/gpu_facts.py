"""The GPU that a benchmark ran on, as far as it decides a timing; nothing is set, only read."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

ASKED = (
    *("name", "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.draw"),
    *("power.limit", "temperature.gpu", "memory.total", "compute_mode", "mig.mode.current", "persistence_mode"),
)
PACKAGES = ("cuda-bindings", "nvidia-cuda-nvrtc", "triton")


def state(device: torch.device) -> dict[str, str]:
    """What nvidia-smi says of a GPU now; empty where there is no such command."""
    command = shutil.which("nvidia-smi")
    if command is None or device.type != "cuda":
        return {}
    uuid = str(torch.cuda.get_device_properties(device).uuid).removeprefix("GPU-")
    words = [command, f"--id=GPU-{uuid}", f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    except subprocess.TimeoutExpired:
        return {}
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(ASKED, values, strict=True)) if done.returncode == 0 and len(values) == len(ASKED) else {}


def facts(device: torch.device) -> dict[str, str]:
    """The GPU by name, size and caches; or that there is none."""
    if device.type != "cuda":
        return {"name": "none: the kernel ran on the CPU, and no time in here says anything about a GPU"}
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "compute capability": f"{found.major}.{found.minor}",
        "multiprocessors": str(found.multi_processor_count),
        "memory": f"{found.total_memory / 2**30:.1f} GiB",
        "second-level cache": f"{found.L2_cache_size / 2**20:.0f} MiB",
    }


def versions() -> dict[str, str]:
    """Of what stands between torch and the GPU."""
    told: dict[str, Any] = {"CUDA of torch": torch.version.cuda}
    for package in PACKAGES:
        try:
            told[package] = version(package)
        except PackageNotFoundError:
            continue
    return {name: str(value) for name, value in told.items() if value is not None}
