"""normalize: preprocessing becomes part of the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from edgec.ir.errors import UsageError
from edgec.ir.execution import seeded_feeds
from edgec.ir.graph import Graph
from edgec.passes.framework.input_domain import folded
from edgec.passes.framework.planner import make
from edgec.passes.normalize import Normalize
from edgec.testing import assert_same, corrupt, did, missed, model, named, networks, operators, outputs, run_pass

Check = Callable[[Graph, str], None]
RGB = (np.array([0.017, 0.018, 0.019]), np.array([-2.1, -2.0, -1.8]))
GRAY = (np.array([1 / 128] * 3), np.array([-127 / 128] * 3))
CONV = "(float[1,3,8,8] x) => (float[1,4,h,w] y)"


def normalized(graph: Graph, affine: Any = None, step: Normalize | None = None) -> tuple[list[Any], list[Any]]:
    before = graph.copy()
    ctx = run_pass(step or Normalize(), graph, affine={} if affine is None else {"x": affine})
    assert_same(before, graph)
    return did(ctx), missed(ctx)


def test_scale_alone_folds_under_any_padding(filecheck: Check) -> None:
    graph = model("[conv] y = Conv<pads=[1,1,1,1]>(x, w)", CONV, "float[4,3,3,3] w")
    done, left = normalized(graph, (np.array([1 / 255]), np.array([0.0])))
    assert done == [("conv", "takes raw 'x': scale 0.00392157 folded in")]
    assert left == []
    filecheck(
        graph, "CHECK: float[4,3,3,3] w\nCHECK-NEXT: [conv] {{.*}}Conv <pads = [1, 1, 1, 1]> (x, w)\nCHECK-NEXT: }"
    )
    known = folded(graph, "x")
    assert known is not None
    np.testing.assert_allclose(known[0], 1 / 255)


def test_the_network_takes_pixels_afterwards() -> None:
    graph = model("[conv] y = Conv(x, w, b)", CONV, "float[4,3,3,3] w, float[4] b")
    before = graph.copy()
    run_pass(Normalize(), graph, affine={"x": RGB})
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8)).astype(np.float32)
    x = (pixels * RGB[0].reshape(1, 3, 1, 1) + RGB[1].reshape(1, 3, 1, 1)).astype(np.float32)
    from edgec.ir.execution import Session

    raw = Session(graph).run({"x": pixels})["y"]
    np.testing.assert_allclose(raw, Session(before).run({"x": x})["y"], atol=1e-5)


def test_the_comparison_sees_a_corrupted_weight() -> None:
    graph = model("[conv] y = Conv(x, w, b)", CONV, "float[4,3,3,3] w, float[4] b")
    before = graph.copy()
    run_pass(Normalize(), graph, affine={"x": RGB})
    assert_same(before, graph)
    corrupt(graph)
    with pytest.raises(AssertionError):
        assert_same(before, graph)


def test_scale_and_offset_fold_without_padding(filecheck: Check) -> None:
    graph = model("[conv] y = Conv<group=3>(x, w)", "(float[1,3,8,8] x) => (float[1,6,h,w] y)", "float[6,1,3,3] w")
    done, _ = normalized(graph, RGB)
    assert done == [("conv", "takes raw 'x': scale 0.017, 0.018, 0.019 and offset -2.1, -2, -1.8 folded in")]
    filecheck(graph, "CHECK: [conv] {{.*}}Conv <group = 3> (x, w, conv.bias)\nCHECK-NEXT: }")


def test_one_zero_for_all_channels_becomes_the_padding(filecheck: Check) -> None:
    graph = model("[conv] y = Conv<pads=[1,2,3,4], strides=[2,2]>(x, w, b)", CONV, "float[4,3,3,3] w, float[4] b")
    done, _ = normalized(graph, GRAY)
    assert done[0][1].startswith("takes raw 'x', padded with 127: scale 0.0078125")
    filecheck(
        graph,
        """
        CHECK: int64[8] [[P:.+]] = {0, 0, 1, 2, 0, 0, 3, 4}
        CHECK: float[] [[V:.+]] = {127}
        CHECK: [conv.pad] float[1,3,12,14] [[X:.+]] = Pad (x, [[P]], [[V]])
        CHECK: [conv] {{.*}}Conv <pads = [0, 0, 0, 0], strides = [2, 2]> ([[X]], w, b)
        """,
    )


def test_zeros_that_differ_by_channel_are_inserted(filecheck: Check) -> None:
    graph = model("[conv] y = Conv<pads=[1,1,1,1]>(x, w)", CONV, "float[4,3,3,3] w")
    done, _ = normalized(graph, RGB)
    [(node, what)] = done
    assert node == "x"
    assert what == (
        "takes raw values: scale 0.017, 0.018, 0.019 and offset -2.1, -2, -1.8 inserted as operators, not folded, "
        "because 'conv' pads with zeros, which the offset would turn into other values"
    )
    filecheck(
        graph,
        """
        CHECK: [x.mul] float[1,3,8,8] [[M:.+]] = Mul (x, x.scale)
        CHECK: [x.add] float[1,3,8,8] [[A:.+]] = Add ([[M]], x.offset)
        CHECK: [conv] {{.*}}Conv <pads = [1, 1, 1, 1]> ([[A]], w)
        """,
    )


def test_several_layers_each_take_it_up() -> None:
    graph = model(
        "[one] a = Conv<pads=[1,1,1,1]>(x, w)\n[two] b = Conv<pads=[1,1,1,1]>(x, v)\n[add] y = Add(a, b)",
        CONV,
        "float[4,3,3,3] w, float[4,3,3,3] v",
    )
    done, _ = normalized(graph, GRAY)
    assert [node for node, _ in done] == ["one", "two"]
    assert operators(graph) == ["Pad", "Conv", "Conv", "Add"]


def test_a_reader_that_is_no_layer_gets_operators_in_front() -> None:
    graph = model(
        "[conv] a = Conv<pads=[1,1,1,1]>(x, w)\n[add] y = Add(a, x)",
        "(float[1,3,8,8] x) => (float[1,3,8,8] y)",
        "float[3,3,3,3] w",
    )
    done, _ = normalized(graph, GRAY)
    assert done[0][1].endswith("inserted as operators, not folded, because 'add' (Add) reads it")
    assert operators(graph) == ["Mul", "Add", "Conv", "Add"]


def test_the_networks_own_arithmetic_is_folded_too(filecheck: Check) -> None:
    graph = model(
        "[sub] a = Sub(x, mean)\n[div] b = Div(a, std)\n[conv] y = Conv(b, w)",
        CONV,
        "float[1,3,1,1] mean, float[1,3,1,1] std, float[4,3,3,3] w",
        std=np.full((1, 3, 1, 1), 0.25),
    )
    done, left = normalized(graph, (np.array([1 / 255]), np.array([0.0])))
    assert [node for node, _ in done] == ["div", "sub", "conv"]
    assert left == []
    filecheck(graph, "CHECK: [conv] {{.*}}Conv (x, w, conv.bias)\nCHECK-NEXT: }")


def test_own_arithmetic_without_preprocessing_leaves_the_input_as_it_was() -> None:
    graph = model(
        "[sub] a = Sub(x, mean)\n[conv] y = Conv<pads=[1,1,1,1]>(a, w)", CONV, "float mean = {0.5}, float[4,3,3,3] w"
    )
    done, _ = normalized(graph)
    assert [node for node, _ in done] == ["sub", "conv"]
    assert folded(graph, "x") is None
    assert operators(graph) == ["Pad", "Conv"]


def test_own_arithmetic_that_cannot_be_folded_stays() -> None:
    graph = model(
        "[sub] a = Sub(x, half)\n[relu] y = Relu(a)", "(float[1,3,8,8] x) => (float[1,3,8,8] y)", "float half = {0.5}"
    )
    done, left = normalized(graph)
    assert done == []
    assert left == [("x", "the network's own arithmetic on it stays: 'relu' (Relu) reads it")]


@pytest.mark.parametrize(
    ("body", "signature", "weights"),
    [
        (
            "[flat] a = Flatten(x)\n[fc] y = Gemm<transB=1>(a, w, b)",
            "(float[1,3,2,2] x) => (float[1,5] y)",
            "float[5,12] w, float[5] b",
        ),
        (
            "[flat] a = Flatten(x)\n[fc] y = Gemm<alpha=0.5>(a, w)",
            "(float[1,3,2,2] x) => (float[1,5] y)",
            "float[12,5] w",
        ),
    ],
)
def test_channels_are_followed_through_flatten(body: str, signature: str, weights: str) -> None:
    graph = model(body, signature, weights)
    done, _ = normalized(graph, RGB)
    assert [node for node, _ in done] == ["fc"]
    assert operators(graph) == ["Flatten", "Gemm"]


def test_one_value_for_all_channels_is_followed_through_a_transpose() -> None:
    graph = model(
        "[nchw] a = Transpose<perm=[0,3,1,2]>(x)\n[conv] y = Conv(a, w)",
        "(float[1,8,8,3] x) => (float[1,4,h,w] y)",
        "float[4,3,3,3] w",
    )
    done, _ = normalized(graph, (np.array([1 / 255]), np.array([-0.5])))
    assert [node for node, _ in done] == ["conv"]
    assert operators(graph) == ["Transpose", "Conv"]


def test_integer_pixels_are_followed_through_their_cast() -> None:
    graph = model(
        "[float] a = Cast<to=1>(x)\n[div] b = Div(a, max)\n[conv] y = Conv<pads=[1,1,1,1]>(b, w)",
        "(uint8[1,3,8,8] x) => (float[1,4,h,w] y)",
        "float max = {255.0}, float[4,3,3,3] w",
    )
    done, _ = normalized(graph)
    assert [node for node, _ in done] == ["div", "conv"]
    assert operators(graph) == ["Cast", "Conv"]


def test_options_stand_above_the_recipe() -> None:
    graph = model("[conv] y = Conv(x, w)", CONV, "float[4,3,3,3] w")
    step = make("normalize", {"mean": [0.1, 0.2, 0.3], "std": 0.5, "scale": 0.01}, "here")
    assert isinstance(step, Normalize)
    normalized(graph, RGB, step)
    known = folded(graph, "x")
    assert known is not None
    np.testing.assert_allclose(known[0], [0.02] * 3)
    np.testing.assert_allclose(known[1], [-0.2, -0.4, -0.6])


REASONS: dict[str, tuple[str, str, str, Any, tuple[str, str]]] = {
    "nothing known": (
        "[conv] y = Conv(x, w)", CONV, "float[4,3,3,3] w", None,
        ("x", "no preprocessing is known for it: the recipe has no data.preprocess that describes it"),
    ),
    "identity": (
        "[conv] y = Conv(x, w)", CONV, "float[4,3,3,3] w", (np.ones(1), np.zeros(1)),
        ("x", "its preprocessing leaves pixels as they are"),
    ),
    "integers": (
        "[neg] y = Neg(x)", "(int32[1,3,8,8] x) => (int32[1,3,8,8] y)", "", (np.ones(1) * 2, np.zeros(1)),
        ("x", "its elements are int32, not floats"),
    ),
    "output": (
        "[conv] y = Conv(x, w)", "(float[1,3,8,8] x) => (float[1,4,h,w] y, float[1,3,8,8] x)", "float[4,3,3,3] w", RGB,
        ("x", "it is an output too"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REASONS)
def test_what_is_left_is_reported_with_its_reason(case: str) -> None:
    body, signature, weights, affine, remark = REASONS[case]
    graph = model(body, signature, weights)
    before = operators(graph)
    ctx = run_pass(Normalize(), graph, affine={} if affine is None else {"x": affine})
    assert did(ctx) == []
    assert missed(ctx) == [remark]
    assert operators(graph) == before
    assert folded(graph, "x") is None


def test_a_second_run_is_reported_as_missed() -> None:
    graph = model("[conv] y = Conv(x, w)", CONV, "float[4,3,3,3] w")
    run_pass(Normalize(), graph, affine={"x": RGB})
    ctx = run_pass(Normalize(), graph, affine={"x": RGB})
    assert did(ctx) == []
    assert missed(ctx) == [("x", "its preprocessing is part of the network already")]


def test_inserted_operators_reach_readers_inside_subgraphs() -> None:
    graph = model(
        "[if] y = If(flag) <then_branch = t () => (float[1,3,8,8] o) { o = Neg(x) }, "
        "else_branch = e () => (float[1,3,8,8] p) { p = Abs(x) }>",
        "(float[1,3,8,8] x, bool flag) => (float[1,3,8,8] y)",
    )
    before = graph.copy()
    ctx = run_pass(Normalize(input="x"), graph, affine={"x": RGB})
    assert did(ctx)[0][1].endswith("because a subgraph reads it")
    feeds = seeded_feeds(before, samples=1)[0]
    np.testing.assert_allclose(outputs(graph, feeds)["y"], outputs(before, feeds)["y"], atol=1e-5)


@pytest.mark.parametrize(
    ("step", "affine", "text"),
    [
        (
            Normalize(input="imag"),
            None,
            "normalize: input: the model has no input 'imag'. Did you mean 'image'? Its inputs are image, mask",
        ),
        (
            Normalize(mean=0.5),
            None,
            "normalize: the model has several inputs and only one can have these values; add input, one of image, mask",
        ),
        (
            Normalize(input="image", mean=(0.1, 0.2)),
            None,
            "normalize: 2 values a channel are given, but input 'image' has 3 channels; "
            "give one value, or one for each channel",
        ),
    ],
)
def test_mistakes_are_named(step: Normalize, affine: Any, text: str) -> None:
    graph = model("[mul] y = Mul(image, mask)", "(float[1,3,8,8] image, float[1,3,8,8] mask) => (float[1,3,8,8] y)")
    with pytest.raises(UsageError) as error:
        run_pass(step, graph, affine={})
    assert str(error.value) == text


def test_dividing_by_zero_is_refused() -> None:
    with pytest.raises(UsageError) as error:
        make("normalize", {"std": [1.0, 0.0]}, "recipe.yaml: passes[0] 'normalize'")
    assert (
        str(error.value) == "recipe.yaml: passes[0] 'normalize': std must not be 0; 'edgec passes normalize' explains"
    )


@settings(max_examples=25, deadline=None)
@given(networks())
def test_random_networks_compute_the_same(network: Graph) -> None:
    before = network.copy()
    channels = (named(network, "x").shape or [])[1]
    assert isinstance(channels, int)
    affine = (np.linspace(0.5, 2.0, channels), np.linspace(-1.0, 1.0, channels))
    run_pass(Normalize(), network, affine={"x": affine})
    assert folded(network, "x") is not None
    assert_same(before, network, tolerance=3e-5)
