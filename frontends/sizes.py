"""Tensors that no memory could hold are refused before anything makes them."""

from __future__ import annotations

import math

from edgec.ir.errors import InputError
from edgec.ir.graph import Constant, Graph
from edgec.ir.shapes import Shapes

LARGEST_TENSOR = 1 << 35
# onnx's inference of shapes counts a Range through, number by number, so fewer of them are taken.
_LARGEST_RANGE = 1 << 26
# numpy's arrays have no more.
_MOST_DIMENSIONS = 64


def check_ranges(graph: Graph) -> None:
    """Raises InputError where a Range of constants is longer than anything that a network could read."""
    for node in (node for inside in graph.graphs() for node in inside.nodes):
        given = [tensor for tensor in node.inputs if isinstance(tensor, Constant) and tensor.values.size == 1]
        if node.op != "Range" or len(given) != 3:
            continue
        start, limit, delta = (tensor.values.reshape(()).item() for tensor in given)
        if delta and (limit - start) / delta > _LARGEST_RANGE:
            what = f"would count {(limit - start) / delta:,.0f} numbers, more than {_LARGEST_RANGE:,}"
            raise InputError(f"node '{node.name}' (Range)", what, "correct the constants that it reads")


def check_sizes(graph: Graph, shapes: Shapes) -> None:
    """Raises InputError where a tensor has more dimensions than numpy takes, or cannot fit any memory."""
    for tensor in graph.variables():
        shape, kind = shapes.shape(tensor), shapes.dtype(tensor)
        if shape is None:
            continue
        where = f"tensor '{tensor.name}'"
        if len(shape) > _MOST_DIMENSIONS:
            what = f"has {len(shape)} dimensions, and edgec takes {_MOST_DIMENSIONS} at most"
            raise InputError(where, what, "drop the dimensions of 1 and export the network again")
        size = math.prod(d for d in shape if d is not None) * (1 if kind is None else kind.itemsize)
        if size > LARGEST_TENSOR:
            what = f"would take {size:,} bytes, more than {LARGEST_TENSOR:,}"
            raise InputError(where, what, "correct the attributes and constants that it is computed by")
