"""``prune``: channels that matter least are taken out of a network, with everything that hangs on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from edgec.ir.channels import Channels, Group
from edgec.ir.cost import Cost
from edgec.ir.errors import InputError
from edgec.ir.execution import batch_size
from edgec.ir.graph import Graph, Node, Tensor
from edgec.ir.order import dependencies
from edgec.ir.shapes import Shapes
from edgec.passes.calibration.batch_split import Split, spread
from edgec.passes.calibration.dataset import ROLE, DataSet, Part
from edgec.passes.calibration.held_out import (
    BOTH_WAYS,
    ENOUGH_SAMPLES,
    FEWEST_AT_ONCE,
    MARGIN_DB,
    MOST_JUDGES,
    groups_of_batches,
)
from edgec.passes.calibration.near_duplicates import folds
from edgec.passes.calibration.runner import batches
from edgec.passes.calibration.sqnr_evaluator import SqnrEvaluator
from edgec.passes.framework.base import Effect, Pass
from edgec.passes.framework.budgets import ENOUGH, Macs, Params, give_one_of, unreachable
from edgec.passes.framework.context import Context
from edgec.passes.framework.layer_choice import check_patterns, excluded, in_bodies
from edgec.passes.framework.transaction import take_over
from edgec.passes.layers.linear import LINEAR
from edgec.passes.prune.biases import has_bias
from edgec.passes.prune.compensation import Refit, can_be_fitted, compensate
from edgec.passes.prune.costs import Costs, Unit
from edgec.passes.prune.criteria import NEEDS_DATA, Criterion, Judged, judge
from edgec.passes.prune.cutting import cut
from edgec.passes.prune.readers import result_axis
from edgec.passes.prune.remarks import Cut, report
from edgec.passes.prune.selection import Offer, select
from edgec.passes.prune.sharing import unshare

_WAYS = ("params", "macs", "ratio")
_DATA = "the calibration data"
# Where nothing is lost; a network that is not finite counts as that much noise.
_NO_NOISE_DB = 140.0


@dataclass(frozen=True)
class Prune(Pass):
    """Prunes whole channels, those of least importance first, under one budget for the network.

    One of ``params``, ``macs`` and ``ratio`` says how much. With calibration data the layers that are left are fitted
    to what the original network computed.
    """

    name: ClassVar[str] = "prune"
    effect: ClassVar[Effect] = "lossy"
    methods: ClassVar[tuple[str, ...]] = (
        "structured pruning",
        "channel pruning",
        "importance",
        "least-squares reconstruction",
    )
    needs: ClassVar[frozenset[str]] = frozenset({"float"})
    shares: ClassVar[frozenset[str]] = frozenset({"params", "macs"})

    params: Params = None
    macs: Macs = None
    ratio: Annotated[
        float | None, Field(ge=0, lt=1, description="part of its channels to remove from every layer; 0 removes none")
    ] = None
    criterion: Annotated[
        Literal["auto", "l1", "l2", "geometric_median", "activation", "reconstruction"],
        Field(description="what a channel matters by; auto is reconstruction with calibration data, else l2"),
    ] = "auto"
    refit: Annotated[
        bool, Field(description="fit what is left to the original network's outputs, where there is calibration data")
    ] = True
    only: Annotated[
        tuple[str, ...], Field(description="name patterns (* and ?) of the only layers to cut channels of")
    ] = ()
    skip: Annotated[tuple[str, ...], Field(description="name patterns of layers that keep all their channels")] = ()
    multiple: Annotated[int, Field(ge=1, description="the channels that stay are a multiple of this, or all")] = 1
    least: Annotated[int, Field(ge=1, description="no layer keeps fewer channels")] = 1

    def __post_init__(self) -> None:
        given = [key for key in _WAYS if getattr(self, key) is not None]
        give_one_of(given, _WAYS, "nothing says how much to remove")

    def missing_data(self, roles: frozenset[str]) -> str | None:
        return ROLE if self.criterion in NEEDS_DATA and ROLE not in roles else super().missing_data(roles)

    def run(self, graph: Graph, ctx: Context) -> None:
        """Prunes ``graph`` in place.

        Raises:
            UsageError: a pattern matches no layer, or the budget cannot be met.
            InputError: the calibration data are empty, or an activation is not finite on them.
        """
        without = replace(self, refit=False, criterion="l2" if self.criterion == "auto" else self.criterion)
        aware = self.refit or self._criterion(ctx) in NEEDS_DATA
        if ROLE not in ctx.data or ctx.config.validated_outside or not aware or without == self or self._keep >= 1:
            self._run(graph, ctx)
            return
        groups = groups_of_batches(graph, ctx)
        independent = (int(groups.max(initial=-1)) + 1) * batch_size(graph)
        if independent < ENOUGH_SAMPLES:
            (self if self._is_better(without, graph, groups, ctx) else without)._run(graph, ctx)
        else:
            self._run_unless_worse(without, graph, ctx)

    def _is_better(self, without: Prune, graph: Graph, groups: np.ndarray, ctx: Context) -> bool:
        """Whether this pass is better than one that is fitted to nothing, on samples held out; it is said where not."""
        size, count = batch_size(graph), len(groups)
        independent = (int(groups.max(initial=-1)) + 1) * size
        parts = [tuple(numbers.tolist()) for numbers in folds(groups, 2)]
        if len(parts) < 2:
            if size >= FEWEST_AT_ONCE or not count:
                return True
            said = "one sample, or all resemble each other" if independent == 1 else f"{independent} samples at once"
            ctx.missed(_DATA, f"nothing is fitted to them: {said}, and none can be held out to judge by")
            return False
        found = np.zeros(2)
        pairs = [parts] if independent >= BOTH_WAYS * size else [parts, parts[::-1]]
        for fit, judge_by in pairs:
            judged = SqnrEvaluator(graph, ctx, Split(fit, spread(np.array(judge_by), MOST_JUDGES), count))
            data: dict[str, DataSet] = {ROLE: Part(ctx.data[ROLE], fit, size)}
            for place, step in enumerate((self, without)):
                made = graph.copy()
                try:
                    step._run(made, ctx.derive(made, data=data))
                except InputError:
                    return True  # the data are at fault: run on all of them, it names the batch
                found[place] += np.clip(judged.sqnr_db(made), -_NO_NOISE_DB, _NO_NOISE_DB) / len(pairs)
        if found[0] > found[1] + MARGIN_DB / independent:
            return True
        why = f"{found[0]:.1f} dB with them, {found[1]:.1f} dB without, on samples held out"
        ctx.missed(_DATA, f"nothing is fitted to them: {independent} independent samples, {why}")
        return False

    def _run_unless_worse(self, without: Prune, graph: Graph, ctx: Context) -> None:
        """Runs; but where even on what it was fitted to it is worse than a fit to nothing, that is taken."""
        count = batches(graph, ctx)
        judged = SqnrEvaluator(graph, ctx, Split((), spread(np.arange(count), MOST_JUDGES), count))
        free = graph.copy()
        own = ctx.derive(free)
        without._run(free, own)
        left = judged.sqnr_db(free)
        self._run(graph, ctx)
        got = judged.sqnr_db(graph)
        if got < left:
            take_over(graph, free)
            ctx.changed()
            ctx.done, ctx.left = own.done, own.left
            why = f"{got:.1f} dB with them, {left:.1f} dB without"
            ctx.missed(_DATA, f"nothing is fitted to them: even on them it is {why}")

    def _run(self, graph: Graph, ctx: Context) -> None:
        whole = ctx.get(Cost)
        budget = _Budget("params" if self.params is not None else "macs", self._keep, whole)
        if self._keep < 1:
            unshare(graph)
            ctx.changed()
        channels = ctx.get(Channels)
        reasons = self._reasons(channels.groups)
        groups = [group for group in channels.groups if reasons[group] is None]
        judged = judge(graph, groups, self._criterion(ctx), self.least, ctx)
        offers = [self._offer(found) for found in judged]
        if self.ratio is not None:
            removed = [self._share(found, offer) for found, offer in zip(judged, offers, strict=True)]
        else:
            removed = self._budgeted(graph, ctx, channels, groups, offers, budget)
        keeps: dict[Group, np.ndarray] = {}
        cuts: dict[Group, Cut] = {}
        for found, offer, count in zip(judged, offers, removed, strict=True):
            if count:
                keeps[found.group] = np.isin(np.arange(found.group.width), offer.order[:count], invert=True)
                cuts[found.group] = Cut(found, float(offer.loss[count]))
            else:
                reasons[found.group] = self._untouched(offer)
        shapes = ctx.get(Shapes)
        masks = {node: _mask(channels, shapes, keeps, node) for node in graph.nodes if node.op in LINEAR}
        refits = self._cut(graph, ctx, keeps, masks) if keeps else {}
        report(ctx, channels.groups, reasons, cuts, masks, refits)
        for node, reason in in_bodies(graph):
            ctx.missed(node, reason)

    def _cut(
        self, graph: Graph, ctx: Context, keeps: Mapping[Group, np.ndarray], masks: Mapping[Node, np.ndarray | None]
    ) -> dict[Node, Refit]:
        """Cuts, and fits what is left where there are data."""
        changed = {carrier.tensor for group in keeps for carrier in group.carriers}
        original = graph.copy()
        pairs: dict[Node, Node] = {}
        for node, same in zip(graph.nodes, original.nodes, strict=True):
            if any(tensor in changed for tensor in dependencies(node)):
                changed.update(node.outputs)
                if node in masks:
                    pairs[node] = same
        cut(graph, keeps)
        ctx.changed()
        if not self._fits(ctx):
            return {}
        kept = {node: mask for node, mask in masks.items() if mask is not None and not mask.all()}
        return compensate(graph, original, pairs, kept, ctx)

    def _fits(self, ctx: Context) -> bool:
        return self.refit and ROLE in ctx.data

    # -- which groups -----------------------------------------------------------------------------------------------

    def _reasons(self, groups: Sequence[Group]) -> dict[Group, str | None]:
        """Why each group is left as it is; ``None`` where it may be cut."""
        names = list(dict.fromkeys(node.name for group in groups for node in group.producers))
        check_patterns(self, names, "layer with channels", "'edgec inspect --groups' lists them")
        return {group: group.fixed or excluded(self, *(node.name for node in group.producers)) for group in groups}

    def _criterion(self, ctx: Context) -> Criterion:
        if self.criterion != "auto":
            return self.criterion
        return "reconstruction" if ROLE in ctx.data else "l2"

    # -- how many units ---------------------------------------------------------------------------------------------

    def _offer(self, judged: Judged) -> Offer:
        width, per_unit = judged.group.width, judged.group.channels_per_unit
        step = self.multiple // math.gcd(self.multiple, per_unit)
        removable = np.arange(1, len(judged.order) + 1)
        fits = (width - removable) % step == 0
        return Offer(judged.order, judged.loss, np.concatenate([[0], removable[fits]]))

    def _share(self, judged: Judged, offer: Offer) -> int:
        """As many units of a group as the ratio says, or the nearest number that is allowed, the lower of two."""
        wanted = (self.ratio or 0.0) * judged.group.width
        return int(offer.allowed[np.abs(offer.allowed - wanted).argmin()])

    def _untouched(self, offer: Offer) -> str:
        if len(offer.allowed) == 1:
            return f"no channel may go: least {self.least}, multiple {self.multiple}"
        if self.ratio is not None:
            return f"ratio {self.ratio:g} takes none of its channels"
        return ENOUGH

    @property
    def _keep(self) -> float:
        """The part that is asked to stay, of whatever it is a part of."""
        given = (self.params, self.macs, None if self.ratio is None else 1 - self.ratio)
        return next(part for part in given if part is not None)

    def _budgeted(
        self,
        graph: Graph,
        ctx: Context,
        channels: Channels,
        groups: Sequence[Group],
        offers: Sequence[Offer],
        budget: _Budget,
    ) -> list[int]:
        """How many units of each group go under the budget."""
        if self._keep >= 1:
            return [0] * len(offers)
        shapes = ctx.get(Shapes)
        added = _new_biases(graph, shapes) if self._fits(ctx) else []
        costs = Costs(graph, shapes, channels, groups, [offer.order for offer in offers], budget.unit, added)
        removed = select(offers, costs, budget.limit)
        if removed is None:
            least = costs.total([int(offer.allowed[-1]) for offer in offers])
            fix = "raise the budget, lower least or multiple, or factorize too"
            raise unreachable("prune", budget.unit, self._keep, least, budget.total, fix)
        return removed


class _Budget:
    """What the network may cost.

    Attributes:
        unit: what is counted.
        total: what it costs when the pass begins.
        limit: what it may cost.
    """

    def __init__(self, unit: Unit, keep: float, whole: Cost) -> None:
        self.unit = unit
        self.total = whole.params if unit == "params" else whole.macs
        self.limit = keep * self.total


def _new_biases(graph: Graph, shapes: Shapes) -> list[tuple[Tensor, int]]:
    """Where a layer that is fitted may get a bias that it did not have: its result, and the axis of its channels."""
    found: list[tuple[Tensor, int]] = []
    for node in graph.nodes:
        shape = shapes.shape(node.outputs[0]) if node.outputs else None
        if shape and can_be_fitted(graph, node) and not has_bias(graph, node):
            found.append((node.outputs[0], result_axis(node, len(shape))))
    return found


def _mask(channels: Channels, shapes: Shapes, keeps: Mapping[Group, np.ndarray], node: Node) -> np.ndarray | None:
    """Which output channels of a layer stay; ``None`` where their number is not known."""
    out = node.outputs[0]
    shape = shapes.shape(out)
    if not shape:
        return None
    at = result_axis(node, len(shape))
    length = shape[at] if 0 <= at < len(shape) else None
    if length is None:
        return None
    mask = np.ones(length, bool)
    for group, axis, index in channels.of(out):
        if axis == at and group in keeps:
            mask &= np.append(keeps[group], True)[index]  # -1, no unit of this group, reads the last
    return mask
