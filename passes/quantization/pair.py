"""A float network and the quantized one that came of it, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgec.ir.graph import Graph, Tensor, Variable


@dataclass(frozen=True)
class Pair:
    """Two networks of one shape: what steps that recover accuracy, and the debugger, compare.

    A node keeps its name when it is quantized, so ``original`` and ``quantized`` are matched by the names of nodes;
    tensors are not (the DQ behind an output takes the output's name).

    Attributes:
        original: the float network, as it was before Q and DQ were written. Nothing changes it.
        quantized: the same with Q and DQ; its integer weights and biases are constants.
        tensors: for each activation of ``original`` that is quantized, the output of its DQ in ``quantized``. Behind an
            operator with a fused Relu or Clip that is the activation's output.
    """

    original: Graph
    quantized: Graph
    tensors: Mapping[Variable, Variable]

    @staticmethod
    def of(original: Graph, mapped: Mapping[Tensor, Tensor], graph: Graph, behind: Mapping[Variable, Variable]) -> Pair:
        """From ``graph``, a copy of it that was made before it was quantized, and where its tensors went.

        Args:
            original: the copy.
            mapped: from ``graph``'s tensors to the copy's, as ``Graph.copy`` gives them.
            graph: the network, quantized by now.
            behind: from ``graph``'s tensors to what their DQ gives.
        """
        tensors = {copied: given for tensor, given in behind.items() if isinstance(copied := mapped[tensor], Variable)}
        return Pair(original, graph, tensors)
