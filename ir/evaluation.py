"""Nodes that depend on constants alone, run in onnxruntime: all in one session, so that their number costs little."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgec.ir.execution import Session
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, variable_of

# Their results are never larger than their data, so their shape need not be known beforehand.
BOUNDED = frozenset({"NonZero", "Compress", "Unique", "TopK", "Slice", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})

Kind = tuple[np.dtype | None, tuple[int | None, ...] | None]


def session(graph: Graph, nodes: Sequence[Node], outputs: Sequence[Tensor], kind: Callable[[Tensor], Kind]) -> Session:
    """A session that computes ``outputs``; constants share their memory with the graph's.

    Args:
        graph: whose nodes they are.
        nodes: in order; what they read and do not compute are constants, or inputs of the session.
        outputs: of these nodes.
        kind: element type and shape of a variable, ``None`` for what is not known.

    Raises:
        InputError: onnxruntime does not take them.
    """
    copies: dict[Tensor, Tensor] = {}
    inputs: list[Tensor] = []
    made = {tensor for node in nodes for tensor in node.outputs}

    def of(tensor: Tensor) -> Tensor:
        if tensor not in copies:
            if isinstance(tensor, Constant):
                copies[tensor] = Constant(tensor.name, tensor.stored or tensor.values)
            else:
                copies[tensor] = Variable(tensor.name, *kind(tensor))
                if tensor.name and tensor not in made:
                    inputs.append(copies[tensor])
        return copies[tensor]

    twins = [
        Node(n.op, n.name, dict(n.attrs), map(of, n.inputs), map(variable_of, map(of, n.outputs)), n.domain)
        for n in nodes
    ]
    return Session(Graph(twins, inputs, [of(t) for t in outputs], opsets=graph.opsets, ir_version=graph.ir_version))


def known_shape(node: Node, shape: Sequence[int | None] | None) -> np.ndarray | None:
    """What a Shape or a Size gives for data of a shape; ``None`` where that is not static, and for other operators."""
    if node.op not in ("Shape", "Size") or shape is None or None in shape:
        return None
    if node.op == "Shape":
        return np.array(shape[int(node.attrs.get("start", 0)) : node.attrs.get("end")], np.int64)
    return np.array(int(np.prod(np.array(shape, np.int64))), np.int64)
