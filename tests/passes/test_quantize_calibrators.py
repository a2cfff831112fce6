"""Where activations saturate: by error, by distribution, behind functions of single values, and at joins."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.errors import UsageError
from edgec.ir.files import to_bytes
from edgec.ir.graph import Constant, Graph, Variable, producer
from edgec.passes.framework.context import Context
from edgec.passes.framework.planner import plan
from edgec.passes.quantize.placement.pointwise import functions_of
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.ranges.calibration import Statistics
from edgec.passes.quantize.ranges.calibrators import ranges
from edgec.passes.quantize.scales.affine_parameters import Range, parameters
from edgec.testing import Samples, missed, model, named, run_pass

CPU, CORAL = target("cpu"), target("coral-dev-board")
assert CPU.scheme is not None
SCHEME = CPU.scheme
SILU = "c = Conv (x, w)\ns = Sigmoid (c)\nm = Mul (c, s)\ny = Conv (m, w)"


def silu() -> Graph:
    return model(SILU, "(float[1,4,8,8] x) => (float[1,4,8,8] y)", "float[4,4,1,1] w")


def span(values: np.ndarray, calibrator: str, graph: Graph | None = None, name: str = "x") -> Range:
    """The range that a calibrator gives a tensor of ``graph`` that took these values."""
    graph = silu() if graph is None else graph
    tensor = named(graph, name)
    seen = Statistics.of(values.astype(np.float32), "sample 0", histogram=True)
    return ranges(graph, {tensor: seen}, calibrator, 99.9, SCHEME)[tensor]


def error(values: np.ndarray, chosen: Range) -> float:
    by = parameters(chosen, "uint8")
    limits = np.iinfo("uint8")
    whole = np.clip(np.rint(values / by.scale) + by.zero_point, limits.min, limits.max)
    return float(np.mean((by.scale * (whole - by.zero_point) - values) ** 2))


def normal(count: int = 200_000) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(count).astype(np.float32)


def test_mse_gives_up_outliers_where_that_errs_less() -> None:
    values = np.concatenate([normal(), [40.0, -35.0]]).astype(np.float32)
    chosen = span(values, "mse")
    assert chosen.high < 30 and chosen.low > -30
    assert error(values, chosen) < error(values, span(values, "minmax"))


def test_mse_keeps_outliers_that_weigh_more_than_all_steps() -> None:
    values = np.concatenate([normal(1000), np.full(100, 40.0)]).astype(np.float32)
    assert span(values, "mse").high > 39


@pytest.mark.parametrize("values", [np.zeros(10), np.full(10, 3.0), np.full(10, -2.0), np.array([1e-30, 2e-30])])
@pytest.mark.parametrize("calibrator", ["mse", "entropy", "percentile", "minmax"])
def test_tensors_of_hardly_any_value(values: np.ndarray, calibrator: str) -> None:
    chosen = span(values, calibrator)
    assert np.isfinite(chosen.low) and np.isfinite(chosen.high)
    width = 1e-4 * float(np.abs(values).max()) + 1e-30
    assert chosen.low <= float(values.max()) + width and chosen.high >= float(values.min()) - width


def test_entropy_gives_up_a_thin_tail() -> None:
    values = np.concatenate([normal(), np.linspace(10, 100, 50)]).astype(np.float32)
    chosen = span(values, "entropy")
    assert 3 < chosen.high < 50


def test_no_steps_where_silu_is_flat() -> None:
    values = np.random.default_rng(0).uniform(-60, 6, 100_000).astype(np.float32)
    assert span(values, "mse", name="c").low > -20
    assert span(values, "mse", name="m").low < -50, "behind SiLU it is what it is"


def test_functions_of_single_values() -> None:
    values = np.linspace(-3, 3, 7, dtype=np.float32)
    graph = silu()
    [found] = functions_of(graph, named(graph, "c"), values)
    np.testing.assert_allclose(found, values / (1 + np.exp(-values)), rtol=1e-5)
    np.testing.assert_array_equal(functions_of(graph, named(graph, "m"), values), values[None])
    graph = model(
        "c = Conv (x, w)\nr = Relu (c)\nt = Add (r, three)\na = Conv (t, w)\nb = Conv (c, w)\ny = Add (a, b)",
        "(float[1,4,8,8] x) => (float[1,4,8,8] y)",
        "float[4,4,1,1] w, float[1,1,1,1] three",
        three=np.full((1, 1, 1, 1), 3.0),
    )
    both = functions_of(graph, named(graph, "c"), values)
    np.testing.assert_allclose(both, [values, np.maximum(values, 0) + 3])


# -- joins -------------------------------------------------------------------------------------------------------------

DETECTOR = """
b = Conv (x, w)
boxes = Mul (b, hundred)
c = Conv (x, v)
scores = Sigmoid (c)
y = Concat <axis = 1> (boxes, scores)
"""


def detector(behind: str = "") -> Graph:
    body = DETECTOR if not behind else DETECTOR.replace("y = Concat", "j = Concat") + behind
    weights = "float[4,4,1,1] w, float[4,4,1,1] v, float hundred, float[8,8,1,1] u"
    return model(body, "(float[1,4,8,8] x) => (float[1,8,8,8] y)", weights, hundred=np.float32(100.0))


def quantized(graph: Graph) -> Context:
    random = np.random.default_rng(0)
    feeds = [{"x": random.standard_normal((1, 4, 8, 8)).astype(np.float32)} for _ in range(4)]
    return run_pass(Quantize(effort="fast"), graph, data={"calibration": Samples(feeds)}, target=CPU, threads=1)


def test_a_join_of_uneven_ranges_at_the_end_stays_float() -> None:
    graph = detector()
    ctx = quantized(graph)
    [(node, reason)] = missed(ctx)
    assert node == "Concat"
    assert reason.startswith("one scale for all that it joins would leave 'scores' 0.") and reason.endswith(" steps")
    join = producer(graph.outputs[0])
    assert join is not None and join.op == "Concat"
    scales = [t.inputs[0].inputs[1] for t in join.inputs if isinstance(t, Variable)]
    assert all(isinstance(scale, Constant) for scale in scales)
    assert float(scales[0].values) > 100 * float(scales[1].values)


def test_a_join_that_is_computed_on_needs_one_scale() -> None:
    graph = detector("y = Conv (j, u)")
    assert missed(quantized(graph)) == []
    join = next(node for node in graph.nodes if node.op == "Concat")
    assert [reader.op for reader in join.outputs[0].outputs] == ["QuantizeLinear"]


# -- without data ------------------------------------------------------------------------------------------------------


def test_noise_where_there_are_no_data_and_that_is_said() -> None:
    made = []
    for _ in range(2):
        graph = silu()
        ctx = run_pass(Quantize(random=True), graph, target=CPU, threads=1)
        made.append(to_bytes(graph))
        words = "calibrated on noise: neither ranges nor accuracy say anything about real data"
        assert missed(ctx)[0] == ("the network", words)
    assert made[0] == made[1]
    scale = named(graph, "x.quantized").inputs[0].inputs[1]
    assert float(scale.values) == pytest.approx(1 / 255, rel=0.02)
    with pytest.raises(UsageError, match=r"quantize.*needs.*calibration"):
        plan([("quantize", {})], roles=[])
    assert plan([("quantize", {"random": True})], roles=[])
