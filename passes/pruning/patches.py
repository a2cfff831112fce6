"""What a linear layer multiplies its weights with, at chosen positions of its output.

A Conv's output at one position is W x + b with x the patch that the kernel lies on, zeros where it lies on padding. A
ConvTranspose is one too: at a position only those taps meet an element of the input whose distance is a multiple of
the stride; so positions fall into phases, each with taps of its own. Gemm and MatMul have rows in place of patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from edgec.ir.graph import Constant, Node
from edgec.passes.linear_layers import groups


@dataclass(frozen=True)
class Window:
    """How a layer slides over its input.

    Attributes:
        kernel, strides, dilations, begins: of each spatial axis; ``begins`` is the padding in front.
        transposed: whether the layer is a ConvTranspose.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    transposed: bool

    @staticmethod
    def of(node: Node, weight: tuple[int, ...], read: tuple[int, ...], written: tuple[int, ...]) -> Window:
        """Of a convolution whose input and output have those shapes."""
        kernel = weight[2:]
        rank = len(kernel)
        strides = tuple(int(s) for s in node.attrs.get("strides", [1] * rank))
        dilations = tuple(int(d) for d in node.attrs.get("dilations", [1] * rank))
        auto = node.attrs.get("auto_pad", "NOTSET")
        transposed = node.op == "ConvTranspose"
        if auto == "VALID":
            begins = (0,) * rank
        elif auto == "NOTSET" and not (transposed and node.attrs.get("output_shape")):
            begins = tuple(int(p) for p in node.attrs.get("pads", [0] * 2 * rank)[:rank])
        else:
            # Padding follows from the sizes; an odd one goes to the end, to the front with SAME_LOWER.
            extra = node.attrs.get("output_padding", [0] * rank)
            totals = [
                (i - 1) * s + (k - 1) * d + 1 + int(e) - o if transposed else (o - 1) * s + (k - 1) * d + 1 - i
                for i, o, k, s, d, e in zip(read[2:], written[2:], kernel, strides, dilations, extra, strict=True)
            ]
            upper = auto == "SAME_LOWER"
            begins = tuple((max(t, 0) + upper) // 2 for t in totals)
        return Window(kernel, strides, dilations, begins, transposed)

    def phases(self) -> list[np.ndarray]:
        """The taps, by number, that can meet an element at the positions of each phase; one phase for a Conv."""
        if not self.transposed:
            return [np.arange(int(np.prod(self.kernel, dtype=int)))]
        taps = np.array(list(np.ndindex(*self.kernel))).reshape(-1, len(self.kernel))
        found = []
        for phase in product(*(range(s) for s in self.strides)):
            meets = (np.array(phase) - taps * np.array(self.dilations)) % np.array(self.strides) == 0
            found.append(np.flatnonzero(meets.all(axis=1)))
        return found

    def phase_of(self, positions: np.ndarray) -> np.ndarray:
        """The phase of each output position (rows, spatial axes)."""
        if not self.transposed:
            return np.zeros(len(positions), np.int64)
        strides = np.array(self.strides)
        within = (positions + np.array(self.begins)) % strides
        return within @ np.append(np.cumprod(strides[::-1])[::-1][1:], 1)

    def elements(self, positions: np.ndarray, taps: np.ndarray) -> np.ndarray:
        """The element of the input under each tap at each position, (rows, taps, spatial axes); may lie outside."""
        at = np.array(list(np.ndindex(*self.kernel))).reshape(-1, len(self.kernel))[taps] * np.array(self.dilations)
        strides, begins = np.array(self.strides), np.array(self.begins)
        if self.transposed:
            return (positions[:, None] + begins - at[None]) // strides
        return positions[:, None] * strides - begins + at[None]


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
