"""What training left in a network: it computes what the file says, or what inference makes of it with a note."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from opened_models import said, weight

from edgec.frontends.model import open_model, parse_pins
from edgec.ir.execution import Session
from edgec.ir.graph import Graph

Write = Callable[..., Path]
NORM = {"s": np.abs(weight(3)), "b": weight(3), "m": weight(3), "v": np.abs(weight(3)) + 0.5}
X = np.random.default_rng(5).standard_normal((2, 3, 4, 4)).astype(np.float32)


def opened(path: Path, *pins: str) -> tuple[Graph, list[str]]:
    notes: list[str] = []
    return open_model(path, parse_pins(pins), notes=notes), notes


def original(path: Path) -> dict[str, np.ndarray]:
    """What onnxruntime computes of the file: without optimizations, whose memory plan mixes up batch statistics."""
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path.read_bytes(), settings, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": X}), strict=True))


def typed(path: Path, *kinds: int) -> Path:
    model = onnx.load(path)
    for output, kind in zip(model.graph.output, kinds, strict=True):
        output.type.tensor_type.elem_type = kind
    onnx.save(model, path)
    return path


TRAINED = (
    "node 'n' (BatchNormalization) is in training mode: it goes by the statistics of its own input, as the file says;"
    " export the network in evaluation mode (model.eval()) for one that goes by those of training"
)


@pytest.mark.parametrize(
    ("opset", "attributes", "outputs"),
    [
        (15, "<training_mode=1, momentum=0.8>", ("y", "mean", "var")),
        (15, "<training_mode=1>", ("y",)),
        (18, "<training_mode=1, epsilon=0.01>", ("y", "var")),
        (9, "", ("y", "mean", "var")),
        (13, "<momentum=0.7>", ("y",)),
    ],
)
def test_batch_normalization_in_training_mode(
    opset: int, attributes: str, outputs: tuple[str, ...], write: Write
) -> None:
    given = "y, mean, var" if opset > 13 else "y, mean, var, k1, k2"
    signature = ", ".join(f"float[] {name}" for name in outputs)
    body = f"[n] {given} = BatchNormalization{attributes}(x, s, b, m, v)"
    path = write(f"(float[2,3,4,4] x) => ({signature}) {{ {body} }}", f'"" : {opset}', **NORM)
    model = onnx.load(path)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    graph, notes = opened(path)
    assert notes[0] == TRAINED
    assert "BatchNormalization" not in {node.op for node in graph.nodes}
    wanted, got = original(path), Session(graph).run({"x": X})
    assert sorted(got) == sorted(outputs)
    for name in outputs:
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-4, atol=1e-5)


def test_what_batch_normalization_keeps_for_gradients(write: Write) -> None:
    body = "(float[2,3,4,4] x) => (float[] y, float[] k) { [n] y, a, c, k, d = BatchNormalization(x, s, b, m, v) }"
    assert said(write(body, '"" : 13', **NORM)) == (
        "model.onnx: node 'n' (BatchNormalization): is in training mode, and what it keeps for gradients is read;"
        " export the network in evaluation mode (model.eval())"
    )


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 17])
def test_the_mask_of_a_dropout_that_drops_nothing(opset: int, write: Write) -> None:
    to = "" if opset < 10 else "c = Cast<to=1>(k) "
    path = write(f"(float[2,3,4,4] x) => (y) {{ [d] r, k = Dropout(x) {to}y = Mul(r, {'c' if to else 'k'}) }}",
                 f'"" : {opset}')  # fmt: skip
    graph, _ = opened(typed(path, onnx.TensorProto.FLOAT))
    assert "Dropout" not in {node.op for node in graph.nodes}
    np.testing.assert_array_equal(Session(graph).run({"x": X})["y"], original(path)["y"])
    np.testing.assert_array_equal(original(path)["y"], X if opset >= 12 else 0 * X)


def test_a_mask_that_is_an_output_of_a_shape_that_data_decide(write: Write) -> None:
    path = write(
        "(float[2,3,4,4] x) => (bool[n] k, y) { t = Greater(x, z) c = Compress(x, f) [d] y, k = Dropout(c) }",
        z=np.float32(0), f=np.ones(96, bool),
    )  # fmt: skip
    graph, _ = opened(typed(path, onnx.TensorProto.BOOL, onnx.TensorProto.FLOAT))
    got = Session(graph).run({"x": X})
    np.testing.assert_array_equal(got["k"], np.ones(96, bool))
    np.testing.assert_array_equal(got["y"], X.reshape(-1))


DROPPED = (
    "node 'd' (Dropout) is in training mode, where it drops at random: taken as in inference, where it drops nothing"
)


@pytest.mark.parametrize(("ratio", "training", "notes"), [(0.5, True, [DROPPED]), (0.0, True, []), (0.5, False, [])])
def test_dropout_in_training_mode(ratio: float, training: bool, notes: list[str], write: Write) -> None:
    path = write("(float[2,3,4,4] x) => (float[2,3,4,4] y, bool[2,3,4,4] k) { [d] y, k = Dropout(x, r, t) }",
                 r=np.float32(ratio), t=np.array(training))  # fmt: skip
    graph, got = opened(path)
    assert got == notes
    values = Session(graph).run({"x": X})
    np.testing.assert_array_equal(values["y"], X)
    np.testing.assert_array_equal(values["k"], np.ones(X.shape, bool))


def test_a_training_mode_that_is_an_input_is_pinned(write: Write) -> None:
    path = write("(float[2,3,4,4] x, bool t) => (float[2,3,4,4] y) { [d] y = Dropout(x, r, t) }", r=np.float32(0.5))
    assert said(path) == (
        "model.onnx: node 'd' (Dropout): takes its training mode from 't', which is known only when the network runs;"
        " pin it with --input t=false"
    )
    graph, _ = opened(path, "t=false")
    np.testing.assert_array_equal(Session(graph).run({"x": X})["y"], X)


@pytest.mark.parametrize(
    ("node", "op"),
    [
        ("r = RandomNormal<shape=[1]>()", "RandomNormal"),
        ("r = RandomUniformLike(x)", "RandomUniformLike"),
        ("p = Sigmoid(x) [n] r = Bernoulli(p)", "Bernoulli"),
    ],
)
def test_random_numbers_are_refused(node: str, op: str, write: Write) -> None:
    named = node if "[n]" in node else f"[n] {node}"
    path = write(f"(float[2,3,4,4] x) => (float[2,3,4,4] y) {{ {named} y = Add(x, r) }}")
    assert said(path) == (
        f"model.onnx: node 'n' ({op}): draws random numbers, so the network computes something else in every run;"
        " make what it draws an input of the network, or a constant, and export again"
    )


def test_random_numbers_that_nothing_reads_are_no_fault(write: Write) -> None:
    path = write("(float[2] x) => (float[2] y, float[2] z) { y = Relu(x) r = RandomNormalLike(x) z = Add(y, r) }")
    assert [node.op for node in open_model(path, outputs=["y"]).nodes] == ["Relu"]
