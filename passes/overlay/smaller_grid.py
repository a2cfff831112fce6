"""What stands behind the first convolution, brought to a grid that is ``block`` times as coarse.

Most operators do not care how large an image is. Those that do are changed: a pool or a kernel over the whole image
covers what is left of it; a linear layer behind a Flatten gets for each cell the sum of the weights that its pixels
had; sizes that are written down are divided; and where an image is an output, the last layer gives each cell's pixels
as channels, which are put in their places (a sub-pixel convolution: Shi et al., CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, constant_of, consumers, producer, static_shape
from edgec.ir.rules import registering
from edgec.ir.shapes import Shapes

Sides = tuple[int, int]
POINTWISE = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Selu", "Celu", "Gelu"}
    | {"Softplus", "Softsign", "Mish", "Abs", "Neg", "Exp", "Sqrt", "Erf", "Identity", "Dropout", "Swish"}
)
# Operators that treat every place of an image alike, or a neighbourhood of it.
_ANY_SIZE = POINTWISE | {
    "Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "LRN", "Concat", "Add", "Sub", "Mul", "Div",
    "Max", "Min", "Softmax", "LogSoftmax", "ReduceMean", "ReduceMax", "DepthToSpace", "SpaceToDepth", "Pow",
    "Pad", "Slice", "Split",
}  # fmt: skip
POOLS = frozenset({"AveragePool", "MaxPool", "LpPool"})
ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"})
# Operators that may change an image's size by numbers that are written down.
_CUTTING = frozenset({"Pad", "Slice", "Split"})
_WHOLE = frozenset({"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"})

Rule = Callable[["_Grid", Node], bool]
_RULES: dict[str, Rule] = {}
rules = registering(_RULES)


def make_smaller(graph: Graph, first: Node, block: int, shapes: Shapes) -> list[str]:
    """Adapts what reads ``first`` in place.

    Args:
        graph: sorted; ``first`` gives an image that is ``block`` times as coarse as its shape says.
        block: by how much.
        shapes: of the graph as it was.

    Returns:
        What was changed, in words.

    Raises:
        InputError: an operator depends on the size in a way that cannot be changed; the line names it.
    """
    return _Grid(graph, first, block, shapes).run()


class _Grid:
    """Follows what shrinks through a graph; ``shrunk`` maps each image to its new sides."""

    def __init__(self, graph: Graph, first: Node, block: int, shapes: Shapes) -> None:
        self.graph, self.block, self.shapes = graph, block, shapes
        self.first = first
        self.shrunk: dict[Tensor, Sides] = {first.outputs[0]: self.divided(first, self.sides(first.outputs[0]))}
        self.flat: dict[Tensor, Tensor] = {}
        self.done: list[str] = []

    def run(self) -> list[str]:
        behind = False
        for node in list(self.graph.nodes):
            if node is self.first:
                behind = True
            elif behind:
                self._visit(node)
        for output in list(self.graph.outputs):
            if output in self.flat:
                self._refuse(producer(output), "gives an image without its axes as an output")
            if output in self.shrunk and isinstance(output, Variable):
                self._as_large_as_before(output)
        return self.done

    def sides(self, tensor: Tensor) -> Sides:
        """Height and width, as they were."""
        shape = self.shapes.shape(tensor)
        assert shape is not None and len(shape) == 4, "an image"
        high, wide = (int(size or 0) for size in shape[2:])
        return high, wide

    def divided(self, node: Node, sides: Sides) -> Sides:
        """Sides of what a node gives, on the coarse grid."""
        if any(side % self.block for side in sides):
            self._refuse(node, f"gives {sides[0]}x{sides[1]} values, which the block of {self.block} does not divide")
        return sides[0] // self.block, sides[1] // self.block

    def _visit(self, node: Node) -> None:
        read = [tensor for tensor in node.inputs if tensor in self.shrunk or tensor in self.flat]
        if not read:
            return
        rule = _RULES.get(node.op)
        if rule is not None and rule(self, node):
            return
        if any(tensor in self.flat for tensor in read) and node.op not in POINTWISE:
            self._refuse(node, "depends on the size of the image")
        if node.op in POINTWISE and read[0] in self.flat:
            self.flat[node.outputs[0]] = self.flat[read[0]]
            return
        if node.op not in _ANY_SIZE:
            self._refuse(node, "depends on the size of the image")
        self._follow(node, read)

    def _follow(self, node: Node, read: Iterable[Tensor]) -> None:
        """What an operator that takes any size gives."""
        for other in node.inputs:
            if isinstance(other, Constant) or other in self.shrunk or not other.name:
                continue
            shape = self.shapes.shape(other)
            if shape is not None and len(shape) == 4 and any(size not in (1, None) for size in shape[2:]):
                self._refuse(node, f"meets '{other.name}', which does not come from the first convolution")
        for constant in node.inputs if node.op in ARITHMETIC else ():
            if isinstance(constant, Constant) and any(size > 1 for size in constant.values.shape[-2:]):
                self._refuse(node, "has a constant for each place of the image")
        for tensor in node.outputs:
            shape = self.shapes.shape(tensor)
            if not tensor.name or shape is None or len(shape) != 4:
                if tensor.name and node.op.startswith("Reduce"):
                    continue
                self._refuse(node, "depends on the size of the image")
            before = self.sides(tensor)
            if node.op in _CUTTING and before != self.sides(node.inputs[0]):
                self._refuse(node, "adds or takes away a fixed number of pixels")
            if before != (1, 1) or node.op not in ("ReduceMean", "ReduceMax"):
                self.shrunk[tensor] = self._given(node, before)

    def _given(self, node: Node, before: Sides) -> Sides:
        """The sides that a node gives now."""
        source = next(tensor for tensor in node.inputs if tensor in self.shrunk)
        now, was = self.shrunk[source], self.sides(source)
        if node.op in ("Conv", *POOLS):
            return self._windowed(node, now)
        if node.op == "ConvTranspose" and not {"output_shape", "auto_pad"} & set(node.attrs):
            return self._spread(node, now)
        sides = [n * b // w if n * b % w == 0 else 0 for n, b, w in zip(now, before, was, strict=True)]
        if not all(sides):
            self._refuse(node, f"gives {before[0]}x{before[1]} values of {was[0]}x{was[1]}, which are {now} now")
        return sides[0], sides[1]

    def _spread(self, node: Node, now: Sides) -> Sides:
        """What a transposed convolution makes of an image of those sides."""
        kernel, pads = static_shape(node.inputs[1])[2:], node.attrs.get("pads", [0, 0, 0, 0])
        strides, dilations = node.attrs.get("strides", [1, 1]), node.attrs.get("dilations", [1, 1])
        more = node.attrs.get("output_padding", [0, 0])
        high, wide = (
            (now[axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
            + more[axis] - pads[axis] - pads[axis + 2]
            for axis in range(2)
        )  # fmt: skip
        if high < 1 or wide < 1:
            self._refuse(node, f"gives nothing of the {now[0]}x{now[1]} values that are left")
        return high, wide

    def _windowed(self, node: Node, now: Sides) -> Sides:
        """What a convolution or pool makes of an image of those sides."""
        kernel = node.attrs.get("kernel_shape") or static_shape(node.inputs[1])[2:]
        strides, dilations = node.attrs.get("strides", [1, 1]), node.attrs.get("dilations", [1, 1])
        pads = node.attrs.get("pads", [0, 0, 0, 0])
        if node.attrs.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
            return -(-now[0] // strides[0]), -(-now[1] // strides[1])
        made = []
        for axis in range(2):
            room = now[axis] + pads[axis] + pads[axis + 2] - (kernel[axis] - 1) * dilations[axis] - 1
            if room < 0:
                self._refuse(node, f"has a kernel larger than the {now[0]}x{now[1]} values that are left")
            ceil = node.attrs.get("ceil_mode", 0)
            made.append((-(-room // strides[axis]) if ceil else room // strides[axis]) + 1)
        return made[0], made[1]

    def cells(self, node: Node, weights: np.ndarray, now: Sides) -> np.ndarray:
        """For weights (..., height, width) of an image, the sums of those of each cell."""
        high, wide = weights.shape[-2:]
        if high % now[0] or wide % now[1]:
            self._refuse(node, f"has weights for {high}x{wide} values, of which {now[0]}x{now[1]} are left")
        parts = weights.reshape(*weights.shape[:-2], now[0], high // now[0], now[1], wide // now[1])
        summed: np.ndarray = parts.sum(axis=(-3, -1))
        return summed

    def _as_large_as_before(self, output: Variable) -> None:
        """Gives the last layer in front of an output ``block`` squared times its channels, and spreads them."""
        before, now = self.sides(output), self.shrunk[output]
        factor = before[0] // now[0] or 1
        if (now[0] * factor, now[1] * factor) != before:
            self._refuse(producer(output), f"gives {now[0]}x{now[1]} values now instead of {before[0]}x{before[1]}")
        last = producer(output)
        while last is not None and last.op in POINTWISE - {"PRelu"} and len(consumers(last.inputs[0])) == 1:
            last = producer(last.inputs[0])
        fits = last is not None and last.op in ("Conv", "ConvTranspose") and int(last.attrs.get("group", 1)) == 1
        if not fits or consumers(output):
            self._refuse(last, "gives the image at the end, and is no convolution that could give it cell by cell")
        assert last is not None
        axis = 0 if last.op == "Conv" else 1
        for place in range(1, len(last.inputs)):
            constant = last.inputs[place]
            if not isinstance(constant, Constant):
                self._refuse(last, "has weights that the network computes")
            times = [1] * constant_of(constant).values.ndim
            times[axis if place == 1 else 0] = factor**2
            last.inputs[place] = self.graph.const(constant.name, np.tile(constant_of(constant).values, times))
        name = output.name
        output.name = self.graph.fresh(f"{name}.cells")
        made = self.graph.op("DepthToSpace", [output], name=f"{name}.pixels", blocksize=factor, mode="DCR")
        made.name, made.dtype = name, output.dtype
        made.shape = None if output.shape is None else list(output.shape)
        output.shape = None
        self.graph.outputs[:] = [made if tensor is output else tensor for tensor in self.graph.outputs]
        self.done.append(f"'{last.name}' gives {factor}x{factor} pixels for each of its cells")

    def _refuse(self, node: Node | None, what: str) -> None:
        where = "the network" if node is None else f"node '{node.name or node.op}'"
        fix = "use a smaller block, cut the network there, or make it independent of the image's size"
        raise InputError(f"overlay: {where}", what, fix)


@rules(*_WHOLE)
def whole(grid: _Grid, node: Node) -> bool:
    """A mean or maximum over all of the image takes any size."""
    return node.inputs[0] in grid.shrunk


@rules(*POOLS)
def pool(grid: _Grid, node: Node) -> bool:
    """A pool over the whole image covers what is left of it."""
    source = node.inputs[0]
    if source not in grid.shrunk or tuple(node.attrs["kernel_shape"]) != grid.sides(source):
        if source in grid.shrunk:
            grid.shrunk[node.outputs[0]] = grid._windowed(node, grid.shrunk[source])
        return source in grid.shrunk
    node.attrs["kernel_shape"] = list(grid.shrunk[source])
    node.attrs["strides"] = [1, 1]
    grid.done.append(f"'{node.name}' covers {grid.shrunk[source][0]}x{grid.shrunk[source][1]} values")
    return True


@rules("Conv")
def whole_kernel(grid: _Grid, node: Node) -> bool:
    """A kernel over the whole image gets for each cell the sum of its weights there."""
    source, weight = node.inputs[0], node.inputs[1]
    if source not in grid.shrunk or static_shape(weight)[2:] != grid.sides(source) or grid.sides(source) == (1, 1):
        return False
    if any(node.attrs.get("pads", [0])) or not isinstance(weight, Constant):
        return False
    now = grid.shrunk[source]
    node.inputs[1] = grid.graph.const(weight.name, grid.cells(node, weight.values, now))
    node.attrs["kernel_shape"] = list(now)
    grid.done.append(f"'{node.name}' covers {now[0]}x{now[1]} values")
    return True


@rules("Flatten", "Reshape")
def flatten(grid: _Grid, node: Node) -> bool:
    """An image as a row: the linear layer behind it is changed."""
    source = node.inputs[0]
    shape, given = grid.shapes.shape(source), grid.shapes.shape(node.outputs[0])
    if source not in grid.shrunk or shape is None or given is None or len(given) != 2 or given[0] != shape[0]:
        return False
    if node.op == "Reshape":
        node.inputs[1] = grid.graph.const(f"{node.name}.shape", np.array([int(given[0] or 1), -1], np.int64))
    grid.flat[node.outputs[0]] = source
    return True


@rules("Gemm", "MatMul")
def linear(grid: _Grid, node: Node) -> bool:
    """Each cell gets the sum of the weights that its pixels had: right where they are what the cell is."""
    source = grid.flat.get(node.inputs[0])
    weight = node.inputs[1]
    if source is None or not isinstance(weight, Constant) or node.attrs.get("transA", 0):
        return False
    transposed = bool(node.attrs.get("transB", 0))
    values = weight.values if transposed else weight.values.T
    channels, now = int((grid.shapes.shape(source) or [0, 0])[1] or 0), grid.shrunk[source]
    image = values.reshape(len(values), channels, *grid.sides(source))
    summed = grid.cells(node, image, now).reshape(len(values), -1)
    node.inputs[1] = grid.graph.const(weight.name, np.ascontiguousarray(summed if transposed else summed.T))
    grid.done.append(f"'{node.name}' reads {now[0]}x{now[1]} cells")
    return True


@rules("Resize", "Upsample")
def resize(grid: _Grid, node: Node) -> bool:
    """Sizes that are written down are divided; scales stay."""
    if node.inputs[0] not in grid.shrunk:
        return False
    sizes = node.inputs[3] if len(node.inputs) > 3 and node.inputs[3].name else None
    was, now = grid.sides(node.inputs[0]), grid.shrunk[node.inputs[0]]
    given = grid.sides(node.outputs[0])
    made = tuple(g * n // w for g, n, w in zip(given, now, was, strict=True))
    if sizes is not None:
        if not isinstance(sizes, Constant):
            grid._refuse(node, "has sizes that the network computes")
        new = np.array(constant_of(sizes).values)
        new[-2:] = made
        node.inputs[3] = grid.graph.const(f"{node.name}.sizes", new)
    grid.shrunk[node.outputs[0]] = (made[0], made[1])
    return True
