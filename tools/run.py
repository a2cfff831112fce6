"""``edgec run``: what was emitted, or a model, run here on data, so that quality is compared target by target."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgec.backends.on_board.tail import Tail
from edgec.frontends.datasets import DataSet, open_dataset
from edgec.frontends.metrics import Metric, Run, Sqnr, open_metric, samples_of
from edgec.frontends.model import Pins, open_model
from edgec.frontends.recipe import Recipe, load_recipe, parse_data
from edgec.frontends.recipe_data import DataSpec, EvalSpec, PreprocessSpec
from edgec.frontends.sources import opened, source_of
from edgec.ir.errors import InputError, UsageError, printable
from edgec.passes.calibration.requirements import decibel, rounded
from edgec.tools.console import print_table
from edgec.tools.emitted_networks import ONNX, Network, in_onnxruntime, networks_in
from edgec.tools.options import print_notes
from edgec.tools.output import writing
from edgec.tools.quality import completed
from edgec.tools.shown import nothing_said, preprocess_of, print_said, results_in, said_of, tail_in, write_csv


@dataclass(frozen=True)
class RunJob:
    """What to run on what.

    Attributes:
        place: an output folder, a target's folder, or a model: a file, or ``module:function``.
        recipe: for its ``data.preprocess`` and ``data.eval``.
        images, arrays: samples, in the place of those of ``data.eval``.
        labels: of the images: ``folders``, or a file of file and label.
        outputs: an .npz to write all outputs to.
        pins: static shapes, or values, of a model's inputs.
        cuts: tensors or nodes to end a model at.
        csv: a table to write of what the networks say of images.
    """

    place: Path
    recipe: Path | None = None
    images: Sequence[Path] = ()
    arrays: Path | None = None
    labels: str | None = None
    outputs: Path | None = None
    pins: Pins = field(default_factory=dict)
    cuts: Sequence[str] = ()
    csv: Path | None = None


def run_emitted(job: RunJob) -> dict[str, Any]:
    """Runs every network in a folder on the same samples; returns what was measured, by network.

    Raises:
        UsageError: there are no samples, or nothing says how an image becomes an input.
        InputError: the folder holds no network, or the data cannot be used.
    """
    recipe = None if job.recipe is None else load_recipe(job.recipe, data=False)
    known = results_in(job.place)
    preprocess = preprocess_of(known) if recipe is None else recipe.data.preprocess
    spec = _samples(job, recipe, preprocess)
    networks = _networks(job)
    inputs = networks[0].inputs
    metric = _metric(recipe, spec, preprocess, inputs)
    if metric is not None:
        metric.whole = networks[0].whole
    parts = spec.classes() if isinstance(spec, EvalSpec) else None
    data = tuple(open_dataset(part, preprocess, inputs) for part in parts or (spec,))
    shared = next((network.run for network in networks if network.name == ONNX), None)
    behind = tail_in(job.place)
    report: dict[str, Any] = {
        "place": str(job.place),
        "samples": sum(map(len, data)),
        "metric": None if metric is None else metric.name,
        "networks": {network.name: _measured(network, data, metric, shared, behind) for network in networks},
    }
    if known is not None and known.get("preprocess") is not None and job.images:
        report["results"] = {"kind": known["kind"], "files": said_of(networks, data[0], known, behind)}
    if job.csv is not None:
        if "results" not in report:
            raise nothing_said()
        write_csv(job.csv, report["results"]["files"], report["results"]["kind"])
    if job.outputs is not None:
        with writing(job.outputs, fix="give another file with --outputs"):
            _save(job.outputs, networks, data)
    return report


def _networks(job: RunJob) -> list[Network]:
    """Those of a folder, or a model that is no folder."""
    source = source_of(job.place)
    if job.place.is_dir() or (source.file is not None and not job.place.exists()):
        if job.pins or job.cuts:
            raise UsageError("run", "--input and --cut go with a model, not with a folder", "leave them out")
        return networks_in(job.place)
    notes: list[str] = []
    with opened(source) as path:
        graph = open_model(path, job.pins, job.cuts, notes=notes)
        network = in_onnxruntime(graph, source.name, optimize=True)
    print_notes(source.name, notes)
    return [network]


def print_run(report: Mapping[str, Any]) -> None:
    """A row a network."""
    metric, networks = report["metric"], report["networks"]
    compared = any(entry["sqnr_db"] is not None for entry in networks.values())
    columns = ["", "runs in", *([metric] if metric else []), *([f"SQNR to {ONNX}"] if compared else [])]
    rows = []
    for name, entry in networks.items():
        row = [printable(name), entry["runtime"]]
        if metric:
            row.append("-" if entry["metric"] is None else f"{entry['metric']:.4f}")
        if compared:
            row.append("" if entry["sqnr_db"] is None else f"{entry['sqnr_db']:.1f} dB")
        rows.append(row)
    print_table(f"{printable(report['place'])}: {report['samples']:,} samples", columns, rows, left=2)
    if "results" in report:
        print_said(report["results"]["files"], report["results"]["kind"])
    for name, entry in networks.items():
        for output, count in entry["other_shape"].items():
            print(
                f"{printable(name)}: output '{printable(output)}' has another shape than {ONNX}'s on {count:,} samples,"
                " which its SQNR leaves out"
            )


def _samples(job: RunJob, recipe: Recipe | None, preprocess: PreprocessSpec | None) -> DataSpec:
    """What is run on; labels are the recipe's only where the samples are."""
    if job.images and preprocess is None:
        what = "images need a recipe with data.preprocess, which says how they become inputs"
        raise UsageError("run", what, "name one with -O")
    if job.labels is not None and not job.images:
        raise UsageError("run", "--labels goes with --images", "put an array named 'labels' into the .npz")
    for folder in job.images:
        if not folder.is_dir():
            raise InputError(str(folder), "there is no such folder of images", "correct the path")
    if job.images or job.arrays:
        given = {"images": list(job.images) or None, "arrays": job.arrays, "labels": job.labels}
        return parse_data(
            {key: value for key, value in given.items() if value is not None},
            "run: --images" if job.images else "run: --arrays",
        )
    if recipe is None or recipe.data.eval is None:
        raise UsageError(
            "run", "there are no samples", "add --images, --arrays, or -O with a recipe that has data.eval"
        )
    recipe.check_data()
    return recipe.data.eval


def _metric(recipe: Recipe | None, spec: DataSpec, preprocess: PreprocessSpec | None, inputs: Any) -> Metric | None:
    """The recipe's metric on these samples; ``None`` where they do not have what it wants.

    ``sqnr`` is against the original network, which is not in the folder: the table's own column stands for it.
    """
    judged = None if recipe is None else recipe.data.eval
    if judged is None or judged.metric == "sqnr":
        return None
    if not isinstance(spec, EvalSpec):
        if judged.metric == "auroc" or (judged.metric == "top1" and spec.images and spec.labels is None):
            return None
        fields: dict[str, Any] = {"ok": None, "ng": None, "samples": None, "python": None}
        fields |= {"images": spec.images, "arrays": spec.arrays, "labels": spec.labels}
        judged, where = judged.model_copy(update=fields), spec.where
        judged.located(where, recipe.folder if recipe is not None else Path())
    return open_metric(judged, preprocess, inputs)


def _measured(
    network: Network, data: Sequence[DataSet], metric: Metric | None, shared: Run | None, behind: Tail | None
) -> dict[str, Any]:
    entry: dict[str, Any] = {"runtime": network.runtime, "metric": None, "sqnr_db": None, "other_shape": {}}
    if metric is not None:
        judged, reference = (completed(run, behind) for run in (network.run, shared or network.run))
        entry["metric"] = rounded(metric.measure(judged, reference, network.batch))
    if shared is not None and network.name != ONNX:
        # Of several data sets, the worst.
        signals = []
        for part in data:
            sqnr = Sqnr("sqnr", (part,))
            sqnr.whole = network.whole
            signals.append(sqnr.scores(network.run, shared, network.batch))
        entry["sqnr_db"] = decibel(min(signal.value() for signal in signals))
        counts = sum((Counter(signal.mismatched) for signal in signals), Counter[str]())
        entry["other_shape"] = dict(counts)
    return entry


def _save(place: Path, networks: Sequence[Network], data: Sequence[DataSet]) -> None:
    """Every output of every network as an array ``<network>/<output>``, a sample a row.

    One without a sample axis is an array ``<network>/<output>/<number>`` for each sample.
    """
    arrays: dict[str, Any] = {}
    for network in networks:
        samples = [
            sample.outputs
            for part in data
            for sample in samples_of(network.run, part, None, network.batch, network.whole)
        ]
        for name in samples[0]:
            rows, key = [outputs[name] for outputs in samples], f"{network.name}/{name}"
            if name in network.whole:
                arrays |= {f"{key}/{number}": row for number, row in enumerate(rows)}
            else:
                arrays[key] = np.stack(rows)
    with place.open("wb") as file:
        np.savez(file, **arrays)


def as_json(report: Mapping[str, Any]) -> str:
    """The report for scripts."""
    return json.dumps(report, indent=2, allow_nan=False)
