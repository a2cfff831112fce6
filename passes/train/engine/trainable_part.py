"""The part of a network that can be trained: up to what has no gradient, such as a detector's NonMaxSuppression.

What stands behind it (NonMaxSuppression, NonZero, If, Loop, and all that reads them) stays as it is, and so does what
turns all that the network gives into numbers of places (ArgMax). The tensors in front of it, boxes and scores, take the
place of the outputs: they say what the network has found, and more of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgec.ir.errors import UsageError, did_you_mean
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable
from edgec.ir.shapes import Shapes
from edgec.ir.torch_module.operators import RULES
from edgec.passes.calibration.dataset import DataSet


@dataclass(frozen=True)
class TrainablePart:
    """A network, ended where it cannot be trained any more.

    Attributes:
        graph: with the last tensors that a gradient reaches as outputs; the network itself where that is all of it.
        ends: what stands behind, for words: operators, the first ones first; empty where it is the whole network.
    """

    graph: Graph
    ends: tuple[str, ...] = ()
    _copied: dict[Tensor, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph, where: str) -> TrainablePart:
        """The part of a sorted network.

        Raises:
            UsageError: nothing in front of what cannot be trained has weights.
        """
        reached, behind = _reached(graph)
        shapes = Shapes(graph)
        if not behind:
            learning = _learning(graph, shapes)
            if not learning or any(output in learning for output in graph.outputs):
                return cls(graph)
            reached = {tensor: None for tensor in reached if tensor in learning}
            behind = [node for node in graph.nodes if not any(tensor in learning for tensor in node.outputs)]
        inside = set(graph.nodes) - set(behind)
        ends = [t for t in reached if t.inputs and _is_float(t, shapes) and _is_end(t, graph, inside)]
        operators = tuple(dict.fromkeys(node.op for node in behind if _is_first(node, reached)))
        if not ends:
            what = f"cannot train through {' and '.join(operators)}, and nothing in front of it has weights"
            raise UsageError(where, what, "leave the pass out")
        return cls._cut(graph, ends, operators)

    @classmethod
    def at(cls, graph: Graph, names: list[str], where: str) -> TrainablePart:
        """The part of a teacher that ends at tensors of these names.

        Raises:
            UsageError: it has none of a name.
        """
        known = {tensor.name: tensor for tensor in graph.variables()}
        missing = next((name for name in names if name not in known), None)
        if missing is not None:
            near = did_you_mean(missing, list(known))
            what = f"has no tensor '{missing}', at which it would be met{near}"
            raise UsageError(where, what, "end the network there with --cut, or name another teacher")
        return cls._cut(graph, [known[name] for name in names], ())

    @classmethod
    def _cut(cls, graph: Graph, ends: list[Variable], operators: tuple[str, ...]) -> TrainablePart:
        copied: dict[Tensor, Tensor] = {}
        part = graph.copy(copied)
        part.outputs = [copied[tensor] for tensor in ends]
        part.remove_dead()
        return cls(part, operators, copied)

    def write_back(self) -> None:
        """Gives the network the weights that its part has."""
        for own, copy in self._copied.items():
            if isinstance(own, Constant) and isinstance(copy, Constant) and copy.values is not own.values:
                own.values = copy.values


@dataclass(frozen=True)
class Unlabelled:
    """A data set without its labels, which are of outputs that are not trained."""

    whole: DataSet
    labels: None = field(default=None, init=False)

    @property
    def source(self) -> str:
        return self.whole.source

    def __len__(self) -> int:
        return len(self.whole)

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
        """As :meth:`.DataSet.batches`."""
        return self.whole.batches(size, indices)


def _reached(graph: Graph) -> tuple[dict[Variable, None], list[Node]]:
    """What can be computed in torch, in order, and the nodes that cannot, or read what cannot."""
    able: dict[Variable, None] = {tensor: None for tensor in graph.inputs if isinstance(tensor, Variable)}
    behind: list[Node] = []
    for node in graph.nodes:
        reads = [tensor for tensor in node.inputs if isinstance(tensor, Variable) and tensor.name]
        known = node.op in RULES and node.domain in ("", "ai.onnx") and not list(node.subgraphs())
        if known and all(tensor in able for tensor in reads):
            able.update(dict.fromkeys(tensor for tensor in node.outputs if isinstance(tensor, Variable)))
        else:
            behind.append(node)
    return able, behind


def _learning(graph: Graph, shapes: Shapes) -> set[Tensor]:
    """What has a gradient by some weight: not integers and truths, and what is computed of them alone."""
    learning: set[Tensor] = set()
    for node in graph.nodes:
        straight = node.op in ("QuantizeLinear", "DequantizeLinear")  # gradients go through them
        weights = (t for t in node.inputs if isinstance(t, Constant) and (straight or t.dtype.kind == "f"))
        if any(True for _ in weights) or any(tensor in learning for tensor in node.inputs):
            learning |= {t for t in node.outputs if isinstance(t, Variable) and (straight or _is_float(t, shapes))}
    return learning


def _is_float(tensor: Variable, shapes: Shapes) -> bool:
    dtype = shapes.dtype(tensor)
    return dtype is not None and dtype.kind == "f"


def _is_end(tensor: Variable, graph: Graph, inside: set[Node]) -> bool:
    """Whether a tensor is an output or read by what cannot be trained, such as a node in a branch."""
    return tensor in graph.outputs or any(node not in inside for node in tensor.outputs)


def _is_first(node: Node, reached: dict[Variable, None]) -> bool:
    """Whether it is the node itself that cannot be trained, and not what it reads."""
    return all(not isinstance(t, Variable) or not t.name or t in reached for t in node.inputs)
