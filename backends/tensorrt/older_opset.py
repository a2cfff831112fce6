"""A graph brought down to an older opset, for parsers that read no newer one.

Most operators that changed only took more types, another attribute or another input; they stay as they are where the
node makes no use of that, which the schemas say. A type that came later is computed in a wider one, between Casts.
What is written differently in the older opset has a rule (:mod:`.opset_rules`), and what it cannot say has advice.
"""

from __future__ import annotations

import numpy as np
import onnx

from edgec.backends.tensorrt.opset_rules import MEANINGS, REFUSED, RULES, SINCE
from edgec.backends.tensorrt.spelling import Writer
from edgec.ir.errors import EmitError
from edgec.ir.graph import Graph, Node, Tensor, Variable
from edgec.ir.shapes import Shapes

_OPTION = onnx.defs.OpSchema.FormalParameterOption
# What a type is computed in where the older operator has it not: every value of it, exactly.
_WIDER = {
    "float16": ("float32",),
    "bfloat16": ("float32",),
    "int8": ("int32", "float32"),
    "uint8": ("int32", "float32"),
    "int16": ("int32", "float32"),
    "uint16": ("int32", "float32"),
    "bool": ("int32", "float32"),
}


def needed_opset(graph: Graph, wanted: int) -> int:
    """The oldest opset from ``wanted`` on that can say all of ``graph``."""
    return max([wanted, *(needed_by(node, graph.opset, wanted) for one in graph.graphs() for node in one.nodes)])


def needed_by(node: Node, now: int, wanted: int) -> int:
    """The oldest opset from ``wanted`` on that has one node's operator, as the node means it."""
    if node.domain not in ("", "ai.onnx", None) or schema_of(node.op, now) is None:
        return wanted
    oldest = next(version for version in range(wanted, max(now, wanted) + 1) if schema_of(node.op, version) is not None)
    rule = SINCE.get(node.op)
    return oldest if rule is None else max(oldest, min(rule(node), now))


def lower_opset(graph: Graph, opset: int, where: str) -> None:
    """Rewrites ``graph`` in place into ``opset``; one that is older already is only declared to be of it.

    Raises:
        EmitError: a node uses what that opset has not.
    """
    shapes = Shapes(graph)
    now = graph.opset
    for inside in graph.graphs():
        for node in list(inside.nodes):
            if node.domain not in ("", "ai.onnx", None) or now <= opset:
                continue
            write = Writer(inside, node, shapes)
            rule = RULES.get(node.op)
            if rule is not None and _changed(node.op, now, opset):
                if not rule(write):
                    raise _refusal(node, now, opset, where)
                if node not in inside.nodes:
                    continue
            if not is_same(node, now, opset):
                raise _refusal(node, now, opset, where)
            if not _retyped(write, opset):
                what = f"computes in {_unknown_type(write, opset)}, which {node.op} has not in opset {opset}"
                raise EmitError(f"{where}: node '{node.name or node.op}'", what, "export the network in float32")
    graph.opset = opset
    graph.sort()
    graph.remove_dead()


def schema_of(op: str, opset: int) -> onnx.defs.OpSchema | None:
    """An operator's definition in an opset; ``None`` where it has none, or is not to be used any more."""
    if not onnx.defs.has(op, opset, ""):
        return None
    schema = onnx.defs.get_schema(op, opset, "")
    return None if schema.deprecated else schema


def is_same(node: Node, now: int, wanted: int) -> bool:
    """Whether a node means the same in both opsets, by their schemas; takes off attributes that say nothing new."""
    new, old = schema_of(node.op, now), schema_of(node.op, wanted)
    if new is None or old is None or new.since_version == old.since_version:
        return old is not None
    if sum(bool(t.name) for t in node.inputs) > len(old.inputs) and not _variadic(old):
        return False
    if not all(meaning(node) for (op, version), meaning in MEANINGS.items()
               if op == node.op and wanted < version <= now):  # fmt: skip
        return False
    added = [name for name in node.attrs if name not in old.attributes]
    if any(node.attrs[name] != default(new, name) for name in added):
        return False
    for name in added:
        del node.attrs[name]
    return True


def default(schema: onnx.defs.OpSchema, name: str) -> object:
    """The value that an attribute has where it is left out; ``None`` where there is none."""
    given = schema.attributes[name].default_value if name in schema.attributes else None
    if given is None or not given.type:
        return None
    value = onnx.helper.get_attribute_value(given)
    return value.decode() if isinstance(value, bytes) else value


def _changed(op: str, now: int, wanted: int) -> bool:
    new, old = schema_of(op, now), schema_of(op, wanted)
    return new is None or old is None or new.since_version != old.since_version


def _refusal(node: Node, now: int, opset: int, where: str) -> EmitError:
    new, old = schema_of(node.op, now), schema_of(node.op, opset)
    named = [name for name in node.attrs if old is None or name not in old.attributes]
    least = 0 if old is None else len(old.inputs)
    named += [] if new is None else [formal.name for formal, tensor in zip(new.inputs, node.inputs, strict=False)
                                     if tensor.name][least:]  # fmt: skip
    named += [name for op, name in REFUSED if op == node.op and name in node.attrs]
    feature = next((name for name in named if (node.op, name) in REFUSED), None)
    if feature is None:
        what, fix = f"uses what {node.op} has not in opset {opset}", f"export the network with opset_version={opset}"
    else:
        what, fix = REFUSED[node.op, feature]
        what = f"{what}, which {node.op} has not in opset {opset}"
    return EmitError(f"{where}: node '{node.name or node.op}'", what, fix)


def _variadic(schema: onnx.defs.OpSchema) -> bool:
    return bool(schema.inputs) and schema.inputs[-1].option == _OPTION.Variadic


# -- types that came later ---------------------------------------------------------------------------------------------


def allowed(schema: onnx.defs.OpSchema, parameters: object, place: int) -> tuple[str, frozenset[str]] | None:
    """The type parameter of an input or output, and the types that it may be; ``None`` where it is free.

    Args:
        schema: of the operator.
        parameters: ``schema.inputs`` or ``schema.outputs``.
        place: of the tensor.
    """
    formals = list(parameters)  # type: ignore[call-overload]
    if not formals:
        return None
    formal = formals[min(place, len(formals) - 1)]
    types = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    return formal.type_str, frozenset(types.get(formal.type_str, [formal.type_str]))


def takes(op: str, opset: int, place: int, dtype: str, *, output: bool = False) -> bool:
    """Whether an operator of an opset takes, or gives, tensors of a type at a place."""
    schema = schema_of(op, opset)
    known = None if schema is None else allowed(schema, schema.outputs if output else schema.inputs, place)
    return known is None or _named(dtype) in known[1]


def _named(dtype: str) -> str:
    return f"tensor({ {'float32': 'float', 'float64': 'double'}.get(dtype, dtype) })"


def _strangers(write: Writer, opset: int) -> dict[str, tuple[str, frozenset[str]]]:
    """By type parameter of a node's operator, a type that the node has there and the opset has not, and what it has."""
    schema = schema_of(write.node.op, opset)
    if schema is None or any(write.node.subgraphs()):
        return {}
    strange: dict[str, tuple[str, frozenset[str]]] = {}
    for tensors, formals in ((write.node.inputs, schema.inputs), (write.node.outputs, schema.outputs)):
        for place, tensor in enumerate(tensors):
            dtype = write.type_of(tensor) if tensor.name else None
            known = None if dtype is None else allowed(schema, formals, place)
            if dtype is None or known is None or _named(np.dtype(dtype).name) in known[1]:
                continue
            strange[known[0]] = (np.dtype(dtype).name, known[1])
    return strange


def _unknown_type(write: Writer, opset: int) -> str:
    return next(iter(_strangers(write, opset).values()))[0]


def _retyped(write: Writer, opset: int) -> bool:
    """Puts Casts around a node whose types its operator has not in an opset; whether it fits now."""
    strange = _strangers(write, opset)
    wider: dict[str, tuple[np.dtype, np.dtype]] = {}
    for parameter, (dtype, types) in strange.items():
        fitting = [name for name in _WIDER.get(dtype, ()) if _named(name) in types]
        if not fitting:
            return False
        wider[parameter] = (np.dtype(fitting[0]), np.dtype(dtype) if dtype != "bfloat16" else write.dtype)
    schema = schema_of(write.node.op, opset)
    if not wider or schema is None:
        return True
    node = write.node
    for place, tensor in enumerate(list(node.inputs)):
        known = allowed(schema, schema.inputs, place)
        if tensor.name and known is not None and known[0] in wider:
            node.inputs[place] = write.cast(f"wide{place}", tensor, wider[known[0]][0])
    for place, tensor in enumerate(list(node.outputs)):
        known = allowed(schema, schema.outputs, place)
        if tensor.name and known is not None and known[0] in wider:
            _cast_back(write, place, tensor, wider[known[0]][1])
    return True


def _cast_back(write: Writer, place: int, tensor: Tensor, dtype: np.dtype) -> None:
    number = int(onnx.helper.np_dtype_to_tensor_dtype(dtype))
    back = write.graph.op("Cast", [tensor], name=f"{write.node.name}.narrow{place}", to=number)
    shape = write.dimensions(tensor)
    write.graph.replace_uses(tensor, back)
    back.dtype, back.shape = dtype, None if shape is None else list(shape)
    if isinstance(tensor, Variable):
        tensor.dtype = None
