"""The compressed network, emitted for one target after the other, each file run and measured."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgec.backends.protocol import Backend, Beside, Configurable
from edgec.backends.tail_program import TailProgram
from edgec.backends.tensorrt.bundle import UNBUILT
from edgec.ir.cost import Cost
from edgec.ir.errors import EdgecError
from edgec.ir.graph import Graph
from edgec.passes.calibration.dataset import DataSet
from edgec.passes.calibration.requirements import Reached, decibel
from edgec.passes.framework import input_domain
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.framework.legalization import planned
from edgec.passes.framework.pass_manager import PassManager
from edgec.passes.framework.planner import Planned
from edgec.passes.framework.record import Record
from edgec.passes.framework.target import Target
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.report.remarks import nothing_quantized
from edgec.passes.quantize.report.saturation import saturation
from edgec.tools import report as reports
from edgec.tools.building import build_here, is_bundle
from edgec.tools.failed_targets import FAILURES, all_failed, failed_entry
from edgec.tools.progress import Progress
from edgec.tools.quality import Quality
from edgec.tools.timing import Timing


@dataclass
class Failures:
    """Targets that cannot be emitted, and why.

    Attributes:
        traceback: show on stderr where each error comes from.
        errors: by the target's name.
    """

    traceback: bool = False
    errors: dict[str, EdgecError] = field(default_factory=dict)

    def add(self, board: Target, error: EdgecError) -> None:
        """Keeps why a target is not emitted."""
        self.errors[board.name] = error
        if self.traceback:
            traceback.print_exception(error)

    def accepted(self, board: Target, emitter: Backend, graph: Graph) -> bool:
        """Whether a target can take the network; what speaks against it is kept."""
        if isinstance(emitter, Configurable):
            try:
                emitter.accept(graph, board)
            except FAILURES as error:
                self.add(board, error)
                return False
        return True

    def raise_for_all_of(self, boards: Sequence[Target]) -> None:
        """Without a single target there is nothing to leave: an earlier output is worth more."""
        if len(self.errors) == len(boards):
            raise all_failed(self.errors)

    def entries(self, emitted: dict[str, dict[str, Any] | None], boards: Sequence[Target]) -> dict[str, Any]:
        """The report's entries of all targets, emitted or not, in the recipe's order."""
        return {board.name: emitted.get(board.name) or failed_entry(board, self.errors[board.name]) for board in boards}


@dataclass
class Emission:
    """Emits for targets.

    Attributes:
        pipeline: runs what depends on the target.
        steps: that.
        data: what passes are fitted to, by role.
        quality: measures what was emitted.
        folder: where each target's own folder is made.
        timing: times what was emitted.
        build: build the engines of bundles that this machine is one for.
        failures: what could not be emitted.
        progress: what the user is told.
        results: what the outputs mean, where that is known.
        tail: what stood behind the place where the network was cut.
        reached: what each emitted network reaches, in order.
    """

    pipeline: PassManager
    steps: Sequence[Planned]
    data: Mapping[str, DataSet]
    quality: Quality
    folder: Path
    timing: Timing
    build: bool
    failures: Failures
    progress: Progress
    results: Mapping[str, Any] | None = None
    tail: TailProgram | None = None
    reached: list[Reached] = field(default_factory=list)

    def attempt(self, board: Target, emitter: Backend, graph: Graph) -> dict[str, Any] | None:
        """Emits ``graph`` for one target, changing it, and returns its entry of the report.

        ``None`` where that fails: nothing of the target is left then, and why it failed is kept.
        """
        own = self.folder / board.name
        where, pipeline = f"backend '{emitter.name}'", self.pipeline
        try:
            self.progress.stage(f"{board.name}: legalizing")
            with pipeline.reproducible(where, graph, self.steps, board):
                legalization = planned(emitter.legalization(board), emitter.name)
            records = [r for r in pipeline.run(graph, legalization, board, behind=self.steps) if r.did]
            floats = graph.copy()
            records += pipeline.run(graph, self.steps, board)
            own.mkdir()
            with pipeline.reproducible(where, graph, (), board):
                return self._emit(board, emitter, graph, floats, records)
        except FAILURES as error:
            shutil.rmtree(own, ignore_errors=True)
            self.failures.add(board, error)
            return None

    def _emit(
        self, board: Target, emitter: Backend, graph: Graph, floats: Graph, records: Sequence[Record]
    ) -> dict[str, Any]:
        own, probes = self.folder / board.name, self.quality.probes
        self.progress.stage(f"{board.name}: emitting")
        # A backend may change the graph that it emits; what it made is measured against the one it was given.
        data = self.data
        samples = Context(graph, RunConfig(data=data)).feeds(graph, "calibration") if "calibration" in data else ()
        feeds = self.pipeline.reference.feeds(graph)
        emitted = emitter.emit(graph.copy(), board, own, feeds, Beside(floats, samples, self.results, self.tail))
        self.progress.stage(f"{board.name}: measuring")
        run = emitter.runner(graph, own)
        reached, entries = self.quality.measured(lambda feeds: run(input_domain.enter(graph, feeds)))
        entered = [input_domain.enter(graph, feeds) for feeds in probes.feeds if probes.unseen]
        beyond = saturation(graph, entered) if entered else []
        notes = [*_unquantized(board, graph, records), *self.quality.notes(entries), *emitted.notes]
        entry: dict[str, Any] = {
            "title": board.title,
            "files": [f"{board.name}/{name}" for name in emitted.files],
            "file_bytes": (own / emitted.model).stat().st_size,
            **entries,
            "sqnr_db_to_graph": decibel(emitted.sqnr_db),
            "saturation": [reports.saturation_entry(one) for one in beyond if one.count],
            "fits": emitted.fits,
            "notes": [*notes, *emitter.missing()],
            "cost": Cost(graph).as_dict(),
            "passes": [reports.pass_entry(record, unseen=probes.unseen) for record in records],
        }
        entry |= self.timing.entries(emitter.name, own / emitted.model, f"{board.name}/{emitted.model}")
        if self.build and is_bundle(own):
            entry |= self._built(board, entry)
        self.reached.append(reached)
        return entry

    def _built(self, board: Target, entry: dict[str, Any]) -> dict[str, Any]:
        """What building a bundle's engines here changes in its entry."""
        self.progress.stage(f"{board.name}: building engines")
        built = build_here(self.folder / board.name, board.name)
        kept = [note for note in entry["notes"] if not built.files or note != UNBUILT]
        return {
            "files": [*entry["files"], *(f"{board.name}/{name}" for name in built.files)],
            "notes": [*kept, built.note],
            "latency_ms": entry["latency_ms"] if built.latency_ms is None else round(built.latency_ms, 4),
        }


def _unquantized(board: Target, graph: Graph, records: Sequence[Record]) -> list[str]:
    """What to say where 'quantize' ran for a target that has 8-bit arithmetic, and left it without integers."""
    if board.scheme is None:
        return []
    left = [record.missed for record in records if record.name == Quantize.name]
    note = nothing_quantized(graph, left[-1]) if left else None
    return [] if note is None else [note]
