"""LSTM, GRU and RNN unrolled: in every form that onnxruntime runs, in float and in integers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from edgec.backends.coral.backend import CoralBackend
from edgec.backends.coral.recurrent import MOST_STEPS
from edgec.backends.protocol import legalize
from edgec.backends.registry import target
from edgec.ir.errors import EmitError
from edgec.ir.execution import Session

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, BATCH, WIDTH, HIDDEN = 5, 2, 3, 4
MORE: dict[str, list[dict[str, Any]]] = {
    "LSTM": [{}, {"input_forget": 1}, {"clip": 0.3}, {"peephole": True}, {"lengths": True}],
    "GRU": [{}, {"linear_before_reset": 1}, {"clip": 0.2}],
    "RNN": [{}, {"activations": ["Relu"]}, {"clip": 0.2}],
}
CASES = [
    (op, direction, bias, initial, more)
    for op in GATES
    for direction, bias, initial in itertools.product(("forward", "reverse", "bidirectional"), (0, 1), (0, 1, 2))
    for more in MORE[op]
]


def layer(lab: Any, op: str, direction: str, bias: int, initial: int, more: dict[str, Any], steps: int = STEPS) -> Any:
    """A graph of one layer.

    Args:
        initial: 0 without initial states, 1 with known ones, 2 with inputs.
    """
    count = 2 if direction == "bidirectional" else 1
    attrs = dict(more)
    peephole, lengths = attrs.pop("peephole", False), attrs.pop("lengths", False)
    if "activations" in attrs:
        attrs["activations"] = attrs["activations"] * count

    def make(b: Any, x: Any, *states: Any) -> Any:
        given = iter(states)
        wide = GATES[op] * HIDDEN

        def state() -> Any:
            return next(given) if initial == 2 else b.weight(count, BATCH, HIDDEN) if initial else None

        inputs = [x, b.weight(count, wide, WIDTH), b.weight(count, wide, HIDDEN)]
        inputs.append(b.weight(count, 2 * wide) if bias else None)
        inputs += [b.const([steps] * BATCH, np.int32) if lengths else None, state()]
        if op == "LSTM":
            inputs += [state(), b.weight(count, 3 * HIDDEN) if peephole else None]
        outputs = 3 if op == "LSTM" else 2
        return b(op, *inputs, outputs=outputs, hidden_size=HIDDEN, direction=direction, **attrs)

    shapes = [(steps, BATCH, WIDTH)]
    if initial == 2:
        shapes += [(count, BATCH, HIDDEN)] * (2 if op == "LSTM" else 1)
    return lab.build(make, shapes)


@pytest.mark.parametrize(("op", "direction", "bias", "initial", "more"), CASES)
def test_it_is_unrolled_exactly(lab, op, direction, bias, initial, more):
    graph = layer(lab, op, direction, bias, initial, more)
    feeds = lab.noise(graph)
    wanted = Session(graph).run(feeds)
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    assert not {node.op for node in graph.nodes} & set(GATES)
    got = Session(graph).run(feeds)
    for name, values in wanted.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-5, atol=1e-6)
    assert all(t.shape is not None for node in graph.nodes for t in node.outputs)


@pytest.mark.parametrize("op", list(GATES))
def test_the_file_computes_the_same_in_float_and_in_integers(lab, op):
    graph = layer(lab, op, "bidirectional", 1, 0, {})
    feeds = lab.noise(graph)
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    lab.compared(graph, feeds).close()
    rounded = lab.compared(lab.quantized(graph, feeds), feeds)
    assert "DEQUANTIZE" not in rounded.kinds
    assert rounded.steps() <= 2


def test_a_weight_is_in_the_file_once(lab):
    graph = layer(lab, "LSTM", "forward", 1, 0, {}, steps=40)
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    assert sum(constant.values.size for constant in graph.constants()) < 400


def test_more_steps_are_refused(lab):
    graph = layer(lab, "GRU", "forward", 1, 0, {}, steps=MOST_STEPS + 1)
    with pytest.raises(EmitError) as caught:
        legalize(graph, CoralBackend(), target("coral-dev-board"))
    assert str(caught.value) == (
        "coral-dev-board: node 'gru' (GRU): it takes 257 steps, and at most 256 are unrolled; "
        "replace it in the model, or give it a shorter sequence"
    )
