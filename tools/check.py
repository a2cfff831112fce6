"""``edgec check``: whether the recipe's preprocessing is what the network was trained with.

The usual preprocessings are tried on the recipe's labelled data, and what arrives at the network's first
BatchNormalization is compared with the statistics that training left there. Nothing is compiled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from edgec.frontends.chance import near_chance
from edgec.frontends.datasets import DataSet, Inputs, inputs_of, open_dataset
from edgec.frontends.input_statistics import Departure, departure
from edgec.frontends.metrics import Metric, open_metric
from edgec.frontends.model import Pins, open_model
from edgec.frontends.preprocess import Preprocess
from edgec.frontends.preprocess_variants import variants
from edgec.frontends.recipe import Recipe, load_recipe
from edgec.frontends.recipe_data import PreprocessSpec
from edgec.frontends.sources import Source, opened
from edgec.ir.errors import UsageError, printable
from edgec.ir.estimates import CONFIDENCE, Scores, worst_difference
from edgec.ir.execution import batch_size, filled
from edgec.ir.graph import Graph
from edgec.ir.sample_axis import without_sample_axis
from edgec.passes.calibration.evaluate import runner
from edgec.passes.framework import input_domain
from edgec.tools.console import print_table
from edgec.tools.options import print_notes
from edgec.tools.quality import metric_entries

AS_WRITTEN = "as written"
# Samples of each data set that every preprocessing is tried on, and batches that statistics are taken of.
_MOST_SAMPLES, _MOST_BATCHES = 256, 32


@dataclass(frozen=True)
class CheckJob:
    """What to check.

    Attributes:
        model: the network.
        recipe: for its data.
        pins, cuts: as :class:`edgec.tools.compile.Job` has them.
    """

    model: Source
    recipe: Path
    pins: Pins = field(default_factory=dict)
    cuts: Sequence[str] = ()


def check(job: CheckJob) -> dict[str, Any]:
    """Tries preprocessings; returns what each reached, by name, and what to make of it.

    Raises:
        UsageError: the recipe has no data, or its preprocessing does not make what the model takes.
        InputError: the model or the data cannot be used.
    """
    recipe = load_recipe(job.recipe, data=False)
    section = recipe.data
    if section.calibration is None and section.train is None and section.eval is None:
        raise UsageError(
            str(job.recipe), "has no data to check with", "add data.eval, with labels, or data.calibration"
        )
    recipe.check_data()
    with threadpool_limits(limits=1), opened(job.model) as path:
        notes: list[str] = []
        graph = open_model(path, job.pins, job.cuts, notes=notes)
    print_notes(job.model.name, notes)
    rows = {name: _Row(graph, recipe, spec) for name, spec in _tried(recipe).items()}
    own = rows[AS_WRITTEN]
    better = [name for name, row in rows.items() if row.scores is not None and _beats(row, own)]
    best = max(better, key=lambda name: rows[name].goodness, default=None)
    return {
        "model": job.model.name,
        "recipe": job.recipe.name,
        "metric": None if own.metric is None else own.metric.name,
        "samples": None if own.scores is None else own.scores.samples,
        "preprocessings": {name: row.entry() for name, row in rows.items()},
        "best": best,
        "verdict": _verdict(rows, best),
    }


class _Row:
    """What one preprocessing reaches."""

    def __init__(self, graph: Graph, recipe: Recipe, spec: PreprocessSpec | None) -> None:
        section, inputs = recipe.data, inputs_of(graph)
        preprocess = None if spec is None else Preprocess(spec)
        self.metric: Metric | None = None
        self.scores: Scores | None = None
        if section.eval is not None:
            metric = open_metric(section.eval, preprocess, inputs)
            metric.whole = without_sample_axis(graph)
            self.metric = metric.restricted([_fewer(data) for data in metric.data])
            # The original against itself says nothing.
            if metric.name != "sqnr":
                run = runner(graph)
                self.scores = self.metric.scores(run, run, batch_size(graph))
        self.departure: Departure | None = departure(
            graph, _batches(graph, self._unlabelled(recipe, preprocess, inputs))
        )

    def _unlabelled(self, recipe: Recipe, preprocess: Preprocess | None, inputs: Inputs) -> DataSet:
        spec = recipe.data.calibration or recipe.data.train
        if spec is not None:
            return _fewer(open_dataset(spec, preprocess, inputs))
        assert self.metric is not None
        return self.metric.data[0]

    @property
    def goodness(self) -> float:
        """The metric, the higher the better."""
        assert self.metric is not None and self.scores is not None
        value = self.scores.value()
        return value if self.metric.higher_is_better else -value

    def entry(self) -> dict[str, Any]:
        apart = self.departure
        return {
            **metric_entries(self.scores),
            "batch_normalization": None
            if apart is None
            else {
                "node": apart.node,
                "mean": round(apart.mean, 3),
                "factor": round(min(apart.factor, 1e9), 3),
                "suspicious": apart.suspicious,
            },
        }


def _tried(recipe: Recipe) -> Mapping[str, PreprocessSpec | None]:
    spec = recipe.data.preprocess
    images = any(own.images for _, own in recipe.data.sets())
    return variants(spec) if spec is not None and images else {AS_WRITTEN: spec}


def _fewer(data: DataSet, most: int = _MOST_SAMPLES) -> DataSet:
    """At most so many samples, spread evenly."""
    if len(data) <= most:
        return data
    return data.subset(np.linspace(0, len(data) - 1, most).round().astype(int).tolist())


def _batches(graph: Graph, data: DataSet) -> Iterator[dict[str, np.ndarray]]:
    size = batch_size(graph)
    for feeds in _fewer(data, _MOST_BATCHES * size).batches(size):
        yield input_domain.enter(graph, {name: filled(values, size) for name, values in feeds.items()})


def _beats(row: _Row, own: _Row) -> bool:
    """Whether a preprocessing is better than the recipe's by more than chance."""
    assert row.scores is not None and own.scores is not None and own.metric is not None
    if row.goodness <= own.goodness:
        return False
    pair = (row.scores, own.scores) if own.metric.higher_is_better else (own.scores, row.scores)
    # By how much the better one leads at least, with that probability: the drop the other way round.
    drop = worst_difference(pair[1], pair[0], CONFIDENCE)
    return drop is None or drop < 0


def _verdict(rows: Mapping[str, _Row], best: str | None) -> str:
    own = rows[AS_WRITTEN]
    sentences = []
    if own.metric is not None and own.scores is not None:
        value = own.scores.value()
        if best is not None:
            other = rows[best].scores
            assert other is not None
            sentences.append(
                f"{own.metric.name} is {value:.2f} as written, {other.value():.2f} with {best}:"
                " write the preprocessing that the network was trained with"
            )
        elif (known := near_chance(own.metric, value)) is not None:
            sentences.append(
                f"{own.metric.name} is {value:.2f}, near the {known.value:.2f} of chance, and no usual preprocessing"
                " is better: check the order of the classes, the labels, and the model"
            )
        else:
            sentences.append(f"{own.metric.name} is {value:.2f} as written, and no usual preprocessing is better")
    apart = own.departure
    if apart is not None:
        fits = "do not look like" if apart.suspicious else "look like"
        sentences.append(f"at '{apart.node}' the samples {fits} what the network was trained on: {apart.words}")
    if not sentences:
        sentences.append("nothing tells: there are no labels, and the network has no BatchNormalization of its own")
    return "; ".join(sentences)


def print_check(report: Mapping[str, Any]) -> None:
    """The table of the preprocessings, and what to make of it."""
    entries = report["preprocessings"]
    judged = any(entry["metric"] is not None for entry in entries.values())
    compared = any(entry["batch_normalization"] is not None for entry in entries.values())
    columns = ["preprocessing"]
    columns += [report["metric"], "95 % interval"] if judged else []
    columns += ["means off by", "variances by"] if compared else []
    rows = []
    for name, entry in entries.items():
        row = [f"{name} *" if name == report["best"] else name]
        if judged:
            ends = entry["metric_interval"]
            row += [f"{entry['metric']:.4f}", "-" if ends is None else f"{ends[0]:.2f}..{ends[1]:.2f}"]
        apart = entry["batch_normalization"]
        if compared and apart is not None:
            row += [f"{apart['mean']:.2f} sigma", f"x {apart['factor']:.3g}"]
        rows.append(row)
    samples = "" if report["samples"] is None else f", {report['samples']:,} samples"
    print_table(f"{printable(report['model'])}: preprocessings{samples}", columns, rows, left=1)
    print(printable(report["verdict"]))


def as_json(report: Mapping[str, Any]) -> str:
    """The report for scripts."""
    return json.dumps(report, indent=2, allow_nan=False)


def exit_status(report: Mapping[str, Any]) -> int:
    """1 where another preprocessing is better than the recipe's, or samples do not look like the training's; else 0."""
    apart = report["preprocessings"][AS_WRITTEN]["batch_normalization"]
    return int(report["best"] is not None or (apart is not None and apart["suspicious"]))
