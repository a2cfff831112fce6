"""Execution order and dead code, both without recursion and in time that grows with the size of the graph."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from edgec.ir.errors import InternalError
from edgec.ir.garbage import uncollected
from edgec.ir.graph import Graph, Node, Tensor, detach


def dependencies(node: Node) -> Iterator[Tensor]:
    """What must be known before ``node`` runs: its inputs, and what its subgraphs capture from outside."""
    yield from node.inputs
    for subgraph in node.subgraphs(recursive=True):
        for inner in subgraph.nodes:
            yield from inner.inputs
        yield from subgraph.outputs


def is_sorted(graph: Graph) -> bool:
    """Whether every node stands behind the nodes whose results it reads."""
    place = {id(node): index for index, node in enumerate(graph.nodes)}
    for index, node in enumerate(graph.nodes):
        for tensor in dependencies(node):
            for source in tensor.inputs:
                if place.get(id(source), -1) >= index:
                    return False
    return True


def sort(graph: Graph) -> None:
    """Sorts ``graph`` and its subgraphs in place, changing the order only where it must.

    Kahn's algorithm; of the nodes that are ready, the one that stood first goes first. Raises
    :class:`~edgec.ir.errors.InternalError` naming nodes on a cycle.
    """
    for node in graph.nodes:
        for subgraph in node.subgraphs():
            sort(subgraph)
    if not is_sorted(graph):
        with uncollected():
            graph.nodes.reorder(_sorted(graph))


def _sorted(graph: Graph) -> list[Node]:
    place = {id(node): index for index, node in enumerate(graph.nodes)}
    waiting = [0] * len(graph.nodes)
    followers: list[list[int]] = [[] for _ in graph.nodes]
    for index, node in enumerate(graph.nodes):
        sources = {place[id(s)] for t in dependencies(node) for s in t.inputs if id(s) in place}
        waiting[index] = len(sources)
        for source in sources:
            followers[source].append(index)
    ready = [index for index, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    order: list[Node] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(graph.nodes[index])
        for follower in followers[index]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, follower)
    if len(order) != len(graph.nodes):
        stuck = [node.name or node.op for node, count in zip(graph.nodes, waiting, strict=True) if count]
        names = ", ".join(f"'{name}'" for name in stuck[:5])
        raise InternalError(f"graph '{graph.name}'", f"its nodes form a cycle through {names}")
    return order


def remove_dead(graph: Graph) -> int:
    """Removes the nodes of ``graph`` and its subgraphs that no output needs; returns how many.

    Inputs stay, used or not: they are the signature.
    """
    removed = 0
    live: set[int] = set()
    pending = [source for tensor in graph.outputs for source in tensor.inputs]
    while pending:
        node = pending.pop()
        if id(node) not in live:
            live.add(id(node))
            pending.extend(source for tensor in dependencies(node) for source in tensor.inputs)
    kept = []
    for node in graph.nodes:
        if id(node) in live:
            kept.append(node)
            removed += sum(remove_dead(subgraph) for subgraph in node.subgraphs())
            continue
        removed += 1
        for subgraph in node.subgraphs(recursive=True):
            for inner in subgraph.nodes:
                detach(inner)
        detach(node)
    graph.nodes.reorder(kept)
    return removed
