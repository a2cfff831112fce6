"""What a network reaches that looks at nothing: a metric near it says that something else than the network is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.frontends.metrics import Auroc, MeanAbsoluteError, Metric, Top1

# Of the way from chance to perfection, a trained network goes further than this.
_NEAR = 0.15


@dataclass(frozen=True)
class Chance:
    """A metric's value by chance.

    Attributes:
        value: of a network that always gives the best constant answer.
        near: a value that is not better than this is near it.
    """

    value: float
    near: float


def chance(metric: Metric) -> Chance | None:
    """What chance gives on a metric's data; ``None`` where that is not known."""
    if isinstance(metric, Auroc):
        return Chance(0.5, 0.5 + _NEAR / 2)
    labels = metric.data[0].labels
    if labels is None:
        return None
    if isinstance(metric, Top1):
        share = float(np.bincount(labels).max() / len(labels))
        # Of one class alone nothing can be guessed.
        return None if share == 1 else Chance(share, share + _NEAR * (1 - share))
    if isinstance(metric, MeanAbsoluteError):
        rows = np.asarray(labels, np.float64).reshape(len(labels), -1)
        error = float(np.abs(rows - np.median(rows, axis=0)).mean())
        return Chance(error, (1 - _NEAR) * error)
    return None


def near_chance(metric: Metric, value: float) -> Chance | None:
    """What chance gives, where ``value`` is near it or worse; else ``None``."""
    known = chance(metric)
    if known is None:
        return None
    worse = value <= known.near if metric.higher_is_better else value >= known.near
    return known if worse else None
