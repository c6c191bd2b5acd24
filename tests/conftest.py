"""What the tests share: this directory on the path, the engines that a plan runs on, arrays, and plans made by hand."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

import mixops as mx

# Read when torch is loaded: its threads then sleep while they wait for one another. Those that spin keep the cores from
# the other process of tests, and networks train several times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

sys.path.insert(0, str(Path(__file__).parent))

# Each case of a test compiles a function of JAX, and what LLVM could still improve takes longer than all the rest.
# test_jax compiles as users do.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

# The first call of a kernel compiles it, which no deadline of a single example can allow for.
settings.register_profile("mixops", deadline=None, max_examples=50)
settings.load_profile("mixops")


#: Files with single tests of many seconds, most of them in processes of frameworks.
LONGEST = ("test_matrix.py", "test_tf.py", "test_keras.py", "test_bench_run.py", "test_demo.py", "test_examples.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: at the end no process of tests waits long for the last test of another."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="module", autouse=True)
def collected_once() -> Iterator[None]:
    """What earlier files have left is collected once and then let be.

    Trainers, and tests of memory, collect garbage whenever they run; with the millions of objects that torch, JAX and
    their compilers keep for a whole process, each of these collections would take seconds.
    """
    gc.collect()
    gc.freeze()
    yield
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@dataclass(frozen=True)
class Engine:
    """A backend with the kind of array it runs on.

    Args:
        name: of the engine, for the names of tests.
        backend: what mix is asked for.
        array: makes such an array of a NumPy array, with its values and strides.
        numpy: makes a NumPy array of one.
        within: what a mix runs inside of.
        exchanges: in place, rows exchange two by two or not at all.
        writes: takes ``out=``.
    """

    name: str
    backend: str
    array: Callable[[np.ndarray], Any]
    numpy: Callable[[Any], np.ndarray]
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    exchanges: bool = False
    writes: bool = True

    def mix(self, x: Any, plan: Any, layout: str, kind: str = "continuous", **options: Any) -> Any:
        with self.within():
            return mx.mix(x, plan, layout, kind, **({"backend": self.backend} | options))


def to_torch(x: np.ndarray) -> torch.Tensor:
    """A tensor with the values and the strides of a NumPy array of its own."""
    half = x.dtype.name == "bfloat16"
    tensor = torch.from_numpy(x.view(np.int16) if half else x)
    return tensor.view(torch.bfloat16) if half else tensor


def from_torch(x: torch.Tensor) -> np.ndarray:
    """A NumPy array on the memory of a tensor."""
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.detach().numpy()


def to_cuda(x: np.ndarray) -> torch.Tensor:
    """A tensor on the GPU with the values, the strides and the alignment of a NumPy array."""
    tensor = to_torch(x)
    reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) + 1 if tensor.numel() else 0
    skipped = tensor.data_ptr() % 16 // tensor.element_size()
    memory = torch.zeros(skipped + reach, dtype=tensor.dtype, device="cuda")
    return memory.as_strided(tensor.shape, tensor.stride(), skipped).copy_(tensor)


def from_cuda(x: torch.Tensor) -> np.ndarray:
    return from_torch(x.cpu())


def with_float64() -> AbstractContextManager[Any]:
    """Here JAX has the types of 64 bits, which are off for its users unless they ask for them."""
    import jax

    return jax.enable_x64(True)


def to_jax(x: np.ndarray) -> Any:
    """A JAX array with the values of a NumPy array; it has no strides."""
    import jax.numpy as jnp

    with with_float64():
        return jnp.array(x)


def _same(x: Any) -> Any:
    return x


def on_the_host() -> AbstractContextManager[Any]:
    """backend="cuda" takes CPU tensors: the kernel is compiled by g++ and run thread by thread."""
    from host_chip import on_the_host

    return on_the_host()


ENGINES = [
    Engine("reference", "reference", _same, _same),
    Engine("cpu", "cpu", _same, _same),
    Engine("cpu-tensor", "cpu", to_torch, from_torch),
    Engine("torch", "torch", to_torch, from_torch),
    Engine("cuda-host", "cuda", to_torch, from_torch, on_the_host, exchanges=True),
]
#: Whose arrays cannot be written.
JAX = Engine("jax", "jax", to_jax, np.asarray, with_float64, writes=False)
#: Every test of an engine runs on a GPU too, where there is one: pytest -m gpu.
CUDA = pytest.param(Engine("cuda", "cuda", to_cuda, from_cuda, exchanges=True), marks=pytest.mark.gpu)


@pytest.fixture(scope="session", params=[*ENGINES, JAX, CUDA], ids=lambda e: e.name)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Every backend, on every kind of array that it takes."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="session", params=[*ENGINES, CUDA], ids=lambda e: e.name)
def writer(request: pytest.FixtureRequest) -> Engine:
    """Every backend that writes into arrays it is given, ``out=``."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="session", params=[*(e for e in ENGINES if e.array is to_torch), CUDA], ids=lambda e: e.name)
def tensors(request: pytest.FixtureRequest) -> Engine:
    """Every backend that takes tensors, on tensors."""
    return request.param  # type: ignore[no-any-return]


FLOATS = ("float64", "float32", "float16", "bfloat16")


def data(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Numbers over the range of the dtype, negative ones and large ids among them."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype in ("uint8", "int64"):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    wide = rng.normal(size=shape) * 4
    return wide.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def token_evidence(op: mx.Operator, spec: mx.Spec) -> dict[str, np.ndarray]:
    """Lengths, scores, halves and tags of tokens for operators that need them: of empty rows and of full ones too."""
    if "lengths" not in op.needs:
        return {}
    rng, extent = np.random.default_rng(1), spec.shape[0]
    made = {"lengths": rng.integers(0, extent + 1, spec.n), "saliency": rng.normal(size=(spec.n, extent))}
    made["segments"] = np.broadcast_to(np.arange(extent) * 2 // extent, (spec.n, extent))
    made["tags"] = rng.integers(0, 3, (spec.n, extent))
    return {name: made[name] for name in op.needs if name in made}


#: Layouts whose arrays a plan on that many axes fits.
BY_RANK = {
    0: ("b d", "b", "b t d", "d b", "b c h w"),
    1: ("b t", "b t d", "t b d", "b c t"),
    2: ("b c h w", "b h w c", "h b w", "b t c h w"),
    3: ("b c t h w", "b t h w c"),
}


@st.composite
def plans(draw: st.DrawFn) -> tuple[mx.Plan, str, tuple[int, ...]]:
    """A valid plan made by hand, a layout for it, and the shape of a source."""
    rank, k = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    rows, n = draw(st.integers(1, 4)), draw(st.integers(0, 4))
    layout = draw(st.sampled_from(BY_RANK[rank]))
    size = st.integers(1, 4)
    axes = {0: (), 1: ("t",), 2: ("h", "w"), 3: ("t", "h", "w")}[rank]
    extent = {a: draw(size) for a in layout.split()} | {"b": rows}
    shape = tuple(extent[a] for a in axes)
    channels = extent.get("c", 1)

    def fill(low: float, high: float, *noise: str) -> st.SearchStrategy[mx.Fill]:
        value = st.floats(low, high, width=32)
        value_of = st.one_of(value, st.tuples(*[value] * channels))
        key = st.integers(0, 2**64 - 1)
        return st.builds(mx.Fill, value_of, st.sampled_from(noise), st.floats(0, 50, width=32), key)

    # uint8 arrays take constants from 0 to 255 only; noise may lie beyond and saturates.
    fills = draw(st.lists(fill(0, 255, "none") | fill(-200, 300, "channel", "pixel"), min_size=1, max_size=3))
    box, donor = np.zeros((2, n, k, 2 * rank), int)
    partner, opacity, weight = np.zeros((n, k), int), np.zeros((n, k)), np.zeros((n, k))
    for at in np.ndindex(n, k):
        partner[at] = draw(st.integers(-len(fills), rows - 1))
        opacity[at] = draw(st.sampled_from([0.0, 1.0, 0.5, 0.3, 1e-3, 0.999, 1 / 3]))
        weight[at] = draw(st.floats(0, 0.25, width=16)) if partner[at] >= 0 else 0
        for r, s in enumerate(shape):
            start = draw(st.integers(0, s))
            stop = draw(st.integers(start, s))
            source = draw(st.integers(0, s - (stop - start)))
            box[(*at, slice(2 * r, 2 * r + 2))] = start, stop
            donor[(*at, slice(2 * r, 2 * r + 2))] = source, source + stop - start
    base = draw(st.lists(st.integers(0, rows - 1), min_size=n, max_size=n))
    plan = mx.Plan(np.array(base, int), partner, box, donor, opacity, weight, shape, fills)
    return plan, layout, tuple(extent[a] for a in layout.split())
