"""Blocks of pixels moved into channels in front of a convolution: a larger, strided convolution computes the same.

YOLO's Focus writes it as Slices and a Concat, others as SpaceToDepth or as Reshape, Transpose and Reshape. A
convolution of kernel k, stride s and padding p behind blocks of b is one of kernel b k, stride b s and padding b p on
the pixels, with the same weights in other places and as many multiplications.
"""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Node, Tensor, producer
from edgec.passes.fold.sequences import cuts
from edgec.passes.fold.transposes import permutation
from edgec.passes.framework.rewriter import Rewriter, quoted
from edgec.passes.layers.linear import groups, padding


def fold_space_to_depth(rw: Rewriter, node: Node) -> bool:
    """Has the convolutions behind ``node``, a Concat, SpaceToDepth or Reshape, read the pixels themselves."""
    blocks = _blocks(rw, node)
    readers = rw.readers(node.outputs[0])
    if blocks is None or not readers:
        return False
    x, size, order = blocks
    if not all(_can_read_pixels(rw, reader, node.outputs[0]) for reader in readers):
        return False
    for reader in readers:
        weights = rw.fixed(reader.inputs[1])
        assert weights is not None
        kernel = weights.shape[2:]
        # order[i] is the place (row, column, channel) that channel i came from.
        outputs, channels = weights.shape[0], len(order) // size**2
        wide = np.empty((outputs, channels, kernel[0], size, kernel[1], size), weights.dtype)
        rows, columns, sources = order.T
        wide[:, sources, :, rows, :, columns] = np.moveaxis(weights, 1, 0)
        merged = wide.reshape(outputs, channels, kernel[0] * size, kernel[1] * size)
        rw.set_constant(reader, 1, merged, f"{reader.inputs[1].name}.of_pixels")
        pads = padding(reader, 2)
        assert pads is not None
        reader.attrs.pop("auto_pad", None)
        reader.attrs["kernel_shape"] = [int(k) * size for k in kernel]
        reader.attrs["strides"] = [int(s) * size for s in reader.attrs.get("strides", [1, 1])]
        reader.attrs["pads"] = [p * size for p in pads]
    rw.did(node, f"its blocks of {size}x{size} pixels went into {', '.join(map(quoted, readers))}")
    for reader in readers:
        rw.set_input(reader, 0, x)
    return True


def _can_read_pixels(rw: Rewriter, reader: Node, tensor: Tensor) -> bool:
    if reader.op != "Conv" or groups(reader) != 1 or reader.inputs[0] is not tensor or padding(reader, 2) is None:
        return False
    weights = rw.fixed(reader.inputs[1])
    undilated = all(int(d) == 1 for d in reader.attrs.get("dilations", [1]))
    return weights is not None and weights.dtype.kind == "f" and weights.ndim == 4 and undilated


def _blocks(rw: Rewriter, node: Node) -> tuple[Tensor, int, np.ndarray] | None:
    """The pixels, the side of a block, and for each channel the (row, column, channel) in its block."""
    if node.op == "SpaceToDepth":
        shape, size = rw.static(node.inputs[0]), int(node.attrs["blocksize"])
        return None if shape is None else (node.inputs[0], size, _places(size, shape[1]))
    return _from_slices(rw, node) if node.op == "Concat" else _from_views(rw, node)


def _places(size: int, channels: int) -> np.ndarray:
    """Of SpaceToDepth: rows first, then columns, then channels."""
    return np.stack(np.unravel_index(np.arange(size * size * channels), (size, size, channels)), axis=1)


def _from_slices(rw: Rewriter, node: Node) -> tuple[Tensor, int, np.ndarray] | None:
    slices = [producer(tensor) for tensor in node.inputs]
    size = round(len(slices) ** 0.5)
    if size < 2 or size * size != len(slices) or int(node.attrs.get("axis", 0)) != 1:
        return None
    first = slices[0]
    if first is None or first.op != "Slice":
        return None
    x, places = first.inputs[0], []
    shape = rw.static(x)
    if shape is None or len(shape) != 4 or shape[2] % size or shape[3] % size:
        return None
    for one in slices:
        taken = cuts(rw, one) if one is not None and one.op == "Slice" and one.inputs[0] is x else None
        if taken is None or set(taken) != {2, 3}:
            return None
        (row, bottom, down), (column, right, across) = taken[2], taken[3]
        if (down, across) != (size, size) or bottom < shape[2] - size + 1 or right < shape[3] - size + 1:
            return None
        places.append((row, column))
    if sorted(places) != [(row, column) for row in range(size) for column in range(size)]:
        return None
    order = [(row, column, channel) for row, column in places for channel in range(shape[1])]
    return x, size, np.array(order)


def _from_views(rw: Rewriter, node: Node) -> tuple[Tensor, int, np.ndarray] | None:
    """Reshape to blocks, Transpose of the rows and columns inside them to the channels, Reshape."""
    turn = producer(node.inputs[0])
    cut = None if turn is None or turn.op != "Transpose" else producer(turn.inputs[0])
    if turn is None or cut is None or cut.op != "Reshape" or node.op != "Reshape":
        return None
    if not rw.single_use(node.inputs[0]) or not rw.single_use(turn.inputs[0]):
        return None
    x, out, wide = cut.inputs[0], rw.static(node.outputs[0]), rw.static(turn.inputs[0])
    shape, perm = rw.static(x), permutation(rw, turn)
    if shape is None or out is None or wide is None or perm is None or len(shape) != 4 or len(wide) != 6:
        return None
    samples, channels, height, width = shape
    size = wide[3]
    if size < 2 or wide != (samples, channels, height // size, size, width // size, size):
        return None
    if out != (samples, channels * size * size, height // size, width // size) or perm[0] != 0 or perm[4:] != [2, 4]:
        return None
    # The axes that became channels, slowest first, hold channels (1), rows (3) and columns (5).
    axes = perm[1:4]
    sizes = [{1: channels, 3: size, 5: size}[axis] for axis in axes]
    counted = np.unravel_index(np.arange(channels * size * size), sizes)
    return x, size, np.stack([counted[axes.index(axis)] for axis in (3, 5, 1)], axis=1)
