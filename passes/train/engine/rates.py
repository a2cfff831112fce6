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
# By what the best rate of short runs is multiplied: in a whole one it rises more slowly, and there is more time to
# settle what it has stirred up. The best fixed rate of small networks (tests/networks/kinds.py) was from the same to
# ten times that of the short runs.
_BEARS = 10**0.5
# All short runs together take about this part of a run's steps and so many more; the halving of eight rates takes so
# many times the steps of the first runs, which are from so many to so many.
_PART, _ANYHOW, _ROUNDS, _FEWEST, _MOST = 0.25, 60, 24, 4, 40
# The part of a run in which the rate rises.
_RISE = 0.05
# The range of step sizes.
_SMALLEST, _LARGEST = 2.0**-12, 4.0


def gain(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """How much a loss has fallen, and the standard error of that.

    Args:
        before, after: on each part of the same samples, weighted so that their mean is that of the samples.
    """
    if not np.isfinite(after).all():
        return -math.inf, 0.0
    gains = before - after
    if not np.isfinite(gains).all():
        return math.inf, 0.0
    return float(gains.mean()), float(gains.std(ddof=1) / len(gains) ** 0.5) if len(gains) > 1 else 0.0


def halving(
    trial: Callable[[float, int], np.ndarray], rates: Sequence[float], steps: int
) -> tuple[float, np.ndarray, int]:
    """The rate of the least loss by successive halving: the better half of the rates gets twice the steps.

    After Karnin, Koren and Somekh, "Almost Optimal Exploration in Multi-Armed Bandits", ICML 2013, as Jamieson and
    Talwalkar use it, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016. Losses on
    a few samples are noisy: what counts is the mean over all runs at a rate, by their steps, and of rates that are
    within a standard error of the best the highest are the better ones. A run that was begun too high is lowered, and
    one that was begun too low ends too early.

    Args:
        trial: the loss, on each part of the held-out samples, behind a run at a rate, of so many steps, from the same
            start.
        rates: more than one.
        steps: of each rate's first run.

    Returns:
        The rate, that mean of its losses, and the steps of the longest run.
    """
    held: dict[float, np.ndarray | float] = dict.fromkeys(rates, 0.0)
    total = 0
    while True:
        total += steps
        sums = {rate: known + steps * trial(rate, steps) for rate, known in sorted(held.items())}
        least = min(sums.values(), key=lambda losses: float(losses.mean()))

        def order(rate: float, sums: dict[float, np.ndarray] = sums, least: np.ndarray = least) -> tuple[float, float]:
            behind, error = gain(sums[rate], least)
            return (0.0, -rate) if behind <= error else (float(sums[rate].mean()), rate)

        better = sorted(sums, key=order)[: len(sums) // 2]
        if len(better) == 1:
            return better[0], sums[better[0]] / total, steps
        held = {rate: sums[rate] for rate in better}
        steps *= 2


def find_rate(
    trial: Callable[[float, int], np.ndarray], rates: Sequence[float], steps: int, start: np.ndarray
) -> float:
    """The rate to train with, in two digits.

    It follows from the best one of short runs, none of which has made the loss higher by more than chance: a whole run
    bears a higher rate than a short one.

    Args:
        trial, rates, steps: as in :func:`halving`.
        start: the loss before any step.
    """
    rate, reached, longest = halving(trial, rates, steps)
    if _harmed(start, reached):
        # All are too high, or the runs were too short: where a few mistakes make up the loss, it rises at first.
        rate = sorted(rates)[len(rates) // 2]
        while _harmed(start, trial(rate, 2 * longest)) and rate * DOWN > LEAST:
            rate *= DOWN
        return _rounded(rate)
    return _rounded(rate * _BEARS)


def _rounded(rate: float) -> float:
    return float(f"{rate:.2g}")


def _harmed(start: np.ndarray, reached: np.ndarray) -> bool:
    gained, error = gain(start, reached)
    return gained < -error


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

    Optimizers that take steps of one size in all weights were made for kernels as they are initialized, of about
    1 / sqrt(inputs). Here a kernel may have taken in the scale of raw pixels, or be a factor of another: a step that
    is small beside one can wipe out the other. Biases and scales are multiplied by one.
    """
    if parameter.ndim < 2:
        return 1.0
    inputs = parameter[0].numel()
    size = float(parameter.detach().float().square().mean().sqrt()) * math.sqrt(inputs)
    return 2.0 ** round(math.log2(min(max(size, _SMALLEST), _LARGEST)))
