"""factorize with calibration data: chains for what layers compute, not for their weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgec.ir.cost import Cost
from edgec.ir.errors import InputError, UsageError
from edgec.ir.execution import sqnr_db
from edgec.ir.files import to_bytes
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.passes.factorize import samples
from edgec.passes.factorize.factorize import Factorize
from edgec.passes.factorize.layers import Layer, find_layers
from edgec.passes.factorize.metric import Metric, measure
from edgec.passes.factorize.observed import Observed
from edgec.passes.factorize.stages import Chain, Stage
from edgec.passes.factorize.whitening import whitened
from edgec.testing import Samples, model, networks, outputs, run_pass

LIMITS = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def images(count: int, *shape: int, rank: int = 3, seed: int = 3) -> list[dict[str, np.ndarray]]:
    """Feeds for ``x`` whose channels are sums of a few pictures of noise, with a mean that is not zero."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).standard_normal((shape[0], rank))
    made = []
    for _ in range(count):
        parts = random.standard_normal((rank, *shape[1:]))
        made.append({"x": (np.tensordot(mixing, parts, (1, 0)) + 1.5)[None].astype(np.float32)})
    return made


def with_data(step: Factorize, graph: Graph, feeds: list[dict[str, np.ndarray]], **context: object) -> object:
    return run_pass(step, graph, data={"calibration": Samples(feeds)}, **context)


def sqnr(before: Graph, after: Graph, feeds: list[dict[str, np.ndarray]]) -> float:
    return float(np.mean([sqnr_db(outputs(before, f), outputs(after, f)) for f in feeds]))


ONE_LAYER = {
    "conv": ("y = Conv <pads = [1,1,1,1]> (x, w, b)", "float[16,12,3,3] w, float[16] b", (12, 8, 8), "[1,16,8,8]"),
    "no bias": ("y = Conv <strides = [2,2]> (x, w)", "float[16,12,3,3] w", (12, 9, 9), "[1,16,4,4]"),
    "grouped": ("y = Conv <group = 2> (x, w, b)", "float[16,6,3,3] w, float[16] b", (12, 8, 8), "[1,16,6,6]"),
    "pointwise": ("y = Conv (x, w, b)", "float[16,12,1,1] w, float[16] b", (12, 8, 8), "[1,16,8,8]"),
    "transposed": ("y = ConvTranspose <strides = [2,2]> (x, w, b)", "float[12,8,4,4] w, float[8] b", (12, 6, 6),
                   "[1,8,14,14]"),
    "one axis": ("y = Conv (x, w, b)", "float[16,12,5] w, float[16] b", (12, 40), "[1,16,36]"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ONE_LAYER)
@pytest.mark.parametrize("method", ["auto", "tucker", "svd", "spatial", "cp"])
def test_what_the_input_never_shows_costs_nothing(kind: str, method: str) -> None:
    """The channels of the input span three directions: three input ranks lose nothing, blind to the data much."""
    body, weights, shape, out = ONE_LAYER[kind]
    dims = ",".join(map(str, shape))
    graph = model(body, f"(float[1,{dims}] x) => (float{out} y)", weights)
    aware, blind = graph.copy(), graph.copy()
    step = Factorize(params=0.6, method=method, min_rank=1)  # type: ignore[arg-type]
    feeds, others = images(24, *shape), images(4, *shape, seed=11)
    if method == "spatial" and kind == "one axis":
        with pytest.raises(UsageError):
            with_data(step, aware, feeds)
        return
    ctx = with_data(step, aware, feeds)
    run_pass(step, blind)
    assert sqnr(graph, aware, others) > sqnr(graph, blind, others) + 0.9
    assert Cost(aware).params - 16 <= 0.6 * Cost(graph).params
    assert ", fitted to the data" in ctx.done[0].what
    assert ctx.done[0].figures["output_error"] < 0.9


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, w, b)", "float[16,12] w, float[16] b"),
        ("y = Gemm <alpha = 2.0> (x, w)", "float[12,16] w"),
        ("y = Gemm (x, w, b)", "float[12,16] w, float[1,16] b"),
        ("y = MatMul (x, w)", "float[12,16] w"),
    ],
    ids=["factors", "no bias", "row", "matmul"],
)
def test_matrices_keep_what_is_seen(body: str, weights: str) -> None:
    graph = model(body, "(float[1,12] x) => (float[1,16] y)", weights)
    aware, blind = graph.copy(), graph.copy()
    step = Factorize(params=0.75, min_rank=1)
    random = np.random.default_rng(0)
    mixing = random.standard_normal((3, 12))
    feeds = [{"x": (random.standard_normal((1, 3)) @ mixing + 2).astype(np.float32)} for _ in range(40)]
    with_data(step, aware, feeds[:30])
    run_pass(step, blind)
    assert sqnr(graph, aware, feeds[30:]) > sqnr(graph, blind, feeds[30:]) + 10


DEEP = """
a = Conv <pads = [1,1,1,1]> (x, w1, b1)
ra = Relu (a)
c = Conv <pads = [1,1,1,1]> (ra, w2, b2)
rc = Clip (c, low, high)
s = Add (rc, ra)
y = Conv <pads = [1,1,1,1]> (s, w3)
"""
DEEP_WEIGHTS = (
    "float[24,12,3,3] w1, float[24] b1, float[24,24,3,3] w2, float[24] b2, float[8,24,3,3] w3, "
    "float low = {0.0}, float high = {6.0}"
)


def deep() -> Graph:
    return model(DEEP, "(float[1,12,10,10] x) => (float[1,8,10,10] y)", DEEP_WEIGHTS)


@pytest.mark.parametrize("part", [0.5, 0.25, 0.1])
def test_a_network_keeps_more_of_its_signal(part: float) -> None:
    graph = deep()
    aware, blind = graph.copy(), graph.copy()
    with_data(Factorize(params=part), aware, images(16, 12, 10, 10, rank=6))
    run_pass(Factorize(params=part), blind)
    others = images(4, 12, 10, 10, rank=6, seed=5)
    assert sqnr(graph, aware, others) > sqnr(graph, blind, others) + 0.9
    assert 0.95 * part * Cost(graph).params <= Cost(aware).params - 8 <= part * Cost(graph).params


def test_data_can_be_left_out() -> None:
    one, other = deep(), deep()
    with_data(Factorize(params=0.5, data_aware=False), one, images(4, 12, 10, 10))
    run_pass(Factorize(params=0.5), other)
    assert to_bytes(one) == to_bytes(other)


@pytest.mark.parametrize("step", [Factorize(params=0.3), Factorize(energy=0.9), Factorize(macs=0.5, method="cp")])
def test_the_same_on_any_number_of_threads(step: Factorize) -> None:
    made = []
    for threads in (1, 2, 3):
        graph = deep()
        with_data(step, graph, images(9, 12, 10, 10), threads=threads)
        made.append(to_bytes(graph))
    assert made[0] == made[1] == made[2]


@LIMITS
@given(networks(channels=16), st.floats(0.3, 0.9))
def test_random_networks_meet_their_budget(network: Graph, part: float) -> None:
    before = network.copy()
    random = np.random.default_rng(0)
    shape = [int(d) for d in network.inputs[0].shape or ()]
    feeds = [{network.inputs[0].name: random.random(shape, np.float32)} for _ in range(4)]
    try:
        ctx = with_data(Factorize(params=part, min_rank=1), network, feeds)
    except UsageError as error:
        assert "the least that can be reached is" in str(error)
        return
    biases = sum(int(c.shape[0]) for c in network.constants() if c.name.endswith(".bias") and len(c.shape) == 1)
    assert Cost(network).params - biases <= part * Cost(before).params
    assert [t.name for t in network.outputs] == [t.name for t in before.outputs]
    made, was = outputs(network, feeds[0]), outputs(before, feeds[0])
    assert all(np.isfinite(made[name]).all() and made[name].shape == was[name].shape for name in was)
    assert not {r.node for r in ctx.done} & {r.node for r in ctx.left}


@LIMITS
@given(networks(channels=16))
def test_all_the_energy_is_all_of_the_signal(network: Graph) -> None:
    before = network.copy()
    random = np.random.default_rng(0)
    feeds = [{"x": random.random([int(d) for d in network.inputs[0].shape or ()], np.float32)} for _ in range(3)]
    with_data(Factorize(energy=1.0), network, feeds)
    assert sqnr(before, network, feeds) > 60


def test_too_few_samples_are_said() -> None:
    graph = model("y = Gemm (x, w, b)", "(float[1,64] x) => (float[1,48] y)", "float[64,48] w, float[48] b")
    feeds = [{"x": np.random.default_rng(i).random((1, 64), np.float32)} for i in range(5)]
    ctx = with_data(Factorize(params=0.5), graph, feeds)
    assert "(5 samples for 64 inputs: held to the weights where they do not tell)" in ctx.done[0].what


def test_constant_activations_are_said() -> None:
    graph = model("y = Gemm (x, w, b)", "(float[1,32] x) => (float[1,32] y)", "float[32,32] w, float[32] b")
    feeds = [{"x": np.ones((1, 32), np.float32)}] * 4
    ctx = with_data(Factorize(params=0.5), graph, feeds, validated_outside=True)
    assert ctx.done[0].what.endswith("for its weights alone: what it reads is the same on all of the calibration data")


def test_channels_that_never_vary_keep_what_their_weights_say() -> None:
    """Nothing is known of a dead channel but its kernel; no direction of it may be taken for cheap."""
    random = np.random.default_rng(2)
    kernel = random.standard_normal((8, 1, 3, 1)) * random.standard_normal((8, 1, 1, 3))
    kernel[1:] += 0.1 * random.standard_normal((7, 1, 3, 3))
    graph = model("y = Conv <group = 8> (x, w, b)", "(float[1,8,9,9] x) => (float[1,8,7,7] y)",
                  "float[8,1,3,3] w, float[8] b", w=kernel.astype(np.float32))  # fmt: skip
    before, feeds = graph.copy(), images(12, 8, 9, 9)
    for feed in feeds:
        feed["x"][:, 0] = 0
    ctx = with_data(Factorize(rank=0.3, min_rank=1), graph, feeds)
    assert "spatial SVD, rank 1, fitted to the data" in ctx.done[0].what
    alive = images(1, 8, 9, 9, seed=9)[0]
    np.testing.assert_allclose(outputs(graph, alive)["y"][:, 0], outputs(before, alive)["y"][:, 0], atol=1e-4)
    assert sqnr(before, graph, [alive]) > 10


def gemm(channels: np.ndarray) -> tuple[Layer, Metric]:
    """A layer of as many inputs, and what is known of it where they have this covariance."""
    size = len(channels)
    text = f"(float[1,{size}] x) => (float[1,24] y)"
    graph = model("y = Gemm (x, w, b)", text, f"float[{size},24] w, float[24] b")
    [layer] = find_layers(graph, Shapes(graph), lambda node: None, lambda node, reason: None)
    kernel = layer.kernel()[0]
    second = (channels + 1e-3 * np.eye(size)).astype(np.float32)
    metric = Metric(
        second[None], (kernel @ second)[None], np.ones(1), channels.astype(np.float32)[None],
        np.ones((1, 1, 1), np.float32), np.zeros(1), np.array([not channels.any()])
    )  # fmt: skip
    return layer, metric


def test_an_input_that_never_varies_in_the_compressed_network_is_said() -> None:
    layer, metric = gemm(np.zeros((32, 32)))
    rows, outputs = np.zeros((1, 4, 32), np.float32), np.zeros((1, 4, 24), np.float32)
    means = np.zeros((1, 1, 32)), np.zeros((1, 1, 24))
    observed = Observed(layer, samples.Samples(rows, outputs, *means, [slice(0, 4)], [slice(0, 4)], True), metric)
    assert observed.unfit == "what it reads is the same on all of the calibration data"


@pytest.mark.parametrize("observations", [4, 200])
def test_a_matrix_is_whitened_by_a_root_of_the_covariance(observations: int) -> None:
    rows = np.random.default_rng(1).standard_normal((observations, 32))
    layer, metric = gemm(rows.T @ rows / observations)
    whitening, kernel = whitened(layer, metric), layer.kernel()[0]
    white = whitening.kernel[0]
    wanted = kernel @ metric.channels[0] @ kernel.T
    np.testing.assert_allclose(white @ white.T, wanted, atol=2e-3 * np.abs(wanted).max())
    back = whitening.undone(Chain((Stage("first", white[None, :, :]),), 0.0))
    np.testing.assert_allclose(back.stages[0].kernel[0], kernel, atol=1e-4)


SHARED = "a = Conv (x, w, b)\nr = Conv (x, w, b)\nt = Tanh (r)\ny = Sub (a, t)"


@pytest.mark.parametrize("unit", ["params", "weight_bytes"])
@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("y = Conv (x, w)", "float[16,12,3,3] w"),
        (SHARED, "float[16,12,3,3] w, float[16] b"),
        ("r = Relu (x)\na = Conv (r, w, b)\nt = Relu (a)\ny = PRelu (t, s)",
         "float[16,12,3,3] w, float[16] b, float[16,1,1] s"),
    ],
)  # fmt: skip
def test_biases_that_are_new_are_in_the_budget(body: str, weights: str, unit: str) -> None:
    part = 0.5
    for _ in range(3):
        graph = model(body, "(float[1,12,6,6] x) => (float[1,16,4,4] y)", weights)
        total = getattr(Cost(graph), unit)
        step = Factorize(params=part, min_rank=1) if unit == "params" else Factorize(weight_bytes=part, min_rank=1)
        with_data(step, graph, images(8, 12, 6, 6))
        reached = getattr(Cost(graph), unit)
        assert part - 0.1 <= reached / total <= part
        part = (reached - 1) / total  # what was just reached is too much now, be it by a bias


def test_wide_layers_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgec.passes.factorize.refitting.WIDEST", 100)
    graph = deep()
    ctx = with_data(Factorize(params=0.5), graph, images(4, 12, 10, 10), validated_outside=True)
    assert any(r.what.endswith("for its weights alone: 216 inputs are too many for a covariance") for r in ctx.done)


def test_values_beyond_their_squares_are_said() -> None:
    graph = model("y = Gemm (x, w, b)", "(float[1,32] x) => (float[1,32] y)", "float[32,32] w, float[32] b")
    random = np.random.default_rng(0)
    feeds = [{"x": (random.standard_normal((1, 32)) * 1e25).astype(np.float32)} for _ in range(6)]
    ctx = with_data(Factorize(params=0.5), graph, feeds, validated_outside=True)
    assert ctx.done[0].what.endswith("for its weights alone: what it reads is too large for its squares")


def test_values_that_are_not_finite() -> None:
    graph = model("l = Log (x)\ny = Conv (l, w)", "(float[1,4,6,6] x) => (float[1,16,4,4] y)", "float[16,4,3,3] w")
    with pytest.raises(InputError) as error:
        with_data(Factorize(params=0.5), graph, [{"x": np.full((1, 4, 6, 6), -1, np.float32)}] * 2)
    assert str(error.value) == (
        "tensor 'l': is NaN on batch 0 of the calibration data; "
        "correct the data or its preprocessing, or the weights in front of it"
    )


def test_a_batch_of_unusual_values_is_left_out_and_said() -> None:
    """One image at a million times the others' values would be all that squares see."""
    graph, others = deep(), images(4, 12, 10, 10, seed=5)
    feeds = images(16, 12, 10, 10)
    spoiled = [*feeds[:5], {"x": feeds[5]["x"] * np.float32(1e6)}, *feeds[6:]]
    clean, other = graph.copy(), graph.copy()
    with_data(Factorize(params=0.3), clean, [*feeds[:5], *feeds[6:]])
    ctx = with_data(Factorize(params=0.3), other, spoiled)
    assert to_bytes(other) == to_bytes(clean)
    assert sqnr(graph, other, others) > 5
    [remark] = [remark for remark in ctx.left if remark.node == "calibration batch 5"]
    assert remark.what == "left out: its values are 1e+06 times what is usual"


@pytest.mark.parametrize("groups", [1, 5])
def test_groups_are_fitted_as_layers_of_their_own_are(groups: int) -> None:
    """The quadratic forms and the regression of a stack are those of each."""
    random = np.random.default_rng(4)
    labels = np.repeat(np.arange(10), 20)
    rows = random.standard_normal((groups, 200, 18)).astype(np.float32)
    wanted = random.standard_normal((groups, 200, 7)).astype(np.float32)
    kernel = random.standard_normal((groups, 7, 6, 3)).astype(np.float32)
    means = np.zeros((1, groups, 18)), np.zeros((1, groups, 7))

    def measured(part: slice) -> Metric:
        ends = means[0][:, part], means[1][:, part]
        return measure(samples.Samples(rows[part], wanted[part], *ends, [slice(0, 200)], labels, True), kernel[part])

    whole = measured(slice(None))
    last, core, _ = whole.regression.reduced(3)
    for group in range(groups):
        alone = measured(slice(group, group + 1))
        for name in ("second", "cross", "energy", "channels", "taps", "shrinkage"):
            np.testing.assert_allclose(getattr(whole, name)[group], getattr(alone, name)[0], rtol=2e-4, atol=1e-5)
        own_last, own_core, _ = alone.regression.reduced(3)
        np.testing.assert_allclose((last @ core)[group], (own_last @ own_core)[0], atol=2e-3)
        full = alone.regression.weights()[0]
        np.testing.assert_allclose(full @ alone.second[0], alone.cross[0], atol=2e-3)


class Untouched(Samples):
    """A data set that must not be read."""

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
        raise AssertionError("the network was run")


@pytest.mark.parametrize("unit", ["params", "macs", "weight_bytes"])
def test_a_budget_out_of_reach_is_refused_before_the_network_runs(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a session was made")

    asked = 0.01
    for _ in range(2):
        with monkeypatch.context() as patched, pytest.raises(UsageError) as error:
            patched.setattr("edgec.passes.factorize.overriding.Session", refused)
            data = {"calibration": Untouched(images(1, 12, 10, 10))}
            run_pass(replace(Factorize(), **{unit: asked}), deep(), data=data)
        words = {"params": "parameters", "macs": "multiply-accumulates", "weight_bytes": "bytes of weights"}[unit]
        least = {"params": 0.0415, "macs": 0.0358, "weight_bytes": 0.0417}[unit]
        assert str(error.value) == (
            f"factorize: {unit}: the network cannot be brought to {asked:.4g} of its {words}; "
            f"the least that can be reached is {least}; raise the budget, lower min_rank or multiple, or prune first"
        )
        asked = round(least - 1e-4, 4)
    graph = deep()
    total = getattr(Cost(graph), unit)
    with_data(replace(Factorize(), **{unit: least}), graph, images(4, 12, 10, 10))
    assert getattr(Cost(graph), unit) <= least * total


def test_small_layers_are_not_left_where_the_budget_takes_them() -> None:
    """What is named as the least that can be reached is reached, although the smallest layers are mostly left."""
    body = "[wide] a = Conv <pads = [1,1,1,1]> (x, w)\n[narrow] b = Conv (a, v)\n[last] y = Conv (b, u)"
    graph = model(body, "(float[1,64,6,6] x) => (float[1,64,6,6] y)",
                  "float[64,64,3,3] w, float[5,64,1,1] v, float[64,5,1,1] u")  # fmt: skip
    feeds = images(6, 64, 6, 6)
    loose = with_data(Factorize(params=0.5, min_rank=1), graph.copy(), feeds)
    assert [r.node for r in loose.left if r.what == "with the smallest it holds less than 2% of the budget"] == [
        "narrow"
    ]
    with pytest.raises(UsageError) as error:
        with_data(Factorize(params=0.001, min_rank=1), graph.copy(), feeds)
    least = float(re.findall(r"can be reached is ([\d.]+)", str(error.value))[0])
    total = Cost(graph).params
    with_data(Factorize(params=least, min_rank=1), graph, feeds)
    assert Cost(graph).params <= least * total


@LIMITS
@given(networks(channels=16), st.sampled_from(["params", "macs", "weight_bytes"]), st.booleans())
def test_the_share_that_is_named_can_be_asked_for(network: Graph, unit: str, aware: bool) -> None:
    total = getattr(Cost(network), unit)
    shape = tuple(int(d) for d in network.inputs[0].shape or ())
    feeds = [{network.inputs[0].name: np.random.default_rng(0).random(shape, np.float32)}]
    data = {"calibration": Samples(feeds)} if aware else {}
    with pytest.raises(UsageError) as error:
        run_pass(replace(Factorize(), **{unit: 1e-9}), network.copy(), data=data)
    least = float(re.findall(r"can be reached is ([\d.]+)", str(error.value))[0])
    run_pass(replace(Factorize(), **{unit: least}), network, data=data)
    assert getattr(Cost(network), unit) <= least * total


def test_no_samples() -> None:
    with pytest.raises(InputError) as error:
        with_data(Factorize(params=0.5), deep(), [])
    assert str(error.value) == "calibration data: has no samples to calibrate with; name a data set that has some"
