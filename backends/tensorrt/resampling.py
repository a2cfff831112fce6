"""Resize, Pad and pooling in forms that TensorRT has not, by products with matrices, by positions and by convolutions.

Along each axis a Resize is a linear map of that axis alone. Which one, onnxruntime says: it resizes a unit matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgec.backends.tensorrt.spelling import Writer, rewrites
from edgec.ir.errors import InputError
from edgec.ir.execution import Session
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable

_NEAREST = "nearest"
# What the parser reads as ONNX means it, tried in this order.
_FORMS = (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil"),
          ("align_corners", "round_prefer_floor"), ("asymmetric", "round_prefer_floor"))  # fmt: skip
# A dilated maximum is taken over so many shifted views at most.
_MOST_VIEWS = 49


@rewrites(
    "resize-cubic", "resize-coordinates", "resize-antialias", "resize-aspect-ratio", "resize-rank", "resize-integers"
)
def resize(write: Writer) -> bool:
    """Nearest positions by a form that the parser reads, or by Gather; all else by a matrix for each axis."""
    node, shape = write.node, write.shape()
    sizes = write.static(node.outputs[0])
    if shape is None or sizes is None or node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return False
    nearest = node.attrs.get("mode", _NEAREST) == _NEAREST
    maps = {axis: mapped for axis in range(len(shape)) if (mapped := _axis_map(write, axis, shape, sizes)) is not None}
    if any(mapped.size == 0 for mapped in maps.values()):
        return False
    if nearest:
        return _by_position(write, shape, sizes, {axis: mapped.argmax(axis=1) for axis, mapped in maps.items()})
    if write.dtype.kind != "f":
        return False
    result: Tensor = node.inputs[0]
    for axis, mapped in maps.items():
        result = _times(write, result, mapped.astype(write.dtype), axis, len(shape))
    return write.done(result if maps else write.op("Identity", "same", result))


def _axis_map(write: Writer, axis: int, shape: Sequence[int], sizes: Sequence[int]) -> np.ndarray | None:
    """The matrix [size, length] of one axis; ``None`` where that axis stays, and an empty one where nothing says it."""
    length, size = shape[axis], sizes[axis]
    scale = _scale(write, axis, shape, sizes)
    if length == size and scale == 1.0:
        return None
    dropped = ("axes", "keep_aspect_ratio_policy")
    attrs = {name: value for name, value in write.node.attrs.items() if name not in dropped}
    unit = Variable("x", np.float32, [1, 1, length, length])
    result = Variable("y", np.float32, [1, 1, None, length])
    scales = Constant("scales", np.array([1, 1, scale, 1], np.float32))
    twin = Node("Resize", "resize", attrs, [unit, Variable.empty(), scales], [result])
    graph = Graph([twin], [unit], [result], opset=write.graph.opset, ir_version=write.graph.ir_version)
    try:
        mapped = Session(graph).run({"x": np.eye(length, dtype=np.float32)[None, None]})["y"][0, 0]
    except InputError:
        return np.zeros((0, 0), np.float32)
    return mapped if mapped.shape == (size, length) else np.zeros((0, 0), np.float32)


def _scale(write: Writer, axis: int, shape: Sequence[int], sizes: Sequence[int]) -> float:
    """How much the axis grows, as its coordinates reckon."""
    node = write.node
    axes = [int(each) % len(shape) for each in node.attrs.get("axes", range(len(shape)))]
    if axis not in axes:
        return 1.0
    scales, asked = write.fixed(2), write.fixed(3)
    if scales is not None and scales.size:
        return float(scales.reshape(-1)[axes.index(axis)])
    policy = node.attrs.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch" and asked is not None:
        lengths = np.array([shape[each] for each in axes], np.float32)
        ratios = asked.reshape(-1).astype(np.float32) / lengths
        return float(min(ratios) if policy == "not_larger" else max(ratios))
    return float(np.float32(sizes[axis]) / np.float32(shape[axis]))


def _by_position(write: Writer, shape: Sequence[int], sizes: Sequence[int], places: dict[int, np.ndarray]) -> bool:
    node = write.node
    bare = {"mode", "coordinate_transformation_mode", "nearest_mode", "antialias", "exclude_outside", "axes",
            "keep_aspect_ratio_policy", "cubic_coeff_a", "extrapolation_value"}  # fmt: skip
    scales = [float(np.float32(size) / np.float32(length)) for size, length in zip(sizes, shape, strict=True)]
    if write.dtype.kind == "f" and bare >= set(node.attrs):
        for form in _FORMS:
            if all(np.array_equal(_nearest(form, shape[axis], scales[axis], sizes[axis]), places[axis])
                   for axis in places):  # fmt: skip
                kept = [node.inputs[0], None, write.array("scales", np.array(scales, np.float32))]
                attrs = {"mode": _NEAREST, "coordinate_transformation_mode": form[0], "nearest_mode": form[1]}
                if all(math.floor(length * np.float32(scale)) == size
                       for length, scale, size in zip(shape, scales, sizes, strict=True)):  # fmt: skip
                    return write.done(write.op("Resize", "resize", *kept, **attrs))
    result: Tensor = node.inputs[0]
    for axis, positions in places.items():
        index = write.integers(f"positions{axis}", positions)
        result = write.op("Gather", f"axis{axis}", result, index, axis=axis)
    return write.done(result if places else write.op("Identity", "same", result))


def _nearest(form: tuple[str, str], length: int, scale: float, size: int) -> np.ndarray:
    """The positions that a form of nearest takes, as ONNX defines it."""
    at = np.arange(size, dtype=np.float64)
    if form[0] == "asymmetric":
        place = at / scale
    elif form[0] == "align_corners":
        place = at * (length - 1) / (size - 1) if size > 1 else at * 0
    else:
        place = (at + 0.5) / scale - 0.5
    below, above = np.ceil(place - 0.5), np.floor(place + 0.5)
    rounded = {"floor": np.floor(place), "round_prefer_floor": below}.get(form[1], above)
    return np.clip(rounded, 0, length - 1).astype(np.int64)


def _times(write: Writer, x: Tensor, mapped: np.ndarray, axis: int, rank: int) -> Variable:
    """The product of a matrix with one axis of x."""
    if axis == rank - 1:
        return write.op("MatMul", f"axis{axis}", x, write.array(f"matrix{axis}", np.ascontiguousarray(mapped.T)))
    matrix = write.array(f"matrix{axis}", mapped)
    if axis == rank - 2:
        return write.op("MatMul", f"axis{axis}", matrix, x)
    order = [place for place in range(rank) if place != axis] + [axis]
    turned = write.op("Transpose", f"turned{axis}", x, perm=order)
    product = write.op("MatMul", f"axis{axis}", turned, write.array(f"matrix{axis}.t", np.ascontiguousarray(mapped.T)))
    return write.op("Transpose", f"back{axis}", product, perm=[int(place) for place in np.argsort(order)])


@rewrites("pad-wrap")
def wrapped(write: Writer) -> bool:
    """What comes in at one side is what went out at the other: positions, taken by Gather."""
    shape, pads, axes = write.shape(), write.fixed(1), write.fixed(3)
    if shape is None or pads is None or (axes is None and write.input(3) is not None):
        return False
    named = list(range(len(shape))) if axes is None else [int(axis) % len(shape) for axis in axes.reshape(-1)]
    result: Tensor = write.node.inputs[0]
    for axis, (before, behind) in zip(named, pads.reshape(2, -1).T.tolist(), strict=True):
        if before or behind:
            positions = np.arange(-before, shape[axis] + behind) % shape[axis]
            result = write.op("Gather", f"axis{axis}", result, write.integers(f"positions{axis}", positions), axis=axis)
    return write.done(result if result is not write.node.inputs[0] else write.op("Identity", "same", result))


@rewrites("Col2Im")
def col2im(write: Writer) -> bool:
    """Blocks summed where they overlap: a transposed convolution by kernels of a single 1."""
    node, shape = write.node, write.shape()
    image, block = write.fixed(1), write.fixed(2)
    if shape is None or image is None or block is None:
        return False
    kernel, size = [int(k) for k in block.reshape(-1)], [int(s) for s in image.reshape(-1)]
    rank, taps = len(kernel), math.prod(kernel)
    strides, dilations, pads = (
        [int(v) for v in node.attrs.get(name, [usual] * count)]
        for name, usual, count in (("strides", 1, rank), ("dilations", 1, rank), ("pads", 0, 2 * rank))
    )
    extent = [dilation * (k - 1) + 1 for dilation, k in zip(dilations, kernel, strict=True)]
    steps = [(size[i] + pads[i] + pads[i + rank] - extent[i]) // strides[i] + 1 for i in range(rank)]
    # What the blocks do not reach at the end is 0 there: as much as the convolution is short of the image.
    rest = [size[i] + pads[i] + pads[i + rank] - ((steps[i] - 1) * strides[i] + extent[i]) for i in range(rank)]
    channels = shape[1] // taps
    unit = np.tile(np.eye(taps, dtype=write.dtype).reshape(taps, 1, *kernel), (channels, *[1] * (rank + 1)))
    spread = write.op("Reshape", "blocks", node.inputs[0], write.integers("blocks.shape", [0, shape[1], *steps]))
    summed = write.op(
        "ConvTranspose", "summed", spread, write.array("unit", unit), group=channels, strides=strides,
        dilations=dilations, pads=pads, output_padding=rest if any(rest) else None,
    )  # fmt: skip
    return write.done(summed)


@rewrites("AffineGrid")
def affine_grid(write: Writer) -> bool:
    """The places of the pixels, which are known, times the transformation."""
    size, node = write.fixed(1), write.node
    if size is None:
        return False
    extents = [int(each) for each in size.reshape(-1)[2:]]
    if node.attrs.get("align_corners", 0):
        lines = [np.linspace(-1, 1, count) if count > 1 else np.full(1, -1.0) for count in extents]
    else:
        lines = [(2 * np.arange(count) + 1) / count - 1 for count in extents]
    places = np.stack([*reversed(np.meshgrid(*lines, indexing="ij")), np.ones(extents)], axis=-1)
    flat = write.array("places", places.reshape(-1, len(extents) + 1).astype(write.dtype))
    turned = write.op("Transpose", "turned", node.inputs[0], perm=[0, 2, 1])
    grid = write.op("MatMul", "grid", flat, turned)
    return write.done(write.op("Reshape", "shaped", grid, write.integers("shape", [-1, *extents, len(extents)])))


@rewrites("average-pool-dilations", "average-pool-padding")
def average_pool(write: Writer) -> bool:
    """A depthwise convolution with ones, times one over the number of values that each window counts."""
    node, shape = write.node, write.shape()
    sizes = write.static(node.outputs[0])
    if shape is None or sizes is None or node.attrs.get("auto_pad", "NOTSET") != "NOTSET" or write.dtype.kind != "f":
        return False
    kernel = [int(k) for k in node.attrs["kernel_shape"]]
    rank, channels = len(kernel), shape[1]
    strides, dilations, pads = _window(node, rank)
    whole = list(pads)
    counts = np.ones((), np.float64)
    for i in range(rank):
        extent = dilations[i] * (kernel[i] - 1) + 1
        length, size = shape[2 + i], sizes[2 + i]
        whole[i + rank] = max((size - 1) * strides[i] + extent - length - pads[i], 0)
        places = np.arange(size)[:, None] * strides[i] - pads[i] + np.arange(kernel[i])[None] * dilations[i]
        least, most = (-pads[i], length + pads[i + rank]) if node.attrs.get("count_include_pad", 0) else (0, length)
        counts = counts[..., None] * ((places >= least) & (places < most)).sum(axis=1).astype(np.float64)
    ones = write.array("ones", np.ones((channels, 1, *kernel), write.dtype))
    attrs = {"group": channels, "strides": strides, "dilations": dilations, "pads": whole, "kernel_shape": kernel}
    summed = write.op("Conv", "summed", node.inputs[0], ones, **attrs)
    return write.done(write.op("Mul", "average", summed, write.array("share", (1 / counts).astype(write.dtype))))


@rewrites("max-pool-dilations")
def max_pool(write: Writer) -> bool:
    """The largest of views of x that are shifted by the dilation, one for each place in the window."""
    node, shape = write.node, write.shape()
    sizes = write.static(node.outputs[0])
    kernel = [int(k) for k in node.attrs["kernel_shape"]]
    plain = node.attrs.get("auto_pad", "NOTSET") == "NOTSET" and len(node.outputs) == 1 and write.dtype.kind == "f"
    if shape is None or sizes is None or not plain or math.prod(kernel) > _MOST_VIEWS:
        return False
    rank = len(kernel)
    strides, dilations, pads = _window(node, rank)
    spatial = list(range(2, 2 + rank))
    behind = [
        max((sizes[2 + i] - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 - shape[2 + i] - pads[i], 0)
        for i in range(rank)
    ]
    x: Tensor = node.inputs[0]
    if any(pads[:rank]) or any(behind):
        amounts = write.integers("pads", [0, 0, *pads[:rank], 0, 0, *behind])
        x = write.op("Pad", "padded", x, amounts, write.number("least", float(np.finfo(write.dtype).min)))
    views = []
    for place in np.ndindex(*kernel):
        starts = [place[i] * dilations[i] for i in range(rank)]
        ends = [starts[i] + (sizes[2 + i] - 1) * strides[i] + 1 for i in range(rank)]
        label = "view" + "_".join(map(str, place))
        bounds = [write.integers(f"{label}.{name}", values) for name, values in
                  (("starts", starts), ("ends", ends), ("axes", spatial), ("steps", strides))]  # fmt: skip
        views.append(write.op("Slice", label, x, *bounds))
    return write.done(write.op("Max", "largest", *views))


def _window(node: Node, rank: int) -> tuple[list[int], list[int], list[int]]:
    """Strides, dilations and pads of a pooling."""
    usual = (("strides", [1] * rank), ("dilations", [1] * rank), ("pads", [0] * (2 * rank)))
    strides, dilations, pads = ([int(v) for v in node.attrs.get(name, values)] for name, values in usual)
    return strides, dilations, pads
