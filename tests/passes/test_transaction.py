"""Tries on a graph itself, taken back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.ir.graph import Graph
from edgec.ir.unchanged import unchanged
from edgec.ir.verifier import verify
from edgec.passes import Factorize, Fold, Normalize, Prune
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.framework.transaction import Transaction
from edgec.testing import model, named, networks, outputs

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


def inside(graph: Graph) -> None:
    branch = graph.nodes[4].attrs["then_branch"]
    branch.replace(branch.nodes[0], branch.op("Exp", [branch.nodes[0].inputs[0]]))


def constant(graph: Graph) -> None:
    named(graph, "r").to_constant(np.zeros((1, 4, 8, 8), np.float32))
    graph.nodes[1].outputs = []


def erased(graph: Graph) -> None:
    graph.outputs = [named(graph, "r")]
    graph.remove_dead()


def renamed(graph: Graph) -> None:
    graph.nodes[0].name, graph.nodes[0].attrs["pads"] = "conv", [0, 0, 2, 2]
    graph.metadata["edgec.input.x"] = "1"
    named(graph, "a").shape = [1, 4, 9, 9]


@pytest.mark.parametrize("change", [inside, constant, erased, renamed])
def test_each_change_is_taken_back(change: Callable[[Graph], None]) -> None:
    graph = network()
    before, wanted = graph.copy(), outputs(graph)
    nodes = list(graph.nodes)
    transaction = Transaction(graph)
    change(graph)
    assert not unchanged(before, graph)
    transaction.undo()
    assert unchanged(before, graph)
    assert list(graph.nodes) == nodes and verify(graph) == []
    np.testing.assert_array_equal(outputs(graph)["y"], wanted["y"])


@settings(max_examples=30, deadline=None)
@given(networks(), st.sampled_from([Fold(), Prune(ratio=0.5), Factorize(rank=0.5), Normalize(scale=2.0)]))
def test_passes_are_taken_back(graph: Graph, step: Fold | Prune | Factorize | Normalize) -> None:
    before = graph.copy()
    transaction = Transaction(graph)
    step.run(graph, Context(graph, RunConfig()))
    graph.sort()
    graph.remove_dead()
    transaction.undo()
    assert unchanged(before, graph)
    assert verify(graph) == []


def test_only_the_constants_that_may_change() -> None:
    graph = network()
    weights = next(one for one in graph.constants() if one.name == "w")
    before = graph.copy()
    transaction = Transaction(graph, [weights])
    weights.values = np.zeros(weights.shape, np.float32)
    assert not unchanged(before, graph)
    transaction.undo()
    assert unchanged(before, graph)
