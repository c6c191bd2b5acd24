"""The runs that are done, a line of JSON each below one that says what they are runs of: a kill loses none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixops import MixValueError

from ..folders import flush_to_disk
from .tasks import Scores

_FORMAT = {"format": "mixops.try.runs", "version": 1}


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        op: key of the operator.
        seed: of the run.
        scores: what came of it.
        seconds: that it took, its measuring too.
    """

    op: str
    seed: int
    scores: Scores
    seconds: float


class RunFile:
    """The runs of one set of settings; nothing is written before the first of them is done.

    Args:
        path: of the file.
        settings: plain JSON values that decide what a run gives.

    Raises:
        MixError: if the file holds runs of other settings (it says which differ), of another version, or is none.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = path, json.loads(json.dumps(settings))
        self.runs: list[Run] = []
        self.epochs: int | None = None
        self._keep = self._size = 0
        if not path.exists():
            return
        content = path.read_bytes()
        # Behind the last line end is what a kill has cut off.
        whole = content.rpartition(b"\n")[0]
        lines = whole.split(b"\n") if whole else []
        self._keep, self._size = len(whole) + 1 if lines else 0, len(content)
        if lines:
            try:
                head, *rest = (json.loads(line) for line in lines)
                known = {name: head.get(name) for name in _FORMAT}
                if known["format"] == _FORMAT["format"] and known != _FORMAT:
                    raise MixValueError(f"{path} is of version {known['version']}, expected 1: {self._remedy()}")
                if known != _FORMAT:
                    raise MixValueError(f"{path} holds no runs of this command: {self._remedy()}")
                self._compare(head["settings"])
                self.epochs = int(head["epochs"])
                self.runs = [Run(r["op"], r["seed"], Scores(**r["scores"]), float(r["seconds"])) for r in rest]
            except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
                raise MixValueError(f"{path} is broken: {error!r}: {self._remedy()}") from None

    @property
    def spent(self) -> float:
        """Seconds of all runs together."""
        return sum(run.seconds for run in self.runs)

    def add(self, run: Run, epochs: int) -> None:
        """Append a run; it lies on the disk when this returns.

        Raises:
            MixError: if something else wrote to the file, or removed it, since it was read; it stays as it is.
        """
        text = json.dumps(asdict(run), allow_nan=False) + "\n"
        if not self.runs and self.epochs is None:
            head = {**_FORMAT, "settings": self.settings, "epochs": epochs}
            text = json.dumps(head, ensure_ascii=False) + "\n" + text
        there = self.path.exists()
        if (self.path.stat().st_size if there else 0) != self._size:
            raise MixValueError(
                f"{self.path} was changed while this ran: is the same command running twice? Give it once more when "
                "the other is done, or name another --out"
            )
        with self.path.open("r+b" if there else "xb") as file:
            file.truncate(self._keep)
            file.seek(self._keep)
            self._keep += file.write(text.encode())
            file.flush()
            flush_to_disk(file.fileno())
        self._size = self._keep
        self.epochs = epochs
        self.runs.append(run)

    def _compare(self, there: Mapping[str, Any]) -> None:
        names = [name for name in {**self.settings, **there} if self.settings.get(name) != there.get(name)]
        if names:
            told = "; ".join(f"{n} was {_short(there.get(n))}, now {_short(self.settings.get(n))}" for n in names)
            raise MixValueError(f"{self.path} holds runs of other settings: {told}: give those again, {self._remedy()}")

    def _remedy(self) -> str:
        return f"name another --out, or remove {self.path.name}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."
