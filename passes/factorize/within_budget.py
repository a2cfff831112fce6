"""What layers offer under one budget for the network, and which of it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgec.passes.calibration.parallel import in_parallel
from edgec.passes.factorize.allocation import Curve, allocate, curve, loss_of
from edgec.passes.factorize.evidence import Evidence
from edgec.passes.factorize.layers import Layer
from edgec.passes.factorize.methods import Method
from edgec.passes.factorize.offers import (
    Choice,
    Limits,
    Offer,
    element_cost,
    least_choice,
    least_cost,
    offers,
    whole_cost,
)
from edgec.passes.factorize.overriding import new_biases
from edgec.passes.framework.budgets import ENOUGH, Unit, unreachable
from edgec.passes.framework.context import Context


@dataclass(frozen=True, eq=False)
class Considered:
    """A layer with the methods that could be used for it."""

    layer: Layer
    methods: list[Method]


@dataclass(frozen=True)
class Budget:
    """What a network may cost, and what its layers can come to cost.

    Attributes:
        unit: what is counted.
        share: the part of the network that is kept.
        total: what it costs.
        considered: the layers that may become chains.
        limits: of the ranks.
        fitted: whether chains are fitted to data: they get biases then, whether their layers had any or not.
    """

    unit: Unit
    share: float
    total: int
    considered: Sequence[Considered]
    limits: Limits
    fitted: bool

    def over(self, considered: Sequence[Considered]) -> Budget:
        """The same with other layers."""
        return replace(self, considered=considered)

    @property
    def reachable(self) -> bool:
        """Whether any ranks meet it; this follows from shapes alone."""
        return self._least <= self.share * self.total

    def check(self) -> None:
        """Raises a UsageError that names the least share where no ranks meet it."""
        if not self.reachable:
            fix = "raise the budget, lower min_rank or multiple, or prune first"
            raise unreachable("factorize", self.unit, self.share, self._least, self.total, fix)

    def spend(self, ctx: Context, evidence: Evidence | None) -> list[Choice | str]:
        """What each layer becomes, or why it stays whole."""
        found = in_parallel(lambda item: self._curve(item, evidence), self.considered, ctx, "ranks")
        points = allocate([c for c, _ in found], self.share * self.total - self._fixed)
        assert points is not None, "the budget has been checked"
        choices: list[Choice | str] = []
        for item, (c, options), point in zip(self.considered, found, points, strict=True):
            chosen = int(c.choice[point])
            if chosen >= 0:
                choices.append(options[chosen])
            else:
                choices.append(ENOUGH if len(c.cost) > 1 else dearer(item, self.limits))
        return choices

    @property
    def _fixed(self) -> int:
        """What all else costs."""
        return self.total - sum(whole_cost(item.layer, self.unit) for item in self.considered)

    @property
    def _least(self) -> int:
        layers = [(item.layer, item.methods) for item in self.considered]
        return self._fixed + sum(
            least_cost(layer, methods, self.limits, self.unit, self._added(layer)) for layer, methods in layers
        )

    def _added(self, layer: Layer) -> int:
        return new_biases(layer) if self.fitted else 0

    def _curve(self, item: Considered, evidence: Evidence | None) -> tuple[Curve, list[Choice]]:
        found = offers(item.layer, item.methods, self.limits)
        added = self._added(item.layer) * element_cost(item.layer, self.unit)
        costs = [offer.cost(item.layer, self.unit) + added for offer in found]
        return layer_curve(item.layer, found, costs, whole_cost(item.layer, self.unit), evidence)


def layer_curve(
    layer: Layer, found: Sequence[Offer], priced: Sequence[np.ndarray], whole: float, evidence: Evidence | None
) -> tuple[Curve, list[Choice]]:
    """What a layer offers under a budget, by index into the choices; staying whole is the point of choice -1.

    Args:
        layer: see above.
        found: what each method offers.
        priced: what each candidate of each method costs: (candidates,).
        whole: what the layer costs.
        evidence: what is known of its data.
    """
    observed = evidence.observe(layer) if evidence is not None else None
    costs, losses, options = [np.zeros(0)], [np.zeros(0)], []
    for offer, cost in zip(found, priced, strict=True):
        fits = np.flatnonzero((cost < whole) & (offer.params < layer.params))
        costs.append(cost[fits].astype(np.float64))
        lost = 1 - offer.kept[fits]
        if observed is not None:
            # Weights that the data do not excite count less; but not for nothing, since data are few.
            seen = 1 - observed.kept(offer.method, offer.ranks[fits])
            lost = np.sqrt(np.maximum(lost, 1e-12) * np.maximum(seen, 1e-12))
        losses.append(lost)
        options += [offer.choice(int(row)) for row in fits]
    best = curve(np.concatenate(costs), np.concatenate(losses), np.arange(len(options)))
    options = [options[int(index)] for index in best.choice]
    loss = loss_of(1 - best.loss)
    if evidence is not None and options:
        loss = evidence.damage(observed, layer, options, best.cost, best.loss)
    # The whole layer loses nothing: a little less than what rounding leaves of a chain of full rank.
    points = curve(np.append(best.cost, whole), np.append(loss, -1e-12), np.append(np.arange(len(options)), -1))
    return points, options


def dearer(item: Considered, limits: Limits) -> str:
    """Why a layer stays whole that nothing is cheaper than."""
    layer = item.layer
    lowest = least_choice(layer, item.methods, limits)
    if lowest.params(layer) >= layer.params or layer.macs is None:
        return dearer_chain(layer, lowest)
    macs = lowest.macs(layer)
    return f"a chain of {lowest.words()} does {macs} multiply-accumulates, the layer {layer.macs}"


def dearer_chain(layer: Layer, choice: Choice) -> str:
    """Why a layer stays whole whose chain would have no fewer parameters."""
    return f"a chain of {choice.words()} has {choice.params(layer)} parameters, the layer {layer.params}"
