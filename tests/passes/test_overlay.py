"""overlay: the stage in the graph, a converted network, and what cannot be converted."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from edgec.backends.coral.backend import CoralBackend
from edgec.backends.protocol import legalize
from edgec.backends.registry import target
from edgec.backends.tensorrt.backend import TensorRTBackend
from edgec.frontends.overlay import overlay_channels
from edgec.ir.cost import Cost
from edgec.ir.errors import InputError, UsageError, UsageErrors
from edgec.ir.execution import Session, sqnr_db
from edgec.ir.frequency_bank import Overlay as Channels
from edgec.ir.graph import Graph, Variable
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.framework.planner import plan
from edgec.passes.framework.settling import settle
from edgec.passes.overlay.composing import compose
from edgec.passes.overlay.overlay import Overlay
from edgec.passes.overlay.stage import absolutes, grouped, light_of, write_stage
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, assert_same, did, model, outputs, run_pass

PIXELS = (np.array([1 / 255]), np.zeros(1))
ALL = [
    Channels(block, transform, None, magnitude, log, low, chroma=bool(low), center=log or block == 8)
    for block, transform, magnitude, log, low in itertools.product(
        (2, 4, 8), ("dct", "haar", "laplacian"), ("none", "abs", "square"), (False, True), (0.0, 0.7)
    )
    if not (log and magnitude == "none")
]


def smooth(count: int, channels: int, side: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Images like photographs: most of the energy is in low frequencies."""
    random = np.random.default_rng(seed)
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    made = []
    for _ in range(count):
        # Colours are nearly those of gray.
        colors = random.standard_normal((1, side, side)) + 0.1 * random.standard_normal((channels, side, side))
        values = np.fft.ifft2(np.fft.fft2(colors) / (0.02 + frequencies) ** 1.2).real
        values = (values - values.min()) / np.ptp(values)
        made.append({"x": values[None].astype(np.float32)})
    return made


# -- the stage ---------------------------------------------------------------------------------------------------------


def staged(overlay: Channels, channels: int, pixels: Any = None, side: int = 16, batch: int = 2) -> Graph:
    graph = Graph(opset=17)
    x = Variable("x", np.float32, [batch, channels, side, side + 8])
    graph.inputs = [x]
    graph.outputs = [write_stage(graph, x, overlay, light_of("x", channels, pixels), "stage")]
    settle(graph, "stage")
    return graph


@pytest.mark.parametrize("overlay", ALL, ids=str)
def test_the_stage_computes_the_reference(overlay: Channels) -> None:
    x = np.random.default_rng(0).random((2, 3, 16, 24), np.float32)
    wanted = overlay_channels(x, overlay)
    graph = staged(overlay, 3)
    found = next(iter(outputs(graph, {"x": x}).values()))
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    # What preprocessing does to pixels is undone in the kernels.
    scale, offset = np.array([0.01, 0.02, 0.03]), np.array([-1.0, -0.5, 0.3])
    graph = staged(overlay, 3, (scale, offset))
    shown = (x * 255 * scale[:, None, None] + offset[:, None, None]).astype(np.float32)
    found = next(iter(outputs(graph, {"x": shown}).values()))
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_it_is_convolutions_and_relus() -> None:
    for log, operators in (
        (False, ["Conv", "Relu", "Conv"]),
        (True, ["Conv", "Relu", "Conv", "Conv", "Relu", "Conv", "Conv", "Concat"]),
    ):
        graph = staged(Channels(4, log=log), 1)
        assert sorted(node.op for node in graph.nodes) == sorted(operators)
    assert [node.op for node in staged(Channels(4, magnitude="none"), 3).nodes] == ["Conv"]


def test_many_kernels_are_not_alive_at_once() -> None:
    """Bands in groups of 64 answers, as far as bands go."""
    assert grouped((1, 4, 4)) == [slice(0, 3)]
    assert grouped(()) == [slice(0, 0)]
    assert grouped((4, 16, 64)) == [slice(0, 2), slice(2, 3)]
    assert grouped((30, 30)) == [slice(0, 2)]
    assert grouped((30, 31)) == [slice(0, 1), slice(1, 2)]
    assert grouped(Channels(8).sizes) == [slice(0, 8), slice(8, 9)]
    graph = staged(Channels(8, log=True, low=0.0, center=True), 1, side=128)
    answers = [node.outputs[0].shape for node in graph.nodes if "analysis" in node.name]
    assert answers == [[2, 60, 16, 17], [2, 18, 16, 17]]
    image, cells = 128 * 136, 16 * 17
    # The image, the larger group's answers and its 8 bands; a float32 has 4 bytes, and there are 2 images.
    assert Cost(graph).peak_activation_bytes == (image + (60 + 8) * cells) * 4 * 2


@pytest.mark.parametrize("sizes", [(), (1,), (2, 5), (4, 1, 3)])
def test_bands_of_absolute_values_with_few_kernels(sizes: tuple[int, ...]) -> None:
    """A kernel for each, and two a band, however many the band has."""
    random = np.random.default_rng(0)
    kernels, x = random.standard_normal((sum(sizes), 4, 4)), random.standard_normal((4, 4))
    made, mixed = absolutes(kernels, sizes)
    assert len(made) == sum(sizes) + sum(min(size, 2) for size in sizes)
    found = mixed @ np.maximum((made * x).sum((1, 2)), 0)
    answers = np.abs((kernels * x).sum((1, 2)))
    wanted = [part.sum() / np.sqrt(len(part)) for part in np.split(answers, np.cumsum(sizes)[:-1]) if len(part)]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_a_stage_without_bands() -> None:
    x = np.random.default_rng(0).random((2, 1, 16, 24), np.float32)
    found = next(iter(outputs(staged(Channels(4, bands=()), 1), {"x": x}).values()))
    np.testing.assert_allclose(found, overlay_channels(x, Channels(4, bands=())), atol=2e-6)


def test_sides_that_the_block_does_not_divide() -> None:
    overlay = Channels(4)
    x = np.random.default_rng(0).random((2, 1, 10, 18), np.float32)
    np.testing.assert_allclose(
        next(iter(outputs(staged(overlay, 1, side=10), {"x": x}).values())), overlay_channels(x, overlay), atol=2e-6
    )


@pytest.mark.parametrize("block", [4, 8])
@pytest.mark.parametrize("log", [False, True])
def test_all_of_it_is_for_the_edge_tpu(log: bool, block: Any, tmp_path: Any) -> None:
    graph, board = staged(Channels(block, log=log, center=log), 1, PIXELS, batch=1), target("coral-dev-board")
    random = np.random.default_rng(0)
    feeds = [{"x": random.random((1, 1, 16, 24), np.float32)} for _ in range(4)]
    legalize(graph, CoralBackend(), board)
    settle(graph, "legal")
    before = graph.copy()
    run_pass(Quantize(effort="fast"), graph, target=board, data={"calibration": Samples(feeds)})
    assert sqnr_db(outputs(before, feeds[0]), outputs(graph, feeds[0])) > 25
    made = CoralBackend().emit(graph, board, tmp_path, feeds)
    assert made.check["edge_tpu"]["mapped"] == made.check["edge_tpu"]["operators"]


# -- composing ---------------------------------------------------------------------------------------------------------


def composable(kernels: int, pads: int, offset: float = 0.0) -> Graph:
    around = f"pads = [{pads}, {pads}, {pads}, {pads}]"
    body = f"[a] s = Conv <strides = [4, 4]> (x, k, o)\n[c] y = Conv <{around}, strides = [2, 2]> (s, w, b)"
    side = {0: 3, 1: 4}[pads]
    return model(
        body, f"(float[1,3,32,32] x) => (float[1,8,{side},{side}] y)",
        f"float[{kernels},3,4,4] k, float[{kernels}] o, float[8,{kernels},3,3] w, float[8] b",
        o=np.full(kernels, offset),
    )  # fmt: skip


@pytest.mark.parametrize(("pads", "offset"), [(0, 0.5), (1, 0.0)])
def test_composing_is_exact_and_cheaper(pads: int, offset: float) -> None:
    graph = composable(64, pads, offset)
    before, cost = graph.copy(), Cost(graph).macs
    analysis = graph.nodes[0]
    # Strides and pads are spelled out as the pass writes them.
    graph.nodes[1].attrs.setdefault("pads", [pads] * 4)
    assert compose(graph, analysis.outputs[0])
    settle(graph, "composed")
    assert [node.op for node in graph.nodes] == ["Conv"]
    assert_same(before, graph, tolerance=1e-5)
    assert Cost(graph).macs < cost


def test_nothing_is_composed_where_it_would_cost_more_or_change_the_border() -> None:
    for graph in (composable(4, 1), composable(64, 1, 0.5)):
        before = graph.copy()
        assert not compose(graph, graph.nodes[0].outputs[0])
        assert_same(before, graph, tolerance=0)


# -- converting --------------------------------------------------------------------------------------------------------

CLASSIFIER = """
[first] a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, wa, ba)
[r] r = Relu (a)
[second] b = Conv <pads = [1, 1, 1, 1]> (r, wb, bb)
[s] s = Relu (b)
"""
GLOBAL = CLASSIFIER + "[pool] p = GlobalAveragePool (s)\n[flat] f = Flatten (p)\n[fc] y = Gemm <transB = 1> (f, wg, bg)"
WEIGHTS = "float[8,3,3,3] wa, float[8] ba, float[8,8,3,3] wb, float[8] bb, float[5,8] wg, float[5] bg"
SIGNATURE = "(float[1,3,32,32] x) => (float[1,5] y)"


def converted(graph: Graph, step: Overlay | None = None, channels: int = 3, **more: Any) -> Context:
    side = int((graph.inputs[0].shape or [0] * 4)[2])
    data = {"calibration": Samples(smooth(12, channels, side))}
    return run_pass(
        step or Overlay(), graph, data=data, affine={"x": (np.full(channels, 1 / 255), np.zeros(channels))}, **more
    )


@pytest.mark.parametrize("magnitude", ["none", "abs", "square"])
@pytest.mark.parametrize("block", [2, 4])
def test_a_classifier(block: Any, magnitude: Any) -> None:
    graph = model(GLOBAL, SIGNATURE, WEIGHTS)
    before, cost = graph.copy(), Cost(graph)
    ctx = converted(graph, Overlay(block=block, magnitude=magnitude, chroma=True))
    assert [(t.name, t.shape) for t in graph.inputs] == [("x", [1, 3, 32, 32])]
    figures = ctx.done[0].figures
    assert figures["explained"] > 0.9
    assert Cost(graph).macs / cost.macs == pytest.approx(figures["macs_left"], abs=1e-3)
    feeds = smooth(4, 3, 32, seed=1)
    assert min(sqnr_db(outputs(before, f), outputs(graph, f)) for f in feeds) > 8
    second = next(node for node in graph.nodes if node.name == "second")
    assert second.outputs[0].shape == [1, 8, 16 // block, 16 // block]


def test_a_linear_stage_explains_all_of_the_mean_response() -> None:
    """With all coefficients at hand the mean response is a linear function of them, but for the border."""
    graph = model(GLOBAL, SIGNATURE, WEIGHTS)
    ctx = converted(graph, Overlay(block=2, magnitude="none", chroma=True))
    assert ctx.done[0].figures["explained"] > 0.99
    # Without colour something is missing.
    graph = model(GLOBAL, SIGNATURE, WEIGHTS)
    assert converted(graph, Overlay(block=2, magnitude="none")).done[0].figures["explained"] < 0.99


FLAT = CLASSIFIER + "[flat] f = Flatten (s)\n[fc] y = Gemm <transB = 1> (f, wg, bg)"
SHAPED = CLASSIFIER + "[flat] f = Reshape (s, k)\n[fc] y = MatMul (f, wm)"
POOLED = GLOBAL.replace("GlobalAveragePool (s)", "AveragePool <kernel_shape = [16, 16]> (s)")
KERNEL = CLASSIFIER + "[last] p = Conv (s, wl)\n[flat] y = Flatten (p)"


@pytest.mark.parametrize(
    ("body", "weights", "values", "words"),
    [
        (FLAT, WEIGHTS.replace("float[5,8] wg", "float[5,2048] wg"), {}, "'fc' reads 4x4 cells"),
        (SHAPED, WEIGHTS.replace("float[5,8] wg, float[5] bg", "float[2048,5] wm, int64[2] k"),
         {"k": [1, 2048], "wm": np.repeat(np.random.default_rng(1).normal(size=(8, 5)), 256, axis=0)},
         "'fc' reads 4x4 cells"),
        (POOLED, WEIGHTS, {}, "'pool' covers 4x4 values"),
        (KERNEL, WEIGHTS.replace("float[5,8] wg, float[5] bg", "float[5,8,16,16] wl"), {}, "'last' covers 4x4 values"),
    ],
    ids=["flatten", "reshape", "pool", "kernel"],
)  # fmt: skip
def test_heads_that_depend_on_the_size(body: str, weights: str, values: dict[str, Any], words: str) -> None:
    graph = model(body, SIGNATURE, weights, **values)
    before = graph.copy()
    ctx = converted(graph, Overlay(block=4, chroma=True))
    assert ("the network", words) in did(ctx)
    feeds = smooth(3, 3, 32, seed=1)
    assert min(sqnr_db(outputs(before, f), outputs(graph, f)) for f in feeds) > 5


def test_a_decoder_gives_its_pixels_cell_by_cell() -> None:
    body = (
        CLASSIFIER.replace("x, wa", "x, wa")
        + "[up] u = ConvTranspose <strides = [2, 2]> (s, wu, bu)\n[sigmoid] y = Sigmoid (u)"
    )
    weights = WEIGHTS.replace("float[5,8] wg, float[5] bg", "float[8,3,2,2] wu, float[3] bu")
    graph = model(body, "(float[1,3,32,32] x) => (float[1,3,32,32] y)", weights)
    ctx = converted(graph)
    assert ("the network", "'up' gives 4x4 pixels for each of its cells") in did(ctx)
    assert [(t.name, t.shape) for t in graph.outputs] == [("y", [1, 3, 32, 32])]
    values = outputs(graph, smooth(1, 3, 32)[0])["y"]
    cells = values.reshape(1, 3, 8, 4, 8, 4)
    assert np.ptp(cells, axis=(3, 5)).max() < 1e-6, "every pixel of a cell begins alike"


def test_bands_that_the_data_choose() -> None:
    graph = model(GLOBAL, SIGNATURE, WEIGHTS)
    ctx = converted(graph, Overlay(bands=3))
    assert did(ctx)[0] == ("the network", "bands h2, v2, h1: each holds most of what the reduced image lacks")
    assert ctx.done[1].figures["channels"] == 4
    # Classes that differ in fine vertical detail alone.
    random = np.random.default_rng(0)
    feeds, labels = smooth(24, 3, 32), np.arange(24) % 2
    for item, label in zip(feeds, labels, strict=True):
        stripes = random.normal(size=(1, 1, 32, 1)) * np.where(np.arange(32) % 2, 0.05, -0.05)[None, None, :, None]
        item["x"] = item["x"] + (np.float32(label) * stripes).astype(np.float32)
    train = Samples(feeds)
    train.labels = labels
    graph = model(GLOBAL, SIGNATURE, WEIGHTS)
    data = {"calibration": Samples(smooth(12, 3, 32)), "train": train}
    ctx = run_pass(Overlay(bands=1), graph, data=data)
    assert did(ctx)[0] == ("the network", "bands v1: each tells the classes of data.train apart")


# -- prepending --------------------------------------------------------------------------------------------------------


def test_a_network_of_overlay_channels_takes_images() -> None:
    graph = model(
        "[c] c = Conv (x, w)\n[p] p = GlobalAveragePool (c)\n[f] y = Flatten (p)",
        "(float[1,7,8,8] x) => (float[1,5] y)", "float[5,7,3,3] w",
    )  # fmt: skip
    before = graph.copy()
    run_pass(Overlay(mode="prepend", block=4, color="rgb"), graph)
    assert [(t.name, t.shape) for t in graph.inputs] == [("x", [1, 3, 32, 32])]
    image = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    wanted = Session(before).run({"x": overlay_channels(image, Channels(4))})
    np.testing.assert_allclose(outputs(graph, {"x": image})["y"], wanted["y"], atol=1e-5)


def test_it_stands_first_in_a_recipe() -> None:
    with pytest.raises(UsageErrors) as caught:
        plan([("fold", {}), ("overlay", {"mode": "prepend"})])
    assert str(caught.value) == (
        "the pipeline: passes[1] 'overlay' changes what the network takes, and 'fold' stands before it; put 'overlay' "
        "first"
    )
    found = plan([("overlay", {"mode": "prepend"}), ("fold", {})])
    assert found.entry == 1


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "signature", "step", "line"),
    [
        (GLOBAL, "(float[1,3,30,30] x) => (float[1,5] y)", Overlay(),
         "overlay: input 'x': is 30x30, which blocks of 4 do not divide; use 32x32, or pad: true"),
        ("[a] y = Relu (x)", "(float[1,3,32,32] x) => (float[1,3,32,32] y)", Overlay(),
         "overlay: input 'x': is read by 'a' (Relu), and a first convolution without groups is wanted; put 'fold' "
         "before it, or cut what stands in front"),
        ("[c] y = Conv (x, w4)", "(float[1,4,32,32] x) => (float[1,2,32,32] y)", Overlay(),
         "overlay: input 'x': has 4 channels, and luminance is of gray or of red, green and blue; convert the images "
         "in data.preprocess, or choose another input"),
        (CLASSIFIER + "[t] y = Transpose <perm = [0, 2, 3, 1]> (s)", "(float[1,3,32,32] x) => (float[1,16,16,8] y)",
         Overlay(), "overlay: node 't': depends on the size of the image; use a smaller block, cut the network there, "
         "or make it independent of the image's size"),
        ("[c] y = Conv (x, w3)", "(float[1,3,32,32] x) => (float[1,2,30,30] y)", Overlay(),
         "overlay: node 'c': gives 30x30 values, which blocks of 4 do not divide; use a smaller block, or other sizes "
         "of images"),
        ("[c] y = Gemm (x, g)", "(float[1,6] x) => (float[1,5] y)", Overlay(),
         "overlay: input 'x': is no image of static size (n, channels, height, width); pin it with --input, or name "
         "another one"),
        ("[c] y = Conv (x, w9)", "(float[1,9,8,8] x) => (float[1,2,8,8] y)", Overlay(mode="prepend"),
         "overlay: input 'x': takes 9 channels, and this overlay has 7: luminance, h2, v2, d2, h1, v1, d1; give the "
         "options that it was trained with"),
    ],
)  # fmt: skip
def test_networks_that_it_is_not_for(body: str, signature: str, step: Overlay, line: str) -> None:
    extra = {"w4": "float[2,4,1,1]", "w3": "float[2,3,3,3]", "w9": "float[2,9,1,1]", "g": "float[6,5]"}
    used = [f"{shape} {name}" for name, shape in extra.items() if f", {name})" in body]
    weights = ", ".join(used) if used else WEIGHTS if "wa" in body else ""
    if "wg" not in body and weights == WEIGHTS:
        weights = WEIGHTS.replace(", float[5,8] wg, float[5] bg", "")
    graph = model(body, signature, weights)
    shape = graph.inputs[0].shape or []
    data = {"calibration": Samples([{"x": np.zeros([int(n) for n in shape], np.float32)}])}
    with pytest.raises(InputError) as caught:
        step.run(graph, Context(graph, RunConfig(data=data)))
    assert str(caught.value) == line


def test_several_inputs() -> None:
    graph = model("[a] y = Add (x, z)", "(float[1,3,8,8] x, float[1,3,8,8] z) => (float[1,3,8,8] y)")
    with pytest.raises(UsageError, match="the network has several inputs: x, z; name the images' with 'input'"):
        Overlay().run(graph, Context(graph))
    with pytest.raises(UsageError, match="the network has no input 'w'; it has x, z"):
        Overlay(input="w").run(graph, Context(graph))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"bands": ["x9"]}, "no band is named 'x9'; there are h2, v2, d2, h1, v1, d1"),
        ({"bands": 0}, "bands is a number of bands, at least 1, or a list of names"),
        ({"magnitude": "none", "log": True}, "log needs a magnitude that is never negative: abs or square"),
    ],
)
def test_options(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageErrors) as caught:
        plan([("overlay", options)], roles=["calibration"])
    assert str(caught.value) == f"the pipeline: passes[0] 'overlay': {line}; 'edgec passes overlay' explains"


# -- for TensorRT ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [4, 8])
@pytest.mark.parametrize("log", [False, True])
def test_tensorrt_takes_it(log: bool, block: Any, tmp_path: Any) -> None:
    graph, board = staged(Channels(block, log=log, center=log), 1, PIXELS, batch=1), target("jetson-orin-nano")
    feeds = [{"x": np.random.default_rng(0).random((1, 1, 16, 24), np.float32)}]
    made = TensorRTBackend().emit(graph, board, tmp_path, feeds)
    assert made.check["lint"] == []
