"""Weightless inference."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.ir.errors import InputError
from edgec.ir.graph import Graph, Variable
from edgec.ir.printer import parse
from edgec.ir.protos import weightless
from edgec.ir.shapes import Shapes

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,8,8] x, float[2] s) => (float[N,M] y, z)
{
    [conv] c = Conv<pads = [1,1,1,1], strides = [2,2]>(x, w)
    [resize] r = Resize<mode = "nearest">(c, "", scales)
    [flat] y = Reshape(r, target)
    [nonzero] z = NonZero(s)
}
"""


def network() -> Graph:
    graph = parse(TEXT)
    tensors = {"w": np.zeros((4, 3, 3, 3)), "scales": np.array([1, 1, 2, 2]), "target": np.array([0, -1])}
    for node, name in zip(graph.nodes, tensors, strict=False):
        place = [tensor.name for tensor in node.inputs].index(name)
        dtype = np.int64 if name == "target" else np.float32
        node.inputs[place] = graph.const(name, tensors[name].astype(dtype))
    return graph


def test_shapes_follow_from_constants_without_the_weights() -> None:
    graph = network()
    shapes = Shapes(graph)
    c, r, y = (node.outputs[0] for node in graph.nodes[:3])
    assert shapes.shape(c) == (None, 4, 4, 4)
    assert shapes.shape(r) == (None, 4, 8, 8)
    assert shapes.shape(y) == (None, 256)
    assert shapes.dtype(y) == np.float32
    assert shapes.shape(graph.nodes[0].inputs[1]) == (4, 3, 3, 3)
    assert shapes.dtype(graph.nodes[3].outputs[0]) == np.int64
    assert shapes.shape(Variable("stranger")) is None


def test_large_weights_are_no_part_of_the_message() -> None:
    message = weightless(network())
    found = {tensor.name: len(tensor.raw_data) for tensor in message.graph.initializer}
    assert found == {"w.1": 0, "scales.1": 16, "target.1": 16}


def test_static_shapes_are_asked_for_by_name() -> None:
    graph = network()
    graph.inputs[0].shape = [1, 3, 8, 8]
    shapes = Shapes(graph)
    assert shapes.static(graph.nodes[0].outputs[0]) == (1, 4, 4, 4)
    with pytest.raises(InputError) as caught:
        shapes.static(graph.outputs[1])
    assert str(caught.value) == "tensor 'z': has no static shape (1x?); pin the inputs with --input"
    with pytest.raises(InputError) as caught:
        shapes.static(Variable("stranger"))
    assert str(caught.value) == "tensor 'stranger': has no static shape (unknown rank); pin the inputs with --input"


def test_annotating_fills_what_is_open_and_keeps_symbols_that_stay_open() -> None:
    graph = network()
    Shapes(graph).annotate(graph)
    assert [t.shape for t in graph.outputs] == [["N", 256], [1, None]]
    assert graph.nodes[0].outputs[0].shape == [None, 4, 4, 4]
    assert graph.nodes[0].outputs[0].dtype == np.float32
    graph.inputs[0].shape = [1, 3, 8, 8]
    Shapes(graph).annotate(graph)
    assert graph.outputs[0].shape == [1, 256]


def test_a_zero_is_a_size() -> None:
    graph = parse('<ir_version: 8, opset_import: ["" : 17]> g (float[0,3] x) => (y) { y = Relu(x) }')
    assert Shapes(graph).shape(graph.outputs[0]) == (0, 3)


def test_what_is_no_tensor_has_no_shape() -> None:
    text = "g (float[2] x) => (seq(float[2]) y) { y = SequenceConstruct(x) }"
    graph = parse(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    assert Shapes(graph).shape(graph.outputs[0]) is None
    assert Shapes(graph).dtype(graph.outputs[0]) is None


def test_types_inside_bodies() -> None:
    """Bodies beside each other may give the same name to different things."""
    graph = parse(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2,3] x, bool b) => (float[2,3] y) {'
        " y = If (b) <"
        " then_branch = t () => (float[2,3] u) { k = Shape (x)\n u = Reshape (x, k) },"
        " else_branch = e () => (float[2,3] v) { k = Neg (x)\n v = Abs (k) }> }"
    )
    shapes = Shapes(graph)
    found = [(str(shapes.dtype(t)), shapes.shape(t)) for one in graph.graphs() for n in one.nodes for t in n.outputs]
    inside = ("float32", (2, 3))
    assert found == [inside, ("int64", (2,)), inside, inside, inside]


def test_a_broadcast_that_data_propagation_does_not_see() -> None:
    """Positions of a sine as torch writes them: onnx carries the column of 4 along as a row, and stops at 4 by 80."""
    graph = parse(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[4,80] x) => (y)'
        " <int64[4] p = {0, 1, 2, 3}, int64[1] one = {1}, int64[80] d = {" + ", ".join(["2"] * 80) + "}>"
        "{ u = Unsqueeze(p, one) m = Mul(u, d) f = Cast<to=1>(m) y = Add(x, f) }"
    )
    graph = settle(graph)
    shapes = Shapes(graph)
    assert shapes.shape(graph.nodes[1].outputs[0]) == (4, 80)
    assert shapes.shape(graph.outputs[0]) == (4, 80)


def settle(graph: Graph) -> Graph:
    """Declared tensors that nothing computes are weights."""
    values = {"p": np.arange(4), "one": np.array([1]), "d": np.full(80, 2)}
    for variable in graph.variables():
        if variable.name in values:
            graph.replace_uses(variable, graph.const(variable.name, values[variable.name]))
    return graph
