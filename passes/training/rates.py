"""Learning rates: one found by short runs, and how it rises and falls over a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

# The rates that are tried, by optimizer: two in each power of ten.
RATES = {
    "adamw": tuple(10 ** (power / 2) for power in range(-10, -2)),  # 1e-5 to 0.032
    "sgd": tuple(10 ** (power / 2) for power in range(-8, 1)),  # 1e-4 to 1
}
# What a tried rate falls to where none lowers the loss, and the lowest one.
DOWN, LEAST = 0.1, 1e-7
_LEAST_LOSS = 1e-30
# All short runs together take about this part of a run's steps and so many more; the halving of eight rates takes so
# many times the steps of the first runs, which are from so many to so many.
_PART, _ANYHOW, _ROUNDS, _FEWEST, _MOST = 0.25, 60, 24, 4, 40
# The part of a run in which the rate rises.
_RISE = 0.05
# The range of step sizes.
_SMALLEST, _LARGEST = 2.0**-12, 4.0


def halving(trial: Callable[[float, int], float], rates: Sequence[float], steps: int) -> tuple[float, float, int]:
    """The rate of the least loss by successive halving: the better half of the rates gets twice the steps.

    After Karnin, Koren and Somekh, "Almost Optimal Exploration in Multi-Armed Bandits", ICML 2013, as Jamieson and
    Talwalkar use it, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016. Losses on
    a few samples are noisy: what counts is the mean of the logarithms over all runs at a rate, by their steps.

    Args:
        trial: the loss behind a run at a rate, of so many steps, from the same start.
        rates: more than one.
        steps: of each rate's first run.

    Returns:
        The rate, that mean as a loss, and the steps of the longest run.
    """
    sums = dict.fromkeys(sorted(rates), 0.0)
    total = 0
    while len(sums) > 1:
        total += steps
        for rate, known in sums.items():
            sums[rate] = known + steps * math.log(max(trial(rate, steps), _LEAST_LOSS))
        better = sorted(sums, key=lambda rate: (sums[rate], rate))[: len(sums) // 2]
        sums = {rate: known for rate, known in sums.items() if rate in better}
        steps *= 2
    [(rate, known)] = sums.items()
    return rate, math.exp(known / total), steps // 2


def find_rate(trial: Callable[[float, int], float], rates: Sequence[float], steps: int, loss: float) -> float:
    """The rate to train with, in two digits: one whose short run has lowered the loss, where there is such a rate.

    Args:
        trial, rates, steps: as in :func:`halving`.
        loss: before any step.
    """
    rate, reached, longest = halving(trial, rates, steps)
    if not reached < loss:  # all of them are too high, or nothing can be gained
        rate = min(rates)
        while rate * DOWN > LEAST and not reached < loss:
            rate *= DOWN
            reached = trial(rate, longest)
    return float(f"{rate:.2g}")


def first_steps(steps: int) -> int:
    """How many steps each rate is first tried for, where a run has so many."""
    return min(max(round((_PART * steps + _ANYHOW) / _ROUNDS), _FEWEST), _MOST)


def factor(schedule: str, step: int, steps: int, rise: float = _RISE) -> float:
    """By what the highest rate is multiplied at a step of so many: a straight rise over a part, then the schedule."""
    first = max(round(rise * steps), 1)
    if step < first:
        return (step + 1) / first
    part = (step - first) / max(steps - first, 1)
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
