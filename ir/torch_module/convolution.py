"""Conv and ConvTranspose, in one to three dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgec.ir.dimensions import same_padding
from edgec.ir.torch_module.lowering import Call, Site, lowers

_CONVOLUTIONS = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
_TRANSPOSED = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}


def sides(begins: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Padding in the order of torch's ``pad``: the last axis first, begin and end of each."""
    return [int(p) for pair in zip(reversed(begins), reversed(ends), strict=True) for p in pair]


def window(at: Site, kernel: Sequence[int | None] | None) -> tuple[list[int], list[int], list[int]]:
    """Kernel, strides and dilations.

    Raises:
        InputError: the kernel's size is not known, or there are more than three axes.
    """
    rank = at.rank(0) - 2
    if rank not in _CONVOLUTIONS:
        raise at.refusal(f"it works along {rank} axes", "torch has it for one to three")
    given = at.attr("kernel_shape", kernel)
    if given is None or any(k is None for k in given):
        raise at.refusal("the size of its kernel is not known", "export the network with its shapes")
    strides, dilations = at.attr("strides") or [1] * rank, at.attr("dilations") or [1] * rank
    return [int(k) for k in given], [int(s) for s in strides], [int(d) for d in dilations]


@lowers("Conv")
def convolution(at: Site) -> Call:
    """Even padding is the convolution's own; uneven padding is put around the input first."""
    shape = at.shape(1)
    kernel, strides, dilations = window(at, shape[2:] if shape is not None else None)
    rank, groups = len(kernel), int(at.attr("group", 1))
    function = _CONVOLUTIONS[rank]
    auto = at.attr("auto_pad", "NOTSET")
    pads = [int(p) for p in at.attr("pads") or [0] * (2 * rank)]
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sizes = at.sizes(0)

        def fitting(sizes: Sequence[int]) -> list[int]:
            each = [
                same_padding(n, k, s, d, auto == "SAME_UPPER")
                for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
            ]
            return [p[0] for p in each] + [p[1] for p in each]

        if sizes is None:

            def sized(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
                padded = functional.pad(x, sides(*_halves(fitting(x.shape[2:]))))
                return function(padded, weight, bias, strides, 0, dilations, groups)

            return sized
        pads = fitting(sizes)
    elif auto == "VALID":
        pads = [0] * (2 * rank)
    begins, ends = _halves(pads)
    if begins == ends:
        return lambda x, weight, bias=None: function(x, weight, bias, strides, begins, dilations, groups)
    around = sides(begins, ends)
    return lambda x, weight, bias=None: function(functional.pad(x, around), weight, bias, strides, 0, dilations, groups)


def _halves(pads: Sequence[int]) -> tuple[list[int], list[int]]:
    half = len(pads) // 2
    return list(pads[:half]), list(pads[half:])


@lowers("ConvTranspose")
def transposed(at: Site) -> Call:
    """torch's own where the padding is even; otherwise the whole result, cut or widened, and the bias put on it."""
    shape = at.shape(1)
    kernel, strides, dilations = window(at, shape[2:] if shape is not None else None)
    rank, groups = len(kernel), int(at.attr("group", 1))
    function = _TRANSPOSED[rank]
    extra = [int(p) for p in at.attr("output_padding") or [0] * rank]
    pads = [int(p) for p in at.attr("pads") or [0] * (2 * rank)]
    auto = at.attr("auto_pad", "NOTSET")
    wanted = at.attr("output_shape")
    if wanted is not None or auto in ("SAME_UPPER", "SAME_LOWER"):
        sizes = at.sizes(0)
        if sizes is None:
            raise at.refusal("its padding depends on the size of its input", "pin the inputs' shapes with --input")
        fitting = [n * s for n, s in zip(sizes, strides, strict=True)]
        target = fitting if wanted is None else [int(d) for d in wanted][-rank:]
        begins, ends = [], []
        for n, k, s, d, e, size in zip(sizes, kernel, strides, dilations, extra, target, strict=True):
            total = s * (n - 1) + e + (k - 1) * d + 1 - size
            small, large = total // 2, total - total // 2
            begins.append(small if auto == "SAME_UPPER" else large)
            ends.append(large if auto == "SAME_UPPER" else small)
    elif auto == "VALID":
        begins, ends = [0] * rank, [0] * rank
    else:
        begins, ends = _halves(pads)
    native = begins == ends and min(begins) >= 0
    native &= all(e < max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True))
    if native:
        return lambda x, weight, bias=None: function(x, weight, bias, strides, begins, extra, groups, dilations)
    around = sides([-b for b in begins], [e - p for e, p in zip(extra, ends, strict=True)])

    def call(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        whole = functional.pad(function(x, weight, None, strides, 0, 0, groups, dilations), around)
        return whole if bias is None else whole + bias.reshape(-1, *[1] * rank)

    return call
