"""Which channels of which tensors stay in a cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from edgec.ir.graph import Graph, Node, Tensor
from edgec.ir.shapes import Shapes


class Kept:
    """Which positions of which axes stay; axes of which all stay are not in it."""

    def __init__(self) -> None:
        self._shapes: Shapes | None = None
        self._masks: dict[Tensor, dict[int, np.ndarray]] = {}

    def restrict(self, tensor: Tensor, axis: int, index: np.ndarray, keep: np.ndarray) -> None:
        """Takes away the positions whose unit ``index`` says is not kept; -1 is no unit."""
        stays = np.append(keep, True)[index]  # -1 reads the last
        if stays.all():
            return
        axes = self._masks.setdefault(tensor, {})
        axes[axis] = axes[axis] & stays if axis in axes else stays

    def tensors(self) -> Iterator[Tensor]:
        """All that lose a position."""
        return iter(self._masks)

    def touches_node(self, node: Node) -> bool:
        """Whether what a standard operator reads or computes loses a position."""
        return node.domain in ("", "ai.onnx") and any(t in self._masks for t in (*node.inputs, *node.outputs))

    def axes(self, tensor: Tensor) -> Mapping[int, np.ndarray]:
        """By axis, which positions stay."""
        return self._masks.get(tensor, {})

    def mask(self, tensor: Tensor, axis: int) -> np.ndarray | None:
        """Which positions of an axis stay; ``None`` where all do."""
        return self._masks.get(tensor, {}).get(axis)

    def read_shapes(self, graph: Graph) -> None:
        """Keeps the shapes that :meth:`shape` gives: those of before the cut."""
        self._shapes = Shapes(graph)

    def shape(self, tensor: Tensor) -> tuple[int | None, ...]:
        """The shape of a tensor before the cut; its rank is known, or its channels would not be."""
        shape = None if self._shapes is None else self._shapes.shape(tensor)
        if shape is None:
            raise ValueError(f"'{tensor.name}' has no known rank")
        return shape

    def width(self, tensor: Tensor, axis: int, old: int) -> int:
        """How many positions of an axis of ``old`` stay."""
        mask = self.mask(tensor, axis)
        return old if mask is None else int(mask.sum())
