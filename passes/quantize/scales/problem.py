"""What is asked of the scales of a placement: ranges, ties, and what the target or raw pixels prescribe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.graph import Constant, Graph, Node, Variable, consumers, producer, variable_of
from edgec.passes.framework import input_domain
from edgec.passes.framework.context import Context
from edgec.passes.framework.target import Scheme
from edgec.passes.quantize.placement.placement import Placement, Site
from edgec.passes.quantize.ranges.calibration import Statistics
from edgec.passes.quantize.scales.affine_parameters import LARGEST_SCALE, LEAST_SCALE, Parameters, Range
from edgec.passes.quantize.scales.scale_constraints import Activation, Tie

# How far, in pixels, the pixel of value zero may be from a whole one.
_WHOLE = 1e-3
# How many steps of a prescribed scale a tensor must reach for integers to be worth while.
_FEWEST_STEPS = 8
#: A part of a join keeps its own scale where the join's is so many times as wide, or more: on a kernel that must
#: requantize it first, and on one that does so anyway. Of two roundings, a fine and a coarse one, and two coarse ones,
#: which a shared scale makes of them, the sums of squares are alike at the square root of 2.
WIDEST, WIDEST_FREE = 2.0, 2.0**0.5


class Problem:
    """The activations of a placement and what is asked of their scales.

    Args:
        graph: the network.
        placement: of it.
        seen: what was seen of each tensor that is quantized.
        ranges: what its integers are to span.
        scheme: of the target.
        ctx: for what preprocessing does.

    Attributes:
        variables: by tensor.
        constants: by node and place of the input.
        ties: of the nodes that move values.
    """

    def __init__(
        self,
        graph: Graph,
        placement: Placement,
        seen: Mapping[Variable, Statistics],
        ranges: Mapping[Variable, Range],
        scheme: Scheme,
        ctx: Context,
    ) -> None:
        self.variables = {tensor: Activation(tensor, ranges[tensor]) for tensor in seen}
        self.constants: dict[tuple[Node, int], Activation] = {}
        self.ties: list[Tie] = []
        for tensor in graph.inputs:
            if tensor not in self.variables or scheme.symmetric:
                continue
            if seen[tensor].pixels:
                self.variables[tensor].prescribed = _unchanged_pixels(graph, tensor, scheme, ctx)
        for tensor, fixed in _prescribed(placement, self.variables, scheme).items():
            self.variables[tensor].prescribed = fixed
        for site in placement.sites:
            members = [self.variables[tensor] for tensor in site.outputs]
            for index in site.activations:
                tensor = site.node.inputs[index]
                if isinstance(tensor, Constant):
                    self.constants[site.node, index] = Activation(tensor, _finite_range(tensor))
                    members.append(self.constants[site.node, index])
                else:
                    members.append(self.variables[tensor])
            if site.node.op == "Concat":
                self._tie_parts(site, members, scheme)
            elif site.node.op in scheme.tied:
                self.ties.append(Tie(site.node, members))
            elif (factor := _factor(site)) is not None:
                index, ratio = factor
                scaled = self.variables[variable_of(site.node.inputs[index])]
                self.ties.append(Tie(site.node, (members[0], scaled), ratio, WIDEST_FREE))
        joins = {site.node: self.variables[site.outputs[0]] for site in placement.sites if site.node.op == "Concat"}
        ends = set(graph.outputs)
        for tensor, activation in self.variables.items():
            readers = consumers(tensor)
            if readers and tensor not in ends and all(node in joins for node in readers):
                activation.finest = min(joins[node].values.width for node in readers) or None

    def _tie_parts(self, site: Site, members: Sequence[Activation], scheme: Scheme) -> None:
        """Parts of a join have its scale where that costs them little; a kernel that needs it gets the others so."""
        joined, *parts = members
        needed = "Concat" in scheme.tied
        for part in parts:
            if isinstance(part.tensor, Constant):
                self.ties += [Tie(site.node, (joined, part))] if needed else []
            else:
                self.ties.append(Tie(site.node, (joined, part), widest=WIDEST if needed else WIDEST_FREE))

    @property
    def activations(self) -> list[Activation]:
        return [*self.variables.values(), *self.constants.values()]


def _factor(site: Site) -> tuple[int, float] | None:
    """Which input a site multiplies by one positive number, and the number; ``None`` where it does something else."""
    node = site.node
    if node.op not in ("Mul", "Div") or site.fused or len(site.outputs) != 1:
        return None
    for index in (0,) if node.op == "Div" else (0, 1):
        by = node.inputs[1 - index]
        if isinstance(by, Constant) and by.values.size == 1 and isinstance(node.inputs[index], Variable):
            number = float(by.values.reshape(()))
            if not LEAST_SCALE < number < LARGEST_SCALE or index not in site.activations:
                return None
            return index, number if node.op == "Mul" else 1 / number
    return None


def quantized_tensors(placement: Placement) -> list[Variable]:
    """The variables that are quantized, each once, in the graph's order."""
    found: dict[Variable, None] = {}
    for site in placement.sites:
        for index in site.activations:
            tensor = site.node.inputs[index]
            if isinstance(tensor, Variable):
                found[tensor] = None
        found.update(dict.fromkeys(site.outputs))
    return list(found)


def too_coarse(placement: Placement, seen: Mapping[Variable, Statistics], scheme: Scheme) -> dict[Node, str]:
    """The nodes to keep in float because a prescribed scale would leave nothing of a tensor, and why.

    A Softmax over a thousand elements gives a thousandth each, and 1/256 is the step that kernels prescribe.
    """
    inside = {site.node for site in placement.sites}
    kept = {}
    for tensor, by in _prescribed(placement, seen, scheme).items():
        largest = max(abs(seen[tensor].low), abs(seen[tensor].high))
        if largest >= _FEWEST_STEPS * by.scale:
            continue
        maker = tensor.inputs[0]
        reason = f"'{tensor.name}' reaches {largest:.2g} only, and steps of {by.scale:.2g} are prescribed for it"
        for node in [maker] if maker in inside else [n for n in consumers(tensor) if n in inside]:
            kept[node] = reason
    return kept


def _prescribed(placement: Placement, tensors: Iterable[Variable], scheme: Scheme) -> dict[Variable, Parameters]:
    """The tensors whose scale the target prescribes.

    That of an operator that is not among the target's counts too: a runtime that says so makes an integer kernel of it
    by itself where its neighbours are integers. One that could run on integers and stays float has a float kernel.
    """
    inside = {site.node for site in placement.sites}
    found = {}
    for tensor in tensors:
        maker = producer(tensor)
        if maker is not None and maker.op in scheme.fixed and (maker in inside or maker.op not in scheme.operators):
            scale, zero_point = scheme.fixed[maker.op]
            found[tensor] = Parameters(scale, zero_point, scheme.activations)
    return found


def _unchanged_pixels(graph: Graph, tensor: Variable, scheme: Scheme, ctx: Context) -> Parameters | None:
    """The scale and zero-point with which an input's integers are the pixels themselves (less 128 for int8).

    The input is a * pixel + b; so the scale is a, and the pixel whose value is zero is the zero-point. ``None`` where
    channels differ or no pixel's value is zero.
    """
    known = input_domain.pixels(graph, tensor.name, ctx.config.affine.get(tensor.name))
    if known is None or np.ptp(known[0]) or np.ptp(known[1]) or known[0][0] <= 0:
        return None
    a, b = float(known[0][0]), float(known[1][0])
    limits = np.iinfo(scheme.activations)
    zero_pixel = -b / a
    if abs(zero_pixel - round(zero_pixel)) > _WHOLE or not 0 <= round(zero_pixel) <= limits.max - limits.min:
        return None
    return Parameters(a, int(limits.min) + round(zero_pixel), scheme.activations)


def _finite_range(constant: Constant) -> Range:
    found = Range.of(constant.values)
    if not (np.isfinite(found.low) and np.isfinite(found.high)):
        raise InputError(
            f"constant '{constant.name}'", "has values that are not finite", "train or export the network again"
        )
    return found
