"""The list of a graph's nodes, quick on large graphs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, SupportsIndex

if TYPE_CHECKING:
    from edgec.ir.graph import Node


class NodeList(list["Node"]):
    """A list of nodes that finds a node soonest near the one found last, and keeps note of what was put in.

    A pass walks the nodes from front to back and edits where it stands; searching from the front each time would make
    that quadratic.

    Attributes:
        news: the nodes put in since somebody emptied it; names are read from them.
    """

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        super().__init__(nodes)
        self.news: list[Node] = list(self)
        self._found_at = 0

    def append(self, node: Node) -> None:
        super().append(node)
        self.news.append(node)

    def extend(self, nodes: Iterable[Node]) -> None:
        nodes = list(nodes)
        super().extend(nodes)
        self.news.extend(nodes)

    def insert(self, index: SupportsIndex, node: Node) -> None:
        super().insert(index, node)
        self.news.append(node)

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            value = list(value)
            self.news.extend(value)
        else:
            self.news.append(value)
        super().__setitem__(index, value)

    # A list declares more kinds of operand than anybody adds here.
    def __iadd__(self, nodes: Iterable[Node]) -> NodeList:  # type: ignore[misc, override]
        self.extend(nodes)
        return self

    def index(self, node: Node, *bounds: SupportsIndex) -> int:
        """Where ``node`` stands; raises ValueError where it does not."""
        if bounds:
            return super().index(node, *bounds)
        for reach in (32, 1024):
            try:
                found = super().index(node, max(self._found_at - reach, 0), self._found_at + reach)
                break
            except ValueError:
                continue
        else:
            found = super().index(node)
        self._found_at = found
        return found

    def remove(self, node: Node) -> None:
        del self[self.index(node)]

    def reorder(self, nodes: Iterable[Node]) -> None:
        """Takes the same nodes, or some of them, in another order."""
        super().__setitem__(slice(None), nodes)
