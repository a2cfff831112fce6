"""Each operator, in float and in int8, against onnxruntime: 1e-5 and one step."""

from __future__ import annotations

import pytest

IMAGE = (1, 6, 9, 11)


def _conv(channels, *, kernel=(3, 3), group=1, inputs=6, bias=True, **attrs):
    def make(b, x):
        weights = [b.weight(channels, inputs // group, *kernel)] + ([b.weight(channels)] if bias else [])
        return b("Conv", x, *weights, group=group, **attrs)

    return make


def _deconv(channels, *, kernel=(3, 3), group=1, inputs=6, bias=True, **attrs):
    def make(b, x):
        weights = [b.weight(inputs, channels // group, *kernel)] + ([b.weight(channels)] if bias else [])
        return b("ConvTranspose", x, *weights, group=group, **attrs)

    return make


def _clip(low, high):
    def make(b, x):
        y = b("Conv", x, b.weight(8, 6, 3, 3, scale=3.0), b.weight(8))
        return b("Clip", y, None if low is None else b.const(low), None if high is None else b.const(high))

    return make


# name, maker, input shapes
CASES = [
    ("conv_valid", _conv(8), [IMAGE]),
    ("conv_no_bias", _conv(8, bias=False), [IMAGE]),
    ("conv_same", _conv(8, pads=[1, 1, 1, 1]), [IMAGE]),
    ("conv_stride_symmetric", _conv(8, pads=[1, 1, 1, 1], strides=[2, 2]), [(1, 6, 8, 8)]),
    ("conv_stride_same_odd", _conv(8, pads=[1, 1, 1, 1], strides=[2, 2]), [(1, 6, 9, 9)]),
    ("conv_asymmetric", _conv(8, pads=[0, 0, 1, 1], strides=[2, 2]), [(1, 6, 8, 8)]),
    ("conv_same_upper", _conv(8, auto_pad="SAME_UPPER", strides=[2, 2]), [(1, 6, 8, 10)]),
    ("conv_same_lower", _conv(8, auto_pad="SAME_LOWER", strides=[2, 2]), [(1, 6, 8, 10)]),
    ("conv_wide_pads", _conv(8, pads=[3, 0, 2, 5]), [IMAGE]),
    ("conv_dilated", _conv(8, pads=[2, 2, 2, 2], dilations=[2, 2]), [IMAGE]),
    ("conv_dilated_unequal", _conv(8, dilations=[2, 3]), [IMAGE]),
    ("conv_pointwise", _conv(8, kernel=(1, 1)), [IMAGE]),
    ("conv_pointwise_stride", _conv(8, kernel=(1, 1), strides=[2, 2]), [IMAGE]),
    ("conv_depthwise", _conv(6, group=6, pads=[1, 1, 1, 1]), [IMAGE]),
    ("conv_depthwise_multiplier", _conv(12, group=6, pads=[1, 1, 1, 1], strides=[2, 2]), [IMAGE]),
    ("conv_depthwise_dilated", _conv(6, group=6, pads=[2, 2, 2, 2], dilations=[2, 2]), [IMAGE]),
    ("conv_grouped", _conv(9, group=3, pads=[1, 1, 1, 1]), [IMAGE]),
    ("conv_sequence", _conv(8, kernel=(3,), pads=[1, 1], strides=[2]), [(1, 6, 17)]),
    ("conv_batch", _conv(8, pads=[1, 1, 1, 1]), [(3, 6, 5, 5)]),
    ("deconv_same", _deconv(4, kernel=(4, 4), strides=[2, 2], pads=[1, 1, 1, 1]), [IMAGE]),
    ("deconv_valid", _deconv(4, kernel=(2, 2), strides=[2, 2]), [IMAGE]),
    ("deconv_no_bias", _deconv(4, kernel=(2, 2), strides=[2, 2], bias=False), [IMAGE]),
    ("deconv_sliced", _deconv(4, strides=[2, 2], pads=[1, 1, 1, 1]), [IMAGE]),
    (
        "deconv_output_padding",
        _deconv(4, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
        [IMAGE],
    ),
    ("deconv_beyond", _deconv(4, strides=[3, 3], output_padding=[2, 1]), [IMAGE]),
    ("deconv_dilated", _deconv(4, dilations=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1]), [IMAGE]),
    ("deconv_grouped", _deconv(4, group=2, strides=[2, 2]), [IMAGE]),
    ("deconv_stride_1", _deconv(4, pads=[1, 1, 1, 1]), [IMAGE]),
    ("deconv_output_shape", _deconv(4, strides=[2, 2], output_shape=[18, 22]), [IMAGE]),
    ("deconv_same_upper", _deconv(4, strides=[2, 2], auto_pad="SAME_UPPER"), [IMAGE]),
    ("deconv_same_lower", _deconv(4, strides=[2, 2], auto_pad="SAME_LOWER"), [IMAGE]),
    ("deconv_sequence", _deconv(4, kernel=(4,), strides=[2], pads=[1, 1]), [(1, 6, 9)]),
    ("gemm", lambda b, x: b("Gemm", x, b.weight(10, 7), b.weight(7)), [(1, 10)]),
    ("gemm_trans_b", lambda b, x: b("Gemm", x, b.weight(7, 10), b.weight(7), transB=1), [(1, 10)]),
    ("gemm_rows", lambda b, x: b("Gemm", x, b.weight(7, 10), b.weight(7), transB=1), [(4, 10)]),
    ("gemm_trans_a", lambda b, x: b("Gemm", x, b.weight(10, 7), b.weight(7), transA=1), [(10, 4)]),
    ("gemm_alpha", lambda b, x: b("Gemm", x, b.weight(10, 7), alpha=0.5), [(1, 10)]),
    ("matmul", lambda b, x: b("MatMul", x, b.weight(10, 7)), [(1, 10)]),
    ("matmul_rank_3", lambda b, x: b("MatMul", x, b.weight(10, 7)), [(1, 5, 10)]),
    ("matmul_both", lambda b, x, y: b("MatMul", x, y), [(1, 2, 5, 10), (1, 2, 10, 3)]),
    ("relu", lambda b, x: b("Relu", x), [IMAGE]),
    ("relu_fused", lambda b, x: b("Relu", b("Conv", x, b.weight(8, 6, 3, 3), b.weight(8))), [IMAGE]),
    ("relu6_fused", _clip(0.0, 6.0), [IMAGE]),
    ("relu6", lambda b, x: b("Clip", b("Mul", x, b.const(9.0)), b.const(0.0), b.const(6.0)), [IMAGE]),
    ("clip_fused", _clip(-0.5, 1.25), [IMAGE]),
    ("clip_one", _clip(-1.0, 1.0), [IMAGE]),
    ("clip_low", _clip(-0.25, None), [IMAGE]),
    ("clip", lambda b, x: b("Clip", x, b.const(-0.3), b.const(0.4)), [IMAGE]),
    ("relu_deconv", lambda b, x: b("Relu", _deconv(4)(b, x)), [IMAGE]),
    ("clip_deconv", lambda b, x: b("Clip", _deconv(4)(b, x), b.const(0.1), b.const(0.4)), [IMAGE]),
    ("sigmoid", lambda b, x: b("Sigmoid", b("Mul", x, b.const(4.0))), [IMAGE]),
    ("tanh", lambda b, x: b("Tanh", x), [IMAGE]),
    ("leaky_relu", lambda b, x: b("LeakyRelu", x, alpha=0.2), [IMAGE]),
    ("prelu", lambda b, x: b("PRelu", x, b.weight(6, 1, 1)), [IMAGE]),
    ("softmax_channels", lambda b, x: b("Softmax", x, axis=1), [IMAGE]),
    ("softmax_last", lambda b, x: b("Softmax", x), [(1, 12)]),
    ("add", lambda b, x, y: b("Add", x, y), [IMAGE, IMAGE]),
    ("add_broadcast", lambda b, x, y: b("Add", x, y), [IMAGE, (1, 6, 1, 1)]),
    ("add_broadcast_rank", lambda b, x, y: b("Add", y, x), [IMAGE, (6, 1, 1)]),
    ("add_relu", lambda b, x, y: b("Relu", b("Add", x, y)), [IMAGE, IMAGE]),
    ("add_constant", lambda b, x: b("Add", x, b.weight(6, 1, 1)), [IMAGE]),
    ("add_whole_constant", lambda b, x: b("Add", x, b.weight(1, 6, 9, 11)), [IMAGE]),
    ("add_larger_constant", lambda b, x: b("Add", x, b.weight(1, 6, 9, 11)), [(1, 6, 1, 1)]),
    ("sub", lambda b, x, y: b("Sub", x, y), [IMAGE, IMAGE]),
    ("sub_from_constant", lambda b, x: b("Sub", b.const(1.0), x), [IMAGE]),
    ("mul", lambda b, x, y: b("Mul", x, y), [IMAGE, IMAGE]),
    ("mul_gate", lambda b, x, y: b("Mul", x, y), [IMAGE, (1, 6, 1, 1)]),
    ("mul_scalar", lambda b, x: b("Mul", x, b.const(0.37)), [IMAGE]),
    ("max", lambda b, x, y: b("Max", x, y), [IMAGE, IMAGE]),
    ("min_constant", lambda b, x: b("Min", x, b.const(0.25)), [IMAGE]),
    ("max_pool", lambda b, x: b("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), [IMAGE]),
    (
        "max_pool_padded",
        lambda b, x: b("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        [(1, 6, 8, 8)],
    ),
    (
        "max_pool_after_relu",
        lambda b, x: b("MaxPool", b("Relu", x), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        [(1, 6, 8, 8)],
    ),
    ("max_pool_same", lambda b, x: b("MaxPool", x, kernel_shape=[5, 5], pads=[2] * 4), [IMAGE]),
    ("max_pool_ceil", lambda b, x: b("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), [IMAGE]),
    ("max_pool_sequence", lambda b, x: b("MaxPool", x, kernel_shape=[2], strides=[2]), [(1, 6, 12)]),
    ("average_pool", lambda b, x: b("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2]), [IMAGE]),
    (
        "average_pool_excluding",
        lambda b, x: b("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4),
        [IMAGE],
    ),
    (
        "average_pool_including",
        lambda b, x: b("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2], count_include_pad=1),
        [IMAGE],
    ),
    (
        "average_pool_ceil",
        lambda b, x: b("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        [IMAGE],
    ),
    ("global_average_pool", lambda b, x: b("GlobalAveragePool", x), [IMAGE]),
    ("global_max_pool", lambda b, x: b("GlobalMaxPool", x), [IMAGE]),
    ("reduce_mean", lambda b, x: b("ReduceMean", x, axes=[2, 3], keepdims=0), [IMAGE]),
    ("reduce_mean_channels", lambda b, x: b("ReduceMean", x, axes=[1]), [IMAGE]),
    ("reduce_sum", lambda b, x: b("ReduceSum", x, b.ints(2, 3)), [IMAGE]),
    ("reduce_max", lambda b, x: b("ReduceMax", x, axes=[1]), [IMAGE]),
    ("concat", lambda b, x, y: b("Concat", x, y, axis=1), [IMAGE, (1, 3, 9, 11)]),
    ("concat_rows", lambda b, x, y: b("Concat", x, y, axis=2), [IMAGE, (1, 6, 2, 11)]),
    ("concat_constant", lambda b, x: b("Concat", x, b.weight(1, 2, 9, 11), axis=1), [IMAGE]),
    ("slice", lambda b, x: b("Slice", x, b.ints(1, 2), b.ints(5, 8), b.ints(1, 3)), [IMAGE]),
    ("slice_stride", lambda b, x: b("Slice", x, b.ints(1), b.ints(9), b.ints(2), b.ints(2)), [IMAGE]),
    ("slice_from_end", lambda b, x: b("Slice", x, b.ints(-4), b.ints(2**40), b.ints(3)), [IMAGE]),
    ("split", lambda b, x: b("Split", x, outputs=3, axis=1), [IMAGE]),
    ("split_uneven", lambda b, x: b("Split", x, b.ints(1, 5), outputs=2, axis=1), [IMAGE]),
    ("pad", lambda b, x: b("Pad", x, b.ints(0, 0, 1, 2, 0, 0, 3, 0)), [IMAGE]),
    ("pad_channels", lambda b, x: b("Pad", x, b.ints(0, 1, 0, 0, 0, 2, 0, 0)), [IMAGE]),
    ("pad_value", lambda b, x: b("Pad", x, b.ints(0, 0, 1, 1, 0, 0, 1, 1), b.const(0.5)), [IMAGE]),
    ("pad_reflect", lambda b, x: b("Pad", x, b.ints(0, 0, 2, 1, 0, 0, 1, 2), mode="reflect"), [IMAGE]),
    ("pad_edge", lambda b, x: b("Pad", x, b.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="edge"), [IMAGE]),
    ("depth_to_space", lambda b, x: b("DepthToSpace", x, blocksize=2), [(1, 12, 3, 5)]),
    ("depth_to_space_crd", lambda b, x: b("DepthToSpace", x, blocksize=2, mode="CRD"), [(1, 12, 3, 5)]),
    (
        "pixel_shuffle",
        lambda b, x: b("DepthToSpace", b("Relu", _conv(12)(b, x)), blocksize=2, mode="CRD"),
        [IMAGE],
    ),
    ("space_to_depth", lambda b, x: b("SpaceToDepth", x, blocksize=2), [(1, 3, 4, 6)]),
    ("transpose_reshape", lambda b, x: b("Reshape", b("Transpose", x, perm=[0, 2, 3, 1]), b.ints(1, 99, 6)), [IMAGE]),
    ("reshape_pixels", lambda b, x: b("Reshape", x, b.ints(0, 6, -1)), [IMAGE]),
    ("reshape_channels", lambda b, x: b("Reshape", x, b.ints(1, 2, 3, 99)), [IMAGE]),
    ("flatten_output", lambda b, x: b("Flatten", x), [IMAGE]),
    ("flatten_gemm", lambda b, x: b("Gemm", b("Flatten", x), b.weight(7, 594), b.weight(7), transB=1), [IMAGE]),
    (
        "gemm_to_image",
        lambda b, x: _conv(4, inputs=5)(
            b, b("Reshape", b("Relu", b("Gemm", x, b.weight(10, 80), b.weight(80))), b.ints(1, 5, 4, 4))
        ),
        [(1, 10)],
    ),
    (
        "channel_shuffle",
        lambda b, x: b(
            "Reshape",
            b("Transpose", b("Reshape", x, b.ints(1, 2, 3, 9, 11)), perm=[0, 2, 1, 3, 4]),
            b.ints(1, 6, 9, 11),
        ),
        [IMAGE],
    ),
    ("squeeze", lambda b, x: b("Squeeze", b("GlobalAveragePool", x), b.ints(2, 3)), [IMAGE]),
    ("unsqueeze", lambda b, x: b("Mul", b("Unsqueeze", x, b.ints(2, 3)), b.weight(1, 6, 2, 2)), [(1, 6)]),
    ("channels_last_input", lambda b, x: _conv(4)(b, b("Transpose", x, perm=[0, 3, 1, 2])), [(1, 9, 11, 6)]),
    ("channels_last_output", lambda b, x: b("Transpose", _conv(4)(b, x), perm=[0, 2, 3, 1]), [IMAGE]),
    ("gather", lambda b, x: b("Gather", x, b.ints(4, 0, -1), axis=1), [IMAGE]),
    ("gather_one", lambda b, x: b("Gather", x, b.const(2, "int64"), axis=2), [IMAGE]),
    ("subsampled", lambda b, x: b("Slice", x, b.ints(1, 0), b.ints(9, 10), b.ints(2, 3), b.ints(2, 3)), [IMAGE]),
    ("identity", lambda b, x: b("Identity", x), [IMAGE]),
]

RESIZES = [
    (mode, coordinates, rounding, sizes)
    for mode, coordinates, rounding in [
        ("nearest", "asymmetric", "floor"),
        ("nearest", "half_pixel", "round_prefer_floor"),
        ("nearest", "half_pixel", "round_prefer_ceil"),
        ("nearest", "align_corners", "round_prefer_ceil"),
        ("linear", "half_pixel", "floor"),
        ("linear", "pytorch_half_pixel", "floor"),
        ("linear", "align_corners", "floor"),
        ("linear", "asymmetric", "floor"),
    ]
    for sizes in [(8, 12), (12, 18), (3, 2)]
]


def _parameters(cases):
    return [pytest.param(make, shapes, id=name) for name, make, shapes in cases]


@pytest.mark.parametrize(("make", "shapes"), _parameters(CASES))
def test_float(lab, make, shapes):
    graph = lab.build(make, shapes)
    lab.compared(graph, lab.noise(graph)).close()


@pytest.mark.parametrize("per_channel", [True, False], ids=["per_channel", "per_tensor"])
@pytest.mark.parametrize(("make", "shapes"), _parameters(CASES))
def test_integers(lab, make, shapes, per_channel):
    graph = lab.build(make, shapes)
    feeds = lab.noise(graph)
    found = lab.compared(lab.quantized(graph, feeds, per_channel), feeds)
    # An average whose windows count unequally is rounded twice.
    twice = found.kinds[-2:] in (["DEPTHWISE_CONV_2D", "MUL"], ["AVERAGE_POOL_2D", "MUL"])
    assert found.steps() <= (2 if twice else 1)
    assert "DEQUANTIZE" not in found.kinds


@pytest.mark.parametrize(("mode", "coordinates", "rounding", "sizes"), RESIZES)
def test_resize(lab, mode, coordinates, rounding, sizes):
    from edgec.ir.errors import EmitError

    graph = lab.build(
        lambda b, x: b(
            "Resize",
            x,
            None,
            None,
            b.ints(1, 3, *sizes),
            mode=mode,
            coordinate_transformation_mode=coordinates,
            nearest_mode=rounding,
        ),
        [(1, 3, 4, 6)],
    )
    feeds = lab.noise(graph)
    try:
        found = lab.compared(graph, feeds)
    except EmitError as error:
        assert "TFLite has no counterpart of coordinate_transformation_mode" in str(error)
        assert sizes == (3, 2), "enlarging by a whole number always has a counterpart"
        return
    found.close()
    integers = lab.compared(lab.quantized(graph, feeds), feeds)
    assert integers.steps(plain=False) <= 1
    # The reference kernel's places have ten bits behind the point.
    assert integers.steps() <= 2
