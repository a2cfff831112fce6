"""What arrives at a network's first BatchNormalization, against the statistics that training left in it.

A BatchNormalization keeps the mean and the variance of what it read in training, channel by channel. Samples that are
preprocessed as they were in training arrive there with about the same; samples in another range or with their channels
in another order do not. It takes no labels, and any handful of samples that resemble the training data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgec.ir.execution import Session
from edgec.ir.graph import Constant, Graph, Node, Variable

# A channel's mean departs by so many of its standard deviations, or its variance by such a factor: the middle channel
# of trained networks stays below 0.5 and 2.5 with the right preprocessing, and goes beyond 1 or 5 with a wrong range.
_DEPARTED_MEAN, _DEPARTED_FACTOR = 1.0, 5.0


@dataclass(frozen=True)
class Departure:
    """How far samples are from what a network was trained on.

    Attributes:
        node: the BatchNormalization.
        mean: the middle one of the channels' distances between means, in standard deviations of training.
        factor: the middle one of the channels' factors between variances, 1 at least.
    """

    node: str
    mean: float
    factor: float

    @property
    def suspicious(self) -> bool:
        """Whether the samples are hardly preprocessed as they were in training."""
        return self.mean > _DEPARTED_MEAN or self.factor > _DEPARTED_FACTOR

    @property
    def words(self) -> str:
        """It in a sentence's part."""
        return f"means are off by {self.mean:.1f} standard deviations, variances by a factor of {self.factor:.1f}"


def departure(graph: Graph, feeds: Iterable[Mapping[str, np.ndarray]]) -> Departure | None:
    """Compares the samples with the statistics of the first BatchNormalization.

    Args:
        graph: as it was loaded, before BatchNormalization is folded away.
        feeds: batches as the graph takes them.

    Returns:
        ``None`` where there is no BatchNormalization with statistics of its own, or no sample.

    Raises:
        InputError: onnxruntime does not run the graph on the feeds.
    """
    node = next((node for node in graph.nodes if _has_statistics(node)), None)
    if node is None:
        return None
    read, mean, variance = node.inputs[0], _values(node, 3), _values(node, 4)
    fed = read in graph.inputs
    session = Session(graph, [] if fed else [read])
    count, sums, squares = 0, np.zeros(len(mean)), np.zeros(len(mean))
    for batch in feeds:
        x = batch[read.name] if fed else session.run(batch, wanted=[read.name])[read.name]
        channels = np.moveaxis(x, 1, 0).reshape(len(mean), -1).astype(np.float64)
        count += channels.shape[1]
        sums += channels.sum(axis=1)
        squares += np.square(channels).sum(axis=1)
    if not count:
        return None
    own = sums / count
    spread = np.maximum(squares / count - own**2, 0)
    # A channel that was silent in training says nothing.
    heard = variance > 1e-6 * max(float(variance.max()), 1e-30)
    apart = np.abs(own - mean)[heard] / np.sqrt(variance[heard])
    ratio = (spread[heard] + 1e-12 * variance[heard]) / variance[heard]
    return Departure(node.name, float(np.median(apart)), float(np.median(np.maximum(ratio, 1 / ratio))))


def _has_statistics(node: Node) -> bool:
    if node.op != "BatchNormalization" or node.attrs.get("training_mode") or len(node.inputs) < 5:
        return False
    read = node.inputs[0]
    known = all(isinstance(node.inputs[place], Constant) for place in (3, 4))
    return known and isinstance(read, Variable) and bool(_values(node, 4).size)


def _values(node: Node, place: int) -> np.ndarray:
    constant = node.inputs[place]
    assert isinstance(constant, Constant)
    return np.asarray(constant.values, np.float64).ravel()
