"""What the rules do to the file: operators, constants, memory order, integers and floats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, prod
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout
from edgec.backends.coral.flatbuffer import ELEMENT_TYPES, File
from edgec.backends.coral.quantization import UNBOUNDED, Quantization, covering
from edgec.backends.coral.value import Value, constant
from edgec.ir.errors import EmitError, InternalError
from edgec.ir.graph import Node
from edgec.passes.quantize.weights_only import FEWEST

Clamp = tuple[float, float]

_FUSED = {
    UNBOUNDED: schema.ActivationFunctionType.NONE,
    (0.0, inf): schema.ActivationFunctionType.RELU,
    (0.0, 6.0): schema.ActivationFunctionType.RELU6,
    (-1.0, 1.0): schema.ActivationFunctionType.RELU_N1_TO_1,
}
NEEDS_2_7 = (
    "int8 weights of float operators with a scale for each channel need TensorFlow Lite 2.7 or newer on the board; "
    "float16, and 'per_channel: false', do not"
)
#: Shapes and the numbers that operators take are of 32 bits.
LARGEST_INT = 2**31 - 1
#: Integers of fewer bytes are computed with as int32.
FEWEST_BYTES = 4
#: The most dimensions that LiteRT's kernels take, and those of operators that take fewer (LiteRT 2.3, measured).
LARGEST_RANK = 8
_RANKS = {"PAD": 5, "PADV2": 5, "MIRROR_PAD": 5, "BATCH_MATMUL": 5} | dict.fromkeys(
    (
        "CONCATENATION",
        "LOG_SOFTMAX",
        "MEAN",
        "REDUCE_MAX",
        "REDUCE_MIN",
        "SOFTMAX",
        "SPLIT",
        "SUM",
        "TRANSPOSE",
    ),
    6,
)
_ACTIVATION_KINDS = {(0.0, inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


@dataclass
class Emission:
    """A TFLite file in the making, and what has been said about it.

    Attributes:
        file: the file.
        notes: what the user should know.
        source: name of the node that is being lowered.
        channels_last: whether the network has images of one row, ``(N, C, L)``, and keeps them channels last too.
    """

    file: File = field(default_factory=File)
    notes: list[str] = field(default_factory=list)
    source: str = ""
    channels_last: bool = False
    _made: dict[tuple, Value] = field(default_factory=dict)
    _unpacked: dict[int, int] = field(default_factory=dict)

    def default_permutation(self, rank: int) -> tuple[int, ...]:
        """How a tensor of that rank is kept in this network when nothing else is asked."""
        return layout.default_permutation(rank, self.channels_last)

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
        dtype: np.dtype | None = None,
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
            quantization: of the output; ``None`` where it has no scale.
            name: of the output.
            dtype: of the output, where it is not what ``like`` is of.
        """
        of = tuple(like.shape if shape is None else shape)
        order = like.order if permutation is None else layout.permuted(of, permutation)
        dtype = like.dtype if dtype is None else dtype
        self.take_rank(kind, max(len(stored), *(len(i.stored) for i in inputs if isinstance(i, Value)), 0))
        if prod(int(size) for size in stored) > LARGEST_INT:
            raise self._too_large(f"it gives {prod(int(size) for size in stored):,} elements")
        place = self.file.tensor(name or like.name, stored, np.int8 if quantization else dtype, quantization)
        self.file.operator(kind, [self._place(i) for i in inputs], [place], options, self.source)
        return Value(name or like.name, of, order, tuple(stored), place, None, quantization, dtype=dtype)

    def moved(
        self, kind: str, source: Value, operands: Sequence[int], shape: Sequence[int], options: Any, name: str
    ) -> Value:
        """Adds an operator that moves the elements of an image, channels last, and keeps their integers.

        Args:
            kind: TFLite's name of it.
            source: the image, in the file with its channels last.
            operands: places in the file of what it takes besides.
            shape: ONNX shape of the output, ``(N, C, H, W)``.
            options: the schema's options object.
            name: of the output.
        """
        return self.emit(
            kind,
            [source, *operands],
            [shape[axis] for axis in layout.CHANNELS_LAST],
            source,
            options,
            shape=shape,
            permutation=layout.CHANNELS_LAST,
            quantization=source.quantization,
            name=name,
        )

    def _place(self, item: Value | int | None) -> int:
        if item is None:
            return -1
        if isinstance(item, int):
            return item
        return item.place if item.place >= 0 else self.written(item)

    def written(self, value: Value) -> int:
        """Writes a constant as it is, in ONNX's order."""
        self._note_widened(value)
        return self.file.constant(value.name, value.known(), value.quantization)

    def unpacked(self, name: str, data: np.ndarray, quantization: Quantization | None = None) -> int:
        """Writes int8 or float16 weights, and what makes them float32 when the file is loaded: a DEQUANTIZE.

        Args:
            name: of the weights.
            data: int8 or float16.
            quantization: of int8 weights.

        Returns:
            The place of the float32 weights; the same for the same weights.
        """
        if quantization is not None and quantization.per_channel:
            self.notes.append(NEEDS_2_7)
        small = self.file.constant(name, data, quantization)
        if small not in self._unpacked:
            self._unpacked[small] = self.file.tensor(f"{name}.real", data.shape, np.float32)
            options = schema.DequantizeOptionsT()
            self.file.operator("DEQUANTIZE", [small], [self._unpacked[small]], options, self.source)
        return self._unpacked[small]

    def bare(self, value: Value, kind: np.dtype) -> Value:
        """The integers of a quantized tensor as ONNX has them, in a tensor without a scale.

        Args:
            value: quantized.
            kind: int8 or uint8, as ONNX has it.
        """
        assert value.quantization is not None
        shift = 128 if kind == np.uint8 else 0
        if value.is_constant:
            return constant(value.name, (value.known().astype(np.int16) + shift).astype(kind))
        key = ("bare", value.place, value.order, value.stored, kind)
        if key not in self._made:
            place = value.place
            if shift:
                moved = replace(value.quantization, zero_point=value.quantization.zero_point + shift)
                place = self.file.tensor(f"{value.name}.uint8", value.stored, kind, moved)
                self.file.operator("QUANTIZE", [value.place], [place], schema.QuantizeOptionsT(), self.source)
            plain = replace(value, place=place, quantization=None, dtype=kind)
            self._made[key] = self._reshape(plain, value.stored)
        return replace(self._made[key], shape=value.shape)

    def cast(self, value: Value, kind: np.dtype, name: str = "") -> Value:
        """Numbers of another type, without scales: CAST, or nothing where they are of it."""
        if value.dtype == kind:
            return value
        if value.is_constant:
            return constant(value.name, value.known().astype(kind))
        key = ("cast", value.place, value.order, value.stored, kind)
        if key not in self._made:
            options = schema.CastOptionsT()
            options.inDataType, options.outDataType = ELEMENT_TYPES[value.dtype], ELEMENT_TYPES[kind]
            self._made[key] = self.emit(
                "CAST", [value], value.stored, value, options, name=name or f"{value.name}.{kind.name}", dtype=kind
            )
        return replace(self._made[key], shape=value.shape)

    def wide(self, value: Value) -> Value:
        """A value to compute with: small integers without a scale as int32, which all kernels take; others as they are.

        Kernels read int8 and uint8 as quantized, and end the process where there is no scale.
        """
        small = value.quantization is None and value.dtype.kind in "iu" and value.dtype.itemsize < FEWEST_BYTES
        return self.cast(value, np.dtype(np.int32)) if small else value

    def narrow(self, value: Value, like: Value) -> Value:
        """What was computed with :meth:`wide` values, in the type of one that was not widened yet."""
        return value if value.quantization is not None or like.is_number else self.cast(value, like.dtype)

    def _note_widened(self, value: Value) -> None:
        if value.half and value.known().size >= FEWEST:
            self.notes.append(
                f"constant '{value.name}' of float16 is float32 in the file: only the weights of layers stay small"
            )

    def ints(self, name: str, numbers: Any) -> int:
        """Writes small integers that an operator takes as an input (int32).

        Raises:
            EmitError: one of them is not small.
        """
        wide = np.asarray(numbers, np.int64)
        if wide.size and int(np.abs(wide).max()) > LARGEST_INT:
            raise self._too_large(f"it needs the number {int(np.abs(wide).max()):,}")
        return self.file.constant(name, wide.astype(np.int32))

    def take_rank(self, kind: str, rank: int) -> None:
        """Refuses more dimensions than an operator takes.

        Raises:
            EmitError: it takes fewer.
        """
        most = _RANKS.get(kind, LARGEST_RANK)
        if rank > most:
            raise EmitError(
                f"node '{self.source}'",
                f"it works on {rank} dimensions, and TFLite's {kind} on at most {most}",
                "merge dimensions with a Reshape in the model",
            )

    def _too_large(self, what: str) -> EmitError:
        return EmitError(
            f"node '{self.source}'", f"{what}, and TFLite counts to {LARGEST_INT:,}", "make it smaller in the model"
        )

    def activation(self, clamp: Clamp, quantization: Quantization | None) -> tuple[int, Clamp]:
        """The activation that an operator with a fused one takes, and the clamp that is left over."""
        clamp = self.unclamped(clamp, quantization)
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
        if clamp in _ACTIVATION_KINDS and value.is_number:
            return self.emit(_ACTIVATION_KINDS[clamp], [value], value.stored, value, quantization=value.quantization)
        for bound, kind in zip(clamp, ("MAXIMUM", "MINIMUM"), strict=True):
            if bound in (-inf, inf):
                continue
            limit = np.full([1] * len(value.stored), bound, value.dtype)
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
        # A tensor of the file has one type and one scale, so its place says both.
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
        self._note_widened(value)
        data = value.known().reshape(shape).transpose(permutation).reshape(stored)
        place = self.file.constant(value.name, data, value.quantization)
        return replace(value, order=order, stored=stored, place=place)

    def _transposed(self, value: Value, order: layout.Order) -> Value:
        # Two views of one buffer may want the same order of their own elements, and are other elements of the buffer.
        key = ("transpose", value.place, value.order, order)
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
        direct = layout.within(value.stored, shape, permutation)
        if direct is None:
            value = self.laid(value, value.order, tuple(shape))
            direct = permutation
        moved = self.emit(
            "TRANSPOSE",
            [value, self.ints("permutation", direct)],
            [value.stored[axis] for axis in direct],
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
        key = ("pad", value.place, value.order, value.shape, tuple(before), tuple(after), low)
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
