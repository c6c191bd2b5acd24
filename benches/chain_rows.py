"""Rows on the whole chain: uint8 samples to a mixed, erased, normalised batch with soft targets, beside every peer.

Aims are on the contender that does all that the peer does. "images only" leaves out the draw and the targets, as the
strongest form of torch.compile does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import chain_peers
import numpy as np
import torch
from batches import LAYOUT, Setup, Step, kept_tensor
from chain_work import SOURCE, Work, cut_off, erased_first, in_bytes, nearest, sizes_of_equal_area
from harness import Contender, Ratio, Row, measure

#: Averages in float32 may be rounded in another order.
ROUNDING = 1e-5
#: What the dtype of the result may cost, at values up to 2.7; timm rounds mean, std and differences to it as well.
OFF = {"float32": ROUNDING, "float16": 4e-3, "bfloat16": 4e-2}
PAIRS = "timm pairs a row with the one from the end, torchvision and ffcv with the one before, all others at random"
LIST, ARRAY, IMAGES = "mixops, list of samples", "mixops, array", "mixops, array, images only"
TIMM = "timm, c h w views as ToNumpy leaves them"
TIMM_PLANES = "timm, contiguous c h w"
EAGER = "torch, op by op"
GRAPH = "torch.compile, stacked, one graph"
PLANES = "torch.compile, stacked as planes"
KEPT = "torch.compile, transposed first, kept memory, images only"
GATHERED = "torch.compile, gathered first, kept memory"


def _measured(
    work: Work,
    name: str,
    what: str,
    contenders: Sequence[Contender],
    ratios: Sequence[Ratio],
    *,
    rounds: int,
    threads: int = 1,
    inputs: Sequence[Any] | None = None,
    notes: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Measure contenders on batches of some work (or on ``inputs``), with so many threads for everyone."""
    row = Row(
        name,
        f"{what}, {work.shape}",
        work.batches if inputs is None else inputs,
        len(work.plans),
        contenders,
        ratios,
        moved=work.bytes_in + work.bytes_out,
        result=work.bytes_out,
        threads=threads,
        tolerance=OFF[work.to.dtype],
        notes=notes,
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield measure(row, rounds)
    finally:
        torch.set_num_threads(before)


def _planes(work: Work) -> torch.Tensor:
    n, extent = work.size
    return kept_tensor((n, 3, extent, extent), "uint8")


def _timm(work: Work, name: str, form: str, mode: str = "batch") -> Contender:
    plans = [draw.plan for draw in work.draws("flip")]
    step = chain_peers.timm(plans, work.classes, work.dtype, form, mode)
    return work.contender(name, step, rule="flip", expected=in_bytes(nearest))


# -- the chain beside the peers that come near -------------------------------------------------------------------------


def chain(
    setup: Setup, name: str, size: tuple[int, int], threads: int = 1, *, aims: bool = True
) -> Iterator[dict[str, Any]]:
    """From a list of samples or an array, beside timm, torch and torch.compile."""
    torch.set_num_threads(threads)  # torch.compile bakes it in
    work = Work(setup, size)
    draws, classes = work.draws(), work.classes
    fused = chain_peers.Compiled(draws, classes, work.dtype)
    contenders = [
        _timm(work, TIMM, "views"),
        _timm(work, TIMM_PLANES, "planes"),
        work.contender(EAGER, chain_peers.torch_eager(draws, classes, work.dtype)),
        work.contender(GRAPH, fused.in_one_graph()),
        work.contender(PLANES, fused.transposed_first(_planes(work))),
        work.contender(KEPT, fused.kept(work.tensor(), _planes(work))),
        work.contender(LIST, work.listed()),
        work.contender("mixops, list of samples, fresh output", work.listed(fresh=True)),
        work.contender(ARRAY, work.stacked()),
        work.contender(IMAGES, work.images()),
    ]
    ratios = [
        Ratio(LIST, "floor", at_most=1.35 if aims else None),
        Ratio(LIST, "copy", at_most=0.65 if aims else None),
        Ratio(TIMM, LIST, at_least=12 if aims else None),
        Ratio(TIMM_PLANES, LIST, at_least=12 if aims else None),
        Ratio(EAGER, LIST),
        Ratio(GRAPH, LIST),
        Ratio(PLANES, LIST, at_least=4 if aims else None),
        Ratio(KEPT, IMAGES, at_least=4 if aims else None),
    ]
    what = "uint8 NHWC samples through the chain to float32 NCHW"
    yield from _measured(work, name, what, contenders, ratios, rounds=setup.rounds, threads=threads, notes=(PAIRS,))


def far(
    setup: Setup, name: str, size: tuple[int, int], threads: int = 1, *, aims: bool = True
) -> Iterator[dict[str, Any]]:
    """The same beside the peers that take long: a third of the rounds."""
    torch.set_num_threads(threads)
    work = Work(setup, size)
    draws, rolled = work.draws(), work.draws("roll")
    peers: dict[str, tuple[Contender, float | None]] = {
        "torchvision v2": (
            work.contender(
                "torchvision v2",
                chain_peers.torchvision(rolled, work.classes),
                rule="roll",
                expected=erased_first,
                smoothing=0,
            ),
            30,
        ),
        "kornia": (work.contender("kornia", chain_peers.kornia(draws)), 50),
        "albumentations and torch": (
            work.contender(
                "albumentations and torch", chain_peers.albumentations(draws, work.classes), expected=erased_first
            ),
            None,
        ),
        "NumPy by hand": (work.contender("NumPy by hand", chain_peers.numpy_by_hand(draws, work.classes)), None),
    }
    yield from _measured(
        work,
        name,
        "uint8 NHWC samples through the chain to float32 NCHW, slower peers",
        [*(peer for peer, _ in peers.values()), work.contender(LIST, work.listed())],
        [Ratio(peer, LIST, at_least=aim if aims else None) for peer, (_, aim) in peers.items()],
        rounds=max(setup.rounds // 3, 1),
        threads=threads,
        notes=(PAIRS, "torchvision and kornia give no smoothed targets: they leave that to the loss"),
    )


# -- other results -----------------------------------------------------------------------------------------------------


def narrow(setup: Setup, name: str, dtype: str, threads: int, floor: float | None) -> Iterator[dict[str, Any]]:
    """16-bit floats out."""
    torch.set_num_threads(threads)
    work = Work(setup, setup.large, dtype=dtype)
    fused = chain_peers.Compiled(work.draws(), work.classes, work.dtype)
    contenders = [
        _timm(work, TIMM, "views"),
        work.contender(PLANES, fused.transposed_first(_planes(work))),
        work.contender(KEPT, fused.kept(work.tensor(), _planes(work))),
        work.contender(LIST, work.listed()),
        work.contender(IMAGES, work.images()),
    ]
    ratios = [
        Ratio(LIST, "floor", at_most=floor),
        Ratio(LIST, "copy"),
        Ratio(TIMM, LIST),
        Ratio(PLANES, LIST),
        Ratio(KEPT, IMAGES),
    ]
    what = f"uint8 NHWC samples through the chain to {dtype} NCHW"
    yield from _measured(work, name, what, contenders, ratios, rounds=setup.rounds, threads=threads, notes=(PAIRS,))


def from_planes(setup: Setup, name: str, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """From uint8 NCHW: nothing to transpose, where torch.compile is strongest."""
    torch.set_num_threads(1)
    work = Work(setup, size, source=LAYOUT)
    fused = chain_peers.Compiled(work.draws(), work.classes, work.dtype)
    best = "torch.compile, kept memory, images only"
    contenders = [
        _timm(work, TIMM_PLANES, "planes"),
        work.contender(best, fused.from_planes(work.tensor())),
        work.contender(LIST, work.listed()),
        work.contender(IMAGES, work.images()),
    ]
    ratios = [Ratio(LIST, "floor"), Ratio(LIST, "copy"), Ratio(TIMM_PLANES, LIST), Ratio(best, IMAGES)]
    what = "uint8 NCHW samples through the chain to float32 NCHW"
    yield from _measured(work, name, what, contenders, ratios, rounds=setup.rounds, notes=(PAIRS,))


def channels_last(setup: Setup, name: str, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """NHWC out, where Keras, ffcv's kernels and torch.compile are at home."""
    torch.set_num_threads(1)
    work = Work(setup, size, layout=SOURCE)
    fill = tuple(np.rint(255 * np.array(work.to.mean)).tolist())
    fused = chain_peers.Compiled(work.draws(), work.classes, work.dtype)
    peers = [
        work.contender("Keras 3 on torch", chain_peers.keras(work.draws(), work.classes), smoothing=0),
        work.contender(
            "ffcv's semantics, images only",
            chain_peers.ffcv_semantics(work.draws("roll"), work.memory()),
            rule="roll",
            expected=in_bytes(cut_off, fill),
        ),
        work.contender("torch.compile, kept memory, images only", fused.channels_last(work.tensor())),
    ]
    yield from _measured(
        work,
        name,
        "uint8 NHWC samples through the chain to float32 NHWC",
        [*peers, work.contender(LIST, work.listed()), work.contender(IMAGES, work.images())],
        [
            Ratio(LIST, "floor"),
            Ratio(peers[0].name, LIST),
            *(Ratio(peer.name, IMAGES) for peer in peers[1:]),
        ],
        rounds=max(setup.rounds // 2, 1),
        notes=(
            PAIRS,
            "ffcv cannot be installed here: its kernels are written anew from what its source does, and its paste is "
            "ours, for it has no CutMix; Keras gives no smoothed targets",
        ),
    )


def per_sample(setup: Setup, name: str, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """A switch, λ and box for each row, beside timm's elem mode."""
    torch.set_num_threads(1)
    work = Work(setup, size, per="sample")
    peer = _timm(work, "timm, mode=elem, c h w views", "views", "elem")
    yield from _measured(
        work,
        name,
        "uint8 NHWC samples through the chain, a switch a row, to float32 NCHW",
        [peer, work.contender(LIST, work.listed()), work.contender(IMAGES, work.images())],
        [Ratio(LIST, "floor"), Ratio(peer.name, LIST)],
        rounds=max(setup.rounds // 2, 1),
        notes=(PAIRS,),
    )


# -- by index ----------------------------------------------------------------------------------------------------------


def by_index(
    setup: Setup, name: str, size: tuple[int, int], aim: float | None, timm_aim: float | None
) -> Iterator[dict[str, Any]]:
    """Rows of a data set, in memory and from a memory map whose pages the system holds, and from a list of them."""
    torch.set_num_threads(1)
    work = Work(setup, size)
    draws = work.draws()
    fused = chain_peers.Compiled(draws, work.classes, work.dtype)
    rows = fused.gathered(torch.from_numpy(work.data), torch.from_numpy(work.labels), work.tensor(), _planes(work))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.u8"
        work.data.tofile(path)
        mapped = np.memmap(path, np.uint8, "r", shape=work.data.shape)
        contenders = [
            _timm(work, TIMM, "views"),
            work.contender(EAGER, chain_peers.torch_eager(draws, work.classes, work.dtype)),
            work.contender(GATHERED, rows),
            work.contender(GRAPH, fused.in_one_graph()),
            work.contender(LIST, work.listed()),
            work.contender("mixops, by index", work.indexed(work.data)),
            work.contender("mixops, by index, memory map", work.indexed(mapped)),
        ]
        yield from _measured(
            work,
            name,
            "rows of a uint8 NHWC data set through the chain to float32 NCHW",
            contenders,
            [
                Ratio("mixops, by index", "floor"),
                Ratio(TIMM, LIST, at_least=timm_aim),
                Ratio(GATHERED, "mixops, by index", at_least=aim),
                Ratio(GRAPH, LIST),
                Ratio("mixops, by index, memory map", "mixops, by index"),
            ],
            rounds=setup.rounds,
            notes=(PAIRS, f"the data set has {work.data.nbytes / 2**20:.0f} MiB"),
        )
        del contenders, mapped  # a mapped file cannot be removed everywhere


# -- threads and ragged sizes ------------------------------------------------------------------------------------------


def threads(setup: Setup, name: str, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """One thread beside two."""
    torch.set_num_threads(1)
    work = Work(setup, size)
    one, two = "mixops, 1 thread", "mixops, 2 threads"
    yield from _measured(
        work,
        name,
        "uint8 NHWC array through the chain to float32 NCHW, threads",
        [work.contender(one, work.stacked(1)), work.contender(two, work.stacked(2))],
        [Ratio(one, two, at_least=1.6)],
        rounds=setup.rounds,
        threads=2,
        notes=("copy and floor with 2 threads",),
    )


def ragged(setup: Setup, name: str, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Extents that no vector divides, at equal pixel totals: images only."""
    torch.set_num_threads(1)
    even = size[1]
    sizes = sizes_of_equal_area(size, [even, even - 1, even + 1, 37])
    works = {extent: Work(setup, (rows, extent)) for rows, extent in sizes}
    names = {extent: f"mixops, images only, {work.size[0]} × {extent} px" for extent, work in works.items()}

    def sized(work: Work) -> Step:
        images = work.images()
        return lambda turn, k: images(work.batches[turn % len(work.batches)], k)

    yield from _measured(
        works[even],
        name,
        "uint8 NHWC array through the chain to float32 NCHW, as many pixels in ragged sizes",
        [
            Contender(names[extent], sized(work), True, work.contender(names[extent], work.images()).check)
            for extent, work in works.items()
        ],
        [Ratio(names[extent], names[even], at_most=1.5) for extent in works if extent != even],
        rounds=setup.rounds,
        inputs=range(64),
        notes=("the pixel totals differ by 1 % at most, as rows are whole",),
    )


Measure = Callable[[Setup], Iterator[dict[str, Any]]]


def _near_large(step: int) -> Measure:
    return lambda s: chain(s, f"chain-{224 + step}", (s.large[0], s.large[1] + step), aims=False)


ROWS: dict[str, Measure] = {
    "chain-1": lambda s: chain(s, "chain-1", s.large),
    "chain-2": lambda s: chain(s, "chain-2", s.large, 2),
    "chain-far-1": lambda s: far(s, "chain-far-1", s.large),
    "chain-far-2": lambda s: far(s, "chain-far-2", s.large, 2),
    "chain-threads": lambda s: threads(s, "chain-threads", s.large),
    "chain-bfloat16-1": lambda s: narrow(s, "chain-bfloat16-1", "bfloat16", 1, 1.6),
    "chain-bfloat16-2": lambda s: narrow(s, "chain-bfloat16-2", "bfloat16", 2, 1.6),
    "chain-float16-1": lambda s: narrow(s, "chain-float16-1", "float16", 1, None),
    "chain-float16-2": lambda s: narrow(s, "chain-float16-2", "float16", 2, None),
    "chain-nchw": lambda s: from_planes(s, "chain-nchw", s.large),
    "chain-nhwc": lambda s: channels_last(s, "chain-nhwc", s.large),
    "chain-per-sample": lambda s: per_sample(s, "chain-per-sample", s.large),
    "chain-index": lambda s: by_index(s, "chain-index", s.large, None, None),
    "chain-small-index": lambda s: by_index(s, "chain-small-index", s.small, 2, 7),
    "chain-small-far": lambda s: far(s, "chain-small-far", s.small, aims=False),
    "chain-small-nhwc": lambda s: channels_last(s, "chain-small-nhwc", s.small),
    "chain-small-per-sample": lambda s: per_sample(s, "chain-small-per-sample", s.small),
    "chain-ragged": lambda s: ragged(s, "chain-ragged", s.large),
    "chain-223": _near_large(-1),
    "chain-225": _near_large(1),
    "chain-37": lambda s: chain(s, "chain-37", (s.small[0], 37), aims=False),
}
HEADLINE = ("chain-1", "chain-2", "chain-far-1", "chain-threads", "chain-bfloat16-1", "chain-nchw", "chain-small-index")
