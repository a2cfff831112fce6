"""Layers whose kernel gives floats, and what only moves those: they are not rounded again for float readers.

onnxruntime's integer matrix products accumulate in int32 and give floats where no Q stands behind them (QGemm without
an output scale, MatMulIntegerToFloat), at no cost. What leaves the network there, or goes on to an operator that
computes in float, needs no 8 bits: a regression's two numbers, or a classifier's scores, keep what they are.
"""

from __future__ import annotations

from dataclasses import replace

from edgec.ir.graph import Tensor, consumers
from edgec.passes.framework.target import Scheme
from edgec.passes.quantize.placement.placement import MOVES, Placement, Site


def unrounded_ends(placement: Placement, scheme: Scheme) -> Placement:
    """``placement`` without the rounding behind layers whose kernel gives floats and whose readers take floats.

    Args:
        placement: with its sites in the graph's order; not changed.
        scheme: of the target; ``scheme.float_results`` are the operators that give floats.
    """
    made: dict[Tensor, Site] = {tensor: site for site in placement.sites for tensor in site.outputs}
    kept = {site.node: site for site in placement.sites}
    moves: dict[Site, bool] = {}
    for site in placement.sites:
        reads = [made.get(site.node.inputs[index]) for index in site.activations]
        moves[site] = site.node.op in MOVES and all(
            one is not None and (moves[one] or _gives_floats(one, scheme)) for one in reads
        )
    left = list(placement.left)
    for site in reversed(placement.sites):
        if any(reader in kept for tensor in site.outputs for reader in consumers(tensor)):
            continue
        if moves[site]:
            del kept[site.node]
            left.append((site.node, "only moves floats that a layer gives unrounded"))
        elif _gives_floats(site, scheme):
            kept[site.node] = replace(site, outputs=())
    return Placement(list(kept.values()), left)


def _gives_floats(site: Site, scheme: Scheme) -> bool:
    return site.node.op in scheme.float_results and site.weight is not None
