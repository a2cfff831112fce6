"""Analyses are made once, and again after a change."""

from __future__ import annotations

from edgec.ir.analyses import Analyses
from edgec.ir.cost import Cost
from edgec.ir.graph import Graph
from edgec.ir.printer import parse
from edgec.ir.shapes import Shapes


class Size:
    """How many nodes there are."""

    def __init__(self, graph: Graph, analyses: Analyses) -> None:
        self.nodes = len(graph.nodes)
        self.shapes = analyses.get(Shapes)


def test_kept_until_dropped() -> None:
    graph = parse('<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
    analyses = Analyses(graph)
    first = analyses.get(Size)
    assert analyses.get(Size) is first
    assert analyses.get(Cost).nodes == 1
    assert analyses.computed == 3
    graph.op("Neg", graph.inputs)
    analyses.drop(preserved=(Shapes,))
    assert analyses.get(Shapes) is first.shapes
    assert analyses.get(Size).nodes == 2
    assert analyses.computed == 4
    analyses.drop()
    assert analyses.get(Shapes) is not first.shapes
