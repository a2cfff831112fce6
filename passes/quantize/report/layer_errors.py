"""How exact each layer of a quantized network is, by itself and with all that went wrong before it, and why.

The signal-to-noise ratio of a layer by itself says what its own rounding costs; the accumulated one what is left of
the signal there. A layer that is bad by itself is worth another scheme or float; one that is bad only by accumulation
is not to blame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgec.ir.execution import batch_size
from edgec.ir.graph import Constant, Node
from edgec.passes.calibration.batch_split import spread
from edgec.passes.calibration.dataset import ROLE, Part
from edgec.passes.calibration.runner import Tapped, batches, stream
from edgec.passes.framework.context import Context
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.placement.placement import Site
from edgec.passes.quantize.recover.isolation import Output, isolated, layer_outputs

# What a range must hold of a channel, and of the usual value, for its steps to be well used.
_NARROW, _OUTLYING = 16.0, 16.0
# Noise beyond that of rounding the output alone comes from the weights.
_BEYOND = 4.0


@dataclass(frozen=True)
class LayerError:
    """One output of a layer.

    Attributes:
        node: the operator, in the quantized network.
        alone_db: signal to noise of the layer on the float network's values.
        accumulated_db: of the same in the quantized network.
        reason: why it is no more exact by itself.
    """

    node: Node
    alone_db: float
    accumulated_db: float
    reason: str


@dataclass
class _Sums:
    """Over batches: the squares of one output and its errors; of the value whose integers the layer chooses, too.

    Attributes:
        signal, alone, accumulated: of the output.
        count, power, saturated: how many values were ranged, their squares, and the squares of what is cut off.
        channels: the extremes of their channels.
    """

    signal: float = 0.0
    alone: float = 0.0
    accumulated: float = 0.0
    count: int = 0
    power: float = 0.0
    saturated: float = 0.0
    channels: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def add(self, other: _Sums) -> None:
        for name in ("signal", "alone", "accumulated", "count", "power", "saturated"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if self.channels.shape == other.channels.shape:
            self.channels = np.maximum(self.channels, other.channels)
        else:  # nothing was seen yet, or what is axis 1 has another length in every batch
            largest = max(float(seen.max(initial=0.0)) for seen in (self.channels, other.channels))
            self.channels = np.array([largest]) if self.channels.size else other.channels


def layer_errors(pair: Pair, sites: Sequence[Site], ctx: Context, most: int) -> list[LayerError]:
    """The errors of all outputs of ``sites``, in the network's order.

    Args:
        pair: the networks; they are not changed.
        sites: of ``pair.quantized``.
        ctx: the calibration data.
        most: how many batches to look at, spread over the data.

    Raises:
        InputError: there are no samples.
    """
    outputs = layer_outputs(pair, sites)
    side, names, ranged = isolated(pair, outputs)
    networks = [
        Tapped(side, [tensor for both in names for tensor in both] + ranged),
        Tapped(pair.quantized, [output.given for output in outputs]),
    ]
    ends = [_ends(output) for output in outputs]

    def observe(number: int, values: list[dict[str, np.ndarray]]) -> list[_Sums]:
        exact, quantized = values
        return [
            _sums(exact[x.name], exact[alone.name], quantized[output.given.name], exact[own.name], end)
            for (x, alone), output, own, end in zip(names, outputs, ranged, ends, strict=True)
        ]

    numbers = spread(np.arange(batches(pair.original, ctx)), most)
    part = Part(ctx.data[ROLE], numbers, batch_size(pair.original))
    total = [_Sums() for _ in outputs]
    for seen in stream(pair.original, ctx.derive(pair.original, data={ROLE: part}), networks, observe):
        for one, more in zip(total, seen, strict=True):
            one.add(more)
    return [_error(output, one, end) for output, one, end in zip(outputs, total, ends, strict=True)]


@dataclass(frozen=True)
class _Ends:
    """What the integers that a layer chooses can stand for.

    Attributes:
        low, high: the least and the greatest value.
        step: from one to the next.
        given: whether the layer gives them; it reads them otherwise.
    """

    low: float
    high: float
    step: float
    given: bool = True


def _sums(x: np.ndarray, alone: np.ndarray, accumulated: np.ndarray, ranged: np.ndarray, ends: _Ends) -> _Sums:
    if not x.size or not ranged.size:
        return _Sums()
    signal, own, all_noise = (float(np.vdot(v, v)) for v in (x, alone - x, accumulated - x))
    others = tuple(axis for axis in range(ranged.ndim) if axis != 1)
    largest = np.abs(ranged).max(axis=others) if ranged.ndim > 1 else np.abs(ranged).max(keepdims=True)
    beyond = ranged - np.clip(ranged, ends.low, ends.high)
    power, cut = signal if ranged is x else float(np.vdot(ranged, ranged)), float(np.vdot(beyond, beyond))
    return _Sums(signal, own, all_noise, ranged.size, power, cut, largest)


def _ends(output: Output) -> _Ends:
    scale, zero_point = (one.values for one in output.dequantize.inputs[1:3] if isinstance(one, Constant))
    limits, step, zero = np.iinfo(zero_point.dtype), float(scale), int(zero_point)
    return _Ends(step * (limits.min - zero), step * (limits.max - zero), step, output.ranged is output.exact)


def _error(output: Output, sums: _Sums, ends: _Ends) -> LayerError:
    alone, accumulated = (_decibel(sums.signal, noise) for noise in (sums.alone, sums.accumulated))
    return LayerError(output.site.node, alone, accumulated, _reason(sums, ends))


def _reason(sums: _Sums, ends: _Ends) -> str:
    """What a layer's own error comes from, in a few words."""
    largest, dead = float(sums.channels.max(initial=0.0)), int((sums.channels == 0).sum())
    usual = float(np.sqrt(sums.power / max(sums.count, 1)))
    alive = sums.channels[sums.channels > 0]
    rounding = sums.count * ends.step**2 / 12
    # Behind the weights an error of the inputs has another size: there it is set against rounding itself.
    noise = sums.alone if ends.given else sums.saturated + rounding
    if sums.saturated > noise / 2:
        reason = "values saturate"
    elif noise > _BEYOND * rounding:
        reason = "its weights are rounded coarsely"
    elif alive.size and float(np.median(alive)) * _NARROW < largest:
        share = float(np.median(alive)) / largest
        reason = f"channels share one scale, and half of them reach {share:.1%} of the largest"
    elif largest > _OUTLYING * usual > 0:
        reason = f"outliers: the largest value is {largest / usual:.0f} times the usual one"
    else:
        reason = "eight bits"
    return f"{reason}; {dead} of {sums.channels.size} channels dead" if dead else reason


def _decibel(signal: float, noise: float) -> float:
    if not noise:
        return float("inf")
    return float(10 * np.log10(max(signal, 1e-300) / noise))
