"""All chosen layers factorized one after the other, each against the data as the layers before it have left them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgec.ir.graph import Constant, Node
from edgec.passes.factorize.fitting import ROUNDS, fitted
from edgec.passes.factorize.images import Images
from edgec.passes.factorize.layers import Layer
from edgec.passes.factorize.observed import Observed
from edgec.passes.factorize.offers import Choice
from edgec.passes.factorize.overriding import Overridable, Weights, own_bias
from edgec.passes.factorize.samples import collect, targets, together
from edgec.passes.factorize.stages import Chain, compose

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
    weights, threads = Weights(), images.ctx.threads
    fits: list[Fit] = []
    choices = dict(chosen)
    for block in together([layer for layer, _ in chosen], len(images.feeds), outputs_only=True):
        able = [layer for layer in block if fits_memory(layer)]
        wanted = dict(zip(able, targets(network, able, images, threads=threads) if able else [], strict=True))
        for layer in block:
            if layer in wanted:
                samples = collect(network, layer, wanted.pop(layer), images, weights, threads=threads)
                fit = fit_one(Observed(layer, samples), choices[layer])
            else:
                fit = plain(layer, choices[layer], f"{size_of(layer)} inputs are too many for a covariance")
            override(weights, layer, fit)
            fits.append(fit)
            images.ctx.progress(len(fits), len(chosen), "factors")
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
    computed = samples.whole(samples.wanted)
    truth = np.clip(computed, low, high)
    predicted = observed.predicted(compose(best.chain.stages))
    least = _squares(np.clip(predicted, low, high) - truth)
    # Where the activation hides what the layer computes, whatever it computes on that side is right.
    wanted = np.where(computed < low, np.minimum(predicted, low), computed)
    wanted = np.where(computed > high, np.maximum(predicted, high), wanted)
    bent = observed.towards(wanted)
    other = _fit(bent, choice, best.chain, _FEW_ROUNDS)
    kernel = compose(other.chain.stages)
    if _squares(np.clip(bent.predicted(kernel), low, high) - truth) >= least:
        return best
    return replace(other, chain=Chain(other.chain.stages, observed.error(kernel)), bent=True)


def _fit(observed: Observed, choice: Choice, start: Chain | None, rounds: int) -> Fit:
    layer = observed.layer
    chain = fitted(choice, observed, start, rounds=rounds)
    biases: dict[Node, np.ndarray] = {}
    if observed.samples.centred:
        factors = [float(node.attrs.get("alpha", 1.0)) if layer.kind == "gemm" else 1.0 for node in layer.nodes]
        held = [own_bias(layer, node) for node in layer.nodes]
        own = np.stack([b / factor for b, factor in zip(held, factors, strict=True) if b is not None])
        of_nodes = observed.held_biases(compose(chain.stages), own.reshape(len(layer.nodes), layer.groups, layer.out))
        for node, values, factor in zip(layer.nodes, of_nodes, factors, strict=True):
            biases[node] = values.reshape(-1) * factor
    return Fit(chain, biases, observed.samples.rows, size_of(layer))


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
