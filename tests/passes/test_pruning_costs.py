"""The cost that a plan is chosen by is the cost that the cut network has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks.coupled import TEXTS, coupled

from edgec.ir.channels import Channels, Group
from edgec.ir.cost import Cost
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.passes.prune.costs import Costs, Unit
from edgec.passes.prune.cutting import cut, spare
from edgec.passes.prune.selection import Offer, select
from edgec.testing import model, networks


def orders(groups: list[Group], random: np.random.Generator) -> list[np.ndarray]:
    """Of each group the units that may go, in random order."""
    found = []
    for group in groups:
        scores = random.random(group.width)
        stay = spare(group, np.zeros(group.width, bool), scores)
        found.append(random.permutation(np.flatnonzero(~stay)))
    return found


def check_pair(costs: Costs, of: list[np.ndarray], removed: list[int], pair: tuple[int, int]) -> None:
    lost = tuple(np.arange(len(of[group]) + 1)[::2] for group in pair)
    found = costs.of_pair(removed, pair, (lost[0], lost[1]))
    for row, one in enumerate(lost[0]):
        for column, two in enumerate(lost[1]):
            tried = list(removed)
            tried[pair[0]], tried[pair[1]] = int(one), int(two)
            assert found[row, column] == costs.total(tried)


def check(graph: Graph, unit: Unit, seed: int) -> None:
    random = np.random.default_rng(seed)
    channels = Channels(graph)
    groups = [group for group in channels.groups if group.fixed is None]
    of = orders(groups, random)
    costs = Costs(graph, Shapes(graph), channels, groups, of, unit)
    none = [0] * len(groups)
    assert costs.total(none) == getattr(Cost(graph), unit)
    removed = [int(random.integers(0, len(order) + 1)) for order in of]
    one = int(random.integers(0, len(groups))) if groups else None
    if one is not None:
        more = [len(of[one]) if number == one else count for number, count in enumerate(removed)]
        saved = costs.saved(removed, one, len(of[one]))
        assert saved == costs.total(removed) - costs.total(more)
        for two in range(len(groups)):
            if two != one:
                check_pair(costs, of, removed, (one, two))
    masks = {
        group: np.isin(np.arange(group.width), order[:count], invert=True)
        for group, order, count in zip(groups, of, removed, strict=True)
    }
    cut(graph, masks)
    assert costs.total(removed) == getattr(Cost(graph), unit)


@pytest.mark.parametrize("unit", ["params", "macs"])
@pytest.mark.parametrize("name", TEXTS)
def test_costs_of_coupled_networks(name: str, unit: Unit) -> None:
    for seed in range(3):
        check(coupled(name), unit, seed)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(networks(), st.sampled_from(["params", "macs"]), st.integers(0, 100))
def test_costs_of_random_networks(network: Graph, unit: Unit, seed: int) -> None:
    check(network, unit, seed)


def test_layers_whose_shapes_are_not_known_are_in_neither() -> None:
    graph = model(
        "[stem] a = Conv<pads=[1,1,1,1]>(x, w)\n[up] u = ConvTranspose(a, t)\n[pad] p = Pad(u, pads)\n"
        "[blind] b = Conv(p, v)\n[mean] m = GlobalAveragePool(b)\n[flat] f = Flatten(m)\n[head] y = Gemm(f, k)",
        "(float[1,3,8,8] x, int64[8] pads) => (float[n,4] y)",
        "float[8,3,3,3] w, float[8,6,1,1] t, float[10,6,3,3] v, float[10,4] k",
    )
    assert Cost(graph).macs_unknown == 2  # the one behind Pad, and the head
    for seed in range(3):
        check(graph.copy(), "macs", seed)


class _Prices:
    """Costs that add up: each unit of group i costs ``each[i]``."""

    def __init__(self, base: int, each: list[int], widths: list[int]) -> None:
        self.base, self.each, self.widths = base, each, widths
        self.neighbours = [[number] for number in range(len(each))]

    def total(self, removed: Sequence[int]) -> int:
        left = sum(e * (w - r) for e, w, r in zip(self.each, self.widths, removed, strict=True))
        return self.base + left

    def saved(self, removed: Sequence[int], group: int, more: int) -> int:
        return self.each[group] * (more - removed[group])

    def of_pair(self, removed: Sequence[int], pair: tuple[int, int], lost: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        fewer = [self.each[group] * (lost[i] - removed[group]) for i, group in enumerate(pair)]
        return self.total(removed) - fewer[0][:, None] - fewer[1]


def offer(losses: list[float], step: int = 1) -> Offer:
    allowed = np.arange(0, len(losses) + 1, step)
    return Offer(np.arange(len(losses)), np.concatenate([[0.0], np.cumsum(losses)]), allowed)


def test_the_least_loss_for_its_cost_goes_first() -> None:
    offers = [offer([1.0, 2.0, 3.0]), offer([3.0, 8.0, 9.0])]
    costs = _Prices(0, [1, 4], [4, 4])
    assert select(offers, costs, 20) == [0, 0]
    assert select(offers, costs, 16) == [0, 1]
    assert select(offers, costs, 15) == [1, 1]


def test_what_the_last_step_saved_too_much_is_given_back() -> None:
    offers = [offer([1.0, 1.1]), offer([100.0])]
    # 2 units of 1 and one of 10: 11 must go; the first group went first and comes back but for one unit.
    assert select(offers, _Prices(0, [1, 10], [2, 1]), 1) == [1, 1]


def test_what_is_left_of_a_budget_is_not_worth_much_more_loss() -> None:
    # Two units of 30 go for a loss of 2, which leaves 18 of 100; the unit of 50 would leave 8, for a loss of 90.
    offers = [offer([1.0, 1.0]), offer([90.0])]
    assert select(offers, _Prices(0, [30, 50], [3, 2]), 148) == [2, 0]
    # Where it loses about as much, it goes instead.
    offers = [offer([1.0, 1.0]), offer([2.2])]
    assert select(offers, _Prices(0, [30, 50], [3, 2]), 148) == [0, 1]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.lists(st.floats(0.01, 2), min_size=1, max_size=6)), min_size=2, max_size=2
    ),
    st.floats(0.05, 0.95),
)
def test_nothing_that_meets_the_budget_closely_loses_less_than_what_is_taken(
    groups: list[tuple[int, list[float]]], part: float
) -> None:
    offers = [offer(losses) for _, losses in groups]
    costs = _Prices(10, [each for each, _ in groups], [len(losses) + 1 for _, losses in groups])
    total = costs.total([0, 0])
    budget = part * total
    removed = select(offers, costs, budget)
    if removed is None:
        assert costs.total([len(losses) for _, losses in groups]) > budget
        return
    spent = costs.total(removed)
    assert spent <= budget
    back = [each for (each, _), lost in zip(groups, removed, strict=True) if lost]
    assert not back or budget - spent < min(back)
    if spent <= budget - 0.01 * total:
        loss = sum(o.loss[count] for o, count in zip(offers, removed, strict=True))
        for one in range(len(groups[0][1]) + 1):
            for two in range(len(groups[1][1]) + 1):
                if budget - 0.01 * total < costs.total([one, two]) <= budget:
                    assert offers[0].loss[one] + offers[1].loss[two] > loss


def test_two_groups_exchange_several_units_at_once() -> None:
    # Two units of 40 go first and leave 35 of 310 free; three of 15 in their stead meet 265 to the unit.
    offers = [offer([1.0, 1.0]), offer([0.45] * 5)]
    assert select(offers, _Prices(100, [40, 15], [3, 6]), 265) == [0, 3]


def test_a_budget_below_all_that_may_go_is_refused() -> None:
    assert select([offer([1.0])], _Prices(10, [1], [1]), 9) is None


def test_steps_keep_to_the_rounding() -> None:
    [count] = select([offer([1.0] * 8, step=4)], _Prices(0, [1], [9]), 7) or []
    assert count == 4


def test_a_wide_group_is_still_settled_to_the_unit() -> None:
    [count] = select([offer([1.0] * 1000)], _Prices(0, [1], [1001]), 1001 - 333) or []
    assert count == 333
