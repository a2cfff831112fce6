"""How far what was measured of a layer's inputs is given up for what its weights alone say.

Few samples do not show which inputs matter: pixels that no sample lights have no variance, and a fit would drop their
weights for nothing. So the measured covariance is blended with a multiple of the identity, under which an error of the
output is an error of the weights. The part is chosen by cross-validation between samples: of a layer that computes
y = W x the best approximation of rank r keeps the r leading directions of cov(y), so for each part the directions are
taken from all folds but one, of ``(1 - part) cov(y) + part * level * W W^T``, and what they leave of the outputs of
that fold is its error. Positions of one image resemble each other, and so do images of one scene: a fold holds whole
groups of images (:mod:`edgec.passes.calibration.near_duplicates`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.passes.calibration.near_duplicates import folds
from edgec.passes.factorize.samples import Samples

PARTS = (0.0, 0.02, 0.1, 0.3, 0.6, 0.9)
_FOLDS = 4
# Directions of more outputs than this are looked at in a random subspace of so many.
_MOST_OUTPUTS = 192
# Ranks at which the error is looked at, as parts of the outputs, and errors below which nothing is told apart.
_RANKS, _ROUNDING = (0.125, 0.25, 0.5), 1e-6
_SEED = 20261201


def isotropic_part(samples: Samples, kernel: np.ndarray, level: np.ndarray) -> float:
    """The part, from 0 to below 1.

    Args:
        samples: of the layer.
        kernel: its own, (groups, out, in * taps).
        level: the mean variance of its inputs, (groups,).
    """
    images = samples.images
    outputs = kernel.shape[1]
    if len(images) < 2 or outputs < 2:
        # No direction can be held against another sample: as much as one more sample would say.
        return 1 / (1 + len(images))
    if outputs > _MOST_OUTPUTS:
        noise = np.random.Generator(np.random.PCG64(_SEED)).standard_normal((outputs, _MOST_OUTPUTS))
        kernel = np.linalg.qr(noise)[0].T.astype(np.float32) @ kernel
    computed = samples.patches @ kernel.swapaxes(1, 2)
    prior = (kernel @ kernel.swapaxes(1, 2)).astype(np.float64) * level[:, None, None]
    moments = []
    for fold in folds(np.arange(len(images)), _FOLDS):
        parts = [computed[:, images[image]] for image in fold]
        gram = np.stack([part.swapaxes(1, 2) @ part for part in parts]).sum(axis=0, dtype=np.float64)
        total = np.stack([part.sum(axis=1, dtype=np.float64) for part in parts]).sum(axis=0)
        moments.append(_Moments(sum(part.shape[1] for part in parts), total, gram))
    return PARTS[int(_held_out_errors(moments, prior).argmin())]


@dataclass(frozen=True)
class _Moments:
    """Of the outputs of a fold: how many rows, their sums (groups, out) and sums of products (groups, out, out)."""

    rows: int
    sums: np.ndarray
    products: np.ndarray

    def about(self, mean: np.ndarray) -> np.ndarray:
        """The sums of products of the distances from a mean (groups, out)."""
        crossed = self.sums[:, :, None] * mean[:, None]
        return self.products - crossed - crossed.swapaxes(1, 2) + self.rows * mean[:, :, None] * mean[:, None]


def _held_out_errors(moments: Sequence[_Moments], prior: np.ndarray) -> np.ndarray:
    """The sums of the logarithms of what each part leaves of the folds that it does not see: (parts,).

    Each fold is centred by the mean of the others: about a mean that it has a share in, the last of n samples is minus
    the sum of the others, and nothing would be left of it.

    Args:
        moments: of each fold.
        prior: of the outputs under the identity, (groups, out, out).
    """
    size = prior.shape[1]
    ranks = sorted({max(int(part * size), 1) for part in _RANKS})
    errors = np.zeros(len(PARTS))
    for fold in moments:
        others = [other for other in moments if other is not fold]
        rest = _Moments(
            sum(other.rows for other in others),
            np.sum([other.sums for other in others], axis=0),
            np.sum([other.products for other in others], axis=0),
        )
        mean = rest.sums / rest.rows
        seen, held = rest.about(mean) / rest.rows, fold.about(mean)
        total = float(np.einsum("goo->", held))
        if total <= 0:
            continue
        for place, part in enumerate(PARTS):
            vectors = np.linalg.eigh((1 - part) * seen + part * prior)[1][:, :, ::-1]
            kept = np.einsum("gok,gok->k", vectors, held @ vectors).cumsum()
            for rank in ranks:
                errors[place] += np.log(max(1 - float(kept[rank - 1]) / total, _ROUNDING))
    return errors
