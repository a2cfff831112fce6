"""A layer replaced by a chain, as standard ONNX nodes.

The chain ends in the tensor that the layer computed, with the layer's bias in its last node, so that whatever followed
follows still. No stage in front of the last has a bias: what padding adds stays zero until the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgec.ir.graph import Node, Tensor, Variable
from edgec.passes.factorize.layers import Extent, Layer
from edgec.passes.factorize.stages import Stage
from edgec.passes.framework.rewriter import Rewriter
from edgec.passes.layers.linear import bias


def write_chain(rw: Rewriter, layer: Layer, method: str, stages: Sequence[Stage]) -> None:
    """Every reader of the layer's weights becomes one node a stage; readers share the constants.

    Args:
        rw: the rewriting of the layer's graph.
        layer: as :func:`find_layers` found it; its readers go.
        method: nodes are called ``<layer>.<method>.<stage>``, constants ``<weight>.<method>.<stage>``.
        stages: in the order in which the input passes them.
    """
    constants = [
        rw.graph.const(f"{layer.weight.name}.{method}.{stage.name}", _stored(layer, stage)) for stage in stages
    ]
    for index, node in enumerate(layer.nodes):
        extent = layer.extents[index] if layer.extents is not None else None
        x: Tensor = node.inputs[1 if layer.kind == "matmul_left" else 0]
        [out] = rw.free_outputs(node)
        covered: set[int] = set()
        for place, (stage, constant) in enumerate(zip(stages, constants, strict=True)):
            last = place == len(stages) - 1
            covered.update(stage.axes)
            op, attrs = _operator(layer, node, stage, place == 0, last, covered, extent)
            inputs = [constant, x] if layer.kind == "matmul_left" else [x, constant]
            added = bias(node) if last and layer.kind not in ("matmul", "matmul_left") else None
            if added is not None:
                inputs.append(added)
            label = f"{node.name or node.op.lower()}.{method}.{stage.name}"
            x = rw.insert(node, op, inputs, name=label, output=_only(out, last), **attrs)
        rw.remove(node)


def _only(out: Variable, last: bool) -> Variable | None:
    return out if last else None


def _stored(layer: Layer, stage: Stage) -> np.ndarray:
    """A stage's kernel as its operator stores it, in the layer's element type."""
    groups, out, into, *taps = stage.kernel.shape
    kernel = stage.kernel
    if layer.kind in ("gemm", "matmul_left"):
        kernel = kernel[0]
    elif layer.kind == "matmul":
        kernel = kernel[0].T
    elif layer.transposed and stage.axes:
        kernel = kernel.swapaxes(1, 2).reshape(groups * into, out, *taps)
    else:
        kernel = kernel.reshape(groups * out, into, *taps)
    return np.ascontiguousarray(kernel, layer.weight.dtype)


def _operator(
    layer: Layer, node: Node, stage: Stage, first: bool, last: bool, covered: set[int], extent: Extent | None
) -> tuple[str, dict[str, Any]]:
    """The operator of a stage and its attributes."""
    if layer.kind in ("matmul", "matmul_left"):
        return "MatMul", {}
    if layer.kind == "gemm":
        attrs = {key: value for key, value in node.attrs.items() if key in ("alpha", "beta") and last}
        if first and "transA" in node.attrs:
            attrs["transA"] = node.attrs["transA"]
        return "Gemm", {**attrs, "transB": 1}
    attrs = _on_axes(layer, node, stage, covered, extent) if stage.axes else {"kernel_shape": [1] * len(layer.taps)}
    groups = stage.kernel.shape[0]
    if groups != 1:
        attrs["group"] = groups
    return node.op if stage.axes else "Conv", attrs


def _on_axes(layer: Layer, node: Node, stage: Stage, covered: set[int], extent: Extent | None) -> dict[str, Any]:
    """A convolution's attributes on the axes that a stage covers; the neutral ones on the others.

    ``auto_pad`` stays: on an axis of one tap and stride 1 it pads nothing.
    """
    attrs = {key: value for key, value in node.attrs.items() if key != "group"}
    if stage.axes == layer.axes:
        return attrs
    spatial = len(layer.taps)
    kept: dict[str, Any] = {"kernel_shape": list(stage.kernel.shape[3:])}
    for key, neutral in (("strides", 1), ("dilations", 1), ("output_padding", 0)):
        if key in attrs:
            given = [int(value) for value in attrs[key]]
            kept[key] = [given[axis] if axis in stage.axes else neutral for axis in layer.axes]
    if "pads" in attrs:
        pads = [int(pad) for pad in attrs["pads"]]
        kept["pads"] = [pads[i] if i % spatial in stage.axes else 0 for i in range(2 * spatial)]
    if "auto_pad" in attrs:
        kept["auto_pad"] = attrs["auto_pad"]
    if "output_shape" in attrs:
        asked = [int(size) for size in attrs["output_shape"]][-spatial:]
        assert extent is not None
        kept["output_shape"] = [asked[axis] if axis in covered else extent.before[axis] for axis in layer.axes]
    return kept


def can_split_axes(layer: Layer) -> bool:
    """Whether stages may cover some of the axes only: a prescribed output size must be known in between."""
    return layer.extents is not None or not any("output_shape" in node.attrs for node in layer.nodes)
