"""Exact passes may move outputs as far as rounding does, whatever the outputs' size, and no further."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from edgec.ir.errors import InternalError
from edgec.ir.execution import seeded_feeds
from edgec.ir.graph import Constant, Graph
from edgec.ir.printer import parse
from edgec.ir.shapes import Shapes
from edgec.passes.fold.fold import Fold
from edgec.passes.framework.context import Context
from edgec.passes.framework.exactness import inexact, measured_rounding
from edgec.passes.framework.pass_manager import PassManager
from edgec.passes.framework.planner import Planned
from edgec.passes.framework.reference import Reference
from edgec.testing import model

HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'


def detector(depth: int = 6, *, bias: float = 0.0, gain: float = 1.0, half: bool = False) -> Graph:
    """Convolutions of little variance, each with a BatchNormalization that makes it large, behind a Sigmoid."""
    random = np.random.default_rng(0)
    channels, weights, body, x = 3, {}, [], "x"
    for i in range(depth):
        weights |= {
            f"w{i}": 1e-3 * random.normal(size=(16, channels, 3, 3)),
            f"g{i}": random.uniform(0.5, 1.5, 16), f"b{i}": 0.2 * random.normal(size=16),
            f"m{i}": 1e-3 * random.normal(size=16), f"v{i}": random.uniform(1e-5, 1e-4, 16),
        }  # fmt: skip
        body.append(f"c{i} = Conv<pads=[1,1,1,1]>({x}, w{i})")
        body.append(f"n{i} = BatchNormalization<epsilon=0.0001>(c{i}, g{i}, b{i}, m{i}, v{i}) r{i} = Relu(n{i})")
        channels, x = 16, f"r{i}"
    weights |= {"h": gain * random.normal(size=(4, 16, 1, 1)), "hb": np.full(4, bias)}
    body.append(f"logits = Conv({x}, h, hb) y = Sigmoid(logits)")
    kind = "float16" if half else "float"
    shape = "[1,3,16,16]"
    declared = ", ".join(f"{kind}{list(values.shape)} {name}" for name, values in weights.items())
    graph = model("\n".join(body), f"({kind}{shape} x) => ({kind}[1,4,16,16] y)", declared, **weights)
    Shapes(graph).annotate(graph)
    return graph


def folded(graph: Graph, wrong: Callable[[Graph], None] = lambda graph: None) -> None:
    """Folds under the pipeline's eyes; ``wrong`` is done to the network by the way."""

    class Wrong(Fold):
        def run(self, graph: Graph, ctx: Context) -> None:
            super().run(graph, ctx)
            wrong(graph)

    pipeline = PassManager(Reference(graph, seeded_feeds(graph)))
    pipeline.run(graph, [Planned(Wrong(), "passes[0]", "compress.yaml")])


LOGITS = {"near 0": (0.0, 1.0), "of 50": (0.0, 12.0), "around -15": (-15.0, 3.0), "around -30": (-30.0, 1.0)}


@pytest.mark.parametrize(("bias", "gain"), LOGITS.values(), ids=LOGITS)
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_a_right_fold_passes_whatever_the_outputs_size(bias: float, gain: float, half: bool) -> None:
    graph = detector(bias=bias, gain=gain, half=half)
    folded(graph)
    assert not any(node.op == "BatchNormalization" for node in graph.nodes)


def weight(graph: Graph, layer: int) -> Constant:
    found = [node for node in graph.nodes if node.op == "Conv"][layer].inputs[1]
    assert isinstance(found, Constant)
    return found


def corrupt(graph: Graph) -> None:
    values = weight(graph, 0).values.copy()
    values[np.unravel_index(np.abs(values).argmax(), values.shape)] *= values.dtype.type(1.05)
    weight(graph, 0).values = values


def swap(graph: Graph) -> None:
    weight(graph, 0).values = weight(graph, 0).values[[1, 0, *range(2, 16)]]


def wrong_epsilon(graph: Graph) -> None:
    # As if it had been 1.01e-4 in the place of 1e-4.
    weight(graph, 1).values = (weight(graph, 1).values * np.float32(0.995)).astype(weight(graph, 1).dtype)


@pytest.mark.parametrize("wrong", [corrupt, swap, wrong_epsilon])
@pytest.mark.parametrize(("bias", "gain"), [(0.0, 1.0), (0.0, 12.0), (-11.0, 3.0)])
def test_a_wrong_fold_is_caught_whatever_the_outputs_size(
    wrong: Callable[[Graph], None], bias: float, gain: float
) -> None:
    with pytest.raises(InternalError, match=r"is exact but moved output 'y' by \S+ \(allowed \S+\)"):
        folded(detector(bias=bias, gain=gain), wrong)


def test_a_swapped_channel_is_caught_in_half_precision() -> None:
    with pytest.raises(InternalError, match="is exact but moved output 'y' by"):
        folded(detector(half=True), swap)


def test_what_rounding_inside_moves_by_is_allowed_at_outputs_of_1e_5() -> None:
    """Logits of 50 rounded in their last bits: far more than the last bit of an output of 1e-5."""
    graph = model(
        "a = MatMul(x, w) z = Add(a, b) y = Sigmoid(z)",
        "(float[1,64] x) => (float[1,1] y)",
        "float[64,1] w, float[1] b",
        w=np.full((64, 1), 31.25),
        b=[-1010.0],
    )
    feeds = [{"x": np.full((1, 64), 0.5, np.float32) + np.linspace(-1e-3, 1e-3, 64, dtype=np.float32)}]
    outputs = Reference(graph, feeds).outputs
    assert 1e-6 < outputs[0]["y"].item() < 1e-4
    moved = [{"y": outputs[0]["y"] * np.float32(1 + 1e-3)}]  # z off by 1e-3 of 1000: eight units in the last place
    assert inexact(outputs, moved, quantized=False)
    assert not inexact(outputs, moved, quantized=False, rounding=lambda: measured_rounding(graph, feeds, outputs))
    wrong = [{"y": outputs[0]["y"] * np.float32(1.5)}]
    (said,) = inexact(outputs, wrong, quantized=False, rounding=lambda: measured_rounding(graph, feeds, outputs))
    assert said.what.startswith("moved output 'y' by ")


def test_nothing_is_measured_where_the_cheap_bound_does() -> None:
    def never() -> list[Mapping[str, float]]:
        raise AssertionError

    run = [{"y": np.ones(3, np.float32)}]
    assert not inexact(run, [{"y": run[0]["y"] * np.float32(1 + 1e-6)}], quantized=False, rounding=never)


def test_the_exponent_of_a_square_stays() -> None:
    """A negative number to the power of 1.9999 is none, and nothing would be measured."""
    graph = model(
        "m = ReduceMean<axes=[1]>(x) d = Sub(x, m) s = Pow(d, two) v = ReduceMean<axes=[1]>(s) r = Sqrt(v)"
        " y = Div(d, r)",
        "(float[1,16] x) => (float[1,16] y)",
        "float two",
        two=2,
    )
    feeds = seeded_feeds(graph, samples=2)
    for run in measured_rounding(graph, feeds, Reference(graph, feeds).outputs):
        assert 0 < run["y"] < 1e-4


def test_sizes_are_not_computed_anew_with_what_is_off() -> None:
    """Twice as large is not 1.9999 times as large: a scale of Resize stays, and so does arithmetic on shapes."""
    graph = parse(
        f"""{HEADER}net (float[1,2,5,5] x) => (float[1,2,10,10] y)
        <float[4] s = {{1, 1, 2, 2}}, float two = {{2}}, float[2] rate = {{0.5, 0.5}}>
        {{ r = Resize(x, , s) sh = Shape(x) f = Cast<to=1>(sh) d = Mul(f, two) i = Cast<to=7>(d)
           st = Constant<value_ints=[2]>() en = Constant<value_ints=[4]>() hw = Slice(i, st, en)
           z = Constant<value_ints=[1, 2]>() whole = Concat<axis=0>(z, hw) y = Reshape(r, whole) }}"""
    )
    Shapes(graph).annotate(graph)
    feeds = seeded_feeds(graph, samples=2)
    outputs = Reference(graph, feeds).outputs
    for run in measured_rounding(graph, feeds, outputs):
        assert 0 < run["y"] < 1e-5


def test_sizes_that_depend_on_the_data_are_compared_run_by_run() -> None:
    before = [{"y": np.zeros((4, 3), np.int64)}, {"y": np.zeros((4, 7), np.int64)}]
    assert not inexact(before, before, quantized=False)
    other = [before[0], {"y": np.zeros((4, 6), np.int64)}]
    (said,) = inexact(before, other, quantized=False)
    assert said.what == "made output 'y' of shape [4, 6] where it was [4, 7]"
    changed = [{"y": np.ones((4, 3), np.int64)}, before[1]]
    (said,) = inexact(before, changed, quantized=False)
    assert said.what == "changed 12 values of output 'y' (allowed 0)"


def test_a_choice_that_hangs_on_the_last_bit_may_fall_either_way() -> None:
    """Two scores that are equal but for rounding: which of them is the largest, no exact pass can promise."""
    graph = parse(
        f"""{HEADER}net (float[1,2] x) => (int64[1] y) <float[2,2] w = {{0.1, 0.2, 0.2, 0.1}}>
        {{ a = MatMul(x, w) y = ArgMax<axis=1, keepdims=0>(a) }}"""
    )
    feeds = [{"x": np.array([[0.7, 0.7]], np.float32)}, {"x": np.array([[0.1, 0.9]], np.float32)}]
    outputs = Reference(graph, feeds).outputs

    def judged(other: list[dict[str, np.ndarray]]) -> list[str]:
        moved = inexact(outputs, other, quantized=False, rounding=lambda: measured_rounding(graph, feeds, outputs))
        return [one.what for one in moved]

    assert judged([{"y": 1 - outputs[0]["y"]}, outputs[1]]) == []
    assert judged([outputs[0], {"y": 1 - outputs[1]["y"]}]) == ["changed 1 values of output 'y' (allowed 0)"]
