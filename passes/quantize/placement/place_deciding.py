"""Arithmetic that decides places: coordinates that become indices, as GridSample and DeformConv compute them.

An index that is off by one picks another pixel, so what is rounded to whole numbers in the end stays float until then.
"""

from __future__ import annotations

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype

from edgec.ir.graph import Graph, Node, Variable
from edgec.ir.shapes import Shapes
from edgec.passes.layers.linear import LINEAR

REASON = "decides places: rounded to 8 bits it would pick other ones"


def place_deciding(graph: Graph, shapes: Shapes) -> dict[Node, str]:
    """The nodes between a layer, or an input, and a Cast of floats to integers, with the reason why they stay float."""
    kept: dict[Node, str] = {}
    waiting = [node for node in graph.nodes if _makes_places(node, shapes)]
    while waiting:
        node = waiting.pop()
        for tensor in node.inputs:
            for before in tensor.inputs:
                if before in kept or before.op in LINEAR or not isinstance(tensor, Variable):
                    continue
                dtype = shapes.dtype(tensor)
                if dtype is not None and dtype.kind == "f":
                    kept[before] = REASON
                    waiting.append(before)
    return kept


def _makes_places(node: Node, shapes: Shapes) -> bool:
    if node.op != "Cast" or not isinstance(node.inputs[0], Variable):
        return False
    source = shapes.dtype(node.inputs[0])
    to = np.dtype(tensor_dtype_to_np_dtype(int(node.attrs["to"])))
    return source is not None and source.kind == "f" and to in (np.int32, np.int64)
