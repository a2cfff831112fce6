"""fold: nodes that change nothing, pairs of nodes that are one, and Pad."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgec.ir.graph import Graph
from edgec.passes.fold.fold import Fold
from edgec.testing import assert_same, did, missed, model, operators, run_pass

Check = Callable[[Graph, str], None]

NOTHING = {
    "identity": ("Identity(a)", ""),
    "dropout": ("Dropout(a, ratio)", "float ratio = {0.5}"),
    "cast": ("Cast<to=1>(a)", ""),
    "transpose": ("Transpose<perm=[0,1,2,3]>(a)", ""),
    "reshape": ("Reshape(a, s)", "int64[4] s = {1, 2, -1, 4}"),
    "expand": ("Expand(a, s)", "int64[2] s = {4, 1}"),
    "tile": ("Tile(a, s)", "int64[4] s = {1, 1, 1, 1}"),
    "add": ("Add(a, c)", "float[2,1,1] c = {0.0, -0.0}"),
    "add in front": ("Add(c, a)", "float c = {0.0}"),
    "sub": ("Sub(a, c)", "float[1] c = {0.0}"),
    "mul": ("Mul(a, c)", "float c = {1.0}"),
    "div": ("Div(a, c)", "float c = {1.0}"),
    "pow": ("Pow(a, c)", "float c = {1.0}"),
    "pad": ("Pad(a, p)", "int64[8] p = {0,0,0,0,0,0,0,0}"),
    "concat": ("Concat<axis=1>(a)", ""),
    "sum": ("Sum(a)", ""),
    "split": ("Split<axis=1>(a, p)", "int64[1] p = {2}"),
    "slice": ("Slice(a, s, e)", "int64[1] s = {0}, int64[1] e = {99}"),
    "resize scales": ('Resize(a, "", s)', "float[4] s = {1.0, 1.0, 1.0, 1.0}"),
    "resize sizes": ('Resize<mode="linear">(a, "", "", s)', "int64[4] s = {1, 2, 4, 4}"),
    "clip": ("Clip(a)", ""),
    "max pool": ("MaxPool<kernel_shape=[1,1]>(a)", ""),
    "average pool": ("AveragePool<kernel_shape=[1,1]>(a)", ""),
    "relu": ("Relu(a)", ""),
}
SOMETHING = {
    "cast": ("Cast<to=1>(i)", ""),
    "transpose": ("Transpose<perm=[0,1,3,2]>(a)", ""),
    "add": ("Add(a, c)", "float[2,1,1] c = {0.0, 1.0}"),
    "add that widens": ("Add(a, c)", "float[3,1,1,1] c = {0.0, 0.0, 0.0}"),
    "zero minus": ("Sub(c, a)", "float c = {0.0}"),
    "one over": ("Div(c, a)", "float c = {1.0}"),
    "slice backwards": (
        "Slice(a, s0, e, x1, s)",
        "int64[1] s0 = {-1}, int64[1] e = {-99}, int64[1] x1 = {2}, int64[1] s = {-1}",
    ),
    "resize to the same size by another scale": (
        'Resize<mode="linear">(a, "", s)',
        "float[4] s = {1.0, 1.0, 1.1, 1.1}",
    ),
    "clip": ("Clip(a, low)", "float low = {0.5}"),
    "dropout in training": ("Dropout(a, ratio, train)", "float ratio = {0.0}, bool train = {1}"),
    "two inputs": ("Concat<axis=1>(a, a)", ""),
    "overlapping pool": ("MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)", ""),
}


@pytest.mark.parametrize("case", NOTHING)
def test_nothing_is_left_of_what_changes_nothing(case: str) -> None:
    node, weights = NOTHING[case]
    graph = model(
        f"[first] a = Relu(x)\n[it] b = {node}\n[last] y = Neg(b)", "(float[1,2,4,4] x) => (float[1,2,4,4] y)", weights
    )
    before = graph.copy()
    ctx = run_pass(Fold(), graph)
    assert operators(graph) == ["Relu", "Neg"]
    assert [name for name, _ in did(ctx)] == ["it"]
    assert_same(before, graph, tolerance=0)


@pytest.mark.parametrize("case", SOMETHING)
def test_what_changes_something_stays(case: str) -> None:
    node, weights = SOMETHING[case]
    graph = model(
        f"[first] a = Abs(x)\n[int] i = Cast<to=6>(x)\n[it] b = {node}\n[last] y = Neg(b)\n"
        "[other] j = Neg(i)\n[third] k = Neg(a)",
        "(float[1,2,4,4] x) => (float[n,c,h,w] y, int32[1,2,4,4] j, float[1,2,4,4] k)",
        weights,
    )
    before = operators(graph)
    ctx = run_pass(Fold(), graph)
    assert operators(graph) == before
    assert did(ctx) == []


def test_an_identity_between_an_input_and_an_output_is_the_signature() -> None:
    graph = model(
        "[same] y = Mul(x, one)\n[again] z = Identity(x)",
        "(float[2] x) => (float[2] y, float[2] z)",
        "float one = {1.0}",
    )
    before = graph.copy()
    ctx = run_pass(Fold(), graph)
    assert did(ctx) == [("same", "changes nothing: removed")]
    assert operators(graph) == ["Identity", "Identity"]
    assert_same(before, graph)
    assert did(run_pass(Fold(), graph)) == []


JOINED = {
    "reshapes": (
        "[a1] a = Reshape(x, s)\n[a2] y = Reshape(a, t)",
        "int64[2] s = {4, -1}, int64[3] t = {2, -1, 4}",
        ["Reshape"],
    ),
    "reshape that takes a dimension over": (
        "[a1] a = Reshape(x, s)\n[a2] y = Reshape(a, t)",
        "int64[2] s = {4, -1}, int64[3] t = {0, 2, -1}",
        ["Reshape"],
    ),
    "flatten and reshape back": (
        "[a1] a = Flatten(x)\n[a2] b = Reshape(a, t)\n[n] y = Neg(b)",
        "int64[4] t = {1, 2, 4, 4}",
        ["Neg"],
    ),
    "unsqueeze and squeeze": (
        "[a1] a = Unsqueeze(x, t)\n[a2] b = Squeeze(a, t)\n[n] y = Neg(b)",
        "int64[1] t = {1}",
        ["Neg"],
    ),
    "squeeze and flatten": ("[a1] a = Squeeze(x, t)\n[a2] y = Flatten(a)", "int64[1] t = {0}", ["Reshape"]),
    "flatten twice": ("[a1] a = Flatten(x)\n[a2] b = Flatten(a)\n[n] y = Neg(b)", "", ["Flatten", "Neg"]),
    "transposes": ("[a1] a = Transpose<perm=[0,2,3,1]>(x)\n[a2] y = Transpose<perm=[0,2,1,3]>(a)", "", ["Transpose"]),
    "transpose and back": (
        "[a1] a = Transpose<perm=[0,2,3,1]>(x)\n[a2] b = Transpose<perm=[0,3,1,2]>(a)\n[n] y = Neg(b)",
        "",
        ["Neg"],
    ),
    "transposes by default": ("[a1] a = Transpose(x)\n[a2] b = Transpose(a)\n[n] y = Neg(b)", "", ["Neg"]),
    "relu and relu6": ("[a1] a = Relu(x)\n[a2] y = Clip(a, l, h)", "float l = {0.0}, float h = {0.6}", ["Clip"]),
    "relu6 and relu": ("[a1] a = Clip(x, l, h)\n[a2] y = Relu(a)", "float l = {0.0}, float h = {0.6}", ["Clip"]),
    "clips": (
        "[a1] a = Clip(x, l, h)\n[a2] y = Clip(a, m, k)",
        "float l = {0.1}, float h = {0.6}, float m = {0.3}, float k = {0.9}",
        ["Clip"],
    ),
    "sigmoid and relu": ("[a1] a = Sigmoid(x)\n[a2] y = Relu(a)", "", ["Sigmoid"]),
}


@pytest.mark.parametrize("case", JOINED)
def test_two_nodes_that_are_one(case: str) -> None:
    body, weights, left = JOINED[case]
    output = "(float[1,2,4,4] x) => (float[n] y)"
    graph = model(body, output, weights)
    graph.outputs[0].shape = None
    before = graph.copy()
    ctx = run_pass(Fold(), graph)
    assert operators(graph) == left
    assert did(ctx)
    assert_same(before, graph, tolerance=0)
    assert did(run_pass(Fold(), graph)) == []


def test_a_first_view_that_others_read_stays() -> None:
    graph = model(
        "[a1] a = Reshape(x, s)\n[a2] y = Reshape(a, t)\n[n] z = Neg(a)",
        "(float[1,2,4,4] x) => (float[2,4,4] y, float[4,8] z)",
        "int64[2] s = {4, -1}, int64[3] t = {2, 4, 4}",
    )
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph) == ["Reshape", "Reshape", "Neg"]
    assert_same(before, graph, tolerance=0)


def test_pad_goes_into_every_reader(filecheck: Check) -> None:
    graph = model(
        """
        [act] a = Relu(x)
        [pad] p = Pad(a, pads)
        [conv] b = Conv<pads=[1,1,1,1], strides=[2,2]>(p, w)
        [mean] c = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1>(p)
        [max] d = MaxPool<kernel_shape=[3,3]>(p)
        """,
        "(float[1,2,8,8] x) => (float[1,3,h,w] b, float[1,2,h,w] c, float[1,2,i,j] d)",
        "float[3,2,3,3] w, int64[8] pads = {0,0,0,1,0,0,1,1}",
    )
    before = graph.copy()
    ctx = run_pass(Fold(), graph)
    assert did(ctx) == [("pad", "folded into 'conv', 'mean', 'max'")]
    assert_same(before, graph)
    filecheck(
        graph,
        """
        CHECK-NOT: Pad
        CHECK: [conv] {{.*}}pads = [1, 2, 2, 2]
        CHECK: [mean] {{.*}}count_include_pad = 1{{.*}}pads = [1, 2, 2, 2]
        CHECK: [max] {{.*}}pads = [0, 1, 1, 1]
        """,
    )


PAD_LEFT = {
    "value": ("Pad(x, p, v)", "Conv(a, w)", "float v = {1.0}", "it pads with 1, 'it' with 0"),
    "mode": ('Pad<mode="reflect">(x, p)', "Conv(a, w)", "", "it pads in mode 'reflect' or with a computed value"),
    "crop": ("Pad(x, q)", "Conv(a, w)", "int64[8] q = {0,0,-1,0,0,0,1,0}", "it crops"),
    "channels": (
        "Pad(x, q)",
        "Conv(a, u)",
        "int64[8] q = {0,1,1,0,0,0,1,0}, float[2,3,3,3] u",
        "it pads samples or channels",
    ),
    "auto": (
        "Pad(x, p)",
        'Conv<auto_pad="SAME_UPPER">(a, w)',
        "",
        "'it' computes its padding itself (auto_pad SAME_UPPER)",
    ),
    "negative data": ("Pad(x, p)", "MaxPool<kernel_shape=[3,3]>(a)", "", "it pads with 0, 'it' with nothing"),
    "mean": (
        "Pad(x, p)",
        "AveragePool<kernel_shape=[3,3],pads=[1,1,1,1]>(a)",
        "",
        "'it' leaves its own padding out of the mean",
    ),
    "mean of a value": (
        "Pad(x, p, v)",
        "AveragePool<kernel_shape=[3,3]>(a)",
        "float v = {1.0}",
        "it pads with 1, 'it' with 0",
    ),
    "large": (
        "Pad(x, p)",
        "MaxPool<kernel_shape=[1,1],strides=[2,2]>(a)",
        "",
        "it pads as much as the whole kernel of 'it'",
    ),
    "ceil": ("Pad(x, p)", "MaxPool<kernel_shape=[3,3],ceil_mode=1>(a)", "", "'it' rounds its size up"),
    "dilated": ("Pad(x, p)", "MaxPool<kernel_shape=[3,3],dilations=[2,2]>(a)", "", "'it' is dilated"),
    "computed": (
        "Pad(x, r)",
        "Conv(a, w)",
        "int64[8] k = {1,2,1,1,1,1,1,1}",
        "how much it pads is computed when the network runs",
    ),
}


@pytest.mark.parametrize("case", PAD_LEFT)
def test_a_pad_that_stays_is_reported_with_its_reason(case: str) -> None:
    pad, reader, weights, reason = PAD_LEFT[case]
    graph = model(
        f"[shape] r = Mul(k, n)\n[pad] a = {pad}\n[it] y = {reader}"
        if case == "computed"
        else f"[pad] a = {pad}\n[it] y = {reader}",
        "(float[1,2,8,8] x, int64[8] n) => (float[1,2,h,w] y)",
        ", ".join(filter(None, ("float[2,2,3,3] w, int64[8] p = {0,0,1,1,0,0,1,1}", weights))),
    )
    ctx = run_pass(Fold(), graph)
    assert did(ctx) == []
    assert missed(ctx) == [("pad", reason)]
    assert operators(graph)[-2:] == ["Pad", graph.nodes[-1].op]


def test_indices_of_a_maximum_keep_their_pad() -> None:
    graph = model(
        "[act] r = Relu(x)\n[pad] a = Pad(r, p)\n[it] y, i = MaxPool<kernel_shape=[3,3]>(a)",
        "(float[1,2,8,8] x) => (float[1,2,h,w] y, int64[1,2,h,w] i)",
        "int64[8] p = {0,0,1,1,0,0,1,1}",
    )
    assert missed(run_pass(Fold(), graph)) == [("pad", "'it' gives indices, which the padding moves")]


def test_a_pad_that_another_operator_reads_stays_whole() -> None:
    graph = model(
        "[pad] a = Pad(x, p)\n[it] y = Conv(a, w)\n[neg] z = Neg(a)",
        "(float[1,2,8,8] x) => (float[1,2,8,8] y, float[1,2,10,10] z)",
        "float[2,2,3,3] w, int64[8] p = {0,0,1,1,0,0,1,1}",
    )
    ctx = run_pass(Fold(), graph)
    assert operators(graph) == ["Pad", "Conv", "Neg"]
    assert did(ctx) == []
