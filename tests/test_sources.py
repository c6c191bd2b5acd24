"""Real data in: bundled images, folders with bad files in them, mapped arrays, data sets of other libraries."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mixops.pipelines import arrays, digits, from_huggingface, from_torchvision, image_folder, photographs, read_image
from PIL import Image
from real_peers import torchvision_schemas
from torch.utils.data import DataLoader

import mixops as mx


def save_image(path: Path, value: int, size: tuple[int, int] = (12, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def test_digits_are_scaled_to_the_range_of_bytes() -> None:
    images, labels = digits()
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert len(np.unique(images)) == 17
    assert np.array_equal(np.bincount(labels), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])


@pytest.mark.parametrize("size", [24, (20, 30)])
def test_photographs_have_the_size_asked_for_and_differ(size: Any) -> None:
    images, names = photographs(size)
    assert images.dtype == np.uint8
    assert images.shape == (len(names), *(size if isinstance(size, tuple) else (size, size)), 3)
    assert {"china", "astronaut"} <= set(names)
    assert len({image.tobytes() for image in images}) == len(names)


def test_class_folders_give_labels_in_the_order_of_their_names(tmp_path: Path) -> None:
    save_image(tmp_path / "dog" / "a.png", 10)
    save_image(tmp_path / "cat" / "deep" / "b.png", 20)
    save_image(tmp_path / "cat" / "a.PNG", 30)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    data = image_folder(tmp_path, 4)
    assert data.classes == ["cat", "dog"]
    assert [(s["image"][0, 0, 0], s["label"]) for s in (data[i] for i in range(3))] == [(30, 0), (20, 0), (10, 1)]
    assert data[0]["image"].shape == (4, 4, 3)
    assert data.skipped == []


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    save_image(tmp_path / "b.jpg", 90)
    save_image(tmp_path / "a.png", 30)
    data = image_folder(tmp_path, None)
    assert [p.name for p in data.paths] == ["a.png", "b.jpg"]
    assert data[0].keys() == {"image"}
    assert data[0]["image"].shape == (12, 8, 3)


def broken_files(folder: Path) -> list[str]:
    save_image(folder / "good.png", 1, (64, 64))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for name in ("cut.png", "cut.jpg", "garbled.png"):
        Image.fromarray(noise).save(folder / name)
        content = (folder / name).read_bytes()
        half = len(content) // 2
        (folder / name).write_bytes(
            content[:half] if "cut" in name else content[:half] + b"\0" * 400 + content[half + 400 :]
        )
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("this is no image")
    return ["cut.jpg", "cut.png", "empty.png", "garbled.png", "text.jpg"]


def test_unreadable_images_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    bad = broken_files(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = image_folder(tmp_path, 8)
    assert [path.name for path, _ in data.skipped] == bad
    assert all(reason for _, reason in data.skipped)
    named = [str(w.message) for w in caught]
    assert len(named) == len(bad)
    assert all(name in text for name, text in zip(bad, named, strict=True))
    assert [p.name for p in data.paths] == ["good.png"]
    assert data[0]["image"].shape == (8, 8, 3)


def test_an_unchecked_folder_names_the_bad_image_when_its_turn_comes(tmp_path: Path) -> None:
    bad = broken_files(tmp_path)
    data = image_folder(tmp_path, 8, check=False)
    assert len(data) == 6
    for i, path in enumerate(data.paths):
        if path.name in bad:
            with pytest.raises(mx.MixError, match=path.name):
                data[i]


def test_grey_transparent_and_turned_images_become_upright_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 6), 9, np.uint8)).save(tmp_path / "grey.png")
    Image.new("RGBA", (6, 4), (9, 9, 9, 5)).save(tmp_path / "clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    Image.new("RGB", (4, 6), (9, 9, 9)).save(tmp_path / "turned.png", exif=exif)
    for name in ("grey", "clear", "turned"):
        assert np.array_equal(read_image(tmp_path / f"{name}.png"), np.full((4, 6, 3), 9, np.uint8))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_grey_of_16_bits_keeps_its_shades_and_floats_are_refused(tmp_path: Path, ending: str) -> None:
    shades = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(shades).save(tmp_path / f"deep.{ending}")
    assert read_image(tmp_path / f"deep.{ending}")[0, :, 0].tolist() == [0, 1, 128, 255]
    with Image.open(tmp_path / f"deep.{ending}") as opened:
        assert from_torchvision([(opened, 3)])[0]["image"][0, :, 0].tolist() == [0, 1, 128, 255]
    Image.fromarray(shades.astype(np.float32)).save(tmp_path / "floats.tif")
    with pytest.raises(mx.MixError, match="of mode F, whose range is not known"):
        read_image(tmp_path / "floats.tif")


def test_folders_that_make_no_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(mx.MixError, match="no readable image"):
        image_folder(tmp_path)
    with pytest.raises(mx.MixError, match="is no folder"):
        image_folder(tmp_path / "nowhere")
    save_image(tmp_path / "a" / "a.png", 1)
    save_image(tmp_path / "stray.png", 1)
    with pytest.raises(mx.MixError, match=r"stray\.png"):
        image_folder(tmp_path)
    for size in (0, (1, 2, 3), "8", 2.5):
        with pytest.raises(mx.MixError, match="size="):
            image_folder(tmp_path / "a", size)  # type: ignore[arg-type]


@pytest.mark.parametrize("saver", [np.savez, np.savez_compressed])
@given(
    x=hnp.arrays(
        st.sampled_from([np.uint8, np.float32, np.int64]), hnp.array_shapes(min_dims=1, max_dims=3, min_side=0)
    ),
    fortran=st.booleans(),
)
def test_files_give_back_what_was_saved(saver: Any, x: np.ndarray, fortran: bool, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("arrays")
    x = np.asfortranarray(x) if fortran else x
    np.save(folder / "x.npy", x)
    saver(folder / "d.npz", other=np.arange(7), x=x, y=np.arange(len(x)))
    data = arrays(x=folder / "x.npy", y=(str(folder / "d.npz"), "y"), z=(folder / "d.npz", "x"))
    assert len(data) == len(x)
    for i in range(len(x)):
        assert np.array_equal(data[i]["x"], x[i], equal_nan=True)
        assert np.array_equal(data[i]["z"], x[i], equal_nan=True)
        assert data[i]["y"] == i


def test_plain_and_stored_files_are_mapped_and_compressed_ones_loaded(tmp_path: Path) -> None:
    x = np.arange(12.0).reshape(6, 2)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "s.npz", x=x)
    np.savez_compressed(tmp_path / "c.npz", x=x)
    data = arrays(n=tmp_path / "x.npy", s=(tmp_path / "s.npz", "x"), c=(tmp_path / "c.npz", "x"))
    mapped = {name: isinstance(array, np.memmap) for name, array in data.fields.items()}
    assert mapped == {"n": True, "s": True, "c": False}
    assert not any(data.fields[name].flags.writeable for name in ("n", "s"))
    sample = data[2]
    sample["n"][:] = -1  # a copy: the file is not touched
    assert np.array_equal(np.load(tmp_path / "x.npy"), x)


def test_mapped_data_sets_pickle_as_paths(tmp_path: Path) -> None:
    x = np.arange(200_000)
    np.save(tmp_path / "x.npy", x)
    data = arrays(x=tmp_path / "x.npy")
    packed = pickle.dumps(data)
    assert len(packed) < 1000
    assert pickle.loads(packed)[7] == data[7]
    batches = list(DataLoader(data, 100_000, num_workers=1, multiprocessing_context="fork"))
    assert np.array_equal(np.concatenate([b["x"].numpy() for b in batches]), x)


def test_bad_arrays_are_refused_with_their_name(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'for")
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "short.npy", np.arange(1000))
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:500])
    np.savez(tmp_path / "d.npz", y=np.arange(3))
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "got nothing"),
        ({"x": np.arange(3), "y": np.arange(4)}, "'x': 3, 'y': 4"),
        ({"x": 3}, "single number"),
        ({"x": np.array([{}])}, "Python objects"),
        ({"x": tmp_path / "d.npz"}, r"no member 'x'.*\['y'\]"),
        ({"x": tmp_path / "data.csv"}, r"no \.npy or \.npz"),
    ]
    cases += [({"x": path}, path.name) for path in sorted(tmp_path.glob("*.np[yz]")) if path.stem != "d"]
    assert len(cases) == 12
    for fields, message in cases:
        with pytest.raises(mx.MixError, match=message):
            arrays(**fields)
    with pytest.raises(FileNotFoundError):
        arrays(x=tmp_path / "nowhere.npy")


def test_torchvision_data_sets_become_dicts_of_arrays() -> None:
    torchvision_schemas()
    from torchvision.datasets import FakeData

    data = from_torchvision(FakeData(5, (3, 6, 8), 10))
    assert len(data) == 5
    sample = data[2]
    assert sample["image"].shape == (6, 8, 3)
    assert sample["image"].dtype == np.uint8
    assert sample["label"] == FakeData(5, (3, 6, 8), 10)[2][1]
    grey = from_torchvision([(Image.new("L", (8, 6), 7), 1)])
    assert np.array_equal(grey[0]["image"], np.full((6, 8, 1), 7))
    with pytest.raises(mx.MixError, match="2 entries"):
        from_torchvision([(1, 2)], ("a", "b", "c"))[0]
    with pytest.raises(mx.MixError, match="map-style"):
        from_torchvision(iter([(1, 2)]))


def test_hugging_face_data_sets_become_dicts_of_arrays() -> None:
    pictures = [Image.new("RGB", (8, 6), (i, i, i)) for i in range(4)]
    table = datasets.Dataset.from_dict(
        {"img": pictures, "label": [3, 2, 1, 0], "id": list("abcd")},
        features=datasets.Features(
            {"img": datasets.Image(), "label": datasets.Value("int64"), "id": datasets.Value("string")}
        ),
    )
    data = from_huggingface(table, {"img": "image", "label": "label"})
    batch = data.__getitems__([3, 1])
    assert [(s["image"][0, 0].tolist(), s["label"]) for s in batch] == [([3, 3, 3], 0), ([1, 1, 1], 2)]
    assert data[0].keys() == {"image", "label"}
    assert from_huggingface(table, ["id"])[1] == {"id": "b"}
    with pytest.raises(mx.MixError, match=r"no column 'y'.*'img'"):
        from_huggingface(table, ["y"])
    with pytest.raises(mx.MixError, match="train"):
        from_huggingface(datasets.DatasetDict({"train": table}), ["id"])
