"""A way to a device that keeps the letter of its contract and nothing beyond it, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

GARBAGE = 0xA5


def raw(tensor: Tensor) -> bytes:
    """All elements, in order, as bytes."""
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).numpy()) if tensor.numel() else b""


@dataclass
class Copies:
    """The event behind some copies.

    Args:
        hosts: what is read.
        meant: what it held when the copies were asked for.
        targets: what is written, when it cannot be put off any more.
        polls: how often the event is still said to be ahead.
    """

    hosts: list[Tensor]
    meant: list[bytes]
    targets: list[Tensor]
    polls: int
    made: bool = False
    ended: bool = False


@dataclass
class LateLane:
    """A lane that copies as late as it may, in any order, and looks at what it read until nobody expects it to.

    Until ``arrive`` the copies hold garbage. Events are reached only when they are waited for, or after some questions.
    Memory that was written to before its event is a fault, and so is a copy that is used without ``arrive``.

    Args:
        seed: of the order of copies and the number of questions.
        foreign: tensors that count as pinned, beside the lane's own blocks.
        there: tensors that count as tensors on the device.
        blocks: sizes of the pinned blocks that were asked for.
        waits: how often the host had to wait.
        events: all of them, in order.
        faults: what was done wrong.
    """

    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    foreign: list[Tensor] = field(default_factory=list)
    there: list[Tensor] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    waits: int = 0
    events: list[Copies] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._own: list[Tensor] = []

    def holds(self, tensor: Tensor) -> bool:
        return any(tensor is one for one in self.there)

    def pinned(self, nbytes: int) -> Tensor:
        self.blocks.append(nbytes)
        self._own.append(torch.full((nbytes,), GARBAGE, dtype=torch.uint8, device="cpu"))
        return self._own[-1]

    def direct(self, tensor: Tensor) -> bool:
        return any(tensor.data_ptr() == one.data_ptr() for one in self.foreign)

    def copy(self, hosts: Sequence[Tensor]) -> tuple[list[Tensor], Copies]:
        targets = []
        for host in hosts:
            block = host.untyped_storage().data_ptr()
            if host.numel() and not self.direct(host) and all(block != own.data_ptr() for own in self._own):
                self.faults.append(f"a copy from memory that is not pinned: {tuple(host.shape)}")
            target = torch.empty_strided(host.shape, host.stride(), dtype=host.dtype, device="cpu")
            target.untyped_storage().fill_(GARBAGE)
            targets.append(target)
        event = Copies(list(hosts), [raw(host) for host in hosts], targets, int(self._rng.integers(4)))
        self.events.append(event)
        return targets, event

    def done(self, event: Copies) -> bool:
        event.polls -= 1
        if event.polls < 0:
            self._end(event)
        return event.ended

    def wait(self, event: Copies) -> None:
        self.waits += not event.ended
        self._end(event)

    def arrive(self, event: Copies, tensors: Sequence[Tensor]) -> None:
        if [id(t) for t in tensors] != [id(t) for t in event.targets]:
            self.faults.append("other tensors arrived than were sent")
        self._make(event)

    def _make(self, event: Copies) -> None:
        """Copy, now or never."""
        self._look(event)
        if not event.made:
            for i in self._rng.permutation(len(event.hosts)):
                event.targets[i].copy_(event.hosts[i])
        event.made = True

    def _end(self, event: Copies) -> None:
        if not event.ended:
            self._make(event)
        event.ended = True

    def _look(self, event: Copies) -> None:
        if not event.ended and [raw(host) for host in event.hosts] != event.meant:
            self.faults.append("memory was written to while a copy could still read it")
