"""The layers whose weights can be written as a chain of smaller ones: what they read, compute and cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import Constant, Graph, Node
from edgec.ir.shapes import Shapes
from edgec.passes.layers.linear import LINEAR, groups

# What a chain computes between its nodes may be larger than what the layer computed: far below float32's end.
_LARGEST = 1e15


@dataclass(frozen=True)
class Extent:
    """Where one node computes.

    Attributes:
        batch: samples; for Gemm and MatMul, the vectors that are multiplied.
        before, behind: the sizes of the spatial axes of what it reads and of what it writes.
    """

    batch: int
    before: tuple[int, ...]
    behind: tuple[int, ...]


@dataclass(eq=False)
class Layer:
    """One weight and the nodes that read it, all in the same way.

    Attributes:
        weight: the constant.
        nodes: its readers, in the graph's order.
        kind: ``conv``, ``conv_transpose``, ``gemm``, ``matmul`` (x W) or ``matmul_left`` (W x).
        groups: of a convolution; 1 for a matrix.
        out, into: channels of one group.
        taps: sizes of the spatial axes of the kernel; empty for Gemm and MatMul.
        extents: one a node; ``None`` where shapes are not known.
    """

    weight: Constant
    nodes: list[Node]
    kind: str
    groups: int
    out: int
    into: int
    taps: tuple[int, ...]
    extents: list[Extent] | None = None

    @property
    def transposed(self) -> bool:
        """Whether it is a ConvTranspose."""
        return self.kind == "conv_transpose"

    @property
    def is_matrix(self) -> bool:
        """Whether there is one tap only, so that an SVD is all there is to it."""
        return math.prod(self.taps) == 1

    @property
    def axes(self) -> tuple[int, ...]:
        """The spatial axes of the kernel."""
        return tuple(range(len(self.taps)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of :meth:`kernel`."""
        return (self.groups, self.out, self.into, *self.taps)

    @property
    def params(self) -> int:
        """Elements of the weight."""
        return math.prod(self.shape)

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of all readers together; ``None`` where shapes are not known."""
        computed = self.positions(() if self.transposed else self.axes)
        return None if computed is None else self.params * computed

    def kernel(self) -> np.ndarray:
        """The weights as (groups, out, in, *taps), a view where numpy can make one.

        A ConvTranspose's taps are as stored, so output position ``stride * i + dilation * t - pad`` gains tap t of
        input position i.
        """
        values = self.weight.values
        if self.kind in ("gemm", "matmul"):
            stored_as_used = self.kind == "gemm" and self.nodes[0].attrs.get("transB")
            return (values if stored_as_used else values.T)[None]
        if self.kind == "conv_transpose":
            return values.reshape(self.groups, self.into, self.out, *self.taps).swapaxes(1, 2)
        return values.reshape(self.shape)

    def stored(self, kernel: np.ndarray) -> np.ndarray:
        """A kernel of :attr:`shape` as the weight holds its own, in its element type: the inverse of :meth:`kernel`."""
        values = kernel.reshape(self.shape)
        turned = self.kind in ("conv_transpose", "matmul")
        if turned or (self.kind == "gemm" and not self.nodes[0].attrs.get("transB")):
            values = values.swapaxes(1, 2)
        return np.ascontiguousarray(values.reshape(self.weight.shape), self.weight.dtype)

    def positions(self, covered: Iterable[int]) -> int | None:
        """Where a part of a chain is computed that stands behind those parts that cover these spatial axes.

        Returns:
            Positions of all readers together, samples included; ``None`` where shapes are not known.
        """
        if self.extents is None:
            return None
        behind = set(covered)
        return sum(
            e.batch * math.prod(e.behind[a] if a in behind else e.before[a] for a in self.axes) for e in self.extents
        )


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
            if reason is None and weight not in found:
                reason = _unfit_values(weight.values)
        if reason is not None or not isinstance(weight, Constant):
            missed(node, reason or "")
        elif weight in found:
            found[weight].nodes.append(node)
        else:
            found[weight] = _layer(node, kind, weight)
    layers = _complete(list(found.values()), missed)
    for layer in layers:
        layer.extents = _extents(layer, shapes)
    return layers


def _kind(node: Node) -> tuple[int, str]:
    if node.op == "MatMul":
        left = isinstance(node.inputs[0], Constant) and not isinstance(node.inputs[1], Constant)
        return (0, "matmul_left") if left else (1, "matmul")
    return 1, {"Conv": "conv", "ConvTranspose": "conv_transpose", "Gemm": "gemm"}[node.op]


def _layer(node: Node, kind: str, weight: Constant) -> Layer:
    rows, columns, *taps = (int(d) for d in weight.shape)
    group = groups(node)
    if kind == "conv":
        out, into = rows // group, columns
    elif kind == "conv_transpose":
        out, into = columns, rows // group
    elif kind == "matmul_left" or (kind == "gemm" and node.attrs.get("transB")):
        out, into = rows, columns
    else:
        out, into = columns, rows
    return Layer(weight, [node], kind, group, out, into, tuple(taps))


def _unfit(node: Node, weight: object, overridable: bool) -> str | None:
    if not isinstance(weight, Constant):
        return "its weights are computed when the network runs"
    if overridable:
        return "its weights are an input of the model"
    if weight.dtype.kind != "f":
        return f"its weights are {weight.dtype.name}"
    if node.op == "MatMul" and len(weight.shape) != 2:
        return "its weights are no matrix"
    return None


def _unfit_values(values: np.ndarray) -> str | None:
    if not np.isfinite(values).all():
        return "its weights are not all finite"
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0:
        return "its weights are all zero"
    if largest > _LARGEST:
        return f"its weights reach {largest:.2g}, which a chain would overflow with"
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


def _extents(layer: Layer, shapes: Shapes) -> list[Extent] | None:
    """Of every reader; ``None`` where one is not known."""
    extents = []
    for node in layer.nodes:
        before = shapes.shape(node.inputs[1 if layer.kind == "matmul_left" else 0])
        behind = shapes.shape(node.outputs[0])
        if before is None or behind is None:
            return None
        known_before, known_behind = ([d for d in shape if d is not None] for shape in (before, behind))
        if len(known_before) != len(before) or len(known_behind) != len(behind):
            return None
        spatial = len(layer.taps)
        if layer.kind in ("conv", "conv_transpose"):
            extents.append(Extent(known_behind[0], tuple(known_before[-spatial:]), tuple(known_behind[-spatial:])))
        else:
            extents.append(Extent(math.prod(known_behind) // max(layer.out, 1), (), ()))
    return extents
