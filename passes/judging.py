"""What passes that try things are fitted to and judged by, and how far outputs are from the original's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgec.ir.execution import Session, batch_size, seeded_feeds
from edgec.ir.graph import Graph
from edgec.ir.node_list import NodeList
from edgec.ir.signal import sqnr_scores
from edgec.passes.calibration.resemblance import folds
from edgec.passes.joined_outputs import apart, joined_parts
from edgec.passes.protocol import Context, DataSet

ROLE = "calibration"
# Every so many batches one is held out, where there are this many at least.
_HELD_OUT, _FEWEST = 5, 10
# Batches that judge, and samples of noise where there are no data.
_MOST_JUDGES, _NOISE = 32, 8


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


class Judge:
    """Measures networks against the original.

    Args:
        graph: the original.
        ctx: the data, and the seed of the noise that stands for data where there are none.
        split: which of the data; ``None`` for noise.
    """

    def __init__(self, graph: Graph, ctx: Context, split: Split | None) -> None:
        self._feeds: list[Mapping[str, np.ndarray]] = []
        if split is None:
            self._feeds.extend(seeded_feeds(graph, ctx.seed, _NOISE))
        else:
            part = Part(ctx.data[ROLE], split.judge, batch_size(graph))
            self._feeds.extend(context(graph, ctx, {ROLE: part}).feeds(graph, ROLE))
        self._parts = joined_parts(graph)
        self._original = self._run(graph)

    def sqnr_db(self, graph: Graph) -> float:
        """Of a network's outputs, in dB; infinite where they are the original's.

        Outputs that are joined of parts are taken apart, so that each part counts like the others.
        """
        return sqnr_scores(self._original, self._run(graph)).value()

    def _run(self, graph: Graph) -> list[dict[str, np.ndarray]]:
        session = Session(graph)
        return [apart(session.run(feeds), self._parts) for feeds in self._feeds]


def take_over(graph: Graph, made: Graph) -> None:
    """Makes ``graph`` what a copy of it has become."""
    graph.nodes = NodeList(made.nodes)  # its names are read anew
    graph.inputs, graph.outputs = made.inputs, made.outputs


def context(graph: Graph, ctx: Context, data: Mapping[str, DataSet], shared: dict[Any, Any] | None = None) -> Context:
    """A context of its own for a pass on ``graph``, with other data."""
    return Context(
        graph,
        target=ctx.target,
        targets=ctx.targets,
        data=data,
        affine=ctx.affine,
        seed=ctx.seed,
        threads=ctx.threads,
        shared=shared,
    )
