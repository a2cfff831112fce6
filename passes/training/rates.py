"""Learning rates: one found by trying, and how it rises and falls over a run."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

# The range that is tried, in so many steps (Smith, "Cyclical learning rates for training neural networks", WACV 2017).
LEAST, MOST, STEPS = 1e-6, 1.0, 60
# A trial ends where its loss is so many times the least.
_DIVERGED = 4.0
_SMOOTH = 0.8
# The first steps, at rates that change nothing, show the loss as it is and how it differs from batch to batch; it has
# fallen where it comes below that by so many standard errors of the mean of so many steps.
_IDLE, _ERRORS, _AVERAGED = 10, 3.0, 5
# The part of the rate at which the loss has risen.
_RISEN = 0.5
# The part of a run in which the rate rises.
_RISE = 0.05
# The range of step sizes.
_SMALLEST, _LARGEST = 2.0**-12, 4.0


def tried_rate(step: int) -> float:
    """The rate of a step of the trial."""
    return float(LEAST * (MOST / LEAST) ** (step / (STEPS - 1)))


def found_rate(loss_at: Callable[[float], float], back: float = 1.0) -> float:
    """The rate to train with: that at which the loss was least, divided by ``back``.

    A network that is almost right already has no such rate: its loss is the same at all that are low, but for the noise
    of the batches, and then rises. It is trained with a part of the rate at which it has risen: what a high rate stirs
    up, its fall over the run settles.

    Args:
        loss_at: takes a step at a rate and returns the loss before it.
        back: the least loss is seen late, when rates are too high already for an optimizer that can diverge.
    """
    smooth, best, chosen, rose = 0.0, math.inf, LEAST * back, False
    idle: list[float] = []
    for step in range(STEPS):
        rate = tried_rate(step)
        loss = loss_at(rate)
        if not math.isfinite(loss):
            break
        if step < _IDLE:
            idle.append(loss)
        smooth = _SMOOTH * smooth + (1 - _SMOOTH) * loss
        level = smooth / (1 - _SMOOTH ** (step + 1))
        fell = best < np.mean(idle) - _ERRORS * np.std(idle) / _AVERAGED**0.5
        if level < best:
            best, chosen = level, rate
        rose = level > _DIVERGED * (best if fell else float(np.mean(idle)))
        if rose:
            break
    if rose and not fell:
        chosen = _RISEN * rate
    return float(f"{chosen / back:.2g}")


def factor(schedule: str, step: int, steps: int) -> float:
    """By what the highest rate is multiplied at a step of so many: a straight rise, then the schedule."""
    rise = max(round(_RISE * steps), 1)
    if step < rise:
        return (step + 1) / rise
    part = (step - rise) / max(steps - rise, 1)
    if schedule == "constant":
        return 1.0
    return 1.0 - part if schedule == "linear" else float(0.5 * (1 + np.cos(np.pi * part)))


def step_size(parameter: torch.Tensor) -> float:
    """By what the rate is multiplied for a kernel: its size as a part of what one has when it is made, a power of two.

    Optimizers that take steps of one size in all weights were made for kernels as they are initialised, of about
    1 / sqrt(inputs). Here a kernel may have taken in the scale of raw pixels, or be a factor of another: a step that
    is small beside one can wipe out the other. Biases and scales are multiplied by one.
    """
    if parameter.ndim < 2:
        return 1.0
    inputs = parameter[0].numel()
    size = float(parameter.detach().float().square().mean().sqrt()) * math.sqrt(inputs)
    return 2.0 ** round(math.log2(min(max(size, _SMALLEST), _LARGEST)))
