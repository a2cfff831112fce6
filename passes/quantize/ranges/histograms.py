"""A histogram of a stream of numbers whose range is not known beforehand, in bounded memory.

The bins reach from -2^e to 2^e and lie symmetrically about zero, so that those of exponent e + 1 are pairs of those of
exponent e. Widening a histogram, and merging two, is therefore exact: the counts of a set of numbers do not depend on
the order, the batches or the threads in which they came (but for numbers so small that they underflow beside the
largest of their batch).
"""

from __future__ import annotations

import numpy as np

_LOG2_BINS = 12
#: Bins on each side of zero. The largest magnitude lies in the outer half, so 2048 to 4096 of them hold its side.
BINS = 1 << _LOG2_BINS
# Numbers below 2^-100 are as good as zero, and the factor to bin numbers stays a float32.
_LEAST_EXPONENT = -100


class Histogram:
    """Counts of float32 numbers in equal bins.

    Attributes:
        counts: int64, ``2 * BINS``; bin ``BINS`` begins at zero.
        exponent: all numbers are within 2^exponent of zero.
    """

    def __init__(self, counts: np.ndarray | None = None, exponent: int = _LEAST_EXPONENT) -> None:
        self.counts = np.zeros(2 * BINS, np.int64) if counts is None else counts
        self.exponent = exponent

    @classmethod
    def of(cls, values: np.ndarray, largest: float) -> Histogram:
        """The histogram of finite float32 ``values`` whose largest magnitude is ``largest``."""
        exponent = max(int(np.frexp(largest)[1]), _LEAST_EXPONENT) if largest > 0 else _LEAST_EXPONENT
        scaled = np.ravel(values) * np.float32(2.0 ** (_LOG2_BINS - exponent))
        places = np.floor(scaled, out=scaled).astype(np.intp)
        places += BINS
        return cls(np.bincount(places, minlength=2 * BINS), exponent)

    @property
    def width(self) -> float:
        """The width of a bin."""
        return 2.0 ** (self.exponent - _LOG2_BINS)

    @property
    def centers(self) -> np.ndarray:
        """The middle of each bin, float64, as many as there are ``counts``."""
        return (np.arange(2 * BINS) - BINS + 0.5) * self.width

    def merge(self, other: Histogram) -> None:
        """Adds what ``other`` counted; both come to the larger exponent."""
        exponent = max(self.exponent, other.exponent)
        self.counts = _widened(self.counts, exponent - self.exponent) + _widened(
            other.counts, exponent - other.exponent
        )
        self.exponent = exponent

    def percentile(self, percent: float) -> float:
        """The value below which ``percent`` of the numbers lie, to within the width of a bin.

        Numbers are taken to be spread evenly within their bin.

        Raises:
            ValueError: nothing was counted.
        """
        before = np.cumsum(self.counts)
        total = int(before[-1])
        if not total:
            raise ValueError("an empty histogram has no percentiles")
        rank = percent / 100 * (total - 1)
        place = int(np.searchsorted(before, np.floor(rank), side="right"))
        within = (rank - float(before[place] - self.counts[place]) + 0.5) / float(self.counts[place])
        return (place - BINS + float(np.clip(within, 0.0, 1.0))) * self.width


def _widened(counts: np.ndarray, doublings: int) -> np.ndarray:
    if not doublings:
        return counts
    # Once all of a side is in the bin next to zero, nothing more happens to it.
    group = 1 << min(doublings, _LOG2_BINS)
    kept = BINS // group
    wide = np.zeros_like(counts)
    wide[BINS - kept : BINS] = counts[:BINS].reshape(kept, group).sum(axis=1)
    wide[BINS : BINS + kept] = counts[BINS:].reshape(kept, group).sum(axis=1)
    return wide
