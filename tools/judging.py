"""Quality of the compressed network against the original, and the recipe's requirements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.frontends.metrics import Measurement, Metric
from edgec.ir.execution import Session
from edgec.ir.graph import Graph
from edgec.passes import input_domain

Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]

# Of these requirements the least favourable model counts; the others are about the one compressed network.
_METRIC_DIGITS = 6


@dataclass(frozen=True)
class Judge:
    """Measures networks with the metric of the recipe.

    Attributes:
        metric: ``data.eval``'s.
        original: the original network, run as its own feeds.
        batch: the static batch size of the model.
    """

    metric: Metric
    original: Run
    batch: int

    def measure(self, run: Run) -> Measurement:
        """The metric of a network that takes the original's feeds."""
        return self.metric.measure(run, batch_size=self.batch, reference=self.original)


def run_of(graph: Graph) -> Run:
    """Runs ``graph`` on the original model's feeds, on one thread, so that its figures do not depend on threads."""
    session = Session(graph, optimize=True)
    return lambda feeds: session.run(input_domain.enter(graph, feeds))


def rounded(value: float) -> float | None:
    """A metric as reports keep it; ``None`` for what is not a number JSON has (an infinite SQNR, say)."""
    return round(float(value), _METRIC_DIGITS) if np.isfinite(value) else None


def decibel(value: float) -> float | None:
    """An SQNR as reports keep it: to 0.01 dB, ``None`` where nothing differs."""
    return round(float(value), 2) if np.isfinite(value) else None


def check_requirements(
    asked: Mapping[str, float],
    baseline: Mapping[str, Any],
    compressed: Mapping[str, Any],
    quality: Mapping[str, Any],
    targets: Mapping[str, Mapping[str, Any]],
    higher_is_better: bool,
) -> dict[str, dict[str, Any]]:
    """Each requirement with what was asked, what was got, and whether it is met.

    ``*_removed`` compares the compressed network with the original. What is about quality holds for the worst of the
    compressed network and every target's emitted model.
    """
    got: dict[str, float] = {}
    for name in asked:
        if name.endswith("_removed"):
            figure = name.removesuffix("_removed")
            before = baseline[figure]
            got[name] = 1 - compressed[figure] / before if before else 0.0
    metric = quality.get("metric")
    if metric is not None:
        values = [metric["compressed"], *(t["metric"] for t in targets.values())]
        known = [v for v in values if v is not None]
        worst = (min if higher_is_better else max)(known) if known else float("inf")
        base = metric["baseline"]
        if base is not None:
            got["metric_drop"] = base - worst if higher_is_better else worst - base
        got["metric_min"] = got["metric_max"] = worst
    levels = [quality["sqnr_db"], *(t["sqnr_db"] for t in targets.values())]
    got["sqnr_min"] = min((v for v in levels if v is not None), default=float("inf"))
    found = {}
    for name, wanted in asked.items():
        value = got[name]
        upper = name in ("metric_drop", "metric_max")
        # What is compared is what is shown: six digits.
        shown = rounded(value)
        met = shown is None or (shown <= wanted if upper else shown >= wanted)
        found[name] = {"asked": wanted, "got": shown, "met": bool(met)}
    return found
