"""What becomes of a tensor's values one by one, before anything mixes them.

A tensor that only Sigmoid and Mul read, as in SiLU, may be rounded coarsely where SiLU is flat. So an error is judged
behind the functions that are applied to single values, not at the tensor itself.
"""

from __future__ import annotations

import numpy as np

from edgec.ir.execution import Session
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers

#: Operators that compute each value from one value of each input.
POINTWISE = frozenset(
    {"Abs", "Add", "Clip", "Div", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max"}
    | {"Min", "Mish", "Mul", "Neg", "Relu", "Sigmoid", "Softplus", "Sub", "Swish", "Tanh"}
)


def functions_of(graph: Graph, tensor: Variable, values: np.ndarray) -> np.ndarray:
    """What the network makes of single values of a tensor.

    Args:
        graph: sorted; not changed.
        tensor: an activation of it.
        values: (n,), float32.

    Returns:
        (functions, n): one row for each tensor that is a function of this one's values alone and is read by something
        that mixes values; ``values`` themselves where the tensor is read so.
    """
    outputs = set(graph.outputs)
    closure, inside = dict.fromkeys([tensor]), dict[Node, None]()
    waiting = [tensor]
    for one in waiting:
        for node in consumers(one):
            if node not in inside and _of_values_alone(node, closure):
                inside[node] = None
                closure[node.outputs[0]] = None
                waiting.append(node.outputs[0])
    read = [t for t in closure if t in outputs or not t.outputs or any(n not in inside for n in consumers(t))]
    if not inside or read == [tensor]:
        return values[None]
    found = Session(_alone(graph, tensor, list(inside), read, len(values)), optimize=True).run({"x": values})
    return np.stack([found[f"f{place}"].reshape(-1) for place in range(len(read))])


def _of_values_alone(node: Node, closure: dict[Variable, None]) -> bool:
    """Whether a node computes from ``closure`` and single numbers, value by value."""
    return (
        node.op in POINTWISE
        and node.domain in ("", "ai.onnx", None)
        and all(t in closure or not t.name or (isinstance(t, Constant) and t.values.size == 1) for t in node.inputs)
    )


def _alone(graph: Graph, tensor: Variable, nodes: list[Node], read: list[Variable], count: int) -> Graph:
    """A graph of copies of ``nodes``, from ``x`` of shape (count,) to ``f0``, ``f1``, ... of shape (..., count)."""
    twins: dict[Tensor, Tensor] = {tensor: Variable("x", np.float32, [count])}
    made = []
    for number, node in enumerate(nodes):
        for one in node.inputs:
            if isinstance(one, Constant) and one not in twins:
                twins[one] = Constant(f"c{len(twins)}", one.values.reshape(()))
            elif not one.name:
                twins[one] = Variable("")
        output = twins[node.outputs[0]] = Variable(f"t{number}", np.float32, [count])
        made.append(Node(node.op, f"n{number}", dict(node.attrs), [twins[one] for one in node.inputs], [output]))
    outputs = []
    for place, one in enumerate(read):
        outputs.append(Variable(f"f{place}", np.float32, [count]))
        made.append(Node("Identity", f"i{place}", {}, [twins[one]], [outputs[-1]]))
    return Graph(made, [twins[tensor]], outputs, opsets=graph.opsets, ir_version=graph.ir_version)
