"""The numbers behind the metrics, over whole arrays of samples."""

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


def reconstruction_error(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The mean squared difference of each sample (first axis), float64 of shape [samples]."""
    return np.square(_rows(x) - _rows(y)).mean(axis=1)


def top1(logits: np.ndarray, labels: np.ndarray) -> float:
    """The share of samples whose largest logit, the first of equals, is the label's."""
    return float(hits(logits, labels).mean())


def mae(outputs: np.ndarray, labels: np.ndarray) -> float:
    """The mean absolute difference over all samples and values."""
    return float(absolute_errors(outputs, labels).mean())


def sqnr_db(reference: np.ndarray, outputs: np.ndarray) -> float:
    """Signal to quantisation noise, ``10 log10(sum(reference^2) / sum((reference - outputs)^2))``, in dB.

    Infinite where the two are equal; minus infinite where the reference is zero and the outputs are not.
    """
    return decibel(*powers(reference, outputs))


def _rows(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array, np.float64)
    return array.reshape(len(array), -1)


def hits(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 for each sample whose first largest logit is its label's, else 0; float64 of shape [samples]."""
    return (_rows(logits).argmax(axis=1) == np.asarray(labels)).astype(np.float64)


def absolute_errors(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean absolute difference of each sample (first axis), float64 of shape [samples]."""
    return np.abs(_rows(outputs) - _rows(labels)).mean(axis=1)


def powers(reference: np.ndarray, outputs: np.ndarray) -> tuple[float, float]:
    """The sums of squares of the reference and of its difference to the outputs."""
    exact = np.asarray(reference, np.float64)
    noise = exact - np.asarray(outputs, np.float64)
    return float(np.square(exact).sum()), float(np.square(noise).sum())


def decibel(signal: float, noise: float) -> float:
    """The ratio of two powers in dB; see :func:`sqnr_db` for zeros."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
