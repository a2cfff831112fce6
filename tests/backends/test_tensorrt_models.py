"""The steps from a graph to the files of a bundle: operators, opsets, FP16, weights; each computes what it computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.backends.tensorrt import legalize
from edgec.backends.tensorrt.half import in_half, overflowing, rounded
from edgec.backends.tensorrt.older_opset import lower_opset, needed_opset
from edgec.backends.tensorrt.quantized_weights import weights_as_floats
from edgec.backends.tensorrt.versions import profile_of, rules
from edgec.ir.errors import EmitError
from edgec.ir.execution import sqnr_db
from edgec.ir.graph import Graph
from edgec.passes.framework.settling import settle
from edgec.testing import assert_same, model, outputs

NANO, ORIN, HOST = target("jetson-nano"), target("jetson-orin-nano"), target("trt-host")
VECTOR = "(float[2,3,8] x) => (float[2,3,8] y)"


# -- operators that are not there --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "opset", "weights"),
    [
        ("[n] y = HardSwish (x)", 17, ""),
        ("[n] y = Mish (x)", 18, ""),
        ("[n] y = Gelu (x)", 20, ""),
        ('[n] y = Gelu <approximate = "tanh"> (x)', 20, ""),
        ("[n] y = LayerNormalization <axis = -1, epsilon = 0.01> (x, w, b)", 17, "float[8] w, float[8] b"),
        ("[n] y = LayerNormalization <axis = 1> (x, w)", 18, "float[3,8] w"),
    ],
)
def test_rewrites_are_exact(body: str, opset: int, weights: str) -> None:
    graph = model(body, VECTOR, weights, opset=opset)
    before = graph.copy()
    assert legalize.rewrite(graph, rules((8, 2), ORIN), "board") == 1
    settle(graph, "legalize")
    assert_same(before, graph, tolerance=1e-6)
    assert legalize.rewrite(graph, rules((8, 2), ORIN), "board") == 0


def test_what_the_version_has_stays() -> None:
    graph = model("[n] y = HardSwish (x)", VECTOR, opset=17)
    assert legalize.rewrite(graph, rules((8, 5), ORIN), "board") == 0


def test_an_operator_without_a_rewrite_is_named() -> None:
    graph = model("[t] y = Det (x)", "(float[2,3,3] x) => (float[2] y)", opset=17)
    with pytest.raises(EmitError) as caught:
        legalize.rewrite(graph, profile_of(NANO).oldest, "jetson-nano")
    assert str(caught.value) == (
        "jetson-nano: node 't': TensorRT 8.2 has no Det; replace it in the network, or compile for a board with a "
        "TensorRT newer than 8.2"
    )
    graph = model("[t] y = com.example.Own (x)", VECTOR, opset=17)
    graph.opsets["com.example"] = 1
    with pytest.raises(EmitError, match=r"has no com\.example\.Own; export the network with standard operators"):
        legalize.rewrite(graph, profile_of(NANO).oldest, "jetson-nano")


# -- older opsets ------------------------------------------------------------------------------------------------------

IMAGE = "(float[1,4,6,6] x) => (float[1,4,6,6] y)"
LOWERED: list[tuple[str, int, str, str, dict[str, Any]]] = [
    ("[n] y = Relu (x)", 17, IMAGE, "", {}),
    ("[n] y = Add (x, x)", 21, IMAGE, "", {}),
    (
        "[n] y = Reshape <allowzero = 0> (x, s)", 19, "(float[1,4,6,6] x) => (float[4,36] y)", "int64[2] s",
        {"s": [4, 36]},
    ),
    ("[n] y = ReduceMean (x, a)", 18, "(float[1,4,6,6] x) => (float[1,1,6,1] y)", "int64[2] a", {"a": [1, -1]}),
    ("[n] y = ReduceMax <keepdims = 0> (x)", 20, "(float[1,4,6,6] x) => (float y)", "", {}),
    ("[n] y = ReduceMean <noop_with_empty_axes = 1> (x)", 18, IMAGE, "", {}),
    (
        "[n] a, b, c = Split <axis = 3, num_outputs = 3> (x)\ny = Concat <axis = 3> (c, b, a)", 18,
        "(float[1,4,6,8] x) => (float[1,4,6,8] y)", "", {},
    ),
    (
        "[n] y = Pad (x, p, v, a)", 19, "(float[1,4,6,6] x) => (float[1,4,6,9] y)", "int64[2] p, float v, int64[1] a",
        {"p": [1, 2], "v": 0.5, "a": [-1]},
    ),
    (
        '[n] y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> '
        "(x, , s)", 19, "(float[1,4,6,6] x) => (float[1,4,12,12] y)", "float[4] s", {"s": [1, 1, 2, 2]},
    ),
    ("[n] y = Cast <to = 1, saturate = 1> (x)", 19, IMAGE, "", {}),
    ("[n] y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)", 19, IMAGE, "", {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "opset", "signature", "weights", "values"), LOWERED)
def test_an_older_opset_computes_the_same(
    body: str, opset: int, signature: str, weights: str, values: dict[str, Any]
) -> None:
    graph = model(body, signature, weights, opset=opset, **values)
    before = graph.copy()
    lower_opset(graph, 13, "board")
    settle(graph, "opset 13")
    assert graph.opset == 13
    assert_same(before, graph, tolerance=1e-6)


def test_what_an_older_opset_has_not_is_named() -> None:
    graph = model("[r] y = Reshape <allowzero = 1> (x, s)", "(float[0,3] x) => (float[3,0] y)", "int64[2] s", opset=17,
                  s=[3, 0])  # fmt: skip
    with pytest.raises(EmitError) as caught:
        lower_opset(graph, 13, "jetson-nano")
    assert str(caught.value) == (
        "jetson-nano: node 'r': makes an empty tensor, which Reshape has not in opset 13; drop the branch that is "
        "empty from the network"
    )
    graph = model("[n] y = GridSample (x, g)", "(float[1,4,6,6] x, float[1,6,6,2] g) => (float[1,4,6,6] y)", opset=20)
    assert needed_opset(graph, 13) == 16
    assert needed_opset(model("[n] y = Relu (x)", VECTOR, opset=17), 13) == 13


# -- FP16 --------------------------------------------------------------------------------------------------------------

CONV = "[c] c = Conv (x, w, b)\n[r] r = Relu (c)\n[m] m = Mul (r, r)\n[o] y = Sqrt (m)"
WEIGHTS = "float[4,4,1,1] w, float[4] b"


def small() -> Graph:
    return model(CONV, IMAGE, WEIGHTS)


def test_all_of_a_network_in_half() -> None:
    graph = small()
    before = graph.copy()
    in_half(graph)
    settle(graph, "half")
    assert [node.op for node in graph.nodes] == ["Cast", "Conv", "Relu", "Mul", "Sqrt", "Cast"]
    assert {node.outputs[0].dtype for node in graph.nodes[:-1]} == {np.dtype(np.float16)}
    assert {constant.dtype for constant in graph.constants()} == {np.dtype(np.float16)}
    assert [(t.name, t.dtype) for t in (*graph.inputs, *graph.outputs)] == [("x", np.float32), ("y", np.float32)]
    assert 50 < sqnr_db(outputs(before), outputs(graph)) < 90


def test_layers_that_overflow_stay_in_float() -> None:
    graph = small()
    feeds = [{"x": np.full((1, 4, 6, 6), 2000.0, np.float32)}]
    beyond = overflowing(graph, feeds)
    assert beyond == ["m", "o"]
    before = graph.copy()
    in_half(graph, frozenset(beyond))
    settle(graph, "half")
    assert [node.op for node in graph.nodes] == ["Cast", "Conv", "Relu", "Cast", "Mul", "Sqrt"]
    assert sqnr_db(outputs(before, feeds[0]), outputs(graph, feeds[0])) > 50
    everywhere = before.copy()
    in_half(everywhere)
    settle(everywhere, "half")
    rounded(everywhere)
    settle(everywhere, "rounded")
    assert np.isinf(outputs(everywhere, feeds[0])["y"]).any()


def test_weights_beyond_half() -> None:
    graph = model("[s] y = Mul (x, k)", IMAGE, "float k", k=1e5)
    assert overflowing(graph, [{"x": np.zeros((1, 4, 6, 6), np.float32)}]) == ["s"]


def test_settings_and_named_types_stay_in_float() -> None:
    body = (
        '[r] r = Resize <mode = "nearest"> (x, , s)\n[i] i = Cast <to = 7> (r)\n[f] f = Cast <to = 1> (i)\n'
        "[a] y = Add (f, r)"
    )
    graph = model(body, "(float[1,4,6,6] x) => (float[1,4,12,12] y)", "float[4] s", s=[1, 1, 2, 2])
    before = graph.copy()
    in_half(graph)
    settle(graph, "half")
    assert next(c for c in graph.constants() if c.name == "s").dtype == np.float32
    assert sqnr_db(outputs(before), outputs(graph)) > 50


def test_an_output_that_is_read_too() -> None:
    graph = model("[r] r = Relu (x)\n[s] y = Sigmoid (r)", "(float[4] x) => (float[4] r, float[4] y)")
    before = graph.copy()
    in_half(graph)
    settle(graph, "half")
    assert [t.name for t in graph.outputs] == ["r", "y"]
    assert sqnr_db(outputs(before), outputs(graph)) > 50


# -- weights as floats -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_as_floats_give_the_same_integers(axis: int) -> None:
    random = np.random.default_rng(0)
    integers = random.integers(-127, 128, (16, 16, 1, 1)).astype(np.int8)
    scale = random.uniform(1e-4, 1e-1, 16).astype(np.float32)
    graph = model(
        f"[d] d = DequantizeLinear <axis = {axis}> (i, s, z)\n[c] y = Conv (x, d)",
        "(float[1,16,4,4] x) => (float[1,16,4,4] y)", "int8[16,16,1,1] i, float[16] s, int8[16] z",
        opset=13, i=integers, s=scale, z=np.zeros(16),
    )  # fmt: skip
    before = graph.copy()
    assert weights_as_floats(graph) == 1
    settle(graph, "weights")
    assert [node.op for node in graph.nodes] == ["QuantizeLinear", "DequantizeLinear", "Conv"]
    assert_same(before, graph, tolerance=0)
