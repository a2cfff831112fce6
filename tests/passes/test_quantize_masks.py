"""Masks beside scores, and other parts that no reader can tell from smaller ones."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.execution import Session, sqnr_db, stacked
from edgec.ir.graph import Graph
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.ranges.distinguishable import ALL, distinguishable
from edgec.passes.quantize.scales.affine_parameters import Range
from edgec.testing import Samples, did, missed, model, named, operators, run_pass

LENGTH, WIDTH = 12, 16
SIGNATURE = f"(float[1,{LENGTH},{WIDTH}] x) => (float[1,{LENGTH},8] y)"
WEIGHTS = f"float[{WIDTH},{WIDTH}] wq, float[{WIDTH},{WIDTH}] wk, float[{WIDTH},{WIDTH}] wv, float[{WIDTH},8] wo"
BEFORE = """
q = MatMul (x, wq)
k = MatMul (x, wk)
v = MatMul (x, wv)
kt = Transpose <perm = [0, 2, 1]> (k)
s = MatMul (q, kt)
"""
BEHIND = "p = Softmax <axis = -1> (m)\no = MatMul (p, v)\ny = MatMul (o, wo)"
LEAST = float(np.finfo(np.float32).min)


def padded(value: float) -> np.ndarray:
    mask = np.zeros((1, 1, LENGTH), np.float32)
    mask[..., 8:] = value
    return mask


def attention(sums: str, declared: str, signature: str = SIGNATURE, **values: Any) -> Graph:
    random = np.random.default_rng(0)
    weights = {name: random.normal(size=(WIDTH, WIDTH)) / 6 for name in ("wq", "wk", "wv")}
    return model(BEFORE + sums + BEHIND, signature, f"{WEIGHTS}, {declared}", **weights, **values)


def noise(seed: int, count: int = 16) -> Samples:
    random = np.random.default_rng(seed)
    return Samples([{"x": random.normal(size=(1, LENGTH, WIDTH)).astype(np.float32)} for _ in range(count)])


def exactness(graph: Graph, board: str, data: Samples, unseen: Samples) -> tuple[float, Any]:
    """SQNR on unseen samples, with every operator computed one by one."""
    before = graph.copy()
    ctx = run_pass(Quantize(effort="fast"), graph, target=target(board), data={"calibration": data})
    exact, rounded = (stacked(list(map(Session(one).run, unseen.feeds))) for one in (before, graph))
    return sqnr_db(exact, rounded), ctx


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board", "jetson-orin-nano"])
@pytest.mark.parametrize("value", [-1e4, LEAST, -inf])
def test_scores_keep_their_steps_beside_a_mask(board: str, value: float) -> None:
    graph = attention("m = Add (s, mask)\n", f"float[1,1,{LENGTH}] mask", mask=padded(value))
    sqnr, _ = exactness(graph, board, noise(1), noise(2))
    assert sqnr > 22


CHAINS = {
    "scaled behind": ("a = Add (s, mask)\nm = Mul (a, half)\n", f"float[1,1,{LENGTH}] mask, float half = {{0.5}}"),
    "divided behind": ("a = Add (s, mask)\nm = Div (a, two)\n", f"float[1,1,{LENGTH}] mask, float two = {{2}}"),
    "two": ("a = Add (s, mask)\nm = Add (a, mask)\n", f"float[1,1,{LENGTH}] mask"),
    "subtracted": ("n = Neg (mask)\nm = Sub (s, n)\n", f"float[1,1,{LENGTH}] mask"),
    "moved": (
        "u = Reshape (mask, flat)\nt = Expand (u, many)\nm = Add (s, t)\n",
        f"float[1,1,{LENGTH}] mask, int64[3] flat = {{1, 1, {LENGTH}}}, int64[3] many = {{1, {LENGTH}, 1}}",
    ),
    "least": ("a = Add (s, mask)\nm = Max (a, floor)\n", f"float[1,1,{LENGTH}] mask, float floor = {{-1e9}}"),
}


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board"])
@pytest.mark.parametrize("chain", CHAINS)
def test_a_mask_may_come_through_a_chain(board: str, chain: str) -> None:
    sums, declared = CHAINS[chain]
    sqnr, _ = exactness(attention(sums, declared, mask=padded(-1e9)), board, noise(1), noise(2))
    assert sqnr > 22


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board"])
@pytest.mark.parametrize("low", [-1e4, -inf])
def test_a_choice_with_a_constant_is_no_other(board: str, low: float) -> None:
    choice = np.tril(np.ones((LENGTH, LENGTH), bool))
    graph = attention("m = Where (c, s, low)\n", f"bool[{LENGTH},{LENGTH}] c, float low", c=choice, low=low)
    sqnr, _ = exactness(graph, board, noise(1), noise(2))
    assert sqnr > 22


def lengths(seed: int) -> Samples:
    samples = noise(seed)
    random = np.random.default_rng(seed)
    for feeds in samples.feeds:
        feeds["kept"] = (np.arange(LENGTH) < random.integers(4, LENGTH)).astype(np.float32).reshape(1, 1, LENGTH)
    return samples


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board", "jetson-orin-nano"])
@pytest.mark.parametrize("factor", [-1e4, LEAST])
def test_a_computed_mask_is_bounded_where_it_is_made(board: str, factor: float) -> None:
    graph = attention(
        "i = Sub (one, kept)\n[far] mask = Mul (i, low)\nm = Add (s, mask)\n",
        "float one = {1}, float low",
        SIGNATURE.replace(" x)", f" x, float[1,1,{LENGTH}] kept)"),
        low=factor,
    )
    sqnr, ctx = exactness(graph, board, lengths(1), lengths(2))
    assert sqnr > 22
    if board != "jetson-orin-nano":  # which rounds none of this
        assert "Clip" in operators(graph)
        assert [node for node, what in did(ctx) if "what reads them cannot tell" in what] == ["mask", "m"]


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board"])
def test_a_mask_may_be_an_input(board: str) -> None:
    graph = attention("m = Add (s, mask)\n", "float none", SIGNATURE.replace(" x)", f" x, float[1,1,{LENGTH}] mask)"))
    data = [lengths(seed) for seed in (1, 2)]
    for samples in data:
        for feeds in samples.feeds:
            feeds["mask"] = -1e4 * (1 - feeds.pop("kept"))
    sqnr, _ = exactness(graph, board, *data)
    assert sqnr > 22


def test_rows_that_are_masked_throughout_keep_what_they_are() -> None:
    """-1e4 beside every score of a row changes nothing: a floor would make the row uniform."""
    mask = np.zeros((1, LENGTH, LENGTH), np.float32)
    mask[:, :, 8:] = mask[:, 8:, :] = -1e4
    graph = attention("m = Add (s, mask)\n", f"float[1,{LENGTH},{LENGTH}] mask", mask=mask)
    sqnr, ctx = exactness(graph, "cpu", noise(1), noise(2))
    assert sqnr > 22
    assert not [what for _, what in did(ctx) if "cannot tell" in what]
    assert ("add.m" in dict(missed(ctx))) or any("'m' would leave" in what for _, what in missed(ctx))


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board"])
def test_the_largest_of_a_masked_tensor(board: str) -> None:
    mask = padded(-1e4).reshape(1, LENGTH, 1)
    graph = model(
        "h = MatMul (x, w)\nm = Add (h, mask)\nr = ReduceMax <axes = [1], keepdims = 0> (m)\ny = MatMul (r, v)",
        f"(float[1,{LENGTH},{WIDTH}] x) => (float[1,8] y)",
        f"float[{WIDTH},{WIDTH}] w, float[1,{LENGTH},1] mask, float[{WIDTH},8] v",
        mask=mask,
    )
    sqnr, _ = exactness(graph, board, noise(1), noise(1))  # few maxima were seen: other ones may saturate
    assert sqnr > 25


@pytest.mark.parametrize("bounds", ["m = Max (h, low)", "m = Min (h, high)", "a = Max (h, low)\nm = Min (a, high)"])
def test_bounds_that_nothing_reaches_take_no_steps(bounds: str) -> None:
    graph = model(
        f"h = MatMul (x, w)\n{bounds}\ny = MatMul (m, v)",
        f"(float[1,{LENGTH},{WIDTH}] x) => (float[1,{LENGTH},8] y)",
        f"float[{WIDTH},{WIDTH}] w, float low = {{-1e4}}, float high = {{3e38}}, float[{WIDTH},8] v",
    )
    sqnr, _ = exactness(graph, "coral-dev-board", noise(1), noise(2))
    assert sqnr > 30


def test_sums_without_such_parts_are_left_alone() -> None:
    graph = attention("m = Add (s, mask)\n", f"float[1,1,{LENGTH}] mask", mask=padded(-3.0))
    _, ctx = exactness(graph, "coral-dev-board", noise(1), noise(2))
    assert "Clip" not in operators(graph)
    assert not [what for _, what in did(ctx) if "cannot tell" in what]


def intervals(body: str, floors: dict[str, float] | None = None, **seen: Range) -> dict[str, Range]:
    graph = model(body, "(float[4] a, float[4] b) => (float[4] y)", "float two = {2}, float low = {-1}")
    ranges = {named(graph, name): values for name, values in seen.items()}
    below = {named(graph, name): floor for name, floor in (floors or {}).items()}
    return {tensor.name: values for tensor, values in distinguishable(graph, ranges, below).items()}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("s = Add (a, b)\ny = Relu (s)", Range(-2, inf)),  # b is 2 at most
        ("s = Sub (a, b)\ny = Relu (s)", Range(-3, inf)),  # b is -3 at least
        ("s = Sub (b, a)\ny = Relu (s)", Range(-inf, 2)),
        ("s = Mul (a, two)\nt = Sigmoid (s)\ny = Identity (t)", Range(-6, 6)),
        ("s = Div (a, two)\nt = Tanh (s)\ny = Identity (t)", Range(-12, 12)),
        ("s = Neg (a)\ny = Relu (s)", Range(-inf, 0)),
        ("s = Clip (a, low, two)\ny = Identity (s)", Range(-1, 2)),
        ("y = Max (a, b)", Range(-1, inf)),  # it was seen to be -1 at least
        ("y = Min (a, b)", Range(-inf, 4)),
        ("s = Relu (a)\ny = Add (s, a)", ALL),  # another reader tells
        ("y = Softmax (a)", Range(-7, inf)),
    ],
)
def test_what_readers_tell_apart(body: str, expected: Range) -> None:
    found = intervals(body, {"a": -7.0}, b=Range(-3, 2), y=Range(-1, 4))
    assert found["a"] == expected


def test_what_a_softmax_reads_has_a_floor_behind_a_sum() -> None:
    assert intervals("s = Add (a, b)\ny = Softmax (s)", {"s": -10.0}, b=Range(-3, 2))["a"] == Range(-12, inf)
