"""What a quantized network must still reach, by the pass's own budget or the recipe's requirements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgec.ir.errors import UsageError
from edgec.ir.execution import Session
from edgec.ir.graph import Graph
from edgec.passes import input_domain
from edgec.passes.judging import Judge, split
from edgec.passes.protocol import Context
from edgec.passes.streaming import batches

# Batches that the SQNR is not measured on, at most, where there are enough.
_MOST_FITTED = 64


@dataclass(frozen=True)
class Reached:
    """What a network reaches: figures by the requirements' names, and whether all requirements are met."""

    figures: Mapping[str, float]
    met: bool


class Goal:
    """Judges quantized networks by what was asked.

    Args:
        graph: the float network.
        ctx: its calibration data, the recipe's requirements and metric.
        budget: the least SQNR in dB; the recipe's requirements count where there is none.

    Raises:
        UsageError: nothing was asked that quantization could miss.
    """

    def __init__(self, graph: Graph, ctx: Context, budget: float | None) -> None:
        self._least = budget if budget is not None else ctx.require.get("sqnr_min")
        asked = {} if budget is not None else ctx.require
        self._metric = {name: value for name, value in asked.items() if name.startswith("metric_")}
        if self._least is None and not self._metric:
            what = "needs something to meet"
            raise UsageError("quantize: precision", what, "write budget, or sqnr_min or metric_drop under require")
        self._ctx = ctx
        self._judge = Judge(graph, ctx, split(batches(graph, ctx), _MOST_FITTED))
        self._baseline = self._measured(ctx.original or graph) if "metric_drop" in self._metric else 0.0

    @property
    def words(self) -> str:
        """What is asked."""
        asked = {"SQNR at least": self._least, **{name.replace("_", " "): v for name, v in self._metric.items()}}
        return ", ".join(f"{name} {value:g}" for name, value in asked.items() if value is not None)

    def reached(self, graph: Graph) -> Reached:
        """Judges a network."""
        figures, met = {}, True
        if self._least is not None:
            figures["sqnr_db"] = self._judge.sqnr_db(graph)
            met = figures["sqnr_db"] >= self._least
        if self._metric and met:
            value = figures["metric"] = self._measured(graph)
            higher = self._ctx.judge is not None and self._ctx.judge.higher_is_better
            worse = self._baseline - value if higher else value - self._baseline
            checks = {"metric_drop": worse, "metric_min": -value, "metric_max": value}
            limits = {"metric_min": -self._metric.get("metric_min", 0.0)}
            met = all(checks[name] <= limits.get(name, asked) for name, asked in self._metric.items())
        return Reached(figures, met)

    def _measured(self, graph: Graph) -> float:
        judge = self._ctx.judge
        if judge is None:
            raise UsageError("quantize: precision", "has no metric to meet", "add data.eval, or write sqnr_min")
        session = Session(graph, threads=self._ctx.threads)

        def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return session.run(input_domain.enter(graph, feeds))

        return judge.measure(run)
