"""Ranks: what the processes of a training tell one another, as numbers and bytes; nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mixops import MixValueError

from .versions import made_with


class Ranks:
    """The processes of a group of torch.distributed; one process on its own where that is not initialised.

    Every method but the constructor is collective: all ranks of the group call it, in the same order.

    Args:
        group: of ``torch.distributed.new_group``; None: all processes.

    Raises:
        MixError: if this process is not in the group, or a group is given and nothing is initialised.
    """

    def __init__(self, group: Any = None) -> None:
        self.group, self.rank, self.size, self.first = group, 0, 1, 0
        self._device = torch.device("cpu")
        if not (dist.is_available() and dist.is_initialized()):
            if group is not None:
                raise MixValueError("group= without torch.distributed: call init_process_group first, or leave it out")
            return
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise MixValueError("this process is not in the group that it was given: pass the group that it belongs to")
        self.first = 0 if group is None else dist.get_global_rank(group, 0)
        if "nccl" in dist.get_backend(group):
            self._device = torch.device("cuda", torch.cuda.current_device())

    def told(self, numbers: Sequence[int]) -> np.ndarray:
        """The numbers of all ranks, equally many from each: (ranks, len(numbers)) int64."""
        mine = torch.tensor(numbers, dtype=torch.int64)
        return np.stack([row.numpy() for row in self._gathered(mine)])

    def texts(self, text: str) -> list[str]:
        """The text of each rank."""
        coded = np.frombuffer(text.encode(), np.uint8)
        return [part.tobytes().decode() for part in self._parts(coded)]

    def rows(self, array: np.ndarray) -> list[np.ndarray]:
        """The array of each rank; alike but for their number of rows."""
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return [part.view(array.dtype).reshape(-1, *array.shape[1:]) for part in self._parts(flat)]

    def swapped(self, data: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """Bytes from every rank: of ``data``, ``sent[r]`` bytes go to rank r, and ``received[r]`` come from it."""
        data = data.to(self._device)
        out = torch.empty(sum(received), dtype=torch.uint8, device=self._device)
        if self.size > 1:
            dist.all_to_all_single(out, data, list(received), list(sent), group=self.group)
        return out

    def _parts(self, mine: np.ndarray) -> list[np.ndarray]:
        """The bytes of each rank, however many."""
        sizes = self.told([mine.size])[:, 0]
        padded = torch.zeros(int(sizes.max()), dtype=torch.uint8)
        padded[: mine.size] = torch.from_numpy(mine.copy())
        return [part.numpy()[:size] for part, size in zip(self._gathered(padded), sizes, strict=True)]

    def _gathered(self, mine: Tensor) -> list[Tensor]:
        if self.size == 1:
            return [mine]
        mine = mine.to(self._device)
        every = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(every, mine, group=self.group)
        return [one.cpu() for one in every]


def check_ranks(group: Any = None, **named: Any) -> None:
    """Refuse, on every rank, to go on where ranks were started differently. Collective: all ranks call it.

    Ranks that shuffle by another seed lose samples and repeat others, and no error ever says so. Versions of mixops and
    NumPy are compared too: a seed gives the same plans with the same versions only.

    Args:
        group: of torch.distributed; None: all processes.
        **named: what must be equal: objects with ``state_dict()`` (KeyedBatchSampler, MixLoader, ArrayLoader,
            StreamLoader) by their state but for their rank, anything else by its ``repr``. All ranks name the same.

    Raises:
        MixError: on every rank, if they differ in any of it; the message says who has what.

    Example:
        >>> from mixops.pipelines import KeyedBatchSampler
        >>> check_ranks(sampler=KeyedBatchSampler(range(10), 2, seed=7), lr=0.1)
    """
    ranks, words = Ranks(group), about(named)
    if len(set(ranks.told([digest(words)])[:, 0].tolist())) > 1:
        raise MixValueError(differences(words, ranks))


def about(named: Mapping[str, Any]) -> dict[str, Any]:
    """What a rank says of itself: versions, and named things as plain values."""
    versions = made_with()
    words: dict[str, Any] = {name: versions[name] for name in ("mixops", "numpy")}
    for name, value in named.items():
        words[name] = dict(_of_any_rank(value.state_dict())) if hasattr(value, "state_dict") else repr(value)
    return words


def _of_any_rank(state: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a state, those of parts too, but for what each rank has for itself: streams save their rank."""
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from _of_any_rank(value, f"{above}{name}.")
        elif name != "rank":
            yield f"{above}{name}", value


def digest(words: Mapping[str, Any]) -> int:
    """63 bits that differ where the words do."""
    return int.from_bytes(blake2b(_text(words).encode(), digest_size=8).digest(), "little") >> 1


def differences(words: Mapping[str, Any], ranks: Ranks) -> str:
    """What the ranks do not agree on, in words. Collective."""
    every = [json.loads(text) for text in ranks.texts(_text(words))]
    names = dict.fromkeys(name for one in every for name in one)
    lines = []
    for name in names:
        holders: dict[str, list[int]] = {}
        for rank, one in enumerate(every):
            holders.setdefault(_short(one.get(name, "nothing"), every, name), []).append(rank)
        if len(holders) > 1:
            lines.append(f"{name}: " + "; ".join(f"{value} on {_ranks(who)}" for value, who in holders.items()))
    return f"ranks do not agree on {', '.join(lines)}. Start all of them alike: same arguments, data and versions"


def _text(words: Mapping[str, Any]) -> str:
    return json.dumps(words, default=repr)


def _short(value: Any, every: Iterable[Mapping[str, Any]], name: str) -> str:
    """The value, of a dict only what differs between ranks."""
    if not isinstance(value, Mapping):
        return str(value)
    others = [one.get(name) for one in every]
    odd = [key for key in value if any(not isinstance(o, Mapping) or o.get(key) != value[key] for o in others)]
    return ", ".join(f"{key}={value[key]!r}" for key in odd)


def _ranks(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (", …" if len(ranks) > 8 else "")
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}"
