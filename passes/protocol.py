"""What a pass is, and what it may ask for.

A pass is a frozen dataclass: its fields are its options, and their types and :func:`pydantic.Field` bounds are the
schema that recipes are checked against. Here is a whole one::

    @dataclass(frozen=True)
    class Relu6(Pass):
        \"\"\"Bounds every Relu at ``bound``.\"\"\"

        name: ClassVar[str] = "relu6"
        effect: ClassVar[Effect] = "lossy"
        needs: ClassVar[frozenset[str]] = frozenset({"float"})
        bound: Annotated[float, Field(gt=0, description="the upper bound")] = 6.0

        def run(self, graph: Graph, ctx: Context) -> None:
            for node in [n for n in graph.nodes if n.op == "Relu"]:
                ...
                ctx.did(node, f"bounded at {self.bound}")

It is found under its entry point of the group ``edgec.passes``; edgec's own are registered the same way.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np

from edgec.ir.analyses import Analyses, Analysis
from edgec.ir.estimates import Scores
from edgec.ir.execution import batch_size, filled
from edgec.ir.graph import Graph, Node
from edgec.passes import input_domain
from edgec.passes.target import Target

Effect = Literal["exact", "lossy"]
A = TypeVar("A", bound=Analysis)


class DataSet(Protocol):
    """Samples that a recipe names, as feeds by the model's input names."""

    @property
    def source(self) -> str: ...

    @property
    def labels(self) -> np.ndarray | None: ...

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        """Feeds of at most ``size`` samples each, sample axis first, in a fixed order."""
        ...


class Judge(Protocol):
    """The recipe's metric, as passes that choose by it see it."""

    @property
    def name(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...

    def measure(self, run: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]) -> float:
        """The metric of a network that takes the original's feeds, a batch at a time."""
        ...

    def scores(self, run: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]) -> Scores:
        """The same with what each sample scored."""
        ...


class Outside(Protocol):
    """What a recipe names and only the frontends can fetch; paths are relative to the recipe."""

    def function(self, spec: str, where: str) -> Callable[..., Any]:
        """What ``module:function`` names; errors begin with ``where``."""
        ...

    def model(self, path: str, where: str) -> Graph:
        """The network of an ONNX file, normalised as the one that is compiled."""
        ...


@dataclass(frozen=True)
class Remark:
    """What a pass did, or could have done and did not, at one node."""

    node: str
    what: str
    figures: Mapping[str, float] = field(default_factory=dict)


class Context:
    """What a pass sees of the run besides the graph.

    Attributes:
        target: the board compiled for; ``None`` in the part of the recipe that all targets share.
        targets: all boards that the recipe compiles for.
        data: data sets by role: ``calibration`` and ``train``, without the samples that are reported on, and
            ``validation``, training samples that no pass is fitted to and that training chooses by.
        affine: by input name, the (scale, offset) a channel with which preprocessing turns raw pixels into that input.
        seed: for every random choice.
        threads: how many threads may work; results must not depend on it.
        shared: what passes keep for each other within a run (calibrated ranges, say), by their own keys.
        original: the model as it came in, for passes that learn from it; ``None`` where there is none.
        judge: the recipe's metric, on samples that are not reported on; ``None`` where it has none.
        require: what the recipe requires, by the names that it has there.
        outside: fetches what a recipe names; ``None`` where there is no recipe.
        checkpoints: a folder for the state of long steps, which a run that is killed leaves for the next.
        curves: what this pass wants drawn, by name: a value a step.
        done, left: what was done and missed so far in this pass.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        target: Target | None = None,
        targets: Sequence[Target] = (),
        data: Mapping[str, DataSet] | None = None,
        affine: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
        seed: int = 0,
        threads: int = 1,
        shared: dict[Any, Any] | None = None,
        original: Graph | None = None,
        judge: Judge | None = None,
        require: Mapping[str, float] | None = None,
        outside: Outside | None = None,
        checkpoints: Path | None = None,
        progress: Any = None,
    ) -> None:
        self.target = target
        self.targets = tuple(targets)
        self.data = dict(data or {})
        self.affine = dict(affine or {})
        self.require = dict(require or {})
        self.seed = seed
        self.threads = threads
        self.shared = {} if shared is None else shared
        self.original, self.judge, self.outside, self.checkpoints = original, judge, outside, checkpoints
        self.analyses = Analyses(graph)
        self.done: list[Remark] = []
        self.left: list[Remark] = []
        self.curves: dict[str, list[float]] = {}
        self._progress = progress

    @property
    def boards(self) -> tuple[Target, ...]:
        """All boards that what is made now may be for."""
        return self.targets if self.target is None else (*self.targets, self.target)

    def get(self, kind: type[A]) -> A:
        """The analysis of that class for the graph as it was when the pass began; kept until the pass ends.

        A pass that asks again after it has rewritten the graph calls :meth:`changed` first.
        """
        return self.analyses.get(kind)

    def changed(self) -> None:
        """Drops the analyses: the graph is no longer what they describe."""
        self.analyses.drop()

    def did(self, node: Node | str, what: str, **figures: float) -> None:
        """Reports a change: where, and what in a few words (``Tucker-2, ranks 24 and 31``)."""
        self.done.append(Remark(_label(node), what, figures))

    def missed(self, node: Node | str, reason: str, **figures: float) -> None:
        """Reports a node that this pass could have changed and did not, and why."""
        self.left.append(Remark(_label(node), reason, figures))

    def feeds(self, graph: Graph, role: str) -> Iterator[dict[str, np.ndarray]]:
        """The samples of a data set as ``graph`` takes them: its batch size, its input domain.

        A last batch that is short is filled up with its own last sample; the data set has been checked against the
        model's inputs already.
        """
        size = batch_size(graph)
        for feeds in self.data[role].batches(size):
            full = {name: filled(values, size) for name, values in feeds.items()}
            yield input_domain.enter(graph, full)

    def progress(self, done: int, total: int, what: str = "") -> None:
        """Tells the user how far a long step is."""
        if self._progress is not None:
            self._progress(done, total, what)


@dataclass(frozen=True)
class Pass(abc.ABC):
    """A rewrite of the graph, with its options as fields.

    Class attributes:
        name: what recipes call it.
        effect: ``exact`` passes keep the outputs within the rounding of the element type; ``lossy`` ones are measured.
        needs: facts that must hold before it (``float``, ``quantized``, ``trainable``).
        gives, breaks: facts that hold, or no longer hold, after it.
        uses: data roles that it cannot do without.
        per_target: whether it depends on the target; it and all that follows then run once for each.
        preserves: analyses that stay true although the pass has run.
        shares: options that say what part of the network stays; ``repeat`` in a recipe reaches them in steps.
    """

    name: ClassVar[str]
    effect: ClassVar[Effect]
    needs: ClassVar[frozenset[str]] = frozenset()
    gives: ClassVar[frozenset[str]] = frozenset()
    breaks: ClassVar[frozenset[str]] = frozenset()
    uses: ClassVar[frozenset[str]] = frozenset()
    per_target: ClassVar[bool] = False
    preserves: ClassVar[tuple[type[Any], ...]] = ()
    shares: ClassVar[frozenset[str]] = frozenset()

    @abc.abstractmethod
    def run(self, graph: Graph, ctx: Context) -> None:
        """Changes ``graph`` in place. Order and dead code are the pipeline's business.

        A mistake of the user's is raised as :class:`~edgec.ir.errors.UsageError` or ``InputError`` whose ``where``
        begins with the pass's name (``factorize: skip``); the pipeline puts the recipe's file and line in its place.
        """

    def missing_data(self, roles: frozenset[str]) -> str | None:
        """Which data role is wanted and absent, by this pass's options; ``None`` when all are there."""
        return next(iter(sorted(self.uses - roles)), None)

    def changes_inputs(self) -> bool:
        """Whether the network takes other inputs behind it: what it computes then is what later passes are held to."""
        return False

    def chooses_by_metric(self, require: Mapping[str, float]) -> bool:
        """Whether it chooses by ``data.eval``'s metric where there is one; the report then uses other samples of it.

        Args:
            require: what the recipe requires, by name.
        """
        return False

    def budget_db(self) -> float | None:
        """The least SQNR against the original model that this pass may leave, in dB."""
        return None


def _label(node: Node | str) -> str:
    return node if isinstance(node, str) else node.name or node.op
