"""A convolution anew: the kernel on a coarse grid whose response is nearest to that of what it stands for.

The old first convolution reads pixels; the new one reads a block a pixel, and gives one value where the old one gave
``block`` x ``block``: their mean. Where it stands for several layers it gives what they gave on the same grid, or each
of a cell's pixels in a channel of its own. Its weights are the least-squares solution for that over the calibration
data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgec.ir.execution import Feeds, Session
from edgec.ir.graph import Graph, Node, Variable, static_shape
from edgec.passes.calibration.dataset import ROLE
from edgec.passes.calibration.runner import each
from edgec.passes.framework.context import Context

# Of the mean variance of what is read: what no image has shown must not cost nothing.
_RIDGE = 1e-5


@dataclass(frozen=True)
class Geometry:
    """Of the new convolution.

    Attributes:
        size: of its kernel, (height, width).
        strides: as the old one has them.
        pads: above, on the left, below, on the right.
    """

    size: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]

    @staticmethod
    def of(node: Node, block: int) -> Geometry:
        """So large that it sees what the old kernels of its cell saw."""
        dilations = node.attrs.get("dilations", [1, 1])
        strides = [int(stride) for stride in node.attrs.get("strides", [1, 1])]
        reach = [(k - 1) * d + 1 for k, d in zip(static_shape(node.inputs[1])[2:], dilations, strict=True)]
        pads = [-(-max(r - s, 0) // (2 * block)) for r, s in zip(reach, strides, strict=True)]
        size = [s + 2 * p for s, p in zip(strides, pads, strict=True)]
        return Geometry((size[0], size[1]), (strides[0], strides[1]), (pads[0], pads[1], pads[0], pads[1]))

    @staticmethod
    def around(reach: tuple[int, int, int, int], most: int | None) -> Geometry:
        """Of stride 1, seeing so many cells above, left, below and right, and no more than ``most`` to any side."""
        top, left, below, right = (side if most is None else min(side, most) for side in reach)
        return Geometry((top + 1 + below, left + 1 + right), (1, 1), (top, left, below, right))

    @property
    def attrs(self) -> dict[str, list[int]]:
        """Those of a Conv."""
        return {"kernel_shape": list(self.size), "strides": list(self.strides), "pads": list(self.pads)}

    def patches(self, channels: np.ndarray) -> np.ndarray:
        """What it reads at every position: (positions, channels * height * width)."""
        (top, left, below, right), (high, wide) = self.pads, self.size
        padded = np.pad(channels, ((0, 0), (0, 0), (top, below), (left, right)))
        windows = sliding_window_view(padded, (high, wide), axis=(2, 3))[:, :, :: self.strides[0], :: self.strides[1]]
        return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, channels.shape[1] * high * wide)


@dataclass(frozen=True)
class Response:
    """The new convolution.

    Attributes:
        weight: (out, channels, height, width), float32.
        bias: (out,), float32.
        explained: the part of the variance of the old response that it gives, on the data that it was fitted to.
    """

    weight: np.ndarray
    bias: np.ndarray
    explained: float


Target = Callable[[np.ndarray], np.ndarray]


def means(block: int) -> Target:
    """Of an image (n, channels, height, width), the means of its blocks: (blocks, channels)."""

    def made(fine: np.ndarray) -> np.ndarray:
        return _blocks(fine, block).mean(axis=(2, 4), dtype=np.float64).reshape(-1, fine.shape[1])

    return made


def cells(block: int) -> Target:
    """Of an image (n, channels, height, width), all values of its blocks, pixel by pixel: (blocks, block^2 channels).

    They are in the order in which DepthToSpace (DCR) puts them in their places.
    """

    def made(fine: np.ndarray) -> np.ndarray:
        return _blocks(fine, block).transpose(0, 1, 3, 2, 4, 5).reshape(-1, block**2 * fine.shape[1])

    return made


def _blocks(fine: np.ndarray, block: int) -> np.ndarray:
    """(n, rows of blocks, rows in one, columns of blocks, columns in one, channels)."""
    n, out, high, wide = fine.shape
    return fine.reshape(n, out, high // block, block, wide // block, block).transpose(0, 2, 3, 4, 5, 1)


def fit_response(
    before: Graph, old: Variable, behind: Graph, channels: Variable, geometry: Geometry, target: Target, ctx: Context
) -> Response:
    """Fits the new convolution.

    Args:
        before: the network as it was; ``old`` is in it.
        behind: a network as it is to be, as far as ``channels``, which the new convolution reads.
        geometry: of the new convolution.
        target: what it is to give at every position, of what ``old`` was.
        ctx: the calibration data.

    Raises:
        InputError: there are no samples.
    """
    response, made = Session(before, _taps(before, old)), Session(behind, _taps(behind, channels))
    wanted, source = old.name, channels.name

    def sums(_: int, feeds: Feeds) -> tuple[np.ndarray, ...]:
        y = target(response.run(feeds, wanted=[wanted])[wanted]).astype(np.float64)
        x = geometry.patches(made.run(feeds, wanted=[source])[source]).astype(np.float64)
        x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        return x.T @ x, x.T @ y, (y * y).sum(axis=0), y.sum(axis=0), np.array(len(y))

    second, cross, squares, total, count = (
        np.sum(parts, axis=0) for parts in zip(*each(ctx, ctx.feeds(before, ROLE), sums), strict=True)
    )
    mean = second[-1, :-1] / count
    spread = np.maximum(np.diag(second)[:-1] / count - mean**2, 0.0).mean()
    ridge = np.diag(np.append(np.full(len(mean), _RIDGE * spread * count + np.finfo(np.float64).tiny), 0.0))
    solution = np.linalg.solve(second + ridge, cross)
    wrong = squares - 2 * (solution * cross).sum(axis=0) + (solution * (second @ solution)).sum(axis=0)
    variance = float((squares - total**2 / count).sum())
    explained = 1 - float(wrong.sum()) / variance if variance > 0 else 1.0
    out = cross.shape[1]
    shape = (out, -1, *geometry.size)
    return Response(
        solution[:-1].T.reshape(shape).astype(np.float32), solution[-1].astype(np.float32), max(0.0, explained)
    )


def _taps(graph: Graph, tensor: Variable) -> list[Variable]:
    return [] if tensor in graph.outputs else [tensor]
