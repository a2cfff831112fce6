"""Graphs in other libraries' forms, and back: ONNX's message, onnx-graphsurgeon's graph, onnx_ir's model.

Each way goes through ONNX's message, which holds all that a graph is. Weights are in memory then; a graph of more than
2 GB, which a message cannot hold, is saved to a file and opened from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx

from edgec.ir.errors import InputError
from edgec.ir.files import to_bytes
from edgec.ir.graph import Graph
from edgec.ir.proto_reader import from_proto

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

_LARGEST = (1 << 31) - (1 << 20)


def to_model_proto(graph: Graph) -> onnx.ModelProto:
    """The graph as ``onnx.ModelProto``.

    Raises:
        InputError: its weights take more than 2 GB.
    """
    size = sum(constant.nbytes for constant in graph.constants())
    if size > _LARGEST:
        what = f"has {size / 2**30:.1f} GiB of weights, and a message of ONNX holds 2"
        raise InputError(f"graph '{graph.name}'", what, "save it with edgec.ir.files.save, and open the file")
    return onnx.load_model_from_string(to_bytes(graph))


def from_model_proto(model: onnx.ModelProto) -> Graph:
    """The graph of an ``onnx.ModelProto`` without external data.

    Raises:
        InputError: it is no whole model.
    """
    return from_proto(model, None, "the model")


def to_graphsurgeon(graph: Graph) -> gs.Graph:
    """The graph as onnx-graphsurgeon's, for code that is written for that.

    Raises:
        InputError: its weights take more than 2 GB.
    """
    import onnx_graphsurgeon as gs

    return gs.import_onnx(to_model_proto(graph))


def from_graphsurgeon(graph: gs.Graph) -> Graph:
    """An onnx-graphsurgeon graph as edgec's; cleaned up and sorted by its owner.

    Raises:
        InputError: onnx-graphsurgeon cannot export it, or it is no whole model.
    """
    import onnx_graphsurgeon as gs

    try:
        model = gs.export_onnx(graph)
    except Exception as error:  # graphsurgeon says by whatever exception what a graph lacks
        what = f"cannot be exported by onnx-graphsurgeon ({type(error).__name__}: {error})"
        raise InputError(
            f"graph '{graph.name}'", what, "give every tensor a type, and call graph.toposort()"
        ) from error
    return from_model_proto(model)


def to_onnx_ir(graph: Graph) -> Any:
    """The graph as ``onnx_ir.Model``.

    Raises:
        InputError: its weights take more than 2 GB.
    """
    import onnx_ir

    return onnx_ir.from_proto(to_model_proto(graph))


def from_onnx_ir(model: Any) -> Graph:
    """The graph of an ``onnx_ir.Model``.

    Raises:
        InputError: it is no whole model.
    """
    import onnx_ir

    return from_model_proto(onnx_ir.to_proto(model))
