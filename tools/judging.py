"""Quality of the compressed network against the original, and the recipe's requirements."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.frontends.metrics import Metric
from edgec.ir.errors import InputError
from edgec.ir.execution import Session
from edgec.ir.graph import Graph
from edgec.passes import input_domain
from edgec.passes.reference import Reference
from edgec.tools.failed_targets import emitted, failed

Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]

_METRIC_DIGITS = 6
# What stands for a metric of minus infinity.
_LEAST = -1e300
# What stands for an SQNR below all: an output that is NaN or infinite where the original's is not.
_NO_SIGNAL_DB = -999.0


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

    @property
    def name(self) -> str:
        """The metric's."""
        return self.metric.name

    @property
    def higher_is_better(self) -> bool:
        """Whether the metric is the better the higher it is."""
        return self.metric.higher_is_better

    def measure(self, run: Run) -> float:
        """The metric of a network that takes the original's feeds."""
        return self.metric.measure(run, self.original, self.batch)


def freeze(graph: Graph, probes: Sequence[Mapping[str, np.ndarray]], source: str) -> Reference:
    """The original's answers on the probes.

    Raises:
        InputError: onnxruntime does not run the original, whose file is ``source``.
    """
    try:
        return Reference(graph, probes)
    except InputError as error:
        raise InputError(f"{source}: {error.where}", error.what, error.mend) from error


def run_of(graph: Graph) -> Run:
    """Runs ``graph`` on the original model's feeds, on one thread, so that its figures do not depend on threads."""
    session = Session(graph, optimize=True)
    return lambda feeds: session.run(input_domain.enter(graph, feeds))


def rounded(value: float) -> float | None:
    """A metric as reports keep it: to six digits behind the point; ``None`` is infinity, which JSON has not."""
    return None if value == np.inf else round(max(_LEAST, float(value)), _METRIC_DIGITS)


def decibel(value: float) -> float | None:
    """An SQNR as reports keep it: to 0.01 dB, at least -999; ``None`` is infinity, where nothing differs."""
    return None if value == np.inf else round(max(_NO_SIGNAL_DB, float(value)), 2)


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
    compressed network and every target's emitted model. Where a target could not be emitted, it is judged by the
    others: ``met`` is ``None`` where they meet it, for nobody knows what the missing one would have done, and
    ``unjudged`` names it.
    """
    unjudged, targets = list(failed(targets)), emitted(targets)
    got: dict[str, float] = {}
    for name in asked:
        if name.endswith("_removed"):
            figure = name.removesuffix("_removed")
            before = baseline[figure]
            got[name] = 1 - compressed[figure] / before if before else 0.0
    metric = quality["metric"]
    if metric is not None:
        worst = (min if higher_is_better else max)(
            map(_number, (metric["compressed"], *(t["metric"] for t in targets.values())))
        )
        base = _number(metric["baseline"])
        drop = 0.0 if worst == base else base - worst
        got["metric_drop"] = drop if higher_is_better else -drop
        got["metric_min"] = got["metric_max"] = worst
    got["sqnr_min"] = min(map(_number, (quality["sqnr_db"], *(t["sqnr_db"] for t in targets.values()))))
    found: dict[str, dict[str, Any]] = {}
    for name, wanted in asked.items():
        shown = rounded(got[name])
        # What is compared is what is shown: six digits.
        value = _number(shown)
        met = value <= wanted if name in ("metric_drop", "metric_max") else value >= wanted
        found[name] = {"asked": wanted, "got": shown, "met": met}
        if unjudged and not name.endswith("_removed"):
            found[name] |= {"met": None if met else False, "unjudged": unjudged}
    return found


def _number(value: float | None) -> float:
    """What a report's entry stands for."""
    return math.inf if value is None else value
