"""Vectors that are shared only because they are equal."""

from __future__ import annotations

import numpy as np
from networks.coupled import coupled

from edgec.ir.channels import Channels
from edgec.ir.graph import Graph
from edgec.passes.prune.sharing import unshare
from edgec.testing import assert_same, model


def network() -> Graph:
    return model(
        """
        a = Conv(x, w1, zeros)
        b = Relu(a)
        c = Conv(b, w2, zeros)
        d = Add(c, c)
        y = Conv(d, w3, zeros)""",
        "(float[1,3,4,4] x) => (float[1,4,4,4] y)",
        "float[4,3,1,1] w1, float[4,4,1,1] w2, float[4,4,1,1] w3, float[4] zeros",
    )


def test_shared_biases_are_parted() -> None:
    graph = network()
    assert [(group.name, group.fixed) for group in Channels(graph).groups] == [("a", "a model's output")]
    before = graph.copy()
    assert unshare(graph) == 2
    assert [(g.name, g.fixed) for g in Channels(graph).groups] == [("a", None), ("c", None), ("y", "a model's output")]
    assert_same(before, graph, tolerance=0)
    first, *others = [node.inputs[2].values for node in graph.nodes if node.op == "Conv"]
    assert all(np.shares_memory(first, other) for other in others)
    assert unshare(graph) == 0


def test_shared_weights_stay_shared() -> None:
    graph = coupled("shared weights")
    assert unshare(graph) == 1  # the bias
    assert len({node.inputs[1] for node in graph.nodes if node.op == "Conv"}) == 3
    matrix = model("a = MatMul(x, w)\n y = Mul(a, w)", "(float[1,4] x) => (float[4,1] y)", "float[4,1] w")
    assert unshare(matrix) == 0


def test_what_the_signature_names_stays() -> None:
    graph = network()
    graph.inputs.append(next(c for c in graph.constants() if c.name == "zeros"))
    assert unshare(graph) == 0
