"""Transposes that meet their inverse: what stands between them is computed in the layout that both ends have.

From a Transpose on, the operators that work in any layout are gathered, with every other Transpose of the same order
that feeds them. Where more Transposes end there than have to be put behind, the island is computed in the layout in
front. So a channels-last block between convolutions loses both of its ends, however it branches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgec.ir.graph import Constant, Node, Tensor, producer, variable_of
from edgec.passes.fold.matching import reduced_axes
from edgec.passes.framework.rewriter import Rewriter

# Operators whose result at a place depends on their first input at that place alone; other inputs are parameters.
POINTWISE = frozenset(
    {"Abs", "Cast", "Ceil", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"}
    | {"Identity", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign"}
    | {"Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu", "Sin", "Cos", "Dropout"}
)
# Operators of several inputs that broadcast against each other.
BROADCASTING = frozenset(
    {"Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod"}
    | {"Mul", "Or", "Pow", "PRelu", "Sub", "Sum", "Where", "Xor"}
)
_ALONG_AXIS = frozenset({"Softmax", "LogSoftmax", "Split", "Concat"})
_REDUCTIONS = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare"}
    | {"ReduceLogSum", "ReduceLogSumExp"}
)
# Before it Softmax works on a matrix.
_SOFTMAX_OF_ONE_AXIS = 13
# So many operators are gathered at most.
_LARGEST_ISLAND = 256


def fold_transpose(rw: Rewriter, node: Node) -> bool:
    """Computes what follows a Transpose in the layout in front of it, where that takes fewer Transposes."""
    order = permutation(rw, node)
    if order is None or order == sorted(order) or rw.is_fixed(node.inputs[0]):
        return False
    island = _Island(rw, order)
    island.grow(node)
    if not island.nodes or island.gain() <= 0:
        return False
    rw.did(node, f"{len(island.nodes)} nodes behind it work in the layout in front of it")
    island.move()
    return True


def permutation(rw: Rewriter, node: Node) -> list[int] | None:
    """The order of a Transpose; ``None`` where it follows from a rank that is not known."""
    perm = node.attrs.get("perm")
    if perm is not None:
        return [int(axis) for axis in perm]
    rank = rw.rank(node.inputs[0])
    return None if rank is None else list(range(rank))[::-1]


class _Island:
    """What can be computed in front of a Transpose of one order instead of behind it.

    Attributes:
        entries: the Transposes that feed it, by their result.
        nodes: the operators that move, in no order.
    """

    def __init__(self, rw: Rewriter, order: list[int]) -> None:
        self._rw, self._order = rw, order
        self._inverse = [int(place) for place in np.argsort(order)]
        self.entries: dict[Tensor, Node] = {}
        self.nodes: dict[Node, None] = {}

    def grow(self, start: Node) -> None:
        """Gathers what can move, then drops what needs something that cannot."""
        pending: list[Tensor] = [start.outputs[0]]
        self.entries[start.outputs[0]] = start
        while pending and len(self.nodes) < _LARGEST_ISLAND:
            for reader in dict.fromkeys(pending.pop().outputs):
                if reader in self.nodes or not self._rw.owns(reader) or not self._can_move(reader):
                    continue
                self.nodes[reader] = None
                pending += reader.outputs
                for tensor in self._data(reader):
                    source = producer(tensor)
                    if tensor not in self.entries and source is not None and self._is_entry(source):
                        self.entries[tensor] = source
                        pending.append(tensor)
        while True:
            inside = self._inside()
            stuck = [n for n in self.nodes if not all(self._is_fed(n, tensor, inside) for tensor in self._data(n))]
            if not stuck:
                break
            for node in stuck:
                del self.nodes[node]
        self.entries = {
            tensor: node
            for tensor, node in self.entries.items()
            if any(reader in self.nodes or self._cancels(reader) for reader in tensor.outputs)
        }

    def gain(self) -> int:
        """How many Transposes fewer there are if it moves."""
        ended = sum(all(self._is_absorbed(r) for r in t.outputs) and not self._rw.is_output(t) for t in self.entries)
        results = [tensor for node in self.nodes for tensor in node.outputs if not self._takes_away_order(node)]
        cancelled = {reader for tensor in results for reader in tensor.outputs if self._cancels(reader)}
        return ended + len(cancelled) - sum(map(self._needs_transpose, results))

    def move(self) -> None:
        """Rewrites the graph."""
        rw, moved = self._rw, {tensor: node.inputs[0] for tensor, node in self.entries.items()}
        left = list(self.nodes)
        while left:
            ready = [n for n in left if all(t in moved or isinstance(t, Constant) for t in self._data(n))]
            assert ready, "an island has no loops"
            for node in ready:
                self._move_node(node, moved)
            left = [node for node in left if node not in set(ready)]
        for tensor, source in moved.items():
            for reader in dict.fromkeys(tensor.outputs):
                if self._cancels(reader) and not rw.gone(reader):
                    rw.replace(reader, source)

    def _move_node(self, node: Node, moved: dict[Tensor, Tensor]) -> None:
        rw = self._rw
        results = list(node.outputs)
        keeps = self._takes_away_order(node)
        self._remap(node)
        for place, tensor in enumerate(list(node.inputs)):
            if tensor in moved:
                rw.set_input(node, place, moved[tensor])
            elif place < self._data_count(node) and isinstance(tensor, Constant):
                self._turn_constant(node, place, tensor)
        if keeps:
            return
        for place, old in enumerate(results):
            shape = rw.shape(old)
            turned = None if shape is None else tuple(shape[axis] for axis in self._inverse)
            new = rw.renew_output(node, place, turned)
            moved[old] = new
            if rw.is_output(old) or self._others(old):
                name = f"{node.name or new.name}.transposed"
                rw.insert_for(variable_of(old), "Transpose", [new], name=name, perm=self._order)

    def _others(self, tensor: Tensor) -> list[Node]:
        """Who reads a result and neither moves nor goes."""
        return [r for r in tensor.outputs if r not in self.nodes and not self._cancels(r)]

    def _needs_transpose(self, tensor: Tensor) -> bool:
        """Whether something reads a result in the layout that it had, other than a Transpose, which joins it."""
        others = self._others(tensor)
        return self._rw.is_output(tensor) or any(not self._rw.owns(r) or r.op != "Transpose" for r in others)

    def _can_move(self, node: Node) -> bool:
        rw, op, rank = self._rw, node.op, len(self._order)
        if node.domain not in ("", "ai.onnx"):
            return False
        if rw.rank(node.outputs[0]) != rank:
            return self._takes_away_order(node)
        if op in POINTWISE:
            return len([t for t in node.outputs if t.name]) == 1
        if op in BROADCASTING:
            return all(self._fits(tensor) for tensor in node.inputs)
        if op in _ALONG_AXIS:
            if op in ("Softmax", "LogSoftmax") and rw.graph.opset < _SOFTMAX_OF_ONE_AXIS:
                return False
            return all(self._fits(tensor, whole=True) for tensor in self._data(node))
        if op in _REDUCTIONS:
            return reduced_axes(self._rw, node) is not None
        if op == "MatMul":
            return self._keeps_last(1) and rw.is_fixed(node.inputs[1]) and rw.rank(node.inputs[1]) == 2
        if op in ("LayerNormalization", "RMSNormalization"):
            axis = int(node.attrs.get("axis", -1)) % rank
            return len([t for t in node.outputs if t.name]) == 1 and self._keeps_last(rank - axis)
        if op == "Slice":
            return len(node.inputs) > 3 and rw.is_fixed(node.inputs[3])
        return op == "Pad" and len(node.inputs) < 4 and len(node.inputs) > 1 and rw.is_fixed(node.inputs[1])

    def _keeps_last(self, count: int) -> bool:
        """Whether so many axes stay the last ones, in their order."""
        rank = len(self._order)
        return self._order[rank - count :] == list(range(rank - count, rank))

    def _takes_away_order(self, node: Node) -> bool:
        """Whether a reduction without its axes leaves the others in the order in which they were."""
        axes = reduced_axes(self._rw, node) if node.op in _REDUCTIONS and not node.attrs.get("keepdims", 1) else None
        if axes is None:
            return False
        kept = [self._order[axis] for axis in range(len(self._order)) if axis not in axes]
        return kept == sorted(kept)

    def _fits(self, tensor: Tensor, whole: bool = False) -> bool:
        """Whether an operand has the rank of the island, or is a constant that can be given it."""
        rank = self._rw.rank(tensor)
        if rank is None:
            return False
        if rank == len(self._order):
            return True
        return not whole and self._rw.is_fixed(tensor) and rank < len(self._order)

    def _data_count(self, node: Node) -> int:
        return len(node.inputs) if node.op in BROADCASTING or node.op == "Concat" else 1

    def _data(self, node: Node) -> Sequence[Tensor]:
        return list(node.inputs)[: self._data_count(node)]

    def _is_entry(self, node: Node) -> bool:
        return node.op == "Transpose" and self._rw.owns(node) and permutation(self._rw, node) == self._order

    def _inside(self) -> set[Tensor]:
        results = {tensor for node in self.nodes for tensor in node.outputs if not self._takes_away_order(node)}
        return results | set(self.entries)

    def _is_fed(self, node: Node, tensor: Tensor, inside: set[Tensor]) -> bool:
        return tensor in inside or (self._rw.is_fixed(tensor) and node.op in BROADCASTING | {"Concat"})

    def _is_absorbed(self, reader: Node) -> bool:
        return reader in self.nodes or (self._rw.owns(reader) and reader.op == "Transpose")

    def _cancels(self, reader: Node) -> bool:
        if reader.op != "Transpose" or not self._rw.owns(reader):
            return False
        return permutation(self._rw, reader) == self._inverse

    def _remap(self, node: Node) -> None:
        """Gives the axes of an operator's attributes and parameters as they are in front."""
        rw, order, rank = self._rw, self._order, len(self._order)
        label = node.name or node.op.lower()
        if node.op in _ALONG_AXIS:
            default = 0 if node.op == "Split" else -1
            node.attrs["axis"] = order[int(node.attrs.get("axis", default)) % rank]
        elif node.op in _REDUCTIONS:
            axes = [order[axis] for axis in reduced_axes(self._rw, node) or ()]
            if "axes" in node.attrs:
                node.attrs["axes"] = axes
            else:
                rw.set_input(node, 1, rw.graph.const(f"{label}.axes", np.array(axes, np.int64)))
        elif node.op == "Slice":
            along = rw.fixed(node.inputs[3])
            assert along is not None
            turned = np.array([order[int(axis) % rank] for axis in along.reshape(-1)], along.dtype)
            rw.set_input(node, 3, rw.graph.const(f"{label}.axes", turned))
        elif node.op == "Pad":
            pads = rw.fixed(node.inputs[1])
            assert pads is not None
            turned = pads.reshape(2, rank)[:, self._inverse].reshape(-1)
            rw.set_input(node, 1, rw.graph.const(f"{label}.pads", np.ascontiguousarray(turned)))

    def _turn_constant(self, node: Node, place: int, constant: Constant) -> None:
        """Puts a constant operand in the layout in front."""
        if constant.values.size == 1:
            return
        wide = constant.values.reshape((1,) * (len(self._order) - constant.values.ndim) + constant.values.shape)
        turned = np.ascontiguousarray(wide.transpose(self._inverse))
        self._rw.set_constant(node, place, turned, f"{constant.name}.turned")
