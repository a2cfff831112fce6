"""Noise in the place of calibration data, for who has none yet and wants to see a network run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edgec.ir.execution import batch_size, seeded_feeds
from edgec.ir.graph import Graph

_BATCHES = 16


@dataclass(frozen=True)
class Noise:
    """Batches of uniform noise in [0, 1).

    Attributes:
        feeds: the batches.
        size: samples in each.
    """

    feeds: list[dict[str, np.ndarray]]
    size: int
    source: str = "noise"
    labels: None = field(default=None, init=False)

    @staticmethod
    def of(graph: Graph, seed: int) -> Noise:
        """For the inputs of ``graph``.

        Raises:
            InputError: an input has no static shape.
        """
        return Noise(seeded_feeds(graph, seed, _BATCHES), batch_size(graph))

    def __len__(self) -> int:
        return len(self.feeds) * self.size

    def batches(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        """As :meth:`.DataSet.batches`; ``size`` is the graph's."""
        if size != self.size:
            raise ValueError(f"batches of {size}, made for batches of {self.size}")
        yield from self.feeds
