"""The walk over the graph: each ONNX node is handed to the rule for its operator, which adds to the TFLite file.

A rule finds its inputs as :class:`~edgec.backends.coral.value.Value`, asks for them in the memory order that its
TFLite operator needs, and leaves its outputs as values. Three things are looked up ahead, along the tensors that a
node's output runs through: a Relu or Clip that can join the operator, the QuantizeLinear that says in which integers
the output is wanted, and a reader that wants the channels in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf, prod
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout
from edgec.backends.coral.flatbuffer import File
from edgec.backends.coral.quantization import UNBOUNDED, Quantization, covering
from edgec.backends.coral.value import Value, constant
from edgec.ir.errors import EmitError, InternalError
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers

Rule = Callable[["Lowering", Node], None]
Clamp = tuple[float, float]

#: The rule for each ONNX operator; filled by :func:`lowers`.
RULES: dict[str, Rule] = {}

#: Operators that read ``(N, C, H, W)`` and whose TFLite counterparts want it channels last.
IMAGE_OPERATORS = frozenset(
    [
        "Conv",
        "ConvTranspose",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Resize",
        "Upsample",
        "SpaceToDepth",
        "DepthToSpace",
    ]
)
#: Operators that take each element for itself, so that any memory order passes through.
_ANY_ORDER = frozenset(
    [
        "Relu",
        "Clip",
        "LeakyRelu",
        "PRelu",
        "Sigmoid",
        "Tanh",
        "Elu",
        "Gelu",
        "QuantizeLinear",
        "DequantizeLinear",
        "Identity",
    ]
)
_SAME_INDEX = frozenset(["Reshape", "Flatten", "Squeeze", "Unsqueeze"])

_ONNX_INT8 = 3

_FUSED = {
    UNBOUNDED: schema.ActivationFunctionType.NONE,
    (0.0, inf): schema.ActivationFunctionType.RELU,
    (0.0, 6.0): schema.ActivationFunctionType.RELU6,
    (-1.0, 1.0): schema.ActivationFunctionType.RELU_N1_TO_1,
}
_ACTIVATION_KINDS = {(0.0, inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


def lowers(*operators: str) -> Callable[[Rule], Rule]:
    """Registers the rule for these ONNX operators."""

    def register(rule: Rule) -> Rule:
        for operator in operators:
            RULES[operator] = rule
        return rule

    return register


@dataclass(frozen=True)
class Port:
    """An input or output of the file, against the graph's.

    Attributes:
        name: the ONNX tensor's, and the file's.
        shape: ONNX shape.
        permutation: ONNX dimensions in the order in which the file stores them.
        quantization: ``None`` where the file takes or gives float32.
    """

    name: str
    shape: tuple[int, ...]
    permutation: tuple[int, ...]
    quantization: Quantization | None


@dataclass
class Lowered:
    """A lowered graph.

    Attributes:
        file: the TFLite file.
        inputs, outputs: its signature against the graph's.
        notes: what the user should know: requantizations, transpositions, what stayed in float.
    """

    file: File
    inputs: list[Port]
    outputs: list[Port]
    notes: list[str]


@dataclass(frozen=True)
class Destination:
    """Where a node's result goes.

    Attributes:
        tensor: the ONNX tensor that the rule must leave a value for: behind what was absorbed.
        quantization: the integers that it is wanted in, ``None`` where it is wanted in float.
        clamp: the bounds of the absorbed Relu and Clip.
    """

    tensor: Variable
    quantization: Quantization | None
    clamp: Clamp


@dataclass
class Lowering:
    """The state of one walk."""

    graph: Graph
    file: File = field(default_factory=File)
    notes: list[str] = field(default_factory=list)
    values: dict[Tensor, Value] = field(default_factory=dict)
    absorbed: set[Node] = field(default_factory=set)
    _made: dict[tuple, Value] = field(default_factory=dict)
    source: str = ""

    # -- the walk ---------------------------------------------------------------------------------------------------

    def run(self) -> Lowered:
        """Lowers the whole graph.

        Raises:
            EmitError: a node has no TFLite counterpart, or a shape is not known.
        """
        self._channels_last = any(
            node.op in IMAGE_OPERATORS and len(self.shape_of(node.inputs[0]) or ()) == 3 for node in self.graph.nodes
        )
        self._outputs = set(self.graph.outputs)
        inputs = [self._input(tensor) for tensor in self.graph.inputs if isinstance(tensor, Variable)]
        for node in self.graph.nodes:
            if node in self.absorbed:
                continue
            rule = RULES.get(node.op) if node.domain in ("", "ai.onnx") else None
            if rule is None:
                raise refusal(
                    node,
                    "the coral backend cannot lower it",
                    f"cut the network before it with --output {_first_input(node)}, or replace it in the model",
                )
            self.source = node.name
            rule(self, node)
        outputs = [self._output(tensor) for tensor in self.graph.outputs]
        return Lowered(self.file, inputs, outputs, list(dict.fromkeys(self.notes)))

    def _input(self, tensor: Variable) -> Port:
        shape = self.shape_of(tensor)
        if shape is None:
            raise EmitError(
                f"model: input '{tensor.name}'",
                f"its shape {tensor.shape} is not static",
                f"pin it with --input {tensor.name}:1x3x224x224",
            )
        if tensor.dtype not in (None, np.dtype(np.float32)):
            raise EmitError(
                f"model: input '{tensor.name}'",
                f"it is {tensor.dtype}, and the coral backend takes float32 inputs",
                "cut the network behind the conversion",
            )
        permutation = self._input_permutation(tensor, shape)
        quantization = self.wanted_integers(tensor)
        stored = tuple(shape[axis] for axis in permutation)
        place = self.file.tensor(tensor.name, stored, np.int8 if quantization else np.float32, quantization)
        self.file.inputs.append(place)
        order = layout.permuted(shape, permutation)
        self.values[tensor] = Value(tensor.name, shape, order, stored, place, None, quantization)
        return Port(tensor.name, shape, permutation, quantization)

    def _input_permutation(self, tensor: Variable, shape: tuple[int, ...]) -> tuple[int, ...]:
        """An input that the graph itself turns from channels last keeps the order that it comes in."""
        readers = self._readers(tensor)
        if readers and all(node.op == "Transpose" for node in readers) and len(shape) == 4:
            turned = {tuple(node.attrs.get("perm", range(3, -1, -1))) for node in readers}
            if len(turned) == 1:
                (permutation,) = turned
                return tuple(permutation[axis] for axis in layout.CHANNELS_LAST)
        return self.default_permutation(len(shape))

    def _readers(self, tensor: Tensor) -> list[Node]:
        """The nodes that read a tensor, seen through QuantizeLinear and DequantizeLinear."""
        found = []
        for node in consumers(tensor):
            if node.op in ("QuantizeLinear", "DequantizeLinear", "Identity"):
                found += self._readers(node.outputs[0])
            else:
                found.append(node)
        return found

    def _output(self, tensor: Tensor) -> Port:
        value = self.value(tensor)
        if value.is_constant:
            raise EmitError(
                f"model: output '{tensor.name}'", "it does not depend on the input", "remove it from the outputs"
            )
        permutation = layout.permutation_of(value.order, value.shape)
        if permutation is None:
            permutation = self.default_permutation(len(value.shape))
        value = self.arranged(value, permutation)
        if value.place in self.file.inputs or value.place in self.file.outputs:
            value = self.copied(value)
        self.file.outputs.append(value.place)
        self.file.tensors[value.place].name = tensor.name
        return Port(tensor.name, value.shape, permutation, value.quantization)

    # -- what a rule asks about the graph ---------------------------------------------------------------------------

    def shape_of(self, tensor: Tensor) -> tuple[int, ...] | None:
        """The static ONNX shape of a tensor, ``None`` where it is not known."""
        if tensor in self.values:
            return self.values[tensor].shape
        shape = tensor.shape
        if shape is None or not all(isinstance(s, int | np.integer) and s >= 0 for s in shape):
            return None
        return tuple(int(s) for s in shape)

    def default_permutation(self, rank: int) -> tuple[int, ...]:
        """How a tensor of that rank is kept in this network when nothing else is asked."""
        return layout.default_permutation(rank, self._channels_last)

    def value(self, tensor: Tensor) -> Value:
        """The value of a tensor that the walk has passed, or of a constant."""
        if tensor not in self.values:
            if not isinstance(tensor, Constant):
                raise InternalError("coral", f"tensor '{tensor.name}' is read before it is computed")
            self.values[tensor] = constant(tensor.name, tensor.values)
        return self.values[tensor]

    def optional(self, node: Node, place: int) -> Value | None:
        """An input that may be left out."""
        if place >= len(node.inputs):
            return None
        tensor = node.inputs[place]
        if isinstance(tensor, Variable) and not tensor.name and not tensor.inputs:
            return None
        return self.value(tensor)

    def static(self, node: Node, place: int, what: str) -> np.ndarray | None:
        """The contents of an input that must be known, ``None`` where it is left out.

        Raises:
            EmitError: it is computed by the network.
        """
        value = self.optional(node, place)
        if value is None:
            return None
        if value.data is None:
            raise refusal(
                node,
                f"its {what} is computed by the network",
                "fold the constants (pass 'fold'), or fix the input shape",
            )
        return value.real() if value.quantization is not None else value.data

    def wanted_integers(self, tensor: Tensor) -> Quantization | None:
        """The integers that every reader of a tensor wants it in, ``None`` where one wants it in float."""
        if tensor in self.graph.outputs:
            return None
        readers = consumers(tensor)
        if not readers or any(node.op != "QuantizeLinear" for node in readers):
            return None
        return self.read_quantization(readers[0])

    def read_quantization(self, node: Node, implied: np.dtype | None = None) -> Quantization:
        """Scale and zero-point of a QuantizeLinear or DequantizeLinear, uint8 moved to int8.

        Args:
            node: the node.
            implied: the integer type where no zero-point says it.

        Raises:
            EmitError: they are computed by the network, or of a type that TFLite does not have.
        """
        scale = self.static(node, 1, "scale")
        zero_point = self.static(node, 2, "zero-point")
        assert scale is not None
        if zero_point is not None:
            kind = zero_point.dtype
        elif implied is not None:
            kind = implied
        else:
            kind = np.dtype(np.int8 if node.attrs.get("output_dtype") == _ONNX_INT8 else np.uint8)
        if kind not in (np.dtype(np.int8), np.dtype(np.uint8), np.dtype(np.int32)) or node.attrs.get("block_size"):
            raise refusal(
                node,
                f"it quantizes to {'blocks of ' if node.attrs.get('block_size') else ''}{kind}",
                "quantize to int8 with one scale for a tensor or a channel",
            )
        scales = np.asarray(scale, np.float32).reshape(-1)
        zeros = np.zeros(scales.size, np.int64) if zero_point is None else zero_point.reshape(-1).astype(np.int64)
        if kind == np.uint8:
            zeros = zeros - 128
        return Quantization(scales, zeros, int(node.attrs.get("axis", 1)))

    def destination(self, node: Node) -> Destination:
        """Where the result of a node goes; a Relu or Clip that alone reads it is absorbed."""
        tensor = node.outputs[0]
        clamp = UNBOUNDED
        while tensor not in self._outputs and len(tensor.outputs) == 1:
            reader = tensor.outputs[0]
            bounds = self.bounds(reader)
            if bounds is None:
                break
            clamp = (min(max(clamp[0], bounds[0]), bounds[1]), max(min(clamp[1], bounds[1]), bounds[0]))
            self.absorbed.add(reader)
            tensor = reader.outputs[0]
        return Destination(tensor, self.wanted_integers(tensor), clamp)

    def bounds(self, node: Node) -> Clamp | None:
        """The bounds of a Relu or Clip whose bounds are known."""
        if node.op == "Relu":
            return (0.0, inf)
        if node.op != "Clip" or any(not isinstance(t, Constant) and t.name for t in node.inputs[1:]):
            return None
        low, high = self.static(node, 1, "minimum"), self.static(node, 2, "maximum")
        return (
            float(node.attrs.get("min", -inf)) if low is None else float(low.reshape(-1)[0]),
            float(node.attrs.get("max", inf)) if high is None else float(high.reshape(-1)[0]),
        )

    def wanted_order(self, tensor: Tensor, shape: Sequence[int]) -> layout.Order | None:
        """The memory order in which the first reader that cares wants a tensor; ``None`` where none cares."""
        for node in consumers(tensor):
            if node.op in IMAGE_OPERATORS and tensor is node.inputs[0] and len(shape) in (3, 4):
                return reading_order(node, shape)
            if node.op in _ANY_ORDER and tensor is node.inputs[0]:
                found = self.wanted_order(node.outputs[0], shape)
            elif node.op in _SAME_INDEX and tensor is node.inputs[0]:
                inner = self.shape_of(node.outputs[0])
                found = None if inner is None else self.wanted_order(node.outputs[0], inner)
            else:
                continue
            if found is not None:
                return found
        return None

    # -- what a rule does to the file -------------------------------------------------------------------------------

    def emit(
        self,
        kind: str,
        inputs: Sequence[Value | int | None],
        stored: Sequence[int],
        like: Value,
        options: Any = None,
        *,
        shape: Sequence[int] | None = None,
        permutation: Sequence[int] | None = None,
        quantization: Quantization | None = None,
        name: str = "",
    ) -> Value:
        """Adds an operator with one output.

        Args:
            kind: TFLite's name of it.
            inputs: values in the file, places in the file, or ``None``.
            stored: shape of the output in the file.
            like: where the name and, unless given, the ONNX shape and order come from.
            options: the schema's options object.
            shape: ONNX shape of the output.
            permutation: ONNX dimensions in stored order; with it the order follows from ``shape``.
            quantization: of the output; ``None`` for float32.
            name: of the output.
        """
        of = tuple(like.shape if shape is None else shape)
        order = like.order if permutation is None else layout.permuted(of, permutation)
        place = self.file.tensor(name or like.name, stored, np.int8 if quantization else np.float32, quantization)
        self.file.operator(kind, [self._place(i) for i in inputs], [place], options, self.source)
        return Value(name or like.name, of, order, tuple(stored), place, None, quantization)

    def _place(self, item: Value | int | None) -> int:
        if item is None:
            return -1
        if isinstance(item, int):
            return item
        return item.place if item.place >= 0 else self.written(item)

    def written(self, value: Value) -> int:
        """Writes a constant as it is, in ONNX's order."""
        return self.file.constant(value.name, value.known(), value.quantization)

    def ints(self, name: str, numbers: Any) -> int:
        """Writes small integers that an operator takes as an input (int32)."""
        return self.file.constant(name, np.asarray(numbers, np.int32))

    def finish(self, to: Destination, value: Value, clamp: Clamp = UNBOUNDED) -> None:
        """Leaves the value of a destination, behind the clamp that the operator could not take in."""
        value = self.clamped(value, clamp)
        self.set(to.tensor, value)

    def set(self, tensor: Tensor, value: Value) -> None:
        """Leaves the value of an ONNX tensor.

        Raises:
            InternalError: its shape is not what shape inference found.
        """
        known = self.shape_of(tensor)
        if known is not None and known != value.shape:
            raise InternalError(
                "coral", f"tensor '{tensor.name}' was lowered as {list(value.shape)}, and is {list(known)} in the graph"
            )
        self.values[tensor] = value

    def activation(self, to: Destination, quantization: Quantization | None) -> tuple[int, Clamp]:
        """The activation that an operator with a fused one takes, and the clamp that is left over."""
        clamp = self.unclamped(to.clamp, quantization)
        if clamp in _FUSED:
            return _FUSED[clamp], UNBOUNDED
        return _FUSED[UNBOUNDED], clamp

    @staticmethod
    def unclamped(clamp: Clamp, quantization: Quantization | None) -> Clamp:
        """The part of a clamp that the saturation of the integers does not do already."""
        return UNBOUNDED if quantization is not None and quantization.clamps_to(*clamp) else clamp

    def clamped(self, value: Value, clamp: Clamp) -> Value:
        """The value within bounds, in the same integers."""
        clamp = self.unclamped(clamp, value.quantization)
        if clamp == UNBOUNDED:
            return value
        if clamp in _ACTIVATION_KINDS:
            return self.emit(_ACTIVATION_KINDS[clamp], [value], value.stored, value, quantization=value.quantization)
        for bound, kind in zip(clamp, ("MAXIMUM", "MINIMUM"), strict=True):
            if bound in (-inf, inf):
                continue
            limit = np.full([1] * len(value.stored), bound, np.float32)
            if value.quantization is None:
                edge = constant(f"{value.name}.bound", limit)
            else:
                edge = constant(f"{value.name}.bound", value.quantization.integers(limit), value.quantization)
            value = self.emit(
                kind,
                [value, edge],
                value.stored,
                value,
                schema.MaximumMinimumOptionsT(),
                quantization=value.quantization,
            )
        return value

    # -- integers and floats ----------------------------------------------------------------------------------------

    def is_integer(self, node: Node, inputs: Sequence[Value], quantization: Quantization | None) -> bool:
        """Whether a node runs on integers: all that it reads and what it leaves are quantized. A mix is noted."""
        quantized = [v.quantization is not None for v in inputs if not v.is_constant]
        if quantization is not None and quantized and all(quantized):
            return True
        if any(quantized) or quantization is not None:
            which = "output" if quantization is None else "input"
            self.notes.append(f"node '{node.name}' ({node.op}) runs in float: its {which} is not quantized")
        return False

    def note_float(self, node: Node, inputs: Sequence[Value]) -> None:
        """Notes that a node of a quantized network has only a float kernel."""
        if any(v.quantization is not None and not v.is_constant for v in inputs):
            self.notes.append(f"node '{node.name}' ({node.op}) runs in float: TFLite has no int8 kernel for it")

    def tied(self, node: Node, value: Value, quantization: Quantization) -> Value:
        """An input of an operator whose tensors share one scale: requantized, with a note, where it differs."""
        if not value.is_constant and not quantization.same(value.quantization):
            self.notes.append(
                f"node '{node.name}' ({node.op}): the scale of '{value.name}' is not that of the output: "
                "a QUANTIZE was added"
            )
        return self.quantized(value, quantization)

    def real(self, value: Value) -> Value:
        """The value in float32, by DEQUANTIZE where it is not."""
        if value.quantization is None:
            return value
        if value.is_constant:
            return replace(value, data=value.real(), quantization=None)
        key = ("real", value.place, value.order, value.stored)
        if key not in self._made:
            self._made[key] = self.emit(
                "DEQUANTIZE", [value], value.stored, value, schema.DequantizeOptionsT(), name=f"{value.name}.real"
            )
        return replace(self._made[key], shape=value.shape)

    def quantized(self, value: Value, quantization: Quantization) -> Value:
        """The value in these integers, by QUANTIZE where it is not."""
        if value.is_constant:
            if quantization.same(value.quantization):
                return value
            return replace(value, data=quantization.integers(value.real()), quantization=quantization)
        if quantization.same(value.quantization):
            return value
        scale, zero_point = float(quantization.scale[0]), int(quantization.zero_point[0])
        key = ("quantized", value.place, value.order, value.stored, scale, zero_point)
        if key not in self._made:
            self._made[key] = self.emit(
                "QUANTIZE", [value], value.stored, value, schema.QuantizeOptionsT(), quantization=quantization
            )
        return replace(self._made[key], shape=value.shape)

    def operand(self, value: Value) -> Value:
        """An input of an integer operator: a constant that is not quantized, or per channel, gets one scale."""
        if not value.is_constant:
            return value
        if value.quantization is not None and not value.quantization.per_channel:
            return value
        real = value.real()
        best = covering(real)
        return replace(value, data=best.integers(real), quantization=best)

    # -- memory order -----------------------------------------------------------------------------------------------

    def arranged(self, value: Value, permutation: Sequence[int]) -> Value:
        """The value stored dimension by dimension, in the order that ``permutation`` lists."""
        stored = [value.shape[axis] for axis in permutation]
        return self.laid(value, layout.permuted(value.shape, permutation), stored)

    def laid(self, value: Value, order: layout.Order, stored: Sequence[int]) -> Value:
        """The value in a memory order and a stored shape: nothing where it is so, RESHAPE, or TRANSPOSE with a note."""
        stored = tuple(stored)
        if value.is_constant:
            return self._laid_constant(value, order, stored)
        if value.order != order:
            value = self._transposed(value, order)
        if value.stored == stored:
            return value
        key = ("reshape", value.place, order, stored)
        if key not in self._made:
            self._made[key] = self._reshape(value, stored)
        return replace(self._made[key], shape=value.shape)

    def copied(self, value: Value) -> Value:
        """The value in a tensor of its own."""
        return self._reshape(value, value.stored)

    def _reshape(self, value: Value, stored: tuple[int, ...]) -> Value:
        options = schema.ReshapeOptionsT()
        options.newShape = np.asarray(stored, np.int32)
        return self.emit(
            "RESHAPE",
            [value, self.ints("shape", stored)],
            stored,
            value,
            options,
            quantization=value.quantization,
        )

    def _laid_constant(self, value: Value, order: layout.Order, stored: tuple[int, ...]) -> Value:
        step = layout.moves(value.order, order)
        if step is None:
            raise InternalError("coral", f"constant '{value.name}' cannot be stored in order {order}")
        shape, permutation = step
        data = value.known().reshape(shape).transpose(permutation).reshape(stored)
        place = self.file.constant(value.name, data, value.quantization)
        return replace(value, order=order, stored=stored, place=place)

    def _transposed(self, value: Value, order: layout.Order) -> Value:
        key = ("transpose", value.place, order)
        if key in self._made:
            return replace(self._made[key], shape=value.shape)
        step = layout.moves(value.order, order)
        if step is None:
            plain = layout.row_major(value.shape)
            return self._transposed(self._transposed(value, plain), order)
        shape, permutation = step
        self.notes.append(
            f"node '{self.source}' reads '{value.name}' in another memory order: a TRANSPOSE of "
            f"{prod(shape):,} elements was added"
        )
        seen = self.laid(value, value.order, tuple(shape))
        moved = self.emit(
            "TRANSPOSE",
            [seen, self.ints("permutation", permutation)],
            [shape[axis] for axis in permutation],
            value,
            schema.TransposeOptionsT(),
            quantization=value.quantization,
        )
        self._made[key] = replace(moved, order=order)
        return self._made[key]

    def padded(self, value: Value, before: Sequence[int], after: Sequence[int], low: bool = False) -> Value:
        """An image ``(N, C, H, W)``, stored channels last, with rows and columns added on each side.

        Args:
            value: the image, as :meth:`arranged` left it.
            before: rows in front, columns in front.
            after: rows behind, columns behind.
            low: fill with the lowest number there is instead of 0 (for a maximum).
        """
        if not any((*before, *after)):
            return value
        batch, channels, height, width = value.shape
        key = ("pad", value.place, value.order, tuple(before), tuple(after), low)
        if key in self._made:
            return self._made[key]
        height, width = height + before[0] + after[0], width + before[1] + after[1]
        pads = self.ints("paddings", [[0, 0], [before[0], after[0]], [before[1], after[1]], [0, 0]])
        inputs: list[Value | int | None] = [value, pads]
        kind, options = "PAD", schema.PadOptionsT()
        if low:
            kind, options = "PADV2", schema.PadV2OptionsT()
            if value.quantization is None:
                fill = constant(f"{value.name}.lowest", np.array(np.finfo(np.float32).min, np.float32).reshape(1))
            else:
                fill = constant(f"{value.name}.lowest", np.array([-128], np.int8), value.quantization)
            inputs.append(fill)
        self._made[key] = self.emit(
            kind,
            inputs,
            [batch, height, width, channels],
            value,
            options,
            shape=[batch, channels, height, width],
            permutation=layout.CHANNELS_LAST,
            quantization=value.quantization,
        )
        return self._made[key]


def refusal(node: Node, what: str, mend: str) -> EmitError:
    """The error for a node that cannot be lowered."""
    return EmitError(f"model: node '{node.name}' ({node.op})", what, mend)


def reading_order(node: Node, shape: Sequence[int]) -> layout.Order:
    """The memory order in which an image operator wants its input of that ONNX shape."""
    if len(shape) == 3:
        return layout.permuted(shape, (0, 2, 1))
    if node.op == "DepthToSpace" and node.attrs.get("mode", "DCR") == "CRD":
        return depth_order(shape, int(node.attrs["blocksize"]))
    return layout.permuted(shape, layout.CHANNELS_LAST)


def depth_order(shape: Sequence[int], block: int) -> layout.Order:
    """Pixels outside, and channels ``(C, block, block)`` with the block in front, as DEPTH_TO_SPACE reads them."""
    batch, channels, height, width = shape
    pixels = height * width
    return layout.canonical(
        [
            (batch, channels * pixels),
            (pixels, 1),
            (block * block, pixels),
            (channels // (block * block), block * block * pixels),
        ]
    )


def _first_input(node: Node) -> str:
    return next((t.name for t in node.inputs if isinstance(t, Variable) and t.name), "NAME")
