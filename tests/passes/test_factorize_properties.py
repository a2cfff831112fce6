"""factorize on random networks: budgets, signature, and nothing left without a reason."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgec.ir.cost import Cost
from edgec.ir.errors import UsageError
from edgec.ir.graph import Graph
from edgec.ir.printer import print_graph
from edgec.passes.factorize.factorize import Factorize
from edgec.passes.layers.linear import LINEAR
from edgec.testing import assert_same, networks, outputs, run_pass

LIMITS = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@LIMITS
@given(networks(channels=16), st.sampled_from(["params", "macs"]), st.floats(0.2, 0.95))
def test_a_budget_is_met_within_a_hundredth_or_refused(network: Graph, unit: str, part: float) -> None:
    before = network.copy()
    total = getattr(Cost(network), unit)
    step = Factorize(params=part, min_rank=1) if unit == "params" else Factorize(macs=part, min_rank=1)
    try:
        ctx = run_pass(step, network)
    except UsageError as error:
        assert "the least that can be reached is" in str(error)
        assert print_graph(network) == print_graph(before)
        return
    cost = Cost(network)
    assert getattr(cost, unit) <= part * total
    assert cost.params <= Cost(before).params
    assert [t.name for t in network.outputs] == [t.name for t in before.outputs]
    assert outputs(network)["y"].shape == outputs(before)["y"].shape
    done, left = {r.node for r in ctx.done}, {r.node for r in ctx.left}
    layers = {node.name for node in before.nodes if node.op in LINEAR}
    assert done | left == layers
    assert not done & left


@LIMITS
@given(networks(channels=16))
def test_full_rank_changes_nothing(network: Graph) -> None:
    before = network.copy()
    ctx = run_pass(Factorize(rank=1.0), network)
    assert ctx.done == []
    assert print_graph(network) == print_graph(before)


@LIMITS
@given(networks(channels=16))
def test_all_the_energy_is_all_of_the_signal(network: Graph) -> None:
    before = network.copy()
    run_pass(Factorize(energy=1.0), network)
    assert_same(before, network, tolerance=1e-4)


@pytest.mark.parametrize("params", [0.01, 0.05, 0.25, 0.5, 0.75, 0.9])
def test_budgets_of_a_larger_network_are_met_within_a_hundredth(params: float) -> None:
    from edgec.testing import model

    sizes = [8, 64, 96, 128, 96, 64]
    text = "\n".join(f"[c{i}] a{i + 1} = Conv<pads=[1,1,1,1]>(a{i}, w{i})" for i in range(5))
    weights = ", ".join(f"float[{sizes[i + 1]},{sizes[i]},3,3] w{i}" for i in range(5))
    graph = model(text, "(float[1,8,6,6] a0) => (float[1,64,6,6] a5)", weights)
    total = Cost(graph).params
    ctx = run_pass(Factorize(params=params), graph)
    assert params - 0.01 <= Cost(graph).params / total <= params
    errors = [r.figures["relative_error"] for r in ctx.done]
    assert max(errors) < 0.999


@LIMITS
@given(networks(channels=16), st.sampled_from(["params", "macs"]))
def test_a_budget_of_everything_is_the_identity(network: Graph, unit: str) -> None:
    before = network.copy()
    ctx = run_pass(Factorize(params=1.0) if unit == "params" else Factorize(macs=1.0), network)
    assert ctx.done == []
    assert print_graph(network) == print_graph(before)
