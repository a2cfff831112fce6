"""Whether the first and the last layer with weights stay float, decided by what that does to the network's outputs.

They are where 8 bits often cost most: what the first one gives, all others read, and nothing behind the last one
averages its errors away. And they are mostly small. So the network is quantized as a whole, and judged on calibration
images with each end put back into float; an end stays float where that takes away much of the noise for little of the
work.

The first are the layers that read no other layer, the last those that no other layer reads; a network may have several,
which stay float together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgec.ir.cost import Cost
from edgec.ir.graph import Constant, Graph, Node, Tensor, consumers, producer
from edgec.passes.calibration.batch_split import split, spread
from edgec.passes.calibration.runner import batches
from edgec.passes.calibration.sqnr_evaluator import SqnrEvaluator
from edgec.passes.framework.context import Context
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.placement.placement import WEIGHT_INPUT, Site

# An end stays float where that gains so much, and takes so many times the share of the noise as of the work.
LEAST_GAIN_DB, NOISE_PER_WORK = 1.0, 10.0
# Batches that judge.
_JUDGED = 8


@dataclass(frozen=True)
class End:
    """The layers at one end of the network.

    Attributes:
        name: ``first`` or ``last``.
        nodes: in the float network.
        sites: the same in the quantized one.
        share: of the network's multiply-accumulates.
    """

    name: str
    nodes: tuple[Node, ...]
    sites: tuple[Site, ...]
    share: float


def ends_in_float(graph: Graph, pair: Pair, sites: Sequence[Site], ctx: Context) -> Mapping[Node, str]:
    """The nodes of ``graph`` that stay float, and why.

    Args:
        graph: the float network; not changed.
        pair: a copy of it, and that quantized; not changed.
        sites: what runs in 8 bits, in ``pair.quantized``.
        ctx: of ``graph``: the calibration data; it is told what was measured.
    """
    ends = _ends(graph, pair, sites, ctx.get(Cost))
    if not ends or len(sites) < 2:
        return {}
    parts = split(batches(graph, ctx), _JUDGED)
    judge = SqnrEvaluator(pair.original, ctx, replace(parts, judge=spread(np.array(parts.judge), _JUDGED)))
    reached = before = judge.sqnr_db(pair.quantized)
    if not np.isfinite(before):  # nothing is lost, or nothing can be compared
        return {}
    kept: list[End] = []
    gains: dict[str, float] = {}
    while len(kept) < len(ends):
        tries = {
            end.name: judge.sqnr_db(_in_float(pair, [site for one in (*kept, end) for site in one.sites]))
            for end in ends
            if end not in kept
        }
        gains.update({name: sqnr - reached for name, sqnr in tries.items()})
        worth = [end for end in ends if end not in kept and _is_worth_it(gains[end.name], end.share)]
        if not worth:
            break
        best = max(worth, key=lambda end: gains[end.name])
        kept.append(best)
        reached = tries[best.name]
    _say(ends, kept, gains, before, reached, ctx)
    return {
        node: f"stays float: in 8 bits the {end.name} layer makes {_noise(gains[end.name]):.1%} of the noise at the "
        f"outputs, for {end.share:.2%} of the work"
        for end in kept
        for node in end.nodes
    }


def _is_worth_it(gain_db: float, share: float) -> bool:
    return gain_db >= LEAST_GAIN_DB and _noise(gain_db) >= NOISE_PER_WORK * share


def _noise(gain_db: float) -> float:
    """The part of the noise that is gone, by the gain in dB."""
    return float(1 - 10 ** (-gain_db / 10))


def _say(
    ends: Sequence[End], kept: Sequence[End], gains: Mapping[str, float], before: float, after: float, ctx: Context
) -> None:
    figures = {f"{end.name}_{key}": value for end in ends
               for key, value in (("gain_db", gains[end.name]), ("work", end.share))}  # fmt: skip
    measured = "; ".join(
        f"the {end.name} in float gains {gains[end.name]:.1f} dB for {end.share:.2%} of the work" for end in ends
    )
    figures |= {"before_db": before, "after_db": after}
    if kept:
        names = " and ".join(f"the {end.name}" for end in ends if end in kept)
        ctx.did("the first and last layers", f"{names} kept in float: {measured}", **figures)
    else:
        ctx.did("the first and last layers", f"8 bits like the others: {measured}", **figures)


def _ends(graph: Graph, pair: Pair, sites: Sequence[Site], cost: Cost) -> list[End]:
    """Those that run in 8 bits; an end that does not is no end to decide on."""
    here = dict(zip((twin for _, twin in pair.operators), graph.nodes, strict=True))
    weighted = {here[site.node]: site for site in sites if site.weight is not None}
    layers = {node for node in graph.nodes if node.op in WEIGHT_INPUT}
    below = _reached(graph.nodes, layers, forward=True)
    above = _reached(graph.nodes[::-1], layers, forward=False)
    found = []
    for name, others in (("first", below), ("last", above)):
        nodes = tuple(node for node in graph.nodes if node in layers and node not in others and node in weighted)
        if nodes:
            work = sum(cost.by_node[node].macs or 0 for node in nodes)
            found.append(End(name, nodes, tuple(weighted[node] for node in nodes), work / max(cost.macs, 1)))
    return found


def _reached(nodes: Sequence[Node], layers: set[Node], *, forward: bool) -> set[Node]:
    """The nodes that have a layer before them, or going back behind them; ``nodes`` are in the order of the way."""
    reached: set[Node] = set()
    for node in nodes:
        beside = (
            [maker for t in node.inputs if (maker := producer(t)) is not None]
            if forward
            else [reader for t in node.outputs for reader in consumers(t)]
        )
        if any(one in layers or one in reached for one in beside):
            reached.add(node)
    return reached


def _in_float(pair: Pair, sites: Sequence[Site]) -> Graph:
    """The quantized network with some of its layers on floats."""
    copies: dict[Tensor, Tensor] = {}
    graph = pair.quantized.copy(copies)
    twins = {twin: exact for exact, twin in pair.operators}
    inside = dict(zip(pair.quantized.nodes, graph.nodes, strict=True))
    for site in sites:
        node = inside[site.node]
        for place in site.activations:
            dequantize = producer(site.node.inputs[place])
            assert dequantize is not None, "what a layer reads was quantized"
            node.inputs[place] = copies[dequantize.inputs[0].inputs[0].inputs[0]]
        for kept in (site.weight, site.bias):
            exact = None if kept is None else twins[site.node].inputs[kept]
            if kept is not None and isinstance(exact, Constant):
                node.inputs[kept] = graph.const(exact.name, exact.values)
    return graph.sort()
