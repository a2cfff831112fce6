"""Passes run from Python: on a model in whatever form, over data in whatever form.

>>> from edgec.passes import Fold, Pipeline, Prune, Quantize
>>> smaller = Pipeline([Fold(), Prune(macs=0.5)], data=edgec.Dataset(loader)).run("model.onnx")
>>> result = Pipeline([smaller_passes, Quantize(effort="max")], target="coral-dev-board", data=images).run(graph)
>>> result.sqnr_db, result.graph
>>> result.emit("build/coral")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from edgec.dataset import Dataset

if TYPE_CHECKING:
    from edgec.passes.framework.base import Pass
    from edgec.passes.framework.instruments import Instrument
    from edgec.passes.framework.target import Target
    from edgec.result import Result

Data: TypeAlias = "Dataset | Iterable[Any] | Callable[[], Iterable[Any]]"


class Pipeline:
    """Passes, one after the other, and what they may use.

    Args:
        steps: passes, and pipelines, whose passes stand in their place.
        target: the board that passes such as ``Quantize`` compile for, by its name or as a profile.
        data: the samples: one set for all uses, or by role: ``calibration``, ``train``. A part of them is set aside,
            and what the result says of the network's quality is measured on that.
        seed: for every random choice.
        threads: how many threads may work, 0 for as many as there are cores; the result does not depend on it.
        instruments: told before and after each pass (:mod:`edgec.passes.framework.instruments`).
        progress: called with (done, total, what) by long passes.

    Raises:
        TypeError: a step is neither a pass nor a pipeline.
        edgec.ir.errors.UsageError: there is no such target.
    """

    def __init__(
        self,
        steps: Sequence[Pass | Pipeline],
        *,
        target: str | Target | None = None,
        data: Data | Mapping[str, Data] | None = None,
        seed: int = 0,
        threads: int = 0,
        instruments: Sequence[Instrument] = (),
        progress: Callable[[int, int, str], None] | None = None,
    ) -> None:
        from edgec.backends.registry import target as profile

        self.passes: tuple[Pass, ...] = tuple(_flat(steps))
        self.target = profile(target, "Pipeline: target") if isinstance(target, str) else target
        self.data = {role: _dataset(given) for role, given in self._by_role(data).items()}
        self.seed, self.threads = seed, threads or os.cpu_count() or 1
        self.instruments, self.progress = tuple(instruments), progress

    @classmethod
    def parse(cls, text: str, **options: Any) -> Pipeline:
        """A pipeline from its text, as :func:`str` gives it: ``fold,prune{macs=0.5},quantize{effort=max}``.

        Args:
            text: passes and their options.
            options: those of the constructor.

        Raises:
            edgec.ir.errors.UsageErrors: the text is none, or names no pass or option.
        """
        from edgec.passes.framework.pipeline_text import parse_passes

        return cls(parse_passes(text), **options)

    def __str__(self) -> str:
        from edgec.passes.framework.pipeline_text import text_of

        return text_of(self.passes)

    def __repr__(self) -> str:
        return f"Pipeline({str(self)!r})"

    def __len__(self) -> int:
        return len(self.passes)

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.passes)

    def run(self, model: Any, example_inputs: Any = None, *, inputs: Mapping[str, Any] | None = None) -> Result:
        """Runs the passes on a copy of a model.

        Args:
            model: what :func:`edgec.load` takes.
            example_inputs: what a torch module is called with.
            inputs: as in :func:`edgec.load`.

        Raises:
            edgec.ir.errors.EdgecError: what is wrong, where, and how to fix it.
        """
        from threadpoolctl import threadpool_limits

        from edgec import load
        from edgec.backends.registry import backend
        from edgec.frontends.datasets import inputs_of
        from edgec.passes.framework.context import RunConfig
        from edgec.passes.framework.legalization import planned
        from edgec.passes.framework.pass_manager import PassManager
        from edgec.passes.framework.planner import facts_of, plan_passes
        from edgec.result import Result
        from edgec.tools.quality import Quality
        from edgec.tools.samples import Samples

        graph = load(model, inputs=inputs) if example_inputs is None else load(model, example_inputs)
        used = frozenset({"calibration"}).union(*(step.uses for step in self.passes))
        roles = used & set(self.data)
        plan = plan_passes(self.passes, source="Pipeline", roles=roles, facts=facts_of(graph))
        with threadpool_limits(limits=1):
            original = graph.copy()
            sets = {role: self.data[role].bound(inputs_of(graph)) for role in sorted(roles)}
            samples = Samples.parted(sets, hold_out=max((_held_out(step) for step in self.passes), default=0.0))
            quality = Quality(original, samples, self.seed, graph.name)
            config = RunConfig(
                targets=() if self.target is None else (self.target,),
                data=samples.fit,
                seed=self.seed,
                threads=self.threads,
                original=original,
                progress=self.progress,
            )
            manager = PassManager(quality.reference(), config, instruments=self.instruments)
            for instrument in self.instruments:
                instrument.start(graph)
            records = manager.run(graph, plan.shared)
            if self.target is not None:
                emitter = backend(self.target.backend)
                steps = planned(emitter.legalization(self.target), emitter.name)
                records += [record for record in manager.run(graph, steps, self.target) if record.did]
            floats = graph.copy()
            records += manager.run(graph, plan.per_target, self.target)
            return Result.of(original, floats, graph, records, quality, samples, replace(config, target=self.target))

    def _by_role(self, data: Any) -> Mapping[str, Any]:
        if data is None:
            return {}
        if isinstance(data, Mapping):
            unknown = sorted(set(data) - {"calibration", "train"})
            if unknown:
                raise TypeError(f"data has the roles 'calibration' and 'train', not '{unknown[0]}'")
            return data
        one = _dataset(data)
        return {"calibration": one, "train": one}


def _flat(steps: Iterable[Pass | Pipeline]) -> Iterator[Pass]:
    from edgec.passes.framework.base import Pass

    for step in steps:
        if isinstance(step, Pipeline):
            yield from step.passes
        elif isinstance(step, Pass):
            yield step
        else:
            raise TypeError(f"a step is a pass such as Fold(), or a Pipeline, not {step!r}")


def _dataset(data: Any) -> Dataset:
    return data if isinstance(data, Dataset) else Dataset(data)


def _held_out(step: Pass) -> float:
    from edgec.passes.train.training_pass import TrainingPass

    return step.hold_out if isinstance(step, TrainingPass) else 0.0
