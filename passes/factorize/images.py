"""The calibration data in memory, as far as they fit and can be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from typing import TypeVar

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.graph import Graph
from edgec.passes.calibration.dataset import ROLE
from edgec.passes.calibration.near_duplicates import folds
from edgec.passes.calibration.runner import batches
from edgec.passes.framework.context import Context

U = TypeVar("U")
# Bytes that are held.
_MOST_BYTES = 1 << 26
# A batch whose values are so many times what is usual would be all that a fit by squares sees.
_UNUSUAL = 100.0


class Images:
    """The calibration data, as many batches as fit a fixed amount of memory, taken evenly from the whole set.

    A batch whose values are a hundred times those of the others is left out, and reported.

    Attributes:
        feeds: by batch.
        groups: the group of each batch, of those that resemble each other; each alone until somebody has looked.

    Args:
        graph: whose inputs they feed.
        ctx: the data, the seed and the threads; it is told what is left out.

    Raises:
        InputError: there are none.
    """

    def __init__(self, graph: Graph, ctx: Context) -> None:
        self.ctx = ctx
        count = batches(graph, ctx)
        first = next(ctx.feeds(graph, ROLE), {})
        numbers = spread(count, max(_MOST_BYTES // max(sum(values.nbytes for values in first.values()), 1), 1))
        self.feeds = list(ctx.feeds(graph, ROLE, numbers))
        if not self.feeds:
            raise InputError(ctx.data[ROLE].source, "has no samples to calibrate with", "name a data set that has some")
        times = _times_usual(self.feeds)
        for number, much in zip(numbers, times, strict=True):
            if much > _UNUSUAL:
                ctx.missed(f"calibration batch {number}", f"left out: its values are {much:.2g} times what is usual")
        self.feeds = [feeds for feeds, much in zip(self.feeds, times, strict=True) if not much > _UNUSUAL]
        self.groups = np.arange(len(self.feeds))

    def only(self, numbers: Sequence[int]) -> Images:
        """Some of the batches, numbered anew."""
        part = copy(self)
        part.feeds, part.groups = [self.feeds[number] for number in numbers], self.groups[list(numbers)]
        return part

    @property
    def independent(self) -> int:
        """How many batches there are that do not resemble each other."""
        return len(np.unique(self.groups))

    def half(self, which: int, most: int) -> list[int]:
        """The numbers of the batches in the first (0) or the second (1) half, evenly; a single group is both halves.

        Those that resemble each other are in the same half: what is fitted to one of them must not be judged by the
        other.
        """
        both = folds(self.groups, 2)
        numbers = both[min(which, len(both) - 1)].tolist()
        return [numbers[place] for place in spread(len(numbers), most)]

    def each(self, work: Callable[[int], U], numbers: Sequence[int] | None = None, *, threads: int = 1) -> Iterator[U]:
        """What ``work`` makes of the number of each batch, or of those given, in order."""
        numbers = range(len(self.feeds)) if numbers is None else numbers
        if threads == 1:
            yield from map(work, numbers)
            return
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(work, numbers)


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` numbers below ``count``, evenly, each from the middle of its stretch."""
    wanted = min(count, most)
    return ((np.arange(wanted) + 0.5) * count / max(wanted, 1)).astype(int).tolist()


def _times_usual(feeds: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    """How many times the median each batch's root mean square is, of the input where that is most: (batches,).

    Values that are not finite are nothing unusual here: they are an error where they are read.
    """
    found = np.zeros(len(feeds))
    for name in feeds[0]:
        if feeds[0][name].dtype.kind == "f" and feeds[0][name].size:
            sizes = np.array([np.sqrt(np.mean(np.square(f[name], dtype=np.float64))) for f in feeds])
            usual = float(np.median(sizes))
            if np.isfinite(usual) and usual > 0:
                found = np.maximum(found, np.where(np.isfinite(sizes), sizes / usual, 0.0))
    return found
