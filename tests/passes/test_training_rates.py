"""Learning rates: what is found lies below where a loss explodes, and schedules begin and end where they should."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from edgec.passes.training.rates import STEPS, factor, found_rate, step_size, tried_rate


def test_what_is_tried() -> None:
    assert tried_rate(0) == pytest.approx(1e-6)
    assert tried_rate(STEPS - 1) == pytest.approx(1.0)


@pytest.mark.parametrize("edge", [1e-4, 1e-3, 1e-2])
def test_the_rate_that_is_found_lies_below_the_edge(edge: float) -> None:
    """Gradient descent on a parabola of that curvature, which diverges from twice the edge on."""
    position = [1.0]

    def loss_at(rate: float) -> float:
        loss = position[0] ** 2
        moved = position[0] * (1 - rate / edge)
        position[0] = np.sign(moved) * max(abs(moved), 0.01)  # as noise of batches would have it
        return loss

    assert edge / 10 < found_rate(loss_at, 3.0) < 2 * edge


@pytest.mark.parametrize("seed", range(5))
def test_the_noise_of_batches_is_not_taken_for_a_fall(seed: int) -> None:
    """The loss of a network that is almost right: flat at low rates, but for the batch, and rising from an edge on."""
    random, edge = np.random.default_rng(seed), 1e-3

    def loss_at(rate: float) -> float:
        return float(random.uniform(0.2, 1.8)) * (1 + (rate / edge) ** 2)

    assert edge / 10 < found_rate(loss_at) < 3 * edge


def test_a_loss_that_is_not_finite_ends_the_trial() -> None:
    tried = []

    def loss_at(rate: float) -> float:
        tried.append(rate)
        return 1.0 / len(tried) if len(tried) < 20 else math.nan

    assert found_rate(loss_at) == float(f"{tried[18]:.2g}")
    assert len(tried) == 20


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
