"""Files that a user may have: models, and folders of small images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import from_array
from PIL import Image

Save = Callable[..., Path]


@pytest.fixture
def save_image(tmp_path: Path) -> Save:
    """Writes an image of the given pixels under the test's folder."""

    def save(name: str, pixels: np.ndarray, **options: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)
        return path

    return save


@pytest.fixture
def folder_of_images(tmp_path: Path, save_image: Save) -> Path:
    """``images/00.png`` to ``images/09.png``, gray, 6x4, every pixel the image's number."""
    for index in range(10):
        save_image(f"images/{index:02}.png", np.full((6, 4), index, np.uint8))
    return tmp_path / "images"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's folder as the working folder, so that messages name short paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(tmp_path: Path) -> Save:
    """Writes a model of onnx.parser's text, with the weights given, as ``model.onnx``."""

    def write(body: str, opset: str = '"" : 17', rest: str = "", **weights: np.ndarray) -> Path:
        text = f"<ir_version: 8, opset_import: [{opset}]> g {body} {rest}"
        model = onnx.parser.parse_model(text)
        model.graph.initializer.extend(from_array(values, name) for name, values in weights.items())
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return path

    return write
