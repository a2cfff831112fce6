"""The methods: each turns a layer's kernel, at given ranks, into a chain of stages.

A method knows what a chain costs at any ranks (:meth:`Method.sizes`), how much of a kernel is kept at them
(:meth:`Method.kept`, one decomposition for all candidates), and makes the chain (:meth:`Method.decompose`). Kernels are
handed in beside the layer, so that one which was weighted by its input's covariance passes the same way.

Grouped convolutions are decomposed group by group with the same ranks in each; all stages are then grouped.
"""

from __future__ import annotations

import abc
import math
from typing import ClassVar, Literal

import numpy as np

from edgec.passes.factorization.chains import can_split_axes
from edgec.passes.factorization.layers import Layer
from edgec.passes.factorization.low_rank import svd_spectrum, truncated_svd
from edgec.passes.factorization.stages import Chain, Stage, StageSize, chain_macs, chain_params
from edgec.passes.factorization.tucker import tucker2, tucker2_spectrum

MethodName = Literal["tucker", "svd", "spatial", "cp"]
_AXIS_NAMES = {1: ("length",), 2: ("vertical", "horizontal"), 3: ("depth", "vertical", "horizontal")}


class Method(abc.ABC):
    """One way to write a kernel as a chain.

    Class attributes:
        name: what options and new nodes call it.
        title: what remarks call it.
    """

    name: ClassVar[MethodName]
    title: ClassVar[str]

    def unfit(self, layer: Layer) -> str | None:
        """Why it cannot be used for a layer; ``None`` where it can."""
        return None

    @abc.abstractmethod
    def full(self, layer: Layer) -> tuple[int, ...]:
        """The ranks, one a mode, at which nothing is lost."""

    @abc.abstractmethod
    def sizes(self, layer: Layer, ranks: np.ndarray) -> list[StageSize]:
        """The weights of each stage at ranks of shape (candidates, modes)."""

    @abc.abstractmethod
    def kept(self, layer: Layer, kernel: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """The part of the kernel's squared norm that a chain keeps at ranks (candidates, modes): (candidates,)."""

    @abc.abstractmethod
    def decompose(self, layer: Layer, kernel: np.ndarray, ranks: tuple[int, ...]) -> Chain:
        """The chain at these ranks for a kernel of the layer's shape."""

    def words(self, ranks: tuple[int, ...]) -> str:
        """Ranks as remarks give them, in the order of the chain."""
        return f"rank {ranks[0]}"

    def params(self, layer: Layer, ranks: np.ndarray) -> np.ndarray:
        """Parameters of a chain at ranks (candidates, modes), without its bias: (candidates,)."""
        return chain_params(self.sizes(layer, ranks))

    def macs(self, layer: Layer, ranks: np.ndarray) -> np.ndarray | None:
        """Multiply-accumulates of a chain, all readers together; ``None`` where shapes are not known."""
        return chain_macs(layer, self.sizes(layer, ranks))


class TuckerMethod(Method):
    """1x1, core, 1x1 (Kim et al. 2016); ranks are (out, in). A mode at full rank has no stage of its own."""

    name = "tucker"
    title = "Tucker-2"

    def unfit(self, layer: Layer) -> str | None:
        if layer.out == layer.into == 1:
            return "each of its groups has one channel, of which Tucker-2 has nothing to take"
        return None

    def full(self, layer: Layer) -> tuple[int, ...]:
        return layer.out, layer.into

    def sizes(self, layer: Layer, ranks: np.ndarray) -> list[StageSize]:
        out, into = ranks[:, 0].astype(np.int64), ranks[:, 1].astype(np.int64)
        groups, taps = layer.groups, math.prod(layer.taps)
        return [
            StageSize(groups * layer.into * into * (into < layer.into)),
            StageSize(groups * out * into * taps, layer.axes),
            StageSize(groups * layer.out * out * (out < layer.out)),
        ]

    def kept(self, layer: Layer, kernel: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        parts = _flat(kernel)
        kept = sum(
            energy * tucker2_spectrum(part)[ranks[:, 0] - 1, ranks[:, 1] - 1]
            for part, energy in zip(parts, _shares(parts), strict=True)
        )
        return np.asarray(kept)

    def decompose(self, layer: Layer, kernel: np.ndarray, ranks: tuple[int, ...]) -> Chain:
        parts = _flat(kernel)
        factors = [tucker2(part, *ranks) for part in parts]
        shapes = {"first": (ranks[1], layer.into), "core": ranks, "last": (layer.out, ranks[0])}
        stages = []
        for name, shape in shapes.items():
            made = [values for f in factors if (values := getattr(f, name)) is not None]
            if made:
                taps, axes = (layer.taps, layer.axes) if name == "core" else ((1,) * len(layer.taps), ())
                stages.append(Stage(name, np.stack(made).reshape(layer.groups, *shape, *taps), axes))
        errors = np.array([f.relative_error for f in factors])
        return Chain(tuple(stages), float(np.sqrt(errors**2 @ _shares(parts))))

    def words(self, ranks: tuple[int, ...]) -> str:
        return f"ranks {ranks[1]} and {ranks[0]}"


class _MatrixMethod(Method):
    """What the methods share that cut a kernel into two: rows and columns of one unfolding."""

    @abc.abstractmethod
    def split(self, layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...], tuple[str, str]]:
        """The spatial axes of the first stage and of the last, and both names."""

    def full(self, layer: Layer) -> tuple[int, ...]:
        first, last, _ = self.split(layer)
        return (min(layer.into * _taps(layer, first), layer.out * _taps(layer, last)),)

    def sizes(self, layer: Layer, ranks: np.ndarray) -> list[StageSize]:
        first, last, _ = self.split(layer)
        rank = ranks[:, 0].astype(np.int64)
        return [
            StageSize(rank * (layer.groups * layer.into * _taps(layer, first)), first),
            StageSize(rank * (layer.groups * layer.out * _taps(layer, last)), last),
        ]

    def kept(self, layer: Layer, kernel: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        return svd_spectrum(self._unfolded(layer, kernel))[ranks[:, 0] - 1]

    def decompose(self, layer: Layer, kernel: np.ndarray, ranks: tuple[int, ...]) -> Chain:
        first, last, names = self.split(layer)
        factors = truncated_svd(self._unfolded(layer, kernel), ranks[0])
        before = [layer.taps[a] if a in first else 1 for a in layer.axes]
        behind = [layer.taps[a] if a in last else 1 for a in layer.axes]
        groups, rank = layer.groups, ranks[0]
        right = factors.first.reshape(groups, rank, layer.into, *before)
        left = np.moveaxis(factors.last.reshape(groups, layer.out, *behind, rank), -1, 2)
        return Chain((Stage(names[0], right, first), Stage(names[1], left, last)), factors.relative_error)

    def _unfolded(self, layer: Layer, kernel: np.ndarray) -> np.ndarray:
        """(groups, out x taps of the last stage, in x taps of the first)."""
        first, last, _ = self.split(layer)
        order = [0, 1, *(3 + a for a in last), 2, *(3 + a for a in first)]
        return kernel.transpose(order).reshape(layer.groups, layer.out * _taps(layer, last), -1)


class SvdMethod(_MatrixMethod):
    """Two stages, one of which has all taps: the truncated singular value decomposition of one unfolding.

    For a kernel with one tap, Gemm and MatMul it is all there is. For others the side with more channels is
    compressed: the kernel's taps in the first stage where that is the output, in the last where it is the input.
    """

    name = "svd"
    title = "SVD"

    def split(self, layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...], tuple[str, str]]:
        # A convolution strides as early as it can, a transposed one as late.
        late = layer.transposed if layer.is_matrix or layer.out == layer.into else layer.into > layer.out
        return ((), layer.axes, ("first", "last")) if late else (layer.axes, (), ("first", "last"))


class SpatialMethod(_MatrixMethod):
    """A column of taps, then a row (Jaderberg et al. 2014): the first long axis of the kernel apart from the others."""

    name = "spatial"
    title = "spatial SVD"

    def unfit(self, layer: Layer) -> str | None:
        if sum(tap > 1 for tap in layer.taps) < 2:
            return "spatial SVD wants a kernel that is longer than one tap on two axes"
        if not can_split_axes(layer):
            return "its output_shape can only be shared out where its shapes are static"
        return None

    def split(self, layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...], tuple[str, str]]:
        cut = next(axis for axis, tap in enumerate(layer.taps) if tap > 1) + 1
        names = ("vertical", "horizontal") if len(layer.taps) == 2 else ("depth", "plane")
        return layer.axes[:cut], layer.axes[cut:], names


def _taps(layer: Layer, axes: tuple[int, ...]) -> int:
    return math.prod(layer.taps[axis] for axis in axes)


def _shares(parts: np.ndarray) -> np.ndarray:
    """The part of the whole squared norm that each group has; 1 of one group whatever its norm."""
    if len(parts) == 1:
        return np.ones(1)
    energies = np.array([np.vdot(part, part) for part in parts.astype(np.float64)])
    return energies / energies.sum()


def _flat(kernel: np.ndarray) -> np.ndarray:
    """(groups, out, in, taps)."""
    return kernel.reshape(*kernel.shape[:3], -1)


TUCKER, SVD, SPATIAL = TuckerMethod(), SvdMethod(), SpatialMethod()
METHODS: dict[str, Method] = {method.name: method for method in (TUCKER, SVD, SPATIAL)}


def methods_for(layer: Layer, wanted: str) -> list[Method] | str:
    """The methods to consider for a layer, or why there is none.

    Args:
        layer: one whose kernel has one tap is a matrix, for which every method is the SVD.
        wanted: the name of a method, or ``auto``: Tucker-2 (of which the SVD of either side of a kernel is a case: full
            rank in one mode) and spatial SVD, where they fit.
    """
    if layer.is_matrix:
        return [SVD]
    if wanted != "auto":
        method = METHODS[wanted]
        return method.unfit(layer) or [method]
    fit = [method for method in (TUCKER, SPATIAL) if method.unfit(layer) is None]
    return fit or TUCKER.unfit(layer) or fit
