"""Element types and ranks that a TensorRT's parser takes, as far as no operator decides them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import Graph, Node, Tensor
from edgec.ir.shapes import Shapes

Version = tuple[int, ...]
UINT8_FROM: Version = (8, 5)
_BFLOAT16_FROM: Version = (10, 0)
_MOST_DIMENSIONS = 8
# convertDtype has these in all releases; int64 is read as int32 before 10, and float64 as float32 in all of them.
_ALWAYS = frozenset({"float32", "float16", "float64", "int8", "int32", "int64", "bool"})
_SOURCE = "onnx2trt_utils.cpp, convertDtype, release/8.2-GA and release/8.5-GA; importerUtils.cpp, release/10.1-GA"
_BYTES = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear", "Constant", "Identity"})


@dataclass(frozen=True)
class TypeLimit:
    """A row of what no operator decides.

    Attributes:
        name: unique.
        what: what is said of the tensor; ``{tensorrt}`` stands for the version, ``{dtype}`` for its type.
        fix: what to do about it.
        source: where it was read.
        fatal: whether the build fails.
    """

    name: str
    what: str
    fix: str
    source: str
    fatal: bool = True


UNKNOWN = TypeLimit(
    "type", "is {dtype}, which {tensorrt} has not", "cast it to float32 or int32 in the network", _SOURCE
)
BYTES = TypeLimit(
    "bytes",
    "is uint8, which {tensorrt} only casts to and from floats at inputs and outputs",
    "cast it to float32 right behind the input",
    "builtin_op_importers.cpp, Cast, release/8.5-GA",
)
DOUBLE = TypeLimit("double", "is float64, which {tensorrt} computes in float32", "compute in float32 in the network",
                   _SOURCE, fatal=False)  # fmt: skip
RANK = TypeLimit("rank", f"has more than {_MOST_DIMENSIONS} dimensions, and {{tensorrt}} has tensors of that many",
                 "reshape it in the network", "NvInferRuntimeCommon.h, Dims::MAX_DIMS, read in Transpose's importer,"
                 " release/8.2-GA")  # fmt: skip
TYPE_LIMITS = (UNKNOWN, BYTES, DOUBLE, RANK)


def beyond_types(graph: Graph, version: Version) -> Iterator[tuple[TypeLimit, Tensor, str]]:
    """Tensors that a TensorRT's parser has no type or rank for: the row, the tensor and its type.

    Constants of uint8 that a DequantizeLinear reads are zero-points and weights, which the rules of Q and DQ judge.
    """
    shapes = Shapes(graph)
    seen: set[Tensor] = set()
    for inside in graph.graphs():
        for node in inside.nodes:
            quantizing = node.op in ("QuantizeLinear", "DequantizeLinear")
            for tensor in (*node.inputs, *node.outputs):
                if not tensor.name or tensor in seen or quantizing:
                    continue
                limit = _limit(tensor, node, shapes, version)
                if limit is not None:
                    seen.add(tensor)
                    yield limit, tensor, str(shapes.dtype(tensor))
    for tensor in (*graph.inputs, *graph.outputs):  # those that only Q and DQ read and make, too
        if tensor not in seen and str(tensor.dtype) not in _ALWAYS | {"uint8", "bfloat16"}:
            yield UNKNOWN, tensor, str(tensor.dtype)
        elif tensor not in seen and tensor.dtype == np.uint8 and version < UINT8_FROM:
            yield UNKNOWN, tensor, "uint8"


def _limit(tensor: Tensor, node: Node, shapes: Shapes, version: Version) -> TypeLimit | None:
    dtype, shape = shapes.dtype(tensor), shapes.shape(tensor)
    if shape is not None and len(shape) > _MOST_DIMENSIONS:
        return RANK
    name = None if dtype is None else np.dtype(dtype).name
    if name is None or name in _ALWAYS - {"float64"}:
        return None
    if name == "float64":
        return DOUBLE
    if name == "uint8" and version >= UINT8_FROM:
        return None if node.op in _BYTES and _beside_floats(node, shapes) else BYTES
    return None if name == "bfloat16" and version >= _BFLOAT16_FROM else UNKNOWN


def _beside_floats(node: Node, shapes: Shapes) -> bool:
    """Whether what casts bytes casts them from or to floats."""
    types = [shapes.dtype(tensor) for tensor in (*node.inputs, *node.outputs)]
    others = [dtype for dtype in types if dtype is not None and dtype != np.uint8]
    return node.op != "Cast" or all(np.dtype(dtype).kind == "f" for dtype in others)
