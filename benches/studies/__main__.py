"""The studies by name: python -m benches.studies NAME [--full] [--seeds N], from the top of the checkout."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
# The studies and what they share import each other by their plain names, in the processes of a grid, too.
sys.path.insert(0, str(FOLDER))
from study import run_study  # noqa: E402


def names() -> list[str]:
    """The studies there are, by name: the files that hold one."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if "\nSTUDY = Study(" in path.read_text(encoding="utf-8"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study that the first argument names; exit status 0, 1 after an error of the study, 2 for a wrong name."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: python -m benches.studies NAME [--full] [--seeds N] ...; NAME --help says more\n")
        for one in names():
            print(f"    {one:12} {importlib.import_module(one).STUDY.title}")
        return 0
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        guess = f"; did you mean {near[0]}?" if near else ""
        print(f"there is no study {name!r}: expected one of {', '.join(names())}{guess}", file=sys.stderr)
        return 2
    return run_study(importlib.import_module(name).STUDY, rest)


if __name__ == "__main__":
    raise SystemExit(main())
