"""A shuffle of channels, taken up by the layers behind it: they read their weights in the shuffled order instead.

ShuffleNet shuffles with a Reshape to five dimensions, a Transpose and a Reshape back; few devices have kernels for
that, and none has one that costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgec.ir.graph import Node, Tensor, producer
from edgec.passes.fold.transposes import POINTWISE, permutation
from edgec.passes.framework.rewriter import Rewriter, quoted
from edgec.passes.layers.linear import groups

_BY_CHANNEL = POINTWISE | {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}
_DEEPEST = 64
# Weights of a layer in a new order.
Change = Callable[[], object]


def fold_channel_shuffle(rw: Rewriter, node: Node) -> bool:
    """Removes a shuffle, of which ``node`` is the last Reshape, where every layer behind it can take it up."""
    shuffle = _shuffle(rw, node)
    if shuffle is None:
        return False
    x, order = shuffle
    changes: list[Change] = []
    layers: list[Node] = []
    if not _take_up(rw, node.outputs[0], order, changes, layers, 0) or not layers:
        return False
    for change in changes:
        change()
    rw.did(node, f"its shuffle of channels went into {', '.join(map(quoted, layers))}")
    rw.replace(node, x)
    return True


def _shuffle(rw: Rewriter, node: Node) -> tuple[Tensor, np.ndarray] | None:
    """What is shuffled, and from which channel each one comes."""
    turn = producer(node.inputs[0])
    cut = None if turn is None or turn.op != "Transpose" else producer(turn.inputs[0])
    if turn is None or cut is None or cut.op != "Reshape":
        return None
    if not rw.single_use(node.inputs[0]) or not rw.single_use(turn.inputs[0]):
        return None
    shape, wide, perm = rw.static(cut.inputs[0]), rw.static(turn.inputs[0]), permutation(rw, turn)
    if shape is None or wide is None or perm is None or rw.static(node.outputs[0]) != shape or len(shape) < 2:
        return None
    inner = len(wide) - len(shape) + 1  # dimensions that the channels were cut into
    if inner < 2 or wide[0] != shape[0] or wide[1 + inner :] != shape[2:]:
        return None
    if perm[0] != 0 or perm[1 + inner :] != list(range(1 + inner, len(wide))):
        return None
    channels = np.arange(shape[1]).reshape(wide[1 : 1 + inner])
    return cut.inputs[0], channels.transpose([axis - 1 for axis in perm[1 : 1 + inner]]).reshape(-1)


def _take_up(
    rw: Rewriter, tensor: Tensor, order: np.ndarray, changes: list[Change], layers: list[Node], depth: int
) -> bool:
    """Whether all that reads ``tensor``, whose channels are to come unshuffled, can; gathers what must change."""
    readers = rw.readers(tensor)
    if not readers or depth > _DEEPEST:
        return False
    for reader in readers:
        if reader.domain not in ("", "ai.onnx") or list(reader.inputs).count(tensor) != 1:
            return False
        if reader.inputs[0] is not tensor:
            return False
        if reader.op in ("Conv", "Gemm"):
            if not _layer(rw, reader, order, changes, layers, depth):
                return False
        elif reader.op in ("Reshape", "Flatten"):
            shape, flat = rw.static(tensor), rw.static(reader.outputs[0])
            if shape is None or flat is None or flat != (shape[0], int(np.prod(shape[1:]))):
                return False
            places = int(np.prod(shape[2:]))
            wide = (order[:, None] * places + np.arange(places)).reshape(-1)
            if not _take_up(rw, reader.outputs[0], wide, changes, layers, depth + 1):
                return False
        else:
            passes = reader.op in _BY_CHANNEL and len(reader.outputs) == 1 and rw.rank(tensor) != 2
            if not passes or not _take_up(rw, reader.outputs[0], order, changes, layers, depth + 1):
                return False
    return True


def _layer(rw: Rewriter, node: Node, order: np.ndarray, changes: list[Change], layers: list[Node], depth: int) -> bool:
    weights = rw.fixed(node.inputs[1])
    if weights is None or weights.dtype.kind != "f":
        return False
    back = np.argsort(order)
    layers.append(node)
    if node.op == "Gemm":
        if node.attrs.get("transA") or rw.rank(node.inputs[0]) != 2:
            return False
        axis = 1 if node.attrs.get("transB") else 0
        changes.append(lambda: rw.set_constant(node, 1, weights.take(back, axis), f"{node.inputs[1].name}.ordered"))
        return True
    if groups(node) == 1:
        changes.append(lambda: rw.set_constant(node, 1, weights.take(back, 1), f"{node.inputs[1].name}.ordered"))
        return True
    if groups(node) != len(order) or weights.shape[:2] != (len(order), 1):
        return False
    bias = rw.fixed(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None
    if len(node.inputs) > 2 and node.inputs[2].name and bias is None:
        return False
    changes.append(lambda: rw.set_constant(node, 1, weights.take(back, 0), f"{node.inputs[1].name}.ordered"))
    if bias is not None:
        changes.append(lambda: rw.set_constant(node, 2, bias.take(back, 0), f"{node.inputs[2].name}.ordered"))
    return _take_up(rw, node.outputs[0], order, changes, layers, depth + 1)
