"""Room for scores that no calibration image showed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.graph import Graph, producer
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.ranges.softmax_headroom import responsive
from edgec.passes.quantize.scales.affine_parameters import Range
from edgec.testing import Samples, model, named, run_pass

DETECTOR = "h = Conv (x, w)\nr = Relu (h)\nc = Conv (r, w)\nf = Reshape (c, flat)\ny = Sigmoid (f)"
SILU = "h = Conv (x, w)\ns = Sigmoid (h)\nr = Mul (h, s)\nc = Conv (r, w)\nf = Reshape (c, flat)\ny = Sigmoid (f)"
GATE = "c = Conv (x, w)\ns = Sigmoid (c)\nm = Mul (c, s)\ny = Conv (m, w)"


def network(text: str = DETECTOR, signature: str = "(float[1,4,8,8] x) => (float[1,256] y)") -> Graph:
    return model(text, signature, "float[4,4,1,1] w, int64[2] flat", flat=[1, -1])


def widened(graph: Graph, **seen: Range) -> dict[str, Range]:
    found = responsive(graph, {named(graph, name): span for name, span in seen.items()})
    return {tensor.name: span for tensor, span in found.items()}


def test_scores_may_be_what_no_image_showed() -> None:
    found = widened(network(), c=Range(-15, -9), f=Range(-15, -9), y=Range(0.0, 0.1))
    assert found == {"c": Range(-15, 4), "f": Range(-15, 4), "y": Range(0, 1)}


def test_a_sigmoid_that_gates_gives_no_score() -> None:
    graph = network(GATE, "(float[1,4,8,8] x) => (float[1,4,8,8] y)")
    assert widened(graph, c=Range(-15, -9)) == {"c": Range(-15, -9)}


@pytest.mark.parametrize(
    ("scores", "factor"),
    [
        (Range(-12, 0), 16 / 12),
        (Range(-12, -10), 2),  # never more than twice
        (Range(-12, 4), 1),  # a sure one was seen
        (Range(-3, 0), 1),  # neither was a sure one nor one that surely is none: no detector's scores
    ],
)
def test_the_last_layer_reads_what_sure_scores_take(scores: Range, factor: float) -> None:
    found = widened(network(), x=Range(0, 1), r=Range(0, 6), c=scores)
    assert found["r"] == Range(0, 6).times(factor)
    assert found["x"] == Range(0, 1), "further in front images show what there is"


def test_what_is_bounded_keeps_its_range() -> None:
    seen = {"h": Range(-3, 6), "s": Range(0, 1), "r": Range(-0.3, 6), "c": Range(-12, 0)}
    found = widened(network(SILU), **seen)
    assert found["s"] == Range(0, 1)
    assert found["r"] == Range(-0.3, 6).times(16 / 12)
    assert found["h"] == Range(-3, 6).times(16 / 12)


def test_what_others_read_keeps_its_range() -> None:
    both = network(DETECTOR + "\nz = Conv (r, w)", "(float[1,4,8,8] x) => (float[1,256] y, float[1,4,8,8] z)")
    assert widened(both, r=Range(0, 6), c=Range(-12, 0))["r"] == Range(0, 6)
    output = network(DETECTOR, "(float[1,4,8,8] x) => (float[1,256] y, float[1,4,8,8] r)")
    assert widened(output, r=Range(0, 6), c=Range(-12, 0))["r"] == Range(0, 6)


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board", "trt-host"])
def test_every_scheme_gives_room(board: str) -> None:
    """Scores from -12 to 0, of which TensorRT's scheme rounds none."""
    graph = model(
        "h = Conv (x, w)\nr = Relu (h)\nc = Conv (r, v, b)\ny = Sigmoid (c)",
        "(float[1,1,8,8] x) => (float[1,1,8,8] y)",
        "float[1,1,1,1] w = {1}, float[1,1,1,1] v = {2}, float[1] b = {-12}",
    )
    device = target(board)
    assert device.scheme is not None
    device = replace(device, scheme=replace(device.scheme, fewest_channels=1))
    feeds = [{"x": np.linspace(0, 6, 64, dtype=np.float32).reshape(1, 1, 8, 8)}]
    run_pass(Quantize(effort="fast", only=["*"]), graph, target=device, data={"calibration": Samples(feeds)})
    node = producer(named(graph, "r.quantized"))
    assert node is not None
    reach = float(node.inputs[1].values) * (np.iinfo(node.inputs[2].dtype).max - int(node.inputs[2].values))
    assert reach == pytest.approx(6 * 16 / 12, rel=0.02)
