"""Learning rates: what is found lowers the loss behind a short run, and schedules begin and end where they should."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from edgec.passes.train.engine.rates import RATES, factor, find_rate, first_steps, halving, step_size

DESCENT = tuple(10 ** (power / 2) for power in range(-10, 1))


def parabola(edge: float, floor: float = 0.0, start: float = 1.0) -> Callable[[float, int], np.ndarray]:
    """The loss behind gradient descent on a parabola, which diverges from twice ``edge`` on."""

    def trial(rate: float, steps: int) -> np.ndarray:
        position = start
        for step in range(steps):
            position *= 1 - rate * factor("cosine", step, steps) / edge
        return np.full(4, position**2 + floor if abs(position) < 1e6 else math.inf)

    return trial


@pytest.mark.parametrize("edge", [1e-4, 1e-3, 1e-2])
def test_the_rate_that_is_found_lies_below_the_edge(edge: float) -> None:
    assert edge / 4 < find_rate(parabola(edge), DESCENT, 4, np.ones(4)) < 4 * edge


@pytest.mark.parametrize("edge", [3e-8, 1e-7, 1e-6])
def test_where_all_rates_are_too_high_lower_ones_are_tried(edge: float) -> None:
    """The start is almost at the least: whatever is above the edge makes it worse."""
    trial = parabola(edge, floor=1.0, start=1e-3)
    rate = find_rate(trial, RATES["adamw"], 4, np.full(4, 1.0 + 1e-6))
    assert 1e-7 <= rate < 1e-5
    if edge > 1e-7:
        assert trial(rate, 16).mean() < 1.0 + 1e-6


def test_the_better_half_gets_twice_the_steps() -> None:
    tried: list[tuple[float, int]] = []

    def trial(rate: float, steps: int) -> np.ndarray:
        tried.append((rate, steps))
        return np.full(3, 1.0 + abs(math.log(rate / 4.0)))

    rate, loss, steps = halving(trial, [8.0, 1.0, 2.0, 4.0, 16.0, 0.5, 0.25, 0.125], 3)
    assert (rate, loss.tolist(), steps) == (4.0, [1.0] * 3, 12)
    assert [steps for _, steps in tried] == [3] * 8 + [6] * 4 + [12] * 2
    assert {rate for rate, steps in tried if steps == 6} == {1.0, 2.0, 4.0, 8.0}  # of two alike the lower one


def test_of_rates_that_differ_by_chance_the_highest_is_taken() -> None:
    random = np.random.default_rng(0)
    noise = {rate: random.standard_normal(16) for rate in (1.0, 0.1, 0.01, 0.001)}

    def trial(rate: float, steps: int) -> np.ndarray:
        return 5.0 * (rate == 1.0) + 10 + (noise[rate] - noise[rate].mean()) + rate / 100

    assert find_rate(trial, list(noise), 4, np.full(16, 10.5)) == 0.32


def test_one_lucky_run_does_not_decide() -> None:
    losses = {1e-3: iter([0.9, 0.7, 1.0]), 1e-4: iter([0.99, 0.98, 0.99]), 1e-5: iter([2.0]), 1e-6: iter([2.0])}
    assert halving(lambda rate, steps: np.full(2, next(losses[rate])), list(losses), 4)[0] == 1e-3


def test_a_loss_that_is_not_finite_is_the_worst() -> None:
    def trial(rate: float, steps: int) -> np.ndarray:
        return np.full(1, math.inf) if rate > 1e-4 else np.full(4, 0.9)

    assert find_rate(trial, RATES["adamw"], 4, np.ones(4)) <= 3.2e-4


def test_short_runs_are_part_of_a_run() -> None:
    assert first_steps(1) == 4
    assert first_steps(100_000) == 40
    for steps in (160, 640, 3000):  # eight rates by halving: 24 times the first steps
        assert 24 * first_steps(steps) <= steps / 3 + 60 + 12


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 0.01), ("linear", 0.02), ("constant", 1.0)])
def test_schedules(schedule: str, last: float) -> None:
    factors = [factor(schedule, step, 100) for step in range(100)]
    assert factors[0] == 0.2
    assert factors[4] == factors[5] == 1.0 == max(factors)
    assert 0 < factors[-1] <= last
    assert all(a >= b for a, b in pairwise(factors[5:]))


def test_steps_are_as_large_as_kernels() -> None:
    kernel = torch.randn(64, 32, 3, 3, generator=torch.Generator().manual_seed(0)) / math.sqrt(288)
    assert step_size(kernel) == 1.0
    assert step_size(kernel / 255) == 2.0**-8
    assert step_size(kernel * 1000) == 4.0
    assert step_size(torch.zeros(8, 8)) == 2.0**-12
    assert step_size(torch.zeros(8)) == 1.0
    assert np.isfinite(step_size(kernel * 0))
