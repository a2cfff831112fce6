"""How far a network's outputs are from another's: the signal-to-quantization-noise ratio, run by run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgec.ir.estimates import Means

Run = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Signal(Means):
    """An SQNR, and what could not be compared for it.

    Attributes:
        mismatched: by output, in how many runs its shape was another than the reference's; only outputs for which
            there is such a run.
        runs: how many runs there were.
    """

    mismatched: Mapping[str, int] = field(default_factory=dict)
    runs: int = 0

    def in_words(self) -> list[str]:
        """A sentence for each output that could not be compared in every run."""
        return other_shape_in_words(self.mismatched, self.runs)


def other_shape_in_words(mismatched: Mapping[str, int], runs: int) -> list[str]:
    """A sentence for each output whose shape was another one in some of so many runs."""
    return [
        f"output '{name}' has another shape than the original's in {count} of {runs} runs: the SQNR leaves"
        " them out, and a metric of your own can judge them (data.eval: {metric: 'python:module:function'})"
        for name, count in mismatched.items()
    ]


def sqnr_scores(reference: Sequence[Run], other: Sequence[Run], each: int = 1) -> Signal:
    """The SQNR over all outputs and runs, in dB (:func:`.execution.sqnr_db` defines it), with what each run adds to it.

    An output may have another shape in each run: how many boxes a detector finds depends on the image. Where a run's
    output has another shape than the reference's in the same run, nothing can be said of it value by value: it is left
    out and counted. The SQNR is minus infinity where nothing is left to compare.

    Args:
        reference: the outputs by name, a mapping for each run.
        other: those that are compared with them.
        each: how many samples are in a run.
    """
    names = list(reference[0])
    rows = [[_compared(x[name], y[name]) for name in names] for x, y in zip(reference, other, strict=True)]
    table = np.array(rows, np.float64).reshape(len(rows), len(names), 3)
    missing = len(rows) - table[:, :, 2].sum(axis=0).astype(int)
    mismatched = {name: int(count) for name, count in zip(names, missing, strict=True) if count}
    return Signal(table.reshape(len(rows), -1), _decibel, each, mismatched, len(rows))


def _compared(exact: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """The mean squares of an output and of what was added to it, and 1; zeros where shapes differ."""
    if values.shape != exact.shape:
        return 0.0, 0.0, 0.0
    if not exact.size:
        return 0.0, 0.0, 1.0
    if exact.dtype.kind in "OSU":  # text has no power: so many of it are other words
        return 1.0, float(np.mean(exact != values)), 1.0
    x = exact.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite make the noise so
        return float(np.mean(x * x)), float(np.mean(np.square(x - values.astype(np.float64)))), 1.0


def _decibel(means: np.ndarray) -> np.ndarray:
    """SQNR of means of power, noise and the share of runs that were compared, an output after the other."""
    power, noise, compared = means[..., 0::3], means[..., 1::3], means[..., 2::3]
    with np.errstate(divide="ignore", invalid="ignore"):
        added = (noise / np.where(power > 0, power, 1.0)).sum(axis=-1)
        levels = 10 * np.log10(np.maximum((power > 0).sum(axis=-1), 1e-300) / added)
    levels = np.where(added == 0, np.inf, np.where(np.isfinite(added), levels, -np.inf))
    return np.where((compared > 0).any(axis=-1), levels, -np.inf)
