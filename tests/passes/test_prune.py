"""prune: what it removes, what it makes of the rest, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from networks.coupled import TEXTS, coupled

from edgec.ir.cost import Cost
from edgec.ir.errors import InputError, UsageError
from edgec.ir.execution import seeded_feeds, sqnr_db
from edgec.ir.files import to_bytes
from edgec.ir.graph import Constant, Graph
from edgec.ir.printer import print_graph
from edgec.passes.framework.cache import RunCache
from edgec.passes.framework.planner import make, plan
from edgec.passes.layers.linear import LINEAR
from edgec.passes.prune import criteria
from edgec.passes.prune.prune import Prune
from edgec.testing import Samples, assert_same, corrupt, did, missed, model, operators, outputs, run_pass

Check = Callable[[Graph, str], None]
SAME = "pads=[1,1,1,1]"


def chain(widths: tuple[int, ...] = (8, 12, 16), seed: int = 0, opset: int = 17) -> Graph:
    """Convolutions with Relu and a pointwise one at the end, on 3x8x8."""
    lines, weights, before = [], [], 3
    for number, width in enumerate(widths):
        lines.append(
            f"[conv{number}] a{number} = Conv<{SAME}>({'x' if not number else f'r{number - 1}'}, w{number}, b{number})"
        )
        lines.append(f"[relu{number}] r{number} = Relu(a{number})")
        weights += [f"float[{width},{before},3,3] w{number}", f"float[{width}] b{number}"]
        before = width
    lines.append(f"[head] y = Conv(r{len(widths) - 1}, w, b)")
    weights += [f"float[4,{before},1,1] w", "float[4] b"]
    signature = "(float[1,3,8,8] x) => (float[1,4,8,8] y)"
    return model("\n".join(lines), signature, ", ".join(weights), seed=seed, opset=opset)


def data(graph: Graph, count: int = 32, seed: int = 3) -> Samples:
    """Smooth images with noise."""
    random = np.random.default_rng(seed)
    made = []
    for feeds in seeded_feeds(graph, samples=count, seed=seed):
        for name, values in feeds.items():
            low = random.standard_normal(values.shape[:2] + (1,) * (values.ndim - 2))
            feeds[name] = (low + 0.5 * values).astype(np.float32)
        made.append(feeds)
    return Samples(made)


def quality(before: Graph, after: Graph, count: int = 16) -> float:
    """SQNR in dB on samples that are not the calibration data's."""
    held_out = data(before, count, seed=11).feeds
    wanted = np.stack([outputs(before, feeds)["y"] for feeds in held_out])
    got = np.stack([outputs(after, feeds)["y"] for feeds in held_out])
    return sqnr_db({"y": wanted}, {"y": got})


def constant(graph: Graph, name: str) -> Constant:
    return next(c for c in graph.constants() if c.name == name)


# -- what goes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["l1", "l2", "activation", "reconstruction"])
def test_channels_that_are_zero_go_first_and_nothing_changes(criterion: Any, filecheck: Check) -> None:
    graph = chain()
    dead = [1, 4, 5, 9]
    for name in ("w1", "b1"):
        values = constant(graph, name).values.copy()
        values[dead] = 0
        constant(graph, name).values = values
    before = graph.copy()
    step = Prune(ratio=1 / 3, criterion=criterion, only=("conv1",))
    ctx = run_pass(step, graph, data={"calibration": data(graph)})
    assert_same(before, graph)
    kept = [unit for unit in range(12) if unit not in dead]
    np.testing.assert_array_equal(constant(graph, "w1").values, constant(before, "w1").values[kept])
    assert did(ctx)[0][1].startswith("8 of 12 channels kept")
    filecheck(
        graph,
        """
        CHECK: float[8,8,3,3] w1
        CHECK: float[8] b1
        CHECK: [conv1]
        CHECK-SAME: Conv <pads = [1, 1, 1, 1]> (r0, w1, b1)
        CHECK: float[16,8,3,3] w2
        CHECK: [conv2]
        CHECK: float[4,16,1,1] w
        """,
    )
    corrupt(graph)
    with pytest.raises(AssertionError):
        assert_same(before, graph)


def test_geometric_median_takes_filters_that_others_stand_for() -> None:
    graph = chain((6,))
    values = constant(graph, "w0").values.copy()
    values[2] = values[[0, 1, 3, 4, 5]].mean(axis=0)
    constant(graph, "w0").values = values
    run_pass(Prune(ratio=1 / 6, criterion="geometric_median"), graph)
    np.testing.assert_array_equal(constant(graph, "w0").values, values[[0, 1, 3, 4, 5]])


def test_reconstruction_takes_a_copy_and_the_fit_makes_up_for_it() -> None:
    graph = chain()
    for name in ("w1", "b1"):
        values = constant(graph, name).values.copy()
        values[7] = 3 * values[5]  # large, and of no use beside channel 5
        constant(graph, name).values = values
    before = graph.copy()
    step = Prune(ratio=1 / 12, only=("conv1",))
    run_pass(step, graph, data={"calibration": data(graph, 64)})
    assert constant(graph, "w1").shape == (11, 8, 3, 3)
    assert quality(before, graph) > 65
    plain = before.copy()
    run_pass(Prune(ratio=1 / 12, only=("conv1",), criterion="l2"), plain, data={"calibration": data(graph, 64)})
    assert quality(before, graph) > quality(before, plain)


def test_a_channel_that_is_constant_moves_into_the_bias_exactly() -> None:
    graph = model(
        "[a] a = Conv(x, w1, b1)\n[r] r = Relu(a)\n[y] y = Conv(r, w2)",
        "(float[1,3,8,8] x) => (float[1,4,6,6] y)",
        "float[6,3,1,1] w1, float[6] b1, float[4,6,3,3] w2",
    )
    weights, added = constant(graph, "w1").values.copy(), constant(graph, "b1").values.copy()
    weights[3], added[3] = 0, 5
    constant(graph, "w1").values, constant(graph, "b1").values = weights, added
    before = graph.copy()
    ctx = run_pass(Prune(ratio=1 / 6), graph, data={"calibration": data(graph)})
    assert did(ctx) == [
        ("a", "5 of 6 channels kept, 1 constant on the calibration data"),
        ("y", "all channels kept (a model's output); fitted"),
    ]
    [node] = [n for n in graph.nodes if n.name == "y"]
    assert len(node.inputs) == 3  # it has a bias now
    assert_same(before, graph)


@pytest.mark.parametrize("name", sorted(set(TEXTS) - {"transposed products"}))
@pytest.mark.parametrize("with_data", [False, True])
def test_every_kind_of_coupling_is_pruned(name: str, with_data: bool) -> None:
    graph = coupled(name)
    before = graph.copy()
    given = {"calibration": data(graph, 12)} if with_data else {}
    ctx = run_pass(Prune(ratio=0.3), graph, data=given)
    assert Cost(graph).params < Cost(before).params
    assert [(t.name, t.shape) for t in graph.outputs] == [(t.name, t.shape) for t in before.outputs]
    assert outputs(graph)["y"].shape == outputs(before)["y"].shape
    layers = [node for node in before.nodes if node.op in LINEAR]
    of_layers = [remark for remark in (*ctx.done, *ctx.left) if remark.node != "the calibration data"]
    assert len(of_layers) == len(layers)


# -- the fit --------------------------------------------------------------------------------------------------------


def test_tries_on_copies_judge_channels_once_and_end_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain((8, 12, 16))
    samples, cache = data(graph), RunCache()
    looked: list[Graph] = []
    measured = criteria.moments

    def counted(graph: Graph, *rest: Any) -> Any:
        looked.append(graph)
        return measured(graph, *rest)

    monkeypatch.setattr(criteria, "moments", counted)
    for part in (0.7, 0.4):
        with_it, without = graph.copy(), graph.copy()
        run_pass(Prune(params=part), with_it, cache, data={"calibration": samples}, validated_outside=True)
        run_pass(Prune(params=part), without, data={"calibration": samples}, validated_outside=True)
        assert to_bytes(with_it) == to_bytes(without)
    assert len(looked) == 3
    run_pass(Prune(params=0.4), graph, cache, data={"calibration": data(graph, seed=9)}, validated_outside=True)
    assert len(looked) == 4


def test_the_fit_is_worth_it_on_data_that_it_has_not_seen() -> None:
    graph = chain((16, 24, 32), seed=1)
    found = {}
    for refit in (False, True):
        pruned = graph.copy()
        run_pass(Prune(params=0.3, refit=refit), pruned, data={"calibration": data(graph, 64)})
        found[refit] = quality(graph, pruned)
    assert found[True] > found[False] + 2


def test_the_error_that_is_reported_is_the_one_on_other_images() -> None:
    graph = chain((16, 24, 32), seed=1)
    pruned = graph.copy()
    ctx = run_pass(Prune(params=0.3), pruned, data={"calibration": data(graph, 64)})
    [head] = [r for r in ctx.done if r.node == "head"]
    foretold = -20 * np.log10(head.figures["output_error"])
    assert foretold == pytest.approx(quality(graph, pruned, 64), abs=2)
    assert head.figures["output_error"] < head.figures["unfitted_error"]


def test_too_few_data_are_said_and_do_no_harm() -> None:
    graph = model(
        "[a] a = Gemm(x, w1, b1)\n[r] r = Relu(a)\n[y] y = Gemm(r, w2, b2)",
        "(float[1,20] x) => (float[1,4] y)",
        "float[20,40] w1, float[40] b1, float[40,4] w2, float[4] b2",
    )
    few, none = graph.copy(), graph.copy()
    ctx = run_pass(Prune(ratio=0.25), few, data={"calibration": data(graph, 8)})
    assert did(ctx)[0] == (
        "a",
        "30 of 40 channels kept, 3 constant on the calibration data, judged on 8 observations only: regularized",
    )
    assert did(ctx)[1][1] in (
        "all channels kept (a model's output); fitted on 8 observations of 30 features: regularized",
        "all channels kept (a model's output); bias fitted: its features are too many",
    )
    run_pass(Prune(ratio=0.25, refit=False), none, data={"calibration": data(graph, 8)})
    assert quality(graph, few) > quality(graph, none) - 1


def test_what_cannot_be_fitted_gets_a_bias_and_says_so() -> None:
    graph = coupled("shared weights")
    ctx = run_pass(Prune(ratio=0.3), graph, data={"calibration": data(graph)})
    said = [what for _, what in did(ctx) if "shares" in what]
    assert said
    assert all(
        what.endswith(("bias fitted: it shares its weights", "nothing fitted: it shares its weights")) for what in said
    )


def test_a_matmul_gets_its_bias_in_the_add_behind_it() -> None:
    graph = coupled("channels last")
    before = operators(graph)
    run_pass(Prune(ratio=0.3), graph, data={"calibration": data(graph)})
    # The first MatMul has an Add behind it already, the last has none.
    assert operators(graph) == [*before, "Add"]


def test_one_image_is_enough_to_run() -> None:
    graph = chain()
    run_pass(Prune(params=0.5), graph, data={"calibration": data(graph, 1)})
    assert Cost(graph).params <= 0.5 * Cost(chain()).params


def test_memory_of_the_original_is_not_written_to() -> None:
    graph = chain()
    before = graph.copy()
    text = print_graph(before)
    wanted = outputs(before)["y"]
    run_pass(Prune(params=0.5), graph, data={"calibration": data(graph)})
    assert print_graph(before) == text
    np.testing.assert_array_equal(outputs(before)["y"], wanted)


@pytest.mark.parametrize("threads", [2, 5])
def test_the_same_weights_on_any_number_of_threads(threads: int) -> None:
    graphs = [chain((16, 24, 32)), chain((16, 24, 32))]
    for graph, count in zip(graphs, (1, threads), strict=True):
        run_pass(Prune(params=0.5), graph, data={"calibration": data(graph)}, threads=count)
    first, second = ({c.name: c.values for c in graph.constants()} for graph in graphs)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


# -- how much -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["params", "macs"])
@pytest.mark.parametrize("part", [0.05, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("with_data", [False, True])
def test_budgets_are_met_within_a_hundredth(unit: str, part: float, with_data: bool) -> None:
    graph = chain((32, 48, 64), seed=2)
    total = getattr(Cost(graph), unit)
    step = Prune(params=part) if unit == "params" else Prune(macs=part)
    run_pass(step, graph, data={"calibration": data(graph, 16)} if with_data else {})
    assert part - 0.01 <= getattr(Cost(graph), unit) / total <= part


def test_new_biases_are_in_the_budget() -> None:
    graph = model(
        f"[a] a = Conv<{SAME}>(x, w1)\n[b] b = Conv(a, w2)\n[y] y = Conv(b, w3)",
        "(float[1,3,8,8] x) => (float[1,4,8,8] y)",
        "float[30,3,3,3] w1, float[30,30,1,1] w2, float[4,30,1,1] w3",
    )
    total = Cost(graph).params
    run_pass(Prune(params=0.5), graph, data={"calibration": data(graph)})
    assert sum(len(node.inputs) == 3 for node in graph.nodes) == 2
    assert Cost(graph).params <= 0.5 * total


def test_ratio_is_the_part_that_goes() -> None:
    graph = chain((8, 12, 16))
    ctx = run_pass(Prune(ratio=0.25), graph)
    assert did(ctx) == [
        ("conv0", "6 of 8 channels kept"),
        ("conv1", "9 of 12 channels kept"),
        ("conv2", "12 of 16 channels kept"),
    ]
    assert missed(ctx) == [("head", "a model's output")]


@pytest.mark.parametrize("step", [Prune(ratio=0), Prune(params=1), Prune(macs=1)])
def test_nothing_asked_is_the_identity(step: Prune) -> None:
    graph = chain()
    before = print_graph(graph)
    ctx = run_pass(step, graph, data={"calibration": data(graph)})
    assert print_graph(graph) == before
    assert did(ctx) == []
    reason = "ratio 0 takes none of its channels" if step.ratio == 0 else "the budget is met without it, at less error"
    assert missed(ctx) == [(f"conv{i}", reason) for i in range(3)] + [("head", "a model's output")]


def test_what_stays_is_rounded_and_has_a_floor() -> None:
    graph = chain((10, 12, 16))
    ctx = run_pass(Prune(ratio=0.6, multiple=4), graph)
    assert [r.figures["channels_after"] for r in ctx.done] == [4, 4, 8]
    graph = chain((10, 12, 16))
    ctx = run_pass(Prune(ratio=0.9, least=5), graph)
    assert [r.figures["channels_after"] for r in ctx.done] == [5, 5, 5]
    graph = chain((6, 12, 16))
    ctx = run_pass(Prune(ratio=0.9, least=6), graph)
    assert missed(ctx)[0] == ("conv0", "no channel may go: least 6, multiple 1")


def test_only_and_skip() -> None:
    graph = chain()
    ctx = run_pass(Prune(ratio=0.5, only=("conv[01]",), skip=("conv1",)), graph)
    assert did(ctx) == [("conv0", "4 of 8 channels kept")]
    assert missed(ctx) == [
        ("conv1", "named by 'skip' (conv1)"),
        ("conv2", "not named by 'only'"),
        ("head", "a model's output"),
    ]


# -- what is refused ------------------------------------------------------------------------------------------------


def test_a_budget_that_cannot_be_met_names_the_least() -> None:
    graph = chain()
    with pytest.raises(UsageError) as caught:
        run_pass(Prune(params=0.01), graph)
    assert str(caught.value) == (
        "prune: params: the network cannot be brought to 0.01 of its parameters; the least that can be reached is "
        "0.0193; raise the budget, lower least or multiple, or factorize too"
    )
    run_pass(Prune(params=0.0193), graph)
    assert Cost(graph).params <= 0.0193 * Cost(chain()).params
    with pytest.raises(UsageError, match=r"^prune: macs: .* of its multiply-accumulates; the least"):
        run_pass(Prune(macs=0.001), chain())


def test_a_pattern_that_matches_nothing() -> None:
    with pytest.raises(UsageError) as caught:
        run_pass(Prune(ratio=0.5, skip=("conv3",)), chain())
    assert str(caught.value) == (
        "prune: skip: 'conv3' matches no layer with channels. Did you mean 'conv2'? 'edgec inspect --groups' lists them"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "nothing says how much to remove: give one of params, macs, ratio"),
        ({"params": 0.5, "ratio": 0.5}, "params and ratio exclude each other: give one of params, macs, ratio"),
    ],
)
def test_options_that_say_too_little_or_too_much(options: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        make("prune", options, "r.yaml: passes[0]")
    assert said in str(caught.value)


@pytest.mark.parametrize("criterion", ["activation", "reconstruction"])
def test_criteria_that_need_data(criterion: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan([("prune", {"ratio": 0.5, "criterion": criterion})], source="r.yaml")
    assert str(caught.value) == (
        "r.yaml: passes[0] 'prune': needs 'data.calibration', which the recipe does not have; add data.calibration"
    )
    plan([("prune", {"ratio": 0.5})], source="r.yaml")


def test_values_that_are_not_finite() -> None:
    graph = chain()
    feeds = data(graph, 4).feeds
    feeds[2]["x"][0, 0, 0, 0] = np.nan
    with pytest.raises(InputError) as caught:
        run_pass(Prune(ratio=0.5), graph, data={"calibration": Samples(feeds)})
    assert str(caught.value) == (
        "tensor 'r0': is NaN on batch 2 of the calibration data; "
        "correct the data or its preprocessing, or the weights in front of it"
    )


def test_no_samples() -> None:
    with pytest.raises(InputError) as caught:
        run_pass(Prune(ratio=0.5), chain(), data={"calibration": Samples([])})
    assert str(caught.value) == ("calibration data: has no samples to calibrate with; name a data set that has some")


# -- with other passes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("prune", "factorize"), ("factorize", "prune")])
def test_it_composes_with_factorize_in_either_order(order: tuple[str, str]) -> None:
    graph = chain((24, 32, 48))
    before = graph.copy()
    total = Cost(graph).params
    for number, name in enumerate(order, 1):
        step = make(name, {"params": 0.6}, "r.yaml: passes[0]")
        now = Cost(graph).params
        run_pass(step, graph, data={"calibration": data(graph, 32)})
        assert 0.58 * now <= Cost(graph).params <= 0.6 * now
        assert Cost(graph).params <= 0.6**number * total
    assert quality(before, graph) > 10
