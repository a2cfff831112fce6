"""The calibration data in memory, as far as they fit and can be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.execution import batch_size
from edgec.ir.graph import Graph
from edgec.passes.protocol import Context
from edgec.passes.streaming import ROLE

U = TypeVar("U")
# Bytes that are held.
_MOST_BYTES = 1 << 26
# A batch whose values are so many times what is usual would be all that a fit by squares sees.
_UNUSUAL = 100.0


class Images:
    """The calibration data, as many batches as fit a fixed amount of memory, taken evenly from the whole set.

    A batch whose values are a hundred times those of the others is left out, and reported.

    Args:
        graph: whose inputs they feed.
        ctx: the data, the seed and the threads; it is told what is left out.

    Raises:
        InputError: there are none.
    """

    def __init__(self, graph: Graph, ctx: Context) -> None:
        self.ctx = ctx
        batches = -(-len(ctx.data[ROLE]) // batch_size(graph))
        self.feeds: list[dict[str, np.ndarray]] = []
        numbers: list[int] = []
        keep: set[int] | None = None
        for number, feeds in enumerate(ctx.feeds(graph, ROLE)):
            if keep is None:
                most = max(_MOST_BYTES // max(sum(v.nbytes for v in feeds.values()), 1), 1)
                keep = set(np.linspace(0, batches - 1, min(most, batches)).round().astype(int).tolist())
            if number in keep:
                self.feeds.append(feeds)
                numbers.append(number)
        if not self.feeds:
            raise InputError(ctx.data[ROLE].source, "has no samples to calibrate with", "name a data set that has some")
        times = _times_usual(self.feeds)
        for number, much in zip(numbers, times, strict=True):
            if much > _UNUSUAL:
                ctx.missed(f"calibration batch {number}", f"left out: its values are {much:.2g} times what is usual")
        self.feeds = [feeds for feeds, much in zip(self.feeds, times, strict=True) if not much > _UNUSUAL]

    def half(self, which: int, most: int) -> list[int]:
        """The numbers of every other batch from the first (0) or the second (1) on; a single one is both halves."""
        return list(range(min(which, len(self.feeds) - 1), len(self.feeds), 2))[:most]

    def each(self, work: Callable[[int], U], numbers: Sequence[int] | None = None, *, threads: int = 1) -> Iterator[U]:
        """What ``work`` makes of the number of each batch, or of those given, in order."""
        numbers = range(len(self.feeds)) if numbers is None else numbers
        if threads == 1:
            yield from map(work, numbers)
            return
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(work, numbers)


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
