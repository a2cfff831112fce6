"""The TFLite file: tensors, operators and weights, written as a flatbuffer.

The schema is the one that ships with ai-edge-litert. Weights go into the file as whole arrays, each once however often
it is used, aligned to 16 bytes as the schema asks; equal contents give equal bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral.operators import version
from edgec.backends.coral.quantization import Quantization
from edgec.ir.errors import EmitError

IDENTIFIER = b"TFL3"
ALIGNMENT = 16
#: Flatbuffer offsets are 32 bits, signed.
LARGEST_FILE = 2**31 - 1

#: The types of elements that TFLite's operators take, as the schema numbers them.
ELEMENT_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.float16): schema.TensorType.FLOAT16,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.uint8): schema.TensorType.UINT8,
    np.dtype(np.int16): schema.TensorType.INT16,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int64): schema.TensorType.INT64,
    np.dtype(np.bool_): schema.TensorType.BOOL,
}


@dataclass(eq=False)
class Tensor:
    """A tensor of the file.

    Attributes:
        name: what tools show.
        shape: as stored.
        dtype: of the elements.
        quantization: for int8 and for int32 biases; its ``axis`` is a dimension of ``shape``.
        data: the contents of a constant, of that shape.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    quantization: Quantization | None = None
    data: np.ndarray | None = None


@dataclass(eq=False)
class Operator:
    """A use of an operator.

    Attributes:
        kind: TFLite's name, such as ``CONV_2D``.
        inputs, outputs: tensors, by place; -1 for an input that is omitted.
        options: the schema's options object, or ``None``.
        source: names of the graph's nodes that it came from.
        version: the lowest that suffices.
    """

    kind: str
    inputs: list[int]
    outputs: list[int]
    options: Any
    source: str
    version: int


@dataclass(eq=False)
class File:
    """A TFLite file under construction, with one subgraph."""

    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    _constants: dict[tuple, int] = field(default_factory=dict)

    def tensor(self, name: str, shape: Sequence[int], dtype: Any, quantization: Quantization | None = None) -> int:
        """Adds a tensor that an operator will compute, or an input; returns its place."""
        made = Tensor(name, tuple(int(s) for s in shape), np.dtype(dtype), quantization)
        self.tensors.append(made)
        return len(self.tensors) - 1

    def constant(self, name: str, data: np.ndarray, quantization: Quantization | None = None) -> int:
        """A tensor with these contents; one with the same type, shape, scales and bytes is used again.

        Raises:
            EmitError: TFLite has no such type.
        """
        data = np.asarray(data, order="C")
        if data.dtype not in ELEMENT_TYPES:
            raise EmitError(
                f"constant '{name}'",
                f"TFLite's operators do not take its type {data.dtype}",
                "make it int32 or float32 in the model",
            )
        digest = hashlib.sha256(data.reshape(-1).view(np.uint8)).digest()
        scales = b"" if quantization is None else quantization.scale.tobytes() + quantization.zero_point.tobytes()
        axis = quantization.axis if quantization is not None and quantization.per_channel else 0
        key = (data.dtype.str, data.shape, scales, axis, digest)
        if key not in self._constants:
            self.tensors.append(Tensor(name, data.shape, data.dtype, quantization, data))
            self._constants[key] = len(self.tensors) - 1
        return self._constants[key]

    def operator(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int], options: Any = None, source: str = ""
    ) -> Operator:
        """Adds an operator behind the others."""
        read = [self.tensors[i] if i >= 0 else None for i in inputs]
        types = [None if t is None else t.dtype for t in read]
        ranks = [0 if t is None else len(t.shape) for t in read]
        scales = [t.quantization.scale for t in (*read, self.tensors[outputs[0]]) if t is not None and t.quantization]
        # Only a product of two integer tensors has exactly three scales.
        gain = float(scales[0][0] * scales[1][0] / scales[2][0]) if len(scales) == 3 else 0.0
        per_channel = any(q.per_channel for q in (t.quantization for t in read if t is not None) if q is not None)
        number = version(kind, types, ranks, options, gain, per_channel)
        made = Operator(kind, list(inputs), list(outputs), options, source, number)
        self.operators.append(made)
        return made

    @property
    def parameter_bytes(self) -> int:
        """Bytes of the constants that operators read, each once."""
        return self.bytes_read(self.operators)

    def bytes_read(self, operators: Sequence[Operator]) -> int:
        """Bytes of the constants that some of the operators read, each once."""
        used = {i for operator in operators for i in operator.inputs if i >= 0}
        return sum(t.data.nbytes for t in (self.tensors[i] for i in used) if t.data is not None)

    def to_bytes(self, description: str = "edgec", metadata: Mapping[str, bytes] | None = None) -> bytes:
        """The file.

        Args:
            description: of the model, which tools show.
            metadata: what goes into its buffers besides, by name.

        Raises:
            EmitError: it would pass 2 GiB, which TFLite's offsets cannot address.
        """
        used = {i for op in self.operators for i in (*op.inputs, *op.outputs) if i >= 0}
        used.update(self.inputs, self.outputs)
        kept = [i for i in range(len(self.tensors)) if i in used]
        place = {old: new for new, old in enumerate(kept)} | {-1: -1}
        constants = [data for data in (self.tensors[i].data for i in kept) if data is not None]
        weights = sum(data.nbytes for data in constants)
        if weights > LARGEST_FILE:
            raise EmitError(
                "model.tflite",
                f"the weights take {weights:,} bytes, and a TFLite file holds at most {LARGEST_FILE:,}",
                "compress the network, or end it earlier with --cut",
            )

        model = schema.ModelT()
        model.version = 3
        model.description = description
        model.buffers = [_Buffer()]
        subgraph = schema.SubGraphT()
        subgraph.name = "main"
        subgraph.inputs = _vector([place[i] for i in self.inputs])
        subgraph.outputs = _vector([place[i] for i in self.outputs])
        buffers: dict[bytes, int] = {}
        subgraph.tensors = [self._tensor(self.tensors[i], model.buffers, buffers) for i in kept]

        codes: dict[tuple[str, int], int] = {}
        subgraph.operators = []
        for operator in self.operators:
            made = schema.OperatorT()
            made.opcodeIndex = codes.setdefault((operator.kind, operator.version), len(codes))
            made.inputs = _vector([place[i] for i in operator.inputs])
            made.outputs = _vector([place[i] for i in operator.outputs])
            if operator.options is not None:
                made.builtinOptions = operator.options
                made.builtinOptionsType = _options_type(operator.options)
            subgraph.operators.append(made)
        model.subgraphs = [subgraph]
        model.operatorCodes = [_operator_code(kind, number) for kind, number in codes]
        model.metadata = []
        for name, contents in (metadata or {}).items():
            entry = schema.MetadataT()
            entry.name, entry.buffer = name, len(model.buffers)
            model.buffers.append(_Buffer(np.frombuffer(contents, np.uint8)))
            model.metadata.append(entry)

        builder = flatbuffers.Builder(weights + 4096 + 512 * (len(kept) + len(self.operators)))
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())

    def _tensor(self, tensor: Tensor, buffers: list[Any], known: dict[bytes, int]) -> Any:
        made = schema.TensorT()
        made.name = tensor.name
        made.type = ELEMENT_TYPES[tensor.dtype]
        made.shape = _vector(tensor.shape)
        made.hasRank = True
        made.buffer = 0
        if tensor.data is not None:
            raw = tensor.data.reshape(-1).view(np.uint8)
            digest = hashlib.sha256(raw).digest()
            if digest not in known:
                known[digest] = len(buffers)
                buffers.append(_Buffer(raw))
            made.buffer = known[digest]
        if tensor.quantization is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale = np.ascontiguousarray(tensor.quantization.scale, np.float32)
            made.quantization.zeroPoint = np.ascontiguousarray(tensor.quantization.zero_point, np.int64)
            made.quantization.quantizedDimension = tensor.quantization.axis if tensor.quantization.per_channel else 0
        return made


class _Buffer(schema.BufferT):
    """Contents, aligned: the generated class packs arrays without the alignment that the schema asks for."""

    def __init__(self, raw: np.ndarray | None = None) -> None:
        super().__init__()
        self.raw = raw

    def Pack(self, builder: Any) -> int:
        data = 0
        if self.raw is not None:
            builder.StartVector(1, self.raw.size, ALIGNMENT)
            builder.head -= self.raw.size
            builder.Bytes[builder.head : builder.head + self.raw.size] = memoryview(self.raw)
            builder.vectorNumElems = self.raw.size
            data = builder.EndVector()
        schema.BufferStart(builder)
        if self.raw is not None:
            schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))


def _vector(values: Sequence[int]) -> np.ndarray:
    return np.asarray(values, np.int32)


def _options_type(options: Any) -> int:
    return int(getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T")))


def _operator_code(kind: str, number: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    # Readers from before 2020 know only the byte-wide field.
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = number
    return code
