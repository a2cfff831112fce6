"""EfficientNet-Lite0's architecture through TensorFlow's own converter, as the peer of bench_efficientnet.

    pip install tensorflow-cpu==2.21.0        (in an environment of its own)
    python tests/bench/tensorflow_efficientnet.py peer.tflite

The weights are random: only the file's latency is compared, and that does not depend on them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

# (repeats, kernel, stride, expansion, output channels) of each stage.
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
layers = tf.keras.layers


def convolution(x: Any, channels: int | None, kernel: int, stride: int, *, relu: bool = True) -> Any:
    """A convolution, depthwise where no number of channels is given, with BatchNormalization and Relu6."""
    kind = {"strides": stride, "padding": "same", "use_bias": False}
    x = layers.DepthwiseConv2D(kernel, **kind)(x) if channels is None else layers.Conv2D(channels, kernel, **kind)(x)
    x = layers.BatchNormalization()(x)
    return layers.ReLU(6.0)(x) if relu else x


def network() -> Any:
    image = layers.Input((224, 224, 3), batch_size=1)
    x = convolution(image, 32, 3, 2)
    for repeats, kernel, first_stride, expansion, channels in STAGES:
        for repeat in range(repeats):
            skip, stride = x, first_stride if repeat == 0 else 1
            if expansion != 1:
                x = convolution(x, x.shape[-1] * expansion, 1, 1)
            x = convolution(convolution(x, None, kernel, stride), channels, 1, 1, relu=False)
            if stride == 1 and skip.shape[-1] == channels:
                x = layers.Add()([skip, x])
    x = layers.GlobalAveragePooling2D()(convolution(x, 1280, 1, 1))
    return tf.keras.Model(image, layers.Dense(1000)(x))


def samples() -> Iterator[list[np.ndarray]]:
    random = np.random.default_rng(0)
    for _ in range(4):
        yield [random.standard_normal((1, 224, 224, 3)).astype(np.float32)]


def main() -> None:
    converter = tf.lite.TFLiteConverter.from_keras_model(network())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    Path(sys.argv[1]).write_bytes(converter.convert())


if __name__ == "__main__":
    main()
