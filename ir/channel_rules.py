"""What each operator does to the dimensions of what it reads: the table of all rules, and those of the simple ones.

An operator without a rule fixes everything that it touches.
"""

from __future__ import annotations

from collections.abc import Callable

from edgec.ir import channel_layers, channel_moves, channel_views
from edgec.ir.channel_wiring import Wiring, align, given, quoted
from edgec.ir.graph import Node

Rule = Callable[[Wiring, Node], None]

_ELEMENTWISE = (
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd", "BitwiseNot",
    "BitwiseOr", "BitwiseXor", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div", "Elu", "Equal", "Erf", "Exp",
    "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN",
    "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or",
    "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
    "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
)  # fmt: skip
# Zeros in the axis do not change what they give, so positions of it can go.
_SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp", *_SUMS)
_POOLS = ("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")


def wire(wiring: Wiring, node: Node) -> None:
    """Says to ``wiring`` what a node does to the dimensions of its tensors."""
    rule = RULES.get(node.op) if node.domain in ("", "ai.onnx") else None
    if node.op == "Constant":
        wiring.fix_node(node, f"{quoted(node)} is a constant that 'fold' has not folded")
    elif rule is None or any(True for _ in node.subgraphs()):
        wiring.fix_node(node, f"{quoted(node)} ({node.op}) is not known to keep its channels apart")
    elif any(wiring.maybe(tensor) is None for tensor in (*node.inputs, *node.outputs) if tensor.name):
        wiring.fix_node(node, f"{quoted(node)} ({node.op}) works on tensors of unknown rank")
    else:
        rule(wiring, node)


def _elementwise(wiring: Wiring, node: Node) -> None:
    align(wiring, [t for t in node.inputs if t.name], [t for t in node.outputs if t.name], node)


def _first_elementwise(wiring: Wiring, node: Node) -> None:
    """Dropout, CastLike: the other inputs say how, not what."""
    align(wiring, node.inputs[:1], [t for t in node.outputs if t.name], node)


def _mixing(default: int, default_before_13: int | None = None, *, from_axis: bool = False) -> Rule:
    """An operator whose results depend on all positions of ``axis`` (or of that axis and all behind it)."""

    def rule(wiring: Wiring, node: Node) -> None:
        old = default_before_13 is not None and wiring.opset < 13
        axis = int(node.attrs.get("axis", default_before_13 if old and default_before_13 is not None else default))
        dimensions = wiring.of(node.inputs[0])
        axis %= max(len(dimensions), 1)
        mixed = dimensions[axis:] if from_axis or old else dimensions[axis : axis + 1]
        wiring.fix(mixed, f"{quoted(node)} ({node.op}) mixes its channels")
        align(wiring, [t for t in node.inputs if t.name], node.outputs[:1], node)
        for output in node.outputs[1:]:
            wiring.fix(wiring.of(output) if output.name else (), f"{quoted(node)} ({node.op}) mixes its channels")

    return rule


def _reduce(wiring: Wiring, node: Node) -> None:
    before, behind = wiring.of(node.inputs[0]), wiring.of(node.outputs[0])
    axes = wiring.integers(node, "axes", 1)
    if axes is None and given(node, 1) is not None:
        wiring.fix_node(node, f"the axes of {quoted(node)} are computed when the network runs")
        return
    if not axes:
        axes = [] if node.attrs.get("noop_with_empty_axes") else list(range(len(before)))
    _collapse(wiring, node, {axis % len(before) for axis in axes}, before, behind)


def _arg(wiring: Wiring, node: Node) -> None:
    """ArgMax and ArgMin: the answer is a position, which a cut would change."""
    before = wiring.of(node.inputs[0])
    _collapse(wiring, node, {int(node.attrs.get("axis", 0)) % len(before)}, before, wiring.of(node.outputs[0]))


def _collapse(wiring: Wiring, node: Node, gone: set[int], before: list[int], behind: list[int]) -> None:
    kept = bool(node.attrs.get("keepdims", 1))
    rest = [d for axis, d in enumerate(behind) if axis not in gone] if kept else behind
    for a, b in zip([d for axis, d in enumerate(before) if axis not in gone], rest, strict=True):
        wiring.same(a, b, node)
    if node.op not in _SUMS:
        wiring.fix((before[axis] for axis in gone), f"{quoted(node)} ({node.op}) mixes its channels")


def _pool(wiring: Wiring, node: Node) -> None:
    before = wiring.of(node.inputs[0])
    for output in node.outputs:
        behind = wiring.of(output) if output.name else []
        for a, b in zip(before[:2], behind[:2], strict=False):
            wiring.same(a, b, node)
        wiring.fix(behind[2:], f"{quoted(node)} slides over it")
    if len(node.outputs) > 1 and node.outputs[1].name:
        wiring.fix(before[1:2], f"{quoted(node)} gives positions in it")
    wiring.fix(before[2:], f"{quoted(node)} slides over it")


def _per_channel(wiring: Wiring, node: Node) -> None:
    """BatchNormalization: every parameter and statistic has an element a channel."""
    _ride(wiring, node, wiring.of(node.inputs[0]))


def _instance_normalization(wiring: Wiring, node: Node) -> None:
    before = wiring.of(node.inputs[0])
    _ride(wiring, node, before)
    wiring.fix(before[2:], f"{quoted(node)} ({node.op}) mixes its channels")


def _ride(wiring: Wiring, node: Node, before: list[int]) -> None:
    channel = before[1] if len(before) > 1 else before[0]
    align(wiring, node.inputs[:1], node.outputs[:1], node)
    for tensor in (*node.inputs[1:], *node.outputs[1:]):
        for dimension in wiring.of(tensor) if tensor.name else ():
            wiring.same(dimension, channel, node)


def _group_normalization(wiring: Wiring, node: Node) -> None:
    """GroupNormalization: only whole groups can go; until opset 21 its parameters are one a group."""
    before = wiring.of(node.inputs[0])
    align(wiring, node.inputs[:1], node.outputs[:1], node)
    groups = wiring.coupling.dimension(int(node.attrs["num_groups"]))
    channels = wiring.length(before[1])
    reason = f"{quoted(node)} ({node.op}) mixes its channels"
    if channels is None or channels % int(node.attrs["num_groups"]):
        wiring.fix_node(node, reason)
        return
    places = wiring.coupling.dimension(channels // int(node.attrs["num_groups"]))
    if wiring.length(places) != 1:
        wiring.fix([places], reason)
    wiring.fix(before[2:], reason)
    wiring.coupling.merge(before[1], (groups, places), reason)
    for tensor in node.inputs[1:]:
        dimension = wiring.of(tensor)[0]
        wiring.same(dimension, before[1] if wiring.length(dimension) == channels else groups, node)


def _mean_variance(wiring: Wiring, node: Node) -> None:
    before = wiring.of(node.inputs[0])
    align(wiring, node.inputs, node.outputs, node)
    axes = node.attrs.get("axes", [0, 2, 3])
    wiring.fix((before[int(axis)] for axis in axes), f"{quoted(node)} ({node.op}) mixes its channels")


def _local_response(wiring: Wiring, node: Node) -> None:
    before = wiring.of(node.inputs[0])
    align(wiring, node.inputs, node.outputs, node)
    wiring.fix(before[1:2], f"{quoted(node)} ({node.op}) mixes its channels")


def _quantize(wiring: Wiring, node: Node) -> None:
    """QuantizeLinear and DequantizeLinear: a scale for all, or one for each position of ``axis``."""
    before = wiring.of(node.inputs[0])
    align(wiring, node.inputs[:1], node.outputs, node)
    for tensor in node.inputs[1:]:
        dimensions = wiring.of(tensor) if tensor.name else []
        if len(dimensions) == 1 and before and wiring.length(dimensions[0]) != 1:
            wiring.same(dimensions[0], before[int(node.attrs.get("axis", 1)) % len(before)], node)
        elif len(dimensions) > 1:
            wiring.fix((*dimensions, *before), f"{quoted(node)} ({node.op}) scales blocks of its channels")


RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(("Dropout", "CastLike"), _first_elementwise),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _mixing(-1, 1)),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _mixing(-1, from_axis=True)),
    "LpNormalization": _mixing(-1),
    "LRN": _local_response,
    "MeanVarianceNormalization": _mean_variance,
    "BatchNormalization": _per_channel,
    "InstanceNormalization": _instance_normalization,
    "GroupNormalization": _group_normalization,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _quantize,
    "Conv": channel_layers.convolution,
    "ConvInteger": channel_layers.convolution_integer,
    "QLinearConv": channel_layers.quantized_convolution,
    "ConvTranspose": channel_layers.transposed_convolution,
    "Gemm": channel_layers.gemm,
    "MatMul": channel_layers.matmul,
    "MatMulInteger": channel_layers.matmul_integer,
    "QLinearMatMul": channel_layers.quantized_matmul,
    "Concat": channel_moves.concat,
    "Split": channel_moves.split,
    "Slice": channel_moves.slices,
    "Gather": channel_moves.gather,
    "Pad": channel_moves.pad,
    "Expand": channel_moves.expand,
    "Tile": channel_moves.tile,
    "Resize": channel_moves.resize,
    "Upsample": channel_moves.resize,
    "Shape": channel_moves.shape_reader,
    "Size": channel_moves.shape_reader,
    "Reshape": channel_views.reshape,
    "Flatten": channel_views.flatten,
    "Transpose": channel_views.transpose,
    "Squeeze": channel_views.squeeze,
    "Unsqueeze": channel_views.unsqueeze,
    "DepthToSpace": channel_views.depth_to_space,
    "SpaceToDepth": channel_views.space_to_depth,
}
