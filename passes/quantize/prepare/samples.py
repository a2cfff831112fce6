"""Samples in memory, for steps inside ``quantize`` that need a data set of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgec.ir.execution import Feeds, seeded_feeds
from edgec.ir.graph import Graph

_NOISE = 16


@dataclass(frozen=True)
class Samples:
    """A data set without labels.

    Attributes:
        feeds: by input, all samples on the first axis.
        source: where they are from.
    """

    feeds: dict[str, np.ndarray]
    source: str
    labels: None = field(default=None, init=False)

    @staticmethod
    def of(batches: Sequence[Feeds], source: str) -> Samples:
        """The samples of some batches."""
        return Samples({name: np.concatenate([feeds[name] for feeds in batches]) for name in batches[0]}, source)

    def __len__(self) -> int:
        return len(next(iter(self.feeds.values())))

    def batches(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        """As :meth:`.DataSet.batches`."""
        for start in range(0, len(self), size):
            yield {name: values[start : start + size] for name, values in self.feeds.items()}


def noise(graph: Graph, seed: int) -> Samples:
    """Uniform noise in [0, 1) in the place of calibration data, for who has none yet and wants to see a network run.

    Raises:
        InputError: an input of ``graph`` has no static shape.
    """
    return Samples.of(seeded_feeds(graph, seed, _NOISE), "noise")
