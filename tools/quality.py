"""Quality of networks against the original, on samples that nothing was fitted to, as the report has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from edgec.backends.on_board.tail import Tail
from edgec.frontends.metrics import Metric, Sqnr
from edgec.ir.errors import InputError
from edgec.ir.estimates import CONFIDENCE, Scores
from edgec.ir.execution import batch_size
from edgec.ir.graph import Graph
from edgec.ir.sample_axis import without_sample_axis
from edgec.ir.signal import other_shape_in_words
from edgec.passes.calibration.evaluate import Evaluation, Run, runner
from edgec.passes.calibration.requirements import Reached, decibel, judge, rounded
from edgec.passes.framework.reference import Reference
from edgec.tools.failed_targets import emitted, failed
from edgec.tools.samples import Probes, Samples

T = TypeVar("T")

# Batches that the network is compared on after each pass.
_MOST_COMPARED = 8


@dataclass(frozen=True)
class DeployedMetric:
    """Measures networks with the metric of the recipe.

    Attributes:
        metric: ``data.eval``'s.
        original: the original network, run as its own feeds.
        batch: the static batch size of the model.
        tail: what follows the networks, where they were cut: the metric sees the whole network's outputs, too.
    """

    metric: Metric
    original: Run
    batch: int
    tail: Tail | None = None

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
        return self.scores(run).value()

    def scores(self, run: Run) -> Scores:
        """The same with what each sample scored."""
        tail = None if isinstance(self.metric, Sqnr) else self.tail  # of what is emitted, not of what follows it
        return self.metric.scores(completed(run, tail), completed(self.original, tail), self.batch)


def completed(run: Run, tail: Tail | None) -> Run:
    """A network that was cut, with what followed it: the whole one's outputs, then those that it was cut at."""
    if tail is None:
        return run

    def whole(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = dict(run(feeds))
        return {**tail(outputs), **outputs}

    return whole


class Quality:
    """Measures networks for the report.

    Attributes:
        probes: what the SQNR is measured on.
        metric: on the samples that are reported on; ``None`` without ``data.eval``.
        choosing: the metric on those that passes choose by.
        baseline: the original's metric.

    Where the network was cut, ``behind`` is the whole one, and what follows the cut.

    Raises:
        InputError: onnxruntime does not run the original, whose file is ``source``.
    """

    def __init__(
        self, original: Graph, samples: Samples, seed: int, source: str, behind: tuple[Graph, Tail] | None = None
    ) -> None:
        self.probes: Probes = samples.probes(original, seed)
        self._original, self._source = original, source
        self._evaluation = _named(source, lambda: Evaluation(original, self.probes.feeds, self.probes.each))
        run, size = runner(original), batch_size(original)
        for metric in (samples.metric, samples.choosing):
            if metric is not None:
                metric.whole = without_sample_axis(original)
                if behind is not None:
                    metric.whole = metric.whole | without_sample_axis(behind[0])
        tail = None if behind is None else behind[1]
        self.metric = None if samples.metric is None else DeployedMetric(samples.metric, run, size, tail)
        self.choosing = None if samples.choosing is None else DeployedMetric(samples.choosing, run, size, tail)
        self.baseline = None if self.metric is None else self.metric.scores(run)

    def reference(self) -> Reference:
        """The original's answers on some of the probes, spread over all of them, for the comparison after each pass."""
        feeds = self.probes.feeds
        chosen = np.linspace(0, len(feeds) - 1, min(len(feeds), _MOST_COMPARED)).round().astype(int)
        return freeze(self._original, [feeds[index] for index in dict.fromkeys(chosen.tolist())], self._source)

    def measured(self, run: Run) -> tuple[Reached, dict[str, Any]]:
        """What a network that takes the original's feeds reaches, and the report's entries of it."""
        sqnr = self._evaluation.sqnr(run)
        metric = None if self.metric is None else self.metric.scores(run)
        entries = {
            **sqnr_entries(sqnr, self.probes.unseen),
            **metric_entries(metric),
            "other_shape": dict(sqnr.mismatched),
        }
        return Reached(sqnr if self.probes.unseen else None, metric), entries

    def notes(self, entries: Mapping[str, Any]) -> list[str]:
        """What of a network could not be compared, in sentences."""
        return other_shape_in_words(entries["other_shape"], len(self.probes.feeds))

    def entry(self, baseline: Mapping[str, Any], compressed: Mapping[str, Any]) -> dict[str, Any]:
        """The report's ``quality``: the compressed network beside the original."""
        entry = {key: compressed[key] for key in ("sqnr_db", "sqnr_interval", "sqnr_db_fitted") if key in compressed}
        metric = None
        if self.metric is not None:
            metric = {"name": self.metric.name}
            for name, network in (("baseline", baseline), ("compressed", compressed)):
                metric |= {name: network["metric"], f"{name}_interval": network["metric_interval"]}
        return {**entry, "metric": metric}

    def measured_on(self, compared: int) -> dict[str, Any]:
        """For the report: how many samples stand behind its figures, and whose they are.

        Args:
            compared: batches that passes were compared on.
        """
        source, each = self.probes.source, self.probes.each
        entry: dict[str, Any] = {
            "confidence": CONFIDENCE,
            "sqnr": {"samples": len(self.probes.feeds) * each, "source": source, "unseen": self.probes.unseen},
            "passes": {"samples": compared * each, "source": source, "unseen": self.probes.unseen},
            "metric": None,
        }
        if self.baseline is not None:
            entry["metric"] = {"samples": self.baseline.samples, "source": "eval"}
        return entry


def sqnr_entries(sqnr: Scores, unseen: bool) -> dict[str, Any]:
    """``sqnr_db`` and its interval; nothing there, and ``sqnr_db_fitted`` beside it, where samples were fitted to."""
    value = decibel(sqnr.value())
    if not unseen:
        return {"sqnr_db": None, "sqnr_interval": None, "sqnr_db_fitted": value}
    low, high = sqnr.interval()
    return {"sqnr_db": value, "sqnr_interval": None if low is None or high is None else [decibel(low), decibel(high)]}


def metric_entries(metric: Scores | None) -> dict[str, Any]:
    """``metric`` and its interval; both ``None`` without a metric."""
    if metric is None:
        return {"metric": None, "metric_interval": None}
    low, high = metric.interval()
    return {
        "metric": rounded(metric.value()),
        "metric_interval": None if low is None or high is None else [rounded(low), rounded(high)],
    }


def requirements(
    asked: Mapping[str, float],
    baseline: Mapping[str, Any],
    compressed: Mapping[str, Any],
    reached: Sequence[Reached],
    quality: Quality,
    targets: Mapping[str, Mapping[str, Any]],
    confidence: float | None,
) -> dict[str, dict[str, Any]]:
    """Each requirement with what was asked, what was got, and whether it is met, as the report has it.

    ``*_removed`` compares the compressed network with the original. What is about quality holds for the worst of the
    compressed network and every target's emitted model. Where a target could not be emitted, it is judged by the
    others: ``met`` is ``None`` where they meet it, for nobody knows what the missing one would have done, and
    ``unjudged`` names it.
    """
    removed = {}
    for name in asked:
        figure = name.removesuffix("_removed")
        if figure != name:
            removed[name] = 1 - compressed[figure] / baseline[figure] if baseline[figure] else 0.0
    verdicts = judge(
        asked, reached, baseline=quality.baseline, removed=removed, confidence=confidence,
        higher_is_better=quality.metric is None or quality.metric.higher_is_better,
    )  # fmt: skip
    unjudged = list(failed(targets))
    assert len(reached) == 1 + len(emitted(targets))
    entries = {}
    for name, verdict in verdicts.items():
        entry: dict[str, Any] = {"asked": verdict.asked, "got": verdict.got, "met": verdict.met}
        if confidence is not None and not name.endswith("_removed"):
            entry |= {"confidence": confidence, "bound": verdict.bound}
        if verdict.because:
            entry["because"] = verdict.because
        if unjudged and not name.endswith("_removed"):
            entry |= {"met": None if verdict.met else False, "unjudged": unjudged}
        entries[name] = entry
    return entries


def freeze(graph: Graph, probes: Sequence[Mapping[str, np.ndarray]], source: str) -> Reference:
    """The original's answers on the probes.

    Raises:
        InputError: onnxruntime does not run the original, whose file is ``source``.
    """
    return _named(source, lambda: Reference(graph, probes))


def _named(source: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except InputError as error:
        raise InputError(f"{source}: {error.where}", error.what, error.fix) from error
