"""Operators that give elements another shape or order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgec.ir.dimensions import reshaped
from edgec.ir.literals import literal
from edgec.ir.stored import Stored, numpy_dtype
from edgec.ir.torch_module.conversion import TYPES, to_numpy, to_torch
from edgec.ir.torch_module.lowering import Call, Site, lowers


@lowers("Reshape")
def reshape(at: Site) -> Call:
    allow_zero = bool(at.attr("allowzero", 0))
    target, batch, shape = at.known(1), at.output_batch_axis(), at.shape(0)
    if target is None:
        return lambda x, target: x.reshape(reshaped(target.tolist(), x.shape, allow_zero))
    at.take(0)
    numbers = [int(d) for d in target]
    if batch is not None and shape is not None:
        dims = reshaped(numbers, [int(d or 0) for d in shape], allow_zero)
        dims[batch] = -1
        return lambda x: x.reshape(dims)
    if (0 not in numbers) or (allow_zero and -1 not in numbers):
        return lambda x: x.reshape(numbers)
    return lambda x: x.reshape(reshaped(numbers, x.shape, allow_zero))


@lowers("Flatten")
def flatten(at: Site) -> Call:
    axis, batch, shape = int(at.attr("axis", 1)), at.output_batch_axis(), at.shape(0)
    if axis == 1 and at.rank(0) > 1 and batch in (None, 0):
        return lambda x: torch.flatten(x, 1)
    if batch is not None and shape is not None:
        own = axis + len(shape) if axis < 0 else axis
        dims = [math.prod(int(d or 0) for d in part) for part in (shape[:own], shape[own:])]
        dims[batch] = -1
        return lambda x: x.reshape(dims)

    def call(x: Tensor) -> Tensor:
        own = axis + x.ndim if axis < 0 else axis
        return x.reshape(math.prod(x.shape[:own]), math.prod(x.shape[own:]))

    return call


@lowers("Squeeze")
def squeeze(at: Site) -> Call:
    def build(axes: np.ndarray | None) -> Call:
        if axes is None:
            return torch.squeeze
        places = tuple(int(a) for a in axes.reshape(-1))
        return lambda x: torch.squeeze(x, places)

    if at.attr("axes") is not None:
        return build(np.array(at.attr("axes")))
    if not at.has(1) and at.batch_axis(0) is not None:
        shape = at.shape(0) or ()
        at.take(0)
        return build(np.array([i for i, d in enumerate(shape) if d == 1]))
    return at.late([1], build)


@lowers("Unsqueeze")
def unsqueeze(at: Site) -> Call:
    def build(axes: np.ndarray) -> Call:
        places = [int(a) for a in axes.reshape(-1)]
        if len(places) == 1:
            return lambda x: x.unsqueeze(places[0])

        def call(x: Tensor) -> Tensor:
            for place in sorted(p % (x.ndim + len(places)) for p in places):
                x = x.unsqueeze(place)
            return x

        rank = at.shape(0)
        if rank is None:
            return call
        order = sorted(p % (len(rank) + len(places)) for p in places)

        def ordered(x: Tensor) -> Tensor:
            for place in order:
                x = x.unsqueeze(place)
            return x

        return ordered

    if at.attr("axes") is not None:
        return build(np.array(at.attr("axes")))
    return at.late([1], build)


@lowers("Transpose")
def transpose(at: Site) -> Call:
    order = at.attr("perm")

    def call(x: Tensor) -> Tensor:
        turned = x.permute([int(a) for a in order] if order is not None else list(range(x.ndim))[::-1])
        # torch 2.13 takes pictures that were turned out of NHWC for channels_last, and where a gradient comes in the
        # usual order, the kernels behind a GroupNorm and a strided Conv of one channel write beside their memory. Such
        # a picture of one channel is contiguous by its values: only a view of a single axis has the usual strides.
        return turned.reshape(-1).view(turned.shape) if turned.ndim in (4, 5) else turned

    return call


@lowers("Expand")
def expand(at: Site) -> Call:
    """To the shape that both have when broadcast; along the batch's axis every tensor keeps what it has."""
    batch = at.output_batch_axis()

    def build(target: np.ndarray) -> Call:
        dims = [int(d) for d in target]
        if batch is not None:
            place = batch - max(at.rank(0) - len(dims), 0)
            if place >= 0:  # otherwise the axis is in front of the target
                dims[place] = 1
        return lambda x: x.expand(torch.broadcast_shapes(x.shape, dims))

    return at.late([1], build)


@lowers("Tile")
def tile(at: Site) -> Call:
    return at.late([1], lambda repeats: lambda x: x.repeat([int(r) for r in repeats]))


@lowers("Concat")
def concat(at: Site) -> Call:
    """What belongs to all samples of a batch is put beside each."""
    axis, batch = int(at.attr("axis")), at.output_batch_axis()
    count = len(at.node.inputs)
    shared = [p for p in range(count) if batch is not None and at.batch_axis(p) is None]
    if not shared:
        return lambda *xs: torch.cat(xs, axis)
    own = next(p for p in range(count) if p not in shared)

    def call(*xs: Tensor) -> Tensor:
        assert batch is not None
        parts = list(xs)
        for place in shared:
            dims = [-1] * xs[place].ndim
            dims[batch] = xs[own].shape[batch]
            parts[place] = xs[place].expand(dims)
        return torch.cat(parts, axis)

    return call


@lowers("Split")
def split(at: Site) -> Call:
    """In parts of given sizes, or of equal ones with a smaller last."""
    axis, count = int(at.attr("axis", 0)), len(at.node.outputs)

    def build(sizes: Any) -> Call:
        if sizes is not None:
            numbers = [int(s) for s in sizes]
            return lambda x: torch.split(x, numbers, axis)
        return lambda x: torch.split(x, -(-x.shape[axis] // count), axis)

    if at.attr("split") is not None:
        return build(at.attr("split"))
    return at.late([1], build)


@lowers("DepthToSpace")
def depth_to_space(at: Site) -> Call:
    block = int(at.attr("blocksize"))
    if at.attr("mode", "DCR") == "CRD":
        return lambda x: functional.pixel_shuffle(x, block)

    def call(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return parts.reshape(n, c // block**2, h * block, w * block)

    return call


@lowers("SpaceToDepth")
def space_to_depth(at: Site) -> Call:
    block = int(at.attr("blocksize"))
    if at.attr("mode", "DCR") == "CRD":
        return lambda x: functional.pixel_unshuffle(x, block)

    def call(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return parts.reshape(n, c * block**2, h // block, w // block)

    return call


@lowers("Shape")
def shape_of(at: Site) -> Call:
    """A constant where the dimensions are known: at a batch of any size, a sample has the shape of the export."""
    start, end = int(at.attr("start", 0)), at.attr("end")
    part = slice(start, None if end is None else int(end))
    shape = at.shape(0)
    if shape is not None and all(d is not None for d in shape):
        dims = [int(d) for d in shape if d is not None][part]
        at.take()
        return lambda: torch.tensor(dims, dtype=torch.int64)
    return lambda x: torch.tensor(x.shape[part], dtype=torch.int64, device=x.device)


@lowers("Size")
def size_of(at: Site) -> Call:
    shape = at.shape(0)
    if shape is not None and all(d is not None for d in shape):
        count = math.prod(int(d) for d in shape if d is not None)
        at.take()
        return lambda: torch.tensor(count, dtype=torch.int64)
    return lambda x: torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


@lowers("Constant")
def constant(at: Site) -> Call:
    found = literal(at.node)
    values = found.load() if isinstance(found, Stored) else found
    if values is None or values.dtype.name not in TYPES:
        raise at.refusal("its value is none that torch has", "fold the constants first")
    return lambda: to_torch(values)


@lowers("ConstantOfShape")
def constant_of_shape(at: Site) -> Call:
    given = at.attr("value")
    values = np.zeros(1, np.float32) if given is None else given.values
    if values.dtype.name not in TYPES:
        raise at.refusal(f"torch has no elements of type {values.dtype}", "cast to float32")
    kind, number = TYPES[values.dtype.name], values.reshape(-1)[0].item()
    return lambda shape: torch.full([int(d) for d in to_numpy(shape)], number, dtype=kind, device=shape.device)


@lowers("Range")
def counted(at: Site) -> Call:
    def call(start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
        count = max(math.ceil((limit.item() - start.item()) / step.item()), 0)
        return start + step * torch.arange(count, dtype=start.dtype, device=start.device)

    return call


@lowers("EyeLike")
def eye_like(at: Site) -> Call:
    diagonal = int(at.attr("k", 0))
    kind = at.attr("dtype")
    wanted = None if kind is None else TYPES[numpy_dtype(int(kind)).name]

    def call(x: Tensor) -> Tensor:
        rows, columns = (torch.arange(d, device=x.device) for d in x.shape)
        return (columns[None, :] - rows[:, None] == diagonal).to(wanted or x.dtype)

    return call
