"""The check of an emitted file: a wrong operator is an error however little shows, and rounding is no fault."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgec.backends.coral import check
from edgec.backends.coral.backend import lower
from edgec.ir.errors import EmitError


def _logits(b, x):
    x = b("Relu", b("Conv", x, b.weight(8, 3, 3, 3), pads=[1] * 4))
    return b("Sigmoid", b("Conv", x, b.weight(4, 8, 3, 3), b.const([-30.0] * 4)))


def test_outputs_smaller_than_the_accuracy_of_a_kernel_are_no_fault(lab):
    graph = lab.build(_logits, [(1, 3, 16, 16)])
    lowered = lower(graph)
    checked = check.check(graph, lowered, lowered.file.to_bytes(), [lab.noise(graph)])
    assert checked.sqnr_db < 0
    (note,) = [note for note in checked.notes if "every operator alone" in note]
    assert note.endswith("within rounding of it: what it gives is smaller than the rounding of float32 in front of it")


def test_a_mean_of_what_has_none_is_no_fault(lab):
    def make(b, x):
        x = b("InstanceNormalization", b("Conv", x, b.weight(8, 3, 3, 3)), b.const([1.0] * 8), b.const([0.0] * 8))
        return b("GlobalAveragePool", x)

    graph = lab.build(make, [(1, 3, 16, 16)])
    lowered = lower(graph)
    check.check(graph, lowered, lowered.file.to_bytes(), [lab.noise(graph)])


def _hidden(b, x):
    strong = b("Conv", x, b.weight(4, 3, 1, 1))
    weak = b("Tanh", b("Conv", x, b.weight(4, 3, 3, 3), pads=[1] * 4))
    return b("Add", b("Mul", strong, b.const(50.0)), weak)


def test_a_wrong_operator_that_hardly_shows_is_an_error(lab):
    graph = lab.build(_hidden, [(1, 3, 16, 16)])
    feeds = lab.noise(graph)
    graph = lab.quantized(graph, feeds)
    lowered = lower(graph)
    assert check.check(graph, lowered, lowered.file.to_bytes(), [feeds]).sqnr_db > 40
    wrong = next(op for op in lowered.file.operators if op.kind == "CONV_2D" and op.source == "conv.1")
    weight = lowered.file.tensors[wrong.inputs[1]]
    lowered.file.tensors[wrong.inputs[1]] = replace(weight, data=np.roll(weight.data, 1, axis=0))
    with pytest.raises(EmitError) as caught:
        check.check(graph, lowered, lowered.file.to_bytes(), [feeds])
    assert str(caught.value) == (
        "model.tflite: CONV_2D of node 'conv.1' departs from the graph that it was made from; "
        "this is a fault of the coral backend: report it with the model"
    )
