"""In which memory order ONNX operators want to read an image, and which operators do not mind."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.coral import layout
from edgec.ir.graph import Node

#: Operators that read ``(N, C, H, W)`` and whose TFLite counterparts want it channels last.
IMAGE_OPERATORS = frozenset(
    [
        "Conv",
        "ConvTranspose",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Resize",
        "Upsample",
        "SpaceToDepth",
        "DepthToSpace",
    ]
)
#: Operators that take each element for itself, so that any memory order passes through.
ANY_ORDER = frozenset(
    [
        "Abs",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "DequantizeLinear",
        "Dropout",
        "Elu",
        "Exp",
        "Floor",
        "Gelu",
        "Identity",
        "LeakyRelu",
        "Log",
        "Mish",
        "Neg",
        "Not",
        "PRelu",
        "QuantizeLinear",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sin",
        "Softplus",
        "Sqrt",
        "Tanh",
    ]
)
#: Operators that take each element of two tensors, and any order in which both are.
TWO_TENSORS = frozenset(["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"])
#: Operators that keep the row-major index of each element.
SAME_INDEX = frozenset(["Reshape", "Flatten", "Squeeze", "Unsqueeze"])


def reading_order(node: Node, shape: Sequence[int]) -> layout.Order:
    """The memory order in which an image operator wants its input of that ONNX shape."""
    if len(shape) == 3:
        return layout.permuted(shape, (0, 2, 1))
    if node.op == "DepthToSpace" and node.attrs.get("mode", "DCR") == "CRD":
        return depth_order(shape, int(node.attrs["blocksize"]))
    return layout.permuted(shape, layout.CHANNELS_LAST)


def depth_order(shape: Sequence[int], block: int) -> layout.Order:
    """Pixels outside, and channels ``(C, block, block)`` with the block in front, as DEPTH_TO_SPACE reads them."""
    batch, channels, height, width = shape
    pixels = height * width
    return layout.canonical(
        [
            (batch, channels * pixels),
            (pixels, 1),
            (block * block, pixels),
            (channels // (block * block), block * block * pixels),
        ]
    )
