"""Weights and biases as an operator of TFLite wants them: int8 with symmetric scales, int32 biases that match.

An operator that computes with floats may have its weights stored as int8 or float16: a DEQUANTIZE in front of it, which
LiteRT runs once, when it loads the file, makes them float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.backends.coral.lowering import Lowering, refusal
from edgec.backends.coral.quantization import Quantization, bias_integers
from edgec.backends.coral.value import Value
from edgec.ir.graph import Node
from edgec.passes.quantize.weights_only import FEWEST


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of one operator, in one arithmetic.

    Attributes:
        name: of the weight tensor.
        data: int8, float16 or float32, in whatever shape the rule has brought them to.
        scale: float32, one or one for each output channel; ``None`` for weights that are not int8.
        bias: real values, one for each output channel; ``None`` where there is none.
        bias_name: of the bias tensor.
        integer: whether the operator runs on integers; else int8 and float16 are only how its weights are stored.
    """

    name: str
    data: np.ndarray
    scale: np.ndarray | None
    bias: np.ndarray | None
    bias_name: str
    integer: bool

    def write(self, low: Lowering, data: np.ndarray, axis: int) -> int:
        """Writes weights brought to their final shape, whose dimension ``axis`` is the output channel."""
        quantization = None
        if self.scale is not None:
            quantization = Quantization(self.scale, np.zeros(self.scale.size, np.int64), axis)
        if self.integer or data.dtype == np.float32:
            return low.file.constant(self.name, data, quantization)
        return low.unpacked(self.name, data, quantization)

    def write_bias(self, low: Lowering, source: Value, channels: int, always: bool = True) -> int:
        """Writes the bias, or zeros where an operator must have one; -1 where it is left out.

        An int32 bias gets the scale float32(input scale x weight scale) and zero-point 0, whatever it had.
        """
        if self.bias is None and not always:
            return -1
        bias = np.zeros(channels, np.float32) if self.bias is None else self.bias
        if not self.integer:
            return low.file.constant(self.bias_name, bias.astype(np.float32))
        assert source.quantization is not None and self.scale is not None
        scale = (source.quantization.scale[0] * self.scale).astype(np.float32)
        integers = bias_integers(bias, np.broadcast_to(scale, bias.shape))
        return low.file.constant(self.bias_name, integers, Quantization(scale, np.zeros(scale.size, np.int64), 0))


def read(
    low: Lowering,
    node: Node,
    axis: int,
    integer: bool,
    bias_place: int = 2,
    channels: int | None = None,
    factor: float = 1.0,
) -> Weights:
    """The weights of a Conv, ConvTranspose, Gemm or MatMul.

    Args:
        low: the walk.
        node: the node; input 1 holds the weights.
        axis: the ONNX dimension of the weights that is the output channel.
        integer: whether the operator runs on integers.
        bias_place: the input that holds the bias.
        channels: output channels; taken from ``axis`` where not given.
        factor: what the weights, without the bias, are multiplied with.

    Raises:
        EmitError: the weights are computed by the network, or not int8 with zero-point 0 and scales along ``axis``.
    """
    value = low.value(node.inputs[1])
    if not value.is_constant:
        raise refusal(
            node,
            "its weights are computed by the network",
            low.make_constant(node, node.inputs[1]),
        )
    bias_value = low.optional(node, bias_place)
    bias = None
    if bias_value is not None:
        if not bias_value.is_constant:
            fix = low.make_constant(node, node.inputs[bias_place])
            raise refusal(node, "its bias is computed by the network", fix)
        known, own = bias_value.known(), bias_value.quantization
        bias = (known.astype(np.float64) if own is None else own.exact(known)).reshape(-1)
        bias = np.broadcast_to(bias, (channels or value.shape[axis],))
    bias_name = bias_value.name if bias_value is not None else f"{node.name}.bias"
    if not integer:
        data, scale = _stored(low, value, axis, np.float32(factor))
        return Weights(value.name, data, scale, bias, bias_name, False)

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
    return Weights(value.name, value.known(), quantization.scale * np.float32(factor), bias, bias_name, True)


def _stored(low: Lowering, value: Value, axis: int, factor: np.float32) -> tuple[np.ndarray, np.ndarray | None]:
    """Weights of an operator of floats as the file stores them, times a factor, and the scales of int8 ones.

    They stay int8 or float16 where the file does not grow by it (a tensor and an operator take some 200 bytes) and
    where float32 would hold the same numbers.
    """
    quantization = value.quantization
    data = value.known()
    if quantization is not None:
        along = not quantization.per_channel or quantization.axis % data.ndim == axis
        if data.dtype == np.int8 and along and not quantization.zero_point.any() and factor > 0:
            return (data, quantization.scale * factor) if data.size >= FEWEST else (value.real() * factor, None)
        low.notes.append(
            f"weights '{value.name}' are float32 in the file: they are not int8 with zero-point 0 and scales along the "
            "output channel"
        )
    elif value.half and data.size >= FEWEST:
        with np.errstate(over="ignore"):
            product = data * factor
            scaled = product.astype(np.float16)
        if np.array_equal(scaled.astype(np.float32), product):
            return scaled, None
        low.notes.append(f"weights '{value.name}' are float32 in the file: times {factor:g} they are not float16")
    return value.real() * factor, None
