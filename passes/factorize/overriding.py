"""A network whose layers can be given other weights from run to run, without a graph or a session being made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgec.ir.execution import Session
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, static_shape
from edgec.passes.factorize.layers import Layer


@dataclass
class Weights:
    """What some layers have instead of their own weights.

    Attributes:
        kernels: by weight constant, in that constant's layout.
        biases: by node, (channels,), as they are added: whatever factor a Gemm has for its own.
    """

    kernels: dict[Constant, np.ndarray] = field(default_factory=dict)
    biases: dict[Node, np.ndarray] = field(default_factory=dict)


class Overridable:
    """A copy of a graph in which weights of layers, and a bias for each of their nodes, can be given for each run.

    Args:
        graph: it is not changed, and later changes are not seen.
        layers: those whose weights may be replaced.
    """

    def __init__(self, graph: Graph, layers: Sequence[Layer]) -> None:
        mapped: dict[Tensor, Tensor] = {}
        copy = graph.copy(mapped)
        twins = dict(zip(graph.nodes, copy.nodes, strict=True))
        self.outputs = [tensor.name for tensor in graph.outputs]
        self._inputs = {tensor.name for tensor in graph.inputs}
        self._names: dict[Constant | Node, str] = {}
        for layer in layers:
            self._expose(copy, mapped[layer.weight], layer.weight)
            for node in layer.nodes:
                own = own_bias(layer, node)
                if own is None:
                    continue
                twin = twins[node]
                twin.attrs.pop("beta", None)
                del twin.inputs[2:]
                bias = copy.const(f"{node.name or node.op}.own_bias", own.astype(layer.weight.dtype))
                twin.inputs.append(bias)
                self._expose(copy, bias, node)
        taps = dict.fromkeys(mapped[t] for layer in layers for n in layer.nodes for t in (read(n), n.outputs[0]))
        known = {id(t) for t in (*copy.inputs, *copy.outputs)}
        self._session = Session(copy, [tap for tap in taps if id(tap) not in known], optimize=True)

    def _expose(self, copy: Graph, constant: Tensor, key: Constant | Node) -> None:
        self._names[key] = constant.name
        if all(constant is not tensor for tensor in copy.inputs):
            copy.inputs.append(constant)

    def run(
        self, feeds: Mapping[str, np.ndarray], wanted: Sequence[str], weights: Weights | None = None
    ) -> dict[str, np.ndarray]:
        """Values of tensors by name: outputs, what layers read and compute, the model's inputs."""
        given = weights or Weights()
        constants = {self._names[weight]: values for weight, values in given.kernels.items()}
        constants |= {self._names[node]: values for node, values in given.biases.items()}
        computed = [name for name in dict.fromkeys(wanted) if name not in self._inputs]
        values = self._session.run(feeds, wanted=computed, constants=constants) if computed else {}
        return {**{name: feeds[name] for name in wanted if name in self._inputs}, **values}


def read(node: Node) -> Variable:
    """The activation that a layer reads."""
    data = node.inputs[1] if isinstance(node.inputs[0], Constant) else node.inputs[0]
    assert isinstance(data, Variable)
    return data


def own_bias(layer: Layer, node: Node) -> np.ndarray | None:
    """What a layer adds to each of its channels, (channels,); ``None`` where a node cannot be given a bias."""
    if layer.kind in ("matmul", "matmul_left"):
        return None
    channels = layer.groups * layer.out
    if len(node.inputs) < 3 or not node.inputs[2].name:
        return np.zeros(channels)
    added = node.inputs[2]
    if not isinstance(added, Constant) or int(np.prod(added.shape)) not in (1, channels):
        return None
    return np.broadcast_to(added.values.reshape(-1) * float(node.attrs.get("beta", 1.0)), (channels,))


def new_biases(layer: Layer) -> int:
    """How many parameters are added where each node of a layer gets a bias of its own; 0 where one of them cannot.

    A bias that is read by nothing else is replaced; one that others need stays beside the new ones.
    """
    if any(own_bias(layer, node) is None for node in layer.nodes):
        return 0
    held = {node.inputs[2] for node in layer.nodes if len(node.inputs) > 2 and node.inputs[2].name}
    replaced = [constant for constant in held if set(constant.outputs) <= set(layer.nodes)]
    return layer.groups * layer.out * len(layer.nodes) - sum(
        int(np.prod(static_shape(constant))) for constant in replaced
    )
