"""What the Edge TPU would run: an estimate, operator by operator, from the published limits.

The Edge TPU compiler maps a prefix of the network: everything behind the first operator that it cannot map runs on
the CPU. Nothing here was compiled; where ``edgetpu_compiler`` is installed its log decides
(:mod:`edgec.backends.coral.compiler`). Source: coral.ai, "TensorFlow models on the Edge TPU", read, not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from edgec.backends.coral.flatbuffer import File, Operator, Tensor
from edgec.backends.coral.operators import VERSION_CEILINGS

#: Weights stay on the chip up to this; 7.9 of the 8 MiB in compiler logs.
USABLE_SRAM = 8_283_750
LARGEST_SOFTMAX = 16_000

_PLAIN = frozenset(
    [
        "ADD",
        "SUB",
        "MUL",
        "MAXIMUM",
        "MINIMUM",
        "LOGISTIC",
        "RELU",
        "RELU6",
        "RELU_N1_TO_1",
        "TANH",
        "RESHAPE",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "SPACE_TO_DEPTH",
        "QUANTIZE",
        "TRANSPOSE",
        "RSQRT",
        "SUM",
        "TRANSPOSE_CONV",
    ]
)
_RUNTIME = {"TRANSPOSE_CONV": 13, "QUANTIZE": 13, "SUM": 13, "REDUCE_MAX": 14, "REDUCE_MIN": 14, "TRANSPOSE": 14}


@dataclass(frozen=True)
class Verdict:
    """The estimate.

    Attributes:
        operators: one entry each: ``kind``, ``source``, ``mapped``, ``reason`` (empty where mapped).
        mapped: operators in front of the first that is not mapped.
        parameter_bytes: bytes of the constants that the mapped operators read.
        usable_bytes: bytes of them that stay on the chip.
        runtime: the Edge TPU runtime version that is needed at least; 0 where any does.
    """

    operators: list[dict[str, Any]]
    mapped: int
    parameter_bytes: int
    usable_bytes: int
    runtime: int

    @property
    def fits(self) -> bool:
        """Whether all parameters stay on the chip."""
        return self.parameter_bytes <= self.usable_bytes

    def as_dict(self) -> dict[str, Any]:
        """For check.json."""
        return {
            "basis": "estimate from published limits; not compiled",
            "operators": len(self.operators),
            "mapped": self.mapped,
            "on_cpu": self.operators[self.mapped :],
            "parameter_bytes": self.parameter_bytes,
            "usable_bytes": self.usable_bytes,
            "fits": self.fits,
            "runtime": self.runtime,
        }

    def notes(self) -> list[str]:
        """What the user should know."""
        found = []
        if self.mapped < len(self.operators):
            first = self.operators[self.mapped]
            found.append(
                f"estimate: the Edge TPU runs {self.mapped} of {len(self.operators)} operators; {first['kind']} "
                f"(node '{first['source']}') and what follows run on the CPU: {first['reason']}"
            )
        if not self.fits:
            found.append(
                f"estimate: {self.parameter_bytes:,} bytes of parameters, of which the Edge TPU keeps "
                f"{self.usable_bytes:,}; the rest streams at every inference"
            )
        return found


def verdict(file: File, usable_bytes: int = USABLE_SRAM) -> Verdict:
    """Judges every operator of a file."""
    entries = []
    mapped = None
    for place, operator in enumerate(file.operators):
        reason = refused(file, operator)
        if reason and mapped is None:
            mapped = place
        entries.append({"kind": operator.kind, "source": operator.source, "mapped": not reason, "reason": reason})
    count = len(entries) if mapped is None else mapped
    runtime = max((_RUNTIME.get(op.kind, 0) for op in file.operators), default=0)
    return Verdict(entries, count, file.bytes_read(file.operators[:count]), usable_bytes, runtime)


def refused(file: File, operator: Operator) -> str:
    """Why the Edge TPU would not run an operator; empty where it would."""
    reads = [file.tensors[i] for i in operator.inputs if i >= 0]
    writes = [file.tensors[i] for i in operator.outputs]
    if operator.version > VERSION_CEILINGS.get(operator.kind, operator.version):
        return f"version {operator.version} is newer than the compiler"
    if operator.kind == "DEQUANTIZE" and reads[0].data is not None:
        return "it unpacks weights for an operator that computes with floats"
    if operator.kind not in _PLAIN and operator.kind not in _LIMITS:
        return "the Edge TPU has no such operator"
    activations = [t for t in (*reads, *writes) if t.data is None]
    if any(t.dtype != np.int8 for t in activations):
        return "it is not int8"
    if any(prod(t.shape[:-3]) != 1 for t in activations):
        return "a dimension before the last three is larger than 1"
    limit = _LIMITS.get(operator.kind)
    return "" if limit is None else limit(operator, reads, writes)


def _same_dilation(operator: Operator, reads: list[Tensor], writes: list[Tensor]) -> str:
    same = operator.options.dilationHFactor == operator.options.dilationWFactor
    return "" if same else "its dilations differ by axis"


def _no_activation(operator: Operator, reads: list[Tensor], writes: list[Tensor]) -> str:
    return "it has a fused activation" if operator.options.fusedActivationFunction else ""


def _concatenation(operator: Operator, reads: list[Tensor], writes: list[Tensor]) -> str:
    known = [t for t in reads if t.data is not None]
    zero = all(not np.any(t.data != (t.quantization.zero_point[0] if t.quantization else 0)) for t in known)
    if known and (len(reads) != 2 or not zero):
        return "it joins a constant that is not zero, or more than two tensors with one"
    return _no_activation(operator, reads, writes)


def _one_row(operator: Operator, reads: list[Tensor], writes: list[Tensor]) -> str:
    return "" if prod(writes[0].shape[:-1]) == 1 else "it has more than one row"


def _softmax(operator: Operator, reads: list[Tensor], writes: list[Tensor]) -> str:
    if prod(writes[0].shape[:-1]) != 1:
        return "it has more than one row"
    return "" if writes[0].shape[-1] <= LARGEST_SOFTMAX else f"it has more than {LARGEST_SOFTMAX:,} elements"


def _mean(operator: Operator, reads: list[Tensor], writes: list[Tensor]) -> str:
    axes = _numbers(reads[1])
    shape = reads[0].shape
    if 0 in axes and shape[0] > 1:
        return "it reduces the batch"
    last = len(shape) - 1
    return f"it reduces {shape[last]} channels, not a multiple of 4" if last in axes and shape[last] % 4 else ""


def _not_batch(operator: Operator, reads: list[Tensor], writes: list[Tensor]) -> str:
    return "it reduces the batch" if 0 in _numbers(reads[1]) and reads[0].shape[0] > 1 else ""


def _pad(operator: Operator, reads: list[Tensor], writes: list[Tensor]) -> str:
    rows = reads[1].data
    return "it pads the batch" if rows is not None and rows.reshape(-1, 2)[0].any() else ""


def _split(operator: Operator, reads: list[Tensor], writes: list[Tensor]) -> str:
    return "it splits the batch" if 0 in _numbers(reads[0]) else ""


def _prelu(operator: Operator, reads: list[Tensor], writes: list[Tensor]) -> str:
    return "" if len(reads[1].shape) == 1 else "its slopes are not one for each channel"


def _slice(operator: Operator, reads: list[Tensor], writes: list[Tensor]) -> str:
    return "" if set(_numbers(reads[3])) <= {1} else "its strides are not 1"


def _numbers(tensor: Tensor) -> list[int]:
    return [] if tensor.data is None else [int(n) for n in tensor.data.reshape(-1)]


_LIMITS: dict[str, Callable[[Operator, list[Tensor], list[Tensor]], str]] = {
    "CONV_2D": _same_dilation,
    "DEPTHWISE_CONV_2D": _same_dilation,
    "AVERAGE_POOL_2D": _no_activation,
    "MAX_POOL_2D": _no_activation,
    "CONCATENATION": _concatenation,
    "FULLY_CONNECTED": _one_row,
    "MEAN": _mean,
    "REDUCE_MAX": _not_batch,
    "REDUCE_MIN": _not_batch,
    "PAD": _pad,
    "SPLIT": _split,
    "PRELU": _prelu,
    "SOFTMAX": _softmax,
    "STRIDED_SLICE": _slice,
}
