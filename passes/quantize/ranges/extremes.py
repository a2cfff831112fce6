"""How much further than the calibration samples others will reach, and how much of that a range should hold.

The greatest values of the samples, one for each, are taken to have a Gumbel distribution, as the extremes of many
numbers do (Gumbel, "Statistics of Extremes", 1958). Its scale b, by L-moments (Hosking, "L-moments", Journal of the
Royal Statistical Society B 52, 1990), says how fast the tail dies out. One in n of further samples goes beyond what n
have reached, and of those one in exp(a / b) by more than a. What saturates so errs by 2 b^2 exp(-a / b) / n in the mean
square. Room of a costs all m values of a sample longer steps, L of which make up the range's width W and the room:
m (W + a)^2 / (12 L^2). The sum is least where

    a = b log(12 L^2 b / (n m (W + a)))

and nothing where that is negative: one of a thousand values that saturates is less than what longer steps do to the
others. So the few numbers that leave a classifier get much room, and a feature map gets some where few samples were
seen. Few samples say little about b: what networks show as a rule counts beside theirs.

Room is bounded by what it costs. Where there are very many samples, an output's range grows by 12 % at most, which is
1 dB of its rounding noise, and one inside the network, where noise adds up, not at all. Measured: docs/results/int8.md,
"Room for unseen samples".
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgec.passes.framework.target import Scheme
from edgec.passes.quantize.scales.affine_parameters import Range

# The scale that networks show as a rule, as a part of the range, and how many samples' word it counts for.
_USUAL, _WORTH = 0.05, 4
# The most room at an output, as a part of the range, where there are very many samples; with this many, it is twice
# that, and as much inside the network.
_MOST, _DOUBLED = 0.12, 16
# Rounds of a fixed point that moves by less than a part in a hundred behind the third.
_ROUNDS = 8


@dataclass
class Extremes:
    """The least and the greatest value of each batch of samples.

    Attributes:
        lows, highs: one for each batch, in the order of the data.
        values: how many numbers a batch has.
    """

    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    values: int = 0

    def merge(self, other: Extremes) -> None:
        """Adds other batches behind these."""
        self.lows += other.lows
        self.highs += other.highs
        self.values = max(self.values, other.values)


def expected_range(seen: Extremes, scheme: Scheme, *, end: bool) -> Range:
    """The range with which other samples are expected to err least; that of what was seen, or a wider one.

    Args:
        seen: of one batch at least.
        scheme: whether integers are symmetric about zero.
        end: whether the tensor is an output, or all but one.
    """
    lows, highs = np.array(seen.lows), np.array(seen.highs)
    low, high = float(lows.min()), float(highs.max())
    if scheme.symmetric:
        reach = np.maximum(-lows, highs)
        (more,) = _room([reach], float(reach.max()), 127, seen.values, end=end)
        return Range(low - more if -low >= high else low, high + more if high >= -low else high)
    below, above = _room([-lows, highs], max(high, 0.0) - min(low, 0.0), 255, seen.values, end=end)
    return Range(low - below, high + above)


def _room(ends: list[np.ndarray], width: float, steps: int, values: int, *, end: bool) -> list[float]:
    """How far each end is moved.

    Args:
        ends: for each end its extremes, (batches,), with the sign that makes the outermost the greatest.
        width: of the range.
        steps: how many steps of the integers make up that.
        values: of a batch.
        end: as in :func:`expected_range`.
    """
    count = len(ends[0])
    scales = [_scale(extremes, width) for extremes in ends]
    rooms = [0.0] * len(ends)
    for _ in range(_ROUNDS):
        wide = width + sum(rooms)
        rooms = [
            max(0.0, b * float(np.log(12 * steps**2 * b / (count * values * wide)))) if b > 0 else 0.0 for b in scales
        ]
    total, most = sum(rooms), _MOST * ((1 if end else 0) + _DOUBLED / count) * width
    return [room * most / total for room in rooms] if total > most else rooms


def _scale(extremes: np.ndarray, width: float) -> float:
    """Gumbel's scale; zero where all samples end at one value, or at zero: that is a bound, and no chance."""
    count = len(extremes)
    if extremes.max() == 0 or (count > 1 and np.ptp(extremes) == 0):
        return 0.0
    ranked = np.sort(extremes)
    spread = 0.0
    if count > 1:
        second = 2 * float(np.arange(count) @ ranked) / (count * (count - 1)) - float(ranked.mean())
        spread = second / np.log(2)
    return float(count * spread + _WORTH * _USUAL * width) / (count + _WORTH)
