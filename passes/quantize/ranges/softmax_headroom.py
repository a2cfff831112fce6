"""Room for scores that no calibration image showed.

A Sigmoid at the end of a network turns numbers into the scores of a detector or classifier. Few of the images that one
calibrates with show what is looked for, and not in every size and light: in use scores reach further than those that
were seen, and what saturates is the objects. So such a Sigmoid may give anything from 0 to 1, what it reads spans -4 to
4 at least, and what the layer in front of it reads gets the room that this takes.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from edgec.ir.graph import Graph, Node, Tensor, Variable, consumers, producer
from edgec.passes.quantize.placement.placement import MOVES
from edgec.passes.quantize.scales.affine_parameters import Range

#: A Sigmoid gives 0.018 and 0.982 at the ends.
RESPONSIVE = Range(-4.0, 4.0)
_PROBABILITY = Range(0.0, 1.0)
# The most that ranges in front of the last layer are widened by.
_MOST = 2.0
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# What these give does not grow with what they read.
_BOUNDED = frozenset({"Sigmoid", "HardSigmoid", "Tanh", "Softmax", "Clip"})


def score_tensors(graph: Graph) -> list[Variable]:
    """What Sigmoids at the end of the network read, and what that was before it was moved."""
    return [tensor for sigmoid in _final(graph) for tensor in _sources(sigmoid)]


def responsive(graph: Graph, spans: Mapping[Variable, Range]) -> dict[Variable, Range]:
    """``spans``, wide enough for any score.

    Args:
        graph: sorted; not changed.
        spans: the range of each tensor, by what was seen of it, those of :func:`score_tensors` among them.
    """
    least, room = _probabilities(graph), _room(graph, spans)
    wider = {tensor: span.times(room.get(tensor, 1.0)) for tensor, span in spans.items()}
    return {tensor: span.union(least[tensor]) if tensor in least else span for tensor, span in wider.items()}


def _probabilities(graph: Graph) -> dict[Variable, Range]:
    """What Sigmoids at the end of the network read and give, with the tensors that are only moved to and from them."""
    found: dict[Variable, Range] = {}
    for node in _final(graph):
        found[node.outputs[0]] = _PROBABILITY
        for tensor in _sources(node):
            found[tensor] = RESPONSIVE
    return found


def _room(graph: Graph, spans: Mapping[Variable, Range]) -> dict[Variable, float]:
    """By how much the ranges of tensors are widened that do nothing but make scores.

    Where scores of -4 were seen, but none of 4, the numbers that the last layer reads are taken to grow as the scores'
    distance from their least one does.
    """
    found: dict[Variable, float] = {}
    outputs = set(graph.outputs)
    for scores in score_tensors(graph):
        layer, span = producer(scores), spans.get(scores)
        if layer is None or layer.op not in _WEIGHTED or span is None:
            continue
        if span.low <= RESPONSIVE.low and span.high < RESPONSIVE.high:
            more = min(_MOST, (RESPONSIVE.high - span.low) / (span.high - span.low))
            for tensor in _read_by_it_alone(layer, outputs):
                found[tensor] = max(more, found.get(tensor, 1.0))
    return found


def _read_by_it_alone(layer: Node, outputs: Container[Tensor]) -> Iterator[Variable]:
    """What nothing but ``layer`` needs, back to the layers in front of it."""
    inside, waiting = {layer}, [layer]
    for node in waiting:
        for tensor in node.inputs:
            maker = producer(tensor)
            if not isinstance(tensor, Variable) or maker is None:
                continue
            if tensor in outputs or not inside.issuperset(consumers(tensor)):
                continue
            if maker.op not in _BOUNDED:
                yield tensor
            if maker.op not in _WEIGHTED and maker not in inside:
                inside.add(maker)
                waiting.append(maker)


def _final(graph: Graph) -> Iterator[Node]:
    """The Sigmoids whose results are only moved, and reach an output of the network."""
    outputs = set(graph.outputs)
    return (node for node in graph.nodes if node.op == "Sigmoid" and _ends(node, outputs))


def _ends(node: Node, outputs: set[Tensor]) -> bool:
    """Whether what a node gives is only moved, and reaches an output of the network."""
    waiting, reached = [node.outputs[0]], False
    for tensor in waiting:
        reached = reached or tensor in outputs
        for reader in consumers(tensor):
            if reader.op not in MOVES:
                return False
            waiting += [t for t in reader.outputs if t not in waiting]
    return reached


def _sources(node: Node) -> list[Variable]:
    """What a node reads, and what that was before it was moved."""
    waiting = [tensor for tensor in node.inputs if isinstance(tensor, Variable)]
    for tensor in waiting:
        maker = producer(tensor)
        if maker is not None and maker.op in MOVES:
            waiting += [t for t in maker.inputs if isinstance(t, Variable) and t not in waiting]
    return waiting
