"""A camera's bytes: TensorRT casts them to floats at an input and does nothing else with them.

So what is moved as bytes is moved as numbers, the Cast standing right behind the input; and where a board's oldest
TensorRT has no bytes at all, the engine's input or output gets another type, which check.json and the manifest say.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers, variable_of

# Operators that move values and leave them as they are: the places of what they move.
_MOVES: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(
        ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Identity", "Expand", "Tile",
         "Gather", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth"), (0,)
    ),
    "Pad": (0, 2),
}  # fmt: skip
_NARROW = ("uint8", "uint16", "int16", "uint32")
_FLOAT, _INT32 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32


def cast_bytes_first(graph: Graph) -> int:
    """Moves the Casts of uint8 inputs in front of what only moves them, in place; returns for how many inputs."""
    changed = 0
    for port in list(graph.inputs):
        if port.dtype != np.uint8 or not port.name:
            continue
        moved, casts = _moved(graph, port)
        if moved is None or not (moved and casts):
            continue
        floats = all(node.attrs["to"] == _FLOAT for node in casts)
        _cast(graph, port, moved, casts, np.dtype(np.float32 if floats else np.int32))
        changed += 1
    return changed


def _moved(graph: Graph, port: Tensor) -> tuple[list[Node] | None, list[Node]]:
    """What moves an input's bytes, and the Casts behind that; ``None`` where something else reads them."""
    outputs = set(graph.outputs)
    moves: dict[Node, None] = {}
    casts: dict[Node, None] = {}
    waiting = [port]
    while waiting:
        tensor = waiting.pop()
        if tensor in outputs or any(tensor in _inside(node) for node in graph.nodes):
            return None, []
        for node in consumers(tensor):
            if node.op == "Cast":
                casts[node] = None
                continue
            places = [place for place, each in enumerate(node.inputs) if each is tensor]
            if any(place not in _MOVES.get(node.op, ()) for place in places):
                return None, []
            if node not in moves:
                moves[node] = None
                waiting.extend(output for output in node.outputs if output.name)
    return list(moves), list(casts)


def _inside(node: Node) -> set[Tensor]:
    """What the bodies of a node read."""
    return {tensor for body in node.subgraphs(recursive=True) for each in body.nodes for tensor in each.inputs}


def _cast(graph: Graph, port: Tensor, moves: list[Node], casts: list[Node], dtype: np.dtype) -> None:
    readers = consumers(port)
    first = readers[0]
    number = int(onnx.helper.np_dtype_to_tensor_dtype(dtype))
    wide = graph.op("Cast", [port], name=f"{port.name}.numbers", before=first, to=number)
    wide.dtype, wide.shape = dtype, None if port.shape is None else list(port.shape)
    for node in moves:
        for place in _MOVES[node.op]:
            if place >= len(node.inputs):
                continue
            tensor = node.inputs[place]
            if tensor is port:
                node.inputs[place] = wide
            elif isinstance(tensor, Constant) and tensor.dtype == np.uint8:
                node.inputs[place] = graph.const(tensor.name, tensor.values.astype(dtype))
        for output in node.outputs:
            if isinstance(output, Variable):
                output.dtype = dtype
    for node in casts:
        if node.inputs[0] is port:
            node.inputs[0] = wide
        if node.attrs["to"] == number:
            graph.replace(node, node.inputs[0])
    graph.sort()


def widen_ports(graph: Graph) -> dict[str, np.dtype]:
    """Gives inputs and outputs of unsigned and short integers a type that every TensorRT has, in place.

    An input that is only cast to float32 becomes float32, others int32; a Cast behind an int32 input goes on giving
    what its readers want only where they want floats or int32.

    Returns:
        By name, the type that an input or output had.
    """
    before: dict[str, np.dtype] = {}
    for port in list(graph.inputs):
        if not isinstance(port, Variable) or str(port.dtype) not in _NARROW:
            continue
        readers = consumers(port)
        if not all(node.op == "Cast" for node in readers) or port in graph.outputs:
            continue
        before[port.name] = np.dtype(port.dtype)
        floats = all(node.attrs["to"] == _FLOAT for node in readers)
        port.dtype = np.dtype(np.float32 if floats else np.int32)
        for node in readers if floats else ():
            if not any(node.outputs[0] is output for output in graph.outputs):
                graph.replace(node, port)
    for tensor in list(graph.outputs):
        maker = tensor.inputs[0] if tensor.inputs else None
        if str(tensor.dtype) in _NARROW and maker is not None and maker.op == "Cast" and not tensor.outputs:
            before[tensor.name] = np.dtype(tensor.dtype)
            maker.attrs["to"] = _INT32
            variable_of(tensor).dtype = np.dtype(np.int32)
    return before


def as_taken(graph: Graph, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Feeds of the types that a network's inputs have."""
    types = {tensor.name: tensor.dtype for tensor in graph.inputs}
    return {name: values.astype(types.get(name) or values.dtype, copy=False) for name, values in feeds.items()}
