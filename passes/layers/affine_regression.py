"""Sums from which the least-squares correction of a layer follows, and that correction.

With patches x and the residual r = (what the original network computed) - (what the layer computes now), the weights
and bias get the D and d that minimize ``sum |r - D x - d|^2 + ridge * |D|^2``. The ridge pulls towards the weights as
they are, so few data change little; the bias is free of it, so a residual that is constant is removed exactly. How
much ridge is best, how far each output channel should follow the correction, and whether any correction is of use, is
judged on images that it was not taken from: on each half of them, or each of a few folds, what the others give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
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

    def agreement(self, correction: Correction) -> tuple[np.ndarray, np.ndarray]:
        """Of each output, the sums of (correction * residual) and of correction^2 over the rows: two of (outputs,)."""
        bias = correction.bias
        along, size = bias * self.r, self.rows * bias**2
        for phase, weights in enumerate(correction.weights or ()):
            along += np.einsum("fo,fo->o", weights, self.xr[phase])
            size += np.einsum("fo,fo->o", weights, self.xx[phase] @ weights) + 2 * (self.x[phase] @ weights) * bias
        return along, size

    def error(self, correction: Correction) -> float:
        """What is left of the sum of squared residuals."""
        along, size = self.agreement(correction)
        return max(self.rr + float((size - 2 * along).sum()), 0.0)


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


def best(*folds: Sums, pooled: bool = False) -> tuple[Correction | None, float]:
    """The correction that leaves least where it was not taken from, then taken from all; and the part that it left.

    ``None`` where none is better than leaving the layer as it is. All are added to the last of the folds. Where only
    one of them has rows, a strong ridge is taken unjudged.

    Args:
        folds: sums over parts of the images that do not resemble each other.
        pooled: all outputs follow their corrections equally far: each by itself is not told by few images.
    """
    filled = [fold for fold in folds if fold.rows]
    if len(filled) < 2:
        seen = filled[0] if filled else folds[0]
        correction = seen.solve(_UNJUDGED)
        return correction, seen.error(correction) / seen.rr if seen.rr > 0 else 1.0
    outputs = len(folds[0].r)
    residual = sum(fold.rr for fold in filled)
    chosen: tuple[float, float | None, np.ndarray] = (residual, None, np.zeros(outputs))
    rest = [_without(filled, held) for held in filled]
    for ridge in (None, *reversed(RIDGES)):
        along, size = np.zeros(outputs), np.zeros(outputs)
        for fit, held in zip(rest, filled, strict=True):
            found = held.agreement(fit.bias_only() if ridge is None else fit.solve(ridge))
            along, size = along + found[0], size + found[1]
        if pooled:
            along, size = (np.full(outputs, values.sum() / outputs) for values in (along, size))
        part = np.where(along >= size, 1.0, along.clip(min=0) / np.where(size > 0, size, 1.0))
        left = residual + float((part**2 * size - 2 * part * along).sum())
        if left < chosen[0]:
            chosen = (left, ridge, part)
    left, ridge, part = chosen
    if not part.any():
        return None, 1.0
    whole = filled[-1]
    for fold in filled[:-1]:
        whole.take(fold)
    correction = whole.bias_only() if ridge is None else whole.solve(ridge)
    weights = None if correction.weights is None else [each * part for each in correction.weights]
    return Correction(weights, correction.bias * part), max(left, 0.0) / residual


def _without(folds: list[Sums], held: Sums) -> Sums:
    """The sums over all folds but one; of two, the other itself."""
    others = [fold for fold in folds if fold is not held]
    if len(others) == 1:
        return others[0]
    made = Sums([len(x) for x in held.x], len(held.r))
    for fold in others:
        made.take(fold)
    return made
