"""Resize: RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR, where one of TFLite's three ways samples the same pixels.

ONNX names how an output pixel finds its place in the input; TFLite has two switches. Rather than match names, the
places are computed both ways, row by row, and compared: names that differ and sample the same are taken as the same.
Sources: ONNX operator Resize; TFLite ``reference/resize_nearest_neighbor.h`` and ``resize_bilinear.h``.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout
from edgec.backends.coral.lowering import Lowering, lowers, refusal
from edgec.ir.graph import Node

#: (align_corners, half_pixel_centers), the plainest first: older runtimes and the Edge TPU know it best.
_SWITCHES = ((False, False), (False, True), (True, False))


@lowers("Resize", "Upsample")
def resize(low: Lowering, node: Node) -> None:
    """A change of image size, in the integers of the input."""
    value = low.value(node.inputs[0])
    if len(value.shape) != 4:
        raise refusal(
            node,
            f"it resizes a tensor of rank {len(value.shape)}, and TFLite images only",
            low.cut_before(node),
        )
    mode = node.attrs.get("mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise refusal(node, f"TFLite does not resize with mode '{mode}'", "use 'nearest' or 'linear' in the model")
    sizes, scales = _sizes(low, node, value.shape)
    if sizes[:2] != value.shape[:2]:
        raise refusal(node, "it resizes the batch or the channels", "resize height and width only")
    if sizes == value.shape:
        low.set(node.outputs[0], value)
        return
    if node.op == "Upsample":
        coordinates, rounding = "asymmetric", "floor"
    else:
        coordinates = node.attrs.get("coordinate_transformation_mode", "half_pixel")
        rounding = node.attrs.get("nearest_mode", "round_prefer_floor")
    plain = (
        coordinates != "tf_crop_and_resize"
        and not node.attrs.get("exclude_outside", 0)
        and not node.attrs.get("antialias", 0)
    )
    switches = None
    if plain:
        switches = next(
            (
                s
                for s in _SWITCHES
                if all(
                    _alike(value.shape[axis], sizes[axis], scales[axis], coordinates, mode, rounding, *s)
                    for axis in (2, 3)
                )
            ),
            None,
        )
    if switches is None:
        raise refusal(
            node,
            f"TFLite has no counterpart of coordinate_transformation_mode '{coordinates}' with mode '{mode}' for "
            f"{value.shape[2]}x{value.shape[3]} to {sizes[2]}x{sizes[3]}",
            "use 'half_pixel' or 'align_corners' in the model",
        )
    nearest = mode == "nearest"
    options = schema.ResizeNearestNeighborOptionsT() if nearest else schema.ResizeBilinearOptionsT()
    options.alignCorners, options.halfPixelCenters = switches
    source = low.arranged(value, layout.CHANNELS_LAST)
    kind = "RESIZE_NEAREST_NEIGHBOR" if nearest else "RESIZE_BILINEAR"
    operands = [low.ints("size", sizes[2:])]
    low.set(node.outputs[0], low.moved(kind, source, operands, sizes, options, node.outputs[0].name))


def _sizes(low: Lowering, node: Node, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Output shape, and output over input along each dimension as ONNX uses it."""
    scales_place, sizes_place = (1, 9) if node.op == "Upsample" else (2, 3)
    sizes = low.static(node, sizes_place, "sizes")
    scales = low.static(node, scales_place, "scales")
    axes = node.attrs.get("axes")
    if sizes is not None and sizes.size:
        whole = list(shape)
        for place, axis in enumerate(axes if axes is not None else range(4)):
            whole[axis] = int(sizes[place])
        if node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise refusal(node, "it keeps the aspect ratio", "give the output size in the model")
        return tuple(whole), tuple(w / s for w, s in zip(whole, shape, strict=True))
    if scales is None or not scales.size:
        raise refusal(node, "it has neither sizes nor scales", "fold the constants (pass 'fold')")
    factors = [1.0] * 4
    for place, axis in enumerate(axes if axes is not None else range(4)):
        factors[axis] = float(scales[place])
    return tuple(int(np.floor(s * f)) for s, f in zip(shape, factors, strict=True)), tuple(factors)


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


def _onnx_places(size: int, output: int, scale: float, coordinates: str) -> np.ndarray:
    at = np.arange(output, dtype=np.float64)
    if coordinates == "align_corners":
        return at * (size - 1) / (output - 1) if output > 1 else np.zeros(1)
    if coordinates == "asymmetric":
        return at / scale
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
