"""Scales of tensors that hold nothing but rounding: they follow from the scales of what these are computed from.

The mean of what an InstanceNormalization gives is zero, and in floats a few billionths. A range of that size has steps
that are millions of times finer than those of the numbers it is the mean of: no integer kernel computes them (their
multipliers have no such numbers), and they would hold nothing. So a mean gets no steps finer than a 256th of those
that it is computed from, which is finer than its noise, and a sum or product none finer than 2^-16 of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgec.ir.graph import Constant, Tensor
from edgec.passes.framework.target import Scheme
from edgec.passes.quantize.placement.placement import Placement, Site
from edgec.passes.quantize.scales.affine_parameters import Range
from edgec.passes.quantize.scales.problem import Problem
from edgec.passes.quantize.scales.scale_constraints import Activation, Solution, solve

#: A result's steps are no finer than this part of those that it is computed from: of a mean, and of anything else.
FINEST_MEAN, FINEST = 2.0**-8, 2.0**-16
_STEPS = 255.0
_MEANS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})
# Results that are means, sums or choices of what is read, and products of it.
_SUMS = _MEANS | {"Add", "GlobalMaxPool", "LeakyRelu", "Max", "MaxPool", "Min", "PRelu"} | {
    "ReduceMax", "ReduceSum", "Sub"
}  # fmt: skip
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Mul"})
# Widening one range may widen what is tied to it; a chain of ties is as long as this at most.
_ROUNDS = 16


def solve_with_floors(problem: Problem, placement: Placement, scheme: Scheme) -> Solution:
    """The scales of a problem; ranges that are too narrow for what they are computed from are widened in place."""
    solution = solve(problem.activations, problem.ties, scheme)
    for _ in range(_ROUNDS):
        scales = {activation: by.scale for activation, by in solution.chosen.items()}
        widened = [_widen(site, problem, scales) for site in placement.sites]
        if not any(widened):
            break
        solution = solve(problem.activations, problem.ties, scheme)
    return solution


def _widen(site: Site, problem: Problem, scales: dict[Activation, float]) -> bool:
    """Widens what a site gives, where that is too narrow; whether it was. ``scales`` are brought up to date."""
    least = _least_scale(site, problem, scales)
    widened = False
    for tensor in site.outputs:
        activation = problem.variables[tensor]
        if activation.prescribed is None and scales[activation] < least * (1 - 1e-6):
            scales[activation] = least
            activation.values = _wider(activation.values, _STEPS * least)
            widened = True
    return widened


def _least_scale(site: Site, problem: Problem, scales: Mapping[Activation, float]) -> float:
    node = site.node
    if node.op not in _SUMS and node.op not in _PRODUCTS:
        return 0.0
    read = [scales[_activation(site, index, problem)] for index in site.activations]
    if node.op in _SUMS:
        return (FINEST_MEAN if node.op in _MEANS else FINEST) * max(read, default=0.0)
    product = float(np.prod(read))
    if site.weight is not None:
        weights = node.inputs[site.weight]
        assert isinstance(weights, Constant), "weights are stored"
        largest = max(float(weights.values.max(initial=0.0)), -float(weights.values.min(initial=0.0)))
        product *= largest / _STEPS
    return FINEST * product if np.isfinite(product) else 0.0  # what is not finite is refused where it is rounded


def _activation(site: Site, index: int, problem: Problem) -> Activation:
    tensor: Tensor = site.node.inputs[index]
    return problem.constants[site.node, index] if isinstance(tensor, Constant) else problem.variables[tensor]


def _wider(values: Range, width: float) -> Range:
    """A range of that width on the same sides of zero."""
    return values.times(width / values.width) if values.width > 0 else Range(0.0, width)
