"""Real images in: what ordinary packages carry, and folders. Nothing is downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np

from mixops import MixTypeError, MixValueError

from .adapters import in_bytes
from .state import count

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))

#: Colour photographs that wheels carry: package, folder, file.
_PHOTOGRAPHS = (
    ("sklearn", "datasets/images", "china.jpg"),
    ("sklearn", "datasets/images", "flower.jpg"),
    ("skimage", "data", "astronaut.png"),
    ("skimage", "data", "chelsea.png"),
    ("skimage", "data", "coffee.png"),
    ("skimage", "data", "hubble_deep_field.jpg"),
    ("skimage", "data", "motorcycle_left.png"),
    ("skimage", "data", "rocket.jpg"),
)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1797 handwritten digits that scikit-learn carries.

    Returns:
        (images, labels): (1797, 1, 8, 8) uint8, the original 0 to 16 scaled to 0 to 255, rounded, halves up; and
        (1797,) int64, 0 to 9.

    Raises:
        MixError: if scikit-learn is not installed.

    Example:
        >>> images, labels = digits()
        >>> images.shape, images.dtype.name, int(images.max()), int(labels[0])
        ((1797, 1, 8, 8), 'uint8', 255, 0)
    """
    _need("digits", "sklearn", "scikit-learn")
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    data = load_digits()
    images = np.floor(data.images * (255 / 16) + 0.5).astype(np.uint8)
    return images[:, None], data.target.astype(np.int64)


def photographs(size: int | tuple[int, int] = 224) -> tuple[np.ndarray, list[str]]:
    """The colour photographs that scikit-learn and scikit-image carry, centre-cropped and resized.

    Args:
        size: (height, width) in pixels, or one number for both.

    Returns:
        (images, names): (n, height, width, 3) uint8, and for each its name, "astronaut" say; 8 photographs where both
        packages are installed.

    Raises:
        MixError: if neither package is installed, or size is out of range.

    Example:
        >>> images, names = photographs(32)
        >>> images.shape == (len(names), 32, 32, 3)
        True
    """
    shape = image_size("photographs", size)
    paths = []
    for package, folder, name in _PHOTOGRAPHS:
        spec = find_spec(package)
        for root in (spec.submodule_search_locations or ()) if spec is not None else ():
            paths += [path for path in [Path(root) / folder / name] if path.is_file()]
    if not paths:
        raise MixValueError(
            'photographs: neither scikit-learn nor scikit-image is installed: pip install "mixops[images]"'
        )
    return np.stack([read_image(path, shape) for path in paths]), [path.stem for path in paths]


class ImageFolder:
    """A map-style data set of the images in a folder. See image_folder()."""

    def __init__(
        self,
        paths: list[Path],
        labels: list[int] | None,
        classes: list[str],
        size: tuple[int, int] | None,
        skipped: list[tuple[Path, str]],
    ) -> None:
        self.paths, self.labels, self.classes, self.size, self.skipped = paths, labels, classes, size, skipped

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = read_image(self.paths[index], self.size)
        return {"image": image} if self.labels is None else {"image": image, "label": self.labels[index]}


def image_folder(
    path: str | PathLike[str], size: int | tuple[int, int] | None = 224, *, check: bool = True
) -> ImageFolder:
    """The images of a folder: one sub-folder for each class (at any depth below it), or all in the folder itself.

    Args:
        path: of the folder.
        size: (height, width) in pixels to crop (centre) and resize to, or one number for both; None keeps each
            image's own size.
        check: read every image once now, so that those that cannot be read are left out, each with a warning that
            names it. False trusts the files: a bad one is then an error when its turn comes.

    Returns:
        A data set of {"image": (h, w, 3) uint8, "label": int}, without labels for a flat folder; ``.classes`` (sorted
        names), ``.paths``, ``.labels``, ``.skipped`` (path and reason of each image left out).

    Raises:
        MixError: if there is no such folder, no readable image in it, or both images and class folders.

    Example:
        >>> from pathlib import Path
        >>> import sklearn
        >>> data = image_folder(Path(sklearn.__file__).parent / "datasets" / "images", 32)
        >>> [p.name for p in data.paths], data[0]["image"].shape
        (['china.jpg', 'flower.jpg'], (32, 32, 3))
    """
    root, shape = Path(path), None if size is None else image_size("image_folder", size)
    if not root.is_dir():
        raise MixValueError(f"image_folder: {root} is no folder")
    groups = {
        folder.name: found for folder in sorted(root.iterdir()) if folder.is_dir() and (found := _images(folder, True))
    }
    flat = _images(root, False)
    if groups and flat:
        raise MixValueError(
            f"image_folder: {root} has class folders {list(groups)} and images beside them ({flat[0].name}): move one "
            "of them"
        )
    classes = list(groups)
    entries = [(p, label) for label, name in enumerate(classes) for p in groups[name]] or [(p, 0) for p in flat]
    skipped: list[tuple[Path, str]] = []
    kept = []
    for image, label in entries:
        reason = _unreadable(image) if check else None
        if reason is None:
            kept.append((image, label))
        else:
            skipped.append((image, reason))
            warnings.warn(f"image_folder: {image} cannot be read and is left out: {reason}", UserWarning, stacklevel=2)
    if not kept:
        raise MixValueError(
            f"image_folder: {root} has no readable image ({len(skipped)} unreadable); known are {sorted(SUFFIXES)}"
        )
    return ImageFolder([p for p, _ in kept], [label for _, label in kept] if classes else None, classes, shape, skipped)


def read_image(path: str | PathLike[str] | IO[bytes], size: tuple[int, int] | None = None) -> np.ndarray:
    """One image file, or an open one, as (h, w, 3) uint8, turned as its EXIF says.

    It is cropped to the middle and resized if size is given. Of 16 bits the upper 8 are taken, rounded.

    Raises:
        MixError: if the file is no image or broken, or holds floats or 32-bit numbers; the message names it.
        FileNotFoundError: if there is no such file.
    """
    _need("read_image", "PIL", "pillow")
    from PIL import Image, ImageOps

    with _named_errors(path), Image.open(path) as opened:
        image = in_bytes(ImageOps.exif_transpose(opened), opened.format).convert("RGB")
        if size is not None:
            # Area-averaging: no aliasing when a large photograph becomes a small one.
            image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BILINEAR)
        return np.array(image)


@contextmanager
def _named_errors(path: str | PathLike[str] | IO[bytes]) -> Iterator[None]:
    from PIL import Image

    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    # What PIL's readers raise for files that are cut off, garbled or no images; struct.error is a ValueError's cousin.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, Image.DecompressionBombError) as err:
        raise MixValueError(f"{path} cannot be read as an image: {err}") from err


def _unreadable(path: Path) -> str | None:
    try:
        read_image(path)
    except MixValueError as err:
        return str(err.__cause__ or err)
    except OSError as err:
        return str(err)
    return None


def _images(folder: Path, deep: bool) -> list[Path]:
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(p for p in found if p.suffix.lower() in SUFFIXES and p.is_file())


def image_size(owner: str, size: Any) -> tuple[int, int]:
    """(height, width), of one number or of two; a MixError that names the owner if it is neither."""
    pair = size if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or any(count(owner, "size", s) < 1 for s in pair):
        raise MixValueError(f"{owner}: size={size!r}, expected pixels or (height, width), 1 or more")
    return int(pair[0]), int(pair[1])


def _need(owner: str, module: str, package: str) -> None:
    if find_spec(module) is None:
        raise MixTypeError(
            f'{owner} needs {package}, which is not installed: pip install {package} (or "mixops[images]")'
        )
