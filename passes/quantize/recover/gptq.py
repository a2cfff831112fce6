"""Rounding that knows what a layer reads: each weight's rounding error is made up for by the weights behind it.

Weights are rounded input by input; what rounding one of them does to the output is taken away, as far as the inputs'
covariance allows, from those that are still floats (Frantar et al., "GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers", ICLR 2023, after optimal brain surgeon). With R the covariance of the inputs and
U the upper Cholesky factor of its inverse, rounding input i errs by e and moves an input j behind it by
``-e * U[i, j] / U[i, i]``. Inputs of large variance come first: their errors have the most others to go to.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

from edgec.passes.layers.regression import cholesky

# Inputs whose errors are handed on together to all that are behind them.
_BLOCK = 32


def round_in_order(kernel: np.ndarray, scale: np.ndarray, second: np.ndarray, limit: int) -> np.ndarray:
    """The integers of a kernel, chosen for its outputs.

    Args:
        kernel: (groups, out, in), where in counts the taps too.
        scale: of each output, (groups, out).
        second: the covariance of what is read, (groups, in, in), positive definite.
        limit: the integers are from ``-limit`` to ``limit``.

    Returns:
        Whole numbers, (groups, out, in), float64.
    """
    order = np.argsort(-np.einsum("gii->gi", second), axis=1, kind="stable")
    ordered = np.take_along_axis(np.take_along_axis(second, order[:, :, None], 1), order[:, None, :], 2)
    passed_on = _inverse_factor(ordered)
    passed_on /= np.einsum("gii->gi", passed_on)[:, :, None]
    # An input's weights lie together: one after the other is read and written.
    weights = (kernel / scale[:, :, None]).swapaxes(1, 2)
    left = np.take_along_axis(weights, order[:, :, None], 1).astype(np.float64, copy=False)
    inputs = left.shape[1]
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        errors = np.empty((len(left), end - start, left.shape[2]))
        for i in range(start, end):
            whole = np.rint(left[:, i]).clip(-limit, limit)
            error = np.subtract(left[:, i], whole, out=errors[:, i - start])
            left[:, i] = whole
            left[:, i + 1 : end] -= passed_on[:, i, i + 1 : end, None] * error[:, None]
        left[:, end:] -= passed_on[:, start:end, end:].swapaxes(1, 2) @ errors
    rounded = np.empty_like(left)
    np.put_along_axis(rounded, np.broadcast_to(order[:, :, None], left.shape), left, 1)
    return rounded.swapaxes(1, 2)


def _inverse_factor(second: np.ndarray) -> np.ndarray:
    """The upper Cholesky factors of the inverses, (groups, n, n), float64.

    With the inputs in reverse a lower factor L of the covariance is an upper one, R, with R R^T the covariance; so
    ``R^-1`` is the factor wanted, and no inverse of the covariance is formed.
    """
    lower = cholesky(second[:, ::-1, ::-1])
    if len(lower) > 1:
        return np.ascontiguousarray(np.linalg.inv(lower)[:, ::-1, ::-1])
    inverse, fault = linalg.lapack.dtrtri(lower[0], lower=1)
    assert not fault, "the factor of a positive matrix has an inverse"
    return np.ascontiguousarray(np.tril(inverse)[None, ::-1, ::-1])
