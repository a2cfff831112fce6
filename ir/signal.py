"""How far a network's outputs are from another's: the signal-to-quantization-noise ratio, run by run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgec.ir.estimates import Means


def sqnr_scores(
    reference: Sequence[Mapping[str, np.ndarray]], other: Sequence[Mapping[str, np.ndarray]], each: int = 1
) -> Means:
    """The SQNR over all outputs and runs, in dB (:func:`.execution.sqnr_db` defines it), with what each run adds to it.

    Args:
        reference: the outputs by name, a mapping for each run.
        other: those that are compared with them.
        each: how many samples are in a run.
    """
    names = [name for name, values in reference[0].items() if values.size]
    rows = [[_powers(x[name], y[name]) for name in names] for x, y in zip(reference, other, strict=True)]
    return Means(np.array(rows, np.float64).reshape(len(rows), 2 * len(names)), _decibel, each)


def _powers(exact: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """The mean squares of an output and of what was added to it; infinite noise where they cannot be compared."""
    if values.shape != exact.shape:
        return float(np.mean(np.square(exact, dtype=np.float64))), float("inf")
    x = exact.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite make the noise so
        return float(np.mean(x * x)), float(np.mean(np.square(x - values.astype(np.float64))))


def _decibel(means: np.ndarray) -> np.ndarray:
    """SQNR of means of power and noise, an output after the other on the last axis."""
    power, noise = means[..., 0::2], means[..., 1::2]
    with np.errstate(divide="ignore", invalid="ignore"):
        added = (noise / np.where(power > 0, power, 1.0)).sum(axis=-1)
        levels = 10 * np.log10(np.maximum((power > 0).sum(axis=-1), 1e-300) / added)
    return np.where(added == 0, np.inf, np.where(np.isfinite(added), levels, -np.inf))
