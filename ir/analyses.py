"""Facts about a graph that are computed once and kept until a pass changes the graph."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from edgec.ir.graph import Graph


class Analysis(Protocol):
    """What :class:`Analyses` can keep: a class made from a graph and the other analyses."""

    def __init__(self, graph: Graph, analyses: Analyses) -> None: ...


A = TypeVar("A", bound=Analysis)


class Analyses:
    """The analyses of one graph, each made when first asked for.

    Args:
        graph: what is analysed.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._kept: dict[type[Any], Any] = {}
        self.computed = 0

    def get(self, kind: type[A]) -> A:
        """The analysis of that class, computed at most once until it is dropped."""
        if kind not in self._kept:
            self._kept[kind] = kind(self.graph, self)
            self.computed += 1
        found: A = self._kept[kind]
        return found

    def drop(self, preserved: tuple[type[Any], ...] = ()) -> None:
        """Forgets every analysis but the ``preserved`` ones: the graph has changed."""
        self._kept = {kind: value for kind, value in self._kept.items() if kind in preserved}
