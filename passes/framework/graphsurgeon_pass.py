"""A pass that is written for onnx-graphsurgeon: it is given a graph of that, and what it leaves is taken over.

@dataclass(frozen=True)
class Relu6(GraphSurgeonPass):
    \"\"\"Bounds every Relu at ``bound``.\"\"\"

    name: ClassVar[str] = "relu6"
    effect: ClassVar[Effect] = "lossy"
    bound: Annotated[float, Field(gt=0, description="the upper bound")] = 6.0

    def rewrite(self, graph: gs.Graph, ctx: Context) -> None:
        for node in [n for n in graph.nodes if n.op == "Relu"]:
            ...
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.ir.graph import Graph
from edgec.ir.interop import from_graphsurgeon, to_graphsurgeon
from edgec.passes.framework.base import Pass
from edgec.passes.framework.context import Context

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs


@dataclass(frozen=True)
class GraphSurgeonPass(Pass):
    """A pass on an onnx-graphsurgeon graph; weights are in memory while it runs."""

    @abc.abstractmethod
    def rewrite(self, graph: gs.Graph, ctx: Context) -> None:
        """Changes ``graph`` in place; names of inputs and outputs stay."""

    def run(self, graph: Graph, ctx: Context) -> None:
        """Gives :meth:`rewrite` the graph, cleans up and sorts what it left, and takes that over.

        Raises:
            InputError: what it left cannot be exported, or the weights take more than 2 GB.
        """
        theirs = to_graphsurgeon(graph)
        self.rewrite(theirs, ctx)
        theirs.cleanup().toposort()
        made = from_graphsurgeon(theirs)
        graph.nodes, graph.inputs, graph.outputs = made.nodes, made.inputs, made.outputs
        graph.opsets.update(made.opsets)
