"""``edgec inspect MODEL --sensitivity``: what 8 bits cost each layer, as a table, as JSON or drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from edgec.backends.protocol import legalize
from edgec.backends.registry import backend, target
from edgec.frontends.datasets import inputs_of, open_dataset
from edgec.frontends.model import Pins, open_model
from edgec.frontends.preprocess import Preprocess
from edgec.frontends.recipe import load_recipe
from edgec.frontends.sources import Source, opened
from edgec.ir.errors import UsageError, printable
from edgec.passes.fold.fold import Fold
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.framework.settling import settle
from edgec.passes.quantize.report.sensitivity import Sensitivity, sensitivities
from edgec.tools.console import print_table
from edgec.tools.options import print_notes
from edgec.tools.output import writing

#: What a plot can be.
FORMATS = (".svg", ".png", ".pdf")
_FINITE = 200.0


@dataclass(frozen=True)
class SensitivityJob:
    """What to measure.

    Attributes:
        model: the float network.
        recipe: for its calibration data.
        target: whose scheme; the recipe's first target that has one by default.
        pins, cuts: as :class:`edgec.tools.compile.Job` has them.
        plot: an .svg, .png or .pdf to draw the layers into.
        threads: how many.
    """

    model: Source
    recipe: Path
    target: str | None = None
    pins: Pins = field(default_factory=dict)
    cuts: Sequence[str] = ()
    plot: Path | None = None
    threads: int = 1


def inspect_sensitivity(job: SensitivityJob, *, as_json: bool = False) -> None:
    """Prints the layers of a network, and how much 8 bits cost each of them.

    Raises:
        UsageError: the recipe has no calibration data, or its targets no 8-bit arithmetic, or torch is not installed.
        InputError: the model or the data cannot be used.
    """
    if job.plot is not None and find_spec("matplotlib") is None:
        raise UsageError("inspect: --plot", "needs matplotlib", "pip install 'edgec[plot]'")
    recipe = load_recipe(job.recipe, data=False)
    named = [entry.name for entry in recipe.targets]
    name = job.target or next((n for n in named if target(n).scheme is not None), named[0])
    board = target(name)
    if recipe.data.calibration is None:
        raise UsageError(
            str(job.recipe), "has no data.calibration, on which layers are measured", "add data.calibration"
        )
    recipe.check_data()
    with threadpool_limits(limits=1), opened(job.model) as path:
        notes: list[str] = []
        graph = open_model(path, job.pins, job.cuts, notes=notes)
        print_notes(job.model.name, notes)
        Fold().run(graph, Context(graph))
        settle(graph, "fold")
        legalize(graph, backend(board.backend), board)
        preprocess = None if recipe.data.preprocess is None else Preprocess(recipe.data.preprocess)
        inputs = inputs_of(graph)
        data = open_dataset(recipe.data.calibration, preprocess, inputs)
        affine = {} if preprocess is None else preprocess.affine_by_input(inputs)
        ctx = Context(
            graph,
            RunConfig(target=board, data={"calibration": data}, affine=affine, seed=recipe.seed, threads=job.threads),
        )
        layers, left = sensitivities(graph, ctx)
    if job.plot is not None and layers:
        with writing(job.plot, fix="give another file with --plot"):
            _draw(layers, job.plot, f"{job.model.name} on {board.title}")
    if as_json:
        entries = [{**asdict(layer), **_figures(layer)} for layer in layers]
        floats = [{"name": node, "reason": reason} for node, reason in left]
        print(json.dumps({"model": job.model.name, "target": name, "layers": entries, "float": floats}, indent=2))
        return
    rows = [
        [printable(layer.name), printable(layer.operator), f"{layer.share:.1%}", _decibel(layer.alone_db),
         _decibel(layer.accumulated_db), layer.reason]
        for layer in layers
    ]  # fmt: skip
    title = f"{printable(job.model.name)} in 8 bits on {board.title}: what the rounding of each layer costs"
    print_table(title, ("layer", "operator", "of the noise", "alone dB", "accumulated dB", "why"), rows, left=2)
    if left:
        print(f"{len(left)} operators stay float: {'; '.join(f'{printable(n)}: {r}' for n, r in left[:3])}")


def _figures(layer: Sensitivity) -> dict[str, Any]:
    return {
        "share": round(layer.share, 6),
        **{key: round(value, 3) if math.isfinite(value) else None
           for key, value in (("alone_db", layer.alone_db), ("accumulated_db", layer.accumulated_db))},
    }  # fmt: skip


def _decibel(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "exact"


def _draw(layers: Sequence[Sensitivity], place: Path, title: str) -> None:
    """Two bars a layer: its part of the noise at the outputs, and its signal to noise alone and accumulated."""
    from matplotlib.figure import Figure

    height = max(2.5, 0.22 * len(layers) + 1.2)
    figure = Figure(figsize=(10, height), layout="constrained")
    shares, decibels = figure.subplots(1, 2, sharey=True)
    rows = range(len(layers))
    shares.barh(rows, [100 * layer.share for layer in layers], color="#4477aa")
    shares.set(xlabel="% of the noise at the outputs", yticks=rows, yticklabels=[layer.name for layer in layers])
    shares.tick_params(axis="y", labelsize=7)
    shares.invert_yaxis()
    for values, label, marker in (("alone_db", "alone", "o"), ("accumulated_db", "accumulated", "x")):
        points = [min(getattr(layer, values), _FINITE) for layer in layers]
        decibels.plot(points, rows, marker, label=label, markersize=4)
    decibels.set(xlabel="signal to noise of what it gives, dB")
    decibels.grid(axis="x", alpha=0.3)
    decibels.legend()
    figure.suptitle(title, fontsize=10)
    figure.savefig(
        place, format=place.suffix.removeprefix("."), metadata={"Date": None} if place.suffix == ".svg" else {}
    )
