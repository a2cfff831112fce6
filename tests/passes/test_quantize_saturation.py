"""Values beyond what integers can stand for, counted tensor by tensor."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.graph import Graph
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.report.saturation import Saturated, saturation
from edgec.passes.quantize.scales.affine_parameters import Range
from edgec.testing import Samples, model, run_pass

INTEGERS = """
q = QuantizeLinear (x, s, z)
d = DequantizeLinear (q, s, z)
r = Relu (d)
p = QuantizeLinear (r, s, z)
y = DequantizeLinear (p, s, z)
"""


def written(shape: str = "1,8", zero_point: int = 0) -> Graph:
    """x and its Relu with steps of 0.5: from -64 to 63.5 where the zero-point is 0."""
    return model(
        INTEGERS, f"(float[{shape}] x) => (float[{shape}] y)", "float s = {0.5}, int8 z", z=np.array(zero_point)
    )


def counted(graph: Graph, *samples: list[float]) -> dict[str, Saturated]:
    shape = tuple(int(d) for d in graph.inputs[0].shape or () if isinstance(d, int))
    feeds = [{"x": np.array(values, np.float32).reshape(shape)} for values in samples]
    return {one.name: one for one in saturation(graph, feeds)}


def test_each_tensor_is_counted_over_all_samples() -> None:
    inside, beyond = [0.0] * 8, [-100.0, -65.0, -64.0, 0, 1, 2, 63.5, 80.0]
    assert counted(written(), inside, beyond, inside) == {
        "x": Saturated("x", 0.5, 0, Range(-64, 63.5), Range(-100, 80), 3, 3 / 24, 1),
        "y": Saturated("y", 0.5, 0, Range(-64, 63.5), Range(0, 63.5), 0, 0.0, 0),
    }


def test_half_a_step_beyond_is_rounding_and_no_saturation() -> None:
    assert counted(written(), [-64.25, 63.75, *[0.0] * 6])["x"].count == 0
    assert counted(written(), [-64.3, 63.8, *[0.0] * 6])["x"].count == 2


def test_the_zero_point_moves_the_range() -> None:
    one = counted(written(zero_point=-128), [-1.0, 127.5, 128.0, *[0.0] * 5])["x"]
    assert (one.range, one.zero_point, one.count) == (Range(0, 127.5), -128, 2)


def test_samples_of_a_batch_are_told_apart() -> None:
    values = np.zeros((4, 2))
    values[1] = 100
    values[3, 0] = 100
    one = counted(written("4,2"), list(values.ravel()), [0.0] * 8)["x"]
    assert (one.count, one.share, one.samples) == (3, 3 / 16, 2)


def test_the_largest_share_comes_first() -> None:
    feeds = [{"x": np.array([[-100, *[0] * 7]], np.float32)}]
    assert [one.name for one in saturation(written(), feeds)] == ["x", "y"]
    feeds = [{"x": np.array([[100, 100, *[0] * 6]], np.float32)}]
    shares = [one.share for one in saturation(written(), feeds)]
    assert shares == sorted(shares, reverse=True) == [0.25, 0.0]


def test_nothing_is_quantized_or_nothing_is_fed() -> None:
    floats = model("y = Relu (x)", "(float[1,8] x) => (float[1,8] y)")
    assert saturation(floats, [{"x": np.zeros((1, 8), np.float32)}]) == []
    assert saturation(written(), []) == []


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board"])
def test_a_network_on_brighter_pictures_than_it_was_calibrated_on(board: str) -> None:
    graph = model(
        "h = Conv <pads = [1,1,1,1]> (x, w)\ny = Relu (h)",
        "(float[1,4,8,8] x) => (float[1,8,8,8] y)",
        "float[8,4,3,3] w",
    )
    random = np.random.default_rng(0)
    pictures = [{"x": random.random((1, 4, 8, 8), np.float32)} for _ in range(8)]
    run_pass(Quantize(effort="fast"), graph, target=target(board), data={"calibration": Samples(pictures)})
    assert all(one.count == 0 for one in saturation(graph, pictures))
    brighter = [{"x": 2 * feeds["x"]} for feeds in pictures]
    found = {one.name: one for one in saturation(graph, brighter)}
    wanted = sum(int(np.count_nonzero(feeds["x"] > found["x"].range.high + found["x"].scale / 2)) for feeds in brighter)
    assert found["x"].count == wanted > 0
    assert found["x"].samples == 8
    assert found["x"].share == wanted / (8 * 4 * 8 * 8)
    assert found["y"].name == "y", "an output has the model's name"
