"""Measure rows in this process and hand them on, one JSON line for each event; ``run.py`` starts it.

A process of its own for each allocator: glibc reads its settings once, when a process starts.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import traceback
from typing import Any

import torch
from batches import Setup, tiny
from catalogue import chosen, entries


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure rows and write JSON lines to a file descriptor.")
    parser.add_argument("--rows", required=True, help="names, with commas")
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--to", type=int, required=True, help="the file descriptor")
    given = parser.parse_args()
    setup = tiny(given.rounds) if given.tiny else Setup(given.rounds)
    with os.fdopen(given.to, "w", encoding="utf-8") as pipe:

        def tell(event: str, **content: Any) -> None:
            pipe.write(json.dumps({"event": event, **content}) + "\n")
            pipe.flush()

        wanted = chosen(entries(), given.rows.split(","), full=True)
        gc.freeze()
        for entry in wanted:
            tell("start", name=entry.name)
            torch.set_num_threads(1)
            try:
                for row in entry.measure(setup):
                    tell("row", row={**row, "entry": entry.name, "chapter": entry.chapter, "headline": entry.headline})
            except Exception as error:  # one broken row must not cost the others their hour
                traceback.print_exc()
                tell("failed", name=entry.name, error=f"{type(error).__name__}: {error}")
            gc.collect()
            gc.freeze()  # what is left are modules and caches: the collections between rows need not walk them again
            tell("end", name=entry.name)


if __name__ == "__main__":
    main()
