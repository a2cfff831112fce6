"""Each invariant, broken once."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.ir.errors import InputError
from edgec.ir.graph import Constant, Graph, Node, Variable
from edgec.ir.printer import parse
from edgec.ir.verifier import Violation, verify, verify_types


def two_layers() -> Graph:
    return parse(
        """
        <ir_version: 8, opset_import: ["" : 17, "org.example" : 1]>
        g (float[2] x) => (float[2] y)
        <float[2] w = {1.0, 2.0}>
        {
            [one] a = Add(x, w)
            [two] y = Relu(a)
        }
        """
    )


def only(graph: Graph) -> tuple[str, str]:
    """The one violation there is."""
    found = verify(graph)
    assert len(found) == 1, found
    return found[0].where, found[0].what


def test_a_sound_graph_has_none() -> None:
    assert verify(two_layers()) == []
    assert verify(Graph()) == []
    assert Violation("a", "b") == Violation("a", "b")


def test_a_tensor_that_nothing_computes() -> None:
    graph = two_layers()
    graph.nodes[1].inputs[0] = Variable("lost")
    assert only(graph) == ("node 'two' (Relu)", "reads 'lost', which no node computes")


def test_a_tensor_that_is_computed_later() -> None:
    graph = two_layers()
    graph.nodes.reverse()
    assert only(graph) == ("node 'two' (Relu)", "reads 'a', which is computed only later")


def test_a_node_that_is_no_consumer_of_what_it_reads() -> None:
    graph = two_layers()
    list.clear(graph.nodes[0].outputs[0].outputs)
    assert only(graph) == ("node 'two' (Relu)", "is not among the consumers of 'a', which it reads")


def test_a_node_that_is_no_consumer_among_many() -> None:
    graph = two_layers()
    x = graph.inputs[0]
    for index in range(20):
        graph.op("Relu", [x], name=f"r{index}")
    last = graph.nodes[-1]
    list.remove(x.outputs, last)
    assert only(graph) == ("node 'r19' (Relu)", "is not among the consumers of 'x', which it reads")


def test_two_tensors_of_one_name() -> None:
    graph = two_layers()
    graph.nodes[0].outputs[0].name = "x"
    assert only(graph) == ("node 'one' (Add)", "'x' is the name of two tensors")
    graph = two_layers()
    graph.nodes[0].inputs[0] = Constant("w", np.ones(2, np.float32))
    assert only(graph) == ("node 'one' (Add)", "'w' is the name of two tensors")


def test_a_name_of_an_outer_tensor_inside_a_subgraph() -> None:
    graph = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (bool cond, float[2] x) => (float[2] y)
        {
            [if] y = If (cond) <
                then_branch = a () => (float[2] p) { [in] p = Relu(x) },
                else_branch = b () => (float[2] q) { q = Neg(x) }
            >
        }
        """
    )
    assert verify(graph) == []
    then, _ = graph.nodes[0].subgraphs()
    then.outputs[0].name = "x"
    assert only(graph) == ("node 'in' (Relu)", "'x' is the name of two tensors")
    then.nodes.clear()
    assert only(graph) == ("output 'x'", "is computed by no node")


def test_a_tensor_with_two_producers() -> None:
    graph = two_layers()
    graph.nodes.append(Node("Neg", "three", {}, [graph.inputs[0]], [graph.nodes[0].outputs[0]]))
    assert [str((v.where, v.what)) for v in verify(graph)] == [
        "(\"node 'one' (Add)\", \"is not the only producer of 'a'\")",
        "(\"node 'three' (Neg)\", \"is not the only producer of 'a'\")",
    ]


def test_a_constant_that_is_computed() -> None:
    graph = two_layers()
    graph.op("Neg", [graph.inputs[0]], name="three", outputs=[graph.nodes[0].inputs[1]])  # type: ignore[list-item]
    assert only(graph) == ("node 'three' (Neg)", "computes 'w', which is a constant")


def test_an_input_that_is_computed() -> None:
    graph = two_layers()
    graph.inputs.append(graph.nodes[0].outputs[0])
    assert only(graph) == ("input 'a'", "is computed by a node, which an input cannot be")


def test_a_signature_that_repeats_itself() -> None:
    graph = two_layers()
    graph.inputs.append(graph.inputs[0])
    assert only(graph) == ("input 'x'", "stands twice among the inputs")
    graph = two_layers()
    graph.outputs.append(graph.outputs[0])
    assert only(graph) == ("graph 'g'", "has an output that stands twice among the outputs")


def test_an_output_that_is_not_there() -> None:
    graph = two_layers()
    graph.outputs.append(Variable("z"))
    assert only(graph) == ("output 'z'", "is computed by no node")
    graph.outputs[1] = Variable("")
    assert only(graph) == ("an output", "has no name")


def test_a_node_that_stands_twice() -> None:
    graph = two_layers()
    graph.nodes.append(graph.nodes[0])
    assert only(graph) == ("node 'one' (Add)", "stands twice in the graph")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"op": "Rleu"}, "is no operator of opset 17"),
        ({"op": "Gelu"}, "is no operator of opset 17"),
        ({"op": "Upsample"}, "is deprecated in opset 17"),
        ({"op": "Scale", "domain": "ai.onnx.ml"}, "is of the domain 'ai.onnx.ml', which the model does not import"),
        ({"op": "Anything", "domain": "org.example"}, None),
        ({"op": "Concat"}, "lacks the attribute 'axis'"),
        ({"op": "Add"}, "has 1 inputs where it takes 2"),
        ({"op": "Clip", "more": 3}, "has 4 inputs where it takes 1 to 3"),
        ({"op": "Sum", "more": 30}, None),
        ({"op": "Sum", "more": -1}, "has 0 inputs where it takes 1 or more"),
        ({"attrs": {"beta": 1}}, "has the attribute 'beta', which Relu of opset 17 does not take"),
        ({"outputs": 1}, "has 2 outputs where it gives 1"),
    ],
)
def test_operators_are_what_their_schema_says(change: dict[str, object], what: str | None) -> None:
    graph = two_layers()
    node = graph.nodes[1]
    node.op, node.domain = change.get("op", "Relu"), change.get("domain", "")
    node.attrs = change.get("attrs", {})
    for _ in range(int(str(change.get("outputs", 0)))):
        node.outputs.append(Variable("more"))
    more = int(str(change.get("more", 0)))
    node.inputs = [*node.inputs, *[Variable.empty() for _ in range(more)]] if more >= 0 else []
    assert verify(graph) == ([] if what is None else [Violation(f"node 'two' ({node.op})", what)])


def test_an_operator_of_another_standard_domain() -> None:
    graph = two_layers()
    graph.opsets["ai.onnx.ml"] = 3
    graph.op("Scaler", [graph.inputs[0]], name="s", domain="ai.onnx.ml")
    assert verify(graph) == []
    graph.nodes[-1].op = "Skaler"
    assert only(graph) == ("node 's' (Skaler)", "is no operator of opset 3 of 'ai.onnx.ml'")


def test_functions_of_the_model_are_operators() -> None:
    graph = parse(
        """
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[2] x) => (float[2] y) { y = local.Twice(x) }
        <domain: "local", opset_import: ["" : 17]> Twice (a) => (b) { b = Add(a, a) }
        """
    )
    assert verify(graph) == []


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (
            "[m] t = MatMul(x, w)  [r] y = Relu(t)",
            "node 'm' (MatMul): its types and shapes do not fit: Incompatible dimensions for matrix multiplication; "
            "export the network again, or correct its shapes",
        ),
        (
            "y = Relu(x)",
            "a node without a name (Relu): its types and shapes do not fit: Inferred shape and existing shape differ "
            "in dimension 1: (3) vs (5); export the network again, or correct its shapes",
        ),
        (
            "[s] t = Shape(x) [r] y = Relu(t)",
            "node 'r' (Relu): its types and shapes do not fit: Inferred elem type differs from existing elem type: "
            "(7) vs (1); export the network again, or correct its shapes",
        ),
    ],
)
def test_types_that_clash(body: str, line: str) -> None:
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[2,3] x, float[4,5] w) => (float[2,5] y) {{ {body} }}'
    with pytest.raises(InputError) as caught:
        verify_types(parse(text))
    assert str(caught.value) == line
