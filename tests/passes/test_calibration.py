"""Calibration: one streamed pass, shared by targets, the same on any number of threads."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.ir.errors import InputError
from edgec.ir.execution import Session
from edgec.ir.fingerprints import fingerprints
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.passes.framework.cache import RunCache
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.quantize.placement.placement import candidates
from edgec.passes.quantize.ranges.calibration import Statistics, calibrate
from edgec.passes.quantize.ranges.histograms import BINS, Histogram
from edgec.testing import model, named

NETWORK = ("c = Conv<pads=[1,1,1,1]>(x, w)\nr = Relu(c)\ny = Add(r, x)", "(float[1,3,8,8] x) => (float[1,3,8,8] y)")


class Stream:
    """Makes samples when asked for them, and counts passes, samples, and the samples alive at once."""

    source = "the stream"
    labels = None

    def __init__(self, count: int, bad: int | None = None, value: float = np.nan, batch: int = 1) -> None:
        self.count, self.bad, self.value, self.batch = count, bad, value, batch
        self.passes = self.given = self.alive = self.most = 0

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
        self.passes += 1
        chosen = range(self.count) if indices is None else indices
        for start in range(0, len(chosen), size):
            own = chosen[start : start + size]
            values = np.stack([np.random.default_rng(i).normal(size=(3, 8, 8)) for i in own]).astype(np.float32)
            if self.bad in own:
                values[own.index(self.bad), 0, 0, 0] = self.value
            self.given += len(own)
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(values, self._gone)
            yield {"x": values}
            del values

    def _gone(self) -> None:
        self.alive -= 1


def network(batch: int = 1, seed: int = 0) -> Graph:
    body, signature = NETWORK
    return model(body, signature.replace("[1,", f"[{batch},"), "float[3,3,3,3] w", seed=seed)


def gathered(
    graph: Graph, data: Stream, threads: int = 1, cache: RunCache | None = None, **options: Any
) -> dict[str, Statistics]:
    ctx = Context(graph, RunConfig(data={"calibration": data}, threads=threads), cache=cache)
    wanted = candidates(graph, Shapes(graph))
    found = calibrate(graph, wanted, wanted, ctx, **options)
    return {tensor.name: seen for tensor, seen in found.items()}


def test_extremes_and_percentiles_are_those_of_all_values() -> None:
    graph = network()
    found = gathered(graph, Stream(9), threads=2, histograms=True)
    assert sorted(found) == ["r", "x", "y"], "what a Relu bounds is not a candidate"
    session = Session(graph, [named(graph, "r")])
    runs = [{**session.run(feeds), **feeds} for feeds in Stream(9).batches(1)]
    for name in ("x", "r", "y"):
        values = np.concatenate([run[name].ravel() for run in runs])
        # To the last bits of a sum of products: calibration runs in another layout.
        assert (found[name].low, found[name].high) == pytest.approx((values.min(), values.max()), rel=1e-6)
        counted = found[name].histogram
        assert counted is not None
        assert counted.counts.sum() == values.size
        for percent in (0.5, 10, 50, 99, 99.9):
            # Between the two samples that numpy interpolates, to within a bin.
            low, high = (np.percentile(values, percent, method=m) for m in ("lower", "higher"))
            assert low - counted.width <= counted.percentile(percent) <= high + counted.width
        assert found[name].range(99.0).high < found[name].range().high
        assert found[name].range(100.0) == found[name].range()


def test_memory_does_not_grow_with_the_images() -> None:
    gc.collect()
    for threads in (1, 3):
        stream = Stream(40)
        gathered(network(), stream, threads=threads, histograms=True)
        assert stream.passes == 1
        assert stream.given == 40
        # What is worked on, the next one, and the one that the generator still names.
        assert stream.most <= threads + 3


def test_the_same_on_any_number_of_threads() -> None:
    one, many = (gathered(network(), Stream(20), threads=threads, histograms=True) for threads in (1, 4))
    for name, seen in one.items():
        assert seen.range(99.0) == many[name].range(99.0)
        np.testing.assert_array_equal(seen.histogram.counts, many[name].histogram.counts)


def test_targets_share_what_their_graphs_have_in_common() -> None:
    cache, stream = RunCache(), Stream(5)
    once = gathered(network(), stream, cache=cache)
    assert gathered(network(), stream, cache=cache).keys() == once.keys()
    assert stream.passes == 1
    # Other weights are another network, other settings another calibration.
    for graph, options in ((network(seed=1), {}), (network(), {"samples": 3}), (network(), {"histograms": True})):
        gathered(graph, stream, cache=cache, **options)
    assert stream.passes == 4
    # So are other samples.
    other = Stream(5)
    gathered(network(), other, cache=cache)
    assert other.passes == 1


def test_fingerprints_know_content_and_not_names() -> None:
    one, other = network(), network()
    for node in other.nodes:
        node.name = f"other.{node.name}"
    named(other, "c").name = "renamed"
    assert list(fingerprints(one).values()) == list(fingerprints(other).values())
    other.nodes[0].attrs["pads"] = [1, 1, 1, 0]
    changed = fingerprints(other)
    assert changed[other.inputs[0]] == fingerprints(one)[one.inputs[0]]
    assert changed[other.outputs[0]] != fingerprints(one)[one.outputs[0]]


def test_a_limit_on_samples() -> None:
    stream = Stream(50)
    gathered(network(), stream, samples=7)
    assert stream.given <= 8
    limited = gathered(network(), Stream(50), samples=7)
    assert limited["x"].range() == gathered(network(), Stream(7))["x"].range()


def test_a_short_last_batch() -> None:
    assert gathered(network(batch=4), Stream(6))["x"].range() == gathered(network(), Stream(6))["x"].range()


@pytest.mark.parametrize(
    ("value", "batch", "threads", "said"),
    [
        (np.nan, 1, 1, "tensor 'x': is NaN on sample 3 of"),
        (np.inf, 1, 3, "tensor 'x': is infinite on sample 3 of"),
        (-np.inf, 2, 1, "tensor 'x': is infinite on samples 2 to 3 of"),
    ],
)
def test_values_that_are_not_finite(value: float, batch: int, threads: int, said: str) -> None:
    with pytest.raises(InputError) as caught:
        gathered(network(batch), Stream(8, bad=3, value=value), threads=threads, histograms=True)
    assert str(caught.value) == (
        f"{said} the calibration data; correct the data or its preprocessing, or the weights in front of it"
    )


def test_no_samples() -> None:
    with pytest.raises(InputError) as caught:
        gathered(network(), Stream(0))
    assert str(caught.value) == "the stream: has no samples to calibrate with; name a data set that has some"


MAGNITUDES = st.floats(2.0**-60, 2.0**60, width=32)
NUMBERS = st.one_of(st.just(0.0), MAGNITUDES, MAGNITUDES.map(lambda x: -x))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(NUMBERS, min_size=1, max_size=20), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_merging_histograms_is_exact_in_any_order(parts: list[list[float]], random: Any) -> None:
    arrays = [np.array(part, np.float32) for part in parts]
    whole = np.concatenate(arrays)
    expected = Histogram.of(whole, float(np.abs(whole).max()))
    merged = Histogram()
    random.shuffle(arrays)
    for array in arrays:
        merged.merge(Histogram.of(array, float(np.abs(array).max())))
    assert merged.exponent == expected.exponent
    np.testing.assert_array_equal(merged.counts, expected.counts)


def test_a_histogram_of_a_constant() -> None:
    for value in (0.0, 1.0, -7.25, 1e-30):
        counted = Histogram.of(np.full(10, value, np.float32), abs(value))
        assert abs(counted.percentile(50) - value) <= counted.width
    assert Histogram.of(np.ones(3, np.float32), 1.0).width <= 2 / BINS
    with pytest.raises(ValueError, match="empty histogram"):
        Histogram().percentile(50)
