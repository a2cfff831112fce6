"""The programs of a board's folder, imported here: pictures in, results out."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgec.backends.on_board import pictures, results
from edgec.frontends.preprocess import Preprocess
from edgec.frontends.recipe_data import PreprocessSpec

FOLDER = Path(__file__).parents[2] / "backends" / "on_board"
HOW: dict[str, Any] = {
    "kind": "boxes", "output": "y", "labels": ["cat", "dog"], "confidence": 0.5, "overlap": 0.45, "top": 2,
    "logits": False, "form": "centres", "channels_first": True, "input_size": [64, 64], "strides": [8, 16, 32],
}  # fmt: skip
HERE = np.array([1.0, 1.0, 0.0, 0.0])


def photo(height: int = 131, width: int = 173) -> np.ndarray:
    """Something smooth with edges."""
    small = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [[64, 64], [50, 120], [200, 180], [131, 173]])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("kind", ["nearest", "bilinear", "bicubic", "area", "lanczos"])
def test_sizes_change_as_pillow_changes_them(size: list[int], fit: str, kind: str) -> None:
    spec = PreprocessSpec.model_validate(
        {"size": size, "fit": fit, "resize": kind, "color": "bgr", "scale": 2, "mean": 7}
    )
    preprocess = Preprocess(spec)
    scale, offset = preprocess.affine()
    how = {"size": size, "fit": fit, "resize": kind, "color": "bgr", "layout": "nchw"}
    x, _ = pictures.entered(photo(), {**how, "scale": scale.tolist(), "offset": offset.tolist()})
    apart = np.abs(x - preprocess(photo())) / 2
    # Pillow weighs in fixed point: where two pixels share the weight, it may take the other one.
    assert np.mean(apart > 1.01) < 0.01 and apart.max() <= 6


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P"])
@pytest.mark.parametrize("suffix", [".png", ".ppm", ".bmp"])
def test_files_are_read_as_pillow_reads_them(mode: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    picture = Image.fromarray(photo()).convert(mode if suffix == ".png" else "RGB")
    picture.save(path)
    np.testing.assert_array_equal(pictures.read(path), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("cut", [4, 30, 60, 400])
@pytest.mark.parametrize("suffix", [".png", ".ppm"])
def test_files_that_are_cut_short(cut: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    Image.fromarray(photo()).save(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(pictures.PictureError, match=f"x\\{suffix}: "):
        pictures.read(path)


def test_a_place_in_the_input_comes_back() -> None:
    how = {
        "size": [64, 64],
        "fit": "pad",
        "resize": "nearest",
        "color": "rgb",
        "layout": "nchw",
        "scale": [1],
        "offset": [0],
    }
    wide = np.zeros((50, 100, 3), np.uint8)
    wide[20:30, 40:60] = 255
    x, back = pictures.entered(wide, how)
    rows, columns = np.nonzero(x[0])
    corners = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    np.testing.assert_allclose(corners * np.tile(back[:2], 2) + np.tile(back[2:], 2), [40, 20, 60, 30], atol=1.6)


def centres(*boxes: tuple[float, ...]) -> np.ndarray:
    """[1, 6, anchors] of (x, y, width, height, cat, dog)."""
    return np.array(boxes, np.float32).T[np.newaxis]


def test_boxes_of_centres() -> None:
    x = centres(
        (30, 20, 20, 10, 0.9, 0.1), (31, 20, 20, 10, 0.8, 0.0), (31, 20, 20, 10, 0.0, 0.7), (5, 5, 4, 4, 0.4, 0)
    )
    said = results.decoded({"y": x}, HOW, np.array([2.0, 1.0, 10.0, 0.0]))
    assert [one["name"] for one in said] == ["cat", "dog"]
    np.testing.assert_allclose(
        [said[0][key] for key in ("x1", "y1", "x2", "y2", "score")], [50, 15, 90, 25, 0.9], rtol=1e-6
    )
    assert results.line(said, "boxes").startswith("cat 0.90 at 50,15 to 90,25; dog 0.70")
    assert results.rows("a.png", said, "boxes")[1][:3] == ["a.png", 2, "dog"]


def test_boxes_of_objects_and_of_corners() -> None:
    rows = np.array([[30, 20, 20, 10, 0.8, 0.9, 0.1], [30, 20, 20, 10, 0.4, 0.9, 0.1]], np.float32)[np.newaxis]
    said = results.decoded({"y": rows}, {**HOW, "form": "objects", "channels_first": False}, HERE)
    assert [(one["name"], round(one["score"], 2), one["x1"]) for one in said] == [("cat", 0.72, 20.0)]
    chosen = np.array([[1, 2, 3, 4, 0.9, 1], [1, 2, 3, 4, 0.8, 1], [0, 0, 0, 0, 0.1, 0]], np.float32)[np.newaxis]
    said = results.decoded({"y": chosen}, {**HOW, "form": "corners", "channels_first": False}, HERE)
    assert [one["name"] for one in said] == ["dog", "dog"]  # the network chose already


def test_boxes_of_a_grid() -> None:
    rows = np.full((1, 84, 7), -5, np.float32)
    rows[..., 4:] = 0
    rows[0, 64 + 6] = [0.5, 0.25, 0.0, np.log(2), 0.9, 0.0, 1.0]  # of stride 16, column 2 of row 1
    said = results.decoded({"y": rows}, {**HOW, "form": "grid", "channels_first": False}, HERE)
    corners = [said[0][key] for key in ("x1", "y1", "x2", "y2")]
    np.testing.assert_allclose(corners, [40 - 8, 20 - 16, 40 + 8, 20 + 16], rtol=1e-6)
    assert (said[0]["name"], round(said[0]["score"], 2)) == ("dog", 0.9)


def test_overlapping_boxes_of_one_class() -> None:
    corners = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 10]], float)
    assert results.apart(corners, np.array([0, 0, 0, 1]), 0.5) == [0, 2, 3]
    assert results.apart(corners, np.array([0, 0, 0, 1]), 0.9) == [0, 1, 2, 3]


def test_classes_masks_and_scores() -> None:
    how = {**HOW, "kind": "classes"}
    assert [one["name"] for one in results.decoded({"y": np.array([[0.2, 0.8]])}, how, HERE)] == ["dog", "cat"]
    logits = results.decoded({"y": np.array([[0.0, np.log(3)]])}, {**how, "logits": True}, HERE)
    assert results.line(logits, "classes") == "dog 0.750, cat 0.250"
    mask = np.zeros((1, 2, 2, 2))
    mask[0, 1, 0] = 1
    mask[0, 0, 1, 0] = 1
    said = results.decoded({"y": mask}, {**how, "kind": "mask"}, HERE)
    assert {one["name"]: one["score"] for one in said} == {"dog": 0.5, "cat": 0.5}
    score = results.decoded({"y": np.ones((1, 3))}, {**how, "kind": "score"}, HERE, np.zeros((3,)))
    assert results.line(score, "score") == "1"


@pytest.mark.parametrize("name", ["pictures.py", "results.py", "run.py"])
def test_it_is_python_3_6_and_needs_numpy_alone(name: str) -> None:
    source = (FOLDER / name).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    tree = ast.parse(source).body
    imported = {alias.name.split(".")[0] for node in tree if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in tree if isinstance(node, ast.ImportFrom)}
    standard = {
        "argparse",
        "csv",
        "hashlib",
        "importlib",
        "json",
        "pathlib",
        "platform",
        "struct",
        "sys",
        "time",
        "typing",
        "zlib",
    }
    assert imported <= standard | {"numpy"}


def test_boxes_of_a_map() -> None:
    """Two words, one of them bent, and a speck that is too unlikely."""
    likely = np.zeros((1, 1, 32, 64), np.float32)
    likely[..., 4:8, 10:30] = 0.9
    likely[..., 20:24, 40:44] = 0.8
    likely[..., 22:28, 44:48] = 0.8
    likely[..., 30, 2] = 0.4
    how = {**HOW, "form": "map", "labels": ["text"], "input_size": [64, 128]}
    said = results.decoded({"y": likely}, how, HERE)
    assert [(one["name"], round(one["score"], 1)) for one in said] == [("text", 0.9), ("text", 0.8)]
    growth = 1.5 * 20 * 4 / 48
    np.testing.assert_allclose(
        [said[0][key] / 2 for key in ("x1", "y1", "x2", "y2")], [10 - growth, 4 - growth, 30 + growth, 8 + growth]
    )
    assert said[1]["x1"] / 2 < 40 and said[1]["y2"] / 2 > 28


def test_regions_that_meet_below_are_one() -> None:
    """Two arms of a U belong together, though its first rows do not say so."""
    likely = np.zeros((6, 9))
    likely[:, [1, 7]] = 1
    likely[5, 1:8] = 1
    corners, scores = results.regions(likely, 0.5)
    assert len(corners) == 1 and scores.tolist() == [1.0]
