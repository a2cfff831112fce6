"""An estimate of the noise that rounding a stream of activations, and the weights around it, puts on what reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import Constant, Node, Tensor, Variable
from edgec.passes.layers.linear import CONVOLUTIONS, LINEAR, groups

_STEPS = 255.0
_WEIGHT_LIMIT = 127.0


@dataclass(frozen=True)
class Seen:
    """What the channels of one activation hold: (channels,) each.

    Attributes:
        low, high: the extremes.
        mean, power: of the values, and of their squares.
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    power: np.ndarray

    def shifted(self, offset: np.ndarray) -> Seen:
        """With an offset added to each channel."""
        power = self.power + 2 * offset * self.mean + offset**2
        return Seen(self.low + offset, self.high + offset, self.mean + offset, power)


@dataclass(frozen=True)
class End:
    """A layer at one end of a stream.

    Attributes:
        tensor: the activation of the stream that it reads or computes.
        kernel: its weights as (others, channels, taps), channels being those of the stream.
        apart: whether each channel has weight scales of its own.
    """

    tensor: Variable
    kernel: np.ndarray
    apart: bool

    @staticmethod
    def of(node: Node, tensor: Tensor) -> End:
        """By the stream's channels on the side of the layer that ``tensor`` is on."""
        weights, count = node.inputs[1], groups(node)
        assert isinstance(weights, Constant) and isinstance(tensor, Variable)
        reads = tensor is node.inputs[0]
        kernel = weights.values
        if node.op not in CONVOLUTIONS:
            outputs_first = kernel if node.op == "Gemm" and node.attrs.get("transB") else kernel.T
            return End(tensor, (outputs_first if reads else outputs_first.T)[:, :, None], not reads)
        split = kernel.reshape(count, kernel.shape[0] // count, kernel.shape[1], -1)
        # A Conv has its outputs first, a ConvTranspose its inputs.
        order = (1, 0, 2, 3) if reads == (node.op == "Conv") else (2, 0, 1, 3)
        by_channel = split.transpose(order)
        merged = by_channel.reshape(by_channel.shape[0], -1, by_channel.shape[3])
        alone = kernel.shape[1] == 1 if node.op == "Conv" else kernel.shape[0] == count
        return End(tensor, merged, not reads or alone)

    @property
    def power(self) -> np.ndarray:
        """The squared weights of each channel, summed: (channels,)."""
        return np.einsum("oct,oct->c", self.kernel, self.kernel, dtype=np.float64)


@dataclass(frozen=True)
class Rounding:
    """What is rounded, and how.

    Attributes:
        symmetric: whether ranges of activations are.
        inputs_only: whether only what layers read is rounded.
        per_channel: whether weights have a scale for each output.
    """

    symmetric: bool
    inputs_only: bool
    per_channel: bool

    def of(self, tensor: Variable) -> bool:
        """Whether an activation has integers of its own: one behind a layer may be part of it."""
        readers = dict.fromkeys(tensor.outputs)
        if self.inputs_only:
            return any(node.op in LINEAR for node in readers)
        return any(node.op not in ("Relu", "Clip") for node in readers)

    def noise(
        self, scale: np.ndarray, seen: Mapping[Variable, Seen], reads: Sequence[End], writes: Sequence[End]
    ) -> float:
        """An estimate of what rounding puts on the outputs of the layers that read a stream, squared."""
        gains = np.sum([read.power for read in reads], axis=0) / scale**2
        total = sum(self._step(scale, values) ** 2 for values in seen.values()) * float(gains.sum())
        for read in reads:
            if read.tensor in seen and (not read.apart or not self.per_channel):
                largest = (np.abs(read.kernel).max(2) / scale).max(1)
                steps = (largest if self.per_channel else np.full(len(largest), largest.max())) / _WEIGHT_LIMIT
                power = float((seen[read.tensor].power * scale**2).sum()) * read.kernel.shape[2]
                total += float((steps**2).sum()) * power
        if not self.per_channel:
            for layer in writes:
                step = float((np.abs(layer.kernel).max((0, 2)) * scale).max()) / _WEIGHT_LIMIT
                # What the layer reads is as strong as what it computes, for its weights.
                computed = float(np.sum([s.power for s in seen.values()])) / len(seen)
                power = computed / max(float(layer.power.sum()), 1e-30)
                total += step**2 * power * layer.kernel.shape[0] * layer.kernel.shape[2] * float(gains.sum())
        return total

    def _step(self, scale: np.ndarray, values: Seen) -> float:
        high, low = max(float((values.high * scale).max()), 0.0), min(float((values.low * scale).min()), 0.0)
        return (2 * max(high, -low) if self.symmetric else high - low) / _STEPS
