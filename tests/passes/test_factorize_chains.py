"""The nodes that each method writes, the layers that it leaves, and ranks that targets want."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgec.ir.cost import Cost
from edgec.ir.errors import UsageError
from edgec.ir.graph import Constant, Graph
from edgec.passes.factorize.cp import rebuild
from edgec.passes.factorize.factorize import Factorize
from edgec.passes.framework.planner import make
from edgec.passes.framework.target import Target
from edgec.testing import assert_same, corrupt, did, missed, model, operators, run_pass

Check = Callable[[Graph, str], None]
IMAGE = "(float[1,16,9,9] x) => (float[n,c,h,w] y)"


def separable(out: int, into: int, rank: int, taps: tuple[int, int] = (3, 3)) -> np.ndarray:
    """A kernel that a column of taps and a row with ``rank`` channels between them give back exactly."""
    random = np.random.default_rng(0)
    column, row = random.standard_normal((rank, into, taps[0])), random.standard_normal((out, rank, taps[1]))
    return np.einsum("riy,orx->oiyx", column, row) / 20


def outer(*sizes: int, rank: int) -> np.ndarray:
    """A tensor of that CP rank."""
    random = np.random.default_rng(0)
    return rebuild([random.standard_normal((size, rank)) for size in sizes]) / 10


def test_spatial_a_column_and_a_row(filecheck: Check) -> None:
    graph = model(
        "[conv] a = Conv<strides=[2,1], pads=[1,2,0,2], dilations=[1,2]>(x, w, b)\n[act] y = Relu(a)",
        IMAGE,
        "float[12,16,3,3] w, float[12] b",
        w=separable(12, 16, 5),
    )
    before = graph.copy()
    ctx = run_pass(Factorize(method="spatial", energy=1 - 1e-9), graph)
    assert_same(before, graph)
    assert did(ctx) == [("conv", "spatial SVD, rank 5")]
    assert ctx.done[0].figures["params_after"] == 5 * 16 * 3 + 5 * 12 * 3
    filecheck(
        graph,
        """
        CHECK: float[5,16,3,1] [[V:w.spatial.vertical]]
        CHECK: [conv.spatial.vertical] {{.*}}[[A:conv.spatial.vertical.out]] = Conv
        CHECK-SAME: <dilations = [1, 1], kernel_shape = [3, 1], pads = [1, 0, 0, 0], strides = [2, 1]> (x, [[V]])
        CHECK: float[12,5,1,3] [[H:w.spatial.horizontal]]
        CHECK: [conv.spatial.horizontal] {{.*}}a = Conv
        CHECK-SAME: <dilations = [1, 2], kernel_shape = [1, 3], pads = [0, 2, 0, 2], strides = [1, 1]> ([[A]], [[H]], b)
        CHECK: [act] {{.*}}y = Relu (a)
        """,
    )


def test_spatial_of_a_transposed_convolution(filecheck: Check) -> None:
    graph = model(
        "[up] y = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(x, w, b)",
        IMAGE,
        "float[16,12,3,3] w, float[12] b",
        w=separable(12, 16, 4).transpose(1, 0, 2, 3),
    )
    before = graph.copy()
    run_pass(Factorize(method="spatial", energy=1 - 1e-9), graph)
    assert_same(before, graph)
    filecheck(
        graph,
        """
        CHECK: float[16,4,3,1] w.spatial.vertical
        CHECK: [up.spatial.vertical] {{.*}} = ConvTranspose
        CHECK-SAME: <kernel_shape = [3, 1], output_padding = [1, 0], pads = [1, 0, 1, 0], strides = [2, 1]>
        CHECK: float[4,12,1,3] w.spatial.horizontal
        CHECK: [up.spatial.horizontal] {{.*}}y = ConvTranspose
        CHECK-SAME: <kernel_shape = [1, 3], output_padding = [0, 1], pads = [0, 1, 0, 1], strides = [1, 2]>
        CHECK-SAME: ({{.*}}, w.spatial.horizontal, b)
        """,
    )


def test_spatial_of_a_depthwise_convolution_is_what_auto_finds(filecheck: Check) -> None:
    random = np.random.default_rng(1)
    kernel = np.einsum("cy,cx->cyx", random.standard_normal((16, 7)), random.standard_normal((16, 7)))[:, None]
    graph = model('[dw] y = Conv<group=16, auto_pad="SAME_UPPER">(x, w)', IMAGE, "float[16,1,7,7] w", w=kernel)
    before = graph.copy()
    ctx = run_pass(Factorize(energy=1 - 1e-9, min_rank=1), graph)
    assert_same(before, graph)
    assert did(ctx) == [("dw", "spatial SVD, rank 1")]
    assert Cost(graph).params == 16 * 14
    filecheck(
        graph,
        """
        CHECK: float[16,1,7,1] w.spatial.vertical
        CHECK: [dw.spatial.vertical] {{.*}} = Conv <auto_pad = "SAME_UPPER", group = 16, kernel_shape = [7, 1]>
        CHECK: float[16,1,1,7] w.spatial.horizontal
        CHECK: [dw.spatial.horizontal] {{.*}}y = Conv <auto_pad = "SAME_UPPER", group = 16, kernel_shape = [1, 7]>
        """,
    )


def test_cp_a_column_and_a_row_between_two_pointwise_layers(filecheck: Check) -> None:
    graph = model(
        "[conv] y = Conv<strides=[1,2], pads=[1,1,1,1]>(x, w, b)",
        IMAGE,
        "float[12,16,3,3] w, float[12] b",
        w=outer(12, 16, 3, 3, rank=4),
    )
    before = graph.copy()
    ctx = run_pass(Factorize(method="cp", energy=0.999), graph)
    assert did(ctx)[0][1].startswith("CP, rank ")
    rank = int(did(ctx)[0][1].removeprefix("CP, rank "))
    assert 4 <= rank <= 8
    assert 1 - ctx.done[0].figures["relative_error"] ** 2 >= 0.999
    assert Cost(graph).params == rank * (12 + 16 + 6) + 12
    assert_same(before, graph, tolerance=0.1)
    filecheck(
        graph,
        f"""
        CHECK: float[{rank},16,1,1] w.cp.first
        CHECK: [conv.cp.first] {{{{.*}}}} = Conv <kernel_shape = [1, 1]> (x, w.cp.first)
        CHECK: float[{rank},1,3,1] w.cp.vertical
        CHECK: [conv.cp.vertical] {{{{.*}}}} = Conv
        CHECK-SAME: <group = {rank}, kernel_shape = [3, 1], pads = [1, 0, 1, 0], strides = [1, 1]>
        CHECK: float[{rank},1,1,3] w.cp.horizontal
        CHECK: [conv.cp.horizontal] {{{{.*}}}} = Conv
        CHECK-SAME: <group = {rank}, kernel_shape = [1, 3], pads = [0, 1, 0, 1], strides = [1, 2]>
        CHECK: float[12,{rank},1,1] w.cp.last
        CHECK: [conv.cp.last] {{{{.*}}}}y = Conv <kernel_shape = [1, 1]> ({{{{.*}}}}, w.cp.last, b)
        """,
    )


def test_svd_compresses_the_side_with_more_channels() -> None:
    text, signature = "[conv] y = {}<pads=[1,1,1,1]>(x, w)", "(float[1,{},8,8] x) => (float[n,c,h,w] y)"
    shapes = {}
    for op, out, into in (("Conv", 24, 8), ("Conv", 8, 24), ("Conv", 16, 16), ("ConvTranspose", 16, 16)):
        stored = (into, out) if op == "ConvTranspose" else (out, into)
        graph = model(text.format(op), signature.format(into), f"float[{stored[0]},{stored[1]},3,3] w")
        [remark] = run_pass(Factorize(method="svd", rank=0.25), graph).done
        weights = [next(t for t in node.inputs if isinstance(t, Constant)) for node in graph.nodes]
        shapes[op, out, into] = ([c.shape for c in weights], operators(graph), remark.what)
    assert shapes == {
        ("Conv", 24, 8): ([(6, 8, 3, 3), (24, 6, 1, 1)], ["Conv", "Conv"], "SVD, rank 6"),
        ("Conv", 8, 24): ([(6, 24, 1, 1), (8, 6, 3, 3)], ["Conv", "Conv"], "SVD, rank 6"),
        ("Conv", 16, 16): ([(4, 16, 3, 3), (16, 4, 1, 1)], ["Conv", "Conv"], "SVD, rank 4"),
        ("ConvTranspose", 16, 16): ([(4, 16, 1, 1), (4, 16, 3, 3)], ["Conv", "ConvTranspose"], "SVD, rank 4"),
    }


def test_a_grouped_convolution_keeps_its_groups_in_all_stages(filecheck: Check) -> None:
    random = np.random.default_rng(2)
    left, core, right = (random.standard_normal(s) for s in ((2, 8, 2), (2, 2, 3, 3, 3), (2, 3, 8)))
    kernel = np.einsum("goa,gabyx,gbi->goiyx", left, core, right).reshape(16, 8, 3, 3) / 10
    graph = model(
        "[conv] y = Conv<group=2, pads=[1,1,1,1]>(x, w, b)", IMAGE, "float[16,8,3,3] w, float[16] b", w=kernel
    )
    before = graph.copy()
    ctx = run_pass(Factorize(method="tucker", energy=1 - 1e-9), graph)
    assert_same(before, graph)
    assert did(ctx) == [("conv", "Tucker-2, ranks 3 and 2")]
    filecheck(
        graph,
        """
        CHECK: float[6,8,1,1] w.tucker.first
        CHECK: [conv.tucker.first] {{.*}} = Conv <group = 2, kernel_shape = [1, 1]>
        CHECK: float[4,3,3,3] w.tucker.core
        CHECK: [conv.tucker.core] {{.*}} = Conv <group = 2, pads = [1, 1, 1, 1]>
        CHECK: float[16,2,1,1] w.tucker.last
        CHECK: [conv.tucker.last] {{.*}}y = Conv <group = 2, kernel_shape = [1, 1]>
        """,
    )


def test_one_spatial_axis_and_three(filecheck: Check) -> None:
    line = model("[c] y = Conv<pads=[2,2]>(x, w)", "(float[1,16,9] x) => (float[n,c,l] y)", "float[16,16,5] w",
                 w=outer(16, 16, 5, rank=3))  # fmt: skip
    run_pass(Factorize(method="cp", rank=0.1), line)
    filecheck(line, "CHECK: [c.cp.length] {{.*}} = Conv <group = 8, pads = [2, 2]>")
    video = "(float[1,16,5,5,5] x) => (float[n,c,t,h,w] y)"
    for method, names in (
        ("spatial", "spatial.depth spatial.plane"),
        ("cp", "cp.first cp.depth cp.vertical cp.horizontal cp.last"),
    ):
        graph = model("[c] y = Conv(x, w)", video, "float[16,16,3,3,3] w")
        run_pass(Factorize(method=method, rank=0.05), graph)
        assert [node.name for node in graph.nodes] == [f"c.{name}" for name in names.split()]


def test_a_chain_of_shared_weights_is_shared_by_any_method() -> None:
    for method in ("spatial", "cp", "svd", "tucker"):
        graph = model(
            "[one] a = Conv<pads=[1,1,1,1]>(x, w)\n[two] y = Conv<pads=[1,1,1,1], strides=[2,2]>(a, w)",
            IMAGE,
            "float[16,16,3,3] w",
        )
        ctx = run_pass(Factorize(method=method, rank=0.1), graph)
        parts = [next(t for t in node.inputs if isinstance(t, Constant)) for node in graph.nodes]
        assert [remark.node for remark in ctx.done] == ["one", "two"]
        assert parts[: len(parts) // 2] == parts[len(parts) // 2 :]
        assert Cost(graph).params == ctx.done[0].figures["params_after"]


def test_the_comparison_sees_a_corrupted_stage() -> None:
    graph = model("[conv] y = Conv(x, w)", IMAGE, "float[12,16,3,3] w", w=separable(12, 16, 3))
    before = graph.copy()
    run_pass(Factorize(method="spatial", energy=1 - 1e-9), graph)
    assert_same(before, graph)
    corrupt(graph)
    with pytest.raises(AssertionError):
        assert_same(before, graph)


def test_auto_takes_the_method_that_loses_least() -> None:
    random = np.random.default_rng(0)
    left, core, right = (random.standard_normal(shape) for shape in ((24, 3), (3, 3, 3, 3), (3, 16)))
    kernels = {
        "spatial SVD": separable(24, 16, 3),
        "Tucker-2": np.einsum("oa,abyx,bi->oiyx", left, core, right),
    }
    for title, kernel in kernels.items():
        graph = model("[conv] y = Conv(x, w)", IMAGE, "float[24,16,3,3] w", w=kernel)
        [remark] = run_pass(Factorize(params=0.11), graph).done
        assert remark.what.startswith(title)


LEFT = {
    "one axis": (
        "spatial", "Conv(x, w)", "(float[1,16,9] x) => (float[n,c,l] y)", "float[16,16,3] w",
        "spatial SVD wants a kernel that is longer than one tap on two axes",
    ),
    "one axis of two": (
        "spatial", "Conv(x, w)", IMAGE, "float[16,16,1,3] w",
        "spatial SVD wants a kernel that is longer than one tap on two axes",
    ),
    "Tucker-2 of depthwise": (
        "tucker", "Conv<group=16>(x, w)", IMAGE, "float[16,1,3,3] w",
        "each of its groups has one channel, of which Tucker-2 has nothing to take",
    ),
    "CP of depthwise": (
        "cp", "Conv<group=16>(x, w)", IMAGE, "float[16,1,3,3] w",
        "each of its groups has one channel, where CP would be what spatial SVD is",
    ),
    "depthwise of one axis": (
        "auto", "Conv<group=16>(x, w)", IMAGE, "float[16,1,3,1] w",
        "each of its groups has one channel, of which Tucker-2 has nothing to take",
    ),
    "unknown sizes": (
        "spatial", "ConvTranspose<output_shape=[30,30], strides=[3,3]>(x, w)",
        "(float[1,16,h0,w0] x) => (float[n,c,h,w] y)", "float[16,16,3,3] w",
        "its output_shape can only be shared out where its shapes are static",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_what_a_method_cannot_do_is_reported_with_its_reason(case: str) -> None:
    method, layer, signature, weights, reason = LEFT[case]
    graph = model(f"[conv] y = {layer}", signature, weights)
    ctx = run_pass(Factorize(method=method, rank=0.25), graph)
    assert did(ctx) == []
    assert missed(ctx) == [("conv", reason)]


def test_variational_bayes_finds_the_ranks_under_noise() -> None:
    random = np.random.default_rng(3)
    core = np.einsum("oa,abyx,bi->oiyx", *(random.standard_normal(s) for s in ((32, 4), (4, 6, 3, 3), (6, 24))))
    weights = {"w": core + random.standard_normal(core.shape) / 2, "v": random.standard_normal((32, 32, 3, 3))}
    graph = model(
        "[a] a = Conv<pads=[1,1,1,1]>(x, w)\n[b] y = Conv<pads=[1,1,1,1]>(a, v)",
        "(float[1,24,6,6] x) => (float[1,32,6,6] y)",
        "float[32,24,3,3] w, float[32,32,3,3] v",
        **weights,
    )
    for method, what in (("auto", "Tucker-2, ranks 6 and 4"), ("cp", "CP, rank 6")):
        ctx = run_pass(Factorize(vbmf=True, method=method), graph.copy())
        assert did(ctx) == [("a", what)]
        assert missed(ctx) == [("b", "variational Bayes finds nothing but noise in its weights")]
    ctx = run_pass(Factorize(vbmf=True, min_rank=8), graph)
    assert did(ctx) == [("a", "Tucker-2, ranks 8 and 8")]


def board(name: str, multiple: int, least: int) -> Target:
    """A target that says what it likes."""
    return Target(name, name, "cpu", None, channel_multiple=multiple, least_channels=least)


def test_ranks_suit_every_target_of_the_recipe() -> None:
    signature, weights = "(float[1,64,6,6] x) => (float[1,96,4,4] y)", "float[96,64,3,3] w"
    boards = [board("a", 4, 1), board("b", 6, 16)]
    found = []
    for options in ({"rank": 0.3}, {"rank": 0.01}, {"rank": 0.3, "multiple": 1}, {"rank": 0.01, "min_rank": 3}):
        graph = model("[conv] y = Conv(x, w)", signature, weights)
        found += did(run_pass(Factorize(**options), graph, targets=boards))
    assert [what for _, what in found] == [
        "Tucker-2, ranks 24 and 36",
        "Tucker-2, ranks 24 and 24",
        "Tucker-2, ranks 20 and 29",
        "Tucker-2, ranks 12 and 12",
    ]


def test_bytes_of_weights_are_a_budget_too() -> None:
    graph = model(
        "[a] a = Conv<pads=[1,1,1,1]>(x, w)\n[b] y = Conv(a, v)", IMAGE, "float[16,16,3,3] w, float[64,16,3,3] v"
    )
    total = Cost(graph).weight_bytes
    run_pass(Factorize(weight_bytes=0.4), graph)
    assert 0.39 * total <= Cost(graph).weight_bytes <= 0.4 * total
    with pytest.raises(UsageError) as error:
        run_pass(Factorize(weight_bytes=0.001), graph)
    assert "the network cannot be brought to 0.001 of its bytes of weights" in str(error.value)


def test_an_unknown_method_is_a_mistake() -> None:
    with pytest.raises(UsageError) as error:
        make("factorize", {"method": "tt"}, "r.yaml: passes[0] 'factorize'")
    assert str(error.value) == (
        "r.yaml: passes[0] 'factorize': method: input should be 'auto', 'tucker', 'svd', 'spatial' or 'cp'; "
        "'edgec passes factorize' explains"
    )


def test_a_rank_above_full_is_a_mistake() -> None:
    with pytest.raises(UsageError) as error:
        make("factorize", {"rank": 1.5}, "r.yaml: passes[0]")
    assert str(error.value) == (
        "r.yaml: passes[0]: rank: input should be less than or equal to 1; 'edgec passes factorize' explains"
    )
