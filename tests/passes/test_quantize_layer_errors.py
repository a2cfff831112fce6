"""Each layer's error, its effect on the outputs, and the layers that stay float so that a goal is met."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.errors import UsageError
from edgec.ir.estimates import Means
from edgec.ir.execution import Session, sqnr_db
from edgec.ir.graph import Graph
from edgec.passes.calibration.joined_outputs import apart, joined_parts
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.framework.target import Target
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.plan import Calibration, prepare
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.recover.isolation import isolated, layer_outputs
from edgec.passes.quantize.report import layer_errors as layers
from edgec.passes.quantize.report.effects import output_effects
from edgec.passes.quantize.report.layer_errors import layer_errors
from edgec.passes.quantize.writing import write
from edgec.testing import Samples, did, missed, model, named, outputs, run_pass

CPU = target("cpu")
BODY = """
a = Conv <pads = [1,1,1,1]> (x, w1, b1)
r = Relu (a)
s = Sigmoid (r)
m = Mul (r, s)
c = Conv (m, w2, b2)
t = Add (c, m)
y = Conv (t, w3, b3)
"""
WEIGHTS = "float[8,3,3,3] w1, float[8] b1, float[8,8,1,1] w2, float[8] b2, float[4,8,1,1] w3, float[4] b3"


def network(**values: Any) -> Graph:
    return model(BODY, "(float[1,3,8,8] x) => (float[1,4,8,8] y)", WEIGHTS, seed=5, **values)


def samples(count: int = 12) -> Samples:
    random = np.random.default_rng(4)
    return Samples([{"x": random.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(count)])


def pair_of(graph: Graph) -> tuple[Pair, list[Any], Context]:
    assert CPU.scheme is not None
    ctx = Context(graph, RunConfig(data={"calibration": samples()}, target=CPU))
    ready = prepare(graph, CPU.scheme, CPU, lambda node: None, Calibration("minmax"), ctx)
    pair = Pair(graph.copy(), graph)
    write(graph, ready, ctx, scheme=CPU.scheme, per_channel=True)
    return pair, ready.placement.sites, Context(pair.original, RunConfig(data={"calibration": samples()}, target=CPU))


def quantized(step: Quantize, graph: Graph, board: Target = CPU, **context: Any) -> Context:
    return run_pass(step, graph, data={"calibration": samples()}, target=board, threads=1, **context)


def test_a_layer_alone_reads_what_the_float_network_computes() -> None:
    pair, sites, _ = pair_of(network())
    found = layer_outputs(pair, sites)
    assert [output.exact.name for output in found] == ["r", "s", "m", "c", "t", "y"]
    graph, names, _ = isolated(pair, found)
    feeds = samples(1).feeds[0]
    values = Session(graph, [tensor for both in names for tensor in both]).run(feeds)
    for exact, alone in names:
        assert 30 < sqnr_db({"": values[exact.name]}, {"": values[alone.name]}) < 60
    np.testing.assert_array_equal(values["r"], outputs_at(network(), "r", feeds))


def outputs_at(graph: Graph, name: str, feeds: dict[str, np.ndarray]) -> np.ndarray:
    return Session(graph, [named(graph, name)]).run(feeds)[name]


def test_errors_accumulate() -> None:
    pair, sites, ctx = pair_of(network())
    errors = layer_errors(pair, sites, ctx, most=4)
    assert [error.node.op for error in errors] == ["Conv", "Sigmoid", "Mul", "Conv", "Add", "Conv"]
    assert all(error.accumulated_db <= error.alone_db + 0.5 for error in errors)
    assert errors[-1].accumulated_db < errors[-1].alone_db - 3
    feeds = samples().feeds
    numbers = [0, 4, 7, 11]
    wanted = np.stack([outputs(pair.original, feeds[n])["y"] for n in numbers])
    got = np.stack([outputs(pair.quantized, feeds[n])["y"] for n in numbers])
    assert errors[-1].accumulated_db == pytest.approx(sqnr_db({"": wanted}, {"": got}), abs=1e-3)


@pytest.mark.parametrize(
    ("channels", "usual", "saturated", "alone", "reason"),
    [
        ([1.0, 1.0, 1.0], 0.3, 0.0, 1.0, "eight bits"),
        ([1.0, 0.01, 0.01], 0.3, 0.0, 1.0, "channels share one scale, and half of them reach 1.0% of the largest"),
        ([1.0, 1.0, 1.0], 0.01, 0.0, 1.0, "outliers: the largest value is 100 times the usual one"),
        ([1.0, 1.0, 1.0], 0.3, 0.9, 1.0, "values saturate"),
        ([1.0, 1.0, 1.0], 0.3, 0.0, 1000.0, "its weights are rounded coarsely"),
        ([1.0, 1.0, 0.0], 0.3, 0.0, 1.0, "eight bits; 1 of 3 channels dead"),
    ],
)
def test_reasons(channels: list[float], usual: float, saturated: float, alone: float, reason: str) -> None:
    count, step = 300, 2.0 / 255
    noise = alone * count * step**2 / 12
    power = count * usual**2
    sums = layers._Sums(power, noise, noise, count, power, saturated * noise, np.array(channels))
    assert layers._reason(sums, layers._Ends(-1.0, 1.0, step)) == reason


def test_sums_of_batches() -> None:
    def seen(*shape: int) -> layers._Sums:
        x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        return layers._sums(x, x + 1, x - 2, x, layers._Ends(0.0, 3.0, 0.1))

    total = layers._Sums()
    for batch in (seen(1, 0, 4), seen(1, 2, 2), seen(1, 2, 2)):
        total.add(batch)
    assert (total.count, total.signal, total.alone, total.accumulated, total.saturated) == (8, 28.0, 8.0, 32.0, 0.0)
    np.testing.assert_array_equal(total.channels, [1, 3])
    total.add(seen(1, 3, 2))
    np.testing.assert_array_equal(total.channels, [5])
    assert total.saturated == 1 + 4


def test_the_report_has_each_layer_and_names_the_worst() -> None:
    ctx = quantized(Quantize(effort="fast"), network())
    figures = {remark.node: remark.figures for remark in ctx.done[:-1]}
    assert all({"alone_db", "accumulated_db"} <= set(found) for found in figures.values())
    node, words = did(ctx)[-1]
    assert node == "the layers" and words.startswith("least exact by themselves: ") and words.count(" dB (") == 3


# -- effects and mixed precision ---------------------------------------------------------------------------------------


def test_effects_are_what_each_layer_alone_does_to_the_outputs() -> None:
    pair, sites, ctx = pair_of(network())
    found = layer_outputs(pair, sites)
    effects = output_effects(pair, found, ctx)
    graph, names, _ = isolated(pair, found)
    session = Session(graph, [tensor for both in names for tensor in both])
    for place, output in enumerate(found):
        # The float network goes on from what the layer alone gives.
        behind = pair.original.copy()
        tensor = named(behind, output.exact.name)
        noise = power = 0.0
        for feeds in samples().feeds:
            alone = session.run(feeds)[names[place][1].name]
            wanted = outputs(pair.original, feeds)["y"]
            if tensor in behind.outputs:
                got = alone
            else:
                fed = pair.original.copy()
                replaced = fed.const("alone", alone)
                fed.replace_uses(named(fed, output.exact.name), replaced)
                got = outputs(fed, feeds)["y"]
            noise, power = noise + float(((got - wanted) ** 2).sum()), power + float((wanted**2).sum())
        assert effects[place] == pytest.approx(noise / power, rel=0.5)


def test_sensitivity_is_reported() -> None:
    ctx = quantized(Quantize(effort="fast", sensitivity=True), network())
    shares = [remark.figures["noise_share"] for remark in ctx.done if remark.node != "the layers"]
    assert len(shares) == 6 and sum(shares) == pytest.approx(1, abs=1e-3) and min(shares) > 0
    assert any(words.startswith("most of the noise at the outputs: '") for _, words in did(ctx))
    assert not any("noise_share" in remark.figures for remark in quantized(Quantize(effort="fast"), network()).done)


def bad_layer() -> Graph:
    """One output channel of the first layer is a thousand times the others, and the network hardly reads it."""
    random = np.random.default_rng(0)
    w1, w2, w3 = (
        random.standard_normal(shape).astype(np.float32) / 4 for shape in ((8, 3, 3, 3), (8, 8, 1, 1), (4, 8, 1, 1))
    )
    w1[0] *= 1000
    w2[:, 0] /= 1000
    w3[:, 0] = 0
    return network(w1=w1, w2=w2, w3=w3)


def test_the_fewest_layers_stay_float() -> None:
    graph = bad_layer()
    before = graph.copy()
    ctx = quantized(Quantize(effort="fast", precision="auto", budget=30), graph)
    floats = {node for node, reason in missed(ctx) if "stays float: rounding" in reason}
    assert floats and len(floats) < len(before.nodes)
    assert any("'r'" in reason or "'m'" in reason for _, reason in missed(ctx))
    [(_, words)] = [item for item in did(ctx) if item[0] == "the network"]
    assert words.startswith(f"{len([1 for _, r in missed(ctx) if 'stays float' in r])} of 7 operators stay float")
    assert words.endswith("for SQNR at least 30")
    feeds = samples(4).feeds
    assert np.mean([sqnr_db(outputs(before, f), outputs(graph, f)) for f in feeds]) > 29


def test_nothing_stays_float_where_all_may_be_integers() -> None:
    graph = network()
    ctx = quantized(Quantize(effort="fast", precision="auto", budget=10), graph)
    assert missed(ctx) == []
    assert ("the network", "0 of 7 operators stay float, 0.0% of the work, for SQNR at least 10") in did(ctx)


class Metric:
    """The mean error of the outputs against the float network's, as the recipe's metric."""

    name, higher_is_better = "error", False

    def scores(self, run: Any) -> Means:
        reference = network()
        errors = [np.abs(run(f)["y"] - outputs(reference, f)["y"]).mean() for f in samples(3).feeds]
        return Means(np.array(errors)[:, None], lambda means: means[..., 0])


@pytest.mark.parametrize(
    "require", [{"metric_max": 0.02}, {"metric_drop": 0.02}, {"sqnr_min": 25.0, "metric_max": 0.02}]
)
def test_what_the_recipe_requires_is_met(require: dict[str, float]) -> None:
    graph = network()
    # Judged on integer kernels, as what is emitted will be; with 7 bits none of them saturates, on whichever CPU.
    ctx = quantized(
        Quantize(effort="fast", precision="auto"), graph, target("cpu-avx2"), require=require, metric=Metric()
    )
    assert not [node for node, _ in missed(ctx) if node == "the network"]
    feeds = samples(3).feeds
    reference = network()
    assert np.mean([np.abs(outputs(graph, f)["y"] - outputs(reference, f)["y"]).mean() for f in feeds]) <= 0.02


def test_auto_needs_a_goal() -> None:
    with pytest.raises(UsageError, match="quantize: precision: needs something to meet; write budget"):
        quantized(Quantize(precision="auto"), network())
    with pytest.raises(UsageError, match=r"has no metric to meet; add data\.eval"):
        quantized(Quantize(precision="auto"), network(), require={"metric_drop": 0.1})


# -- outputs that are joined -------------------------------------------------------------------------------------------


def test_joined_outputs_are_taken_apart() -> None:
    graph = model(
        "a = Conv (x, w)\nb = Relu (a)\ni = Concat <axis = 2> (b, b)\nj = Concat <axis = 2> (a, i)\n"
        "y = Concat <axis = 1> (j, j2)\n",
        "(float[1,3,8,8] x, float[1,2,24,8] j2) => (float[1,5,24,8] y)",
        "float[3,3,1,1] w",
    )
    parts = joined_parts(graph)
    assert [part.tensor.name for part in parts] == ["a", "b", "b", "j2"]
    y = np.arange(5 * 24 * 8).reshape(1, 5, 24, 8)
    found = list(apart({"y": y}, parts).values())
    np.testing.assert_array_equal(found[0], y[:, :3, :8])
    np.testing.assert_array_equal(found[2], y[:, :3, 16:])
    np.testing.assert_array_equal(found[3], y[:, 3:])


def test_other_outputs_stay_whole() -> None:
    assert [(part.output, part.place) for part in joined_parts(network())] == [("y", ())]
