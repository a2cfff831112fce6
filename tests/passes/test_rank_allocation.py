"""How a budget is spent over layers."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.passes.factorize.allocation import Curve, allocate, curve, least, loss_of


def offered(ranks: int, decay: float, price: float) -> Curve:
    """A layer of ``ranks`` ranks with geometrically falling energy."""
    energy = decay ** np.arange(ranks)
    kept = energy.cumsum() / energy.sum()
    rank = np.arange(1, ranks + 1)
    return curve(rank * price, loss_of(kept), rank)


def test_only_points_that_none_beats_are_kept() -> None:
    made = curve(np.array([3.0, 1.0, 2.0, 2.0]), np.array([0.5, 1.0, 0.4, 0.7]), np.arange(4))
    assert made.choice.tolist() == [1, 2]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 6), st.floats(0.2, 1.0), st.integers(1, 9)), min_size=1, max_size=4),
    st.floats(0.0, 1.2),
)
def test_the_budget_holds_and_the_loss_is_near_the_least(layers: list[tuple[int, float, int]], part: float) -> None:
    curves = [offered(*layer) for layer in layers]
    total = sum(float(c.cost[-1]) for c in curves)
    budget = part * total
    points = allocate(curves, budget)
    if points is None:
        assert least(curves) > budget
        return
    cost = sum(float(c.cost[i]) for c, i in zip(curves, points, strict=True))
    loss = sum(float(c.loss[i]) for c, i in zip(curves, points, strict=True))
    assert cost <= budget
    best = min(
        sum(float(c.loss[i]) for c, i in zip(curves, choice, strict=True))
        for choice in itertools.product(*(range(len(c.cost)) for c in curves))
        if sum(float(c.cost[i]) for c, i in zip(curves, choice, strict=True)) <= budget
    )
    # Walking down hulls misses the optimum by less than the best single step of the layer that did not fit.
    steps = [float(c.loss[i] - c.loss[i + 1]) for c in curves for i in range(len(c.cost) - 1)]
    assert loss <= best + max(steps, default=0.0) + 1e-9
    room = budget - cost
    for c, i in zip(curves, points, strict=True):
        assert i + 1 == len(c.cost) or c.cost[i + 1] - c.cost[i] > room - 1e-9


def test_no_layer_is_starved_while_another_keeps_slack() -> None:
    """A large layer with a flat spectrum and a small one: ranks must not all go to the one that is cheap to keep."""
    large, small = offered(64, 0.999, 100), offered(64, 0.999, 1)
    points = allocate([large, small], 64 * 20)
    assert points is not None
    assert points[0] >= 10
    assert points[1] >= 10


def test_equal_layers_share_evenly_and_ties_go_to_the_first() -> None:
    curves = [offered(16, 0.7, 1) for _ in range(4)]
    points = allocate(curves, 4 * 5 + 1)
    assert points == [5, 4, 4, 4]
    assert allocate(curves, 4 * 5 + 1) == points
