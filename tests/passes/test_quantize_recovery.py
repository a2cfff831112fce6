"""quantize, effort balanced: rounding in order, what a layer stores, and that nothing is kept that does not help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.execution import sqnr_db
from edgec.ir.files import to_bytes
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.passes.calibration.batch_split import Split
from edgec.passes.factorize.layers import find_layers
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.quantize import stages
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.recover import recovery, rounded_training
from edgec.passes.quantize.recover.gptq import round_in_order
from edgec.passes.quantize.recover.layerwise_reconstruction import Recovered
from edgec.passes.quantize.stored_layers import StoredLayer, Values, stored_layers
from edgec.testing import Samples, did, missed, model, outputs, run_pass

CPU, CORAL = target("cpu"), target("coral-dev-board")
FAST, BALANCED = Quantize(effort="fast", calibrator="mse"), Quantize(effort="balanced")
BODY = """
a = Conv <pads = [1,1,1,1]> (x, w1, b1)
r = Relu (a)
c = Conv <pads = [1,1,1,1], group = 16> (r, w2, b2)
s = Relu (c)
d = Conv (s, w3, b3)
t = Add (d, r)
e = ConvTranspose <strides = [2,2]> (t, w4, b4)
p = GlobalAveragePool (e)
f = Flatten (p)
y = Gemm <transB = 1> (f, w5, b5)
"""
WEIGHTS = (
    "float[16,3,3,3] w1, float[16] b1, float[16,1,3,3] w2, float[16] b2, float[16,16,1,1] w3, float[16] b3, "
    "float[16,8,2,2] w4, float[8] b4, float[6,8] w5, float[6] b5"
)


def network() -> Graph:
    return model(BODY, "(float[1,3,8,8] x) => (float[1,6] y)", WEIGHTS, seed=3)


def images(count: int, seed: int = 1) -> list[dict[str, np.ndarray]]:
    """Smooth pictures of a few patterns, so that what layers read is correlated."""
    random, mixing = np.random.default_rng(seed), np.random.default_rng(9).standard_normal((6, 3, 8, 8))
    return [{"x": np.tensordot(random.standard_normal((1, 6)), mixing, 1).astype(np.float32)} for _ in range(count)]


def quantized(step: Quantize, graph: Graph | None = None, count: int = 24, **context: Any) -> tuple[Graph, Context]:
    graph = network() if graph is None else graph
    context = {"target": CPU, "threads": 1, **context}
    return graph, run_pass(step, graph, data={"calibration": Samples(images(count))}, **context)


def decibel(graph: Graph) -> float:
    reference, held_out = network(), images(40, seed=77)
    return float(np.mean([sqnr_db(outputs(reference, feeds), outputs(graph, feeds)) for feeds in held_out]))


# -- rounding ----------------------------------------------------------------------------------------------------------


def covariance(groups: int, size: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((groups, 3 * size, size // 2 + 1)) @ np.random.default_rng(
        seed + 1
    ).standard_normal((groups, size // 2 + 1, size))
    return (rows.swapaxes(1, 2) @ rows / rows.shape[1] + 1e-3 * np.eye(size)).astype(np.float32)


@pytest.mark.parametrize(("groups", "size"), [(1, 9), (1, 150), (5, 9)])
def test_rounding_in_order_beats_the_nearest_integers(groups: int, size: int) -> None:
    second = covariance(groups, size)
    kernel = np.random.default_rng(2).standard_normal((groups, 7, size)).astype(np.float32)
    scale = np.abs(kernel).max(axis=2) / 31

    def cost(integers: np.ndarray) -> float:
        apart = integers * scale[:, :, None] - kernel
        return float(np.einsum("goi,gij,goj->", apart, second, apart))

    found = round_in_order(kernel, scale, second, 31)
    assert np.array_equal(found, np.rint(found))
    assert np.abs(found).max() <= 31
    assert cost(found) < 0.6 * cost(np.rint(kernel / scale[:, :, None]))


def test_of_inputs_that_are_not_correlated_the_nearest_integers_are_best() -> None:
    kernel = np.random.default_rng(2).standard_normal((1, 4, 12)).astype(np.float32)
    scale = np.full((1, 4), 0.05)
    second = np.diag(np.arange(1.0, 13.0)).astype(np.float32)[None]
    assert np.array_equal(round_in_order(kernel, scale, second, 127), np.clip(np.rint(kernel / 0.05), -127, 127))


# -- what is stored ----------------------------------------------------------------------------------------------------


def pair_of(graph: Graph, **context: Any) -> Pair:
    """The float network and what quantize makes of it, matched by node."""
    original = graph.copy()
    quantized(Quantize(effort="fast"), graph, **context)
    return Pair(original, graph)


def stored(pair: Pair) -> list[StoredLayer]:
    layers = find_layers(pair.original, Shapes(pair.original), lambda node: None, lambda node, reason: None)
    return list(stored_layers(pair, layers, 127))


@pytest.mark.parametrize("board", [CPU, CORAL])
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_layer_reads_as_what_it_stands_for_and_is_written_as_it_was(board: Any, per_channel: bool) -> None:
    graph = network()
    gemm = next(node for node in graph.nodes if node.op == "Gemm")
    gemm.attrs.update(alpha=0.5, beta=2.0)
    original = graph.copy()
    quantized(Quantize(effort="fast", per_channel=per_channel), graph, target=board)
    found = stored(Pair(original, graph))
    kinds = [layer.layer.kind for layer in found]
    # onnxruntime has no integer ConvTranspose.
    assert kinds == ["conv", "conv", "conv", *(["conv_transpose"] if board is CORAL else []), "gemm"]
    before = to_bytes(graph)
    for layer in found:
        values, node = layer.values(), layer.layer.nodes[0]
        kernel = layer.layer.kernel().reshape(values.integers.shape)
        assert np.abs(values.kernel - kernel).max() <= 0.51 * values.scale.max()
        factor = float(node.attrs.get("beta", 1.0)) / float(node.attrs.get("alpha", 1.0))
        bias = node.inputs[2].values.reshape(values.bias.shape) * factor
        assert np.allclose(values.bias, bias, atol=values.scale.max() * layer.input_scale)
        layer.write(values)
    assert to_bytes(graph) == before


def test_a_larger_kernel_gets_a_larger_scale() -> None:
    pair = pair_of(network())
    layer = stored(pair)[0]
    values = layer.values()
    wider = layer.fitting_scale(2 * values.kernel, values.bias)
    assert np.allclose(wider, 2 * values.scale, rtol=0.02)
    layer.write(Values(values.integers, wider, values.bias))
    assert np.allclose(layer.values().kernel, values.integers * wider[:, :, None])


# -- the whole ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", [CPU, CORAL])
def test_balanced_brings_accuracy_back(board: Any) -> None:
    coarse: dict[str, Any] = {"per_channel": False}
    fast, _ = quantized(Quantize(effort="fast", **coarse), target=board)
    balanced, ctx = quantized(Quantize(effort="balanced", **coarse), target=board)
    assert decibel(balanced) > decibel(fast) + 1
    [told] = [remark for remark in ctx.done if remark.node == "the network"]
    assert told.what.startswith("weights and biases chosen by what they compute on images held out; of the outputs ")
    assert told.figures["after_db"] > told.figures["before_db"]


def test_a_layer_without_a_bias_gets_one() -> None:
    graph = model(
        "a = Conv <pads = [1,1,1,1]> (x, w1)\nr = Relu (a)\nf = Flatten (r)\ny = Gemm <transB = 1> (f, w2)",
        "(float[1,3,8,8] x) => (float[1,6] y)",
        "float[8,3,3,3] w1, float[6,512] w2",
    )
    quantized(BALANCED, graph)
    layers = [node for node in graph.nodes if node.op in ("Conv", "Gemm")]
    assert [len(node.inputs) for node in layers] == [3, 3]
    biases = [node.inputs[2].inputs[0].inputs[0] for node in layers]
    assert [bias.dtype.name for bias in biases] == ["int32", "int32"]
    assert any(bias.values.any() for bias in biases)


def test_what_does_not_help_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(pair: Pair, layers: list[StoredLayer], *_: Any) -> Iterator[Recovered]:
        for layer in layers:
            values = layer.values()
            layer.write(Values(-values.integers, values.scale, values.bias + 1))
            yield Recovered(layer.node, 0.0, 0.0, (0, 1, 0, 0))

    fast, _ = quantized(FAST)
    monkeypatch.setattr(recovery, "recover", worse)
    balanced, ctx = quantized(BALANCED)
    assert to_bytes(balanced) == to_bytes(fast)
    [(node, what)] = missed(ctx)[-1:]
    assert node == "the network"
    assert what.startswith("weights and biases stay as they were: fitted, they gave ")
    assert what.endswith(" dB on images held out")


def test_few_images_are_fitted_to_and_judge_and_that_is_said() -> None:
    _, ctx = quantized(BALANCED, count=4)
    told = [remark.what for remark in (*ctx.done, *ctx.left) if remark.node == "the network"]
    assert len(told) == 1
    assert "each half of the images, fitted to the other" in told[0] or "the images that they were fitted to" in told[0]


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_with_few_images_balanced_is_no_worse_than_fast(count: int) -> None:
    """On images that nothing was fitted to."""
    fast, _ = quantized(Quantize(effort="fast"), count=count)
    assert decibel(quantized(BALANCED, count=count)[0]) > decibel(fast) - 0.3


def test_of_few_images_the_outputs_take_what_holds_on_the_other_half() -> None:
    """A layer whose inputs are noise: with one image of four positions, an answer that fits them means nothing."""
    body = "y = Conv (x, w, b)"
    graph = model(body, "(float[1,32,2,2] x) => (float[1,8,2,2] y)", "float[8,32,1,1] w, float[8] b")
    random = np.random.default_rng(0)
    noise = [{"x": random.normal(size=(1, 32, 2, 2)).astype(np.float32)} for _ in range(65)]
    wanted = [outputs(graph, one) for one in noise[1:]]
    reached = {}
    for effort in ("fast", "balanced"):
        copy = graph.copy()
        run_pass(Quantize(effort=effort), copy, target=CORAL, data={"calibration": Samples(noise[:1])})
        found = [outputs(copy, one) for one in noise[1:]]
        reached[effort] = sqnr_db(*({"": np.stack([one["y"] for one in side])} for side in (wanted, found)))
    assert reached["balanced"] > reached["fast"] - 0.3


def test_a_single_image_is_not_trained_on() -> None:
    _, ctx = quantized(Quantize(effort="max"), count=1)
    what = "weights and biases are not trained: a single image leaves none to judge by"
    assert ("the network", what) in missed(ctx)


def test_what_few_images_train_is_judged_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of four images is held out: what fits the others alone is undone."""
    asked = []

    def train(pair: Pair, parts: Split, ctx: Context) -> str:
        asked.append(parts)
        return "left as they were"

    monkeypatch.setattr(recovery, "reconstruct", unreconstructed)
    monkeypatch.setattr(recovery, "train_rounded", train)
    _, ctx = quantized(Quantize(effort="max", calibrator="mse"), count=4)
    assert asked == [Split((0, 2, 3), (1,), 4)]
    assert missed(ctx)[-1][1].endswith("on images held out")


def test_as_many_samples_are_looked_at_as_are_asked_for() -> None:
    few, _ = quantized(Quantize(samples=12), count=12)
    some, _ = quantized(Quantize(samples=12), count=24)
    assert to_bytes(few) == to_bytes(some)


def test_of_many_images_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_MOST_BATCHES", 12)
    seen: list[int] = []
    original = recovery.recover

    def counted(pair: Pair, layers: Any, parts: Any, ctx: Context) -> Iterator[Recovered]:
        seen.append(len(ctx.data["calibration"]))
        return original(pair, layers, parts, ctx)

    monkeypatch.setattr(recovery, "recover", counted)
    quantized(BALANCED, count=40)
    assert seen == [12]


def test_the_result_does_not_depend_on_the_threads() -> None:
    one, _ = quantized(BALANCED)
    two, _ = quantized(BALANCED, threads=2)
    assert to_bytes(one) == to_bytes(two)


def test_a_network_with_control_flow_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network()
    monkeypatch.setattr(Graph, "graphs", lambda self: [self, self])
    _, ctx = quantized(BALANCED, graph)
    assert ("the network", "its accuracy is not recovered: it has control flow") in missed(ctx)


def test_layers_that_share_weights_are_left_as_they_are() -> None:
    graph = model(
        "a = Conv <pads = [1,1,1,1]> (x, w, b)\nr = Relu (a)\nc = Conv <pads = [1,1,1,1]> (r, w, b)\ny = Relu (c)",
        "(float[1,3,8,8] x) => (float[1,3,8,8] y)",
        "float[3,3,3,3] w, float[3] b",
    )
    assert stored(pair_of(graph)) == []


# -- effort max --------------------------------------------------------------------------------------------------------


def trained(ctx: Context) -> dict[str, float]:
    """The figures of the last line about the network: what training all layers together brought."""
    remarks = [r for r in (*ctx.done, *ctx.left) if "train" in r.what]
    assert len(remarks) == 1
    return dict(remarks[0].figures)


def unreconstructed(*_: Any) -> str:
    return "left as they were"


def test_max_trains_all_layers_together_where_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "reconstruct", unreconstructed)
    most, ctx = quantized(Quantize(effort="max"), count=60)
    monkeypatch.setattr(recovery, "train_rounded", unreconstructed)
    untrained, _ = quantized(Quantize(effort="max"), count=60)
    figures = trained(ctx)
    if figures["after_db"] > figures["before_db"]:
        assert to_bytes(most) != to_bytes(untrained)
    else:
        assert to_bytes(most) == to_bytes(untrained)
    assert decibel(most) > decibel(untrained) - 1
    assert decibel(most) > decibel(quantized(BALANCED, count=60)[0]) - 1


def test_training_that_does_not_help_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(pair: Pair, *_: Any) -> str:
        for constant in pair.quantized.constants():
            if constant.name.endswith(".int32"):
                constant.values = constant.values + 4000
        return "trained for nothing"

    balanced, _ = quantized(BALANCED)
    monkeypatch.setattr(stages, "equalize", lambda *_: None)
    monkeypatch.setattr(recovery, "reconstruct", unreconstructed)
    monkeypatch.setattr(recovery, "train_rounded", worse)
    most, ctx = quantized(Quantize(effort="max"))
    assert to_bytes(most) == to_bytes(balanced)
    figures = trained(ctx)
    assert figures["after_db"] < figures["before_db"]
    assert missed(ctx)[-1][1].startswith("weights and biases stay as they were: trained, they gave ")


# -- what was asked ----------------------------------------------------------------------------------------------------


def gain(ctx: Context) -> tuple[float, float]:
    """The SQNR before and after the weights were chosen."""
    (figures,) = [remark.figures for remark in ctx.done if "weights and biases chosen" in remark.what]
    return figures["before_db"], figures["after_db"]


def test_nothing_stays_float_where_chosen_weights_suffice() -> None:
    # What is asked is judged on integer kernels, as the report judges; with 7 bits none of them saturates.
    board = target("cpu-avx2")
    _, ctx = quantized(Quantize(calibrator="mse"), count=60, target=board)
    before, after = gain(ctx)
    assert after > before + 1
    _, ctx = quantized(
        Quantize(calibrator="mse", precision="auto", budget=(before + after) / 2), None, 60, target=board
    )
    assert any(what.startswith("0 of 10 operators stay float") for _, what in did(ctx))
    assert not any("stays float" in what for _, what in missed(ctx))


def test_what_is_reached_is_not_given_away() -> None:
    """Weights that bring the outputs closer, but the network behind what is asked, are not kept."""
    graph = network()
    pair = pair_of(graph)
    kept = {constant.name: constant.values for constant in graph.constants()}

    def meets(one: Graph) -> bool:
        return all(np.array_equal(constant.values, kept[constant.name]) for constant in one.constants())

    ctx = Context(pair.original, RunConfig(data={"calibration": Samples(images(24))}, target=CPU))
    recovery.recover_accuracy(pair, ctx, 127, meets=meets)
    assert meets(graph)
    [(_, what)] = missed(ctx)
    assert what.endswith("on images held out, and missed what is asked") or "fitted to, and missed" in what
    recovery.recover_accuracy(pair, ctx, 127, meets=lambda one: False)
    assert not meets(graph), "what is not met anyway is no reason"


def test_batches_of_large_networks_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = pair_of(network()).quantized
    assert rounded_training._batch(graph) == 8
    monkeypatch.setattr(rounded_training, "_MOST_BYTES", 200_000)
    few = rounded_training._batch(graph)
    assert 1 < few < 8
    monkeypatch.setattr(rounded_training, "_MOST_BYTES", 100_000)
    assert rounded_training._batch(graph) == pytest.approx(few / 2, abs=1)
    monkeypatch.setattr(rounded_training, "_MOST_BYTES", 1)
    assert rounded_training._batch(graph) == 1
