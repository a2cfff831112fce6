"""Samples of what a layer reads in a network that is compressed already, and of what it computed in the original.

However many images there are, as many rows are taken, at positions that a seeded generator draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.execution import batch_size
from edgec.ir.graph import Graph
from edgec.passes.factorization import patches
from edgec.passes.factorization.layers import Layer
from edgec.passes.factorization.overriding import Overridable, Weights, own_bias, read
from edgec.passes.protocol import Context
from edgec.passes.streaming import ROLE, check_finite

T = TypeVar("T")
U = TypeVar("U")
# Rows for each input of a kernel, and the bounds of their number.
_ROWS_PER_INPUT, _FEWEST, _MOST = 4, 2048, 8192
# Elements of the patches that are held at once, and bytes of the images.
_MOST_ELEMENTS, _MOST_BYTES = 1 << 26, 1 << 26


@dataclass(frozen=True)
class Samples:
    """Rows of the regression of one layer, those of each of its nodes together.

    Attributes:
        patches: (rows, groups, in, taps), float32.
        wanted: (rows, groups, out), float32, the bias included, before any factor that a Gemm has.
        nodes: the rows of each node.
        images: the rows of each image, for each node anew.
        centred: whether all nodes can be given a bias.
    """

    patches: np.ndarray
    wanted: np.ndarray
    nodes: list[slice]
    images: list[slice]
    centred: bool


class Images:
    """The calibration data, as many of them as fit a fixed amount of memory, taken evenly from the whole set.

    Args:
        graph: whose inputs they feed.
        ctx: the data, the seed and the threads.

    Raises:
        InputError: there are none.
    """

    def __init__(self, graph: Graph, ctx: Context) -> None:
        self.ctx = ctx
        batches = -(-len(ctx.data[ROLE]) // batch_size(graph))
        self.feeds: list[dict[str, np.ndarray]] = []
        keep: set[int] | None = None
        for number, feeds in enumerate(ctx.feeds(graph, ROLE)):
            if keep is None:
                most = max(_MOST_BYTES // max(sum(v.nbytes for v in feeds.values()), 1), 1)
                keep = set(np.linspace(0, batches - 1, min(most, batches)).round().astype(int).tolist())
            if number in keep:
                self.feeds.append(feeds)
        if not self.feeds:
            raise InputError(ctx.data[ROLE].source, "has no samples to calibrate with", "name a data set that has some")

    def half(self, which: int, most: int) -> list[int]:
        """The numbers of every other batch from the first (0) or the second (1) on; a single one is both halves."""
        return list(range(min(which, len(self.feeds) - 1), len(self.feeds), 2))[:most]

    def each(self, work: Callable[[int], U], numbers: Sequence[int] | None = None, *, threads: int = 1) -> Iterator[U]:
        """What ``work`` makes of the number of each batch, or of those given, in order."""
        numbers = range(len(self.feeds)) if numbers is None else numbers
        if threads == 1:
            yield from map(work, numbers)
            return
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(work, numbers)


def collect(
    network: Overridable,
    layer: Layer,
    images: Images,
    weights: Weights | None = None,
    *,
    numbers: Sequence[int] | None = None,
    threads: int = 1,
) -> Samples:
    """Rows of a layer.

    Args:
        network: the original; with ``weights`` it is the compressed one.
        layer: what is looked at; its own weights are the original's.
        images: the data.
        weights: of the layers that are compressed already.
        numbers: of the batches that are looked at; all without it.
        threads: how many at once.

    Raises:
        InputError: an activation is not finite.
    """
    size = layer.groups * layer.into * max(int(np.prod(layer.taps)), 1)
    rows = int(np.clip(_ROWS_PER_INPUT * size // layer.groups, _FEWEST, _MOST))
    rows = max(min(rows, _MOST_ELEMENTS // size), 1)
    numbers = range(len(images.feeds)) if numbers is None else numbers
    each = -(-rows // (len(numbers) * len(layer.nodes)))
    names = [name for node in layer.nodes for name in (read(node).name, node.outputs[0].name)]

    def one(number: int) -> list[tuple[np.ndarray, np.ndarray]]:
        feeds = images.feeds[number]
        if weights is None:
            original = compressed = network.run(feeds, names)
        else:
            original = network.run(feeds, names[1::2])
            compressed = network.run(feeds, names[0::2], weights)
        found = []
        for node in layer.nodes:
            computed = original[node.outputs[0].name]
            values = compressed[read(node).name]
            check_finite(read(node), values, number)
            check_finite(node.outputs[0], computed, number)
            positions = _positions(patches.count(layer, computed.shape), each, images.ctx.seed, number)
            wanted = patches.outputs(layer, computed, positions)
            taken = patches.inputs(layer, node, values, computed.shape, positions)
            scale = np.float32(node.attrs.get("alpha", 1.0)) if layer.kind == "gemm" else np.float32(1)
            found.append((taken.astype(np.float32), wanted.astype(np.float32) / scale))
        return found

    runs = list(images.each(one, numbers, threads=threads))
    parts = [run[index] for index in range(len(layer.nodes)) for run in runs]
    ends = np.cumsum([0, *(len(taken) for taken, _ in parts)]).tolist()
    of_images = [slice(*pair) for pair in pairwise(ends)]
    of_nodes = [slice(*pair) for pair in pairwise(ends[:: len(runs)])]
    centred = all(own_bias(layer, node) is not None for node in layer.nodes)
    return Samples(
        np.concatenate([p for p, _ in parts]), np.concatenate([w for _, w in parts]), of_nodes, of_images, centred
    )


def _positions(count: int, wanted: int, seed: int, number: int) -> np.ndarray:
    if count <= wanted:
        return np.arange(count)
    chance = np.random.Generator(np.random.PCG64([seed, number]))
    return np.sort(chance.choice(count, wanted, replace=False))
