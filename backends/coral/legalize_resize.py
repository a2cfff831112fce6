"""Resize in the ways that TFLite has no operator for: a product with a known matrix along each axis.

Every Resize that interpolates is linear in the image, and separable: the rows are mixed by one matrix, then the columns
by another. The matrices are read off ONNX's own operator, by what onnxruntime makes of the identity. Source: ONNX
operator Resize.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgec.backends.coral.legalize import known, rewrites, shaped
from edgec.ir.errors import InputError
from edgec.ir.execution import Session
from edgec.ir.graph import Graph, Node, Tensor, Variable, static_shape


@rewrites("Resize")
def resize(graph: Graph, node: Node) -> bool:
    """MatMul by the columns' matrix, and by the rows' between two Transposes."""
    x, y = node.inputs[0], node.outputs[0]
    if not _lacking(node) or x.dtype != np.float32 or x.shape is None or y.shape is None:
        return False
    before, after = tuple(x.shape), tuple(y.shape)
    if len(before) != 4 or before[:2] != after[:2] or not all(isinstance(s, int) for s in (*before, *after)):
        return False
    matrices = [_matrix(graph, node, axis, static_shape(x), static_shape(y)) for axis in (2, 3)]
    if any(matrix is None for matrix in matrices):
        return False
    made: Tensor = x
    for axis, matrix in zip((3, 2), reversed(matrices), strict=True):
        assert matrix is not None
        if np.array_equal(matrix, np.eye(len(matrix), dtype=np.float32)):
            continue
        made = _mixed(graph, node, made, axis, matrix)
    graph.replace(node, shaped(made, y) if isinstance(made, Variable) and made is not x else made)
    return True


def _lacking(node: Node) -> bool:
    """Whether TFLite has nothing like it that is linear and separable."""
    mode, coordinates = node.attrs.get("mode", "nearest"), node.attrs.get("coordinate_transformation_mode")
    if mode == "nearest" or node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    if coordinates == "tf_crop_and_resize":  # what lies outside is zero: one axis knows nothing of the other
        return float(node.attrs.get("extrapolation_value", 0.0)) == 0.0 and known(node.inputs[1]) is not None
    return mode == "cubic" or bool(node.attrs.get("antialias", 0) or node.attrs.get("exclude_outside", 0))


def _matrix(graph: Graph, node: Node, axis: int, before: tuple[int, ...], after: tuple[int, ...]) -> np.ndarray | None:
    """What is mixed of the elements along an axis, (output, input); ``None`` where that is not known here.

    Args:
        graph: of the node, for its opsets.
        node: the Resize.
        axis: 2 or 3.
        before, after: shapes of its image.
    """
    size = before[axis]
    alone = Graph(opset=graph.opset)
    image = Variable("image", np.dtype(np.float32), [1, 1, size, size])
    attrs = {key: value for key, value in node.attrs.items() if key != "axes"}
    region = known(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1].name else None
    if region is not None and region.size:
        place = _given_axes(node).index(axis) if axis in _given_axes(node) else None
        half = region.size // 2
        low, high = (0.0, 1.0) if place is None else (float(region[place]), float(region[half + place]))
        region = np.array([0, 0, low, 0, 1, 1, high, 1], np.float32)
    scales = known(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None
    inputs: list[Tensor | None] = [image, None if region is None else alone.const("roi", region)]
    if scales is not None and scales.size:
        axes = _given_axes(node)
        factor = float(scales[axes.index(axis)]) if axis in axes else 1.0
        inputs.append(alone.const("scales", np.array([1, 1, factor, 1], np.float32)))
    else:
        inputs += [None, alone.const("sizes", np.array([1, 1, after[axis], size], np.int64))]
    made = alone.op("Resize", inputs, name="resize", **attrs)
    made.dtype, made.shape = np.dtype(np.float32), [1, 1, after[axis], size]
    alone.inputs, alone.outputs = [image], [made]
    try:
        (rows,) = Session(alone).run({"image": np.eye(size, dtype=np.float32)[None, None]}).values()
    except InputError:  # onnxruntime has no kernel for one axis of it
        return None
    return rows[0, 0] if rows.shape == (1, 1, after[axis], size) else None


def _given_axes(node: Node) -> list[int]:
    return [int(axis) % 4 for axis in node.attrs.get("axes", range(4))]


def _mixed(graph: Graph, node: Node, x: Tensor, axis: int, matrix: np.ndarray) -> Variable:
    """The elements along an axis, mixed by a matrix (output, input)."""

    def step(op: str, inputs: list[Tensor], shape: list[int], label: str, **attrs: Any) -> Variable:
        out = graph.op(op, inputs, name=f"{node.name}.{label}{axis}", **attrs)
        out.dtype, out.shape = np.dtype(np.float32), shape
        return out

    shape = list(static_shape(x))
    turned = axis == 2
    if turned:
        shape[2], shape[3] = shape[3], shape[2]
        x = step("Transpose", [x], list(shape), "turned", perm=[0, 1, 3, 2])
    shape[3] = len(matrix)
    weights = graph.const(f"{node.name}.weights{axis}", np.ascontiguousarray(matrix.T))
    made = step("MatMul", [x, weights], list(shape), "mixed")
    if turned:
        shape[2], shape[3] = shape[3], shape[2]
        made = step("Transpose", [made], list(shape), "back", perm=[0, 1, 3, 2])
    return made
