"""Where to end a network in front of what a backend cannot take, so that nothing which its outputs need is lost.

A detector whose NMS cannot be lowered is cut at its boxes *and* its scores, and an output that does not depend on the
NMS at all has to be named too: ``--cut`` makes the tensors that it names the only outputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from edgec.ir.graph import Graph, Node, Tensor, Variable, producer


def carriers(graph: Graph, refused: Iterable[Node], cuttable: Collection[str] | None = None) -> list[str]:
    """Names of the tensors from which everything behind the refused nodes, and every other output, can be computed.

    Args:
        graph: sorted.
        refused: nodes that have to go.
        cuttable: names that the user's model has; ``None`` where it has all.

    Returns:
        tensors that a node computes, in the order of the graph; those of which a host has the value anyway, inputs and
        constants, are left out. Empty where the network would have to end at its inputs.
    """
    gone = set(refused)
    changing = _of_inputs(graph)
    while True:
        for node in graph.nodes:
            if any(producer(tensor) in gone for tensor in reads(node)):
                gone.add(node)
        edge = dict.fromkeys(tensor for node in graph.nodes if node in gone for tensor in reads(node))
        edge.update(dict.fromkeys(graph.outputs))
        kept = [t for t in edge if t in changing and producer(t) is not None and producer(t) not in gone]
        unknown = {producer(t) for t in kept if cuttable is not None and t.name not in cuttable}
        if not unknown:
            place = {node: number for number, node in enumerate(graph.nodes)}
            return [t.name for t in sorted(kept, key=lambda t: place[t.inputs[0]])]
        gone |= {node for node in unknown if node is not None}


def reads(node: Node) -> Iterator[Tensor]:
    """The tensors that a node reads, those of the graph around it which its branches read included."""
    yield from (tensor for tensor in node.inputs if isinstance(tensor, Variable) and tensor.name)
    for inner in node.subgraphs(recursive=True):
        own = {tensor for part in inner.nodes for tensor in part.outputs} | set(inner.inputs)
        for part in inner.nodes:
            yield from (t for t in part.inputs if isinstance(t, Variable) and t.name and t not in own)


def _of_inputs(graph: Graph) -> set[Tensor]:
    """The tensors whose values depend on what the network is fed."""
    changing: set[Tensor] = set(graph.inputs)
    for node in graph.nodes:
        if node.op != "Shape" and any(tensor in changing for tensor in reads(node)):
            changing.update(tensor for tensor in node.outputs if tensor.name)
    return changing


def depends_on_inputs(graph: Graph, tensor: Tensor) -> bool:
    """Whether the values of a tensor depend on what the network is fed, and not on shapes and constants alone."""
    return tensor in _of_inputs(graph)
