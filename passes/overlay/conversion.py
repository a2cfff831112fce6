"""A network of plain images turned into one that reads the overlay: the stage, the first convolution anew, the rest."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.ir.errors import InputError
from edgec.ir.frequency_bank import Overlay
from edgec.ir.graph import Constant, Graph, Node, Variable
from edgec.ir.shapes import Shapes
from edgec.passes.framework.context import Context
from edgec.passes.overlay.composing import compose
from edgec.passes.overlay.response import Geometry, Response, fit_response, means
from edgec.passes.overlay.smaller_grid import make_smaller
from edgec.passes.overlay.stage import Light, write_stage


@dataclass(frozen=True)
class Converted:
    """What was done.

    Attributes:
        explained: the part of its old response that the first convolution gives.
        changed: the layers that were adapted, in words.
        composed: whether it and the analysis became one.
        words: how much of what the new convolution gives.
    """

    explained: float
    changed: list[str]
    composed: bool
    words: str


def convert(graph: Graph, first: Node, x: Variable, overlay: Overlay, light: Light, ctx: Context) -> Converted:
    """Rewrites ``graph`` in place.

    Args:
        graph: sorted.
        first: its first convolution.
        x: its input that images feed.
        overlay: which channels.
        light: how ``x`` gives luminance.
        ctx: the calibration data.

    Raises:
        InputError: the network depends on the image's size.
    """
    shapes, geometry = Shapes(graph), Geometry.of(first, overlay.block)
    _check_divided(first, shapes, overlay.block)
    response = _response(graph, first, x, overlay, light, geometry, ctx)
    changed = make_smaller(graph, first, overlay.block, shapes)
    stage = write_stage(graph, x, overlay, light, f"{x.name}.overlay")
    weight, bias = (graph.const(f"{first.name}.overlay.{name}", getattr(response, name)) for name in ("weight", "bias"))
    first.inputs[:] = [stage, weight, bias]
    first.attrs = dict(geometry.attrs)
    composed = overlay.magnitude == "none" and not overlay.center and compose(graph, stage)
    annotate_anew(graph)
    words = f"the first convolution gives {response.explained:.1%} of its old response"
    return Converted(response.explained, changed, composed, words)


def annotate_anew(graph: Graph) -> None:
    """Sorts a graph, takes out what is dead, and writes the shapes that its tensors have now."""
    for tensor in graph.variables():
        if tensor not in graph.inputs and tensor not in graph.outputs:
            tensor.shape = None
    graph.sort()
    graph.remove_dead()
    Shapes(graph).annotate(graph)


def _response(
    graph: Graph, first: Node, x: Variable, overlay: Overlay, light: Light, geometry: Geometry, ctx: Context
) -> Response:
    """The first convolution anew, fitted on copies of the network with and without the stage."""
    before, staged = graph.copy(), graph.copy()
    twin = dict(zip(graph.nodes, before.nodes, strict=True))[first]
    given = next(tensor for tensor in staged.inputs if tensor.name == x.name)
    channels = write_stage(staged, given, overlay, light, f"{x.name}.overlay")
    staged.sort()
    old = twin.outputs[0]
    assert isinstance(old, Variable)
    return fit_response(before, old, staged, channels, geometry, means(overlay.block), ctx)


def first_convolution(graph: Graph, x: Variable) -> Node:
    """The layer that alone reads ``x``.

    Raises:
        InputError: that is none which can be replaced.
    """
    if len(graph.graphs()) > 1:
        what = "has control flow, whose bodies may depend on the size of the image"
        raise InputError("overlay: the network", what, "cut the network in front of it")
    readers = list(dict.fromkeys(x.outputs))
    if len(readers) != 1 or readers[0].op != "Conv" or int(readers[0].attrs.get("group", 1)) != 1:
        words = ", ".join(f"'{node.name or node.op}' ({node.op})" for node in readers) or "nothing"
        what = f"is read by {words}, and a first convolution without groups is wanted"
        raise InputError(f"overlay: input '{x.name}'", what, "put 'fold' before it, or cut what stands in front")
    if not all(isinstance(tensor, Constant) or not tensor.name for tensor in readers[0].inputs[1:]):
        what = "has weights that the network computes"
        raise InputError(f"overlay: node '{readers[0].name}'", what, "export the network with its weights")
    return readers[0]


def _check_divided(first: Node, shapes: Shapes, block: int) -> None:
    sides = [int(size or 0) for size in (shapes.shape(first.outputs[0]) or ())[2:]]
    if any(side % block for side in sides):
        what = f"gives {sides[0]}x{sides[1]} values, which blocks of {block} do not divide"
        raise InputError(f"overlay: node '{first.name}'", what, "use a smaller block, or other sizes of images")
