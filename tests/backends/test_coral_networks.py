"""Whole networks: no operator that only moves numbers, the same bytes every time, and a check that can fail."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from networks.board_networks import NETWORKS, mobile_blocks

from edgec.backends.coral import check
from edgec.backends.coral.backend import CoralBackend, lower
from edgec.backends.coral.localize import departures
from edgec.backends.coral.operators import VERSION_CEILINGS
from edgec.backends.registry import target
from edgec.ir.errors import EmitError
from edgec.ir.graph import Constant

MOVES = {"TRANSPOSE", "QUANTIZE", "DEQUANTIZE"}


@pytest.fixture(params=list(NETWORKS))
def network(request, lab):
    make, shape = NETWORKS[request.param]
    graph = lab.build(make, [shape])
    feeds = lab.noise(graph)
    return graph, lab.quantized(graph, feeds), feeds


def test_nothing_is_only_moved(lab, network):
    graph, integers, feeds = network
    lab.compared(graph, feeds).close()
    found = lab.compared(integers, feeds)
    assert not MOVES & set(found.kinds)
    assert found.lowered.notes == []
    assert all(t.dtype in (np.int8, np.int32) for t in found.lowered.file.tensors)
    for operator in found.lowered.file.operators:
        assert operator.version <= VERSION_CEILINGS.get(operator.kind, operator.version)


def test_float_files_move_nothing_either(network):
    graph, _, _ = network
    assert not MOVES & {operator.kind for operator in lower(graph).file.operators}


def test_same_graph_same_bytes(lab, network):
    _, integers, _ = network
    first = lower(integers).file.to_bytes()
    assert lower(integers.copy()).file.to_bytes() == first
    assert first[4:8] == b"TFL3"


def test_emit_writes_a_file_that_runs(lab, network, tmp_path):
    graph, integers, feeds = network
    backend, board = CoralBackend(), target("coral-dev-board")
    emitted = backend.emit(integers, board, tmp_path, [feeds, lab.noise(graph, seed=2)])
    assert emitted.files[:2] == ["model.tflite", "check.json"]
    assert emitted.model == "model.tflite"
    assert emitted.sqnr_db > 25
    assert emitted.fits is True
    report = json.loads((tmp_path / "check.json").read_text())
    assert report == emitted.check
    assert report["check"]["probes"] == 2
    assert [entry["name"] for entry in report["inputs"]] == ["x0"]
    assert {entry["dtype"] for entry in report["inputs"] + report["outputs"]} == {"int8"}

    run = backend.runner(integers, tmp_path)
    two = {name: np.concatenate([x, x]) for name, x in feeds.items()}
    for name, values in run(two).items():
        once = run(feeds)[name]
        np.testing.assert_array_equal(values, np.concatenate([once, once]))


def _corrupt(lowered, change):
    """Replaces the weights of the first convolution; returns the name of its node."""
    first = next(op for op in lowered.file.operators if op.kind == "CONV_2D")
    weight = lowered.file.tensors[first.inputs[1]]
    lowered.file.tensors[first.inputs[1]] = replace(weight, data=change(weight.data))
    return first.source


def test_a_corrupted_weight_is_found(network):
    _, integers, feeds = network
    lowered = lower(integers)
    contents = lowered.file.to_bytes()
    assert check.check(integers, lowered, contents, [feeds]).sqnr_db > 25

    # The output channels, one to the left: every number in range, every one in the wrong place.
    node = _corrupt(lowered, lambda data: np.roll(data, 1, axis=0))
    line = (
        rf"^model\.tflite: output '{lowered.outputs[0].name}': it is -?[\d.]+ dB from the graph that it was made from: "
        rf"CONV_2D of node '{node}' departs; this is a fault of the coral backend: report it with the model$"
    )
    with pytest.raises(EmitError, match=line):
        check.check(integers, lowered, lowered.file.to_bytes(), [feeds])


def test_a_corrupted_float_weight_is_found(lab):
    graph = lab.build(mobile_blocks, [(1, 3, 16, 16)])
    feeds = lab.noise(graph)
    lowered = lower(graph)
    node = _corrupt(lowered, lambda data: data * np.float32(1.05))
    with pytest.raises(EmitError, match=rf"CONV_2D of node '{node}' departs; "):
        check.check(graph, lowered, lowered.file.to_bytes(), [feeds])


def test_each_operator_alone_is_within_rounding(network):
    graph, integers, feeds = network
    lowered = lower(integers)
    apart = departures(integers, lowered, feeds)
    assert len(apart.measured) >= 0.7 * len(lowered.file.operators)
    assert not apart.unmeasured
    assert max(departure.error for departure in apart.measured) < 0.5
    assert max(departure.error for departure in departures(graph, lower(graph), feeds).measured) < 1e-5


def test_a_network_that_amplifies_rounding_passes_with_a_note(lab):
    def make(b, x):
        # A saturated recurrence: what is one step in front is the whole range behind.
        for _ in range(8):
            x = b("Conv", x, b.weight(8, 8, 3, 3, scale=1.0), b.weight(8), pads=[1] * 4)
            x = b("Tanh", b("Mul", x, b.const(30.0)))
        return x

    graph = lab.build(make, [(1, 8, 8, 8)])
    feeds = lab.noise(graph)
    graph = lab.quantized(graph, feeds)
    lowered = lower(graph)
    # The first bias moves by half a step of its output: some numbers round the other way, by one.
    first = lowered.file.operators[0]
    bias, result = (lowered.file.tensors[i] for i in (first.inputs[2], first.outputs[0]))
    half = np.rint(0.5 * result.quantization.scale[0] / bias.quantization.scale).astype(np.int32)
    lowered.file.tensors[first.inputs[2]] = replace(bias, data=bias.data + half)
    checked = check.check(graph, lowered, lowered.file.to_bytes(), [feeds])
    assert checked.sqnr_db < check.INTEGER_REFUSED
    assert checked.notes[0] == (
        f"output 'y0' is {checked.sqnr_db:.1f} dB from the graph that it was made from, though every operator alone is "
        "within rounding of it: the network amplifies single steps; quantize it more finely, or leave its most "
        "sensitive layers in float"
    )


def channel_shuffle(b, x):
    x = b("Relu", b("Conv", x, b.weight(6, 4, 1, 1), b.weight(6)))
    x = b("Transpose", b("Reshape", x, b.ints(0, 2, 3, 25)), perm=[0, 2, 1, 3])
    return b("Conv", b("Reshape", x, b.ints(0, 6, 5, 5)), b.weight(4, 6, 3, 3))


def test_a_channel_shuffle_goes_into_the_weights_before_it(lab):
    graph = lab.build(channel_shuffle, [(1, 4, 5, 5)])
    feeds = lab.noise(graph)
    lab.compared(graph, feeds).close()
    found = lab.compared(lab.quantized(graph, feeds), feeds)
    assert found.kinds == ["CONV_2D", "CONV_2D"]
    assert found.steps() <= 1


def test_a_long_chain_is_lowered_without_recursion(lab):
    def make(b, x):
        x = b("Conv", x, b.weight(2, 2, 1, 1))
        for _ in range(2000):
            x = b("Sigmoid", x)
        return x

    assert len(lower(lab.build(make, [(1, 2, 2, 2)])).file.operators) == 2001


def test_a_transposition_that_stays_is_noted(lab):
    graph = lab.build(lambda b, x: b("Reshape", x, b.ints(1, 24)), [(1, 4, 2, 3)])
    found = lab.compared(graph, lab.noise(graph))
    assert found.kinds == ["TRANSPOSE", "RESHAPE"]
    assert found.lowered.notes == [
        "node 'reshape' reads 'x0' in another memory order: a TRANSPOSE of 24 elements was added"
    ]


def _second_quantize(graph, op):
    """The QuantizeLinear behind the (only) node of that operator."""
    node = next(n for n in graph.nodes if n.op == op)
    return node.outputs[0].outputs[0], node


def test_a_scale_that_is_not_tied_is_requantized_and_noted(lab):
    graph = lab.build(lambda b, x, y: b("Concat", x, y, axis=1), [(1, 2, 3, 3), (1, 2, 3, 3)])
    feeds = lab.noise(graph)
    graph = lab.quantized(graph, feeds)
    concat = next(n for n in graph.nodes if n.op == "Concat")
    dequantize = concat.inputs[1].inputs[0]
    quantize = dequantize.inputs[0].inputs[0]
    wider = graph.const("wider", np.float32(quantize.inputs[1].values * 1.5))
    quantize.inputs[1] = dequantize.inputs[1] = wider
    found = lab.compared(graph, feeds)
    assert found.kinds == ["QUANTIZE", "CONCATENATION"]
    assert found.lowered.notes == [
        "node 'concat' (Concat): the scale of 'x1' is not that of the output: a QUANTIZE was added"
    ]
    assert found.steps() <= 1


def test_a_free_sigmoid_scale_is_requantized_and_noted(lab):
    graph = lab.build(lambda b, x: b("Sigmoid", x), [(1, 2, 3, 3)])
    feeds = lab.noise(graph)
    graph = lab.quantized(graph, feeds)
    quantize, _ = _second_quantize(graph, "Sigmoid")
    dequantize = quantize.outputs[0].outputs[0]
    quantize.inputs[1] = dequantize.inputs[1] = graph.const("free", np.float32(1 / 200))
    found = lab.compared(graph, feeds)
    assert found.kinds == ["LOGISTIC", "QUANTIZE"]
    assert found.lowered.notes == ["tensor 'y0.float' is in other integers than its readers want: a QUANTIZE was added"]
    assert found.steps() <= 1


def test_an_operator_without_integers_stays_in_float(lab):
    graph = lab.build(lambda b, x: b("Relu", b("Exp", b("Relu", x))), [(1, 2, 3, 3)])
    feeds = lab.noise(graph)
    found = lab.compared(lab.quantized(graph, feeds), feeds)
    assert found.kinds == ["RELU", "DEQUANTIZE", "EXP", "RELU", "QUANTIZE"]
    assert found.lowered.notes == [
        "node 'exp' (Exp) runs in float: TFLite has no int8 kernel for it",
        "tensor 'y0.float' is computed in float: a QUANTIZE was added",
    ]
    assert found.steps() <= 1


def test_uint8_activations_become_int8(lab):
    graph = lab.build(mobile_blocks, [(1, 3, 16, 16)])
    feeds = lab.noise(graph)
    graph = lab.quantized(graph, feeds)
    for node in graph.nodes:
        if node.op in ("QuantizeLinear", "DequantizeLinear") and len(node.inputs) > 2:
            zero = node.inputs[2].values
            node.inputs[2] = graph.const("zero", (zero.astype(np.int16) + 128).astype(np.uint8))
        elif node.op == "DequantizeLinear":
            assert isinstance(node.inputs[0], Constant)
    for tensor in graph.variables():
        if tensor.dtype == np.int8:
            tensor.dtype = np.dtype(np.uint8)
    found = lab.compared(graph, feeds)
    assert not MOVES & set(found.kinds)
    assert found.steps() <= 3


def test_a_stale_bias_scale_is_put_right(lab):
    graph = lab.build(lambda b, x: b("Conv", x, b.weight(4, 3, 1, 1), b.weight(4)), [(1, 3, 5, 5)])
    feeds = lab.noise(graph)
    graph = lab.quantized(graph, feeds)
    conv = next(n for n in graph.nodes if n.op == "Conv")
    dequantize = conv.inputs[2].inputs[0]
    integers, scale = (t.values for t in dequantize.inputs[:2])
    dequantize.inputs[0] = graph.const("bias", integers // 2)
    dequantize.inputs[1] = graph.const("scale", scale * np.float32(2))
    found = lab.compared(graph, feeds)
    assert found.steps() <= 1
    operator = found.lowered.file.operators[0]
    source, weight, bias = (found.lowered.file.tensors[i].quantization for i in operator.inputs)
    np.testing.assert_array_equal(bias.scale, np.float32(source.scale * weight.scale))


def test_a_missing_weight_quantization_runs_in_float(lab):
    graph = lab.build(lambda b, x: b("Conv", x, b.weight(4, 3, 1, 1), b.weight(4)), [(1, 3, 5, 5)])
    feeds = lab.noise(graph)
    graph = lab.quantized(graph, feeds)
    conv = next(n for n in graph.nodes if n.op == "Conv")
    integers, scale = (t.values for t in conv.inputs[1].inputs[0].inputs[:2])
    conv.inputs[1] = graph.const("real", integers * scale.reshape(-1, 1, 1, 1))
    found = lab.compared(graph, feeds)
    assert found.kinds == ["DEQUANTIZE", "CONV_2D", "QUANTIZE"]
    assert found.lowered.notes[0] == "node 'conv' (Conv) runs in float: its weights are not quantized"
    assert found.steps() <= 1
