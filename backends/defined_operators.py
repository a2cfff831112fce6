"""Operators that ONNX defines by others: their function body takes their place."""

from __future__ import annotations

from collections.abc import Container

import onnx
import onnx.inliner

from edgec.ir.graph import Graph, Node, Tensor, Variable
from edgec.ir.protos import from_proto, to_proto
from edgec.ir.shapes import Shapes
from edgec.passes.fold.constants import fold_constants
from edgec.passes.fold.identities import OPERATORS, fold_identity, fold_views
from edgec.passes.framework.context import Context
from edgec.passes.framework.rewriter import Rewriter


def is_defined(op: str, opset: int) -> bool:
    """Whether ONNX gives an operator a body in terms of others."""
    if not onnx.defs.has(op, opset, ""):
        return False
    schema = onnx.defs.get_schema(op, opset, "")
    return bool(schema.has_function or schema.has_context_dependent_function)


def inline_definition(graph: Graph, node: Node, shapes: Shapes) -> bool:
    """Puts ONNX's own definition of ``node`` in its place; False where there is none for its types."""
    if not is_defined(node.op, graph.opset):
        return False
    alone = _alone(graph, node, shapes)
    message, left_out = to_proto(alone, inline=lambda constant: True)
    assert not left_out, "all constants were asked for in the message"
    message.ir_version = onnx.IR_VERSION
    try:
        body = onnx.inliner.inline_selected_functions(message, [("", node.op)], inline_schema_functions=True)
    except RuntimeError:  # it wants the types of inputs that are left out
        return False
    inlined = from_proto(body, source=node.name)
    # A body of the body would read names of the graph around it; only definitions of rare operators have any.
    if any(each.op == node.op or any(each.subgraphs()) for each in inlined.nodes):
        return False
    _splice(graph, node, inlined)
    return True


def _alone(graph: Graph, node: Node, shapes: Shapes) -> Graph:
    """A graph of the node alone, whose inputs are all that it reads."""
    twins: dict[Tensor, Variable] = {}

    def twin(tensor: Tensor) -> Variable:
        if not tensor.name:
            return Variable.empty()
        if tensor not in twins:
            shape = shapes.shape(tensor)
            twins[tensor] = Variable(f"t{len(twins)}", shapes.dtype(tensor), None if shape is None else list(shape))
        return twins[tensor]

    inputs, outputs = [twin(tensor) for tensor in node.inputs], [twin(tensor) for tensor in node.outputs]
    copied = Node(node.op, "node", {**_usual(node.op, graph.opset), **node.attrs}, inputs, outputs)
    ins = list(dict.fromkeys(tensor for tensor in inputs if tensor.name))
    return Graph([copied], ins, [tensor for tensor in outputs if tensor.name], opset=graph.opset)


def _usual(op: str, opset: int) -> dict[str, object]:
    """The attributes' defaults, which onnx's inliner does not put in where the node leaves them out."""
    schema = onnx.defs.get_schema(op, opset, "")
    given = {name: onnx.helper.get_attribute_value(attribute.default_value)
             for name, attribute in schema.attributes.items() if attribute.default_value.type}  # fmt: skip
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in given.items()}


def _splice(graph: Graph, node: Node, body: Graph) -> None:
    given = list(dict.fromkeys(tensor for tensor in node.inputs if tensor.name))
    place: dict[Tensor, Tensor] = dict(zip(body.inputs, given, strict=True))
    for inner in body.nodes:
        attrs = dict(inner.attrs)
        inputs = [_there(graph, node, tensor, place) for tensor in inner.inputs]
        outputs = []
        for tensor in inner.outputs:
            made = Variable(graph.fresh(f"{node.name}.{tensor.name}")) if tensor.name else Variable.empty()
            place[tensor] = made
            outputs.append(made)
        graph.op(inner.op, inputs, name=f"{node.name}.{inner.op.lower()}", outputs=outputs, before=node, **attrs)
    named = [tensor for tensor in node.outputs if tensor.name]
    for old, new in zip(named, body.outputs, strict=True):
        graph.replace_uses(old, place[new])
    graph.erase(node)


def _there(graph: Graph, node: Node, tensor: Tensor, place: dict[Tensor, Tensor]) -> Tensor | None:
    if not tensor.name:
        return None
    if tensor not in place:
        values = getattr(tensor, "values", None)
        assert values is not None, "a body reads its inputs, constants and what it computes"
        place[tensor] = graph.const(f"{node.name}.{tensor.name}", values)
    return place[tensor]


def tidy(graph: Graph, spared: Container[Node] = ()) -> None:
    """Computes what definitions left to be computed from constants and shapes, and drops what changes nothing.

    Args:
        graph: sorted.
        spared: nodes that are not computed now: weights that a network holds as float16 are to stay so.
    """
    ctx = Context(graph)
    fold_constants(graph, ctx, spared)
    rw = Rewriter(graph, ctx)
    views = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
    rw.run({**{op: [fold_identity] for op in OPERATORS}, **{op: [fold_identity, fold_views] for op in views}})
    rw.finish()
