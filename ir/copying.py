"""Graphs of their own that share the weights' memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, variable_of
from edgec.ir.node_list import NodeList

_TENSOR_EXTRAS = ("type_proto", "doc_string", "metadata")
_NODE_EXTRAS = ("doc_string", "overload", "metadata")


def copy(graph: Graph, known: dict[Tensor, Tensor], parent: Graph | None = None) -> Graph:
    """A twin of ``graph``.

    Args:
        graph: what to copy.
        known: the twins of tensors, by tensor; added to.
        parent: the twin that the new graph stands in.
    """
    twin = Graph(name=graph.name, doc_string=graph.doc_string, opsets=graph.opsets, ir_version=graph.ir_version)
    if parent is not None:
        twin.share(parent)
    twin.metadata, twin.graph_metadata = dict(graph.metadata), dict(graph.graph_metadata)
    twin.carried = graph.carried
    twin.producer_name, twin.producer_version = graph.producer_name, graph.producer_version

    def of(tensor: Tensor) -> Tensor:
        made = known.get(tensor)
        if made is None:
            made = known[tensor] = _copy_tensor(tensor)
            if tensor.quantization is not None:
                made.quantization = {key: of(value) for key, value in tensor.quantization.items()}
        return made

    twin.inputs = [of(tensor) for tensor in graph.inputs]
    # Outputs of nodes are made before anything reads them, so that a subgraph finds what it captures.
    for node in graph.nodes:
        for tensor in node.outputs:
            of(tensor)
    nodes = []
    for node in graph.nodes:
        attrs = {key: _copy_attribute(value, known, twin) for key, value in node.attrs.items()}
        item = Node(
            node.op,
            node.name,
            attrs,
            map(of, node.inputs),
            [variable_of(of(tensor)) for tensor in node.outputs],
            node.domain,
        )
        item.__dict__.update({key: value for key, value in node.__dict__.items() if key in _NODE_EXTRAS})
        nodes.append(item)
    twin.nodes = NodeList(nodes)
    twin.outputs = [of(tensor) for tensor in graph.outputs]
    return twin


def _copy_tensor(tensor: Tensor) -> Tensor:
    made: Tensor
    if isinstance(tensor, Constant):
        made = Constant(tensor.name, tensor.held)
    else:
        made = Variable(tensor.name, tensor.dtype, tensor.shape, tensor.type)
    made.__dict__.update({key: value for key, value in tensor.__dict__.items() if key in _TENSOR_EXTRAS})
    return made


def _copy_attribute(value: Any, known: dict[Tensor, Tensor], twin: Graph) -> Any:
    if isinstance(value, Graph):
        return copy(value, known, twin)
    if isinstance(value, list):
        return [_copy_attribute(item, known, twin) for item in value]
    if isinstance(value, Constant):
        return _copy_tensor(value)
    if isinstance(value, np.ndarray):
        return value.copy()
    return value
