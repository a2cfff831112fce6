"""What a linear layer multiplies its weights with, at chosen positions of its output.

A Conv's output at one position is W x + b with x the patch that the kernel lies on, zeros where it lies on padding. A
ConvTranspose is one too: at a position only those taps meet an element of the input whose distance is a multiple of
the stride; so positions fall into phases, each with taps of its own. Gemm and MatMul have rows in place of patches.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgec.ir.graph import Constant, Node
from edgec.passes.layers.linear import groups
from edgec.passes.layers.windows import Window


def patches(
    node: Node, window: Window | None, data: np.ndarray, at: np.ndarray, written: tuple[int, ...]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """What the layer reads at chosen positions of its output.

    Args:
        node: Conv, ConvTranspose, Gemm or MatMul with its weights on the right.
        window: of a convolution, else ``None``.
        data: what the node reads.
        at: positions of the output: of its axes, all but that of the channels, row-major.
        written: the shape of the output.

    Yields:
        by phase: its number, which of ``at`` are of it, and their patches (rows, channels, taps).
    """
    if window is None:
        flat = data.reshape(-1, data.shape[-1])
        yield 0, np.arange(len(at)), flat[at][:, :, None]
        return
    spatial = written[2:]
    samples, *places = np.unravel_index(at, (written[0], *spatial))
    positions = np.stack(places, axis=1)
    of = window.phase_of(positions)
    flat = data.reshape(*data.shape[:2], -1)
    size = np.array(data.shape[2:])
    for phase, taps in enumerate(window.phases()):
        rows = np.flatnonzero(of == phase)
        if not len(rows):
            continue
        elements = window.elements(positions[rows], taps)
        inside: np.ndarray = np.all((elements >= 0) & (elements < size), axis=2)
        clipped = np.moveaxis(elements.clip(0, size - 1), 2, 0)
        index = np.ravel_multi_index(tuple(clipped), tuple(size))
        picked = flat[samples[rows][:, None], :, index] * inside[:, :, None]
        yield phase, rows, picked.transpose(0, 2, 1)


def written_at(node: Node, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A layer's output at those positions: (rows, output channels)."""
    if node.op in ("Gemm", "MatMul"):
        return values.reshape(-1, values.shape[-1])[at]
    flat = values.reshape(*values.shape[:2], -1)
    samples, places = np.divmod(at, flat.shape[2])
    return flat[samples, :, places]


def weight_matrix(node: Node, values: np.ndarray) -> np.ndarray:
    """Weights as (output channels, input channels, taps), a view."""
    if node.op == "Conv":
        return values.reshape(*values.shape[:2], -1)
    if node.op == "ConvTranspose":
        return values.reshape(*values.shape[:2], -1).transpose(1, 0, 2)
    if node.op == "Gemm" and node.attrs.get("transB"):
        return values[:, :, None]
    return values.T[:, :, None]


def from_matrix(node: Node, matrix: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Weights of the layer's own layout, shape and type from what :func:`weight_matrix` gives."""
    if node.op == "ConvTranspose":
        matrix = matrix.transpose(1, 0, 2)
    elif node.op in ("Gemm", "MatMul") and not node.attrs.get("transB"):
        matrix = matrix[:, :, 0].T
    return np.ascontiguousarray(matrix.reshape(like.shape), like.dtype)


def refit_obstacle(node: Node, weight: object) -> str | None:
    """Why a layer's weights cannot be fitted here; ``None`` where they can."""
    if not isinstance(weight, Constant):
        return "its weights are computed when the network runs"
    if node.op in ("Conv", "ConvTranspose") and groups(node) != 1:
        return f"grouped convolution ({groups(node)} groups)"
    if node.op == "Gemm" and (node.attrs.get("transA") or node.attrs.get("alpha", 1.0) != 1.0):
        return "its product is transposed or scaled"
    if node.op == "MatMul" and (len(weight.shape) != 2 or weight is node.inputs[0]):
        return "its weights stand on the left, or are no matrix"
    return None
