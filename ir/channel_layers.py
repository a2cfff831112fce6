"""How the channels of a layer's input, weights, bias and output hang together: convolutions and products of matrices.

A convolution of G groups reads channels that are the product of G and of the places inside each group; its weights'
axis of input channels *is* those places. The same holds for what it computes. A depthwise convolution has one place in
each group, so its groups are its channels and go with what it reads. Where both sides have several places, the number
of groups stays and a unit is one place in all groups, on each side by itself: what is left is a convolution of the same
groups, each as wide as the others.
"""

from __future__ import annotations

from edgec.ir.channel_wiring import Wiring, align, given, quoted
from edgec.ir.graph import Node, Tensor


def convolution(wiring: Wiring, node: Node) -> None:
    """Conv: data (N, G*I, ...), weights (G*O, I, ...), bias (G*O), result (N, G*O, ...)."""
    _convolve(wiring, node, node.inputs[0], node.inputs[1], [given(node, 2)])


def convolution_integer(wiring: Wiring, node: Node) -> None:
    """ConvInteger: as Conv, with the zero points of the data and of the weights behind them."""
    _convolve(wiring, node, node.inputs[0], node.inputs[1], [given(node, 3)])


def quantized_convolution(wiring: Wiring, node: Node) -> None:
    """QLinearConv: the weights' scale and zero point, and the bias, go with the output channels."""
    _convolve(wiring, node, node.inputs[0], node.inputs[3], [given(node, place) for place in (4, 5, 8)])


def _convolve(wiring: Wiring, node: Node, data: Tensor, weights: Tensor, riders: list[Tensor | None]) -> None:
    before, taps, behind = wiring.of(data), wiring.of(weights), wiring.of(node.outputs[0])
    wiring.same(before[0], behind[0], node)
    wiring.same(taps[0], behind[1], node)
    for rider in riders:
        dimensions = wiring.of(rider) if rider is not None else []
        if len(dimensions) == 1 and wiring.length(dimensions[0]) == wiring.length(taps[0]):
            wiring.same(dimensions[0], taps[0], node)
    wiring.layer(node, weights, 0, "produces")
    wiring.layer(node, weights, 1, "consumes")
    group = int(node.attrs.get("group", 1))
    outputs = wiring.length(taps[0])
    inner = wiring.coupling.dimension(outputs // group if outputs is not None else None)
    _groups(wiring, node, group, (before[1], taps[1]), (taps[0], inner))
    _slide(wiring, node, [*before[2:], *taps[2:], *behind[2:]])


def transposed_convolution(wiring: Wiring, node: Node) -> None:
    """ConvTranspose: data (N, G*I, ...), weights (G*I, O, ...), bias (G*O), result (N, G*O, ...)."""
    before, taps, behind = wiring.of(node.inputs[0]), wiring.of(node.inputs[1]), wiring.of(node.outputs[0])
    wiring.same(before[0], behind[0], node)
    wiring.same(before[1], taps[0], node)
    bias = given(node, 2)
    if bias is not None:
        wiring.same(wiring.of(bias)[0], behind[1], node)
    wiring.layer(node, node.inputs[1], 0, "consumes")
    wiring.layer(node, node.inputs[1], 1, "produces")
    group = int(node.attrs.get("group", 1))
    inputs = wiring.length(taps[0])
    inner = wiring.coupling.dimension(inputs // group if inputs is not None else None)
    _groups(wiring, node, group, (taps[0], inner), (behind[1], taps[1]))
    _slide(wiring, node, [*before[2:], *taps[2:], *behind[2:]])


def _groups(wiring: Wiring, node: Node, group: int, read: tuple[int, int], computed: tuple[int, int]) -> None:
    """Each pair: all channels, and the places inside one group that they are made of."""
    if group == 1:
        for channels, places in (read, computed):
            wiring.same(channels, places, node)
        return
    groups = wiring.coupling.dimension(group)
    if all((wiring.length(places) or 2) > 1 for _, places in (read, computed)):
        wiring.fix([groups], f"{quoted(node)} keeps its {group} groups")
    for channels, places in (read, computed):
        known, inside = wiring.length(channels), wiring.length(places)
        if known is None or inside is None or known != group * inside:
            wiring.fix((groups, channels, places), f"the groups of {quoted(node)} do not fit its channels")
            continue
        wiring.coupling.merge(
            channels, (groups, places), f"{quoted(node)} keeps the groups that it has", prefer=(groups, places)
        )


def _slide(wiring: Wiring, node: Node, spatial: list[int]) -> None:
    wiring.fix(spatial, f"{quoted(node)} slides over it")


def gemm(wiring: Wiring, node: Node) -> None:
    """Gemm: alpha * A B + beta * C, A and B perhaps transposed, C broadcast to the result."""
    a, b, out = wiring.of(node.inputs[0]), wiring.of(node.inputs[1]), wiring.of(node.outputs[0])
    rows, inner = (a[1], a[0]) if node.attrs.get("transA") else (a[0], a[1])
    read, columns = (1, 0) if node.attrs.get("transB") else (0, 1)
    wiring.same(inner, b[read], node)
    wiring.same(rows, out[0], node)
    wiring.same(b[columns], out[1], node)
    wiring.layer(node, node.inputs[1], read, "consumes")
    wiring.layer(node, node.inputs[1], columns, "produces")
    left = 0 if node.attrs.get("transA") else 1
    wiring.layer(node, node.inputs[0], left, "consumes")
    wiring.layer(node, node.inputs[0], 1 - left, "produces")
    added = given(node, 2)
    if added is not None:
        align(wiring, [added], node.outputs, node)


def matmul(wiring: Wiring, node: Node) -> None:
    """MatMul and MatMulInteger: the last axis of the left with the last but one of the right; the rest as a batch."""
    _multiply(wiring, node, node.inputs[0], node.inputs[1], [])


def matmul_integer(wiring: Wiring, node: Node) -> None:
    """MatMulInteger: zero points are one number, or go with the rows of the left and the columns of the right."""
    _multiply(wiring, node, node.inputs[0], node.inputs[1], [given(node, 3)])


def quantized_matmul(wiring: Wiring, node: Node) -> None:
    """QLinearMatMul: scale and zero point of the right operand may go with its columns."""
    _multiply(wiring, node, node.inputs[0], node.inputs[3], [given(node, 4), given(node, 5)])


def _multiply(wiring: Wiring, node: Node, left: Tensor, right: Tensor, riders: list[Tensor | None]) -> None:
    a, b, out = wiring.of(left), wiring.of(right), list(wiring.of(node.outputs[0]))
    wiring.same(a[-1], b[-2 if len(b) > 1 else 0], node)
    wiring.layer(node, left, -1, "consumes")
    wiring.layer(node, right, -2 if len(b) > 1 else 0, "consumes")
    if len(b) > 1:
        columns = out.pop()
        wiring.same(b[-1], columns, node)
        wiring.layer(node, right, -1, "produces")
        for rider in riders:
            dimensions = wiring.of(rider) if rider is not None else []
            if len(dimensions) == 1 and wiring.length(dimensions[0]) == wiring.length(columns):
                wiring.same(dimensions[0], columns, node)
    if len(a) > 1:
        wiring.same(a[-2], out.pop(), node)
        wiring.layer(node, left, -2, "produces")
    for operand in (a[:-2], b[:-2]):
        for back in range(1, len(operand) + 1):
            if wiring.length(operand[-back]) != 1 or wiring.length(out[-back]) == 1:
                wiring.same(operand[-back], out[-back], node)
