"""What a node consists of, written step by step in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgec.backends.coral.legalize import shaped
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable

# Operators whose results are truths, or places, whatever they read.
_TRUTHS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor", "IsNaN"})
_PLACES = frozenset({"ArgMax", "ArgMin"})


class Steps:
    """Writes what a node consists of, each step named for the node.

    Numbers among a step's inputs become constants of the type of the first tensor beside them.
    """

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph, self.node = graph, node
        self._count = 0

    def __call__(self, op: str, *inputs: Tensor | float | None, **attrs: Any) -> Variable:
        of = next((x.dtype for x in inputs if not isinstance(x, int | float | None) and x.name), None)
        if op == "Where":  # its condition says nothing of its type
            of = next((x.dtype for x in inputs[1:] if not isinstance(x, int | float | None)), np.dtype(np.float32))
        tensors = [self.number(x, of) if isinstance(x, int | float) else x for x in inputs]
        self._count += 1
        step = self.graph.op(op, tensors, name=f"{self.node.name}.{op.lower()}{self._count}", **attrs)
        step.dtype = np.dtype(bool) if op in _TRUTHS else np.dtype(np.int64) if op in _PLACES else of
        return step

    def number(self, value: float, dtype: Any = np.float32) -> Tensor:
        """A number as a constant."""
        return self.graph.const(f"{self.node.name}.{value:g}", np.array(value, np.float32 if dtype is None else dtype))

    def integers(self, label: str, numbers: Sequence[int] | np.ndarray) -> Tensor:
        """Shapes, axes and the like, as a constant of int64."""
        return self.graph.const(f"{self.node.name}.{label}", np.asarray(numbers, np.int64))

    def cast(self, x: Tensor, dtype: Any) -> Tensor:
        """``x`` as numbers of another type."""
        if x.dtype == dtype:
            return x
        if isinstance(x, Constant):
            return self.graph.const(f"{x.name}.{np.dtype(dtype).name}", x.values.astype(dtype))
        from onnx.helper import np_dtype_to_tensor_dtype

        step = self("Cast", x, to=np_dtype_to_tensor_dtype(np.dtype(dtype)))
        step.dtype = np.dtype(dtype)
        return step

    def reshaped(self, x: Tensor, shape: Sequence[int]) -> Variable:
        """``x`` in another shape."""
        step = self("Reshape", x, self.integers(f"shape{self._count}", shape))
        step.shape = list(shape)
        return step

    def sliced(self, x: Tensor, axis: int, start: int, end: int, step: int = 1) -> Variable:
        """A part of ``x`` along an axis."""
        bounds = [[start], [end], [axis], [step]]
        names = ("start", "end", "axis", "step")
        return self("Slice", x, *(self.integers(f"{n}{self._count}", b) for n, b in zip(names, bounds, strict=True)))

    def done(self, result: Tensor) -> bool:
        """The node's result is this."""
        output = self.node.outputs[0]
        self.graph.replace(self.node, shaped(result, output) if isinstance(result, Variable) else result)
        return True


def sizes(tensor: Tensor) -> list[int] | None:
    """The shape of a tensor; ``None`` where a dimension is open."""
    shape = tensor.shape
    if shape is None or not all(isinstance(size, int | np.integer) for size in shape):
        return None
    return [int(size) for size in shape if size is not None]


def is_float(node: Node) -> bool:
    """Whether a node's first input holds float32."""
    return node.inputs[0].dtype == np.float32
