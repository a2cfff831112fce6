"""The layers that read the channels of a group, and what each channel weighs in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.ir.channels import Group
from edgec.ir.graph import Constant, Node, Variable
from edgec.passes.layers.linear import LINEAR, groups


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer with constant weights that reads units of a group.

    Attributes:
        node: Conv, ConvTranspose, Gemm or MatMul.
        weight: its weights.
        data: the activation that it reads.
        axis: the axis of ``data`` that its channels lie on.
        channels: the channels of ``data`` that make up each unit, in order; shape (width, channels a unit).
    """

    node: Node
    weight: Constant
    data: Variable
    axis: int
    channels: np.ndarray

    def weights(self) -> np.ndarray:
        """What each unit is multiplied with: (width, everything that it contributes to), float64."""
        by_input = weights_by_input(self.node, self.weight.values)
        return by_input[self.channels].reshape(len(self.channels), -1)


def readers(group: Group) -> list[Reader]:
    """The layers that read a group through weights of their own and all of whose units have equally many channels."""
    found = []
    for slot in group.slots:
        node = slot.node
        if slot.role != "consumes" or node.op not in LINEAR or node.inputs[slot.place] is not slot.constant:
            continue
        data = node.inputs[1 - slot.place]
        if not isinstance(data, Variable) or (node.op == "MatMul" and len(slot.constant.shape) != 2):
            continue
        index = np.tile(slot.index, groups(node)) if node.op == "Conv" else slot.index
        counts = np.bincount(index[index >= 0], minlength=group.width)
        if counts.min() != counts.max():
            continue
        places = np.flatnonzero(index >= 0)
        places = places[np.argsort(index[places], kind="stable")]
        found.append(Reader(node, slot.constant, data, channel_axis(node), places.reshape(group.width, -1)))
    return found


def channel_axis(node: Node) -> int:
    """The axis of what a layer reads along which its channels lie; from the back for a MatMul."""
    if node.op == "MatMul":
        return -2 if isinstance(node.inputs[0], Constant) else -1
    if node.op == "Gemm":
        return 0 if node.attrs.get("transA") else 1
    return 1


def result_axis(node: Node, rank: int) -> int:
    """The axis, from the front, of what a layer computes along which its weights' output channels lie."""
    if node.op == "MatMul":
        return rank - (2 if isinstance(node.inputs[0], Constant) else 1)
    return 1


def weights_by_input(node: Node, values: np.ndarray) -> np.ndarray:
    """Weights as (input channels, all that a channel is multiplied with), float64."""
    values = values.astype(np.float64)
    if node.op == "Conv":
        group = groups(node)
        split = values.reshape(group, values.shape[0] // group, values.shape[1], -1)
        return split.transpose(0, 2, 1, 3).reshape(group * values.shape[1], -1)
    if node.op == "ConvTranspose":
        return values.reshape(values.shape[0], -1)
    if node.op == "Gemm":
        return values.T if node.attrs.get("transB") else values
    return values.T if isinstance(node.inputs[0], Constant) else values
