"""In which order the units of a group go so that its readers, refitted, lose least.

A reader computes W x from the channels x of a group. When a unit goes, the others take over what they can: with the
covariance C of x, the best weights for the units K that stay leave the error trace(W_r S W_r'), S being what of the
removed channels is not a linear function of those that stay. Units are removed one after the other, each time those
that add least; with H = C^-1 the error that unit u adds is |W_u|^2 / H_uu, and then

    W -= W_u H_u: / H_uu        H -= H_:u H_u: / H_uu

(Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", 1993; of whole columns as in
Frantar and Alistarh, "Optimal Brain Compression", 2022.) W enters by its Gram matrix only, so all costs are those of
matrices of the group's width. The means need no covariance: they go into the readers' biases. Each position of an
image is taken by itself: that neighbouring taps can also stand in is left to the refit behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A wide group goes down in so many rounds at most, some units at a time.
_MOST_ROUNDS = 128
_RIDGE, _RIDGE_FEW = 1e-4, 0.1


@dataclass(frozen=True)
class Elimination:
    """The order in which units go.

    Attributes:
        order: the units, first removed first.
        loss: at [k] the sum over the readers of -log(1 - their relative error) when k of them are gone.
    """

    order: np.ndarray
    loss: np.ndarray


class _Reading:
    """What one reader makes of the units that are left."""

    def __init__(self, gram: np.ndarray, covariance: np.ndarray, rows: float) -> None:
        self.energy = float(np.einsum("uv,uv->", gram, covariance))
        level = float(np.trace(covariance)) / max(len(covariance), 1)
        self.error = 0.0
        self.dead = self.energy <= 0 or level <= 0
        if self.dead:
            return
        ridge = max(_RIDGE, _RIDGE_FEW * len(covariance) / max(rows, 1)) * level
        self.gram = gram / self.energy
        self.inverse = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))

    def scores(self) -> np.ndarray:
        """What removing each unit adds to the relative error."""
        return np.diag(self.gram).clip(min=0) / np.diag(self.inverse)

    def remove(self, units: np.ndarray) -> None:
        taken = np.linalg.solve(self.inverse[np.ix_(units, units)], self.inverse[units])
        inside = self.gram[np.ix_(units, units)]
        self.error += float(np.einsum("uv,vu->", inside, np.linalg.inv(self.inverse[np.ix_(units, units)])))
        crossed = self.gram[units].T @ taken
        self.gram += taken.T @ inside @ taken - crossed - crossed.T
        self.inverse -= self.inverse[:, units] @ taken

    def compact(self, left: np.ndarray) -> None:
        self.gram, self.inverse = self.gram[np.ix_(left, left)], self.inverse[np.ix_(left, left)]

    @property
    def loss(self) -> float:
        return -float(np.log(max(1 - self.error, 1e-12)))


def eliminate(
    readings: Sequence[tuple[np.ndarray, np.ndarray, float]], stay: np.ndarray, prices: np.ndarray | None = None
) -> Elimination:
    """The order for a group.

    Args:
        readings: of each reader the Gram matrix of its weights (width, width), the covariance of the units (width,
            width), and the independent observations that it comes from.
        stay: the units that never go; bool, shape (width,).
        prices: what each unit costs, where they differ: the least error for its cost goes first.
    """
    alive = [reading for reading in (_Reading(*given) for given in readings) if not reading.dead]
    width = len(stay)
    each = -(-width // _MOST_ROUNDS)
    left = np.arange(width)
    order: list[int] = []
    loss = [0.0]
    while True:
        free = np.flatnonzero(~stay[left])
        if not len(free):
            break
        scores = np.zeros(len(left)) if not alive else np.sum([reading.scores() for reading in alive], axis=0)
        if prices is not None:
            scores = scores / prices[left]
        chosen = free[np.argsort(scores[free], kind="stable")[:each]]
        before = loss[-1]
        for reading in alive:
            reading.remove(chosen)
        after = max(before, sum(reading.loss for reading in alive))
        loss += [before + (after - before) * (k + 1) / len(chosen) for k in range(len(chosen))]
        order += left[chosen].tolist()
        remaining = np.setdiff1d(np.arange(len(left)), chosen)
        for reading in alive:
            reading.compact(remaining)
        left = left[remaining]
    return Elimination(np.array(order, np.int64), np.array(loss))


def ranked(scores: np.ndarray, stay: np.ndarray) -> Elimination:
    """The order by a score that adds up, lowest first; the loss is -log of the part of the sum that is left."""
    total = float(scores.sum())
    order = np.argsort(scores, kind="stable")
    order = order[~stay[order]]
    lost = np.concatenate([[0.0], np.cumsum(scores[order])]) / (total or 1.0)
    return Elimination(order, -np.log((1 - lost).clip(1e-12, 1.0)))
