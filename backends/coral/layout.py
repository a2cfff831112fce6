"""Memory order of a tensor, said once for every shape that it is seen in.

TFLite keeps channels last; ONNX keeps them first. Instead of transposing at each step, the lowering remembers in which
order the elements of an ONNX tensor lie in the file's tensor, as a list of factors ``(size, stride)``, outermost first:
``stride`` counts elements in ONNX's own row-major order. A ``[1, C, H, W]`` tensor held channels last has the order
``((H*W, 1), (C, H*W))``: pixels outside, channels inside. Because ONNX's Reshape, Flatten, Squeeze and Unsqueeze keep
the row-major index, they leave an order untouched, and the permutation that a flattened tensor needs can be applied to
the weights of the layer that reads it.

An order is canonical: factors of size 1 are left out, and neighbours that are one run of memory are merged, so that two
orders are the same exactly when they compare equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import numpy as np

Factor = tuple[int, int]
Order = tuple[Factor, ...]

#: Dimensions of an ONNX image tensor, (N, C, H, W), in the order in which TFLite keeps them.
CHANNELS_LAST = (0, 2, 3, 1)


def canonical(factors: Iterable[Factor]) -> Order:
    """Drops factors of size 1 and merges those that continue each other."""
    merged: list[Factor] = []
    for size, stride in factors:
        if size == 1:
            continue
        if merged and merged[-1][1] == size * stride:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    return tuple(merged)


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major element strides of ``shape``."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def permuted(shape: Sequence[int], permutation: Sequence[int]) -> Order:
    """The order of a tensor of ONNX shape ``shape`` whose dimensions are stored as ``permutation`` lists them."""
    steps = strides(shape)
    return canonical((shape[axis], steps[axis]) for axis in permutation)


def row_major(shape: Sequence[int]) -> Order:
    """ONNX's own order."""
    return permuted(shape, range(len(shape)))


def default_permutation(rank: int, channels_last: bool = False) -> tuple[int, ...]:
    """How a tensor of that rank is kept when nothing else is asked: images channels last, the rest as they are.

    Args:
        rank: number of dimensions.
        channels_last: keep ``(N, C, L)`` as ``(N, L, C)`` too.
    """
    if rank == 4:
        return CHANNELS_LAST
    if rank == 3 and channels_last:
        return (0, 2, 1)
    return tuple(range(rank))


def split(order: Order, boundaries: Iterable[int]) -> list[Factor] | None:
    """Cuts factors so that none reaches across a boundary stride; ``None`` where one does not divide evenly."""
    cuts = sorted(set(boundaries), reverse=True)
    pieces: list[Factor] = []
    for size, stride in order:
        for cut in cuts:
            if stride < cut < size * stride:
                if cut % stride or (size * stride) % cut:
                    return None
                pieces.append((size * stride // cut, cut))
                size = cut // stride
        pieces.append((size, stride))
    return pieces


def by_dimension(order: Order, shape: Sequence[int]) -> list[tuple[int, int, int]] | None:
    """The order as ``(dimension of shape, size, stride inside that dimension)``; ``None`` where it cannot be told.

    Only dimensions larger than 1 are listed.
    """
    steps = strides(shape)
    pieces = split(order, steps)
    if pieces is None:
        return None
    found = []
    for size, stride in pieces:
        axis = next(a for a, step in enumerate(steps) if step <= stride and shape[a] > 1)
        found.append((axis, size, stride // steps[axis]))
    return found


def permutation_of(order: Order, shape: Sequence[int]) -> tuple[int, ...] | None:
    """The dimensions of ``shape`` in the order in which they are stored, or ``None`` when one is torn apart.

    Dimensions of size 1 go where the rank's default puts them if that explains the order, else in front.
    """
    for guess in (default_permutation(len(shape)), tuple(range(len(shape)))):
        if permuted(shape, guess) == order:
            return guess
    pieces = by_dimension(order, shape)
    if pieces is None:
        return None
    axes = [axis for axis, _, _ in pieces]
    guess = (*(a for a in range(len(shape)) if a not in axes), *dict.fromkeys(axes))
    return guess if permuted(shape, guess) == order else None


def transposed(order: Order, shape: Sequence[int], permutation: Sequence[int]) -> Order | None:
    """The order of ONNX's ``Transpose(permutation)`` of a tensor, on the same memory; ``None`` where it has none."""
    pieces = by_dimension(order, shape)
    if pieces is None:
        return None
    steps = strides([shape[axis] for axis in permutation])
    moved = {axis: steps[place] for place, axis in enumerate(permutation)}
    return canonical((size, inner * moved[axis]) for axis, size, inner in pieces)


def moves(source: Order, wanted: Order) -> tuple[list[int], list[int]] | None:
    """What turns memory in ``source`` order into ``wanted`` order.

    Returns:
        the shape to see the memory in, and the permutation to transpose it by; ``None`` where no one transposition
        does it (go by :func:`row_major` then).
    """
    boundaries = {edge for size, stride in (*source, *wanted) for edge in (stride, size * stride)}
    before, after = split(source, boundaries), split(wanted, boundaries)
    if before is None or after is None or sorted(before) != sorted(after):
        return None
    place = {factor: i for i, factor in enumerate(before)}
    permutation = [place[factor] for factor in after]
    # Factors that stay together move as one, so that the transposition has the lowest rank.
    runs: list[list[int]] = []
    for axis in permutation:
        if runs and runs[-1][-1] + 1 == axis:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    by_place = sorted(runs)
    shape = [prod(before[axis][0] for axis in run) for run in by_place]
    return shape, [by_place.index(run) for run in runs]


def within(stored: Sequence[int], seen: Sequence[int], permutation: Sequence[int]) -> list[int] | None:
    """A transposition of memory seen in one shape, on the dimensions that it is stored in.

    Args:
        stored: the stored shape.
        seen: a coarser shape of the same memory.
        permutation: what is wanted of ``seen``.

    Returns:
        the permutation of ``stored``; ``None`` where its dimensions straddle those of ``seen``.
    """
    groups: list[list[int]] = [[]]
    size = 1
    for axis, length in enumerate(stored):
        # A group that is full takes no more, but for dimensions of size 1.
        if size == seen[len(groups) - 1] and length > 1 and len(groups) < len(seen):
            groups.append([])
            size = 1
        groups[-1].append(axis)
        size *= length
        if seen[len(groups) - 1] % size:
            return None
    whole = len(groups) == len(seen) and size == seen[-1]
    return [axis for place in permutation for axis in groups[place]] if whole else None


def indices(factors: Iterable[Factor]) -> np.ndarray:
    """The row-major index of each element, in memory order: int64, as many as the product of the sizes."""
    found = np.zeros(1, np.int64)
    for size, stride in factors:
        found = (found[:, None] + stride * np.arange(size)).reshape(-1)
    return found


def inner_permutation(order: Order, shape: Sequence[int], outer: Sequence[int]) -> np.ndarray | None:
    """How the last part of the memory runs through the one dimension that is not ``outer``.

    Args:
        order: a memory order.
        shape: ONNX shape of the tensor.
        outer: the dimensions that must come first in memory, in that order and whole.

    Returns:
        for the remaining dimension, its indices in memory order; ``None`` where the memory is not laid out so.
    """
    pieces = by_dimension(order, shape)
    if pieces is None:
        return None
    (rest,) = (axis for axis in range(len(shape)) if axis not in outer)
    ahead = [p for p in pieces if p[0] != rest]
    behind = [p for p in pieces if p[0] == rest]
    if pieces != ahead + behind or canonical(row_factors(ahead, shape)) != permuted_without(shape, outer):
        return None
    return indices((size, stride) for _, size, stride in behind)


def row_factors(pieces: Iterable[tuple[int, int, int]], shape: Sequence[int]) -> list[Factor]:
    """Pieces of :func:`by_dimension` with their strides in the whole tensor."""
    steps = strides(shape)
    return [(size, inner * steps[axis]) for axis, size, inner in pieces]


def permuted_without(shape: Sequence[int], axes: Sequence[int]) -> Order:
    """The order of only these dimensions of ``shape``, stored as listed."""
    steps = strides(shape)
    return canonical((shape[axis], steps[axis]) for axis in axes)
