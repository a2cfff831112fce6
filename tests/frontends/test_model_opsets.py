"""From a user's file to the graph that passes see: old opsets are upgraded, and what is out of reach is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from opened_models import said, weight

from edgec.frontends.model import open_model
from edgec.ir.execution import Session
from edgec.ir.verifier import verify

Write = Callable[..., Path]


OLD = """(float[1,4,8,8] x) => (float[1,2,16] y, float[1,4] z) {
    [bn] b = BatchNormalization<epsilon = 0.01>(x, s, s, s, v)
    [clip] c = Clip(b, low)
    [up] u = Resize<mode = "nearest">(c, roi, scales)
    [drop] d = Dropout<ratio = 0.3>(u)
    [pool] p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(d)
    [sum] r = ReduceSum<axes = [2], keepdims = 1>(p)
    [squeeze] q = Squeeze<axes = [2]>(r)
    [softmax] m = Softmax<axis = 1>(q)
    [unsqueeze] n = Unsqueeze<axes = [1]>(m)
    [split] e, f = Split<axis = 2, split = [1, 3]>(n)
    [join] g = Concat<axis = 2>(f, e)
    [shape] y = Reshape(g, to)
    [mean] z = ReduceMean<axes = [2, 3], keepdims = 0>(p)
}"""


@pytest.mark.parametrize("opset", [11, 12])
def test_old_opsets_are_upgraded_and_compute_the_same(opset: int, write: Write) -> None:
    weights = {
        "s": np.abs(weight(4)),
        "v": np.abs(weight(4)) + 1,
        "low": np.float32(-0.5),
        "roi": np.zeros(0, np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "to": np.array([1, 2, 16]),
    }
    text = OLD if opset < 12 else OLD.replace("<ratio = 0.3>", "")  # an input from 12 on
    path = write(text, f'"" : {opset}', **{name: np.asarray(value) for name, value in weights.items()})
    model = onnx.load(path)
    model.graph.node[0].doc_string = "first"
    model.graph.node[0].metadata_props.add(key="layer", value="1")
    model.metadata_props.add(key="dataset", value="capsules")
    model.producer_name, model.graph.doc_string = "trainer", "a net"
    annotation = model.graph.quantization_annotation.add(tensor_name="c")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="low")
    onnx.save(model, path)
    graph = open_model(path)
    assert graph.opset == 17
    assert verify(graph) == []
    assert graph.metadata == {"dataset": "capsules"}
    assert (graph.producer_name, graph.doc_string, graph.nodes[0].doc_string) == ("trainer", "a net", "first")
    assert graph.nodes[0].metadata == {"layer": "1"}
    annotated = graph.tensor("c")
    assert annotated is not None
    assert annotated.quantization == {"SCALE_TENSOR": graph.tensor("low")}
    assert {"bn", "clip", "up", "pool", "squeeze", "join", "mean"} <= {node.name for node in graph.nodes}
    assert [tensor.name for tensor in graph.outputs] == ["y", "z"]

    import onnxruntime

    x = weight(1, 4, 8, 8)
    before = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    after = Session(graph).run({"x": x})
    for expected, name in zip(before, ("y", "z"), strict=True):
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [13, 14, 15, 16])
def test_each_opset_between_is_upgraded(opset: int, write: Write) -> None:
    path = write("(float[1,3,8,8] x) => (y) { c = Conv(x, w) y = Relu(c) }", f'"" : {opset}', w=weight(4, 3, 3, 3))
    graph = open_model(path)
    assert graph.opset == 17
    np.testing.assert_array_equal(graph.nodes[0].inputs[1].values, weight(4, 3, 3, 3))


@pytest.mark.parametrize(("opset", "read"), [(13, 20), (17, 20), (21, 21)])
def test_a_model_with_an_erf_is_read_in_an_opset_that_has_gelu(opset: int, read: int, write: Write) -> None:
    assert open_model(write("(float[2] x) => (float[2] y) { y = Erf(x) }", f'"" : {opset}')).opset == read


@pytest.mark.parametrize("opset", [17, 20, 25])
def test_newer_opsets_stay(opset: int, write: Write) -> None:
    assert open_model(write("(float[2] x) => (float[2] y) { y = Relu(x) }", f'"" : {opset}')).opset == opset


def test_opsets_out_of_reach(write: Write) -> None:
    body = "(float[2] x) => (float[2] y) { y = Relu(x) }"
    assert said(write(body, '"" : 6')) == (
        "model.onnx: is of opset 6, and edgec reads 7 and later; export the network again with opset_version=17"
    )
    newest = onnx.defs.onnx_opset_version()
    assert said(write(body, f'"" : {newest + 1}')) == (
        f"model.onnx: is of opset {newest + 1}, and onnx {onnx.__version__} knows {newest} and earlier; "
        "install a newer onnx, or export with opset_version=17"
    )


@pytest.mark.parametrize("opset", [0, -5])
def test_an_opset_that_never_was(opset: int, write: Write) -> None:
    path = write("(float[2] x) => (float[2] y) { y = Relu(x) }")
    model = onnx.load(path)
    model.opset_import[0].version = opset
    onnx.save(model, path)
    assert said(path) == (
        f"model.onnx: is of opset {opset}, and edgec reads 7 and later; export the network again with opset_version=17"
    )


def test_a_format_newer_than_onnx(write: Write) -> None:
    path = write("(float[2] x) => (float[2] y) { y = Relu(x) }")
    model = onnx.load(path)
    model.ir_version = 999
    onnx.save(model, path)
    assert said(path) == (
        f"model.onnx: is of IR version 999, and onnx {onnx.__version__} knows {onnx.IR_VERSION} and earlier; "
        "install a newer onnx, or export the network again"
    )


def test_an_upgrade_that_fails_says_why(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(message: onnx.ModelProto, version: int) -> None:
        raise RuntimeError("no adapter\nfor Foo")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    assert said(write("(float[2] x) => (float[2] y) { y = Relu(x) }", '"" : 11')) == (
        "model.onnx: cannot be upgraded from opset 11 to 17 (onnx says: no adapter for Foo); "
        "export the network again with opset_version=17"
    )
