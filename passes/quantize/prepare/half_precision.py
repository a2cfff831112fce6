"""A network of half floats as one of float32: what is quantized is float32.

Files in float16 or bfloat16 are half as large as what they were trained as, and hold the same network. To quantize it,
its weights and everything that it computes become float32; inputs and outputs keep their types, with a Cast at either
end.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Variable, onnx_dtype, producer
from edgec.ir.shapes import Shapes
from edgec.passes.framework.context import Context

_FLOAT = onnx_dtype(np.float32)
# Attributes that say in which type an operator gives its result.
_TYPES = ("to", "dtype")


def is_half(dtype: np.dtype | None) -> bool:
    """Whether it is float16 or bfloat16."""
    return dtype is not None and dtype.name in ("float16", "bfloat16")


def half_type(graph: Graph, shapes: Shapes) -> str | None:
    """The name of the half floats that a network computes in; ``None`` where it computes in none."""
    for inside in graph.graphs():
        for node in inside.nodes:
            for tensor in node.outputs if node.op != "Cast" else ():
                dtype = shapes.dtype(tensor) if tensor.name else None
                if dtype is not None and is_half(dtype):
                    return str(dtype.name)
    return None


def widen_halves(graph: Graph, ctx: Context) -> None:
    """Makes a network of half floats one of float32."""
    half = half_type(graph, ctx.get(Shapes))
    if half is None:
        return
    to_float32(graph, ctx.get(Shapes))
    ctx.changed()
    ctx.did("the network", f"computes in float32 instead of {half}, to be quantized")


def to_float32(graph: Graph, shapes: Shapes) -> None:
    """Makes a network that computes in half floats compute in float32, in place; its signature stays.

    Args:
        graph: whatever control flow it has.
        shapes: of ``graph``.
    """
    dtypes: dict[Variable, np.dtype] = {
        tensor: dtype
        for tensor in (*graph.inputs, *graph.outputs)
        if isinstance(tensor, Variable) and (dtype := shapes.dtype(tensor)) is not None
    }
    for constant in graph.constants():
        if is_half(constant.dtype):
            constant.values = constant.values.astype(np.float32)
    for inside in graph.graphs():
        for node in inside.nodes:
            _compute_in_float32(node)
            _retype(node.outputs)
        _retype(inside.inputs)
        _retype(inside.outputs)
    for number, tensor in enumerate(list(graph.outputs)):
        if isinstance(tensor, Variable) and is_half(dtypes.get(tensor)):
            _cast_output(graph, number, tensor, dtypes[tensor])
    for tensor in graph.inputs:
        if isinstance(tensor, Variable) and is_half(dtypes.get(tensor)):
            tensor.dtype = dtypes[tensor]
            if tensor.outputs:
                read = graph.op("Cast", [tensor], name=f"{tensor.name}.cast", to=_FLOAT)
                read.dtype, read.shape = np.dtype(np.float32), tensor.shape
                graph.replace_uses(tensor, read)
    graph.sort()
    _without_idle_casts(graph)


def _compute_in_float32(node: Node) -> None:
    """Has a node give float32 where its attributes say that it gives half floats."""
    halves = {onnx_dtype(np.float16), onnx_dtype("bfloat16")}
    for name, value in node.attrs.items():
        if name in _TYPES and value in halves:
            node.attrs[name] = _FLOAT
        elif isinstance(value, np.ndarray) and is_half(value.dtype):
            node.attrs[name] = value.astype(np.float32)
        elif isinstance(value, Constant) and is_half(value.dtype):
            value.values = value.values.astype(np.float32)


def _retype(tensors: Iterable[Variable | Constant]) -> None:
    for tensor in tensors:
        if isinstance(tensor, Variable) and is_half(tensor.dtype):
            tensor.dtype = np.dtype(np.float32)


def _cast_output(graph: Graph, number: int, tensor: Variable, dtype: np.dtype) -> None:
    """Gives a graph output its type back, under its name."""
    name, tensor.name = tensor.name, graph.fresh(f"{tensor.name}.float32")
    given = Variable(name, dtype, tensor.shape)
    graph.nodes.append(Node("Cast", graph.fresh(f"{name}.cast"), {"to": onnx_dtype(dtype)}, [tensor], [given]))
    graph.outputs[number] = given


def _without_idle_casts(graph: Graph) -> None:
    """Takes out what turned float32 into half floats, or these back: both sides are float32 now."""
    shapes = Shapes(graph)
    for inside in graph.graphs():
        for node in list(inside.nodes):
            if node.op != "Cast" or node.attrs.get("to") != _FLOAT:
                continue
            if node.outputs[0] in inside.outputs and producer(node.inputs[0]) is None:
                continue  # neither name can be given up
            if shapes.dtype(node.inputs[0]) == np.float32:
                inside.replace(node, node.inputs[0])
