"""Sums whose one scale loses what their readers need."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.execution import Session, sqnr_db, stacked
from edgec.ir.graph import Graph, producer
from edgec.passes.framework.context import Context
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, missed, model, operators, run_pass

LARGE = 1000 * np.arange(1, 9, dtype=np.float32).reshape(1, 8, 1, 1)
SIGNATURE = "(float[1,3,8,8] x) => (float[1,4,h,w] y)"
WEIGHTS = "float[8,3,3,3] w, float[4,8,1,1] v, float[1,8,1,1] large, float[8] one = {1,1,1,1,1,1,1,1}, float[8] b"


def noise(seed: int) -> Samples:
    random = np.random.default_rng(seed)
    return Samples([{"x": random.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(16)])


def quantized(graph: Graph, board: str) -> tuple[float, Context]:
    before = graph.copy()
    ctx = run_pass(Quantize(effort="fast"), graph, target=target(board), data={"calibration": noise(1)})
    exact, rounded = (stacked(list(map(Session(one).run, noise(2).feeds))) for one in (before, graph))
    return sqnr_db(exact, rounded), ctx


NETWORKS = {
    "a difference": "c = Conv (x, w)\n[sum] m = Add (c, large)\n[back] d = Sub (m, large)\ny = Conv (d, v)",
    "behind a pool": "c = Conv (x, w)\n[sum] m = Add (c, large)\n[pool] t = MaxPool <kernel_shape = [2, 2]> (m)\n"
    "[back] d = Sub (t, large)\ny = Conv (d, v)",
    "a normalization": "c = Conv (x, w)\n[sum] m = Add (c, large)\nn = InstanceNormalization (m, one, b)\n"
    "y = Conv (n, v)",
    "a bias": "[sum] m = Conv (x, w, far)\nn = InstanceNormalization (m, one, b)\ny = Conv (n, v)",
    "a computed part": "c = Conv (x, w)\nf = GlobalAveragePool (c)\ng = Mul (f, ten)\n[sum] m = Add (c, g)\n"
    "[back] d = Sub (m, g)\ny = Conv (d, v)",
}


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board"])
@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_taken_away_again_loses_nothing(board: str, network: str) -> None:
    graph = model(
        NETWORKS[network],
        SIGNATURE,
        WEIGHTS + ", float ten = {1e4}, float[8] far",
        large=LARGE,
        far=LARGE.reshape(-1),
        b=np.zeros(8),
    )
    sqnr, ctx = quantized(graph, board)
    assert sqnr > 25
    assert "would leave" in dict(missed(ctx))["sum"]


def test_the_reason_says_how_many_steps_are_left() -> None:
    graph = model(NETWORKS["a difference"], SIGNATURE, WEIGHTS, large=LARGE)
    _, ctx = quantized(graph, "coral-dev-board")
    reasons = dict(missed(ctx))
    assert reasons["sum"].startswith("one scale for all of 'm' would leave 'c' 0.")
    assert reasons["sum"] == reasons["back"]


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board"])
def test_a_small_correction_of_a_large_number_stays_small(board: str) -> None:
    """A residual sum with a branch of a hundredth: nothing is lost that the outputs show."""
    body = "c = Conv (x, w)\ns = Mul (c, small)\n[sum] m = Add (c, s)\nr = Relu (m)\ny = Conv (r, v)"
    graph = model(body, SIGNATURE, WEIGHTS + ", float small = {0.01}", large=LARGE)
    sqnr, ctx = quantized(graph, board)
    assert sqnr > 30
    assert "sum" not in dict(missed(ctx))
    node = next(node for node in graph.nodes if node.name == "sum")
    before = producer(node.inputs[0])
    assert before is not None and before.op == "DequantizeLinear"
    assert operators(graph).count("QuantizeLinear") >= 4
