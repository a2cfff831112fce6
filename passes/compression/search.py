"""How much of a budget pruning should save, found by trying.

How far the network is pruned before it is factorized is one number, the part s of the logarithm of the budget: with
s = 0 it is not pruned, with s = 1 it is pruned all the way. Small networks rise and fall once along it, so a ladder is
climbed for as long as it rises, and the gaps beside its best step are halved once. The far end is tried in any case.

A network is not better for being factorized as well: once pruning alone leaves less signal than the best try, neither
this step nor a higher one has to be factorized to be known to lose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgec.ir.graph import Graph
from edgec.passes.compression.judging import Judge
from edgec.passes.compression.trying import Budget, Passes, factorized, floor, pruned
from edgec.passes.protocol import Context, DataSet

_STEPS = (0.25, 0.5, 0.75, 1.0)
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
        thorough: whether the gaps beside the best step are looked into.
        tries: so far.
        least: the part of the network that pruning cannot go below; 0 while that is not known.
    """

    graph: Graph
    budget: Budget
    passes: Passes
    ctx: Context
    data: Mapping[str, DataSet]
    judge: Judge
    thorough: bool = True
    tries: dict[float, Try] = field(default_factory=dict)
    least: float = 0.0

    def run(self) -> Try | None:
        """The best try, the one with less pruning where two are alike; ``None`` where none meets the budget."""
        self._factorized(0.0)
        if self.passes.prune is None:
            return self.best
        if 0.0 not in self.tries:
            self.least = floor(self.graph, self.budget, self.passes, self.ctx)[1]
        self._climb()
        best = self.best
        if best is not None and self.thorough:
            for step in (best.step - 0.125, best.step + 0.125):
                if 0 < step < 1 and not self._known_to_lose(step):
                    self._factorized(step)
        return self.best

    @property
    def best(self) -> Try | None:
        """So far."""
        able = [found for found in self.tries.values() if not found.hopeless]
        return max(able, key=lambda found: (found.sqnr_db, -found.step), default=None)

    def part(self, step: float) -> float:
        """How much of the network pruning leaves."""
        return float(max(self.budget.keep**step, self.least))

    def _climb(self) -> None:
        before = self.tries.get(0.0)
        for step in _STEPS:
            found = self._factorized(step)
            if found is not None and (found.hopeless or (before is not None and found.sqnr_db < before.sqnr_db)):
                break
            before = found or before
        if 1.0 not in self.tries and not self._known_to_lose(1.0):
            self._factorized(1.0)

    def _known_to_lose(self, step: float) -> bool:
        return any(found.hopeless and found.step <= step for found in self.tries.values())

    def _factorized(self, step: float) -> Try | None:
        """Tries a step; ``None`` where the budget cannot be met so."""
        graph, done, left = pruned(self.graph, self.budget, self.passes, self.part(step), self.ctx, self.data)
        if graph is None and not self.least:
            self.least = floor(self.graph, self.budget, self.passes, self.ctx)[1]
            graph, done, left = pruned(self.graph, self.budget, self.passes, self.part(step), self.ctx, self.data)
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
        self.ctx.progress(len(self.tries), _MOST_TRIES, "tries")
        return found
