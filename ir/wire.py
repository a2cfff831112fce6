"""Where a model file keeps its weights, found without reading them.

An ONNX file is one protobuf message. Decoding it copies every weight; mapping it copies none. This module walks the
message's outer fields (https://protobuf.dev/programming-guides/encoding), leaves out the large ``raw_data`` of its
initializers, and tells where each one lies.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgec.ir.errors import InputError

# Field numbers of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_RAW_DATA = 9
# Weights under this many bytes stay in the message: they cost less there than a slice of the map.
INLINE_BYTES = 2048


@dataclass(frozen=True)
class Stripped:
    """A model message without its large weights.

    Attributes:
        message: the bytes to decode.
        raw: by position in the main graph's initializers: offset and length of the ``raw_data`` left out.
    """

    message: bytes
    raw: dict[int, tuple[int, int]]


def strip(buffer: memoryview, source: str) -> Stripped:
    """Splits a model into its message and the places of its weights.

    Args:
        buffer: the whole file.
        source: its name, for errors.

    Raises:
        InputError: the bytes are not a protobuf message, or end too early.
    """
    pieces: list[bytes | memoryview] = []
    raw: dict[int, tuple[int, int]] = {}
    count = 0
    for number, start, body, end in _fields(buffer, 0, len(buffer), source):
        if number != _MODEL_GRAPH or not body:
            pieces.append(buffer[start:end])
            continue
        inner: list[bytes | memoryview] = []
        pending = body
        for field, field_start, tensor, field_end in _fields(buffer, body, end, source):
            if field != _GRAPH_INITIALIZER or not tensor:
                continue
            if field_end - tensor >= INLINE_BYTES:
                kept, place = _without_raw(buffer, tensor, field_end, source)
                if place is not None:
                    inner += [buffer[pending:field_start], _tag(_GRAPH_INITIALIZER), _varint(len(kept)), kept]
                    pending = field_end
                    raw[count] = place
            count += 1
        inner.append(buffer[pending:end])
        length = sum(map(len, inner))
        pieces += [_tag(_MODEL_GRAPH), _varint(length), *inner]
    return Stripped(b"".join(pieces), raw)


def message_head(fields: bytes, length: int) -> bytes:
    """``fields`` of a model, then the head of a graph field whose body of ``length`` bytes is to follow."""
    return fields + _tag(_MODEL_GRAPH) + _varint(length)


def initializer_head(tensor: bytes, raw_length: int) -> bytes:
    """The head of an initializer field: ``tensor``'s other fields; ``raw_length`` bytes of raw data are to follow."""
    head = _tag(_TENSOR_RAW_DATA) + _varint(raw_length)
    return _tag(_GRAPH_INITIALIZER) + _varint(len(tensor) + len(head) + raw_length) + tensor + head


def _without_raw(buffer: memoryview, start: int, end: int, source: str) -> tuple[bytes, tuple[int, int] | None]:
    place = None
    kept: list[memoryview] = []
    for number, field_start, body, field_end in _fields(buffer, start, end, source):
        if number == _TENSOR_RAW_DATA and body and field_end - body >= INLINE_BYTES:
            place = (body, field_end - body)
        else:
            kept.append(buffer[field_start:field_end])
    return b"".join(kept), place


def _fields(buffer: memoryview, start: int, end: int, source: str) -> list[tuple[int, int, int, int]]:
    """The fields of one message: number, start of the field, start of its body (0 for scalars), end."""
    found = []
    place = start
    while place < end:
        field_start = place
        key, place = _read_varint(buffer, place, end, source)
        kind = key & 7
        body = 0
        if kind == 2:
            length, place = _read_varint(buffer, place, end, source)
            body = place
            place += length
        elif kind == 0:
            _, place = _read_varint(buffer, place, end, source)
        elif kind == 5:
            place += 4
        elif kind == 1:
            place += 8
        else:
            raise InputError(
                source, f"is not an ONNX model (byte {field_start} starts no protobuf field)", "give an .onnx file"
            )
        if place > end:
            raise InputError(
                source,
                f"ends too early: a field at byte {field_start} needs {place - end} bytes more",
                "the file is truncated or corrupted; export or copy it again",
            )
        found.append((key >> 3, field_start, body, place))
    return found


def _read_varint(buffer: memoryview, place: int, end: int, source: str) -> tuple[int, int]:
    value = shift = 0
    while place < end and shift < 70:
        byte = buffer[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    if shift >= 70:
        raise InputError(source, f"is not an ONNX model (no protobuf number at byte {place})", "give an .onnx file")
    raise InputError(
        source, f"ends too early, at byte {end}", "the file is truncated or corrupted; export or copy it again"
    )


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int) -> bytes:
    return _varint(number << 3 | 2)
