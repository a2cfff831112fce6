"""``compress``: one budget for pruning and factorization, spent where it costs least."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from edgec.ir.cost import Cost
from edgec.ir.errors import InputError
from edgec.ir.execution import batch_size
from edgec.ir.graph import Graph
from edgec.passes.calibration.batch_split import Split, split_groups
from edgec.passes.calibration.dataset import ROLE, DataSet, Part
from edgec.passes.calibration.held_out import ENOUGH_SAMPLES, FEWEST_AT_ONCE, MARGIN_DB, groups_of_batches
from edgec.passes.calibration.sqnr_evaluator import SqnrEvaluator
from edgec.passes.compress.search import ALIKE_DB, Search, Try
from edgec.passes.compress.trial import Budget, Made, Passes, attempt, reachable
from edgec.passes.factorize.factorize import Factorize
from edgec.passes.factorize.methods import MethodOption
from edgec.passes.framework.base import Effect, Pass
from edgec.passes.framework.budgets import UNITS, WORDS, Count, MinRank, Share, Unit, give_one_of, unreachable
from edgec.passes.framework.context import Context
from edgec.passes.framework.layer_choice import check_layers
from edgec.passes.framework.target import wanted_channels
from edgec.passes.framework.transaction import take_over
from edgec.passes.prune.prune import Prune

# Tries are fitted to as many batches as this many multiply-accumulates allow, and to so many at least and at most.
_WORK, _FEWEST, _MOST = 6_000_000_000, 16, 128
# Networks that do more are searched with the quickest of the methods, and only roughly.
_LARGE = 100_000_000
_KEPT = "; left as it was tried: made again from all samples it is worse"


@dataclass(frozen=True)
class Compress(Pass):
    """Prunes channels and factorizes what is left, under one budget; how far it prunes is found by trying.

    Exactly one of ``params``, ``macs`` and ``weight_bytes`` says how much of the network stays.
    """

    name: ClassVar[str] = "compress"
    effect: ClassVar[Effect] = "lossy"
    methods: ClassVar[tuple[str, ...]] = ("structured pruning", "low-rank factorization")
    needs: ClassVar[frozenset[str]] = frozenset({"float"})
    shares: ClassVar[frozenset[str]] = frozenset(UNITS)

    params: Annotated[Share, Field(description="part of the network's parameters to keep")] = None
    macs: Annotated[Share, Field(description="part of the network's multiply-accumulates to keep")] = None
    weight_bytes: Annotated[Share, Field(description="part of the network's bytes of weights to keep")] = None
    method: Annotated[
        MethodOption, Field(description="how kernels of more than one tap are factorized; auto chooses for each layer")
    ] = "auto"
    only: Annotated[
        tuple[str, ...], Field(description="name patterns (* and ?) of the only layers to compress; all when empty")
    ] = ()
    skip: Annotated[
        tuple[str, ...], Field(description="name patterns of layers that are not factorized and lose no channel")
    ] = ()
    least: Annotated[
        Count, Field(description="no layer keeps fewer channels; without it 1, or what the targets want at least")
    ] = None
    min_rank: MinRank = None
    multiple: Annotated[
        Count, Field(description="channels and ranks are multiples of this, or all; by default what the targets want")
    ] = None

    def __post_init__(self) -> None:
        given = [unit for unit in UNITS if getattr(self, unit) is not None]
        give_one_of(given, UNITS, "nothing says how much to keep")

    def run(self, graph: Graph, ctx: Context) -> None:
        """Compresses ``graph`` in place.

        Raises:
            UsageError: a pattern matches no layer, or the budget cannot be met.
            InputError: the calibration data are empty, or an activation is not finite on them.
        """
        from threadpoolctl import threadpool_limits

        check_layers(self, graph)
        if self._keep >= 1:
            everything: dict[str, Any] = {self._unit: 1.0}
            replace(self._factorize(ctx), **everything).run(graph, ctx)
            return
        # Sums of BLAS on several threads would depend on their number.
        with threadpool_limits(limits=1):
            self._run(graph, ctx)

    def _run(self, graph: Graph, ctx: Context) -> None:
        whole = ctx.get(Cost)
        budget = Budget(self._unit, self._keep, int(getattr(whole, self._unit)))
        passes = Passes.of(graph, ctx, self._prune(ctx), self._factorize(ctx))
        groups = _groups(graph, ctx)
        parts = None if groups is None else _split(graph, groups, whole.macs)
        search = self._search(graph, ctx, budget, passes, parts, whole.macs)
        free = None
        if groups is not None and parts is not None and _few(graph, groups):
            # What is fitted to few samples may be worse than what is fitted to none: tries of that are quick.
            free = Search(graph, budget, passes, ctx, {}, search.judge, search.thorough)
            free.run()
        best = search.run() if parts is None or parts.apart or free is None else None
        if free is not None and free.chosen is not None and not _is_better(best, free.chosen, groups):
            self._take_free(graph, ctx, search, free, best, parts)
            return
        if best is None:
            least = min(reachable(graph, budget, passes, ctx), 1.0) * budget.total
            fix = "raise the budget, or lower least, min_rank or multiple"
            raise unreachable("compress", self._unit, self._keep, least, budget.total, fix)
        made, again = search.made[best.step], None
        if search.passes != passes or (parts is not None and not parts.complete):
            again = attempt(graph, budget, passes, search.part(best.step), ctx, ctx.data)
        # Made from all of the data it has seen what it is measured on, and the try has not; so if it is worse, it is.
        if again is not None and search.judge.sqnr_db(again.graph) >= best.sqnr_db - ALIKE_DB:
            made = again
        take_over(graph, made.graph)
        ctx.changed()
        self._report(ctx, search, best, made, parts)

    def _take_free(
        self, graph: Graph, ctx: Context, search: Search, free: Search, fitted: Try | None, parts: Split | None
    ) -> None:
        """Takes the best of the tries that are fitted to nothing, and says why."""
        chosen = free.chosen
        assert chosen is not None
        made = free.made[chosen.step]
        take_over(graph, made.graph)
        ctx.changed()
        self._report(ctx, free, chosen, made, parts)
        if fitted is None:
            said = "one sample, or all resemble each other, and none can be held out to judge by"
        else:
            said = f"{fitted.sqnr_db:.1f} dB with them, {chosen.sqnr_db:.1f} dB without, on samples held out"
        ctx.missed("the calibration data", f"nothing is fitted to them: {said}")

    # -- how ---------------------------------------------------------------------------------------------------------

    @property
    def _unit(self) -> Unit:
        return next(unit for unit in UNITS if getattr(self, unit) is not None)

    @property
    def _keep(self) -> float:
        return float(getattr(self, self._unit))

    def _prune(self, ctx: Context) -> Prune:
        least, multiple = wanted_channels(ctx.config.boards)
        return Prune(
            ratio=0.0,
            only=self.only,
            skip=self.skip,
            multiple=self.multiple or multiple,
            least=self.least or least,
        )

    def _factorize(self, ctx: Context) -> Factorize:
        step = Factorize(
            method=self.method, only=self.only, skip=self.skip, min_rank=self.min_rank, multiple=self.multiple
        )
        return step.for_targets(ctx)

    def _search(
        self, graph: Graph, ctx: Context, budget: Budget, passes: Passes, parts: Split | None, macs: int
    ) -> Search:
        """The tries, which for large networks are quicker than what becomes of the best of them."""
        large = macs > _LARGE and parts is not None
        data: dict[str, DataSet] = {role: found for role, found in ctx.data.items() if role != ROLE}
        if parts is not None:
            data[ROLE] = Part(ctx.data[ROLE], parts.fit, batch_size(graph))
            if large and self.method == "auto":
                passes = replace(passes, factorize=replace(passes.factorize, method="tucker"))
        return Search(graph, budget, passes, ctx, data, SqnrEvaluator(graph, ctx, parts), thorough=not large)

    # -- what it says ------------------------------------------------------------------------------------------------

    def _report(self, ctx: Context, search: Search, best: Try, made: Made, parts: Split | None) -> None:
        figures = {"pruned_to": made.pruned_to}
        if math.isfinite(best.sqnr_db):
            figures["sqnr_db"] = best.sqnr_db
        alone = search.tries.get(0.0)
        if alone is not None and best.step and math.isfinite(alone.sqnr_db):
            figures["sqnr_db_factorized_alone"] = alone.sqnr_db
        word = WORDS["macs" if self._unit == "macs" else "params"]
        others = sorted((found for found in search.tries.values() if found is not best), key=lambda found: found.step)
        tried = "; ".join(_tried(found, word) for found in (best, *others))
        fitted = ROLE in search.data
        measured = _measured(parts, batch_size(search.graph), fitted)
        as_tried = made is search.made[best.step] and fitted and parts is not None and not parts.complete
        kept = _KEPT if as_tried else ""
        ctx.did("the network", f"{tried} ({measured}){kept}", **figures)
        ctx.done += made.done
        ctx.left += made.left


def _groups(graph: Graph, ctx: Context) -> np.ndarray | None:
    """The group of each batch of the calibration data, of those that resemble each other; ``None`` without data.

    Raises:
        InputError: there are none in the data set.
    """
    if ROLE not in ctx.data:
        return None
    if not len(ctx.data[ROLE]):
        raise InputError(ctx.data[ROLE].source, "has no samples to calibrate with", "name a data set that has some")
    return groups_of_batches(graph, ctx)


def _split(graph: Graph, groups: np.ndarray, macs: int) -> Split:
    """What tries are fitted to and judged by."""
    size = batch_size(graph)
    return split_groups(groups, int(np.clip(_WORK // max(macs, 1), _FEWEST, max(_MOST // size, _FEWEST))))


def _few(graph: Graph, groups: np.ndarray) -> bool:
    """Whether a fit to the samples may be worse than none."""
    distinct, size = int(groups.max()) + 1, batch_size(graph)
    return distinct * size < ENOUGH_SAMPLES and (distinct > 1 or size < FEWEST_AT_ONCE)


def _is_better(fitted: Try | None, free: Try, groups: np.ndarray | None) -> bool:
    """Whether a try that was fitted to samples is better than one that was not, by more than few samples can tell."""
    count = 1 if groups is None else int(groups.max()) + 1
    return fitted is not None and fitted.sqnr_db > free.sqnr_db + MARGIN_DB / count


def _tried(found: Try, word: str) -> str:
    """One try in words: ``pruned to 62 % of its parameters, then factorized: 31.2 dB``."""
    db = f"{found.sqnr_db:.1f} dB" if math.isfinite(found.sqnr_db) else f"{found.sqnr_db} dB"
    if not found.step:
        return f"factorized alone: {db}"
    pruned = f"pruned to {100 * found.pruned_to:.3g} % of its {word}"
    if found.hopeless:
        return f"{pruned}, before it is factorized: {db}"
    return f"{pruned}, then factorized: {db}" if found.factorized else f"{pruned}: {db}"


def _measured(parts: Split | None, each: int, fitted: bool) -> str:
    """On what, for batches of ``each`` samples, of which some were fitted to or none."""
    if parts is None:
        return "measured on noise: there are no calibration data"
    fit, judge = (each * len(numbers) for numbers in (parts.fit, parts.judge))
    if not fitted:
        return f"fitted to nothing and measured on {judge} calibration samples"
    if not parts.apart:
        return f"fitted to and measured on the same {fit} samples: too few to hold any out"
    return f"fitted to {fit} and measured on {judge} other calibration samples"
