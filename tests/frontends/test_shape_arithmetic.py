"""Shapes and paddings that follow from constants are constants in the graph that passes see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.frontends import shape_arithmetic
from edgec.frontends.model import open_model
from edgec.ir.cost import Cost
from edgec.ir.execution import Session, seeded_feeds
from edgec.ir.files import load
from edgec.ir.graph import Constant, Graph

# How torch's exporter writes a padding of (top 0, left 1, bottom 2, right 3).
PAD = """
    four = Constant <value = int64[1] {4}> ()
    sides = Constant <value = int64[4] {1, 3, 0, 2}> ()
    zeros = ConstantOfShape <value = int64[1] {0}> (four)
    flat = Concat <axis = 0> (sides, zeros)
    two = Constant <value = int64[2] {-1, 2}> ()
    pairs = Reshape (flat, two)
    first = Constant <value = int64[1] {0}> ()
    last = Constant <value = int64[1] {-1}> ()
    end = Constant <value = int64[1] {-9223372036854775807}> ()
    turned = Slice (pairs, last, end, first, last)
    across = Transpose <perm = [1, 0]> (turned)
    line = Constant <value = int64[1] {-1}> ()
    whole = Reshape (across, line)
    pads = Cast <to = 7> (whole)
    p = Pad (x, pads)
"""
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, opset: int = 17) -> Path:
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')
        onnx.save(model, tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    return write


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def assert_same(path: Path) -> None:
    """What is opened computes what stands in the file."""
    graph = open_model(path)
    for feeds in seeded_feeds(graph):
        for name, values in Session(load(path)).run(feeds).items():
            np.testing.assert_array_equal(Session(graph).run(feeds)[name], values)


def test_paddings_as_torch_exports_them(write: Write) -> None:
    path = write(
        f"""g (float[1,1,6,6] x) => (float[1,1,h,w] y) <float[1,1,3,3] k = {{1,2,3,4,5,6,7,8,9}}>
        {{ {PAD} [conv] y = Conv (p, k) }}"""
    )
    graph = open_model(path)
    assert operators(graph) == ["Pad", "Conv"]
    pads = graph.nodes[0].inputs[1]
    assert isinstance(pads, Constant) and pads.name == "pads"
    np.testing.assert_array_equal(pads.values, [0, 0, 0, 1, 0, 0, 2, 3])
    assert graph.outputs[0].shape == [1, 1, 6, 8]
    assert Cost(graph).macs == 6 * 8 * 9
    assert_same(path)


SAME = """
    s{i} = Shape (x{i})
    h{i} = Gather <axis = 0> (s{i}, two)
    t{i} = Add (h{i}, one)
    q{i} = Div (t{i}, two)
    d{i} = Mul (q{i}, two)
    e{i} = Sub (d{i}, h{i})
    u{i} = Unsqueeze (e{i}, zero)
    p{i} = Concat <axis = 0> (six, u{i}, u{i})
    z{i} = Pad (x{i}, p{i})
    [conv{i}] x{j} = Conv <strides = [2, 2]> (z{i}, k)
"""


def same(count: int) -> str:
    """Layers with padding that is worked out from the size of what they read."""
    body = "".join(SAME.format(i=i, j=i + 1) for i in range(count)).replace(f"x{count} =", "y =")
    return (
        "g (float[1,1,99,99] x0) => (float[1,1,h,w] y) <float[1,1,2,2] k = {1,2,3,4}, int64 two = {2}, int64 one = {1},"
        f" int64[1] zero = {{0}}, int64[6] six = {{0,0,0,0,0,0}}> {{ {body} }}"
    )


def test_paddings_that_follow_from_the_size_of_their_input(write: Write) -> None:
    path = write(same(20))
    graph = open_model(path)
    assert operators(graph) == ["Pad", "Conv"] * 20
    assert graph.outputs[0].shape == [1, 1, 1, 1]
    sizes = [50, 25, 13, 7, 4, 2, *[1] * 14]
    assert (Cost(graph).macs, Cost(graph).macs_unknown) == (4 * sum(size**2 for size in sizes), 0)
    assert_same(write(same(5)))


def test_more_rounds_than_are_taken_leave_costs_that_are_said_to_be_unknown(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shape_arithmetic, "_ROUNDS", 2)
    monkeypatch.setattr(shape_arithmetic, "_VISITS", 0)
    path = write(same(3))
    cost = Cost(open_model(path))
    assert (cost.macs, cost.macs_unknown) == (4 * (50 * 50 + 25 * 25), 1)
    assert_same(path)


LEFT = {
    "floats": ("t = Transpose (w)\n y = MatMul (x, t)", "float[1,2] x", "float[1,2] y", ["Transpose", "MatMul"]),
    "an output": ("y = Add (i, i)\n z = Relu (x)", "float[1,2] x", "int64[2] y, float[1,2] z", ["Add", "Relu"]),
    "many": ("r = Range (o, m, one)\n y = Gather (x, r)", "float[9000] x", "float[n] y", ["Range", "Gather"]),
    "quantized weights": (
        "q = QuantizeLinear (w, s, b)\n d = DequantizeLinear (q, s, b)\n y = MatMul (x, d)",
        "float[1,2] x", "float[1,2] y", ["QuantizeLinear", "DequantizeLinear", "MatMul"],
    ),
    "what follows from an input": (
        "c = Add (n, i)\n y = Reshape (x, c)", "float[2] x, int64[2] n", "float[a,b] y", ["Add", "Reshape"]
    ),
    "what onnxruntime refuses": (
        "t = GatherElements (i, i)\n y = Reshape (x, t)", "float[2] x", "float[a,b] y", ["GatherElements", "Reshape"]
    ),
    "a division by nothing": ("q = Div (i, o1)\n y = Gather (x, q)", "float[2] x", "float[n] y", ["Div", "Gather"]),
    "an overflow": ("q = Div (lowest, minus)\n y = Gather (x, q)", "float[2] x", "float[n] y", ["Div", "Gather"]),
    "a remainder by nothing": ("q = Mod (i, o1)\n y = Gather (x, q)", "float[2] x", "float[n] y", ["Mod", "Gather"]),
}  # fmt: skip
CONSTANTS = (
    "<float[2,2] w = {1,2,3,4}, float s = {0.1}, int8 b = {0}, int64[2] i = {1,2}, int64 o = {0}, int64 m = {8000}, "
    "int64 one = {1}, int64[1] o1 = {0}, int64[1] minus = {-1}, int64[1] lowest = {-9223372036854775808}>"
)


@pytest.mark.parametrize("case", LEFT)
def test_what_stays_computed(case: str, write: Write) -> None:
    body, inputs, outputs, wanted = LEFT[case]
    graph = open_model(write(f"g ({inputs}) => ({outputs}) {CONSTANTS} {{ {body} }}"))
    assert operators(graph) == wanted


def test_bodies_see_the_constants(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["p"], "inside")], "body", [],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Concat", ["two", "two"], ["shape"], "concat", axis=0),
        helper.make_node("If", ["c"], ["y"], "if", then_branch=inner, else_branch=inner),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [4]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [numpy_helper.from_array(np.array([2]), "two")],
    )  # fmt: skip
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    opened = open_model(path)
    assert operators(opened) == ["If"]
    assert_same(path)
