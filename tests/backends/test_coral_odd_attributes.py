"""Attributes that few networks have: each gives what onnxruntime gives."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.coral.backend import CoralBackend, lower
from edgec.backends.coral.interpreter import Interpreter
from edgec.backends.protocol import legalize
from edgec.backends.registry import target
from edgec.ir.errors import EmitError
from edgec.ir.execution import Session

IMAGE = (1, 4, 6, 6)
HUGE = 2**40


def _equal(lab, make, shapes, opset=17, tolerance=1e-5):
    """Legalized, lowered and run in LiteRT, against the graph as it was; returns the operators of the file."""
    graph = lab.build(make, shapes, opset)
    feeds = lab.noise(graph)
    wanted = Session(graph).run(feeds)
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    lowered = lower(graph)
    given = Interpreter(lowered.file.to_bytes(), lowered.inputs, lowered.outputs).run(feeds)
    for name, values in wanted.items():
        assert given[name].shape == values.shape
        np.testing.assert_allclose(given[name], values, rtol=tolerance, atol=tolerance)
    return [operator.kind for operator in lowered.file.operators]


@pytest.mark.parametrize("padding", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(("stride", "kernel"), [(3, 2), (5, 2), (4, 3), (2, 3), (3, 3), (2, 1), (7, 3)])
def test_a_transposed_convolution_whose_stride_is_beyond_its_kernel(lab, padding, stride, kernel):
    def make(b, x):
        weight = b.weight(4, 3, kernel, kernel)
        return b("ConvTranspose", x, weight, b.weight(3), strides=[stride, stride], auto_pad=padding)

    _equal(lab, make, [IMAGE])


STRIDES = {
    "Conv": lambda b, x: b("Conv", x, b.weight(3, 4, 3, 3), strides=[HUGE, HUGE]),
    "Conv, padded": lambda b, x: b("Conv", x, b.weight(3, 4, 3, 3), strides=[HUGE, HUGE], pads=[1, 1, 1, 1]),
    "Conv, dilated": lambda b, x: b("Conv", x, b.weight(3, 4, 1, 1), dilations=[HUGE, HUGE]),
    "MaxPool": lambda b, x: b("MaxPool", x, kernel_shape=[2, 2], strides=[HUGE, HUGE]),
    "MaxPool, ceil": lambda b, x: b("MaxPool", x, kernel_shape=[2, 2], strides=[HUGE, HUGE], ceil_mode=1),
    "AveragePool": lambda b, x: b("AveragePool", x, kernel_shape=[2, 2], strides=[HUGE, HUGE]),
    "Slice": lambda b, x: b("Slice", x, b.ints(1, 0), b.ints(2**62, 6), b.ints(1, 2), b.ints(HUGE, HUGE)),
}


@pytest.mark.parametrize("case", list(STRIDES))
def test_a_stride_of_2_to_the_40(lab, case):
    _equal(lab, STRIDES[case], [IMAGE])


def test_a_transposed_convolution_of_one_pixel_has_any_stride(lab):
    _equal(lab, lambda b, x: b("ConvTranspose", x, b.weight(4, 3, 2, 2), strides=[HUGE, HUGE]), [(1, 4, 1, 1)])


@pytest.mark.parametrize("scale", [0.17, 0.3, 0.5, 1.7, 2.5, 3.3])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
def test_a_resize_by_an_odd_factor(lab, scale, mode, coordinates):
    def make(b, x):
        scales = b.const([1, 1, scale, scale])
        return b("Resize", x, None, scales, mode=mode, coordinate_transformation_mode=coordinates)

    _equal(lab, make, [(1, 4, 7, 9)])


def test_a_nearest_resize_of_integers_that_tflite_has_not_moves_them(lab):
    graph = lab.build(lambda b, x: b("Resize", x, None, b.const([1, 1, 1.7, 1.7])), [(1, 4, 7, 9)])
    feeds = lab.noise(graph)
    compared = lab.compared(lab.quantized(graph, feeds), feeds)
    assert compared.kinds == ["GATHER", "GATHER"]
    assert compared.steps() == 0


RESIZES = {
    "of a sequence": (lambda b, x: b("Resize", x, None, b.const([1, 1, 2.0]), mode="linear"), (1, 4, 7), 17),
    "Keras' upsampling": (
        lambda b, x: b(
            "Resize",
            x,
            None,
            b.const([1, 1, 2, 3]),
            coordinate_transformation_mode="tf_half_pixel_for_nn",
            nearest_mode="floor",
        ),
        (1, 4, 7, 9),
        13,
    ),
    "that keeps the aspect ratio": (
        lambda b, x: b(
            "Resize", x, None, None, b.ints(9, 20), mode="linear", axes=[2, 3], keep_aspect_ratio_policy="not_larger"
        ),
        (1, 4, 7, 9),
        18,
    ),
    "that keeps the aspect ratio and is not smaller": (
        lambda b, x: b("Resize", x, None, None, b.ints(9, 20), axes=[2, 3], keep_aspect_ratio_policy="not_smaller"),
        (1, 4, 7, 9),
        18,
    ),
}


@pytest.mark.parametrize("case", list(RESIZES))
def test_a_resize(lab, case):
    make, shape, opset = RESIZES[case]
    _equal(lab, make, [shape], opset)


EXACT = {
    "BatchNormalization in training": (
        lambda b, x: b(
            "BatchNormalization", x, *(b.weight(4) for _ in range(3)), b.const([1] * 4), outputs=3, training_mode=1
        )[0],
        [(2, 4, 6, 6)],
    ),
    "BatchNormalization of rows in training": (
        lambda b, x: b(
            "BatchNormalization", x, *(b.weight(4) for _ in range(3)), b.const([1] * 4), outputs=3, training_mode=1
        )[0],
        [(5, 4)],
    ),
    "Dropout in training that drops nothing": (
        lambda b, x: b("Dropout", x, b.const(0.0), b.const(True, bool)),
        [IMAGE],
    ),
    "Dropout whose mask is read": (
        lambda b, x: (lambda y, mask: b("Mul", y, b("Cast", mask, to=1)))(*b("Dropout", b("Relu", x), outputs=2)),
        [IMAGE],
    ),
    "LayerNormalization with one scale": (
        lambda b, x: b("LayerNormalization", x, b.const([1.5]), b.const([0.5]), axis=1),
        [IMAGE],
    ),
    "LayerNormalization with a scale that broadcasts": (
        lambda b, x: b("LayerNormalization", x, b.weight(4, 1, 6), b.weight(6), axis=1),
        [IMAGE],
    ),
    "Clip with bounds that are computed": (
        lambda b, x: b("Clip", b("Relu", x), b("ReduceMean", x, keepdims=0), b.const(0.5)),
        [IMAGE],
    ),
    "Gemm of two that are computed": (
        lambda b, x, y: b("Gemm", x, y, b.weight(2, 3), transB=1, alpha=0.5, beta=2.0),
        [(2, 4), (3, 4)],
    ),
    "Gemm with transA of two that are computed": (lambda b, x, y: b("Gemm", x, y, transA=1), [(4, 2), (4, 3)]),
    "Gemm with another bias for each row": (lambda b, x: b("Gemm", x, b.weight(4, 3), b.weight(2, 3)), [(2, 4)]),
    "Gemm with a bias for each row": (lambda b, x: b("Gemm", x, b.weight(4, 3), b.weight(2, 1), beta=0.5), [(2, 4)]),
    "Gemm with a square bias column": (lambda b, x: b("Gemm", x, b.weight(4, 3), b.weight(3, 1)), [(3, 4)]),
    "Gemm with a computed bias": (lambda b, x, c: b("Gemm", x, b.weight(4, 3), c), [(2, 4), (3,)]),
    "MatMul with a known vector": (lambda b, x: b("MatMul", x, b.weight(4)), [(2, 4)]),
    "MatMul of a vector": (lambda b, x: b("MatMul", x, b.weight(4, 5)), [(4,)]),
    "MatMul of two vectors": (lambda b, x, y: b("MatMul", x, y), [(4,), (4,)]),
    "MatMul of a vector and many matrices": (lambda b, x, y: b("MatMul", x, y), [(4,), (3, 4, 5)]),
    "MatMul of six dimensions": (lambda b, x, y: b("MatMul", x, y), [(1, 2, 3, 2, 4, 5), (1, 2, 3, 2, 5, 4)]),
    "Pad by three of the edge": (lambda b, x: b("Pad", x, b.ints(0, 0, 3, 1, 0, 0, 2, 2), mode="edge"), [IMAGE]),
    "a backward Slice": (lambda b, x: b("Slice", x, b.ints(5), b.ints(-99), b.ints(2), b.ints(-1)), [IMAGE]),
    "a backward Slice with a step": (
        lambda b, x: b("Slice", x, b.ints(-1, 4), b.ints(-99, 0), b.ints(1, 3), b.ints(-2, -3)),
        [IMAGE],
    ),
}


@pytest.mark.parametrize("case", list(EXACT))
def test_what_is_spelled_out(lab, case):
    _equal(lab, *EXACT[case])


def _rank(rank):
    return (1, 2, 3, 2, *[1] * (rank - 8), 2, 2, 2, 2) if rank >= 8 else (1, 2, 3, 2, 2, 2, 2)[:rank]


@pytest.mark.parametrize("rank", [5, 6, 7, 8])
def test_many_dimensions(lab, rank):
    shape = _rank(rank)
    _equal(lab, lambda b, x: b("Mul", b("Relu", x), b.weight(*shape[1:])), [shape])
    _equal(lab, lambda b, x: b("Transpose", b("Relu", x), perm=[rank - 1, *range(rank - 1)]), [shape])


TOO_MANY = {
    "an input": (
        lambda b, x: b("Relu", x),
        _rank(9),
        "coral-dev-board: input 'x0': it has 9 dimensions, and TFLite's tensors at most 8; "
        "merge dimensions with a Reshape in the model",
    ),
    "an operator": (
        lambda b, x: b("ReduceMean", x, axes=[1]),
        _rank(7),
        "coral-dev-board: node 'reducemean': it works on 7 dimensions, and TFLite's MEAN on at most 6; "
        "merge dimensions with a Reshape in the model",
    ),
    "more than arrays have": (
        lambda b, x: b("Add", x, b("Reshape", b.weight(4, 6, 6), b.ints(*[1] * 66, 4, 6, 6))),
        IMAGE,
        "coral-dev-board: node 'reshape': it gives 69 dimensions, and arrays have at most 64; "
        "merge dimensions in the model",
    ),
    "a shape beyond 32 bits": (
        lambda b, x: b("Pad", x, b.ints(0, 0, 0, 0, 0, 0, 0, HUGE)),
        IMAGE,
        "coral-dev-board: node 'pad': it needs the number 1,099,511,627,776, and TFLite counts to 2,147,483,647; "
        "make it smaller in the model",
    ),
    "elements beyond 32 bits": (
        lambda b, x: b("Pad", x, b.ints(0, 0, 0, 0, 0, 0, 2**20, 2**20)),
        IMAGE,
        "coral-dev-board: node 'pad': it gives 4,398,096,842,896 elements, and TFLite counts to 2,147,483,647; "
        "make it smaller in the model",
    ),
}


@pytest.mark.parametrize("case", list(TOO_MANY))
def test_too_many(lab, case):
    make, shape, text = TOO_MANY[case]
    graph = lab.build(make, [shape])
    with pytest.raises(EmitError) as caught:
        legalize(graph, CoralBackend(), target("coral-dev-board"))
    assert str(caught.value) == text
