"""A network of one batch size, opened for any: its files say ``batch`` where the size stood.

What runs through it is the samples of a batch, side by side along one axis of each tensor (:mod:`edgec.ir.batch_flow`
finds which). Operators that hold the batch size in a constant are rewritten: the target of a Reshape or an Expand, the
sizes of a Resize, the end of a Slice, what a Concat puts beside each sample. Where the samples do not stay apart, or
how they run is not known, the node is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgec.ir import batch_rules
from edgec.ir.batch_flow import BatchFlow
from edgec.ir.dimensions import reshaped
from edgec.ir.errors import EmitError, InputError
from edgec.ir.execution import Session, sqnr_db
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable
from edgec.ir.rules import registering
from edgec.ir.shapes import Shapes
from edgec.passes.framework.settling import settle

# Importing the rules registers them.
__all__ = ["Batches", "batch_axes", "batch_rules", "check_batches", "opened"]

SYMBOL = "batch"
# Batches of another size are computed by other kernels, and a value between two steps of 8 bits may go to the other
# one; samples that run into each other leave next to nothing.
_ALIKE_DB = 40.0
_MEND = "leave out 'profiles', or change the network so that its samples stay apart"

Values = Mapping[str, np.ndarray]
Rewrite = Callable[[Graph, Node, Shapes, BatchFlow], None]
_REWRITES: dict[str, Rewrite] = {}
rewrites = registering(_REWRITES)


def batch_axes(graph: Graph, where: str) -> tuple[BatchFlow, Shapes]:
    """Where the samples lie in each tensor of ``graph``, which is sorted and not changed.

    Raises:
        EmitError: they do not stay apart; the line names the node.
    """
    shapes = Shapes(graph)
    settings = (constant for constant in graph.constants() if constant.dtype == np.int64)
    known: dict[Tensor, np.ndarray] = {constant: constant.values for constant in settings}
    try:
        flow = BatchFlow(graph, shapes)
        for node in graph.nodes:
            if node.op in ("Shape", "Size") and flow.axis(node.inputs[0]) is not None:
                raise InputError(_named(node), "it reads the batch size")
            if any(True for _ in node.subgraphs()):  # they read tensors that are no inputs of the node
                raise InputError(_named(node), "how samples of a batch run through it is not known")
            flow.visit(node, known)
    except InputError as error:
        what = error.what.partition(", so the model runs at batch size")[0]
        raise EmitError(f"{where}: profiles: {error.where}", f"{what}, so the batch cannot vary", _MEND) from None
    return flow, shapes


def _named(node: Node) -> str:
    return f"node '{node.name}' ({node.op})"


def opened(graph: Graph, where: str) -> tuple[Graph, dict[str, int | None]]:
    """A copy of ``graph`` that takes any number of samples, and the batch axis of each output.

    Raises:
        EmitError: see :func:`batch_axes`.
    """
    graph = graph.copy()
    flow, shapes = batch_axes(graph, where)
    for node in list(graph.nodes):
        rule = _REWRITES.get(node.op)
        if rule is not None and flow.axis(node.outputs[0]) is not None:
            rule(graph, node, shapes, flow)
    axes = {tensor.name: flow.axis(tensor) for tensor in graph.outputs}
    for tensor in (*graph.inputs, *graph.outputs):
        axis, shape = flow.axis(tensor), shapes.shape(tensor)
        if axis is not None and shape is not None and isinstance(tensor, Variable):
            rows = (shape[axis] or 0) // flow.size
            dims: list[int | str | None] = list(shape)
            dims[axis] = SYMBOL if rows == 1 else f"{SYMBOL}_x{rows}"
            tensor.shape = dims
    settle(graph, f"{where}: profiles")
    return graph, axes


@rewrites("Reshape")
def _reshape(graph: Graph, node: Node, shapes: Shapes, flow: BatchFlow) -> None:
    """The dimension with the samples is what is left of the others."""
    target, axis = node.inputs[1], flow.axis(node.outputs[0])
    shape = shapes.static(node.inputs[0])
    assert isinstance(target, Constant) and axis is not None, "the flow through it is known"
    dims = reshaped(target.values.reshape(-1).tolist(), shape, bool(node.attrs.get("allowzero")))
    dims[axis] = -1
    node.inputs[1] = graph.const(f"{node.name}.shape", np.array(dims, np.int64))


@rewrites("Flatten")
def _flatten(graph: Graph, node: Node, shapes: Shapes, flow: BatchFlow) -> None:
    """The same: in front of axis 0 it would put all samples into one row."""
    dims, axis = list(shapes.static(node.outputs[0])), flow.axis(node.outputs[0])
    assert axis is not None, "the flow through it is known"
    dims[axis] = -1
    node.op = "Reshape"
    node.attrs.clear()
    node.inputs.append(graph.const(f"{node.name}.shape", np.array(dims, np.int64)))


@rewrites("Slice")
def _slice(graph: Graph, node: Node, shapes: Shapes, flow: BatchFlow) -> None:
    """One that takes all samples of the batch size takes all of any."""
    rank, axis = len(shapes.static(node.inputs[0])), flow.axis(node.inputs[0])
    given = [tensor.values.reshape(-1) for tensor in node.inputs[1:] if isinstance(tensor, Constant)]
    starts, ends = given[0].copy(), given[1].copy()
    axes = given[2] if len(given) > 2 else np.arange(len(starts))
    steps = given[3].copy() if len(given) > 3 else np.ones_like(starts)
    own = axes % rank == axis
    if own.any():
        starts[own], ends[own], steps[own] = 0, np.iinfo(ends.dtype).max, 1
        names = ("starts", "ends", "axes", "steps")
        made = [graph.const(f"{node.name}.{n}", v) for n, v in zip(names, (starts, ends, axes, steps), strict=True)]
        node.inputs[1:] = made


@rewrites("Concat")
def _concat(graph: Graph, node: Node, shapes: Shapes, flow: BatchFlow) -> None:
    """A part that is the same for all samples, such as a class token, stands beside each."""
    axis = flow.axis(node.outputs[0])
    like = next(tensor for tensor in node.inputs if flow.axis(tensor) is not None)
    alone = [place for place, tensor in enumerate(node.inputs) if flow.axis(tensor) is None]
    if not alone or axis is None:
        return
    index = graph.const(f"{node.name}.axis", np.array([axis], np.int64))
    size = graph.op("Gather", [graph.op("Shape", [like]), index], axis=0)
    rank = len(shapes.static(like))
    ones = [graph.const(f"{node.name}.ones", np.ones(count, np.int64)) for count in (axis, rank - 1 - axis)]
    shape = graph.op("Concat", [ones[0], size, ones[1]], axis=0)
    for place in alone:
        node.inputs[place] = graph.op("Expand", [node.inputs[place], shape])


@rewrites("Expand")
def _expand(graph: Graph, node: Node, shapes: Shapes, flow: BatchFlow) -> None:
    """1 keeps the dimension that is there."""
    target, axis = node.inputs[1], flow.axis(node.outputs[0])
    assert isinstance(target, Constant) and axis is not None, "the flow through it is known"
    dims = target.values.reshape(-1).copy()
    place = axis - len(shapes.static(node.outputs[0]))
    if len(dims) >= -place:
        dims[place] = 1
        node.inputs[1] = graph.const(f"{node.name}.shape", dims)


@rewrites("Resize")
def _resize(graph: Graph, node: Node, shapes: Shapes, flow: BatchFlow) -> None:
    """Sizes become the scales that they stand for."""
    if len(node.inputs) < 4 or not node.inputs[3].name:
        return
    before, after = (np.array(shapes.static(t), np.float64) for t in (node.inputs[0], node.outputs[0]))
    node.attrs.pop("keep_aspect_ratio_policy", None)  # the sizes were found by it, and scales have none
    scales = (after / before).astype(np.float32)
    short = np.floor(before * scales) < after  # rounding down to float32 may lose the last row
    scales[short] = np.nextafter(scales[short], np.float32(np.inf))
    if "axes" in node.attrs:
        scales = scales[[int(axis) for axis in node.attrs["axes"]]]
    node.inputs[2] = graph.const(f"{node.name}.scales", scales)
    del node.inputs[3:]


class Batches:
    """Samples put together into batches of any size, and what a network of one batch size computes of them.

    Args:
        graph: at one batch size.
        feeds: of it.
        axes: of its outputs.
    """

    def __init__(self, graph: Graph, feeds: Sequence[Values], axes: Mapping[str, int | None]) -> None:
        self._axes = axes
        fed = {tensor.name: bool(tensor.shape) for tensor in graph.inputs}
        self._size = next(int(one.shape[0]) for one in feeds[0].values() if one.ndim)
        session = Session(graph)
        self._inputs: list[dict[str, np.ndarray]] = []
        self._outputs: list[dict[str, np.ndarray]] = []
        for one in feeds:
            made = session.run(one)
            for index in range(self._size):
                self._inputs.append({k: v[index : index + 1] if fed[k] else v for k, v in one.items()})
                self._outputs.append({name: self._part(values, axes[name], index) for name, values in made.items()})

    def _part(self, values: np.ndarray, axis: int | None, index: int) -> np.ndarray:
        return values if axis is None else np.split(values, self._size, axis)[index]

    def inputs(self, count: int) -> dict[str, np.ndarray]:
        """``count`` samples, the same ones over again where there are fewer."""
        chosen = [self._inputs[index % len(self._inputs)] for index in range(count)]
        return {k: np.concatenate([one[k] for one in chosen]) if v.ndim else v for k, v in chosen[0].items()}

    def outputs(self, count: int) -> dict[str, np.ndarray]:
        """What each of them gives by itself, side by side."""
        chosen = [self._outputs[index % len(self._outputs)] for index in range(count)]
        axes = self._axes
        return {
            name: values if axes[name] is None else np.concatenate([one[name] for one in chosen], axes[name] or 0)
            for name, values in chosen[0].items()
        }


def check_batches(graph: Graph, batches: Batches, sizes: Sequence[int], where: str) -> dict[str, float]:
    """Runs an opened network on batches in onnxruntime; returns by size the SQNR to samples that are alone, in dB.

    Raises:
        EmitError: a sample gives something else in company than alone.
    """
    session = Session(graph)
    found = {}
    for size in dict.fromkeys(sizes):
        try:
            given = session.run(batches.inputs(size))
        except InputError as error:
            raise EmitError(
                f"{where}: profiles", f"does not take {size} samples at once ({error.what})", _MEND
            ) from None
        found[str(size)] = sqnr_db(batches.outputs(size), given)
        if found[str(size)] < _ALIKE_DB:
            what = f"gives something else for {size} samples at once than for each alone ({found[str(size)]:.1f} dB)"
            raise EmitError(f"{where}: profiles", what, _MEND)
    return found
