"""From a user's file to the graph that passes see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.numpy_helper import from_array
from opened_models import said, weight

from edgec.frontends import model as frontend
from edgec.frontends.model import open_model, parse_pins
from edgec.ir.execution import Session
from edgec.ir.graph import Constant, Graph

Write = Callable[..., Path]


# -- operators ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "opset", "line"),
    [
        (
            "{ [n] y = my.ops.Foo(x) }",
            '"" : 17, "my.ops" : 1',
            "node 'n' (Foo): is of the domain 'my.ops', which edgec does not know; "
            "export the network with standard ONNX operators",
        ),
        (
            "{ [n] y = com.microsoft.FusedConv(x) }",
            '"" : 17, "com.microsoft" : 1',
            "node 'n' (FusedConv): is onnxruntime's own operator (of the domain 'com.microsoft'); "
            "save the network without onnxruntime's graph optimizations",
        ),
        (
            "{ [n] y = Rleu(x) }",
            '"" : 17',
            "node 'n' (Rleu): is no operator of ONNX opset 17; "
            "export the network with standard ONNX operators. Did you mean 'Relu'?",
        ),
        (
            "{ [n] y = Xyzzy(x) }",
            '"" : 17',
            "node 'n' (Xyzzy): is no operator of ONNX opset 17; export the network with standard ONNX operators",
        ),
        (
            "{ [n] y = Gelu(x) }",
            '"" : 17',
            "node 'n' (Gelu): is no operator of ONNX opset 17; "
            "it came with opset 20: export with opset_version=20 or later",
        ),
        (
            "{ [n] y = ai.onnx.ml.Skaler(x) }",
            '"" : 17, "ai.onnx.ml" : 3',
            "node 'n' (Skaler): is no operator of ONNX ai.onnx.ml opset 3; "
            "export the network with standard ONNX operators. Did you mean 'Scaler'?",
        ),
        (
            "{ [n] y = ai.onnx.ml.Scaler(x) }",
            '"" : 17',
            "node 'n' (Scaler): is of the domain 'ai.onnx.ml', which the model does not import; "
            "export the network again",
        ),
        (
            "{ [a] t = Nope(x)  [b] y = Relu(t) }",
            '"" : 11',
            "node 'a' (Nope): is no operator of ONNX opset 11; export the network with standard ONNX operators",
        ),
    ],
)
def test_operators_that_edgec_does_not_know(body: str, opset: str, line: str, write: Write) -> None:
    assert said(write(f"(float[2] x) => (float[2] y) {body}", opset)) == f"model.onnx: {line}"


def test_an_unknown_operator_inside_a_subgraph(write: Write) -> None:
    path = write(
        """(bool c, float[2] x) => (float[2] y) {
            y = If (c) <then_branch = a () => (float[2] p) { [in] p = my.ops.Foo(x) },
                        else_branch = b () => (float[2] q) { q = Neg(x) }>
        }""",
        '"" : 17, "my.ops" : 1',
    )
    assert said(path).startswith("model.onnx: node 'in' (Foo): is of the domain 'my.ops'")


# -- structure ---------------------------------------------------------------------------------------------------------


def test_a_graph_that_is_out_of_order_is_sorted(write: Write) -> None:
    graph = open_model(write("(float[2] x) => (float[2] y) { [b] y = Neg(t) [a] t = Relu(x) }"))
    assert [node.name for node in graph.nodes] == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("[b] y = Add(x, lost)", "node 'b' (Add): reads 'lost', which no node computes; export the network again"),
        ("[b] y = Relu(x, x)", "node 'b' (Relu): has 2 inputs where it takes 1; export the network again"),
        (
            "[a] y = Relu(x) [b] y = Neg(x)",
            "node 'a' (Relu): is not the only producer of 'y' (and 1 more fault); export the network again",
        ),
        (
            "[a] t = Add(x, u) [b] u = Relu(t) [c] y = Neg(u)",
            "graph 'g': its nodes form a cycle through 'a', 'b', 'c'; export the network again",
        ),
        (
            "[m] y = MatMul(x, x)",
            "node 'm' (MatMul): its types and shapes do not fit: Incompatible dimensions for matrix multiplication; "
            "export the network again, or correct its shapes",
        ),
    ],
)
def test_faults_of_the_file_are_the_files(body: str, line: str, write: Write) -> None:
    assert said(write(f"(float[2,3] x) => (float[2,3] y) {{ {body} }}")) == f"model.onnx: {line}"


def test_nodes_without_a_name_or_with_anothers_are_named(write: Write) -> None:
    path = write(
        """(bool c, float[2] x) => (float[2] y) {
            t = Relu(x)
            [same] u = Relu(t)
            [same] v = Relu(u)
            w = If (c) <then_branch = a () => (float[2] p) { p = Neg(v) },
                        else_branch = b () => (float[2] q) { [same] q = Neg(v) }>
            [last] y = Relu(w)
        }"""
    )
    graph = open_model(path)
    assert [node.name for node in graph.nodes] == ["relu.t", "same", "same.1", "if.w", "last"]
    assert sorted(sub.nodes[0].name for sub in graph.nodes[3].subgraphs()) == ["neg.p", "same.2"]


def test_constant_nodes_become_constants(write: Write) -> None:
    graph = open_model(
        write(
            """(float[2] x) => (float[2] y, float[2] k) {
                a = Constant<value = float[2] {1.0, 2.0}>()
                b = Constant<value_float = 2.5>()
                c = Constant<value_floats = [1.0, 3.0]>()
                i = Constant<value_int = 2>()
                j = Constant<value_ints = [2]>()
                k = Constant<value = float[2] {5.0, 6.0}>()
                s = Add(x, a)
                t = Mul(s, b)
                u = Add(t, c)
                v = Reshape(u, j)
                w = Cast<to = 1>(i)
                y = Mul(v, w)
            }"""
        )
    )
    assert [node.op for node in graph.nodes] == ["Constant", "Add", "Mul", "Add", "Reshape", "Cast", "Mul"]
    found = {constant.name: constant.values.tolist() for constant in graph.constants()}
    assert found == {"a": [1, 2], "b": 2.5, "c": [1, 3], "i": 2, "j": [2]}
    out = Session(graph).run({"x": np.zeros(2, np.float32)})
    np.testing.assert_array_equal(out["y"], [7, 16])
    np.testing.assert_array_equal(out["k"], [5, 6])


def test_weights_are_no_inputs(write: Write) -> None:
    graph = open_model(write("(float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", w=weight(2)))
    assert [tensor.name for tensor in graph.inputs] == ["x"]
    assert isinstance(graph.nodes[0].inputs[1], Constant)


def test_every_tensor_is_typed(write: Write) -> None:
    path = write(
        "(float[N,3,H,W] x) => (float[N,K] y) { c = Conv(x, w) p = GlobalAveragePool(c) y = Flatten(p) }",
        w=weight(8, 3, 3, 3),
    )
    graph = open_model(path, {"x": (1, 3, 16, 16)})
    assert [node.outputs[0].shape for node in graph.nodes] == [[1, 8, 14, 14], [1, 8, 1, 1], [1, 8]]
    assert all(node.outputs[0].dtype == np.float32 for node in graph.nodes)
    assert said(path) == ("model.onnx: input 'x': has open dimensions (Nx3xHxW); pin them with --input x:1x3x224x224")


def test_a_network_without_convolutions_is_fine(write: Write) -> None:
    assert len(open_model(write("(float[2] x) => (float[2] y) { y = Relu(x) }")).nodes) == 1


def test_functions_are_inlined(write: Write) -> None:
    graph = open_model(
        write(
            "(float[2,2] x) => (float[2,2] y) { t = local.Twice(x) y = MatMul(t, w) }",
            '"" : 17, "local" : 1',
            '<domain: "local", opset_import: ["" : 17]> Twice (a) => (b) { b = Add(a, a) }',
            w=weight(2, 2),
        )
    )
    assert [node.op for node in graph.nodes] == ["Add", "MatMul"]
    assert graph.carried is not None
    assert not graph.carried.functions
    np.testing.assert_allclose(Session(graph).run({"x": np.eye(2, dtype=np.float32)})["y"], 2 * weight(2, 2))


def test_large_weights_stay_in_the_file(write: Write) -> None:
    path = write(
        "(float[1,64] x) => (float[1,64] y) { t = local.Twice(x) u = MatMul(t, w) y = Softmax<axis = 1>(u) }",
        '"" : 11, "local" : 1',
        '<domain: "local", opset_import: ["" : 11]> Twice (a) => (b) { b = Add(a, a) }',
        w=weight(64, 64),
    )
    graph = open_model(path)
    found = next(constant for constant in graph.constants() if constant.name == "w")
    assert found.stored is not None
    assert found.stored.mapping is not None


# -- weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        ([np.nan], "has 1 value that is not finite"),
        ([np.nan, np.inf, -np.inf], "has 3 values that are not finite"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_weights_that_are_not_finite(bad: list[float], line: str, dtype: type, write: Write) -> None:
    values = weight(64, 64).astype(dtype)
    values[7, : len(bad)] = bad
    kind = {"float32": "float", "float64": "double"}.get(np.dtype(dtype).name, "float16")
    path = write(f"({kind}[1,64] x) => ({kind}[1,64] y) {{ y = MatMul(x, w) }}", w=values)
    assert said(path) == f"model.onnx: weight 'w': {line}; train or export the network again"


def test_infinities_have_their_uses_in_masks_and_bounds(write: Write) -> None:
    mask = np.array([0, -np.inf], np.float32)
    body = "(float[2] x) => (float[2] y) { t = Add(x, mask) y = Clip(t, low) }"
    assert open_model(write(body, mask=mask, low=np.array(-np.inf, np.float32)))
    mask[0] = np.nan
    path = write(body, mask=mask, low=np.array(0, np.float32))
    assert said(path) == (
        "model.onnx: weight 'mask': has 1 value that is not finite; train or export the network again"
    )


def test_types_that_cannot_hold_nan_are_passed_over(tmp_path: Path) -> None:
    import ml_dtypes

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    weights = [
        from_array(np.zeros((4, 4), ml_dtypes.int4), "w4"),
        from_array(np.float32(1), "s"),
        numpy_helper.from_array(np.zeros((4, 4), ml_dtypes.float8_e4m3fnuz), "w8"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["w4", "s"], ["a"]),
        helper.make_node("DequantizeLinear", ["w8", "s"], ["b"]),
        helper.make_node("MatMul", ["x", "a"], ["t"]),
        helper.make_node("MatMul", ["t", "b"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    assert open_model(path).opset == 21
    weights[2].raw_data = b"\x80" + bytes(15)
    del graph.initializer[:]
    graph.initializer.extend(weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    assert said(path) == "model.onnx: weight 'w8': has 1 value that is not finite; train or export the network again"


def test_no_outputs(write: Write) -> None:
    assert said(write("(float[2] x) => () { y = Relu(x) }")) == "model.onnx: has no outputs; export the network again"


@pytest.mark.parametrize(("side", "size"), [(1 << 20, 1 << 42), (1 << 62, 1 << 126)])
def test_an_input_that_no_memory_holds(side: int, size: int, write: Write) -> None:
    assert said(write(f"(float[{side},{side}] x) => (float y) {{ y = ReduceMean <keepdims = 0> (x) }}")) == (
        f"model.onnx: input 'x': takes {size:,} bytes, more than 2,147,483,647; export the network for smaller ones"
    )


def test_functions_that_cannot_be_inlined(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(message: onnx.ModelProto, convert_version: bool) -> None:
        raise ValueError("recursive")

    monkeypatch.setattr(onnx.inliner, "inline_local_functions", fail)
    path = write(
        "(float[2] x) => (float[2] y) { y = local.Twice(x) }",
        '"" : 17, "local" : 1',
        '<domain: "local", opset_import: ["" : 17]> Twice (a) => (b) { b = Add(a, a) }',
    )
    assert said(path) == (
        "model.onnx: has functions that cannot be inlined (onnx says: recursive); "
        "export the network again with opset_version=17"
    )


@pytest.mark.parametrize(
    ("body", "weights", "line"),
    [
        (
            f"(float[{','.join(['1'] * 65)}] x) => (y) {{ y = Relu(x) }}",
            {},
            "tensor 'x': has 65 dimensions, and edgec takes 64 at most; drop the dimensions of 1 and export the network"
            " again",
        ),
        (
            "(float[4] x) => (y) { y = Reshape(x, s) }",
            {"s": np.array([1] * 70 + [4])},
            "tensor 'y': has 71 dimensions, and edgec takes 64 at most; drop the dimensions of 1 and export the network"
            " again",
        ),
        (
            "(float[4] x) => (y) { c = ConstantOfShape(s) r = ReduceSum<keepdims=0>(c) y = Add(x, r) }",
            {"s": np.array([1] * 70)},
            "tensor 'c': has 70 dimensions, and edgec takes 64 at most; drop the dimensions of 1 and export the network"
            " again",
        ),
        (
            "(float[4] x) => (y) { c = Expand(x, s) r = ReduceSum<keepdims=0>(c) y = Add(x, r) }",
            {"s": np.array([2**40, 4])},
            "tensor 'c': would take 17,592,186,044,416 bytes, more than 34,359,738,368; correct the attributes and"
            " constants that it is computed by",
        ),
        (
            "(float[4] x) => (y) { r = Range(a, b, c) f = Cast<to=1>(r) s = ReduceSum<keepdims=0>(f) y = Add(x, s) }",
            {"a": np.array(0), "b": np.array(2**40), "c": np.array(1)},
            "node 'range.r' (Range): would count 1,099,511,627,776 numbers, more than 67,108,864; correct the constants"
            " that it reads",
        ),
    ],
)
def test_tensors_that_nothing_could_hold(body: str, weights: dict[str, np.ndarray], line: str, write: Write) -> None:
    path = write(body, **weights)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.save(model, path)
    assert said(path) == f"model.onnx: {line}"


def test_the_public_names() -> None:
    assert parse_pins(["x:2"]) == {"x": (2,)}
    assert set(frontend.__all__) == {"Pin", "Pins", "as_pins", "open_model", "parse_pins"}
    import edgec

    assert edgec.load.__annotations__["return"] == "Graph"


def test_a_loaded_graph_is_a_graph(write: Write) -> None:
    import edgec

    graph = edgec.load(write("(float[N] x) => (float[N] y) { y = Relu(x) }"), {"x": (3,)})
    assert isinstance(graph, Graph)
    assert graph.inputs[0].shape == [3]
