"""Identity, names and the rewriting verbs."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers, detach, producer
from edgec.ir.node_list import NodeList
from edgec.ir.printer import parse
from edgec.ir.verifier import verify


def chain(length: int) -> Graph:
    """x -> Relu -> Relu -> ... -> y"""
    graph = Graph(name="chain")
    last: Tensor = Variable("x", np.float32, [1, 4])
    graph.inputs = [last]
    for index in range(length):
        last = graph.op("Relu", [last], name=f"relu{index}")
    graph.outputs = [last]
    last.name, last.dtype, last.shape = "y", np.dtype(np.float32), [1, 4]
    return graph


IF = """
<ir_version: 8, opset_import: ["" : 17]>
g (bool cond, float[2] x) => (float[2] y)
{
    t = Neg(x)
    y = If (cond) <
        then_branch = a () => (float[2] p) { p = Relu(t) },
        else_branch = b () => (float[2] q) { q = Mul(t, t) }
    >
}
"""


# -- identity ----------------------------------------------------------------------------------------------------------


def test_parts_are_equal_only_to_themselves() -> None:
    pairs: list[tuple[object, object]] = [
        (Variable("x"), Variable("x")),
        (Constant("w", np.ones(2)), Constant("w", np.ones(2))),
        (Node("Relu", "r"), Node("Relu", "r")),
        (Graph(), Graph()),
    ]
    for one, other in pairs:
        assert one == one
        assert one != other
        assert len({one, other, one}) == 2


def test_detaching_one_of_two_alike_nodes_leaves_the_other() -> None:
    x, y = Variable("x"), Variable("y")
    first, second = Node("Relu", "r", {}, [x], [y]), Node("Relu", "r", {}, [x], [y])
    detach(second)
    assert x.outputs == [first]
    assert y.inputs == [first]
    assert first.inputs == [x]
    assert second.inputs == []


def test_erasing_one_of_two_alike_nodes_leaves_the_other() -> None:
    graph = Graph(inputs=[Variable("x", np.float32, [1])])
    first, second = (Node("Relu", "r", {}, [graph.inputs[0]], [Variable("y")]) for _ in range(2))
    graph.nodes += [first, second]
    graph.erase(second)
    assert list(graph.nodes) == [first]
    assert graph.nodes[0] is first


def test_lists_of_tensors_are_assigned_as_in_graphsurgeon() -> None:
    graph = chain(2)
    first, second = graph.nodes
    second.inputs = [graph.inputs[0]]  # type: ignore[assignment]
    assert first.outputs[0].outputs == []
    assert graph.inputs[0].outputs == [first, second]
    graph.remove_dead()
    assert [node.name for node in graph.nodes] == ["relu1"]


def test_metadata_of_one_part_are_not_those_of_all() -> None:
    one, other = Node("Relu", "a"), Node("Relu", "b")
    with pytest.raises(TypeError, match="does not support item assignment"):
        one.metadata["key"] = "value"  # type: ignore[index]
    one.metadata = {"key": "value"}
    assert other.metadata == {}


def test_tensors_turn_into_each_other_in_place() -> None:
    graph = chain(2)
    middle = graph.nodes[1].inputs[0]
    graph.nodes[0].outputs.clear()
    constant = middle.to_constant(np.ones((1, 4), np.float32))
    assert constant is middle
    assert isinstance(constant, Constant)
    assert constant.shape == (1, 4)
    assert graph.nodes[1].inputs[0] is constant
    variable = constant.to_variable(shape=[1, 4])
    assert isinstance(variable, Variable)
    assert (variable.dtype, variable.shape) == (np.float32, [1, 4])


# -- edges -------------------------------------------------------------------------------------------------------------


def test_both_ends_of_an_edge_change_together() -> None:
    node = Node("Sum", "s")
    a, b, c = (Variable(name) for name in "abc")
    node.inputs.extend(tensor for tensor in (a, b))
    assert (a.outputs, b.outputs) == ([node], [node])
    node.inputs.insert(0, c)
    node.inputs[1] = b
    assert (a.outputs, b.outputs, c.outputs) == ([], [node, node], [node])
    node.inputs[1:] = [a]
    assert (a.outputs, b.outputs) == ([node], [])
    del node.inputs[:1]
    assert (node.inputs, c.outputs) == ([a], [])
    node.inputs += [b]
    node.inputs.remove(a)
    assert node.inputs.pop() is b
    assert (a.outputs, b.outputs) == ([], [])
    node.inputs.append(c)
    del node.inputs[0]
    assert c.outputs == []
    a.outputs.append(node)
    assert node.inputs == [a]
    assert type(node.inputs + [b]) is list  # noqa: RUF005  (it is the operator that is tested)
    assert b.outputs == []


def test_a_tensor_read_twice_is_freed_once_for_each_use() -> None:
    x = Variable("x")
    node = Node("Mul", "square", {}, [x, x], [Variable("y")])
    assert consumers(x) == [node]
    node.inputs.pop()
    assert x.outputs == [node]
    detach(node)
    assert x.outputs == []


# -- verbs -------------------------------------------------------------------------------------------------------------


def test_op_names_what_it_makes() -> None:
    graph = chain(1)
    y = graph.op("Add", [graph.inputs[0], None], name="relu0", alpha=None, beta=2)
    node = producer(y)
    assert node is not None
    assert (node.name, y.name) == ("relu0.1", "relu0.1.out")
    assert node.inputs[1].name == ""
    assert node.attrs == {"beta": 2}
    two = graph.op("Split", [y], outputs=2)
    assert [tensor.name for tensor in two] == ["split.out", "split.out1"]
    given = Variable("mine")
    assert graph.op("Relu", [y], outputs=[given]) == [given]
    front = graph.op("Neg", [y], before=node)
    assert graph.nodes[graph.nodes.index(node) - 1] is producer(front)


def test_new_names_differ_from_every_name_of_the_model() -> None:
    graph = parse(IF)
    then, other = graph.nodes[1].subgraphs()
    assert graph.fresh("p") == "p.1"
    assert graph.fresh("p") == "p.2"
    assert then.fresh("p") == "p.3"
    assert then.fresh("cond") == "cond.1"
    assert other.fresh("x") == "x.1"
    assert graph.fresh("") == ".1"
    then.op("Relu", [then.nodes[0].inputs[0]], name="mine")
    assert graph.fresh("mine") == "mine.1"
    graph.nodes.append(Node("Relu", "outside", {}, [graph.inputs[1]], [Variable("appended")]))
    assert other.fresh("appended") == "appended.1"


def test_a_subgraph_made_elsewhere_joins_the_names_of_its_model() -> None:
    inner = Graph(name="inner", opset=13)
    inner.outputs = [inner.op("Constant", [], name="c", value_float=1.0)]
    graph = chain(1)
    graph.op("If", [graph.inputs[0]], then_branch=inner, else_branch=inner)
    assert graph.fresh("c.out") == "c.out.1"
    assert inner.opset == graph.opset


def test_constants_are_named_and_read_only() -> None:
    graph = chain(1)
    one = graph.const("w", np.ones(3))
    assert graph.const("w", 2.0).name == "w.1"
    with pytest.raises(ValueError, match="read-only"):
        one.values[0] = 5.0
    mine = np.zeros(3)
    one.values = mine
    mine[0] = 1.0  # the author's own array stays writable
    with pytest.raises(TypeError, match="constant 'w': values must be a numpy array, not list"):
        one.values = [1.0]  # type: ignore[assignment]


def test_replace_uses_moves_every_reader_but_the_new_tensors_own_producer() -> None:
    graph = chain(3)
    old = graph.nodes[0].outputs[0]
    new = graph.op("Neg", [old], before=graph.nodes[1])
    graph.replace_uses(old, new)
    assert [node.op for node in graph.nodes] == ["Relu", "Neg", "Relu", "Relu"]
    assert graph.nodes[2].inputs[0] is new
    assert old.outputs == [graph.nodes[1]]
    assert verify(graph) == []


def test_replace_uses_with_itself_does_nothing() -> None:
    graph = chain(2)
    middle = graph.nodes[0].outputs[0]
    graph.replace_uses(middle, middle)
    assert middle.outputs == [graph.nodes[1]]


def test_an_output_keeps_its_name_and_type() -> None:
    graph = chain(1)
    new = graph.op("Sigmoid", [graph.inputs[0]])
    graph.replace(graph.nodes[0], new)
    assert [(t.name, t.dtype, t.shape) for t in graph.outputs] == [("y", np.float32, [1, 4])]
    assert [node.op for node in graph.nodes] == ["Sigmoid"]
    assert verify(graph) == []


@pytest.mark.parametrize("what", ["input", "constant", "another output"])
def test_an_output_replaced_by_what_has_a_name_of_its_own_gets_an_identity(what: str) -> None:
    graph = chain(2)
    graph.outputs.append(graph.nodes[0].outputs[0])
    new: Tensor = {
        "input": graph.inputs[0],
        "constant": graph.const("c", np.ones((1, 4), np.float32)),
        "another output": graph.nodes[0].outputs[0],
    }[what]
    graph.replace(graph.nodes[1], new)
    assert [tensor.name for tensor in graph.outputs] == ["y", "relu0.out"]
    assert graph.outputs[0].inputs[0].op == "Identity"
    assert graph.outputs[0].inputs[0].inputs[0] is new
    assert graph.inputs[0].name == "x"
    assert verify(graph) == []


def test_an_input_that_is_also_an_output_cannot_be_replaced() -> None:
    graph = chain(1)
    graph.outputs.append(graph.inputs[0])
    new = graph.op("Neg", [graph.inputs[0]])
    with pytest.raises(ValueError, match="'x' is an input and an output of the graph; its uses cannot be replaced"):
        graph.replace_uses(graph.inputs[0], new)
    assert graph.nodes[0].inputs == graph.inputs


def test_subgraphs_read_the_replacement_too() -> None:
    graph = parse(IF)
    old = graph.nodes[0].outputs[0]
    new = graph.op("Abs", [graph.inputs[1]], before=graph.nodes[1])
    graph.replace(graph.nodes[0], new)
    then, other = graph.nodes[1].subgraphs()
    assert list(then.nodes[0].inputs) == [new]
    assert list(other.nodes[0].inputs) == [new, new]
    assert old.outputs == []
    assert verify(graph) == []


def test_a_subgraph_that_hands_out_an_outer_tensor_hands_out_the_replacement() -> None:
    graph = parse(IF)
    then, _ = graph.nodes[1].subgraphs()
    old = graph.nodes[0].outputs[0]
    then.replace_uses(then.outputs[0], old)  # a captured tensor as the subgraph's output
    then.remove_dead()
    new = graph.op("Abs", [graph.inputs[1]], before=graph.nodes[1])
    graph.replace(graph.nodes[0], new)
    assert then.outputs == [new]
    assert [tensor.name for tensor in graph.outputs] == ["y"]
    assert verify(graph) == []


def test_a_node_with_another_number_of_results_cannot_take_its_place() -> None:
    graph = chain(1)
    with pytest.raises(ValueError, match="node 'relu0' has 1 outputs, but 2 replace them"):
        graph.replace(graph.nodes[0], [Variable("a"), Variable("b")])


def test_a_node_that_is_used_cannot_be_erased() -> None:
    graph = chain(2)
    for node, name in zip(graph.nodes, ("relu0.out", "y"), strict=True):
        with pytest.raises(ValueError, match=f"node '{node.name}' cannot be erased: its output '{name}' is still used"):
            graph.erase(node)
    assert verify(graph) == []


def test_a_node_of_another_graph_cannot_be_erased_and_stays_whole() -> None:
    graph, other = chain(1), chain(1)
    other.outputs = []
    with pytest.raises(ValueError, match="is not in list"):
        graph.erase(other.nodes[0])
    assert other.nodes[0].inputs == other.inputs


# -- copies ------------------------------------------------------------------------------------------------------------


def test_a_copy_is_apart_and_shares_the_weights() -> None:
    graph = chain(2)
    weight = graph.const("w", np.ones((4, 4), np.float32))
    graph.replace(graph.nodes[1], graph.op("MatMul", [graph.nodes[0].outputs[0], weight], name="fc"))
    graph.nodes[-1].attrs["list"] = [1, 2]
    graph.nodes[-1].attrs["value"] = Constant("", np.zeros(2))
    graph.metadata["key"] = "value"
    twin = graph.copy()
    assert twin.nodes[1].inputs[1] is not weight
    assert np.shares_memory(twin.nodes[1].inputs[1].values, weight.values)
    twin.nodes[1].inputs[1].values = np.zeros((4, 4), np.float32)
    twin.nodes[1].attrs["list"].append(3)
    twin.nodes[1].attrs["value"].values = np.ones(2)
    twin.metadata["key"] = "other"
    twin.opset = 13
    twin.erase(twin.op("Relu", twin.inputs).inputs[0])
    assert weight.values.all()
    assert graph.nodes[1].attrs["list"] == [1, 2]
    assert not graph.nodes[1].attrs["value"].values.any()
    assert graph.metadata == {"key": "value"}
    assert graph.opset == 17
    assert len(graph.nodes) == len(twin.nodes) == 2


def test_a_copied_subgraph_reads_the_copied_outer_tensors() -> None:
    graph = parse(IF)
    twin = graph.copy()
    then, _ = twin.nodes[1].subgraphs()
    assert then.nodes[0].inputs[0] is twin.nodes[0].outputs[0]
    assert then.fresh("x") == "x.1"
    assert verify(twin) == []


def test_tensors_and_nodes_are_found_by_name() -> None:
    graph = chain(1)
    assert graph.node("relu0") is graph.nodes[0]
    assert graph.tensor("y") is graph.outputs[0]
    assert graph.node("none") is graph.tensor("none") is None


# -- size --------------------------------------------------------------------------------------------------------------


class Counted(NodeList):
    """A node list that counts how far searches go."""

    steps = 0

    def index(self, node: Node, *bounds: int) -> int:  # type: ignore[override]
        before = self._found_at
        found = super().index(node, *bounds)
        type(self).steps += abs(found - before)
        return found


def test_a_wide_fan_out_is_rewired_in_one_go() -> None:
    graph = Graph(inputs=[Variable("x", np.float32, [1])])
    x = graph.inputs[0]
    graph.outputs = [graph.op("Relu", [x], name=f"r{index}") for index in range(4000)]
    new = graph.op("Neg", [x])
    graph.replace_uses(x, new)
    touched = [node for node in graph.nodes if node.inputs[0] is new]
    assert len(touched) == 4000
    assert x.outputs == [producer(new)]
    assert list(new.outputs) == graph.nodes[:4000]


def test_walking_edits_search_next_to_each_other() -> None:
    graph = chain(2000)
    Counted.steps = 0
    nodes = list(graph.nodes)
    graph.nodes = Counted(nodes)
    for node in nodes:
        new = graph.op("Neg", [node.inputs[0]], before=node)
        graph.replace(node, new)
    assert [node.op for node in graph.nodes] == ["Neg"] * 2000
    assert Counted.steps < 3 * 2000
    assert verify(graph) == []
