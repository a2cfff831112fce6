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

from edgec.passes.factorize.chains import can_split_axes
from edgec.passes.factorize.cp import Polyadic, most_rank, polyadic
from edgec.passes.factorize.layers import Layer
from edgec.passes.factorize.low_rank import svd_spectrum, truncated_svd
from edgec.passes.factorize.stages import Chain, Stage, StageSize, chain_macs, chain_params
from edgec.passes.factorize.tucker import Tucker, tucker2, tucker2_spectrum
from edgec.passes.factorize.vbmf import rank_above_noise

MethodName = Literal["tucker", "svd", "spatial", "cp"]
MethodOption = Literal["auto", MethodName]
_UNKNOWN_BETWEEN = "its output_shape can only be shared out where its shapes are static"
# The rank-error curve of CP: so many ranks, so many sweeps each.
_CURVE_POINTS, _CURVE_SWEEPS = 8, 15
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

    @abc.abstractmethod
    def blank(self, layer: Layer, ranks: tuple[int, ...]) -> Chain:
        """A chain of zeros at these ranks, for where only its shapes matter."""

    @abc.abstractmethod
    def ranks_above_noise(self, layer: Layer, kernel: np.ndarray) -> tuple[int, ...]:
        """The ranks by variational Bayes, of the group that needs most; 0 where a mode is nothing but noise."""

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

    def solve(self, kernel: np.ndarray, ranks: tuple[int, ...]) -> Tucker:
        """The factors of one group's kernel, (out, in, taps)."""
        return tucker2(kernel, *ranks)

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
        factors = [self.solve(part, ranks) for part in parts]
        shapes = {"first": (ranks[1], layer.into), "core": ranks, "last": (layer.out, ranks[0])}
        stages = []
        for name, shape in shapes.items():
            made = [values for f in factors if (values := getattr(f, name)) is not None]
            if made:
                taps, axes = (layer.taps, layer.axes) if name == "core" else ((1,) * len(layer.taps), ())
                stages.append(Stage(name, np.stack(made).reshape(layer.groups, *shape, *taps), axes))
        errors = np.array([f.relative_error for f in factors])
        return Chain(tuple(stages), float(np.sqrt(errors**2 @ _shares(parts))))

    def blank(self, layer: Layer, ranks: tuple[int, ...]) -> Chain:
        out, into = ranks
        stages = [Stage("core", _zeros(layer, layer.groups, out, into, axes=layer.axes), layer.axes)]
        if into < layer.into:
            stages.insert(0, Stage("first", _zeros(layer, layer.groups, into, layer.into)))
        if out < layer.out:
            stages.append(Stage("last", _zeros(layer, layer.groups, layer.out, out)))
        return Chain(tuple(stages), 1.0)

    def ranks_above_noise(self, layer: Layer, kernel: np.ndarray) -> tuple[int, ...]:
        return _channel_ranks(kernel)

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
        factors = truncated_svd(self._unfolded(layer, kernel), ranks[0])
        return Chain(self._stages(layer, factors.first, factors.last), factors.relative_error)

    def blank(self, layer: Layer, ranks: tuple[int, ...]) -> Chain:
        first, last, _ = self.split(layer)
        right = np.zeros((layer.groups, ranks[0], layer.into * _taps(layer, first)), np.float32)
        left = np.zeros((layer.groups, layer.out * _taps(layer, last), ranks[0]), np.float32)
        return Chain(self._stages(layer, right, left), 1.0)

    def _stages(self, layer: Layer, right: np.ndarray, left: np.ndarray) -> tuple[Stage, Stage]:
        first, last, names = self.split(layer)
        before = [layer.taps[a] if a in first else 1 for a in layer.axes]
        behind = [layer.taps[a] if a in last else 1 for a in layer.axes]
        groups, rank = layer.groups, right.shape[1]
        reads = right.reshape(groups, rank, layer.into, *before)
        writes = np.moveaxis(left.reshape(groups, layer.out, *behind, rank), -1, 2)
        return Stage(names[0], reads, first), Stage(names[1], writes, last)

    def ranks_above_noise(self, layer: Layer, kernel: np.ndarray) -> tuple[int, ...]:
        return (rank_above_noise(self._unfolded(layer, kernel)),)

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
            return _UNKNOWN_BETWEEN
        return None

    def split(self, layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...], tuple[str, str]]:
        cut = next(axis for axis, tap in enumerate(layer.taps) if tap > 1) + 1
        names = ("vertical", "horizontal") if len(layer.taps) == 2 else ("depth", "plane")
        return layer.axes[:cut], layer.axes[cut:], names


class CpMethod(Method):
    """1x1, one depthwise stage a long axis, 1x1 (Lebedev et al. 2015): the canonical polyadic decomposition.

    Alternating least squares does not promise exactness at any rank. A chain of the rank that always suffices has more
    parameters than the layer, so at full rank the layer stays.
    """

    name = "cp"
    title = "CP"

    def solve(self, tensor: np.ndarray, rank: int) -> Polyadic:
        """The factors of one group's kernel, (out, in, *long taps)."""
        return polyadic(tensor, rank)

    def unfit(self, layer: Layer) -> str | None:
        if layer.out == layer.into == 1:
            return "each of its groups has one channel, where CP would be what spatial SVD is"
        if layer.is_matrix:
            return "a kernel of one tap is a matrix, for which CP is the SVD"
        return None if len(self._spatial(layer)) == 1 or can_split_axes(layer) else _UNKNOWN_BETWEEN

    def full(self, layer: Layer) -> tuple[int, ...]:
        return (most_rank((layer.out, layer.into, *layer.taps)),)

    def sizes(self, layer: Layer, ranks: np.ndarray) -> list[StageSize]:
        rank = ranks[:, 0].astype(np.int64) * layer.groups
        spatial = [StageSize(rank * _taps(layer, axes), axes) for axes in self._spatial(layer)]
        return [StageSize(rank * layer.into), *spatial, StageSize(rank * layer.out)]

    def kept(self, layer: Layer, kernel: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """Of a few ranks from short iterations; in between, what is missing is taken to fall as a power of the rank."""
        looked_at = self._looked_at(layer)
        missing = np.ones(len(looked_at))
        parts = self._tensors(layer, kernel)
        for i, rank in enumerate(looked_at):
            errors = [polyadic(part, int(rank), sweeps=_CURVE_SWEEPS).relative_error for part in parts]
            missing[i] = np.square(errors) @ _shares(parts)
        missing = np.maximum(np.minimum.accumulate(missing), 1e-12)
        wanted = ranks[:, 0]
        kept = 1 - np.exp(np.interp(np.log(wanted), np.log(looked_at), np.log(missing)))
        kept[wanted >= self.full(layer)[0]] = 1.0
        return kept

    def decompose(self, layer: Layer, kernel: np.ndarray, ranks: tuple[int, ...]) -> Chain:
        parts = self._tensors(layer, kernel)
        made = [self.solve(part, ranks[0]) for part in parts]
        ones = (1,) * len(layer.taps)
        last, first, *spatial = (np.stack(factors) for factors in zip(*(m.factors for m in made), strict=True))
        stages = [Stage("first", first.swapaxes(1, 2).reshape(layer.groups, ranks[0], layer.into, *ones))]
        for axes, factor in zip(self._spatial(layer), spatial, strict=True):
            long = next(axis for axis in axes if layer.taps[axis] > 1)
            taps = [layer.taps[axis] if axis in axes else 1 for axis in layer.axes]
            depthwise = factor.swapaxes(1, 2).reshape(layer.groups * ranks[0], 1, 1, *taps)
            stages.append(Stage(_AXIS_NAMES[len(layer.taps)][long], depthwise, axes))
        stages.append(Stage("last", last.reshape(layer.groups, layer.out, ranks[0], *ones)))
        errors = np.array([m.relative_error for m in made])
        return Chain(tuple(stages), float(np.sqrt(errors**2 @ _shares(parts))))

    def blank(self, layer: Layer, ranks: tuple[int, ...]) -> Chain:
        stages = [Stage("first", _zeros(layer, layer.groups, ranks[0], layer.into))]
        for axes in self._spatial(layer):
            long = next(axis for axis in axes if layer.taps[axis] > 1)
            kernel = _zeros(layer, layer.groups * ranks[0], 1, 1, axes=axes)
            stages.append(Stage(_AXIS_NAMES[len(layer.taps)][long], kernel, axes))
        return Chain((*stages, Stage("last", _zeros(layer, layer.groups, layer.out, ranks[0]))), 1.0)

    def ranks_above_noise(self, layer: Layer, kernel: np.ndarray) -> tuple[int, ...]:
        """The larger of the two channel modes', which a sum of so many outer products must reach at least."""
        ranks = _channel_ranks(kernel)
        return (max(ranks) if min(ranks) else 0,)

    def _looked_at(self, layer: Layer) -> np.ndarray:
        """Ranks that are tried for the curve: up to the last at which a chain has fewer parameters than the layer."""
        one = int(self.params(layer, np.ones((1, 1), np.int64))[0])
        most = max(min((layer.params - 1) // one, self.full(layer)[0]), 1)
        return np.unique(np.geomspace(1, most, _CURVE_POINTS).round().astype(np.int64))

    def _spatial(self, layer: Layer) -> list[tuple[int, ...]]:
        """The axes of each depthwise stage: a long one, and those of one tap that follow it or stand before all."""
        starts = [axis for axis in layer.axes if layer.taps[axis] > 1]
        ends = [*starts[1:], len(layer.taps)]
        return [layer.axes[start:end] for start, end in zip([0, *starts[1:]], ends, strict=True)]

    def _tensors(self, layer: Layer, kernel: np.ndarray) -> np.ndarray:
        """The kernel without its axes of one tap: (groups, out, in, *long taps)."""
        return kernel.reshape(*kernel.shape[:3], *(tap for tap in layer.taps if tap > 1))


def _zeros(layer: Layer, *channels: int, axes: tuple[int, ...] = ()) -> np.ndarray:
    """A stage's kernel of zeros with the layer's taps on ``axes``; ``channels`` are its groups, outputs and inputs."""
    return np.zeros((*channels, *(layer.taps[axis] if axis in axes else 1 for axis in layer.axes)), np.float32)


def _taps(layer: Layer, axes: tuple[int, ...]) -> int:
    return math.prod(layer.taps[axis] for axis in axes)


def _channel_ranks(kernel: np.ndarray) -> tuple[int, int]:
    """The ranks by variational Bayes of the output and of the input channels."""
    by_output, by_input = (k.reshape(*k.shape[:2], -1) for k in (kernel, kernel.swapaxes(1, 2)))
    return rank_above_noise(by_output), rank_above_noise(by_input)


def _shares(parts: np.ndarray) -> np.ndarray:
    """The part of the whole squared norm that each group has; 1 of one group whatever its norm."""
    if len(parts) == 1:
        return np.ones(1)
    energies = np.array([np.vdot(part, part) for part in parts.astype(np.float64)])
    return energies / energies.sum()


def _flat(kernel: np.ndarray) -> np.ndarray:
    """(groups, out, in, taps)."""
    return kernel.reshape(*kernel.shape[:3], -1)


TUCKER, SVD, SPATIAL, CP = TuckerMethod(), SvdMethod(), SpatialMethod(), CpMethod()
METHODS: dict[str, Method] = {method.name: method for method in (TUCKER, SVD, SPATIAL, CP)}


def methods_for(layer: Layer, wanted: str) -> list[Method] | str:
    """The methods to consider for a layer, or why there is none.

    Args:
        layer: one whose kernel has one tap is a matrix, for which every method is the SVD.
        wanted: the name of a method, or ``auto``: Tucker-2 (of which the SVD of either side of a kernel is a case: full
            rank in one mode) and spatial SVD, those that fit. Not CP: at equal parameters it kept no more of any
            network that we measured (docs/results/fewer-weights.md), and its four thin nodes run slower.
    """
    if layer.is_matrix:
        return [SVD]
    if wanted != "auto":
        method = METHODS[wanted]
        return method.unfit(layer) or [method]
    general: tuple[Method, ...] = (TUCKER, SPATIAL)
    fit = [method for method in general if method.unfit(layer) is None]
    return fit or TUCKER.unfit(layer) or fit
