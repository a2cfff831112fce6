"""How long graphs take here, and the graphs that are timed: one layer by itself, as it is or as a chain.

What is timed is onnxruntime as it is used: optimized, on one thread, with the batch of the graph. A chain is timed with
noise for weights, before there are factors: how long a convolution takes does not depend on its values.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgec.ir.execution import Feeds, Session
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable
from edgec.ir.shapes import Shapes
from edgec.passes.factorize.chains import write_chain
from edgec.passes.factorize.layers import Layer
from edgec.passes.factorize.offers import Choice
from edgec.passes.factorize.stages import Stage
from edgec.passes.framework.context import Context
from edgec.passes.framework.rewriter import Rewriter

# Runs of each graph: at least so that a quartile means something, at most so that short ones do not take for ever.
_FEWEST, _MOST, _WARM_UP = 15, 300, 3
_FASTER = 0.25
# What onnxruntime computes in the same kernel as the layer in front of it.
_FUSED = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid"})

Chosen = tuple[Layer, Choice]


def milliseconds(graphs: Sequence[tuple[Graph, Feeds]], seconds: float) -> list[float]:
    """The time that one run of each graph takes here, in ms.

    The graphs run in turn, in an order that changes, so that what else the machine does falls on all of them alike. It
    can only add to a time: what counts is the quartile of the faster runs.

    Args:
        graphs: each with what it is run on.
        seconds: to spend on each.
    """
    sessions = [(Session(graph, threads=1, optimize=True), feeds) for graph, feeds in graphs]

    def measured(rounds: int) -> np.ndarray:
        taken = np.empty((rounds, len(sessions)))
        for number, row in enumerate(taken):
            for step in range(len(sessions)):
                place = (number + step) % len(sessions)
                session, feeds = sessions[place]
                start = time.perf_counter()
                session.run(feeds)
                row[place] = time.perf_counter() - start
        return taken

    once = float(np.median(measured(_WARM_UP), axis=0).sum())
    taken = measured(int(np.clip(seconds * len(sessions) / max(once, 1e-9), _FEWEST, _MOST)))
    return [float(ms) for ms in 1e3 * np.quantile(taken, _FASTER, axis=0)]


def alone(graph: Graph, layer: Layer, shapes: Shapes) -> tuple[Graph, Layer]:
    """A graph of nothing but a layer and the activations behind it, and the layer in it.

    Args:
        graph: where it stands.
        layer: one whose shapes are static.
        shapes: of ``graph``.
    """
    weight = Constant(layer.weight.name, layer.weight.values)
    made = Graph(opset=graph.opset, ir_version=graph.ir_version)
    twins = []
    for number, node in enumerate(layer.nodes):
        inputs: list[Tensor] = []
        for place, tensor in enumerate(node.inputs):
            inputs.append(weight if tensor is layer.weight else _outside(made, tensor, f"x{number}_{place}", shapes))
        twins.append(_append(made, node, inputs, f"y{number}", shapes))
        last = twins[-1]
        readers = node.outputs[0].outputs
        if len(readers) == 1 and readers[0].op in _FUSED and readers[0].inputs[0] is node.outputs[0]:
            rest = [_outside(made, t, f"z{number}_{i}", shapes) for i, t in enumerate(readers[0].inputs[1:])]
            last = _append(made, readers[0], [last.outputs[0], *rest], f"z{number}", shapes)
        made.outputs.append(last.outputs[0])
    return made, replace(layer, weight=weight, nodes=twins)


def _outside(made: Graph, tensor: Tensor, name: str, shapes: Shapes) -> Tensor:
    """What stands for an input of a node: a constant as it is, an input of the graph for a value that is computed."""
    if isinstance(tensor, Constant):
        return Constant(f"{name}.{tensor.name}", tensor.values)
    if not tensor.name:
        return Variable.empty()
    shape = shapes.shape(tensor)
    dtype = shapes.dtype(tensor)
    made.inputs.append(Variable(name, dtype if dtype is not None else np.dtype(np.float32), list(shape or ())))
    return made.inputs[-1]


def _append(made: Graph, node: Node, inputs: Sequence[Tensor], name: str, shapes: Shapes) -> Node:
    shape = shapes.shape(node.outputs[0])
    out = Variable(name, shapes.dtype(node.outputs[0]), None if shape is None else list(shape))
    twin = Node(node.op, name, dict(node.attrs), list(inputs), [out], domain=node.domain)
    made.nodes.append(twin)
    return twin


def with_chains(graph: Graph, chosen: Sequence[Chosen]) -> Graph:
    """A copy of ``graph`` in which layers are chains of noise, as :func:`.chains.write_chain` would write them."""
    mapped: dict[Tensor, Tensor] = {}
    copy = graph.copy(mapped)
    twins = dict(zip(graph.nodes, copy.nodes, strict=True))
    rw = Rewriter(copy, Context(copy))
    for layer, choice in chosen:
        weight = mapped[layer.weight]
        assert isinstance(weight, Constant)
        twin = replace(layer, weight=weight, nodes=[twins[node] for node in layer.nodes])
        write_chain(rw, twin, choice.method.name, _noise(layer, choice))
    rw.finish()
    return copy


def _noise(layer: Layer, choice: Choice) -> list[Stage]:
    random = np.random.Generator(np.random.PCG64(0))
    stages = []
    for stage in choice.method.blank(layer, choice.ranks).stages:
        shape = stage.kernel.shape
        scale = np.float32(np.prod(shape[2:]) ** -0.5)  # signals neither grow nor vanish from stage to stage
        stages.append(replace(stage, kernel=random.standard_normal(shape, np.float32) * scale))
    return stages
