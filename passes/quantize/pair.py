"""A float network and the quantized one that came of it."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, variable_of

_AROUND = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Pair:
    """Two networks of one shape: what steps that recover accuracy compare.

    Nodes other than Q and DQ are the same ones in the same order.

    Attributes:
        original: the float network, as it was before Q and DQ were written. Nothing changes it.
        quantized: the same with Q and DQ; its integer weights and biases are constants.
    """

    original: Graph
    quantized: Graph

    @property
    def operators(self) -> list[tuple[Node, Node]]:
        """Each node of the float network beside its twin in the quantized one."""
        own = (node for node in self.quantized.nodes if node.op not in _AROUND)
        return list(zip(self.original.nodes, own, strict=True))

    def twins(self) -> dict[Tensor, Variable]:
        """By tensor of the quantized network that an operator computes or that is fed: what it is in the float one."""
        found: dict[Tensor, Variable] = dict(
            zip(self.quantized.inputs, map(variable_of, self.original.inputs), strict=True)
        )
        for exact, quantized in self.operators:
            found.update(zip(quantized.outputs, exact.outputs, strict=True))
        return found

    def rounded_activations(self) -> Graph:
        """A copy of the quantized network whose weights and biases are the float network's."""
        graph = self.quantized.copy()
        for (exact, own), node in zip(
            self.operators, (node for node in graph.nodes if node.op not in _AROUND), strict=True
        ):
            for place, (before, now) in enumerate(zip(exact.inputs, own.inputs, strict=False)):
                if isinstance(before, Constant) and not isinstance(now, Constant):
                    node.inputs[place] = graph.const(before.name, before.values)
        return graph.sort()
