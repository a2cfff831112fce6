"""Between :class:`~edgec.ir.graph.Graph` and onnx's messages, without loss.

What the graph has no place for (producer, domain, training information, functions) is carried in the message that it
came from. Weights are not copied here: they come in as :class:`~edgec.ir.graph.Stored` and go out as references, to be
written by :mod:`edgec.ir.files`, except for those so small that they are part of the structure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from edgec.ir.graph import Constant, Graph, Node, Stored, Tensor, Variable, numpy_dtype, onnx_dtype

# Integer constants up to this many elements go into a weightless message: shape inference reads their values.
_STRUCTURAL_ELEMENTS = 4096

Decode = Callable[[int, TensorProto], Stored]


def from_proto(model: onnx.ModelProto, decode: Decode | None = None) -> Graph:
    """A graph from a model message.

    Args:
        model: the message; it is not changed, and not referred to afterwards except by small tensors.
        decode: makes a :class:`Stored` of the initializer at a position; by default of the proto itself.
    """
    opsets = {item.domain: item.version for item in model.opset_import}
    graph = _graph(model.graph, {}, opsets, decode or _decode)
    graph.ir_version = model.ir_version or None
    graph.metadata = {item.key: item.value for item in model.metadata_props}
    shell = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name not in ("graph", "opset_import", "metadata_props", "ir_version"):
            if field.is_repeated:
                getattr(shell, field.name).MergeFrom(value)
            elif field.message_type:
                getattr(shell, field.name).CopyFrom(value)
            else:
                setattr(shell, field.name, value)
    graph.carried = shell
    graph.producer_name, graph.producer_version = shell.producer_name, shell.producer_version
    return graph


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
    model.ir_version = graph.ir_version or _minimum_ir_version(graph)
    for domain, version in graph.opsets.items():
        # Absent rather than empty, as exporters write it: the same model gives the same bytes.
        model.opset_import.add(domain=domain or None, version=version)
    for key, value in graph.metadata.items():
        model.metadata_props.add(key=key, value=value)
    homes = _homes(graph)
    left_out: list[Constant] = []
    _export_graph(graph, model.graph, homes, inline or (lambda constant: False), left_out)
    present = {item.name for item in model.graph.output}
    for tensor in extra_outputs:
        if tensor.name not in present:
            present.add(tensor.name)
            _export_info(tensor, model.graph.output.add())
    return model, left_out


def weightless(graph: Graph) -> onnx.ModelProto:
    """A message with every constant's type and shape but only the values that shapes are computed from."""

    def structural(constant: Constant) -> bool:
        size = int(np.prod(constant.shape, dtype=np.int64))
        return size <= 1 or (constant.dtype.kind in "iubO" and size <= _STRUCTURAL_ELEMENTS)

    model, left_out = to_proto(graph, inline=structural)
    for constant in left_out:
        tensor = model.graph.initializer.add(
            name=constant.name,
            dims=constant.shape,
            data_type=data_type(constant),
            data_location=TensorProto.EXTERNAL,
        )
        tensor.external_data.add(key="location", value="left-out")
    return model


def data_type(constant: Constant) -> int:
    """``onnx.TensorProto.DataType`` of a constant, exact for the types that numpy would confuse."""
    return constant.stored.data_type if constant.stored is not None else onnx_dtype(constant.dtype)


def constant_proto(constant: Constant) -> TensorProto:
    """The whole constant as a message."""
    stored = constant.stored
    if stored is not None and stored.raw is None:
        tensor = TensorProto()
        tensor.CopyFrom(stored.proto)
    elif stored is not None:
        tensor = TensorProto(dims=stored.shape, data_type=stored.data_type, raw_data=bytes(stored.raw))
    else:
        tensor = numpy_helper.from_array(np.ascontiguousarray(constant.values).reshape(constant.shape))
    tensor.name = constant.name
    return tensor


# -- coming in --------------------------------------------------------------------------------------------------------


def _decode(_: int, tensor: TensorProto) -> Stored:
    shape = tuple(tensor.dims)
    if tensor.HasField("raw_data"):
        return Stored(shape, tensor.data_type, raw=memoryview(tensor.raw_data))
    return Stored(shape, tensor.data_type, proto=tensor)


def _graph(
    proto: onnx.GraphProto, outer: Mapping[str, Tensor], opsets: Mapping[str, int], decode: Decode
) -> Graph:
    known: dict[str, Tensor] = {}

    def of(name: str) -> Tensor:
        if not name:
            return Variable.empty()
        tensor = known.get(name)
        if tensor is None:
            tensor = outer.get(name)
            if tensor is None:
                tensor = known[name] = Variable(name)
        return tensor

    for index, tensor in enumerate(proto.initializer):
        constant = Constant(tensor.name, decode(index, tensor))
        if tensor.doc_string:
            constant.doc_string = tensor.doc_string
        if tensor.metadata_props:
            constant.metadata = {item.key: item.value for item in tensor.metadata_props}
        known[tensor.name] = constant
    for sparse in proto.sparse_initializer:
        known[sparse.values.name] = Constant(sparse.values.name, _dense(sparse))
    for info in (*proto.input, *proto.output, *proto.value_info):
        if info.name not in known:
            known[info.name] = _variable(info)
    graph = Graph(name=proto.name or "graph", doc_string=proto.doc_string, opsets=opsets)
    graph.graph_metadata = {item.key: item.value for item in proto.metadata_props}
    # Results are known before anything reads them, so that no subgraph mistakes one of its own for a captured one.
    for item in proto.node:
        for name in item.output:
            if name and name not in known:
                known[name] = Variable(name)
    scope: dict[str, Tensor] | None = None
    for item in proto.node:
        attrs: dict[str, Any] = {}
        for attribute in item.attribute:
            if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) and scope is None:
                scope = {**outer, **known}
            attrs[attribute.name] = _attribute(attribute, scope if scope is not None else {}, opsets)
        node = Node(item.op_type, item.name, attrs, map(of, item.input), map(of, item.output), item.domain)
        if item.doc_string:
            node.doc_string = item.doc_string
        if item.overload:
            node.overload = item.overload
        if item.metadata_props:
            node.metadata = {pair.key: pair.value for pair in item.metadata_props}
        graph.nodes.append(node)
    graph.inputs = [known[info.name] for info in proto.input]
    graph.outputs = [of(info.name) for info in proto.output]
    for annotation in proto.quantization_annotation:
        of(annotation.tensor_name).quantization = {
            item.key: of(item.value) for item in annotation.quant_parameter_tensor_names
        }
    return graph


def _variable(info: onnx.ValueInfoProto) -> Variable:
    kind = info.type.WhichOneof("value")
    if kind == "tensor_type":
        tensor = info.type.tensor_type
        dtype = numpy_dtype(tensor.elem_type) if tensor.elem_type else None
        shape = [_dimension(dim) for dim in tensor.shape.dim] if tensor.HasField("shape") else None
        variable = Variable(info.name, dtype, shape)
    else:
        variable = Variable(info.name, type=kind or "tensor_type")
        if kind is not None:
            variable.type_proto = info.type
    if info.doc_string:
        variable.doc_string = info.doc_string
    if info.metadata_props:
        variable.metadata = {item.key: item.value for item in info.metadata_props}
    return variable


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    kind = dim.WhichOneof("value")
    return dim.dim_value if kind == "dim_value" else dim.dim_param or None


def _attribute(attribute: AttributeProto, scope: Mapping[str, Tensor], opsets: Mapping[str, int]) -> Any:
    kind = attribute.type
    if attribute.ref_attr_name:
        return attribute
    if kind == AttributeProto.FLOAT:
        return attribute.f
    if kind == AttributeProto.INT:
        return attribute.i
    if kind == AttributeProto.STRING:
        return _text(attribute.s)
    if kind == AttributeProto.FLOATS:
        return list(attribute.floats)
    if kind == AttributeProto.INTS:
        return list(attribute.ints)
    if kind == AttributeProto.STRINGS:
        return [_text(item) for item in attribute.strings]
    if kind == AttributeProto.TENSOR:
        return Constant(attribute.t.name, _decode(0, attribute.t))
    if kind == AttributeProto.GRAPH:
        return _graph(attribute.g, scope, opsets, _decode)
    if kind == AttributeProto.GRAPHS:
        return [_graph(item, scope, opsets, _decode) for item in attribute.graphs]
    return attribute  # sparse tensors and types travel as they are


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="surrogateescape")


def _dense(sparse: onnx.SparseTensorProto) -> np.ndarray:
    values = numpy_helper.to_array(sparse.values)
    indices = numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


# -- going out --------------------------------------------------------------------------------------------------------


def _homes(graph: Graph) -> dict[Constant, Graph]:
    """The graph that each constant is written in: the only one that reads it, else the main graph, which all see."""
    homes: dict[Constant, Graph] = {}

    def visit(current: Graph) -> None:
        def read(tensor: Tensor) -> None:
            if isinstance(tensor, Constant):
                homes[tensor] = current if homes.get(tensor, current) is current else graph
            if tensor.quantization is not None:
                for annotated in tensor.quantization.values():
                    read(annotated)

        for tensor in current.inputs:
            read(tensor)
        for node in current.nodes:
            for tensor in node.inputs:
                read(tensor)
            for tensor in node.outputs:
                if tensor.quantization is not None:
                    read(tensor)
            for subgraph in node.subgraphs():
                visit(subgraph)
        for tensor in current.outputs:
            read(tensor)

    visit(graph)
    return homes


def _export_graph(
    graph: Graph,
    proto: onnx.GraphProto,
    homes: Mapping[Constant, Graph],
    inline: Callable[[Constant], bool] | None,
    left_out: list[Constant],
) -> None:
    proto.name = graph.name or "graph"
    if graph.doc_string:
        proto.doc_string = graph.doc_string
    for key, value in graph.graph_metadata.items():
        proto.metadata_props.add(key=key, value=value)
    for tensor in graph.inputs:
        _export_info(tensor, proto.input.add())
    for tensor in graph.outputs:
        _export_info(tensor, proto.output.add())
    signature = {id(t) for t in (*graph.inputs, *graph.outputs)}
    annotated: dict[Tensor, None] = {}
    for node in graph.nodes:
        _export_node(node, proto.node.add(), graph.opsets, homes)
        for tensor in node.outputs:
            if tensor.name and id(tensor) not in signature and _is_typed(tensor):
                _export_info(tensor, proto.value_info.add())
            if tensor.quantization is not None:
                annotated[tensor] = None
        for tensor in node.inputs:
            if tensor.quantization is not None:
                annotated[tensor] = None
    for tensor in annotated:
        annotation = proto.quantization_annotation.add(tensor_name=tensor.name)
        for key, value in (tensor.quantization or {}).items():
            annotation.quant_parameter_tensor_names.add(key=key, value=value.name)
    for constant, home in homes.items():
        if home is graph:
            if inline is None or inline(constant):
                written = constant_proto(constant)
                written.doc_string = constant.doc_string
                for key, value in constant.metadata.items():
                    written.metadata_props.add(key=key, value=value)
                proto.initializer.append(written)
            else:
                left_out.append(constant)


def _is_typed(tensor: Tensor) -> bool:
    return isinstance(tensor, Variable) and (tensor.dtype is not None or tensor.type_proto is not None)


def _export_info(tensor: Tensor, info: onnx.ValueInfoProto) -> None:
    info.name = tensor.name
    if isinstance(tensor, Variable) and tensor.type_proto is not None:
        info.type.CopyFrom(tensor.type_proto)
    elif tensor.dtype is not None:
        info.type.tensor_type.elem_type = onnx_dtype(tensor.dtype)
        if tensor.shape is not None:
            shape = info.type.tensor_type.shape
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
    for key, value in tensor.metadata.items():
        info.metadata_props.add(key=key, value=value)


def _export_node(
    node: Node, proto: onnx.NodeProto, opsets: Mapping[str, int], homes: Mapping[Constant, Graph]
) -> None:
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
    for key, value in node.metadata.items():
        proto.metadata_props.add(key=key, value=value)
    for name, value in node.attrs.items():
        _export_attribute(name, value, proto, opsets, homes)


def _export_attribute(
    name: str, value: Any, node: onnx.NodeProto, opsets: Mapping[str, int], homes: Mapping[Constant, Graph]
) -> None:
    proto = node.attribute.add()
    if isinstance(value, AttributeProto):
        proto.CopyFrom(value)
        return
    proto.name = name
    if isinstance(value, str):
        proto.type, proto.s = AttributeProto.STRING, value.encode("utf-8", errors="surrogateescape")
    elif isinstance(value, bool | int | np.integer | np.bool_):
        # An author may write alpha=1 where the operator wants 1.0; its schema knows.
        if _declared(node.op_type, node.domain, opsets.get(node.domain, 0)).get(name) == AttributeProto.FLOAT:
            proto.type, proto.f = AttributeProto.FLOAT, float(value)
        else:
            proto.type, proto.i = AttributeProto.INT, int(value)
    elif isinstance(value, float | np.floating):
        proto.type, proto.f = AttributeProto.FLOAT, float(value)
    elif isinstance(value, Constant):
        proto.type = AttributeProto.TENSOR
        proto.t.CopyFrom(constant_proto(value))
    elif isinstance(value, np.ndarray):
        proto.type = AttributeProto.TENSOR
        proto.t.CopyFrom(numpy_helper.from_array(value))
    elif isinstance(value, Graph):
        proto.type = AttributeProto.GRAPH
        _export_graph(value, proto.g, homes, None, [])
    elif isinstance(value, list | tuple):
        _export_list(name, list(value), proto, node, opsets, homes)
    else:
        raise TypeError(f"node '{node.name}': attribute '{name}' is a {type(value).__name__}, which ONNX cannot hold")


def _export_list(
    name: str,
    value: list[Any],
    proto: AttributeProto,
    node: onnx.NodeProto,
    opsets: Mapping[str, int],
    homes: Mapping[Constant, Graph],
) -> None:
    declared = _declared(node.op_type, node.domain, opsets.get(node.domain, 0)).get(name)
    if value and isinstance(value[0], Graph):
        proto.type = AttributeProto.GRAPHS
        for graph in value:
            _export_graph(graph, proto.graphs.add(), homes, None, [])
    elif value and isinstance(value[0], str):
        proto.type = AttributeProto.STRINGS
        proto.strings.extend([item.encode("utf-8", errors="surrogateescape") for item in value])
    elif declared == AttributeProto.FLOATS or any(isinstance(item, float | np.floating) for item in value):
        proto.type = AttributeProto.FLOATS
        proto.floats.extend([float(item) for item in value])
    elif value or declared in (None, AttributeProto.INTS):
        proto.type = AttributeProto.INTS
        proto.ints.extend([int(item) for item in value])
    else:
        proto.type = declared


@lru_cache(maxsize=None)
def _declared(op: str, domain: str, version: int) -> dict[str, int]:
    """The attribute types of an operator's schema; empty for an operator that onnx does not know."""
    if not onnx.defs.has(op, domain):
        return {}
    try:
        schema = onnx.defs.get_schema(op, version, domain) if version else onnx.defs.get_schema(op, domain)
    except onnx.defs.SchemaError:  # the operator is newer than the opset: the verifier says so
        return {}
    return {name: int(attribute.type) for name, attribute in schema.attributes.items()}


def _minimum_ir_version(graph: Graph) -> int:
    """The oldest IR version that may carry these opsets, so that older runtimes can read the file."""
    known = {domain: version for domain, version in graph.opsets.items() if domain in ("", "ai.onnx", "ai.onnx.ml")}
    items = [onnx.helper.make_opsetid(domain, version) for domain, version in known.items()]
    return onnx.helper.find_min_ir_version_for(items, ignore_unknown=True)
