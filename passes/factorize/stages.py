"""A chain and its stages: what stands in the place of a layer, whatever method made it.

A stage is one node. Its kernel has the layout of :meth:`Layer.kernel`; of the layer's spatial axes it *covers* some:
there it has the layer's taps, strides, padding, dilation and output padding. On the other axes it has one tap and
leaves positions as they are. Every axis is covered by exactly one stage of a chain, so a chain computes what a layer
with the kernel :func:`compose` would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.passes.factorize.layers import Layer


@dataclass(frozen=True)
class Stage:
    """One node of a chain.

    Attributes:
        name: what the node and its constant are called by: ``core`` of ``conv1.tucker.core``.
        kernel: (groups, out, in, *taps), channels being those of one group; one tap on an axis that is not covered.
            The groups are a multiple of the layer's.
        axes: the spatial axes of the layer that it covers.
    """

    name: str
    kernel: np.ndarray
    axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Chain:
    """What a method makes of a kernel.

    Attributes:
        stages: in the order in which the input passes them; the bias belongs to the last.
        relative_error: Frobenius norm of what is missing, by that of the kernel.
    """

    stages: tuple[Stage, ...]
    relative_error: float


@dataclass(frozen=True)
class StageSize:
    """How many weights a stage has, for many candidate ranks at once.

    Attributes:
        params: (candidates,), int64.
        axes: as in :class:`Stage`.
    """

    params: np.ndarray
    axes: tuple[int, ...] = ()


def compose(stages: Sequence[Stage]) -> np.ndarray:
    """The kernel (groups, out, in, *taps) that a chain stands for, with the groups of its first stage.

    Raises:
        ValueError: the channels of neighbouring stages do not agree.
    """
    kernel = stages[0].kernel
    for stage in stages[1:]:
        groups, out, into, *taps = stage.kernel.shape
        own, channels, source, *seen = kernel.shape
        if groups % own or groups // own * into != channels:
            raise ValueError(f"stage '{stage.name}' reads {groups} x {into} channels of {own} x {channels}")
        # Each axis is covered by one of the two, so their taps multiply: (a, b) and (c, d), one of a and c being 1.
        parts = groups // own
        left = stage.kernel.reshape(own, parts, out, into, -1)
        right = kernel.reshape(own, parts, into, source, -1)
        product = np.einsum("gpoit,gpiju->gpojtu", left, right, optimize=True)
        apart = product.reshape(own, parts * out, source, *taps, *seen)
        first = 3 + len(taps)
        order = [axis for pair in zip(range(3, first), range(first, apart.ndim), strict=True) for axis in pair]
        merged = [a * b for a, b in zip(taps, seen, strict=True)]
        kernel = apart.transpose(0, 1, 2, *order).reshape(own, parts * out, source, *merged)
    return kernel


def chain_params(sizes: Sequence[StageSize]) -> np.ndarray:
    """Parameters of a chain without its bias: (candidates,), int64."""
    return np.asarray(sum(size.params for size in sizes))


def chain_macs(layer: Layer, sizes: Sequence[StageSize]) -> np.ndarray | None:
    """Multiply-accumulates of a chain, all readers of the layer together: (candidates,); ``None`` without shapes.

    A convolution computes each weight at every position that it writes, a transposed one at every position that it
    reads.
    """
    covered: set[int] = set()
    total = np.zeros_like(sizes[0].params)
    for size in sizes:
        before = layer.positions(covered)
        covered.update(size.axes)
        behind = layer.positions(covered)
        if before is None or behind is None:
            return None
        total = total + size.params * (before if layer.transposed else behind)
    return total


def sizes_of(stages: Sequence[Stage]) -> list[StageSize]:
    """The sizes of stages that are there, as one candidate."""
    return [StageSize(np.array([math.prod(stage.kernel.shape)]), stage.axes) for stage in stages]


def relative_error(kernel: np.ndarray, stages: Sequence[Stage]) -> float:
    """Frobenius norm of what a chain leaves out of ``kernel``, by that of ``kernel``."""
    missing = kernel - compose(stages)
    total = float(np.linalg.norm(kernel.reshape(-1).astype(np.float64)))
    return float(np.linalg.norm(missing.reshape(-1).astype(np.float64))) / total if total else 0.0
