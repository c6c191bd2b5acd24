"""All that takes a GPU, in one command: the tests, the checks of memory, races and reads, and the bench.

    PYTHON=/path/to/python make gpu        or        python benches/gpu_check.py [--no-bench] [--rounds N]

It installs nothing and sets nothing of the GPU. What is missing is named, and what was not run is said; exit status 1
if anything failed, 2 if there is nothing to run on.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
#: What cannot be done without a package.
NEEDED = {
    "numpy": "everything",
    "torch": "everything",
    "cuda.bindings": "everything",
    "pytest": "the tests",
    "hypothesis": "the tests",
    "ml_dtypes": "the tests",
    "numba": "the tests and the bench of the loader",
    "tqdm": "the bench",
}
#: Contenders of the bench that are left out without them.
PEERS = ("timm", "torchvision", "kornia")
TOOLS = ("memcheck", "racecheck", "initcheck")
#: The part of the tests that goes over every kind of kernel in small arrays; a tool makes it many times slower.
PART = "vector_shapes"
ENDED = "took longer than"
#: What the modules hold that have such tests.
MARK, GIVEN = "mark.gpu", "engine: Engine"
#: Seconds that the tests, each tool and the bench may take.
LIMITS = {"tests": 500, "tool": 90, "bench": 240}


@dataclass(frozen=True)
class Step:
    """One thing that was run, or not.

    Args:
        name: what it is.
        ok: False if it failed; None if it was not run.
        said: what came out, one line.
    """

    name: str
    ok: bool | None
    said: str


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gpu_check", description="All that takes a GPU, in one command.")
    parser.add_argument("--no-bench", action="store_true", help="the tests and checks alone")
    parser.add_argument("--rounds", type=int, default=21, help="of the bench (default %(default)s)")
    given = parser.parse_args(arguments)
    absent = [name for name in NEEDED if not _there(name)]
    for name in absent:
        print(f"missing: {name}, for {NEEDED[name]}")
    if "torch" in absent or "numpy" in absent:
        return 2
    import torch

    if not torch.cuda.is_available():
        print(
            "gpu_check: torch sees no CUDA GPU here; it takes a machine with one, its driver, and a CUDA build of torch"
        )
        return 2
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {sys.executable}", flush=True)
    steps = [tests(absent), *(tool(name, absent) for name in TOOLS)]
    if not given.no_bench:
        steps.append(bench(absent, given.rounds))
    print("\n-- summary --")
    for step in steps:
        word = "not run" if step.ok is None else "passed" if step.ok else "FAILED"
        print(f"{word:8} {step.name}: {step.said}")
    left_out = [name for name in PEERS if not _there(name)]
    if left_out:
        print(f"the bench did without {', '.join(left_out)}: not installed")
    return 1 if any(step.ok is False for step in steps) else 0


def _there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # a package of packages that is not there itself
        return False


def tests(absent: Sequence[str]) -> Step:
    """``pytest -m gpu``."""
    name = "tests on the GPU"
    if {"pytest", "hypothesis", "ml_dtypes"} & set(absent):
        return Step(name, None, f"it takes {', '.join(absent)}")
    return _run(name, _pytest(), LIMITS["tests"])


def tool(name: str, absent: Sequence[str]) -> Step:
    """One tool of compute-sanitizer over the part of the tests that goes over every kind of kernel."""
    title, command = f"compute-sanitizer {name}", sanitizer()
    if command is None:
        return Step(title, None, "there is no compute-sanitizer on PATH or in the CUDA toolkit")
    if {"pytest", "hypothesis", "ml_dtypes"} & set(absent):
        return Step(title, None, f"it takes {', '.join(absent)}")
    words = [command, "--tool", name, "--error-exitcode", "9", *_ours_only(command)]
    # Without torch's cache each tensor is an allocation of its own, and a step beyond it is seen.
    step = _run(title, [*words, *_pytest(), "-k", PART], LIMITS["tool"], {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
    return replace(step, ok=None) if step.said.startswith(ENDED) else step


def bench(absent: Sequence[str], rounds: int) -> Step:
    """The benchmark, into benches/results."""
    if "tqdm" in absent:
        return Step("bench", None, "it takes tqdm")
    return _run("bench", [sys.executable, "-m", "benches.bench_gpu", "--rounds", str(rounds)], LIMITS["bench"])


def sanitizer() -> str | None:
    """Where compute-sanitizer is, if anywhere."""
    found = shutil.which("compute-sanitizer")
    if found:
        return found
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    places = [Path(home) / "bin" for home in (*homes, "/usr/local/cuda") if home]
    places += [p.parent for folder in sys.path for p in Path(folder).glob("nvidia/*/bin/compute-sanitizer")]
    return next((str(p / "compute-sanitizer") for p in places if os.access(p / "compute-sanitizer", os.X_OK)), None)


def _ours_only(command: str) -> list[str]:
    """The option that leaves torch's own kernels out, by the name that this version has for it."""
    told = subprocess.run([command, "--help"], capture_output=True, text=True, check=False).stdout
    option = next((o for o in ("--kernel-name", "--kernel-regex", "--filter") if o in told), None)
    return [option, "kernel_substring=mix"] if option else []


def _pytest() -> list[str]:
    """The tests that take a GPU; other modules are not even imported, as they want packages that these do without."""
    options = ["-q", "-p", "no:cacheprovider", "-p", "from_checkout", "-m", "gpu"]
    return [sys.executable, "-m", "pytest", *map(str, modules()), *options]


def modules() -> list[Path]:
    """Those that hold such tests; if one of the engines of all tests is a GPU's, those that are given it too."""
    folder = ROOT / "tests"
    words = (MARK, GIVEN) if MARK in (folder / "conftest.py").read_text("utf-8") else (MARK,)
    return [m for m in sorted(folder.rglob("test_*.py")) if any(word in m.read_text("utf-8") for word in words)]


def _run(name: str, command: Sequence[str], limit: float, extra: Mapping[str, str] | None = None) -> Step:
    """Run a command, let its output through, and keep its last line."""
    print(f"\n-- {name} --", flush=True)
    paths = [str(ROOT), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {**os.environ, **(extra or {}), "PYTHONPATH": os.pathsep.join(paths)}
    started = time.monotonic()
    last = ""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        killer = _after(limit, process)
        assert process.stdout is not None
        for text in process.stdout:
            print(text, end="", flush=True)
            last = text.strip() or last
        status = process.wait()
        killer.cancel()
    spent = time.monotonic() - started
    if status < 0 and spent >= limit:
        return Step(name, False, f"{ENDED} {limit:g} s and was ended")
    if "pytest" in command and status == 5:
        return Step(name, None, "no such test was found")
    return Step(name, status == 0, f"{last} ({spent:.0f} s)" if status == 0 else f"status {status}: {last}")


def _after(limit: float, process: subprocess.Popen[str]) -> threading.Timer:
    """End a process that takes too long, and what it started: it leads a group of its own."""
    timer = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
    timer.daemon = True
    timer.start()
    return timer


if __name__ == "__main__":
    raise SystemExit(main())
