"""factorize under a budget of time: the choices, with a clock that counts instead of a machine's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgec.ir.cost import Cost
from edgec.ir.errors import InputError, UsageError
from edgec.ir.execution import Feeds, seeded_feeds
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.passes.factorize import timing
from edgec.passes.factorize.factorize import Factorize
from edgec.passes.factorize.layers import find_layers
from edgec.passes.factorize.methods import CP, SPATIAL, SVD, TUCKER, Method
from edgec.passes.factorize.offers import Choice
from edgec.passes.framework.planner import make
from edgec.testing import assert_same, did, missed, model, operators, run_pass

IMAGE = "(float[1,32,8,8] x) => (float[1,32,8,8] y)"
THREE = (
    "[a] a = Conv<pads=[1,1,1,1]>(x, w)\n[r] r = Relu(a)\n[b] b = Conv<pads=[1,1,1,1]>(r, v)\n[s] s = Sigmoid(b)\n"
    "[c] y = Conv<pads=[1,1,1,1]>(s, u)"
)
WEIGHTS = "float[32,32,3,3] w, float[32,32,3,3] v, float[32,32,3,3] u"


class Clock:
    """Counts: every node takes a time of its own, and each million multiply-accumulates one millisecond.

    Args:
        node: ms of a node.
        whole: how much longer networks take than their parts do by themselves.
    """

    def __init__(self, node: float = 0.01, whole: float = 1.0) -> None:
        self.node, self.whole = node, whole
        self.nodes: list[int] = []

    def __call__(self, graphs: Sequence[tuple[Graph, Feeds]], seconds: float) -> list[float]:
        assert seconds > 0
        return [self.of(graph, feeds) for graph, feeds in graphs]

    def of(self, graph: Graph, feeds: Feeds) -> float:
        assert set(feeds) == {tensor.name for tensor in graph.inputs}
        self.nodes.append(len(graph.nodes))
        factor = self.whole if {"Relu", "Sigmoid"} <= {node.op for node in graph.nodes} else 1.0
        return (len(graph.nodes) * self.node + Cost(graph).macs / 1e6) * factor


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    counting = Clock()
    monkeypatch.setattr(timing, "milliseconds", counting)
    return counting


def three() -> Graph:
    return model(THREE, IMAGE, WEIGHTS)


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_the_network_takes_the_time_that_was_asked_for(clock: Clock, share: float) -> None:
    graph = three()
    before = clock.of(graph, seeded_feeds(graph)[0])
    ctx = run_pass(Factorize(latency=share), graph)
    after = clock.of(graph, seeded_feeds(graph)[0])
    assert share * 0.9 < after / before <= share * 1.03
    [remark] = [remark for remark in ctx.done if remark.node == "the network"]
    assert remark.what == (
        f"takes {after / before:.3g} of its time in onnxruntime on one thread of this machine, of which {share:.4g} "
        "was to be kept; other machines, and other runs, may come to other ranks"
    )
    assert remark.figures == {"ms_before": before, "ms_after": after}


def test_remarks_give_the_times_of_each_layer(clock: Clock) -> None:
    graph = three()
    ctx = run_pass(Factorize(latency=0.5, method="tucker"), graph)
    for remark in ctx.done[:-1]:
        inner, outer = (int(word) for word in remark.what.removeprefix("Tucker-2, ranks ").split(" and "))
        macs = 64 * (32 * inner * (inner < 32) + inner * outer * 9 + 32 * outer * (outer < 32))
        behind = int(remark.node in "ab")  # an activation
        count = 1 + (inner < 32) + (outer < 32) + behind
        assert remark.figures["ms_before"] == pytest.approx(64 * 32 * 32 * 9 / 1e6 + 0.01 * (1 + behind))
        assert remark.figures["ms_after"] == pytest.approx(macs / 1e6 + 0.01 * count)
        assert remark.figures["params_after"] == macs // 64


def test_ranks_are_in_blocks_unless_others_are_asked_for(clock: Clock) -> None:
    for options, multiple in (({}, 8), ({"multiple": 3}, 3)):
        graph = three()
        run_pass(Factorize(latency=0.5, method="tucker", **options), graph)
        cores = [node for node in graph.nodes if node.name.endswith(".core")]
        assert cores
        ranks = {d for node in cores for d in (node.inputs[1].shape or [])[:2]}
        assert all(int(rank) % multiple == 0 or rank == 32 for rank in ranks)


def test_a_chain_that_is_not_faster_is_never_made(clock: Clock) -> None:
    clock.node = 1.0
    graph = three()
    before = operators(graph)
    ctx = run_pass(Factorize(latency=1.0, method="tucker"), graph)
    assert did(ctx) == []
    reason = "a chain of ranks 32 and 8 takes {} ms here, the layer {} ms"
    assert missed(ctx) == [
        ("a", reason.format("3.16", "2.59")),
        ("b", reason.format("3.16", "2.59")),
        ("c", reason.format("2.16", "1.59")),
    ]
    assert operators(graph) == before


def test_what_networks_take_beyond_their_layers_is_made_up_for(clock: Clock) -> None:
    clock.whole = 1.5
    graph = three()
    before = clock.of(graph, seeded_feeds(graph)[0])
    run_pass(Factorize(latency=0.5), graph)
    assert 0.45 < clock.of(graph, seeded_feeds(graph)[0]) / before <= 0.515


def test_a_budget_out_of_reach_names_what_was_reached(clock: Clock) -> None:
    with pytest.raises(UsageError) as error:
        run_pass(Factorize(latency=0.05, method="tucker"), three())
    reached = 3 * (64 * (32 * 8 + 8 * 8 * 9 + 32 * 8) / 1e6 + 0.03) + 0.02
    whole = 3 * (64 * 32 * 32 * 9 / 1e6 + 0.01) + 0.02
    assert str(error.value) == (
        "factorize: latency: the network cannot be brought to 0.05 of its time in onnxruntime on this machine; the "
        f"least that was reached is {np.ceil(100 * reached / whole) / 100:.4g}; raise the budget, lower min_rank or "
        "multiple, or prune first"
    )
    run_pass(Factorize(latency=float(np.ceil(100 * reached / whole) / 100), method="tucker"), three())


def test_the_budget_is_not_spent_where_it_need_not_be(clock: Clock) -> None:
    ctx = run_pass(Factorize(latency=0.95, method="tucker"), three())
    assert "the budget is met without it, at less error" in [what for _, what in missed(ctx)]


def test_layers_without_static_shapes_are_not_timed(clock: Clock) -> None:
    graph = model("[conv] y = Conv(x, w)", "(float[n,32,8,8] x) => (float[n,32,6,6] y)", "float[32,32,3,3] w")
    with pytest.raises(InputError, match="input 'x': has no static shape; pin it"):
        run_pass(Factorize(latency=0.5), graph)
    graph = model(
        f"{THREE}\n[nz] i = NonZero(x)\n[turn] t = Transpose(i)\n[cast] f = Cast<to=1>(t)\n[mm] z = MatMul(f, m)",
        IMAGE.replace(")", ", float[n,64] z)").replace("x, float[n,64] z)", "x)"),
        f"{WEIGHTS}, float[4,64] m",
    )  # fmt: skip
    ctx = run_pass(Factorize(latency=0.6), graph)
    assert ("mm", "its time cannot be measured: its shapes are not static") in missed(ctx)


def test_the_smallest_layers_are_not_timed(clock: Clock) -> None:
    graph = model(
        f"{THREE.replace('[c] y', '[c] d')}\n[tiny] y = Conv(d, t)", IMAGE.replace("32,8,8] y", "4,8,8] y"),
        f"{WEIGHTS}, float[4,32,1,1] t",
    )  # fmt: skip
    ctx = run_pass(Factorize(latency=0.5), graph)
    assert ("tiny", "with the smallest it holds less than 2% of the budget") in missed(ctx)


def test_layers_that_take_the_same_are_timed_once(clock: Clock) -> None:
    def timed(body: str) -> int:
        clock.nodes.clear()
        run_pass(Factorize(latency=0.999, method="tucker"), model(body, IMAGE, WEIGHTS))
        return len(clock.nodes)

    alike = THREE.replace("Sigmoid(b)", "Relu(b)")
    assert timed(alike) < timed(THREE.replace("Sigmoid(b)", "LeakyRelu(b)"))


def test_it_excludes_the_other_budgets() -> None:
    with pytest.raises(UsageError) as error:
        make("factorize", {"latency": 0.5, "macs": 0.5}, "r.yaml: passes[0] 'factorize'")
    assert str(error.value) == (
        "r.yaml: passes[0] 'factorize': macs and latency exclude each other: give one of params, macs, weight_bytes, "
        "latency, energy, rank, vbmf; 'edgec passes factorize' explains"
    )
    with pytest.raises(UsageError, match="latency: input should be less than or equal to 1"):
        make("factorize", {"latency": 1.5}, "r.yaml: passes[0] 'factorize'")


LAYERS = {
    "conv": ("Conv<pads=[1,2,1,2], strides=[2,1]>(x, w, b)", "float[1,12,9,9]", "float[16,12,3,3] w, float[16] b"),
    "grouped": ("Conv<group=2>(x, w)", "float[1,24,9,9]", "float[16,12,3,3] w"),
    "transposed": ("ConvTranspose<strides=[2,2]>(x, w, b)", "float[1,12,5,5]", "float[12,16,4,4] w, float[16] b"),
    "gemm": ("Gemm<transA=1, alpha=0.5>(x, w)", "float[12,3]", "float[12,16] w"),
    "matmul": ("MatMul(w, x)", "float[2,12,5]", "float[16,12] w"),
}
METHODS = (TUCKER, SPATIAL, SVD, CP)


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_what_is_timed_is_what_is_written(case: str, method: Method) -> None:
    layer_text, read, weights = LAYERS[case]
    graph = model(f"[layer] a = {layer_text}\n[act] y = Relu(a)", f"({read} x) => (float[a,b,c,d] y)", weights)
    if case in ("gemm", "matmul"):
        graph.outputs[0].shape = None
    shapes = Shapes(graph)
    [layer] = find_layers(graph, shapes, lambda node: None, lambda node, reason: None)
    alone, twin = timing.alone(graph, layer, shapes)
    assert_same(_named(graph, alone), alone)
    if method.unfit(layer) or (layer.is_matrix and method is not SVD):
        return
    choice = Choice(method, tuple(4 for _ in method.full(layer)))
    chain = timing.with_chains(alone, [(twin, choice)])
    whole = timing.with_chains(graph, [(layer, choice)])
    assert operators(chain) == operators(whole)
    assert Cost(chain).params - Cost(alone).params == choice.params(layer) - layer.params
    assert Cost(chain).macs == Cost(whole).macs == choice.macs(layer)
    made = [(stage.name, stage.kernel.shape, stage.axes) for stage in method.blank(layer, choice.ranks).stages]
    stages = method.decompose(layer, layer.kernel(), choice.ranks).stages
    assert made == [(stage.name, stage.kernel.shape, stage.axes) for stage in stages]


def _named(graph: Graph, other: Graph) -> Graph:
    """The graph with the inputs and outputs of another called as they are there."""
    copy = graph.copy()
    for mine, its in zip((*copy.inputs, *copy.outputs), (*other.inputs, *other.outputs), strict=True):
        mine.name, mine.shape = its.name, its.shape
    return copy


def test_times_are_in_the_order_of_the_graphs() -> None:
    small = model("y = Conv(x, w)", "(float[1,4,8,8] x) => (float[1,4,6,6] y)", "float[4,4,3,3] w")
    large = model("y = Conv(x, w)", "(float[1,96,64,64] x) => (float[1,96,62,62] y)", "float[96,96,3,3] w")
    first, second = timing.milliseconds([(g, seeded_feeds(g)[0]) for g in (large, small)], 0.001)
    assert 0 < second < first / 10
