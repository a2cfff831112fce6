"""What only floats have, and operators as other opsets write them."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.coral.backend import CoralBackend, lower
from edgec.backends.coral.interpreter import Interpreter
from edgec.backends.registry import target
from edgec.ir.errors import EmitError

IMAGE = (1, 4, 6, 6)

FLOAT = {
    "Abs": lambda b, x: b("Abs", x),
    "Ceil": lambda b, x: b("Ceil", b("Mul", x, b.const(3.0))),
    "Cos": lambda b, x: b("Cos", x),
    "Div": lambda b, x: b("Div", b.const(1.0), b("Exp", x)),
    "Div, clipped": lambda b, x: b("Clip", b("Div", x, b.const(0.3)), b.const(0.0), b.const(1.5)),
    "Celu": lambda b, x: b("Celu", x, alpha=1.5),
    "Elu": lambda b, x: b("Elu", x),
    "Elu, alpha": lambda b, x: b("Elu", x, alpha=0.5),
    "Exp": lambda b, x: b("Exp", x),
    "Floor": lambda b, x: b("Floor", b("Mul", x, b.const(3.0))),
    "Log": lambda b, x: b("Log", b("Exp", x)),
    "LogSoftmax": lambda b, x: b("LogSoftmax", x, axis=1),
    "LogSoftmax, last": lambda b, x: b("LogSoftmax", x),
    "Neg": lambda b, x: b("Neg", x),
    "Pow": lambda b, x: b("Pow", b("Abs", x), b.const(1.5)),
    "Round": lambda b, x: b("Round", b("Mul", x, b.const(3.0))),
    "Selu": lambda b, x: b("Selu", x),
    "Sin": lambda b, x: b("Sin", x),
    "Softplus": lambda b, x: b("Softplus", b("Mul", x, b.const(100.0))),
    "Sqrt": lambda b, x: b("Sqrt", b("Abs", x)),
}


@pytest.mark.parametrize("case", list(FLOAT))
def test_float_kernels(lab, case):
    graph = lab.build(FLOAT[case], [IMAGE])
    lab.compared(graph, lab.noise(graph)).close()


def test_operators_without_reference_kernels_are_noted(lab, tmp_path):
    graph = lab.build(FLOAT["Elu"], [IMAGE])
    emitted = CoralBackend().emit(graph, target("coral-dev-board"), tmp_path, [lab.noise(graph)])
    note = "LiteRT has no reference kernels for an operator of this file: it was run with XNNPACK only"
    assert emitted.notes[0] == note
    assert "reference_kernels_sqnr_db" not in emitted.check["check"]["outputs"]["y0"]
    with pytest.raises(EmitError, match="Didn't find op for builtin opcode 'ELU'"):
        lowered = lower(graph)
        Interpreter(lowered.file.to_bytes(), lowered.inputs, lowered.outputs, reference=True)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(lab, approximate):
    graph = lab.build(lambda b, x: b("Gelu", b("Mul", x, b.const(3.0)), approximate=approximate), [IMAGE], opset=20)
    feeds = lab.noise(graph)
    lab.compared(graph, feeds).close()
    found = lab.compared(lab.quantized(graph, feeds), feeds)
    assert found.kinds == ["MUL", "GELU"]
    assert found.steps() <= 1


def test_a_long_softmax_is_not_given_to_the_reference_kernels(lab, tmp_path):
    # Nearly equal numbers, whose exponentials sum up to 512 and more: the reference kernel would end this process.
    graph = lab.build(lambda b, x: b("Softmax", b("Relu", x)), [(1, 3, 600)])
    feeds = lab.noise(graph, high=0.01)
    quantized = lab.quantized(graph, feeds)
    emitted = CoralBackend().emit(quantized, target("coral-dev-board"), tmp_path, [feeds])
    assert emitted.notes[0] == (
        "LiteRT has no reference kernels for an operator of this file: it was run with XNNPACK only"
    )


def test_a_softmax_too_fine_for_the_integer_kernel_runs_in_float(lab):
    graph = lab.build(lambda b, x: b("Mul", b("Softmax", b("Mul", x, b.const(3.0))), b.const(9.0)), [(1, 3, 400)])
    feeds = lab.noise(graph)
    quantized = lab.quantized(graph, feeds)
    node = next(n for n in quantized.nodes if n.op == "Softmax")
    (quantize,) = node.outputs[0].outputs
    scale = quantized.const("fine", np.float32(0.02 / 255))
    (dequantize,) = quantize.outputs[0].outputs
    quantize.inputs[1] = dequantize.inputs[1] = scale
    lowered = lower(quantized)
    kinds = [operator.kind for operator in lowered.file.operators]
    assert kinds[:4] == ["MUL", "DEQUANTIZE", "SOFTMAX", "QUANTIZE"]


def test_mish(lab):
    graph = lab.build(lambda b, x: b("Mish", b("Mul", x, b.const(9.0))), [IMAGE], opset=18)
    lab.compared(graph, lab.noise(graph)).close()


def test_double_precision_becomes_float32(lab):
    graph = lab.build(
        lambda b, x: b("Cast", b("Mul", b("Cast", x, to=11), b.const([1.5, 2, 3, 4, 5, 6], np.float64)), to=1), [IMAGE]
    )
    lab.compared(graph, lab.noise(graph)).close()


OLDER = {
    "Upsample": (9, lambda b, x: b("Upsample", x, b.const([1, 1, 2, 2]), mode="nearest")),
    "Slice": (9, lambda b, x: b("Slice", x, starts=[1, 2], ends=[3, 6], axes=[1, 3])),
    "Pad": (10, lambda b, x: b("Pad", x, pads=[0, 0, 1, 1, 0, 0, 2, 2], value=0.5)),
    "Clip": (10, lambda b, x: b("Clip", x, min=-0.25, max=0.5)),
    "Softmax": (11, lambda b, x: b("Softmax", x, axis=2)),
    "Split": (11, lambda b, x: b("Split", x, outputs=2, axis=1, split=[1, 3])),
    "Squeeze": (11, lambda b, x: b("Squeeze", b("GlobalAveragePool", x), axes=[2, 3])),
    "Unsqueeze": (11, lambda b, x: b("Unsqueeze", b("Flatten", b("GlobalMaxPool", x)), axes=[2, 3])),
    "ReduceSum": (11, lambda b, x: b("ReduceSum", x, axes=[1], keepdims=0)),
    "ReduceMean": (18, lambda b, x: b("ReduceMean", x, b.ints(2, 3))),
    "Pad, axes": (18, lambda b, x: b("Pad", x, b.ints(1, 2), None, b.ints(3))),
    "Split, count": (18, lambda b, x: b("Split", x, outputs=2, axis=1, num_outputs=2)),
    "Resize, axes": (18, lambda b, x: b("Resize", x, None, b.const([2, 2]), axes=[2, 3])),
    "Dropout": (12, lambda b, x: b("Relu", b("Dropout", x))),
}


@pytest.mark.parametrize("case", list(OLDER))
def test_other_opsets(lab, case):
    opset, make = OLDER[case]
    graph = lab.build(make, [IMAGE], opset=opset)
    lab.compared(graph, lab.noise(graph)).close()


def test_a_batch_of_several(lab):
    graph = lab.build(lambda b, x: b("Gemm", b("Flatten", x), b.weight(144, 5)), [(3, 4, 6, 6)])
    feeds = lab.noise(graph)
    lab.compared(graph, feeds).close()
    assert lab.compared(lab.quantized(graph, feeds), feeds).steps() <= 1


def test_several_inputs_keep_their_names_and_layouts(lab):
    graph = lab.build(
        lambda b, x, y: [b("Add", x, y), b("Relu", y), b("Softmax", b("Flatten", b("GlobalAveragePool", x)))],
        [IMAGE, (1, 4, 1, 1)],
    )
    feeds = lab.noise(graph)
    found = lab.compared(graph, feeds)
    found.close()
    lowered = found.lowered
    assert [(p.name, p.permutation) for p in lowered.inputs] == [("x0", (0, 2, 3, 1)), ("x1", (0, 2, 3, 1))]
    assert [(p.name, p.permutation) for p in lowered.outputs] == [
        ("y0", (0, 2, 3, 1)),
        ("y1", (0, 2, 3, 1)),
        ("y2", (0, 1)),
    ]
    tensors = [lowered.file.tensors[i] for i in (*lowered.file.inputs, *lowered.file.outputs)]
    assert [t.name for t in tensors] == ["x0", "x1", "y0", "y1", "y2"]
    assert tensors[0].shape == (1, 6, 6, 4)


def test_an_input_that_is_an_output_and_one_output_twice(lab):
    graph = lab.build(lambda b, x: [b("Identity", x), b("Relu", x)], [IMAGE])
    graph.outputs.append(graph.op("Identity", [graph.outputs[1]], outputs=1))
    graph.outputs[-1].name, graph.outputs[-1].dtype, graph.outputs[-1].shape = "y2", np.dtype(np.float32), list(IMAGE)
    found = lab.compared(graph, lab.noise(graph))
    found.close()
    assert found.kinds == ["RELU", "RESHAPE", "RESHAPE"]
    assert len(set(found.lowered.file.outputs)) == 3
