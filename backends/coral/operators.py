"""TFLite operators: the version that a use of one needs, and the newest that the Edge TPU compiler 16.0 reads.

An operator's version grows with what is asked of it; a file must state the lowest that suffices, because the runtime
and the compiler refuse versions that they do not know. Source: the rules of TensorFlow Lite's own version check
(``lite/tools/versioning/op_version.cc``), for float32, int8, float16
weights, and the integers and booleans of token ids and masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

#: The newest version of each operator that the Edge TPU compiler 16.0 (2021) accepts; read, not tested.
VERSION_CEILINGS = {
    "CONV_2D": 5,
    "DEPTHWISE_CONV_2D": 6,
    "TRANSPOSE_CONV": 3,
    "FULLY_CONNECTED": 9,
    "ADD": 3,
    "MUL": 4,
    "PAD": 3,
    "QUANTIZE": 2,
    "RESIZE_NEAREST_NEIGHBOR": 4,
    "STRIDED_SLICE": 5,
}

#: Operators whose int8 kernel came with version 2, and float with version 1.
_INT8_IS_2 = frozenset(
    [
        "ADD",
        "SUB",
        "MUL",
        "MAXIMUM",
        "MINIMUM",
        "AVERAGE_POOL_2D",
        "MAX_POOL_2D",
        "MEAN",
        "SUM",
        "REDUCE_MAX",
        "REDUCE_MIN",
        "CONCATENATION",
        "PAD",
        "PADV2",
        "MIRROR_PAD",
        "TRANSPOSE",
        "SPLIT",
        "STRIDED_SLICE",
        "SOFTMAX",
        "LOGISTIC",
        "TANH",
        "RELU",
        "RELU6",
        "DEQUANTIZE",
        "BATCH_MATMUL",
        "SPACE_TO_DEPTH",
        "GELU",
        "GATHER",
        "ABS",
        "RSQRT",
        "ARG_MAX",
        "ARG_MIN",
        "EQUAL",
        "GREATER",
        "GREATER_EQUAL",
        "LESS",
        "LESS_EQUAL",
        "NOT_EQUAL",
        "TOPK_V2",
        "SLICE",
    ]
)
#: Versions that operators need for types besides float32 and int8.
_BY_TYPE = {
    ("ABS", "int32"): 5,
    ("ADD", "int64"): 4,
    ("SUB", "int64"): 4,
    ("MUL", "int64"): 5,
    ("SIGN", "int32"): 2,
    ("SPLIT", "int32"): 3,
    ("TILE", "int8"): 3,
    ("GATHER", "bool"): 3,
    ("TRANSPOSE", "bool"): 3,
    ("STRIDED_SLICE", "bool"): 3,
    ("ARG_MAX", "bool"): 3,
    ("ARG_MIN", "bool"): 3,
}


def version(
    kind: str,
    types: Sequence[np.dtype | None],
    ranks: Sequence[int],
    options: Any,
    gain: float = 0.0,
    per_channel: bool = False,
) -> int:
    """The version that a use of an operator needs.

    Args:
        kind: TFLite's name of it, such as ``CONV_2D``.
        types: of its inputs, ``None`` for one that is omitted.
        ranks: of its inputs.
        options: its builtin options.
        gain: of a product of integers, the scales of its inputs over the scale of its output.
        per_channel: whether an input has a scale for each channel.
    """
    data = types[1] if kind in ("SPLIT", "TRANSPOSE_CONV") else types[0]
    integer = data == np.int8
    if kind == "CONV_2D":
        return 3 if integer else 1
    if kind == "DEPTHWISE_CONV_2D":
        dilated = options.dilationHFactor != 1 or options.dilationWFactor != 1
        return 3 if integer else 2 if dilated else 1
    if kind == "TRANSPOSE_CONV":
        biased = len(types) == 4 and types[3] is not None
        return 3 if biased else 2 if integer else 1
    if kind == "FULLY_CONNECTED":
        if len(types) == 2 or types[2] is None:
            return 6
        return 5 if options.keepNumDims else 4 if integer else 1
    if kind == "DEQUANTIZE" and (data == np.float16 or per_channel):
        return 3 if data == np.float16 else 5
    if kind == "MUL" and integer and gain >= 1.0:
        return 3
    if kind == "RESIZE_BILINEAR":
        return 3 if options.halfPixelCenters else 2 if integer else 1
    if kind == "RESIZE_NEAREST_NEIGHBOR":
        return 3 if options.halfPixelCenters or options.alignCorners else 2 if integer else 1
    if kind in ("PAD", "PADV2", "TRANSPOSE", "STRIDED_SLICE") and ranks[0] > 4:
        return 6 if kind == "TRANSPOSE" and ranks[0] > 5 else 4
    if kind in ("SUB", "MAXIMUM", "MINIMUM") and max(ranks) > 4:
        return 3
    if kind == "REVERSE_V2":
        return 3 if integer else 2 if data == np.bool_ else 1
    if kind == "CAST":
        return 3 if schema.TensorType.INT8 in (options.inDataType, options.outDataType) else 1
    if kind == "BROADCAST_TO":
        return 3 if integer else 2
    if data is not None and (kind, data.name) in _BY_TYPE:
        return _BY_TYPE[kind, data.name]
    return 2 if integer and kind in _INT8_IS_2 else 1
