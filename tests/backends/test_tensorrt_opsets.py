"""Older opsets: a walk through onnx's own schemas that leaves nothing out, and the values of what is written anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest

from edgec.backends.defined_operators import is_defined
from edgec.backends.registry import target
from edgec.backends.tensorrt import legalize
from edgec.backends.tensorrt.half import in_half
from edgec.backends.tensorrt.older_opset import default, lower_opset, needed_opset, schema_of, takes
from edgec.backends.tensorrt.opset_rules import MEANINGS, NEW_OPERATORS, REFUSED, RULES
from edgec.backends.tensorrt.parser_limits import LIMITS
from edgec.backends.tensorrt.spelling import REWRITES
from edgec.backends.tensorrt.versions import rules
from edgec.ir.errors import EmitError
from edgec.ir.execution import seeded_feeds
from edgec.ir.files import to_bytes
from edgec.ir.shapes import Shapes
from edgec.passes.framework.settling import settle
from edgec.testing import assert_same, model, outputs

ORIN = target("jetson-orin-nano")
TARGETS = (13, 17)
# Bodies that ONNX gives an operator are of newer opsets; these are what a rule of the attribute or input is in.
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
RULED = {
    *((f"Reduce{kind}", name) for kind in _REDUCTIONS for name in ("axes", "noop_with_empty_axes")),
    *(("QuantizeLinear", name) for name in ("saturate", "output_dtype", "precision", "block_size")),
    *(("DequantizeLinear", name) for name in ("block_size", "output_dtype")),
    *((op, name) for op in ("Cast", "CastLike") for name in ("saturate", "round_mode")),
    ("Reshape", "allowzero"),
    ("Split", "num_outputs"),
    ("Pad", "axes"),
    ("Resize", "axes"),
    ("Shape", "start"),
    ("Shape", "end"),
    ("AveragePool", "dilations"),
    ("LpPool", "dilations"),
    ("GridSample", "mode"),
    ("ScatterND", "reduction"),
    ("ScatterElements", "reduction"),
}
# What is new and says nothing of what is computed from the same inputs, or is spelled out before.
SPELLED = {
    ("BatchNormalization", "training_mode"): "batch-norm-training",
    ("RoiAlign", "coordinate_transformation_mode"): "SINCE",
    ("GRU", "layout"): "recurrent-layout",
    ("LSTM", "layout"): "recurrent-layout",
    ("RNN", "layout"): "recurrent-layout",
    ("GroupNormalization", "stash_type"): "GroupNormalization",
    ("Resize", "antialias"): "resize-antialias",
    ("Resize", "keep_aspect_ratio_policy"): "resize-aspect-ratio",
}


def changes() -> Iterator[tuple[str, int, int, str]]:
    """Operator, version, target and what is new: '' for the operator itself, 'types', 'text', or a feature's name."""
    history: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            history.setdefault(schema.name, []).append(schema)
    for op, versions in sorted(history.items()):
        versions.sort(key=lambda schema: schema.since_version)
        for wanted in TARGETS:
            for before, now in zip([None, *versions], versions, strict=False):
                if now.since_version <= wanted:
                    continue
                if before is None:
                    yield op, now.since_version, wanted, ""
                else:
                    yield from ((op, now.since_version, wanted, each) for each in differences(before, now))


def differences(before: onnx.defs.OpSchema, now: onnx.defs.OpSchema) -> Iterator[str]:
    named = [name for name in now.attributes if name not in before.attributes]
    named += [name for name in now.attributes if name in before.attributes
              and default(now, name) != default(before, name)]  # fmt: skip
    named += [formal.name for formal in list(now.inputs)[len(before.inputs) :] if formal.name not in named]
    yield from named
    types = [[{c.type_param_str: frozenset(c.allowed_type_strs)} for c in each.type_constraints]
             for each in (before, now)]  # fmt: skip
    if types[0] != types[1]:
        yield "types"
    elif not named and len(before.inputs) == len(now.inputs):
        yield "text"


CHANGES = sorted(set(changes()))


def test_the_walk_sees_what_it_must() -> None:
    assert onnx.defs.onnx_opset_version() >= 25
    assert ("Reshape", 14, 13, "allowzero") in CHANGES
    assert ("Pad", 18, 17, "axes") in CHANGES
    assert ("Pad", 19, 17, "text") in CHANGES
    assert ("GridSample", 20, 17, "mode") in CHANGES
    assert ("Attention", 23, 17, "") in CHANGES
    assert len(CHANGES) > 400


@pytest.mark.parametrize("wanted", TARGETS)
def test_every_change_has_a_rule_or_a_refusal(wanted: int) -> None:
    missing = [change for change in CHANGES if change[2] == wanted and not handled(*change)]
    assert missing == []


def handled(op: str, version: int, wanted: int, change: str) -> bool:
    new = schema_of(op, wanted) is None  # it is spelled out whole, whatever it has
    if new or change == "":
        spelled = op in REWRITES or is_defined(op, max(version, 24)) or op in NEW_OPERATORS
        return spelled or needed_later(op, wanted)
    if change == "types":
        return True  # test_every_new_type: by the schemas, for whatever operator
    if change == "text":
        return (op, version) in MEANINGS
    key = (op, change)
    return key in REFUSED or (key in RULED and op in RULES) or key in SPELLED


def needed_later(op: str, wanted: int) -> bool:
    """An operator that some TensorRT knows is emitted in the opset that has it."""
    return schema_of(op, 20) is not None and op in rules((10, 1), ORIN).operators


def test_tables_name_what_there_is() -> None:
    rows = {limit.name for limit in LIMITS}
    for name in SPELLED.values():
        assert name in rows or name in REWRITES or name == "SINCE"
    named = {(op, change) for op, _, _, change in CHANGES}
    assert {key for key in RULED if key not in named} == set()
    allowed = {("Pad", "mode"), ("Cast", "to")}
    assert {key for key in REFUSED if key not in named} <= allowed
    assert {op for op in NEW_OPERATORS if schema_of(op, 13) is not None} == set()
    for what, fix in (*REFUSED.values(), *NEW_OPERATORS.values()):
        assert what and fix and "report" not in fix


# -- types -------------------------------------------------------------------------------------------------------------

ELEMENTS = {"float16": 10, "int8": 3, "uint8": 2, "int16": 5, "uint16": 4, "bool": 9}
TYPED = [
    ("Add", "int8"), ("Mul", "uint8"), ("Sub", "int16"), ("Div", "uint16"),
    ("ReduceMax", "bool"), ("ReduceMin", "bool"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "dtype"), TYPED)
def test_every_new_type(op: str, dtype: str) -> None:
    """A type that the older operator has not is computed in a wider one, and comes out as it was."""
    second = "" if op.startswith("Reduce") else ", k"
    body = f"t = Mul (x, h)\nc = Cast <to = {ELEMENTS[dtype]}> (t)\nk = Cast <to = {ELEMENTS[dtype]}> (f)\n"
    body += f"v = {op} (c{second})\ny = Cast <to = 1> (v)"
    signature = "(float[2,8] x) => (float[A,B] y)"
    graph = model(body, signature, "float h, float[8] f", opset=20, h=9, f=[1, 2, 3, 4, 5, 6, 7, 100])
    before = graph.copy()
    lower_opset(graph, 13, "board")
    settle(graph, "opset 13")
    message = Shapes(graph)
    assert all(takes(n.op, 13, p, str(message.dtype(t))) for n in graph.nodes for p, t in enumerate(n.inputs) if t.name)
    assert np.array_equal(outputs(before)["y"], outputs(graph)["y"])


def test_types_of_one_after_the_other() -> None:
    body = "c = Cast <to = 3> (x)\na = Add (c, c)\nb = Mul (a, a)\ny = Cast <to = 1> (b)"
    graph = model(body, "(float[4] x) => (float[4] y)", opset=14)
    before = graph.copy()
    lower_opset(graph, 13, "board")
    settle(graph, "opset 13")
    known = Shapes(graph)
    assert {known.dtype(node.inputs[0]) for node in graph.nodes if node.op in ("Add", "Mul")} == {np.dtype(np.int32)}
    feeds = {"x": np.array([1, 5, 50, -70], np.float32)}
    assert np.array_equal(outputs(before, feeds)["y"], outputs(graph, feeds)["y"])


def test_float16_that_came_later_is_computed_in_float32() -> None:
    body = "h = Cast <to = 10> (x)\nc = CumSum (h, a)\ny = Cast <to = 1> (c)"
    graph = model(body, "(float[2,8] x) => (float[2,8] y)", "int64 a", opset=14, a=1)
    lower_opset(graph, 13, "board")
    settle(graph, "opset 13")
    assert [node.op for node in graph.nodes] == ["Cast", "Cast", "CumSum", "Cast", "Cast"]
    given = seeded_feeds(graph, samples=1)[0]
    exact = np.cumsum(given["x"].astype(np.float16).astype(np.float32), axis=1).astype(np.float16)
    assert np.array_equal(outputs(graph, given)["y"], exact.astype(np.float32))


def test_float16_of_a_newer_opset_is_not_written_into_an_older_one() -> None:
    """IsInf takes FP16 from opset 20 on: in a file of opset 13 it reads FP32."""
    graph = model("i = IsInf (x)\nw = Where (i, x, z)\ny = Sqrt (w)", "(float[4] x) => (float[4] y)", "float z",
                  opset=17, z=1)  # fmt: skip
    in_half(graph)
    settle(graph, "half")
    kinds = {node.op: node.inputs[0].dtype for node in graph.nodes}
    assert (kinds["IsInf"], kinds["Sqrt"]) == (np.float32, np.float16)


# -- values ------------------------------------------------------------------------------------------------------------

IMAGE = "(float[1,4,6,6] x) => (float[1,4,6,6] y)"
QUANTIZED = "y = DequantizeLinear (q, s, z)"
VALUES: list[tuple[str, int, str, str, dict[str, Any]]] = [
    ("y = Reshape <allowzero = 1> (x, s)", 18, "(float[1,4,6,6] x) => (float[1,144] y)", "int64[2] s", {"s": [1, 144]}),
    ("y = Reshape <allowzero = 1> (x, s)", 18, "(float[1,4,6,6] x) => (float[6,24] y)", "int64[2] s", {"s": [6, -1]}),
    ("y = ReduceMean (x, a)", 18, "(float[1,4,6,6] x) => (float[1,1,6,1] y)", "int64[2] a", {"a": [1, -1]}),
    ("y = ReduceMean (x, a)", 18, "(float[1,4,6,6] x) => (float[1,1,1,1] y)", "int64[0] a", {"a": []}),
    ("y = ReduceL2 <noop_with_empty_axes = 1> (x)", 18, IMAGE, "", {}),
    ("y = ReduceSumSquare <noop_with_empty_axes = 1> (x)", 18, IMAGE, "", {}),
    ("y = ReduceLogSum <noop_with_empty_axes = 1> (x)", 18, IMAGE, "", {}),
    ("y = ReduceLogSumExp <noop_with_empty_axes = 1> (x)", 18, IMAGE, "", {}),
    ("a, b = Split <axis = 1, num_outputs = 2> (x)\ny = Concat <axis = 1> (b, a)", 18, IMAGE, "", {}),
    ('y = Pad <mode = "reflect"> (x, p, , a)', 18, "(float[1,4,6,6] x) => (float[1,4,7,9] y)", "int64[4] p, int64[2] a",
     {"p": [1, 2, 0, 1], "a": [2, 3]}),
    ("y = Pad (x, p, v, a)", 19, "(float[1,4,6,6] x) => (float[1,4,6,9] y)", "int64[2] p, float v, int64[1] a",
     {"p": [1, 2], "v": 0.5, "a": [-1]}),
    ('y = Resize <axes = [2, 3], mode = "linear"> (x, , s)', 18, "(float[1,4,6,6] x) => (float[1,4,12,9] y)",
     "float[2] s", {"s": [2, 1.5]}),
    ('y = Resize <axes = [-1, 2]> (x, , , s)', 19, "(float[1,4,6,6] x) => (float[1,4,12,9] y)", "int64[2] s",
     {"s": [9, 12]}),
    ("y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], dilations = [1, 1]> (x)", 19, IMAGE, "", {}),
    ("y = LpPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], dilations = [1, 1]> (x)", 18, IMAGE, "", {}),
    ("y = Cast <to = 1, saturate = 1> (x)", 19, IMAGE, "", {}),
    ("i = Mul (x, n)\nj = Cast <to = 6> (i)\nr = Relu (j)\ny = Cast <to = 1> (r)", 17, IMAGE, "float[6] n",
     {"n": [9, -9, 3, -3, 1, -1]}),
    ("q = QuantizeLinear <output_dtype = 3> (x, s)\ny = DequantizeLinear (q, s)", 21, IMAGE, "float s",
     {"s": 0.01}),
    ("h = Cast <to = 10> (x)\nq = QuantizeLinear (h, s, z)\nd = DequantizeLinear (q, s, z)\ny = Cast <to = 1> (d)", 19,
     IMAGE, "float16 s, int8 z", {"s": 0.0078125, "z": 0}),
    ('y = ScatterND <reduction = "none"> (x, i, u)', 18, "(float[5,3] x) => (float[5,3] y)",
     "int64[2,1] i, float[2,3] u", {"i": [[1], [4]]}),
    ("s = Shape <start = 0> (x)\ny = Cast <to = 1> (s)", 19, "(float[1,4,6,6] x) => (float[4] y)", "", {}),
]  # fmt: skip


@pytest.mark.parametrize("wanted", TARGETS)
@pytest.mark.parametrize(("body", "opset", "signature", "weights", "values"), VALUES, ids=lambda v: str(v)[:40])
def test_an_older_opset_computes_the_same(
    body: str, opset: int, signature: str, weights: str, values: dict[str, Any], wanted: int
) -> None:
    graph = model(body, signature, weights, opset=opset, **values)
    before = graph.copy()
    lower_opset(graph, wanted, "board")
    settle(graph, f"opset {wanted}")
    assert graph.opset == wanted
    onnx.checker.check_model(onnx.load_from_string(to_bytes(graph)), full_check=True)
    assert_same(before, graph, tolerance=1e-6)


@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
def test_names_of_sampling_modes(mode: str) -> None:
    graph = model(f'y = GridSample <mode = "{mode}"> (x, g)', "(float[1,2,5,5] x) => (float[1,2,4,3] y)",
                  "float[1,4,3,2] g", opset=20)  # fmt: skip
    before = graph.copy()
    assert needed_opset(graph, 13) == 16
    lower_opset(graph, 16, "board")
    settle(graph, "opset 16")
    assert graph.nodes[0].attrs["mode"] == {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    assert_same(before, graph, tolerance=1e-6)


@pytest.mark.parametrize(
    ("body", "opset", "wanted"),
    [
        ('y = RoiAlign <coordinate_transformation_mode = "half_pixel"> (x, r, i)', 17, 16),
        ("y = RoiAlign (x, r, i)", 17, 16),
        ('y = RoiAlign <coordinate_transformation_mode = "output_half_pixel"> (x, r, i)', 17, 13),
    ],
)
def test_the_oldest_opset_that_means_the_same(body: str, opset: int, wanted: int) -> None:
    graph = model(body, "(float[1,2,5,5] x) => (float[1,2,1,1] y)", "float[1,4] r, int64[1] i", opset=opset,
                  r=[[0, 0, 3, 3]], i=[0])  # fmt: skip
    before = graph.copy()
    assert needed_opset(graph, 13) == wanted
    lower_opset(graph, wanted, "board")
    settle(graph, f"opset {wanted}")
    assert_same(before, graph, tolerance=1e-6)


@pytest.mark.parametrize(
    ("body", "opset", "signature", "weights", "said"),
    [
        (
            'y = Pad <mode = "wrap"> (x, p)', 19, "(float[1,4,6,6] x) => (float[1,4,6,7] y)", "int64[8] p",
            "wraps around, which Pad has not in opset 13; pin the network's shapes with --input",
        ),
        (
            "y = LpPool <kernel_shape = [3, 3], pads = [2, 2, 2, 2], dilations = [2, 2]> (x)", 18, IMAGE, "",
            "is dilated, which LpPool has not in opset 13; replace it in the network",
        ),
        (
            'y = Cast <to = 1> (c)\nc = Cast <to = 17> (x)', 19, IMAGE, "",
            "casts to float8, which Cast has not in opset 13; export the network in float32",
        ),
    ],
)  # fmt: skip
def test_what_an_older_opset_cannot_say(body: str, opset: int, signature: str, weights: str, said: str) -> None:
    if body.startswith("y = Cast"):
        body = "\n".join(reversed(body.split("\n")))
    graph = model(body, signature, weights, opset=opset, p=[0, 0, 0, 0, 0, 0, 0, 1])
    graph.nodes[0].name = "n"
    with pytest.raises(EmitError) as caught:
        lower_opset(graph, 13, "jetson-nano")
    assert str(caught.value) == f"jetson-nano: node 'n': {said}"


# -- operators that came later -----------------------------------------------------------------------------------------

VECTOR = "(float[2,3,8] x) => (float[2,3,8] y)"
HEADS = "(float[1,2,5,4] q, float[1,2,5,4] k, float[1,2,5,4] v) => (float[1,2,5,4] y)"
NEWER: list[tuple[str, int, str, str, dict[str, Any]]] = [
    ("y = Swish <alpha = 1.5> (x)", 24, VECTOR, "", {}),
    ("y = RMSNormalization <axis = 1, epsilon = 0.01> (x, w)", 23, VECTOR, "float[3,8] w", {}),
    ("y = GroupNormalization <num_groups = 2> (x, w, b)", 21, IMAGE, "float[4] w, float[4] b", {}),
    ("y, m, v = BatchNormalization <training_mode = 1> (x, s, b, e, d)", 15,
     "(float[3,4,6,6] x) => (float[3,4,6,6] y, float[4] m, float[4] v)",
     "float[4] s, float[4] b, float[4] e, float[4] d", {}),
    ("r = RMSNormalization (x, w)\nl = LayerNormalization (r, w)\ng = Gelu (l)\ns = CastLike (g, l)\n"
     "y = LayerNormalization (s, w)", 23, VECTOR, "float[8] w", {}),
    ("y = Trilu (x)", 14, VECTOR, "", {}),
    ("y = Trilu <upper = 0> (x, k)", 14, VECTOR, "int64 k", {"k": -1}),
    ("i = Cast <to = 7> (x)\nj = CastLike (i, x)\ny = Add (j, x)", 21, VECTOR, "", {}),
    ("y = Attention <is_causal = 1> (q, k, v)", 23, HEADS, "", {}),
    ("y = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v, m)", 23,
     "(float[1,5,8] q, float[1,5,8] k, float[1,5,8] v) => (float[1,5,8] y)", "float[5,5] m", {}),
    ("y = Attention <is_causal = 1> (q, k, v)", 24,
     "(float[1,4,5,4] q, float[1,2,5,4] k, float[1,2,5,4] v) => (float[1,4,5,4] y)", "", {}),
    ("y = RotaryEmbedding (x, c, s)", 23, "(float[1,2,5,4] x) => (float[1,2,5,4] y)", "float[1,5,2] c, float[1,5,2] s",
     {}),
    ("y = CenterCropPad <axes = [2, 3]> (x, s)", 18, "(float[1,4,6,6] x) => (float[1,4,4,8] y)", "int64[2] s",
     {"s": [4, 8]}),
    ("y = Col2Im <pads = [1, 0, 1, 0], strides = [2, 1]> (x, i, b)", 18, "(float[2,12,12] x) => (float[2,2,6,5] y)",
     "int64[2] i, int64[2] b", {"i": [6, 5], "b": [2, 3]}),
    ("y = AffineGrid (t, s)", 20, "(float[1,2,3] t) => (float[1,4,5,2] y)", "int64[4] s", {"s": [1, 2, 4, 5]}),
    ("h = HammingWindow (n)\ny = Add (x, h)", 17, VECTOR, "int64 n", {"n": 8}),
    ("y = Hardmax <axis = 1> (x)", 17, VECTOR, "", {}),
    ("y = Shrink <bias = 0.1, lambd = 0.3> (x)", 17, VECTOR, "", {}),
    ("y = MeanVarianceNormalization <axes = [0, 2, 3]> (x)", 17, IMAGE, "", {}),
    ("a = Less (x, z)\nb = Greater (x, h)\nc = Xor (a, b)\ny = Cast <to = 1> (c)", 17, VECTOR, "float z, float h",
     {"z": 0.2, "h": 0.6}),
    ("d = Div (x, z)\na = IsInf <detect_negative = 0> (d)\ny = Cast <to = 1> (a)", 17, VECTOR, "float[8] z",
     {"z": [0, 0, 1, 1, 2, 2, 0, 1]}),
    ("d = Div (x, z)\ne = Cast <to = 11> (d)\na = IsInf (e)\ny = Cast <to = 1> (a)", 17, VECTOR, "float[8] z",
     {"z": [0, 0, 1, 1, 2, 2, 0, 1]}),
    ("i = Cast <to = 7> (x)\ny = OneHot <axis = 1> (i, d, v)", 17, "(float[2,3] x) => (float[2,4,3] y)",
     "int64 d, float[2] v", {"d": 4, "v": [0.5, 2]}),
    *((f"i = Mul (x, t)\nj = Cast <to = 7> (i)\ns = Sub (j, f)\nm = Mod <fmod = {fmod}> (s, n)\ny = Cast <to = 1> (m)",
       17, VECTOR, "float t, int64 f, int64[8] n", {"t": 20, "f": 10, "n": [3, -3, 4, -4, 5, -5, 7, -7]})
      for fmod in (0, 1)),
    ("y = Mish (x)", 18, VECTOR, "", {}),
    ("y = HardSwish (x)", 14, VECTOR, "", {}),
    ('y = Gelu <approximate = "tanh"> (x)', 20, VECTOR, "", {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "opset", "signature", "weights", "values"), NEWER, ids=lambda v: str(v)[:40])
def test_operators_that_came_later(body: str, opset: int, signature: str, weights: str, values: dict[str, Any]) -> None:
    """Spelled out for TensorRT 8.2, and brought down to opset 13."""
    graph = model(body, signature, weights, opset=opset, **values)
    before = graph.copy()
    assert legalize.rewrite(graph, rules((8, 2), ORIN), "board") > 0
    settle(graph, "legalize")
    lower_opset(graph, 13, "board")
    settle(graph, "opset 13")
    assert legalize.missing_operators(graph.graphs(), rules((8, 2), ORIN)) == []
    assert_same(before, graph, tolerance=3e-6)
