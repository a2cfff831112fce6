"""A graph brought down to an older opset, for parsers that read no newer one.

Most operators that changed only took more types, another attribute or another input; they stay as they are where the
node makes no use of that, which the schemas say. Those that are written differently in the older opset have a rule.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from edgec.ir.errors import EmitError
from edgec.ir.graph import Constant, Graph, Node
from edgec.ir.rules import registering
from edgec.ir.shapes import Shapes

Rule = Callable[[Graph, Node, Shapes], bool]
_RULES: dict[str, Rule] = {}
older = registering(_RULES)
# From this opset on a reduction reads its axes; ReduceSum has since 13.
_AXES_ARE_INPUT = 18


def needed_opset(graph: Graph, wanted: int) -> int:
    """The oldest opset from ``wanted`` on that has all operators of ``graph``."""
    oldest = [wanted]
    for inside in graph.graphs():
        for node in inside.nodes:
            schema = _schema(node.op, graph.opset)
            if schema is not None and _schema(node.op, wanted) is None:
                oldest.append(_first(node.op, wanted, graph.opset))
    return max(oldest)


def lower_opset(graph: Graph, opset: int, where: str) -> None:
    """Rewrites ``graph`` in place into ``opset``; one that is older already is only declared to be of it.

    Raises:
        EmitError: a node uses what that opset has not.
    """
    shapes = Shapes(graph)
    for inside in graph.graphs():
        for node in list(inside.nodes):
            if node.domain not in ("", "ai.onnx", None) or _is_same(node, graph.opset, opset):
                continue
            rule = _RULES.get(node.op)
            if rule is None or not rule(inside, node, shapes):
                what = f"uses what {node.op} has not in opset {opset}"
                mend = f"export the network with opset_version={opset}"
                raise EmitError(f"{where}: node '{node.name or node.op}'", what, mend)
    graph.opset = opset
    graph.sort()
    graph.remove_dead()


def _is_same(node: Node, now: int, wanted: int) -> bool:
    """Whether a node means the same in both opsets, by their schemas."""
    new, old = _schema(node.op, now), _schema(node.op, wanted)
    if new is None or old is None or new.since_version == old.since_version:
        return old is not None
    if node.op.startswith("Reduce") and old.since_version < _AXES_ARE_INPUT <= new.since_version:
        return _reads_all(node)
    if sum(bool(t.name) for t in node.inputs) > len(old.inputs) and not _variadic(old):
        return False
    for name, value in node.attrs.items():
        if name not in old.attributes and value != _default(new, name):
            return False
    for name in [name for name in node.attrs if name not in old.attributes]:
        del node.attrs[name]
    return True


def _reads_all(node: Node) -> bool:
    """Whether a reduction names no axes and does not keep quiet about that."""
    return len(node.inputs) < 2 and not node.attrs.pop("noop_with_empty_axes", 0)


def _variadic(schema: onnx.defs.OpSchema) -> bool:
    return bool(schema.inputs) and schema.inputs[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic


def _default(schema: onnx.defs.OpSchema, name: str) -> object:
    given = schema.attributes[name].default_value if name in schema.attributes else None
    if given is None or not given.type:
        return None
    value = onnx.helper.get_attribute_value(given)
    return value.decode() if isinstance(value, bytes) else value


def _schema(op: str, opset: int) -> onnx.defs.OpSchema | None:
    return onnx.defs.get_schema(op, opset, "") if onnx.defs.has(op, opset, "") else None


def _first(op: str, low: int, high: int) -> int:
    return next(version for version in range(low, high + 1) if _schema(op, version) is not None)


@older(*(f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")))
def reduction(graph: Graph, node: Node, shapes: Shapes) -> bool:
    """Axes become an attribute again."""
    axes = node.inputs[1] if len(node.inputs) > 1 and node.inputs[1].name else None
    node.attrs.pop("noop_with_empty_axes", None)
    if axes is None:  # with nothing to reduce over, as its attribute says
        graph.replace(node, graph.op("Identity", [node.inputs[0]], name=node.name, before=node))
        return True
    if not isinstance(axes, Constant):
        return False
    node.attrs["axes"] = [int(axis) for axis in axes.values.reshape(-1)]
    del node.inputs[1:]
    return True


@older("Split")
def split(graph: Graph, node: Node, shapes: Shapes) -> bool:
    """``num_outputs`` becomes the sizes that it stands for: all alike, the last one what is left."""
    shape = shapes.shape(node.inputs[0])
    count = int(node.attrs.pop("num_outputs", len(node.outputs)))
    size = None if shape is None else shape[int(node.attrs.get("axis", 0))]
    if not isinstance(size, int):
        return False
    part = -(-size // count)
    sizes = [part] * (count - 1) + [size - part * (count - 1)]
    del node.inputs[1:]
    node.inputs.append(graph.const(f"{node.name}.sizes", np.array(sizes, np.int64)))
    return True


@older("Pad")
def pad(graph: Graph, node: Node, shapes: Shapes) -> bool:
    """Padding of some axes becomes padding of all."""
    shape, pads, axes = shapes.shape(node.inputs[0]), node.inputs[1], node.inputs[3]
    if shape is None or not isinstance(pads, Constant) or not isinstance(axes, Constant):
        return False
    named = [int(axis) % len(shape) for axis in axes.values.reshape(-1)]
    amounts = np.zeros((2, len(shape)), np.int64)
    amounts[:, named] = pads.values.reshape(2, -1)
    node.inputs[1] = graph.const(f"{node.name}.pads", amounts.reshape(-1))
    del node.inputs[3]
    return True
