"""A small real job: an autoencoder of a few hundred weights, a folder of images, a recipe."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image
from refusals import ARGUMENTS, Edgec

import edgec

RECIPE = """\
data:
  preprocess: {size: [16, 16], color: gray, scale: 1/255}
  calibration: {images: good}
  eval: {ok: good, ng: [bad], metric: auroc}
passes:
  - fold
  - normalize
  - factorize: {energy: 0.999}
  - quantize
targets: [cpu, coral-dev-board]
"""


def autoencoder(seed: int = 0) -> onnx.ModelProto:
    """Conv (stride 2), BatchNormalization, Relu, ConvTranspose, Sigmoid on 1x1x16x16."""
    random = np.random.default_rng(seed)

    def weight(name: str, *shape: int, scale: float = 0.3) -> onnx.TensorProto:
        return numpy_helper.from_array((random.standard_normal(shape) * scale).astype(np.float32), name)

    def ones(name: str, size: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.ones(size, np.float32), name)

    nodes = [
        helper.make_node(
            "Conv", ["image", "encoder.weight", "encoder.bias"], ["e"], "encoder", strides=[2, 2], pads=[1] * 4
        ),
        helper.make_node("BatchNormalization", ["e", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["n"], "bn"),
        helper.make_node("Relu", ["n"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "middle.weight", "middle.bias"], ["m"], "middle", pads=[1] * 4),
        helper.make_node("Relu", ["m"], ["s"], "relu2"),
        helper.make_node(
            "ConvTranspose", ["s", "decoder.weight", "decoder.bias"], ["d"], "decoder", strides=[2, 2], pads=[1] * 4
        ),
        helper.make_node("Sigmoid", ["d"], ["reconstruction"], "sigmoid"),
    ]
    weights = [
        weight("encoder.weight", 8, 1, 3, 3), weight("encoder.bias", 8),
        ones("bn.scale", 8), weight("bn.bias", 8), weight("bn.mean", 8), ones("bn.var", 8),
        weight("middle.weight", 8, 8, 3, 3, scale=0.15), weight("middle.bias", 8),
        weight("decoder.weight", 8, 1, 4, 4), weight("decoder.bias", 1),
    ]  # fmt: skip
    shape = [1, 1, 16, 16]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", 1, shape)],
        [helper.make_tensor_value_info("reconstruction", 1, shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.onnx, compress.yaml and images, which is the current folder."""
    write_job(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_job(tmp_path: Path) -> None:
    """Writes model.onnx, compress.yaml and images into a folder."""
    random = np.random.default_rng(1)
    for kind, level in (("good", 90), ("bad", 160)):
        (tmp_path / kind).mkdir()
        for index in range(6):
            pixels = np.clip(level + 40 * random.standard_normal((16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / kind / f"{index}.png")
    onnx.save(autoencoder(), tmp_path / "model.onnx")
    (tmp_path / "compress.yaml").write_text(RECIPE)


@pytest.fixture(scope="session")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The job with its output in ``out``; not to be changed."""
    folder = tmp_path_factory.mktemp("compiled")
    write_job(folder)
    edgec.compile(folder / "model.onnx", folder / "compress.yaml", folder / "out", timing=False)
    return folder


@pytest.fixture
def compiled(compiled_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the job with its output in ``out``, which is the current folder."""
    shutil.copytree(compiled_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def earlier(job: Path, edgec: Edgec) -> Path:
    """The job with an output already there."""
    assert edgec(*ARGUMENTS)[0] == 0
    return job
