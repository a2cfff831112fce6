"""Names that nothing else in a model has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgec.ir.graph import Graph


class Names:
    """The names of a graph and its subgraphs, which ONNX wants to be distinct from each other.

    They are read from nodes as nodes come in, so a new name costs the same on a large graph as on a small one.
    """

    def __init__(self, graph: Graph) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}
        self._graphs: list[Graph] = [graph]

    def fresh(self, name: str) -> str:
        """``name``, with a number behind it where it is taken or empty."""
        self.graphs()
        candidate = name
        while not candidate or candidate in self._taken:
            number = self._next[name] = self._next.get(name, 0) + 1
            candidate = f"{name}.{number}"
        self._taken.add(candidate)
        return candidate

    def graphs(self) -> list[Graph]:
        """The outermost graph and every graph that is or was inside it."""
        for graph in self._graphs:  # grows while subgraphs are met
            if graph.nodes.news:
                self._read(graph)
        return self._graphs

    def _read(self, graph: Graph) -> None:
        news, graph.nodes.news = graph.nodes.news, []
        add = self._taken.add
        for tensor in (*graph.inputs, *graph.outputs):
            add(tensor.name)
        for node in news:
            add(node.name)
            for tensor in (*node.inputs, *node.outputs):
                add(tensor.name)
            for subgraph in node.subgraphs():
                if subgraph.names is not self:
                    subgraph.share(graph)

    def join(self, subgraph: Graph) -> None:
        """Takes a graph in; what it named on its own before is read anew."""
        subgraph.names = self
        subgraph.nodes.news = list(subgraph.nodes)
        self._graphs.append(subgraph)
