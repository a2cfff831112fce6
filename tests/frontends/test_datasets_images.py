"""Folders of images: what is read, in which order, when, and what is said where the model takes another shape."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgec.frontends.datasets import open_dataset
from edgec.frontends.preprocess import Preprocess
from edgec.frontends.recipe_data import DataSpec, PreprocessSpec
from edgec.ir.errors import EdgecError, InputError, UsageError

GRAY = {"color": "gray"}
INPUTS = {"image": ((1, 1, 6, 4), np.dtype(np.float32))}


def opened(data: dict, preprocess: dict | None = None, inputs: dict | None = None):
    spec = DataSpec.model_validate(data)
    spec.located("c.yaml: line 3: data.train", Path())
    return open_dataset(spec, PreprocessSpec.model_validate(preprocess or GRAY), inputs or INPUTS)


def numbers(data, size: int = 3) -> list[int]:
    return [int(x[0, 0, 0]) for batch in data.batches(size) for x in batch["image"]]


def test_batches_are_in_order_and_the_last_is_short(here: Path, folder_of_images: Path) -> None:
    data = opened({"images": [Path("images")]})
    shapes = [batch["image"].shape for batch in data.batches(4)]
    assert shapes == [(4, 1, 6, 4), (4, 1, 6, 4), (2, 1, 6, 4)]
    assert (len(data), numbers(data), data.labels) == (10, list(range(10)), None)
    assert (data.source, data.names[9]) == ("images", "images/09.png")
    assert numbers(data) == numbers(data, 1) == list(range(10)), "a second reading is the same"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images that have been decoded so far."""
    found: list[Path] = []
    original = Preprocess.raw

    def counting(self: Preprocess, image: Path) -> np.ndarray:
        found.append(image)
        return original(self, image)

    monkeypatch.setattr(Preprocess, "raw", counting)
    return found


@pytest.mark.parametrize("memory", [0, 50, 1 << 20])
def test_each_image_is_decoded_once(
    memory: int, folder_of_images: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgec.frontends.sample_store._MEMORY_BYTES", memory)
    data = opened({"images": [folder_of_images]})
    assert numbers(data) == numbers(data, 4) == list(range(10))
    assert numbers(data.subset([2, 5])) == [2, 5]
    assert len(decoded) == 10


def test_some_samples_by_their_indices(folder_of_images: Path, decoded: list[Path]) -> None:
    data = opened({"images": [folder_of_images]})
    batches = list(data.batches(2, [1, 4, 8]))
    assert [batch["image"][:, 0, 0, 0].tolist() for batch in batches] == [[1, 4], [8]]
    assert len(decoded) == 3


def test_samples_are_spread_evenly_and_always_the_same(folder_of_images: Path) -> None:
    assert numbers(opened({"images": [folder_of_images], "samples": 4})) == [0, 2, 5, 7]
    assert numbers(opened({"images": [folder_of_images], "samples": 99})) == list(range(10))


def test_the_order_is_that_of_the_posix_paths_whatever_wrote_them(here: Path, save_image) -> None:
    names = ["b/1.png", "a.png", "b.png", "a/2.PNG", "a/10.png", "B.png"]
    for name in names:
        save_image(f"x/{name}", np.zeros((6, 4), np.uint8))
    Path("x/.hidden.png").write_bytes(b"")
    Path("x/notes.txt").write_text("no image")
    assert opened({"images": [Path("x")]}).names == [
        "x/B.png", "x/a.png", "x/a/10.png", "x/a/2.PNG", "x/b.png", "x/b/1.png",
    ]  # fmt: skip


def test_links_are_followed_and_a_loop_of_links_ends(here: Path, folder_of_images: Path) -> None:
    Path("x").mkdir()
    Path("x/to").symlink_to(folder_of_images)
    (folder_of_images / "back").symlink_to(Path("x").resolve())
    assert len(opened({"images": [Path("x")]})) == 10


def test_nothing_is_decoded_before_a_batch_asks(folder_of_images: Path, decoded: list[Path]) -> None:
    data = opened({"images": [folder_of_images]})
    batches = data.batches(3)
    assert decoded == []
    next(batches)
    assert len(decoded) == 3
    next(batches)
    assert len(decoded) == 6


def test_several_folders_follow_one_another(here: Path, folder_of_images: Path) -> None:
    shutil.copytree("images", "a")
    data = opened({"images": [Path("images"), Path("a")], "samples": 4})
    assert data.names == ["images/00.png", "images/05.png", "a/00.png", "a/05.png"]
    assert data.source == "images, a"


def test_an_image_under_two_of_the_folders(here: Path, save_image) -> None:
    save_image("x/y/1.png", np.zeros((6, 4), np.uint8))
    with pytest.raises(UsageError) as caught:
        opened({"images": [Path("x"), Path("x/y")]})
    assert str(caught.value) == (
        "c.yaml: line 3: data.train: 'x/y/1.png' lies under two of the folders; name the outer one only"
    )


def test_the_hash_follows_names_content_and_choice(here: Path, folder_of_images: Path) -> None:
    first = opened({"images": [Path("images")]}).content_hash()
    assert first == opened({"images": [folder_of_images]}).content_hash(), "the folder's own place does not count"
    assert first != opened({"images": [Path("images")], "samples": 5}).content_hash()
    Path("images/09.png").rename("images/10.png")
    renamed = opened({"images": [Path("images")]}).content_hash()
    shutil.copy("images/00.png", "images/10.png")
    assert len({first, renamed, opened({"images": [Path("images")]}).content_hash()}) == 3


def test_dtypes_follow_the_model(folder_of_images: Path) -> None:
    for name in ("float32", "float16", "float64", "uint8"):
        data = opened({"images": [folder_of_images]}, inputs={"image": ((None, 1, 6, 4), np.dtype(name))})
        assert next(iter(data.batches(1)))["image"].dtype == np.dtype(name)


F32 = np.dtype(np.float32)
MISMATCHES = [
    (
        {"color": "gray", "size": [128, 128]},
        {"image": ((1, 3, 128, 128), F32)},
        "images come out as 1x128x128 (gray, size 128x128) but the model's input 'image' takes 3x128x128;"
        " set color: rgb",
    ),
    (
        {"size": [100, 90]},
        {"image": ((1, 1, 128, 96), F32)},
        "images come out as 3x100x90 (rgb, size 100x90) but the model's input 'image' takes 1x128x96;"
        " set color: gray and size: [128, 96]",
    ),
    (
        {"size": [128, 96], "color": "bgr"},
        {"image": ((1, 128, 96, 3), F32)},
        "images come out as 3x128x96 (bgr, size 128x96) but the model's input 'image' takes 128x96x3;"
        " set layout: nhwc",
    ),
    (
        {"layout": "nhwc"},
        {"image": ((1, 3, 128, 96), F32)},
        "images come out as ?x?x3 (rgb, own size, nhwc) but the model's input 'image' takes 3x128x96;"
        " set layout: nchw",
    ),
    (
        {"size": [8, 8]},
        {"image": ((1, 64), F32)},
        "images come out as 3x8x8 (rgb, size 8x8) but the model's input 'image' takes 64;"
        " use arrays: FILE.npz, which are fed as they are",
    ),
    (
        {"size": [8, 8]},
        {"image": ((1, 4, 8, 8), F32)},
        "images come out as 3x8x8 (rgb, size 8x8) but the model's input 'image' takes 4x8x8;"
        " use arrays: FILE.npz, which are fed as they are",
    ),
    (
        {"input": "imge"},
        {"image": ((1, 3, 8, 8), F32)},
        "data.preprocess.input is 'imge', and the model has no such input; its inputs are 'image'."
        " Did you mean 'image'?",
    ),
    (
        {},
        {"a": ((1, 3, 8, 8), F32), "b": ((1, 3), F32)},
        "images feed one input, and the model has 2 ('a', 'b'); use arrays or python, which feed them all",
    ),
    (
        {},
        {"image": ((1, 3, 8, 8), np.dtype(np.int64))},
        "the model's input 'image' takes int64, which no image gives; use arrays: FILE.npz",
    ),
    (
        {"scale": 0.5},
        {"image": ((1, 3, 8, 8), np.dtype(np.uint8))},
        "the model's input 'image' takes uint8 pixels, and data.preprocess changes their scale;"
        " leave out scale, mean and std",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("preprocess", "inputs", "message"), MISMATCHES, ids=range(len(MISMATCHES)))
def test_preprocessing_that_does_not_fit_the_model(
    folder_of_images: Path, preprocess: dict, inputs: dict, message: str
) -> None:
    spec = DataSpec.model_validate({"images": [folder_of_images]})
    spec.located("compress.yaml: line 3: data.calibration", Path())
    with pytest.raises(UsageError) as caught:
        open_dataset(spec, PreprocessSpec.model_validate(preprocess), inputs)
    assert str(caught.value) == f"compress.yaml: line 3: data.calibration: {message}"


def test_an_image_of_another_shape(here: Path, folder_of_images: Path, save_image) -> None:
    save_image("images/05.png", np.zeros((7, 5), np.uint8))
    with pytest.raises(InputError) as caught:
        numbers(opened({"images": [Path("images")]}))
    assert str(caught.value) == (
        "images/05.png: comes out as 1x7x5, but the model's input 'image' takes 1x6x4;"
        " set size: [6, 4] in data.preprocess"
    )


def test_a_folder_that_may_not_be_listed(
    here: Path, folder_of_images: Path, save_image, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_image("images/inner/1.png", np.zeros((6, 4), np.uint8))
    listed = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("inner"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(InputError) as caught:
        opened({"images": [Path("images")]})
    assert str(caught.value) == "images/inner: cannot be read (Permission denied); check its permissions"
    monkeypatch.setattr(os, "scandir", lambda path: refusing("inner"))
    with pytest.raises(InputError) as caught:
        opened({"images": [Path("images")]})
    assert str(caught.value) == (
        "c.yaml: line 3: data.train: 'images': cannot be read (Permission denied); check its permissions"
    )


def test_a_folder_that_went_away(here: Path) -> None:
    with pytest.raises(InputError) as caught:
        opened({"images": [Path("images")]})
    assert str(caught.value) == (
        "c.yaml: line 3: data.train: 'images': there is no such folder; correct the path; it is relative to the recipe"
    )


LABELS = [
    ("y.csv", "00.png,0\n", "y.csv: has no label for '01.png'; add '01.png' and its label"),
    (
        "y.csv", "file,label\n00.png,cat\n",
        "y.csv: line 2: the label 'cat' is not a number; write the position of the class, from 0",
    ),
    ("y.csv", "00.png\n", "y.csv: line 1: holds no label; write lines of file,label"),
    ("y.csv", "00.png,1\n00.png,2\n", "y.csv: line 2: '00.png' has two labels; keep one of them"),
    ("y.csv", "00.png,1\n01.png,1,2\n", "y.csv: '01.png' has 2 values where others have 1; give each as many"),
    (
        "y.csv", "00.png,1\n01.png,nan\n",
        "y.csv: line 2: the label 'nan' is not a number; write the position of the class, from 0",
    ),
    ("y.json", "[1]", 'y.json: is not a mapping; write {"file": label, ...}'),
    ("y.json", "{", "y.json: line 1: is not JSON (Expecting property name enclosed in double quotes); fix it there"),
    ("y.json", '{"00.png": true}', "y.json: '00.png': the label true is not a number; write a number"),
    ("y.json", '{"00.png": []}', "y.json: '00.png': the label [] is not a number; write a number"),
    ("y.json", b"\xff", "y.json: is not UTF-8 text; save it as UTF-8"),
    ("y.json", None, "y.json: cannot be read (No such file or directory); check the path"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "message"), LABELS, ids=range(len(LABELS)))
def test_labels_that_cannot_be_used(
    here: Path, folder_of_images: Path, name: str, text: str | bytes | None, message: str
) -> None:
    if text is not None:
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(EdgecError) as caught:
        opened({"images": [Path("images")], "labels": Path(name)})
    assert str(caught.value) == message
    assert caught.value.exit_status == 3


def test_labels_from_files(here: Path, folder_of_images: Path) -> None:
    rows = [f"{index:02}.png, {9 - index}" for index in range(10)]
    Path("y.csv").write_text("\ufefffile,label\r\n" + "\r\n".join(rows) + "\r\nunused.png,4\r\n")
    data = opened({"images": [Path("images")], "labels": Path("y.csv"), "samples": 5})
    assert data.labels is not None
    assert (data.labels.tolist(), data.labels.dtype) == ([9, 7, 5, 3, 1], np.int64)
    Path("y.json").write_text(json.dumps({f"{index:02}.png": [index, 0.5] for index in range(10)}))
    labels = opened({"images": [Path("images")], "labels": Path("y.json")}).labels
    assert labels is not None
    assert (labels.shape, labels.dtype, labels[3].tolist()) == ((10, 2), np.float64, [3.0, 0.5])


def test_labels_from_folders(here: Path, save_image) -> None:
    for name in ("dog/1.png", "cat/a/1.png", "cat/2.png"):
        save_image(f"x/{name}", np.zeros((6, 4), np.uint8))
    Path("x/ant").mkdir()
    Path("x/.cache").mkdir()
    data = opened({"images": [Path("x")], "labels": "folders"})
    assert data.labels is not None
    assert dict(zip(data.names, data.labels.tolist(), strict=True)) == {
        "x/cat/2.png": 1, "x/cat/a/1.png": 1, "x/dog/1.png": 2,
    }  # fmt: skip
    save_image("x/0.png", np.zeros((6, 4), np.uint8))
    with pytest.raises(InputError) as caught:
        opened({"images": [Path("x")], "labels": "folders"})
    assert str(caught.value) == (
        "x/0.png: lies in no class's folder, and labels: folders; move it into the folder of its class"
    )


def test_a_pipe_among_the_images(folder_of_images: Path) -> None:
    os.mkfifo(folder_of_images / "05b.png")
    with pytest.raises(InputError) as caught:
        list(opened({"images": [folder_of_images]}).batches(4))
    assert str(caught.value) == f"{folder_of_images / '05b.png'}: is a pipe, not an image; take it out of the folder"
