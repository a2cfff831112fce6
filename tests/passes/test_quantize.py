"""quantize: where Q and DQ go, what is reported, and what bad input gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.errors import InputError, UsageError
from edgec.ir.execution import seeded_feeds, sqnr_db
from edgec.ir.files import to_bytes
from edgec.ir.graph import Constant, Graph, producer
from edgec.passes.framework import input_domain
from edgec.passes.framework.context import Context
from edgec.passes.framework.planner import make
from edgec.passes.framework.target import Target
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, corrupt, did, missed, model, named, operators, outputs, run_pass

Check = Callable[[Graph, str], None]
CPU, CORAL = target("cpu"), target("coral-dev-board")
CONV = "[conv] c = Conv<pads=[1,1,1,1]>(x, w, b)\n"
IMAGE = "(float[1,3,8,8] x) => (float[1,4,h,w] y)"
WEIGHTS = "float[4,3,3,3] w, float[4] b"


def noise(graph: Graph) -> Samples:
    """Seeded noise between -1 and 1."""
    feeds = seeded_feeds(graph, samples=4)
    return Samples([{k: 2 * v - 1 if v.dtype.kind == "f" else v for k, v in f.items()} for f in feeds])


def quantized(
    graph: Graph, board: Target = CPU, data: Any = None, step: Quantize | None = None, **context: Any
) -> Context:
    data = noise(graph) if data is None else data
    return run_pass(step or Quantize(effort="fast"), graph, target=board, data={"calibration": data}, **context)


def scale_of(graph: Graph, name: str) -> tuple[float, int]:
    """Scale and zero-point of the QuantizeLinear that writes ``name``."""
    node = producer(named(graph, name))
    assert node is not None and node.op == "QuantizeLinear"
    return float(node.inputs[1].values), int(node.inputs[2].values)


def test_a_fused_activation_is_quantized_once(filecheck: Check) -> None:
    graph = model(CONV + "[act] y = Relu(c)", IMAGE, WEIGHTS)
    ctx = quantized(graph)
    filecheck(
        graph,
        """
        CHECK: [x.quantize] uint8[1,3,8,8] x.quantized = QuantizeLinear (x, x.scale, x.zero_point)
        CHECK-NEXT: [x.dequantize] float[1,3,8,8] x.dequantized = DequantizeLinear (x.quantized, x.scale, x.zero_point)
        CHECK: int8[4,3,3,3] w.int8
        CHECK: [w.dequantize] {{.*}} = DequantizeLinear <axis = 0> (w.int8, w.scale, w.zero_point)
        CHECK: int32[4] b.int32
        CHECK: [b.dequantize] {{.*}} = DequantizeLinear <axis = 0> (b.int32, b.scale, b.zero_point)
        CHECK-NEXT: [conv] c = Conv {{.*}}(x.dequantized, w.dequantized, b.dequantized)
        CHECK-NEXT: [act] {{.*}}y.float = Relu (c)
        CHECK: [y.quantize] uint8[1,4,8,8] y.quantized = QuantizeLinear (y.float, y.scale, y.zero_point)
        CHECK-NEXT: [y.dequantize] float[1,4,8,8] y = DequantizeLinear (y.quantized, y.scale, y.zero_point)
        """,
    )
    assert did(ctx)[:-1] == [("conv", "uint8, int8 weights per channel, Relu fused")]
    what = "least exact by themselves: 'conv' 40.7 dB (eight bits; 1 of 4 channels dead)"
    assert did(ctx)[-1] == ("the layers", what)
    assert ctx.done[0].figures == {"weight_scales": 4, "alone_db": 40.69, "accumulated_db": 40.69}
    assert missed(ctx) == []


def test_an_activation_that_others_read_before_is_not_fused() -> None:
    graph = model(CONV + "r = Relu(c)\ny = Add(r, c)", IMAGE, WEIGHTS)
    quantized(graph)
    assert operators(graph).count("QuantizeLinear") == 4


def test_a_relu6_range_never_passes_six() -> None:
    graph = model(
        CONV + "y = Clip(c, low, high)", IMAGE, WEIGHTS + ", float low = {0}, float high = {6}", w=np.ones((4, 3, 3, 3))
    )
    quantized(graph)
    scale, zero_point = scale_of(graph, "y.quantized")
    assert zero_point == 0
    assert np.float32(255) * np.float32(scale) <= 6 < 255.001 * scale


def test_operators_without_integer_kernel_stay_float_and_say_so() -> None:
    graph = model(CONV + "[erf] e = Erf(c)\n[sig] y = Sigmoid(e)", IMAGE, WEIGHTS)
    ctx = quantized(graph)
    erf = next(node for node in graph.nodes if node.op == "Erf")
    assert erf.inputs[0].name == "c.dequantized"
    assert erf.outputs[0].outputs[0].op == "QuantizeLinear"
    assert missed(ctx) == [("erf", "CPU (onnxruntime) has no 8-bit kernel for Erf")]


def test_values_are_not_moved_in_integers_between_float_operators() -> None:
    graph = model(CONV + "e = Erf(c)\n[turn] t = Transpose<perm=[0,1,3,2]>(e)\n[more] y = Erf(t)", IMAGE, WEIGHTS)
    ctx = quantized(graph)
    assert ("turn", "only moves values between float operators") in missed(ctx)
    transpose = next(node for node in graph.nodes if node.op == "Transpose")
    assert producer(transpose.inputs[0]).op == "Erf"


def test_computed_weights_stay_float() -> None:
    graph = model("[conv] y = Conv(x, w)", "(float[1,3,8,8] x, float[4,3,3,3] w) => (float[1,4,h,w_] y)")
    ctx = quantized(graph)
    assert missed(ctx) == [
        ("conv", "its weights are computed by the network"),
        ("the network", "has no operator that CPU (onnxruntime) runs on 8-bit integers"),
    ]
    assert operators(graph) == ["Conv"]


def test_a_bias_that_differs_by_row_stays_float() -> None:
    graph = model("[fc] y = Gemm(x, w, b)", "(float[2,3] x) => (float[2,4] y)", "float[3,4] w, float[2,4] b")
    ctx = quantized(graph)
    assert missed(ctx)[0] == ("fc", "its bias of shape [2, 4] is not one number for each of 4 outputs")


def test_other_floats_stay_as_they_are() -> None:
    graph = model("[add] y = Add(x, x)", "(double[1,4] x) => (double[1,4] y)")
    ctx = quantized(graph)
    assert missed(ctx)[0] == ("add", "computes in float64; only float32 is quantized")


def test_used_indices_of_a_maxpool_keep_it_float() -> None:
    graph = model(
        "[pool] p, i = MaxPool<kernel_shape=[2,2]>(x)\n[cast] f = Cast<to=1>(i)\n[add] y = Add(p, f)",
        "(float[1,3,4,4] x) => (float[1,3,3,3] y)",
    )
    assert missed(quantized(graph)) == [("pool", "has an output that cannot be quantized ('i')")]


def test_a_clip_with_computed_bounds_stays_float() -> None:
    graph = model("[clip] y = Clip(x, low)", "(float[1,4] x, float low) => (float[1,4] y)")
    assert missed(quantized(graph))[0] == ("clip", "its settings are computed by the network")


def test_a_constant_operand_has_one_scale() -> None:
    values = np.array([-3, 0, 1, 2])
    graph = model("[add] y = Add(x, k)", "(float[1,4] x) => (float[1,4] y)", "float[4] k", k=values)
    quantized(graph, CORAL)
    constant = next(c for c in graph.constants() if c.name == "k.int8")
    scale = next(c for c in graph.constants() if c.name == "k.scale").values
    zero_point = next(c for c in graph.constants() if c.name == "k.zero_point").values
    assert scale.shape == ()
    np.testing.assert_allclose(
        (constant.values.astype(int) - int(zero_point)) * scale, values, atol=float(scale) / 2 + 1e-6
    )


def test_gemm_takes_alpha_and_beta_into_its_parameters() -> None:
    graph = model(
        "[fc] y = Gemm<alpha=0.5, beta=2.0, transB=1>(x, w, b)",
        "(float[3,8] x) => (float[3,4] y)",
        "float[4,8] w, float[1,4] b",
    )
    before = graph.copy()
    data = noise(graph)
    quantized(graph, data=data)
    node = next(node for node in graph.nodes if node.op == "Gemm")
    assert node.attrs == {"transB": 1}
    assert sqnr_db(outputs(before, data.feeds[0]), outputs(graph, data.feeds[0])) > 35


def test_a_float_bias_scheme_leaves_the_bias_and_centres_the_integers() -> None:
    assert CPU.scheme is not None
    scheme = replace(CPU.scheme, activations="int8", symmetric=True, bias="float32")
    graph = model(CONV + "y = Relu(c)", IMAGE, WEIGHTS)
    quantized(graph, replace(CPU, scheme=scheme))
    conv = next(node for node in graph.nodes if node.op == "Conv")
    assert isinstance(conv.inputs[2], Constant) and conv.inputs[2].dtype == np.float32
    assert {scale_of(graph, f"{name}.quantized")[1] for name in ("x", "y")} == {0}


def test_one_scale_for_all_weights_on_request() -> None:
    graph = model(CONV + "y = Relu(c)", IMAGE, WEIGHTS)
    ctx = quantized(graph, step=Quantize(effort="fast", per_channel=False))
    assert did(ctx)[0] == ("conv", "uint8, int8 weights with one scale, Relu fused")
    dequantize = next(node for node in graph.nodes if node.name == "w.dequantize")
    assert dequantize.inputs[1].shape == () and "axis" not in dequantize.attrs


def test_shared_weights_are_stored_once() -> None:
    graph = model(
        "c = Conv(x, w)\nd = Conv(x, w)\ny = Add(c, d)", "(float[1,3,8,8] x) => (float[1,4,6,6] y)", "float[4,3,3,3] w"
    )
    quantized(graph)
    assert [c.name for c in graph.constants() if c.dtype == np.int8 and c.values.size > 4] == ["w.int8"]


def test_skip_and_only_choose_by_name() -> None:
    text = CONV + "[act] r = Relu(c)\n[head] y = Conv(r, w2)"
    weights = WEIGHTS + ", float[4,4,1,1] w2"
    graph = model(text, IMAGE, weights)
    assert missed(quantized(graph, step=Quantize(effort="fast", skip=["he*"]))) == [
        ("head", "is kept in float by 'skip'")
    ]
    graph = model(text, IMAGE, weights)
    ctx = quantized(graph, step=Quantize(effort="fast", only=["head"]))
    assert [node for node, _ in did(ctx)] == ["head", "the layers"]
    assert missed(ctx) == [("conv", "is not among 'only'"), ("act", "is not among 'only'")]


def test_whole_pixels_pass_unchanged() -> None:
    for board, least in ((CPU, 0), (CORAL, -128)):
        graph = model("[conv] y = Conv(x, w)", "(float[1,3,8,8] x) => (float[1,4,6,6] y)", "float[4,3,3,3] w")
        input_domain.record(graph, "x", np.array([1 / 255]), np.array([0.0]))
        pixels = np.random.default_rng(0).integers(3, 200, (4, 1, 3, 8, 8)).astype(np.float32)
        quantized(graph, board, Samples([{"x": p / 255} for p in pixels]))
        assert scale_of(graph, "x.quantized") == (1.0, least)
    graph = model("[conv] y = Conv(x, w)", "(float[1,3,8,8] x) => (float[1,4,6,6] y)", "float[4,3,3,3] w")
    quantized(graph, CPU, Samples([{"x": p} for p in pixels]), affine={"x": (np.array([1.0]), np.array([0.0]))})
    assert scale_of(graph, "x.quantized") == (1.0, 0)


def test_what_is_not_whole_pixels_gets_its_own_scale() -> None:
    for affine, shift in (({}, 0.0), ({"x": (np.array([1.0]), np.array([0.0]))}, 0.5)):
        graph = model("[conv] y = Conv(x, w)", "(float[1,3,8,8] x) => (float[1,4,6,6] y)", "float[4,3,3,3] w")
        pixels = np.random.default_rng(0).integers(3, 200, (4, 1, 3, 8, 8)).astype(np.float32) + shift
        pixels[:, 0, 0, 0, :2] = 3 + shift, 199 + shift  # no room: all pictures reach the same
        quantized(graph, CPU, Samples([{"x": p} for p in pixels]), affine=affine)
        assert scale_of(graph, "x.quantized")[0] == pytest.approx((199 + shift) / 255, rel=1e-6)


def test_prescribed_outputs_and_their_ties() -> None:
    graph = model(
        CONV
        + "s = Sigmoid(c)\np = MaxPool<kernel_shape=[2,2]>(s)\nq = MaxPool<kernel_shape=[2,2]>(c)\nt = Tanh(q)\n"
        + "[cat] y = Concat<axis=1>(t, p)",
        "(float[1,3,8,8] x) => (float[1,8,7,7] y)",
        WEIGHTS,
    )
    ctx = quantized(graph, CORAL)
    assert scale_of(graph, "s.quantized") == scale_of(graph, "p.quantized") == (1 / 256, -128)
    assert scale_of(graph, "t.quantized") == (1 / 128, 0)
    # Sigmoid's scale cannot hold negative numbers, so the Concat goes with Tanh's.
    assert scale_of(graph, "y.quantized") == (1 / 128, 0)
    assert missed(ctx) == [
        ("cat", "'p' cannot have the scale of its output: it is requantized on the way in"),
    ]


LONG = "[p] c = MatMul(x, w)\n[m] s = Softmax(c)\n[q] y = MatMul(s, v)"


def test_what_a_prescribed_scale_cannot_hold_stays_float() -> None:
    for board, left in ((CORAL, "m"), (CPU, "q")):
        graph = model(LONG, "(float[2,4] x) => (float[2,3] y)", "float[4,600] w, float[600,3] v", w=np.zeros((4, 600)))
        ctx = quantized(graph, board)
        reason = "'s' reaches 0.0017 only, and steps of 0.0039 are prescribed for it"
        assert (left, reason) in missed(ctx)
        softmax = next(n for n in graph.nodes if n.op == "Softmax")
        scales = [float(n.inputs[1].values) for n in softmax.outputs[0].outputs if n.op == "QuantizeLinear"]
        assert scales == ([pytest.approx(1 / 600 / 255, rel=1e-3)] if board is CORAL else [])


def test_a_softmax_in_float_between_integers_has_the_scale_that_onnxruntime_needs() -> None:
    graph = model(LONG, "(float[2,4] x) => (float[2,3] y)", "float[4,6] w, float[6,3] v")
    quantized(graph, CPU)
    assert scale_of(graph, "s.quantized") == (1 / 256, 0)


def test_a_concat_shares_the_scale_of_the_widest() -> None:
    graph = model(
        CONV + "d = Sub(c, k)\ny = Concat<axis=1>(c, d)",
        "(float[1,3,8,8] x) => (float[1,8,8,8] y)",
        WEIGHTS + ", float k = {0.5}",
    )
    quantized(graph, CORAL)
    assert scale_of(graph, "c.quantized") == scale_of(graph, "d.quantized") == scale_of(graph, "y.quantized")


def test_a_part_of_a_concat_keeps_a_scale_that_is_much_finer() -> None:
    graph = model(
        CONV + "d = Mul(c, k)\n[cat] y = Concat<axis=1>(c, d)",
        "(float[1,3,8,8] x) => (float[1,8,8,8] y)",
        WEIGHTS + ", float k = {4}",
    )
    ctx = quantized(graph, CORAL)
    # What is multiplied by 4 keeps its integers: the scale is 4 times as large.
    scale, zero_point = scale_of(graph, "c.quantized")
    assert scale_of(graph, "d.quantized") == scale_of(graph, "y.quantized") == (4 * scale, zero_point)
    assert ("cat", "'c' keeps its finer scale: it is requantized on the way in") in did(ctx)


def test_subgraphs_read_what_was_dequantized() -> None:
    graph = model(
        CONV
        + "y = If<then_branch = one () => (float[1,4,8,8] t) { t = Erf(c) },"
        + " else_branch = other () => (float[1,4,8,8] e) { e = Exp(c) }>(f)",
        "(float[1,3,8,8] x, bool[1] f) => (float[1,4,8,8] y)",
        WEIGHTS,
    )
    before = graph.copy()
    data = noise(graph)
    quantized(graph, data=data)
    inner = {n.inputs[0].name for n in graph.nodes for sub in n.subgraphs() for n in sub.nodes}
    assert inner == {"c.dequantized"}
    assert sqnr_db(outputs(before, data.feeds[0]), outputs(graph, data.feeds[0])) > 30


def test_a_target_without_integers_leaves_the_graph() -> None:
    graph = model(CONV + "y = Relu(c)", IMAGE, WEIGHTS)
    ctx = quantized(graph, replace(CPU, title="Jetson Nano", scheme=None))
    assert operators(graph) == ["Conv", "Relu"]
    assert missed(ctx) == [("the network", "Jetson Nano has no 8-bit arithmetic: it stays in float")]


def test_a_corrupted_scale_is_seen() -> None:
    graph = model(CONV + "y = Relu(c)", IMAGE, WEIGHTS)
    before, data = graph.copy(), noise(graph)
    quantized(graph, data=data)
    feeds = data.feeds[0]
    assert sqnr_db(outputs(before, feeds), outputs(graph, feeds)) > 30
    assert corrupt(graph).name.endswith(".scale")
    assert sqnr_db(outputs(before, feeds), outputs(graph, feeds)) < 15


def test_the_same_bytes_on_any_number_of_threads() -> None:

    made = set()
    for threads in (1, 2, 5):
        graph = model(CONV + "y = Relu(c)", IMAGE, WEIGHTS)
        quantized(graph, step=Quantize(calibrator="percentile", percentile=99.0), threads=threads)
        made.add(to_bytes(graph))
    assert len(made) == 1


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            Quantize(skip=["hed"]),
            "quantize: skip: no node is named 'hed'; 'edgec inspect' lists the nodes' names",
        ),
        (
            Quantize(only=["a", "b*"]),
            "quantize: only: no node is named 'a'; 'edgec inspect' lists the nodes' names",
        ),
    ],
)
def test_a_pattern_that_matches_nothing(step: Quantize, said: str) -> None:
    graph = model(CONV + "y = Relu(c)", IMAGE, WEIGHTS)
    with pytest.raises(UsageError) as caught:
        quantized(graph, step=step)
    assert str(caught.value) == said


def test_without_a_target() -> None:
    graph = model(CONV + "y = Relu(c)", IMAGE, WEIGHTS)
    with pytest.raises(UsageError) as caught:
        run_pass(Quantize(), graph, data={"calibration": noise(graph)})
    assert str(caught.value) == "quantize: needs a target; name one: its scheme says how to quantize"


def test_a_model_that_is_quantized_already() -> None:
    graph = model(CONV + "[act] y = Relu(c)", IMAGE, WEIGHTS)
    quantized(graph)
    with pytest.raises(InputError) as caught:
        quantized(graph)
    assert str(caught.value) == (
        "node 'x.quantize' (QuantizeLinear): the model is quantized already; put 'dequantize' before it, or take "
        "'quantize' out"
    )


def test_an_old_opset() -> None:
    graph = model(CONV + "y = Relu(c)", IMAGE, WEIGHTS, opset=12)
    with pytest.raises(InputError) as caught:
        quantized(graph)
    assert str(caught.value) == (
        "the model: has opset 12, and scales for each channel need opset 13; "
        "load it through edgec's frontend, which upgrades it"
    )


@pytest.mark.parametrize(
    ("body", "values", "where"),
    [
        (CONV + "y = Clip(c, low, high)", {"w": np.where(np.arange(9) == 4, np.inf, 0.1)}, "weight 'w'"),
        (CONV + "y = Clip(c, low, high)", {"b": np.full(4, np.inf)}, "weight 'b'"),
        (CONV + "a = Add(c, k)\ny = Clip(a, low, high)", {"k": np.array([np.inf])}, "constant 'k'"),
    ],
)
def test_parameters_that_are_not_finite(body: str, values: dict[str, np.ndarray], where: str) -> None:
    if "w" in values:
        values = {"w": np.broadcast_to(values["w"].reshape(3, 3), (4, 3, 3, 3))}
    weights = WEIGHTS + ", float[1] k, float low = {0}, float high = {6}"
    graph = model(body, IMAGE, weights, **values)
    with pytest.raises(InputError) as caught:
        quantized(graph, data=Samples([{"x": np.ones((1, 3, 8, 8), np.float32)}]))
    assert str(caught.value) == f"{where}: has values that are not finite; train or export the network again"


def test_options_are_checked() -> None:
    made = make("quantize", {"calibrator": "percentile", "percentile": 99.9, "skip": ["a"]}, "r")
    assert made == Quantize(calibrator="percentile", percentile=99.9, skip=["a"])
    with pytest.raises(UsageError) as caught:
        make("quantize", {"percentile": 40}, "recipe: passes[0] 'quantize'")
    assert str(caught.value) == (
        "recipe: passes[0] 'quantize': percentile: input should be greater than 50; 'edgec passes quantize' explains"
    )
