"""A compilation, from the model and the recipe to the output folder (the README draws it)."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from edgec import __version__
from edgec.backends.protocol import Backend, Configurable
from edgec.backends.registry import backend, target
from edgec.backends.tail_program import TailProgram, tail_of
from edgec.frontends.datasets import inputs_of
from edgec.frontends.heads import RESULTS, results_of
from edgec.frontends.model import Pins, open_model
from edgec.frontends.preprocess import Preprocess
from edgec.frontends.recipe import Recipe, load_recipe
from edgec.frontends.sources import Source, opened
from edgec.ir.cost import Cost
from edgec.ir.errors import InputError, UsageError
from edgec.ir.execution import seeded_feeds
from edgec.ir.files import save
from edgec.ir.graph import Graph
from edgec.ir.valid_files import as_written
from edgec.passes.calibration.evaluate import runner
from edgec.passes.calibration.requirements import Reached
from edgec.passes.framework.context import RunConfig
from edgec.passes.framework.instruments import Dumps, Instrument
from edgec.passes.framework.legalization import Legalization
from edgec.passes.framework.pass_manager import PassManager
from edgec.passes.framework.planner import INITIAL_FACTS, Plan, facts_of, plan
from edgec.passes.framework.record import Record
from edgec.passes.framework.reference import Reference
from edgec.passes.framework.target import Target
from edgec.passes.train.training_pass import TrainingPass
from edgec.tools import report as reports
from edgec.tools.emitting import Emission, Failures
from edgec.tools.fetching import Fetched, clear
from edgec.tools.output import output_folder, write_json, write_manifest
from edgec.tools.processes import is_first
from edgec.tools.progress import Progress
from edgec.tools.quality import Quality, metric_entries, requirements
from edgec.tools.samples import Samples
from edgec.tools.suspicions import suspicions
from edgec.tools.timing import Timing
from edgec.tools.watching import Watched, as_text, model_hashes


@dataclass(frozen=True)
class Job:
    """What to compile, and how.

    Attributes:
        model: where the model comes from.
        recipe: the recipe, or its file.
        output: the folder to leave; ``build/<model's stem>`` by default.
        pins: static shapes, or values, by input name.
        cuts: tensors or nodes to end the network at.
        threads: how many threads may work; the outputs do not depend on it.
        instruments: what watches the pipeline.
        timing: time the models (latency and memory); without it the report's entries are null.
        build: build the engines of bundles that this machine is one for.
        traceback: show on stderr where the error of a target that fails comes from.
        progress: what the user is told meanwhile.
    """

    model: Source
    recipe: Path | Recipe
    output: Path | None = None
    pins: Pins = field(default_factory=dict)
    cuts: Sequence[str] = ()
    threads: int = 0
    instruments: Sequence[Instrument] = ()
    timing: bool = True
    build: bool = False
    traceback: bool = False
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))

    @property
    def place(self) -> Path:
        """The output folder."""
        return self.output or Path("build") / self.model.stem


def compile_model(job: Job) -> dict[str, Any]:
    """Compiles a model by a recipe and leaves the output folder; returns the report.

    A target that cannot be emitted has an ``error`` in the report, and the others are emitted.

    Raises:
        EdgecError: see :mod:`edgec.ir.errors` for what each class means; that of a target only where every target
            fails. The old output is whole then.
    """
    # One BLAS thread at a time: how a sum is split over threads changes its last bits. Passes that have independent
    # layers work on them in parallel instead.
    with threadpool_limits(limits=1), ExitStack() as stack:
        if not is_first():  # of several processes that train together: what it makes, the first one makes too
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgec-")))
            job = replace(job, output=scratch / "out", instruments=(), timing=False)
        return _Run(job).run()


class _Run:
    """One compilation; its attributes are what the stages hand on."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.threads = job.threads or os.cpu_count() or 1
        self.recipe: Recipe = job.recipe if isinstance(job.recipe, Recipe) else load_recipe(job.recipe, data=False)
        self.notes: list[str] = []
        self.targets: list[tuple[Target, Backend]] = []
        self.timing = Timing(job.timing, job.progress)
        for index, entry in enumerate(self.recipe.targets):
            where = partial(self.recipe.where, "targets", index)
            found = target(entry.name, where())
            emitter = backend(found.backend)
            if entry.options and not isinstance(emitter, Configurable):
                what = f"has options, and {entry.name} takes none"
                raise UsageError(where(), what, f"write - {entry.name}")
            if isinstance(emitter, Configurable):
                found = emitter.configured(found, entry.options, partial(where, entry.name))
            self.targets.append((found, emitter))
        # Before the model is opened it is taken to be float; what it really is is checked again behind that.
        self.plan = self._plan(INITIAL_FACTS)
        self.recipe.check_data()
        section = self.recipe.data
        self.preprocess = Preprocess(section.preprocess) if section.preprocess is not None else None

    def run(self) -> dict[str, Any]:
        job, progress = self.job, self.job.progress
        dumps = [instrument.folder for instrument in job.instruments if isinstance(instrument, Dumps)]
        watched = Watched()
        with output_folder(job.place, self._inputs(), dumps) as folder, watched.whole_run():
            progress.stage(f"reading {job.model.name}")
            watched.data(self._data_files())
            watched.model([] if job.model.file is None else [job.model.file])
            with opened(job.model) as path:
                watched.onnx(path)
                graph = open_model(path, job.pins, job.cuts, self._open_shapes(), self.notes)
                self.hashes = model_hashes(job.model, watched, path)
                whole = open_model(path, job.pins, (), self._open_shapes()) if job.cuts else graph.copy()
            self.plan = self._plan(facts_of(graph))
            entered = self._enter(graph)
            boards, failures = [board for board, _ in self.targets], Failures(job.traceback)
            emitting = [(board, emitter) for board, emitter in self.targets if failures.accepted(board, emitter, graph)]
            failures.raise_for_all_of(boards)
            self._open_data(graph)
            results, tail = self._results(graph, whole, folder, changed=bool(entered))
            original = graph.copy()
            progress.stage("measuring the original")
            behind = None if tail is None else (whole, tail.tail())
            self.quality = Quality(original, self.samples, self.recipe.seed, job.model.name, behind)
            reference = self.quality.reference()
            for instrument in job.instruments:
                instrument.start(graph)
            self.notes += suspicions(original, self.quality)
            baseline = self._baseline(original)
            pipeline = PassManager(
                reference,
                RunConfig(
                    targets=tuple(board for board, _ in emitting),
                    data=self.samples.fit,
                    affine=self.affine,
                    seed=self.recipe.seed,
                    threads=self.threads,
                    original=original,
                    metric=self.quality.choosing,
                    require=self.recipe.require.asked(),
                    resolver=Fetched(self.recipe),
                    checkpoints=self._checkpoints,
                    progress=progress,
                ),
                instruments=_Staged.around(job.instruments, progress),
                repro=job.place.parent / "repro",
            )
            records = entered + pipeline.run(graph, self.plan.shared[self.plan.entry :])
            save(graph, folder / "model.onnx")
            as_written(folder / "model.onnx", reference.feeds(graph)[:1], "model.onnx", error=InputError)
            compressed, reached = self._compressed(graph, folder)
            emission = Emission(
                pipeline, self.plan.per_target, self.samples.fit, self.quality, folder, self.timing, job.build,
                failures, progress, results, tail, [reached],
            )  # fmt: skip
            entries = {board.name: emission.attempt(board, emitter, graph.copy()) for board, emitter in emitting}
            failures.raise_for_all_of(boards)
            targets = failures.entries(entries, boards)
            judged = requirements(
                self.recipe.require.asked(), baseline, compressed, emission.reached, self.quality, targets,
                self.recipe.require.confidence,
            )  # fmt: skip
            report = self._report(baseline, compressed, records, targets, judged, len(reference.probes))
            report["results"] = results
            progress.stage("writing the report")
            write_json(folder / "report.json", report)
            reports.write_html(folder / "report.html", report)
            write_manifest(folder, self._manifest_head())
        clear(self._checkpoints)
        return report

    @property
    def _recipe_name(self) -> str:
        return as_text(Path(self.recipe.file).name)

    @property
    def _checkpoints(self) -> Path:
        """What a run that is killed leaves for the next."""
        return self.job.place.parent / f"{self.job.place.name}.checkpoints"

    def _inputs(self) -> list[Path]:
        own = [path for path in (self.job.model.file, self.job.recipe) if isinstance(path, Path)]
        labels = self.recipe.results.labels
        return [*own, *self._data_files(), *(() if labels is None else (labels,))]

    def _data_files(self) -> list[Path]:
        paths: list[Path] = []
        for _, spec in self.recipe.data.sets():
            paths += [*(spec.images or ()), *(path for path in (spec.arrays, spec.labels) if isinstance(path, Path))]
        return paths

    # -- what goes in -------------------------------------------------------------------------------------------------

    def _open_shapes(self) -> dict[str, tuple[int, ...]]:
        """What inputs that the model leaves open get, where the recipe's targets say it."""
        found: dict[str, tuple[int, ...]] = {}
        for board, emitter in self.targets:
            if isinstance(emitter, Configurable):
                found = {**emitter.pinned(board), **found}
        return found

    def _plan(self, facts: frozenset[str]) -> Plan:
        steps = [(step.name, step.options) for step in self.recipe.passes]
        roles = {role for role in ("calibration", "train", "eval") if getattr(self.recipe.data, role) is not None}
        return plan(steps, where=lambda index: self.recipe.where("passes", index), roles=roles, facts=facts)

    def _enter(self, graph: Graph) -> list[Record]:
        """Runs the passes that change what the network takes: what is behind them is the original for all others."""
        steps = self.plan.shared[: self.plan.entry]
        if not steps:
            return []
        affine = {} if self.preprocess is None else self.preprocess.affine_by_input(inputs_of(graph))
        reference = Reference(graph, seeded_feeds(graph, self.recipe.seed))
        pipeline = PassManager(
            reference,
            RunConfig(affine=affine, seed=self.recipe.seed),
            instruments=_Staged.around([], self.job.progress),
            repro=self.job.place.parent / "repro",
        )
        return pipeline.run(graph, steps)

    def _open_data(self, graph: Graph) -> None:
        inputs = inputs_of(graph)
        asked = self.recipe.require.asked()
        steps = [item.step for item in self.plan]
        self.samples = Samples.opened(
            self.recipe.data,
            self.preprocess,
            inputs,
            hold_out=max((step.hold_out for step in steps if isinstance(step, TrainingPass)), default=0.0),
            by_metric=any(step.chooses_by_metric(asked) for step in steps),
        )
        self.affine = {} if self.preprocess is None else self.preprocess.affine_by_input(inputs)

    def _results(
        self, graph: Graph, whole: Graph, folder: Path, *, changed: bool
    ) -> tuple[dict[str, Any] | None, TailProgram | None]:
        """What the outputs mean, and what computes them where the network was cut, written into the folder.

        Pictures go in only where no pass ``changed`` the inputs.
        """
        tail: TailProgram | None = None
        if self.job.cuts:
            behind = tail_of(whole, {tensor.name for tensor in graph.outputs})
            if isinstance(behind, str):
                self.notes.append(f"what stood behind the cut is not in the folders: {behind}")
                whole = graph
            else:
                tail = behind
                tail.write(folder)
        data = self.recipe.data.model_copy(update={"preprocess": None}) if changed else self.recipe.data
        results = results_of(whole, self.recipe.results, data, self.recipe.where("results"))
        if results is not None:
            write_json(folder / RESULTS, results)
        return results, tail

    # -- what comes out -----------------------------------------------------------------------------------------------

    def _baseline(self, original: Graph) -> dict[str, Any]:
        entry = {**Cost(original).as_dict(), **metric_entries(self.quality.baseline)}
        return {**entry, **self.timing.entries("cpu", original, "the original")}

    def _compressed(self, graph: Graph, folder: Path) -> tuple[dict[str, Any], Reached]:
        speed = self.timing.entries("cpu", folder / "model.onnx", "the compressed network")
        self.job.progress.stage("measuring the compressed network")
        reached, entries = self.quality.measured(runner(graph))
        self.notes += self.quality.notes(entries)
        return {**Cost(graph).as_dict(), **entries, **speed}, reached

    def _report(
        self,
        baseline: dict[str, Any],
        compressed: dict[str, Any],
        records: Sequence[Record],
        targets: dict[str, Any],
        judged: dict[str, dict[str, Any]],
        compared: int,
    ) -> dict[str, Any]:
        quality = self.quality
        return {
            "edgec": __version__,
            "model": as_text(self.job.model.name),
            "recipe": self._recipe_name,
            "name": self.recipe.name or as_text(self.job.model.stem),
            "machine": platform.machine(),
            "baseline": baseline,
            "compressed": compressed,
            "passes": [reports.pass_entry(record, unseen=quality.probes.unseen) for record in records],
            "measured_on": quality.measured_on(compared),
            "quality": quality.entry(baseline, compressed),
            "targets": targets,
            "require": judged,
            "notes": [*self.notes, *self.samples.notes],
        }

    def _manifest_head(self) -> dict[str, Any]:
        hashes: dict[str, str | list[str]] = {
            role: data.content_hash() for role, data in sorted(self.samples.sets.items())
        }
        if self.samples.whole is not None:
            hashes["eval"] = [data.content_hash() for data in self.samples.whole.data]
        return {
            "edgec": __version__,
            **self.hashes,
            "recipe": {"name": self._recipe_name, "sha256": self.recipe.sha256},
            "data": hashes,
        }


class _Staged(Instrument):
    """Tells the user which pass runs."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    @classmethod
    def around(cls, instruments: Sequence[Instrument], progress: Progress) -> list[Instrument]:
        return [cls(progress), *instruments]

    def before(self, item: Any, graph: Graph) -> None:
        if not isinstance(item.step, Legalization):  # which all together are one stage
            self.progress.stage(f"{item.place} {item.step.name}")
