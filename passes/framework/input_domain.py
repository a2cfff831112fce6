"""In which numbers a graph wants its inputs: as the original model did, or as raw pixels.

Data sets always give what the original model takes, x. Once a pass has folded ``x = scale * raw + offset`` into the
network, the graph takes ``raw``. The graph itself says so, in its metadata, so that nothing that feeds it has to know
which passes ran; the entry stays in the saved model for whoever deploys it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.graph import Graph
from edgec.ir.sample_axis import as_taken

_KEY = "edgec.input."


def record(graph: Graph, name: str, scale: np.ndarray, offset: np.ndarray) -> None:
    """Notes that input ``name`` now takes ``raw``, where x = scale * raw + offset (one value, or one a channel)."""
    entry = {"scale": np.ravel(scale).astype(float).tolist(), "offset": np.ravel(offset).astype(float).tolist()}
    graph.metadata[_KEY + name] = json.dumps(entry, sort_keys=True)


def folded(graph: Graph, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The (scale, offset) folded into the graph behind input ``name``; ``None`` where nothing was.

    Raises:
        InputError: the entry is not one that :func:`record` wrote.
    """
    entry = graph.metadata.get(_KEY + name)
    if entry is None:
        return None
    try:
        values = json.loads(entry)
        scale, offset = (np.array(values[key], np.float64) for key in ("scale", "offset"))
    except (ValueError, TypeError, KeyError, RecursionError):
        scale = offset = np.zeros(0)
    shape = next((tensor.shape for tensor in graph.inputs if tensor.name == name), None) or [1]
    sizes = {1, shape[1] if len(shape) > 1 else 1}
    fits = all(v.ndim == 1 and v.size in sizes and np.isfinite(v).all() for v in (scale, offset))
    if not fits or not scale.all():
        fix = "remove it from the model's metadata, or export the network again"
        raise InputError(f"metadata '{_KEY}{name}'", "is no scale and offset of that input", fix)
    return scale, offset


def enter(graph: Graph, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``feeds`` of the original model, or what a data set gives for them, as ``graph`` takes them.

    Channels are axis 1. The inverse is taken in double precision, so that whole pixel values come back within 1e-4.
    Inputs that are taken whole lose the sample axis that a data set gives them (:mod:`edgec.ir.sample_axis`).
    """
    shapes = {tensor.name: tensor.shape for tensor in graph.inputs}
    entered = {}
    for name, x in feeds.items():
        known = folded(graph, name)
        entered[name] = as_taken(x if known is None else unfolded(x, *known), shapes.get(name))
    return entered


def unfolded(x: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The raw values of which x = scale * raw + offset is made, one value or one a channel, in the dtype of ``x``."""
    scale, offset = (v.reshape((1, -1) + (1,) * (x.ndim - 2)) for v in (scale, offset))
    return ((x.astype(np.float64) - offset) / scale).astype(x.dtype)


def pixels(
    graph: Graph, name: str, affine: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """How ``graph`` sees raw pixels: (a, b), one or one a channel, with input ``name`` = a * pixel + b.

    Args:
        affine: the (scale, offset) with which preprocessing makes the original model's input of pixels; ``None`` where
            it is not known, and then a folded input is taken to be of pixels and any other to be of something else.
    """
    known = folded(graph, name)
    if affine is None:
        return None if known is None else (np.ones(1), np.zeros(1))
    scale, offset = (np.asarray(v, np.float64) for v in affine)
    if known is None:
        return scale, offset
    return scale / known[0], (offset - known[1]) / known[0]
