"""Learning rates: one found by trying, and how it rises and falls over a run."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

# The range that is tried, in so many steps (Smith, "Cyclical learning rates for training neural networks", WACV 2017).
LEAST, MOST, STEPS = 1e-6, 1.0, 60
# A trial ends where its loss is so many times the least. What is taken is the rate of the least loss by so much.
_DIVERGED, _BACK = 4.0, 3.0
_SMOOTH = 0.8
# The part of a run in which the rate rises.
_RISE = 0.05


def tried_rate(step: int) -> float:
    """The rate of a step of the trial."""
    return float(LEAST * (MOST / LEAST) ** (step / (STEPS - 1)))


def found_rate(loss_at: Callable[[float], float]) -> float:
    """The rate to train with.

    Args:
        loss_at: takes a step at a rate and returns the loss before it.
    """
    smooth, best, chosen = 0.0, math.inf, LEAST * _BACK
    for step in range(STEPS):
        rate = tried_rate(step)
        loss = loss_at(rate)
        if not math.isfinite(loss):
            break
        smooth = _SMOOTH * smooth + (1 - _SMOOTH) * loss
        level = smooth / (1 - _SMOOTH ** (step + 1))
        if level < best:
            best, chosen = level, rate
        elif level > _DIVERGED * best:
            break
    return float(f"{chosen / _BACK:.2g}")


def factor(schedule: str, step: int, steps: int) -> float:
    """By what the highest rate is multiplied at a step of so many: a straight rise, then the schedule."""
    rise = max(round(_RISE * steps), 1)
    if step < rise:
        return (step + 1) / rise
    part = (step - rise) / max(steps - rise, 1)
    if schedule == "constant":
        return 1.0
    return 1.0 - part if schedule == "linear" else float(0.5 * (1 + np.cos(np.pi * part)))
