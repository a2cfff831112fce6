"""compress on random networks: budgets, signature, and no layer without a word."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgec.ir.cost import Cost
from edgec.ir.errors import UsageError
from edgec.ir.execution import seeded_feeds
from edgec.ir.graph import Graph
from edgec.ir.printer import print_graph
from edgec.passes.compress.compress import Compress
from edgec.passes.layers.linear import LINEAR
from edgec.testing import Samples, networks, outputs, run_pass

LIMITS = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@LIMITS
@given(networks(channels=16), st.sampled_from(["params", "macs", "weight_bytes"]), st.floats(0.1, 0.95), st.booleans())
def test_a_budget_is_met_or_refused(network: Graph, unit: str, part: float, with_data: bool) -> None:
    before = network.copy()
    data = {"calibration": Samples(seeded_feeds(network, samples=10))} if with_data else {}
    step = Compress(**{unit: part}, min_rank=1)  # type: ignore[arg-type]
    try:
        ctx = run_pass(step, network, data=data)
    except UsageError as error:
        assert "the least that can be reached is" in str(error)
        assert print_graph(network) == print_graph(before)
        return
    assert getattr(Cost(network), unit) <= part * getattr(Cost(before), unit)
    assert [(t.name, t.shape) for t in network.inputs] == [(t.name, t.shape) for t in before.inputs]
    assert [(t.name, t.shape) for t in network.outputs] == [(t.name, t.shape) for t in before.outputs]
    found = outputs(network)["y"]
    assert found.shape == outputs(before)["y"].shape
    assert np.isfinite(found).all()
    layers = {node.name for node in before.nodes if node.op in LINEAR}
    assert {remark.node for remark in (*ctx.done[1:], *ctx.left)} == layers


@LIMITS
@given(networks(channels=16), st.sampled_from(["params", "macs"]))
def test_a_budget_of_everything_is_the_identity(network: Graph, unit: str) -> None:
    before = print_graph(network)
    ctx = run_pass(Compress(params=1.0) if unit == "params" else Compress(macs=1.0), network)
    assert ctx.done == []
    assert print_graph(network) == before
