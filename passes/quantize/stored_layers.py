"""The integers of one layer of a quantized network: read as a kernel, and written back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor, constant_of, static_shape
from edgec.passes.factorize.layers import Layer
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.placement.placement import WEIGHT_INPUT
from edgec.passes.quantize.quantized_weights import LARGEST_BIAS
from edgec.passes.quantize.recover.weight_pairs import WANTED, largest_pair, multiplies_pairs
from edgec.passes.quantize.scales.affine_parameters import bounded_scale


@dataclass(frozen=True)
class Values:
    """A layer's numbers as the quantized network has them.

    Attributes:
        integers: whole numbers, (groups, out, in * taps), float64.
        scale: of each output, (groups, out), before any factor that a Gemm has.
        bias: (groups, out), before that factor, float64.
    """

    integers: np.ndarray
    scale: np.ndarray
    bias: np.ndarray

    @property
    def kernel(self) -> np.ndarray:
        """What the integers stand for: (groups, out, in * taps)."""
        return self.integers * self.scale[:, :, None]


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """A layer whose weights and bias are constants of the quantized network that nothing else reads.

    Attributes:
        layer: in the float network; it has one node.
        node: the same node in the quantized network.
        weight, weight_scale: the constants.
        bias, bias_scale: the constants; without ``bias_scale`` the bias is float.
        input_scale: of what it reads.
        first: the first node that these constants reach.
        limit: of the integers.
        pairs: whether no two neighbours may be large together (:mod:`.weight_pairs`).
    """

    layer: Layer
    node: Node
    weight: Constant
    weight_scale: Constant
    bias: Constant
    bias_scale: Constant | None
    input_scale: float
    first: Node
    limit: int
    pairs: bool

    @property
    def factor(self) -> float:
        """What a Gemm multiplies its products with; it is in the integers' scale already."""
        node = self.layer.nodes[0]
        return float(node.attrs.get("alpha", 1.0)) if node.op == "Gemm" else 1.0

    def values(self) -> Values:
        """The numbers now."""
        groups, out = self.layer.groups, self.layer.out
        integers = self._as_kernel(self.weight.values.astype(np.float32)).reshape(groups, out, -1)
        bias = self.bias.values.astype(np.float64)
        if self.bias_scale is not None:
            bias = bias * self.bias_scale.values
        bias = np.broadcast_to(bias.reshape(-1), (groups * out,)).reshape(groups, out)
        return Values(
            integers.astype(np.float64), self._wide(self.weight_scale.values) / self.factor, bias / self.factor
        )

    def write(self, values: Values) -> None:
        """Puts other numbers in their place; where one scale serves several outputs, theirs must be equal."""
        kernel = values.integers.reshape(self.layer.shape)
        self.weight.values = self.layer.stored(kernel).astype(self.weight.dtype)
        scale = self._narrow(values.scale * self.factor)
        self.weight_scale.values = scale
        bias = (values.bias * self.factor).reshape(-1)
        if self.bias_scale is None:
            self.bias.values = bias.astype(np.float32).reshape(self.bias.shape)
            return
        bias_scale = np.asarray(np.float32(self.input_scale) * scale, np.float32)
        if bias_scale.ndim and bias_scale.size != bias.size:
            bias_scale = np.tile(bias_scale, bias.size // bias_scale.size)
        limit = np.iinfo(self.bias.dtype).max
        steps = np.rint(bias / bias_scale.astype(np.float64)).clip(-limit, limit).reshape(self.bias.shape)
        self.bias.values, self.bias_scale.values = steps.astype(self.bias.dtype), bias_scale

    def fitting_scale(self, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """The scales, (groups, out), with which a kernel (groups, out, n) and its bias are within the integers."""
        largest = np.abs(kernel).max(axis=2, initial=0.0) / self.limit
        if self.pairs:
            taps = (*kernel.shape[:2], self.layer.into, -1)
            ordered = kernel.reshape(taps).swapaxes(2, 3).reshape(kernel.shape)
            largest = np.maximum(largest, largest_pair(ordered) / WANTED)
        if self.bias_scale is not None:
            largest = np.maximum(largest, np.abs(bias) / (self.input_scale * LARGEST_BIAS))
        now = self._wide(self.weight_scale.values) / self.factor
        largest = np.where(largest > 0, largest, now)
        return self._wide(self._narrow(largest * self.factor)) / self.factor

    def _as_kernel(self, stored: np.ndarray) -> np.ndarray:
        return replace(self.layer, weight=Constant(self.weight.name, stored)).kernel()

    def _wide(self, scale: np.ndarray) -> np.ndarray:
        """Scales as the model stores them, one for each output."""
        wanted = (self.layer.groups, self.layer.out)
        per_group = self.layer.kind == "conv" and scale.size > 1
        return np.broadcast_to(scale.reshape(wanted) if per_group else scale.reshape(-1), wanted).astype(np.float64)

    def _narrow(self, scale: np.ndarray) -> np.ndarray:
        """The stored scales that hold those of all outputs that share one, as float32."""
        shape = self.weight_scale.values.shape
        if scale.size != self.weight_scale.values.size:
            scale = scale.max(axis=0) if self.weight_scale.values.size > 1 else scale.max()
        return np.asarray(bounded_scale(np.asarray(scale).reshape(shape)))


def stored_layers(pair: Pair, layers: Sequence[Layer], limit: int) -> Iterator[StoredLayer]:
    """Those of ``layers`` that are quantized, have a bias, and share neither with another node.

    Args:
        pair: the networks.
        layers: of ``pair.original``.
        limit: their integers are from ``-limit`` to ``limit``.
    """
    twins = dict(pair.operators)
    for layer in layers:
        if len(layer.nodes) == 1:
            found = _stored(layer, twins[layer.nodes[0]], pair.quantized, limit)
            if found is not None:
                yield found


def _stored(layer: Layer, node: Node, graph: Graph, limit: int) -> StoredLayer | None:
    weight, data = _dequantize(node.inputs[WEIGHT_INPUT[node.op]]), _dequantize(node.inputs[0])
    if weight is None or data is None or len(node.inputs) < 3 or not node.inputs[2].name:
        return None
    integers, scale = weight.inputs[:2]
    if not isinstance(integers, Constant) or len(integers.outputs) > 1 or len(weight.outputs[0].outputs) > 1:
        return None
    bias = _dequantize(node.inputs[2])
    added = node.inputs[2] if bias is None else bias.inputs[0]
    if not isinstance(added, Constant) or len(added.outputs) > 1:
        return None
    firsts = [n for n in (weight, bias) if n is not None]
    first = min(firsts, key=graph.nodes.index) if len(firsts) > 1 else weight
    return StoredLayer(
        layer, node, integers, constant_of(scale), added, None if bias is None else constant_of(bias.inputs[1]),
        float(constant_of(data.inputs[1]).values), first, limit, _adds_pairs(node, weight, data),
    )  # fmt: skip


def _adds_pairs(node: Node, weight: Node, data: Node) -> bool:
    """Whether a kernel for uint8 reads the layer's inputs, and adds products two by two."""
    return data.inputs[2].dtype == np.uint8 and multiplies_pairs(node, static_shape(weight.inputs[0]))


def _dequantize(tensor: Tensor) -> Node | None:
    """The DequantizeLinear that a tensor comes from."""
    maker = tensor.inputs[0] if tensor.inputs else None
    return maker if maker is not None and maker.op == "DequantizeLinear" else None
