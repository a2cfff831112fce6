"""The branch of an If that is taken, in its place, where the condition is known when the network is compiled."""

from __future__ import annotations

from collections import Counter

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor, detach, producer
from edgec.ir.order import dependencies

_CONTROL = frozenset({"If", "Loop", "Scan", "SequenceMap"})


def inline_taken_branches(graph: Graph) -> list[tuple[str, str]]:
    """Puts the branch that runs in the place of every If whose condition is a constant, in bodies too, in place.

    Returns:
        The name of each If that went, with that of the attribute that held its branch.
    """
    gone: list[tuple[str, str]] = []
    if not any(_is_decided(node) for inside in graph.graphs() for node in inside.nodes):
        return gone
    taken_names = Counter(name for name, _ in {(t.name, id(t)) for inside in graph.graphs() for t in _named(inside)})
    while True:
        before = len(gone)
        for inside in graph.graphs():
            gone += _inline(inside, taken_names)
        if len(gone) == before:
            break
    graph.remove_dead()
    return gone


def undecided_conditions(graph: Graph) -> list[Tensor]:
    """The conditions of the main graph's Ifs that no constant gives, and that depend on no other control flow."""
    found: dict[Tensor, None] = {}
    for node in graph.nodes:
        if node.op == "If" and not isinstance(node.inputs[0], Constant) and not _depends_on_control(node.inputs[0]):
            found[node.inputs[0]] = None
    return list(found)


def _is_decided(node: Node) -> bool:
    return node.op == "If" and node.domain in ("", "ai.onnx") and _truth(node) is not None


def _truth(node: Node) -> bool | None:
    condition = node.inputs[0]
    if not isinstance(condition, Constant) or int(np.prod(condition.shape)) != 1:
        return None
    return bool(condition.values.reshape(-1)[0])


def _inline(graph: Graph, taken_names: Counter[str]) -> list[tuple[str, str]]:
    gone: list[tuple[str, str]] = []
    replaced: list[tuple[Tensor, Tensor]] = []
    kept: list[Node] = []
    pending = list(reversed(graph.nodes))
    while pending:
        node = pending.pop()
        if not _is_decided(node):
            kept.append(node)
            continue
        branch = "then_branch" if _truth(node) else "else_branch"
        body = node.attrs[branch]
        dropped = [other for other in node.subgraphs() if other is not body]
        dropped += [inner for other in dropped for n in other.nodes for inner in n.subgraphs(recursive=True)]
        for other in dropped:
            taken_names.subtract(tensor.name for tensor in dict.fromkeys(_named(other)))
            for inner in other.nodes:
                detach(inner)
            other.nodes.reorder(())
            other.outputs = []
        for tensor in dict.fromkeys(_named(body)):
            if taken_names[tensor.name] > 1:  # a name that the other branch, or another If's, has too
                taken_names[tensor.name] -= 1
                tensor.name = graph.fresh(tensor.name)
                taken_names[tensor.name] += 1
        replaced += zip(list(node.outputs), list(body.outputs), strict=True)
        pending.extend(reversed(body.nodes))
        body.nodes.reorder(())
        body.outputs = []
        detach(node)
        gone.append((node.name, branch))
    if gone:
        graph.nodes[:] = kept
        for output, result in replaced:
            graph.replace_uses(output, result)
    return gone


def _named(graph: Graph) -> list[Tensor]:
    """The tensors that a graph makes or holds itself: what its nodes compute, and the constants they read."""
    own: list[Tensor] = [*graph.inputs]
    for node in graph.nodes:
        own += [tensor for tensor in node.outputs if tensor.name]
        own += [tensor for tensor in node.inputs if isinstance(tensor, Constant)]
    own += [tensor for tensor in graph.outputs if isinstance(tensor, Constant)]
    return own


def _depends_on_control(tensor: Tensor) -> bool:
    seen: set[Node] = set()
    pending = [producer(tensor)]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        if node.op in _CONTROL:
            return True
        seen.add(node)
        pending += [producer(source) for source in dependencies(node)]
    return False
