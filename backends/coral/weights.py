"""Weights and biases as an operator of TFLite wants them: int8 with symmetric scales, int32 biases that match."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.backends.coral.lowering import Lowering, refusal
from edgec.backends.coral.quantization import Quantization, bias_integers
from edgec.backends.coral.value import Value
from edgec.ir.graph import Node

WIDENED = "weights that alone are {bits} bits are float32 in the file: TFLite computes here with floats"


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of one operator, in one arithmetic.

    Attributes:
        name: of the weight tensor.
        data: int8 or float32, in whatever shape the rule has brought them to.
        scale: float32, one or one for each output channel; ``None`` for float weights.
        bias: real values, one for each output channel; ``None`` where there is none.
        bias_name: of the bias tensor.
    """

    name: str
    data: np.ndarray
    scale: np.ndarray | None
    bias: np.ndarray | None
    bias_name: str

    def write(self, low: Lowering, data: np.ndarray, axis: int) -> int:
        """Writes weights brought to their final shape, whose dimension ``axis`` is the output channel."""
        if self.scale is None:
            return low.file.constant(self.name, data)
        zeros = np.zeros(self.scale.size, np.int64)
        return low.file.constant(self.name, data, Quantization(self.scale, zeros, axis))

    def write_bias(self, low: Lowering, source: Value, channels: int, always: bool = True) -> int:
        """Writes the bias, or zeros where an operator must have one; -1 where it is left out.

        An int32 bias gets the scale float32(input scale x weight scale) and zero-point 0, whatever it had.
        """
        if self.bias is None and not always:
            return -1
        bias = np.zeros(channels, np.float32) if self.bias is None else self.bias
        if self.scale is None:
            return low.file.constant(self.bias_name, bias.astype(np.float32))
        assert source.quantization is not None
        scale = (source.quantization.scale[0] * self.scale).astype(np.float32)
        integers = bias_integers(bias, np.broadcast_to(scale, bias.shape))
        return low.file.constant(self.bias_name, integers, Quantization(scale, np.zeros(scale.size, np.int64), 0))


def read(
    low: Lowering, node: Node, axis: int, integer: bool, bias_place: int = 2, channels: int | None = None
) -> Weights:
    """The weights of a Conv, ConvTranspose, Gemm or MatMul.

    Args:
        low: the walk.
        node: the node; input 1 holds the weights.
        axis: the ONNX dimension of the weights that is the output channel.
        integer: whether the operator runs on integers.
        bias_place: the input that holds the bias.
        channels: output channels; taken from ``axis`` where not given.

    Raises:
        EmitError: the weights are computed by the network, or not int8 with zero-point 0 and scales along ``axis``.
    """
    value = low.value(node.inputs[1])
    if not value.is_constant:
        raise refusal(
            node,
            "its weights are computed by the network",
            "fold the constants (pass 'fold'), or cut the network there",
        )
    bias_value = low.optional(node, bias_place)
    bias = None
    if bias_value is not None:
        if not bias_value.is_constant:
            raise refusal(node, "its bias is computed by the network", "fold the constants (pass 'fold')")
        known, own = bias_value.known(), bias_value.quantization
        bias = (known.astype(np.float64) if own is None else own.exact(known)).reshape(-1)
        bias = np.broadcast_to(bias, (channels or value.shape[axis],))
    bias_name = bias_value.name if bias_value is not None else f"{node.name}.bias"
    if not integer:
        if value.quantization is not None:
            low.notes.append(WIDENED.format(bits=8))
        return Weights(value.name, value.real(), None, bias, bias_name)

    quantization = value.quantization
    assert quantization is not None
    if value.known().dtype != np.int8 or bool(quantization.zero_point.any()):
        raise refusal(
            node,
            "its weights are not int8 with zero-point 0",
            "quantize weights symmetrically to int8 (pass 'quantize' does)",
        )
    if quantization.per_channel and quantization.axis % len(value.shape) != axis:
        raise refusal(
            node,
            f"its weights are quantized along axis {quantization.axis}, and its output channels are axis {axis}",
            "quantize weights along the output channel (pass 'quantize' does)",
        )
    return Weights(value.name, value.known(), quantization.scale, bias, bias_name)
