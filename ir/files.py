"""Model files: read by memory map, written as a stream, whole or not at all.

No weight is copied on the way in. On the way out an untouched weight goes from the map to the new file page by page,
so a model of several gigabytes needs little memory to load, edit and save. Files over protobuf's 2 GB get external data.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from edgec.ir import wire
from edgec.ir.errors import InputError
from edgec.ir.graph import Constant, Graph, Stored, Tensor
from edgec.ir.protos import constant_proto, data_type, from_proto, to_proto

# protobuf's limit is 2 GiB a message; the structure around the weights has to fit as well.
INTERNAL_LIMIT = (2 << 30) - (64 << 20)
_CHUNK = 16 << 20
_ALIGNMENT = 64

_OTHER_FORMATS = (
    (0, b"PK\x03\x04", "a zip archive (a torch or Keras file?)"),
    (0, b"\x89HDF\r\n", "an HDF5 file (Keras?)"),
    (4, b"TFL3", "a TFLite file"),
    (0, b"\x80\x02", "a pickle (torch?)"),
    (0, b"\x80\x04", "a pickle (torch?)"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (4, b"ORTM", "an onnxruntime flatbuffer"),
    (0, b"{", "text"),
    (0, b"<", "text"),
)


def load(path: str | os.PathLike[str]) -> Graph:
    """The graph in an ONNX file, its weights mapped and not yet read.

    Raises:
        InputError: the file is missing, not a whole ONNX model, or refers to external data that is missing, short, or
            outside the model's folder.
    """
    path = Path(path)
    source = path.name
    buffer = _map(path, source)
    view = memoryview(buffer) if buffer is not None else memoryview(b"")
    for offset, magic, what in _OTHER_FORMATS:
        if bytes(view[offset : offset + len(magic)]) == magic:
            raise InputError(source, f"is {what}, not an ONNX model", "export the network to ONNX first")
    stripped = wire.strip(view, source)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(stripped.message)
    except DecodeError:
        raise InputError(
            source, "is not an ONNX model, or is corrupted", "export it again, or give an .onnx file"
        ) from None
    if not model.HasField("graph") or not model.opset_import:
        raise InputError(source, "is not an ONNX model (it has no graph or no opset)", "give an .onnx file")
    external = _External(path.parent, source)

    def decode(index: int, tensor: TensorProto) -> Stored:
        shape = tuple(tensor.dims)
        if not tensor.data_type or any(dim < 0 for dim in shape):
            raise InputError(f"{source}: weight '{tensor.name}'", "has no element type or a negative size", _AGAIN)
        if index in stripped.raw and buffer is not None:
            offset, length = stripped.raw[index]
            stored = Stored(shape, tensor.data_type, raw=view[offset : offset + length], mapping=(buffer, offset))
        elif tensor.data_location == TensorProto.EXTERNAL:
            stored = external.open(tensor)
        elif tensor.HasField("raw_data"):
            stored = Stored(shape, tensor.data_type, raw=memoryview(tensor.raw_data))
        else:
            return Stored(shape, tensor.data_type, proto=tensor)
        if stored.raw is not None and len(stored.raw) != raw_bytes(shape, tensor.data_type):
            raise InputError(
                f"{source}: weight '{tensor.name}'",
                f"has {len(stored.raw)} bytes where {raw_bytes(shape, tensor.data_type)} are needed",
                _AGAIN,
            )
        return stored

    return from_proto(model, decode)


def save(
    graph: Graph, path: str | os.PathLike[str], *, external: bool | None = None, extra_outputs: tuple[Tensor, ...] = ()
) -> list[Path]:
    """Writes ``graph`` to ``path``; the file is replaced only when the new one is complete.

    Args:
        graph: the model; it is not changed, and may be mapped from the very file that is replaced.
        path: where to.
        external: put large weights into ``<name>.data`` beside it; by default only where 2 GB would be exceeded.
        extra_outputs: tensors to be made outputs besides the graph's own.

    Returns:
        The files written.
    """
    path = Path(path)
    model, left_out = to_proto(graph, extra_outputs=extra_outputs)
    if external is None:
        external = sum(raw_bytes(c.shape, data_type(c)) for c in left_out) + model.ByteSize() > INTERNAL_LIMIT
    written = [path]
    with _replacing(path) as out:
        if not external:
            for chunk in _stream(model, left_out):
                out.write(chunk)
            return written
        data_path = path.with_name(path.name + ".data")
        large = [c for c in left_out if c.nbytes >= wire.INLINE_BYTES and c.dtype.kind != "O"]
        small = [c for c in left_out if not (c.nbytes >= wire.INLINE_BYTES and c.dtype.kind != "O")]
        with _replacing(data_path) as data:
            for constant in large:
                data.write(b"\0" * (-data.tell() % _ALIGNMENT))
                offset = data.tell()
                for chunk in _raw_chunks(constant):
                    data.write(chunk)
                tensor = model.graph.initializer.add(
                    name=constant.name,
                    dims=constant.shape,
                    data_type=data_type(constant),
                    data_location=TensorProto.EXTERNAL,
                    doc_string=constant.doc_string or None,
                )
                for key, value in (("location", data_path.name), ("offset", offset), ("length", data.tell() - offset)):
                    tensor.external_data.add(key=key, value=str(value))
        written.append(data_path)
        for chunk in _stream(model, small):
            out.write(chunk)
    return written


def to_bytes(graph: Graph, *, extra_outputs: tuple[Tensor, ...] = ()) -> bytes:
    """The whole model as bytes, as :func:`save` writes it; only for models under 2 GB."""
    model, left_out = to_proto(graph, extra_outputs=extra_outputs)
    return b"".join(_stream(model, left_out))


def raw_bytes(shape: tuple[int, ...], kind: int) -> int:
    """Bytes that ``raw_data`` of that shape and ``TensorProto.DataType`` has; the sub-byte types are packed."""
    elements = int(np.prod(shape, dtype=np.int64)) if shape else 1
    return (elements * _bits(kind) + 7) // 8


_AGAIN = "the file is corrupted; export it again"


def _bits(kind: int) -> int:
    name = TensorProto.DataType.Name(kind)
    if name.endswith("INT4") or name == "FLOAT4E2M1":
        return 4
    if name.endswith("INT2"):
        return 2
    return int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).itemsize * 8)


def _map(path: Path, source: str) -> mmap.mmap | None:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise InputError(source, "is empty", "export the network again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise InputError(str(path), "does not exist", "check the path") from None
    except IsADirectoryError:
        raise InputError(str(path), "is a folder", "give the .onnx file in it") from None
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "check the file's permissions") from None


class _External:
    """The external data files of one model, each mapped once."""

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        self.source = source
        self._maps: dict[str, mmap.mmap] = {}

    def open(self, tensor: TensorProto) -> Stored:
        """Where an initializer's external data lies, checked against its shape and the file's size."""
        where = f"{self.source}: weight '{tensor.name}'"
        entry = {item.key: item.value for item in tensor.external_data}
        location = entry.get("location", "")
        if not location:
            raise InputError(where, "has external data without a location", _AGAIN)
        root = self.folder.resolve()
        target = (self.folder / location).resolve()
        # A model from elsewhere must not make the compiler read (or publish) files that are not its own.
        if Path(location).is_absolute() or not target.is_relative_to(root):
            raise InputError(
                where, f"points to '{location}', outside the model's folder", "put its data file beside the model"
            )
        needed = raw_bytes(tuple(tensor.dims), tensor.data_type)
        try:
            offset = int(entry.get("offset", 0) or 0)
            length = int(entry.get("length", needed) or needed)
        except ValueError:
            raise InputError(where, "has an offset or a length that is no number", _AGAIN) from None
        if length != needed or offset < 0:
            raise InputError(where, f"claims {length} bytes of '{location}' where {needed} are needed", _AGAIN)
        if location not in self._maps:
            if not target.is_file():
                raise InputError(
                    where, f"needs '{location}', which does not exist", "copy the data file beside the model"
                )
            mapped = _map(target, location)
            assert mapped is not None
            self._maps[location] = mapped
        mapped = self._maps[location]
        if offset + length > len(mapped):
            raise InputError(
                where,
                f"needs bytes {offset} to {offset + length} of '{location}', which has {len(mapped)}",
                "the data file is truncated; copy it again",
            )
        view = memoryview(mapped)[offset : offset + length]
        return Stored(tuple(tensor.dims), tensor.data_type, raw=view, mapping=(mapped, offset))


def _stream(model: onnx.ModelProto, constants: list[Constant]) -> Iterator[bytes | memoryview]:
    """The serialised model with ``constants`` as further initializers, never held as a whole."""
    graph = model.graph.SerializeToString(deterministic=True)
    rest = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name == "graph":
            continue
        if field.is_repeated:
            getattr(rest, field.name).MergeFrom(value)
        else:
            setattr(rest, field.name, value)
    heads = []
    for constant in constants:
        if constant.dtype.kind == "O":  # strings have no raw form
            proto = constant_proto(constant)
            proto.doc_string = constant.doc_string
            heads.append(_whole_initializer(proto))
            continue
        tensor = TensorProto(name=constant.name, dims=constant.shape, data_type=data_type(constant))
        if constant.doc_string:
            tensor.doc_string = constant.doc_string
        for key, value in constant.metadata.items():
            tensor.metadata_props.add(key=key, value=value)
        size = raw_bytes(constant.shape, data_type(constant))
        heads.append(wire.initializer_head(tensor.SerializeToString(deterministic=True), size))
    sizes = [
        0 if c.dtype.kind == "O" else raw_bytes(c.shape, data_type(c)) for c in constants
    ]
    yield wire.message_head(rest.SerializeToString(deterministic=True), len(graph) + sum(map(len, heads)) + sum(sizes))
    yield graph
    for constant, head in zip(constants, heads, strict=True):
        yield head
        if constant.dtype.kind != "O":
            yield from _raw_chunks(constant)


def _whole_initializer(tensor: TensorProto) -> bytes:
    return onnx.GraphProto(initializer=[tensor]).SerializeToString(deterministic=True)


def _raw_chunks(constant: Constant) -> Iterator[bytes | memoryview]:
    """A constant's little-endian bytes in pieces; pages of a map are let go once they were handed on."""
    stored = constant.stored
    if stored is None or stored.raw is None:
        proto = None
        array = constant.values
        if _bits(data_type(constant)) < 8:
            proto = constant_proto(constant)
            yield proto.raw_data
            return
        array = np.ascontiguousarray(array)
        if sys.byteorder == "big":
            array = array.byteswap()
        yield memoryview(array.reshape(-1).view(np.uint8))
        return
    for start in range(0, len(stored.raw), _CHUNK):
        yield stored.raw[start : start + _CHUNK]
        if stored.mapping is not None and len(stored.raw) > _CHUNK and hasattr(mmap, "MADV_DONTNEED"):
            mapped, offset = stored.mapping
            first = (offset + start) // mmap.PAGESIZE * mmap.PAGESIZE
            mapped.madvise(mmap.MADV_DONTNEED, first, min(_CHUNK, len(mapped) - first))


class _replacing:
    """A file that takes ``path``'s place when the block ends well, and is gone when it does not."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> BinaryIO:
        handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        self.temporary = Path(name)
        self.file = os.fdopen(handle, "wb")
        return self.file

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.file.close()
            if kind is None:
                # mkstemp makes files private; a model is as readable as the user's other files.
                mask = os.umask(0)
                os.umask(mask)
                self.temporary.chmod(0o666 & ~mask)
                self.temporary.replace(self.path)
        finally:
            self.temporary.unlink(missing_ok=True)
