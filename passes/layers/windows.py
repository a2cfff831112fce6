"""How a convolution slides over its input: which element lies under each tap at each position of its output."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from edgec.ir.graph import Node


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
            # Padding follows from the sizes; what is odd goes to the front but for SAME_UPPER (ONNX, ConvTranspose).
            extra = node.attrs.get("output_padding", [0] * rank)
            totals = [
                (i - 1) * s + (k - 1) * d + 1 + int(e) - o if transposed else (o - 1) * s + (k - 1) * d + 1 - i
                for i, o, k, s, d, e in zip(read[2:], written[2:], kernel, strides, dilations, extra, strict=True)
            ]
            begins = tuple((max(t, 0) + (auto != "SAME_UPPER")) // 2 for t in totals)
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

    def meets(self, positions: np.ndarray) -> np.ndarray:
        """Whether each tap meets an element at each position, or falls between two: (rows, taps)."""
        taps = np.array(list(np.ndindex(*self.kernel))).reshape(-1, len(self.kernel))
        if not self.transposed:
            return np.ones((len(positions), len(taps)), bool)
        reach = positions[:, None] + np.array(self.begins) - taps * np.array(self.dilations)
        return np.all(reach % np.array(self.strides) == 0, axis=2)
