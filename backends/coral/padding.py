"""Padding arithmetic: ONNX counts the rows that it adds on each side, TFLite knows only SAME and VALID.

Sources: ONNX operators Conv and ConvTranspose (output shape formulas, ``auto_pad``); TFLite
``kernels/padding.h`` (SAME puts the odd row behind).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Window:
    """A sliding window along one axis.

    Attributes:
        size: input elements.
        kernel: window elements.
        stride: step between windows.
        dilation: step inside a window.
        before, after: elements that ONNX adds on each side.
        ceil: whether a last window that is not filled counts (pooling's ``ceil_mode``).
    """

    size: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    ceil: bool = False

    @property
    def reach(self) -> int:
        """Input elements from the first to the last that one window touches."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def output(self) -> int:
        """Number of windows."""
        room = self.size + self.before + self.after - self.reach
        count = room // self.stride + 1
        # A window that would start in the padding behind the input is not counted (ONNX pooling, as in PyTorch).
        if self.ceil and room % self.stride and count * self.stride < self.size + self.before:
            count += 1
        return count

    @property
    def needed_after(self) -> int:
        """Elements behind the input that the last window reaches; 0 where it ends inside."""
        return max(0, (self.output - 1) * self.stride + self.reach - self.size - self.before)

    @property
    def is_valid(self) -> bool:
        """Whether no window leaves the input."""
        return self.before == 0 and self.needed_after == 0

    @property
    def is_same(self) -> bool:
        """Whether TFLite's SAME starts the first window at the same place and makes as many windows."""
        output = -(-self.size // self.stride)
        total = max((output - 1) * self.stride + self.reach - self.size, 0)
        return output == self.output and total // 2 == self.before


def windows(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil: bool = False,
) -> list[Window]:
    """The windows of an ONNX Conv or pooling along each spatial axis.

    Args:
        sizes: spatial input shape.
        kernel: window shape.
        strides: ONNX's attribute, 1 each where it is left out.
        dilations: ONNX's attribute, 1 each where it is left out.
        pads: ONNX's attribute: the befores of all axes, then the afters.
        auto_pad: ONNX's attribute.
        ceil: ONNX's ``ceil_mode``.
    """
    rank = len(sizes)
    strides = list(strides or [1] * rank)
    dilations = list(dilations or [1] * rank)
    pads = list(pads or [0] * (2 * rank))
    made = []
    for axis in range(rank):
        before, after = pads[axis], pads[axis + rank]
        window = Window(sizes[axis], kernel[axis], strides[axis], dilations[axis], before, after, ceil)
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            output = -(-window.size // window.stride)
            total = max((output - 1) * window.stride + window.reach - window.size, 0)
            less, more = total // 2, total - total // 2
            before, after = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
            window = Window(window.size, window.kernel, window.stride, window.dilation, before, after)
        elif auto_pad == "VALID":
            window = Window(window.size, window.kernel, window.stride, window.dilation, 0, 0, ceil)
        # The step inside a window of one element is free, and the step behind the last window that fits.
        window = replace(window, dilation=window.dilation if window.kernel > 1 else 1)
        room = window.size + window.before + window.after - window.reach
        single = replace(window, stride=min(window.stride, room + 1), ceil=False)
        made.append(single if window.output == 1 else window)
    return made


@dataclass(frozen=True)
class Spread:
    """A transposed convolution along one axis.

    Attributes:
        size: input elements.
        kernel: kernel elements, dilation included.
        stride: output elements between two input elements.
        before: output elements cut off in front (ONNX ``pads``).
        output: output elements.
    """

    size: int
    kernel: int
    stride: int
    before: int
    output: int

    @property
    def full(self) -> int:
        """Output elements before any is cut off."""
        return (self.size - 1) * self.stride + self.kernel

    @property
    def is_valid(self) -> bool:
        """Whether nothing is cut off or added."""
        return self.before == 0 and self.output == self.full

    @property
    def is_same(self) -> bool:
        """Whether TFLite's SAME, with this output shape, cuts off the same."""
        total = max((self.size - 1) * self.stride + self.kernel - self.output, 0)
        return -(-self.output // self.stride) == self.size and total // 2 == self.before


def spreads(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
) -> list[Spread]:
    """The axes of an ONNX ConvTranspose; arguments are its attributes (``output_shape`` is spatial only)."""
    rank = len(sizes)
    strides = list(strides or [1] * rank)
    dilations = list(dilations or [1] * rank)
    pads = list(pads or [0] * (2 * rank))
    extra = list(output_padding or [0] * rank)
    made = []
    for axis in range(rank):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        full = (sizes[axis] - 1) * strides[axis] + reach + extra[axis]
        before = pads[axis]
        output = full - before - pads[axis + rank]
        if output_shape is not None or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            # Where the stride is beyond the kernel, nothing is added to reach the size that SAME stands for: so do
            # onnx's shape inference and onnxruntime, unlike the operator's formula.
            same = min(sizes[axis] * strides[axis], full)
            output = same if output_shape is None else output_shape[axis]
            total = max(full - output, 0)
            # The operator's formula: the odd element is cut in front unless SAME_UPPER says otherwise.
            before = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
        elif auto_pad == "VALID":
            before, output = 0, full
        made.append(Spread(sizes[axis], reach, strides[axis] if sizes[axis] > 1 else 1, before, output))
    return made
