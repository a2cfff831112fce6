"""Execution order and dead code."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.ir.errors import InternalError
from edgec.ir.graph import Graph, Node, Variable
from edgec.ir.order import is_sorted, sort
from edgec.ir.printer import parse
from edgec.ir.verifier import verify


def diamond() -> Graph:
    return parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y)
        {
            [a] a = Relu(x)
            [b] b = Neg(a)
            [dead] d = Abs(b)
            [deader] e = Abs(d)
            [c] c = Exp(a)
            [y] y = Add(b, c)
        }
        """
    )


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes]


def test_a_sorted_graph_is_left_alone() -> None:
    graph = diamond()
    before = names(graph)
    assert is_sorted(graph)
    assert names(graph.sort()) == before


def test_only_what_must_move_moves() -> None:
    graph = diamond()
    graph.nodes.insert(0, graph.nodes.pop())  # y to the front
    graph.sort()
    assert names(graph) == ["a", "b", "dead", "deader", "c", "y"]
    graph.nodes.reverse()
    assert names(graph.sort()) == ["a", "c", "b", "y", "dead", "deader"]
    assert verify(graph) == []


def test_a_reversed_chain_of_5000_is_sorted_without_recursion() -> None:
    graph = Graph(inputs=[Variable("x", np.float32, [1])])
    last = graph.inputs[0]
    for index in range(5000):
        last = graph.op("Relu", [last], name=f"r{index}")
    graph.outputs = [last]
    graph.nodes.reverse()
    assert not is_sorted(graph)
    graph.sort()
    assert names(graph) == [f"r{index}" for index in range(5000)]
    assert graph.remove_dead() == 0


def test_a_node_comes_behind_what_its_subgraph_captures() -> None:
    graph = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (bool cond, float[2] x) => (float[2] y)
        {
            [neg] t = Neg(x)
            [if] y = If (cond) <
                then_branch = a () => (float[2] p) { [one] u = Relu(t) [two] p = Relu(u) },
                else_branch = b () => (float[2] q) { [three] q = Mul(t, t) [idle] r = Neg(q) }
            >
        }
        """
    )
    then, other = graph.nodes[1].subgraphs()
    graph.nodes.reverse()
    then.nodes.reverse()
    graph.sort()
    assert names(graph) == ["neg", "if"]
    assert names(then) == ["one", "two"]
    assert graph.remove_dead() == 1
    assert names(graph) == ["neg", "if"]
    assert names(other) == ["three"]


def test_what_no_output_needs_goes() -> None:
    graph = diamond()
    assert graph.remove_dead() == 2
    assert names(graph) == ["a", "b", "c", "y"]
    assert [node.name for node in graph.nodes[1].outputs[0].outputs] == ["y"]
    graph.outputs = [graph.nodes[0].outputs[0]]
    assert graph.remove_dead() == 3
    assert [tensor.name for tensor in graph.inputs] == ["x"]
    graph.outputs = []
    assert graph.remove_dead() == 1
    assert [tensor.name for tensor in graph.inputs] == ["x"]


def test_a_dead_branch_frees_what_it_captured() -> None:
    graph = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (bool cond, float[2] x) => (float[2] y)
        {
            y = Neg(x)
            z = If (cond) <
                then_branch = a () => (float[2] p) { p = Relu(y) },
                else_branch = b () => (float[2] q) { q = Mul(y, y) }
            >
        }
        """
    )
    assert graph.remove_dead() == 1
    assert graph.outputs[0].outputs == []


def test_a_cycle_is_named() -> None:
    graph = Graph(name="net", inputs=[Variable("x")])
    a, b = Variable("a"), Variable("b")
    graph.nodes.extend([Node("Add", "one", {}, [graph.inputs[0], b], [a]), Node("Relu", "two", {}, [a], [b])])
    with pytest.raises(InternalError) as caught:
        sort(graph)
    assert str(caught.value) == "graph 'net': its nodes form a cycle through 'one', 'two'"
