"""fold: BatchNormalization and arithmetic with constants, and MatMul with Add."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgec.ir.graph import Constant, Graph
from edgec.passes.fold.fold import Fold
from edgec.testing import assert_same, corrupt, did, missed, model, operators, run_pass

Check = Callable[[Graph, str], None]
STATISTICS = "float[4] gamma, float[4] beta, float[4] mean, float[4] var"
VAR = np.array([0.5, 1.0, 2.0, 3.0])


def folded(graph: Graph) -> tuple[Graph, list[tuple[str, str]], list[tuple[str, str]]]:
    before = graph.copy()
    ctx = run_pass(Fold(), graph)
    assert_same(before, graph)
    again = run_pass(Fold(), graph)
    assert did(again) == []
    return graph, did(ctx), missed(ctx)


@pytest.mark.parametrize(
    ("layer", "weight"),
    [
        ("Conv<pads=[1,1,1,1]>", "float[4,3,3,3] w"),
        ("ConvTranspose<strides=[2,2]>", "float[3,4,2,2] w"),
        ("ConvTranspose<group=2>", "float[4,2,2,2] w"),
    ],
)
def test_batch_normalization_into_a_convolution(filecheck: Check, layer: str, weight: str) -> None:
    channels = 4 if "group" in layer else 3
    graph = model(
        f"[conv] a = {layer}(x, w)\n[bn] b = BatchNormalization<epsilon=0.01>(a, gamma, beta, mean, var)\n"
        "[act] y = Relu(b)",
        f"(float[1,{channels},5,5] x) => (float[1,4,h,w] y)",
        f"{weight}, {STATISTICS}",
        var=VAR,
    )
    graph, done, left = folded(graph)
    assert done == [("bn", "folded into 'conv'")]
    assert left == []
    filecheck(
        graph,
        """
        CHECK-NOT: BatchNormalization
        CHECK: float[4] [[BIAS:conv.bias]] =
        CHECK: [conv] [[OUT:.+]] = Conv{{.*}}(x, w, [[BIAS]])
        CHECK-NEXT: [act] {{.*}}y = Relu ([[OUT]])
        """,
    )


def test_the_comparison_sees_a_corrupted_weight() -> None:
    graph = model(
        "[conv] a = Conv(x, w)\n[bn] y = BatchNormalization(a, gamma, beta, mean, var)",
        "(float[1,3,5,5] x) => (float[1,4,h,w] y)",
        f"float[4,3,3,3] w, {STATISTICS}",
        var=VAR,
    )
    before = graph.copy()
    run_pass(Fold(), graph)
    assert_same(before, graph)
    assert corrupt(graph).name == "w"
    with pytest.raises(AssertionError):
        assert_same(before, graph)


def test_batch_normalization_into_gemm_keeps_alpha_and_beta() -> None:
    graph = model(
        "[fc] a = Gemm<alpha=0.5, beta=2.0, transB=1>(x, w, c)\n[bn] y = BatchNormalization(a, gamma, beta, mean, var)",
        "(float[2,3] x) => (float[2,4] y)",
        f"float[4,3] w, float[4] c, {STATISTICS}",
        var=VAR,
    )
    graph, done, _ = folded(graph)
    assert done == [("bn", "folded into 'fc'")]
    assert operators(graph) == ["Gemm"]
    assert graph.outputs[0].name == "y"


def test_arithmetic_behind_a_layer_folds_in_one_go() -> None:
    graph = model(
        "[conv] a = Conv(x, w)\n[add] b = Add(a, c)\n[mul] d = Mul(s, b)\n[sub] e = Sub(two, d)\n[div] y = Div(e, two)",
        "(float[1,3,5,5] x) => (float[1,4,h,w] y)",
        "float[4,3,3,3] w, float[4,1,1] c, float[1,4,1,1] s, float two = {2}",
    )
    graph, done, left = folded(graph)
    assert [node for node, _ in done] == ["add", "mul", "sub", "div"]
    assert operators(graph) == ["Conv"]
    assert left == []


def test_batch_normalization_in_front_of_an_unpadded_convolution(filecheck: Check) -> None:
    graph = model(
        "[bn] a = BatchNormalization(x, gamma, beta, mean, var)\n[conv] y = Conv<group=2>(a, w, c)",
        "(float[1,4,5,5] x) => (float[1,6,h,w] y)",
        f"float[6,2,3,3] w, float[6] c, {STATISTICS}",
        var=VAR,
    )
    graph, done, _ = folded(graph)
    assert done == [("bn", "folded into 'conv'")]
    filecheck(graph, "CHECK-NOT: BatchNormalization\nCHECK: [conv] {{.*}} = Conv <group = 2> (x, w, c)")


def test_batch_normalization_read_by_two_layers_goes_into_both() -> None:
    graph = model(
        "[bn] a = BatchNormalization(x, gamma, beta, mean, var)\n"
        "[one] b = Conv(a, w)\n[two] c = Conv(a, v)\n[max] y = Max(b, c)",
        "(float[1,4,5,5] x) => (float[1,6,h,w] y)",
        f"float[6,4,3,3] w, float[6,4,3,3] v, {STATISTICS}",
        var=VAR,
    )
    graph, done, _ = folded(graph)
    assert done == [("bn", "folded into 'one', 'two'")]
    assert operators(graph) == ["Conv", "Conv", "Max"]


def test_shared_weights_stay_shared_where_the_scales_agree() -> None:
    text = (
        "[one] a = Conv(x, w)\n[bn1] b = BatchNormalization(a, gamma, beta, mean, var)\n"
        "[two] c = Conv(z, w)\n[bn2] d = BatchNormalization(c, gamma, {0}, mean, var)\n[add] y = Add(b, d)"
    )
    signature = "(float[1,3,5,5] x, float[1,3,5,5] z) => (float[1,4,h,w] y)"
    weights = f"float[4,3,3,3] w, {STATISTICS}, float[4] other"
    graph, done, _ = folded(model(text.format("other"), signature, weights, var=VAR))
    assert [node for node, _ in done] == ["bn1", "bn2"]
    one, two = graph.node("one"), graph.node("two")
    assert one is not None and two is not None
    assert one.inputs[1] is two.inputs[1]
    assert one.inputs[2] is not two.inputs[2]

    different = model(
        text.format("beta").replace("d = BatchNormalization(c, gamma", "d = BatchNormalization(c, other"),
        signature,
        weights,
        var=VAR,
    )
    different, _, _ = folded(different)
    one, two = different.node("one"), different.node("two")
    assert one is not None and two is not None
    assert one.inputs[1] is not two.inputs[1]


def test_weights_of_a_shared_layer_are_not_folded_twice() -> None:
    """The last reader of a shared weight may get another scale, then one that an earlier reader had."""
    graph = model(
        "[one] a = Conv(x, w)\n[m1] b = Mul(a, two)\n[two] c = Conv(z, w)\n[m2] d = Mul(c, three)\n"
        "[m3] e = Mul(d, two)\n[add] y = Add(b, e)",
        "(float[1,3,5,5] x, float[1,3,5,5] z) => (float[1,4,h,w] y)",
        "float[4,3,3,3] w, float two = {2}, float three = {3}",
    )
    graph, _, _ = folded(graph)
    assert operators(graph) == ["Conv", "Conv", "Add"]


def test_matmul_and_add_become_gemm(filecheck: Check) -> None:
    graph = model(
        "[fc] a = MatMul(x, w)\n[bias] y = Add(c, a)", "(float[2,3] x) => (float[2,4] y)", "float[3,4] w, float[4] c"
    )
    graph, done, _ = folded(graph)
    assert done == [("fc", "MatMul and 'bias' became one Gemm")]
    filecheck(graph, "CHECK: [fc] float[2,4] y = Gemm (x, w, c)\nCHECK-NEXT: }")


def test_matmul_of_three_dimensions_takes_up_a_scale_but_no_bias() -> None:
    graph = model(
        "[fc] a = MatMul(x, w)\n[scale] b = Mul(a, s)\n[bias] y = Add(b, c)",
        "(float[2,5,3] x) => (float[2,5,4] y)",
        "float[3,4] w, float[4] c, float[4] s",
    )
    graph, done, left = folded(graph)
    assert done == [("scale", "folded into 'fc'")]
    assert left == []
    assert operators(graph) == ["MatMul", "Add"]


def test_values_that_vary_along_the_width_are_left_alone() -> None:
    graph = model(
        "[conv] a = Conv(x, w)\n[mul] y = Mul(a, s)",
        "(float[1,3,6,6] x) => (float[1,4,4,4] y)",
        "float[4,3,3,3] w, float[4] s",
    )
    graph, done, left = folded(graph)
    assert (done, left) == ([], [])
    assert operators(graph) == ["Conv", "Mul"]


def test_an_operand_that_widens_the_data_is_left_alone() -> None:
    graph = model(
        "[conv] a = Conv(x, w)\n[mul] y = Mul(a, s)",
        "(float[1,3,6,6] x) => (float[1,4,4,4] y)",
        "float[1,3,3,3] w, float[1,4,1,1] s",
    )
    graph, done, _ = folded(graph)
    assert done == []


BN = "BatchNormalization(a, gamma, beta, mean, var)"
LEFT = {
    "other readers": (
        f"[conv] a = Conv(x, w)\n[bn] b = {BN}\n[add] y = Add(a, b)",
        "float[4,4,3,3] w",
        ("bn", "'conv' in front of it has other readers"),
    ),
    "padded": (
        f"[relu] a = Relu(x)\n[bn] b = {BN}\n[conv] y = Conv<pads=[1,1,1,1]>(b, w)",
        "float[4,4,3,3] w",
        ("bn", "'conv' pads with zeros, which the offset would turn into other values"),
    ),
    "transposed": (
        f"[relu] a = Relu(x)\n[bn] b = {BN}\n[up] y = ConvTranspose(b, w)",
        "float[4,4,3,3] w",
        ("bn", "an offset in front of the ConvTranspose 'up' comes out unevenly at its borders"),
    ),
    "no layer": (
        f"[relu] a = Relu(x)\n[bn] b = {BN}\n[act] y = Relu(b)",
        "",
        ("bn", "no layer that could take it up stands in front of it or behind it"),
    ),
    "training": (
        "[conv] a = Conv(x, w)\n[bn] y, m1, v1 = BatchNormalization<training_mode=1>(a, gamma, beta, mean, var)",
        "float[4,4,3,3] w",
        ("bn", "it is in training mode"),
    ),
    "computed statistics": (
        "[conv] a = Conv(x, w)\n[scale] g = ReduceMax<axes=[0,2,3],keepdims=0>(x)\n"
        "[bn] y = BatchNormalization(a, g, beta, mean, var)",
        "float[4,4,3,3] w",
        ("bn", "its statistics are computed when the network runs"),
    ),
    "computed bias": (
        f"[conv] a = Conv(x, w, g)\n[scale] g = ReduceMax<axes=[0,2,3],keepdims=0>(x)\n[bn] y = {BN}",
        "float[4,4,3,3] w",
        ("bn", "the bias of 'conv' is computed when the network runs"),
    ),
    "computed weights": (
        f"[twice] v = Add(w, g)\n[scale] g = ReduceMax<keepdims=0>(x)\n[conv] a = Conv(x, v)\n[bn] y = {BN}",
        "float[4,4,3,3] w",
        ("bn", "the weights of 'conv' are computed when the network runs"),
    ),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_is_reported_with_its_reason(case: str) -> None:
    body, weights, remark = LEFT[case]
    graph = model(
        body, "(float[1,4,6,6] x) => (float[n,4,h,w] y)", ", ".join(filter(None, (weights, STATISTICS))), var=VAR
    )
    graph.sort()
    before = operators(graph)
    ctx = run_pass(Fold(), graph)
    assert did(ctx) == []
    assert missed(ctx) == [remark]
    assert operators(graph) == before


def test_a_scale_that_leaves_the_range_of_half_floats_is_left() -> None:
    graph = model(
        "[conv] a = Conv(x, w)\n[mul] y = Mul(a, s)",
        "(float16[1,3,5,5] x) => (float16[1,4,h,w] y)",
        "float16[4,3,3,3] w, float16[4,1,1] s",
        w=np.full((4, 3, 3, 3), 60000),
        s=np.full((4, 1, 1), 4),
    )
    ctx = run_pass(Fold(), graph)
    assert missed(ctx) == [("mul", "the weights of 'conv' would leave the range of float16")]


def test_large_shared_weights_are_not_copied() -> None:
    graph = model(
        "[one] a = MatMul(x, w)\n[mul] b = Mul(a, s)\n[two] c = MatMul(x, w)\n[add] y = Add(b, c)",
        "(float[1,3000] x) => (float[1,1500] y)",
        "float[3000,1500] w, float[1500] s",
    )
    ctx = run_pass(Fold(), graph)
    assert missed(ctx) == [("mul", "'one' shares its 17 MiB of weights, which would have to be copied")]


def test_a_weight_that_the_caller_may_override_is_no_constant() -> None:
    graph = model(
        "[conv] a = Conv(x, w)\n[mul] y = Mul(a, two)",
        "(float[1,3,5,5] x) => (float[1,4,3,3] y)",
        "float[4,3,3,3] w, float two = {2}",
    )
    weight = next(c for c in graph.constants() if isinstance(c, Constant) and c.name == "w")
    graph.inputs.append(weight)
    ctx = run_pass(Fold(), graph)
    assert operators(graph) == ["Conv", "Mul"]
    assert did(ctx) == []
