"""A network about to be quantized: where, and with which integers, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgec.ir.graph import Graph, Node
from edgec.ir.shapes import Shapes
from edgec.passes.framework.context import Context
from edgec.passes.framework.target import Scheme, Target
from edgec.passes.quantize.placement.input_placement import place_at_inputs
from edgec.passes.quantize.placement.lost_parts import lost_parts
from edgec.passes.quantize.placement.place_deciding import place_deciding
from edgec.passes.quantize.placement.placement import KeepFloat, Placement, candidates, place
from edgec.passes.quantize.placement.uneven_concat import uneven_joins
from edgec.passes.quantize.placement.unquantized_outputs import unrounded_ends
from edgec.passes.quantize.ranges.calibration import calibrate
from edgec.passes.quantize.ranges.calibrators import counts, ranges
from edgec.passes.quantize.ranges.output_ranges import output_ranges
from edgec.passes.quantize.ranges.room import with_room
from edgec.passes.quantize.ranges.softmax_headroom import score_tensors
from edgec.passes.quantize.scales.affine_parameters import Parameters
from edgec.passes.quantize.scales.problem import Problem, quantized_tensors, too_coarse
from edgec.passes.quantize.scales.scale_constraints import Activation
from edgec.passes.quantize.scales.scale_floors import solve_with_floors


@dataclass(frozen=True)
class Calibration:
    """How activations are looked at.

    Attributes:
        calibrator: the name of what chooses their ranges.
        percentile: the upper one, for the calibrator of that name.
        samples: how many calibration samples to look at; all by default.
    """

    calibrator: str
    percentile: float = 99.99
    samples: int | None = None


@dataclass(frozen=True)
class Prepared:
    """What will be written.

    Attributes:
        placement: the nodes that will run on integers, and those that stay float.
        problem: the activations of the placement.
        chosen: the integers of each.
        broken: by node, an input that needs a scale of its own although its kernel moves values.
        apart: by join, an input that keeps finer steps than the join has, and is requantized in front of it.
    """

    placement: Placement
    problem: Problem
    chosen: Mapping[Activation, Parameters]
    broken: list[tuple[Node, Activation]]
    apart: list[tuple[Node, Activation]]


def prepare(
    graph: Graph, scheme: Scheme, target: Target, keep_float: KeepFloat, calibration: Calibration, ctx: Context
) -> Prepared:
    """Chooses the nodes of ``graph`` that run on integers, and the integers.

    Args:
        graph: sorted; not changed.
        scheme, target: what the device takes.
        keep_float: why a node is to stay float, ``None`` where not.
        calibration: how activations are looked at.
        ctx: of ``graph``; what was gathered before is used again.

    Raises:
        InputError: there are no samples, or a tensor is not finite on one.
    """
    shapes = ctx.get(Shapes)
    coarse = place_deciding(graph, shapes)
    placing = place if scheme.rounds == "all" else place_at_inputs
    while True:
        placement = placing(graph, scheme, shapes, target.title, lambda node: keep_float(node) or coarse.get(node))
        placement = unrounded_ends(placement, scheme)
        wanted = quantized_tensors(placement)
        if not wanted:
            return Prepared(placement, Problem(graph, placement, {}, {}, scheme, ctx), {}, [], [])
        counting = counts(calibration.calibrator)
        others = candidates(graph, shapes)
        seen = calibrate(graph, wanted, others, ctx, samples=calibration.samples, histograms=counting)
        found = too_coarse(placement, seen, scheme) | uneven_joins(placement, seen)
        if not found and scheme.rounds == "all":
            found = lost_parts(graph, placement, seen, scheme, ctx)
        if not found:
            break
        coarse.update(found)
    spans = ranges(graph, seen, calibration.calibrator, calibration.percentile, scheme)
    if calibration.calibrator == "output":
        also = calibrate(graph, others, others, ctx, samples=calibration.samples, histograms=counting)
        spans = output_ranges(graph, spans, seen, also, scheme, calibration.samples, ctx)
    # Scores that are not rounded themselves, as in TensorRT's scheme, say what the layer that makes them must read too.
    scores = [tensor for tensor in score_tensors(graph) if tensor not in seen and tensor in others]
    known = calibrate(graph, scores, others, ctx, samples=calibration.samples, histograms=counting)
    unrounded = ranges(graph, known, calibration.calibrator, calibration.percentile, scheme)
    spans = with_room(graph, unrounded | spans, known | seen, scheme)
    problem = Problem(graph, placement, seen, spans, scheme, ctx)
    solution = solve_with_floors(problem, placement, scheme)
    return Prepared(placement, problem, solution.chosen, solution.broken, solution.apart)
