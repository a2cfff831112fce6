"""How the samples of a batch run through a graph that was exported at one batch size.

Networks are exported at a static batch size, 1 mostly, and then hold it in constants: the target of a Reshape, an
Expand, a class token. To run such a graph at any batch size, it must be known for every tensor along which axis the
samples lie. The rule is one sentence: **a tensor of n samples is the concatenation, along one axis, of what each
sample has there by itself.** An operator keeps that, with its own axis of the result, if applying it to the
concatenation is the concatenation of applying it to each. ``batch_rules`` says when that holds for each operator;
where it does not (a mean over the batch, a Reshape that splits the axis from the wrong side, a Softmax over it), the
graph has no meaning at another batch size, and the error names the node. Nothing is guessed from a dimension being 1.

The samples along the axis come in blocks: a Reshape of 1x4x8 to 4x8 leaves n samples as 4n x 8, four rows each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.graph import Constant, Graph, Node, Tensor
from edgec.ir.rules import registering
from edgec.ir.shapes import Shapes

#: The axes of the outputs, or the one of all outputs.
Axes = int | None | list[int | None]
FlowRule = Callable[["Crossing"], Axes]

#: The rule of each operator; filled by :data:`flows`.
FLOW_RULES: dict[str, FlowRule] = {}


#: Registers the rule that says where these operators leave the batch axis.
flows = registering(FLOW_RULES)


class BatchFlow:
    """The batch axis of every tensor, found node by node.

    Attributes:
        size: the batch size that the graph is exported at.
        opset: version of the standard operators.

    Raises:
        InputError: the inputs disagree on the batch size.
    """

    def __init__(self, graph: Graph, shapes: Shapes) -> None:
        self._axes: dict[Tensor, int | None] = {}
        self._shapes = shapes
        self.opset = graph.opset
        self.size = 0
        for tensor in graph.inputs:
            shape = shapes.shape(tensor)
            if isinstance(tensor, Constant) or not shape:
                continue
            first = shape[0]
            assert first is not None
            if self.size and first != self.size:
                raise InputError(
                    f"input '{tensor.name}'",
                    f"its first axis has {first} elements and other inputs' {self.size}, so neither is the batch's",
                    "export the network with the samples on the first axis of every input",
                )
            self.size = first
            self._axes[tensor] = 0

    @staticmethod
    def applies(graph: Graph, shapes: Shapes) -> bool:
        """Whether the inputs' shapes fix the batch size; a graph with a symbol there says itself what it does."""
        inputs = [tensor for tensor in graph.inputs if not isinstance(tensor, Constant)]
        found = [shape for tensor in inputs if (shape := shapes.shape(tensor))]
        unknown = any(shapes.shape(tensor) is None for tensor in inputs)
        return bool(found) and not unknown and all(shape[0] is not None for shape in found)

    def axis(self, tensor: Tensor) -> int | None:
        """The axis along which the samples lie; ``None`` where it is the same for every batch."""
        return self._axes.get(tensor)

    def visit(self, node: Node, known: Mapping[Tensor, np.ndarray]) -> None:
        """Finds the axes of what ``node`` computes.

        Raises:
            InputError: it joins samples, or their axis cannot be told.
        """
        crossing = Crossing(self, node, known, self._shapes)
        axes: Axes = None
        if any(axis is not None for axis in crossing.axes):
            rule = FLOW_RULES.get(node.op)
            if rule is None:
                raise crossing.refusal("how samples of a batch run through it is not known")
            axes = rule(crossing)
        several = axes if isinstance(axes, list) else [axes] * len(node.outputs)
        for tensor, axis in zip(node.outputs, several, strict=False):
            self._axes[tensor] = axis


class Crossing:
    """A node that samples run through, as its rule sees it.

    Attributes:
        node: the node.
        axes: the batch axis of each input.
        size: the batch size that the graph is exported at.
        opset: version of the standard operators.
    """

    def __init__(self, flow: BatchFlow, node: Node, known: Mapping[Tensor, np.ndarray], shapes: Shapes) -> None:
        self.node = node
        self.size = flow.size
        self.opset = flow.opset
        self.axes = [flow.axis(tensor) if tensor.name else None for tensor in node.inputs]
        self._known = known
        self._shapes = shapes

    def shape(self, place: int) -> tuple[int, ...]:
        """The dimensions of an input at the batch size of the export.

        Raises:
            InputError: they are not known.
        """
        return self._static(self.node.inputs[place])

    def output_shape(self, place: int = 0) -> tuple[int, ...]:
        """The same for an output."""
        return self._static(self.node.outputs[place])

    def rank(self, place: int) -> int:
        """The number of dimensions of an input, which must be known."""
        shape = self._shapes.shape(self.node.inputs[place])
        if shape is None:
            raise self.refusal(f"the rank of '{self.node.inputs[place].name}' is not known")
        return len(shape)

    def dimension(self, place: int, axis: int) -> int | None:
        """One dimension of an input; ``None`` where it is not known."""
        shape = self._shapes.shape(self.node.inputs[place])
        return None if shape is None else shape[axis]

    def has(self, place: int) -> bool:
        """Whether that input is given."""
        return place < len(self.node.inputs) and bool(self.node.inputs[place].name)

    def numbers(self, place: int, attribute: str = "") -> list[int] | None:
        """Whole numbers: the known elements of an input, or else an attribute; ``None`` where there is neither.

        Raises:
            InputError: the network computes them.
        """
        if self.has(place):
            values = self._known.get(self.node.inputs[place])
            if values is None:
                raise self.refusal(f"it takes '{self.node.inputs[place].name}', which the network computes")
            return [int(v) for v in values.reshape(-1)]
        given = self.node.attrs.get(attribute) if attribute else None
        return None if given is None else [int(v) for v in given]

    def only_first(self) -> int:
        """The axis of the first input, when no other input has samples."""
        axis = self.axes[0]
        if axis is None or any(other is not None for other in self.axes[1:]):
            raise self.refusal("an operand that belongs to all samples differs by sample")
        return axis

    def kept(self, axis: int, used: Sequence[int]) -> int:
        """``axis``, unless it is among those that the operator works along."""
        if axis in used:
            raise self.joins(axis)
        return axis

    def joins(self, axis: int) -> InputError:
        """The error for an operator that works along the batch axis."""
        return self.refusal(f"it works along axis {axis}, which is the batch's")

    def refusal(self, what: str) -> InputError:
        """The error for a node that has no meaning at another batch size."""
        label = self.node.name or next((t.name for t in self.node.outputs), "")
        return InputError(
            f"node '{label}' ({self.node.op})",
            f"{what}, so the model runs at batch size {self.size} only",
            "export the network with a dynamic batch, so that samples stay apart",
        )

    def _static(self, tensor: Tensor) -> tuple[int, ...]:
        shape = self._shapes.shape(tensor)
        if shape is None or any(d is None for d in shape):
            raise self.refusal(f"the shape of '{tensor.name}' is not known")
        return tuple(int(d) for d in shape if d is not None)
