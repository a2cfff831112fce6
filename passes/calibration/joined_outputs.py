"""Outputs that a network joins of parts, taken apart again.

A detector joins boxes of hundreds of pixels and scores below one. Measured as one, the scores count nothing; measured
part by part, each counts like the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import Graph, Tensor, Variable, producer, variable_of
from edgec.ir.shapes import Shapes


@dataclass(frozen=True)
class JoinedPart:
    """A part of an output.

    Attributes:
        output: the output's name.
        tensor: what is joined there; the output itself where it is not joined.
        place: where in the output it lies.
    """

    output: str
    tensor: Variable
    place: tuple[slice, ...]


def joined_parts(graph: Graph) -> list[JoinedPart]:
    """The parts of all outputs, in order; an output that is not joined of float parts is one of them."""
    shapes = Shapes(graph)
    return [
        JoinedPart(output.name, tensor, place)
        for output in graph.outputs
        if isinstance(output, Variable)
        for tensor, place in _apart(output, (), shapes)
    ]


def apart(outputs: Mapping[str, np.ndarray], parts: Sequence[JoinedPart]) -> dict[str, np.ndarray]:
    """Outputs by part, views of the arrays that are given."""
    return {f"{part.output} {number}": outputs[part.output][part.place] for number, part in enumerate(parts)}


def _apart(tensor: Variable, place: tuple[slice, ...], shapes: Shapes) -> Iterator[tuple[Variable, tuple[slice, ...]]]:
    maker, shape = producer(tensor), shapes.shape(tensor)
    if maker is None or maker.op != "Concat" or shape is None or shapes.dtype(tensor) != np.float32:
        yield tensor, place
        return
    axis = int(maker.attrs.get("axis", 0)) % len(shape)
    sizes = [_size(one, axis, shapes) for one in maker.inputs]
    if None in sizes or not all(isinstance(one, Variable) for one in maker.inputs):
        yield tensor, place
        return
    whole = (*place, *(slice(None),) * (len(shape) - len(place)))
    start = whole[axis].start or 0
    for one, size in zip(maker.inputs, sizes, strict=True):
        within = (*whole[:axis], slice(start, start + (size or 0)), *whole[axis + 1 :])
        yield from _apart(variable_of(one), within, shapes)
        start += size or 0


def _size(tensor: Tensor, axis: int, shapes: Shapes) -> int | None:
    shape = shapes.shape(tensor)
    size = None if shape is None else shape[axis]
    return size if isinstance(size, int) else None
