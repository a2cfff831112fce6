"""Resizes in the coordinates that every runtime knows."""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Constant, Node
from edgec.passes.framework.rewriter import Rewriter


def fold_resize(rw: Rewriter, node: Node) -> bool:
    """``tf_half_pixel_for_nn`` with ``floor`` by whole factors, Keras' upsampling, is ``asymmetric`` with ``floor``.

    Output pixel i is input pixel floor((i + 0.5) / factor) in the one and floor(i / factor) in the other, which is the
    same for a whole factor. The first is deprecated since opset 13, and few runtimes take it.
    """
    coordinates = node.attrs.get("coordinate_transformation_mode")
    nearest = node.attrs.get("mode", "nearest") == "nearest" and node.attrs.get("nearest_mode") == "floor"
    if coordinates != "tf_half_pixel_for_nn" or not nearest:
        return False
    factors = _factors(rw, node)
    if factors is None:
        return False
    if (factors < 1).any() or (factors != np.rint(factors)).any():
        return rw.missed(node, "it is of 'tf_half_pixel_for_nn', which few runtimes take, and not by whole factors")
    node.attrs["coordinate_transformation_mode"] = "asymmetric"
    rw.did(node, "by whole factors 'tf_half_pixel_for_nn' is 'asymmetric'")
    rw.touch(node)
    return True


def _factors(rw: Rewriter, node: Node) -> np.ndarray | None:
    """Output size over input size along each axis that it resizes; ``None`` where that is not known."""
    scales, sizes = (rw.fixed(node.inputs[i]) if len(node.inputs) > i else None for i in (2, 3))
    if scales is not None and scales.size:
        return np.asarray(scales, np.float64)
    shape = rw.static(node.inputs[0])
    if sizes is None or not sizes.size or shape is None or not isinstance(node.inputs[3], Constant):
        return None
    if node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    axes = node.attrs.get("axes", range(len(shape)))
    return np.asarray(sizes, np.float64) / np.array([shape[axis] for axis in axes], np.float64)
