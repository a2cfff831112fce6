"""Models of opsets 7 to 10 are upgraded, and compute what they did; what cannot be is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.numpy_helper import from_array
from opened_models import weight

from edgec.frontends import opsets
from edgec.frontends.model import open_model
from edgec.ir.errors import InputError
from edgec.ir.execution import Session
from edgec.ir.graph import Graph

NORM = {"s": np.abs(weight(3)), "b": weight(3), "m": weight(3), "v": np.abs(weight(3)) + 0.5}
EACH = {name: np.abs(weight(3, 8, 8)) + 0.5 for name in ("s", "b", "m", "v")}
TWICE = {"f": np.array([1, 1, 2, 2], np.float32)}


def save(tmp_path: Path, opset: int, body: str, weights: dict[str, np.ndarray], outputs: str = "(float[] y)") -> Path:
    """A model as exporters of the time wrote it: of an old IR version, with its weights among the inputs."""
    text = f'<ir_version: 3, opset_import: ["" : {opset}]> g (float[1,3,8,8] x) => {outputs} {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    for name, values in weights.items():
        model.graph.initializer.append(from_array(np.asarray(values), name))
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.asarray(values).dtype)
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, np.asarray(values).shape))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


def opened(path: Path) -> tuple[Graph, list[str]]:
    notes: list[str] = []
    return open_model(path, notes=notes), notes


UPSAMPLE = "y = Upsample<mode={mode}, scales=[1.0, 1.0, {by}, {by}]>(x)"
CASES = {
    "upsample nearest": (7, UPSAMPLE.format(mode='"nearest"', by="2.0"), {}),
    "upsample linear": (7, UPSAMPLE.format(mode='"linear"', by="2.0"), {}),
    "upsample by 1.5": (8, UPSAMPLE.format(mode='"nearest"', by="1.5"), {}),
    "upsample by an input": (9, 'y = Upsample<mode="linear">(x, f)', TWICE),
    "resize linear": (10, 'y = Resize<mode="linear">(x, f)', TWICE),
    "resize up by 2.5": (10, 'y = Resize<mode="nearest">(x, f)', {"f": np.array([1, 1, 2.5, 2.5], np.float32)}),
    "resize down by 0.6": (10, 'y = Resize<mode="nearest">(x, f)', {"f": np.array([1, 1, 0.6, 0.6], np.float32)}),
    "batch normalization": (7, "y = BatchNormalization<epsilon=0.01, spatial=1>(x, s, b, m, v)", NORM),
    "batch normalization of each element": (8, "y = BatchNormalization<spatial=0>(x, s, b, m, v)", EACH),
    "dropout": (7, "d = Dropout<ratio=0.3>(x) y = Relu(d)", {}),
    "dropout with a mask": (10, "d, k = Dropout<ratio=0.3>(x) y = Relu(d)", {}),
    "pad": (8, 'y = Pad<mode="constant", pads=[0,0,1,2,0,0,2,1], value=0.5>(x)', {}),
    "reflecting pad": (10, 'y = Pad<mode="reflect", pads=[0,0,1,2,0,0,2,1]>(x)', {}),
    "slice": (9, "y = Slice<axes=[2,3], starts=[1,-4], ends=[100,-1]>(x)", {}),
    "slice by inputs": (10, "y = Slice(x, b, e, a, t)", {"b": np.array([7]), "e": np.array([-100]),
                                                       "a": np.array([3]), "t": np.array([-2])}),
    "clip": (7, "y = Clip<min=-0.5, max=0.25>(x)", {}),
    "top k": (9, "y, i = TopK<axis=3, k=2>(x)", {}),
    "top k by an input": (10, "y, i = TopK<axis=3>(x, k)", {"k": np.array([2])}),
    "softmax over several axes": (8, "y = Softmax<axis=1>(x)", {}),
    "hardmax over several axes": (7, "y = Hardmax<axis=1>(x)", {}),
    "split": (7, "a, b = Split<axis=3, split=[3, 5]>(x) y = Concat<axis=3>(b, a)", {}),
    "squeezed": (9, "u = Unsqueeze<axes=[0]>(x) y = Squeeze<axes=[0]>(u)", {}),
    "reduced": (10, "y = ReduceSum<axes=[2, 3], keepdims=0>(x)", {}),
    "classifier": (7, "c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, l, z)",
                   {"w": weight(6, 3, 3, 3), "l": weight(6, 4), "z": weight(4)}),
    "scatter": (9, "y = Scatter<axis=1>(x, i, u)", {"i": np.zeros((1, 1, 2, 2), np.int64), "u": weight(1, 1, 2, 2)}),
    "lstm": (7, "q = Squeeze<axes=[0]>(x) y, h, c = LSTM<hidden_size=4>(q, w, r)",
             {"w": weight(1, 16, 8), "r": weight(1, 16, 4)}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_an_old_model_computes_stays(name: str, tmp_path: Path) -> None:
    opset, body, weights = CASES[name]
    path = save(tmp_path, opset, body, weights)
    graph, notes = opened(path)
    assert (graph.opset, (graph.ir_version or 0) >= 8) == (17, True)
    assert notes == [f"upgraded from opset {opset} to 17: onnxruntime computes the same before and after"]
    x = weight(1, 3, 8, 8)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(Session(graph).run({"x": x})["y"], session.run(["y"], {"x": x})[0], rtol=1e-4, atol=1e-5)


def test_an_upgrade_that_changes_what_is_computed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opsets, "settle_resizes", lambda graph, version: None)
    path = save(tmp_path, 7, UPSAMPLE.format(mode='"linear"', by="2.0"), {})
    with pytest.raises(InputError) as caught:
        open_model(path)
    assert str(caught.value) == (
        "model.onnx: cannot be upgraded from opset 7 to 17: its output 'y' would change; "
        "export the network again with opset_version=17"
    )


def test_what_onnxruntime_does_not_run_is_upgraded_unchecked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(graph: Graph) -> Session:
        raise InputError("onnxruntime", "does not take the model")

    monkeypatch.setattr(opsets, "Session", refuse)
    _, notes = opened(save(tmp_path, 9, "y = Relu(x)", {}))
    assert notes == ["upgraded from opset 9 to 17, unchecked: onnxruntime does not run it as it is"]
