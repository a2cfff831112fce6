"""Which units go: one ranking over all groups under one budget for the network.

Each group offers a curve: the loss when its first k units have gone, in the order of its criterion. Losses of all
groups and criteria are -log of the part that is left of what the group carries, as in
:mod:`edgec.passes.factorize.allocation`: they add up over layers, and no group is ever emptied for being cheap.
Steps are taken from the group whose next step loses least for what it really saves, which changes as the groups that
it meets shrink; what the last step saved beyond the budget is given back where it helps most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

# A group goes down in so many steps at most; single units settle the rest at the end.
_MOST_STEPS = 128
# A budget is met where less than this part of the network is left of it; to get there, a little more loss is allowed.
_CLOSE, _DEARER = 0.01, 1.25
# Exchanges go so many steps of a group down and up: where units are large, that is all of them.
_REACH = 32


class Prices(Protocol):
    """What a selection asks of :class:`.costs.Costs`."""

    @property
    def neighbours(self) -> Sequence[Sequence[int]]: ...

    def total(self, removed: Sequence[int]) -> int: ...

    def saved(self, removed: Sequence[int], group: int, more: int) -> int: ...

    def of_pair(
        self, removed: Sequence[int], pair: tuple[int, int], lost: tuple[np.ndarray, np.ndarray]
    ) -> np.ndarray: ...


@dataclass(frozen=True)
class Offer:
    """What one group offers.

    Attributes:
        order: its units in the order in which they go, those that must stay left out; shape (removable,).
        loss: at [k] the loss when k of them have gone; shape (removable + 1,), 0 first, never falling.
        allowed: the numbers of lost units that rounding allows, rising, 0 first.
    """

    order: np.ndarray
    loss: np.ndarray
    allowed: np.ndarray


def select(offers: Sequence[Offer], costs: Prices, budget: float) -> list[int] | None:
    """How many units each group loses so that the network costs at most ``budget``; ``None`` where it cannot."""
    removed = [0] * len(offers)
    spent: float = costs.total(removed)
    if spent <= budget:
        return removed
    if costs.total([int(offer.allowed[-1]) for offer in offers]) > budget:
        return None
    steps = [_steps(offer) for offer in offers]
    removed, spent = _taken(offers, steps, costs, removed, spent, budget)
    removed, spent = _given_back(offers, costs, removed, spent, budget)
    return _exchanged(offers, costs, removed, spent, budget)


def _taken(
    offers: Sequence[Offer],
    steps: Sequence[np.ndarray],
    costs: Prices,
    removed: Sequence[int],
    spent: float,
    budget: float,
) -> tuple[list[int], float]:
    """Steps of all groups, the least loss for what it saves first, until the budget is met or none is left."""
    removed = list(removed)
    prices = np.array([_price(offers, steps, costs, removed, group) for group in range(len(offers))])
    while spent > budget and not np.isinf(prices.min()):
        group = int(prices.argmin())
        more = _next(steps[group], removed[group])
        spent -= costs.saved(removed, group, more)
        removed[group] = more
        for other in {group, *costs.neighbours[group]}:
            prices[other] = _price(offers, steps, costs, removed, other)
    return removed, spent


def _steps(offer: Offer) -> np.ndarray:
    allowed = offer.allowed
    if len(allowed) <= _MOST_STEPS + 1:
        return allowed
    return allowed[np.unique(np.linspace(0, len(allowed) - 1, _MOST_STEPS + 1).round().astype(int))]


def _next(steps: np.ndarray, removed: int) -> int:
    """The next number of lost units, -1 at the end."""
    place = int(np.searchsorted(steps, removed, side="right"))
    return int(steps[place]) if place < len(steps) else -1


def _price(
    offers: Sequence[Offer], steps: Sequence[np.ndarray], costs: Prices, removed: Sequence[int], group: int
) -> float:
    """What a group's next step loses for each unit of cost that it saves; infinite where it is at its end.

    A step that saves nothing, in multiply-accumulates say, comes behind all that do.
    """
    more = _next(steps[group], removed[group])
    if more < 0:
        return np.inf
    loss = offers[group].loss[more] - offers[group].loss[removed[group]]
    saved = costs.saved(removed, group, more)
    return float(loss) / saved if saved > 0 else 1e300


def _given_back(
    offers: Sequence[Offer], costs: Prices, removed: list[int], spent: float, budget: float
) -> tuple[list[int], float]:
    """Takes units back, the most loss undone for its cost first, while the budget allows."""
    while True:
        best: tuple[float, int, int, float] | None = None
        for group, offer in enumerate(offers):
            place = int(np.searchsorted(offer.allowed, removed[group]))
            if place == 0:
                continue
            fewer = int(offer.allowed[place - 1])
            cost = -float(costs.saved(removed, group, fewer))
            if spent + cost > budget:
                continue
            gained = float(offer.loss[removed[group]] - offer.loss[fewer])
            worth = gained / cost if cost > 0 else np.inf
            if best is None or worth > best[0]:
                best = (worth, group, fewer, cost)
        if best is None:
            return removed, spent
        removed[best[1]] = best[2]
        spent += best[3]


def _exchanged(offers: Sequence[Offer], costs: Prices, removed: list[int], spent: float, budget: float) -> list[int]:
    """Where units are large for the network, and much of the budget is left: other units than the last that went.

    Two groups at a time: one gets units back, the other loses or gets some, in whatever numbers of both lose least of
    those that meet the budget closely; where none do, in those that make the fullest use of it. Nothing is taken that
    loses much more than it did before: a few parameters more are not worth that.
    """
    close = budget - _CLOSE * costs.total([0] * len(offers))
    most = _DEARER * _loss(offers, removed)
    now = _Exchange(close - spent, 0.0, removed)
    while now.short > 0:
        pairs = [(one, two) for one, lost in enumerate(now.removed) if lost for two in range(len(offers)) if one != two]
        found = [_exchange(offers, costs, now.removed, pair, (close, budget), most) for pair in pairs]
        best = min((e for e in found if e is not None), key=lambda e: (e.short, e.loss), default=now)
        if best.short >= now.short:
            break
        now = best
    return now.removed


@dataclass(frozen=True)
class _Exchange:
    """What an exchange comes to.

    Attributes:
        short: by how much the cost is further below the budget than it should be; 0 where it is close.
        loss: of all groups.
        removed: how many units each group loses.
    """

    short: float
    loss: float
    removed: list[int]


def _exchange(
    offers: Sequence[Offer],
    costs: Prices,
    removed: Sequence[int],
    pair: tuple[int, int],
    bounds: tuple[float, float],
    most: float,
) -> _Exchange | None:
    """The best numbers of units for two groups to lose, all others as they are.

    Args:
        offers, costs, removed: as in :func:`select`.
        pair: the groups.
        bounds: costs that meet the budget closely lie above the first and not above the second.
        most: the largest loss that is taken.
    """
    first, second = (_around(offers[group].allowed, removed[group]) for group in pair)
    cost = costs.of_pair(removed, pair, (first, second))
    others = _loss(offers, removed) - sum(float(offers[group].loss[removed[group]]) for group in pair)
    loss = others + offers[pair[0]].loss[first][:, None] + offers[pair[1]].loss[second]
    short = np.where((cost <= bounds[1]) & (loss <= most), np.maximum(bounds[0] - cost, 0.0), np.inf)
    if np.isinf(short.min()):
        return None
    at = np.unravel_index(int(np.where(short == short.min(), loss, np.inf).argmin()), short.shape)
    tried = list(removed)
    tried[pair[0]], tried[pair[1]] = int(first[at[0]]), int(second[at[1]])
    return _Exchange(float(short[at]), float(loss[at]), tried)


def _around(allowed: np.ndarray, removed: int) -> np.ndarray:
    """The numbers of lost units that are not far from one of them."""
    place = int(np.searchsorted(allowed, removed))
    return allowed[max(place - _REACH, 0) : place + _REACH + 1]


def _loss(offers: Sequence[Offer], removed: Sequence[int]) -> float:
    return float(sum(offer.loss[count] for offer, count in zip(offers, removed, strict=True)))
