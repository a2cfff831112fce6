"""Layers in a row that one convolution on the blocks' grid can stand for: the first of a network, and its last.

The first are those up to where the network's own strides multiply to the block; what stands behind them runs on the
grid that it always ran on. The last are those that make an image out of that grid again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from edgec.ir.errors import InputError
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers, producer, static_shape
from edgec.ir.shapes import Shapes
from edgec.passes.layers.windows import Window
from edgec.passes.overlay.smaller_grid import ARITHMETIC, POINTWISE, POOLS

_SAME_PLACE = POINTWISE | ARITHMETIC | {"BatchNormalization"}
_DOWN = _SAME_PLACE | POOLS | {"Conv"}
_UP = _SAME_PLACE | {"Conv", "ConvTranspose", "Resize", "Upsample", "DepthToSpace"}
# How many values to each side an interpolation looks at, besides the nearest.
_INTERPOLATION = {"nearest": 0, "linear": 1, "bilinear": 1, "cubic": 2}


@dataclass(frozen=True)
class Stretch:
    """Layers in a row, each of which alone reads what the one before it gives.

    Attributes:
        nodes: in order.
        source: what the first of them reads.
        target: what the last of them gives.
        reach: how many blocks they see beside the block that they stand for: above, left, below, right.
    """

    nodes: list[Node]
    source: Variable
    target: Variable
    reach: tuple[int, int, int, int]

    @property
    def words(self) -> str:
        """The layers by name: those with weights, or all where none has."""
        layers = [node for node in self.nodes if node.op in ("Conv", "ConvTranspose")] or self.nodes
        *names, last = (f"'{node.name}'" for node in layers)
        return f"{', '.join(names)} and {last}" if names else last


def leading(graph: Graph, x: Variable, block: int, shapes: Shapes) -> Stretch:
    """The first layers, up to the one that brings the strides to the block.

    Args:
        graph: sorted.
        x: the image (n, channels, height, width).
        block: in pixels.
        shapes: of the graph.

    Raises:
        InputError: there are none such: the line names the place.
    """
    nodes: list[Node] = []
    tensor, scale = x, [1, 1]
    while scale != [block, block]:
        readers = consumers(tensor)
        so_far = f"before the strides multiply to {block} (they are {scale[0]}x{scale[1]} so far)"
        if tensor in graph.outputs or not readers:
            _refuse(_place(nodes, x), f"gives an output {so_far}")
        if len(readers) > 1:
            names = " and ".join(f"'{node.name or node.op}' ({node.op})" for node in readers)
            _refuse(_place(nodes, x), f"is read by {names} {so_far}")
        node = readers[0]
        if node.op not in _DOWN or len(_read(node)) != 1:
            _refuse(_name(node), f"is a {node.op}, which cannot be absorbed, and stands {so_far}")
        window = _window(node, shapes)
        if window is not None:
            scale = [at * stride for at, stride in zip(scale, window.strides, strict=True)]
        if any(block % at for at in scale):
            _refuse(_name(node), f"brings the strides to {scale[0]}x{scale[1]}, and the block is {block}")
        nodes.append(node)
        found = node.outputs[0]
        assert isinstance(found, Variable)
        tensor = found
    blocks, given = tuple(-(-side // block) for side in sides(x, shapes)), sides(tensor, shapes)
    if given != blocks:
        what = f"gives {given[0]}x{given[1]} values, and the image has {blocks[0]}x{blocks[1]} blocks of {block}"
        _refuse(_name(nodes[-1]), what + ": its padding does not fit")
    return Stretch(nodes, x, tensor, _reach(nodes, shapes, (1, 1), block))


def trailing(graph: Graph, output: Tensor, grid: tuple[int, int], shapes: Shapes) -> Stretch | str | None:
    """The last layers before an output, from where the network is on the blocks' grid; activations at the end stay.

    Args:
        graph: sorted.
        output: of the graph.
        grid: how many blocks the image has, (height, width).
        shapes: of the graph.

    Returns:
        ``None`` where the output is no image that is a multiple as large as the grid; why they cannot be replaced, in
        words, where they cannot.
    """
    shape = shapes.shape(output)
    if shape is None or len(shape) != 4 or not isinstance(output, Variable):
        return None
    given = sides(output, shapes)
    times = [side // cells for side, cells in zip(given, grid, strict=True)]
    if times[0] != times[1] or times[0] < 2 or given != (grid[0] * times[0], grid[1] * times[1]):
        return None
    nodes: list[Node] = []
    tensor: Tensor = output
    while tensor is output or sides(tensor, shapes) != grid:
        node = producer(tensor)
        if node is None:
            return "the image goes to the output at full size"
        if tensor is not output and (len(consumers(tensor)) > 1 or tensor in graph.outputs):
            return f"what '{node.name or node.op}' gives is read more than once"
        if node.op not in _UP or len(_read(node)) != 1 or {"output_shape", "auto_pad"} & set(node.attrs):
            return f"'{node.name or node.op}' is a {node.op}, which cannot be absorbed"
        nodes.insert(0, node)
        tensor = _read(node)[0]
    source, target = tensor, output
    # A PRelu's slopes are for channels as they were.
    while nodes and nodes[-1].op in POINTWISE - {"PRelu"}:
        kept = nodes.pop()
        target = _read(kept)[0]
    if not nodes:
        return None
    assert isinstance(source, Variable)
    return Stretch(nodes, source, target, _reach(nodes, shapes, (times[0], times[0]), 1))


def _reach(nodes: list[Node], shapes: Shapes, wide: tuple[int, int], block: int) -> tuple[int, int, int, int]:
    """How far a cell sees.

    Args:
        nodes: in order.
        shapes: of the graph.
        wide: how many values the cell has in what the last node gives.
        block: how many it has in what the first node reads.
    """
    before, behind = [], []
    for axis in (0, 1):
        low, high = 0, wide[axis] - 1
        for node in reversed(nodes):
            low, high = _seen(node, shapes, axis, low, high)
        before.append(max(0, -(low // block)))
        behind.append(max(0, high // block))
    return before[0], before[1], behind[0], behind[1]


def _seen(node: Node, shapes: Shapes, axis: int, low: int, high: int) -> tuple[int, int]:
    """What a node reads for its values from ``low`` to ``high``."""
    window = _window(node, shapes)
    if window is not None:
        stride, begin = window.strides[axis], window.begins[axis]
        more = (window.kernel[axis] - 1) * window.dilations[axis]
        if window.transposed:
            return -((more - low - begin) // stride), (high + begin) // stride
        return low * stride - begin, high * stride - begin + more
    times = sides(node.outputs[0], shapes)[axis] // sides(_read(node)[0], shapes)[axis]
    mode = node.attrs.get("mode", "nearest") if node.op in ("Resize", "Upsample") else "nearest"
    more = _INTERPOLATION.get(mode, 2)
    return low // times - more, high // times + more


def _window(node: Node, shapes: Shapes) -> Window | None:
    if node.op in POOLS:
        kernel = (1, 1, *(int(size) for size in node.attrs["kernel_shape"]))
    elif node.op in ("Conv", "ConvTranspose"):
        kernel = static_shape(node.inputs[1])
    else:
        return None
    return Window.of(node, kernel, (0, 0, *sides(_read(node)[0], shapes)), (0, 0, *sides(node.outputs[0], shapes)))


def sides(tensor: Tensor, shapes: Shapes) -> tuple[int, int]:
    """Height and width of an image, by its shape."""
    high, wide = (int(size or 0) for size in (shapes.shape(tensor) or (0, 0, 0, 0))[-2:])
    return high, wide


def _read(node: Node) -> list[Variable]:
    """What it reads that the network computes."""
    return [t for t in node.inputs if isinstance(t, Variable) and not isinstance(t, Constant) and t.name]


def _name(node: Node) -> str:
    return f"node '{node.name or node.op}'"


def _place(nodes: list[Node], x: Variable) -> str:
    return _name(nodes[-1]) if nodes else f"input '{x.name}'"


def _refuse(place: str, what: str) -> NoReturn:
    raise InputError(f"overlay: {place}", what, "use another block, or strides: keep")
