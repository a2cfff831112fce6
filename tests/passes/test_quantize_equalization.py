"""Channels of activations made equally wide before they are rounded: exact in float, kept where it helps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from edgec.backends.registry import target
from edgec.ir.execution import seeded_feeds, sqnr_db
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.passes.fold.fold import Fold
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.layers.linear import scale_inputs, scale_outputs
from edgec.passes.quantize.prepare import equalization
from edgec.passes.quantize.prepare.equalization import equalized, take_up
from edgec.passes.quantize.prepare.equalization_groups import streams
from edgec.passes.quantize.prepare.stream_noise import End, Rounding
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.stages import Quantization
from edgec.testing import Samples, assert_same, did, missed, model, networks, outputs, run_pass

CPU = target("cpu")
ASYMMETRIC = Rounding(symmetric=False, inputs_only=False, per_channel=True)
PLAIN = Rounding(symmetric=False, inputs_only=False, per_channel=False)
RESIDUAL = (
    "c = Conv<pads=[1,1,1,1]>(x, w, b)\nr = Relu(c)\nd = Conv<pads=[1,1,1,1], group=8>(r, v)\n"
    "e = Relu(d)\nf = Conv(e, u)\na = Add(f, r)\ng = GlobalAveragePool(a)\nh = Flatten(g)\ny = Gemm<transB=1>(h, m, n)"
)
SHAPES = "(float[1,3,12,12] x) => (float[1,5] y)"
WEIGHTS = "float[8,3,3,3] w, float[8] b, float[8,1,3,3] v, float[8,8,1,1] u, float[5,8] m, float[5] n"


def uneven() -> Graph:
    """A network whose channels differ in width by a factor of 300, and whose weights undo that again."""
    graph = model(RESIDUAL, SHAPES, WEIGHTS)
    constants = {constant.name: constant for constant in graph.constants()}
    widths = np.float32(300) ** np.linspace(-0.5, 0.5, 8, dtype=np.float32)
    constants["w"].values = constants["w"].values * widths[:, None, None, None]
    constants["b"].values = constants["b"].values * widths
    constants["u"].values = constants["u"].values * widths[:, None, None, None] / widths[:, None, None]
    constants["m"].values = constants["m"].values / widths
    return graph


def context(graph: Graph, count: int = 4) -> Context:
    return Context(graph, RunConfig(data={"calibration": Samples(seeded_feeds(graph, samples=count))}))


def test_streams() -> None:
    graph = model(RESIDUAL, SHAPES, WEIGHTS)
    found = streams(graph, Shapes(graph))
    described = [
        ([t.name for t in s.tensors], [n.op for n in s.writers], [n.op for n in s.readers], s.width) for s in found
    ]
    assert described == [
        (["c", "r", "f", "a", "g", "h"], ["Conv", "Conv"], ["Conv", "Gemm"], 8),
        (["d", "e"], ["Conv"], ["Conv"], 8),
    ]


@pytest.mark.parametrize(
    "between",
    ["Clip(c, zero, six)", "Sigmoid(c)", "Softmax<axis=1>(c)", "Add(c, bias)", "Transpose<perm=[0,1,3,2]>(c)"],
)
def test_what_ends_a_stream(between: str) -> None:
    graph = model(
        f"c = Conv(x, w)\nr = {between}\ny = Conv(r, v)",
        "(float[1,4,6,6] x) => (float[1,4,6,6] y)",
        "float[4,4,1,1] w, float[4,4,1,1] v, float[4,1,1] bias, float zero = {0}, float six = {6}",
    )
    assert streams(graph, Shapes(graph)) == []


def test_axes_of_other_ranks_are_other_axes() -> None:
    """As many rows as channels: what is broadcast along them, and a mean that leaves the columns, are no streams."""
    weights = "float[4,4,1,1] w, float[4,4,1,1] v, float[4,4] m"
    broadcast = model(
        "c = Conv(x, w)\ns = Squeeze(c, axes)\na = Add(c, s)\ny = Conv(a, v)",
        "(float[1,4,4,4] x) => (float[1,4,4,4] y)",
        f"{weights}, int64[1] axes = {{0}}",
    )
    mean = model(
        "c = Conv(x, w)\nr = ReduceMean<axes=[1,2], keepdims=0>(c)\ny = Gemm(r, m)",
        "(float[1,4,4,4] x) => (float[1,4] y)",
        weights,
    )
    for graph in (broadcast, mean):
        assert streams(graph, Shapes(graph)) == []


def test_a_mean_over_the_image_is_inside() -> None:
    graph = model(
        "c = Conv(x, w)\nr = ReduceMean<axes=[2,3], keepdims=1>(c)\nf = Flatten(r)\ny = Gemm(f, m)",
        "(float[1,4,6,6] x) => (float[1,4] y)",
        "float[4,4,1,1] w, float[4,4] m",
    )
    assert [[t.name for t in stream.tensors] for stream in streams(graph, Shapes(graph))] == [["c", "r", "f"]]


def test_indices_are_no_activations() -> None:
    graph = model(
        "c = Conv(x, w)\np, i = MaxPool<kernel_shape=[2,2]>(c)\ny = Conv(p, v)",
        "(float[1,4,6,6] x) => (float[1,4,5,5] y, int64[1,4,5,5] i)",
        "float[4,4,1,1] w, float[4,4,1,1] v",
    )
    assert streams(graph, Shapes(graph)) == []


def test_outputs_are_left_alone() -> None:
    graph = model(
        "y = Conv(x, w)\nz = Conv(y, w)",
        "(float[1,4,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] z)",
        "float[4,4,1,1] w",
    )
    assert streams(graph, Shapes(graph)) == []


@pytest.mark.parametrize("rounding", [ASYMMETRIC, PLAIN])
def test_the_float_network_stays_what_it_was(rounding: Rounding) -> None:
    graph = uneven()
    feeds = seeded_feeds(graph, seed=5, samples=2)
    before = [outputs(graph, item) for item in feeds]
    ctx = context(graph)
    changes = equalized(graph, rounding, ctx)
    assert len(changes) == 4
    take_up(graph, changes, ctx)
    for item, wanted in zip(feeds, before, strict=True):
        assert sqnr_db(wanted, outputs(graph, item)) > 100


def test_channels_are_about_equally_wide() -> None:
    graph = uneven()
    ctx = context(graph)
    take_up(graph, equalized(graph, ASYMMETRIC, ctx), ctx)
    graph.sort()
    first = next(node for node in graph.nodes if node.op == "Conv").inputs[1]
    sizes = np.abs(first.values).max((1, 2, 3))
    assert sizes.max() / sizes.min() < 300 / 8


@pytest.mark.parametrize("options", [{"per_channel": False}, {"effort": "max"}])
def test_it_helps_where_channels_differ(options: dict[str, object]) -> None:
    if options.get("effort") == "max":
        pytest.importorskip("torch")
    graph, plain = uneven(), uneven()
    feeds = seeded_feeds(graph, seed=6, samples=3)
    wanted = [outputs(graph, item) for item in feeds]
    data = {"calibration": Samples(seeded_feeds(graph, samples=12))}
    ctx = run_pass(Quantize(**options), graph, target=CPU, data=data)
    run_pass(
        Quantize(effort="fast", calibrator="mse", per_channel=bool(options.get("per_channel", True))),
        plain,
        target=CPU,
        data=data,
    )
    assert ("the network", "channels made about equally wide, before anything was rounded") in did(ctx)
    apart = [
        np.mean([sqnr_db(w, outputs(g, item)) for w, item in zip(wanted, feeds, strict=True)]) for g in (graph, plain)
    ]
    assert apart[0] > apart[1] + 3


def test_it_is_undone_where_it_does_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = uneven()
    before = {c.name: c.values for c in graph.constants()}
    found = iter([40.0, 39.0])

    class Judging(equalization.SqnrEvaluator):
        def sqnr_db(self, graph: Graph) -> float:
            return next(found)

    monkeypatch.setattr(equalization, "SqnrEvaluator", Judging)
    ctx = context(graph)
    assert CPU.scheme is not None
    attempt = Quantization(graph, Quantize(effort="fast")._settings(), CPU.scheme, CPU, ctx).attempt()
    equalization.equalize(graph, ASYMMETRIC, attempt, ctx)
    what = "channels stay as they are: equally wide, they gave 39.0 dB instead of 40.0 dB"
    assert missed(ctx) == [("the network", what)]
    after = {c.name: c.values for c in graph.constants()}
    assert after.keys() == before.keys()
    assert all(np.array_equal(values, before[name]) for name, values in after.items())


def test_what_a_channel_always_holds_is_taken_away() -> None:
    """High biases: channels behind a Relu that never come near 0, in front of a layer that does not pad."""
    graph = model(
        "c = Conv(x, w, b)\nr = Relu(c)\ny = Conv(r, v, k)",
        "(float[1,4,6,6] x) => (float[1,4,6,6] y)",
        "float[4,4,1,1] w, float[4] b = {50, 0, 80, 0}, float[4,4,1,1] v, float[4] k",
    )
    feeds = seeded_feeds(graph, samples=4)
    wanted = [outputs(graph, item) for item in feeds]
    ctx = context(graph)
    changes = equalized(graph, ASYMMETRIC, ctx)
    (first, second) = (changes[node] for node in graph.nodes if node.op == "Conv")
    assert first.after is not None and second.before is not None
    assert list(first.after.offset < -30) == [True, False, True, False]
    take_up(graph, changes, ctx)
    for item, value in zip(feeds, wanted, strict=True):
        assert sqnr_db(value, outputs(graph, item)) > 90
    padded = model(
        "c = Conv(x, w, b)\nr = Relu(c)\ny = Conv<pads=[1,1,1,1]>(r, v, k)",
        "(float[1,4,6,6] x) => (float[1,4,6,6] y)",
        "float[4,4,1,1] w, float[4] b = {50, 0, 80, 0}, float[4,4,3,3] v, float[4] k",
    )
    assert all(
        not (c.after is not None and c.after.shifts) for c in equalized(padded, ASYMMETRIC, context(padded)).values()
    )


@pytest.mark.parametrize(
    ("op", "weights", "attributes", "sides"),
    [
        ("Conv", (6, 4, 3, 3), {}, ((6, 4, 9), (4, 6, 9))),
        ("Conv", (8, 1, 3, 3), {"group": 4}, ((2, 4, 9), (1, 8, 9))),
        ("ConvTranspose", (4, 6, 2, 2), {}, ((6, 4, 4), (4, 6, 4))),
        ("ConvTranspose", (4, 3, 2, 2), {"group": 2}, ((3, 4, 4), (2, 6, 4))),
        ("Gemm", (4, 5), {}, ((5, 4, 1), (4, 5, 1))),
        ("Gemm", (5, 4), {"transB": 1}, ((5, 4, 1), (4, 5, 1))),
    ],
)
def test_kernels_by_the_channels_of_a_stream(
    op: str, weights: tuple[int, ...], attributes: dict[str, int], sides: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    """The power of a channel is that of the weights that are left where only it is kept."""
    shape = "1,4,6,6" if len(weights) > 2 else "1,4"
    text = "<" + ",".join(f"{k}={v}" for k, v in attributes.items()) + ">" if attributes else ""
    kernel = ",".join(str(side) for side in weights)
    graph = model(f"y = {op}{text}(x, w)", f"(float[{shape}] x) => (float[1,n] y)", f"float[{kernel}] w")
    node = graph.nodes[0]
    weight = graph.constants()[0]
    for tensor, wanted in zip((node.inputs[0], node.outputs[0]), sides, strict=True):
        end = End.of(node, tensor)
        assert end.kernel.shape == wanted
        alone = weight.values.copy()
        scaled = scale_inputs if tensor is node.inputs[0] else scale_outputs
        only_last = np.zeros(wanted[1])
        only_last[-1] = 1
        kept = scaled(node, alone, only_last)
        assert end.power[-1] == pytest.approx(float(np.square(kept).sum()), rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(networks())
def test_random_networks_stay_what_they_were(network: Graph) -> None:
    run_pass(Fold(), network)
    before = network.copy()
    ctx = context(network, 2)
    take_up(network, equalized(network, PLAIN, ctx), ctx)
    assert_same(before, network, tolerance=1e-4)
