"""Networks whose outputs have a size that depends on the data: detectors with their NMS, NonZero, and their kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

Edgec = Callable[..., tuple[int, str, str]]
RUN = ("model.onnx", "-O", "compress.yaml", "-q", "--no-timing", "-o", "out")
RECIPE = """\
data: {{calibration: {{arrays: data.npz}}}}
passes: {passes}
targets: [{target}]
"""
BACKBONE = "c = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w1) r = Relu(c) "
TAILS = {
    "NonZero": ("y = NonZero(r)", "int64[4,n] y"),
    "Compress": ("f = Reshape(r, all) g = Greater(f, half) y = Compress(f, g)", "float[n] y"),
    "Unique": ("f = Reshape(r, all) t = Round(f) y = Unique(t)", "float[n] y"),
    "TopK": (
        "f = Reshape(r, all) g = Greater(f, half) i = Cast<to=7>(g) k = ReduceSum<keepdims=1>(i) y, p = TopK(f, k)",
        "float[n] y, int64[n] p",
    ),
    "NonMaxSuppression": (
        "f = Reshape(r, heads) t = Transpose<perm=[0,2,1]>(f) b, s = Split<axis=2>(t, parts) boxes = Sigmoid(b) "
        "q = Transpose<perm=[0,2,1]>(s) scores = Sigmoid(q) y = NonMaxSuppression(boxes, scores, most, iou, least)",
        "int64[n,3] y, float[1,64,4] boxes",
    ),
}


def network(kind: str) -> onnx.ModelProto:
    """The tail of a kind behind a convolution of 3x16x16."""
    tail, outputs = TAILS[kind]
    random = np.random.default_rng(0)
    weights = {
        "w1": (random.normal(size=(16, 3, 3, 3)) / 5).astype(np.float32),
        "all": np.array([-1], np.int64), "half": np.array(0.5, np.float32), "heads": np.array([1, 16, 64], np.int64),
        "parts": np.array([4, 12], np.int64), "most": np.array([10], np.int64), "iou": np.array([0.5], np.float32),
        "least": np.array([0.75], np.float32),
    }  # fmt: skip
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,3,16,16] x) => ({outputs}) {{ {BACKBONE}{tail} }}"""
    model = onnx.parser.parse_model(text)
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in weights.items() if k in read)
    return model


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], Path]:
    def make(kind: str, passes: str, target: str) -> Path:
        onnx.save(network(kind), tmp_path / "model.onnx")
        random = np.random.default_rng(1)
        np.savez(tmp_path / "data.npz", x=random.normal(size=(40, 3, 16, 16)).astype(np.float32))
        (tmp_path / "compress.yaml").write_text(RECIPE.format(passes=passes, target=target))
        return tmp_path

    monkeypatch.chdir(tmp_path)
    return make


def outputs_of(path: Path, samples: np.ndarray) -> list[list[np.ndarray]]:
    session = ort.InferenceSession(str(path))
    return [session.run(None, {"x": sample[None]}) for sample in samples]


@pytest.mark.parametrize("kind", TAILS)
def test_an_exact_pass_gives_the_same_shapes_and_values(
    kind: str, detector: Callable[[str, str, str], Path], edgec: Edgec
) -> None:
    folder = detector(kind, "[fold]", "cpu")
    status, _, err = edgec(*RUN)
    assert (status, err) == (0, "")
    unseen = np.random.default_rng(2).normal(size=(6, 3, 16, 16)).astype(np.float32)
    before = outputs_of(folder / "model.onnx", unseen)
    assert len({tuple(v.shape for v in run) for run in before}) > 1, "the sizes do not depend on the data"
    for one, other in zip(before, outputs_of(folder / "out" / "cpu" / "model.onnx", unseen), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    check = json.loads((folder / "out" / "cpu" / "check.json").read_text())
    assert check["other_shape_in_runs"] == {}
