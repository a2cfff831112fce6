"""A graph as text: onnx's own syntax where it can be, with weights shown as type, shape and a short hash.

The output is for eyes and for FileCheck; :func:`parse` reads onnx.parser's text back, for tests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable
from edgec.ir.protos import from_proto

_INLINE_ELEMENTS = 8


def print_graph(graph: Graph) -> str:
    """The whole graph, one line a node, constants before the nodes that read them first."""
    return "\n".join(_lines(graph, "", set())) + "\n"


def parse(text: str) -> Graph:
    """A graph from the text that ``onnx.parser.parse_model`` takes."""
    return from_proto(onnx.parser.parse_model(text))


def print_node(node: Node) -> str:
    """One node with the types of its outputs, on one line; subgraphs are only counted."""
    outputs = ", ".join(_typed(tensor) for tensor in node.outputs)
    inputs = ", ".join(tensor.name or '""' for tensor in node.inputs)
    attributes = ", ".join(f"{key} = {_attribute(value)}" for key, value in sorted(node.attrs.items()))
    operator = f"{node.domain}.{node.op}" if node.domain else node.op
    label = f"[{node.name}] " if node.name else ""
    return f"{label}{outputs} = {operator}{f' <{attributes}>' if attributes else ''} ({inputs})"


def short_hash(values: np.ndarray) -> str:
    """Eight hexadecimal digits of SHA-256 over the elements' bytes."""
    data = np.ascontiguousarray(values)
    raw = repr(data.tolist()).encode() if data.dtype.kind == "O" else data.reshape(-1).view(np.uint8).data
    return hashlib.sha256(raw).hexdigest()[:8]


def _lines(graph: Graph, indent: str, shown: set[Constant]) -> Iterator[str]:
    if not indent:
        opsets = ", ".join(f'"{domain}" : {version}' for domain, version in graph.opsets.items())
        yield f"<ir_version: {graph.ir_version or '?'}, opset_import: [{opsets}]>"
    inputs = ", ".join(_typed(tensor) for tensor in graph.inputs)
    outputs = ", ".join(_typed(tensor) for tensor in graph.outputs)
    yield f"{indent}{graph.name} ({inputs}) => ({outputs}) {{"
    for node in graph.nodes:
        for tensor in node.inputs:
            if isinstance(tensor, Constant) and tensor not in shown:
                shown.add(tensor)
                yield f"{indent}  {_typed(tensor)} = {_constant(tensor)}"
        yield f"{indent}  {print_node(node)}"
        for subgraph in node.subgraphs():
            yield from _lines(subgraph, indent + "    ", shown)
    yield f"{indent}}}"


def _typed(tensor: Tensor) -> str:
    if not tensor.name:
        return '""'
    if isinstance(tensor, Variable) and tensor.type_proto is not None:
        return f"{tensor.type} {tensor.name}"
    dtype = "?" if tensor.dtype is None else _dtype(np.dtype(tensor.dtype))
    if tensor.shape is None:
        return f"{dtype} {tensor.name}" if tensor.dtype is not None else tensor.name
    return f"{dtype}[{','.join('?' if d is None else str(d) for d in tensor.shape)}] {tensor.name}"


def _dtype(dtype: np.dtype) -> str:
    return {"float32": "float", "float64": "double", "object": "string"}.get(dtype.name, dtype.name)


def _constant(constant: Constant) -> str:
    size = int(np.prod(constant.shape, dtype=np.int64))
    if size <= _INLINE_ELEMENTS:
        return "{" + ", ".join(_number(item) for item in constant.values.reshape(-1).tolist()) + "}"
    return f"#{short_hash(constant.values)}"


def _attribute(value: Any) -> str:
    if isinstance(value, Graph):
        return f"graph of {len(value.nodes)} nodes"
    if isinstance(value, Constant):
        return _constant(value)
    if isinstance(value, np.ndarray):
        return f"{_dtype(value.dtype)}{list(value.shape)} #{short_hash(value)}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_attribute(item) for item in value) + "]"
    if isinstance(value, onnx.AttributeProto):
        return onnx.AttributeProto.AttributeType.Name(value.type).lower()
    return f'"{value}"' if isinstance(value, str) else _number(value)


def _number(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)
