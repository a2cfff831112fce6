"""The numbers behind the metrics."""

from __future__ import annotations

import numpy as np

from edgec.ir.estimates import Ranks


def auroc(scores_ok: np.ndarray, scores_ng: np.ndarray) -> float:
    """The area under the ROC curve, as :class:`~edgec.ir.estimates.Ranks` counts it.

    Both arguments are of shape [samples]; ValueError where one is empty or holds NaN.
    """
    return Ranks(np.asarray(scores_ok, np.float64), np.asarray(scores_ng, np.float64)).value()


def reconstruction_error(x: np.ndarray, y: np.ndarray) -> float:
    """The mean squared difference of a sample and its reconstruction."""
    return float(np.square(np.asarray(x, np.float64) - y).mean())


def absolute_error(output: np.ndarray, wanted: np.ndarray) -> float:
    """The mean absolute difference of two arrays of as many values, whatever their shapes."""
    return float(np.abs(np.ravel(output).astype(np.float64) - np.ravel(wanted)).mean())


def powers(reference: np.ndarray, outputs: np.ndarray) -> tuple[float, float]:
    """The sums of squares of the reference and of its difference to the outputs."""
    exact = np.asarray(reference, np.float64)
    noise = exact - np.asarray(outputs, np.float64)
    return float(np.square(exact).sum()), float(np.square(noise).sum())
