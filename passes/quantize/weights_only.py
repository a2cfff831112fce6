"""Weights in fewer bytes, and nothing else: for files that must only be small.

The integers, or half floats, are turned back into float32 in front of each operator that reads them; activations and
arithmetic stay float32. No calibration data are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import onnx

from edgec.ir.graph import Constant, Graph, Node, Tensor
from edgec.ir.shapes import Shapes
from edgec.passes.framework.context import Context
from edgec.passes.quantize.placement.placement import WEIGHT_INPUT
from edgec.passes.quantize.qdq import QdqWriter
from edgec.passes.quantize.quantized_weights import quantize_parameters

Stored = Literal["int8", "float16"]
#: Fewer weights than this are no larger than the scales and nodes that would come with them.
FEWEST = 256
_LARGEST_HALF = float(np.finfo(np.float16).max)


def store_weights(
    graph: Graph, kind: Stored, keep: Callable[[Node], str | None], per_channel: bool, ctx: Context
) -> None:
    """Stores the float32 weights of Conv, ConvTranspose, Gemm and MatMul as ``kind``.

    Args:
        graph: changed in place.
        kind: of the stored weights. Integers are symmetric, in [-127, 127].
        keep: why a node's weights stay as they are, ``None`` where not.
        per_channel: one scale for each output channel, where the weights have such a dimension.
        ctx: is told.

    Raises:
        InputError: a weight is not finite.
    """
    writer = QdqWriter(graph, ctx.get(Shapes))
    halves: dict[tuple[Constant, float], Tensor] = {}
    for node in list(graph.nodes):
        place = WEIGHT_INPUT.get(node.op)
        weight = None if place is None else node.inputs[place]
        if place is None or not isinstance(weight, Constant) or weight.dtype != np.float32:
            continue
        factor = float(node.attrs.get("alpha", 1.0)) if node.op == "Gemm" else 1.0
        reason = keep(node)
        if reason is None and int(np.prod(weight.shape)) < FEWEST:
            reason = f"has fewer than {FEWEST} weights"
        if reason is None and kind == "float16" and float(np.abs(weight.values).max()) * abs(factor) > _LARGEST_HALF:
            reason = f"has weights beyond {_LARGEST_HALF:g}, which float16 does not hold"
        if reason is not None:
            ctx.missed(node, reason)
        elif kind == "int8":
            layer = quantize_parameters(node, 1.0, per_channel=per_channel, integer_bias=False)
            node.inputs[place] = writer.constant(weight.name, layer.weight, layer.scale, 0, layer.axis, node)
            node.attrs.pop("alpha", None)
            ctx.did(node, "int8 weights, float arithmetic", weight_scales=layer.scale.size)
        else:
            if (weight, factor) not in halves:
                half = graph.const(f"{weight.name}.float16", (weight.values * np.float32(factor)).astype(np.float16))
                halves[weight, factor] = graph.op(
                    "Cast", [half], name=f"{weight.name}.cast", before=node, to=onnx.TensorProto.FLOAT
                )
            node.inputs[place] = halves[weight, factor]
            node.attrs.pop("alpha", None)
            ctx.did(node, "float16 weights, float arithmetic")
    writer.finish()
