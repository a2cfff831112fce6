"""Whether the first and the last layer stay float under TensorRT's scheme: by what they gain, and what they cost."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.execution import sqnr_db
from edgec.ir.graph import Graph, producer
from edgec.passes.framework.context import Context
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.placement import first_last_layers as ends
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, did, missed, model, outputs, run_pass

ORIN, CORAL = target("jetson-orin-nano"), target("coral-dev-board")
SIGNATURE = "(float[1,16,8,8] x) => (float[1,20] y)"
# Means over 64 places leave little of the noise of the convolutions: what is left is made by the last layer.
AVERAGED = """
[a] a = Conv <pads = [1, 1, 1, 1]> (x, wa)
[r] r = Relu (a)
[b] b = Conv <pads = [1, 1, 1, 1]> (r, wb)
[pool] p = GlobalAveragePool (b)
[flat] f = Flatten (p)
[fc] y = Gemm <transB = 1> (f, wg)
"""
AVERAGED_WEIGHTS = "float[16,16,3,3] wa, float[16,16,3,3] wb, float[20,16] wg"
# What counts is 200 times smaller than what shares its scale, and the first layer, which evens that out, is small.
UNEVEN = """
[first] a = Conv (x, we)
[b] b = Conv <pads = [2, 2, 2, 2]> (a, wb)
[r] r = Relu (b)
[c] c = Conv <pads = [2, 2, 2, 2]> (r, wc)
[pool] p = GlobalMaxPool (c)
[flat] y = Flatten (p)
"""
EVENING = np.diag([200.0] * 15 + [1.0]).reshape(16, 16, 1, 1)


def averaged() -> Graph:
    return model(AVERAGED, SIGNATURE, AVERAGED_WEIGHTS)


def uneven() -> Graph:
    weights = "float[16,16,1,1] we, float[32,16,5,5] wb, float[16,32,5,5] wc"
    return model(UNEVEN, "(float[1,16,8,8] x) => (float[1,16] y)", weights, we=EVENING)


def samples(count: int = 40) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [{"x": random.normal(size=(1, 16, 8, 8)).astype(np.float32)} for _ in range(count)]


def uneven_samples() -> list[dict[str, np.ndarray]]:
    size = np.array([0.005] * 15 + [1.0], np.float32).reshape(1, 16, 1, 1)
    return [{"x": one["x"] * size} for one in samples()]


def quantized(graph: Graph, feeds: list[dict[str, np.ndarray]], board: Any = ORIN, **options: Any) -> Context:
    step = Quantize(**{"effort": "fast", **options})
    return run_pass(step, graph, target=board, data={"calibration": Samples(feeds)})


def in_integers(graph: Graph) -> set[str]:
    """The layers that read through a DQ."""
    found = set()
    for node in graph.nodes:
        makers = [producer(tensor) for tensor in node.inputs[:2]]
        if len(makers) == 2 and all(maker is not None and maker.op == "DequantizeLinear" for maker in makers):
            found.add(node.name)
    return found


def said(ctx: Context) -> list[str]:
    return [what for node, what in did(ctx) if node == "the first and last layers"]


def figures(ctx: Context) -> dict[str, float]:
    return next(dict(remark.figures) for remark in ctx.done if remark.node == "the first and last layers")


def test_a_last_layer_that_makes_the_noise_stays_float() -> None:
    graph = averaged()
    ctx = quantized(graph, samples())
    assert in_integers(graph) == {"a", "b"}
    found = figures(ctx)
    assert found["last_gain_db"] > 3 > 1 > found["first_gain_db"]
    part = 1 - 10 ** (-found["last_gain_db"] / 10)
    reason = (
        f"stays float: in 8 bits the last layer makes {part:.1%} of the noise at the outputs, for 0.11% of the work"
    )
    assert ("fc", reason) in missed(ctx)
    (line,) = said(ctx)
    assert re.fullmatch(
        r"the last kept in float: the first in float gains \d\.\d dB for 49\.95% of the work; the last in float gains "
        r"\d\.\d dB for 0\.11% of the work",
        line,
    )
    assert found["after_db"] - found["before_db"] == pytest.approx(found["last_gain_db"])
    # What was measured is what came of it, on the batches that judged.
    exact = averaged()
    judged = samples()[2::5]
    noise = sqnr_db(
        {"y": np.stack([outputs(exact, one)["y"] for one in judged])},
        {"y": np.stack([outputs(graph, one)["y"] for one in judged])},
    )
    assert noise == pytest.approx(found["after_db"], abs=0.5)


def test_a_first_layer_that_makes_the_noise_stays_float() -> None:
    graph = uneven()
    ctx = quantized(graph, uneven_samples())
    assert "first" not in in_integers(graph)
    assert "b" in in_integers(graph)
    assert figures(ctx)["first_gain_db"] > 10
    assert figures(ctx)["first_work"] < 0.02


def test_an_end_that_is_much_of_the_work_is_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "NOISE_PER_WORK", 1000.0)
    graph = averaged()
    ctx = quantized(graph, samples())
    assert in_integers(graph) == {"a", "b", "fc"}
    (line,) = said(ctx)
    assert line.startswith("8 bits like the others: the first in float gains ")
    assert figures(ctx)["before_db"] == figures(ctx)["after_db"]
    assert not any("stays float" in reason for _, reason in missed(ctx))


def test_an_end_that_gains_little_is_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "LEAST_GAIN_DB", 30.0)
    graph = averaged()
    quantized(graph, samples())
    assert in_integers(graph) == {"a", "b", "fc"}


def test_both_ends() -> None:
    """The one that gains most goes first, and the other is measured again beside it."""
    body = UNEVEN.replace("[pool] p = GlobalMaxPool (c)\n[flat] y = Flatten (p)", "[pool] p = GlobalAveragePool (c)\n")
    body += "[flat] f = Flatten (p)\n[fc] y = Gemm <transB = 1> (f, wg)"
    weights = "float[16,16,1,1] we, float[32,16,5,5] wb, float[16,32,5,5] wc, float[20,16] wg"
    graph = model(body, SIGNATURE, weights, we=EVENING)
    ctx = quantized(graph, uneven_samples())
    assert in_integers(graph) == {"b", "c"}
    (line,) = said(ctx)
    assert line.startswith("the first and the last kept in float: ")


def test_heads_are_one_end() -> None:
    body = AVERAGED + "[other] z = Gemm <transB = 1> (f, wo)"
    signature = "(float[1,16,8,8] x) => (float[1,20] y, float[1,24] z)"
    graph = model(body, signature, AVERAGED_WEIGHTS + ", float[24,16] wo")
    quantized(graph, samples())
    assert in_integers(graph) == {"a", "b"}


@pytest.mark.parametrize(
    ("board", "options"),
    [(ORIN, {"only": ["a", "b", "fc"]}), (CORAL, {})],
)
def test_where_nothing_is_measured(board: Any, options: dict[str, Any]) -> None:
    """What ``only`` names is quantized; other schemes round what every operator gives, and chips want all of it."""
    graph = averaged()
    ctx = quantized(graph, samples(), board, **options)
    assert said(ctx) == []
    assert {"a", "b", "fc"} <= in_integers(graph)


def test_ends_that_are_float_already() -> None:
    """Layers of few channels: there is nothing to decide."""
    body = "[n] n = Conv <pads = [1, 1, 1, 1]> (x, wn)\n" + AVERAGED.replace(
        "Conv <pads = [1, 1, 1, 1]> (x,", "Conv (n,"
    )
    weights = "float[16,3,3,3] wn, float[16,16,3,3] wa, float[16,16,3,3] wb, float[8,16] wg"
    graph = model(body, "(float[1,3,8,8] x) => (float[1,8] y)", weights)
    feeds = [{"x": one["x"][:, :3]} for one in samples()]
    ctx = quantized(graph, feeds)
    assert in_integers(graph) == {"a", "b"}
    assert said(ctx) == []


def test_all_in_float_is_the_float_network() -> None:
    graph = averaged()
    pair_of: list[Pair] = []
    sites: list[Any] = []

    def keep(float_network: Graph, made: Pair, found: Any, ctx: Context) -> dict[Any, str]:
        sites.extend(found)
        pair_of.append(made)
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgec.passes.quantize.stages.ends_in_float", keep)
        quantized(graph, samples())
    whole = ends._in_float(pair_of[0], sites)
    feeds = samples()[0]
    assert sqnr_db(outputs(averaged(), feeds), outputs(whole, feeds)) > 100
    assert sqnr_db(outputs(averaged(), feeds), outputs(pair_of[0].quantized, feeds)) < 60
