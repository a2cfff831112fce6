"""A quantized network in blocks, each of which is to compute what the float network computes there.

The network is cut where one tensor carries all that passes, behind its rounding: a residual block comes out as one
block. Of a chain three layers with weights are one, as of the blocks that networks for small devices are built of; a
layer alone has least squares' answer already. Networks whose skips are long have few such tensors. A stretch of many
layers is taken layer by layer instead: a layer with the activation that is fused into it, as far as what it gives is
rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgec.ir.graph import Graph, Node, Tensor, Variable, consumers, producer
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.stored_layers import StoredLayer

# A stretch of more layers is taken layer by layer: it is no block that a network is made of.
_MOST_LAYERS = 10
# Stretches of fewer are joined with the next one.
_FEWEST_LAYERS = 3


@dataclass(frozen=True, eq=False)
class Block:
    """A part of the quantized network beside the same part of the float one.

    Attributes:
        layers: those whose weights and biases may change.
        entries: what it reads, in the quantized network.
        exact_entries: the same in the float one, one for one.
        exit: what it gives, in the quantized network.
        exact_exit: the same in the float one.
        first: its first node in the quantized network.
        exact_first: its first node in the float one.
    """

    layers: tuple[StoredLayer, ...]
    entries: tuple[Variable, ...]
    exact_entries: tuple[Variable, ...]
    exit: Variable
    exact_exit: Variable
    first: Node
    exact_first: Node


def find_blocks(pair: Pair, layers: Sequence[StoredLayer]) -> list[Block]:
    """The blocks of a network without control flow, in its order.

    Args:
        pair: the networks, in order.
        layers: what may change; a stretch without one of them is no block.
    """
    twins, nodes = _Twins(pair), list(pair.quantized.nodes)
    place = {node: number for number, node in enumerate(nodes)}
    weighted = sorted(layers, key=lambda layer: place[layer.node])
    blocks: list[Block] = []
    for (start, entries), (end, exits) in _stretches(pair.quantized, twins, [place[one.node] for one in weighted]):
        inside = tuple(layer for layer in weighted if start <= place[layer.node] < end)
        own = [node for node in nodes[start:end] if node in twins.nodes]
        if not inside or not own:
            continue
        exact = [twins.exact(tensor) for tensor in entries]
        given = twins.exact(exits[0]) if len(exits) == 1 else None
        if given is None or None in exact or len(inside) > _MOST_LAYERS:
            blocks += [_alone(layer, pair.quantized, twins) for layer in inside]
            continue
        known = tuple(tensor for tensor in exact if tensor is not None)
        first = min([nodes[start], *(layer.first for layer in inside)], key=lambda node: place[node])
        blocks.append(Block(inside, tuple(entries), known, exits[0], given, first, twins.nodes[own[0]]))
    return blocks


class _Twins:
    """What nodes and tensors of the quantized network are in the float one."""

    def __init__(self, pair: Pair) -> None:
        self._tensors = pair.twins()
        self.nodes: dict[Node, Node] = {quantized: exact for exact, quantized in pair.operators}

    def exact(self, tensor: Tensor) -> Variable | None:
        """The float network's tensor that one of the quantized network stands for, rounded or not."""
        while tensor not in self._tensors:
            maker = producer(tensor)
            if maker is None or maker.op not in ("QuantizeLinear", "DequantizeLinear"):
                return None
            tensor = maker.inputs[0]
        return self._tensors[tensor]


_Cut = tuple[int, list[Variable]]


def _stretches(graph: Graph, twins: _Twins, weighted: Sequence[int]) -> Iterator[tuple[_Cut, _Cut]]:
    """From cut to cut, each with the number of the node behind it and what passes there."""
    cuts: list[_Cut] = []
    start: _Cut | None = None
    for number, passing in _passing(graph):
        if number == 0:
            start = (0, passing)
        exact = {twins.exact(tensor) for tensor in passing}
        if len(exact) != 1 or None in exact:
            continue
        if cuts and cuts[-1][1] == passing:
            continue  # only weights are between them: the first of both has these behind it
        if cuts and not any(cuts[-1][0] <= layer < number for layer in weighted):
            cuts.pop()  # what stands between them belongs to the layer in front
        elif len(cuts) > 1 and sum(cuts[-2][0] <= layer < cuts[-1][0] for layer in weighted) < _FEWEST_LAYERS:
            cuts.pop()
        cuts.append((number, passing))
    count = len(graph.nodes)
    if start is not None and (not cuts or any(layer < cuts[0][0] for layer in weighted)):
        cuts.insert(0, start)
    if cuts and any(cuts[-1][0] <= layer for layer in weighted):
        cuts.append((count, [tensor for tensor in graph.outputs if isinstance(tensor, Variable)]))
    return pairwise(cuts)


def _passing(graph: Graph) -> Iterator[_Cut]:
    """In front of each node, and behind the last one, what is computed or fed before and read later on."""
    last: dict[Tensor, int] = dict.fromkeys(graph.outputs, len(graph.nodes))
    for number, node in enumerate(graph.nodes):
        for tensor in node.inputs:
            last[tensor] = max(last.get(tensor, 0), number)
    alive = {tensor: None for tensor in graph.inputs if isinstance(tensor, Variable) and tensor in last}
    moving = set[Tensor](alive)  # not computed from constants alone
    yield 0, list(alive)
    for number, node in enumerate(graph.nodes):
        for tensor in node.inputs:
            if isinstance(tensor, Variable) and last[tensor] <= number:
                alive.pop(tensor, None)
        if not moving.isdisjoint(node.inputs):
            moving.update(node.outputs)
            alive.update((t, None) for t in node.outputs if isinstance(t, Variable) and last.get(t, -1) > number)
        yield number + 1, list(alive)


def _alone(layer: StoredLayer, graph: Graph, twins: _Twins) -> Block:
    """A layer with what is fused into it, and the rounding behind that where nothing reads what is in between."""
    entry, given = layer.node.inputs[0], layer.node.outputs[0]
    followed = ("Relu", "Clip", "QuantizeLinear", "DequantizeLinear")
    while given not in graph.outputs:
        readers = list(dict.fromkeys(consumers(given)))
        if len(readers) != 1 or readers[0].op not in followed or readers[0].inputs[0] is not given:
            break
        given = readers[0].outputs[0]
        if readers[0].op == "DequantizeLinear":
            break
    exact = twins.exact(entry), twins.exact(given)
    assert isinstance(entry, Variable) and isinstance(given, Variable) and exact[0] is not None and exact[1] is not None
    return Block((layer,), (entry,), (exact[0],), given, exact[1], layer.first, layer.layer.nodes[0])
