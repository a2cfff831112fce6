"""The peer that factorization is measured against: plain Tucker-2 with one ratio for all layers, blind to data.

Every convolution keeps the same part of its own parameters, its two ranks being the same part of their full ones;
pointwise convolutions and matrices get an SVD. Decomposition is tensorly's ``partial_tucker`` with its own defaults.
This is what the usual tutorials and libraries do. The weights are replaced by what the chain multiplies out to, which
is what the chain computes; parameters and multiply-accumulates are the chain's.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from edgec.ir.cost import Cost
from edgec.ir.graph import Constant, Graph, Node
from edgec.ir.shapes import Shapes


@dataclass(frozen=True)
class Peer:
    """A network with low-rank weights.

    Attributes:
        graph: runs as the chains would.
        params, macs: of the chains and of all that is not factorized.
        ratio: the part of its parameters that each layer was asked to keep.
    """

    graph: Graph
    params: int
    macs: int
    ratio: float


class _Layer:
    """One layer, its kernel as (out, in, taps), and the positions that each part of a chain is computed at."""

    def __init__(self, node: Node, shapes: Shapes) -> None:
        assert isinstance(node.inputs[1], Constant)
        self.node, self.weight = node, node.inputs[1]
        values = self.weight.values
        self.transposed = node.op == "ConvTranspose" or (node.op == "Gemm" and not node.attrs.get("transB"))
        self.kernel = np.moveaxis(values, 1, 0) if self.transposed else values
        self.out, self.into = self.kernel.shape[:2]
        self.taps = int(np.prod(self.kernel.shape[2:], dtype=int))
        read = shapes.shape(node.inputs[0]) or ()
        written = shapes.shape(node.outputs[0]) or ()
        self.read = int(np.prod([d or 1 for d in read], dtype=int)) // self.into
        self.written = int(np.prod([d or 1 for d in written], dtype=int)) // self.out
        self.at = self.read if node.op == "ConvTranspose" else self.written

    def ranks(self, keep: float) -> tuple[int, int]:
        """The ranks (out, in) at which a chain has at most the part ``keep`` of the layer's parameters, 1 at least."""
        whole = self.out * self.into * self.taps
        if self.taps == 1:
            rank = max(int(keep * whole / (self.out + self.into)), 1)
            return rank, rank
        linear = self.out**2 + self.into**2
        scale = (np.sqrt(linear**2 + 4 * keep * whole**2) - linear) / (2 * whole)
        return max(int(scale * self.out), 1), max(int(scale * self.into), 1)

    def cost(self, ranks: tuple[int, int], positions: bool) -> int:
        """Parameters of a chain, or its multiply-accumulates; the layer's own where a chain has more parameters."""
        last, core, first = self.out * ranks[0], ranks[0] * ranks[1] * self.taps, ranks[1] * self.into
        if self.taps == 1:
            core = 0
        elif ranks[1] == self.into:
            first = 0
        if last + core + first >= self.kernel.size:
            return self.kernel.size * (self.at if positions else 1)
        if not positions:
            return last + core + first
        ahead = self.at if self.taps == 1 else self.read
        return last * self.written + core * self.at + first * ahead

    def low_rank(self, ranks: tuple[int, int]) -> np.ndarray:
        """The weights that the chain stands for, in the layer's own layout."""
        if self.cost(ranks, positions=False) >= self.kernel.size:
            return self.weight.values
        kernel = self.kernel.reshape(self.out, self.into, -1).astype(np.float64)
        if self.taps == 1:
            left, values, right = np.linalg.svd(kernel[:, :, 0], full_matrices=False)
            found = (left[:, : ranks[0]] * values[: ranks[0]]) @ right[: ranks[0]]
        else:
            from tensorly.decomposition import partial_tucker

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it asks its own SVD for more vectors than there are
                (core, (last, first)), _ = partial_tucker(kernel, rank=list(ranks), modes=[0, 1])
            found = np.einsum("oa,abt,ib->oit", last, core, first, optimize=True)
        found = found.reshape(self.kernel.shape).astype(self.weight.dtype)
        return np.ascontiguousarray(np.moveaxis(found, 1, 0) if self.transposed else found)


def compress(graph: Graph, keep: float, *, inner: bool = False) -> Peer:
    """``graph`` with the part ``keep`` of its parameters, every layer at one ratio; ``graph`` itself is not changed.

    Args:
        graph: BatchNormalization folded.
        keep: of all parameters.
        inner: leave the first and the last layer whole.

    Raises:
        ValueError: rank 1 in every layer is more than that.
    """
    graph = graph.copy()
    shapes, cost = Shapes(graph), Cost(graph)
    layers = [_Layer(node, shapes) for node in graph.nodes if node.op in ("Conv", "ConvTranspose", "Gemm")]
    layers = layers[1:-1] if inner else layers
    fixed = cost.params - sum(layer.kernel.size for layer in layers)

    def params(ratio: float) -> int:
        return fixed + sum(layer.cost(layer.ranks(ratio), positions=False) for layer in layers)

    low, high = 0.0, 1.0
    if params(low) > keep * cost.params:
        raise ValueError(f"rank 1 everywhere keeps {params(low) / cost.params:.4f} of the parameters")
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if params(middle) <= keep * cost.params else (low, middle)
    macs = cost.macs - sum(layer.kernel.size * layer.at for layer in layers)
    for layer in layers:
        ranks = layer.ranks(low)
        macs += layer.cost(ranks, positions=True)
        layer.weight.values = layer.low_rank(ranks)
    return Peer(graph, params(low), macs, low)
