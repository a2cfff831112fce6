"""Networks run from where nothing changes any more give what they give from the start."""

import numpy as np
import pytest

from edgec.ir.execution import Session
from edgec.ir.graph import Constant, Graph, Variable
from edgec.passes.calibration import prefix_cache as resuming
from edgec.passes.calibration.prefix_cache import Resuming
from edgec.passes.framework.context import Context, RunConfig
from edgec.testing import Samples, model

TEXT = """
[a] p = Conv<pads=[1,1,1,1]>(x, wa, ba)
[relu] q = Relu(p)
[b] r = Conv<pads=[1,1,1,1]>(q, wb, bb)
[add] s = Add(q, r)
[c] y = Conv(s, wc, bc)
"""
WEIGHTS = "float[4,2,3,3] wa, float[4] ba, float[4,4,3,3] wb, float[4] bb, float[3,4,1,1] wc, float[3] bc"


def network() -> Graph:
    return model(TEXT, "(float[1,2,6,6] x) => (float[1,3,6,6] y)", WEIGHTS)


@pytest.mark.parametrize("most", [2**28, 0])
def test_layers_that_changed_are_seen(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "_MOST_BYTES", most)
    graph = network()
    random = np.random.Generator(np.random.PCG64(0))
    images = [{"x": random.random((1, 2, 6, 6), np.float32)} for _ in range(5)]
    now = Resuming(graph, Context(graph, RunConfig(data={"calibration": Samples(images)}, threads=2)))
    for node in [node for node in graph.nodes if node.op == "Conv"]:
        taps = [tensor for tensor in (node.inputs[0], node.outputs[0]) if isinstance(tensor, Variable)]
        expected = Session(graph.copy(), [t for t in taps if t.name not in ("x", "y")])
        seen = list(now.run(node, taps, lambda number, values: dict(values)))
        assert len(seen) == 5
        for feeds, found in zip(images, seen, strict=True):
            wanted = {**feeds, **expected.run(feeds)}
            for name in (tap.name for tap in taps):
                np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-5)
        weight = node.inputs[1]
        assert isinstance(weight, Constant)
        weight.values = weight.values * np.float32(1.5)


def test_what_is_held_is_not_computed_again() -> None:
    graph = network()
    random = np.random.Generator(np.random.PCG64(0))
    images = [{"x": random.random((1, 2, 6, 6), np.float32)} for _ in range(3)]
    now = Resuming(graph, Context(graph, RunConfig(data={"calibration": Samples(images)})))
    convs = [node for node in graph.nodes if node.op == "Conv"]
    written = [node.outputs[0] for node in convs if isinstance(node.outputs[0], Variable)]
    list(now.run(convs[1], [written[1]], lambda number, values: None))
    first = convs[0].inputs[1]
    assert isinstance(first, Constant)
    before = list(now.run(convs[2], [written[2]], lambda number, values: values[written[2].name]))
    first.values = first.values * np.float32(9)  # in front of what is held
    behind = list(now.run(convs[2], [written[2]], lambda number, values: values[written[2].name]))
    np.testing.assert_array_equal(before, behind)


def test_what_a_branch_computes_does_not_cross() -> None:
    """It was asked for as an output of the graph, where there is no such tensor."""
    graph = model(
        """
        [a] p = Conv(x, wa)
        m = ReduceMean<keepdims=0>(p)
        c = Greater(m, zero)
        [if] q = If (c) <
            then_branch = then () => (float[1,2,6,6] t) { t = Relu(p) },
            else_branch = other () => (float[1,2,6,6] e) { e = Neg(p) }
        >
        [b] y = Conv(q, wb)
        """,
        "(float[1,2,6,6] x) => (float[1,3,6,6] y)",
        "float[2,2,1,1] wa, float[3,2,1,1] wb, float zero",
        zero=np.array(0, np.float32),
    )
    images = [{"x": np.full((1, 2, 6, 6), value, np.float32)} for value in (-1, 0.5, 1)]
    now = Resuming(graph, Context(graph, RunConfig(data={"calibration": Samples(images)})))
    (branch,) = [node for node in graph.nodes if node.op == "If"]
    tap = branch.outputs[0]
    for _ in range(2):
        seen = list(now.run(branch, [tap], lambda number, values: dict(values)))
        for feeds, values in zip(images, seen, strict=True):
            np.testing.assert_array_equal(values["q"], Session(graph.copy(), [tap]).run(feeds)["q"])
