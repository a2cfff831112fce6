"""What a compressed network must reach, and whether it does: the one place where that is decided.

``quantize``'s ``precision: auto`` asks here for each network that it tries, and the report for what was emitted: "met"
means one thing, by the same figures, rounded alike, from the same kind of session.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.ir.estimates import Scores, worst_difference
from edgec.ir.signal import Signal

_DIGITS = 6
# What stands for a figure of minus infinity, which JSON has not.
_LEAST = -1e300
# What stands for an SQNR below all: an output that is NaN or infinite where the original's is not.
_NO_SIGNAL_DB = -999.0


@dataclass(frozen=True)
class Reached:
    """What one network reaches on samples that nothing was fitted to.

    Attributes:
        sqnr: to the original; ``None`` where no such samples were left.
        metric: ``None`` without ``data.eval``.
    """

    sqnr: Scores | None
    metric: Scores | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether a requirement is met.

    Attributes:
        asked: the limit.
        got: the figure of the worst network; ``None`` is infinite, or not measured (``because`` says so).
        met: whether it, or with a confidence its bound, is within the limit.
        bound: how bad the figure may be with the probability that was asked for.
        because: why it is not met where that is not for the figure.
    """

    asked: float
    got: float | None
    met: bool
    bound: float | None = None
    because: str = ""


def judge(
    asked: Mapping[str, float],
    networks: Sequence[Reached],
    *,
    baseline: Scores | None = None,
    higher_is_better: bool = True,
    removed: Mapping[str, float] | None = None,
    confidence: float | None = None,
) -> dict[str, Verdict]:
    """Each requirement with what was got; the worst network counts.

    Args:
        asked: limits by the names that requirements have in a recipe.
        networks: the compressed network and what was emitted for each target.
        baseline: the metric of the original, on the same samples.
        higher_is_better: which way the metric is better.
        removed: the shares that are gone, for ``*_removed``.
        confidence: the probability with which a measured limit must hold; the figures themselves count without it.
    """
    verdicts = {}
    for name, limit in asked.items():
        if name.endswith("_removed"):
            verdicts[name] = _verdict(limit, (removed or {})[name], least=True)
            continue
        if name == "sqnr_min":
            scores, least = [network.sqnr for network in networks], True
        else:
            scores = [network.metric for network in networks]
            least = name == "metric_min" or (name == "metric_drop" and higher_is_better)
        measured = [one for one in scores if one is not None]
        if len(measured) < len(scores):
            verdicts[name] = Verdict(limit, None, False, because="no samples were left that nothing was fitted to")
            continue
        missing = {output for one in measured if isinstance(one, Signal) for output in one.mismatched}
        if missing:
            named = ", ".join(f"'{output}'" for output in sorted(missing))
            because = f"of output {named} some runs have another shape than the original's, which no SQNR can compare"
            least_of_all = min(one.value() for one in measured)
            got = rounded(least_of_all) if math.isfinite(least_of_all) else None
            verdicts[name] = Verdict(limit, got, False, because=because)
            continue
        worst = (min if least else max)(measured, key=lambda one: one.value())
        value, bound = worst.value(), None if confidence is None else _bound(worst, least, confidence)
        if name == "metric_drop":
            base = math.nan if baseline is None else baseline.value()
            value = 0.0 if worst.value() == base else drop(base, worst.value(), least)
            if confidence is not None and baseline is not None:
                bounds = [_worst_drop(baseline, one, least, confidence) for one in measured]
                bound = None if None in bounds else max(one for one in bounds if one is not None)
        verdict = _verdict(limit, value, least=name in ("sqnr_min", "metric_min"))
        if confidence is not None:
            verdict = _confident(verdict, bound, least=name in ("sqnr_min", "metric_min"))
        verdicts[name] = verdict
    return verdicts


def drop(base: float, value: float, higher_is_better: bool) -> float:
    """How much worse a metric is than the original's; negative where it is better."""
    return base - value if higher_is_better else value - base


def rounded(value: float) -> float | None:
    """A figure as reports keep it: to six digits behind the point; ``None`` is infinity, which JSON has not."""
    return None if value == np.inf else round(max(_LEAST, float(value)), _DIGITS)


def decibel(value: float) -> float | None:
    """An SQNR as reports keep it: to 0.01 dB, at least -999; ``None`` is infinity, where nothing differs."""
    return None if value == np.inf else round(max(_NO_SIGNAL_DB, float(value)), 2)


def number(value: float | None) -> float:
    """What a report's entry stands for."""
    return math.inf if value is None else value


def _verdict(limit: float, value: float, *, least: bool) -> Verdict:
    # What is compared is what is shown: six digits.
    shown = rounded(value)
    return Verdict(limit, shown, number(shown) >= limit if least else number(shown) <= limit)


def _confident(verdict: Verdict, bound: float | None, *, least: bool) -> Verdict:
    if bound is None:
        return Verdict(verdict.asked, verdict.got, False, because="too few samples to say with which confidence")
    met = verdict.met and _verdict(verdict.asked, bound, least=least).met
    return Verdict(verdict.asked, verdict.got, met, rounded(bound))


def _bound(scores: Scores, least: bool, confidence: float) -> float | None:
    """The end of a one-sided interval on the bad side."""
    # An interval of 1 - 2 (1 - c) leaves 1 - c on each side.
    low, high = scores.interval(2 * confidence - 1)
    return low if least else high


def _worst_drop(baseline: Scores, scores: Scores, higher_is_better: bool, confidence: float) -> float | None:
    if higher_is_better:
        return worst_difference(baseline, scores, confidence)
    return worst_difference(scores, baseline, confidence)
