"""Subgraphs that depend on constants alone, and shapes that are known, evaluated when the network is compiled.

All nodes that can be evaluated are run in one onnxruntime session, so that their number costs little. A second round
follows where the first one made shapes known.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.evaluation import BOUNDED, known_shape, session
from edgec.ir.execution import Session
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, variable_of
from edgec.ir.literals import literal
from edgec.ir.stored import Stored
from edgec.passes.framework.context import Context
from edgec.passes.framework.rewriter import Rewriter

# A result may exceed what it is computed from by this much, one node and all together.
LARGEST_GROWTH = 16 << 20
LARGEST_TOTAL_GROWTH = 256 << 20

_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


def fold_constants(graph: Graph, ctx: Context, spared: Container[Node] = ()) -> None:
    """Replaces what can be computed now by constants; reports what was computed and what was not, and why.

    Args:
        graph: sorted.
        ctx: is told.
        spared: nodes that stay.
    """
    refused: dict[Node, str] = {}
    while True:
        rw = Rewriter(graph, ctx)
        progress = _fold_shapes(rw)
        chosen = _choose(rw, refused, spared)
        if chosen:
            progress = _evaluate(rw, chosen, refused) or progress
        rw.finish()
        if not progress:
            break
        ctx.changed()
    for node in graph.nodes:
        if node in refused:
            ctx.missed(node, refused[node])


def _fold_shapes(rw: Rewriter) -> bool:
    """Constant nodes, and Shape and Size of tensors whose dimensions are known: nothing needs to be run for those."""
    literals = 0
    progress = False
    for node in list(rw.graph.nodes):
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op == "Constant":
            values = literal(node)
            if values is not None:
                literals += 1
                _become(rw, node, values)
        elif node.op in ("Shape", "Size"):
            values = known_shape(node, rw.shape(node.inputs[0]))
            if values is not None:
                rw.did(node, "the shape is known: became a constant")
                _become(rw, node, values)
                progress = True
    if literals:
        rw.ctx.did("the graph", f"{literals} Constant nodes became constants", nodes=literals)
    return progress


def _become(rw: Rewriter, node: Node, values: np.ndarray | Stored) -> None:
    """Puts a constant in the place of a node's only result, under the name that it had."""
    _put(rw, node.outputs[0], values)
    rw.remove(node)


def _put(rw: Rewriter, out: Tensor, values: np.ndarray | Stored) -> None:
    made = Constant(out.name, values)
    if out.quantization is not None:
        made.quantization = out.quantization
    if rw.is_output(out):
        # The signature wants a computed tensor of that name.
        made.name = rw.graph.fresh(f"{out.name}.constant")
        node = out.inputs[0]
        place = next(i for i, tensor in enumerate(node.outputs) if tensor is out)
        node.outputs[place] = Variable.empty()
        rw.insert(node, "Identity", [made], name=f"{node.name or out.name}.constant", output=variable_of(out))
        return
    rw.graph.replace_uses(out, made)


def _choose(rw: Rewriter, refused: dict[Node, str], spared: Container[Node]) -> list[Node]:
    """The nodes to evaluate, in order; those that only feed each other included."""
    known: set[Tensor] = set()
    chosen: list[Node] = []
    total = 0
    for node in rw.graph.nodes:
        if node in refused or node in spared or not node.outputs or rw.gone(node):
            continue
        if not all(not t.name or rw.is_fixed(t) or t in known for t in node.inputs):
            continue
        if node.op == "Identity" and rw.is_output(node.outputs[0]) and rw.is_fixed(node.inputs[0]):
            continue  # an output that is constant is written like this
        reason = _refusal(node)
        if reason is not None:
            if reason:
                refused[node] = reason
            continue
        results = [_bytes(rw, t) for t in node.outputs if t.name]
        if None in results and node.op not in BOUNDED:
            continue  # a later round may know the shape
        growth = sum(b or 0 for b in results) - sum(_bytes(rw, t) or 0 for t in dict.fromkeys(node.inputs) if t.name)
        if growth > LARGEST_GROWTH:
            refused[node] = f"its result is {growth / 2**20:.1f} MiB larger than what it is computed from"
            continue
        total += max(growth, 0)
        if total > LARGEST_TOTAL_GROWTH:
            refused[node] = f"constants have grown by {LARGEST_TOTAL_GROWTH >> 20} MiB already"
            continue
        chosen.append(node)
        known.update(node.outputs)
    return chosen


def _refusal(node: Node) -> str | None:
    """Why a node is not to be evaluated; an empty string where that goes without saying, ``None`` where it is."""
    if node.domain not in ("", "ai.onnx"):
        return f"it is of the domain '{node.domain}', which is not evaluated"
    if node.op in _RANDOM:
        return "it is random"
    if node.op == "If":
        return ""  # its branch takes its place
    if any(node.subgraphs()):
        return "it has subgraphs"
    if node.op == "DequantizeLinear":
        return ""  # quantized weights stay quantized
    return None


def _bytes(rw: Rewriter, tensor: Tensor) -> int | None:
    if isinstance(tensor, Constant):
        return tensor.nbytes
    shape, kind = rw.static(tensor), rw.dtype(tensor)
    if shape is None or kind is None:
        return None
    return int(np.prod(shape, dtype=np.int64)) * kind.itemsize


def _evaluate(rw: Rewriter, chosen: list[Node], refused: dict[Node, str]) -> bool:
    inside = set(chosen)
    wanted: list[Tensor] = [
        tensor
        for node in chosen
        for tensor in node.outputs
        if tensor.name and (rw.is_output(tensor) or any(reader not in inside for reader in tensor.outputs))
    ]
    names = [tensor.name for tensor in wanted]
    try:
        values = _session(rw, chosen, wanted).run({})
    except InputError:
        # One node that onnxruntime does not take spoils the session: find it by running each by itself.
        runnable = [node for node in chosen if _runs(rw, node, refused)]
        return False if not runnable or len(runnable) == len(chosen) else _retry(rw, runnable, refused)
    for tensor, name in zip(wanted, names, strict=True):
        node = tensor.inputs[0]
        rw.did(node, "depends on constants alone: evaluated")
        _put(rw, tensor, values[name])
    for node in reversed(chosen):
        if not rw.gone(node) and not any(t.outputs or rw.is_output(t) for t in node.outputs):
            rw.remove(node)
    return bool(wanted)


def _retry(rw: Rewriter, runnable: list[Node], refused: dict[Node, str]) -> bool:
    known: set[Tensor] = set()
    chosen = []
    for node in runnable:
        if all(not t.name or rw.is_fixed(t) or t in known for t in node.inputs):
            chosen.append(node)
            known.update(node.outputs)
    return bool(chosen) and _evaluate(rw, chosen, refused)


def _runs(rw: Rewriter, node: Node, refused: dict[Node, str]) -> bool:
    try:
        _session(rw, [node], [t for t in node.outputs if t.name])
    except InputError as error:
        refused[node] = f"onnxruntime {error.what}"
        return False
    return True


def _session(rw: Rewriter, nodes: list[Node], outputs: list[Tensor]) -> Session:
    return session(rw.graph, nodes, outputs, lambda tensor: (rw.dtype(tensor), rw.shape(tensor)))
