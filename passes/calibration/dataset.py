"""Samples that a recipe names, as passes read them, and parts of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, Self

import numpy as np

from edgec.ir.execution import Feeds, seeded_feeds
from edgec.ir.graph import Graph

#: The role of the samples that passes are fitted to.
ROLE = "calibration"
# Samples of noise.
_NOISE = 16


class DataSet(Protocol):
    """Samples that a recipe names, as feeds by the model's input names."""

    @property
    def source(self) -> str: ...

    @property
    def labels(self) -> np.ndarray | None: ...

    def __len__(self) -> int: ...

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
        """Feeds of at most ``size`` samples each, sample axis first, in a fixed order.

        Args:
            size: samples in a batch.
            indices: of the samples that are read, rising; all by default.
        """
        ...


@dataclass(frozen=True)
class InMemory:
    """Samples that are arrays already.

    Attributes:
        feeds: by the model's input name, all samples on the first axis.
        source: where they are from.
        labels: one for each sample on the first axis, or ``None``.
    """

    feeds: Mapping[str, np.ndarray]
    source: str
    labels: np.ndarray | None = None

    @classmethod
    def of(cls, batches: Sequence[Feeds], source: str) -> Self:
        """The samples of some batches."""
        return cls({name: np.concatenate([feeds[name] for feeds in batches]) for name in (batches or [{}])[0]}, source)

    def __len__(self) -> int:
        return len(next(iter(self.feeds.values()), ()))

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
        """As :meth:`.DataSet.batches`; batches of samples in a row are views."""
        for start in range(0, len(self) if indices is None else len(indices), size):
            rows = slice(start, start + size) if indices is None else list(indices[start : start + size])
            yield {name: values[rows] for name, values in self.feeds.items()}


@dataclass(frozen=True)
class Part:
    """Some batches of a data set.

    Attributes:
        whole: the data set.
        numbers: of the batches that are in it, rising.
        size: samples in a batch; what ``numbers`` counts.
    """

    whole: DataSet
    numbers: tuple[int, ...]
    size: int
    labels: None = field(default=None, init=False)

    @property
    def part_of(self) -> tuple[DataSet, tuple[int, ...], int]:
        """What tells it from other parts (:func:`edgec.passes.framework.cache.same_data`)."""
        return self.whole, self.numbers, self.size

    @property
    def source(self) -> str:
        return self.whole.source

    def __len__(self) -> int:
        return len(self._samples)

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
        """As :meth:`.DataSet.batches`; all of it in the batches that it was made of."""
        if indices is None and size != self.size:
            raise ValueError(f"batches of {size}, made for batches of {self.size}")
        return self.whole.batches(size, self._samples if indices is None else [self._samples[i] for i in indices])

    @cached_property
    def _samples(self) -> list[int]:
        """The samples' indices in the whole."""
        count = len(self.whole)
        return [
            index
            for number in self.numbers
            for index in range(number * self.size, min((number + 1) * self.size, count))
        ]


def noise(graph: Graph, seed: int) -> InMemory:
    """Uniform noise in [0, 1) in the place of calibration data, for who has none yet and wants to see a network run.

    Raises:
        InputError: an input of ``graph`` has no static shape.
    """
    return InMemory.of(seeded_feeds(graph, seed, _NOISE), "noise")
