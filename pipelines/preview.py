"""See what an operator does: photographs mixed, every tile captioned with whose image it is and the label shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import mixops as mx

from .sources import read_image

if TYPE_CHECKING:
    from PIL import Image

#: One colour for each image; they tell neighbours apart on white and for most colour-blind readers.
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#44bb99", "#bbbbbb", "#994455")


@dataclass(frozen=True)
class Caption:
    """What a tile shows.

    Args:
        owner: name of the image that the row starts from.
        shares: (name, share of the target), the owner first, then the others from large to small.
        cuts: fills painted on it.
        colours: a colour for each share.
    """

    owner: str
    shares: tuple[tuple[str, float], ...]
    cuts: int
    colours: tuple[str, ...]

    def __str__(self) -> str:
        labels = " + ".join(f"{name} {share:.2f}" for name, share in self.shares)
        return ", ".join([labels, self.holes] if self.cuts else [labels])

    @property
    def holes(self) -> str:
        """The fills in words."""
        return "cut" if self.cuts == 1 else f"{self.cuts} cuts" if self.cuts else ""


def read_photos(paths: Iterable[str | PathLike[str]], size: tuple[int, int]) -> tuple[np.ndarray, list[str], list[str]]:
    """Read pictures, cut each to its centre and scale it.

    Args:
        paths: image files.
        size: (height, width) in pixels.

    Returns:
        (n, h, w, 3) uint8; n names, the files' without their ending, with the folder where two would be equal; and a
        line for each file that could not be read.

    Raises:
        MixError: if none could be read.
    """
    photos, good, problems = [], [], []
    for path in map(Path, paths):
        try:
            photos.append(read_image(path, size))
            good.append(path)
        except mx.MixError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{path}: {error.strerror or error}")
    if not photos:
        named = f" ({'; '.join(problems[:3])})" if problems else ""
        raise mx.MixValueError(
            f"none of {len(problems)} images could be read{named}: expected files such as JPEG or PNG"
        )
    return np.stack(photos), _names(good), problems


def _names(paths: Sequence[Path]) -> list[str]:
    stems = [path.stem for path in paths]
    return [f"{p.parent.name}/{p.name}" if stems.count(p.stem) > 1 else p.stem for p in paths]


def draw_rows(op: mx.Operator, spec: mx.Spec, draws: int, seed: int) -> mx.Plan | mx.PlanSequence:
    """Several draws for the same images as one plan: row d·n + i is image i in draw d.

    Args:
        op: the operator.
        spec: how many images and how large.
        draws: 1 or more.
        seed: draw d is what step d of a training run with this seed would draw.

    Returns:
        A plan of ``draws * n`` rows over n images.

    Raises:
        MixError: if the operator needs labels: each image is taken as a class of its own, so no pairing by class.
    """
    labels = {"labels": np.arange(spec.n)} if "labels" in op.needs else {}
    plans = [op.draw(mx.streams.plan_stream(seed, step=d), spec, **labels) for d in range(draws)]
    return stacked(plans)


def stacked(plans: Sequence[mx.Plan | mx.PlanSequence]) -> mx.Plan | mx.PlanSequence:
    """The rows of several plans over one source, in order; later steps stay within the rows of their own plan.

    Raises:
        MixError: if there is none, or they have different numbers of steps.
    """
    chains = [steps_of(plan) for plan in plans]
    if len({len(chain) for chain in chains}) != 1:
        raise mx.MixValueError(f"stacked: plans of {sorted({len(c) for c in chains})} steps, expected one number")
    steps = [mx.Plan.concat([chain[0] for chain in chains])]
    for i in range(1, len(chains[0])):
        first = np.cumsum([0, *(chain[i - 1].n for chain in chains)])
        moved = [c[i].on(np.arange(a, b)) for c, a, b in zip(chains, first[:-1], first[1:], strict=True)]
        steps.append(mx.Plan.concat(moved))
    return steps[0] if len(steps) == 1 else mx.PlanSequence(tuple(steps))


def captions(plan: mx.Plan | mx.PlanSequence, names: Sequence[str]) -> list[Caption]:
    """A caption for each row of a plan over images with these names, each a class of its own.

    Args:
        plan: its rows name images 0 to len(names) - 1.
        names: of the images.

    Raises:
        MixError: if the plan names an image that is not there.

    Example:
        >>> plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.75, partner=[1, 0])
        >>> print(captions(plan, ["cat", "dog"])[0])
        cat 0.75 + dog 0.25
    """
    shares = np.asarray(mx.soft_targets(np.arange(len(names)), plan, len(names)))
    owner = np.arange(len(names))
    cuts = np.zeros(len(names), int)
    for step in steps_of(plan):
        owner, cuts = owner[step.base], cuts[step.base] + fills_painted(step)
    return [_caption(row, own, cut, names) for row, own, cut in zip(shares, owner.tolist(), cuts.tolist(), strict=True)]


def steps_of(plan: mx.Plan | mx.PlanSequence) -> tuple[mx.Plan, ...]:
    """The plans of a sequence, or the one plan."""
    return plan.plans if isinstance(plan, mx.PlanSequence) else (plan,)


def fills_painted(plan: mx.Plan) -> np.ndarray:
    """(N,) fills that show: with an opacity, and a box that is not empty."""
    seen = (plan.box[..., 1::2] > plan.box[..., 0::2]).all(-1)
    return np.asarray(((plan.partner < 0) & (plan.opacity > 0) & seen).sum(1))


def _caption(shares: np.ndarray, owner: int, cuts: int, names: Sequence[str]) -> Caption:
    others = sorted((i for i in np.flatnonzero(shares >= 0.005).tolist() if i != owner), key=lambda i: -shares[i])
    shown = [owner, *others]
    colours = tuple(COLOURS[i % len(COLOURS)] for i in shown)
    return Caption(names[owner], tuple((names[i], float(shares[i])) for i in shown), cuts, colours)


# -- drawing -----------------------------------------------------------------------------------------------------------

_INK, _GREY, _PAPER = "#1c1c1c", "#6b6b6b", "#ffffff"
_GAP, _BAR, _LINE = 14, 6, 17


def grid(sections: Sequence[tuple[str, np.ndarray, Sequence[Caption]]], columns: int) -> Image.Image:
    """Lay tiles out under headings, each with a bar of its label shares and a caption.

    Args:
        sections: (heading, (n, h, w, 3) uint8 tiles, n captions) each.
        columns: tiles side by side, 1 or more.

    Returns:
        A Pillow image.

    Raises:
        MixError: if columns is below 1 or a section has not one caption a tile.
    """
    from PIL import Image, ImageDraw

    if columns < 1 or any(len(tiles) != len(texts) for _, tiles, texts in sections):
        raise mx.MixValueError(
            f"grid: columns={columns} or captions do not fit: expected 1 or more, one caption a tile"
        )
    height, width = sections[0][1].shape[1:3]
    columns = min(columns, max(len(tiles) for _, tiles, _ in sections))
    fonts = _Fonts()
    words = [[_wrapped(fonts, caption, width) for caption in texts] for _, _, texts in sections]
    lines = max(len(text) for section in words for text in section)
    cell = height + _BAR + 6 + _LINE * (1 + lines) + _GAP
    rows = [-(-len(tiles) // columns) for _, tiles, _ in sections]
    page = Image.new("RGB", (_GAP + columns * (width + _GAP), _GAP + sum(30 + r * cell for r in rows)), _PAPER)
    pen, top = ImageDraw.Draw(page), _GAP
    for (heading, tiles, texts), wrapped in zip(sections, words, strict=True):
        pen.text((_GAP, top), fonts.cut(heading, page.width - 2 * _GAP, fonts.bold), _INK, fonts.bold)
        top += 30
        for i, (tile, caption, text) in enumerate(zip(tiles, texts, wrapped, strict=True)):
            x, y = _GAP + i % columns * (width + _GAP), top + i // columns * cell
            page.paste(Image.fromarray(np.ascontiguousarray(tile)), (x, y))
            _bar(pen, (x, y + height), width, caption)
            y += height + _BAR + 6
            pen.text((x, y), fonts.cut(caption.owner, width, fonts.bold), _INK, fonts.bold)
            for line in text:
                y += _LINE
                pen.text((x, y), line, _GREY, fonts.plain)
        top += -(-len(tiles) // columns) * cell
    return page


class _Fonts:
    """DejaVu Sans, which matplotlib carries: file names may hold any letters."""

    def __init__(self) -> None:
        import matplotlib
        from PIL import ImageFont

        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        self.plain = ImageFont.truetype(str(folder / "DejaVuSans.ttf"), 12)
        self.bold = ImageFont.truetype(str(folder / "DejaVuSans-Bold.ttf"), 13)

    def cut(self, text: str, width: int, font: Any) -> str:
        """The text, shortened with an ellipsis until it is at most ``width`` pixels wide."""
        if font.getlength(text) <= width:
            return text
        while text and font.getlength(text + "…") > width:
            text = text[:-1]
        return text + "…"


def _wrapped(fonts: _Fonts, caption: Caption, width: int) -> list[str]:
    """The caption as lines that fit, broken between labels; a long name is shortened, its share never."""
    parts = []
    for i, (name, share) in enumerate(caption.shares):
        plus, number = "+ " if i else "", f" {share:.2f}"
        room = width - int(np.ceil(fonts.plain.getlength(plus + number)))
        parts.append(plus + fonts.cut(name, room, fonts.plain) + number)
    if caption.cuts:
        parts.append(f"· {caption.holes}")
    lines = parts[:1]
    for part in parts[1:]:
        longer = f"{lines[-1]} {part}"
        if fonts.plain.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def _bar(pen: Any, corner: tuple[int, int], width: int, caption: Caption) -> None:
    """Label shares as a bar of the images' colours."""
    x, y = corner
    total, start = sum(share for _, share in caption.shares) or 1.0, 0.0
    for (_, share), colour in zip(caption.shares, caption.colours, strict=True):
        stop = start + share / total
        if round(stop * width) > round(start * width):
            pen.rectangle((x + round(start * width), y, x + round(stop * width) - 1, y + _BAR - 1), fill=colour)
        start = stop


def preview_page(
    photos: np.ndarray,
    names: Sequence[str],
    plan: mx.Plan | mx.PlanSequence,
    *,
    title: str = "mixed",
    columns: int = 6,
) -> Image.Image:
    """The photographs, then what a plan makes of them, as one picture.

    Args:
        photos: (n, h, w, 3) uint8.
        names: n names.
        plan: rows of it are shown in order; where they are a multiple of n (see ``draw_rows``), under a heading a draw.
        title: of the mixed tiles.
        columns: tiles side by side.

    Returns:
        A Pillow image.

    Raises:
        MixError: if the plan does not fit the photographs.
    """
    n = len(photos)
    mixed = mx.mix(photos, plan, "b h w c")
    texts = captions(plan, names)
    draws = plan.n // n if plan.n and plan.n % n == 0 else 1
    each = plan.n // draws
    sections = [("originals", photos, captions(mx.Plan.identity(n), names))]
    for d in range(draws):
        rows = slice(d * each, (d + 1) * each)
        heading = f"draw {d + 1} of {draws} · {title}" if draws > 1 else title
        sections.append((heading, mixed[rows], texts[rows]))
    return grid(sections, columns)
