"""A graph is told from its copy by structure and by the arrays that hold its weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings

from edgec.ir.graph import Constant, Graph
from edgec.ir.unchanged import unchanged
from edgec.testing import model, named, networks

BODY = """
[c] a = Conv <pads = [1,1,1,1]> (x, w, b)
[r] r = Relu (a)
[m] m = ReduceMax <keepdims = 0> (r)
[l] l = Less (m, limit)
[i] y = If (l) <then_branch = one () => (float[1,4,8,8] t) { t = Neg (r) },
               else_branch = two () => (float[1,4,8,8] e) { e = Abs (r) }>
"""


def network() -> Graph:
    return model(BODY, "(float[1,3,8,8] x) => (float[1,4,8,8] y)", "float[4,3,3,3] w, float[4] b, float limit = {0.5}")


@settings(max_examples=20, deadline=None)
@given(networks())
def test_a_copy_is_unchanged(graph: Graph) -> None:
    before = graph.copy()
    assert unchanged(before, graph)
    graph.nodes[-1].name += "2"
    assert not unchanged(before, graph)


def weights(graph: Graph) -> Constant:
    return next(constant for constant in graph.constants() if constant.name == "w")


def attribute(graph: Graph) -> None:
    graph.nodes[0].attrs["pads"] = [1, 1, 1, 2]


def array(graph: Graph) -> None:
    weights(graph).values = weights(graph).values.copy()


def element_type(graph: Graph) -> None:
    named(graph, "a").dtype = np.dtype(np.float16)


def input_of_a_node(graph: Graph) -> None:
    graph.nodes[1].inputs[0] = graph.inputs[0]


def inside(graph: Graph) -> None:
    graph.nodes[4].attrs["then_branch"].nodes[0].op = "Abs"


def output(graph: Graph) -> None:
    graph.outputs = [named(graph, "r")]


def added(graph: Graph) -> None:
    graph.op("Relu", [graph.inputs[0]])


def folded(graph: Graph) -> None:
    graph.metadata["edgec.input.x"] = "1"


@pytest.mark.parametrize("change", [attribute, array, element_type, input_of_a_node, inside, output, added, folded])
def test_each_change_is_seen(change: Callable[[Graph], None]) -> None:
    graph = network()
    before = graph.copy()
    assert unchanged(before, graph)
    change(graph)
    assert not unchanged(before, graph)
