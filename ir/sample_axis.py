"""Where samples lie in what a network takes: along the first axis of its inputs, or nowhere.

Most networks take a batch: all inputs have the same first axis, and a sample is a row of each. Others do not: the state
of an LSTM is layers x batch x width, a length is one number, a network of one image may take 3x224x224. Then a sample
is whole inputs, and one is run at a time. Data sets give both alike: the samples on a first axis, which for inputs that
are taken whole stands in front of their own.

Passes keep a network's signature, so what is told from it holds from the model as it comes in to what is emitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgec.ir.graph import Graph, Tensor

Side = int | str | None


def batch_size(graph: Graph) -> int:
    """How many samples ``graph`` takes at once: :func:`common_batch` of its signature."""
    return common_batch([_shape(tensor) for tensor in graph.inputs], [_shape(tensor) for tensor in graph.outputs])


def without_sample_axis(graph: Graph) -> frozenset[str]:
    """The outputs whose first axis is not that of the samples, as far as the graph tells.

    Their size depends on the data, as that of a list of found boxes, or they have another first dimension than
    :func:`batch_size`.
    """
    size = batch_size(graph)
    return frozenset(tensor.name for tensor in graph.outputs if not tensor.shape or tensor.shape[0] != size)


def common_batch(inputs: Sequence[Sequence[Side] | None], outputs: Sequence[Sequence[Side] | None]) -> int:
    """The first dimension where all inputs share it, and every output that is known has it too; else 1.

    Args:
        inputs, outputs: shapes; ``None`` for an unknown rank.
    """
    if any(shape is not None and not shape for shape in inputs):
        return 1
    firsts = {shape[0] for shape in inputs if shape}
    if len(firsts) != 1:
        return 1
    size = next(iter(firsts))
    if not isinstance(size, int):
        return 1
    other = any(
        shape is not None and (not shape or (isinstance(shape[0], int) and shape[0] != size)) for shape in outputs
    )
    return 1 if other else size


def sample_shapes(
    inputs: Mapping[str, Sequence[Side]], outputs: Sequence[Sequence[Side] | None]
) -> dict[str, tuple[Side, ...]]:
    """The shape of what data sets give for each input, the sample axis first.

    Args:
        inputs: the shapes that the network takes, by name.
        outputs: the shapes that it gives.
    """
    batch = common_batch(list(inputs.values()), outputs)
    return {
        name: tuple(shape) if shape and (shape[0] == batch or not isinstance(shape[0], int)) else (1, *shape)
        for name, shape in inputs.items()
    }


def sample_shapes_of(graph: Graph) -> dict[str, tuple[Side, ...]]:
    """:func:`sample_shapes` of a graph."""
    return sample_shapes({t.name: _shape(t) or () for t in graph.inputs}, [_shape(t) for t in graph.outputs])


def as_taken(values: np.ndarray, shape: Sequence[Side] | None) -> np.ndarray:
    """What a data set gives for an input, in the input's own shape: without the sample axis where it is taken whole."""
    whole = shape is not None and values.ndim == len(shape) + 1 and len(values) == 1
    return values[0, ...] if whole else values


def _shape(tensor: Tensor) -> tuple[Side, ...] | None:
    return None if tensor.shape is None else tuple(tensor.shape)
