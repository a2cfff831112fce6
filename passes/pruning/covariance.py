"""Means and covariances of the channels that layers read, gathered in one pass over the calibration data.

Positions of an image are drawn by a generator that is seeded with the image's number, so the same data give the same
sums; what is kept is a matrix of the group's width for each reader, whatever the number of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import Graph, Variable
from edgec.passes.protocol import Context
from edgec.passes.pruning.least_squares import squarable
from edgec.passes.pruning.readers import Reader
from edgec.passes.streaming import Tapped, batches, check_finite, stream

# So many observations for each channel are enough, and so many are taken at least where the data have them.
_PER_CHANNEL, _LEAST = 16, 4096


@dataclass
class Moments:
    """Of the units that a reader reads, each channel of a unit being an observation of its own.

    Attributes:
        rows: the number of observations.
        sums: of each unit; (width,).
        products: sums of products; (width, width).
    """

    rows: int
    sums: np.ndarray
    products: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        return self.sums / max(self.rows, 1)

    @property
    def covariance(self) -> np.ndarray:
        mean = self.mean
        return self.products / max(self.rows, 1) - np.outer(mean, mean)

    @property
    def power(self) -> np.ndarray:
        """The mean square of each unit."""
        return np.diag(self.products) / max(self.rows, 1)


def moments(graph: Graph, readers: Sequence[Reader], ctx: Context) -> dict[Reader, Moments]:
    """The moments of what each reader reads, over the calibration data.

    Readers of one tensor in one way share their moments.

    Raises:
        InputError: there are no samples, or an activation is not finite.
    """
    kinds: dict[tuple[Variable, int, bytes], list[Reader]] = {}
    for reader in readers:
        kinds.setdefault((reader.data, reader.axis, reader.channels.tobytes()), []).append(reader)
    firsts = [alike[0] for alike in kinds.values()]
    found = {first: Moments(0, np.zeros(len(first.channels)), np.zeros((len(first.channels),) * 2)) for first in firsts}
    count = batches(graph, ctx)

    def observe(number: int, values: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
        return [_observations(first, values[0][first.data.name], number, count, ctx.seed) for first in firsts]

    network = Tapped(graph, [first.data for first in firsts])
    for done, observed in enumerate(stream(graph, ctx, [network], observe), 1):
        for first, rows in zip(firsts, observed, strict=True):
            taken = found[first]
            taken.rows += len(rows)
            taken.sums += rows.sum(axis=0, dtype=np.float64)
            taken.products += rows.T @ rows
        ctx.progress(done, count, "covariances")
    return {reader: found[alike[0]] for alike in kinds.values() for reader in alike}


def _observations(reader: Reader, values: np.ndarray, number: int, count: int, seed: int) -> np.ndarray:
    """Rows of (observations, width), float32, of one batch."""
    check_finite(reader.data, values, number)
    width, each = reader.channels.shape
    flat = np.moveaxis(values, reader.axis, -1).reshape(-1, values.shape[reader.axis])
    wanted = -(-max(_PER_CHANNEL * width, _LEAST) // (count * each))
    if len(flat) > wanted:
        chance = np.random.Generator(np.random.PCG64([seed, number, width]))
        flat = flat[np.sort(chance.choice(len(flat), wanted, replace=False))]
    picked = flat[:, reader.channels.T.reshape(-1)].reshape(-1, width)
    return squarable(np.ascontiguousarray(picked, np.float32))
