"""What stood behind the place where a network was cut, as a program for :mod:`edgec.backends.on_board.tail`."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgec.backends.on_board.tail import RULES, Tail
from edgec.ir.graph import Constant, Graph, Node, Tensor, numpy_dtype, producer, static_shape

PROGRAM, CONSTANTS, SOURCE = "tail.json", "tail.npz", "tail.py"
# The operators that numpy computes are those of this opset and later: axes are inputs, Softmax has one axis.
_SINCE = 13
# Constants of a tail, at most: anchors, strides, indices.
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class TailProgram:
    """The nodes behind a cut, and their constants.

    Attributes:
        program: for tail.json.
        constants: for tail.npz.
    """

    program: dict[str, Any]
    constants: dict[str, np.ndarray]

    def write(self, folder: Path) -> list[str]:
        """Writes both files; returns their names."""
        (folder / PROGRAM).write_text(json.dumps(self.program, indent=1) + "\n", encoding="utf-8")
        np.savez(folder / CONSTANTS, allow_pickle=False, **self.constants)
        return [PROGRAM, CONSTANTS]

    def tail(self) -> Tail:
        """What runs it."""
        return Tail(self.program, self.constants)


def tail_of(whole: Graph, cut_at: Collection[str]) -> TailProgram | str:
    """The program that computes the outputs of ``whole`` from the tensors where it was cut; or why there is none.

    Args:
        whole: the original network, its nodes in order, with static shapes.
        cut_at: names of tensors.
    """
    if whole.opset < _SINCE:
        return f"the network is of opset {whole.opset}"
    needed: set[Node] = set()
    open_ends: list[Tensor] = list(whole.outputs)
    while open_ends:
        tensor = open_ends.pop()
        node = producer(tensor)
        if tensor.name in cut_at or isinstance(tensor, Constant) or not tensor.name:
            continue
        if node is None:
            return f"it needs the input '{tensor.name}', too"
        if node not in needed:
            reason = _refusal(node)
            if reason is not None:
                return reason
            needed.add(node)
            open_ends += node.inputs
    constants: dict[Constant, str] = {}
    nodes = [_written(node, constants) for node in whole.nodes if node in needed]
    if sum(constant.nbytes for constant in constants) > _MOST_BYTES:
        return f"its constants take more than {_MOST_BYTES >> 20} MiB"
    program = {"nodes": nodes, "outputs": [tensor.name for tensor in whole.outputs]}
    return TailProgram(program, {name: np.array(constant.values) for constant, name in constants.items()})


def _refusal(node: Node) -> str | None:
    name = f"'{node.name}' ({node.op})"
    if node.domain not in ("", "ai.onnx") or node.op not in RULES:
        return f"{name} behind it is of an operator that numpy has no counterpart for"
    if node.op == "Conv":
        weights = node.inputs[1]
        plain = isinstance(weights, Constant) and all(size == 1 for size in static_shape(weights)[2:])
        steps: list[Any] = [*node.attrs.get("strides", [1]), *node.attrs.get("dilations", [1])]
        steps.append(node.attrs.get("group", 1))
        if not plain or any(step != 1 for step in steps) or any(node.attrs.get("pads", [0])):
            return f"{name} behind it is a whole layer: cut the network behind it"
    if node.op == "GatherND" and node.attrs.get("batch_dims"):
        return f"{name} behind it has batch dimensions"
    return None


def _written(node: Node, constants: dict[Constant, str]) -> dict[str, Any]:
    attrs: dict[str, Any] = {
        key: list(value) if isinstance(value, tuple) else value for key, value in node.attrs.items()
    }
    if node.op == "Cast":
        kind = numpy_dtype(int(attrs["to"]))
        attrs = {"to": "bool" if kind is None else kind.name}
    if node.op == "Split":
        attrs["outputs"] = len(node.outputs)
    inputs = [_name(tensor, constants) for tensor in node.inputs]
    return {"op": node.op, "attrs": attrs, "inputs": inputs, "outputs": [tensor.name for tensor in node.outputs]}


def _name(tensor: Tensor, constants: dict[Constant, str]) -> str:
    if isinstance(tensor, Constant):
        return constants.setdefault(tensor, f"constant{len(constants)}")
    return tensor.name
