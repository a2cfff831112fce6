"""factorize: the chains that it writes, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgec.ir.cost import Cost
from edgec.ir.errors import UsageError
from edgec.ir.execution import seeded_feeds, sqnr_db
from edgec.ir.graph import Constant, Graph
from edgec.passes.factorize.factorize import Factorize
from edgec.passes.framework.planner import make
from edgec.testing import assert_same, corrupt, did, missed, model, operators, outputs, run_pass

Check = Callable[[Graph, str], None]


def low_rank(*shape: int, ranks: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A kernel (out, in, ...) that Tucker-2 of those ranks (out, in) gives back exactly."""
    random = np.random.default_rng(seed)
    core = random.standard_normal((*ranks, *shape[2:]))
    left, right = random.standard_normal((shape[0], ranks[0])), random.standard_normal((shape[1], ranks[1]))
    kernel = np.tensordot(left, np.moveaxis(np.tensordot(right, core, (1, 1)), 0, 1), (1, 0))
    return kernel / np.sqrt(np.prod(shape[1:]) * np.prod(ranks))


def factorized(graph: Graph, step: Factorize, tolerance: float = 1e-5) -> Any:
    before = graph.copy()
    ctx = run_pass(step, graph)
    assert_same(before, graph, tolerance=tolerance)
    return ctx


def test_a_convolution_becomes_three(filecheck: Check) -> None:
    graph = model(
        "[conv] a = Conv<pads=[1,2,1,2], strides=[2,1], dilations=[1,2]>(x, w, b)\n[act] y = Relu(a)",
        "(float[1,12,9,9] x) => (float[1,16,h,w] y)",
        "float[16,12,3,3] w, float[16] b",
        w=low_rank(16, 12, 3, 3, ranks=(5, 4)),
    )
    ctx = factorized(graph, Factorize(energy=1 - 1e-9))
    [remark] = ctx.done
    assert (remark.node, remark.what) == ("conv", "Tucker-2, ranks 4 and 5")
    assert remark.figures["params_before"] == 16 * 12 * 9
    assert remark.figures["params_after"] == 4 * 12 + 5 * 4 * 9 + 16 * 5
    assert remark.figures["relative_error"] < 1e-5
    filecheck(
        graph,
        """
        CHECK: float[4,12,1,1] [[FIRST:w.tucker.first]]
        CHECK: [conv.tucker.first] {{.*}}[[A:conv.tucker.first.out]] = Conv <kernel_shape = [1, 1]> (x, [[FIRST]])
        CHECK: float[5,4,3,3] [[CORE:w.tucker.core]]
        CHECK: [conv.tucker.core] {{.*}}[[B:conv.tucker.core.out]] = Conv
        CHECK-SAME: <dilations = [1, 2], pads = [1, 2, 1, 2], strides = [2, 1]> ([[A]], [[CORE]])
        CHECK: float[16,5,1,1] [[LAST:w.tucker.last]]
        CHECK: [conv.tucker.last] {{.*}}a = Conv <kernel_shape = [1, 1]> ([[B]], [[LAST]], b)
        CHECK: [act] {{.*}}y = Relu (a)
        """,
    )


def test_a_mode_of_full_rank_has_no_layer_of_its_own() -> None:
    graph = model(
        "[conv] y = Conv<pads=[1,1,1,1]>(x, w, b)",
        "(float[1,3,8,8] x) => (float[1,32,8,8] y)",
        "float[32,3,3,3] w, float[32] b",
        w=low_rank(32, 3, 3, 3, ranks=(6, 3)),
    )
    factorized(graph, Factorize(energy=1 - 1e-9))
    assert [node.name for node in graph.nodes] == ["conv.tucker.core", "conv.tucker.last"]


def test_a_transposed_convolution_becomes_three(filecheck: Check) -> None:
    kernel = low_rank(12, 16, 3, 3, ranks=(4, 5)).transpose(1, 0, 2, 3)
    graph = model(
        "[up] y = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(x, w, b)",
        "(float[1,16,5,5] x) => (float[1,12,10,10] y)",
        "float[16,12,3,3] w, float[12] b",
        w=kernel,
    )
    ctx = factorized(graph, Factorize(energy=1 - 1e-9))
    assert did(ctx) == [("up", "Tucker-2, ranks 5 and 4")]
    filecheck(
        graph,
        """
        CHECK: [up.tucker.first] {{.*}} = Conv <kernel_shape = [1, 1]> (x, w.tucker.first)
        CHECK: float[5,4,3,3] w.tucker.core
        CHECK: [up.tucker.core] {{.*}} = ConvTranspose <output_padding = [1, 1], {{.*}}strides = [2, 2]>
        CHECK: [up.tucker.last] {{.*}} y = Conv <kernel_shape = [1, 1]> ({{.*}}, w.tucker.last, b)
        """,
    )


MATRICES = {
    "pointwise": (
        "Conv<strides=[2,2], pads=[1,1,1,1]>(x, w, b)",
        "(float[1,12,7,7] x) => (float[1,16,h,w] y)",
        "float[16,12,1,1] w, float[16] b",
        lambda m: m[:, :, None, None],
    ),
    "pointwise transposed": (
        "ConvTranspose<strides=[2,2]>(x, w, b)",
        "(float[1,12,7,7] x) => (float[1,16,h,w] y)",
        "float[12,16,1,1] w, float[16] b",
        lambda m: m.T[:, :, None, None],
    ),
    "one-dimensional": (
        "Conv(x, w, b)",
        "(float[1,12,7] x) => (float[1,16,7] y)",
        "float[16,12,1] w, float[16] b",
        lambda m: m[:, :, None],
    ),
    "gemm": (
        "Gemm<transB=1, alpha=0.5, beta=2.0>(x, w, b)",
        "(float[3,12] x) => (float[3,16] y)",
        "float[16,12] w, float[16] b",
        lambda m: m,
    ),
    "gemm as stored": (
        "Gemm<transA=1>(x, w)",
        "(float[12,3] x) => (float[3,16] y)",
        "float[12,16] w",
        lambda m: m.T,
    ),
    "matmul": ("MatMul(x, w)", "(float[2,5,12] x) => (float[2,5,16] y)", "float[12,16] w", lambda m: m.T),
    "matmul from the left": ("MatMul(w, x)", "(float[2,12,5] x) => (float[2,16,5] y)", "float[16,12] w", lambda m: m),
}


@pytest.mark.parametrize("case", MATRICES)
def test_a_matrix_becomes_two_layers(case: str) -> None:
    layer, signature, weights, arrange = MATRICES[case]
    matrix = low_rank(16, 12, ranks=(4, 4))
    graph = model(f"[fc] y = {layer}", signature, weights, w=arrange(matrix))
    [op] = operators(graph)
    ctx = factorized(graph, Factorize(energy=1 - 1e-9))
    assert did(ctx) == [("fc", "SVD, rank 4")]
    assert ctx.done[0].figures["params_after"] == 4 * (16 + 12)
    assert [node.name for node in graph.nodes] == ["fc.svd.first", "fc.svd.last"]
    assert graph.nodes[1].op == op
    assert Cost(graph).params == 4 * (16 + 12) + (16 if " b" in weights else 0)


def test_shared_weights_are_factorized_once() -> None:
    graph = model(
        "[one] a = Conv<pads=[1,1,1,1]>(x, w, b)\n[two] y = Conv<pads=[1,1,1,1], strides=[2,2]>(a, w)",
        "(float[1,16,8,8] x) => (float[1,16,4,4] y)",
        "float[16,16,3,3] w, float[16] b",
        w=low_rank(16, 16, 3, 3, ranks=(4, 4)),
    )
    ctx = factorized(graph, Factorize(energy=1 - 1e-9))
    assert [node for node, _ in did(ctx)] == ["one", "two"]
    parts = [next(t for t in node.inputs if isinstance(t, Constant)) for node in graph.nodes]
    assert parts[:3] == parts[3:]
    assert Cost(graph).params == 4 * 16 + 4 * 4 * 9 + 16 * 4 + 16


def test_the_comparison_sees_a_corrupted_factor() -> None:
    graph = model(
        "[conv] y = Conv(x, w)",
        "(float[1,12,9,9] x) => (float[1,16,7,7] y)",
        "float[16,12,3,3] w",
        w=low_rank(16, 12, 3, 3, ranks=(4, 4)),
    )
    before = graph.copy()
    run_pass(Factorize(energy=1 - 1e-9), graph)
    assert_same(before, graph)
    corrupt(graph)
    with pytest.raises(AssertionError):
        assert_same(before, graph)


def test_ranks_by_part_round_up_to_multiples_and_never_above_full() -> None:
    text = "[conv] a = Conv(x, w)\n[point] y = Conv(a, v)"
    weights = "float[40,24,3,3] w, float[40,40,1,1] v"
    graph = model(text, "(float[1,24,5,5] x) => (float[1,40,3,3] y)", weights)
    ctx = run_pass(Factorize(rank=0.3, multiple=8), graph)
    assert did(ctx) == [("conv", "Tucker-2, ranks 8 and 16"), ("point", "SVD, rank 16")]
    graph = model(text, "(float[1,24,5,5] x) => (float[1,40,3,3] y)", weights)
    ctx = run_pass(Factorize(rank=0.01, min_rank=5), graph)
    assert did(ctx) == [("conv", "Tucker-2, ranks 5 and 5"), ("point", "SVD, rank 5")]


def test_energy_says_how_much_each_layer_keeps() -> None:
    graph = model("[conv] y = Conv(x, w)", "(float[1,24,5,5] x) => (float[1,40,3,3] y)", "float[40,24,3,3] w")
    for energy in (0.3, 0.6):
        copy = graph.copy()
        [remark] = run_pass(Factorize(energy=energy), copy).done
        assert 1 - remark.figures["relative_error"] ** 2 >= energy - 1e-6
    [default] = run_pass(
        Factorize(),
        model(
            "[fc] y = Gemm(x, w)",
            "(float[1,64] x) => (float[1,64] y)",
            "float[64,64] w",
            w=low_rank(64, 64, ranks=(9, 9)),
        ),
    ).done
    assert 0.95 <= 1 - default.figures["relative_error"] ** 2 < 0.99


def test_the_float_type_stays() -> None:
    graph = model(
        "[conv] y = Conv(x, w)",
        "(float16[1,12,9,9] x) => (float16[1,16,7,7] y)",
        "float16[16,12,3,3] w",
        w=low_rank(16, 12, 3, 3, ranks=(4, 4)),
    )
    factorized(graph, Factorize(energy=0.9999), tolerance=2e-2)
    assert {c.dtype.name for c in graph.constants()} == {"float16"}


def test_threads_do_not_change_a_bit() -> None:
    text = "\n".join(f"[c{i}] a{i + 1} = Conv<pads=[1,1,1,1]>(a{i}, w{i})" for i in range(4))
    made = []
    for threads in (1, 3):
        graph = model(
            text, "(float[1,24,5,5] a0) => (float[1,24,5,5] a4)", ", ".join(f"float[24,24,3,3] w{i}" for i in range(4))
        )
        run_pass(Factorize(params=0.3), graph, threads=threads)
        made.append([(c.name, c.values.tobytes()) for c in graph.constants()])
    assert made[0] == made[1]


WIDE = "float[16,16,3,3] w"
IMAGE = "(float[1,16,8,8] x) => (float[n,c,h,w] y)"
LEFT: dict[str, tuple[str, str, str, list[tuple[str, str]]]] = {
    "grouped": (
        "[conv] y = Conv<group=4>(x, v)", IMAGE, "float[16,4,3,3] v",
        [("conv", "a chain of ranks 4 and 4 has 576 parameters, the layer 576")],
    ),
    "computed": (
        "[twice] v = Add(w, x2)\n[conv] y = Conv(x, v)", "(float[1,16,8,8] x, float[1] x2) => (float[n,c,h,w] y)", WIDE,
        [("conv", "its weights are computed when the network runs")],
    ),
    "batched": (
        "[mm] y = MatMul(x, v)", "(float[2,4,8] x) => (float[2,4,8] y)", "float[2,8,8] v",
        [("mm", "its weights are no matrix")],
    ),
    "also read otherwise": (
        "[conv] a = Conv<pads=[1,1,1,1]>(x, w)\n[sum] s = ReduceSum<keepdims=0>(w)\n[add] y = Add(a, s)", IMAGE, WIDE,
        [("conv", "its weights are also read by 'sum' in another way")],
    ),
    "both ways round": (
        "[conv] a = Conv<pads=[1,1,1,1]>(x, w)\n[up] y = ConvTranspose(a, w)", IMAGE, WIDE,
        [
            ("conv", "its weights are also read by 'up' in another way"),
            ("up", "its weights are also read by 'conv' in another way"),
        ],
    ),
    "small": (
        "[conv] y = Conv(x, v)", "(float[1,1,8,8] x) => (float[1,2,6,6] y)", "float[2,1,3,3] v",
        [("conv", "a chain of ranks 1 and 2 has 18 parameters, the layer 18")],
    ),
    "narrow matrix": (
        "[fc] y = Gemm(x, v)", "(float[1,4] x) => (float[1,3] y)", "float[4,3] v",
        [("fc", "a chain of rank 3 has 21 parameters, the layer 12")],
    ),
    "integer": (
        "[mm] y = MatMul(x, v)", "(int32[4,4] x) => (int32[4,4] y)", "int32[4,4] v",
        [("mm", "its weights are int32")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_is_reported_with_its_reason(case: str) -> None:
    body, signature, weights, remarks = LEFT[case]
    graph = model(body, signature, weights)
    before = operators(graph)
    ctx = run_pass(Factorize(energy=0.99), graph)
    assert did(ctx) == []
    assert missed(ctx) == remarks
    assert operators(graph) == before


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.nan, "its weights are not all finite"),
        (0.0, "its weights are all zero"),
        (-3e38, "its weights reach 3e+38, which a chain would overflow with"),
    ],
)
def test_weights_without_a_spectrum_are_left(value: float, reason: str) -> None:
    weights = np.zeros((16, 16, 3, 3))
    weights[0, 0, 0, 0] = value
    graph = model("[conv] y = Conv(x, w)", IMAGE, WIDE, w=weights)
    assert missed(run_pass(Factorize(energy=0.5), graph)) == [("conv", reason)]


def test_weights_that_the_caller_may_override_are_left() -> None:
    graph = model("[conv] y = Conv(x, w)", IMAGE, WIDE)
    graph.inputs.extend(c for c in graph.constants() if c.name == "w")
    assert missed(run_pass(Factorize(energy=0.5), graph)) == [("conv", "its weights are an input of the model")]


THREE = "[enc_a] a = Conv(x, w)\n[enc_b] b = Conv(a, v)\n[dec] y = ConvTranspose(b, u)"
THREE_WEIGHTS = "float[16,16,3,3] w, float[16,16,3,3] v, float[16,16,3,3] u"


def test_only_and_skip_name_layers() -> None:
    graph = model(THREE, IMAGE, THREE_WEIGHTS)
    ctx = run_pass(Factorize(rank=0.25, only=("enc_*",), skip=("*_b",)), graph)
    assert did(ctx) == [("enc_a", "Tucker-2, ranks 4 and 4")]
    assert missed(ctx) == [("enc_b", "named by 'skip' (*_b)"), ("dec", "not named by 'only'")]


def test_a_shared_weight_of_which_one_reader_is_skipped_stays() -> None:
    graph = model("[one] a = Conv(x, w)\n[two] y = Conv(a, w)", IMAGE, WIDE)
    ctx = run_pass(Factorize(rank=0.25, skip=("two",)), graph)
    assert missed(ctx) == [
        ("one", "it shares its weights with 'two', which is left out"),
        ("two", "named by 'skip' (two)"),
    ]


def test_a_pattern_that_matches_nothing_is_a_mistake() -> None:
    with pytest.raises(UsageError) as error:
        run_pass(Factorize(skip=("enc_*", "decc")), model(THREE, IMAGE, THREE_WEIGHTS))
    assert str(error.value) == (
        "factorize: skip: 'decc' matches no Conv, ConvTranspose, Gemm or MatMul. Did you mean 'dec'? "
        "'edgec inspect' lists the layers"
    )


def test_a_budget_that_cannot_be_met_names_the_best() -> None:
    graph = model(THREE, IMAGE, THREE_WEIGHTS)
    with pytest.raises(UsageError) as error:
        run_pass(Factorize(params=0.02, method="tucker"), graph)
    assert str(error.value) == (
        "factorize: params: the network cannot be brought to 0.02 of its parameters; the least that can be reached is "
        "0.0435; raise the budget, lower min_rank or multiple, or prune first"
    )
    run_pass(Factorize(params=0.0435, method="tucker"), graph)
    assert Cost(graph).params == 3 * (16 * 2 + 4 * 9 + 16 * 2)


def test_two_budgets_exclude_each_other() -> None:
    with pytest.raises(UsageError) as error:
        make("factorize", {"params": 0.5, "rank": 0.5}, "r.yaml: passes[0] 'factorize'")
    assert str(error.value) == (
        "r.yaml: passes[0] 'factorize': params and rank exclude each other: give one of params, macs, "
        "weight_bytes, latency, energy, rank, vbmf; 'edgec passes factorize' explains"
    )


@pytest.mark.parametrize("option", [{"params": 0}, {"macs": 1.5}, {"energy": 1.5}, {"rank": -1}, {"min_rank": 0}])
def test_values_out_of_range_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"factorize': {next(iter(option))}: input should be"):
        make("factorize", option, "r.yaml: passes[0] 'factorize'")


def test_the_loss_shrinks_as_the_budget_grows() -> None:
    graph = model(
        "[a] a = Conv<pads=[1,1,1,1]>(x, w)\n[r] r = Relu(a)\n[b] b = Conv<pads=[1,1,1,1]>(r, v)\n[s] s = Relu(b)\n"
        "[c] y = Conv<pads=[1,1,1,1]>(s, u)",
        "(float[1,16,8,8] x) => (float[1,16,8,8] y)",
        THREE_WEIGHTS,
    )
    feeds = seeded_feeds(graph, samples=1)[0]
    wanted = outputs(graph, feeds)
    found = []
    for params in (0.1, 0.4, 0.8):
        copy = graph.copy()
        run_pass(Factorize(params=params), copy)
        found.append(sqnr_db(wanted, outputs(copy, feeds)))
    assert found == sorted(found)
