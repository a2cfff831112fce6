"""Accuracy that rounding took, brought back without labels; every step is kept only where it helps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgec.ir.execution import batch_size
from edgec.ir.graph import Graph, static_shape
from edgec.ir.shapes import Shapes
from edgec.passes.calibration.batch_split import Split, split, spread
from edgec.passes.calibration.dataset import ROLE, Part
from edgec.passes.calibration.runner import batches
from edgec.passes.calibration.sqnr_evaluator import SqnrEvaluator
from edgec.passes.factorize.layers import find_layers
from edgec.passes.framework.context import Context
from edgec.passes.framework.transaction import Transaction
from edgec.passes.layers.linear import output_channels
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.placement.placement import Site
from edgec.passes.quantize.recover.block_reconstruction import reconstruct
from edgec.passes.quantize.recover.layerwise_reconstruction import ANSWERS, recover
from edgec.passes.quantize.recover.rounded_training import train_rounded
from edgec.passes.quantize.stored_layers import stored_layers

# Batches that are fitted to, at most: more images change little, and take their time.
_MOST_BATCHES = 64
# What learning must gain, in dB: a seed alone moves that by half of one on a dozen held-out images.
_LEAST_GAIN_DB = 0.5


def with_biases(graph: Graph, sites: Sequence[Site]) -> list[Site]:
    """``sites`` of ``graph``, where layers that have no bias have one of zeros now, so that it can be chosen."""
    return [_with_bias(graph, site) for site in sites]


def _with_bias(graph: Graph, site: Site) -> Site:
    node = site.node
    if site.weight is None or site.bias is not None or node.op == "MatMul":
        return site
    weight = node.inputs[site.weight]
    del node.inputs[2:]
    zeros = np.zeros(output_channels(node, static_shape(weight)), weight.dtype)
    node.inputs.append(graph.const(f"{node.name or node.op}.bias", zeros))
    return replace(site, bias=2)


def recover_accuracy(
    pair: Pair,
    ctx: Context,
    limit: int,
    samples: int | None = None,
    *,
    train: bool = False,
    meets: Callable[[Graph], bool] | None = None,
) -> None:
    """Changes the weights and biases of ``pair.quantized`` so that its outputs come closer to the float network's.

    Args:
        pair: the networks.
        ctx: the calibration data; it is told what was gained.
        limit: integers of weights are from ``-limit`` to ``limit``.
        samples: how many of the data to look at, from the first on; all by default.
        train: learn the rounding block by block once each layer has been chosen, then train all layers together.
        meets: whether a quantized network reaches what was asked; a network that does is not changed to one that
            does not.

    Raises:
        InputError: an activation is not finite.
        UsageError: torch, which training needs, is not installed.
    """
    if len(pair.original.graphs()) > 1:
        ctx.missed("the network", "its accuracy is not recovered: it has control flow")
        return
    inner = _bounded(pair.original, ctx, samples)
    parts = split(batches(pair.original, inner), _MOST_BATCHES)
    layers = find_layers(pair.original, Shapes(pair.original), lambda node: None, lambda node, reason: None)
    stored = list(stored_layers(pair, layers, limit))
    if not stored:
        return
    judged = "images held out" if parts.apart else "the images that they were fitted to"
    met = meets is not None and meets(pair.quantized)
    gate = _Gate(pair, SqnrEvaluator(pair.original, inner, parts), judged, meets, met, ctx)

    def choose() -> str:
        counts = np.sum([found.answers for found in recover(pair, stored, parts, inner)], axis=0)
        outputs = ", ".join(f"{count} {name}" for name, count in zip(ANSWERS, counts, strict=True) if count)
        by = judged if parts.apart else "each half of the images, fitted to the other"
        return f"chosen by what they compute on {by}; of the outputs {outputs}"

    gate.pass_through(choose, "fitted", layers=len(stored))
    if train and parts.count < 2:
        ctx.missed("the network", "weights and biases are not trained: a single image leaves none to judge by")
    elif train:
        if not parts.apart:
            parts = _few(parts)
            gate = replace(gate, judge=SqnrEvaluator(pair.original, inner, parts), judged="images held out")
        blocks = "reconstructed block by block"
        gate.pass_through(lambda: reconstruct(pair, stored, parts, inner), blocks, _LEAST_GAIN_DB)
        gate.pass_through(lambda: train_rounded(pair, parts, inner), "trained", _LEAST_GAIN_DB)


def _few(parts: Split) -> Split:
    """A third of so few batches held out, one at least: training fits what it is judged by otherwise, and only that."""
    held = tuple(number for number in range(parts.count) if number % 3 == 1)
    return Split(tuple(number for number in range(parts.count) if number not in held), held, parts.count)


@dataclass
class _Gate:
    """Keeps what brings the outputs of ``pair.quantized`` closer to the float network's, and undoes all else.

    ``met`` says whether ``meets`` holds of it now; where it does, it is to hold of what is kept.
    """

    pair: Pair
    judge: SqnrEvaluator
    judged: str
    meets: Callable[[Graph], bool] | None
    met: bool
    ctx: Context

    def pass_through(self, step: Callable[[], str], verb: str, least: float = 0.0, **figures: float) -> None:
        """Takes a step and reports it, or undoes it where the outputs are not closer by more than ``least`` dB."""
        network = self.pair.quantized
        transaction = Transaction(network, network.constants())
        before = self.judge.sqnr_db(network)
        what = step()
        after = self.judge.sqnr_db(network)
        figures = {"before_db": before, "after_db": after, **figures}
        closer = after > before + least
        meets = closer and self.meets is not None and self.meets(network)
        if closer and meets >= self.met:
            self.met = meets
            self.ctx.did("the network", f"weights and biases {what}", **figures)
            return
        transaction.undo()
        what = f"gave {after:.1f} dB instead of {before:.1f} dB on {self.judged}"
        if closer:
            what += ", and missed what is asked"
        self.ctx.missed("the network", f"weights and biases stay as they were: {verb}, they {what}", **figures)


def _bounded(graph: Graph, ctx: Context, samples: int | None) -> Context:
    """The same with as many batches as are looked at, spread over the data."""
    count, size = batches(graph, ctx), batch_size(graph)
    usable = count if samples is None else min(count, -(-samples // size))
    numbers = spread(np.arange(usable), _MOST_BATCHES)
    if len(numbers) == count:
        return ctx
    return ctx.derive(graph, data={ROLE: Part(ctx.data[ROLE], numbers, size)})
