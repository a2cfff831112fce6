"""Shape arithmetic where dimensions are open: what follows from the known ones, and from which are the same.

Exporters compute the target of a Reshape from the shape of its input, dimension by dimension. With an open batch none
of that is a constant. Here each element of such a small integer tensor is known as a number, as a named dimension, or
as an expression of these: then what is all numbers is a constant, a target of which one dimension is open is one too,
and what is computed twice, in whatever way, is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor
from edgec.ir.shapes import Shapes
from edgec.passes.framework.context import Context

# An element: a number, the name of a dimension, an expression of elements, or a token of its own.
Element = Hashable
# Larger tensors are no shapes.
_LARGEST = 64
_COPIES, _TO_FILL = 0, -1


def fold_open_shapes(graph: Graph, ctx: Context) -> bool:
    """Rewrites the shape arithmetic of a sorted graph in place; says whether anything changed."""
    if not any(node.op == "Shape" for node in graph.nodes):
        return False
    known = _Elements(ctx.get(Shapes))
    outputs = {tensor for inside in graph.graphs() for tensor in inside.outputs}
    first: dict[Hashable, Tensor] = {}
    changed = False
    for node in list(graph.nodes):
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op == "Reshape" and _settle_target(graph, ctx, node, known):
            changed = True
            continue
        known.visit(node)
        elements = known.of(node.outputs[0]) if len(node.outputs) == 1 else None
        kind = known.shapes.dtype(node.outputs[0])
        if elements is None or kind is None or node.outputs[0] in outputs or not node.outputs[0].outputs:
            continue
        if all(isinstance(element, int | bool) for element in elements.flat):
            equal: Tensor = graph.const(f"{node.name or node.op}.value", elements.astype(kind))
            ctx.did(node, "follows from the known dimensions: became a constant")
        else:
            earlier = first.setdefault((kind, elements.shape, tuple(elements.flat)), node.outputs[0])
            if earlier is node.outputs[0]:
                continue
            equal = earlier
            ctx.did(node, f"always gives what '{earlier.name}' holds: shared")
        graph.replace_uses(node.outputs[0], equal)
        changed = True
    if changed:
        graph.remove_dead()
    return changed


def _settle_target(graph: Graph, ctx: Context, node: Node, known: _Elements) -> bool:
    """Writes the target of a Reshape as a constant, where at most one dimension has to be filled in."""
    target = known.of(node.inputs[1])
    if isinstance(node.inputs[1], Constant) or target is None or target.ndim != 1 or node.attrs.get("allowzero"):
        return False
    before = known.dimensions(node.inputs[0]) or ()
    written: list[int] = []
    for place, element in enumerate(target):
        if isinstance(element, int):
            written.append(element)
        elif place < len(before) and before[place] == element:
            written.append(_COPIES)
        else:
            written.append(_TO_FILL)
    given = [e for e in target if isinstance(e, int)]
    if written.count(_TO_FILL) > 1 or 0 in given:
        return False
    ctx.did(node, f"its target is {written}, whatever the open dimensions are")
    values = np.array(written, np.int64)
    node.inputs[1] = graph.const(f"{node.name or node.outputs[0].name}.target", values)
    return True


@dataclass
class _Elements:
    """The elements of the small integer tensors that have been visited.

    Attributes:
        shapes: of the graph.
    """

    shapes: Shapes

    def __post_init__(self) -> None:
        self._elements: dict[Tensor, np.ndarray] = {}
        self._expressions: dict[Element, Element] = {}

    def of(self, tensor: Tensor) -> np.ndarray | None:
        """An object array of the tensor's shape; ``None`` where it is large, no integer, or of an unknown shape."""
        if tensor in self._elements:
            return self._elements[tensor]
        shape, kind = self.shapes.shape(tensor), self.shapes.dtype(tensor)
        if shape is None or None in shape or kind is None or kind.kind not in "iub" or len(shape) > 1:
            return None
        size = int(np.prod([d or 0 for d in shape]))
        if size > _LARGEST:
            return None
        if isinstance(tensor, Constant):
            values = _objects(tensor.values.reshape(-1).tolist(), shape)
        else:
            values = _objects([("element", id(tensor), place) for place in range(size)], shape)
        self._elements[tensor] = values
        return values

    def named(self, expression: Element) -> Element:
        """A short name for an expression, the same for the same one: expressions of expressions do not nest."""
        if not isinstance(expression, tuple):
            return expression
        return self._expressions.setdefault(expression, ("expression", len(self._expressions)))

    def dimensions(self, tensor: Tensor) -> tuple[Element, ...] | None:
        """A tensor's dimensions: numbers, names, or tokens of their own."""
        named = self.shapes.named(tensor)
        if named is None:
            return None
        return tuple(("dimension", id(tensor), place) if d is None else d for place, d in enumerate(named))

    def visit(self, node: Node) -> None:
        """Finds the elements of what a node computes."""
        out = node.outputs[0]
        unknown = self.of(out)
        rule = _RULES.get(node.op)
        if rule is None or unknown is None:
            return
        values = rule(self, node)
        if values is not None and values.shape == unknown.shape:
            self._elements[out] = values


def _objects(elements: list[Element], shape: tuple[int | None, ...]) -> np.ndarray:
    """An array of objects; numpy would take tuples apart."""
    values = np.empty(len(elements), object)
    for place, element in enumerate(elements):
        values[place] = element
    return values.reshape([d or 0 for d in shape])


def _shape(known: _Elements, node: Node) -> np.ndarray | None:
    dimensions = known.dimensions(node.inputs[0])
    if dimensions is None:
        return None
    start, end = int(node.attrs.get("start", 0)), node.attrs.get("end")
    taken = list(dimensions[start : None if end is None else int(end)])
    return _objects(taken, (len(taken),))


def _same(known: _Elements, node: Node) -> np.ndarray | None:
    return known.of(node.inputs[0])


def _gather(known: _Elements, node: Node) -> np.ndarray | None:
    data, indices = known.of(node.inputs[0]), node.inputs[1]
    if data is None or not isinstance(indices, Constant) or data.ndim != 1 or indices.values.ndim > 1:
        return None
    if np.any(np.abs(indices.values) > len(data)) or not len(data):
        return None
    values = data.take(indices.values.astype(np.int64), mode="wrap")
    return values if isinstance(values, np.ndarray) else _objects([values], ())


def _slice(known: _Elements, node: Node) -> np.ndarray | None:
    data = known.of(node.inputs[0])
    given = [t.values.reshape(-1) if isinstance(t, Constant) else None for t in node.inputs[1:] if t.name]
    if data is None or data.ndim != 1 or len(given) < 2 or any(v is None or len(v) != 1 for v in given):
        return None
    start, end = (int(v[0]) for v in given[:2] if v is not None)
    step = int(given[3][0]) if len(given) > 3 and given[3] is not None else 1
    return data[slice(start, end, step)] if step > 0 else None


def _concat(known: _Elements, node: Node) -> np.ndarray | None:
    parts = [known.of(tensor) for tensor in node.inputs]
    if any(part is None or part.ndim != 1 for part in parts):
        return None
    return np.concatenate([part for part in parts if part is not None])


def _view(known: _Elements, node: Node) -> np.ndarray | None:
    data, shape = known.of(node.inputs[0]), known.shapes.shape(node.outputs[0])
    return None if data is None or shape is None or None in shape else data.reshape([d or 0 for d in shape])


def _filled(known: _Elements, node: Node) -> np.ndarray | None:
    size = known.of(node.inputs[0])
    if size is None or size.shape != (1,) or not isinstance(size[0], int) or not 0 <= size[0] <= _LARGEST:
        return None
    value = node.attrs.get("value")
    values = value.values if isinstance(value, Constant) else value
    return _objects([0 if values is None else int(np.asarray(values).reshape(-1)[0])] * size[0], (size[0],))


def _pairwise(compute: Callable[[Element, Element], Element]) -> Callable[[_Elements, Node], np.ndarray | None]:
    def rule(known: _Elements, node: Node) -> np.ndarray | None:
        left, right = (known.of(tensor) for tensor in node.inputs)
        if left is None or right is None:
            return None
        a, b = np.broadcast_arrays(left, right)
        pairs = zip(a.flat, b.flat, strict=True)
        return _objects([_computed(known, compute, x, y) for x, y in pairs], a.shape)

    return rule


def _computed(known: _Elements, compute: Callable[[Element, Element], Element], x: Element, y: Element) -> Element:
    result = compute(x, y)
    return result if result is x or result is y else known.named(result)


def _arithmetic(op: str, compute: Callable[[int, int], int], neutral: int) -> Callable[[Element, Element], Element]:
    def combine(x: Element, y: Element) -> Element:
        if isinstance(x, int) and isinstance(y, int) and not (op == "Div" and (y == 0 or x < 0 or y < 0)):
            return compute(x, y)
        if isinstance(y, int) and y == neutral:
            return x
        if isinstance(x, int) and x == neutral and op in ("Add", "Mul"):
            return y
        return (op, *sorted((x, y), key=repr)) if op in ("Add", "Mul") else (op, x, y)

    return combine


def _equal(x: Element, y: Element) -> Element:
    if x == y:
        return True
    if isinstance(x, int) and isinstance(y, int):
        return False
    # A dimension is never negative.
    for one, other in ((x, y), (y, x)):
        if isinstance(one, int) and one < 0 and isinstance(other, str):
            return False
    return ("Equal", *sorted((x, y), key=repr))


def _where(known: _Elements, node: Node) -> np.ndarray | None:
    parts = [known.of(tensor) for tensor in node.inputs]
    if any(part is None for part in parts):
        return None
    which, yes, no = np.broadcast_arrays(*[part for part in parts if part is not None])
    chosen = [
        (y if w else n) if isinstance(w, bool) else known.named(("Where", w, y, n))
        for w, y, n in zip(which.flat, yes.flat, no.flat, strict=True)
    ]
    return _objects(chosen, which.shape)


def _cast(known: _Elements, node: Node) -> np.ndarray | None:
    kind = known.shapes.dtype(node.inputs[0])
    own = known.shapes.dtype(node.outputs[0])
    whole = kind is not None and own is not None and kind.kind == own.kind == "i"
    return known.of(node.inputs[0]) if whole else None


_RULES: dict[str, Callable[[_Elements, Node], np.ndarray | None]] = {
    "Shape": _shape,
    "Identity": _same,
    "Cast": _cast,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _view,
    "Squeeze": _view,
    "Reshape": _view,
    "ConstantOfShape": _filled,
    "Add": _pairwise(_arithmetic("Add", lambda x, y: x + y, 0)),
    "Sub": _pairwise(_arithmetic("Sub", lambda x, y: x - y, 0)),
    "Mul": _pairwise(_arithmetic("Mul", lambda x, y: x * y, 1)),
    "Div": _pairwise(_arithmetic("Div", lambda x, y: x // y, 1)),
    "Equal": _pairwise(_equal),
    "Where": _where,
}
