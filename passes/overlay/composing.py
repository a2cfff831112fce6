"""A linear analysis and the convolution behind it as one, where that computes less.

The analysis reads blocks side by side, so a convolution of its answers is one of the pixels: its kernel is as many
blocks large, its stride as many blocks wide. What pads the answers with zeros pads the image with zeros, which answer
zero.
"""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Variable, producer


def compose(graph: Graph, stage: Variable) -> bool:
    """Puts one convolution in the place of the analysis that gives ``stage`` and of its reader, where it is cheaper.

    Returns:
        Whether it was done. Nothing is changed where the analysis adds a constant and the reader pads: the border would
        differ.
    """
    analysis, readers = producer(stage), list(dict.fromkeys(stage.outputs))
    if analysis is None or analysis.op != "Conv" or len(readers) != 1 or readers[0].op != "Conv":
        return False
    reader = readers[0]
    kernels, weight = analysis.inputs[1], reader.inputs[1]
    offset, bias = _values(analysis, 2), _values(reader, 2)
    if not isinstance(kernels, Constant) or not isinstance(weight, Constant) or any(analysis.attrs.get("pads", ())):
        return False
    pads, strides = list(reader.attrs["pads"]), list(reader.attrs["strides"])
    if offset is not None and np.any(offset) and any(pads):
        return False
    block = kernels.shape[2]
    if _work(kernels.values, weight.values, strides) <= _work_of_one(kernels.values, weight.values):
        return False
    # (out, in, rows of blocks, rows in one, columns of blocks, columns in one)
    whole = np.einsum("okij,kcyx->ociyjx", weight.values.astype(np.float64), kernels.values.astype(np.float64))
    out, colors, high, _, wide, _ = whole.shape
    made = whole.reshape(out, colors, high * block, wide * block)
    added = np.zeros(out) if bias is None else bias.astype(np.float64)
    if offset is not None:
        added = added + np.einsum("okij,k->o", weight.values.astype(np.float64), offset.astype(np.float64))
    reader.inputs[:] = [
        analysis.inputs[0],
        graph.const(f"{reader.name}.composed.weight", made.astype(np.float32)),
        graph.const(f"{reader.name}.composed.bias", added.astype(np.float32)),
    ]
    reader.attrs |= {
        "kernel_shape": [high * block, wide * block],
        "strides": [stride * block for stride in strides],
        "pads": [pad * block for pad in pads],
    }
    return True


def _values(node: Node, place: int) -> np.ndarray | None:
    tensor = node.inputs[place] if len(node.inputs) > place else None
    return tensor.values if isinstance(tensor, Constant) else None


def _work(kernels: np.ndarray, weight: np.ndarray, strides: list[int]) -> int:
    """Multiply-accumulates of both, for one value of the reader."""
    return int(kernels.size) * strides[0] * strides[1] + int(weight.size)


def _work_of_one(kernels: np.ndarray, weight: np.ndarray) -> int:
    out, _, high, wide = weight.shape
    return int(out * kernels.shape[1] * high * wide * kernels.shape[2] * kernels.shape[3])
