"""A network on its own grid: one convolution of overlay channels for its first layers, and one for its last.

Weights between the two stay as they are, and so does what they are for: each of the two convolutions is fitted, on
calibration data, to what the layers in its place gave there. Activations between those layers are what it misses.

A linear analysis is not made one with the convolution behind it, although that computes a little less: frequencies
are nearly independent of each other, and neighbouring pixels are not. Training stands higher rates on them, and what
prunes or factorizes behind can leave out those that say little.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgec.ir.frequency_bank import Overlay
from edgec.ir.graph import Graph, Node, Variable, producer
from edgec.ir.shapes import Shapes
from edgec.passes.framework.context import Context
from edgec.passes.overlay.conversion import Converted, annotate_anew
from edgec.passes.overlay.response import Geometry, Response, cells, fit_response
from edgec.passes.overlay.stage import Light, write_stage
from edgec.passes.overlay.stretches import Stretch, leading, sides, trailing


def absorb(
    graph: Graph, first: Node, x: Variable, overlay: Overlay, light: Light, reach: int | None, ctx: Context
) -> Converted:
    """Rewrites ``graph`` in place.

    Args:
        graph, first, x, overlay, light, ctx: as :func:`.conversion.convert` takes them.
        reach: how many blocks the new convolutions see to each side, at most.

    Raises:
        InputError: the first layers cannot be replaced.
    """
    shapes = Shapes(graph)
    begin = leading(graph, x, overlay.block, shapes)
    high, wide = sides(begin.target, shapes)
    ends = [(output, trailing(graph, output, (high, wide), shapes)) for output in graph.outputs]
    before = graph.copy()
    old = {tensor.name: tensor for tensor in before.variables()}

    stage = write_stage(graph, x, overlay, light, f"{x.name}.overlay")
    graph.sort()
    geometry = Geometry.around(begin.reach, reach)
    response = fit_response(before, old[begin.target.name], graph, stage, geometry, cells(1), ctx)
    _replace(graph, begin, stage, geometry, response, f"{first.name}.overlay")
    annotate_anew(graph)

    changed = []
    for output, end in ends:
        if isinstance(end, str):
            ctx.missed("the network", f"what makes output '{output.name}' stays: {end}")
        if not isinstance(end, Stretch) or not isinstance(output, Variable):
            continue
        times = sides(end.target, shapes)[0] // high
        geometry = Geometry.around(end.reach, reach)
        last = fit_response(before, old[end.target.name], graph, end.source, geometry, cells(times), ctx)
        _replace(graph, end, end.source, geometry, last, f"{end.nodes[-1].name}.cells")
        _spread(graph, output, times)
        annotate_anew(graph)
        given = f"gives {times}x{times} pixels for each of its cells, and {last.explained:.1%} of the old response"
        changed.append(f"one convolution in the place of {end.words} {given}")
    words = f"one convolution in the place of {begin.words} gives {response.explained:.1%} of the old response"
    return Converted(response.explained, changed, composed=False, words=words)


def _replace(graph: Graph, stretch: Stretch, source: Variable, geometry: Geometry, made: Response, name: str) -> None:
    """Lets one convolution of ``source`` give what the stretch gave. The tensor keeps its name, for distill to find."""
    last = producer(stretch.target)
    assert last is not None
    last.outputs[list(last.outputs).index(stretch.target)] = Variable(graph.fresh(f"{name}.before"), np.float32)
    weight, bias = (graph.const(f"{name}.{part}", getattr(made, part)) for part in ("weight", "bias"))
    attrs: dict[str, Any] = dict(geometry.attrs)
    graph.op("Conv", [source, weight, bias], name=name, outputs=[stretch.target], **attrs)


def _spread(graph: Graph, output: Variable, times: int) -> None:
    """Puts a cell's pixels, which are its channels, in their places in an output of the graph."""
    last = producer(output)
    assert last is not None
    given = Variable(graph.fresh(f"{output.name}.pixels"), output.dtype)
    last.outputs[list(last.outputs).index(output)] = given
    graph.op("DepthToSpace", [given], name=f"{output.name}.spread", outputs=[output], blocksize=times, mode="DCR")
