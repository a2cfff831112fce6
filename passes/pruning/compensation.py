"""What is left of a pruned network takes over what was removed: layers are fitted anew, one after the other.

Each layer behind a cut is given the weights and bias with which it comes closest, on the calibration data, to what it
computed in the original network, from what it reads in the pruned one, whose earlier layers have been fitted already:
the asymmetric reconstruction of Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and
Detection", 2016, in the setting of He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017.
The mean of what was removed is in the bias then, padding and all nodes in between included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Variable
from edgec.ir.shapes import Shapes
from edgec.passes.linear_layers import LINEAR
from edgec.passes.protocol import Context
from edgec.passes.pruning.biases import add_bias, bias_obstacle, has_bias
from edgec.passes.pruning.least_squares import Sums, best
from edgec.passes.pruning.patches import from_matrix, patches, refit_obstacle, weight_matrix, written_at
from edgec.passes.streaming import Tapped, batches, check_finite, stream
from edgec.passes.windows import Window

# A network is run once for each wave of layers, and no layer of a wave sees what another one of it became.
_MOST_WAVES = 24
# Sums of one wave hold so many numbers at most, and a layer so many features; others get a new bias only.
_MOST_NUMBERS, _MOST_FEATURES = 2**25, 5120
_ROWS_FOR_EACH, _LEAST_ROWS, _MOST_ROWS = 8, 4096, 16384
_NUMBERS_AT_ONCE = 2**24
# Every so many batches one is held out to judge the fit by.
_HELD_OUT = 4
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

    def observe(
        self, before: Mapping[str, np.ndarray], now: Mapping[str, np.ndarray], number: int, count: int, seed: int
    ) -> tuple[float, list[tuple[int, np.ndarray, np.ndarray]]]:
        """The signal's sum of squares, and by phase the patches and residuals of one batch."""
        wanted, got = before[self.original.outputs[0].name], now[self.written.name]
        for tensor, values in ((self.original.outputs[0], wanted), (self.written, got)):
            if isinstance(tensor, Variable):
                check_finite(tensor, values, number)
        wanted = wanted if self.kept is None else np.compress(self.kept, wanted, axis=self.axis)
        chance = np.random.Generator(np.random.PCG64([seed, number, self.positions]))
        at = np.sort(chance.choice(self.positions, self.rows(count), replace=False))
        target = written_at(self.node, wanted, at).astype(np.float32, copy=False)
        residual = target - written_at(self.node, got, at).astype(np.float32, copy=False)
        signal = float(np.einsum("ro,ro->", target, target, dtype=np.float64))
        if self.features == [0]:
            return signal, [(0, np.zeros((len(at), 0), np.float32), residual)]
        data = now[self.data.name].astype(np.float32, copy=False)
        found = []
        for phase, rows, taken in patches(self.node, self.window, data, at, self.shape):
            found.append((phase, taken.reshape(len(rows), -1), residual[rows]))
        return signal, found


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
    waves = list(_waves(layers))
    for done, wave in enumerate(waves, 1):
        found.update(_fit(graph, original, wave, ctx))
        ctx.progress(done, len(waves), "fitting")
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


def _waves(layers: Sequence[_Layer]) -> Iterator[list[_Layer]]:
    """Layers that are fitted from one run: next to each other, and few enough that their sums fit in memory."""
    each = -(-len(layers) // _MOST_WAVES)
    wave: list[_Layer] = []
    for layer in layers:
        if wave and (len(wave) == each or sum(other.numbers for other in wave) + layer.numbers > _MOST_NUMBERS):
            yield wave
            wave = []
        wave.append(layer)
    if wave:
        yield wave


def _fit(graph: Graph, original: Graph, wave: Sequence[_Layer], ctx: Context) -> Iterator[tuple[Node, Refit]]:
    before = Tapped(original, [t for layer in wave for t in layer.original.outputs if isinstance(t, Variable)])
    taps = [t for layer in wave for t in (layer.data, layer.written) if isinstance(t, Variable)]
    count = batches(graph, ctx)

    def observe(number: int, values: list[dict[str, np.ndarray]]) -> list[tuple[float, list]]:
        return [layer.observe(values[0], values[1], number, count, ctx.seed) for layer in wave]

    outputs = [layer.shape[layer.axis] for layer in wave]
    fit = [Sums(layer.features, width) for layer, width in zip(wave, outputs, strict=True)]
    held = [Sums(layer.features, width) for layer, width in zip(wave, outputs, strict=True)]
    for number, observed in enumerate(stream(graph, ctx, [before, Tapped(graph, taps)], observe)):
        into = held if number % _HELD_OUT == 1 else fit
        for sums, (signal, blocks) in zip(into, observed, strict=True):
            sums.signal += signal
            for block in blocks:
                sums.add(*block)
    for place, layer in enumerate(wave):
        refit = _correct(graph, layer, fit[place], held[place])
        fit[place] = held[place] = Sums([0], 0)  # frees the largest arrays before the next solve
        if refit is not None:
            yield layer.node, refit


def _correct(graph: Graph, layer: _Layer, fit: Sums, held: Sums) -> Refit | None:
    """Fits one layer; ``None`` where its output did not change."""
    signal, error = fit.signal + held.signal, fit.rr + held.rr
    if error <= _ROUNDING * signal:
        return None
    judged = held if held.rows else fit
    before = judged.rr / judged.signal if judged.signal > 0 else 0.0
    correction, part = best(fit, held)
    rows = fit.rows if held.rows == 0 else held.rows
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
