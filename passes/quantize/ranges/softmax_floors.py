"""How low a score may be that a Softmax still gives a share.

exp(-d) is the share of a score that lies d below the largest of its row. Where the scores of a row are many, all that
is masked together must have no share, so the distance grows with the logarithm of the row's length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log

import numpy as np

from edgec.ir.execution import batch_size
from edgec.ir.graph import Graph, Node, Variable
from edgec.passes.calibration.batch_split import spread
from edgec.passes.calibration.dataset import ROLE, Part
from edgec.passes.calibration.runner import Tapped, batches, stream
from edgec.passes.framework.context import Context
from edgec.passes.quantize.scales.affine_parameters import Range

#: All that lies below the floor has a share of exp(-8) at most, 3.4e-4, in the row whose largest score is least.
_MARGIN = 8.0
# The noise that a floor may make in the shares, relative to their power: 50 dB below them.
_NOISE = 1e-5
# Batches that are looked at.
_BATCHES = 32


def least_margin(length: int) -> float:
    """How far below the largest score of a row of that length the others have no share together."""
    return _MARGIN + log(max(length, 1))


def softmax_floors(
    graph: Graph, nodes: Sequence[Node], seen: Mapping[Variable, Range], ctx: Context
) -> dict[Variable, float]:
    """By what a Softmax reads, the value below which scores need not be told apart.

    A row that is masked throughout has no largest score. It is left out, unless its shares depend on what is in it:
    such a Softmax has no floor.

    Args:
        graph: the float network; not changed.
        nodes: Softmax nodes of opset 13 or later.
        seen: the range of what they read.
        ctx: the calibration data.
    """
    if not nodes:
        return {}
    reads = [node.inputs[0] for node in nodes]
    tensors = [tensor for tensor in reads if isinstance(tensor, Variable)]
    tapped = Tapped(graph, tensors)
    axes = [int(node.attrs.get("axis", -1)) for node in nodes]
    middles = [(seen[tensor].low + seen[tensor].high) / 2 for tensor in tensors]
    numbers = spread(np.arange(batches(graph, ctx)), _BATCHES)
    inner = ctx.derive(graph, data={ROLE: Part(ctx.data[ROLE], numbers, batch_size(graph))})

    def largest(number: int, values: list[dict[str, np.ndarray]]) -> list[tuple[float, int]]:
        """The least maximum of a row that is not masked, and the length of rows."""
        found = []
        for tensor, axis, middle in zip(tensors, axes, middles, strict=True):
            x = values[0][tensor.name]
            rows = x.max(axis=axis)
            found.append((float(rows[rows > middle].min(initial=inf)), x.shape[axis]))
        return found

    floors = np.full(len(tensors), inf)
    for row in stream(graph, inner, [tapped], largest):
        floors = np.minimum(floors, [least - least_margin(length) for least, length in row])

    def noise(number: int, values: list[dict[str, np.ndarray]]) -> list[_Noise]:
        return [
            _Noise.of(values[0][tensor.name], float(floor), axis)
            for tensor, floor, axis in zip(tensors, floors, axes, strict=True)
        ]

    total = [_Noise(0.0, 0.0) for _ in tensors]
    for seen_now in stream(graph, inner, [tapped], noise):
        total = [one.plus(more) for one, more in zip(total, seen_now, strict=True)]
    return {
        tensor: float(floor)
        for tensor, floor, one in zip(tensors, floors, total, strict=True)
        if np.isfinite(floor) and one.noise <= _NOISE * one.power
    }


@dataclass(frozen=True)
class _Noise:
    """The squares of shares, and of what a floor changes in them."""

    power: float
    noise: float

    @staticmethod
    def of(scores: np.ndarray, floor: float, axis: int) -> _Noise:
        exact = _shares(scores.astype(np.float64), axis)
        moved = _shares(np.maximum(scores, floor).astype(np.float64), axis)
        return _Noise(float((exact**2).sum()), float(((moved - exact) ** 2).sum()))

    def plus(self, other: _Noise) -> _Noise:
        return _Noise(self.power + other.power, self.noise + other.noise)


def _shares(scores: np.ndarray, axis: int) -> np.ndarray:
    weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
    shares: np.ndarray = weights / weights.sum(axis=axis, keepdims=True)
    return shares
