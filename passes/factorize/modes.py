"""Kernels multiplied along one of their modes, all groups at once."""

from __future__ import annotations

import numpy as np


def along(values: np.ndarray, matrices: np.ndarray, axis: int) -> np.ndarray:
    """``values`` multiplied from the right along an axis.

    Args:
        values: (groups, ...).
        matrices: one for each group, (groups, n, m), or (1, n, m) for all.
        axis: of ``values``, with n elements; it has m then.
    """
    last = np.moveaxis(values, axis, -1)
    made = last.reshape(len(values), -1, last.shape[-1]) @ matrices
    return np.moveaxis(made.reshape(*last.shape[:-1], matrices.shape[-1]), -1, axis)
