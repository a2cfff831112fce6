"""From ranges and weights to integers: scales, zero-points, biases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.ir.graph import Constant, Node, Tensor, Variable
from edgec.passes.quantize.quantized_weights import Layer, quantize_parameters, weight_scales
from edgec.passes.quantize.scales.affine_parameters import LEAST_SCALE, Parameters, Range, parameters

FINITE = st.floats(-(2.0**127), 2.0**127, width=32)


@settings(max_examples=200, deadline=None)
@given(FINITE, FINITE, st.sampled_from(["int8", "uint8"]), st.booleans())
def test_scales_are_positive_and_zero_is_an_integer(one: float, other: float, dtype: str, symmetric: bool) -> None:
    by = parameters(Range(min(one, other), max(one, other)), dtype, symmetric=symmetric)
    limits = np.iinfo(dtype)
    assert 0 < by.scale < np.inf
    assert np.float32(by.scale) == by.scale
    assert limits.min <= by.zero_point <= limits.max
    assert by.range.low <= 0 <= by.range.high
    if LEAST_SCALE < by.scale < 2.0**62:
        # The zero-point's rounding costs at most half a step at one end.
        assert by.range.low <= min(one, other) + by.scale * 0.51
        assert by.range.high >= max(one, other) - by.scale * 0.51


def test_known_ranges() -> None:
    assert parameters(Range(0.0, 0.0), "uint8") == Parameters(float(np.float32(1 / 255)), 0, "uint8")
    assert parameters(Range(-2.0, -1.0), "int8").zero_point == 127
    assert parameters(Range(3.0, 3.0), "int8").range.high == pytest.approx(3)
    assert parameters(Range(-1.0, 3.0), "uint8").zero_point == 64
    assert parameters(Range(-1.0, 3.0), "int8").zero_point == -64
    assert parameters(Range(-1.0, 2.54), "int8", symmetric=True) == Parameters(float(np.float32(0.02)), 0, "int8")


def test_what_a_prescribed_scale_covers() -> None:
    sigmoid = Parameters(1 / 256, -128, "int8")
    assert sigmoid.covers(Range(0.0, 1.0))
    assert not sigmoid.covers(Range(0.0, 1.01))
    assert not sigmoid.covers(Range(-0.01, 0.5))


def layer(op: str, weights: np.ndarray, bias: np.ndarray | None = None, scale: float = 0.1, **options: object) -> Layer:
    """The quantized parameters of one operator; attributes of the node are given as options too."""
    attributes = {k: v for k, v in options.items() if k in ("group", "transB", "alpha", "beta")}
    inputs: list[Tensor] = [Variable("x", np.float32), Constant("w", weights.astype(np.float32))]
    if bias is not None:
        inputs.append(Constant("b", bias.astype(np.float32)))
    node = Node(op, "layer", attributes, inputs, [Variable("y", np.float32)])
    rest = {k: v for k, v in options.items() if k not in node.attrs}
    return quantize_parameters(node, scale, **{"per_channel": True, "integer_bias": True, **rest})


@pytest.mark.parametrize(
    ("op", "shape", "options", "axis"),
    [
        ("Conv", (4, 3, 3, 3), {}, 0),
        ("ConvTranspose", (3, 4, 2, 2), {}, 1),
        ("Gemm", (6, 4), {}, 1),
        ("Gemm", (4, 6), {"transB": 1}, 0),
        ("MatMul", (6, 4), {}, 1),
    ],
)
def test_weights_are_within_half_a_step_of_their_channel(
    op: str, shape: tuple[int, ...], options: dict[str, int], axis: int
) -> None:
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    made = layer(op, weights, **options)
    assert made.axis == axis
    assert made.weight.dtype == np.int8
    others = tuple(i for i in range(weights.ndim) if i != axis)
    assert (np.abs(made.weight.astype(int)).max(axis=others) == 127).all()
    scale = np.expand_dims(made.scale, others)
    assert (np.abs(made.weight * scale - weights) <= scale / 2 * 1.001).all()


def test_a_stack_of_matrices_and_reduced_range() -> None:
    weights = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    made = layer("MatMul", weights)
    assert made.axis is None
    assert made.scale.shape == ()
    assert np.abs(layer("MatMul", weights, reduce_range=True).weight).max() == 63


def test_the_bias_scale_is_the_product_in_float32() -> None:
    random = np.random.default_rng(0)
    bias = random.normal(size=4).astype(np.float32)
    made = layer("Conv", random.normal(size=(4, 3, 3, 3)).astype(np.float32), bias, scale=0.0123)
    assert made.bias is not None
    assert made.bias_scale is not None
    np.testing.assert_array_equal(made.bias_scale, np.float32(0.0123) * made.scale)
    assert made.bias.dtype == np.int32
    assert (np.abs(made.bias * made.bias_scale.astype(np.float64) - bias) <= made.bias_scale * 0.51).all()


def test_groups_of_a_transposed_convolution_share_scales() -> None:
    random = np.random.default_rng(0)
    made = layer("ConvTranspose", random.normal(size=(6, 2, 2, 2)), random.normal(size=6), group=3)
    assert made.scale.shape == (2,)
    assert made.bias_scale is not None
    np.testing.assert_array_equal(made.bias_scale, np.tile(np.float32(0.1) * made.scale, 3))


def test_a_dead_channel_has_a_scale_like_the_others() -> None:
    weights = np.ones((3, 1, 1, 1), np.float32)
    weights[1] = 0
    made = layer("Conv", weights, np.array([1, 2, 3], np.float32))
    np.testing.assert_array_equal(made.scale, np.float32(1 / 127))
    np.testing.assert_array_equal(made.weight.ravel(), [127, 0, 127])
    assert (weight_scales(np.zeros((2, 2)), 0) == np.float32(1 / 127)).all()


def test_a_bias_that_would_not_fit_enlarges_its_channel() -> None:
    weights = np.ones((2, 1, 1, 1), np.float32)
    weights[0] = 1e-12
    for per_channel in (True, False):
        made = layer("Conv", weights, np.array([5, 5], np.float32), scale=1e-6, per_channel=per_channel)
        assert made.widened == (1 if per_channel else 0)
        assert made.bias is not None
        assert made.bias_scale is not None
        np.testing.assert_allclose(made.bias * made.bias_scale.astype(np.float64), 5, rtol=1e-6)
        assert (np.abs(made.bias.astype(np.int64)) <= 2**30 + 2**10).all()


def test_alpha_and_beta() -> None:
    weights, bias = np.ones((2, 3), np.float32), np.array([4.0], np.float32)
    made = layer("Gemm", weights, bias, alpha=-0.5, beta=0.25)
    assert made.bias is not None
    assert made.bias_scale is not None
    np.testing.assert_allclose(made.weight * made.scale, -0.5, rtol=1e-6)
    np.testing.assert_allclose(made.bias * made.bias_scale, [1, 1, 1], rtol=1e-3)


def test_a_bias_that_no_scale_can_hold_is_cut() -> None:
    with np.errstate(invalid="raise", over="raise"):
        found = layer("Gemm", np.ones((2, 4)), np.array([1e38, -1e38]), 1e-10, transB=1)
    assert found.bias is not None
    assert found.bias.tolist() == [2**31 - 1, -(2**31) + 1]
