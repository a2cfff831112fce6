"""onnxruntime's static quantizer, the peer of ``quantize``: min-max, uint8 activations, int8 weights per channel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from edgec.ir.files import save
from edgec.ir.graph import Graph


def quantized_by_onnxruntime(
    graph: Graph,
    feeds: Iterable[Mapping[str, np.ndarray]],
    folder: Path,
    *,
    symmetric: bool = False,
    reduce_range: bool = False,
    entropy: bool = False,
) -> Path:
    """The file that ``quantize_static`` makes of ``graph`` in ``folder``, calibrated with ``feeds``.

    With ``symmetric`` it is what TensorRT takes: int8 activations with zero-point 0; with ``reduce_range`` weights have
    7 bits; with ``entropy`` ranges are calibrated by entropy, not by extremes.
    """
    from onnxruntime import quantization

    left = iter(feeds)

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(left, None)

    method = quantization.CalibrationMethod
    save(graph, folder / "float.onnx")
    quantization.quantize_static(
        folder / "float.onnx",
        folder / "quantized.onnx",
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QInt8 if symmetric else quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        reduce_range=reduce_range,
        calibrate_method=method.Entropy if entropy else method.MinMax,
        extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True},
    )
    return folder / "quantized.onnx"
