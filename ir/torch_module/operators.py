"""All lowerings, registered by importing them."""

from __future__ import annotations

from edgec.ir import batch_rules
from edgec.ir.torch_module import (
    activation,
    convolution,
    elementwise,
    indexing,
    matrix,
    normalization,
    padding,
    pooling,
    quantization,
    reduction,
    resampling,
    shaping,
)
from edgec.ir.torch_module.lowering import RULES

__all__ = [
    "RULES",
    "activation",
    "batch_rules",
    "convolution",
    "elementwise",
    "indexing",
    "matrix",
    "normalization",
    "padding",
    "pooling",
    "quantization",
    "reduction",
    "resampling",
    "shaping",
]
