"""A float network and the quantized one that came of it."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.ir.graph import Graph


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
