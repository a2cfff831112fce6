"""Samples of what a layer reads in a network that is compressed already, and of what it computed in the original.

However many images there are, as many rows are taken, at positions that a seeded generator draws. What is needed of the
original network is read for several layers in one run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from edgec.ir.graph import Node
from edgec.passes.calibration.runner import check_finite
from edgec.passes.factorize import patches
from edgec.passes.factorize.images import Images
from edgec.passes.factorize.layers import Layer
from edgec.passes.factorize.overriding import Overridable, Weights, own_bias, read

# Rows for each input of a kernel, and the bounds of their number.
_ROWS_PER_INPUT, _FEWEST, _MOST = 4, 2048, 8192
# The kernel of one of many groups has few weights: fewer rows tell them apart.
_FEWEST_OF_GROUPS = 512
# Elements of the patches of a layer, and of what is held of several layers at once.
_MOST_ELEMENTS = 1 << 25


@dataclass(frozen=True)
class Samples:
    """Rows of the regression of one layer, those of each of its nodes together, less their means.

    Attributes:
        patches: (groups, rows, in * taps), float32.
        wanted: (groups, rows, out), float32, before any factor that a Gemm has.
        mean_in, mean_out: what was taken away of each node, (nodes, groups, in * taps) and (nodes, groups, out), the
            bias included, float64; zero where not all nodes can be given a bias.
        nodes: the rows of each node.
        labels: of each row, the number of the image that it is of; those that resemble each other have one, whichever
            node reads them. (rows,)
        centred: whether all nodes can be given a bias.
    """

    patches: np.ndarray
    wanted: np.ndarray
    mean_in: np.ndarray
    mean_out: np.ndarray
    nodes: list[slice]
    labels: np.ndarray
    centred: bool

    @property
    def rows(self) -> int:
        """How many."""
        return int(self.patches.shape[1])

    @cached_property
    def images(self) -> list[slice | np.ndarray]:
        """The rows of each image: the independent observations."""
        order = np.argsort(self.labels, kind="stable")
        starts = np.flatnonzero(np.diff(self.labels[order], prepend=-1))
        return [_run(rows) for rows in np.split(order, starts[1:])]

    def whole(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs (groups, rows, out) without their means, with them."""
        made = outputs.copy()
        for rows, mean in zip(self.nodes, self.mean_out.astype(np.float32), strict=True):
            made[:, rows] += mean[:, None]
        return made

    def towards(self, wanted: np.ndarray) -> Samples:
        """The same rows with other outputs, (groups, rows, out), means and all; the array is taken over."""
        return replace(self, wanted=wanted, mean_out=_centre(wanted, self.nodes, self.centred))


def _run(rows: np.ndarray) -> slice | np.ndarray:
    """Rising rows as a slice where they are one, so that no copy is made of them."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else rows


@dataclass(frozen=True)
class Target:
    """What a node computed in the original network on one batch, where it is looked at.

    Attributes:
        positions: where, as :mod:`.patches` counts them.
        shape: of all that it computed.
        values: (positions, groups, out), float32.
    """

    positions: np.ndarray
    shape: tuple[int, ...]
    values: np.ndarray


def together(layers: Sequence[Layer], batches: int, *, outputs_only: bool = False) -> Iterator[list[Layer]]:
    """Layers in their order, as many at once as may be held of so many batches."""
    block: list[Layer] = []
    room = _MOST_ELEMENTS
    for layer in layers:
        rows = rows_of(layer, batches) * batches * len(layer.nodes)
        needed = rows * layer.groups * (layer.out + (0 if outputs_only else _inputs(layer)))
        if block and needed > room:
            yield block
            block, room = [], _MOST_ELEMENTS
        block.append(layer)
        room -= needed
    if block:
        yield block


def observe(
    network: Overridable, layers: Sequence[Layer], images: Images, numbers: Sequence[int], *, threads: int = 1
) -> list[Samples]:
    """Rows of layers in the original network, from the same runs.

    Args:
        network: the original.
        layers: what is looked at.
        images: the data.
        numbers: of the batches that are looked at.
        threads: how many at once.

    Raises:
        InputError: an activation is not finite.
    """
    names = [name for layer in layers for node in layer.nodes for name in (read(node).name, node.outputs[0].name)]

    def one(number: int) -> list[tuple[list[Target], list[np.ndarray]]]:
        values = network.run(images.feeds[number], names)
        found = []
        for layer in layers:
            _check(layer, values, number)
            each = rows_of(layer, len(numbers))
            wanted = [target_of(layer, node, values, each, images.ctx.seed, number) for node in layer.nodes]
            found.append((wanted, patches_of(layer, values, wanted)))
        return found

    runs = list(images.each(one, numbers, threads=threads))
    made = []
    for at, layer in enumerate(layers):
        wanted, taken = [run[at][0] for run in runs], [run[at][1] for run in runs]
        made.append(samples_of(layer, wanted, taken, images.groups[list(numbers)]))
    return made


def targets(
    network: Overridable, layers: Sequence[Layer], images: Images, *, threads: int = 1
) -> list[list[list[Target]]]:
    """What layers compute in the original network: by layer, batch and node.

    Raises:
        InputError: an activation is not finite.
    """
    names = [node.outputs[0].name for layer in layers for node in layer.nodes]
    batches = len(images.feeds)

    def one(number: int) -> list[list[Target]]:
        values = network.run(images.feeds[number], names)
        return [
            [target_of(layer, node, values, rows_of(layer, batches), images.ctx.seed, number) for node in layer.nodes]
            for layer in layers
        ]

    runs = list(images.each(one, threads=threads))
    return [[run[at] for run in runs] for at in range(len(layers))]


def collect(
    network: Overridable,
    layer: Layer,
    wanted: Sequence[Sequence[Target]],
    images: Images,
    weights: Weights,
    *,
    threads: int = 1,
) -> Samples:
    """Rows of a layer in a network whose layers before it are compressed already.

    Args:
        network: with ``weights`` it is the compressed one.
        layer: what is looked at; its own weights are the original's.
        wanted: what it should compute, by batch and node.
        images: the data.
        weights: of the layers that are compressed already.
        threads: how many at once.

    Raises:
        InputError: an activation is not finite.
    """
    names = [read(node).name for node in layer.nodes]

    def one(number: int) -> list[np.ndarray]:
        values = network.run(images.feeds[number], names, weights)
        _check(layer, values, number)
        return patches_of(layer, values, wanted[number])

    return samples_of(layer, wanted, list(images.each(one, threads=threads)), images.groups)


def _inputs(layer: Layer) -> int:
    """Of one group's kernel."""
    return layer.into * max(int(np.prod(layer.taps)), 1)


def rows_of(layer: Layer, batches: int) -> int:
    """How many rows are taken of each of so many batches for each node."""
    size = _inputs(layer)
    rows = int(np.clip(_ROWS_PER_INPUT * size, _FEWEST if layer.groups == 1 else _FEWEST_OF_GROUPS, _MOST))
    rows = max(min(rows, _MOST_ELEMENTS // (layer.groups * size)), 1)
    return -(-rows // (batches * len(layer.nodes)))


def target_of(layer: Layer, node: Node, values: dict[str, np.ndarray], each: int, seed: int, number: int) -> Target:
    """What a node of the original computes on batch ``number``, at ``each`` positions at most.

    Raises:
        InputError: it is not finite.
    """
    computed = values[node.outputs[0].name]
    check_finite(node.outputs[0], computed, number)
    positions = _positions(patches.count(layer, computed.shape), each, seed, number)
    scale = np.float32(node.attrs.get("alpha", 1.0)) if layer.kind == "gemm" else np.float32(1)
    rows = patches.outputs(layer, computed, positions).astype(np.float32) / scale
    return Target(positions, computed.shape, rows)


def _check(layer: Layer, values: dict[str, np.ndarray], number: int) -> None:
    for node in layer.nodes:
        check_finite(read(node), values[read(node).name], number)


def patches_of(layer: Layer, values: dict[str, np.ndarray], wanted: Sequence[Target]) -> list[np.ndarray]:
    """What each node of a layer reads where it is looked at: (positions, groups, in, taps)."""
    return [
        patches.inputs(layer, node, values[read(node).name], target.shape, target.positions)
        for node, target in zip(layer.nodes, wanted, strict=True)
    ]


def samples_of(
    layer: Layer,
    wanted: Sequence[Sequence[Target]],
    taken: Sequence[Sequence[np.ndarray]],
    groups: np.ndarray | None = None,
) -> Samples:
    """The rows of a layer from what was found of it, by batch and node.

    Args:
        groups: the group of each batch, of those that resemble each other; each alone where it is not given.
    """
    groups = np.arange(len(taken)) if groups is None else groups
    places = [(batch, node) for node in range(len(layer.nodes)) for batch in range(len(taken))]
    ends = np.cumsum([0, *(len(taken[batch][node]) for batch, node in places)]).tolist()
    read_rows = np.empty((layer.groups, ends[-1], _inputs(layer)), np.float32)
    made_rows = np.empty((layer.groups, ends[-1], layer.out), np.float32)
    for (batch, node), (start, end) in zip(places, pairwise(ends), strict=True):
        part = taken[batch][node]
        read_rows[:, start:end] = part.reshape(len(part), layer.groups, -1).swapaxes(0, 1)
        made_rows[:, start:end] = wanted[batch][node].values.swapaxes(0, 1)
    nodes = [slice(*pair) for pair in pairwise(ends[:: len(taken)])]
    centred = all(own_bias(layer, node) is not None for node in layer.nodes)
    means = [_centre(rows, nodes, centred) for rows in (read_rows, made_rows)]
    labels = np.repeat([groups[batch] for batch, _ in places], np.diff(ends))
    return Samples(read_rows, made_rows, means[0], means[1], nodes, labels, centred)


def _centre(values: np.ndarray, nodes: Sequence[slice], centred: bool) -> np.ndarray:
    """Takes from rows (groups, rows, n) their mean over those of the same node, and returns it: (nodes, groups, n)."""
    means = np.zeros((len(nodes), len(values), values.shape[2]))
    if centred:
        for mean, rows in zip(means, nodes, strict=True):
            mean[:] = values[:, rows].mean(axis=1, dtype=np.float64)
            values[:, rows] -= mean[:, None].astype(np.float32)
    return means


def _positions(count: int, wanted: int, seed: int, number: int) -> np.ndarray:
    if count <= wanted:
        return np.arange(count)
    chance = np.random.Generator(np.random.PCG64([seed, number]))
    return np.sort(chance.choice(count, wanted, replace=False))
