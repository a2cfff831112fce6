"""Which channels hang together, and why some cannot be cut. That cuts are exact is tests/passes/test_cutting.py."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from networks.coupled import TEXTS, coupled

from edgec.ir.analyses import Analyses
from edgec.ir.channel_views import factors
from edgec.ir.channels import Channels, Group
from edgec.ir.coupling import Coupling
from edgec.ir.graph import Graph, Node, Variable
from edgec.testing import model, named

IMAGE = "(float[1,3,8,8] x) => (float[1,4,8,8] y)"


def results(nodes: list[Node]) -> str:
    return " ".join(node.outputs[0].name for node in nodes)


def shown(group: Group) -> str:
    """``name width`` (with ``x`` channels a unit), ``:`` who computes it ``>`` who reads it."""
    several = f"x{group.channels_per_unit}" if group.channels_per_unit > 1 else ""
    fixed = " fixed" if group.fixed else ""
    return (
        f"{group.name} {group.width}{several}{fixed}: {results(group.producers)} > {results(group.consumers)}".strip()
    )


EXPECTED = {
    "residual": ["a 8: a b t > b t y", "y 4 fixed: y >"],
    "dense concatenations": ["a 6: a > b y", "b 5: b > y", "y 4 fixed: y >"],
    "grouped": ["a 4x4: a > b", "b 6x4: b > y", "y 4 fixed: y >"],
    "depthwise": ["a 8: a b d > y", "y 4 fixed: y >"],
    "groups of the input": ["a 4x3: a > y", "y 4 fixed: y >"],
    "grouped to one a group": ["a 4x2: a b > y", "y 4 fixed: y >"],
    "shuffle": ["a 4x2: a > b", "b 3x4: b f > g", "g 4x2: g > y", "y 4 fixed: y >"],
    "shuffle of a plain convolution": ["b 4x3: b > y", "y 4 fixed: y >"],
    "squeeze and excitation": ["a 8: a s > q y", "q 4: q > s", "y 4 fixed: y >"],
    "squeeze and excitation by Gemm": ["a 8: a s > q y", "q 4: q > s", "y 4 fixed: y >"],
    "u-net": ["a 6: a > b y", "b 10: b > u", "u 4x2: u > h", "h 3x2: h > y", "y 4 fixed: y >"],
    "resized": ["a 6: a > y", "y 4 fixed: y >"],
    "flatten": ["a 6: a > g", "g 10: g > y", "y 5 fixed: y >"],
    "channels last": ["a 6: a > m", "m 7: m > y", "y 5 fixed: y >"],
    "one dimension": ["a 6: a > y", "y 4 fixed: y >"],
    "shared weights": ["a 6: a b c > b c y", "y 4 fixed: y >"],
    "split and sliced": ["a 12: a c > c y", "y 4 fixed: y >"],
    "even split": ["a 8: a > c b", "c 4 fixed: c b >"],
    "gated halves": ["a 4x2: a > y", "y 4 fixed: y >"],
    "pixel shuffle": ["a 3x4: a > y", "y 4 fixed: y >"],
    "pixel shuffle by hand": ["a 3x4: a > y", "y 4 fixed: y >"],
    "padded, tiled and expanded": ["a 6: a > y", "y 4 fixed: y >"],
    "group normalization by hand": ["a 4x3: a > y", "y 4 fixed: y >"],
    "dequantized weights": ["a 6: a > y", "y 4 fixed: y >"],
    "quantized activations": ["a 6: a > y", "y 4 fixed: y >"],
    "transposed products": ["a 9: a > m", "m 8: m > u", "u 5 fixed: u >"],
    "summed over channels": ["a 6: a >", "y 4 fixed: y >"],
}


@pytest.mark.parametrize("name", TEXTS)
def test_groups(name: str) -> None:
    groups = Channels(coupled(name)).groups
    assert [shown(group) for group in groups] == EXPECTED[name]
    assert groups[-1].fixed == "a model's output"


def test_roles_of_slots() -> None:
    group = Channels(coupled("depthwise")).groups[0]
    slots = {(slot.constant.name, slot.axis): (slot.role, slot.place) for slot in group.slots}
    assert slots == {
        ("w1", 0): ("produces", 1),
        ("b1", 0): ("rides", 2),
        ("w2", 0): ("produces", 1),
        ("b2", 0): ("rides", 2),
        ("slope", 0): ("rides", 1),
        ("w3", 0): ("produces", 1),
        ("w4", 1): ("consumes", 1),
    }
    # Two results of the multiplier for each channel.
    last = next(slot for slot in group.slots if slot.constant.name == "w4")
    np.testing.assert_array_equal(last.index, np.repeat(np.arange(8), 2))


def test_a_dequantized_weight_is_its_layers() -> None:
    group = Channels(coupled("dequantized weights")).groups[0]
    slots = {slot.constant.name: (slot.node.op, slot.role) for slot in group.slots}
    assert slots["q"] == ("Conv", "produces")
    assert slots["scales"] == slots["zeros"] == ("DequantizeLinear", "rides")


def test_a_shuffle_is_a_permutation() -> None:
    graph = coupled("shuffle of a plain convolution")
    channels = Channels(graph)
    ((group, axis, index),) = channels.of(named(graph, "e"))
    assert (group.name, axis) == ("b", 1)
    # Channel 4 g + c goes to 3 c + g; a unit is the place c in every g.
    np.testing.assert_array_equal(index, np.arange(12) // 3)
    ((_, _, before),) = channels.of(named(graph, "b"))
    np.testing.assert_array_equal(before, np.arange(12) % 4)
    ((_, axis, apart),) = channels.of(named(graph, "d"))
    assert axis == 1
    np.testing.assert_array_equal(apart, np.arange(4))


def test_a_flattened_channel_owns_its_pixels() -> None:
    graph = coupled("flatten")
    channels = Channels(graph)
    consumer = next(slot for slot in channels.groups[0].slots if slot.role == "consumes")
    np.testing.assert_array_equal(consumer.index, np.repeat(np.arange(6), 16))
    assert not consumer.index.flags.writeable


def test_parts_of_an_axis_that_are_not_the_groups() -> None:
    graph = coupled("dense concatenations")
    channels = Channels(graph)
    found = {group.name: index for group, _, index in channels.of(named(graph, "c2"))}
    np.testing.assert_array_equal(found["b"], [*range(5), *[-1] * 9])
    np.testing.assert_array_equal(found["a"], [*[-1] * 8, *range(6)])
    ride = next(slot for slot in channels.groups[0].slots if slot.constant.name == "v1")
    np.testing.assert_array_equal(ride.index, [-1, -1, -1, *range(6)])


def test_a_layer_of_which_a_part_is_fixed_is_in_two_groups() -> None:
    graph = model(
        "a = Conv(x, w1)\n y, rest = Split <axis = 1> (a, sizes)\n z = Conv(rest, w2)",
        "(float[1,3,8,8] x) => (float[1,4,8,8] y, float[1,2,8,8] z)",
        "float[10,3,1,1] w1, float[2,6,1,1] w2, int64[2] sizes = {4, 6}",
    )
    first, second, _ = Channels(graph).groups
    assert (first.name, first.width, first.fixed) == ("a", 6, None)
    assert (second.name, second.width, second.fixed) == ("a", 4, "a model's output")
    np.testing.assert_array_equal(first.slots[0].index, [-1, -1, -1, -1, *range(6)])


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        ("b = Softmax <axis = 1> (a)", "'b' (Softmax) mixes its channels"),
        ("b = LRN <size = 3> (a)", "'b' (LRN) mixes its channels"),
        ("b = LpNormalization <axis = 1> (a)", "'b' (LpNormalization) mixes its channels"),
        ("b = LayerNormalization <axis = 1> (a, g)", "'b' (LayerNormalization) mixes its channels"),
        ("m = ReduceMean <axes = [1]> (a)\n b = Sub(a, m)", "'m' (ReduceMean) mixes its channels"),
        ("m = ArgMax <axis = 1> (a)\n c = Cast <to = 1> (m)\n b = Sub(a, c)", "'m' (ArgMax) mixes its channels"),
        ("m = Shape(a)\n b = Identity(a)", "'m' reads its shape"),
        ("b, s, z = DynamicQuantizeLinear(a)", "'b' (DynamicQuantizeLinear) is not known to keep its channels apart"),
        ("b = Pad <mode = \"edge\"> (a, pads)\n", "'b' pads it"),
        ("b = CumSum(a, one)", "'b' (CumSum) is not known to keep its channels apart"),
        ("b = Reshape(a, odd)", "'b' cuts its axis across channels"),
        ("n = Neg(pads)\n b = Pad(a, n)", "what 'b' adds is computed when the network runs"),
        ("n = Neg(odd)\n b = Reshape(a, n)", "the shape that 'b' gives is computed when the network runs"),
        ("b = Conv <group = 6> (a, w6)\n d = Add(b, x6)", "a model's input"),
    ],
)  # fmt: skip
def test_reasons(between: str, reason: str) -> None:
    graph = model(
        f"a = Conv(x, w1)\n{between}\n e = Flatten(b)\n y = Cast <to = 1> (e)",
        "(float[1,3,8,8] x, float[1,6,8,8] x6) => (float[A,B] y)",
        """float[6,3,1,1] w1, float[6,1,1,1] w6, float[6,8,8] g,
        int64[8] pads = {0, 1, 0, 0, 0, 1, 0, 0}, int64[4] odd = {1, 4, 12, 8}, int64 one = {1}""",
    )
    graph.outputs = []  # or every reason would be that the channels reach the output
    assert [group.fixed for group in Channels(graph).groups if group.name == "a"] == [reason]


def test_quantized_operators() -> None:
    graph = model(
        """
        a = QLinearConv(x, s, z, w1, s6, z6, s, z, b1)
        b = QLinearConv <group = 6> (a, s, z, w2, s, z, s, z)
        f = Flatten(b)
        m = QLinearMatMul(f, s, z, w3, s8, z8, s, z)
        y = MatMulInteger(m, w4)""",
        "(uint8[1,3,2,2] x) => (int32[1,4] y)",
        """float s = {0.1}, uint8 z = {3}, uint8[6,3,1,1] w1, float[6] s6, uint8[6] z6, int32[6] b1, uint8[6,1,1,1] w2,
        uint8[24,8] w3, float[8] s8, uint8[8] z8, uint8[8,4] w4""",
    )
    groups = Channels(graph).groups
    assert [shown(group) for group in groups] == ["a 6: a b > m", "m 8: m > y", "y 4 fixed: y >"]
    assert {slot.constant.name for slot in groups[0].slots} == {"w1", "s6", "z6", "b1", "w2", "w3"}
    assert {slot.constant.name for slot in groups[1].slots} == {"w3", "s8", "z8", "w4"}
    consumer = next(slot for slot in groups[0].slots if slot.role == "consumes")
    np.testing.assert_array_equal(consumer.index, np.repeat(np.arange(6), 4))


def test_a_constant_that_is_not_folded_is_named() -> None:
    graph = model(
        "a = Conv(x, w1)\n k = Constant <value = float[6,1,1] {1, 2, 3, 4, 5, 6}> ()\n b = Mul(a, k)\n y = Conv(b, w2)",
        IMAGE,
        "float[6,3,1,1] w1, float[4,6,1,1] w2",
    )
    assert Channels(graph).groups[0].fixed == "'k' is a constant that 'fold' has not folded"


def test_what_a_subgraph_reads_is_fixed() -> None:
    graph = coupled("residual")
    inner = Graph(outputs=[named(graph, "s")], name="then")
    inner.share(graph)
    other = Graph(outputs=[named(graph, "s")], name="else")
    other.share(graph)
    condition = graph.const("condition", np.array(True))
    graph.op("If", [condition], name="choice", then_branch=inner, else_branch=other)
    assert Channels(graph).groups[0].fixed == "'choice' (If) reads it inside"


def test_one_channel_cannot_go() -> None:
    graph = model("a = Conv(x, w1)\n y = Conv(a, w2)", IMAGE, "float[1,3,1,1] w1, float[4,1,1,1] w2")
    assert Channels(graph).groups[0].fixed == "it is one channel"
    graph = model(
        "a = Conv(x, w1)\n b = Reshape(a, s)\n c = Transpose <perm = [1, 0]> (b)\n d = Flatten <axis = 0> (c)\n"
        " y = MatMul(d, w2)",
        "(float[1,3,1,1] x) => (float[1,5] y)",
        "float[6,3,1,1] w1, float[6,5] w2, int64[2] s = {6, 1}",
    )
    assert Channels(graph).groups[0].fixed is None


def test_an_overridable_weight_is_fixed() -> None:
    graph = coupled("flatten")
    weight = next(c for c in graph.constants() if c.name == "w2")
    graph.inputs.append(weight)
    assert [group.fixed for group in Channels(graph).groups] == [
        "a model's input",
        "a model's input",
        "a model's output",
    ]


def test_a_batch_of_unknown_size() -> None:
    graph = model(
        "a = Conv(x, w1)\n r = Relu(a)\n f = Reshape(r, rows)\n y = MatMul(f, w2)",
        "(float[N,3,8,8] x) => (float[N,5] y)",
        "float[6,3,1,1] w1, float[384,5] w2, int64[2] rows = {0, -1}",
    )
    assert [shown(group) for group in Channels(graph).groups] == ["a 6: a > y", "y 5 fixed: y >"]


def test_it_is_an_analysis() -> None:
    graph = coupled("residual")
    analyses = Analyses(graph)
    assert analyses.get(Channels) is analyses.get(Channels)
    assert analyses.computed == 2  # with the shapes


@pytest.mark.parametrize(
    ("before", "behind", "expected"),
    [
        ([1, 6, 2, 2], [1, 24], [(6, 1, 1), (2, 2, 1), (2, 3, 1)]),
        ([1, 12, 8], [1, 3, 4, 8], [(3, 1, 1), (4, 1, 2), (8, 2, 3)]),
        ([2, 4], [4, 2], [(2, 0, 0), (2, 1, 0), (2, 1, 1)]),
        ([6, 4], [4, 6], None),
        ([5], [5, 1, 1], [(5, 0, 0)]),
        ([1, 1], [1], []),
    ],
)
def test_factors_of_a_reshape(before: list[int], behind: list[int], expected: Any) -> None:
    assert factors(before, behind) == expected


def test_the_carrier_of_a_product() -> None:
    coupling = Coupling()
    whole, other, outer, inner = (coupling.dimension(n) for n in (12, 12, 3, 4))
    coupling.merge(whole, (outer, inner), "apart")
    coupling.merge(other, (inner, outer), "together")
    coupling.fix(coupling.dimension(5), "nothing to do with it")
    units = coupling.settle()
    np.testing.assert_array_equal(units.of(whole), np.tile(units.of(inner), 3))
    np.testing.assert_array_equal(units.of(other), np.repeat(units.of(inner), 3))
    assert units.fixed[units.of(outer)].all()
    assert not units.fixed[units.of(whole)].any()
    assert units.reason(int(units.of(outer)[0])) == "apart"


def test_a_fixed_factor_leaves_it_to_the_other() -> None:
    coupling = Coupling()
    whole, outer, inner = (coupling.dimension(n) for n in (12, 3, 4))
    coupling.merge(whole, (outer, inner), "apart")
    coupling.fix(inner, "summed")
    units = coupling.settle()
    np.testing.assert_array_equal(units.of(whole), np.repeat(units.of(outer), 4))
    both = Coupling()
    whole, outer, inner = (both.dimension(n) for n in (12, 3, 4))
    both.merge(whole, (outer, inner), "apart")
    both.fix(inner, "summed")
    both.fix(outer, "read")
    assert both.settle().fixed.all()


def blocks(count: int) -> Graph:
    """Residual blocks of four nodes, a shuffle among them, one weight a layer."""
    graph = Graph(inputs=[Variable("x", np.float32, [1, 8, 4, 4])], opset=17)
    last = graph.inputs[0]
    weight = np.ones((8, 8, 1, 1), np.float32)
    for index in range(count):
        a = graph.op("Conv", [last, graph.const("w", weight)], name=f"a{index}")
        b = graph.op("Conv", [graph.op("Relu", [a]), graph.const("w", weight)], name=f"b{index}")
        if index % 10 == 9:
            b = graph.op("Reshape", [b, graph.const("s", np.array([1, 2, 4, 4, 4]))])
            b = graph.op("Transpose", [b], perm=[0, 2, 1, 3, 4])
            b = graph.op("Reshape", [b, graph.const("s", np.array([1, 8, 4, 4]))])
        last = graph.op("Add", [a, b])
    graph.outputs = [last]
    last.dtype, last.shape = np.dtype(np.float32), [1, 8, 4, 4]
    return graph


def test_work_grows_with_the_number_of_nodes() -> None:
    def calls(graph: Graph) -> int:
        analyses = Analyses(graph)
        count = 0

        def counting(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event.endswith("call")

        sys.setprofile(counting)
        try:
            analyses.get(Channels)
        finally:
            sys.setprofile(None)
        return count

    quarter, whole = blocks(250), blocks(1000)
    assert len(whole.nodes) > 4000
    assert calls(whole) < 5 * calls(quarter)
