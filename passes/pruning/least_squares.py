"""Sums from which the least-squares correction of a layer follows, and that correction.

With patches x and the residual r = (what the original network computed) - (what the layer computes now), the weights
and bias get the D and d that minimise ``sum |r - D x - d|^2 + ridge * |D|^2``. The ridge pulls towards the weights as
they are, so few data change little; the bias is free of it, so a residual that is constant is removed exactly. How
much ridge is best, and whether any correction is, is judged on images that the sums were not taken from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_UNJUDGED = 0.1
# Sums of so many squares stay below float32's end.
_LARGEST = 1e15


@dataclass
class Correction:
    """What is added to a layer.

    Attributes:
        weights: by phase (channels * taps, outputs); ``None`` where the weights stay.
        bias: (outputs,).
    """

    weights: list[np.ndarray] | None
    bias: np.ndarray


class Sums:
    """Second moments of patches, by phase, and of residuals, added up over batches.

    Args:
        features: by phase, channels * taps.
        outputs: the layer's output channels.
    """

    def __init__(self, features: list[int], outputs: int) -> None:
        self.rows = 0
        self.xx = [np.zeros((count, count)) for count in features]
        self.x = [np.zeros(count) for count in features]
        self.xr = [np.zeros((count, outputs)) for count in features]
        self.r = np.zeros(outputs)
        self.rr = 0.0
        self.signal = 0.0

    def add(self, phase: int, patches: np.ndarray, residual: np.ndarray) -> None:
        """Takes patches (rows, features) and residuals (rows, outputs) in, both float32."""
        patches, residual = squarable(patches), squarable(residual)
        self.rows += len(patches)
        self.xx[phase] += patches.T @ patches
        self.x[phase] += patches.sum(axis=0, dtype=np.float64)
        self.xr[phase] += patches.T @ residual
        self.r += residual.sum(axis=0, dtype=np.float64)
        self.rr += float(np.einsum("ro,ro->", residual, residual, dtype=np.float64))

    def take(self, other: Sums) -> None:
        """Adds what ``other`` holds."""
        self.rows += other.rows
        self.r += other.r
        self.rr += other.rr
        self.signal += other.signal
        for mine, theirs in ((self.xx, other.xx), (self.x, other.x), (self.xr, other.xr)):
            for own, more in zip(mine, theirs, strict=True):
                own += more

    def bias_only(self) -> Correction:
        """The mean residual."""
        return Correction(None, self.r / max(self.rows, 1))

    def solve(self, ridge: float) -> Correction:
        """The best correction; ``ridge`` is relative to the patches' mean variance."""
        from scipy.linalg import cho_solve

        features = sum(len(x) for x in self.x)
        power = sum(float(np.trace(xx)) for xx in self.xx) / max(features, 1)
        if power <= 0:
            return self.bias_only()
        left, right = [], []
        count, total = float(self.rows), self.r.copy()
        for xx, x, xr in zip(self.xx, self.x, self.xr, strict=True):
            factor = _factor(xx, ridge * power)
            solved = cho_solve(factor, np.concatenate([xr, x[:, None]], axis=1), check_finite=False)
            left.append(solved[:, :-1])
            right.append(solved[:, -1])
            count -= float(x @ solved[:, -1])
            total -= x @ solved[:, :-1]
        # Where the patches explain a constant by themselves nothing is left for a bias to fit.
        bias = total / count if count > 1e-9 * self.rows else np.zeros_like(total)
        return Correction([a - b[:, None] * bias for a, b in zip(left, right, strict=True)], bias)

    def error(self, correction: Correction) -> float:
        """What is left of the sum of squared residuals."""
        bias = correction.bias
        left = self.rr - 2 * float(bias @ self.r) + self.rows * float(bias @ bias)
        for phase, weights in enumerate(correction.weights or ()):
            xx, x, xr = self.xx[phase], self.x[phase], self.xr[phase]
            left += float(np.einsum("fo,fo->", weights, xx @ weights - 2 * xr)) + 2 * float((x @ weights) @ bias)
        return max(left, 0.0)


def squarable(rows: np.ndarray) -> np.ndarray:
    """Rows as they are, or in float64 where squares of float32 would overflow."""
    return rows if float(np.abs(rows).max(initial=0.0)) < _LARGEST else rows.astype(np.float64)


def _factor(system: np.ndarray, ridge: float) -> tuple[np.ndarray, bool]:
    """The Cholesky factor of sums with a ridge, a larger one where their rounding asks for it: they are of float32."""
    from scipy.linalg import LinAlgError, cho_factor

    while True:
        held = system.copy()
        held.flat[:: len(held) + 1] += ridge
        try:
            factor: tuple[np.ndarray, bool] = cho_factor(held, lower=True, overwrite_a=True, check_finite=False)
            return factor
        except LinAlgError:
            if not np.isfinite(ridge):
                raise
            ridge *= 10


def best(fit: Sums, held: Sums) -> tuple[Correction | None, float]:
    """The correction that leaves least on held-out sums, then taken from all; and what it left of the residual there.

    ``None`` where none is better than leaving the layer as it is. ``fit`` is added to ``held``. Where nothing was held
    out, a strong ridge is taken unjudged.
    """
    if not held.rows:
        correction = fit.solve(_UNJUDGED)
        return correction, fit.error(correction) / fit.rr if fit.rr > 0 else 1.0
    candidates: list[float | None] = [None, *reversed(RIDGES)]
    errors = [held.error(fit.bias_only() if ridge is None else fit.solve(ridge)) for ridge in candidates]
    chosen = int(np.argmin(errors))
    part = errors[chosen] / held.rr if held.rr > 0 else 0.0
    if not errors[chosen] < held.rr:
        return None, 1.0
    held.take(fit)
    ridge = candidates[chosen]
    return held.bias_only() if ridge is None else held.solve(ridge), part
