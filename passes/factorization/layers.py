"""The layers whose weights can be written as a chain of smaller ones, and what such a chain costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import Constant, Graph, Node
from edgec.ir.shapes import Shapes
from edgec.passes.linear_layers import LINEAR, groups

# What a chain computes between its nodes may be larger than what the layer computed: far below float32's end.
_LARGEST = 1e15


@dataclass(frozen=True)
class ChainCost:
    """What a chain costs at ranks (a, b): ``last * a + core * a * b + first * b``, a full mode leaving its term out.

    Attributes:
        whole: what the layer costs as it is.
        last, core, first: the coefficients.
        out, into: the full ranks.
    """

    whole: int
    last: int
    core: int
    first: int
    out: int
    into: int

    def tucker2(self, rank_out: np.ndarray, rank_in: np.ndarray) -> np.ndarray:
        """Of Tucker-2 chains; ranks broadcast against each other."""
        ends = self.last * rank_out * (rank_out < self.out) + self.first * rank_in * (rank_in < self.into)
        return ends + self.core * rank_out * rank_in

    def svd(self, rank: np.ndarray) -> np.ndarray:
        """Of two layers with ``rank`` channels between them."""
        return (self.last + self.first) * rank


@dataclass
class Layer:
    """One weight and the nodes that read it, all in the same way.

    Attributes:
        weight: the constant.
        nodes: its readers, in the graph's order.
        kind: which chain they become.
        params: the parameters of a chain.
        macs: its multiply-accumulates, all readers together; ``None`` where shapes are not known.
    """

    weight: Constant
    nodes: list[Node]
    kind: str
    params: ChainCost
    macs: ChainCost | None = None

    @property
    def is_matrix(self) -> bool:
        """Whether there is one tap only, so that an SVD is all there is to it."""
        return self.params.core == 1

    def kernel(self) -> np.ndarray:
        """The weights as (out, in, taps)."""
        return oriented(self.nodes[0], self.kind, self.weight.values)


def oriented(node: Node, kind: str, values: np.ndarray) -> np.ndarray:
    """Weights of a layer as (out, in, taps)."""
    if kind == "gemm":
        return (values if node.attrs.get("transB") else values.T)[:, :, None]
    if kind == "matmul":
        return values.T[:, :, None]
    if kind == "matmul_left":
        return values[:, :, None]
    flat = values.reshape(*values.shape[:2], -1)
    return flat.transpose(1, 0, 2) if kind == "conv_transpose" else flat


def find_layers(
    graph: Graph, shapes: Shapes, excluded: Callable[[Node], str | None], missed: Callable[[Node, str], object]
) -> list[Layer]:
    """The layers of ``graph`` that could be factorized, in its order.

    Args:
        graph: it is not changed.
        shapes: of the graph as it is.
        excluded: why a node is left out on the user's word; ``None`` where it is not.
        missed: told of each Conv, ConvTranspose, Gemm and MatMul that is no such layer, and why.
    """
    overridable = {id(t) for t in graph.inputs}
    found: dict[Constant, Layer] = {}
    for node in graph.nodes:
        if node.op not in LINEAR or node.domain not in ("", "ai.onnx"):
            continue
        place, kind = _kind(node)
        weight = node.inputs[place]
        reason = excluded(node) or _unfit(node, weight, id(weight) in overridable)
        if reason is None and isinstance(weight, Constant):
            reason = _other_reader(node, weight, place)
            if reason is None and weight not in found and not np.isfinite(weight.values).all():
                reason = "its weights are not all finite"
            if reason is None and weight not in found and not np.any(weight.values):
                reason = "its weights are all zero"
            if reason is None and weight not in found and float(np.abs(weight.values).max()) > _LARGEST:
                reason = f"its weights reach {np.abs(weight.values).max():.2g}, which a chain would overflow with"
        if reason is not None or not isinstance(weight, Constant):
            missed(node, reason or "")
            continue
        if weight in found:
            found[weight].nodes.append(node)
        else:
            out, into, taps = oriented(node, kind, weight.values).shape
            params = ChainCost(out * into * taps, out, taps, into, out, into)
            found[weight] = Layer(weight, [node], kind, params)
    layers = _complete(list(found.values()), missed)
    for layer in layers:
        layer.macs = _macs(layer, shapes)
    return layers


def _kind(node: Node) -> tuple[int, str]:
    if node.op == "MatMul":
        left = isinstance(node.inputs[0], Constant) and not isinstance(node.inputs[1], Constant)
        return (0, "matmul_left") if left else (1, "matmul")
    return 1, {"Conv": "conv", "ConvTranspose": "conv_transpose", "Gemm": "gemm"}[node.op]


def _unfit(node: Node, weight: object, overridable: bool) -> str | None:
    if not isinstance(weight, Constant):
        return "its weights are computed when the network runs"
    if overridable:
        return "its weights are an input of the model"
    if weight.dtype.kind != "f":
        return f"its weights are {weight.dtype.name}"
    if node.op in ("Conv", "ConvTranspose") and groups(node) != 1:
        return f"grouped convolution ({groups(node)} groups)"
    if node.op == "MatMul" and len(weight.shape) != 2:
        return "its weights are no matrix"
    return None


def _other_reader(node: Node, weight: Constant, place: int) -> str | None:
    """Why a weight that others read too cannot be taken apart: it would have to stay as well."""
    for reader in weight.outputs:
        alike = reader.op == node.op and reader.domain == node.domain
        same_layout = reader.attrs.get("transB", 0) == node.attrs.get("transB", 0)
        at = [i for i, tensor in enumerate(reader.inputs) if tensor is weight]
        if not (alike and same_layout and at == [place] and groups(reader) == groups(node)):
            return f"its weights are also read by '{reader.name or reader.op}' in another way"
    return None


def _complete(layers: list[Layer], missed: Callable[[Node, str], object]) -> list[Layer]:
    """Those whose weights have no reader that was left out, which would keep the weights alive beside the chain."""
    whole = []
    for layer in layers:
        others = [reader for reader in layer.weight.outputs if reader not in layer.nodes]
        if others:
            for node in layer.nodes:
                missed(node, f"it shares its weights with '{others[0].name or others[0].op}', which is left out")
        else:
            whole.append(layer)
    return whole


def _macs(layer: Layer, shapes: Shapes) -> ChainCost | None:
    """Positions at which each part of a chain is computed, times its weights, over all readers."""
    last = core = first = 0
    p = layer.params
    for node in layer.nodes:
        into = shapes.shape(node.inputs[0 if layer.kind != "matmul_left" else 1])
        out = shapes.shape(node.outputs[0])
        if into is None or out is None or None in into or None in out:
            return None
        read = int(np.prod([d or 1 for d in into], dtype=np.int64)) // p.into
        written = int(np.prod([d or 1 for d in out], dtype=np.int64)) // p.out
        # A pointwise convolution strides in its first half; a transposed one scatters only in its last.
        pointwise = layer.is_matrix and layer.kind == "conv"
        first += p.first * (written if pointwise else read)
        core += p.core * (read if layer.kind == "conv_transpose" else written)
        last += p.last * (read if layer.is_matrix and layer.kind == "conv_transpose" else written)
    return ChainCost(core * p.out * p.into, last, core, first, p.out, p.into)
