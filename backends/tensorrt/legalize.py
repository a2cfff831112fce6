"""A network rewritten into what the oldest TensorRT of a board reads as it is meant.

That is done on the float graph, before quantization, and is exact up to float32 rounding. An operator that the parser
does not know is spelled out by our own rule, or else by the body that ONNX defines it by; one that it knows, but not
in that form, by the rule for the limit (:mod:`.parser_limits`). What has no rewrite is named.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import onnx

from edgec.backends.defined_operators import inline_definition, tidy

# Imported for the rewrites that they register.
from edgec.backends.tensorrt import (  # noqa: F401
    activations,
    contractions,
    layer_forms,
    normalizations,
    resampling,
    selections,
)
from edgec.backends.tensorrt.byte_tensors import cast_bytes_first
from edgec.backends.tensorrt.parser_limits import beyond
from edgec.backends.tensorrt.spelling import REWRITES, Writer
from edgec.backends.tensorrt.versions import Rules
from edgec.ir.errors import EmitError
from edgec.ir.graph import Constant, Graph, Node, Tensor
from edgec.ir.shapes import Shapes
from edgec.passes.framework.context import Context
from edgec.passes.framework.legalization import Legalization

_NOT_THE_PARSERS = frozenset({"Constant", "QuantizeLinear", "DequantizeLinear"})
_STANDARD = ("", "ai.onnx", None)
# What is written in one round is read in the next: as many as operators that are spelled out follow on each other.
_ROUNDS = 1000


@dataclass(frozen=True)
class TensorRTOperators(Legalization):
    """Rewrites what the oldest TensorRT of a board does not read, or reads as something else."""

    name: ClassVar[str] = "tensorrt-operators"
    words: ClassVar[str] = "spelled out for TensorRT"

    rules: Rules
    where: str

    def rewrite(self, graph: Graph, ctx: Context) -> int:
        return rewrite(graph, self.rules, self.where)


def rewrite(graph: Graph, rules: Rules, where: str) -> int:
    """Rewrites ``graph`` in place; returns how many nodes were replaced.

    Raises:
        EmitError: an operator is not known to that TensorRT, and there is no rewrite of it.
    """
    done = cast_bytes_first(graph)
    for _ in range(_ROUNDS):
        changed = _operators(graph, rules, where) + _limits(graph, rules)
        if not changed:
            break
        done += changed
        graph.sort()
        graph.remove_dead()
        tidy(graph)
    return done


def _operators(graph: Graph, rules: Rules, where: str) -> int:
    """Spells out operators that the parser does not know."""
    unknown = [(inside, node) for inside in graph.graphs() for node in inside.nodes if not is_known(node, rules)]
    if not unknown:
        return 0
    shapes = Shapes(graph)
    changed = 0
    for inside, node in unknown:
        if changed and not all(_is_known(tensor, shapes) for tensor in node.inputs):
            continue  # it reads what was written in this round: its turn is in the next one
        changed += 1
        rule = REWRITES.get(node.op) if node.domain in _STANDARD else None
        if rule is not None and rule(Writer(inside, node, shapes)):
            continue
        if node.domain in _STANDARD and inline_definition(inside, node, shapes):
            continue
        what = f"{rules.tensorrt} has no {f'{node.domain}.' if node.domain else ''}{node.op}"
        raise EmitError(f"{where}: node '{node.name or node.op}'", what, advice(node, rules))
    return changed


def _is_known(tensor: Tensor, shapes: Shapes) -> bool:
    return not tensor.name or isinstance(tensor, Constant) or shapes.shape(tensor) is not None or bool(tensor.shape)


def _limits(graph: Graph, rules: Rules) -> int:
    """Spells out operators in a form that the parser does not read; those without a rewrite are left to the lint."""
    changed = 0
    touched: set[Node] = set()
    for limit, site in list(beyond(graph, rules.version)):
        rule = REWRITES.get(limit.name)
        if rule is not None and site.node not in touched:
            touched.add(site.node)
            changed += rule(Writer(site.graph, site.node, site.shapes))
    return changed


def missing_operators(graphs: Iterable[Graph], rules: Rules) -> list[Node]:
    """The nodes that the parser does not know."""
    return [node for graph in graphs for node in graph.nodes if not is_known(node, rules)]


def is_known(node: Node, rules: Rules) -> bool:
    """Whether the parser has an importer of a node's operator, and the opsets that it reads have the operator."""
    if node.domain not in _STANDARD:
        return False
    if node.op in _NOT_THE_PARSERS:
        return True
    if node.op not in rules.operators or not onnx.defs.has(node.op, rules.opset, ""):
        return False
    return not onnx.defs.get_schema(node.op, rules.opset, "").deprecated


def advice(node: Node, rules: Rules) -> str:
    """What to do about an operator that has no rewrite."""
    if node.domain not in _STANDARD:
        return "export the network with standard operators, or cut it there with --cut"
    return f"replace it in the network, or compile for a board with a TensorRT newer than {rules.tensorrt[9:]}"
