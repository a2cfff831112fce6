"""Which scales of a quantized network training may change, and which of them change together.

A learnt scale (LSQ, Esser et al., "Learned Step Size Quantization", ICLR 2020) is its value when the module was made
times a factor that starts at 1 and is trained. Some scales share factors, because kernels depend on it:

- scales that are equal on both sides of an operator, as of a Concat or a MaxPool, stay equal: they have one factor;
- that of a bias in integers is the product of the input's and the weight's: it has the factors of both;
- of an input of the network, and behind an operator whose range is known (Sigmoid, Softmax, Tanh), nothing is learnt:
  these scales are prescribed, by raw pixels or by the target.

Zero-points stay, so both ends of a range move together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import networkx as nx
import numpy as np

from edgec.ir.graph import Constant, Graph, Node, producer
from edgec.ir.torch_module.conversion import is_float
from edgec.ir.torch_module.trained import Weight

_PRESCRIBED = frozenset({"Sigmoid", "HardSigmoid", "Softmax", "LogSoftmax", "Tanh"})
_AROUND = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class LearntScale:
    """A scale that is trained.

    Attributes:
        factors: the numbers of the factors that it is multiplied with.
        product_of: of a bias, the scales of the input and of the weight; its own is their product in float32.
    """

    factors: tuple[int, ...]
    product_of: tuple[Constant, Constant] | None = None


def learnt_scales(
    graph: Graph, weights: Mapping[Constant, Weight], frozen: Collection[Constant] = ()
) -> tuple[list[tuple[int, ...]], dict[Constant, LearntScale]]:
    """The shapes of the factors, and the scales of ``graph`` that are multiplied with them.

    Args:
        graph: sorted, with Q and DQ.
        weights: what is trained, as :func:`edgec.ir.torch_module.trained.weights` finds it.
        frozen: those of them that stay as they are, with their scales.
    """
    ties, fixed = _ties(graph), _prescribed(graph)
    biases: list[tuple[Constant, Constant, Constant]] = []
    for weight in weights.values():
        if weight.dequantizer is None:
            continue
        scale = weight.dequantizer.inputs[1]
        assert isinstance(scale, Constant)
        if weight.constant.dtype != np.int32:
            ties.add_node(scale)
            if weight.constant in frozen:
                fixed.add(scale)
            continue
        # Nodes that share a bias but not its scale's factors would need two.
        sources = {_sources(node) for node in weight.layers}
        found = sources.pop() if len(sources) == 1 else None
        if found is not None and np.allclose(scale.values, found[0].values * found[1].values, rtol=1e-5, atol=0):
            biases.append((scale, *found))
        else:
            fixed.update(one for pair in (*sources, found) if pair is not None for one in pair)
    shapes: list[tuple[int, ...]] = []
    learnt: dict[Constant, LearntScale] = {}
    for group in nx.connected_components(ties):
        members = [scale for scale in ties if scale in group]
        if not fixed.isdisjoint(group) or not all(is_float(scale.dtype) for scale in members):
            continue
        learnt.update((scale, LearntScale((len(shapes),))) for scale in members)
        shapes.append(members[0].values.shape)
    for scale, source, kernel in biases:
        factors = [learnt[one].factors for one in (source, kernel) if one in learnt]
        if factors:
            learnt[scale] = LearntScale(tuple(number for own in factors for number in own), (source, kernel))
    return shapes, learnt


def _ties(graph: Graph) -> nx.Graph[Constant]:
    """The scales of activations; an edge between two that stay equal."""
    ties: nx.Graph[Constant] = nx.Graph()
    for node in graph.nodes:
        around = [scale for scale in _scales_around(node) if scale.values.ndim == 0 or scale.values.size == 1]
        ties.add_nodes_from(around)
        for one in around:
            ties.add_edges_from((one, other) for other in around if one is not other and _equal(one, other))
    return ties


def _scales_around(node: Node) -> Iterator[Constant]:
    """The scales of what a node reads and gives: its own, of a Q and of a DQ behind something."""
    if node.op in _AROUND:
        pairs = [] if isinstance(node.inputs[0], Constant) else [node]
    else:
        makers = [producer(tensor) for tensor in node.inputs]
        pairs = [m for m in makers if m is not None and m.op in _AROUND and not isinstance(m.inputs[0], Constant)]
        pairs += [reader for tensor in node.outputs for reader in tensor.outputs if reader.op in _AROUND]
    for pair in pairs:
        if isinstance(pair.inputs[1], Constant):
            yield pair.inputs[1]


def _equal(one: Constant, other: Constant) -> bool:
    return bool(one.dtype == other.dtype and one.values.reshape(()) == other.values.reshape(()))


def _prescribed(graph: Graph) -> set[Constant]:
    found = set()
    for node in graph.nodes:
        if node.op == "QuantizeLinear" and isinstance(node.inputs[1], Constant):
            maker = producer(node.inputs[0])
            if maker is None or maker.op in _PRESCRIBED:
                found.add(node.inputs[1])
    return found


def _sources(node: Node) -> tuple[Constant, Constant] | None:
    """The scales of a layer's input and weight, where both are dequantized right in front of it."""
    makers = [producer(tensor) for tensor in node.inputs[:2]]
    scales = [m.inputs[1] for m in makers if m is not None and m.op == "DequantizeLinear"]
    if len(scales) == 2 and isinstance(scales[0], Constant) and isinstance(scales[1], Constant):
        return scales[0], scales[1]
    return None
