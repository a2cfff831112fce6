"""Which scales become one, which stay apart, and which are no finer than what they come from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.execution import Session, sqnr_db, stacked
from edgec.ir.graph import Graph, Node, Variable, producer
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.scales.affine_parameters import Parameters, Range
from edgec.passes.quantize.scales.scale_constraints import Activation, Solution, Tie, solve
from edgec.testing import Samples, model, named, run_pass

SCHEME = target("coral-dev-board").scheme
JOIN = Node("Concat", "join")


def activation(name: str, width: float, finest: float | None = None, by: Parameters | None = None) -> Activation:
    return Activation(Variable(name), Range(0.0, width), by, finest)


def solved(activations: Sequence[Activation], ties: Sequence[Tie]) -> tuple[list[float], Solution]:
    assert SCHEME is not None
    solution = solve(activations, ties, SCHEME)
    return [solution.chosen[one].scale * 255 for one in activations], solution


def joins(whole: Activation, *parts: Activation) -> list[Tie]:
    return [Tie(JOIN, (whole, part), widest=2.0) for part in parts]


def test_parts_that_are_nearly_as_wide_have_one_scale() -> None:
    whole, part, other = activation("whole", 4), activation("part", 4), activation("other", 2.5)
    widths, solution = solved([whole, part, other], joins(whole, part, other))
    assert widths == pytest.approx([4, 4, 4], rel=1e-5)
    assert not solution.apart and not solution.broken


def test_a_part_that_is_much_narrower_keeps_its_scale() -> None:
    whole, part, small = activation("whole", 4), activation("part", 4), activation("small", 1)
    widths, solution = solved([whole, part, small], joins(whole, part, small))
    assert widths == pytest.approx([4, 4, 1], rel=1e-5)
    assert solution.apart == [(JOIN, small)]


def test_joins_that_grow_keep_their_scales_where_they_share_a_part() -> None:
    """r is in both joins: one scale for all would give the first join the steps of the second."""
    r, first, second = activation("r", 1, finest=3), activation("first", 3), activation("second", 9)
    widths, solution = solved([r, first, second], [*joins(first, r), *joins(second, r)])
    # Nobody but joins reads r, so it needs no finer steps than the first join has.
    assert widths == pytest.approx([3, 3, 9], rel=1e-5)
    assert solution.apart == [(JOIN, r)]


def test_what_is_multiplied_keeps_its_integers() -> None:
    x, y, z = activation("x", 2), activation("y", 6.1), activation("z", 3)
    mul = Node("Mul", "mul")
    widths, _ = solved([x, y, z], [Tie(mul, (y, x), 3.0, 1.5), Tie(mul, (z, y), 0.5, 1.5)])
    assert widths == pytest.approx([6.1 / 3, 6.1, 3.05], rel=1e-5)


def test_pixels_prescribe_what_is_multiplied() -> None:
    pixels = activation("pixels", 200, by=Parameters(1.0, -128, "int8"))
    scaled = activation("scaled", 200 / 255)
    _, solution = solved([pixels, scaled], [Tie(Node("Mul", "mul"), (scaled, pixels), 1 / 255, 1.5)])
    assert solution.chosen[scaled] == Parameters(float(np.float32(1 / 255)), -128, "int8")


def test_a_prescription_that_forbids_a_tie_breaks_it() -> None:
    fixed, wide = activation("fixed", 1, by=Parameters(1 / 256, -128, "int8")), activation("wide", 1.9)
    widths, solution = solved([fixed, wide], [Tie(JOIN, (wide, fixed), widest=2.0)])
    assert solution.broken == [(JOIN, fixed)]
    assert widths == pytest.approx([255 / 256, 1.9], rel=1e-5)


def test_what_was_computed_twice_for_one_ratio_agrees() -> None:
    """A chain of ratios that comes back to where it began holds only where it multiplies to one."""
    a, b = activation("a", 2), activation("b", 4)
    mul = Node("Mul", "mul")
    widths, solution = solved([a, b], [Tie(mul, (b, a), 2.0, 9.0), Tie(mul, (a, b), 0.25, 9.0)])
    assert widths[1] == pytest.approx(2 * widths[0])
    assert solution.apart == [(mul, b)]


# -- in networks -------------------------------------------------------------------------------------------------------


def samples(seed: int) -> Samples:
    random = np.random.default_rng(seed)
    return Samples([{"x": random.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(16)])


def exactness(graph: Graph, board: str) -> float:
    before = graph.copy()
    run_pass(Quantize(effort="fast"), graph, target=target(board), data={"calibration": samples(1)})
    exact, rounded = (stacked(list(map(Session(one).run, samples(2).feeds))) for one in (before, graph))
    Session(graph, optimize=True).run(samples(2).feeds[0])  # onnxruntime's kernels take the scales
    return sqnr_db(exact, rounded)


def scale_of(graph: Graph, name: str) -> float:
    node = producer(named(graph, f"{name}.quantized"))
    assert node is not None
    return float(node.inputs[1].values)


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board"])
def test_ranges_that_grow_through_joins(board: str) -> None:
    body = "c = Conv <pads = [1,1,1,1]> (x, w)\nr = Relu (c)\n"
    joined, weights = ["r"], ["float[8,3,3,3] w"]
    for number in range(4):
        reads = f"j{number}" if number else "r"
        body += f"j{number} = Concat <axis = 1> ({', '.join(joined)})\n" if number else ""
        body += f"k{number} = Conv <pads = [1,1,1,1]> ({reads}, w{number})\nm{number} = Mul (k{number}, three)\n"
        body += f"a{number} = Relu (m{number})\n"
        weights.append(f"float[8,{8 + 8 * number},3,3] w{number}")
        joined.append(f"a{number}")
    body += f"j = Concat <axis = 1> ({', '.join(joined)})\ny = Conv (j, last)"
    declared = ", ".join([*weights, "float three = {4}", "float[4,40,1,1] last"])
    graph = model(body, "(float[1,3,8,8] x) => (float[1,4,8,8] y)", declared)
    assert exactness(graph, board) > 26  # 22.4 dB with one scale for all joins
    assert scale_of(graph, "r") < scale_of(graph, "j") / 8


NOTHING = {
    "a mean": "n = InstanceNormalization (c, one, zero)\na = GlobalAveragePool (n)\nz = Add (n, a)\ny = Relu (z)",
    "a difference": "e = Conv <pads = [1,1,1,1]> (x, w)\nd = Sub (c, e)\na = GlobalAveragePool (d)\ny = Add (c, a)",
    "a product": "r = Relu (c)\nn = Neg (c)\nq = Relu (n)\nm = Mul (r, q)\ng = GlobalAveragePool (m)\ny = Add (c, g)",
    "a dead channel": "r = Relu (c)\nh, t = Split <axis = 1, num_outputs = 2> (r)\ng = GlobalAveragePool (h)\n"
    "m = Mul (h, g)\ny = Concat <axis = 1> (m, t)",
}


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board"])
@pytest.mark.parametrize("kind", NOTHING)
def test_the_scale_of_nothing_follows_from_what_it_comes_from(kind: str, board: str) -> None:
    weights = np.random.default_rng(0).normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32)
    weights[:4] *= kind != "a dead channel"
    graph = model(
        f"c = Conv <pads = [1,1,1,1]> (x, w)\n{NOTHING[kind]}",
        "(float[1,3,8,8] x) => (float[1,8,h,v] y)",
        "float[8,3,3,3] w, float[8] one = {1,1,1,1,1,1,1,1}, float[8] zero = {0,0,0,0,0,0,0,0}",
        opset=18,
        w=weights,
    )
    assert exactness(graph, board) > 25
    if kind == "a mean":
        assert scale_of(graph, "a") == pytest.approx(scale_of(graph, "n") / 256, rel=0.01)
