"""Which images of a calibration set resemble each other: crops of one photograph, frames of one film.

What was fitted to one of them is not tested by the next. So they are held out together, and counted as one sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Images are alike that are nearer than this part of the median distance.
_NEAR = 0.5
# More images than this are not compared: each has a group of its own.
MOST_IMAGES = 1024


def groups_of(measured: Sequence[np.ndarray]) -> np.ndarray:
    """Groups of images by what was measured of each, average linkage; images drawn independently mostly stay alone.

    Args:
        measured: by layer, the mean of each channel in each image, (images, channels).

    Returns:
        the number of each image's group, from 0, by first appearance; (images,).
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    count = len(measured[0])
    if not 2 < count <= MOST_IMAGES:
        return np.arange(count)
    apart = pdist(np.concatenate([_standardised(means) for means in measured], axis=1))
    found = fcluster(linkage(apart, "average"), _NEAR * float(np.median(apart)), "distance")
    _, first, numbers = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers]


def halves(groups: np.ndarray) -> np.ndarray:
    """Which half each image belongs to, groups being left whole, the largest first to the half that has fewer.

    Returns:
        0 or 1 for each image, (images,); all 0 where there is one group only.
    """
    half = np.zeros(len(groups), np.int64)
    for number, images in enumerate(folds(groups, 2)):
        half[images] = number
    return half


def folds(groups: np.ndarray, most: int) -> list[np.ndarray]:
    """The numbers of the images in each of at most ``most`` folds, groups being left whole and spread by their size.

    Returns:
        rising numbers, a fold each; a single fold where there is one group only.
    """
    sizes = np.bincount(groups)
    count = min(most, len(sizes))
    fold = np.zeros(len(sizes), np.int64)
    filled = np.zeros(count, np.int64)
    for group in np.argsort(-sizes, kind="stable"):
        fold[group] = int(filled.argmin())
        filled[fold[group]] += sizes[group]
    return [np.flatnonzero(fold[groups] == number) for number in range(count)]


def channel_means(values: np.ndarray, axis: int = 1) -> np.ndarray:
    """Of one image the mean of each channel; of what has no channels on that axis, the values: 1-d, float64."""
    if values.ndim <= axis:
        return values.reshape(-1).astype(np.float64)
    others = tuple(other for other in range(values.ndim) if other != axis % values.ndim)
    means: np.ndarray = values.mean(axis=others, dtype=np.float64)
    return means


def _standardised(means: np.ndarray) -> np.ndarray:
    """Each layer weighs the same, and so do its channels but for those that hardly vary among the others."""
    spread = means.std(axis=0)
    level = float(np.sqrt(np.mean(spread**2)))
    scaled: np.ndarray = (means - means.mean(axis=0)) / np.maximum(spread, 0.1 * level + 1e-30)
    return scaled / np.sqrt(max(means.shape[1], 1))
