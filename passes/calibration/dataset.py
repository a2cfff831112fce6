"""Samples that a recipe names, as passes read them, and parts of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

#: The role of the samples that passes are fitted to.
ROLE = "calibration"


class DataSet(Protocol):
    """Samples that a recipe names, as feeds by the model's input names."""

    @property
    def source(self) -> str: ...

    @property
    def labels(self) -> np.ndarray | None: ...

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        """Feeds of at most ``size`` samples each, sample axis first, in a fixed order."""
        ...


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
        last = -(-len(self.whole) // self.size) - 1
        short = last * self.size + self.size - len(self.whole) if last in self.numbers else 0
        return len(self.numbers) * self.size - short

    def batches(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        """As :meth:`.DataSet.batches`; ``size`` is the one that it was made with."""
        if size != self.size:
            raise ValueError(f"batches of {size}, made for batches of {self.size}")
        wanted = set(self.numbers)
        for number, feeds in enumerate(self.whole.batches(size)):
            if number in wanted:
                yield feeds
                wanted.discard(number)
                if not wanted:
                    return  # what comes behind need not be decoded
