"""Putting one tensor in another's place, for all who read it."""

from __future__ import annotations

from edgec.ir.graph import Graph, Node, Tensor, Variable


def replace_uses(graph: Graph, old: Tensor, new: Tensor) -> None:
    """What :meth:`Graph.replace_uses` says."""
    if old is new:
        return
    root = graph.names.graphs()[0]
    places = [(g, i) for g in graph.names.graphs() for i, tensor in enumerate(g.outputs) if tensor is old]
    if any(tensor is old for home, _ in places for tensor in home.inputs):
        # The signature passes it through: neither name can be given up.
        raise ValueError(f"'{old.name}' is an input and an output of the graph; its uses cannot be replaced")
    own = {id(node) for node in new.inputs}
    kept = [node for node in old.outputs if id(node) in own]
    moved = [node for node in old.outputs if id(node) not in own]
    list.clear(old.outputs)
    list.extend(old.outputs, kept)
    for node in dict.fromkeys(moved):
        for place, tensor in enumerate(node.inputs):
            if tensor is old:
                list.__setitem__(node.inputs, place, new)
    list.extend(new.outputs, moved)
    for home, place in places:
        if home is root:
            _replace_output(home, place, old, new)
        elif isinstance(new, Variable) and new.inputs and not any(tensor is new for tensor in home.outputs):
            home.outputs[place] = new  # a subgraph's outputs are told apart by their places
        else:
            home.outputs[place] = _alias(home, home.fresh(old.name), old, new)


def _replace_output(graph: Graph, place: int, old: Tensor, new: Tensor) -> None:
    """Makes ``new`` the output that ``old`` was, under its name; where it cannot take the name, an Identity does."""
    name = old.name
    old.name = graph.fresh(f"{name}.before")
    if isinstance(new, Variable) and not any(tensor is new for tensor in (*graph.inputs, *graph.outputs)):
        new.name = name
        new.dtype = old.dtype if new.dtype is None else new.dtype
        new.shape = list(old.shape) if new.shape is None and old.shape is not None else new.shape
        graph.outputs[place] = new
    else:
        graph.outputs[place] = _alias(graph, name, old, new)


def _alias(graph: Graph, name: str, old: Tensor, new: Tensor) -> Variable:
    made = Variable(name, old.dtype, None if old.shape is None else list(old.shape))
    graph.nodes.append(Node("Identity", graph.fresh(f"{name}.identity"), {}, [new], [made]))
    return made
