"""Joins of parts whose ranges are far apart, at the end of a network: they stay float.

One scale for boxes of hundreds of pixels beside class scores below one leaves the scores no step at all, which is how
a detector that is quantized as a whole loses every object (``ultralytics/ultralytics#25524``). What is joined for
somebody outside need not have one scale: each part keeps its own, and the join is of floats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgec.ir.graph import Constant, Node, Tensor, Variable, consumers
from edgec.passes.quantize.placement.placement import MOVES, Placement, Site
from edgec.passes.quantize.ranges.calibration import Statistics
from edgec.passes.quantize.scales.affine_parameters import Range

#: A part keeps so many of the 255 steps, or the join stays float: five bits.
FEWEST_STEPS = 32


def uneven_joins(placement: Placement, seen: Mapping[Variable, Statistics]) -> dict[Node, str]:
    """The Concats to keep in float, and why.

    Those that an operator with integer arithmetic reads are not among them: that one needs a single scale anyway.

    Args:
        placement: which nodes would run in integers.
        seen: the statistics of the tensors that they read and write.
    """
    computing = {site.node for site in placement.sites if site.node.op not in MOVES}
    kept = {}
    for site in placement.sites:
        if site.node.op != "Concat" or any(node in computing for node in _reached(site.outputs)):
            continue
        joined = seen[site.outputs[0]].range().width
        narrow, width = min(_parts(site, seen), key=lambda part: part[1], default=(None, joined))
        steps = 255 * width / joined if joined else 255.0
        if narrow is not None and steps < FEWEST_STEPS:
            kept[site.node] = f"one scale for all that it joins would leave '{narrow.name}' {steps:.2g} of 255 steps"
    return kept


def _parts(site: Site, seen: Mapping[Variable, Statistics]) -> Iterable[tuple[Tensor, float]]:
    """What a join reads, but for what is zero throughout, and the width of its range."""
    for index in site.activations:
        tensor = site.node.inputs[index]
        width = (Range.of(tensor.values) if isinstance(tensor, Constant) else seen[tensor].range()).width
        if width:
            yield tensor, width


def _reached(tensors: Iterable[Tensor]) -> Iterable[Node]:
    """The nodes that read tensors, and those behind nodes that only move values."""
    waiting, known = list(tensors), set[Node]()
    while waiting:
        for node in consumers(waiting.pop()):
            if node not in known:
                known.add(node)
                yield node
                if node.op in MOVES:
                    waiting += node.outputs
