"""From onnx's messages to a :class:`~edgec.ir.graph.Graph`, without loss and without a reference to the message.

What the graph has no place for (producer, domain, training information, functions) is carried along in a message of
its own. Initializers that nothing reads are left behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

from edgec.ir.errors import InputError
from edgec.ir.garbage import uncollected
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, variable_of
from edgec.ir.node_list import NodeList
from edgec.ir.stored import PACKED, Stored, numpy_dtype, raw_bytes

# Of an initializer's position (None for a tensor that stands elsewhere) and its message.
Decode = Callable[[int | None, TensorProto], Stored]

CORRUPTED = "the file is corrupted; export it again"
# A sparse weight is held dense; one that would take more than this is refused.
_DENSE_LIMIT = 2 << 30


def from_proto(model: onnx.ModelProto, decode: Decode | None = None, source: str = "") -> Graph:
    """A graph from a model message, which is not changed and not referred to afterwards.

    Args:
        model: the message.
        decode: makes a :class:`Stored` of a tensor; by default of its own message.
        source: the file's name, for errors.

    Raises:
        InputError: a tensor's bytes do not fit its type and shape, or two weights share a name.
    """
    try:
        with uncollected():
            return _model(model, _Reader(decode or (lambda _, tensor: stored(tensor, source)), source))
    except UnicodeDecodeError:
        raise InputError(source or "the model", "holds a name that is not text in UTF-8", CORRUPTED) from None


def _model(model: onnx.ModelProto, reader: _Reader) -> Graph:
    opsets = {_text(item.domain): item.version for item in model.opset_import}
    graph = Graph(name=_text(model.graph.name) or "graph", opsets=opsets)
    reader.fill(graph, model.graph, {}, reader.decode)
    graph.ir_version = model.ir_version or None
    graph.metadata = pairs(model.metadata_props)
    shell = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name not in ("graph", "opset_import", "metadata_props", "ir_version"):
            if field.is_repeated:
                getattr(shell, field.name).MergeFrom(value)
            else:
                setattr(shell, field.name, value)
    graph.carried = shell
    graph.producer_name, graph.producer_version = shell.producer_name, shell.producer_version
    return graph


def stored(tensor: TensorProto, source: str = "") -> Stored:
    """A tensor whose values stand in its message, checked against its shape and type.

    Raises:
        InputError: they do not fit, the type is unknown, or they lie in another file.
    """
    shape, kind = checked_signature(tensor, source)
    if tensor.data_location == TensorProto.EXTERNAL:
        raise InputError(place(source, tensor), "lies in another file, which a message cannot name", "load the file")
    if not tensor.HasField("raw_data"):
        have, need = _typed_counts(tensor, shape, kind)
        if have != need:
            raise InputError(place(source, tensor), f"has {have} values where {need} are needed", CORRUPTED)
        own = TensorProto()
        own.CopyFrom(tensor)
        return Stored(shape, kind, proto=own)
    raw = memoryview(tensor.raw_data)
    if kind == TensorProto.STRING:
        raise InputError(place(source, tensor), "holds strings as raw bytes, which ONNX does not allow", CORRUPTED)
    if len(raw) != raw_bytes(shape, kind):
        what = f"has {len(raw)} bytes where {raw_bytes(shape, kind)} are needed"
        raise InputError(place(source, tensor), what, CORRUPTED)
    return Stored(shape, kind, raw=raw)


def checked_signature(tensor: TensorProto, source: str) -> tuple[tuple[int, ...], int]:
    """Shape and ``DataType`` of a tensor message; raises InputError where numpy could not hold them."""
    shape, kind = tuple(tensor.dims), tensor.data_type
    negative = bool(shape) and min(shape) < 0
    if not kind or negative or len(shape) > 64 or math.prod(map(abs, shape)) >= 1 << 60 or _widest(shape) >= 1 << 60:
        raise InputError(place(source, tensor), "has no element type or an impossible shape", CORRUPTED)
    try:
        numpy_dtype(kind)
    except KeyError:
        what = f"has the element type {kind}, which is unknown to onnx {onnx.__version__}"
        raise InputError(place(source, tensor), what, CORRUPTED) from None
    return shape, kind


def place(source: str, tensor: TensorProto) -> str:
    """Where an error in a weight is: its file and its name."""
    return f"{source}: weight '{tensor.name}'" if source else f"weight '{tensor.name}'"


class _Reader:
    def __init__(self, decode: Decode, source: str) -> None:
        self.decode = decode
        self.source = source

    def fill(self, graph: Graph, proto: onnx.GraphProto, outer: Mapping[str, Tensor], decode: Decode) -> None:
        """Reads ``proto`` into ``graph``; ``outer`` are the tensors of the graphs around it, by name."""
        graph.doc_string = _text(proto.doc_string)
        graph.graph_metadata = pairs(proto.metadata_props)
        known: dict[str, Tensor] = {}
        self._constants(proto, known, decode)
        types = {info.name: info for info in proto.value_info}
        types.update((info.name, info) for info in proto.output)
        for info in proto.input:
            if info.name not in known:
                known[info.name] = self._variable(info)
        # Results are known before anything reads them, so that no subgraph mistakes one of its own for a captured one.
        nodes = list(proto.node)
        for item in nodes:
            for name in item.output:
                if name and name not in known:
                    info = types.get(name)
                    known[name] = Variable(name) if info is None else self._variable(info)

        def of(name: str) -> Tensor:
            tensor = known.get(name)
            if tensor is None:
                if not name:
                    return Variable.empty()
                tensor = outer.get(name)
                if tensor is None:
                    info = types.get(name)
                    tensor = known[name] = Variable(name) if info is None else self._variable(info)
            return tensor

        scope: dict[str, Tensor] | None = None
        made: list[Node] = []
        texts: list[str] = []
        for item in nodes:
            attrs: dict[str, Any] = {}
            for attribute in item.attribute:
                if attribute.type in _NESTED:
                    if scope is None:
                        scope = {**outer, **known}
                    attrs[attribute.name] = self._subgraphs(attribute, graph, scope)
                else:
                    attrs[attribute.name] = self._attribute(attribute)
            node = Node(
                item.op_type, item.name, attrs, map(of, item.input), map(variable_of, map(of, item.output)), item.domain
            )
            texts += (node.op, node.name, node.domain, *attrs)
            if item.doc_string:
                node.doc_string = _text(item.doc_string)
            if item.overload:
                node.overload = _text(item.overload)
            if item.metadata_props:
                node.metadata = pairs(item.metadata_props)
            made.append(node)
        graph.nodes = NodeList(made)
        graph.inputs = [known[info.name] for info in proto.input]
        graph.outputs = [of(info.name) for info in proto.output]
        for annotation in proto.quantization_annotation:
            of(annotation.tensor_name).quantization = {
                _text(item.key): of(item.value) for item in annotation.quant_parameter_tensor_names
            }
        _check_texts(known)
        _check_texts(texts)

    def _constants(self, proto: onnx.GraphProto, known: dict[str, Tensor], decode: Decode) -> None:
        for index, tensor in enumerate(proto.initializer):
            if tensor.name in known:
                raise InputError(place(self.source, tensor), "stands twice among the initializers", CORRUPTED)
            known[tensor.name] = _constant(tensor, decode(index, tensor))
        for sparse in proto.sparse_initializer:
            known[sparse.values.name] = Constant(sparse.values.name, self._dense(sparse))

    def _variable(self, info: onnx.ValueInfoProto) -> Variable:
        kind = info.type.WhichOneof("value")
        if kind == "tensor_type":
            tensor = info.type.tensor_type
            try:
                dtype = numpy_dtype(tensor.elem_type) if tensor.elem_type else None
            except KeyError:
                where = f"{self.source}: tensor '{info.name}'" if self.source else f"tensor '{info.name}'"
                what = f"has the element type {tensor.elem_type}, which is unknown to onnx {onnx.__version__}"
                raise InputError(where, what, CORRUPTED) from None
            shape = [_dimension(dim) for dim in tensor.shape.dim] if tensor.HasField("shape") else None
            variable = Variable(info.name, dtype, shape)
        else:
            variable = Variable(info.name, type=kind or "tensor_type")
            if kind is not None:
                variable.type_proto = onnx.TypeProto()
                variable.type_proto.CopyFrom(info.type)
        if info.doc_string:
            variable.doc_string = _text(info.doc_string)
        if info.metadata_props:
            variable.metadata = pairs(info.metadata_props)
        return variable

    def _attribute(self, attribute: AttributeProto) -> Any:
        read = _PLAIN.get(attribute.type)
        if attribute.ref_attr_name or (read is None and attribute.type != AttributeProto.TENSOR):
            own = AttributeProto()  # references, sparse tensors and types travel as they are
            own.CopyFrom(attribute)
            return own
        if read is None:
            return _constant(attribute.t, self.decode(None, attribute.t))
        return read(attribute)

    def _subgraphs(self, attribute: AttributeProto, parent: Graph, scope: Mapping[str, Tensor]) -> Any:
        made = []
        for proto in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
            subgraph = Graph(name=_text(proto.name) or "graph")
            subgraph.share(parent)
            self.fill(subgraph, proto, scope, lambda _, tensor: self.decode(None, tensor))
            made.append(subgraph)
        return made[0] if attribute.type == AttributeProto.GRAPH else made

    def _dense(self, sparse: onnx.SparseTensorProto) -> np.ndarray:
        where = place(self.source, sparse.values)
        shape = tuple(sparse.dims)
        values, indices = stored(sparse.values, self.source), stored(sparse.indices, self.source).load()
        if (shape and min(shape) < 0) or raw_bytes(shape, values.data_type) > _DENSE_LIMIT:
            raise InputError(where, f"is sparse with an impossible shape, {list(shape)}", CORRUPTED)
        dense = np.zeros(shape, values.dtype)
        flat = indices if indices.ndim == 1 else _linear(indices, shape)
        if flat is None or indices.dtype != np.int64 or len(flat) != math.prod(values.shape):
            raise InputError(where, "is sparse with indices that do not fit its values", CORRUPTED)
        if len(flat) and (flat.min() < 0 or flat.max() >= dense.size):
            raise InputError(where, "is sparse with an index outside its shape", CORRUPTED)
        dense.reshape(-1)[flat] = values.load().reshape(-1)
        return dense


def _linear(indices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Positions in the flat array of (values, rank) indices, -1 for one outside; ``None`` for another form."""
    if indices.ndim != 2 or indices.shape[1] != len(shape):
        return None
    inside = np.all((indices >= 0) & (indices < np.array(shape)), axis=1)
    strides = np.array([math.prod(shape[axis + 1 :]) for axis in range(len(shape))], np.int64)
    return np.where(inside, indices @ strides, -1)


def _typed_counts(tensor: TensorProto, shape: tuple[int, ...], kind: int) -> tuple[int, int]:
    """How many entries the typed field has, and how many it needs."""
    elements = math.prod(shape)
    if kind in PACKED and PACKED[kind] != 6:
        elements = raw_bytes(shape, kind)  # one entry holds a byte of packed elements
    elif kind in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        elements *= 2
    return len(getattr(tensor, onnx.helper.tensor_dtype_to_field(kind))), elements


def _widest(shape: tuple[int, ...]) -> int:
    """The elements there would be if no dimension were zero; numpy wants that number to be sane as well."""
    return math.prod(dim or 1 for dim in shape)


def _constant(tensor: TensorProto, values: Stored) -> Constant:
    constant = Constant(tensor.name, values)
    if tensor.doc_string:
        constant.doc_string = _text(tensor.doc_string)
    if tensor.metadata_props:
        constant.metadata = pairs(tensor.metadata_props)
    return constant


def pairs(entries: Any) -> dict[str, str]:
    """Key-value entries of a message; raises UnicodeDecodeError where one is no text."""
    return {_text(item.key): _text(item.value) for item in entries}


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    kind = dim.WhichOneof("value")
    return dim.dim_value if kind == "dim_value" else _text(dim.dim_param) or None


def _text(value: str | bytes) -> str:
    """A string of a message; protobuf hands out one that is no UTF-8 as bytes. Raises UnicodeDecodeError then."""
    return value if isinstance(value, str) else value.decode()


def _check_texts(values: Iterable[str]) -> None:
    try:
        "".join(values)  # the quick way to tell that all are strings
    except TypeError:
        for value in values:
            _text(value)


def _any_text(raw: bytes) -> str:
    """A string attribute, which may be no UTF-8; written back as it was."""
    return raw.decode("utf-8", errors="surrogateescape")


_NESTED = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_PLAIN: dict[int, Callable[[AttributeProto], Any]] = {
    AttributeProto.FLOAT: lambda a: a.f,
    AttributeProto.INT: lambda a: a.i,
    AttributeProto.STRING: lambda a: _any_text(a.s),
    AttributeProto.FLOATS: lambda a: list(a.floats),
    AttributeProto.INTS: lambda a: list(a.ints),
    AttributeProto.STRINGS: lambda a: [_any_text(item) for item in a.strings],
}
