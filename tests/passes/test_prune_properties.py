"""prune on random networks: budgets, signature, and nothing left without a reason."""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgec.ir.cost import Cost
from edgec.ir.errors import UsageError
from edgec.ir.execution import seeded_feeds
from edgec.ir.graph import Graph
from edgec.ir.printer import print_graph
from edgec.passes.layers.linear import LINEAR
from edgec.passes.prune.costs import Costs
from edgec.passes.prune.prune import Prune
from edgec.passes.prune.selection import Offer, select
from edgec.testing import Samples, networks, outputs, run_pass

LIMITS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def context(network: Graph, with_data: bool) -> dict[str, Samples]:
    return {"calibration": Samples(seeded_feeds(network, samples=6))} if with_data else {}


@LIMITS
@given(networks(channels=16), st.sampled_from(["params", "macs"]), st.floats(0.1, 0.95), st.booleans())
def test_a_budget_is_met_or_refused(network: Graph, unit: str, part: float, with_data: bool) -> None:
    before = network.copy()
    total = getattr(Cost(network), unit)
    step = Prune(params=part) if unit == "params" else Prune(macs=part)
    try:
        ctx = run_pass(step, network, data=context(network, with_data))
    except UsageError as error:
        assert "the least that can be reached is" in str(error)
        return
    assert getattr(Cost(network), unit) <= part * total
    assert [(t.name, t.shape) for t in network.inputs] == [(t.name, t.shape) for t in before.inputs]
    assert [(t.name, t.shape) for t in network.outputs] == [(t.name, t.shape) for t in before.outputs]
    found = outputs(network)["y"]
    assert found.shape == outputs(before)["y"].shape
    assert np.isfinite(found).all()
    unused = [r.what for r in ctx.left if r.node == "the calibration data"]
    assert len(unused) <= with_data and all(what.startswith("nothing is fitted to them: ") for what in unused)
    done, left = [r.node for r in ctx.done], [r.node for r in ctx.left if r.node != "the calibration data"]
    assert sorted(done + left) == sorted(node.name for node in before.nodes if node.op in LINEAR)


@LIMITS
@given(networks(channels=16), st.sampled_from(["params", "macs"]), st.floats(0.1, 0.95))
def test_no_unit_fits_into_what_is_left_of_a_budget(network: Graph, unit: str, part: float) -> None:
    """The cost is within a hundredth below the budget, or nearer to it than the smallest unit that went."""
    total = getattr(Cost(network), unit)
    seen: list[tuple[Sequence[Offer], Costs, list[int]]] = []

    def watched(offers: Sequence[Offer], costs: Costs, budget: float) -> list[int] | None:
        removed = select(offers, costs, budget)
        seen.append((offers, costs, removed or []))
        return removed

    try:
        with mock.patch("edgec.passes.prune.prune.select", watched):
            run_pass(Prune(params=part) if unit == "params" else Prune(macs=part), network)
    except UsageError:
        return
    [(offers, costs, removed)] = seen
    left = part * total - getattr(Cost(network), unit)
    assert left >= 0
    if left > 0.01 * total:
        for group, (offer, count) in enumerate(zip(offers, removed, strict=True)):
            if count:
                fewer = int(offer.allowed[np.searchsorted(offer.allowed, count) - 1])
                assert left < -costs.saved(removed, group, fewer)


@LIMITS
@given(networks(channels=16), st.booleans())
def test_ratio_zero_is_the_identity(network: Graph, with_data: bool) -> None:
    before = print_graph(network)
    ctx = run_pass(Prune(ratio=0), network, data=context(network, with_data))
    assert print_graph(network) == before
    assert ctx.done == []


@LIMITS
@given(networks(channels=16), st.floats(0.1, 0.9), st.booleans())
def test_a_ratio_is_kept_to_in_every_layer(network: Graph, ratio: float, with_data: bool) -> None:
    ctx = run_pass(Prune(ratio=ratio), network, data=context(network, with_data))
    for remark in ctx.done:
        if "channels_after" in remark.figures:
            before, after = remark.figures["channels_before"], remark.figures["channels_after"]
            assert 1 <= after < before
