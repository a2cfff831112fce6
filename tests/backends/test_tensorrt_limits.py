"""The table of what TensorRT's parser refuses or misreads: for each row a node beyond it, and one within it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.backends.tensorrt import legalize
from edgec.backends.tensorrt.lint import lint
from edgec.backends.tensorrt.parser_limits import LIMITS, Limit, beyond
from edgec.backends.tensorrt.parser_types import TYPE_LIMITS, beyond_types
from edgec.backends.tensorrt.spelling import REWRITES, Site
from edgec.backends.tensorrt.versions import rules
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.passes.framework.settling import settle
from edgec.testing import assert_same, model, outputs

ORIN = target("jetson-orin-nano")
Version = tuple[int, ...]
IMAGE = "(float[1,4,6,6] x) => (float[1,4,6,6] y)"
LARGER = "(float[1,4,6,6] x) => (float[1,4,12,12] y)"
ROW = "(float[2,9] x) => (float[2,5] y)"
LAST = {"s": [1, 1, 2, 2]}
LSTM = "(float[5,2,4] x) => (float[5,1,2,3] y)"
GATES = "float[1,12,4] w, float[1,12,3] r"

# By row and operator: a body beyond it, one within it, the signature, weights, their values, and a version that has it.
Row = tuple[str, str, str, str, str, dict[str, Any], Version]
ROWS: list[Row] = [
    ("resize-cubic", 'y = Resize <mode="cubic"> (x, , s)', 'y = Resize <mode="linear"> (x, , s)', LARGER,
     "float[4] s", LAST, (8, 4)),
    ("resize-coordinates",
     'y = Resize <coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode="floor"> (x, , s)',
     'y = Resize <coordinate_transformation_mode="asymmetric", nearest_mode="floor"> (x, , s)', LARGER,
     "float[4] s", LAST, (10, 1)),
    ("resize-antialias", 'y = Resize <mode="linear", antialias=1> (x, , s)', 'y = Resize <mode="linear"> (x, , s)',
     "(float[1,4,6,6] x) => (float[1,4,3,3] y)", "float[4] s", {"s": [1, 1, .5, .5]}, (10, 1)),
    ("resize-aspect-ratio", 'y = Resize <mode="linear", axes=[2,3], keep_aspect_ratio_policy="not_larger"> (x, , , s)',
     'y = Resize <mode="linear", axes=[2,3]> (x, , , s)', LARGER, "int64[2] s", {"s": [12, 12]}, (10, 1)),
    ("resize-rank", 'y = Resize <mode="linear"> (x, , s)', 'y = Resize <mode="nearest"> (x, , s)',
     "(float[2,2,2,2,4] x) => (float[2,4,2,2,4] y)", "float[5] s", {"s": [1, 2, 1, 1, 1]}, (10, 1)),
    ("resize-integers", "i = Cast <to=6> (x)\nr = Resize (i, , s)\ny = Cast <to=1> (r)", "y = Resize (x, , s)", LARGER,
     "float[4] s", LAST, (8, 4)),
    ("resize-scales-computed", 'd = Mul (s, s)\ny = Resize (x, , d)', "y = Resize (x, , s)", LARGER,
     "float[4] s", {"s": [1, 1, 2, 2]}, (8, 2)),
    ("pad-wrap", 'y = Pad <mode="wrap"> (x, p)', 'y = Pad <mode="reflect"> (x, p)',
     "(float[1,4,6,6] x) => (float[1,4,6,8] y)", "int64[8] p", {"p": [0, 0, 0, 1, 0, 0, 0, 1]}, (10, 1)),
    ("top-k-smallest", "y, i = TopK <largest=0> (x, k)", "y, i = TopK (x, k)", ROW, "int64[1] k", {"k": [5]}, (8, 4)),
    ("top-k-unsorted", "y, i = TopK <sorted=0> (x, k)", "y, i = TopK (x, k)", ROW, "int64[1] k", {"k": [5]}, (10, 1)),
    ("top-k-integers", "j = Cast <to=6> (x)\nv, i = TopK (j, k)\ny = Cast <to=1> (v)", "y, i = TopK (x, k)", ROW,
     "int64[1] k", {"k": [5]}, (8, 5)),
    ("top-k-computed", "n = Neg (k)\ny, i = TopK (x, n)", "y, i = TopK (x, k)", ROW, "int64[1] k", {"k": [5]}, (8, 5)),
    ("top-k-large", "y, i = TopK (x, k)", "y, i = TopK (x, m)", "(float[1,4000] x) => (float[1,N] y)",
     "int64[1] k, int64[1] m", {"k": [3841], "m": [3]}, (10, 1)),
    ("arg-integers", "j = Cast <to=6> (x)\nv = ArgMax (j)\ny = Cast <to=1> (v)", "v = ArgMax (x)\ny = Cast <to=1> (v)",
     "(float[2,9] x) => (float[1,9] y)", "", {}, (8, 4)),
    ("one-hot-depth", "i = Cast <to=7> (x)\nn = Neg (d)\ny = OneHot (i, n, v)",
     "i = Cast <to=7> (x)\ny = OneHot (i, d, v)", "(float[2] x) => (float[2,4] y)", "int64 d, float[2] v",
     {"d": 4, "v": [0, 1]}, (10, 1)),
    ("trilu-rank", "y = Trilu (x)", "r = Reshape (x, s)\nt = Trilu (r)\ny = Reshape (t, u)", IMAGE,
     "int64[3] s, int64[4] u", {"s": [4, 6, 6], "u": [1, 4, 6, 6]}, (8, 5)),
    ("nms-computed", "n = Abs (k)\ni = NonMaxSuppression (x, c, n)\ny = Cast <to=1> (i)",
     "i = NonMaxSuppression (x, c, k)\ny = Cast <to=1> (i)", "(float[1,6,4] x) => (float[N,3] y)",
     "float[1,1,6] c, int64 k", {"k": 2}, (8, 4)),
    ("nms-rows", "", "", IMAGE, "", {}, (8, 4)),
    ("bool-moves", "b = Less (x, z)\ng = Gather <axis=1> (b, i)\ny = Cast <to=1> (g)", "y = Gather <axis=1> (x, i)",
     "(float[2,5] x) => (float[2,3] y)", "float z, int64[3] i", {"z": .4, "i": [4, 0, 2]}, (8, 4)),
    ("scatter-reduction", 'y = ScatterND <reduction="add"> (x, i, u)', "y = ScatterND (x, i, u)",
     "(float[5,3] x) => (float[5,3] y)", "int64[2,1] i, float[2,3] u", {"i": [[1], [4]]}, (10, 1)),
    ("einsum-ellipsis", 'y = Einsum <equation="...ij,jk->...ik"> (x, w)', 'y = Einsum <equation="bij,jk->bik"> (x, w)',
     "(float[2,3,4] x) => (float[2,3,5] y)", "float[4,5] w", {}, (10, 1)),
    ("einsum-letters", 'y = Einsum <equation="bIj,jk->bIk"> (x, w)', 'y = Einsum <equation="bij,jk->bik"> (x, w)',
     "(float[2,3,4] x) => (float[2,3,5] y)", "float[4,5] w", {}, (10, 1)),
    ("einsum-diagonal", 'y = Einsum <equation="bii->bi"> (x)', 'y = Einsum <equation="bij->bj"> (x)',
     "(float[2,3,3] x) => (float[2,3] y)", "", {}, (10, 1)),
    ("einsum-broadcast", 'y = Einsum <equation="bij,bjk->bik"> (x, w)', 'y = Einsum <equation="bij,jk->bik"> (x, v)',
     "(float[2,3,4] x) => (float[2,3,5] y)", "float[1,4,5] w, float[4,5] v", {}, (10, 1)),
    ("matmul-integers", "i = Cast <to=6> (x)\nm = MatMul (i, w)\ny = Cast <to=1> (m)", "y = MatMul (x, v)",
     "(float[2,3] x) => (float[2,4] y)", "int32[3,4] w, float[3,4] v", {}, (10, 1)),
    ("pow-integers", "y = Pow (x, e)", "y = Pow (x, f)", IMAGE, "int64 e, float f", {"e": 3, "f": 3}, (10, 1)),
    ("bias-computed", "g = ReduceMean <axes=[0,2,3], keepdims=0> (x)\ny = ConvTranspose (x, w, g)",
     "y = ConvTranspose (x, w, b)", "(float[1,4,6,6] x) => (float[1,4,7,7] y)", "float[4,4,2,2] w, float[4] b", {},
     (8, 4)),
    ("deconvolution-padding", "y = ConvTranspose <pads=[0,0,0,1,1,1]> (x, w)",
     "y = ConvTranspose <pads=[1,1,1,1,1,1]> (x, w)", "(float[1,2,4,4,4] x) => (float[1,2,D,H,W] y)",
     "float[2,2,3,3,3] w", {}, (8, 2)),
    ("max-pool-indices-unread", "y, i = MaxPool <kernel_shape=[2,2]> (x)", "y = MaxPool <kernel_shape=[2,2]> (x)",
     "(float[1,4,6,6] x) => (float[1,4,5,5] y)", "", {}, (10, 1)),
    ("max-pool-indices", "p, i = MaxPool <kernel_shape=[2,2]> (x)\nf = Cast <to=1> (i)\ny = Add (p, f)",
     "y = MaxPool <kernel_shape=[2,2]> (x)", "(float[1,4,6,6] x) => (float[1,4,5,5] y)", "", {}, (10, 1)),
    ("max-pool-dilations", "y = MaxPool <kernel_shape=[3,3], dilations=[2,2], pads=[2,2,2,2]> (x)",
     "y = MaxPool <kernel_shape=[3,3], dilations=[1,1], pads=[1,1,1,1]> (x)", IMAGE, "", {}, (10, 1)),
    ("average-pool-dilations", "y = AveragePool <kernel_shape=[3,3], dilations=[2,2], pads=[2,2,2,2]> (x)",
     "y = AveragePool <kernel_shape=[3,3], pads=[1,1,1,1]> (x)", IMAGE, "", {}, (10, 1)),
    ("lp-pool-dilations", "y = LpPool <kernel_shape=[3,3], dilations=[2,2], pads=[2,2,2,2]> (x)",
     "y = LpPool <kernel_shape=[3,3], pads=[1,1,1,1]> (x)", IMAGE, "", {}, (10, 1)),
    ("average-pool-padding", "y = AveragePool <kernel_shape=[3,3], pads=[0,0,2,2]> (x)",
     "y = AveragePool <kernel_shape=[3,3], pads=[1,1,1,1]> (x)", IMAGE, "", {}, (8, 4)),
    ("lp-order", "y = LpPool <kernel_shape=[3,3], p=3, pads=[1,1,1,1]> (x)",
     "y = LpPool <kernel_shape=[3,3], p=1, pads=[1,1,1,1]> (x)", IMAGE, "", {}, (10, 1)),
    ("batch-norm-training", "y, mm, vv = BatchNormalization <training_mode=1> (x, s, b, m, v)",
     "y = BatchNormalization (x, s, b, m, v)", IMAGE, "float[4] s, float[4] b, float[4] m, float[4] v",
     {"v": np.ones(4)}, (10, 1)),
    ("layer-norm-statistics", "n, m = LayerNormalization (x, w)\ny = Add (n, m)", "y = LayerNormalization (x, w)",
     "(float[2,3,8] x) => (float[2,3,8] y)", "float[8] w", {}, (10, 1)),
    ("instance-norm-form", "g = ReduceMean <axes=[0,2,3], keepdims=0> (x)\ny = InstanceNormalization (x, g, b)",
     "y = InstanceNormalization (x, b, b)", IMAGE, "float[4] b", {}, (8, 5)),
    ("dropout-mask", "d, m = Dropout (x)\nf = Cast <to=1> (m)\ny = Mul (d, f)", "y = Dropout (x)", IMAGE, "", {},
     (8, 2)),
    ("dropout-training", "y = Dropout (x, r, t)", "y = Dropout (x, r, u)", IMAGE, "float r, bool t, bool u",
     {"t": True, "u": False, "r": .5}, (10, 1)),
    ("recurrent-layout", "y = LSTM <hidden_size=3, layout=1> (x, w, r)", "y = LSTM <hidden_size=3> (x, w, r)",
     "(float[5,2,4] x) => (float[A,B,C,D] y)", GATES, {}, (10, 1)),
    ("recurrent-activations",
     'y = GRU <hidden_size=3, direction="bidirectional", activations=["Sigmoid","Tanh","Sigmoid","Relu"]> (x, w, r)',
     'y = GRU <hidden_size=3, direction="bidirectional"> (x, w, r)', "(float[5,2,4] x) => (float[5,2,2,3] y)",
     "float[2,9,4] w, float[2,9,3] r", {}, (10, 1)),
    ("coupled-gates", "y = LSTM <hidden_size=3, input_forget=1> (x, w, r)", "y = LSTM <hidden_size=3> (x, w, r)", LSTM,
     GATES, {}, (10, 1)),
    ("if-names", "", "y = Relu (x)", IMAGE, "", {}, (8, 2)),
    ("shape-part", "s = Shape <start=1, end=3> (x)\ny = Cast <to=1> (s)", "s = Shape (x)\ny = Cast <to=1> (s)",
     "(float[1,4,6,6] x) => (float[N] y)", "", {}, (8, 6)),
    ("range-floats", "m = ReduceMax <keepdims=0> (x)\ny = Range (a, m, a)", "y = Range (a, b, a)",
     "(float[3] x) => (float[N] y)", "float a, float b", {"a": 1, "b": 3}, (8, 2)),
    ("cumsum-axis", "n = Neg (a)\ny = CumSum (x, n)", "y = CumSum (x, a)", IMAGE, "int64 a", {"a": 1}, (10, 1)),
    ("axes-computed", "n = Abs (a)\ny = Unsqueeze (x, n)", "y = Unsqueeze (x, a)",
     "(float[2,3] x) => (float[2,1,3] y)", "int64[1] a", {"a": [1]}, (10, 1)),
    ("eye-like-form", "r = ReduceSum <keepdims=0> (x)\ny = EyeLike (x)", "y = EyeLike (x)",
     "(float[3,3] x) => (float[3,3] y)", "", {}, (10, 1)),
    ("grid-sample-rank", "y = GridSample (x, g)", "y = Relu (x)", "(float[1,2,3,3,3] x) => (float[1,2,3,3,3] y)",
     "float[1,3,3,3,3] g", {}, (10, 1)),
    ("grid-sample-names", 'y = GridSample <mode="linear"> (x, g)', 'y = GridSample <mode="bilinear"> (x, g)',
     "(float[1,2,3,3] x) => (float[1,2,3,3] y)", "float[1,3,3,2] g", {}, (10, 1)),
]  # fmt: skip
NO_GRAPH = {"if-names", "eye-like-form", "nms-rows"}


def opset_of(body: str) -> int:
    """The opset that has what a body uses."""
    if "wrap" in body or ("AveragePool" in body and "dilations" in body):
        return 19
    if "GridSample" in body:
        return 20 if "linear" in body.replace("bilinear", "") or "3" in body else 16
    if any(word in body for word in ("axes=[2,3]", "antialias", "keep_aspect", "dilations=[2,2], pads=[2,2,2,2]")):
        return 18 if "MaxPool" not in body else 17
    return 17


def read(row: Row, body: str) -> Graph:
    used = [entry for entry in row[4].split(", ") if entry and entry.split()[-1] in _words(body)]
    opset = 20 if row[0].startswith("grid-sample-rank") else opset_of(body)
    return model(body, row[3], ", ".join(used), opset=opset, **row[5])


def _words(body: str) -> set[str]:
    return set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())


def names(graph: Graph, version: Version) -> set[str]:
    return {limit.name for limit, _ in beyond(graph, version)}


def test_every_row_has_a_case_and_a_source() -> None:
    assert {row[0] for row in ROWS} == {limit.name for limit in LIMITS}
    for limit in (*LIMITS, *TYPE_LIMITS):
        assert "release/" in limit.source, limit.name
        assert "report" not in limit.fix


@pytest.mark.parametrize("row", [row for row in ROWS if row[0] not in NO_GRAPH], ids=lambda row: row[0])
def test_a_row(row: Row) -> None:
    name, body, within, version = row[0], row[1], row[2], row[6]
    assert name in names(read(row, body), version)
    assert name not in names(read(row, within), version)
    limit = next(limit for limit in LIMITS if limit.name == name)
    if limit.below is not None:
        assert name not in {one.name for one, _ in beyond(read(row, body), limit.below) if one.below == limit.below}
    given = [finding for finding in lint(read(row, body), rules(version, ORIN)) if finding.rule == name]
    assert given[0].fatal is limit.fatal
    assert f"TensorRT {'.'.join(map(str, version))}" in given[0].what or name == "dropout-mask"


REWRITTEN = [row for row in ROWS if row[0] in REWRITES and row[0] not in {*NO_GRAPH, "resize-rank", "top-k-unsorted"}]
NOT_RUN = {"recurrent-layout"}  # onnxruntime has no kernel for a batch that comes first


@pytest.mark.parametrize("row", [row for row in REWRITTEN if row[0] not in NOT_RUN], ids=lambda row: row[0])
def test_a_row_with_a_rewrite_computes_the_same(row: Row) -> None:
    graph = read(row, row[1])
    before = graph.copy()
    assert legalize.rewrite(graph, rules(row[6], ORIN), "board") > 0
    settle(graph, "legalize")
    assert row[0] not in names(graph, row[6])
    assert_same(before, graph, tolerance=1e-5)


def test_the_smallest_unsorted_are_the_smallest() -> None:
    graph = model("y, i = TopK <largest = 0, sorted = 0> (x, k)", ROW, "int64[1] k", k=[5])
    before = graph.copy()
    legalize.rewrite(graph, rules((8, 2), ORIN), "board")
    settle(graph, "legalize")
    assert all(node.attrs.get("largest", 1) == 1 for node in graph.nodes if node.op == "TopK")
    one, other = (np.sort(outputs(each)["y"]) for each in (before, graph))
    assert np.array_equal(one, other)


def test_a_batch_that_comes_first_is_turned() -> None:
    row = next(row for row in ROWS if row[0] == "recurrent-layout")
    graph = read(row, row[1])
    legalize.rewrite(graph, rules((8, 2), ORIN), "board")
    settle(graph, "legalize")
    assert [node.op for node in graph.nodes] == ["Transpose", "LSTM", "Transpose"]
    assert [node.attrs.get("perm") for node in graph.nodes] == [[1, 0, 2], None, [2, 0, 1, 3]]
    plain = model("t = Transpose <perm = [1, 0, 2]> (x)\nl = LSTM <hidden_size = 3> (t, w, r)\n"
                  "y = Transpose <perm = [2, 0, 1, 3]> (l)", row[3], GATES)  # fmt: skip
    assert np.array_equal(outputs(plain)["y"], outputs(graph)["y"])


def test_branches_whose_results_have_one_name() -> None:
    branches = (
        "<then_branch = one () => (float[2] r) { r = Relu (x) }, else_branch = two () => (float[2] q) { q = Abs (x) }>"
    )
    graph = model(f"m = ReduceSum <keepdims = 0> (x)\nb = Less (m, z)\n[i] y = If {branches} (b)",
                  "(float[2] x) => (float[2] y)", "float z", z=0.5)  # fmt: skip
    body = graph.nodes[-1].attrs["else_branch"]
    body.outputs[0].name = graph.nodes[-1].attrs["then_branch"].outputs[0].name
    before = graph.copy()
    assert names(graph, (8, 2)) == {"if-names"}
    assert names(graph, (8, 4)) == set()
    legalize.rewrite(graph, rules((8, 2), ORIN), "board")
    settle(graph, "legalize")
    assert names(graph, (8, 2)) == set()
    assert_same(before, graph)


def test_selected_rows_are_filled_up() -> None:
    graph = model("i = NonMaxSuppression (x, c, k)\ny = Cast <to = 1> (i)", "(float[1,6,4] x) => (float[N,3] y)",
                  "float[1,1,6] c, int64 k", k=2)  # fmt: skip
    assert names(graph, (8, 4)) == {"nms-rows"}
    assert names(graph, (8, 5)) == set()


def test_eye_like_of_two_dimensions() -> None:
    graph = model("y = EyeLike (x)", "(float[3,3] x) => (float[3,3] y)")
    assert names(graph, (10, 1)) == set()
    shapes = {(1, 3, 3): {"eye-like-form"}, (3, 3): set()}
    for shape, wanted in shapes.items():
        graph.inputs[0].shape = list(shape)
        site = Site(graph, graph.nodes[0], Known(shape))
        limit = next(limit for limit in LIMITS if limit.name == "eye-like-form")
        assert ({limit.name} if limit.holds(site) else set()) == wanted


class Known(Shapes):
    """One shape for every tensor: onnx infers no EyeLike of other ranks."""

    def __init__(self, known: tuple[int, ...]) -> None:
        self.known = known

    def shape(self, tensor: object) -> tuple[int | None, ...] | None:
        return self.known


def test_rewrites_are_for_rows_or_operators() -> None:
    rows = {limit.name for limit in LIMITS}
    assert {name for name in REWRITES if name[0].islower()} <= rows


# -- types -------------------------------------------------------------------------------------------------------------


def type_names(graph: Graph, version: Version) -> list[str]:
    return [limit.name for limit, _, _ in beyond_types(graph, version)]


@pytest.mark.parametrize(
    ("body", "signature", "version", "wanted"),
    [
        ("y = Cast <to = 1> (x)", "(uint8[2,3] x) => (float[2,3] y)", (8, 4), ["type"]),
        ("y = Cast <to = 1> (x)", "(uint8[2,3] x) => (float[2,3] y)", (8, 5), []),
        ("y = Cast <to = 2> (x)", "(float[2,3] x) => (uint8[2,3] y)", (8, 4), ["type"]),
        ("t = Transpose (x)\ny = Cast <to = 1> (t)", "(uint8[2,3] x) => (float[3,2] y)", (8, 5), ["bytes", "bytes"]),
        ("y = Cast <to = 6> (x)", "(uint8[2,3] x) => (int32[2,3] y)", (8, 5), ["bytes"]),
        ("y = Cast <to = 1> (x)", "(int16[2,3] x) => (float[2,3] y)", (10, 1), ["type"]),
        ("y = Cast <to = 1> (x)", "(bfloat16[2,3] x) => (float[2,3] y)", (8, 6), ["type"]),
        ("y = Cast <to = 1> (x)", "(bfloat16[2,3] x) => (float[2,3] y)", (10, 1), []),
        ("y = Relu (x)", "(double[2,3] x) => (double[2,3] y)", (8, 2), ["double", "double"]),
        ("y = Relu (x)", "(float[1,1,1,1,1,1,1,1,2] x) => (float[1,1,1,1,1,1,1,1,2] y)", (8, 2), ["rank", "rank"]),
        ("y = Relu (x)", "(float[1,1,1,1,1,1,1,2] x) => (float[1,1,1,1,1,1,1,2] y)", (8, 2), []),
    ],
)
def test_types(body: str, signature: str, version: Version, wanted: list[str]) -> None:
    assert type_names(model(body, signature), version) == wanted


def test_what_is_said_of_a_type() -> None:
    graph = model("y = Cast <to = 1> (x)", "(uint8[2,3] x) => (float[2,3] y)", opset=13)
    graph.ir_version = 7
    (finding,) = lint(graph, rules((8, 4), ORIN))
    assert (finding.where, finding.what, finding.fix) == (
        "tensor 'x'", "is uint8, which TensorRT 8.4 has not", "cast it to float32 or int32 in the network",
    )  # fmt: skip


def test_what_is_said_of_a_form() -> None:
    graph = model("p, i = MaxPool <kernel_shape = [2, 2]> (x)\nf = Cast <to = 1> (i)\n[a] y = Add (p, f)",
                  "(float[1,4,6,6] x) => (float[1,4,5,5] y)", opset=13)  # fmt: skip
    graph.ir_version = 7
    (finding,) = lint(graph, rules((8, 2), ORIN))
    assert finding.what == "gives the positions of its maxima, which TensorRT 8.2 does not"
    assert finding.fix == "replace it in the network"
    cubic = model('[r] y = Resize <mode = "cubic"> (x, , s)', LARGER, "float[4] s", opset=13, **LAST)
    cubic.ir_version = 7
    (finding,) = lint(cubic, rules((8, 2), ORIN))
    assert (finding.where, finding.what) == ("node 'r'", "is cubic, and TensorRT 8.2 knows nearest and linear")
    assert finding.fix == "replace it in the network, or compile for a board with TensorRT 8.5 or later"


PAGE = Path(__file__).parents[2] / "docs" / "tensorrt-parser.md"


def line_of(limit: Limit) -> str:
    """A row as the page has it."""
    until = "all" if limit.below is None else f"before {'.'.join(map(str, limit.below))}"
    what = limit.what.replace("{tensorrt}", "TensorRT")
    done = "spelled out" if limit.name in REWRITES else limit.advice if limit.fatal else f"noted: {limit.advice}"
    return f"| `{limit.name}` | {', '.join(limit.operators)} | {until} | {what} | {done} | {limit.source} |"


def test_the_page_has_every_row() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("| `") and line.count("|") == 7] == [line_of(o) for o in LIMITS]
    for limit in TYPE_LIMITS:
        assert any(line.startswith(f"| `{limit.name}` |") for line in lines)
