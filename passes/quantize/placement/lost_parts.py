"""Sums and joins whose one scale loses a part that the network needs: they stay float, with what reads them.

Where a part of a sum reaches a few of the steps that the sum has, it is as good as lost there. Mostly that is no harm:
a small correction of a large number is small behind it, too. But where a reader takes the large number away again (a
normalization, a difference, a maximum), what is left is the part that was lost. The outputs tell: the sum alone is
rounded, in the float network, and where that leaves them hardly anything, it is not rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgec.ir.fingerprints import fingerprints
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers
from edgec.passes.calibration.batch_split import split, spread
from edgec.passes.calibration.dataset import ROLE
from edgec.passes.calibration.runner import batches
from edgec.passes.calibration.sqnr_evaluator import SqnrEvaluator
from edgec.passes.framework.cache import same_data
from edgec.passes.framework.context import Context
from edgec.passes.framework.target import Scheme
from edgec.passes.quantize.placement.placement import MOVES, Placement, Site
from edgec.passes.quantize.placement.uneven_concat import FEWEST_STEPS
from edgec.passes.quantize.ranges.calibration import Statistics
from edgec.passes.quantize.scales.affine_parameters import Range, parameters

#: Below this many dB at the network's outputs, for one tensor that is rounded, it stays float: 1 % of noise.
FEWEST_DB = 20.0
_SUMS = frozenset({"Add", "Concat", "Max", "Min", "Sub"})
# What only chooses among the values that it reads has their scale.
_CHOOSING = MOVES | {"GlobalMaxPool", "Max", "MaxPool", "Min", "ReduceMax"}
# Batches that judge.
_JUDGED = 8


def lost_parts(
    graph: Graph, placement: Placement, seen: Mapping[Variable, Statistics], scheme: Scheme, ctx: Context
) -> dict[Node, str]:
    """The nodes to keep in float, and why.

    Args:
        graph: the float network; not changed.
        placement: which of its nodes would run in integers.
        seen: the statistics of the tensors that they read and write.
        scheme: of the target.
        ctx: of ``graph``: the calibration data, and what was measured before.
    """
    suspects = {site: lost for site in placement.sites if (lost := _lost(site, seen)) is not None}
    if not suspects:
        return {}
    prints = fingerprints(graph)
    known: dict[tuple[str, ...], float] = ctx.cache.of(
        dict, lost_parts, same_data(ctx.data[ROLE]), scheme.activations, scheme.symmetric
    )
    ends = tuple(prints[tensor] for tensor in graph.outputs)
    judges: list[SqnrEvaluator] = []

    def judged(sites: Sequence[Site]) -> float:
        tensors = {site.outputs[0]: seen[site.outputs[0]].range() for site in sites}
        which = (*ends, *(prints[tensor] for tensor in tensors))
        if which not in known:
            if not judges:
                parts = split(batches(graph, ctx), _JUDGED)
                judges.append(SqnrEvaluator(graph, ctx, replace(parts, judge=spread(np.array(parts.judge), _JUDGED))))
            known[which] = judges[0].sqnr_db(_rounded(graph, tensors, scheme))
        return known[which]

    if judged(list(suspects)) >= FEWEST_DB:
        return {}
    inside = {site.node: site for site in placement.sites}
    kept: dict[Node, str] = {}
    for site, (part, steps) in suspects.items():
        left = judged([site])
        if left < FEWEST_DB:
            what = f"one scale for all of '{site.outputs[0].name}' would leave '{part.name}' {steps:.2g} of 255 steps"
            reason = f"{what}, and the outputs {left:.1f} dB"
            kept |= dict.fromkeys([site.node, *_reading(site, inside)], reason)
    return kept


def _lost(site: Site, seen: Mapping[Variable, Statistics]) -> tuple[Tensor, float] | None:
    """The part of a sum or join that has fewest steps in it, and how many; ``None`` where all have enough."""
    if not site.outputs or (site.node.op not in _SUMS and site.bias is None):
        return None
    values = seen[site.outputs[0]].range()
    fewest: tuple[Tensor, float] | None = None
    for tensor, width in _widths(site, values, seen):
        steps = 255 * width / values.width if values.width else 255.0
        if width and steps < FEWEST_STEPS and (fewest is None or steps < fewest[1]):
            fewest = (tensor, steps)
    return fewest


def _widths(site: Site, values: Range, seen: Mapping[Variable, Statistics]) -> Iterator[tuple[Tensor, float]]:
    """The parts of a sum or join, and how wide they are: of a layer with a bias, what the bias is added to."""
    node = site.node
    if site.bias is not None:
        bias = node.inputs[site.bias]
        assert isinstance(bias, Constant), "a bias is stored"
        added = Range.of(bias.values)
        yield node.outputs[0], max(values.high - added.high, added.low - values.low)
        return
    for index in site.activations:
        tensor = node.inputs[index]
        yield tensor, (Range.of(tensor.values) if isinstance(tensor, Constant) else seen[tensor].range()).width


def _reading(site: Site, inside: Mapping[Node, Site]) -> list[Node]:
    """What reads the result of a site, and what reads that through operators that only choose."""
    reading: dict[Node, None] = {}
    waiting = list(site.outputs)
    for tensor in waiting:
        for node in consumers(tensor):
            if node in inside and node not in reading:
                reading[node] = None
                if node.op in _CHOOSING:
                    waiting += inside[node].outputs
    return list(reading)


def _rounded(graph: Graph, tensors: Mapping[Variable, Range], scheme: Scheme) -> Graph:
    """A copy of a network in which these tensors are rounded, and nothing else."""
    copies: dict[Tensor, Tensor] = {}
    copy = graph.copy(copies)
    for tensor, values in tensors.items():
        by = parameters(values, scheme.activations, symmetric=scheme.symmetric)
        here = copies[tensor]
        stored = [copy.const(f"{here.name}.scale", np.float32(by.scale))]
        stored.append(copy.const(f"{here.name}.zero_point", np.array(by.zero_point, by.dtype)))
        read = copy.op("Identity", [here])
        copy.replace_uses(here, read)
        integers = copy.op("QuantizeLinear", [here, *stored])
        read.inputs[0].inputs[0] = copy.op("DequantizeLinear", [integers, *stored])
    return copy.sort()
