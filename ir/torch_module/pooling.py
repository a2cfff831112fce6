"""Pooling: maxima, averages and norms of windows, and of whole images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgec.ir.dimensions import same_padding, windows
from edgec.ir.torch_module.convolution import sides, window
from edgec.ir.torch_module.lowering import Call, Site, lowers

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


@dataclass(frozen=True)
class _Windows:
    """The windows of a pooling.

    Attributes:
        kernel, strides, dilations: of each axis.
        pads: begin and end of each axis, ``None`` where they depend on the size.
        upper: of such padding, whether the larger part goes behind.
        ceil: whether a window may pass the end.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[tuple[int, int]] | None
    upper: bool
    ceil: bool

    @property
    def native(self) -> bool:
        """Whether torch's own padding, even and at most half a kernel, can be used."""
        return self.pads is not None and all(
            begin == end and 2 * begin <= kernel for (begin, end), kernel in zip(self.pads, self.kernel, strict=True)
        )

    def around(self, sizes: Sequence[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Padding of the node, and padding that makes all windows whole: begin and end of each axis."""
        own, whole = [], []
        for axis, (size, k, s, d) in enumerate(zip(sizes, self.kernel, self.strides, self.dilations, strict=True)):
            pads = self.pads[axis] if self.pads is not None else same_padding(size, k, s, d, self.upper)
            count = windows(size, k, s, d, pads, self.ceil and self.pads is not None)
            own.append(pads)
            whole.append((pads[0], (count - 1) * s + (k - 1) * d + 1 - size - pads[0]))
        return own, whole


def _windows(at: Site) -> _Windows:
    kernel, strides, dilations = window(at, None)
    rank, auto = len(kernel), at.attr("auto_pad", "NOTSET")
    pads: list[tuple[int, int]] | None = None
    if auto == "VALID":
        pads = [(0, 0)] * rank
    elif auto == "NOTSET":
        given = [int(p) for p in at.attr("pads") or [0] * (2 * rank)]
        pads = list(zip(given[:rank], given[rank:], strict=True))
    elif (sizes := at.sizes(0)) is not None:
        each = zip(sizes, kernel, strides, dilations, strict=True)
        pads = [same_padding(n, k, s, d, auto == "SAME_UPPER") for n, k, s, d in each]
        return _Windows(kernel, strides, dilations, pads, auto == "SAME_UPPER", False)
    return _Windows(kernel, strides, dilations, pads, auto == "SAME_UPPER", bool(at.attr("ceil_mode", 0)))


def _pad(x: Tensor, amounts: list[tuple[int, int]], value: float = 0.0) -> Tensor:
    around = sides([a for a, _ in amounts], [b for _, b in amounts])
    return functional.pad(x, around, value=value) if any(around) else x


@lowers("MaxPool")
def max_pool(at: Site) -> Call:
    if at.wanted(1):
        raise at.refusal("it gives out where its maxima lie", "end the network before it with --cut")
    own = _windows(at)
    function = _MAX[len(own.kernel)]
    if own.native:
        pads = [begin for begin, _ in own.pads or ()]

        def pooled(x: Tensor) -> Tensor:
            return function(x, own.kernel, own.strides, pads, own.dilations, own.ceil)

    else:

        def pooled(x: Tensor) -> Tensor:
            whole = _pad(x, own.around(x.shape[2:])[1], float("-inf"))
            return function(whole, own.kernel, own.strides, 0, own.dilations)

    # torch has no maxima of 8-bit integers; in floats they are exact.
    return lambda x: pooled(x) if x.is_floating_point() else pooled(x.float()).to(x.dtype)


def _sums(own: _Windows) -> Callable[[Tensor, list[tuple[int, int]]], Tensor]:
    """Sums over windows, by a convolution of each channel with ones."""
    function = _CONVOLUTIONS[len(own.kernel)]

    def call(x: Tensor, around: list[tuple[int, int]]) -> Tensor:
        rows = _pad(x, around).reshape(-1, 1, *_padded_sizes(x, around))
        ones = torch.ones(1, 1, *own.kernel, dtype=x.dtype, device=x.device)
        total = function(rows, ones, None, own.strides, 0, own.dilations)
        return total.reshape(*x.shape[:2], *total.shape[2:])

    return call


def _padded_sizes(x: Tensor, around: list[tuple[int, int]]) -> list[int]:
    return [size + sum(pair) for size, pair in zip(x.shape[2:], around, strict=True)]


@lowers("AveragePool")
def average_pool(at: Site) -> Call:
    """Divides by what a window has inside the image or, where padding counts, inside the padded image."""
    own, counted = _windows(at), bool(at.attr("count_include_pad", 0))
    function = _AVERAGE[len(own.kernel)]
    if own.native and set(own.dilations) == {1}:
        pads = [begin for begin, _ in own.pads or ()]
        return lambda x: function(x, own.kernel, own.strides, pads, own.ceil, counted)
    sums = _sums(own)

    def call(x: Tensor) -> Tensor:
        pads, whole = own.around(x.shape[2:])
        inside = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
        rest = whole
        if counted:
            inside = _pad(inside, pads, 1.0)
            rest = [(a - c, b - d) for (a, b), (c, d) in zip(whole, pads, strict=True)]
        return sums(x, whole) / sums(inside, rest)

    return call


@lowers("LpPool")
def lp_pool(at: Site) -> Call:
    own, order = _windows(at), int(at.attr("p", 2))
    sums = _sums(own)
    return lambda x: sums(x.abs() ** order, own.around(x.shape[2:])[1]) ** (1 / order)


@lowers("GlobalAveragePool")
def global_average(at: Site) -> Call:
    axes = list(range(2, at.rank(0)))
    return lambda x: x.mean(axes, keepdim=True)


@lowers("GlobalMaxPool")
def global_max(at: Site) -> Call:
    axes = list(range(2, at.rank(0)))
    return lambda x: x.amax(axes, keepdim=True)


@lowers("GlobalLpPool")
def global_lp(at: Site) -> Call:
    axes, order = list(range(2, at.rank(0))), int(at.attr("p", 2))
    return lambda x: torch.linalg.vector_norm(x, order, axes, True)
