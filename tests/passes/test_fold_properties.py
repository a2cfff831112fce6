"""fold on random networks."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from edgec.ir.graph import Graph
from edgec.ir.printer import print_graph
from edgec.passes.fold.fold import Fold
from edgec.testing import assert_same, did, networks, operators, run_pass

LIMITS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@LIMITS
@given(networks())
def test_random_networks_compute_the_same_and_fold_once(network: Graph) -> None:
    before = network.copy()
    ctx = run_pass(Fold(), network)
    assert_same(before, network, tolerance=3e-5)
    assert "Identity" not in operators(network)
    left = {remark.node for remark in ctx.left}
    for node in network.nodes:
        if node.op == "BatchNormalization":
            assert node.name in left
    text = print_graph(network)
    assert did(run_pass(Fold(), network)) == []
    assert print_graph(network) == text


@LIMITS
@given(networks())
def test_folding_twice_from_the_same_start_gives_the_same_graph(network: Graph) -> None:
    twin = network.copy()
    run_pass(Fold(), network)
    run_pass(Fold(), twin)
    assert print_graph(network) == print_graph(twin)
