"""Integers and booleans in a TFLite file: token ids, masks, a camera's bytes, indices, and integers that leave."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgec.backends.coral.backend import CoralBackend, lower
from edgec.backends.coral.interpreter import Interpreter
from edgec.backends.registry import target
from edgec.ir.execution import Session
from edgec.ir.shapes import Shapes

IMAGE = (1, 4, 6, 6)
FLOAT, UINT8, INT8, INT32, INT64, BOOL = 1, 2, 3, 6, 7, 9


def _graph(lab, make, inputs, outputs):
    """A graph whose inputs and outputs have these types; what it gives is compared exactly, type and all."""
    builder = lab.Builder()
    tensors = []
    for place, (shape, dtype) in enumerate(inputs):
        tensor = builder.input(f"x{place}", *shape)
        tensor.dtype = np.dtype(dtype)
        tensors.append(tensor)
    made = make(builder, *tensors)
    builder.graph.outputs = list(made) if isinstance(made, list | tuple) else [made]
    for place, (tensor, dtype) in enumerate(zip(builder.graph.outputs, outputs, strict=True)):
        tensor.name, tensor.dtype = f"y{place}", np.dtype(dtype)
    Shapes(builder.graph).annotate(builder.graph)
    return builder.graph


def _feeds(graph, seed=0, top=8):
    random = np.random.Generator(np.random.PCG64(seed))
    feeds = {}
    for tensor in graph.inputs:
        if tensor.dtype.kind == "f":
            feeds[tensor.name] = random.uniform(-1, 1, tensor.shape).astype(tensor.dtype)
        else:
            feeds[tensor.name] = random.integers(0, 2 if tensor.dtype == bool else top, tensor.shape).astype(
                tensor.dtype
            )
    return feeds


def _run(graph, feeds):
    lowered = lower(graph)
    contents = lowered.file.to_bytes()
    return lowered, Interpreter(contents, lowered.inputs, lowered.outputs).run(feeds), Session(graph).run(feeds)


def _exact(lab, make, inputs, outputs, top=8):
    graph = _graph(lab, make, inputs, outputs)
    lowered, given, wanted = _run(graph, _feeds(graph, top=top))
    for name, values in wanted.items():
        assert given[name].dtype == values.dtype, name
        if values.dtype.kind == "f":
            np.testing.assert_allclose(given[name], values, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(given[name], values)
    return lowered


ROW = (1, 12)
CASES = {
    "an embedding of int64 tokens": (lambda b, i: b("Gather", b.weight(8, 5), i), [(ROW, np.int64)], [np.float32]),
    "an embedding of int32 tokens": (lambda b, i: b("Gather", b.weight(8, 5), i), [(ROW, np.int32)], [np.float32]),
    "a token by itself": (lambda b, i: b("Gather", b.weight(8, 5), i), [((), np.int64)], [np.float32]),
    "elements along another axis": (
        lambda b, x, i: b("Gather", x, i, axis=1),
        [((1, 8, 6, 6), np.float32), ((3,), np.int64)],
        [np.float32],
    ),
    "elements by indices of two dimensions": (
        lambda b, x, i: b("Gather", x, i, axis=2),
        [((1, 4, 8, 6), np.float32), ((2, 3), np.int64)],
        [np.float32],
    ),
    "known indices of two dimensions": (
        lambda b, x: b("Gather", x, b.const([[0, 2], [-1, 3]], np.int64), axis=1),
        [(IMAGE, np.float32)],
        [np.float32],
    ),
    "tokens, positions and a mask": (
        lambda b, i, m: b(
            "Add",
            b("Gather", b.weight(8, 5), i),
            b("Mul", b("Unsqueeze", b("Cast", m, to=FLOAT), b.ints(2)), b.const(-100.0)),
        ),
        [(ROW, np.int64), (ROW, np.bool_)],
        [np.float32],
    ),
    "a mask of int64": (
        lambda b, m: b("Mul", b("Sub", b.const(1.0), b("Cast", m, to=FLOAT)), b.const(-1e4)),
        [(ROW, np.int64)],
        [np.float32],
    ),
    "a mask that selects": (
        lambda b, x, m: b("Where", m, x, b.const(-1e4)),
        [((1, 4, 12), np.float32), ((1, 1, 12), np.bool_)],
        [np.float32],
    ),
    "an image that a mask selects": (
        lambda b, x, m: b("Where", m, b("MaxPool", x, kernel_shape=[1, 1]), b.const(0.0)),
        [(IMAGE, np.float32), ((1, 1, 6, 6), np.bool_)],
        [np.float32],
    ),
    "comparisons": (
        lambda b, i, j: [b(op, i, j) for op in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")],
        [(ROW, np.int64), (ROW, np.int64)],
        [np.bool_] * 5,
    ),
    "comparisons of floats": (
        lambda b, x: [b("Greater", x, b.const(0.0)), b("Less", b.const(0.1), x)],
        [(IMAGE, np.float32)],
        [np.bool_] * 2,
    ),
    "bytes that are the same": (
        lambda b, i, j: b("Equal", b("Cast", i, to=INT32), b("Cast", j, to=INT32)),
        [(ROW, np.uint8), (ROW, np.int8)],
        [np.bool_],
    ),
    "logic": (
        lambda b, i, j: [b("And", i, j), b("Or", i, j), b("Xor", i, j), b("Not", i)],
        [(ROW, np.bool_), (ROW, np.bool_)],
        [np.bool_] * 4,
    ),
    "arithmetic of int64": (
        lambda b, i, j: [b("Add", i, j), b("Sub", i, j), b("Mul", i, j), b("Max", i, j), b("Min", i, j)],
        [(ROW, np.int64), (ROW, np.int64)],
        [np.int64] * 5,
    ),
    "arithmetic of int32": (
        lambda b, i, j: [b("Add", i, j), b("Sub", i, j), b("Mul", i, j), b("Div", i, b.const([3], np.int32))],
        [(ROW, np.int32), (ROW, np.int32)],
        [np.int32] * 4,
    ),
    "greatest of small integers": (
        lambda b, i: [
            b("ReduceMax", i, axes=[1]),
            b("Max", i, b.const([3], np.int8)),
            b("Clip", i, b.const(2, np.int8)),
        ],
        [(ROW, np.int8)],
        [np.int8] * 3,
    ),
    "OneHot of negative and far indices": (
        lambda b, i: b("OneHot", b("Sub", i, b.ints(4)), b.ints(3), b.const([0.0, 2.0])),
        [(ROW, np.int64)],
        [np.float32],
    ),
    "a quotient and a remainder of int64": (
        lambda b, i: [b("Div", i, b.ints(3)), b("Mod", i, b.ints(3))],
        [(ROW, np.int64)],
        [np.int64] * 2,
    ),
    "sums, greatest and least of integers": (
        lambda b, i: [b("ReduceSum", i, b.ints(1)), b("ReduceMax", i, axes=[1]), b("ReduceMin", i, axes=[1])],
        [(ROW, np.int64)],
        [np.int64] * 3,
    ),
    "integers moved": (
        lambda b, i: b(
            "Concat",
            b("Transpose", b("Slice", i, b.ints(0), b.ints(2), b.ints(1)), perm=[1, 0]),
            b("Reshape", b("Split", i, outputs=2, axis=1)[0], b.ints(6, 1)),
            axis=0,
        ),
        [(ROW, np.int64)],
        [np.int64],
    ),
    "images of integers": (
        lambda b, i: [
            b("Slice", i, b.ints(0, 0), b.ints(6, 6), b.ints(2, 3), b.ints(2, 2)),
            b("Transpose", i, perm=[0, 2, 3, 1]),
        ],
        [(IMAGE, np.int32)],
        [np.int32] * 2,
    ),
    "a clip of integers": (
        lambda b, i: b("Clip", i, b.const(2, np.int64), b.const(5, np.int64)),
        [(ROW, np.int64)],
        [np.int64],
    ),
    "casts": (
        lambda b, x: [b("Cast", b("Mul", x, b.const(50.0)), to=to) for to in (INT8, INT32, INT64, BOOL)],
        [(IMAGE, np.float32)],
        [np.int8, np.int32, np.int64, np.bool_],
    ),
    "a float64 on the way": (
        lambda b, x: b("Cast", b("Cast", x, to=11), to=FLOAT),
        [(IMAGE, np.float32)],
        [np.float32],
    ),
    "ArgMax": (
        lambda b, x: [b("ArgMax", x, axis=1), b("ArgMax", x, axis=-1, keepdims=0), b("ArgMin", x, axis=2)],
        [(IMAGE, np.float32)],
        [np.int64] * 3,
    ),
    "TopK": (
        lambda b, x: list(b("TopK", x, b.ints(3), axis=1, outputs=2)),
        [(IMAGE, np.float32)],
        [np.float32, np.int64],
    ),
    "the smallest of TopK": (
        lambda b, x: list(b("TopK", x, b.ints(3), axis=2, largest=0, outputs=2)),
        [(IMAGE, np.float32)],
        [np.float32, np.int64],
    ),
    "OneHot": (
        lambda b, i: b("OneHot", i, b.ints(8), b.const([0.0, 2.0])),
        [(ROW, np.int64)],
        [np.float32],
    ),
    "bytes that go out as they come": (lambda b, i: b("Identity", i), [(ROW, np.uint8)], [np.uint8]),
    "an output that is known": (
        lambda b, x: [b("Relu", x), b("Identity", b.const([True, False], np.bool_)), b("Identity", b.const([[1.5]]))],
        [(IMAGE, np.float32)],
        [np.float32, np.bool_, np.float32],
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_they_are_what_onnx_says(lab, case):
    _exact(lab, *CASES[case])


def _camera(b, x, last="Relu"):
    image = b("Cast", b("Transpose", x, perm=[0, 3, 1, 2]), to=FLOAT)
    return b(last, b("Conv", b("Mul", image, b.const(1 / 255)), b.weight(8, 3, 3, 3), b.weight(8), pads=[1] * 4))


def test_a_camera_in_float_is_fed_its_bytes(lab):
    graph = _graph(lab, _camera, [((1, 6, 8, 3), np.uint8)], [np.float32])
    feeds = _feeds(graph, top=256)
    lowered, given, wanted = _run(graph, feeds)
    np.testing.assert_allclose(given["y0"], wanted["y0"], rtol=1e-4, atol=1e-5)
    assert [op.kind for op in lowered.file.operators] == ["CAST", "MUL", "CONV_2D"]
    (port,) = lowered.inputs
    assert (port.dtype, port.quantization, port.permutation) == (np.uint8, None, (0, 1, 2, 3))


def _quantized_camera(lab, top=255.0):
    def make(b, x):
        scale, zero = b.const(top / 255), b.const(0, np.uint8)
        real = b("Cast", b("Transpose", x, perm=[0, 3, 1, 2]), to=FLOAT)
        real = b("DequantizeLinear", b("QuantizeLinear", real, scale, zero), scale, zero)
        return b("MaxPool", real, kernel_shape=[2, 2])

    graph = _graph(lab, make, [((1, 6, 8, 3), np.uint8)], [np.float32])
    return graph, _feeds(graph, top=int(top) + 1)


def test_a_camera_in_int8_is_fed_its_bytes_less_128(lab, tmp_path):
    graph, feeds = _quantized_camera(lab)
    lowered, given, wanted = _run(graph, feeds)
    np.testing.assert_array_equal(given["y0"], wanted["y0"])
    assert [op.kind for op in lowered.file.operators] == ["MAX_POOL_2D", "DEQUANTIZE"] or lowered.file.operators[
        0
    ].kind == "MAX_POOL_2D"
    CoralBackend().emit(graph, target("coral-dev-board"), tmp_path, [feeds])
    (entry,) = json.loads((tmp_path / "check.json").read_text())["inputs"]
    assert (entry["dtype"], entry["onnx_dtype"], entry["scale"], entry["zero_point"]) == ("int8", "uint8", 1.0, -128)
    again = CoralBackend().runner(graph, tmp_path)(feeds)
    np.testing.assert_array_equal(again["y0"], wanted["y0"])


def test_a_camera_of_which_calibration_saw_a_part_has_a_quantize_first(lab):
    graph, feeds = _quantized_camera(lab, top=200.0)
    lowered, given, wanted = _run(graph, feeds)
    assert np.abs(given["y0"] - wanted["y0"]).max() <= 200 / 255 + 1e-4
    assert lowered.file.operators[0].kind == "QUANTIZE"
    assert lowered.inputs[0].quantization.scale[0] == 1.0


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_integers_that_a_network_dequantizes_are_its_bytes(lab, dtype):
    def make(b, x):
        scale, zero = b.const(0.02), b.const(5, dtype)
        real = b("MaxPool", b("DequantizeLinear", x, scale, zero), kernel_shape=[2, 2])
        return b("DequantizeLinear", b("QuantizeLinear", real, scale, zero), scale, zero)

    graph = _graph(lab, make, [(IMAGE, dtype)], [np.float32])
    lowered, given, wanted = _run(graph, _feeds(graph, top=120))
    np.testing.assert_allclose(given["y0"], wanted["y0"], rtol=1e-6)
    assert lowered.file.tensors[lowered.file.inputs[0]].dtype == np.int8
    assert lowered.file.operators[0].kind == "MAX_POOL_2D"


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("scales", [[0.02], [0.02, 0.1, 0.3, 0.01]])
def test_integers_that_a_network_of_floats_dequantizes(lab, dtype, scales):
    def make(b, x):
        scale, zero = (
            (b.const(scales), b.const([3, 0, 7, 1], dtype))
            if len(scales) > 1
            else (b.const(scales[0]), b.const(3, dtype))
        )
        return b("Conv", b("DequantizeLinear", x, scale, zero, axis=1), b.weight(3, 4, 3, 3))

    lowered = _exact(lab, make, [(IMAGE, dtype)], [np.float32], top=120)
    assert lowered.inputs[0].dtype == dtype


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("behind", ["output", "cast", "both"])
def test_integers_that_leave_are_those_of_onnx(lab, dtype, behind):
    def make(b, x):
        integers = b("QuantizeLinear", b("Relu", x), b.const(0.03), b.const(7, dtype))
        cast = b("Cast", integers, to=FLOAT)
        return {"output": [integers], "cast": [cast], "both": [integers, cast]}[behind]

    types = {"output": [dtype], "cast": [np.float32], "both": [dtype, np.float32]}[behind]
    lowered = _exact(lab, make, [(IMAGE, np.float32)], types)
    assert all(port.quantization is None for port in lowered.outputs if port.dtype != np.float32)


def test_a_wrong_index_is_found(lab, monkeypatch, tmp_path):
    from edgec.backends.coral import backend
    from edgec.ir.errors import EmitError

    graph = _graph(lab, lambda b, x: b("ArgMax", b("Relu", x), axis=1), [(IMAGE, np.float32)], [np.int64])
    other = _graph(lab, lambda b, x: b("ArgMin", b("Relu", x), axis=1), [(IMAGE, np.float32)], [np.int64])
    monkeypatch.setattr(backend, "lower", lambda *_: lower(other))
    with pytest.raises(EmitError, match=r"^model\.tflite: output 'y0': it is "):
        CoralBackend().emit(graph, target("coral-dev-board"), tmp_path, [_feeds(graph)])
