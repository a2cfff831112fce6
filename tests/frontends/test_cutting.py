"""Cutting a network before its end."""

from __future__ import annotations

import pytest

from edgec.frontends.cutting import cut
from edgec.ir.errors import UsageError
from edgec.ir.execution import Session, seeded_feeds
from edgec.ir.graph import Graph
from edgec.ir.printer import parse
from edgec.ir.shapes import Shapes
from edgec.ir.verifier import verify


def network() -> Graph:
    graph = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,4] x, float[1,4] mask) => (float[1,4] y) {
          [body] a = Relu(x)
          [neck] b = Neg(a)
          [head] y = Mul(b, mask)
        }"""
    )
    Shapes(graph).annotate(graph)
    return graph


@pytest.mark.parametrize("name", ["b", "neck"])
def test_by_tensor_or_by_node(name: str) -> None:
    graph = network()
    cut(graph, [name], "net.onnx")
    assert [t.name for t in graph.outputs] == ["b"]
    assert [n.name for n in graph.nodes] == ["body", "neck"]
    assert [t.name for t in graph.inputs] == ["x"]
    assert verify(graph) == []
    assert Session(graph).run(seeded_feeds(graph)[0])["b"].shape == (1, 4)


def test_several_in_the_order_given() -> None:
    graph = network()
    cut(graph, ["y", "a"], "net.onnx")
    assert [t.name for t in graph.outputs] == ["y", "a"]
    assert len(graph.nodes) == 3


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (
            ["nek"],
            "--cut nek: the model computes nothing named 'nek'. Did you mean 'neck'? "
            "'edgec inspect net.onnx' lists the nodes",
        ),
        (
            ["mask"],
            "--cut mask: the model computes nothing named 'mask'; 'edgec inspect net.onnx' lists the nodes",
        ),
        (["neck", "b"], "--cut b: names an output that was named already; name it once"),
    ],
)
def test_mistakes(names: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        cut(network(), names, "net.onnx")
    assert str(caught.value) == text
