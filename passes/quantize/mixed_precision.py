"""Which layers stay float so that the others may be 8 bits: as few as the goal allows, those that harm most first.

A tensor is spared its rounding where what makes it and what reads it all stay float. So the choice is among tensors:
the next one is that which takes most noise off the outputs for the work that moves from integers to floats. How much
that is was measured for all of them in one pass (:mod:`.effects`); how many are needed is found by halving, with the
network quantized and judged each time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.ir.cost import Cost
from edgec.ir.graph import Graph, Node, consumers
from edgec.passes.framework.context import Context
from edgec.passes.quantize.goals import Goal, Reached
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.placement.placement import Site
from edgec.passes.quantize.recover.isolation import layer_outputs
from edgec.passes.quantize.report.effects import output_effects

#: Quantizes a copy of the network with some of its nodes in float; the sites are of the quantized one.
Try = Callable[[Mapping[Node, str]], tuple[Pair, Sequence[Site]]]


@dataclass(frozen=True)
class Mixed:
    """The nodes that stay float.

    Attributes:
        floats: by node of the float network, why.
        share: of the multiply-accumulates, in float.
        reached: by the network with these, weights rounded to the nearest integers where that suffices.
    """

    floats: Mapping[Node, str]
    share: float
    reached: Reached


def choose(graph: Graph, attempt: Try, recovered: Try | None, goal: Goal, ctx: Context) -> Mixed:
    """The fewest layers in float with which ``goal`` is met; all that harm where it is not met even so.

    Args:
        graph: the float network; not changed.
        attempt: quantizes a copy of it, weights rounded to the nearest integers.
        recovered: the same with weights chosen for what they compute, where they will be.
        goal: what must be reached.
        ctx: of ``graph``.
    """
    pair, sites = attempt({})
    reached = goal.reached(pair.quantized)
    if not reached.met and recovered is not None:
        reached = goal.reached(recovered({})[0].quantized)
    if reached.met:
        return Mixed({}, 0.0, reached)
    steps = _ordered(graph, pair, sites, ctx)
    low, high = 0, len(steps)
    found: dict[int, Reached] = {}

    def at(count: int) -> Reached:
        if count not in found:
            found[count] = goal.reached(attempt(_reasons(steps[:count]))[0].quantized)
        return found[count]

    while high - low > 1:
        middle = (low + high) // 2
        ctx.progress(len(found), int(np.ceil(np.log2(len(steps) + 1))), "choosing layers for float")
        low, high = (low, middle) if at(middle).met else (middle, high)
    floats = _reasons(steps[:high])
    cost = ctx.get(Cost)
    return Mixed(floats, sum(cost.by_node[node].macs or 0 for node in floats) / max(cost.macs, 1), at(high))


@dataclass(frozen=True)
class Step:
    """Nodes that go to float together, and the part of the noise that this takes away."""

    nodes: tuple[Node, ...]
    tensor: str
    part: float


def _ordered(graph: Graph, pair: Pair, sites: Sequence[Site], ctx: Context) -> list[Step]:
    """All tensors that are rounded, those first that take off most noise for the work that they cost."""
    outputs = layer_outputs(pair, sites)
    effects = output_effects(pair, outputs, ctx)
    here = dict(zip(pair.original.nodes, graph.nodes, strict=True))
    layers = {twin: node for node, twin in pair.operators}
    inside = {layers[node]: site for site in sites for node in (site.node, *site.fused)}
    around: list[frozenset[Node]] = []
    for output in outputs:
        nodes = [layers[node] for node in (output.site.node, *output.site.fused)]
        # What a layer gives unrounded is float for its readers anyway.
        for reader in consumers(output.exact) if output.ranged is output.exact else ():
            site = inside.get(reader)
            nodes += [] if site is None else [layers[node] for node in (site.node, *site.fused)]
        around.append(frozenset(here[node] for node in nodes))
    cost = ctx.get(Cost)
    touching: defaultdict[Node, set[int]] = defaultdict(set)
    for place, together in enumerate(around):
        for node in together:
            touching[node].add(place)
    work = {node: (cost.by_node[node].macs or 0) + cost.by_node[node].bytes_moved for node in touching}
    total = float(effects.sum()) or 1.0
    steps, moved, left = [], set[Node](), set(range(len(outputs)))

    def spared(extra: frozenset[Node]) -> list[int]:
        """The tensors that are no longer rounded once ``extra`` is in float too."""
        near = set[int]().union(*(touching[node] for node in extra)) & left
        return [place for place in near if around[place] <= moved | extra]

    def gain(place: int) -> float:
        extra = around[place] - moved
        return float(effects[spared(extra)].sum()) / (sum(work[node] for node in extra) or 1)

    while left:
        best = max(sorted(left), key=gain)
        extra = around[best] - moved
        gone = spared(extra) or [best]
        moved |= extra
        left -= {*gone, best}
        steps.append(Step(tuple(extra), outputs[best].exact.name, float(effects[gone].sum()) / total))
    return steps


def _reasons(steps: Sequence[Step]) -> dict[Node, str]:
    return {
        node: f"stays float: rounding '{step.tensor}' makes {step.part:.1%} of the noise at the outputs"
        for step in steps
        for node in step.nodes
    }
