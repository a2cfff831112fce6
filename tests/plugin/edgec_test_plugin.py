"""A pass as a third party writes one: it multiplies every output, so that its effect shows at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from edgec.ir.graph import Graph
from edgec.passes import Context, Effect, Pass


@dataclass(frozen=True)
class ScaleOutputs(Pass):
    """Multiplies every output by ``factor``."""

    name: ClassVar[str] = "scale-outputs"
    effect: ClassVar[Effect] = "lossy"
    needs: ClassVar[frozenset[str]] = frozenset({"float"})

    factor: Annotated[float, Field(gt=0, description="what the outputs are multiplied by")] = 2.0

    def run(self, graph: Graph, ctx: Context) -> None:
        for output in list(graph.outputs):
            name = output.name  # what takes its place takes its name too
            factor = graph.const(f"{name}.factor", np.array(self.factor, output.dtype))
            graph.replace_uses(output, graph.op("Mul", [output, factor], name=f"{name}.scaled"))
            ctx.did(name, f"multiplied by {self.factor:g}")
