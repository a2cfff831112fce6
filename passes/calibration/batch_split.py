"""Batches that tries are fitted to, and batches that they are judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.passes.calibration.near_duplicates import folds

# Every so many batches one is held out, where there are this many at least.
_HELD_OUT, _FEWEST = 5, 10
# Batches that judge.
_MOST_JUDGES = 32


@dataclass(frozen=True)
class Split:
    """Numbers of the batches that tries are fitted to, and of those that they are judged by.

    Attributes:
        fit: rising.
        judge: rising; none of ``fit`` where there are enough batches, else all of ``fit``.
        count: how many batches there are.
    """

    fit: tuple[int, ...]
    judge: tuple[int, ...]
    count: int

    @property
    def apart(self) -> bool:
        """Whether tries are judged by what they have not been fitted to."""
        return not set(self.fit) & set(self.judge)

    @property
    def complete(self) -> bool:
        """Whether tries are fitted to all there is."""
        return len(self.fit) == self.count


def split(count: int, most: int) -> Split:
    """Parts ``count`` batches, of which at most ``most`` are fitted to; both parts spread over the whole set."""
    numbers = np.arange(count)
    held = numbers % _HELD_OUT == _HELD_OUT // 2
    if count < _FEWEST:
        held[:] = False
    fit = spread(numbers[~held], most)
    judge = numbers[held] if held.any() else np.array(fit)
    return Split(fit, spread(judge, _MOST_JUDGES), count)


def split_groups(groups: np.ndarray, most: int) -> Split:
    """Parts batches of which some resemble each other: what is fitted to one of them is not judged by another.

    Args:
        groups: the group of each batch, of those that resemble each other, which are in one part; (batches,).
        most: batches to fit to.
    """
    numbers = np.arange(len(groups))
    distinct = int(groups.max(initial=-1)) + 1
    if distinct < _FEWEST:  # halves
        both = folds(groups, 2)
        held = np.isin(numbers, both[1]) if len(both) > 1 else np.zeros(len(groups), bool)
    else:
        held = groups % _HELD_OUT == _HELD_OUT // 2
    fit = spread(numbers[~held], most)
    judge = numbers[held] if held.any() else np.array(fit)
    return Split(fit, spread(judge, _MOST_JUDGES), len(groups))


def spread(numbers: np.ndarray, most: int) -> tuple[int, ...]:
    """At most so many of them, evenly from the first to the last."""
    if len(numbers) > most:
        numbers = numbers[np.linspace(0, len(numbers) - 1, most).round().astype(int)]
    return tuple(int(number) for number in numbers)
