"""The graph that passes rewrite.

Its vocabulary is onnx-graphsurgeon's (``node.inputs``, ``tensor.outputs``, ``node.attrs``). Three things differ. Parts
are equal only to themselves and can be hashed, so detaching one of two alike nodes detaches the right one. Constants
are read-only views of the model's file until an array is assigned to ``values``. And new parts are made by the verbs of
:class:`Graph` (``op``, ``const``, ``replace``, ``erase``, ``replace_uses``), which cost no more on a large graph than
on a small one. All else takes the names of nodes and tensors from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np
import onnx

from edgec.ir.garbage import uncollected
from edgec.ir.naming import Names
from edgec.ir.node_list import NodeList
from edgec.ir.stored import Stored, numpy_dtype, onnx_dtype
from edgec.ir.tensors import NO_METADATA, Constant, Shape, Tensor, Variable
from edgec.ir.uses import Inputs, Outputs

__all__ = [
    "Constant",
    "Graph",
    "Node",
    "Shape",
    "Stored",
    "Tensor",
    "Variable",
    "constant_of",
    "consumers",
    "detach",
    "numpy_dtype",
    "onnx_dtype",
    "producer",
    "static_shape",
    "variable_of",
]


class Node:
    """One operator: ``op`` of ``domain`` with ``attrs``, from ``inputs`` to ``outputs``."""

    op: str
    name: str
    attrs: dict[str, Any]
    inputs: Inputs[Tensor]
    outputs: Outputs[Variable]
    domain: str
    doc_string: str = ""
    overload: str = ""
    metadata: Mapping[str, str] = NO_METADATA

    def __init__(
        self,
        op: str,
        name: str = "",
        attrs: dict[str, Any] | None = None,
        inputs: Iterable[Tensor] = (),
        outputs: Iterable[Variable] = (),
        domain: str = "",
    ) -> None:
        ins, outs = Inputs(inputs), Outputs(outputs)
        ins.owner = outs.owner = self
        # Past __setattr__: large graphs are made of this.
        vars(self).update(
            op=op, name=name, attrs={} if attrs is None else attrs, inputs=ins, outputs=outs, domain=domain
        )
        for tensor in ins:
            list.append(tensor.outputs, self)
        for tensor in outs:
            list.append(tensor.inputs, self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("inputs", "outputs"):  # the other ends follow
            getattr(self, name)[:] = value
        else:
            super().__setattr__(name, value)

    def subgraphs(self, recursive: bool = False) -> Iterator[Graph]:
        """The graphs in its attributes (If, Loop, Scan); with ``recursive`` those inside them too."""
        found: list[Graph] = []
        for value in self.attrs.values():
            if isinstance(value, Graph):
                found.append(value)
            elif value.__class__ is list and value and isinstance(value[0], Graph):
                found.extend(value)
        if recursive:
            for graph in found:  # grows while deeper ones are met
                for node in graph.nodes:
                    found.extend(node.subgraphs())
        return iter(found)

    def __repr__(self) -> str:
        names = ", ".join(t.name for t in self.inputs)
        return f"Node({self.name!r}: {', '.join(t.name for t in self.outputs)} = {self.op}({names}))"


class Graph:
    """A model, or a subgraph of one.

    Attributes:
        name, doc_string: as the file has them.
        inputs, outputs: the signature; an input that has a default is a :class:`Constant`.
        opsets: version by operator domain; ``opset`` is that of the standard domain.
        metadata: the model's metadata properties.
        carried: the rest of the model's proto (producer, domain, version, training information), kept for export.
        graph_metadata: the graph's own metadata properties.
    """

    def __init__(
        self,
        nodes: Sequence[Node] = (),
        inputs: Sequence[Tensor] = (),
        outputs: Sequence[Tensor] = (),
        name: str = "graph",
        doc_string: str = "",
        opset: int = 17,
        opsets: Mapping[str, int] | None = None,
        ir_version: int | None = None,
    ) -> None:
        self.name, self.doc_string = name, doc_string
        self.inputs, self.outputs = list(inputs), list(outputs)
        self.opsets: dict[str, int] = {"": opset} if opsets is None else dict(opsets)
        self._nodes = NodeList(nodes)
        self.names = Names(self)
        self.ir_version = ir_version
        self.producer_name, self.producer_version = "", ""
        self.metadata: dict[str, str] = {}
        self.graph_metadata: dict[str, str] = {}
        self.carried: onnx.ModelProto | None = None

    @property
    def nodes(self) -> NodeList:
        """In execution order."""
        return self._nodes

    @nodes.setter
    def nodes(self, nodes: Iterable[Node]) -> None:
        self._nodes = nodes if isinstance(nodes, NodeList) else NodeList(nodes)

    def share(self, parent: Graph) -> None:
        """Makes this a subgraph of ``parent``: it has its opsets, and its names differ from all of the model's."""
        self.opsets = parent.opsets
        parent.names.join(self)

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return self.opsets.get("", self.opsets.get("ai.onnx", 0))

    @opset.setter
    def opset(self, version: int) -> None:
        self.opsets.pop("ai.onnx", None)
        self.opsets[""] = int(version)

    def subgraphs(self, recursive: bool = False) -> Iterator[Graph]:
        """The graphs inside its nodes' attributes; with ``recursive`` those inside them too."""
        for node in self.nodes:
            yield from node.subgraphs(recursive)

    def __repr__(self) -> str:
        return f"Graph({self.name!r}, {len(self.nodes)} nodes)"

    # -- names ------------------------------------------------------------------------------------------------------

    def fresh(self, name: str) -> str:
        """A name like ``name`` that no node or tensor of the model has, subgraphs included."""
        return self.names.fresh(name)

    # -- verbs ------------------------------------------------------------------------------------------------------

    @overload
    def op(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        *,
        name: str = ...,
        outputs: Literal[1] = ...,
        domain: str = ...,
        before: Node | None = ...,
        **attrs: Any,
    ) -> Variable: ...

    @overload
    def op(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        *,
        name: str = ...,
        outputs: int | Sequence[Variable],
        domain: str = ...,
        before: Node | None = ...,
        **attrs: Any,
    ) -> list[Variable]: ...

    def op(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        *,
        name: str = "",
        outputs: int | Sequence[Variable] = 1,
        domain: str = "",
        before: Node | None = None,
        **attrs: Any,
    ) -> Variable | list[Variable]:
        """Adds a node and returns what it computes.

        Args:
            op: the operator.
            inputs: its inputs; ``None`` for one that is omitted.
            name: the node's name, made unique; its outputs are named for it.
            outputs: how many outputs, or the variables themselves. One output is returned bare, otherwise a list.
            before: the node to put it in front of; appended when not given (sort the graph afterwards).
            attrs: attributes, as Python values.
        """
        label = self.fresh(name or op.lower())
        if isinstance(outputs, int):
            single = outputs == 1
            made = [Variable(self.fresh(f"{label}.out{i}" if i else f"{label}.out")) for i in range(outputs)]
        else:
            single, made = False, list(outputs)
        ins = [Variable.empty() if t is None else t for t in inputs]
        node = Node(op, label, {k: v for k, v in attrs.items() if v is not None}, ins, made, domain)
        if before is None:
            self.nodes.append(node)
        else:
            self.nodes.insert(self.nodes.index(before), node)
        return made[0] if single else made

    def const(self, name: str, values: Any) -> Constant:
        """A new constant whose name is ``name``, made unique."""
        return Constant(self.fresh(name), np.asarray(values))

    def replace_uses(self, old: Tensor, new: Tensor) -> None:
        """Makes every consumer of ``old`` read ``new``, subgraphs included; a graph output keeps its name.

        Linear in the number of uses. ``new``'s own producer goes on reading ``old``, so that
        ``replace_uses(x, op(x))`` puts an operator behind ``x``.
        """
        from edgec.ir.rewiring import replace_uses

        replace_uses(self, old, new)

    def replace(self, node: Node, outputs: Sequence[Tensor] | Tensor) -> None:
        """Puts ``outputs`` in the place of what ``node`` computed, one for one, and erases the node."""
        new = [outputs] if isinstance(outputs, Variable | Constant) else list(outputs)
        if len(new) != len(node.outputs):
            raise ValueError(f"node '{node.name}' has {len(node.outputs)} outputs, but {len(new)} replace them")
        for old, tensor in zip(list(node.outputs), new, strict=True):
            self.replace_uses(old, tensor)
        self.erase(node)

    def erase(self, node: Node) -> None:
        """Takes a node out; what it computed must have no consumer left."""
        used = next((t for t in node.outputs if t.outputs or any(t is o for o in self.outputs)), None)
        if used is not None:
            raise ValueError(f"node '{node.name}' cannot be erased: its output '{used.name}' is still used")
        del self.nodes[self.nodes.index(node)]
        detach(node)

    # -- views ------------------------------------------------------------------------------------------------------

    def graphs(self) -> list[Graph]:
        """This graph and those inside it, outer ones first."""
        return [self, *(inner for node in self.nodes for inner in node.subgraphs(recursive=True))]

    def constants(self) -> list[Constant]:
        """Every constant in use, once, in the order of first use; those of subgraphs included."""
        found: dict[Constant, None] = {}
        for tensor in _tensors(self):
            if isinstance(tensor, Constant):
                found[tensor] = None
        return list(found)

    def variables(self) -> list[Variable]:
        """Every named variable of this graph, once, inputs first; those of subgraphs included."""
        found: dict[Variable, None] = {}
        for tensor in _tensors(self):
            if isinstance(tensor, Variable) and tensor.name:
                found[tensor] = None
        return list(found)

    def tensor(self, name: str) -> Tensor | None:
        """The tensor of that name, or ``None``. Looks through the whole graph: not for loops."""
        return next((t for t in _tensors(self) if t.name == name), None)

    def node(self, name: str) -> Node | None:
        """The node of that name, or ``None``. Looks through the whole graph: not for loops."""
        return next((n for n in self.nodes if n.name == name), None)

    def copy(self, tensor_map: dict[Tensor, Tensor] | None = None) -> Graph:
        """A graph of its own that shares the weights' memory (arrays are read-only, so sharing is safe)."""
        from edgec.ir.copying import copy

        with uncollected():
            return copy(self, {} if tensor_map is None else tensor_map)

    # -- ordering (ir/order.py) -------------------------------------------------------------------------------------

    def sort(self) -> Graph:
        """Puts the nodes in execution order; a graph that is in order already is left as it is."""
        from edgec.ir.order import sort

        sort(self)
        return self

    def remove_dead(self) -> int:
        """Removes nodes that no output depends on; returns how many."""
        from edgec.ir.order import remove_dead

        return remove_dead(self)


def constant_of(tensor: Tensor) -> Constant:
    """A tensor that is known to be a constant."""
    assert isinstance(tensor, Constant), f"'{tensor.name}' is computed"
    return tensor


def variable_of(tensor: Tensor) -> Variable:
    """A tensor that is known to be computed."""
    assert isinstance(tensor, Variable), f"'{tensor.name}' is a constant"
    return tensor


def static_shape(tensor: Tensor) -> tuple[int, ...]:
    """The sizes of a tensor that is known to have no open dimension."""
    shape = () if tensor.shape is None else tuple(tensor.shape)
    assert tensor.shape is not None and all(isinstance(size, int | np.integer) for size in shape), tensor
    return tuple(int(size) for size in shape if size is not None)


def producer(tensor: Tensor) -> Node | None:
    """The node that computes ``tensor``; ``None`` for an input or a constant."""
    return tensor.inputs[0] if tensor.inputs else None


def consumers(tensor: Tensor) -> list[Node]:
    """The nodes that read ``tensor``, each once, in the order in which they took it up."""
    return list(dict.fromkeys(tensor.outputs))


def detach(node: Node) -> None:
    """Frees a node from its tensors; it stays in whatever list holds it."""
    for tensor in node.inputs:
        list.remove(tensor.outputs, node)
    for tensor in node.outputs:
        list.remove(tensor.inputs, node)
    list.clear(node.inputs)
    list.clear(node.outputs)


def _tensors(graph: Graph) -> Iterator[Tensor]:
    yield from graph.inputs
    for node in graph.nodes:
        for tensor in (*node.inputs, *node.outputs):
            yield tensor
            if tensor.quantization is not None:
                yield from tensor.quantization.values()
        for subgraph in node.subgraphs():
            yield from _tensors(subgraph)
    yield from graph.outputs
