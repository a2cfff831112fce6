"""A worklist over the nodes of a graph: local rewrites in time that grows with their number, not with the graph.

Nodes that go away and nodes that come are written into the graph's list once, at the end; until then they are detached
from, or attached to, their tensors. So a rule may rewrite thousands of nodes without the list being searched each time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers, detach, producer
from edgec.ir.shapes import Shapes
from edgec.passes.framework.context import Context


def quoted(node: Node) -> str:
    """What a remark calls a node: its name, or that of its result where it has none."""
    return f"'{node.name or node.outputs[0].name}'"


class Rewriter:
    """The rewriting of one graph by one pass.

    Args:
        graph: what is rewritten; its own list of nodes is brought up to date by :meth:`finish`.
        ctx: remarks go there, shapes come from there.
    """

    def __init__(self, graph: Graph, ctx: Context) -> None:
        self.graph = graph
        self.ctx = ctx
        # Constants that rules made, with the array they come from, by the rules' own keys, so that sharing survives.
        self.made: dict[Any, tuple[np.ndarray, Constant]] = {}
        self._shapes = ctx.get(Shapes)
        self._shown: dict[Variable, tuple[int | None, ...] | None] = {}
        self._overridable = {id(t) for t in graph.inputs if isinstance(t, Constant)}
        self._outputs = {id(tensor) for inside in graph.graphs() for tensor in inside.outputs}
        self._own = set(graph.nodes)
        self._gone: set[Node] = set()
        self._new: dict[Node, list[Node]] = {}
        self._late: list[Node] = []
        self._pending: deque[Node] = deque(graph.nodes)
        self._waiting: set[Node] = set(graph.nodes)
        self._missed: dict[Node, str] = {}

    # -- what rules ask ---------------------------------------------------------------------------------------------

    def shape(self, tensor: Tensor) -> tuple[int | None, ...] | None:
        """Its dimensions, ``None`` for an unknown one, ``None`` for unknown rank."""
        if isinstance(tensor, Variable) and tensor in self._shown:
            return self._shown[tensor]
        return self._shapes.shape(tensor)

    def static(self, tensor: Tensor) -> tuple[int, ...] | None:
        """Its dimensions where all are known."""
        shape = self.shape(tensor)
        return None if shape is None or None in shape else tuple(d for d in shape if d is not None)

    def rank(self, tensor: Tensor) -> int | None:
        """How many dimensions it has, where known."""
        shape = self.shape(tensor)
        return None if shape is None else len(shape)

    def dtype(self, tensor: Tensor) -> np.dtype | None:
        """Its element type, where known."""
        known = self._shapes.dtype(tensor)
        return known if known is not None or tensor.dtype is None else np.dtype(tensor.dtype)

    def fixed(self, tensor: Tensor) -> np.ndarray | None:
        """The values of a constant that nobody can override at run time; ``None`` for any other tensor."""
        return tensor.values if self.is_fixed(tensor) and isinstance(tensor, Constant) else None

    def is_fixed(self, tensor: Tensor) -> bool:
        """Whether it is a constant that is not an input with a default."""
        return isinstance(tensor, Constant) and id(tensor) not in self._overridable

    def is_output(self, tensor: Tensor) -> bool:
        """Whether it is an output of the graph or of a subgraph."""
        return id(tensor) in self._outputs

    def single_use(self, tensor: Tensor) -> bool:
        """Whether exactly one input of one node reads it, and nothing else sees it."""
        return len(tensor.outputs) == 1 and not self.is_output(tensor) and tensor.outputs[0] in self._own

    def readers(self, tensor: Tensor) -> list[Node] | None:
        """The nodes that read it, each once; ``None`` where an output or a subgraph sees it too."""
        if self.is_output(tensor) or any(node not in self._own for node in tensor.outputs):
            return None
        return consumers(tensor)

    def can_replace(self, node: Node, tensor: Tensor) -> bool:
        """Whether ``tensor`` can stand for the node's first output without an Identity to keep the signature."""
        return not self.is_output(node.outputs[0]) or not (producer(tensor) is None or self.is_output(tensor))

    # -- what rules do ----------------------------------------------------------------------------------------------

    def replace(self, node: Node, tensor: Tensor) -> None:
        """Everything that read the node's first output reads ``tensor``; the node goes.

        Where that output is the graph's and ``tensor`` cannot take over its name (an input, a constant, another
        output), the node becomes an Identity instead: the signature is kept.
        """
        out = node.outputs[0]
        if not self.can_replace(node, tensor):
            node.op, node.domain = "Identity", ""
            node.attrs.clear()
            old = list(node.inputs)
            node.inputs.clear()
            node.inputs.append(tensor)
            self._missed.pop(node, None)
            for input in old:
                self._release(input)
            return
        was_output = self.is_output(out)
        moved = consumers(out)
        self.graph.replace_uses(out, tensor)
        if was_output:
            self._outputs.discard(id(out))
            self._outputs.add(id(tensor))
        self.touch(*moved)
        source = producer(tensor)
        if source is not None:
            self.touch(source)
        self.remove(node)

    def remove(self, node: Node) -> None:
        """Takes out a node whose outputs nobody reads, and what only it needed."""
        inputs = list(node.inputs)
        detach(node)
        self._gone.add(node)
        self._missed.pop(node, None)
        for tensor in inputs:
            self._release(tensor)

    def set_input(self, node: Node, place: int, tensor: Tensor) -> None:
        """Makes an input of a node another tensor; omitted inputs in front of it are filled in as omitted."""
        while len(node.inputs) <= place:
            node.inputs.append(Variable.empty())
        old = node.inputs[place]
        if old is tensor:
            return
        node.inputs[place] = tensor
        self.touch(node)
        self._release(old)

    def set_inputs(self, node: Node, inputs: Sequence[Tensor]) -> None:
        """Makes a node read other tensors than it did, in number, too."""
        old = list(node.inputs)
        node.inputs[:] = list(inputs)
        self.touch(node)
        for tensor in old:
            self._release(tensor)

    def insert(
        self,
        before: Node,
        op: str,
        inputs: Sequence[Tensor],
        *,
        name: str,
        output: Variable | None = None,
        shape: tuple[int | None, ...] | None = None,
        dtype: Any = None,
        **attrs: Any,
    ) -> Variable:
        """A new node in front of ``before``; returns its output, which is ``output`` where that is given."""
        label = self.graph.fresh(name)
        if output is None:
            output = Variable(self.graph.fresh(f"{label}.out"), dtype, shape)
            self._shown[output] = shape
        node = Node(op, label, {k: v for k, v in attrs.items() if v is not None}, inputs, [output])
        self._own.add(node)
        self._new.setdefault(before, []).append(node)
        self.touch(node)
        return output

    def insert_for(self, output: Variable, op: str, inputs: Sequence[Tensor], *, name: str, **attrs: Any) -> None:
        """A new node that computes a tensor which no node computes any more; the graph is sorted in the end."""
        node = Node(op, self.graph.fresh(name), {k: v for k, v in attrs.items() if v is not None}, inputs, [output])
        self._own.add(node)
        self._late.append(node)
        self.touch(node)

    def renew_output(self, node: Node, place: int, shape: tuple[int | None, ...] | None) -> Variable:
        """Gives a node another result, of another shape, in the place of one; who read that one still does."""
        old = node.outputs[place]
        new = Variable(self.graph.fresh(f"{old.name}.in_front"), self.dtype(old), shape)
        self._shown[new] = shape
        node.outputs[place] = new
        self.touch(node)
        return new

    def free_outputs(self, node: Node) -> list[Variable]:
        """Takes a node's outputs from it, for another node to compute; the node then goes with :meth:`remove`."""
        outputs = list(node.outputs)
        node.outputs.clear()
        return outputs

    def set_constant(self, node: Node, place: int, values: np.ndarray, name: str) -> Constant:
        """Gives a node new values at an input: into its constant where only it reads that, else as a constant called
        ``name``."""
        old = node.inputs[place] if place < len(node.inputs) else None
        if isinstance(old, Constant) and self.is_fixed(old) and self.single_use(old):
            old.values = values
            self.touch(node)
            return old
        made = self.graph.const(name, values)
        self.set_input(node, place, made)
        return made

    def owns(self, node: Node) -> bool:
        """Whether a node is one of this graph's, not of a subgraph's."""
        return node in self._own

    def gone(self, node: Node) -> bool:
        """Whether a node has been taken out."""
        return node in self._gone

    def touch(self, *nodes: Node) -> None:
        """Has nodes looked at again."""
        for node in nodes:
            if node in self._own and node not in self._waiting and node not in self._gone:
                self._waiting.add(node)
                self._pending.append(node)

    def did(self, node: Node, what: str, **figures: float) -> None:
        """Reports a change; what was missed at that node before is forgotten."""
        self._missed.pop(node, None)
        self.ctx.did(node, what, **figures)

    def missed(self, node: Node, reason: str) -> bool:
        """Notes why a rule left a node alone; reported at the end if the node is still there. Returns ``False``."""
        self._missed[node] = reason
        return False

    # -- running ----------------------------------------------------------------------------------------------------

    def run(self, rules: Mapping[str, Sequence[Callable[[Rewriter, Node], bool]]]) -> None:
        """Applies rules until none applies. A rule says whether it changed anything."""
        while self._pending:
            node = self._pending.popleft()
            self._waiting.discard(node)
            if node.domain not in ("", "ai.onnx"):
                continue
            for rule in rules.get(node.op, ()):
                if node in self._gone:
                    break
                if rule(self, node):
                    self.touch(node)
                    break

    def finish(self) -> None:
        """Brings the graph's list of nodes up to date and reports what was missed."""
        if self._gone or self._new or self._late:
            kept: list[Node] = []
            for node in (*self.graph.nodes, *self._late):
                stack = [(node, iter(self._new.get(node, ())))]
                while stack:
                    current, earlier = stack[-1]
                    follower = next(earlier, None)
                    if follower is not None:
                        stack.append((follower, iter(self._new.get(follower, ()))))
                        continue
                    stack.pop()
                    if current not in self._gone:
                        kept.append(current)
            self.graph.nodes[:] = kept
            if self._late:
                self.graph.sort()
            self.ctx.changed()
        for node in self.graph.nodes:
            if node in self._missed:
                self.ctx.missed(node, self._missed[node])

    def _release(self, tensor: Tensor) -> None:
        """Removes what computed a tensor that nobody reads any more, and so on backwards."""
        stack = [tensor]
        while stack:
            freed = stack.pop()
            source = producer(freed)
            if source is None or source in self._gone:
                continue
            if any(t.outputs or self.is_output(t) for t in source.outputs):
                self.touch(source)
                if len(freed.outputs) == 1:
                    self.touch(freed.outputs[0])
                continue
            if any(source.subgraphs()):
                continue  # what its subgraphs capture is for the general removal of dead code to free
            stack.extend(source.inputs)
            detach(source)
            self._gone.add(source)
            self._missed.pop(source, None)
