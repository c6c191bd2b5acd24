"""The table of speeds in README.md, made from the committed run.

    python benches/readme_table.py [--check]

It stands between two marks, and nothing there is written by hand. ``--check`` writes nothing and has exit status 1 if
the table is another.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from report import check, write_text
from tables import count

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
RESULT = HERE / "results" / "headline.json"
BEGIN, END = "<!-- speed: made by benches/readme_table.py -->", "<!-- end of speed -->"


@dataclass(frozen=True)
class Shown:
    """One line of the table.

    Args:
        label: what is done.
        row: the row it is taken from.
        ours: the contender of mixops.
        peer: the contender beside it.
        name: how the table calls the peer.
    """

    label: str
    row: str
    ours: str
    peer: str
    name: str


LISTED, VIEWS = "mixops, list of samples", "timm, c h w views as ToNumpy leaves them"
PLANES = "torch.compile, stacked as planes"
CHAIN = "uint8 samples → Mixup or CutMix → erasing → normalised float32 + soft labels"
ARRAYS = "mixops ArrayLoader, 2 threads"
LINES = (
    Shown(CHAIN, "chain-1", LISTED, VIEWS, "timm"),
    Shown("the same", "chain-1", LISTED, PLANES, "torch.compile"),
    Shown("the same", "chain-far-1", LISTED, "torchvision v2", "torchvision"),
    Shown("the same", "chain-far-1", LISTED, "kornia", "kornia"),
    Shown("the same, 2 threads", "chain-2", LISTED, VIEWS, "timm"),
    Shown("the same, (256, 3, 32, 32)", "chain-small-index", LISTED, VIEWS, "timm"),
    Shown("a loader over uint8 images in memory, 2 cores", "loaders", ARRAYS, "timm, 2 workers", "timm"),
    Shown("the same", "loaders", ARRAYS, "torchvision v2, 2 workers", "torchvision"),
    Shown("the same, JPEG decoding in front, 2 workers", "loaders-jpeg", "mixops MixCollator, DataLoader, 2 workers",
          "timm, 2 workers", "timm"),
    Shown("float32 Mixup in place", "mixup-inplace", "mixops", "timm Mixup, mode=batch", "timm"),
    Shown("float32 Mixup out of place", "mixup-out", "mixops", "torchvision v2 Mixup", "torchvision"),
    Shown("the same, images only, kept output", "mixup-out", "mixops, images only", "torch.compile, kept output",
          "torch.compile"),
    Shown("bfloat16, images only, kept output", "mixup-out-bfloat16", "mixops, images only",
          "torch.compile, kept output", "torch.compile"),
    Shown("uint8, images only, kept output", "mixup-out-uint8", "mixops, images only", "torch.compile, kept output",
          "torch.compile"),
    Shown("CutMix in place", "cutmix-inplace", "mixops", "timm CutMix, mode=batch", "timm"),
    Shown("constant erasing in place", "erase", "mixops", "timm RandomErasing, mode=const", "timm"),
    Shown("pixel noise erasing in place", "erase-noise", "mixops", "timm RandomErasing, mode=pixel", "timm"),
    Shown("Mixup in place, (256, 3, 32, 32)", "small-mixup-inplace", "mixops", "timm Mixup, mode=batch", "timm"),
    Shown("CutMix in place, (256, 3, 32, 32)", "small-cutmix-inplace", "mixops", "timm CutMix, mode=batch", "timm"),
    Shown("constant erasing, (256, 3, 32, 32)", "small-erase", "mixops", "timm RandomErasing, mode=const", "timm"),
)  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """What stands between the marks."""
    rows = {(row["name"], row["allocator"]): row for row in report["rows"]}
    machine = report["environment"]
    out = [
        fill(
            f"Measured on {machine['cores']} cores ({machine['cpu']}), {machine['date'][:10]}: one thread and "
            "(64, 3, 224, 224) unless a line says otherwise; milliseconds a batch, medians; the last two columns are "
            "the peer's time divided by ours, on the allocator as it comes and on one that keeps its memory (the "
            f"peers' best case). {count(report)}",
            width=120,
        ),
        "",
        "| | ours, ms | peer | peer, ms | peer ÷ ours | tuned allocator |",
        "|---|--:|---|--:|--:|--:|",
    ]
    for shown in LINES:
        if any((shown.row, allocator) not in rows for allocator in report["allocators"]):
            continue  # a run of some rows shows what it has
        both = [rows[shown.row, allocator] for allocator in report["allocators"]]
        ours, peer = (_median(both[0], name) for name in (shown.ours, shown.peer))
        ratios = " | ".join(f"{_median(row, shown.peer) / _median(row, shown.ours):.1f}" for row in both)
        out.append(f"| {shown.label} | {_figures(ours)} | {shown.name} | {_figures(peer)} | {ratios} |")
    return "\n".join(out)


def _figures(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"


def _median(row: dict[str, Any], name: str) -> float:
    return next(float(c["ms"]["median"]) for c in row["contenders"] if c["name"] == name)


def updated(readme: str, report: dict[str, Any]) -> str:
    """A README with the table of a report.

    Raises:
        ValueError: if the marks are not there once each, in order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"README.md: expected {BEGIN} and then {END}, once each")
    return f"{before}{BEGIN}\n{table(report)}\n{END}{after}"


def main() -> int:
    report = json.loads(RESULT.read_text(encoding="utf-8"))
    check(report)
    have = README.read_text(encoding="utf-8")
    wanted = updated(have, report)
    if have == wanted:
        return 0
    if "--check" in sys.argv[1:]:
        print("README.md: the table of speeds is not that of the committed run: python benches/readme_table.py")
        return 1
    write_text(wanted, README)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
