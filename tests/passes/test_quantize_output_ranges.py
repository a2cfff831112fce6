"""quantize: ranges chosen by the noise that they make on the network's outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.execution import sqnr_db
from edgec.ir.graph import Graph, producer
from edgec.passes.framework.cache import RunCache
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.ranges import output_ranges
from edgec.testing import Samples, model, named, outputs, run_pass

IMAGE = "(float[1,2,8,8] x) => (float[1,1,8,8] y)"
# The first channel of t is what the layer behind it ignores.
IGNORED = "[first] t = Conv(x, a)\n[second] y = Conv(t, b)"
WEIGHTS = {"a": np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1), "b": np.float32([[[[1e-5]], [[1.0]]]])}


def pictures(scale: tuple[float, float], count: int = 12) -> list[dict[str, np.ndarray]]:
    """Noise whose two channels have these deviations."""
    random = np.random.default_rng(0)
    noise = random.standard_normal((count, 1, 2, 8, 8)).astype(np.float32)
    return [{"x": one * np.float32(scale).reshape(1, 2, 1, 1)} for one in noise]


def quantized(graph: Graph, feeds: list[dict[str, np.ndarray]], board: str = "cpu", **options: Any) -> Graph:
    copy, cache, samples = graph.copy(), options.pop("cache", None), options.pop("data", Samples(feeds))
    step = Quantize(effort="fast", **options)
    run_pass(step, copy, cache, target=target(board), data={"calibration": samples})
    return copy


def reach(graph: Graph, name: str) -> float:
    """How far the integers of a tensor reach upwards."""
    node = producer(named(graph, f"{name}.quantized"))
    assert node is not None
    limits = np.iinfo(node.inputs[2].dtype)
    return float(node.inputs[1].values) * (int(limits.max) - int(node.inputs[2].values))


def ignoring() -> Graph:
    return model(IGNORED, IMAGE, "float[2,2,1,1] a, float[1,2,1,1] b", **WEIGHTS)


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board"])
def test_what_later_layers_ignore_takes_no_part_of_the_range(board: str) -> None:
    graph, feeds = ignoring(), pictures((100.0, 1.0))
    mse, output = (quantized(graph, feeds, board, calibrator=calibrator) for calibrator in ("mse", "output"))
    assert reach(output, "t") < 0.2 * reach(mse, "t")
    wanted = [outputs(graph, one) for one in feeds]
    errors = [
        np.mean([sqnr_db(w, outputs(one, x)) for w, x in zip(wanted, feeds, strict=True)]) for one in (mse, output)
    ]
    assert errors[1] > errors[0] + 6


def test_few_large_values_that_matter_do_not_saturate() -> None:
    """A detector's objects: all that the network gives is what lies above 12, which one value in 100,000 does."""
    body, shape = "[first] t = Conv(x, a)\n[rest] r = Conv(t, a, c)\ny = Relu(r)", "[1,1,256,256]"
    graph = model(body, f"(float{shape} x) => (float{shape} y)", "float[1,1,1,1] a = {1}, float[1] c = {-12}")
    random = np.random.default_rng(1)
    pictures = random.standard_normal((8, 1, 1, 256, 256)).astype(np.float32)
    pictures[1:6, :, :, 100, 100] = 14
    feeds = [{"x": picture} for picture in pictures]
    mse, output = (quantized(graph, feeds, calibrator=calibrator) for calibrator in ("mse", "output"))
    assert reach(mse, "t") < 13 < 13.9 < reach(output, "t")


def test_where_nothing_is_gained_the_range_is_that_of_mse() -> None:
    graph, feeds = ignoring(), pictures((1.0, 1.0))
    for constant in graph.constants():
        if constant.name == "b":
            constant.values = np.ones_like(constant.values)
    mse, output = (quantized(graph, feeds, calibrator=calibrator) for calibrator in ("mse", "output"))
    assert [reach(mse, name) for name in "xt"] == [reach(output, name) for name in "xt"]


def test_targets_share_what_was_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, feeds, cache = ignoring(), pictures((100.0, 1.0)), RunCache()
    data = Samples(feeds)
    quantized(graph, feeds, calibrator="output", cache=cache, data=data)
    monkeypatch.setattr(output_ranges, "_gather", None)
    quantized(graph, feeds, "coral-dev-board", calibrator="output", cache=cache, data=data)


def test_memory_does_not_grow_with_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for a few sums of random vectors the ranges are still found."""
    monkeypatch.setattr(output_ranges, "_MEMORY", 400_000)
    graph, feeds, cache = ignoring(), pictures((100.0, 1.0)), RunCache()
    mse, output = (quantized(graph, feeds, calibrator=calibrator, cache=cache) for calibrator in ("mse", "output"))
    assert reach(output, "t") < 0.2 * reach(mse, "t")
    (gathered,) = cache.of(dict, output_ranges._Gathered).values()
    assert 0 < sum(one.sums.nbytes for one in gathered.histograms.values()) <= 400_000


def test_it_is_the_calibrator_of_the_greatest_effort() -> None:
    graph, feeds = ignoring(), pictures((100.0, 1.0))
    copy = graph.copy()
    run_pass(Quantize(effort="max"), copy, target=target("cpu"), data={"calibration": Samples(feeds)})
    assert reach(copy, "t") < 0.2 * reach(quantized(graph, feeds, calibrator="mse"), "t")
