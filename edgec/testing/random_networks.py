"""Random small convolutional networks for property tests.

    @given(networks())
    def test_it_keeps_the_signature(network: Graph) -> None: ...

Each is a model with static shapes, float32 and seeded weights: convolutions (plain, pointwise, grouped, depthwise,
strided, dilated, transposed), shared weights, BatchNormalization with real statistics, activations, residual sums,
concatenations, poolings, and a head that is an image, or a vector behind a Gemm or a MatMul. Hypothesis draws the
structure and one seed for all weights, so that examples shrink and repeat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st

from edgec.ir.graph import Constant, Graph, Tensor, Variable, variable_of

Head = Literal["image", "gemm", "matmul"]


@dataclass
class _Growing:
    """A network while it grows: the tensor at its end, which is always (1, channels, size, size)."""

    graph: Graph
    random: np.random.Generator
    end: Tensor
    channels: int
    size: int
    layers: int = 0

    def name(self, kind: str) -> str:
        self.layers += 1
        return f"{kind}{self.layers}"

    def noise(self, name: str, *shape: int) -> Constant:
        scale = 1 / np.sqrt(max(int(np.prod(shape[1:])), 1))
        return self.graph.const(name, (self.random.standard_normal(shape) * scale).astype(np.float32))

    def node(self, op: str, *inputs: Tensor, name: str = "", **attrs: Any) -> Variable:
        return self.graph.op(op, list(inputs), name=name or self.name(op.lower()), **attrs)


@st.composite
def networks(
    draw: st.DrawFn, *, blocks: int = 5, heads: tuple[Head, ...] = ("image", "gemm", "matmul"), channels: int = 8
) -> Graph:
    """A network of one to ``blocks`` blocks with at most about ``channels`` channels (an even number) in each."""
    random = np.random.default_rng(draw(st.integers(0, 2**31 - 1), label="seed"))
    graph = Graph(name="network", opset=17, ir_version=8)
    inputs = draw(st.integers(1, 3), label="input channels")
    size = draw(st.sampled_from([6, 7, 8]), label="size")
    start = Variable("x", np.float32, [1, inputs, size, size])
    graph.inputs = [start]
    net = _Growing(graph, random, start, inputs, size)
    _convolution(draw, net, channels)
    kinds = [_convolution, _pointwise, _depthwise, _grouped, _residual, _concatenation, _shared, _transposed, _pool]
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=blocks), label="blocks"):
        kind(draw, net, channels)
    head = draw(st.sampled_from(heads), label="head")
    if head != "image":
        _vector(draw, net, head)
    end = variable_of(net.end)
    end.dtype = np.dtype(np.float32)
    end.shape = [1, net.channels, net.size, net.size] if head == "image" else [1, net.channels]
    end.name = "y"
    graph.outputs = [end]
    return graph


def _finish(draw: st.DrawFn, net: _Growing, x: Tensor, channels: int) -> Tensor:
    """Perhaps a BatchNormalization, perhaps an activation."""
    if draw(st.booleans(), label="batch normalization"):
        name = net.name("bn")
        gamma = net.graph.const(f"{name}.gamma", net.random.uniform(0.5, 1.5, channels).astype(np.float32))
        beta, mean = net.noise(f"{name}.beta", channels), net.noise(f"{name}.mean", channels)
        variance = net.graph.const(f"{name}.var", net.random.uniform(0.5, 2.0, channels).astype(np.float32))
        x = net.node("BatchNormalization", x, gamma, beta, mean, variance, name=name, epsilon=1e-3)
    activation = draw(st.sampled_from(["Relu", "Relu6", "Sigmoid", "none"]), label="activation")
    if activation == "Relu6":
        bounds = [
            net.graph.const(f"bound{net.layers}.{b}", np.array(v, np.float32)) for b, v in (("low", 0), ("high", 6))
        ]
        return net.node("Clip", x, *bounds)
    return x if activation == "none" else net.node(activation, x)


def _conv(
    draw: st.DrawFn,
    net: _Growing,
    x: Tensor,
    channels: int,
    kernel: int,
    group: int = 1,
    weights: Constant | None = None,
) -> Tensor:
    """A convolution that keeps the size."""
    name = net.name("conv")
    dilation = draw(st.sampled_from([1, 1, 2]), label="dilation") if kernel == 3 else 1
    pad = dilation * (kernel // 2)
    weights = weights or net.noise(f"{name}.weight", channels, net.channels // group, kernel, kernel)
    rest = [net.noise(f"{name}.bias", channels)] if draw(st.booleans(), label="bias") else []
    return net.node("Conv", x, weights, *rest, name=name, pads=[pad] * 4, dilations=[dilation] * 2, group=group)


def _convolution(draw: st.DrawFn, net: _Growing, most: int) -> None:
    channels = 2 * draw(st.integers(1, most // 2), label="channels")
    net.end = _conv(draw, net, net.end, channels, 3)
    net.channels = channels
    net.end = _finish(draw, net, net.end, channels)


def _pointwise(draw: st.DrawFn, net: _Growing, most: int) -> None:
    channels = 2 * draw(st.integers(1, most // 2), label="channels")
    net.end = _conv(draw, net, net.end, channels, 1)
    net.channels = channels
    net.end = _finish(draw, net, net.end, channels)


def _depthwise(draw: st.DrawFn, net: _Growing, most: int) -> None:
    net.end = _finish(draw, net, _conv(draw, net, net.end, net.channels, 3, net.channels), net.channels)


def _grouped(draw: st.DrawFn, net: _Growing, most: int) -> None:
    net.end = _finish(draw, net, _conv(draw, net, net.end, net.channels, 3, 2), net.channels)


def _residual(draw: st.DrawFn, net: _Growing, most: int) -> None:
    branch = _finish(draw, net, _conv(draw, net, net.end, net.channels, 3), net.channels)
    net.end = net.node("Add", net.end, branch)


def _concatenation(draw: st.DrawFn, net: _Growing, most: int) -> None:
    if net.channels * 2 > 4 * most:
        return
    branch = _finish(draw, net, _conv(draw, net, net.end, net.channels, 1), net.channels)
    net.end = net.node("Concat", net.end, branch, axis=1)
    net.channels *= 2


def _shared(draw: st.DrawFn, net: _Growing, most: int) -> None:
    """Two convolutions in a row with one weight."""
    weights = net.noise(f"shared{net.layers}.weight", net.channels, net.channels, 3, 3)
    for _ in range(2):
        net.end = _finish(draw, net, _conv(draw, net, net.end, net.channels, 3, weights=weights), net.channels)


def _transposed(draw: st.DrawFn, net: _Growing, most: int) -> None:
    if net.size > 16:
        return
    channels = 2 * draw(st.integers(1, most // 2), label="channels")
    name = net.name("up")
    weights = net.noise(f"{name}.weight", net.channels, channels, 3, 3)
    bias = net.noise(f"{name}.bias", channels)
    net.end = net.node(
        "ConvTranspose", net.end, weights, bias, name=name, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]
    )
    net.channels, net.size = channels, net.size * 2
    net.end = _finish(draw, net, net.end, channels)


def _pool(draw: st.DrawFn, net: _Growing, most: int) -> None:
    if net.size < 4:
        return
    op = draw(st.sampled_from(["MaxPool", "AveragePool"]), label="pool")
    net.end = net.node(op, net.end, kernel_shape=[2, 2], strides=[2, 2])
    net.size //= 2


def _vector(draw: st.DrawFn, net: _Growing, head: Head) -> None:
    net.end = net.node("Flatten", net.end) if draw(st.booleans(), label="flatten") else _mean(net)
    if net.end.name.startswith("flatten"):
        net.channels *= net.size * net.size
    classes = draw(st.integers(2, 10), label="classes")
    name = net.name("fc")
    bias = net.noise(f"{name}.bias", classes)
    if head == "gemm":
        weights = net.noise(f"{name}.weight", classes, net.channels)
        net.end = net.node("Gemm", net.end, weights, bias, name=name, transB=1)
    else:
        weights = net.noise(f"{name}.weight", net.channels, classes)
        net.end = net.node("Add", net.node("MatMul", net.end, weights, name=name), bias)
    net.channels = classes


def _mean(net: _Growing) -> Tensor:
    return net.node("Flatten", net.node("GlobalAveragePool", net.end), name="vector")
