"""What is left after a cut computes what the network computed with the removed channels at zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks.coupled import TEXTS, coupled
from networks.efficientnet_lite0 import export

from edgec.frontends.model import open_model
from edgec.ir.channels import Channels, Group
from edgec.ir.cost import Cost
from edgec.ir.execution import Session, seeded_feeds, sqnr_db
from edgec.ir.graph import Constant, Graph, Tensor
from edgec.ir.verifier import verify, verify_types
from edgec.passes.fold.constants import fold_constants
from edgec.passes.framework.context import Context
from edgec.passes.prune.cutting import cut, spare
from edgec.testing import model, networks, outputs

# What reads channels and no longer has them apart in what it gives.
_READERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "ReduceSum"}
Plan = Mapping[Group, np.ndarray]


def masked(graph: Graph, plan: Plan) -> Graph:
    """A copy of ``graph`` in which a Mul in front of every reader sets the removed channels to zero."""
    mapped: dict[Tensor, Tensor] = {}
    copy = graph.copy(mapped)
    shapes = verify_types(copy)
    masks: dict[Tensor, dict[int, np.ndarray]] = {}
    for group, keep in plan.items():
        for carrier in group.carriers:
            axes = masks.setdefault(mapped[carrier.tensor], {})
            stays = np.append(keep, True)[carrier.index]
            axes[carrier.axis] = axes.get(carrier.axis, True) & stays
    for node in [n for n in copy.nodes if n.op in _READERS]:
        for place, tensor in enumerate(list(node.inputs)):
            for axis, mask in masks.get(tensor, {}).items():
                if place < (2 if node.op == "MatMul" else 1):
                    shape = [-1 if a == axis else 1 for a in range(len(shapes.shape(tensor) or ()))]
                    factor = copy.const("mask", mask.reshape(shape).astype(np.float32))
                    node.inputs[place] = copy.op("Mul", [node.inputs[place], factor], before=node)
    return copy


def half(group: Group, random: np.random.Generator) -> np.ndarray:
    """A mask that keeps a random half of the units, and what no tensor can do without."""
    keep = np.ones(group.width, bool)
    keep[random.permutation(group.width)[: max(1, group.width // 2)]] = False
    return spare(group, keep)


def cut_copy(graph: Graph, plan: Plan) -> Graph:
    """A copy of ``graph`` cut by a plan for ``graph``, verified, with the same signature."""
    mapped: dict[Tensor, Tensor] = {}
    copy = graph.copy(mapped)
    there = dict(zip(graph.nodes, copy.nodes, strict=True))
    moved = {}
    for group, keep in plan.items():
        slots = [replace(s, constant=mapped[s.constant], node=there[s.node]) for s in group.slots]
        carriers = [replace(c, tensor=mapped[c.tensor]) for c in group.carriers]
        moved[replace(group, slots=slots, carriers=carriers)] = keep
    cut(copy, moved)
    assert verify(copy) == []
    shapes = verify_types(copy)
    for variable in copy.variables():
        inferred = shapes.shape(variable)
        assert inferred is not None
        assert 0 not in inferred
        declared = variable.shape or [None] * len(inferred)
        assert all(d == i for d, i in zip(declared, inferred, strict=True) if isinstance(d, int)), variable
    assert [(t.name, t.shape) for t in copy.inputs] == [(t.name, t.shape) for t in graph.inputs]
    assert [(t.name, t.shape) for t in copy.outputs] == [(t.name, t.shape) for t in graph.outputs]
    return copy


def assert_exact(graph: Graph, plan: Plan, *, tolerance: float = 1e-5) -> None:
    """The cut graph gives what the masked one gives, of two inputs."""
    pruned, wanted = cut_copy(graph, plan), masked(graph, plan)
    for feeds in seeded_feeds(graph, samples=2):
        expected, got = outputs(wanted, feeds), outputs(pruned, feeds)
        for name, x in expected.items():
            limit = tolerance * max(1e-3, float(np.abs(x).max()))
            np.testing.assert_allclose(got[name], x, rtol=0, atol=limit, err_msg=name)


def cuttable(graph: Graph) -> list[Group]:
    return [group for group in Channels(graph).groups if group.fixed is None]


@pytest.mark.parametrize("name", TEXTS)
def test_a_cut_is_exact_for_every_group(name: str) -> None:
    graph = coupled(name)
    random = np.random.default_rng(3)
    groups = cuttable(graph)
    if name == "even split":  # the only group: a
        assert [group.name for group in groups] == ["a"]
    removed = 0
    for group in groups:
        keep = half(group, random)
        removed += int((~keep).sum())
        assert_exact(graph, {group: keep})
    assert removed


@pytest.mark.parametrize("name", TEXTS)
def test_a_cut_of_all_groups_at_once_is_exact(name: str) -> None:
    graph = coupled(name)
    random = np.random.default_rng(4)
    assert_exact(graph, {group: half(group, random) for group in cuttable(graph)})


@pytest.mark.parametrize("name", TEXTS)
def test_groups_at_once_and_one_after_the_other_are_the_same(name: str) -> None:
    graph = coupled(name)
    plan = {group: half(group, np.random.default_rng(group.width)) for group in cuttable(graph)}
    masks = {group.name: keep for group, keep in plan.items()}
    at_once = cut_copy(graph, plan)
    stepwise = graph.copy()
    for group_name, keep in masks.items():
        group = next(g for g in Channels(stepwise).groups if g.name == group_name)
        cut(stepwise, {group: keep})
    feeds = seeded_feeds(graph, samples=1)[0]
    assert sqnr_db(outputs(at_once, feeds), outputs(stepwise, feeds)) > 120
    assert Cost(at_once).params == Cost(stepwise).params


@pytest.mark.parametrize("name", TEXTS)
def test_params_says_what_a_cut_of_one_unit_removes(name: str) -> None:
    graph = coupled(name)
    for group in cuttable(graph):
        keep = np.ones(group.width, bool)
        keep[-1] = False
        if (spare(group, keep) == keep).all():
            assert Cost(graph).params - Cost(cut_copy(graph, {group: keep})).params == group.params()[-1]


def test_a_wrong_index_map_is_noticed() -> None:
    graph = coupled("split and sliced")
    group = next(g for g in cuttable(graph) if g.name == "a")
    keep = np.ones(group.width, bool)
    keep[[1, 6, 9]] = False
    assert_exact(graph, {group: keep})
    noticed = 0
    for place, slot in enumerate(group.slots):
        wrong = list(group.slots)
        wrong[place] = replace(slot, index=np.roll(slot.index, 1))
        broken = replace(group, slots=wrong, carriers=group.carriers)
        with pytest.raises(AssertionError):
            assert_exact(graph, {broken: keep})
        noticed += 1
    assert noticed == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["ResNeXt, groups", "MobileNetV3, gates by convolutions", "DenseNet", "U-Net", "ShuffleNet",
     "ShuffleNetV2, CSP: halves", "PReLU, norms, transposed", "ConvNeXt"],
)  # fmt: skip
def test_a_cut_of_torch_networks_is_exact(name: str, tmp_path: Path) -> None:
    from networks.coupled_torch import export as export_torch

    path = tmp_path / "network.onnx"
    export_torch(name, path)
    graph = open_model(path)
    fold_constants(graph, Context(graph))
    random = np.random.default_rng(6)
    plan = {group: half(group, random) for group in cuttable(graph)}
    assert plan
    for group, keep in plan.items():
        assert_exact(graph, {group: keep})
    assert_exact(graph, plan)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.integers(0, 2**31 - 1))
def test_a_cut_of_random_networks_is_exact(network: Graph, seed: int) -> None:
    random = np.random.default_rng(seed)
    plan = {group: half(group, random) for group in cuttable(network)}
    assert_exact(network, plan, tolerance=1e-4)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_keeping_everything_changes_nothing(network: Graph) -> None:
    before = {constant.name: constant.values for constant in network.constants()}
    cut(network, {group: np.ones(group.width, bool) for group in Channels(network).groups})
    assert all(before[constant.name] is constant.values for constant in network.constants())


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_group_of_efficientnet(tmp_path: Path, batch_norm: bool) -> None:
    """Each by itself, and where BatchNormalization is not folded all at once."""
    path = tmp_path / "network.onnx"
    export(path, batch_norm=batch_norm)
    graph = open_model(path)
    fold_constants(graph, Context(graph))
    random = np.random.default_rng(8)
    groups = Channels(graph).groups
    assert [g.name for g in groups if g.fixed] == [groups[-1].name]
    assert groups[-1].fixed == "a model's output"
    assert len(groups) == 25
    feeds = seeded_feeds(graph, samples=1)[0]
    plans = [{group: half(group, random)} for group in groups[:-1]]
    if batch_norm:
        plans = [{group: keep for plan in plans for group, keep in plan.items()}]
    for plan in plans:
        assert all(keep.sum() == group.width // 2 for group, keep in plan.items())
        wanted = Session(masked(graph, plan), threads=2).run(feeds)
        got = Session(cut_copy(graph, plan), threads=2).run(feeds)
        assert sqnr_db(wanted, got) > 100, plan


def test_a_plan_that_cannot_be(subtests: pytest.Subtests) -> None:
    graph = coupled("even split")
    group, fixed = Channels(graph).groups
    before = {constant.name: constant.values for constant in graph.constants()}
    cases: list[tuple[Group, np.ndarray, str]] = [
        (group, np.ones(7, bool), "group 'a': its mask must be bool of shape (8,)"),
        (group, np.ones(8, int), "group 'a': its mask must be bool of shape (8,)"),
        (group, np.zeros(8, bool), "would have no channel left on axis"),
        (group, np.arange(8) > 3, "would have no channel left on axis"),
        (fixed, np.arange(4) > 0, "group 'c' cannot be cut: a model's output"),
    ]
    for which, keep, message in cases:
        with subtests.test(message), pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
            cut(graph, {which: keep})
    assert all(before[constant.name] is constant.values for constant in graph.constants())
    # Both halves of the split keep the unit that matters most.
    scores = np.array([1, 5, 2, 3, 1, 1, 9, 1])
    np.testing.assert_array_equal(spare(group, np.zeros(8, bool), scores), [0, 1, 0, 0, 0, 0, 1, 0])


def test_attributes_that_state_widths() -> None:
    graph = coupled("shuffle")
    groups = {group.name: group for group in Channels(graph).groups}
    cut(graph, {groups["b"]: np.array([True, False, True]), groups["a"]: np.array([False, True, True, True])})
    by_output = {node.outputs[0].name: node for node in graph.nodes}
    assert by_output["b"].attrs["group"] == 2
    assert by_output["f"].attrs["group"] == 8
    shapes = [by_output[name].inputs[1] for name in "ce"]
    assert [c.values.tolist() for c in shapes if isinstance(c, Constant)] == [[1, 2, 4, 8, 8], [0, -1, 8, 8]]
    assert by_output["b"].inputs[1].shape == (8, 3, 1, 1)


def test_newer_operators() -> None:
    graph = model(
        """
        a = Conv(x, w1, b1)
        n = GroupNormalization <num_groups = 4> (a, g, o)
        s1, s2 = Split <axis = 1, num_outputs = 2> (n)
        p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (s1)
        r = Resize <axes = [1, 2, 3]> (p, "", "", sizes)
        c = Concat <axis = -3> (r, s2)
        y = Conv(c, w2)""",
        "(float[1,3,8,8] x) => (float[1,4,8,8] y)",
        """float[12,3,1,1] w1, float[12] b1, float[12] g, float[12] o, float[4,12,1,1] w2,
        int64[3] sizes = {6, 8, 8}""",
        opset=21,
    )
    (group, _) = Channels(graph).groups
    assert (group.width, group.channels_per_unit) == (4, 3)
    assert_exact(graph, {group: np.array([True, False, False, True])})
    # Uneven halves are stated.
    cut(graph, {group: np.array([True, False, True, True])})
    split = next(node for node in graph.nodes if node.op == "Split")
    normalization = next(node for node in graph.nodes if node.op == "GroupNormalization")
    assert split.inputs[1].values.tolist() == [3, 6]
    assert (split.attrs, normalization.attrs["num_groups"]) == ({"axis": 1}, 3)


def test_an_older_split_states_its_parts_in_an_attribute() -> None:
    graph = model(
        "a = Conv(x, w1)\n s1, s2 = Split <axis = 1> (a)\n c = Concat <axis = 1> (s2, s1)\n y = Conv(c, w2)",
        "(float[1,3,8,8] x) => (float[1,4,8,8] y)",
        "float[8,3,1,1] w1, float[4,8,1,1] w2",
        opset=12,
    )
    (group, _) = Channels(graph).groups
    keep = np.array([True, False, True, True, False, False, True, False])
    assert_exact(graph, {group: keep})
    cut(graph, {group: keep})
    assert graph.nodes[1].attrs["split"] == [3, 1]


def test_a_slice_that_is_no_stretch_any_more_becomes_a_gather() -> None:
    graph = model(
        """
        a = Conv(x, w1)
        b = Slice(a, from, to, axis, step)
        c = Conv(b, w2)
        d = Conv(a, w3)
        y = Add(c, d)""",
        "(float[1,2,4,4] x) => (float[1,2,4,4] y)",
        """float[9,2,1,1] w1, float[2,5,1,1] w2, float[2,9,1,1] w3,
        int64[1] from = {0}, int64[1] to = {9}, int64[1] axis = {1}, int64[1] step = {2}""",
    )
    (group, _) = Channels(graph).groups
    uneven = np.array([True, False, True, True, True, True, True, True, True])
    assert_exact(graph, {group: uneven})
    even = cut_copy(graph, {group: np.arange(9) % 2 == 0})
    assert [node.op for node in even.nodes].count("Gather") == 0
    assert [node.op for node in cut_copy(graph, {group: uneven}).nodes].count("Gather") == 1


def test_a_squeeze_of_all_ones_keeps_an_axis_that_is_cut_to_one() -> None:
    graph = model(
        """
        a = Conv(x, w1)
        p = GlobalAveragePool(a)
        s = Squeeze(p)
        m = MatMul(s, w2)
        y = Unsqueeze(m, zero)""",
        "(float[1,2,4,4] x) => (float[1,3] y)",
        "float[2,2,1,1] w1, float[2,3] w2, int64[1] zero = {0}",
    )
    (group, _) = Channels(graph).groups
    assert_exact(graph, {group: np.array([False, True])})


def test_a_shared_constant_is_cut_once_along_both_axes() -> None:
    graph = coupled("shared weights")
    group = cuttable(graph)[0]
    weight = next(c for c in graph.constants() if c.name == "w2")
    before = weight.values
    keep = np.array([True, True, False, True, False, True])
    cut(graph, {group: keep})
    np.testing.assert_array_equal(weight.values, before[keep][:, keep])
