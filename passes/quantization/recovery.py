"""Accuracy that rounding took, brought back without labels; every step is kept only where it helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgec.ir.execution import Session, batch_size, sqnr_db, stacked
from edgec.ir.graph import Constant, Graph
from edgec.ir.shapes import Shapes
from edgec.passes.compression.judging import Part, Split, context, split
from edgec.passes.factorization.layers import find_layers
from edgec.passes.linear_layers import output_channels
from edgec.passes.protocol import Context
from edgec.passes.quantization.layer_by_layer import ANSWERS, recover
from edgec.passes.quantization.pair import Pair
from edgec.passes.quantization.placement import Site
from edgec.passes.quantization.stored_layers import stored_layers
from edgec.passes.streaming import ROLE, batches

# Batches that are fitted to, at most: more images change little, and take their time.
_MOST_BATCHES = 64


class Gate:
    """How close a quantized network's outputs are to the float network's, on images that no step is fitted to."""

    def __init__(self, pair: Pair, parts: Split, ctx: Context) -> None:
        self._pair = pair
        part = Part(ctx.data[ROLE], parts.judge, batch_size(pair.original))
        self._feeds = list(context(pair.original, ctx, {ROLE: part}).feeds(pair.original, ROLE))
        self._wanted = self._run(pair.original)

    def decibel(self) -> float:
        """SQNR of the outputs as the quantized network is now."""
        return sqnr_db(self._wanted, self._run(self._pair.quantized))

    def _run(self, graph: Graph) -> dict[str, np.ndarray]:
        session = Session(graph)
        return stacked([session.run(feeds) for feeds in self._feeds])


def with_biases(graph: Graph, sites: Sequence[Site]) -> list[Site]:
    """``sites`` of ``graph``, where layers that have no bias have one of zeros now, so that it can be chosen."""
    return [_with_bias(graph, site) for site in sites]


def _with_bias(graph: Graph, site: Site) -> Site:
    node = site.node
    if site.weight is None or site.bias is not None or node.op == "MatMul":
        return site
    weight = node.inputs[site.weight]
    del node.inputs[2:]
    zeros = np.zeros(output_channels(node, weight.shape), weight.dtype)
    node.inputs.append(graph.const(f"{node.name or node.op}.bias", zeros))
    return replace(site, bias=2)


def recover_accuracy(pair: Pair, ctx: Context, limit: int) -> None:
    """Changes the weights and biases of ``pair.quantized`` so that its outputs come closer to the float network's.

    Args:
        pair: the networks.
        ctx: the calibration data; it is told what was gained.
        limit: integers of weights are from ``-limit`` to ``limit``.

    Raises:
        InputError: an activation is not finite.
    """
    if len(pair.original.graphs()) > 1:
        ctx.missed("the network", "its accuracy is not recovered: it has control flow")
        return
    inner = _bounded(pair.original, ctx)
    parts = split(batches(pair.original, inner), _MOST_BATCHES)
    layers = find_layers(pair.original, Shapes(pair.original), lambda node: None, lambda node, reason: None)
    stored = list(stored_layers(pair, layers, limit))
    if not stored:
        return
    gate = Gate(pair, parts, inner)
    before = gate.decibel()
    kept = {constant: constant.values for constant in pair.quantized.constants()}
    counts = np.sum([found.answers for found in recover(pair, stored, parts, inner)], axis=0)
    after = gate.decibel()
    figures = {"before_db": before, "after_db": after, "layers": len(stored)}
    judged = "images held out" if parts.apart else "the images that they were fitted to"
    if after <= before:
        _restore(kept)
        what = f"weights and biases stay as they were: fitted, they gave {after:.1f} dB instead of {before:.1f} dB"
        ctx.missed("the network", f"{what} on {judged}", **figures)
        return
    outputs = ", ".join(f"{count} {name}" for name, count in zip(ANSWERS, counts, strict=True) if count)
    what = f"weights and biases chosen by what they compute on {judged}; of the outputs {outputs}"
    ctx.did("the network", what, **figures)


def _bounded(graph: Graph, ctx: Context) -> Context:
    """The same with as many batches as are looked at, spread over the data."""
    count = batches(graph, ctx)
    if count <= _MOST_BATCHES:
        return ctx
    numbers = np.linspace(0, count - 1, _MOST_BATCHES).round().astype(int)
    part = Part(ctx.data[ROLE], tuple(int(number) for number in numbers), batch_size(graph))
    return context(graph, ctx, {ROLE: part})


def _restore(kept: dict[Constant, np.ndarray]) -> None:
    for constant, values in kept.items():
        constant.values = values
