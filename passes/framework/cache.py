"""What passes keep for each other within a run: results that cost a look at the data, by what they depend on."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class RunCache:
    """Results of one run, made once.

    Who asks names all that a result depends on: the samples (:func:`same_data`), the network's content
    (:func:`edgec.ir.fingerprints.fingerprints`), options. So whatever is kept is right for whoever asks, on copies of a
    network and for other targets too.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, Any] = {}

    def of(self, make: Callable[[], T], *key: Hashable) -> T:
        """What ``make()`` gave when it was first asked for under this function or class and key."""
        place = (make, key)
        if place not in self._kept:
            self._kept[place] = make()
        kept: T = self._kept[place]
        return kept


class _Same:
    """Stands for a data set in a key: equal only to what stands for the very same object, which it keeps alive."""

    __slots__ = ("held",)

    def __init__(self, held: object) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.held is self.held

    def __hash__(self) -> int:
        return id(self.held)


def same_data(data: object) -> Hashable:
    """A key for a data set: the same for the same object, and for the same parts of one (their ``part_of``)."""
    part_of = getattr(data, "part_of", None)
    if part_of is None:
        return _Same(data)
    whole, *numbers = part_of
    return (same_data(whole), *numbers)
