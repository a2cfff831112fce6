"""Types and shapes of every tensor, by onnx's own inference over a message without weights."""

from __future__ import annotations

import re

import numpy as np
import onnx

from edgec.ir.analyses import Analyses
from edgec.ir.errors import InputError
from edgec.ir.garbage import uncollected
from edgec.ir.graph import Graph, Tensor, Variable, numpy_dtype
from edgec.ir.protos import weightless


class Shapes:
    """Shape and element type by tensor.

    Inference runs over a message that has no weights: on ResNet-152 that costs a fiftieth of the same with weights.

    Raises:
        InputError: the operators contradict each other or the declared types; the line names the node.
    """

    def __init__(self, graph: Graph, analyses: Analyses | None = None) -> None:
        self._shape: dict[Tensor, tuple[int | None, ...] | None] = {}
        self._dtype: dict[Tensor, np.dtype | None] = {}
        self._named: dict[Tensor, tuple[int | str | None, ...]] = {}
        with uncollected():
            variables = graph.variables()
            inferred = infer(graph).graph
            known = _by_name(inferred)
            for variable in variables:
                self._keep(variable, known.get(variable.name))
            self._look_into_bodies(graph, inferred)

    def _look_into_bodies(self, graph: Graph, message: onnx.GraphProto) -> None:
        """Keeps what inference found inside bodies of control flow, each of which has names of its own."""
        for node, written in zip(graph.nodes, message.node, strict=True):
            if not any(True for _ in node.subgraphs()):
                continue
            for attribute in written.attribute:
                body = node.attrs[attribute.name]
                if isinstance(body, Graph):
                    known = _by_name(attribute.g)
                    for variable in (*body.inputs, *(tensor for inner in body.nodes for tensor in inner.outputs)):
                        if isinstance(variable, Variable) and variable.name:
                            self._keep(variable, known.get(variable.name))
                    self._look_into_bodies(body, attribute.g)

    def _keep(self, variable: Variable, kind: onnx.TypeProto | None) -> None:
        tensor = kind.tensor_type if kind is not None and kind.HasField("tensor_type") else None
        if tensor is None:
            self._shape[variable] = _numbers(variable.shape)
            self._dtype[variable] = variable.dtype
            return
        self._dtype[variable] = numpy_dtype(tensor.elem_type) if tensor.elem_type else None
        if not tensor.HasField("shape"):
            self._shape[variable] = None
            return
        # A dimension that says neither reads as 0, and a zero that is meant is rare: only zeros are looked at twice.
        self._shape[variable] = tuple(
            [d.dim_value or (0 if d.HasField("dim_value") else None) for d in tensor.shape.dim]
        )
        if None in (self._shape[variable] or ()):
            self._named[variable] = tuple(
                [d.dim_param or None if not d.HasField("dim_value") else d.dim_value for d in tensor.shape.dim]
            )

    def shape(self, tensor: Tensor) -> tuple[int | None, ...] | None:
        """Dimensions, ``None`` for one that is unknown, or ``None`` where not even the rank is known."""
        return self._shape.get(tensor) if isinstance(tensor, Variable) else tensor.shape

    def named(self, tensor: Tensor) -> tuple[int | str | None, ...] | None:
        """Dimensions with the names of those that are open: two of one name are always equal."""
        return self._named.get(tensor) or self.shape(tensor)

    def static(self, tensor: Tensor) -> tuple[int, ...]:
        """Dimensions that must all be known; raises :class:`InputError` naming the tensor otherwise."""
        shape = self.shape(tensor)
        if shape is None or any(d is None for d in shape):
            raise InputError(
                f"tensor '{tensor.name}'", f"has no static shape ({_show(shape)})", "pin the inputs with --input"
            )
        return tuple(int(d) for d in shape if d is not None)

    def dtype(self, tensor: Tensor) -> np.dtype | None:
        """Element type, ``None`` where unknown."""
        return self._dtype.get(tensor) if isinstance(tensor, Variable) else tensor.dtype

    def annotate(self, graph: Graph) -> None:
        """Writes what was inferred into the graph's variables; a number that they declare stays."""
        for variable in graph.variables():
            shape = self._shape.get(variable)
            if shape is not None and (variable.shape is None or _numbers(variable.shape) != tuple(variable.shape)):
                declared = variable.shape or [None] * len(shape)
                variable.shape = [d if i is None else i for d, i in zip(declared, shape, strict=True)]
            if variable.dtype is None:
                variable.dtype = self._dtype.get(variable)


def infer(graph: Graph) -> onnx.ModelProto:
    """The weightless message of ``graph`` with inferred types, in strict mode."""
    message = weightless(graph)
    for node in message.graph.node:
        # onnx 1.23 cannot infer through it, though nothing is easier: what it gives is as what it takes.
        if node.op_type == "GroupNormalization" and node.domain in ("", "ai.onnx"):
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
    try:
        return onnx.shape_inference.infer_shapes(message, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        fault = str(error)
    try:
        # What values it carries along, to compute shapes from, have lost their own: a column of 4 times a row of 80,
        # which is how torch writes the positions of a sine, is no fault. Without them it may know fewer shapes.
        return onnx.shape_inference.infer_shapes(message, strict_mode=True)
    except onnx.shape_inference.InferenceError:
        raise InputError(*inference_fault(fault)) from None


def inference_fault(text: str) -> tuple[str, str, str]:
    """Place, fault and fix from the message of onnx's inference."""
    # One line a node: "(op_type:Conv, node name: conv1): [ShapeInferenceError] what"; functions nest such lines.
    first = text.strip().removeprefix("[ShapeInferenceError] Inference error(s): ").split("\n(op_type:")[0]
    place = re.search(r"\(op_type:\s*([^,)]+)(?:, node name: ([^)]*))?\)", first)
    fault = " ".join(re.split(r"\[\w+Error\]", first)[-1].split()).rstrip(".")
    if place is None:
        where = "the graph"
    else:
        where = f"node '{place[2]}' ({place[1]})" if place[2] else f"a node without a name ({place[1]})"
    return where, f"its types and shapes do not fit: {fault}", "export the network again, or correct its shapes"


def _by_name(message: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
    return {info.name: info.type for info in (*message.value_info, *message.output, *message.input)}


def _numbers(shape: list[int | str | None] | None) -> tuple[int | None, ...] | None:
    return None if shape is None else tuple(d if isinstance(d, int) else None for d in shape)


def _show(shape: tuple[int | None, ...] | None) -> str:
    return "unknown rank" if shape is None else "x".join("?" if d is None else str(d) for d in shape)
