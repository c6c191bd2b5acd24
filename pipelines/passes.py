"""Where the passes over a loader stand: what MixLoader and ArrayLoader have in common."""

from __future__ import annotations

from typing import Self

from .state import count


class Passes:
    """A loader's place: every pass is the next epoch, from 0, and begins when its first batch is asked for.

    A running pass owns the place until it ends or another one begins. It is known by a token: a reference to it would
    close a circle, and workers that only the garbage collector ends find their queues closed and hang.
    """

    def __init__(self, training: bool) -> None:
        self.training = bool(training)
        self._epoch, self._step = 0, 0
        self._running: object | None = None

    @property
    def epoch(self) -> int:
        """Epoch of the next batch."""
        return self._epoch

    @property
    def step(self) -> int:
        """Number, within its epoch, of the next batch: so many have been delivered."""
        return self._step

    def train(self, training: bool = True) -> Self:
        """Mix from the next batch on (or, with False, do not); returns the loader."""
        self.training = bool(training)
        return self

    def eval(self) -> Self:
        """Leave batches unmixed from the next one on, labels in the same form as in training; returns the loader."""
        return self.train(False)

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be this epoch, from its start; a place loaded within this very epoch is kept.

        Raises:
            MixError: if epoch is no whole number of 0 or more.
        """
        epoch = count(type(self).__name__, "epoch", epoch)
        if self._running is not None or self._epoch != epoch:
            self._leave(epoch)

    def _put(self, epoch: int, step: int) -> None:
        """Let the next pass begin here; one that runs no longer moves the place."""
        self._epoch, self._step, self._running = epoch, step, None

    def _leave(self, epoch: int) -> None:
        """Let the next pass be this epoch, from its start, wherever the one before was left."""
        self._put(epoch, 0)

    def _next_place(self) -> tuple[int, int]:
        """Where the pass that is about to begin does so. One that was left in the middle makes this the next epoch."""
        if self._running is not None:
            self._leave(self._epoch + 1)
        return self._epoch, self._step

    def _begin_pass(self, token: object) -> None:
        """The pass of this token owns the place from now on."""
        self._running = token

    def _delivered(self, token: object, step: int) -> None:
        """The pass has handed out ``step`` batches of its epoch."""
        if self._running is token:
            self._step = step

    def _end_pass(self, token: object) -> None:
        """The pass has handed out its last batch."""
        if self._running is token:
            self._put(self._epoch + 1, 0)
