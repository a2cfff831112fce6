"""All chosen layers factorized one after the other, each against the data as the layers before it have left them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgec.ir.graph import Constant, Node
from edgec.passes.factorization.fitting import ROUNDS, fitted
from edgec.passes.factorization.layers import Layer
from edgec.passes.factorization.observed import Observed
from edgec.passes.factorization.offers import Choice
from edgec.passes.factorization.overriding import Overridable, Weights
from edgec.passes.factorization.samples import Images, Samples, collect
from edgec.passes.factorization.stages import Chain, compose

# A covariance of a wider patch would take more than 256 MiB.
WIDEST = 8192
# Rounds of alternation where a chain is only fitted again to targets that have moved a little.
_FEW_ROUNDS = 2


@dataclass(frozen=True)
class Fit:
    """A chain fitted to data.

    Attributes:
        chain: its stages; its relative error is that of the layer's output.
        biases: of each node that can have one, (channels,).
        rows: samples that it was fitted to; 0 where it comes from the weights alone.
        size: what had to be told apart with them: inputs of a kernel.
        bent: whether the activation behind was taken into account.
        unfit: why data could not be used, where there are data.
    """

    chain: Chain
    biases: dict[Node, np.ndarray]
    rows: int
    size: int
    bent: bool = False
    unfit: str = ""


def fit_all(network: Overridable, chosen: Sequence[tuple[Layer, Choice]], images: Images) -> list[Fit]:
    """Fits for all layers, in the graph's order.

    Args:
        network: the original.
        chosen: the layers to write as chains, in the graph's order.
        images: the calibration data.
    """
    weights = Weights()
    fits = []
    for done, (layer, choice) in enumerate(chosen, 1):
        if fits_memory(layer):
            fit = fit_one(Observed(layer, collect(network, layer, images, weights, threads=images.ctx.threads)), choice)
        else:
            fit = plain(layer, choice, f"{size_of(layer)} inputs are too many for a covariance")
        override(weights, layer, fit)
        fits.append(fit)
        images.ctx.progress(done, len(chosen), "factors")
    return fits


def override(weights: Weights, layer: Layer, fit: Fit) -> None:
    """Puts a fit in the place of a layer's own weights."""
    weights.kernels[layer.weight] = layer.stored(compose(fit.chain.stages))
    weights.biases.update({node: values.astype(layer.weight.dtype) for node, values in fit.biases.items()})


def fits_memory(layer: Layer) -> bool:
    """Whether a covariance of what the layer reads can be held."""
    return size_of(layer) <= WIDEST


def size_of(layer: Layer) -> int:
    """The inputs of one group's kernel."""
    return layer.into * int(np.prod(layer.taps, dtype=np.int64))


def plain(layer: Layer, choice: Choice, unfit: str = "") -> Fit:
    """A chain for the weights alone; ``unfit`` says why where there are data."""
    chain = choice.method.decompose(layer, layer.kernel(), choice.ranks)
    return Fit(chain, {}, 0, size_of(layer), unfit=unfit)


def fit_one(observed: Observed, choice: Choice, *, rounds: int = ROUNDS, bend: bool = True) -> Fit:
    """One layer's chain and biases for what it reads now.

    Args:
        observed: the layer on its data.
        choice: the method and its ranks.
        rounds: of alternation.
        bend: try to fit what is behind the activation, and keep it where that is better.
    """
    layer, samples = observed.layer, observed.samples
    if observed.unfit:
        return plain(layer, choice, observed.unfit)
    best = _fit(observed, choice, None, rounds)
    bounds = _bounds(layer) if bend and samples.centred else None
    if bounds is None:
        return best
    low, high = bounds
    truth = np.clip(samples.wanted, low, high)
    predicted = _predicted(samples, layer, best)
    least = _squares(np.clip(predicted, low, high) - truth)
    # Where the activation hides what the layer computes, whatever it computes on that side is right.
    wanted = np.where(samples.wanted < low, np.minimum(predicted, low), samples.wanted)
    wanted = np.where(samples.wanted > high, np.maximum(predicted, high), wanted)
    other = _fit(observed.towards(wanted), choice, best.chain, _FEW_ROUNDS)
    if _squares(np.clip(_predicted(samples, layer, other), low, high) - truth) >= least:
        return best
    chain = Chain(other.chain.stages, observed.error(compose(other.chain.stages)))
    return replace(other, chain=chain, bent=True)


def _fit(observed: Observed, choice: Choice, start: Chain | None, rounds: int) -> Fit:
    layer = observed.layer
    chain = fitted(choice, observed, start, rounds=rounds)
    kernel = compose(chain.stages).reshape(layer.groups, layer.out, -1)
    biases: dict[Node, np.ndarray] = {}
    if observed.samples.centred:
        of_groups = np.stack([m.biases(k) for m, k in zip(observed.metrics, kernel, strict=True)], axis=1)
        for node, values in zip(layer.nodes, of_groups.reshape(len(layer.nodes), -1), strict=True):
            biases[node] = values * float(node.attrs.get("alpha", 1.0)) if layer.kind == "gemm" else values
    return Fit(chain, biases, len(observed.samples.patches), size_of(layer))


def _predicted(samples: Samples, layer: Layer, fit: Fit) -> np.ndarray:
    """What the layer would compute with a fit: (rows, groups, out)."""
    kernel = compose(fit.chain.stages).reshape(layer.groups, layer.out, -1).astype(np.float32)
    rows = len(samples.patches)
    read = samples.patches.reshape(rows, layer.groups, -1).swapaxes(0, 1)
    made = (read @ kernel.swapaxes(1, 2)).swapaxes(0, 1)
    for node, place in zip(layer.nodes, samples.nodes, strict=True):
        scale = float(node.attrs.get("alpha", 1.0)) if layer.kind == "gemm" else 1.0
        made[place] += (fit.biases[node] / scale).reshape(layer.groups, layer.out).astype(np.float32)
    return made


def _bounds(layer: Layer) -> tuple[float, float] | None:
    """Between what values the activation behind the layer lets through what it computes; ``None`` without one."""
    found = {_passed(node) for node in layer.nodes}
    [bounds] = found if len(found) == 1 else [None]
    return bounds


def _passed(node: Node) -> tuple[float, float] | None:
    readers = node.outputs[0].outputs
    if len(readers) != 1 or (node.op == "Gemm" and float(node.attrs.get("alpha", 1.0)) != 1.0):
        return None
    if readers[0].op == "Relu":
        return 0.0, float("inf")
    if readers[0].op != "Clip":
        return None
    limits = [float("-inf"), float("inf")]
    for place, tensor in enumerate(readers[0].inputs[1:3]):
        if tensor.name:
            if not isinstance(tensor, Constant):
                return None
            limits[place] = float(tensor.values)
    return limits[0], limits[1]


def _squares(values: np.ndarray) -> float:
    return float(np.vdot(values, values))
