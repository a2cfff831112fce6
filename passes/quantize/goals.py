"""What a quantized network must still reach, by the pass's own budget or the recipe's requirements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgec.ir.errors import UsageError
from edgec.ir.estimates import Scores
from edgec.ir.execution import batch_size, filled
from edgec.ir.graph import Graph
from edgec.passes.calibration.batch_split import split
from edgec.passes.calibration.dataset import ROLE, Part
from edgec.passes.calibration.evaluate import Evaluation, runner
from edgec.passes.calibration.requirements import Reached as Networks
from edgec.passes.calibration.requirements import judge
from edgec.passes.calibration.runner import batches
from edgec.passes.framework.context import Context

# Batches that the SQNR is not measured on, at most, where there are enough.
_MOST_FITTED = 64


@dataclass(frozen=True)
class Reached:
    """What a network reaches: figures by the requirements' names, and whether all requirements are met."""

    figures: Mapping[str, float]
    met: bool


class Goal:
    """Judges quantized networks by what was asked, as the report will judge what is emitted.

    The samples are those that passes choose by: of the calibration data those that are held out, of ``data.eval`` those
    that are not reported on.

    Args:
        graph: the float network.
        ctx: its calibration data, the recipe's requirements and metric.
        budget: the least SQNR in dB; the recipe's requirements count where there is none.

    Raises:
        UsageError: nothing was asked that quantization could miss.
    """

    def __init__(self, graph: Graph, ctx: Context, budget: float | None) -> None:
        asked = ctx.config.require if budget is None else {"sqnr_min": budget}
        self._asked = {name: value for name, value in asked.items() if name.startswith(("metric_", "sqnr_"))}
        if not self._asked:
            what = "needs something to meet"
            raise UsageError("quantize: precision", what, "write budget, or sqnr_min or metric_drop under require")
        self._ctx = ctx
        by_metric = any(name.startswith("metric_") for name in self._asked)
        if by_metric and ctx.config.metric is None:
            raise UsageError("quantize: precision", "has no metric to meet", "add data.eval, or write sqnr_min")
        size = batch_size(graph)
        held = Part(ctx.data[ROLE], split(batches(graph, ctx), _MOST_FITTED).judge, size)
        feeds = [{name: filled(x, size) for name, x in one.items()} for one in held.batches(size)]
        self._evaluation = Evaluation(graph, feeds, size)
        original = ctx.config.original or graph
        metric = ctx.config.metric
        self._baseline = metric.scores(runner(original)) if metric is not None and by_metric else None

    @property
    def words(self) -> str:
        """What is asked."""
        names = {"sqnr_min": "SQNR at least"}
        return ", ".join(f"{names.get(name, name.replace('_', ' '))} {value:g}" for name, value in self._asked.items())

    def reached(self, graph: Graph) -> Reached:
        """Judges a network."""
        run = runner(graph)
        sqnr, metric = None, None
        if "sqnr_min" in self._asked:
            sqnr = self._evaluation.sqnr(run)
            if not self._met({"sqnr_min": self._asked["sqnr_min"]}, sqnr, None):
                return Reached({"sqnr_db": sqnr.value()}, False)
        if self._ctx.config.metric is not None and self._baseline is not None:
            metric = self._ctx.config.metric.scores(run)
        figures = {} if sqnr is None else {"sqnr_db": sqnr.value()}
        if metric is not None:
            figures["metric"] = metric.value()
        return Reached(figures, self._met(self._asked, sqnr, metric))

    def _met(self, asked: Mapping[str, float], sqnr: Scores | None, metric: Scores | None) -> bool:
        better = self._ctx.config.metric is None or self._ctx.config.metric.higher_is_better
        networks = [Networks(sqnr, metric)]
        verdicts = judge(asked, networks, baseline=self._baseline, higher_is_better=better)
        return all(verdict.met for verdict in verdicts.values())
