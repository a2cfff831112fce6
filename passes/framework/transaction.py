"""A try on a copy of a graph, taken over where it succeeds."""

from __future__ import annotations

from edgec.ir.graph import Graph
from edgec.ir.node_list import NodeList


def take_over(graph: Graph, made: Graph) -> None:
    """Makes ``graph`` what a copy of it has become."""
    graph.nodes = NodeList(made.nodes)  # its names are read anew
    graph.inputs, graph.outputs = made.inputs, made.outputs
