"""What is left of a pruned network takes over what was removed: layers are fitted anew, one after the other.

Each layer behind a cut is given the weights and bias with which it comes closest, on the calibration data, to what it
computed in the original network, from what it reads in the pruned one, whose earlier layers have been fitted already:
the asymmetric reconstruction of Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and
Detection", 2016, in the setting of He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017.
The mean of what was removed is in the bias then, padding and all nodes in between included.

A layer is looked at when all before it have become what they stay: two that correct the same error would correct it
twice. Fits are judged on images that do not resemble those that they were made from
(:mod:`edgec.passes.calibration.near_duplicates`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.ir.execution import Feeds
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable
from edgec.ir.order import dependencies
from edgec.ir.shapes import Shapes
from edgec.passes.calibration.near_duplicates import MOST_IMAGES, channel_means, folds, groups_of
from edgec.passes.calibration.prefix_cache import Resuming
from edgec.passes.calibration.runner import Tapped, batches, check_finite, stream
from edgec.passes.framework.context import Context
from edgec.passes.layers.affine_regression import Sums, best
from edgec.passes.layers.im2col import from_matrix, patches, refit_obstacle, weight_matrix, written_at
from edgec.passes.layers.linear import LINEAR
from edgec.passes.layers.windows import Window
from edgec.passes.prune.biases import add_bias, bias_obstacle, has_bias

# Sums of the layers that are fitted at once hold so many numbers at most, and a layer so many features; others get a
# new bias only.
_MOST_NUMBERS, _MOST_FEATURES = 2**25, 5120
_ROWS_FOR_EACH, _LEAST_ROWS, _MOST_ROWS = 8, 4096, 16384
_NUMBERS_AT_ONCE = 2**24
# Samples of the original's outputs hold so many numbers at once.
_MOST_TARGETS = 2**25
# So few groups of images make four folds instead of two halves, where sums hold no more numbers than this, and all
# outputs of a layer follow its fit equally far.
_FEW_GROUPS, _MOST_FOLDS, _NUMBERS_OF_FOLDS = 8, 4, 2**22
# Residuals below this part of the signal are rounding.
_ROUNDING = 1e-10


@dataclass(frozen=True)
class Refit:
    """What became of one layer.

    Attributes:
        before, after: its output's squared error by its power on held-out images, before and after; equal where it
            was left alone.
        rows, features: what the fit was made from, and what for.
        obstacle: why its weights, or all of it, stayed as they were; ``None`` where they were fitted.
    """

    before: float
    after: float
    rows: int
    features: int
    obstacle: str | None = None


class _Layer:
    """A layer that is to be fitted, and the same one in the original network."""

    def __init__(
        self, node: Node, original: Node, kept: np.ndarray | None, shapes: Shapes, obstacle: str | None
    ) -> None:
        self.node, self.original, self.kept, self.obstacle = node, original, kept, obstacle
        weight = node.inputs[1]
        self.data, self.written = node.inputs[0], node.outputs[0]
        read, written = (tuple(d or 1 for d in shapes.shape(t) or ()) for t in (self.data, self.written))
        self.shape = written
        target = original.outputs[0]
        if not isinstance(target, Variable):
            raise TypeError(f"node '{node.name}' computes no variable")
        self.target = target
        self.window = None
        self.axis = 1 if node.op in ("Conv", "ConvTranspose", "Gemm") else len(written) - 1
        channels, phases = 0, [np.arange(0)]
        if obstacle is None and isinstance(weight, Constant):
            if node.op in ("Conv", "ConvTranspose"):
                self.window = Window.of(node, weight.shape, read, written)
            channels = weight_matrix(node, weight.values).shape[1]
            phases = self.window.phases() if self.window is not None else [np.arange(1)]
        self.features = [channels * len(taps) for taps in phases]
        self.phases = phases
        if max(self.features) > _MOST_FEATURES:
            self.obstacle = f"its {max(self.features)} features are too many for a covariance"
            self.features, self.phases, self.window = [0], [np.arange(0)], None
        self.positions = int(np.prod(written, dtype=int)) // written[self.axis]

    @property
    def numbers(self) -> int:
        return sum(count**2 for count in self.features)

    def rows(self, count: int) -> int:
        """How many positions of a batch are looked at, of ``count`` batches."""
        most = max(self.features)
        wanted = len(self.phases) * max(_LEAST_ROWS, 2 * most, min(_ROWS_FOR_EACH * most, _MOST_ROWS))
        at_once = max(_NUMBERS_AT_ONCE // max(most, 1), 256)
        return min(-(-wanted // count), at_once, self.positions)

    def positions_of(self, number: int, count: int, seed: int) -> np.ndarray:
        """Which positions of the output are looked at in one of ``count`` batches."""
        chance = np.random.Generator(np.random.PCG64([seed, number, self.positions]))
        return np.sort(chance.choice(self.positions, self.rows(count), replace=False))

    def wanted(self, values: np.ndarray, number: int, at: np.ndarray) -> np.ndarray:
        """What the original computes at those positions, of the channels that are left: (rows, outputs), float32."""
        check_finite(self.target, values, number)
        values = values if self.kept is None else np.compress(self.kept, values, axis=self.axis)
        return written_at(self.node, values, at).astype(np.float32, copy=False)

    def blocks(
        self, values: Feeds, target: np.ndarray, number: int, at: np.ndarray
    ) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """By phase the patches and residuals of one batch."""
        got = values[self.written.name]
        if isinstance(self.written, Variable):
            check_finite(self.written, got, number)
        residual = target - written_at(self.node, got, at).astype(np.float32, copy=False)
        if self.features == [0]:
            return [(0, np.zeros((len(at), 0), np.float32), residual)]
        data = values[self.data.name].astype(np.float32, copy=False)
        return [
            (phase, taken.reshape(len(rows), -1), residual[rows])
            for phase, rows, taken in patches(self.node, self.window, data, at, self.shape)
        ]


def compensate(
    graph: Graph, original: Graph, pairs: Mapping[Node, Node], kept: Mapping[Node, np.ndarray], ctx: Context
) -> dict[Node, Refit]:
    """Fits the layers of ``graph`` that read something changed.

    Args:
        graph: cut, and sorted; changed in place.
        original: the graph as it was.
        pairs: by layer of ``graph``, which may need it, the same node of ``original``.
        kept: by layer of ``graph``, which of the original's output channels it has; left out where it has all.
        ctx: the calibration data.

    Returns:
        by layer what became of it; those whose output did not change are left out.

    Raises:
        InputError: there are no samples, or an activation is not finite.
    """
    shapes = Shapes(graph)
    layers = [
        _Layer(node, pairs[node], kept.get(node), shapes, _obstacle(graph, node))
        for node in graph.nodes
        if node in pairs and can_be_fitted(graph, node) and _static(node, shapes)
    ]
    found: dict[Node, Refit] = {}
    if not layers:
        return found
    alike = _alike(original, layers, ctx)
    before, now = Resuming(original, ctx), Resuming(graph, ctx)
    for some in _portions(layers, batches(graph, ctx)):
        targets = _targets(before, some, ctx)
        for wave in _waves(graph, some):
            found.update(_fit(graph, now, wave, targets, alike, ctx))
            ctx.progress(layers.index(wave[-1]) + 1, len(layers), "fitting")
    return found


def can_be_fitted(graph: Graph, node: Node) -> bool:
    """Whether a layer's weights can be fitted, or else at least a bias that it has."""
    if node.op not in LINEAR or bias_obstacle(node) is not None or isinstance(node.inputs[0], Constant):
        return False
    if node.op == "MatMul" and not isinstance(node.inputs[1], Constant):
        return False
    return _obstacle(graph, node) is None or has_bias(graph, node)


def _obstacle(graph: Graph, node: Node) -> str | None:
    """Why a layer's weights cannot be fitted."""
    weight = node.inputs[1]
    if weight in graph.inputs:
        return "its weights are an input of the model"
    if isinstance(weight, Constant) and len(weight.outputs) > 1:
        return "it shares its weights"
    return refit_obstacle(node, weight)


def _static(node: Node, shapes: Shapes) -> bool:
    found = [shapes.shape(tensor) for tensor in (node.inputs[0], node.outputs[0])]
    return all(shape is not None and None not in shape for shape in found)


def _alike(original: Graph, layers: Sequence[_Layer], ctx: Context) -> np.ndarray:
    """The group of each batch, of those that resemble each other in what the layers compute on the mean."""
    count = batches(original, ctx)
    if count > MOST_IMAGES:
        return np.arange(count)

    def means(number: int, values: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
        found = []
        for layer in layers:
            computed = values[0][layer.target.name]
            check_finite(layer.target, computed, number)
            found.append(channel_means(computed, layer.axis))
        return found

    seen = list(stream(original, ctx, [Tapped(original, [layer.target for layer in layers])], means))
    return groups_of([np.stack(of_layer) for of_layer in zip(*seen, strict=True)])


def _portions(layers: Sequence[_Layer], count: int) -> Iterator[list[_Layer]]:
    """Layers next to each other whose samples of the original's outputs fit in memory together."""
    some: list[_Layer] = []
    size = 0
    for layer in layers:
        own = count * layer.rows(count) * layer.shape[layer.axis]
        if some and size + own > _MOST_TARGETS:
            yield some
            some, size = [], 0
        some.append(layer)
        size += own
    yield some


def _targets(before: Resuming, layers: Sequence[_Layer], ctx: Context) -> dict[_Layer, list[np.ndarray]]:
    """What the original computes where each layer is looked at, batch by batch."""

    def observe(number: int, values: Feeds) -> list[np.ndarray]:
        return [
            layer.wanted(values[layer.target.name], number, layer.positions_of(number, before.count, ctx.seed))
            for layer in layers
        ]

    seen = list(before.run(layers[0].original, [layer.target for layer in layers], observe))
    return {layer: list(targets) for layer, targets in zip(layers, zip(*seen, strict=True), strict=True)}


def _waves(graph: Graph, layers: Sequence[_Layer]) -> Iterator[list[_Layer]]:
    """Layers that are fitted from one run: none reads what another one of them becomes, and their sums fit in
    memory."""
    by_node = {layer.node: layer for layer in layers}
    wave: list[_Layer] = []
    changed: set[Tensor] = set()
    numbers = 0
    for node in graph.nodes:
        behind = not changed.isdisjoint(dependencies(node))
        layer = by_node.get(node)
        if layer is not None:
            if wave and (behind or numbers + layer.numbers > _MOST_NUMBERS):
                yield wave
                wave, changed, numbers, behind = [], set(), 0, False
            wave.append(layer)
            numbers += layer.numbers
        if layer is not None or behind:
            changed.update(node.outputs)
    if wave:
        yield wave


def _fit(
    graph: Graph,
    now: Resuming,
    wave: Sequence[_Layer],
    targets: Mapping[_Layer, list[np.ndarray]],
    alike: np.ndarray,
    ctx: Context,
) -> Iterator[tuple[Node, Refit]]:
    taps = [t for layer in wave for t in (layer.data, layer.written) if isinstance(t, Variable)]

    def observe(number: int, values: Feeds) -> list[list[tuple[int, np.ndarray, np.ndarray]]]:
        return [
            layer.blocks(values, targets[layer][number], number, layer.positions_of(number, now.count, ctx.seed))
            for layer in wave
        ]

    outputs = [layer.shape[layer.axis] for layer in wave]
    groups = int(alike.max()) + 1
    few = groups <= _FEW_GROUPS and sum(layer.numbers for layer in wave) <= _NUMBERS_OF_FOLDS
    parts = folds(alike, _MOST_FOLDS if few else 2)
    fold_of = np.zeros(len(alike), np.int64)
    for fold, numbers in enumerate(parts):
        fold_of[numbers] = fold
    sums = [[Sums(layer.features, width) for _ in parts] for layer, width in zip(wave, outputs, strict=True)]
    for number, observed in enumerate(now.run(wave[0].node, taps, observe)):
        for layer, each, blocks in zip(wave, sums, observed, strict=True):
            target, own = targets[layer][number], each[fold_of[number]]
            own.signal += float(np.einsum("ro,ro->", target, target, dtype=np.float64))
            for block in blocks:
                own.add(*block)
    for place, layer in enumerate(wave):
        refit = _correct(graph, layer, sums[place], pooled=groups <= _FEW_GROUPS)
        sums[place] = []  # frees the largest arrays before the next solve
        if refit is not None:
            yield layer.node, refit


def _correct(graph: Graph, layer: _Layer, sums: Sequence[Sums], *, pooled: bool) -> Refit | None:
    """Fits one layer; ``None`` where its output did not change."""
    signal, error = sum(fold.signal for fold in sums), sum(fold.rr for fold in sums)
    rows = sum(fold.rows for fold in sums)
    if error <= _ROUNDING * signal:
        return None
    before = error / signal if signal > 0 else 0.0
    correction, part = best(*sums, pooled=pooled)
    if correction is None:
        return Refit(before, before, rows, max(layer.features), "no fit was better on images held out")
    node, weight = layer.node, layer.node.inputs[1]
    if correction.weights is not None and layer.features != [0] and isinstance(weight, Constant):
        matrix = weight_matrix(node, weight.values).astype(np.float64)
        for taps, added in zip(layer.phases, correction.weights, strict=True):
            matrix[:, :, taps] += added.T.reshape(matrix.shape[0], matrix.shape[1], len(taps))
        weight.values = from_matrix(node, matrix, weight.values)
    add_bias(graph, node, correction.bias)
    return Refit(before, before * part, rows, max(layer.features), layer.obstacle)
