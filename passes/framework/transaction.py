"""Tries that can be taken back: on the graph itself, or on a copy that is taken over where it succeeds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable
from edgec.ir.node_list import NodeList
from edgec.ir.stored import Stored


class Transaction:
    """What a graph is when this is made, for :meth:`undo`; whoever keeps what was tried does nothing.

    Nodes and tensors stay the objects that they are, so what refers to them holds behind an undone try, too. Arrays are
    not copied: nobody writes into them.

    Args:
        graph: what is tried on, with the graphs inside it.
        constants: the only constants that the try may change, where it changes nothing else; by default anything may.
    """

    def __init__(self, graph: Graph, constants: Iterable[Constant] | None = None) -> None:
        self._graph = graph
        whole = constants is None
        self._values: dict[Constant, np.ndarray | Stored] = {
            constant: constant.held for constant in (graph.constants() if constants is None else constants)
        }
        self._graphs = [(one, list(one.nodes), list(one.inputs), list(one.outputs)) for one in graph.graphs() if whole]
        self._variables = {
            variable: dict(vars(variable)) for variable in (graph.variables() if whole else ()) if variable.name
        }
        self._nodes = [_Held(node) for _, nodes, _, _ in self._graphs for node in nodes]
        self._metadata = dict(graph.metadata)

    def undo(self) -> None:
        """Makes the graph what it was."""
        for constant, values in self._values.items():
            constant.hold(values)
        for one, nodes, inputs, outputs in self._graphs:
            before = set(nodes)
            for node in [node for node in one.nodes if node not in before]:
                node.inputs.clear()  # what it read no longer has it as a reader
                node.outputs.clear()
            one.nodes = NodeList(nodes)
            one.inputs, one.outputs = inputs, outputs
        for variable, held in self._variables.items():
            variable.__class__ = Variable  # it may have become a constant
            vars(variable).clear()
            vars(variable).update(held)
        for one_node in self._nodes:
            one_node.restore()
        self._graph.metadata = dict(self._metadata)


class _Held:
    """What one node was."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.op, self.name, self.domain = node.op, node.name, node.domain
        self.attrs: dict[str, Any] = dict(node.attrs)
        self.inputs: list[Tensor] = list(node.inputs)
        self.outputs: list[Variable] = list(node.outputs)

    def restore(self) -> None:
        node = self.node
        node.op, node.name, node.domain = self.op, self.name, self.domain
        node.attrs.clear()
        node.attrs.update(self.attrs)
        node.inputs[:] = self.inputs
        node.outputs[:] = self.outputs


def take_over(graph: Graph, trial: Graph) -> None:
    """Makes ``graph`` what a copy of it has become."""
    graph.nodes = NodeList(trial.nodes)  # its names are read anew
    graph.inputs, graph.outputs = trial.inputs, trial.outputs
