"""A layer replaced by the chain of its factors, as standard ONNX nodes.

The chain ends in the tensor that the layer computed, with the layer's bias in its last node, so that whatever followed
follows still.
"""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Constant, Node, Tensor, Variable
from edgec.passes.factorization.decomposition import LowRank, Tucker
from edgec.passes.factorization.layers import Layer
from edgec.passes.linear_layers import bias
from edgec.passes.rewriting import Rewriter


def write_tucker2(rw: Rewriter, layer: Layer, factors: Tucker) -> None:
    """Every reader of the layer's weights becomes 1x1 Conv, core, 1x1 Conv; a mode at full rank has no 1x1 Conv.

    The core keeps strides, padding and dilation. Readers share the constants.
    """
    shape = layer.weight.shape
    ones = (1,) * (len(shape) - 2)
    core = factors.core
    if layer.kind == "conv_transpose":
        core = core.transpose(1, 0, 2)
    parts = {
        "first": None if factors.first is None else factors.first.reshape(*factors.first.shape, *ones),
        "core": core.reshape(*core.shape[:2], *shape[2:]),
        "last": None if factors.last is None else factors.last.reshape(*factors.last.shape, *ones),
    }
    constants = _constants(rw, layer.weight, "tucker", parts)
    for node in layer.nodes:
        x: Tensor = node.inputs[0]
        [out] = rw.free_outputs(node)
        name = f"{node.name or node.op.lower()}.tucker"
        added = [b] if (b := bias(node)) is not None else []
        if "first" in constants:
            x = rw.insert(node, "Conv", [x, constants["first"]], name=f"{name}.first", kernel_shape=list(ones))
        inner = [x, constants["core"]]
        if "last" in constants:
            x = rw.insert(node, node.op, inner, name=f"{name}.core", **node.attrs)
            rw.insert(
                node, "Conv", [x, constants["last"], *added], name=f"{name}.last", output=out, kernel_shape=list(ones)
            )
        else:
            rw.insert(node, node.op, [*inner, *added], name=f"{name}.core", output=out, **node.attrs)
        rw.remove(node)


def write_svd(rw: Rewriter, layer: Layer, factors: LowRank) -> None:
    """Every reader of the layer's weights becomes two nodes of its own operator; readers share the constants."""
    shape = layer.weight.shape
    ones = (1,) * (len(shape) - 2)
    first, last = factors.first, factors.last
    if layer.kind == "matmul":
        first, last = first.T, last.T
    if layer.kind == "conv_transpose":
        last = last.T
    parts: dict[str, np.ndarray | None] = {"first": first, "last": last}
    if ones:
        parts = {"first": first.reshape(*first.shape, *ones), "last": last.reshape(*last.shape, *ones)}
    constants = _constants(rw, layer.weight, "svd", parts)
    for node in layer.nodes:
        [out] = rw.free_outputs(node)
        _write_pair(rw, layer.kind, node, constants["first"], constants["last"], out)
        rw.remove(node)


def _write_pair(rw: Rewriter, kind: str, node: Node, first: Constant, last: Constant, out: Variable) -> None:
    name = f"{node.name or node.op.lower()}.svd"
    attrs = dict(node.attrs)
    ones = [1] * (len(last.shape) - 2)
    added = [b] if (b := bias(node)) is not None and kind != "matmul" else []
    if kind == "conv":
        x = rw.insert(node, "Conv", [node.inputs[0], first], name=f"{name}.first", **attrs)
        rw.insert(node, "Conv", [x, last, *added], name=f"{name}.last", output=out, kernel_shape=ones)
    elif kind == "conv_transpose":
        x = rw.insert(node, "Conv", [node.inputs[0], first], name=f"{name}.first", kernel_shape=ones)
        rw.insert(node, "ConvTranspose", [x, last, *added], name=f"{name}.last", output=out, **attrs)
    elif kind == "gemm":
        x = rw.insert(
            node, "Gemm", [node.inputs[0], first], name=f"{name}.first", transA=attrs.pop("transA", None), transB=1
        )
        attrs["transB"] = 1
        rw.insert(node, "Gemm", [x, last, *added], name=f"{name}.last", output=out, **attrs)
    elif kind == "matmul":
        x = rw.insert(node, "MatMul", [node.inputs[0], first], name=f"{name}.first")
        rw.insert(node, "MatMul", [x, last], name=f"{name}.last", output=out)
    else:
        x = rw.insert(node, "MatMul", [first, node.inputs[1]], name=f"{name}.first")
        rw.insert(node, "MatMul", [last, x], name=f"{name}.last", output=out)


def _constants(rw: Rewriter, weight: Constant, method: str, parts: dict[str, np.ndarray | None]) -> dict[str, Constant]:
    return {
        part: rw.graph.const(f"{weight.name}.{method}.{part}", np.ascontiguousarray(values, weight.dtype))
        for part, values in parts.items()
        if values is not None
    }
