"""What a pass may know of the device that it compiles for: the quantization scheme, the operators, the memory.

The profiles themselves are YAML files beside the backends (``backends/targets``), one per board; this is their shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

# What stands for a number in YAML is a number: neither "4 GB" nor true.
Count = Annotated[int, Field(strict=True, ge=1)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ZeroPoint = Annotated[int, Field(strict=True, ge=-128, le=255)]
_KNOWN_KEYS = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Scheme:
    """How a target wants a network quantized to 8 bits.

    Attributes:
        activations: integer type of activations.
        symmetric: whether activations have zero-point 0.
        per_channel: operators whose weights have one scale per output channel; other weights have one scale.
        bias: ``int32`` with scale input x weight and zero-point 0, or left ``float32``.
        tied: operators whose inputs and outputs share one scale and zero-point, because the kernel only moves values.
        fixed: operators whose output has a prescribed (scale, zero-point).
        operators: operators that have an integer kernel; any other stays in float between a DQ and a Q.
        rounds: which tensors are rounded: ``all`` that those operators read and give, or only the ``inputs`` of layers
            with weights, for compilers that find by themselves what of the rest may run on integers.
        fewest_channels: layers that read or give fewer channels than this stay in float, where they are faster.
        channel_block: integer kernels are fast where numbers of channels are multiples of this.
        float_results: operators with weights whose integer kernel gives floats where nothing rounds them behind it.
        reduce_range: weights use 7 bits (for x86 CPUs without VNNI, whose u8s8 kernels saturate).
    """

    __pydantic_config__: ClassVar[ConfigDict] = _KNOWN_KEYS

    activations: Literal["int8", "uint8"]
    symmetric: Flag
    per_channel: frozenset[Text]
    bias: Literal["int32", "float32"]
    tied: frozenset[Text]
    fixed: Mapping[str, tuple[Scale, ZeroPoint]]
    operators: frozenset[Text]
    rounds: Literal["all", "inputs"] = "all"
    fewest_channels: Count = 1
    channel_block: Count = 1
    float_results: frozenset[Text] = frozenset()
    reduce_range: Flag = False

    def adds_pairs(self, op: str) -> bool:
        """Whether kernels for an operator with weights may add two products in 16 bits, as x86 CPUs without VNNI do.

        Those for uint8 activations. Where a matrix product is all that a scheme rounds around, onnxruntime makes an
        integer kernel of it too, by which users check on their PC what another device will compute.
        """
        return self.activations == "uint8" or (self.rounds == "inputs" and op == "MatMul")


@dataclass(frozen=True)
class Target:
    """A board, or a kind of machine, that a recipe can name.

    Attributes:
        name: what recipes call it.
        title: what people call it.
        backend: the backend that emits for it.
        scheme: its int8 scheme; ``None`` where it has no 8-bit arithmetic.
        memory_bytes: memory that a network may use; ``None`` where it is not bounded.
        parameter_bytes: on-chip memory for weights; ``None`` where there is none.
        channel_multiple: channel counts that its kernels like are multiples of this.
        least_channels: a layer with fewer channels than this takes as long as one with so many.
        options: what only its backend reads.
        source: where the figures come from.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _KNOWN_KEYS

    name: Text
    title: Text
    backend: Text
    scheme: Scheme | None = None
    memory_bytes: Count | None = None
    parameter_bytes: Count | None = None
    channel_multiple: Count = 1
    least_channels: Count = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


def wanted_channels(boards: Iterable[Target]) -> tuple[int, int]:
    """The fewest channels, and the multiple of them, that all boards like; 1 and 1 where there is none."""
    boards = list(boards)
    least = max((board.least_channels for board in boards), default=1)
    return least, math.lcm(*(board.channel_multiple for board in boards))
