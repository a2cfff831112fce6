"""What a backend is: it brings a graph into the form that its devices take, writes it, and runs what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from edgec.backends.tail_program import TailProgram
from edgec.ir.graph import Graph
from edgec.passes.framework.base import Pass
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.framework.settling import settle
from edgec.passes.framework.target import Target

Feeds = Mapping[str, np.ndarray]
Runner = Callable[[Feeds], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Emitted:
    """What a backend wrote.

    Attributes:
        files: paths relative to the target's folder.
        model: the one of them that runs.
        sqnr_db: the emitted model against the graph that it was made from, measured on the probes.
        fits: whether it fits the device's memory; ``None`` where that cannot be told.
        notes: what a user should know, in whole sentences.
        check: everything that was measured on the emitted files.
    """

    files: list[str]
    model: str
    sqnr_db: float
    fits: bool | None
    notes: list[str] = field(default_factory=list)
    check: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Beside:
    """What a backend may want beside the graph that it emits.

    Attributes:
        floats: the same network in front of the passes that ran for this target only; it may be changed.
        samples: all of the calibration data as the graph takes them, once.
        results: what the original network's outputs mean and how pictures become its input, as results.json says it;
            ``None`` where that is not known.
        tail: what stood behind the place where the network was cut, for numpy.
    """

    floats: Graph | None = None
    samples: Iterable[Feeds] = ()
    results: Mapping[str, Any] | None = None
    tail: TailProgram | None = None


#: Nothing beside the graph.
ALONE = Beside()


class Backend(Protocol):
    """One device family."""

    name: ClassVar[str]

    def missing(self) -> list[str]:
        """What this machine lacks to do everything, a sentence each; empty when nothing is."""
        ...

    def legalization(self, target: Target) -> Sequence[Pass]:
        """The passes that rewrite, exactly and before quantization, what the target has no operator for.

        They raise EmitError where an operator cannot be lowered; the line names it and what would help.
        """
        ...

    def emit(
        self, graph: Graph, target: Target, folder: Path, probes: Sequence[Feeds], beside: Beside = ALONE
    ) -> Emitted:
        """Writes the files for ``target`` into ``folder`` and checks them by running them on ``probes``.

        Args:
            graph: what the passes left; it may be changed.
            target: the board.
            folder: where the files go.
            probes: a few feeds as ``graph`` takes them.
            beside: what else there is.
        """
        ...

    def runner(self, graph: Graph, folder: Path) -> Runner:
        """Runs the emitted model on feeds as ``graph`` takes them, in float and in ONNX's layout."""
        ...

    def invoker(self, model: Path) -> Callable[[], None] | None:
        """Loads an emitted model and returns one inference on fixed noise, on one thread, for timing.

        ``None`` where a time on this machine says nothing about the device.
        """
        ...


@runtime_checkable
class Configurable(Protocol):
    """A backend whose targets take options in the recipe: ``targets: [{jetson-orin-nano: {profiles: ...}}]``."""

    def configured(self, target: Target, options: Mapping[str, Any], where: Callable[..., str]) -> Target:
        """The target with these options.

        Args:
            target: as its profile has it.
            options: as they were written.
            where: how an error begins: ``where("profiles", "x")`` is the place of that option's entry.

        Raises:
            UsageError: an option is unknown or has no such value.
        """
        ...

    def pinned(self, target: Target) -> Mapping[str, tuple[int, ...]]:
        """The shapes that the target's options give to inputs which the model leaves open."""
        ...

    def accept(self, graph: Graph, target: Target) -> None:
        """Holds the options against the network, before any pass runs.

        Raises:
            UsageError: they do not fit it.
            EmitError: the network cannot be emitted with them.
        """
        ...


def legalize(graph: Graph, emitter: Backend, target: Target) -> None:
    """Runs a backend's :meth:`~Backend.legalization` on ``graph``, in place, without a look at what it computes.

    Raises:
        EmitError: an operator cannot be brought into those of the device.
        InternalError: a step left a broken graph.
    """
    config = RunConfig(target=target, original=graph.copy())
    for step in emitter.legalization(target):
        step.run(graph, Context(graph, config))
        settle(graph, f"backend '{emitter.name}'")
