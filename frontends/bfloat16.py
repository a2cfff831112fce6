"""Networks in bfloat16, taken in float32: onnxruntime has few kernels for it on a CPU, and numpy no such numbers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto

from edgec.ir.graph import Constant, Graph, Tensor, Variable

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# The attributes that name an element type.
_TYPES = frozenset({"to", "dtype", "output_dtype", "stash_type", "softmax_precision"})


def widen(graph: Graph, notes: list[str]) -> bool:
    """Makes float32 of every bfloat16 tensor, in place; returns whether there was one.

    float32 holds every value of bfloat16: weights stay what they were, and what is computed of them is rounded less.
    """
    tensors = {t for inside in graph.graphs() for t in _tensors(inside)}
    weights = [t for t in tensors if isinstance(t, Constant) and t.dtype == _BFLOAT16]
    computed = [t for t in tensors if isinstance(t, Variable) and t.dtype == _BFLOAT16]
    named = [
        (node.attrs, key, value)
        for inside in graph.graphs()
        for node in inside.nodes
        for key, value in node.attrs.items()
        if _is_bfloat16(key, value)
    ]
    if not weights and not computed and not named:
        return False
    for weight in weights:
        weight.values = weight.values.astype(np.float32)
    for tensor in computed:
        tensor.dtype = np.dtype(np.float32)
    for attributes, key, value in named:
        wide = Constant(value.name, value.values.astype(np.float32)) if isinstance(value, Constant) else None
        attributes[key] = TensorProto.FLOAT if wide is None else wide
    notes.append("its bfloat16 tensors are taken in float32, inputs and outputs among them: the CPU has no bfloat16")
    return True


def _is_bfloat16(key: str, value: Any) -> bool:
    if isinstance(value, Constant):
        return bool(value.dtype == _BFLOAT16)
    return key in _TYPES and value == TensorProto.BFLOAT16


def _tensors(graph: Graph) -> list[Tensor]:
    return [
        *graph.inputs,
        *graph.outputs,
        *(tensor for node in graph.nodes for tensor in (*node.inputs, *node.outputs) if tensor.name),
    ]
