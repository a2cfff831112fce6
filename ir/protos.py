"""From a :class:`~edgec.ir.graph.Graph` to onnx's messages, without loss; reading them is proto_reader's part.

Weights are not copied here: they come in as :class:`~edgec.ir.stored.Stored` and go out as references, to be written
by :mod:`edgec.ir.files`, except for those so small that they are part of the structure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from edgec.ir.garbage import uncollected
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable
from edgec.ir.proto_reader import from_proto
from edgec.ir.stored import onnx_dtype

__all__ = ["constant_proto", "data_type", "from_proto", "is_structural", "to_proto", "weightless", "without_values"]

# Integer constants up to this many elements go into a weightless message: shape inference reads their values.
_STRUCTURAL_ELEMENTS = 4096
# And constants of any type up to this many: Resize's scales are floats.
_SCALES_ELEMENTS = 16


def to_proto(
    graph: Graph, *, extra_outputs: Iterable[Tensor] = (), inline: Callable[[Constant], bool] | None = None
) -> tuple[onnx.ModelProto, list[Constant]]:
    """A model message, and the constants of the main graph that were left out of it.

    Args:
        graph: what to export; it is not changed.
        extra_outputs: tensors to be made outputs besides the graph's own (taps).
        inline: whether a constant's bytes go into the message; by default none of the main graph's do.
    """
    model = onnx.ModelProto()
    if graph.carried is not None:
        model.CopyFrom(graph.carried)
    for field in ("producer_name", "producer_version"):
        if getattr(graph, field) != getattr(model, field):
            setattr(model, field, getattr(graph, field))
    # A model that was upgraded, or that said too little, must not claim a format older than its operators.
    model.ir_version = max(graph.ir_version or 0, _minimum_ir_version(graph))
    for domain, version in graph.opsets.items():
        # Absent rather than empty, as exporters write it: the same model gives the same bytes.
        model.opset_import.add(domain=domain or None, version=version)
    for key, value in graph.metadata.items():
        model.metadata_props.add(key=key, value=value)
    writer = _Writer(_homes(graph), graph, inline or (lambda constant: False), extra_outputs)
    with uncollected():
        writer.graph(graph, model.graph)
    return model, writer.left_out


def weightless(graph: Graph) -> onnx.ModelProto:
    """A message with every constant's type and shape but only the values that shapes are computed from."""
    model, left_out = to_proto(graph, inline=is_structural)
    for constant in left_out:
        tensor = model.graph.initializer.add(
            name=constant.name,
            dims=constant.shape,
            data_type=data_type(constant),
            data_location=TensorProto.EXTERNAL,
        )
        tensor.external_data.add(key="location", value="left-out")
    return model


def is_structural(constant: Constant) -> bool:
    """Whether shapes may be computed from a constant's values: it is small, or made of integers."""
    return is_small(constant.shape, constant.dtype)


def is_small(shape: Sequence[int], dtype: np.dtype) -> bool:
    """Whether shapes may be computed from values of that shape and type."""
    size = math.prod(shape)
    return size <= _SCALES_ELEMENTS or (dtype.kind in "iubO" and size <= _STRUCTURAL_ELEMENTS)


def data_type(constant: Constant) -> int:
    """``onnx.TensorProto.DataType`` of a constant, exact for the types that numpy would confuse."""
    held = constant.held
    return onnx_dtype(held.dtype) if isinstance(held, np.ndarray) else held.data_type


def constant_proto(constant: Constant) -> TensorProto:
    """The whole constant as a message."""
    stored = constant.stored
    tensor = without_values(constant)
    if stored is not None and stored.proto is not None:
        for field, value in stored.proto.ListFields():
            if field.name.endswith("_data"):
                getattr(tensor, field.name).MergeFrom(value)
    elif stored is not None and stored.raw is not None:
        tensor.raw_data = bytes(stored.raw)
    else:
        array = np.ascontiguousarray(constant.values).reshape(constant.shape)
        values = numpy_helper.from_array(array)
        tensor.string_data.extend(values.string_data)
        if values.HasField("raw_data"):
            tensor.raw_data = values.raw_data
    return tensor


def without_values(constant: Constant) -> TensorProto:
    """What a message says of a constant besides its values."""
    tensor = TensorProto(dims=constant.shape, data_type=data_type(constant))
    if constant.name:
        tensor.name = constant.name
    if constant.doc_string:
        tensor.doc_string = constant.doc_string
    if constant.metadata:
        for key, value in constant.metadata.items():
            tensor.metadata_props.add(key=key, value=value)
    return tensor


def _homes(graph: Graph) -> dict[Constant, Graph]:
    """The graph that each constant is written in: the only one that reads it, else the main graph, which all see."""
    homes: dict[Constant, Graph] = {}

    def visit(current: Graph) -> None:
        for tensor in current.inputs:
            read(tensor, current)
        for node in current.nodes:
            for tensor in node.inputs:
                if isinstance(tensor, Constant) or tensor.quantization is not None:
                    read(tensor, current)
            for tensor in node.outputs:
                if tensor.quantization is not None:
                    read(tensor, current)
            for subgraph in node.subgraphs():
                visit(subgraph)
        for tensor in current.outputs:
            read(tensor, current)

    def read(tensor: Tensor, current: Graph) -> None:
        if isinstance(tensor, Constant):
            # What lies in the file may be large; it is streamed from the main graph only.
            mapped = tensor.stored is not None and tensor.stored.mapping is not None
            homes[tensor] = current if homes.get(tensor, current) is current and not mapped else graph
        if tensor.quantization is not None:
            for annotated in tensor.quantization.values():
                read(annotated, current)

    visit(graph)
    return homes


class _Writer:
    """Writes graphs into messages.

    Args:
        homes: the graph that each constant is written in.
        opsets: version by domain: schemas tell integer attributes from float ones.
        main: the outermost graph.
        inline: whether a constant of the main graph goes into the message; those that do not end up in ``left_out``.
        taps: tensors that become further outputs of the main graph.
    """

    def __init__(
        self,
        homes: Mapping[Constant, Graph],
        main: Graph,
        inline: Callable[[Constant], bool],
        taps: Iterable[Tensor] = (),
    ) -> None:
        self.homes = homes
        self.opsets = main.opsets
        self.main = main
        self.inline = inline
        self.left_out: list[Constant] = []
        self.taps = [t for t in dict.fromkeys(taps) if not any(t is output for output in main.outputs)]

    def graph(self, graph: Graph, proto: onnx.GraphProto) -> None:
        proto.name = graph.name or "graph"
        if graph.doc_string:
            proto.doc_string = graph.doc_string
        for key, value in graph.graph_metadata.items():
            proto.metadata_props.add(key=key, value=value)
        for tensor in graph.inputs:
            _info(tensor, proto.input.add())
        outputs = [*graph.outputs, *self.taps] if graph is self.main else graph.outputs
        for tensor in outputs:
            _info(tensor, proto.output.add())
        signature = {id(t) for t in (*graph.inputs, *outputs)}
        annotated: dict[Tensor, None] = {}
        for node in graph.nodes:
            self._node(node, proto.node.add())
            for tensor in node.outputs:
                if tensor.name and id(tensor) not in signature and _is_typed(tensor):
                    _info(tensor, proto.value_info.add())
                if tensor.quantization is not None:
                    annotated[tensor] = None
            for tensor in node.inputs:
                if tensor.quantization is not None:
                    annotated[tensor] = None
        for tensor in annotated:
            annotation = proto.quantization_annotation.add(tensor_name=tensor.name)
            for key, scale in (tensor.quantization or {}).items():
                annotation.quant_parameter_tensor_names.add(key=key, value=scale.name)
        for constant, home in self.homes.items():
            if home is not graph:
                continue
            if graph is not self.main or self.inline(constant):
                proto.initializer.append(constant_proto(constant))
            else:
                self.left_out.append(constant)

    def _node(self, node: Node, proto: onnx.NodeProto) -> None:
        proto.op_type = node.op
        if node.name:
            proto.name = node.name
        proto.input.extend([tensor.name for tensor in node.inputs])
        proto.output.extend([tensor.name for tensor in node.outputs])
        if node.domain:
            proto.domain = node.domain
        if node.doc_string:
            proto.doc_string = node.doc_string
        if node.overload:
            proto.overload = node.overload
        if node.metadata:
            for key, value in node.metadata.items():
                proto.metadata_props.add(key=key, value=value)
        for name, value in node.attrs.items():
            try:
                self._attribute(name, value, node, proto.attribute)
            except (TypeError, ValueError, OverflowError):
                what = f"attribute '{name}' is {value!r} ({type(value).__name__}), which ONNX cannot hold"
                raise TypeError(f"node '{node.name}': {what}") from None

    def _attribute(self, name: str, value: Any, node: Node, attributes: Any) -> None:
        kind = type(value)
        if kind is AttributeProto:
            attributes.append(value)
        elif kind is str:
            attributes.add(name=name, type=AttributeProto.STRING, s=_raw(value))
        elif isinstance(value, _INTEGER):
            # An author may write alpha=1 where the operator wants 1.0; its schema knows.
            if self._declared(name, node) == AttributeProto.FLOAT:
                attributes.add(name=name, type=AttributeProto.FLOAT, f=float(value))
            else:
                attributes.add(name=name, type=AttributeProto.INT, i=int(value))
        elif isinstance(value, _FLOAT):
            attributes.add(name=name, type=AttributeProto.FLOAT, f=float(value))
        elif kind is list or kind is tuple:
            self._list(name, value, node, attributes)
        elif isinstance(value, Constant):
            attributes.add(name=name, type=AttributeProto.TENSOR, t=constant_proto(value))
        elif isinstance(value, np.ndarray):
            attributes.add(name=name, type=AttributeProto.TENSOR, t=numpy_helper.from_array(value))
        elif isinstance(value, Graph):
            self.graph(value, attributes.add(name=name, type=AttributeProto.GRAPH).g)
        else:
            raise TypeError

    def _list(self, name: str, value: Sequence[Any], node: Node, attributes: Any) -> None:
        declared = self._declared(name, node)
        kinds = set(map(type, value))
        if declared == AttributeProto.FLOATS or any(issubclass(kind, _FLOAT) for kind in kinds):
            attributes.add(name=name, type=AttributeProto.FLOATS, floats=list(map(float, value)))
        elif kinds and all(issubclass(kind, _INTEGER) for kind in kinds):
            attributes.add(name=name, type=AttributeProto.INTS, ints=list(map(int, value)))
        elif kinds == {str}:
            attributes.add(name=name, type=AttributeProto.STRINGS, strings=list(map(_raw, value)))
        elif kinds == {Graph}:
            graphs = attributes.add(name=name, type=AttributeProto.GRAPHS).graphs
            for graph in value:
                self.graph(graph, graphs.add())
        elif not kinds:
            attributes.add(name=name, type=AttributeProto.INTS if declared is None else declared)
        else:
            raise TypeError

    def _declared(self, name: str, node: Node) -> int | None:
        domain = node.domain or ""
        return _attribute_types(node.op, domain, self.opsets.get(domain, 0)).get(name)


def _is_typed(tensor: Tensor) -> bool:
    return isinstance(tensor, Variable) and (tensor.dtype is not None or tensor.type_proto is not None)


def _info(tensor: Tensor, info: onnx.ValueInfoProto) -> None:
    info.name = tensor.name
    if isinstance(tensor, Variable) and tensor.type_proto is not None:
        info.type.CopyFrom(tensor.type_proto)
    elif tensor.dtype is not None:
        kind = info.type.tensor_type
        kind.elem_type = data_type(tensor) if isinstance(tensor, Constant) else onnx_dtype(tensor.dtype)
        if tensor.shape is not None:
            shape = kind.shape
            shape.SetInParent()
            for dim in tensor.shape:
                if isinstance(dim, str):
                    shape.dim.add(dim_param=dim)
                elif dim is None:
                    shape.dim.add()
                else:
                    shape.dim.add(dim_value=int(dim))
    if tensor.doc_string:
        info.doc_string = tensor.doc_string
    if tensor.metadata:
        for key, value in tensor.metadata.items():
            info.metadata_props.add(key=key, value=value)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")


@cache
def _attribute_types(op: str, domain: str, version: int) -> dict[str, int]:
    """The attribute types of an operator's schema; empty for an operator that onnx does not know."""
    if not onnx.defs.has(op, domain):
        return {}
    try:
        schema = onnx.defs.get_schema(op, version, domain) if version else onnx.defs.get_schema(op, domain)
    except onnx.defs.SchemaError:  # the operator is newer than the opset: the verifier says so
        return {}
    return {name: int(attribute.type) for name, attribute in schema.attributes.items()}


_INTEGER = (int, np.integer, np.bool_)
_FLOAT = (float, np.floating)


def _minimum_ir_version(graph: Graph) -> int:
    """The oldest IR version that may carry these opsets, so that older runtimes can read the file."""
    known = {domain: version for domain, version in graph.opsets.items() if domain in ("", "ai.onnx", "ai.onnx.ml")}
    items = [onnx.helper.make_opsetid(domain, version) for domain, version in known.items()]
    return int(onnx.helper.find_min_ir_version_for(items, ignore_unknown=True))
