"""Figures that were measured on samples, and how far chance may have moved them.

The interval is a percentile bootstrap over the samples (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13). Where all that is counted is hits and misses it is Clopper and Pearson's exact one (Biometrika 26, 1934): a
bootstrap of fifty hits out of fifty knows of no miss. Two networks measured on the same samples are drawn together, so
that the interval of their difference is that of paired samples.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
# Draws of a bootstrap; with a thousand the ends of a 95 % interval are steady to a few hundredths of its width.
_DRAWS, _SEED = 1000, 0x5EED
# With fewer rows a bootstrap knows too few values to say anything.
_FEWEST_ROWS = 5
# Numbers drawn at once.
_MOST_DRAWN = 1 << 22


@dataclass(frozen=True)
class Estimate:
    """A figure measured on samples.

    Attributes:
        value: the figure on all of them.
        samples: how many there were.
        low, high: the interval's ends; ``None`` where it is not known.
    """

    value: float
    samples: int
    low: float | None = None
    high: float | None = None


class Scores(abc.ABC):
    """What a network scored, sample by sample; a figure is computed from them."""

    @property
    @abc.abstractmethod
    def samples(self) -> int:
        """How many samples there are."""

    @abc.abstractmethod
    def value(self) -> float:
        """The figure on all samples."""

    def resampled(self) -> np.ndarray | None:
        """The figure on each draw of as many samples with replacement; ``None`` where samples cannot be drawn.

        The draws depend on the number of samples alone, so two networks' draws on the same samples belong together.
        """
        return None

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float | None, float | None]:
        """Between which values the figure lies with that probability; (``None``, ``None``) where that is not known."""
        drawn = self.resampled()
        if drawn is None or not np.isfinite(drawn).all():
            return None, None
        low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
        return float(low), float(high)

    def estimate(self, confidence: float = CONFIDENCE) -> Estimate:
        """The figure with its interval."""
        return Estimate(self.value(), self.samples, *self.interval(confidence))


@dataclass(frozen=True)
class Whole(Scores):
    """A figure that only all samples together have."""

    figure: float
    count: int

    @property
    def samples(self) -> int:
        return self.count

    def value(self) -> float:
        return self.figure


@dataclass(frozen=True, eq=False)
class Means(Scores):
    """A figure that is a function of the means of some statistics.

    Attributes:
        statistics: of shape [rows, statistics].
        figure: maps means of shape [..., statistics] to figures of shape [...].
        each: how many samples a row stands for.
    """

    statistics: np.ndarray
    figure: Callable[[np.ndarray], np.ndarray]
    each: int = 1

    @property
    def samples(self) -> int:
        return len(self.statistics) * self.each

    def value(self) -> float:
        return float(self.figure(self.statistics.mean(axis=0)))

    def resampled(self) -> np.ndarray | None:
        rows = len(self.statistics)
        if rows < _FEWEST_ROWS:
            return None
        means = [self.statistics[drawn].mean(axis=1) for drawn in _draws(rows)]
        return self.figure(np.concatenate(means))


@dataclass(frozen=True, eq=False)
class Hits(Scores):
    """The share of samples that were hit.

    Attributes:
        hit: a boolean for each sample.
    """

    hit: np.ndarray

    @property
    def samples(self) -> int:
        return len(self.hit)

    def value(self) -> float:
        return float(self.hit.mean())

    def resampled(self) -> np.ndarray | None:
        if self.samples < _FEWEST_ROWS:
            return None
        return np.concatenate([self.hit[drawn].mean(axis=1) for drawn in _draws(self.samples)])

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float | None, float | None]:
        return exact_share(int(self.hit.sum()), self.samples, confidence)


@dataclass(frozen=True, eq=False)
class Ranks(Scores):
    """The area under the ROC curve: how often a sample of the second class scores above one of the first.

    A tie counts one half: this is the Mann-Whitney U statistic over the number of pairs (Hanley and McNeil, Radiology
    143, 1982), counted exactly by sorting.

    Attributes:
        first, second: scores of the two classes, each of shape [samples].

    Raises:
        ValueError: a class is empty or holds NaN.
    """

    first: np.ndarray
    second: np.ndarray

    def __post_init__(self) -> None:
        for scores in (self.first, self.second):
            if not scores.size or np.isnan(scores).any():
                raise ValueError("auroc needs scores of both classes, none of them NaN")

    @property
    def samples(self) -> int:
        return len(self.first) + len(self.second)

    def value(self) -> float:
        below = np.sort(self.first)
        twice = np.searchsorted(below, self.second, "left") + np.searchsorted(below, self.second, "right")
        return int(twice.sum()) / (2 * self.first.size * self.second.size)

    def resampled(self) -> np.ndarray | None:
        if min(len(self.first), len(self.second)) < _FEWEST_ROWS:
            return None
        scores, place = np.unique(np.concatenate([self.first, self.second]), return_inverse=True)
        areas = []
        draws = (_draws(len(scores), _SEED + k, self.samples) for k, scores in enumerate((self.first, self.second)))
        for first, second in zip(*draws, strict=True):
            below = _counted(place[: len(self.first)][first], len(scores))
            above = _counted(place[len(self.first) :][second], len(scores))
            # Of each score: the second class's samples, times those of the first below it and half of those beside it.
            ahead = np.cumsum(below, axis=1) - below / 2
            areas.append((above * ahead).sum(axis=1) / (first.shape[1] * second.shape[1]))
        return np.concatenate(areas)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float | None, float | None]:
        if self.value() in (0.0, 1.0):  # no pair is the wrong way round, as far as these samples can tell
            fewest = min(len(self.first), len(self.second))
            return exact_share(round(self.value()) * fewest, fewest, confidence)
        return super().interval(confidence)


def worst_difference(base: Scores, other: Scores, confidence: float) -> float | None:
    """How much smaller ``other``'s figure may be than ``base``'s, at most, with that probability (one-sided).

    Both are of the same samples, in the same order. ``None`` where it is not known.
    """
    if isinstance(base, Hits) and isinstance(other, Hits) and np.array_equal(base.hit, other.hit):
        # Never seen in n samples: with this probability it is rarer than this.
        return float(1 - (1 - confidence) ** (1 / base.samples))
    first, second = base.resampled(), other.resampled()
    if first is None or second is None or len(first) != len(second):
        return None
    apart = np.where(first == second, 0.0, first - second)
    return float(np.quantile(apart, confidence)) if np.isfinite(apart).all() else None


def exact_share(hits: int, samples: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of a share of which ``hits`` of ``samples`` were seen (Clopper and Pearson)."""
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, samples - hits + 1))
    high = 1.0 if hits == samples else float(beta.ppf(1 - tail, hits + 1, samples - hits))
    return low, high


def _draws(rows: int, seed: int = _SEED, wide: int = 0) -> Iterator[np.ndarray]:
    """Numbers of rows, drawn with replacement: arrays of shape [draws, rows].

    As many draws come at once as memory allows for rows of ``wide`` numbers; that does not change what is drawn.
    """
    random = np.random.Generator(np.random.PCG64([seed, rows]))
    at_once = max(1, min(_DRAWS, _MOST_DRAWN // max(rows, wide)))
    for begin in range(0, _DRAWS, at_once):
        yield random.integers(0, rows, (min(at_once, _DRAWS - begin), rows))


def _counted(places: np.ndarray, count: int) -> np.ndarray:
    """How often each of ``count`` places stands in each row of ``places``; of shape [rows, count]."""
    rows = len(places)
    offset = np.arange(rows)[:, None] * count
    return np.bincount((places + offset).ravel(), minlength=rows * count).reshape(rows, count)
