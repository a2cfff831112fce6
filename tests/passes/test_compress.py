"""compress: what it keeps to, what it chooses, and what it says."""

from __future__ import annotations

from itertools import chain, cycle
from typing import Any

import numpy as np
import pytest

from edgec.ir.cost import Cost
from edgec.ir.errors import InputError, UsageError
from edgec.ir.execution import seeded_feeds, sqnr_db
from edgec.ir.files import to_bytes
from edgec.ir.graph import Graph
from edgec.ir.printer import print_graph
from edgec.passes.calibration.batch_split import split
from edgec.passes.calibration.dataset import InMemory, Part
from edgec.passes.calibration.runner import batches
from edgec.passes.calibration.sqnr_evaluator import SqnrEvaluator
from edgec.passes.compress.compress import Compress
from edgec.passes.factorize.factorize import Factorize
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.framework.planner import make, plan
from edgec.passes.framework.target import Target
from edgec.passes.layers.linear import LINEAR
from edgec.passes.prune.prune import Prune
from edgec.testing import Samples, assert_same, corrupt, missed, model, outputs, run_pass

SAME = "pads=[1,1,1,1]"
UNITS = ["params", "macs", "weight_bytes"]


def residual(width: int = 24, blocks: int = 2, seed: int = 0) -> Graph:
    """A stem, residual blocks and a pointwise head, on 3x8x8; what a block computes is of a lower rank."""
    lines = [f"[stem] s = Conv<{SAME}>(x, ws, bs)", "[relu] a0 = Relu(s)"]
    weights = [f"float[{width},3,3,3] ws", f"float[{width}] bs"]
    for n in range(blocks):
        lines += [
            f"[in{n}] c{n} = Conv<{SAME}>(a{n}, wi{n}, bi{n})",
            f"[relu{n}] d{n} = Relu(c{n})",
            f"[out{n}] e{n} = Conv<{SAME}>(d{n}, wo{n}, bo{n})",
            f"[add{n}] f{n} = Add(a{n}, e{n})",
            f"[last{n}] a{n + 1} = Relu(f{n})",
        ]
        weights += [f"float[{width},{width},3,3] wi{n}", f"float[{width}] bi{n}"]
        weights += [f"float[{width},{width},3,3] wo{n}", f"float[{width}] bo{n}"]
    lines.append(f"[head] y = Conv(a{blocks}, w, b)")
    weights += [f"float[4,{width},1,1] w", "float[4] b"]
    signature = "(float[1,3,8,8] x) => (float[1,4,8,8] y)"
    graph = model("\n".join(lines), signature, ", ".join(weights), seed=seed)
    random = np.random.default_rng(seed)
    for constant in graph.constants():
        if len(constant.shape) == 4 and constant.shape[0] == constant.shape[1] == width:
            low = random.standard_normal((width, width // 4)) @ random.standard_normal((width // 4, width * 9))
            kernel = constant.values + (low / width).reshape(constant.shape)
            constant.values = kernel.astype(np.float32)
    return graph


@pytest.fixture(autouse=True)
def samples_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two of so few samples of noise are taken to resemble each other: which are held out is known then."""
    monkeypatch.setattr(
        "edgec.passes.compress.compress.groups_of_batches", lambda graph, ctx: np.arange(batches(graph, ctx))
    )


#: Tries are judged by compress: the passes in them fit to all that they get.


def data(graph: Graph, count: int = 20, seed: int = 3) -> dict[str, Samples]:
    """Smooth images with noise."""
    random = np.random.default_rng(seed)
    made = []
    for feeds in seeded_feeds(graph, samples=count, seed=seed):
        [(name, values)] = feeds.items()
        low = random.standard_normal((*values.shape[:2], 1, 1))
        made.append({name: (low + 0.5 * values).astype(np.float32)})
    return {"calibration": Samples(made)}


def quality(before: Graph, after: Graph, count: int = 16) -> float:
    """SQNR in dB on samples that are not the calibration data's."""
    held_out = data(before, count, seed=11)["calibration"].feeds
    wanted, got = (np.stack([outputs(graph, feeds)["y"] for feeds in held_out]) for graph in (before, after))
    return sqnr_db({"y": wanted}, {"y": got})


def compress(unit: str, part: float, **options: Any) -> Compress:
    return Compress(**{unit: part}, **options)


# -- the budget -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("part", [0.15, 0.5])
def test_budgets_are_met_within_a_hundredth(unit: str, part: float) -> None:
    graph = residual(blocks=1)
    before = graph.copy()
    ctx = run_pass(compress(unit, part), graph, data=data(graph))
    got = getattr(Cost(graph), unit) / getattr(Cost(before), unit)
    assert part - 0.01 <= got <= part
    assert [(t.name, t.shape) for t in (*graph.inputs, *graph.outputs)] == [
        (t.name, t.shape) for t in (*before.inputs, *before.outputs)
    ]
    found = quality(before, graph)
    assert found > 3
    layers = {node.name for node in before.nodes if node.op in LINEAR}
    assert {r.node for r in (*ctx.done[1:], *ctx.left)} == layers
    corrupt(graph)
    assert quality(before, graph) < found - 3


def test_biases_that_the_fit_adds_are_in_the_budget() -> None:
    graph = model(
        f"[a] a = Conv<{SAME}>(x, w1)\n[r] r = Relu(a)\n[b] b = Conv<{SAME}>(r, w2)\n[y] y = Conv(b, w3)",
        "(float[1,3,8,8] x) => (float[1,4,8,8] y)",
        "float[24,3,3,3] w1, float[24,24,3,3] w2, float[4,24,1,1] w3",
    )
    total = Cost(graph).params
    run_pass(Compress(params=0.4), graph, data=data(graph))
    assert any(len(node.inputs) == 3 for node in graph.nodes)
    assert Cost(graph).params <= 0.4 * total


def test_a_budget_of_everything_is_the_identity() -> None:
    graph = residual(blocks=1)
    before = print_graph(graph)
    ctx = run_pass(Compress(params=1.0), graph, data=data(graph))
    assert print_graph(graph) == before
    assert ctx.done == []
    assert {node for node, _ in missed(ctx)} == {"stem", "in0", "out0", "head"}


@pytest.mark.parametrize("with_data", [False, True])
def test_a_budget_below_all_reach_names_what_can_be_reached(with_data: bool) -> None:
    graph = residual(8, 1)
    given = data(graph, 12) if with_data else {}
    before = print_graph(graph)
    with pytest.raises(UsageError) as caught:
        run_pass(Compress(params=0.01, least=2), graph, data=given)
    assert print_graph(graph) == before
    said, least = str(caught.value).split("can be reached is ")
    assert said == ("compress: params: the network cannot be brought to 0.01 of its parameters; the least that ")
    least, fix = least.split("; ")
    assert fix == "raise the budget, or lower least, min_rank or multiple"
    total = Cost(graph).params
    run_pass(Compress(params=float(least), least=2), graph, data=given)
    assert Cost(graph).params <= float(least) * total
    with pytest.raises(UsageError, match=r"^compress: macs: .* of its multiply-accumulates; the least"):
        run_pass(Compress(macs=0.0001), residual(8, 1))
    with pytest.raises(UsageError, match=r"^compress: weight_bytes: .* of its bytes of weights; the least"):
        run_pass(Compress(weight_bytes=0.0001), residual(8, 1))


def test_what_neither_pass_reaches_alone_both_reach_together() -> None:
    graph = residual(8, 1)
    total = Cost(graph).params
    for step in (Prune(params=0.2, least=4), Factorize(params=0.2, min_rank=3)):
        with pytest.raises(UsageError, match="the least that can be reached is"):
            run_pass(step, graph.copy())
    run_pass(Compress(params=0.2, least=4, min_rank=3), graph)
    assert Cost(graph).params <= 0.2 * total


# -- the choice -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [0.1, 0.4])
def test_it_is_never_worse_than_factorize_alone_by_its_own_measure(
    part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgec.passes.compress.compress.ENOUGH_SAMPLES", 0)  # no tries without data
    graph = residual()
    given = data(graph)
    parts = split(20, 128)
    assert parts.apart
    alone = graph.copy()
    total = Cost(graph).params
    ctx = Context(graph, RunConfig(data=given))
    run_pass(
        Factorize(params=part),
        alone,
        data={"calibration": Part(given["calibration"], parts.fit, 1)},
        validated_outside=True,
    )
    measured = SqnrEvaluator(graph, ctx, parts).sqnr_db(alone)
    before = graph.copy()
    ctx = run_pass(Compress(params=part), graph, data=given)
    figures = ctx.done[0].figures
    assert figures["sqnr_db"] >= measured - 1e-6
    if figures["pruned_to"] == 1:
        run_pass(Factorize(params=part), before, data=given, validated_outside=True)
        assert_same(before, graph, tolerance=1e-6)
    else:
        assert figures["sqnr_db_factorized_alone"] == pytest.approx(measured, abs=1e-6)
    assert Cost(graph).params <= part * total


def test_channels_that_nothing_is_worth_are_pruned() -> None:
    """Half of the channels are copies of the others: pruning loses nothing by them, factorizing has to pay."""
    graph = model(
        f"[a] a = Conv<{SAME}>(x, w1, b1)\n[r] r = Relu(a)\n[b] b = Conv<{SAME}>(r, w2, b2)\n"
        "[q] q = Relu(b)\n[y] y = Conv(q, w3, b3)",
        "(float[1,3,8,8] x) => (float[1,4,8,8] y)",
        "float[32,3,3,3] w1, float[32] b1, float[32,32,3,3] w2, float[32] b2, float[4,32,1,1] w3, float[4] b3",
    )
    for constant in graph.constants():
        if constant.name in ("w1", "b1", "w2", "b2"):
            values = constant.values.copy()
            values[16:] = values[:16]
            constant.values = values
    before = graph.copy()
    ctx = run_pass(Compress(params=0.3), graph, data=data(graph))
    assert ctx.done[0].figures["pruned_to"] < 0.9
    assert quality(before, graph) > 40


def test_layers_that_are_not_named_stay() -> None:
    graph = residual(blocks=1)
    before = {c.name: c.values for c in graph.constants()}
    ctx = run_pass(Compress(params=0.8, skip=("out*", "stem", "head")), graph)
    left = {c.name: c.values for c in graph.constants()}
    for name in ("ws", "w"):
        np.testing.assert_array_equal(left[name], before[name])
    assert ("stem", "not pruned: named by 'skip' (out*)") in missed(ctx)  # its channels are those that out0 adds to
    assert all(np.shape(left[name]) == np.shape(before[name]) for name in ("bs", "bo0", "b"))
    only = residual(blocks=1)
    run_pass(Compress(params=0.9, only=("head", "in0")), only)
    left = {c.name: c.values for c in only.constants()}
    np.testing.assert_array_equal(left["ws"], before["ws"])
    assert Cost(only).params <= 0.9 * Cost(residual(blocks=1)).params


@pytest.mark.parametrize("how", ["option", "target"])
def test_channels_and_ranks_are_multiples(how: str) -> None:
    graph = residual(32, 1)
    target = Target("board", "board", "cpu", None, channel_multiple=8, least_channels=8) if how == "target" else None
    ctx = Context(graph, RunConfig(targets=[target] if target else [], data=data(graph, 12)))
    Compress(params=0.3, multiple=8 if how == "option" else None).run(graph, ctx)
    graph.sort()
    graph.remove_dead()
    for node in graph.nodes:
        if node.op == "Conv":
            out, into = node.inputs[1].shape[:2]
            assert out in (4,) or out % 8 == 0
            assert into in (3,) or into % 8 == 0


# -- data -----------------------------------------------------------------------------------------------------------


def test_without_data_noise_measures_and_it_is_said() -> None:
    graph = residual(blocks=1)
    ctx = run_pass(Compress(params=0.5), graph)
    assert ctx.done[0].node == "the network"
    assert ctx.done[0].what.endswith(" dB (measured on noise: there are no calibration data)")


def test_half_of_few_samples_are_held_out() -> None:
    graph = residual(blocks=1)
    ctx = run_pass(Compress(params=0.5), graph, data=data(graph, 4))
    assert "(fitted to 2 and measured on 2 other calibration samples)" in ctx.done[0].what


def test_what_was_tried_is_said() -> None:
    graph = residual(blocks=1)
    ctx = run_pass(Compress(params=0.3), graph, data=data(graph))
    said = ctx.done[0].what
    assert "factorized alone: " in said
    assert "pruned to " in said
    assert said.endswith("(fitted to 16 and measured on 4 other calibration samples)")
    assert {"pruned_to", "sqnr_db"} <= ctx.done[0].figures.keys()


def test_no_data_in_the_data_set() -> None:
    with pytest.raises(InputError) as caught:
        run_pass(Compress(params=0.5), residual(8, 1), data={"calibration": Samples([])})
    assert str(caught.value) == ("calibration data: has no samples to calibrate with; name a data set that has some")


@pytest.mark.parametrize("with_data", [False, True])
def test_the_same_bytes_on_any_number_of_threads(with_data: bool) -> None:
    made = []
    for threads in (1, 2):
        graph = residual(16, 1)
        run_pass(Compress(params=0.3), graph, data=data(graph, 12) if with_data else {}, threads=threads)
        made.append(to_bytes(graph))
    assert made[0] == made[1]


def test_parts_of_a_data_set() -> None:
    samples = np.arange(7)
    whole = InMemory({"x": samples}, "numbers")
    part = Part(whole, (0, 2, 3), 2)
    assert [feeds["x"].tolist() for feeds in part.batches(2)] == [[0, 1], [4, 5], [6]]
    assert len(part) == 5
    assert len(Part(whole, (0, 2), 2)) == 4
    with pytest.raises(ValueError, match="batches of 1, made for batches of 2"):
        list(part.batches(1))


@pytest.mark.parametrize("count", [1, 9, 10, 64, 1000])
def test_the_split_of_the_data(count: int) -> None:
    parts = split(count, 50)
    assert parts.apart == (count >= 10)
    assert 0 < len(parts.fit) <= 50
    assert 0 < len(parts.judge) <= 32
    assert max(*parts.fit, *parts.judge) < count
    assert max(parts.fit) >= 0.9 * count - 1


# -- what becomes of tries -----------------------------------------------------------------------------------------


def test_a_try_stays_where_all_the_data_make_it_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual(12, 1)
    given = data(graph)
    # Factorized alone; a quarter and an eighth pruned; the first again, from all of the data.
    measured = iter([20.0, 10.0, 11.0, 5.0])
    monkeypatch.setattr("edgec.passes.compress.compress.ENOUGH_SAMPLES", 0)  # none without data
    monkeypatch.setattr(SqnrEvaluator, "sqnr_db", lambda self, made: next(measured))
    tried = graph.copy()
    run_pass(
        Factorize(params=0.4),
        tried,
        data={"calibration": Part(given["calibration"], split(20, 128).fit, 1)},
        validated_outside=True,
    )
    ctx = run_pass(Compress(params=0.4), graph, data=given)
    said = ctx.done[0].what
    assert said.startswith("factorized alone: 20.0 dB; pruned to ")
    assert ", before it is factorized: 10.0 dB (" in said
    assert said.endswith(" samples); left as it was tried: made again from all samples it is worse")
    assert next(measured, None) is None  # one that is pruned further was not looked at
    for name, values in outputs(tried).items():
        np.testing.assert_array_equal(outputs(graph)[name], values)


def test_less_pruning_wins_where_outcomes_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual(12, 1)
    before = graph.copy()
    # Factorized alone; of each step behind it, pruned and then also factorized.
    measured = chain([20.0], cycle([90.0, 20.2]))
    monkeypatch.setattr("edgec.passes.compress.compress.ENOUGH_SAMPLES", 0)  # none without data
    monkeypatch.setattr(SqnrEvaluator, "sqnr_db", lambda self, made: next(measured))
    ctx = run_pass(Compress(params=0.4), graph, data=data(graph))
    assert ctx.done[0].what.startswith("factorized alone: 20.0 dB; ")
    run_pass(Factorize(params=0.4), before, data=data(graph), validated_outside=True)
    assert_same(before, graph, tolerance=1e-6)


# -- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["only", "skip"])
def test_a_pattern_that_matches_nothing(option: str) -> None:
    with pytest.raises(UsageError) as caught:
        run_pass(compress("params", 0.5, **{option: ("steam",)}), residual(8, 1))
    assert str(caught.value) == (
        f"compress: {option}: 'steam' matches no Conv, ConvTranspose, Gemm or MatMul. Did you mean 'stem'? "
        "'edgec inspect' lists the layers"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "nothing says how much to keep: give one of params, macs, weight_bytes"),
        ({"params": 0.5, "macs": 0.5}, "params and macs exclude each other: give one of params, macs, weight_bytes"),
    ],
)
def test_options_that_say_too_little_or_too_much(options: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        make("compress", options, "r.yaml: passes[0] 'compress'")
    assert str(caught.value) == f"r.yaml: passes[0] 'compress': {said}; 'edgec passes compress' explains"


def test_it_is_a_pass_for_float_models() -> None:
    with pytest.raises(UsageError, match="needs a 'float' graph"):
        plan([("quantize", {}), ("compress", {"params": 0.5})], roles=["calibration"])


# -- the passes one by one, in either order ---------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("prune", "factorize"), ("factorize", "prune"), ("compress", "compress")])
def test_passes_compose_on_a_residual_network_in_either_order(order: tuple[str, str]) -> None:
    graph = residual()
    before = graph.copy()
    total = Cost(graph).params
    for number, name in enumerate(order, 1):
        now = Cost(graph).params
        run_pass(make(name, {"params": 0.6}, "r.yaml: passes[0]"), graph, data=data(graph))
        assert 0.58 * now <= Cost(graph).params <= 0.6 * now
        assert Cost(graph).params <= 0.6**number * total
    assert [(t.name, t.shape, t.dtype) for t in (*graph.inputs, *graph.outputs)] == [
        (t.name, t.shape, t.dtype) for t in (*before.inputs, *before.outputs)
    ]
    assert quality(before, graph) > 6
