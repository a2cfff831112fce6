"""Room in ranges for what no calibration sample showed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.execution import Session, sqnr_db, stacked
from edgec.ir.graph import Graph
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.ranges.calibration import Statistics
from edgec.passes.quantize.ranges.extremes import Extremes, expected_range
from edgec.passes.quantize.ranges.room import with_room
from edgec.passes.quantize.report.saturation import saturation
from edgec.passes.quantize.scales.affine_parameters import Range, parameters
from edgec.testing import Samples, model, named, run_pass

SCHEME = target("coral-dev-board").scheme
assert SCHEME is not None
SYMMETRIC = replace(SCHEME, symmetric=True)
CLASSIFIER = "h = Conv (x, w)\nr = Relu (h)\np = GlobalAveragePool (r)\nf = Flatten (p)\ny = Gemm <transB = 1> (f, v)"


def seen(values: np.ndarray) -> Extremes:
    """Those of values (samples, n)."""
    return Extremes(values.min(1).tolist(), values.max(1).tolist(), values.shape[1])


def squared_error(span: Range, values: np.ndarray) -> float:
    by = parameters(span, "int8")
    return float(np.square(by.rounded(values.astype(np.float32)) - values).mean())


@pytest.mark.parametrize("kind", ["normal", "logistic", "gumbel"])
@pytest.mark.parametrize("count", [2, 4, 8, 16, 32])
def test_room_lessens_the_error_on_other_samples(kind: str, count: int) -> None:
    """Ten numbers a sample; over forty sets of samples, each judged on a thousand others."""
    random = np.random.default_rng(0)
    tight, roomy = 0.0, 0.0
    for _ in range(40):
        values = getattr(random, kind)(size=(count + 1000, 10))
        mine, others = values[:count], values[count:]
        tight += squared_error(Range(float(mine.min()), float(mine.max())), others)
        roomy += squared_error(expected_range(seen(mine), SCHEME, end=True), others)
    assert roomy < tight / 2


def test_a_feature_map_of_many_samples_gets_none() -> None:
    values = np.random.default_rng(0).normal(size=(32, 4096))
    assert expected_range(seen(values), SCHEME, end=False) == Range(values.min(), values.max())


def test_room_is_bounded_by_what_it_costs() -> None:
    """Samples that differ greatly: 12 % of the range at an output, nothing inside, and more where there are few."""
    random = np.random.default_rng(0)
    for count, at_the_end, inside in ((10_000, 0.12, 0.0), (16, 0.24, 0.12), (4, 0.6, 0.48)):
        some = Extremes((-random.random(count)).tolist(), random.random(count).tolist(), 1)
        width = max(some.highs) - min(some.lows)
        for end, most in ((True, at_the_end), (False, inside)):
            found = expected_range(some, SCHEME, end=end)
            assert found.high - found.low == pytest.approx((1 + most) * width, rel=0.01)


def test_where_all_samples_end_there_is_a_bound() -> None:
    assert expected_range(Extremes([0.0] * 4, [6.0] * 4, 10), SCHEME, end=True) == Range(0, 6)
    assert expected_range(Extremes([0.0], [6.0], 10), SCHEME, end=True).low == 0, "rectified"


def test_one_sample_gets_what_networks_show_as_a_rule() -> None:
    found = expected_range(Extremes([-1.0], [1.0], 10), SCHEME, end=True)
    assert -2 < found.low < -1.2
    assert found.high == -found.low


def test_a_symmetric_scheme_has_one_end() -> None:
    some = Extremes([-1.0, -2.0, -1.5, -1.0], [8.0, 4.0, 6.0, 5.0], 4)
    found = expected_range(some, SYMMETRIC, end=True)
    assert found.low == -2
    assert found.high > 9
    mirrored = expected_range(Extremes([-high for high in some.highs], [2.0] * 4, 4), SYMMETRIC, end=True)
    assert (mirrored.low, mirrored.high) == (-found.high, 2)


def statistics(lows: list[float], highs: list[float], values: int = 4) -> Statistics:
    return Statistics(min(lows), max(highs), extremes=Extremes(lows, highs, values))


def roomy(graph: Graph, drawn_in: float = 1.0, **given: Statistics) -> dict[str, Range]:
    """Ranges with room, of those that hold a part of what was seen."""
    some = {named(graph, name): one for name, one in given.items()}
    spans = {tensor: one.range().times(drawn_in) for tensor, one in some.items()}
    return {tensor.name: span for tensor, span in with_room(graph, spans, some, SCHEME).items()}


@pytest.mark.parametrize(
    ("body", "bound"),
    [
        ("c = Softmax (x)\ny = Flatten (c)", 1.0),
        ("t = Tanh (x)\nc = MaxPool <kernel_shape = [2,2]> (t)\ny = Flatten (c)", 1.0),
        ("c = Clip (x, zero, six)\ny = Flatten (c)", 6.0),
        ("s = Sigmoid (x)\nt = Clip (x, zero, six)\nc = Concat <axis = 1> (s, t)\ny = Flatten (c)", 6.0),
        ("s = Sigmoid (x)\nc = Concat <axis = 1> (s, x)\ny = Flatten (c)", np.inf),
    ],
)
def test_room_ends_at_the_bounds_of_an_operator(body: str, bound: float) -> None:
    graph = model(body, "(float[1,4,2,2] x) => (float[1,N] y)", "float zero = {0}, float six = {6}")
    one = statistics([0.0] * 4, [bound * part if np.isfinite(bound) else part for part in (0.7, 0.8, 0.9, 0.97)])
    found = roomy(graph, c=one, y=one)
    assert found["c"] == found["y"]
    if np.isfinite(bound):
        assert found["c"] == Range(0, bound)
    else:
        assert found["c"].high > 1


def test_whole_pixels_need_none() -> None:
    graph = model("y = Relu (x)", "(float[1,4] x) => (float[1,4] y)")
    pixels = replace(statistics([0, 10, 5, 2], [90, 100, 110, 120]), pixels=True)
    assert roomy(graph, x=pixels)["x"] == Range(0, 120)


def test_what_a_calibrator_lets_saturate_still_does() -> None:
    graph = model("y = Relu (x)", "(float[1,4] x) => (float[1,4] y)")
    one = statistics([-1.0, -1.5, -1.2, -0.9], [1.0, 1.5, 1.1, 1.2])
    whole, part = roomy(graph, x=one)["x"], roomy(graph, 0.1, x=one)["x"]
    assert whole.high > 1.6
    assert (part.low, part.high) == (pytest.approx(0.1 * whole.low), pytest.approx(0.1 * whole.high))


def test_outputs_get_more_than_what_is_inside() -> None:
    graph = model(
        "h = Conv (x, w)\nf = Flatten (h)\ng = Gemm (f, v)\ny = Relu (g)",
        "(float[1,4,1,1] x) => (float[1,4] y)",
        "float[4,4,1,1] w, float[4,4] v",
    )
    one = statistics([-0.5, -1.5, -0.1, -0.9], [0.2, 1.5, 0.5, 1.2])
    found = roomy(graph, h=one, f=one, g=one, y=one)
    assert found["h"] == found["f"]
    assert found["g"] == found["y"]
    assert found["g"].high > found["f"].high + 0.1


@pytest.mark.parametrize(("count", "share", "decibel"), [(4, 0.03, 20), (32, 0.004, 30)])
def test_unseen_samples_of_a_classifier(count: int, share: float, decibel: float) -> None:
    """On Coral, whose outputs are integers too: scores that no calibration sample showed do not saturate."""
    signature = "(float[1,4,6,6] x) => (float[1,8] y)"
    graph = model(CLASSIFIER, signature, "float[16,4,3,3] w, float[8,16] v")
    random = np.random.default_rng(1)
    feeds = [
        {"x": (random.uniform(0.5, 1.5) * random.normal(size=(1, 4, 6, 6))).astype(np.float32)} for _ in range(300)
    ]
    session = Session(graph)
    wanted = stacked([session.run(one) for one in feeds[count:]])
    run_pass(
        Quantize(effort="fast"), graph, target=target("coral-dev-board"), data={"calibration": Samples(feeds[:count])}
    )
    by_name = {one.name: one for one in saturation(graph, feeds[count:])}
    assert by_name["y"].share < share
    quantized = Session(graph)
    assert sqnr_db(wanted, stacked([quantized.run(one) for one in feeds[count:]])) > decibel
