"""Networks of which one layer after the other changes, run from where nothing changes any more.

What the layer at hand reads from those before it is held for every batch where it fits a fixed amount of memory, so
that all layers together cost one run. Where it does not, the run begins at the last place that did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from edgec.ir.execution import Feeds
from edgec.ir.graph import Graph, Node, Variable
from edgec.ir.order import dependencies
from edgec.ir.shapes import Shapes
from edgec.passes.calibration.dataset import ROLE
from edgec.passes.calibration.runner import Tapped, batches, each
from edgec.passes.framework.context import Context

T = TypeVar("T")
_MOST_BYTES = 2**28
# Bytes of an element whose type the graph does not state: activations are float32.
_UNSTATED = 4


class Resuming:
    """A network on the calibration data.

    Args:
        graph: in order. Between two runs layers may change from the first one of the last run on, but only their
            weights and biases.
        ctx: the data and the threads.

    Attributes:
        count: how many batches there are.
    """

    def __init__(self, graph: Graph, ctx: Context) -> None:
        self._graph, self._ctx = graph, ctx
        self._shapes = Shapes(graph)
        self.count = batches(graph, ctx)
        self._held: list[dict[str, np.ndarray]] = []
        self._names: dict[str, Variable] = {}
        self._fed = True  # whether what is run reads inputs of the model

    def run(self, first: Node, taps: Sequence[Variable], work: Callable[[int, Feeds], T]) -> Iterator[T]:
        """What ``work`` makes of the values of ``taps`` on each batch, in order.

        Args:
            first: the first node that may change afterwards; it comes behind that of the run before, or is the same.
            taps: tensors that are inputs of the model, or computed by ``first`` or behind it, or read there.
            work: gets the number of the batch and values by name; called on several threads at once.

        Raises:
            InputError: there are no samples, or onnxruntime does not run the network.
        """
        crossing = self._crossing(first)
        inside = [tensor for tensor in crossing if tensor not in self._graph.inputs]
        hold = bool(inside) and self.count * self._bytes(inside) <= _MOST_BYTES
        given = {tensor: self._held[0][name] for name, tensor in self._names.items()} if self._held else {}
        network = Tapped(self._graph, [*taps, *(inside if hold else ())], given)

        def one(number: int, feeds: Feeds) -> tuple[T, dict[str, np.ndarray]]:
            values = network.run({**feeds, **(self._held[number] if given else {})})
            return work(number, values), {tensor.name: values[tensor.name] for tensor in inside} if hold else {}

        fed = self._fed or any(tap in self._graph.inputs for tap in taps)
        feeds: Iterable[Feeds] = self._ctx.feeds(self._graph, ROLE) if fed else ({} for _ in range(self.count))
        for number, (made, held) in enumerate(each(self._ctx, feeds, one)):
            if hold and given:
                self._held[number] = held  # frees what was held of this batch
            elif hold:
                self._held.append(held)
            yield made
        if hold:
            self._names = {tensor.name: tensor for tensor in inside}
            self._fed = len(inside) < len(crossing)

    def _crossing(self, first: Node) -> list[Variable]:
        """What is computed in front of a node, or fed, and read by it or behind it."""
        nodes = list(self._graph.nodes)
        at = next(place for place, node in enumerate(nodes) if node is first)
        # What is computed inside a branch of an If, or a body, does not cross: it is no tensor of the graph itself.
        known = {*self._graph.inputs, *(tensor for node in nodes[:at] for tensor in node.outputs)}
        read = dict.fromkeys(tensor for node in nodes[at:] for tensor in dependencies(node))
        return [t for t in read if isinstance(t, Variable) and t.name and t in known]

    def _bytes(self, tensors: Sequence[Variable]) -> float:
        total = 0.0
        for tensor in tensors:
            shape = self._shapes.shape(tensor)
            if shape is None or None in shape:
                return np.inf
            itemsize = _UNSTATED if tensor.dtype is None else np.dtype(tensor.dtype).itemsize
            total += float(np.prod([size or 0 for size in shape])) * itemsize
        return total
