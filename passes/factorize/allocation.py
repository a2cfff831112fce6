"""Which ranks spend a budget best, over all layers of a network at once.

Each layer offers a curve of (cost, loss). The loss of a layer that keeps the part e of its squared norm is -log(e): a
signal that passes the layers one after the other keeps the product, so losses add up, a small error counts as its
relative square, and a layer that would lose nearly everything is never the cheapest place to save. The sum of losses is
minimized under the budget by walking down the convex hulls, steepest gain for its cost first (Shoham and Gersho,
"Efficient bit allocation for an arbitrary set of quantizers", 1988); what the hulls leave of the budget is then spent
on the points between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Curve:
    """What one layer offers: points in the order of rising cost, each of less loss than those before it.

    Attributes:
        cost: what the point costs, in the unit of the budget.
        loss: see the module.
        choice: what the caller knows the point by.
    """

    cost: np.ndarray
    loss: np.ndarray
    choice: np.ndarray


def curve(cost: np.ndarray, loss: np.ndarray, choice: np.ndarray) -> Curve:
    """The points that no other point beats in both cost and loss."""
    order = np.lexsort((loss, cost))
    best = np.minimum.accumulate(loss[order])
    better = np.ones(len(order), bool)
    better[1:] = best[1:] < best[:-1]
    order = order[better]
    return Curve(cost[order], loss[order], choice[order])


def loss_of(kept: np.ndarray) -> np.ndarray:
    """-log of the part of the squared norm that is kept."""
    return -np.log(np.clip(kept, 1e-12, 1.0))


def least(curves: Sequence[Curve]) -> float:
    """The least that all layers together can cost."""
    return float(sum(c.cost[0] for c in curves))


def allocate(curves: Sequence[Curve], budget: float) -> list[int] | None:
    """A point of every curve, by index, that together cost at most ``budget``; ``None`` where nothing does.

    Ties go to the layer that stands first, so that the same curves give the same points.
    """
    spent = least(curves)
    if spent > budget:
        return None
    at = [0] * len(curves)
    steps = [
        (-(c.loss[a] - c.loss[b]) / (c.cost[b] - c.cost[a]), layer, b)
        for layer, c in enumerate(curves)
        for a, b in _hull(c)
    ]
    closed: set[int] = set()
    for _, layer, point in sorted(steps):
        more = float(curves[layer].cost[point] - curves[layer].cost[at[layer]])
        if layer in closed or spent + more > budget:
            closed.add(layer)
            continue
        spent += more
        at[layer] = point
    while True:
        offers = [
            offer for layer, c in enumerate(curves) if (offer := _best_within(c, at[layer], budget - spent, layer))
        ]
        if not offers:
            return at
        _, layer, point = min(offers)
        spent += float(curves[layer].cost[point] - curves[layer].cost[at[layer]])
        at[layer] = point


def _hull(c: Curve) -> list[tuple[int, int]]:
    """The edges of the lower convex hull, in the order of rising cost, as pairs of indices."""
    corners: list[int] = []
    cost, loss = c.cost.tolist(), c.loss.tolist()
    for i in range(len(cost)):
        while len(corners) > 1:
            a, b = corners[-2], corners[-1]
            if (loss[b] - loss[a]) * (cost[i] - cost[a]) < (loss[i] - loss[a]) * (cost[b] - cost[a]):
                break
            corners.pop()
        corners.append(i)
    return list(pairwise(corners))


def _best_within(c: Curve, at: int, room: float, layer: int) -> tuple[float, int, int] | None:
    """The furthest point that ``room`` pays for, with what it gains negated; ``None`` where it pays for none."""
    point = int(np.searchsorted(c.cost, c.cost[at] + room, side="right")) - 1
    return (-float(c.loss[at] - c.loss[point]), layer, point) if point > at else None
