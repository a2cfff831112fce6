"""Means and covariances of the channels that layers read, gathered from the calibration data.

Positions of an image are drawn by a generator that is seeded with the image's number, so the same data give the same
sums; what is kept is a matrix of the group's width for each reader, whatever the number of images.

Few images do not show how channels depend on each other. So covariances are shrunk towards their diagonal, as far as
images disagree (Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004).
Images that resemble each other count as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgec.ir.graph import Graph, Variable
from edgec.passes.calibration.near_duplicates import groups_of
from edgec.passes.calibration.runner import Tapped, batches, check_finite, stream
from edgec.passes.framework.context import Context
from edgec.passes.layers.affine_regression import squarable
from edgec.passes.prune.readers import Reader

# So many observations for each channel are enough, and so many are taken at least where the data have them.
_PER_CHANNEL, _LEAST = 16, 4096
# The squared correlation from which on two channels are one.
_TOGETHER = 0.9999


@dataclass
class Moments:
    """Of the units that a reader reads, each channel of a unit being an observation of its own.

    Attributes:
        centre: about what moments are taken, near the mean; (width,).
        samples: how many images there are that do not resemble each other.
        rows: the number of observations.
        sums: of each unit; (width,).
        products: sums of products; (width, width).
        squares: the sum over the images of the squares of all elements of their covariances.
        images: how many there were.
    """

    centre: np.ndarray
    samples: int
    rows: int = 0
    sums: np.ndarray = field(init=False)
    products: np.ndarray = field(init=False)
    squares: float = 0.0
    images: int = 0

    def __post_init__(self) -> None:
        width = len(self.centre)
        self.sums, self.products = np.zeros(width), np.zeros((width, width))

    def add(self, seen: Seen) -> None:
        """Takes an image in."""
        self.rows += seen.rows
        self.sums += seen.sums
        self.products += seen.products
        self.squares += seen.squares
        self.images += 1

    @property
    def covariance(self) -> np.ndarray:
        apart = self.sums / max(self.rows, 1)
        return self.products / max(self.rows, 1) - np.outer(apart, apart)

    @property
    def power(self) -> np.ndarray:
        """The mean square of each unit."""
        return np.diag(self.covariance) + np.square(self.centre + self.sums / max(self.rows, 1))

    @property
    def independent(self) -> float:
        """How many independent observations would tell the covariance as well as the images do; at most the rows.

        Of n independent ones of a normal distribution, the estimate's variance is (tr(C)^2 + |C|^2) / n in all; what it
        is follows from how far the images disagree. Positions of one image resemble each other, and count for less.
        """
        scatter = self._scatter
        if self.samples < 2 or scatter <= 0:
            return float(min(self.samples, self.rows) if self.samples < 2 else self.rows)
        covariance = self.covariance
        power = float(np.trace(covariance)) ** 2 + float(np.vdot(covariance, covariance))
        return float(np.clip(power / scatter, min(self.samples, self.rows), self.rows))

    @property
    def _scatter(self) -> float:
        """The variance of the covariance as an estimate, summed over its elements."""
        covariance = self.covariance
        energy = float(np.vdot(covariance, covariance))
        return max(self.squares / max(self.images, 1) - energy, 0.0) / max(self.samples - 1, 1)

    def shrunk(self) -> np.ndarray:
        """The covariance, held back by how far the images disagree; of one image as it is."""
        covariance = self.covariance
        if self.samples < 2:
            return covariance
        own = np.diag(covariance).clip(min=0)
        # What always goes together is no accident of a few images.
        prior = np.where(np.square(covariance) > _TOGETHER * np.outer(own, own), covariance, 0.0)
        prior.flat[:: len(own) + 1] = own
        scatter = self._scatter
        distance = float(np.square(covariance - prior).sum())
        part = min(scatter / distance, 1.0) if distance > 0 else 1.0
        shrunk: np.ndarray = (1 - part) * covariance + part * prior
        return shrunk


@dataclass(frozen=True)
class Seen:
    """What one image adds to moments."""

    rows: int
    sums: np.ndarray
    products: np.ndarray
    squares: float


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
    count = batches(graph, ctx)
    network = Tapped(graph, [first.data for first in firsts])

    def means(number: int, values: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
        return [_means(first, values[0][first.data.name], number) for first in firsts]

    def observe(number: int, values: list[dict[str, np.ndarray]]) -> list[Seen]:
        return [
            _seen(first, values[0][first.data.name], found[first].centre, number, count, ctx.seed) for first in firsts
        ]

    centres = [np.stack(of_first) for of_first in zip(*stream(graph, ctx, [network], means), strict=True)]
    samples = int(groups_of(centres).max()) + 1
    found = {first: Moments(each.mean(axis=0), samples) for first, each in zip(firsts, centres, strict=True)}
    for done, observed in enumerate(stream(graph, ctx, [network], observe), 1):
        for first, seen in zip(firsts, observed, strict=True):
            found[first].add(seen)
        ctx.progress(done, count, "covariances")
    return {reader: found[alike[0]] for alike in kinds.values() for reader in alike}


def _means(reader: Reader, values: np.ndarray, number: int) -> np.ndarray:
    """Of each unit in one batch; (width,)."""
    check_finite(reader.data, values, number)
    axis = reader.axis % values.ndim
    others = tuple(other for other in range(values.ndim) if other != axis)
    mean: np.ndarray = values.mean(axis=others, dtype=np.float64)[reader.channels].mean(axis=1)
    return mean


def _seen(reader: Reader, values: np.ndarray, centre: np.ndarray, number: int, count: int, seed: int) -> Seen:
    rows = _observations(reader, values, number, count, seed)
    rows = rows - centre.astype(rows.dtype)
    products = rows.T @ rows
    squares = float(np.vdot(products, products)) / max(len(rows), 1) ** 2
    return Seen(len(rows), rows.sum(axis=0, dtype=np.float64), products, squares)


def _observations(reader: Reader, values: np.ndarray, number: int, count: int, seed: int) -> np.ndarray:
    """Rows of (observations, width), float32, of one batch."""
    width, each = reader.channels.shape
    flat = np.moveaxis(values, reader.axis, -1).reshape(-1, values.shape[reader.axis])
    wanted = -(-max(_PER_CHANNEL * width, _LEAST) // (count * each))
    if len(flat) > wanted:
        chance = np.random.Generator(np.random.PCG64([seed, number, width]))
        flat = flat[np.sort(chance.choice(len(flat), wanted, replace=False))]
    picked = flat[:, reader.channels.T.reshape(-1)].reshape(-1, width)
    return squarable(np.ascontiguousarray(picked, np.float32))
