"""The invariants that every graph between two passes keeps.

Structure is checked on the objects themselves, types and shapes by weightless inference. A violation is the fault of
the pass that ran last, or of the model's exporter when nothing ran yet; the caller says which.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgec.ir.garbage import uncollected
from edgec.ir.graph import Constant, Graph, Node, Tensor
from edgec.ir.shapes import Shapes

STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.training")
# Up to this many consumers a list is searched, beyond it a set is made.
_FEW = 8


@dataclass(frozen=True)
class Violation:
    """One broken invariant: the node or tensor, and what is wrong with it."""

    where: str
    what: str


def verify(graph: Graph) -> list[Violation]:
    """Every structural violation in ``graph`` and its subgraphs; an empty list when it is sound.

    Checked: each tensor has one producer, stands in its producer's outputs and its consumers' inputs, is computed
    before it is read, and has a name that no other has; each operator exists in the imported opset, with inputs,
    outputs and attributes as its schema has them; outputs are computed. Types are :func:`verify_types`'s part.
    """
    with uncollected():
        verifier = _Verifier(graph)
        verifier.check(graph, set(), {})
    return verifier.found


def verify_types(graph: Graph) -> Shapes:
    """Weightless strict inference; raises :class:`~edgec.ir.errors.InputError` where types or shapes clash."""
    return Shapes(graph)


class _Verifier:
    def __init__(self, model: Graph) -> None:
        self.found: list[Violation] = []
        self.versions = {("" if domain == "ai.onnx" else domain): v for domain, v in model.opsets.items()}
        functions = model.carried.functions if model.carried is not None else ()
        self.functions = {(f.domain, f.name) for f in functions}
        self.consumers: dict[Tensor, set[Node]] = {}

    def report(self, where: Node | str, what: str) -> None:
        self.found.append(Violation(where if isinstance(where, str) else f"node '{where.name}' ({where.op})", what))

    def check(self, graph: Graph, known: set[Tensor], names: dict[str, Tensor]) -> None:
        """Checks one graph; ``known`` and ``names`` hold the tensors around it, and take up its own."""
        for tensor in graph.inputs:
            where = f"input '{tensor.name}'"
            if tensor in known:
                self.report(where, "stands twice among the inputs")
            self._define(tensor, where, known, names)
            if tensor.inputs:
                self.report(where, "is computed by a node, which an input cannot be")
        seen: set[Node] = set()
        for node in graph.nodes:
            if node in seen:
                self.report(node, "stands twice in the graph")
                continue
            seen.add(node)
            for tensor in node.inputs:
                if tensor.name:
                    if tensor not in known:
                        if isinstance(tensor, Constant):
                            self._define(tensor, node, known, names)
                        else:
                            late = "which is computed only later" if tensor.inputs else "which no node computes"
                            self.report(node, f"reads '{tensor.name}', {late}")
                    if not self._reads(node, tensor):
                        self.report(node, f"is not among the consumers of '{tensor.name}', which it reads")
            for subgraph in node.subgraphs():
                self.check(subgraph, set(known), dict(names))
            for tensor in node.outputs:
                if isinstance(tensor, Constant):
                    self.report(node, f"computes '{tensor.name}', which is a constant")
                elif tensor.name:
                    if len(tensor.inputs) != 1 or tensor.inputs[0] is not node:
                        self.report(node, f"is not the only producer of '{tensor.name}'")
                    self._define(tensor, node, known, names)
            self._check_schema(node)
        for tensor in graph.outputs:
            if not tensor.name:
                self.report("an output", "has no name")
            elif tensor not in known and not isinstance(tensor, Constant):
                self.report(f"output '{tensor.name}'", "is computed by no node")
        if len(set(graph.outputs)) != len(graph.outputs):
            self.report(f"graph '{graph.name}'", "has an output that stands twice among the outputs")

    def _define(self, tensor: Tensor, where: Node | str, known: set[Tensor], names: dict[str, Tensor]) -> None:
        known.add(tensor)
        if names.setdefault(tensor.name, tensor) is not tensor:
            self.report(where, f"'{tensor.name}' is the name of two tensors")

    def _reads(self, node: Node, tensor: Tensor) -> bool:
        if len(tensor.outputs) <= _FEW:
            return node in tensor.outputs
        if tensor not in self.consumers:
            self.consumers[tensor] = set(tensor.outputs)
        return node in self.consumers[tensor]

    def _check_schema(self, node: Node) -> None:
        domain = "" if node.domain in (None, "ai.onnx") else node.domain
        version = self.versions.get(domain)
        if version is None:
            self.report(node, f"is of the domain '{domain}', which the model does not import")
            return
        if (domain, node.op) in self.functions or domain not in STANDARD_DOMAINS:
            return
        schema = _schema(node.op, domain, version)
        if schema is None:
            self.report(node, f"is no operator of opset {version}" + (f" of '{domain}'" if domain else ""))
            return
        if schema.deprecated:
            self.report(node, f"is deprecated in opset {version}")
            return
        if not schema.inputs[0] <= len(node.inputs) <= schema.inputs[1]:
            self.report(node, f"has {len(node.inputs)} inputs where it takes {_range(schema.inputs)}")
        if not schema.outputs[0] <= len(node.outputs) <= schema.outputs[1]:
            self.report(node, f"has {len(node.outputs)} outputs where it gives {_range(schema.outputs)}")
        if not schema.attributes.issuperset(node.attrs):
            unknown = min(set(node.attrs) - schema.attributes)
            self.report(node, f"has the attribute '{unknown}', which {node.op} of opset {version} does not take")
        if not schema.required <= node.attrs.keys():
            self.report(node, f"lacks the attribute '{min(schema.required - node.attrs.keys())}'")


@dataclass(frozen=True)
class _Schema:
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    attributes: frozenset[str]
    required: frozenset[str]
    deprecated: bool


_KNOWN: dict[tuple[str, str, int], _Schema | None] = {}
_ANY_NUMBER = 2**31 - 1


def _range(bounds: tuple[int, int]) -> str:
    least, most = bounds
    if least == most:
        return str(least)
    return f"{least} or more" if most == _ANY_NUMBER else f"{least} to {most}"


def _schema(op: str, domain: str, version: int) -> _Schema | None:
    key = (op, domain, version)
    if key not in _KNOWN:
        try:
            schema = onnx.defs.get_schema(op, version, domain)
        except onnx.defs.SchemaError:
            _KNOWN[key] = None
        else:
            _KNOWN[key] = _Schema(
                (schema.min_input, schema.max_input),
                (schema.min_output, schema.max_output),
                frozenset(schema.attributes),
                frozenset(name for name, attribute in schema.attributes.items() if attribute.required),
                schema.deprecated,
            )
    return _KNOWN[key]
