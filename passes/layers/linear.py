"""What Conv, ConvTranspose, Gemm and MatMul have in common: where their weights' input and output channels lie.

Pure numpy, without BLAS, so that results do not depend on the number of threads. All scales and offsets are float64;
weights come back in their own type.
"""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Node, Tensor

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


def output_channels(node: Node, shape: tuple[int, ...]) -> int:
    """How many channels a layer with weights of that shape computes."""
    if node.op == "Conv":
        return shape[0]
    if node.op == "ConvTranspose":
        return shape[1] * groups(node)
    if node.op == "Gemm":
        return shape[0] if node.attrs.get("transB") else shape[1]
    return shape[-1]


def input_channels(node: Node, shape: tuple[int, ...]) -> int:
    """How many channels (for Gemm and MatMul: features) it reads."""
    if node.op == "Conv":
        return shape[1] * groups(node)
    if node.op == "ConvTranspose":
        return shape[0]
    if node.op == "Gemm":
        return shape[1] if node.attrs.get("transB") else shape[0]
    return shape[-2]


def groups(node: Node) -> int:
    """The number of groups of a convolution."""
    return int(node.attrs.get("group", 1))


def bias(node: Node) -> Tensor | None:
    """Its bias, ``None`` where there is none."""
    return node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None


def padding(node: Node, spatial: int) -> list[int] | None:
    """The explicit padding of a convolution or pooling, begins then ends; ``None`` where auto_pad computes it."""
    auto = node.attrs.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return [0] * (2 * spatial)
    if auto != "NOTSET":
        return None
    return [int(p) for p in node.attrs.get("pads", [0] * (2 * spatial))]


def scale_outputs(node: Node, weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Weights of a layer whose output channel i is ``scale[i]`` times what it was; ``scale`` has 1 or all channels."""
    scale = np.broadcast_to(scale, (output_channels(node, weights.shape),))
    tail = (1,) * (weights.ndim - 2)
    if node.op == "Conv":
        return _multiply(weights, scale.reshape(-1, 1, *tail))
    if node.op == "ConvTranspose":
        group = groups(node)
        split = weights.reshape(group, -1, *weights.shape[1:])
        return _multiply(split, scale.reshape(group, 1, -1, *tail)).reshape(weights.shape)
    if node.op == "Gemm" and node.attrs.get("transB"):
        return _multiply(weights, scale[:, None])
    return _multiply(weights, scale)


def scale_inputs(node: Node, weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Weights that do to x what ``weights`` did to ``scale * x``; ``scale`` has 1 or all input channels."""
    scale = np.broadcast_to(scale, (input_channels(node, weights.shape),))
    tail = (1,) * (weights.ndim - 2)
    if node.op == "Conv":
        group = groups(node)
        split = weights.reshape(group, -1, *weights.shape[1:])
        return _multiply(split, scale.reshape(group, 1, -1, *tail)).reshape(weights.shape)
    if node.op == "ConvTranspose":
        return _multiply(weights, scale.reshape(-1, 1, *tail))
    if node.op == "Gemm" and node.attrs.get("transB"):
        return _multiply(weights, scale)
    return _multiply(weights, scale[:, None])


def offset_outputs(node: Node, weights: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """What adding ``offset`` to the input channels of a Conv or Gemm adds to each output channel, in float64.

    Holds for a Conv where no tap falls into padding. A Gemm's ``alpha`` is in the result.
    """
    offset = np.broadcast_to(offset, (input_channels(node, weights.shape),)).astype(np.float64)
    if node.op == "Conv":
        group = groups(node)
        taps = weights.reshape(*weights.shape[:2], -1).sum(axis=2, dtype=np.float64)
        split = taps.reshape(group, -1, taps.shape[1]) * offset.reshape(group, 1, -1)
        return split.sum(axis=2).reshape(-1)
    if node.attrs.get("transB"):
        added = (weights * offset).sum(axis=1)
    else:
        added = (weights * offset[:, None]).sum(axis=0)
    return added * float(node.attrs.get("alpha", 1.0))


def _multiply(weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    # In float64 block by block, so that no second copy of large weights in double precision is made.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.multiply(weights, scale, out=np.empty_like(weights), dtype=np.float64, casting="same_kind")
