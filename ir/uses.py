"""The two ends of an edge, kept in step: a node's tensors, and a tensor's nodes.

``node.inputs.append(tensor)`` puts the node among the tensor's consumers, as in onnx-graphsurgeon.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, SupportsIndex, TypeVar

T = TypeVar("T")


class Uses(list[T]):
    """A list whose every change is made at the other end too.

    The code that builds graphs fills both ends itself, with ``list``'s own methods.

    Attributes:
        owner: the node or tensor that the list belongs to.
        other_end: the name of the list, in an item, that the owner stands in.
    """

    other_end: ClassVar[str]
    owner: Any
    __hash__ = None

    def _tie(self, items: Iterable[T]) -> None:
        for item in items:
            list.append(getattr(item, self.other_end), self.owner)

    def _untie(self, items: Iterable[T]) -> None:
        for item in items:
            list.remove(getattr(item, self.other_end), self.owner)

    def append(self, item: T) -> None:
        list.append(self, item)
        self._tie((item,))

    def extend(self, items: Iterable[T]) -> None:
        items = list(items)
        list.extend(self, items)
        self._tie(items)

    def insert(self, index: SupportsIndex, item: T) -> None:
        list.insert(self, index, item)
        self._tie((item,))

    def __setitem__(self, index: Any, value: Any) -> None:
        new = list(value) if isinstance(index, slice) else [value]
        self._untie(self[index] if isinstance(index, slice) else (self[index],))
        list.__setitem__(self, index, new if isinstance(index, slice) else value)
        self._tie(new)

    def __delitem__(self, index: Any) -> None:
        self._untie(self[index] if isinstance(index, slice) else (self[index],))
        list.__delitem__(self, index)

    def remove(self, item: T) -> None:
        list.remove(self, item)
        self._untie((item,))

    def pop(self, index: SupportsIndex = -1) -> T:
        item = list.pop(self, index)
        self._untie((item,))
        return item

    def clear(self) -> None:
        self._untie(self)
        list.clear(self)

    # A list declares more kinds of operand than anybody adds here.
    def __iadd__(self, items: Iterable[T]) -> Uses[T]:  # type: ignore[misc, override]
        self.extend(items)
        return self

    def __add__(self, items: Any) -> list[Any]:
        return [*self, *items]

    def __copy__(self) -> list[T]:
        return list(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[T]:
        return list(self)


class Inputs(Uses[T]):
    """What stands in an ``inputs``, and has its owner in ``outputs``."""

    other_end = "outputs"


class Outputs(Uses[T]):
    """What stands in an ``outputs``, and has its owner in ``inputs``."""

    other_end = "inputs"
