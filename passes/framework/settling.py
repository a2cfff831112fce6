"""A rewritten graph put in order: sorted, without dead code, typed anew, and verified."""

from __future__ import annotations

from edgec.ir.errors import InputError, InternalError
from edgec.ir.graph import Graph, Variable
from edgec.ir.shapes import Shapes
from edgec.ir.verifier import verify


def settle(graph: Graph, where: str) -> Shapes:
    """Puts a rewritten graph in order: sorted, without dead code, typed anew, and verified.

    Raises:
        InternalError: the graph is broken; the line names the first violation.
    """
    graph.sort()
    graph.remove_dead()
    violations = verify(graph)
    if violations:
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        raise InternalError(where, f"left a broken graph: {violations[0].where} {violations[0].what}{more}")
    # What was inferred before the rewrite is not true any more; only the signatures are declared.
    graphs = [graph, *graph.subgraphs(recursive=True)]
    signature = {tensor for one in graphs for tensor in (*one.inputs, *one.outputs)}
    for variable in graph.variables():
        if variable not in signature and variable.type_proto is None:
            variable.shape, variable.dtype = None, None
    try:
        shapes = Shapes(graph)
    except InputError as error:
        raise InternalError(where, f"left a broken graph: {error.where}: {error.what}") from error
    shapes.annotate(graph)
    _check_outputs(graph, where)
    return shapes


def _check_outputs(graph: Graph, where: str) -> None:
    untyped = next((t for t in graph.outputs if isinstance(t, Variable) and t.dtype is None and not t.type_proto), None)
    if untyped is not None:
        raise InternalError(where, f"left output '{untyped.name}' without a type")
