"""Weights and biases chosen one layer after the other, each to make up for what the layers before it do wrong.

A layer of the quantized network reads what its quantized predecessors compute, and is to compute what the same layer of
the float network does (on the float network's values). Four answers are tried, from what is known to what is fitted:

- as it is: every weight rounded to the nearest integer;
- the same with a bias that takes away the mean error of each output (empirical bias correction, Nagel et al.,
  "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, in the order of the network);
- the float weights rounded with regard to what is read (:mod:`.rounding`), and that bias;
- the weights that compute it best from what is now read, by least squares that few images cannot bend far
  (:mod:`edgec.passes.factorize.metric`), rounded so, and that bias.

Each output of each layer takes the answer that errs least on images that it has not been fitted to. Where there are too
few images to hold some out of all fitting, each half of them judges what was fitted to the other half, and what is
chosen so is then fitted to all; the halves of a single image are its upper and its lower one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgec.ir.execution import Feeds
from edgec.ir.graph import Node, Variable
from edgec.passes.calibration.batch_split import Split
from edgec.passes.calibration.prefix_cache import Resuming
from edgec.passes.calibration.runner import check_finite
from edgec.passes.factorize import patches
from edgec.passes.factorize.layers import Layer
from edgec.passes.factorize.metric import measure
from edgec.passes.factorize.overriding import read
from edgec.passes.factorize.samples import Samples, Target, rows_of, samples_of, target_of, together
from edgec.passes.framework.context import Context
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.recover.gptq import round_in_order
from edgec.passes.quantize.stored_layers import StoredLayer, Values

# A kernel that reads more has a covariance of more than 128 MB: only its bias is corrected.
_MOST_INPUTS = 4096
ANSWERS = ("as it was", "bias corrected", "rounded in order", "fitted and rounded in order")


@dataclass(frozen=True)
class Recovered:
    """What became of one layer.

    Attributes:
        node: in the quantized network.
        before, after: squared errors on the images that judge, relative to the variance of what is wanted.
        answers: how many outputs took each of ``ANSWERS``.
    """

    node: Node
    before: float
    after: float
    answers: tuple[int, ...]


def recover(pair: Pair, layers: Sequence[StoredLayer], split: Split, ctx: Context) -> Iterator[Recovered]:
    """Chooses the weights and biases of ``layers`` in the network's order, in place.

    Args:
        pair: the networks.
        layers: what is chosen, in the network's order.
        split: which batches of the calibration data are fitted to, and which judge.
        ctx: the data and the threads.

    Raises:
        InputError: there are no samples, or an activation is not finite.
    """
    before, now = Resuming(pair.original, ctx), Resuming(pair.quantized, ctx)
    by_layer = {stored.layer: stored for stored in layers}
    done = 0
    for some in together(list(by_layer), before.count, outputs_only=True):
        wanted = _targets(before, some, len(split.fit), ctx)
        for layer, targets in zip(some, wanted, strict=True):
            stored = by_layer[layer]
            yield _chosen(stored, _rows(now, stored, targets), split)
            done += 1
            ctx.progress(done, len(layers), "recovering accuracy")


def _targets(before: Resuming, layers: Sequence[Layer], batches: int, ctx: Context) -> list[list[Target]]:
    """What layers compute in the float network: by layer and batch."""
    nodes = [layer.nodes[0] for layer in layers]

    def observe(number: int, values: Feeds) -> list[Target]:
        held = dict(values)
        return [
            target_of(layer, node, held, rows_of(layer, batches), ctx.seed, number)
            for layer, node in zip(layers, nodes, strict=True)
        ]

    seen = list(before.run(nodes[0], [_output(node) for node in nodes], observe))
    return [list(targets) for targets in zip(*seen, strict=True)]


@dataclass(frozen=True)
class _Rows:
    """What the quantized network's layer reads, beside what it should compute, by batch."""

    layer: Layer
    targets: Sequence[Target]
    rows: Sequence[np.ndarray]

    def samples(self, numbers: Sequence[int], half: int | None = None) -> Samples:
        """Those of some batches; of each of these its first half (0) or its second (1) where one is asked for."""
        targets, rows = [self.targets[n] for n in numbers], [self.rows[n] for n in numbers]
        if half is not None:
            parts = [slice(len(one) // 2) if half == 0 else slice(len(one) // 2, None) for one in rows]
            rows = [one[part] for one, part in zip(rows, parts, strict=True)]
            targets = [
                replace(one, positions=one.positions[part], values=one.values[part])
                for one, part in zip(targets, parts, strict=True)
            ]
        return samples_of(self.layer, [[one] for one in targets], [[one] for one in rows])

    def folds(self, split: Split) -> list[tuple[Samples, Samples]]:
        """What is fitted to, and what judges that; no fold where nothing can be held out."""
        fit = split.fit
        if split.apart:
            return [(self.samples(fit), self.samples(split.judge))]
        if len(fit) > 1:
            halves = self.samples(fit[::2]), self.samples(fit[1::2])
        elif len(self.rows[fit[0]]) > 1:
            halves = self.samples(fit, 0), self.samples(fit, 1)
        else:
            return []
        return [halves, halves[::-1]]


def _rows(now: Resuming, stored: StoredLayer, targets: Sequence[Target]) -> _Rows:
    layer, data = stored.layer, read(stored.node)

    def observe(number: int, values: Feeds) -> np.ndarray:
        x, target = values[data.name], targets[number]
        check_finite(data, x, number)
        return patches.inputs(layer, stored.node, x, target.shape, target.positions)

    return _Rows(layer, targets, list(now.run(stored.first, [data], observe)))


def _chosen(stored: StoredLayer, rows: _Rows, split: Split) -> Recovered:
    """Writes the best of the answers of each output."""
    old, folds = stored.values(), rows.folds(split)
    if not folds:
        return Recovered(stored.node, 0.0, 0.0, (stored.layer.groups * stored.layer.out, *[0] * (len(ANSWERS) - 1)))
    power = 0.0
    errors = np.zeros(())
    for fit, judge in folds:
        answers = [old, *_answers(stored, old, fit)]
        errors = errors + np.stack([_errors(answer, judge) for answer in answers])
        power += float(np.einsum("gro,gro->", judge.wanted, judge.wanted, dtype=np.float64))
    if stored.weight_scale.values.size == stored.layer.groups * stored.layer.out:
        best = errors.argmin(axis=0)
    else:  # outputs that share a scale take one answer
        best = np.full(errors.shape[1:], errors.sum(axis=(1, 2)).argmin())
    if best.any():
        if len(folds) > 1:
            answers = [old, *_answers(stored, old, rows.samples(split.fit))]
        stored.write(_mixed(answers, best))
    power = power or 1.0
    least = np.take_along_axis(errors, best[None], 0)
    counts = np.bincount(best.reshape(-1), minlength=len(ANSWERS))
    return Recovered(
        stored.node, float(errors[0].sum()) / power, float(least.sum()) / power, tuple(int(n) for n in counts)
    )


def _answers(stored: StoredLayer, old: Values, fit: Samples) -> Iterator[Values]:
    yield _with_bias(old.integers, old.scale, fit)
    if fit.patches.shape[2] > _MOST_INPUTS:
        return
    exact = stored.layer.kernel().astype(np.float32)
    metric = measure(fit, exact)
    exact = exact.reshape(old.integers.shape)
    fitted = metric.regression.weights()
    scale = stored.fitting_scale(fitted, _bias(fitted, fit))
    # Both are rounded for the same inputs: in one go.
    kernels, scales = np.concatenate([exact, fitted], 1), np.concatenate([old.scale, scale], 1)
    rounded = round_in_order(kernels, scales, metric.second, stored.limit)
    outputs = old.integers.shape[1]
    yield _with_bias(rounded[:, :outputs], old.scale, fit)
    yield _with_bias(rounded[:, outputs:], scale, fit)


def _with_bias(integers: np.ndarray, scale: np.ndarray, samples: Samples) -> Values:
    return Values(integers, scale, _bias(integers * scale[:, :, None], samples))


def _bias(kernel: np.ndarray, samples: Samples) -> np.ndarray:
    """What makes the outputs of a kernel right on the mean: (groups, out)."""
    return samples.mean_out[0] - (kernel @ samples.mean_in[0][:, :, None])[:, :, 0]


def _errors(values: Values, samples: Samples) -> np.ndarray:
    """The squared error of each output, summed over rows: (groups, out)."""
    kernel = values.kernel
    apart = samples.wanted - samples.patches @ kernel.swapaxes(1, 2).astype(np.float32)
    # The rows are centred, so what the means do wrong comes on top.
    shift = _bias(kernel, samples) - values.bias
    return np.einsum("gro,gro->go", apart, apart, dtype=np.float64) + samples.rows * shift**2


def _mixed(answers: Sequence[Values], best: np.ndarray) -> Values:
    """Each output as in the answer that ``best`` (groups, out) says."""

    def pick(arrays: Sequence[np.ndarray]) -> np.ndarray:
        index = best.reshape(1, *best.shape, *([1] * (arrays[0].ndim - 2)))
        return np.take_along_axis(np.stack(arrays), index, 0)[0]

    return Values(*(pick([getattr(a, name) for a in answers]) for name in ("integers", "scale", "bias")))


def _output(node: Node) -> Variable:
    tensor = node.outputs[0]
    assert isinstance(tensor, Variable)
    return tensor
