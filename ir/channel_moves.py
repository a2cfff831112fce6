"""How channels pass through operators that pick, repeat or put together parts of tensors: Concat, Slice and Pad."""

from __future__ import annotations

import numpy as np

from edgec.ir.channel_wiring import Wiring, align, given, quoted
from edgec.ir.graph import Node, Tensor


def concat(wiring: Wiring, node: Node) -> None:
    """Concat: each input is a stretch of the result."""
    out = wiring.of(node.outputs[0])
    axis = int(node.attrs["axis"]) % len(out)
    start: int | None = 0
    for tensor in node.inputs:
        dimensions = wiring.of(tensor)
        _others(wiring, node, dimensions, out, axis)
        length = wiring.length(dimensions[axis])
        if start is None or length is None or wiring.length(out[axis]) is None:
            wiring.fix((dimensions[axis], out[axis]), f"the widths that {quoted(node)} puts together are not all known")
            start = None
            continue
        wiring.coupling.join(dimensions[axis], np.arange(length), out[axis], np.arange(start, start + length))
        start += length


def split(wiring: Wiring, node: Node) -> None:
    """Split: each output is a stretch of the input."""
    before = wiring.of(node.inputs[0])
    axis = int(node.attrs.get("axis", 0)) % len(before)
    lengths = [wiring.length(wiring.of(output)[axis]) for output in node.outputs]
    computed = given(node, 1) is not None and wiring.constant(node, 1) is None
    start = 0
    for output, length in zip(node.outputs, lengths, strict=True):
        dimensions = wiring.of(output)
        _others(wiring, node, dimensions, before, axis)
        if None in lengths or wiring.length(before[axis]) is None or computed:
            wiring.fix((dimensions[axis], before[axis]), f"the widths that {quoted(node)} gives are not all known")
            continue
        size = length or 0
        wiring.coupling.join(before[axis], np.arange(start, start + size), dimensions[axis], np.arange(size))
        start += size


def slices(wiring: Wiring, node: Node) -> None:
    """Slice: with any steps, also backwards."""
    before, behind = wiring.of(node.inputs[0]), wiring.of(node.outputs[0])
    found = sliced(wiring, node)
    if found is None:
        wiring.fix_node(node, f"what {quoted(node)} takes is computed when the network runs")
        return
    for axis, (a, b) in enumerate(zip(before, behind, strict=True)):
        length = wiring.length(a)
        if axis not in found:
            wiring.same(a, b, node)
        elif length is None or wiring.length(b) is None:
            wiring.fix((a, b), f"its width is not known on both sides of {quoted(node)}")
        else:
            taken = np.arange(length)[found[axis]]
            if len(taken) == length and (taken == np.arange(length)).all():
                wiring.same(a, b, node)
            else:
                wiring.coupling.join(a, taken, b, np.arange(len(taken)))


def sliced(wiring: Wiring, node: Node) -> dict[int, slice] | None:
    """What a Slice takes, by axis; ``None`` where that is not constant."""
    rank = len(wiring.of(node.inputs[0]))
    starts, ends = wiring.integers(node, "starts", 1), wiring.integers(node, "ends", 2)
    axes, steps = wiring.integers(node, "axes", 3), wiring.integers(node, "steps", 4)
    for place, values in ((3, axes), (4, steps)):
        if values is None and given(node, place) is not None:
            return None
    if starts is None or ends is None:
        return None
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    return {axis % rank: slice(b, e, s) for axis, b, e, s in zip(axes, starts, ends, steps, strict=True)}


def gather(wiring: Wiring, node: Node) -> None:
    """Gather: with constant indices, one position or a list of them."""
    before, behind = wiring.of(node.inputs[0]), wiring.of(node.outputs[0])
    axis = int(node.attrs.get("axis", 0)) % len(before)
    indices = wiring.constant(node, 1)
    rank = len(wiring.of(node.inputs[1]))
    for a, b in zip((*before[:axis], *before[axis + 1 :]), (*behind[:axis], *behind[axis + rank :]), strict=True):
        wiring.same(a, b, node)
    length = wiring.length(before[axis])
    if indices is None or length is None or rank > 1:
        wiring.fix((before[axis], *behind[axis : axis + rank]), f"{quoted(node)} picks from it when the network runs")
        return
    taken = np.asarray(indices, np.int64) % length
    if rank == 0:
        wiring.coupling.fix(before[axis], f"{quoted(node)} picks it", taken.reshape(1))
    else:
        wiring.coupling.join(before[axis], taken, behind[axis], np.arange(len(taken)))


def pad(wiring: Wiring, node: Node) -> None:
    """Pad: positions that it adds with a constant stay; the other modes repeat what is there."""
    before, behind = wiring.of(node.inputs[0]), wiring.of(node.outputs[0])
    rank = len(before)
    pads = wiring.integers(node, "pads" if "pads" in node.attrs else "paddings", 1)
    axes = wiring.integers(node, "axes", 3)
    if pads is None or (axes is None and given(node, 3) is not None):
        wiring.fix_node(node, f"what {quoted(node)} adds is computed when the network runs")
        return
    places = [axis % rank for axis in axes] if axes is not None else list(range(rank))
    added = {axis: (pads[i], pads[i + len(places)]) for i, axis in enumerate(places)}
    constant = node.attrs.get("mode", "constant") == "constant"
    for axis, (a, b) in enumerate(zip(before, behind, strict=True)):
        begin, end = added.get(axis, (0, 0))
        length = wiring.length(a)
        if begin == end == 0:
            wiring.same(a, b, node)
        elif length is None or not constant or min(begin, end) < 0:
            wiring.fix((a, b), f"{quoted(node)} pads it")
        else:
            new = np.concatenate([np.arange(begin), np.arange(begin + length, begin + length + end)])
            wiring.coupling.join(a, np.arange(length), b, np.arange(begin, begin + length))
            wiring.coupling.fix(b, f"{quoted(node)} adds it", new)


def expand(wiring: Wiring, node: Node) -> None:
    """Expand: axes of length 1 are repeated; the shape must be a constant, because a cut rewrites it."""
    if wiring.constant(node, 1) is None:
        wiring.fix_node(node, f"the shape that {quoted(node)} gives is computed when the network runs")
        return
    align(wiring, node.inputs[:1], node.outputs, node)


def tile(wiring: Wiring, node: Node) -> None:
    """Tile: each position is repeated as often as the constant says."""
    before, behind = wiring.of(node.inputs[0]), wiring.of(node.outputs[0])
    repeats = wiring.constant(node, 1)
    for a, b in zip(before, behind, strict=True):
        length, result = wiring.length(a), wiring.length(b)
        if repeats is None or length is None or result is None:
            wiring.fix((a, b), f"{quoted(node)} repeats it a number of times that is not known")
        elif length == result:
            wiring.same(a, b, node)
        elif length:
            positions = np.arange(result)
            wiring.coupling.join(b, positions, a, positions % length)


def resize(wiring: Wiring, node: Node) -> None:
    """Resize and Upsample: axes of scale 1 pass through, the others are resampled."""
    before, behind = wiring.of(node.inputs[0]), wiring.of(node.outputs[0])
    kept = _unscaled(wiring, node, len(before))
    for axis, (a, b) in enumerate(zip(before, behind, strict=True)):
        if axis in kept and wiring.length(a) == wiring.length(b):
            wiring.same(a, b, node)
        else:
            wiring.fix((a, b), f"{quoted(node)} resamples it")


def _unscaled(wiring: Wiring, node: Node, rank: int) -> set[int]:
    """The axes that a Resize leaves as they are, as far as constants say."""
    older = node.op == "Upsample" or wiring.opset < 11
    place = 1 if older else 2
    axes = [int(axis) % rank for axis in node.attrs.get("axes") or range(rank)]
    rest = set(range(rank)) - set(axes)
    if node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return rest
    if not older and given(node, 3) is not None:
        if wiring.constant(node, 3) is None or node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            return rest
        lengths = [[wiring.length(d) for d in wiring.of(t)] for t in (node.inputs[0], node.outputs[0])]
        return rest | {axis for axis in axes if lengths[0][axis] == lengths[1][axis]}
    scales = node.attrs["scales"] if "scales" in node.attrs else wiring.constant(node, place)
    if scales is None or len(scales) != len(axes):
        return rest
    return rest | {axis for axis, scale in zip(axes, scales, strict=True) if float(scale) == 1}


def _others(wiring: Wiring, node: Node, some: list[int], others: list[int], axis: int) -> None:
    """Joins all axes but one."""
    for place, (a, b) in enumerate(zip(some, others, strict=True)):
        if place != axis:
            wiring.same(a, b, node)


def shape_reader(wiring: Wiring, node: Node) -> None:
    """Shape and Size: what they say goes into arithmetic that a cut does not follow."""
    tensor: Tensor = node.inputs[0]
    wiring.fix(wiring.maybe(tensor) or (), f"{quoted(node)} reads its shape")
