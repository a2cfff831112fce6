"""The invariants that every graph between two passes keeps.

Structure is checked on the objects themselves, types and shapes by weightless inference. A violation is the fault of
the pass that ran last, or of the model's exporter when nothing ran yet; the caller says which.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable
from edgec.ir.shapes import Shapes

_STANDARD = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.training")


@dataclass(frozen=True)
class Violation:
    """One broken invariant: the node or tensor, and what is wrong with it."""

    where: str
    what: str


def verify(graph: Graph) -> list[Violation]:
    """Every structural violation in ``graph`` and its subgraphs; an empty list when it is sound.

    Checked: each tensor has one producer, stands in its producer's outputs and its consumers' inputs, is computed
    before it is read, and has a name that no other has; each operator exists in the imported opset with inputs and
    outputs in the number that its schema allows; outputs are computed. Types are :func:`verify_types`'s part.
    """
    found: list[Violation] = []
    _verify(graph, set(), {}, graph, found)
    return found


def verify_types(graph: Graph) -> Shapes:
    """Weightless strict inference; raises :class:`~edgec.ir.errors.InputError` where types or shapes clash."""
    return Shapes(graph)


def _verify(graph: Graph, outer: set[Tensor], names: dict[str, Tensor], model: Graph, found: list[Violation]) -> None:
    known: set[Tensor] = set(outer)
    names = dict(names) if graph is not model else names

    def define(tensor: Tensor, where: str) -> None:
        known.add(tensor)
        other = names.setdefault(tensor.name, tensor)
        if other is not tensor:
            found.append(Violation(where, f"'{tensor.name}' is the name of two tensors"))

    for tensor in graph.inputs:
        define(tensor, f"input '{tensor.name}'")
        if tensor.inputs:
            found.append(Violation(f"input '{tensor.name}'", "is computed by a node, which an input cannot be"))
    seen: set[Node] = set()
    uses: dict[Tensor, set[int]] = {}
    for node in graph.nodes:
        where = f"node '{node.name}' ({node.op})"
        if node in seen:
            found.append(Violation(where, "stands twice in the graph"))
            continue
        seen.add(node)
        for tensor in node.inputs:
            if not tensor.name:
                continue
            if isinstance(tensor, Constant):
                if tensor not in known:
                    define(tensor, where)
            elif tensor not in known:
                what = "which no node computes" if not tensor.inputs else "which is computed only later"
                found.append(Violation(where, f"reads '{tensor.name}', {what}"))
            if tensor not in uses:
                uses[tensor] = set(map(id, tensor.outputs))
            if id(node) not in uses[tensor]:
                found.append(Violation(where, f"is not among the consumers of '{tensor.name}', which it reads"))
        for subgraph in node.subgraphs():
            _verify(subgraph, known, names, model, found)
        for tensor in node.outputs:
            if isinstance(tensor, Constant):
                found.append(Violation(where, f"computes '{tensor.name}', which is a constant"))
            elif tensor.name:
                if len(tensor.inputs) != 1 or tensor.inputs[0] is not node:
                    found.append(Violation(where, f"is not the only producer of '{tensor.name}'"))
                define(tensor, where)
        what = _schema_fault(node, model)
        if what:
            found.append(Violation(where, what))
    for tensor in graph.outputs:
        if tensor not in known and not isinstance(tensor, Constant):
            found.append(Violation(f"output '{tensor.name}'", "is computed by no node"))
        elif isinstance(tensor, Variable) and not tensor.name:
            found.append(Violation("an output", "has no name"))


def _schema_fault(node: Node, model: Graph) -> str | None:
    domain = "" if node.domain in (None, "ai.onnx") else node.domain
    version = model.opset if domain == "" else model.opsets.get(domain)
    if version is None:
        return f"is of the domain '{domain}', which the model does not import"
    if domain not in _STANDARD:
        return None
    bounds = _bounds(node.op, domain, version)
    if bounds is None:
        if any(f.name == node.op for f in (model.carried.functions if model.carried is not None else ())):
            return None
        return f"is no operator of opset {version}" + (f" of '{domain}'" if domain else "")
    least, most, least_out, most_out = bounds
    if not least <= len(node.inputs) <= most:
        return f"has {len(node.inputs)} inputs where {least} to {most} are allowed"
    if not least_out <= len(node.outputs) <= most_out:
        return f"has {len(node.outputs)} outputs where {least_out} to {most_out} are allowed"
    return None


_KNOWN: dict[tuple[str, str, int], tuple[int, int, int, int] | None] = {}


def _bounds(op: str, domain: str, version: int) -> tuple[int, int, int, int] | None:
    key = (op, domain, version)
    if key not in _KNOWN:
        try:
            schema = onnx.defs.get_schema(op, version, domain)
            _KNOWN[key] = (schema.min_input, schema.max_input, schema.min_output, schema.max_output)
        except onnx.defs.SchemaError:
            _KNOWN[key] = None
    return _KNOWN[key]
