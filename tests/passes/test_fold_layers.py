"""fold: layers that take up what stands around them: branches, shuffles, blocks of pixels, each other."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.ir.graph import Graph
from edgec.passes.fold.fold import Fold
from edgec.testing import assert_same, did, model, operators, run_pass

BN = "BatchNormalization({0}, gamma{1}, beta{1}, mean{1}, var{1})"
STATISTICS = "".join(
    f", float[{n}] gamma{n}, float[{n}] beta{n}, float[{n}] mean{n}, float[{n}] var{n}" for n in (4, 8)
)
VAR = {"var4": [0.5, 1, 2, 3], "var8": np.linspace(0.5, 3, 8)}


def checked(body: str, signature: str, weights: str, expected: list[str], **values: object) -> Graph:
    graph = model(body, signature, weights, **values)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph) == expected
    assert_same(before, graph)
    assert did(run_pass(Fold(), graph)) == []
    return graph


BRANCHES = {
    "RepVGG": (
        "r = Relu(x)\na = Conv<pads=[1,1,1,1]>(r, w, b)\nc = Conv(r, v)\nd = Add(a, c)\n"
        f"e = {BN.format('r', 4)}\nf = Add(e, d)\ny = Relu(f)",
        ["Relu", "Conv", "Relu"],
    ),
    "a stride": (
        "a = Conv<strides=[2,2],pads=[1,1,1,1]>(x, w)\nc = Conv<strides=[2,2]>(x, v)\nd = Add(c, a)\ny = Relu(d)",
        ["Conv", "Relu"],
    ),
    "groups": (
        f"r = Relu(x)\na = Conv<group=2,pads=[1,1,1,1]>(r, g)\ne = {BN.format('r', 4)}\nf = Add(e, a)\ny = Relu(f)",
        ["Relu", "Conv", "Relu"],
    ),
}
APART = {
    "dilated": "a = Conv<pads=[1,1,1,1]>(x, w)\nc = Conv<dilations=[2,2],pads=[2,2,2,2]>(x, w)\ny = Add(c, a)",
    "another place": "a = Conv<pads=[1,1,1,1]>(x, w)\nc = Conv<pads=[2,2,0,0]>(x, w)\ny = Add(c, a)",
    "another tensor": "r = Relu(x)\na = Conv<pads=[1,1,1,1]>(x, w)\nc = Conv(r, v)\ny = Add(c, a)",
    "a branch that others read": "a = Conv<pads=[1,1,1,1]>(x, w)\nc = Conv(x, v)\nd = Add(c, a)\ny = Mul(d, c)",
}  # fmt: skip
LAYERS = "float[4,4,3,3] w, float[4,4,1,1] v, float[4] b, float[4,2,3,3] g" + STATISTICS


@pytest.mark.parametrize("case", list(BRANCHES))
def test_branches_become_one_convolution(case: str) -> None:
    body, expected = BRANCHES[case]
    checked(body, "(float[1,4,6,6] x) => (y)", LAYERS, expected, **VAR)


@pytest.mark.parametrize("case", list(APART))
def test_branches_that_differ_stay(case: str) -> None:
    graph = model(APART[case], "(float[1,4,6,6] x) => (y)", LAYERS, **VAR)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph) == operators(before)


BEHIND = {
    "a Concat": (f"c = Concat<axis=1>(p, q)\n{'b'} = {BN.format('c', 8)}", ["Conv", "Conv", "Concat", "Relu"]),
    "a sum": (f"c = Add(p, q)\n{'b'} = {BN.format('c', 4)}", ["Conv", "Conv", "Add", "Relu"]),
}


@pytest.mark.parametrize("case", list(BEHIND))
def test_batch_normalization_behind_several_layers(case: str) -> None:
    body, expected = BEHIND[case]
    body = f"s = Sin(x)\np = Conv<pads=[1,1,1,1]>(x, w, b4)\nq = Conv<pads=[1,1,1,1]>(s, u)\n{body}\ny = Relu(b)"
    weights = "float[4,4,3,3] w, float[4,4,3,3] u, float[4] b4" + STATISTICS
    checked(body, "(float[1,4,6,6] x) => (y)", weights, ["Sin", *expected], **VAR)


def test_batch_normalization_stays_where_one_of_several_is_no_layer() -> None:
    body = f"p = Conv<pads=[1,1,1,1]>(x, w)\nc = Concat<axis=1>(p, x)\nb = {BN.format('c', 8)}\ny = Relu(b)"
    graph = model(body, "(float[1,4,6,6] x) => (y)", "float[4,4,3,3] w" + STATISTICS, **VAR)
    ctx = run_pass(Fold(), graph)
    assert "BatchNormalization" in operators(graph)
    assert [remark.node for remark in ctx.left] != []


ROWS = {
    "a projection behind": ("a = Conv<pads=[1,1,1,1]>(x, wide, b16)\ny = Conv(a, down, b4)", ["Conv"]),
    "a projection in front": ("a = Conv(x, up)\ny = Conv<pads=[1,1,1,1]>(a, narrow, b4)", ["Conv"]),
    "a bias that padding cuts": (
        "a = Conv(x, up, b16)\ny = Conv<pads=[1,1,1,1]>(a, narrow, b4)",
        ["Conv", "Conv"],
    ),
    "a chain that saves work": ("a = Conv(x, thin)\ny = Conv(a, thick)", ["Conv", "Conv"]),
}


@pytest.mark.parametrize("case", list(ROWS))
def test_layers_in_a_row(case: str) -> None:
    body, expected = ROWS[case]
    weights = "float[16,4,3,3] wide, float[4,16,1,1] down, float[16,4,1,1] up, float[4,16,3,3] narrow, float[16] b16"
    weights += ", float[4] b4, float[1,4,1,1] thin, float[4,1,1,1] thick"
    checked(body, "(float[1,4,6,6] x) => (y)", weights, expected)


FOCUS = "p = Slice(x, s00, end, axes, two)\nq = Slice(x, s10, end, axes, two)\nr = Slice(x, s01, end, axes, two)\n"
FOCUS += "t = Slice(x, s11, end, axes, two)\nc = Concat<axis=1>(p, q, r, t)\n"
ONE_BY_ONE = "a = Slice(x, first, last, row, step)\nb = Slice(x, second, last, row, step)\n"
ONE_BY_ONE += "p = Slice(a, first, last, column, step)\nq = Slice(b, first, last, column, step)\n"
ONE_BY_ONE += "r = Slice(a, second, last, column, step)\nt = Slice(b, second, last, column, step)\n"
ONE_BY_ONE += "c = Concat<axis=1>(p, q, r, t)\n"
BLOCKS = {
    "Focus": FOCUS,
    "Focus, side by side": ONE_BY_ONE,
    "SpaceToDepth": "c = SpaceToDepth<blocksize=2>(x)\n",
    "PixelUnshuffle": "a = Reshape(x, wide)\nb = Transpose<perm=[0,1,3,5,2,4]>(a)\nc = Reshape(b, small)\n",
    "blocks first": "a = Reshape(x, wide)\nb = Transpose<perm=[0,3,5,1,2,4]>(a)\nc = Reshape(b, small)\n",
}
PIXELS = "float[5,12,3,3] w, float[5] w5, int64[2] s00, int64[2] s10, int64[2] s01, int64[2] s11, int64[2] end"
PIXELS += ", int64[2] axes, int64[2] two, int64[1] first, int64[1] second, int64[1] last, int64[1] row, int64[1] column"
PIXELS += ", int64[1] step, int64[6] wide, int64[4] small"
PLACES = {
    "s00": [0, 0], "s10": [1, 0], "s01": [0, 1], "s11": [1, 1], "end": [2**62, 2**62], "axes": [2, 3], "two": [2, 2],
    "first": [0], "second": [1], "last": [2**62], "row": [2], "column": [3], "step": [2], "wide": [1, 3, 4, 2, 5, 2],
    "small": [1, 12, 4, 5],
}  # fmt: skip


@pytest.mark.parametrize("case", list(BLOCKS))
@pytest.mark.parametrize("attributes", ["pads=[1,1,1,1]", "pads=[0,1,2,0],strides=[2,1]"])
def test_blocks_of_pixels_go_into_the_convolution(case: str, attributes: str) -> None:
    body = f"{BLOCKS[case]}y = Conv<{attributes}>(c, w, w5)"
    graph = checked(body, "(float[1,3,8,10] x) => (y)", PIXELS, ["Conv"], **PLACES)
    assert graph.nodes[0].attrs["kernel_shape"] == [6, 6]


def test_blocks_of_pixels_stay_where_others_read_them() -> None:
    body = f"{FOCUS}d = Conv<pads=[1,1,1,1]>(c, w, w5)\ny = Concat<axis=1>(c, d)"
    graph = model(body, "(float[1,3,8,10] x) => (y)", PIXELS, **PLACES)
    run_pass(Fold(), graph)
    assert operators(graph).count("Slice") == 4


SHUFFLE = "a = Reshape(x, five)\nb = Transpose<perm=[0,2,1,3,4]>(a)\nc = Reshape(b, four)\n"
SHUFFLES = {
    "a convolution": (f"{SHUFFLE}d = Relu(c)\ny = Conv(d, w)", ["Relu", "Conv"]),
    "depthwise and pooled": (
        f"{SHUFFLE}d = Conv<group=8,pads=[1,1,1,1]>(c, deep, b8)\ne = MaxPool<kernel_shape=[2,2],strides=[2,2]>(d)\n"
        "f = Conv(e, w)\ny = Relu(f)",
        ["Conv", "MaxPool", "Conv", "Relu"],
    ),
    "flattened": (f"{SHUFFLE}d = Reshape(c, flat)\ny = Gemm<transB=1>(d, full)", ["Reshape", "Gemm"]),
    "two readers": (
        f"{SHUFFLE}d = Conv(c, w)\ne = Relu(c)\nf = Conv(e, w)\ny = Mul(d, f)",
        ["Conv", "Relu", "Conv", "Mul"],
    ),
}
SHUFFLED = "float[6,8,1,1] w, float[8,1,3,3] deep, float[8] b8, float[5,128] full, int64[5] five, int64[4] four"
SHUFFLED += ", int64[2] flat"
SIZES = {"five": [1, 2, 4, 4, 4], "four": [1, 8, 4, 4], "flat": [1, 128]}


@pytest.mark.parametrize("case", list(SHUFFLES))
def test_a_shuffle_goes_into_the_layers_behind(case: str) -> None:
    body, expected = SHUFFLES[case]
    checked(body, "(float[1,8,4,4] x) => (y)", SHUFFLED, expected, **SIZES)


@pytest.mark.parametrize("tail", ["y = Relu(c)", "d = Conv(c, w)\ne = GlobalAveragePool(c)\ny = Concat<axis=1>(d, e)"])
def test_a_shuffle_that_shows_stays(tail: str) -> None:
    tail = tail.replace("Concat<axis=1>(d, e)", "Concat<axis=1>(g, e)").replace("e =", "g = GlobalAveragePool(d)\ne =")
    graph = model(f"{SHUFFLE}{tail}", "(float[1,8,4,4] x) => (y)", SHUFFLED, **SIZES)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert "Transpose" in operators(graph)
    assert_same(before, graph)


BOX = "l = Slice(x, s0, s2, one)\nr = Slice(x, s2, s4, one)\n"
BOXES = {
    "corners to centres": "a = Sub(anchors, l)\nb = Add(anchors, r)\nc = Add(a, b)\nd = Div(c, two)\ne = Sub(b, a)\n"
    "f = Concat<axis=1>(d, e)\ng = Mul(f, strides)\ny = Relu(g)",
    "without strides": "a = Sub(anchors, l)\nb = Add(r, anchors)\nc = Add(a, b)\nd = Mul(c, two)\ne = Sub(b, a)\n"
    "g = Concat<axis=1>(d, e)\ny = Relu(g)",
}
NO_BOXES = {
    "a product of two parts": "a = Sub(anchors, l)\nb = Add(anchors, r)\nc = Mul(a, b)\nd = Div(c, two)\n"
    "e = Sub(b, a)\ng = Concat<axis=1>(d, e)\ny = Relu(g)",
    "read by others": "a = Sub(anchors, l)\nb = Add(anchors, r)\nc = Add(a, b)\nd = Div(c, two)\ne = Sub(b, a)\n"
    "g = Concat<axis=1>(d, e)\nh = Exp(a)\ny = Concat<axis=1>(g, h)",
    "another scale of each channel": "a = Mul(l, places)\nb = Add(anchors, r)\nc = Add(a, b)\nd = Div(c, two)\n"
    "e = Sub(b, a)\ng = Concat<axis=1>(d, e)\ny = Relu(g)",
}
HEAD = "int64[1] s0, int64[1] s2, int64[1] s4, int64[1] one, float[1,2,6] anchors, float[1,1,6] strides, float two"
HEAD += ", float[1,2,6] places"
STARTS = {"s0": [0], "s2": [2], "s4": [4], "one": [1], "strides": [[[8, 8, 8, 16, 16, 32]]], "two": 2}


@pytest.mark.parametrize("case", list(BOXES))
def test_arithmetic_on_channels_becomes_a_convolution(case: str) -> None:
    steps = ["Conv", "Mul", "Add", "Relu"] if "strides" in BOXES[case] else ["Conv", "Add", "Relu"]
    checked(BOX + BOXES[case], "(float[1,4,6] x) => (y)", HEAD, steps, **STARTS)


@pytest.mark.parametrize("case", list(NO_BOXES))
def test_other_arithmetic_stays(case: str) -> None:
    graph = model(BOX + NO_BOXES[case], "(float[1,4,6] x) => (y)", HEAD, **STARTS)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert "Conv" not in operators(graph)
    assert_same(before, graph)


@pytest.mark.parametrize("tail", ["y = Concat<axis=1>(t1499, x)", f"z = {BN.format('t1499', 4)}\ny = Relu(z)"])
def test_very_deep_sums_are_left_alone(tail: str) -> None:
    """As deep as Python's stack is, and deeper."""
    convs = "\n".join(f"c{n} = Conv(x, k)\nd{n} = Sin(c{n})" for n in range(2))
    lines = [
        "t0 = Add(d0, d1)",
        *(f"t{n} = Add(t{n - 1}, p)" if n % 2 else f"t{n} = Mul(t{n - 1}, p)" for n in range(1, 1500)),
    ]
    graph = model(
        "\n".join([convs, *lines, tail]),
        "(float[1,4,2,2] x) => (y)",
        "float[4,4,1,1] k, float[1,1,2,2] p" + STATISTICS,
        **VAR,
    )
    run_pass(Fold(), graph)
    assert operators(graph).count("Mul") > 700
