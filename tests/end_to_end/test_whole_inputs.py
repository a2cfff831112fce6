"""Networks whose inputs have no batch in front, from data to what is emitted: a state, an image alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.numpy_helper import from_array

Edgec = Callable[..., tuple[int, str, str]]


def save(body: str, **weights: np.ndarray) -> None:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {body}')
    model.graph.initializer.extend(from_array(values, name) for name, values in weights.items())
    onnx.save(model, "model.onnx")


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network with a state of 2x1x8 and a rate, and 40 samples."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    save(
        """(float[B,16] x, float[2,B,8] h, int64 sr) => (float[B,4] y, float[2,B,8] hn) {
            fast = Equal(sr, rate)
            factor = Where(fast, one, half)
            scaled = Mul(x, factor)
            f = Gemm(scaled, w1)
            r = Relu(f)
            m = ReduceMean<axes=[0], keepdims=0>(h)
            j = Concat<axis=1>(r, m)
            y = Gemm(j, w2)
            hn = Tanh(h)
        }""",
        rate=np.array(16000), one=np.float32(1), half=np.float32(0.5),
        w1=random.standard_normal((16, 8)).astype(np.float32), w2=random.standard_normal((16, 4)).astype(np.float32),
    )  # fmt: skip
    x, h = (random.standard_normal((40, *shape)).astype(np.float32) for shape in ((16,), (2, 1, 8)))
    np.savez("data.npz", x=x, h=h)
    return tmp_path


PINS = ("--input", "x:1x16", "--input", "sr=16000")


@pytest.mark.parametrize(("passes", "least"), [("[fold]", 100.0), ("[fold, quantize]", 20.0)])
def test_a_state_is_fed_sample_by_sample(frames: Path, edgec: Edgec, passes: str, least: float) -> None:
    Path("compress.yaml").write_text(
        "data:\n  calibration: {arrays: data.npz}\n  eval: {arrays: data.npz, metric: sqnr}\n"
        f"passes: {passes}\ntargets: [cpu-avx2]\n"
    )
    assert edgec("model.onnx", "-O", "compress.yaml", "-q", "--no-timing", "-o", "out", *PINS)[0] == 0
    report = json.loads(Path("out/report.json").read_text())
    assert report["targets"]["cpu-avx2"]["metric"] is None or report["targets"]["cpu-avx2"]["metric"] > least
    data = np.load("data.npz")
    original = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    emitted = onnxruntime.InferenceSession("out/cpu-avx2/model.onnx", providers=["CPUExecutionProvider"])
    assert [item.name for item in emitted.get_inputs()] == ["x", "h"]
    noise = signal = 0.0
    for x, h in zip(data["x"], data["h"], strict=True):
        wanted = original.run(None, {"x": x[np.newaxis], "h": h, "sr": np.array(16000)})[0]
        got = emitted.run(None, {"x": x[np.newaxis], "h": h})[0]
        noise, signal = noise + float(((wanted - got) ** 2).sum()), signal + float((wanted**2).sum())
    assert 10 * np.log10(signal / max(noise, 1e-30)) > least
    status, out, _ = edgec("run", "out", "--arrays", "data.npz")
    assert status == 0
    assert "40 samples" in out


def test_an_image_without_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgec: Edgec) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for index in range(12):
        Image.fromarray(random.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(f"images/{index:02}.png")
    save(
        """(float[3,8,8] x) => (float[5] y) {
            b = Unsqueeze(x, zero)
            c = Conv<pads=[1,1,1,1]>(b, w1)
            r = Relu(c)
            p = ReduceMean<axes=[0,2,3], keepdims=0>(r)
            y = MatMul(p, w2)
        }""",
        zero=np.array([0]), w1=random.standard_normal((6, 3, 3, 3)).astype(np.float32),
        w2=random.standard_normal((6, 5)).astype(np.float32),
    )  # fmt: skip
    Path("compress.yaml").write_text(
        "data:\n  preprocess: {size: [8, 8], scale: 1/255, mean: [0.4, 0.5, 0.6], std: [0.2, 0.3, 0.4]}\n"
        "  calibration: {images: images}\n  eval: {images: images, metric: sqnr}\n"
        "passes: [fold, quantize]\ntargets: [cpu-avx2]\n"
    )
    assert edgec("model.onnx", "-O", "compress.yaml", "-q", "--no-timing", "-o", "out")[0] == 0
    report = json.loads(Path("out/report.json").read_text())
    assert report["targets"]["cpu-avx2"]["metric"] > 20
