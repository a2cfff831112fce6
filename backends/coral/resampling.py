"""Resize: RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR, where one of TFLite's three ways samples the same pixels.

ONNX names how an output pixel finds its place in the input; TFLite has two switches. Rather than match names, the
places are computed both ways, row by row, and compared: names that differ and sample the same are taken as the same.
What picks the nearest pixel in a way that TFLite has not is two GATHERs, of rows and of columns.
Sources: ONNX operator Resize; TFLite ``reference/resize_nearest_neighbor.h`` and ``resize_bilinear.h``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout
from edgec.backends.coral.lowering import Lowering, lowers, refusal
from edgec.backends.coral.value import Value, constant
from edgec.ir.graph import Node

#: (align_corners, half_pixel_centers), the plainest first: older runtimes and the Edge TPU know it best.
_SWITCHES = ((False, False), (False, True), (True, False))


@lowers("Resize", "Upsample")
def resize(low: Lowering, node: Node) -> None:
    """A change of image size, in the integers of the input; of a sequence as of an image of one row."""
    value = low.value(node.inputs[0])
    rank = len(value.shape)
    if rank not in (3, 4):
        raise refusal(node, f"it resizes a tensor of rank {rank}, and TFLite images only", low.cut_or_replace(node))
    mode = node.attrs.get("mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise refusal(node, f"TFLite does not resize with mode '{mode}'", "use 'nearest' or 'linear' in the model")
    sizes, scales = _sizes(low, node, value.shape)
    if sizes[:2] != value.shape[:2]:
        raise refusal(node, "it resizes the batch or the channels", "resize height and width only")
    if 0 in sizes:
        raise refusal(
            node,
            f"nothing is left of its input: {_by(value.shape[2:])} becomes {_by(sizes[2:])}",
            "resize by larger scales in the model",
        )
    if node.op == "Upsample":
        coordinates, rounding = "asymmetric", "floor"
    else:
        coordinates = node.attrs.get("coordinate_transformation_mode", "half_pixel")
        rounding = node.attrs.get("nearest_mode", "round_prefer_floor")
    axes = [_Axis(*numbers) for numbers in zip(value.shape[2:], sizes[2:], scales[2:], strict=True)]
    # Sizes that stay may still be sampled elsewhere, by a scale that is not the sizes' own.
    if sizes == value.shape and (all(axis.scale == 1 for axis in axes) or coordinates == "align_corners"):
        low.set(node.outputs[0], value)
        return
    image = value.reshaped((*value.shape[:2], 1, value.shape[2])) if rank == 3 else value
    source = low.arranged(image, layout.CHANNELS_LAST)
    whole = [_Axis(1, 1, 1.0), *axes] if rank == 3 else axes
    plain = coordinates != "tf_crop_and_resize" and not any(
        node.attrs.get(attribute, 0) for attribute in ("exclude_outside", "antialias")
    )
    switches = _switches(whole, coordinates, mode, rounding) if plain else None
    name = node.outputs[0].name
    shape = (*image.shape[:2], *(axis.output for axis in whole))
    if switches is not None:
        options = schema.ResizeNearestNeighborOptionsT() if mode == "nearest" else schema.ResizeBilinearOptionsT()
        options.alignCorners, options.halfPixelCenters = switches
        kind = "RESIZE_NEAREST_NEIGHBOR" if mode == "nearest" else "RESIZE_BILINEAR"
        made = low.moved(kind, source, [low.ints("size", shape[2:])], shape, options, name)
    elif mode == "nearest" and coordinates != "tf_crop_and_resize":
        made = _gathered(low, node, source, whole, coordinates, rounding)
    elif plain:
        made = _interpolated(low, node, source, whole, coordinates)
    else:
        raise refusal(
            node,
            f"TFLite has no counterpart of {_said(node, coordinates, mode)} for {_by(value.shape[2:])} to "
            f"{_by(sizes[2:])}",
            _advice(low, node, axes, mode),
        )
    low.set(node.outputs[0], made if rank == 4 else made.reshaped((*made.shape[:2], made.shape[3])))


@dataclass(frozen=True)
class _Axis:
    """One axis of a Resize: input and output elements, and the scale that places are computed with."""

    size: int
    output: int
    scale: float


def _switches(axes: Sequence[_Axis], coordinates: str, mode: str, rounding: str) -> tuple[bool, bool] | None:
    """TFLite's switches with which it samples every axis as ONNX does; ``None`` where there are none."""
    for switches in _SWITCHES:
        if all(_alike(a.size, a.output, a.scale, coordinates, mode, rounding, *switches) for a in axes):
            return switches
    return None


def _gathered(
    low: Lowering, node: Node, source: Value, axes: Sequence[_Axis], coordinates: str, rounding: str
) -> Value:
    """The rows and then the columns that a nearest Resize picks, by a GATHER each."""
    made = source
    for place, axis in enumerate(axes, 2):
        # In float32, in which onnxruntime finds the places: what lies halfway goes where it goes there.
        picked = _rounded(_onnx_places(axis.size, axis.output, axis.scale, coordinates, np.float32), rounding)
        picked = np.clip(picked, 0, axis.size - 1).astype(np.int32)
        made = _taken(low, node, made, place, picked)
    return made


def _taken(low: Lowering, node: Node, image: Value, place: int, picked: np.ndarray) -> Value:
    """These rows or columns of an image."""
    if np.array_equal(picked, np.arange(image.shape[place])):
        return image
    options = schema.GatherOptionsT()
    options.axis, options.batchDims = layout.CHANNELS_LAST.index(place), 0
    shape = [picked.size if a == place else size for a, size in enumerate(image.shape)]
    return low.moved("GATHER", image, [low.ints(f"{node.name}.picked", picked)], shape, options, node.outputs[0].name)


def _interpolated(low: Lowering, node: Node, source: Value, axes: Sequence[_Axis], coordinates: str) -> Value:
    """A linear Resize that TFLite has not: between two rows, and then between two columns, by their distance."""
    low.note_float(node, [source])
    made = low.real(source)
    for place, axis in enumerate(axes, 2):
        at = np.clip(_onnx_places(axis.size, axis.output, axis.scale, coordinates), 0, axis.size - 1)
        before = np.floor(at).astype(np.int32)
        share = (at - before).astype(np.float32)
        first = _taken(low, node, made, place, before)
        if share.any():
            second = _taken(low, node, made, place, np.minimum(before + 1, axis.size - 1).astype(np.int32))
            along = constant(f"{node.name}.share", share.reshape([-1 if a == place else 1 for a in range(4)]))
            along = low.arranged(along, layout.CHANNELS_LAST)
            step = _step(low, "SUB", second, first, schema.SubOptionsT())
            first = _step(low, "ADD", first, _step(low, "MUL", step, along, schema.MulOptionsT()), schema.AddOptionsT())
        made = first
    return made


def _step(low: Lowering, kind: str, left: Value, right: Value, options: Any) -> Value:
    return low.emit(kind, [left, right], left.stored, left, options)


def _said(node: Node, coordinates: str, mode: str) -> str:
    said = f"coordinate_transformation_mode '{coordinates}' with mode '{mode}'"
    extra = [attribute for attribute in ("exclude_outside", "antialias") if node.attrs.get(attribute, 0)]
    return f"{said} and {' and '.join(extra)}" if extra else said


def _advice(low: Lowering, node: Node, axes: Sequence[_Axis], mode: str) -> str:
    """A way to resize to the same size that TFLite has; where only the scale is in the way, the size itself."""
    extra = any(node.attrs.get(attribute, 0) for attribute in ("exclude_outside", "antialias"))
    without = " without exclude_outside and antialias" if extra else ""
    for coordinates in ("half_pixel", "align_corners", "asymmetric"):
        if _switches(axes, coordinates, mode, "floor") is not None:
            return f"use '{coordinates}'{without} in the model"
    exact = [replace(axis, scale=axis.output / axis.size) for axis in axes]
    if _switches(exact, "half_pixel", mode, "floor") is not None:
        return f"give the output's sizes instead of scales, with 'half_pixel'{without}, in the model"
    return low.cut_or_replace(node)


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _sizes(low: Lowering, node: Node, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Output shape, and output over input along each dimension as ONNX uses it."""
    rank = len(shape)
    scales_place, sizes_place = (1, 9) if node.op == "Upsample" else (2, 3)
    sizes = low.static(node, sizes_place, "sizes")
    scales = low.static(node, scales_place, "scales")
    axes = [int(axis) % rank for axis in node.attrs.get("axes", range(rank))]
    if scales is None and node.op == "Upsample" and "scales" in node.attrs:
        scales = np.asarray(node.attrs["scales"], np.float32)
    if sizes is not None and sizes.size:
        asked = dict(zip(axes, map(int, sizes), strict=True))
        policy = node.attrs.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            # One scale for all axes, the smallest or the largest that the sizes ask for; the sizes follow from it.
            choose = min if policy == "not_larger" else max
            scale = choose(size / shape[axis] for axis, size in asked.items())
            asked = {axis: int(np.floor(scale * shape[axis] + 0.5)) for axis in asked}
            factors = tuple(scale if axis in asked else 1.0 for axis in range(rank))
            return tuple(asked.get(axis, size) for axis, size in enumerate(shape)), factors
        whole = tuple(asked.get(axis, size) for axis, size in enumerate(shape))
        return whole, tuple(w / s for w, s in zip(whole, shape, strict=True))
    if scales is None or not scales.size:
        raise refusal(node, "it has neither sizes nor scales", "give it sizes in the model")
    given = dict(zip(axes, map(float, scales), strict=True))
    factors = tuple(given.get(axis, 1.0) for axis in range(rank))
    return tuple(int(np.floor(s * f)) for s, f in zip(shape, factors, strict=True)), factors


def _alike(
    size: int, output: int, scale: float, coordinates: str, mode: str, rounding: str, corners: bool, half: bool
) -> bool:
    """Whether TFLite with these switches samples one axis as ONNX does."""
    wanted = _onnx_places(size, output, scale, coordinates)
    found = _tflite_places(size, output, corners, half)
    if mode == "nearest":
        if half:
            picked = np.floor(found + 0.5)
        elif corners:
            picked = np.trunc(found + 0.5)
        else:
            picked = np.floor(found)
        return bool(np.array_equal(np.clip(_rounded(wanted, rounding), 0, size - 1), np.clip(picked, 0, size - 1)))
    # Beyond the edges both repeat the last pixel.
    return bool(np.allclose(np.clip(wanted, 0, size - 1), np.clip(found, 0, size - 1), rtol=0, atol=1e-4))


def _onnx_places(size: int, output: int, scale: float, coordinates: str, dtype: type = np.float64) -> np.ndarray:
    at: np.ndarray = np.arange(output, dtype=dtype)
    scale = dtype(scale)
    if coordinates == "align_corners":
        return at * (size - 1) / (output - 1) if output > 1 else np.zeros(1)
    if coordinates == "asymmetric":
        return at / scale
    if coordinates == "tf_half_pixel_for_nn":
        return (at + 0.5) / scale
    if coordinates == "pytorch_half_pixel" and output == 1:
        return np.zeros(1)
    if coordinates == "half_pixel_symmetric":
        adjustment = output / (size * scale)
        return size / 2 * (1 - adjustment) + (at + 0.5) / scale - 0.5
    return (at + 0.5) / scale - 0.5


def _tflite_places(size: int, output: int, corners: bool, half: bool) -> np.ndarray:
    at = np.arange(output, dtype=np.float64)
    if corners:
        return at * (size - 1) / (output - 1) if output > 1 else np.zeros(1)
    step = size / output
    return (at + 0.5) * step - 0.5 if half else at * step


def _rounded(places: np.ndarray, rounding: str) -> np.ndarray:
    # A place a hair off a half or a whole is that half or whole: the division before it was inexact.
    exact = np.round(places * 4096) / 4096
    places = np.where(np.abs(exact - places) < 1e-9, exact, places)
    if rounding == "floor":
        return np.floor(places)
    if rounding == "ceil":
        return np.ceil(places)
    if rounding == "round_prefer_ceil":
        return np.floor(places + 0.5)
    return np.ceil(places - 0.5)
