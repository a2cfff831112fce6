"""Small networks as boards run them, made by the tests' graph builder, with the shape of their input."""

from __future__ import annotations


def mobile_blocks(b, x):
    """The start of EfficientNet-Lite0: stem, depthwise, expansion with a shortcut, head."""

    def conv(x, taken, given, kernel, stride=1, group=1, act=True):
        pads = {1: [0, 0, 0, 0], 2: [0, 0, 1, 1]}[stride] if kernel == 3 and stride == 2 else [kernel // 2] * 4
        scale = 1.5 / (kernel * (taken // group) ** 0.5)
        weights = b.weight(given, taken // group, kernel, kernel, scale=scale), b.weight(given, scale=0.1)
        y = b("Conv", x, *weights, pads=pads, strides=[stride, stride], group=group)
        return b("Clip", y, b.const(0.0), b.const(6.0)) if act else y

    x = conv(x, 3, 8, 3, 2)
    x = conv(x, 8, 8, 3, group=8)
    x = conv(x, 8, 4, 1, act=False)
    y = conv(x, 4, 24, 1)
    y = conv(y, 24, 24, 5, group=24)
    x = b("Add", conv(y, 24, 4, 1, act=False), x)
    x = conv(x, 4, 32, 1)
    x = b("Flatten", b("GlobalAveragePool", x))
    return b("Gemm", x, b.weight(10, 32), b.weight(10), transB=1)


def autoencoder(b, x):
    def down(x, taken, given):
        return b("Relu", b("Conv", x, b.weight(given, taken, 4, 4), b.weight(given), strides=[2, 2], pads=[1] * 4))

    def up(x, taken, given):
        return b(
            "ConvTranspose", x, b.weight(taken, given, 4, 4, scale=0.2), b.weight(given), strides=[2, 2], pads=[1] * 4
        )

    x = down(down(x, 1, 8), 8, 16)
    x = b("Flatten", x)
    x = b("Gemm", x, b.weight(12, 256, scale=0.1), b.weight(12), transB=1)
    x = b("Relu", b("Gemm", x, b.weight(256, 12), b.weight(256), transB=1))
    x = b("Reshape", x, b.ints(0, 16, 4, 4))
    return b("Sigmoid", up(b("Relu", up(x, 16, 8)), 8, 1))


def detector_body(b, x):
    """Split, concatenation, resizing and pooling as in YOLO's bodies."""

    def conv(x, taken, given, kernel=3, stride=1):
        y = b(
            "Conv",
            x,
            b.weight(given, taken, kernel, kernel, scale=0.4),
            b.weight(given),
            pads=[kernel // 2] * 4,
            strides=[stride] * 2,
        )
        return b("Mul", y, b("Sigmoid", y))

    x = conv(x, 3, 8, stride=2)
    left, right = b("Split", conv(x, 8, 8, 1), outputs=2, axis=1)
    x = conv(b("Concat", left, right, conv(right, 4, 4), axis=1), 12, 8, 1)
    small = conv(x, 8, 8, stride=2)
    pooled = b("MaxPool", small, kernel_shape=[5, 5], pads=[2] * 4)
    small = conv(b("Concat", small, pooled, axis=1), 16, 8, 1)
    large = b("Resize", small, None, b.const([1, 1, 2, 2]), mode="nearest", coordinate_transformation_mode="asymmetric")
    return [conv(b("Concat", large, x, axis=1), 16, 6, 1), conv(small, 8, 6, 1)]


NETWORKS = {
    "mobile_blocks": (mobile_blocks, (1, 3, 16, 16)),
    "autoencoder": (autoencoder, (1, 1, 16, 16)),
    "detector_body": (detector_body, (1, 3, 16, 16)),
}
