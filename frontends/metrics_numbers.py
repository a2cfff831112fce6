"""The numbers behind the metrics."""

from __future__ import annotations

import math

import numpy as np


def auroc(scores_ok: np.ndarray, scores_ng: np.ndarray) -> float:
    """The area under the ROC curve: how often an ng sample scores above an ok one, a tie counting one half.

    This is the Mann-Whitney U statistic over the number of pairs (Hanley and McNeil, Radiology 143, 1982),
    counted exactly by sorting. Both arguments are of shape [samples]; ValueError where one is empty or holds
    NaN.
    """
    ok, ng = np.sort(np.asarray(scores_ok, np.float64)), np.asarray(scores_ng, np.float64)
    if not ok.size or not ng.size or np.isnan(ok).any() or np.isnan(ng).any():
        raise ValueError("auroc needs scores of both classes, none of them NaN")
    below_twice = np.searchsorted(ok, ng, "left") + np.searchsorted(ok, ng, "right")
    return int(below_twice.sum()) / (2 * ok.size * ng.size)


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


def decibel(signal: float, noise: float) -> float:
    """The ratio of two powers in dB: infinite without noise, minus infinite with noise and no signal."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
