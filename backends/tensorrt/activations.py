"""Activations that the oldest TensorRT of a board does not know, by operators that it does."""

from __future__ import annotations

import math

from edgec.backends.tensorrt.spelling import Writer, rewrites


@rewrites("HardSwish")
def hard_swish(write: Writer) -> bool:
    """x * HardSigmoid(x) with slope 1/6 and offset 1/2, as ONNX defines it."""
    x = write.node.inputs[0]
    return write.done(write.op("Mul", "product", x, write.op("HardSigmoid", "gate", x, alpha=1 / 6, beta=0.5)))


@rewrites("Swish")
def swish(write: Writer) -> bool:
    """x * sigmoid(alpha x)."""
    x, alpha = write.node.inputs[0], float(write.node.attrs.get("alpha", 1.0))
    steep = x if alpha == 1.0 else write.op("Mul", "steep", x, write.number("alpha", alpha))
    return write.done(write.op("Mul", "product", x, write.op("Sigmoid", "gate", steep)))


@rewrites("Mish")
def mish(write: Writer) -> bool:
    """x * tanh(softplus(x))."""
    x = write.node.inputs[0]
    gate = write.op("Tanh", "gate", write.op("Softplus", "softplus", x))
    return write.done(write.op("Mul", "product", x, gate))


@rewrites("Gelu")
def gelu(write: Writer) -> bool:
    """x / 2 * (1 + erf(x / sqrt 2)), or its approximation by tanh where the node asks for that."""
    x = write.node.inputs[0]
    if write.node.attrs.get("approximate", "none") == "tanh":
        cube = write.op("Mul", "cube", write.op("Mul", "square", x, x), x)
        bent = write.op("Add", "bent", x, write.op("Mul", "part", cube, write.number("c", 0.044715)))
        inner = write.op("Mul", "inner", bent, write.number("root", math.sqrt(2 / math.pi)))
        gate = write.op("Tanh", "tanh", inner)
    else:
        gate = write.op("Erf", "erf", write.op("Mul", "inner", x, write.number("root", math.sqrt(0.5))))
    shifted = write.op("Add", "shifted", gate, write.number("one", 1.0))
    return write.done(write.op("Mul", "product", write.op("Mul", "half", x, write.number("two", 0.5)), shifted))


@rewrites("Shrink")
def shrink(write: Writer) -> bool:
    """x + bias below -lambd, x - bias above it, and 0 between."""
    x, attrs = write.node.inputs[0], write.node.attrs
    bias, edge = float(attrs.get("bias", 0.0)), float(attrs.get("lambd", 0.5))
    zero = write.number("zero", 0.0)
    above = write.op("Greater", "above", x, write.number("edge", edge))
    below = write.op("Less", "below", x, write.number("least", -edge))
    upper = write.op("Sub", "upper", x, write.number("bias", bias))
    lower = write.op("Add", "lower", x, write.number("shift", bias))
    return write.done(write.op("Where", "high", above, upper, write.op("Where", "low", below, lower, zero)))
