"""The worklist: its cost, its order, and the signature that it keeps."""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Graph, Node, Variable
from edgec.passes.fold.fold import RULES
from edgec.passes.framework.context import Context
from edgec.passes.framework.rewriter import Rewriter
from edgec.testing import model


def chain(blocks: int) -> Graph:
    """Conv, BatchNormalization, Identity, Relu, over and over."""
    graph = Graph(opset=17, ir_version=8)
    x = Variable("x", np.float32, [1, 4, 4, 4])
    graph.inputs = [x]
    statistics = [graph.const(name, np.ones(4, np.float32) * 2) for name in ("gamma", "beta", "mean", "var")]
    end: Variable = x
    for i in range(blocks):
        weights = graph.const(f"w{i}", np.ones((4, 4, 1, 1), np.float32))
        end = graph.op("Conv", [end, weights], name=f"conv{i}")
        end = graph.op("BatchNormalization", [end, *statistics], name=f"bn{i}")
        end = graph.op("Relu", [graph.op("Identity", [end], name=f"same{i}")], name=f"relu{i}")
    end.name, end.dtype, end.shape = "y", np.dtype(np.float32), [1, 4, 4, 4]
    graph.outputs = [end]
    return graph


def rules_tried(graph: Graph) -> int:
    tried = 0

    def counted(rule):  # type: ignore[no-untyped-def]
        def run(rw: Rewriter, node: Node) -> bool:
            nonlocal tried
            tried += 1
            return bool(rule(rw, node))

        return run

    rw = Rewriter(graph, Context(graph))
    rw.run({op: [counted(rule) for rule in rules] for op, rules in RULES.items()})
    rw.finish()
    return tried


def test_four_times_the_nodes_try_four_times_the_rules() -> None:
    small, large = chain(50), chain(200)
    tried = rules_tried(small)
    assert [node.op for node in small.nodes] == ["Conv", "Relu"] * 50
    assert rules_tried(large) <= 4.5 * tried


def test_new_nodes_stand_in_front_of_theirs_in_the_order_of_making() -> None:
    graph = model("[one] a = Relu(x)\n[two] y = Neg(a)", "(float[2] x) => (float[2] y)")
    one, two = graph.nodes
    rw = Rewriter(graph, Context(graph))
    first = rw.insert(two, "Abs", [one.outputs[0]], name="first")
    second = rw.insert(two, "Neg", [first], name="first")
    rw.set_input(two, 0, second)
    assert [node.name for node in graph.nodes] == ["one", "two"]
    rw.finish()
    assert [node.name for node in graph.nodes] == ["one", "first", "first.1", "two"]


def test_what_only_a_removed_node_needed_goes_with_it() -> None:
    graph = model(
        "[a] a = Relu(x)\n[b] b = Neg(a)\n[c] c = Abs(a)\n[d] y = Add(b, c)\n[e] z = Exp(c)",
        "(float[2] x) => (float[2] y, float[2] z)",
    )
    rw = Rewriter(graph, Context(graph))
    names = {node.name: node for node in graph.nodes}
    rw.replace(names["d"], names["c"].outputs[0])
    rw.finish()
    assert [node.name for node in graph.nodes] == ["a", "c", "e"]
    assert [tensor.name for tensor in graph.outputs] == ["y", "z"]
    assert rw.single_use(names["a"].outputs[0])


def test_reasons_are_reported_only_for_nodes_that_stay() -> None:
    graph = model("[a] a = Relu(x)\n[b] b = Neg(a)\n[c] y = Neg(b)", "(float[2] x) => (float[2] y)")
    ctx = Context(graph)
    rw = Rewriter(graph, ctx)
    a, b, c = graph.nodes
    for node in (a, b, c):
        rw.missed(node, "because")
    rw.did(c, "something")
    rw.set_input(c, 0, a.outputs[0])
    rw.finish()
    assert [remark.node for remark in ctx.left] == ["a"]
