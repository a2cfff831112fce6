"""The frequency overlay as ONNX operators that both TFLite and TensorRT take: strided convolutions and Relus.

A convolution with the transform's kernels, as large as the block and as far apart, answers for every block at once;
colour to luminance is in its kernels, and so is what preprocessing did to the pixels. The absolute value is Relu(x) +
Relu(-x), or 2 Relu(x) - x, and a band's sum of x is one kernel more; the logarithm is a sum of Relus that begin one
after the other: each a convolution of one pixel behind a Relu, which the Edge TPU and TensorRT fuse. What many kernels
answer is not all alive at once: their bands are made in groups, each of which has a range of its own in int8, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.frequency_bank import LUMA, Overlay, pieces
from edgec.ir.graph import Graph, Tensor, Variable, static_shape

#: Most answers that are alive at once, if no band alone has more: of 78 of blocks of 8, and all without ``d1``.
_TOGETHER = 64


@dataclass(frozen=True)
class Light:
    """How an input's channels give colours from 0 to 1: ``gain * x + offset``, and those luminance.

    Attributes:
        luma: what each colour gives to luminance: (1,) or (3,), float64.
        gain, offset: of each channel.
        positive: whether colours are known not to be negative.
    """

    luma: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    positive: bool


def light_of(where: str, channels: int, pixels: tuple[np.ndarray, np.ndarray] | None) -> Light:
    """Of an input with 1 or 3 channels.

    Args:
        where: the input, as errors name it.
        channels: gray, or red, green and blue.
        pixels: (a, b), with x = a * pixel + b and pixels from 0 to 255; ``None`` where x is taken to be from 0 to 1.

    Raises:
        InputError: there are other channels.
    """
    if channels not in (1, 3):
        what = f"has {channels} channels, and luminance is of gray or of red, green and blue"
        raise InputError(where, what, "convert the images in data.preprocess, or choose another input")
    luma = np.array(LUMA if channels == 3 else (1.0,))
    if pixels is None:
        return Light(luma, np.ones(channels), np.zeros(channels), positive=False)
    scale, offset = (np.broadcast_to(values, (channels,)).astype(np.float64) for values in pixels)
    return Light(luma, 1 / (255 * scale), -offset / (255 * scale), positive=True)


def write_stage(graph: Graph, x: Tensor, overlay: Overlay, light: Light, name: str) -> Variable:
    """Adds the stage behind ``x`` (n, channels, h, w) and returns its channels, (n, channels, h / block, w / block).

    Sides that the block does not divide are filled with zeros below and on the right.
    """
    writer = _Writer(graph, x, overlay, light, name)
    kernels, mixing, reduces = overlay.kernels, overlay.mixing, len(writer.small) > 0
    if overlay.magnitude == "none" and not overlay.center:
        return writer.analysis("analysis", kernels, reduced=reduces)
    groups = grouped(overlay.sizes)
    if overlay.magnitude == "abs" and not overlay.log and not overlay.center and len(groups) == 1:
        return writer.together()
    if overlay.magnitude == "none":
        bands = writer.analysis("analysis", kernels)
    elif overlay.magnitude == "square":
        answers = writer.analysis("analysis", kernels)
        bands = writer.pointwise("bands", writer.op("Mul", "squares", answers, answers), mixing)
    else:
        made = [writer.absolute(part, f".{place}" if len(groups) > 1 else "") for place, part in enumerate(groups)]
        bands = writer.op("Concat", "bands", *made, axis=1) if len(made) > 1 else made[0]
    if overlay.log:
        bands = writer.compressed(bands)
    if overlay.center:
        bands = writer.op("Sub", "centred", bands, writer.op("GlobalAveragePool", "mean", bands))
    if not reduces:
        return bands
    return writer.op("Concat", "channels", writer.analysis("reduced", kernels[:0], reduced=True), bands, axis=1)


def grouped(sizes: tuple[int, ...]) -> list[slice]:
    """The bands in groups of neighbours, so that each group's kernels are few.

    Args:
        sizes: how many kernels each band has.
    """
    begins, held = [0], 0
    for band, size in enumerate(sizes):
        answers = size + min(size, 2)  # as `absolutes` makes them
        if held and held + answers > _TOGETHER:
            begins.append(band)
            held = 0
        held += answers
    return [slice(begin, end) for begin, end in zip(begins, [*begins[1:], len(sizes)], strict=True)]


def absolutes(kernels: np.ndarray, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Bands of absolute values with few kernels: ``mixed @ Relu(answers)``.

    ``|x|`` is ``Relu(x) + Relu(-x)``. In a band of many x it is ``2 Relu(x) - x``, whose last terms add up to the
    answer of one kernel, the sum, which passes the Relu in two halves: n + 2 kernels and not 2 n.

    Args:
        kernels: (kernels, block, block), band after band.
        sizes: how many kernels each band has.

    Returns:
        Kernels (answers, block, block), and what the Relu of each gives to each band: (bands, answers).
    """
    made: list[np.ndarray] = []
    mixed = np.zeros((len(sizes), sum(size + min(size, 2) for size in sizes)))
    begin = column = 0
    for row, size in zip(mixed, sizes, strict=True):
        own = kernels[begin : begin + size]
        root = np.sqrt(size)
        if size <= 2:
            made += [own, -own]
            row[column : column + 2 * size] = 1 / root
        else:
            total = own.sum(axis=0, keepdims=True) / root
            made += [own, total, -total]
            row[column : column + size + 2] = [*[2 / root] * size, -1, 1]
        begin, column = begin + size, column + size + min(size, 2)
    return np.concatenate([kernels[:0], *made]), mixed


class _Writer:
    """Writes one stage."""

    def __init__(self, graph: Graph, x: Tensor, overlay: Overlay, light: Light, name: str) -> None:
        self._graph, self._x, self._overlay, self._light, self._name = graph, x, overlay, light, name
        shape = list(static_shape(x))
        self._batch, self._sides = shape[0], shape[2:]
        self._given = [-(-side // overlay.block) for side in self._sides]
        self.small = overlay.reduced(light.luma)

    def op(self, op: str, label: str, *inputs: Tensor, **attrs: Any) -> Variable:
        made = self._graph.op(op, list(inputs), name=f"{self._name}.{label}", **attrs)
        made.dtype = np.dtype(np.float32)
        return made

    def analysis(self, label: str, kernels: np.ndarray, *, reduced: bool = False) -> Variable:
        """The answers of kernels on every block, behind what is only made small where that is wanted."""
        weights, bias = self._kernels(kernels), np.zeros(len(kernels))
        if reduced:
            small, offset = self._means()
            weights, bias = np.concatenate([small, weights]), np.append(offset, bias)
        return self._convolution(label, self._x, weights, bias, stride=self._overlay.block)

    def absolute(self, bands: slice, suffix: str) -> Variable:
        """The sums of absolute values of some of the bands."""
        first, last = (sum(self._overlay.sizes[:band]) for band in (bands.start, bands.stop))
        kernels, mixing = absolutes(self._overlay.kernels[first:last], self._overlay.sizes[bands])
        sizes = self.op("Relu", f"sizes{suffix}", self.analysis(f"analysis{suffix}", kernels))
        return self.pointwise(f"bands{suffix}", sizes, mixing)

    def together(self) -> Variable:
        """Absolute values, with what is only made small through the same two convolutions."""
        small, offset = self._means()
        # What is never negative passes a Relu as it is; all else in two halves.
        whole = [self._light.positive and bool((row >= 0).all()) for row in self.small]
        signs = [(place, sign) for place, one in enumerate(whole) for sign in ((1,) if one else (1, -1))]
        kernels, mixed = absolutes(self._overlay.kernels, self._overlay.sizes)
        weights = np.concatenate([*(sign * small[place : place + 1] for place, sign in signs), self._kernels(kernels)])
        bias = np.zeros(len(weights))
        bias[: len(signs)] = [sign * offset[place] for place, sign in signs]
        answers = self._convolution("analysis", self._x, weights, bias, stride=self._overlay.block)
        mixing = np.zeros((len(small) + len(mixed), len(weights)))
        for column, (place, sign) in enumerate(signs):
            mixing[place, column] = sign
        mixing[len(small) :, len(signs) :] = mixed
        return self.pointwise("channels", self.op("Relu", "sizes", answers), mixing)

    def compressed(self, bands: Variable) -> Variable:
        """Bands through the straight pieces of the logarithm."""
        begins, slopes = (np.array(values) for values in zip(*pieces(), strict=True))
        each = np.eye(len(self._overlay.chosen))
        begun = self.pointwise("pieces", bands, np.repeat(each, len(begins), axis=0), np.tile(-begins, len(each)))
        return self.pointwise("log", self.op("Relu", "begun", begun), np.kron(each, slopes[None]))

    def pointwise(self, label: str, x: Variable, weights: np.ndarray, bias: np.ndarray | None = None) -> Variable:
        """A convolution of one pixel; weights (out, in)."""
        return self._convolution(label, x, weights[:, :, None, None], np.zeros(len(weights)) if bias is None else bias)

    def _kernels(self, kernels: np.ndarray) -> np.ndarray:
        """Of luminance, for each channel of the input: (kernels, channels, block, block). They see no offset."""
        return kernels[:, None] * (self._light.luma * self._light.gain)[:, None, None] / self._overlay.block

    def _means(self) -> tuple[np.ndarray, np.ndarray]:
        """Kernels and offsets of what is only made small."""
        block = self._overlay.block
        weights = (self.small * self._light.gain)[:, :, None, None] / block**2
        return np.tile(weights, (1, 1, block, block)), self.small @ self._light.offset

    def _convolution(self, label: str, x: Tensor, weights: np.ndarray, bias: np.ndarray, stride: int = 1) -> Variable:
        name, attrs = f"{self._name}.{label}", dict[str, Any](kernel_shape=list(weights.shape[2:]))
        constants = [self._graph.const(f"{name}.{part}", values.astype(np.float32))
                     for part, values in (("weight", weights), ("bias", bias))]  # fmt: skip
        if stride > 1:
            below, right = (-side % stride for side in self._sides)
            attrs |= {"strides": [stride, stride], "pads": [0, 0, below, right]}
        made = self.op("Conv", label, x, *constants, **attrs)
        made.shape = [self._batch, len(weights), *self._given]
        return made
