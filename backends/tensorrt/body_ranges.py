"""How large numbers get inside the bodies of If, Loop and Scan, where no tap reaches: each body gives its largest one.

A body gets one more output, the largest magnitude of all that it computes, and the node one more with it: a number, or
one for each turn. So a body is judged as a whole. A branch that no sample takes is not judged.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgec.ir.execution import Session
from edgec.ir.graph import Graph, Node, Variable
from edgec.ir.shapes import Shapes


class BodyRanges:
    """The largest magnitudes over samples.

    Args:
        graph: in float32, with names of nodes that are its own; not changed.

    Attributes:
        largest: by the name of each node with bodies.
        inside: by that name, the nodes in its bodies, and in the bodies of these.
    """

    def __init__(self, graph: Graph) -> None:
        nodes = [node for node in graph.nodes if _has_bodies(node)]
        self.largest = {node.name: 0.0 for node in nodes}
        self.inside = {node.name: [one for b in node.subgraphs(recursive=True) for one in b.nodes] for node in nodes}
        self._session: Session | None = None
        if nodes:
            graph = graph.copy()
            watch = _Watch(Shapes(graph))
            self._taps = {node.name: watch.node(graph, node) for node in graph.nodes if _has_bodies(node)}
            self._session = Session(graph, list(self._taps.values()))

    def see(self, feeds: Mapping[str, np.ndarray]) -> None:
        """Takes one sample in."""
        if self._session is None:
            return
        values = self._session.run(feeds, wanted=[tap.name for tap in self._taps.values()])
        for name, tap in self._taps.items():
            # What is no number is no less than what is too large.
            here = np.nan_to_num(values[tap.name], nan=np.inf, posinf=np.inf)
            self.largest[name] = max(self.largest[name], float(here.max(initial=0.0)))


def _has_bodies(node: Node) -> bool:
    return any(True for _ in node.subgraphs())


class _Watch:
    """Adds the outputs."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes

    def node(self, home: Graph, node: Node) -> Variable:
        """What the bodies of ``node``, a node of ``home``, give now: one number, or one for each turn."""
        for body in node.subgraphs():
            body.outputs.append(self._largest(body))
        for name in ("scan_output_axes", "scan_output_directions"):
            if node.attrs.get(name):
                node.attrs[name] = [*node.attrs[name], 0]
        made = Variable(home.fresh(f"{node.name}.largest"), np.float32)
        node.outputs.append(made)
        return made

    def _largest(self, body: Graph) -> Variable:
        flat = body.const("flat", np.array([-1], np.int64))
        parts: list[Variable] = []
        for node in list(body.nodes):
            computed = [t for t in node.outputs if t.name and self._shapes.dtype(t) == np.float32]
            inner = [self.node(body, node)] if _has_bodies(node) else []
            for tensor in (*computed, *inner):
                parts.append(body.op("Reshape", [body.op("Abs", [tensor]), flat]))
        joined = body.op("Concat", [body.const("nothing", np.zeros(1, np.float32)), *parts], axis=0)
        made: Variable = body.op("ReduceMax", [joined], keepdims=0)
        made.dtype, made.shape = np.dtype(np.float32), []
        return made
