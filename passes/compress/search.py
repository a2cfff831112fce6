"""How much of a budget pruning should save, found by trying.

How far the network is pruned before it is factorized is one number, the part s of the logarithm of the budget: with
s = 0 it is not pruned, with s = 1 it is pruned all the way. The outcome along it need not rise and fall but once: on
the residual digits network of the bench, at two hundredths of its parameters, a little pruning is worse than none and
much of it better. So all steps of a ladder are tried, and then the gaps beside the best one are halved.

A network is not better for being factorized as well: once pruning alone leaves less signal than the best try, neither
this step nor a higher one has to be factorized to be known to lose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgec.ir.graph import Graph
from edgec.passes.calibration.dataset import DataSet
from edgec.passes.calibration.sqnr_evaluator import SqnrEvaluator
from edgec.passes.compress.trial import Budget, Made, Passes, factorized, floor, pruned
from edgec.passes.framework.context import Context
from edgec.passes.framework.remark import Remark

_STEPS = (0.25, 0.5, 0.75, 1.0)
# What a few images tell apart. Outcomes nearer to the best than this, in dB, are as good: the least pruning is taken.
ALIKE_DB = 0.3
_MOST_TRIES = 1 + len(_STEPS) + 2


@dataclass(frozen=True)
class Try:
    """A try and its outcome.

    Attributes:
        step: of the way, from 0, no pruning, to 1.
        pruned_to: the part of the cost that pruning left.
        sqnr_db: of the outputs.
        factorized: whether pruning did not suffice.
        hopeless: whether ``sqnr_db`` is that of the pruned network, which was not factorized because this was less
            than the best already.
    """

    step: float
    pruned_to: float
    sqnr_db: float
    factorized: bool = True
    hopeless: bool = False


@dataclass
class Search:
    """The tries of one network.

    Attributes:
        graph: the original.
        budget, passes, ctx, data: as :func:`.attempt` wants them.
        judge: of the outcomes.
        thorough: whether the ladder is climbed to its end although it falls, and the gaps beside the best are tried.
        tries: so far.
        made: the networks of the best tries, by step.
        least: the part of the network that pruning cannot go below; 0 while that is not known.
    """

    graph: Graph
    budget: Budget
    passes: Passes
    ctx: Context
    data: Mapping[str, DataSet]
    judge: SqnrEvaluator
    thorough: bool = True
    tries: dict[float, Try] = field(default_factory=dict)
    made: dict[float, Made] = field(default_factory=dict)
    least: float = 0.0

    def run(self) -> Try | None:
        """The best try, the one with the least pruning of those alike; ``None`` where none meets the budget."""
        self._factorized(0.0)
        if self.passes.prune is None:
            return self.tries.get(0.0)
        if 0.0 not in self.tries:
            self.least = floor(self.graph, self.budget, self.passes, self.ctx)[1]
        self._climb()
        best = self.best
        if best is not None and self.thorough:
            for step in (best.step - 0.125, best.step + 0.125):
                if 0 < step < 1 and not self._known_to_lose(step):
                    self._factorized(step)
        return self.chosen

    @property
    def chosen(self) -> Try | None:
        """What :meth:`run` gave."""
        return self.tries[min(self.made)] if self.made else None

    @property
    def best(self) -> Try | None:
        """Of the highest SQNR so far."""
        able = [found for found in self.tries.values() if not found.hopeless]
        return max(able, key=lambda found: (found.sqnr_db, -found.step), default=None)

    def part(self, step: float) -> float:
        """How much of the network pruning leaves."""
        return float(max(self.budget.keep**step, self.least))

    def _climb(self) -> None:
        for step in _STEPS:
            if self._known_to_lose(step):
                break
            before = self.best
            self._factorized(step)
            if not self.thorough and before is not None and self.best is before:
                break

    def _known_to_lose(self, step: float) -> bool:
        return any(found.hopeless and found.step <= step for found in self.tries.values())

    def _pruned(self, step: float) -> tuple[Graph | None, list[Remark], list[Remark]]:
        return pruned(self.graph, self.budget, self.passes, self.part(step), self.ctx, self.data)

    def _factorized(self, step: float) -> Try | None:
        """Tries a step; ``None`` where the budget cannot be met so."""
        graph, done, left = self._pruned(step)
        if graph is None and not self.least:
            self.least = floor(self.graph, self.budget, self.passes, self.ctx)[1]
            graph, done, left = self._pruned(step)
        if graph is None:
            return None
        best = self.best
        if step and best is not None:
            bound = self.judge.sqnr_db(graph)
            if bound <= best.sqnr_db:
                part = self.budget.of(graph) / max(self.budget.total, 1)
                self.tries[step] = Try(step, part, bound, hopeless=True)
                return self.tries[step]
        made = factorized(graph, self.budget, self.passes, self.ctx, self.data, done, left)
        if made is None:
            return None
        found = Try(step, made.pruned_to, self.judge.sqnr_db(made.graph), made.factorized)
        self.tries[step] = found
        best = self.best or found
        near = {**self.made, step: made}
        self.made = {at: near[at] for at in near if self.tries[at].sqnr_db >= best.sqnr_db - ALIKE_DB}
        self.ctx.progress(len(self.tries), _MOST_TRIES, "tries")
        return found
