"""The names that torch's exporter loses: nodes by module, tensors by node, outputs by what the module calls them.

The exporter calls nodes ``node_Conv_68`` and notes in their metadata from which module each one comes. A recipe's
``only`` and ``skip``, and every report, speak of the user's modules instead: the node that multiplies by
``encoder.conv1.weight`` is ``encoder.conv1``, the ReLU that a block calls as a function is ``encoder.relu``.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from typing import Any

from edgec.frontends.model import MULTIPLIERS
from edgec.frontends.tidying import settle_constants
from edgec.ir.errors import InputError
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, onnx_dtype, producer
from edgec.ir.shapes import Shapes

_SCOPES = "pkg.torch.onnx.name_scopes"
# Operators that only put a weight in another form on its way to the one that uses it.
_FORMS = frozenset({"Transpose", "Slice", "Concat", "Unsqueeze", "Squeeze", "Reshape", "Identity", "Cast", "Flatten"})


def tidy(graph: Graph, parameters: Collection[str]) -> None:
    """Names nodes and tensors, in place, and takes out what the exporter wrote by the way.

    That is: its metadata (which holds paths of the user's machine), biases of zeros that the module does not have, and
    casts to a type that is told by example.

    Args:
        graph: as torch.onnx wrote it.
        parameters: the names of the module's parameters and buffers, which stay.
    """
    settle_constants(graph)
    nodes = [node for inside in graph.graphs() for node in inside.nodes]
    if any(node.op == "CastLike" for node in nodes):
        Shapes(graph).annotate(graph)
    for node in nodes:
        _drop_made_bias(node, parameters)
        _settle_cast(node)
    _name_nodes(graph, nodes, parameters)
    _name_tensors(graph, nodes, parameters)
    items: list[Node | Variable | Constant] = [*nodes, *graph.variables(), *graph.constants()]
    for item in items:
        item.metadata, item.doc_string = {}, ""
    graph.metadata, graph.graph_metadata, graph.doc_string = {}, {}, ""


def name_outputs(graph: Graph, inputs: Sequence[str], outputs: Sequence[str], spec: Any, where: str) -> None:
    """Gives the graph's inputs and outputs the names that the user chose, or outputs the module's own.

    Args:
        graph: the exported network.
        inputs: a name for each input, or none.
        outputs: a name for each output, or none.
        spec: torch's description of what the module returns.
        where: the model's name, for errors.

    Raises:
        InputError: there are more or fewer names than inputs or outputs, or one is empty or given twice.
    """
    for kind, names, ends in (("input", inputs, graph.inputs), ("output", outputs, graph.outputs)):
        if names and (len(names) != len(ends) or not all(isinstance(name, str) and name for name in names)):
            what = f"has {len(ends)} {kind}{'s' if len(ends) != 1 else ''} and {len(names)} {kind} names"
            raise InputError(where, what, f"name each {kind} once")
    if len({*inputs, *outputs}) < len(inputs) + len(outputs):
        twice = next(name for name in (*inputs, *outputs) if [*inputs, *outputs].count(name) > 1)
        raise InputError(where, f"has two ends named '{twice}'", "name each input and output once")
    kept = set(graph.inputs)
    renamed: dict[Tensor, str] = dict(zip(graph.inputs, inputs, strict=True)) if inputs else {}
    for tensor, name in zip(graph.outputs, outputs or _returned(spec, len(graph.outputs)), strict=True):
        if tensor not in kept:
            renamed.setdefault(tensor, name)
    tensors: list[Variable | Constant] = [*graph.variables(), *graph.constants()]
    free = _Free({tensor.name for tensor in tensors if tensor not in renamed})
    for tensor, name in renamed.items():
        tensor.name = free(name)


def _returned(spec: Any, count: int) -> list[str]:
    """A name for each tensor that is returned, after its place in what the module returns."""
    from torch.utils import _pytree as pytree

    if spec.num_leaves != count:  # what is returned besides tensors has no output
        return _numbered(count)
    leaves, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(count)), spec))
    names = []
    for path, _ in leaves:
        keys = [next(str(getattr(key, kind)) for kind in ("key", "idx", "name") if hasattr(key, kind)) for key in path]
        names.append(".".join(keys if keys and not keys[0].isdecimal() else ["output", *keys]))
    return names


def _numbered(count: int) -> list[str]:
    return ["output"] if count == 1 else [f"output.{index}" for index in range(count)]


def _drop_made_bias(node: Node, parameters: Collection[str]) -> None:
    if node.op not in ("Conv", "ConvTranspose") or len(node.inputs) < 3:
        return
    bias = node.inputs[2]
    if isinstance(bias, Constant) and bias.name not in parameters and not bias.values.any():
        del node.inputs[2]


def _settle_cast(node: Node) -> None:
    """Says outright which type a CastLike casts to: shapes and constants are followed through a Cast."""
    if node.op == "CastLike" and node.inputs[1].dtype is not None:
        node.op = "Cast"
        node.attrs["to"] = onnx_dtype(node.inputs[1].dtype)
        node.attrs.pop("saturate", None)
        del node.inputs[1]


def _name_nodes(graph: Graph, nodes: Sequence[Node], parameters: Collection[str]) -> None:
    scopes = {node: _scopes(node) for node in nodes}
    containers = {path for found in scopes.values() for path in found[:-1]} | {""}
    free = _Free({tensor.name for tensor in graph.inputs})
    paths = {node: found[-1] if found else "" for node, found in scopes.items()}
    owners = {node: _owner(weight, paths[node], containers) for node in nodes if (weight := _weight(node, parameters))}
    weighted = set(owners.values())
    first: dict[str, str] = {}
    for node in nodes:
        path = owners.get(node, paths[node])
        bare = path not in containers and (
            node in owners or (path not in weighted and first.setdefault(path, node.op) == node.op)
        )
        node.name = free(path if bare else f"{path}.{node.op.lower()}" if path else node.op.lower())


def _scopes(node: Node) -> list[str]:
    """The paths of the modules that a node comes from, outermost first."""
    try:
        found = ast.literal_eval(node.metadata.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [str(path) for path in found[:-1]] if isinstance(found, list) else []


def _weight(node: Node, parameters: Collection[str]) -> Constant | None:
    """The parameter that a node multiplies by, whatever form it was put in; ``None`` for other nodes."""
    if node.op not in MULTIPLIERS:
        return None
    found = (_source(tensor) for tensor in node.inputs[1:])
    return next((constant for constant in found if constant is not None and constant.name in parameters), None)


def _source(tensor: Tensor) -> Constant | None:
    while not isinstance(tensor, Constant):
        node = producer(tensor)
        if node is None or node.op not in _FORMS or not node.inputs:
            return None
        tensor = node.inputs[0]
    return tensor


def _owner(weight: Constant, path: str, containers: Collection[str]) -> str:
    """The module that a node of the module ``path`` is named for: its weight's, unless that is tied to it only."""
    owner = weight.name.rpartition(".")[0]
    return owner if path in containers or f"{owner}.".startswith(f"{path}.") else path


def _name_tensors(graph: Graph, nodes: Sequence[Node], parameters: Collection[str]) -> None:
    """Results are named for their nodes, a weight in another form for the weight, and other constants for a reader."""
    ends = set(graph.inputs) | set(graph.outputs)
    names = {node.name for node in nodes} | {tensor.name for tensor in ends}
    free = _Free(names | {constant.name for constant in graph.constants() if constant.name in parameters})
    for node in nodes:
        form = _source(node.outputs[0]) if node.op in _FORMS and node.outputs else None
        for tensor in node.inputs:
            if isinstance(tensor, Constant) and tensor.name not in names and tensor.name not in parameters:
                tensor.name = free(f"{node.name}.constant")
                names.add(tensor.name)
        for tensor in node.outputs:
            if isinstance(tensor, Variable) and tensor.name and tensor not in ends:
                tensor.name = free(f"{node.name}.out" if form is None else f"{form.name}.{node.op.lower()}")


class _Free:
    """Names that nothing else has: what is wanted, with a number behind it where it is taken."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._next: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        candidate = name
        while candidate in self._taken:
            number = self._next[name] = self._next.get(name, 0) + 1
            candidate = f"{name}.{number}"
        self._taken.add(candidate)
        return candidate
