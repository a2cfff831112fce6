"""The arithmetic that exporters put in front of shapes and paddings, computed when the model is opened.

What follows from constants and static shapes alone, such as the paddings that torch writes as ConstantOfShape, Concat,
Slice and Transpose, is not known to shape inference, and nothing behind it is. Only integers and truth values are
computed, and small ones: weights are the passes' business.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence, Set

import numpy as np

from edgec.ir.branches import inline_taken_branches, undecided_conditions
from edgec.ir.errors import InputError
from edgec.ir.evaluation import BOUNDED, known_shape, session
from edgec.ir.graph import Constant, Graph, Node, Tensor, producer
from edgec.ir.protos import is_small
from edgec.ir.shapes import Shapes

_STANDARD = frozenset({"", "ai.onnx"})
_ARITHMETIC = frozenset(
    {"Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Floor"}
    | {"Gather", "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max"}
    | {"Min", "Mod", "Mul", "Neg", "Not", "Or", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"}
    | {"Reshape", "Round", "ScatterElements", "ScatterND", "Slice", "Squeeze", "Sub", "Tile", "Transpose"}
    | {"Unsqueeze", "Where"}
)
# Where shapes follow from each other through arithmetic, one round makes the next possible: so many are run, or as many
# as look at so many nodes in all. What more would find is left to the pass fold.
_ROUNDS, _VISITS = 8, 60_000
# As many as numpy takes.
_MOST_DIMENSIONS = 64


def fold_shape_arithmetic(graph: Graph) -> Shapes:
    """Makes constants of it in the main graph, in place, and returns the shapes that are known then.

    Raises:
        InputError: the operators contradict each other; the line names the node.
    """
    shapes = Shapes(graph)
    for _ in range(max(_ROUNDS, _VISITS // max(len(graph.nodes), 1))):
        outputs = {tensor for inside in graph.graphs() for tensor in inside.outputs}
        progress = _fold_known_shapes(graph, shapes, outputs)
        if not _fold_computable(graph, shapes, outputs) and not progress:
            break
        shapes = Shapes(graph)
    return shapes


def decide_conditions(graph: Graph) -> None:
    """Makes constants of the conditions of Ifs that follow from constants and shapes, and inlines what they choose.

    Only what the conditions need is looked at: a branch that is not taken may hold shapes that fit nothing.

    Raises:
        InputError: the operators in front of a condition contradict each other; the line names the node.
    """
    inline_taken_branches(graph)
    while conditions := undecided_conditions(graph):
        twins: dict[Tensor, Tensor] = {}
        part = graph.copy(twins)
        part.outputs = [part.op("Identity", [twins[tensor]]) for tensor in conditions]
        readers = [producer(output) for output in part.outputs]
        part.remove_dead()
        fold_shape_arithmetic(part)
        decided = False
        for tensor, reader in zip(conditions, readers, strict=True):
            assert reader is not None
            if isinstance(reader.inputs[0], Constant) and tensor not in graph.outputs:
                graph.replace_uses(tensor, Constant(tensor.name, reader.inputs[0].held))
                decided = True
        if not decided or not inline_taken_branches(graph):
            return


def _fold_known_shapes(graph: Graph, shapes: Shapes, outputs: Set[Tensor]) -> bool:
    found = False
    for node in [node for node in graph.nodes if node.op in ("Shape", "Size") and node.domain in _STANDARD]:
        values = known_shape(node, shapes.shape(node.inputs[0]))
        if values is not None and node.outputs[0] not in outputs:
            graph.replace(node, Constant(node.outputs[0].name, values))
            found = True
    return found


def _fold_computable(graph: Graph, shapes: Shapes, outputs: Set[Tensor]) -> bool:
    chosen: dict[Node, None] = {}
    for node in graph.nodes:
        if _is_computable(node, shapes) and node.outputs[0] not in outputs:
            fed = (not t.name or producer(t) in chosen or isinstance(t, Constant) for t in node.inputs)
            if all(fed) and all(_is_small(t, shapes) for t in node.inputs if isinstance(t, Constant)):
                chosen[node] = None
    wanted = [node.outputs[0] for node in chosen if _is_wanted(node, chosen, shapes)]
    needed = _needed(wanted, chosen)
    if not wanted:
        return False
    try:
        values = session(graph, needed, wanted, lambda t: (shapes.dtype(t), shapes.shape(t))).run({})
    except InputError:
        return False  # shapes behind it stay unknown, and reports say so
    for tensor in wanted:
        graph.replace_uses(tensor, Constant(tensor.name, values[tensor.name]))
    for node in reversed(needed):
        if not node.outputs[0].outputs:
            graph.erase(node)
    return True


def _is_computable(node: Node, shapes: Shapes) -> bool:
    """Whether its only result is small and follows from its inputs."""
    if node.op not in _ARITHMETIC or node.domain not in _STANDARD or not _divides(node, shapes):
        return False
    return node.op in BOUNDED or _is_small(node.outputs[0], shapes)


def _divides(node: Node, shapes: Shapes) -> bool:
    """Whether a division of integers is by constants that have no 0, and no -1, with which the least integer
    overflows: the processor stops onnxruntime, and us, at that."""
    kind = shapes.dtype(node.outputs[0])
    if node.op not in ("Div", "Mod") or (kind is not None and kind.kind == "f"):
        return True
    by = node.inputs[1]
    return isinstance(by, Constant) and _is_small(by, shapes) and not np.isin(by.values, (0, -1)).any()


def _is_small(tensor: Tensor, shapes: Shapes) -> bool:
    shape, kind = shapes.shape(tensor), shapes.dtype(tensor)
    if shape is not None and len(shape) > _MOST_DIMENSIONS:
        return False
    return kind is not None and shape is not None and None not in shape and is_small([d or 0 for d in shape], kind)


def _is_wanted(node: Node, chosen: Container[Node], shapes: Shapes) -> bool:
    """Whether something that cannot be computed now reads its result, and that is of integers or truth values."""
    kind = shapes.dtype(node.outputs[0])
    return kind is not None and kind.kind in "iub" and any(reader not in chosen for reader in node.outputs[0].outputs)


def _needed(wanted: Sequence[Tensor], chosen: Iterable[Node]) -> list[Node]:
    """Those of the chosen nodes that some wanted tensor depends on, in their order."""
    needed: set[Node] = set()
    open_ends = [producer(tensor) for tensor in wanted]
    while open_ends:
        node = open_ends.pop()
        if node is not None and node not in needed:
            needed.add(node)
            open_ends += [producer(tensor) for tensor in node.inputs]
    return [node for node in chosen if node in needed]
