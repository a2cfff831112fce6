"""Operators spelled out by others: the table of rewrites, and what they write nodes with.

A rewrite is entered under the operator that it replaces, or under the name of a limit of the parser
(:mod:`.parser_limits`) that it works around. It computes the same, up to rounding, and answers whether it could.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable
from edgec.ir.rules import registering
from edgec.ir.shapes import Shapes

# From this opset on a reduction reads its axes; ReduceSum has since 13.
AXES_ARE_INPUT = 18


class Site:
    """A node where it stands, and what is known of its tensors.

    Attributes:
        graph: that the node stands in.
        node: the node.
        shapes: of the network, as they were before anything was rewritten in this round.
    """

    def __init__(self, graph: Graph, node: Node, shapes: Shapes) -> None:
        self.graph, self.node, self.shapes = graph, node, shapes

    @property
    def dtype(self) -> np.dtype:
        """The element type of what the node reads first."""
        return self.dtype_of(0)

    def dtype_of(self, place: int) -> np.dtype:
        """The element type of one of the node's inputs; float32 where it is not known."""
        tensor = self.input(place)
        return np.dtype((None if tensor is None else self.type_of(tensor)) or np.float32)

    def type_of(self, tensor: Tensor) -> np.dtype | None:
        """The element type of a tensor, one that was written in this round included; ``None`` where it is unknown."""
        return self.shapes.dtype(tensor) or tensor.dtype

    def dimensions(self, tensor: Tensor) -> tuple[int | None, ...] | None:
        """The shape of a tensor, one that was written in this round included; ``None`` where it is unknown."""
        known = self.shapes.shape(tensor)
        if known is not None or tensor.shape is None:
            return known
        return tuple(size if isinstance(size, int) else None for size in tensor.shape)

    def rank(self, place: int = 0) -> int | None:
        """The number of dimensions of one of the node's inputs, where it is known."""
        tensor = self.input(place)
        shape = None if tensor is None else self.dimensions(tensor)
        return None if shape is None else len(shape)

    def shape(self, place: int = 0) -> tuple[int, ...] | None:
        """The shape of one of the node's inputs; ``None`` where it is not static."""
        return self.static(self.node.inputs[place])

    def static(self, tensor: Tensor) -> tuple[int, ...] | None:
        """A tensor's shape; ``None`` where it is not static."""
        shape = self.dimensions(tensor)
        return None if shape is None or None in shape else tuple(int(size) for size in shape if size is not None)

    def input(self, place: int) -> Tensor | None:
        """An input, or ``None`` where it is left out."""
        inputs = self.node.inputs
        return inputs[place] if len(inputs) > place and inputs[place].name else None

    def fixed(self, place: int) -> np.ndarray | None:
        """The values of an input, or ``None`` where it is left out or computed."""
        tensor = self.input(place)
        return tensor.values if isinstance(tensor, Constant) else None

    def computed(self, place: int) -> bool:
        """Whether the network computes an input, or its caller gives it."""
        return isinstance(self.input(place), Variable)


class Writer(Site):
    """Nodes in the place of another one, named after it."""

    def number(self, label: str, value: float) -> Constant:
        """A scalar of the node's type."""
        return self.array(label, np.asarray(value, self.dtype))

    def array(self, label: str, values: Any) -> Constant:
        """A constant."""
        return self.graph.const(f"{self.node.name}.{label}", np.asarray(values))

    def integers(self, label: str, values: Sequence[int] | np.ndarray) -> Constant:
        """A vector of int64, as shapes and axes are."""
        return self.array(label, np.asarray(values, np.int64).reshape(-1))

    def op(self, op: str, label: str, *inputs: Tensor | None, **attrs: Any) -> Variable:
        """A node in front of the one that is replaced; its only output."""
        name = f"{self.node.name}.{label}"
        return self.graph.op(op, list(inputs), name=name, before=self.node, **attrs)

    def cast(self, label: str, tensor: Tensor, dtype: np.dtype | type) -> Variable:
        """A Cast to a type of numpy's."""
        return self.op("Cast", label, tensor, to=int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))

    def reduced(self, op: str, label: str, tensor: Tensor, axes: Sequence[int], keepdims: int = 1) -> Variable:
        """A reduction, as the graph's opset writes it."""
        if self.graph.opset < AXES_ARE_INPUT:
            return self.op(op, label, tensor, axes=list(axes), keepdims=keepdims)
        return self.op(op, label, tensor, self.integers(f"{label}.axes", axes), keepdims=keepdims)

    def reshaped(self, label: str, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """A tensor in another shape; a constant stays one."""
        if isinstance(tensor, Constant):
            return self.array(label, tensor.values.reshape(tuple(shape)))
        return self.op("Reshape", label, tensor, self.integers(f"{label}.shape", shape))

    def done(self, *results: Tensor) -> bool:
        """Puts tensors in the place of what the node computed; those that nothing reads need no successor."""
        outputs = self.node.outputs
        for old, new in zip(list(outputs), results, strict=False):
            dtype, shape = self.type_of(old), self.dimensions(old)
            self.graph.replace_uses(old, new)
            if isinstance(new, Variable) and new.dtype is None:  # for those that read it and are rewritten in turn
                new.dtype, new.shape = dtype, None if shape is None else list(shape)
        self.graph.erase(self.node)
        return True


Rewrite = Callable[[Writer], bool]
REWRITES: dict[str, Rewrite] = {}
rewrites = registering(REWRITES)


def is_read(graph: Graph, tensor: Tensor) -> bool:
    """Whether a node or the graph's caller reads what a node computes."""
    return bool(tensor.name) and (bool(tensor.outputs) or any(tensor is output for output in graph.outputs))
