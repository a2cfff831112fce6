"""Operators that pick elements, sort or count them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgec.ir.torch_module.lowering import Call, Site, lowers


@lowers("Slice")
def slices(at: Site) -> Call:
    """By starts, ends, axes and steps; a slice of all of the batch's axis is left out, since batches differ in size."""
    batch = at.batch_axis(0)

    def build(
        starts: np.ndarray, ends: np.ndarray, axes: np.ndarray | None = None, steps: np.ndarray | None = None
    ) -> Call:
        own = range(len(starts)) if axes is None else [int(a) for a in axes]
        strides = [1] * len(starts) if steps is None else [int(s) for s in steps]
        bounds = list(zip(own, (int(s) for s in starts), (int(e) for e in ends), strides, strict=True))

        def call(x: Tensor) -> Tensor:
            for axis, start, end, step in bounds:
                if axis % x.ndim == batch:
                    continue
                if step > 0:
                    picked = range(x.shape[axis])[start:end:step]
                    if step == 1:
                        x = x.narrow(axis, picked.start if len(picked) else 0, len(picked))
                        continue
                else:
                    picked = range(x.shape[axis])[start:end:step]
                x = x.index_select(axis, torch.tensor(picked, dtype=torch.int64, device=x.device))
            return x

        return call

    if at.opset < 10:
        axes = at.attr("axes")
        return build(np.array(at.attr("starts")), np.array(at.attr("ends")), None if axes is None else np.array(axes))
    return at.late([1, 2, 3, 4], build)


def _from_start(indices: Tensor, count: int) -> Tensor:
    """Indices of type int64, those from the end counted from the start."""
    indices = indices.long()
    return torch.where(indices < 0, indices + count, indices)


@lowers("Gather")
def gather(at: Site) -> Call:
    axis, indices = int(at.attr("axis", 0)), at.known(1)
    if indices is not None and indices.ndim == 0:
        at.take(0)
        place = int(indices)
        return lambda x: x.select(axis, place)

    def call(x: Tensor, indices: Tensor) -> Tensor:
        flat = _from_start(indices, x.shape[axis]).reshape(-1)
        own = axis % x.ndim
        return x.index_select(own, flat).reshape(*x.shape[:own], *indices.shape, *x.shape[own + 1 :])

    return call


@lowers("GatherElements")
def gather_elements(at: Site) -> Call:
    axis = int(at.attr("axis", 0))
    return lambda x, indices: torch.gather(x, axis, _from_start(indices, x.shape[axis]))


@lowers("TopK")
def top_k(at: Site) -> Call:
    """Of equal elements, those with the lower index come first."""
    axis, largest = int(at.attr("axis", -1)), bool(at.attr("largest", 1))

    def build(count: np.ndarray) -> Call:
        kept = int(count.reshape(-1)[0])

        def call(x: Tensor) -> tuple[Tensor, Tensor]:
            values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
            return values.narrow(axis, 0, kept), places.narrow(axis, 0, kept)

        return call

    return at.late([1], build)


@lowers("CumSum")
def cumulative_sum(at: Site) -> Call:
    exclusive, reverse = bool(at.attr("exclusive", 0)), bool(at.attr("reverse", 0))

    def build(axis: np.ndarray) -> Call:
        own = int(axis.reshape(()))

        def call(x: Tensor) -> Tensor:
            total = torch.cumsum(x.flip(own) if reverse else x, own, dtype=x.dtype)
            if exclusive:
                total = total - (x.flip(own) if reverse else x)
            return total.flip(own) if reverse else total

        return call

    return at.late([1], build)


@lowers("OneHot")
def one_hot(at: Site) -> Call:
    axis = int(at.attr("axis", -1))

    def build(depth: np.ndarray) -> Call:
        count = int(depth.reshape(-1)[0])

        def call(indices: Tensor, values: Tensor) -> Tensor:
            places = torch.remainder(indices.long(), count)
            inside = (indices >= -count) & (indices < count)
            own = axis % (indices.ndim + 1)
            numbers = torch.arange(count, device=indices.device).reshape([-1] + [1] * (indices.ndim - own))
            hot = (places.unsqueeze(own) == numbers) & inside.unsqueeze(own)
            return torch.where(hot, values[1], values[0])

        return call

    return at.late([1], build)


@lowers("Trilu")
def triangle(at: Site) -> Call:
    upper = bool(at.attr("upper", 1))

    def build(diagonal: np.ndarray | None) -> Call:
        k = 0 if diagonal is None else int(diagonal.reshape(()))
        return lambda x: torch.triu(x, k) if upper else torch.tril(x, k)

    return at.late([1], build)
