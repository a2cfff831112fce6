"""What a pass sees of the run besides the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from edgec.ir.analyses import Analyses, Analysis
from edgec.ir.estimates import Scores
from edgec.ir.execution import batch_size, filled
from edgec.ir.graph import Graph, Node
from edgec.passes.calibration.dataset import DataSet, Part
from edgec.passes.framework import input_domain
from edgec.passes.framework.cache import RunCache
from edgec.passes.framework.remark import Remark
from edgec.passes.framework.target import Target

A = TypeVar("A", bound=Analysis)
Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


class MetricEvaluator(Protocol):
    """The recipe's metric, as passes that choose by it see it."""

    @property
    def name(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...

    def measure(self, run: Run) -> float:
        """The metric of a network that takes the original's feeds, a batch at a time."""
        ...

    def scores(self, run: Run) -> Scores:
        """The same with what each sample scored."""
        ...


class RecipeResolver(Protocol):
    """What a recipe names and only the frontends can fetch; paths are relative to the recipe."""

    def function(self, spec: str, where: str) -> Callable[..., Any]:
        """What ``module:function`` names; errors begin with ``where``."""
        ...

    def model(self, path: str, where: str) -> Graph:
        """The network of an ONNX file, normalized as the one that is compiled."""
        ...


@dataclass(frozen=True)
class RunConfig:
    """What a run is for and what it may use: the same for every pass of it, and for the tries inside of passes.

    Attributes:
        target: the board compiled for; ``None`` in the part of the recipe that all targets share.
        targets: all boards that the recipe compiles for.
        data: data sets by role: ``calibration`` and ``train``, without the samples that are reported on, and
            ``validation``, training samples that no pass is fitted to and that training chooses by.
        affine: by input name, the (scale, offset) a channel with which preprocessing turns raw pixels into that input.
        seed: for every random choice.
        threads: how many threads may work; results must not depend on it.
        original: the model as it came in, for passes that learn from it; ``None`` where there is none.
        metric: the recipe's metric, on samples that are not reported on; ``None`` where it has none.
        require: what the recipe requires, by the names that it has there.
        resolver: fetches what a recipe names; ``None`` where there is no recipe.
        checkpoints: a folder for the state of long steps, which a run that is killed leaves for the next.
        progress: called with (done, total, what) by long steps.
        validated_outside: whether the caller judges what a pass makes on samples that he holds out. A pass that would
            hold out samples, to decide between a fit to the data and none, then fits to all that it is given.
    """

    target: Target | None = None
    targets: tuple[Target, ...] = ()
    data: Mapping[str, DataSet] = field(default_factory=dict)
    affine: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    seed: int = 0
    threads: int = 1
    original: Graph | None = None
    metric: MetricEvaluator | None = None
    require: Mapping[str, float] = field(default_factory=dict)
    resolver: RecipeResolver | None = None
    checkpoints: Path | None = None
    progress: Callable[[int, int, str], None] | None = None
    validated_outside: bool = False

    @property
    def boards(self) -> tuple[Target, ...]:
        """All boards that what is made now may be for."""
        return self.targets if self.target is None else (*self.targets, self.target)


class Context:
    """One pass on one graph: the run's configuration, the graph's analyses, and what the pass reports.

    Attributes:
        config: of the run.
        cache: what passes keep for each other within the run.
        curves: what this pass wants drawn, by name: a value a step.
        done, left: what was done and missed so far in this pass.
    """

    def __init__(self, graph: Graph, config: RunConfig | None = None, cache: RunCache | None = None) -> None:
        self.config = RunConfig() if config is None else config
        self.cache = RunCache() if cache is None else cache
        self.done: list[Remark] = []
        self.left: list[Remark] = []
        self.curves: dict[str, list[float]] = {}
        self._analyses = Analyses(graph)

    @property
    def target(self) -> Target | None:
        """The board compiled for."""
        return self.config.target

    @property
    def data(self) -> Mapping[str, DataSet]:
        """Data sets by role."""
        return self.config.data

    @property
    def seed(self) -> int:
        """For every random choice."""
        return self.config.seed

    @property
    def threads(self) -> int:
        """How many threads may work."""
        return self.config.threads

    def derive(self, graph: Graph, **changes: Any) -> Context:
        """A context for a try inside a pass: of the same run, without remarks.

        Args:
            graph: what is tried on.
            changes: fields of :class:`RunConfig` that differ, ``data`` above all.
        """
        return Context(graph, replace(self.config, **changes) if changes else self.config, self.cache)

    def having(self, **changes: Any) -> Context:
        """This context for a run of another configuration: what is reported to either, both have.

        Args:
            changes: fields of :class:`RunConfig` that differ.
        """
        other = copy(self)
        other.config = replace(self.config, **changes)
        return other

    def get(self, kind: type[A]) -> A:
        """The analysis of that class for the graph as it was when the pass began; kept until the pass ends.

        A pass that asks again after it has rewritten the graph calls :meth:`changed` first.
        """
        return self._analyses.get(kind)

    def changed(self) -> None:
        """Drops the analyses: the graph is no longer what they describe."""
        self._analyses.drop()

    def did(self, node: Node | str, what: str, **figures: float) -> None:
        """Reports a change: where, and what in a few words (``Tucker-2, ranks 24 and 31``)."""
        self.done.append(Remark(_label(node), what, figures))

    def missed(self, node: Node | str, reason: str, **figures: float) -> None:
        """Reports a node that this pass could have changed and did not, and why."""
        self.left.append(Remark(_label(node), reason, figures))

    def feeds(self, graph: Graph, role: str, numbers: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
        """The samples of a data set as ``graph`` takes them: its batch size, its input domain.

        A last batch that is short is filled up with its own last sample; the data set has been checked against the
        model's inputs already.

        Args:
            graph: whose inputs are fed.
            role: of the data set.
            numbers: of the batches that are read, rising; all by default.
        """
        size, data = batch_size(graph), self.data[role]
        if numbers is not None:
            data = Part(data, tuple(numbers), size)
        for feeds in data.batches(size):
            full = {name: filled(values, size) for name, values in feeds.items()}
            yield input_domain.enter(graph, full)

    def progress(self, done: int, total: int, what: str = "") -> None:
        """Tells the user how far a long step is."""
        if self.config.progress is not None:
            self.config.progress(done, total, what)


def _label(node: Node | str) -> str:
    return node if isinstance(node, str) else node.name or node.op
