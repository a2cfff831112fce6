"""How much each unit of a group matters, by the weights that compute it: no data are needed.

``l1`` and ``l2`` after Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017; ``geometric_median`` after He et
al., "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks Acceleration", CVPR 2019: a filter
that lies in the midst of the others is the one that they can stand for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from edgec.ir.channels import Group

Magnitude = Literal["l1", "l2", "geometric_median"]


def magnitude(group: Group, criterion: Magnitude) -> np.ndarray:
    """Of each unit: the sum of absolute values (l1) or squares (l2) of the weights that compute it, or the sum of its
    distances to the others; float64, shape (width,)."""
    if criterion == "geometric_median":
        return _distances(np.concatenate(list(_rows(group)), axis=1))
    scores = np.zeros(group.width)
    for weights in _rows(group):
        scores += np.abs(weights).sum(axis=1) if criterion == "l1" else np.einsum("uf,uf->u", weights, weights)
    return scores


def _rows(group: Group) -> Iterator[np.ndarray]:
    """By layer that computes it, each unit's weights as a row, padded with zeros where units differ in size."""
    seen = set()
    for slot in group.slots:
        if slot.role != "produces" or (slot.constant, slot.axis) in seen or slot.constant.dtype.kind != "f":
            continue
        seen.add((slot.constant, slot.axis))
        values = np.moveaxis(slot.constant.values, slot.axis, 0)
        places = np.flatnonzero(slot.index >= 0)
        units = slot.index[places]
        order = np.argsort(units, kind="stable")
        places, units = places[order], units[order]
        counts = np.bincount(units, minlength=group.width)
        nth = np.arange(len(units)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.zeros((group.width, int(counts.max()), int(np.prod(values.shape[1:], dtype=int))))
        rows[units, nth] = values[places].reshape(len(places), -1)
        yield rows.reshape(group.width, -1)


def _distances(rows: np.ndarray) -> np.ndarray:
    squares = np.einsum("uf,uf->u", rows, rows)
    apart = squares[:, None] + squares[None] - 2 * (rows @ rows.T)
    return np.sqrt(apart.clip(min=0)).sum(axis=1)
