"""What brings a float network into the operators of a device: passes like any other, which a backend lists.

They run in front of quantization, which then calibrates what is emitted. Each is exact up to float32 rounding.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.passes.framework.base import Effect, Pass
from edgec.passes.framework.context import Context
from edgec.passes.framework.planner import Planned


@dataclass(frozen=True)
class Legalization(Pass):
    """A step of bringing a network into the operators of a device.

    Class attributes:
        words: what remarks say that it did with an operator.
    """

    effect: ClassVar[Effect] = "exact"
    per_target: ClassVar[bool] = True
    words: ClassVar[str]

    @abc.abstractmethod
    def rewrite(self, graph: Graph, ctx: Context) -> int:
        """Rewrites ``graph`` in place; returns how many operators were changed.

        Raises:
            EmitError: there is no way to bring an operator into those of the device.
        """

    def run(self, graph: Graph, ctx: Context) -> None:
        """Rewrites ``graph`` and reports the operators that are gone from it."""
        before = [node for inside in graph.graphs() for node in inside.nodes]
        changed = self.rewrite(graph, ctx)
        if not changed:
            return
        Shapes(graph).annotate(graph)
        now = {node for inside in graph.graphs() for node in inside.nodes}
        gone = [node for node in before if node not in now]
        for node in gone:
            ctx.did(node, f"{node.op} {self.words}")
        if not gone:
            ctx.did("the network", f"{changed} operators {self.words}")


def planned(steps: Sequence[Pass], backend: str) -> list[Planned]:
    """A backend's steps, ready to run."""
    return [Planned(step, f"legalization[{index}]", f"backend '{backend}'") for index, step in enumerate(steps)]
