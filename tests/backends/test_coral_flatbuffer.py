"""The file itself: alignment, sharing, versions, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral.flatbuffer import ALIGNMENT, File
from edgec.backends.coral.operators import version
from edgec.backends.coral.quantization import Quantization, bias_integers, covering, per_tensor


def _sum(constants, quantization=None):
    file = File()
    tensor = file.inputs = [file.tensor("x", (1, 3), np.float32)]
    for place, values in enumerate(constants):
        other = file.constant(f"c{place}", np.asarray(values, np.float32), quantization)
        result = file.tensor(f"y{place}", (1, 3), np.float32)
        file.operator("ADD", [*tensor, other], [result], schema.AddOptionsT())
        tensor = [result]
    file.outputs = tensor
    return file


def _read(contents):
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(contents))


def test_equal_constants_are_written_once():
    file = _sum([[1, 2, 3], [4, 5, 6], [1, 2, 3]])
    model = _read(file.to_bytes())
    assert len(model.buffers) == 3, "an empty one and two of data"
    assert file.parameter_bytes == 24
    named = {t.name.decode(): t for t in model.subgraphs[0].tensors}
    assert set(named) == {"x", "c0", "c1", "y0", "y1", "y2"}


def test_equal_bytes_with_other_scales_share_a_buffer_only():
    file = File()
    data = np.arange(3, dtype=np.int8)
    first, second = (file.constant("c", data, per_tensor(scale, 0)) for scale in (0.5, 0.25))
    assert first != second
    source, result = (
        file.tensor("x", (3,), np.int8, per_tensor(1, 0)),
        file.tensor("y", (3,), np.int8, per_tensor(1, 0)),
    )
    file.operator("ADD", [source, first], [result], schema.AddOptionsT())
    file.operator("ADD", [source, second], [result], schema.AddOptionsT())
    file.inputs, file.outputs = [source], [result]
    assert len(_read(file.to_bytes()).buffers) == 2


@pytest.mark.parametrize("sizes", [(1,), (7, 16, 33), (5, 5, 5, 64)])
def test_weights_are_aligned(sizes):
    file = File()
    source = file.tensor("x", (1,), np.float32)
    for size in sizes:
        place = file.constant("c", np.random.Generator(np.random.PCG64(size)).random(size, np.float32))
        file.operator("ADD", [source, place], [source], schema.AddOptionsT())
    file.inputs = file.outputs = [source]
    contents = file.to_bytes()
    model = schema.Model.GetRootAs(contents)
    for place in range(1, model.BuffersLength()):
        data = model.Buffers(place).DataAsNumpy()
        start = np.frombuffer(contents, np.uint8).ctypes.data
        offset = contents.find(data.tobytes())
        assert offset % ALIGNMENT == 0, f"{start} + {offset}"


def test_what_nothing_reads_is_left_out():
    file = _sum([[1, 2, 3]])
    file.constant("unused", np.zeros(1000, np.float32))
    file.tensor("never", (1,), np.float32)
    model = _read(file.to_bytes())
    assert {t.name.decode() for t in model.subgraphs[0].tensors} == {"x", "c0", "y0"}
    assert len(model.buffers) == 2


def test_scales_of_a_channel_lie_along_their_dimension():
    file = File()
    channels = Quantization(np.array([0.5, 0.25], np.float32), np.zeros(2, np.int64), 3)
    source = file.tensor("x", (1, 3, 3, 2), np.int8, per_tensor(0.5, 3))
    weight = file.constant("w", np.ones((1, 3, 3, 2), np.int8), channels)
    options = schema.DepthwiseConv2DOptionsT()
    file.operator("DEPTHWISE_CONV_2D", [source, weight], [source], options)
    file.inputs = file.outputs = [source]
    tensors = {t.name.decode(): t for t in _read(file.to_bytes()).subgraphs[0].tensors}
    assert list(tensors["w"].quantization.scale) == [0.5, 0.25]
    assert tensors["w"].quantization.quantizedDimension == 3
    assert (list(tensors["x"].quantization.scale), list(tensors["x"].quantization.zeroPoint)) == ([0.5], [3])


INT8, FLOAT = np.dtype(np.int8), np.dtype(np.float32)


@pytest.mark.parametrize(
    ("kind", "types", "ranks", "options", "wanted"),
    [
        ("CONV_2D", [FLOAT, FLOAT], [4, 4], schema.Conv2DOptionsT(), 1),
        ("CONV_2D", [INT8, INT8], [4, 4], schema.Conv2DOptionsT(), 3),
        ("DEPTHWISE_CONV_2D", [FLOAT, FLOAT], [4, 4], schema.DepthwiseConv2DOptionsT(dilationHFactor=2), 2),
        ("DEPTHWISE_CONV_2D", [INT8, INT8], [4, 4], schema.DepthwiseConv2DOptionsT(dilationHFactor=2), 3),
        ("TRANSPOSE_CONV", [np.dtype(np.int32), INT8, INT8], [1, 4, 4], None, 2),
        ("TRANSPOSE_CONV", [np.dtype(np.int32), FLOAT, FLOAT, FLOAT], [1, 4, 4, 1], None, 3),
        ("FULLY_CONNECTED", [INT8, INT8, np.dtype(np.int32)], [2, 2, 1], schema.FullyConnectedOptionsT(), 4),
        ("ADD", [INT8, INT8], [4, 4], None, 2),
        ("RESIZE_BILINEAR", [INT8], [4], schema.ResizeBilinearOptionsT(halfPixelCenters=True), 3),
        ("RESIZE_NEAREST_NEIGHBOR", [INT8], [4], schema.ResizeNearestNeighborOptionsT(), 2),
        ("TRANSPOSE", [INT8], [5], None, 4),
        ("QUANTIZE", [INT8], [4], None, 1),
        ("RESHAPE", [INT8], [4], None, 1),
    ],
)
def test_versions(kind, types, ranks, options, wanted):
    assert version(kind, types, ranks, options) == wanted


def test_a_product_that_grows_needs_version_3():
    assert version("MUL", [INT8, INT8], [4, 4], None, gain=0.5) == 2
    assert version("MUL", [INT8, INT8], [4, 4], None, gain=1.0) == 3


def test_a_single_number_is_quantized_exactly():
    for number in (0.0, 0.37, -12.5):
        best = covering(np.float32(number))
        np.testing.assert_allclose(best.real(best.integers(np.full(1, number))), number, rtol=1e-6)


def test_saturation_stands_in_for_a_clamp():
    relu6 = per_tensor(6 / 255, -128)
    assert relu6.clamps_to(0.0, 6.0)
    assert relu6.clamps_to(0.0, float("inf"))
    assert relu6.clamps_to(-1.0, 7.0)
    assert not relu6.clamps_to(0.0, 5.9)
    assert not per_tensor(0.1, 0).clamps_to(0.0, float("inf"))


def test_biases_saturate():
    found = bias_integers(np.array([1.0, 1e9, -1e9]), np.array([0.5, 1e-6, 1e-6], np.float32))
    assert found.tolist() == [2, 2**31 - 1, -(2**31)]
