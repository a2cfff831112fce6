"""Model files: read by memory map, written as a stream, whole or not at all.

No weight is copied on the way in. On the way out an untouched weight goes from the map to the new file page by page,
so a model of several gigabytes needs little memory to load, edit and save. Files over protobuf's 2 GB get external
data.
"""

from __future__ import annotations

import mmap
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from edgec.ir import wire
from edgec.ir.errors import InputError
from edgec.ir.graph import Constant, Graph, Tensor
from edgec.ir.proto_reader import CORRUPTED, checked_signature, from_proto, pairs, place, stored
from edgec.ir.protos import constant_proto, data_type, to_proto, without_values
from edgec.ir.stored import Stored, element_bits, raw_bytes

__all__ = ["INTERNAL_LIMIT", "load", "raw_bytes", "save", "to_bytes"]

# protobuf's limit is 2 GiB a message; the structure around the weights has to fit as well.
INTERNAL_LIMIT = (2 << 30) - (64 << 20)
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
    model, stripped, buffer = _read(path)
    view = memoryview(buffer)
    external = _External(path.parent, source)

    def decode(index: int | None, tensor: TensorProto) -> Stored:
        if index in stripped.raw:
            shape, kind = checked_signature(tensor, source)
            offset, length = stripped.raw[index]
            if kind == TensorProto.STRING or length != raw_bytes(shape, kind):
                what = f"has {length} bytes where {raw_bytes(shape, kind)} are needed"
                raise InputError(place(source, tensor), what, CORRUPTED)
            return Stored(shape, kind, raw=view[offset : offset + length], mapping=(buffer, offset))
        if tensor.data_location == TensorProto.EXTERNAL:
            return external.open(tensor)
        return stored(tensor, source)

    return from_proto(model, decode, source)


def files_of(path: str | os.PathLike[str]) -> list[Path]:
    """A model's files: its own, and those of its external data in the order in which it refers to them."""
    path = Path(path)
    model, _, _ = _read(path)
    entries = (pairs(t.external_data) for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)
    return [path, *dict.fromkeys(path.parent / entry["location"] for entry in entries if entry.get("location"))]


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
        external = sum(map(_size, left_out)) + model.ByteSize() > INTERNAL_LIMIT
    if not external:
        with _replacing(path) as out:
            out.writelines(_stream(model, left_out))
        return [path]
    data_path = path.with_name(path.name + ".data")
    large: list[Constant] = []
    small: list[Constant] = []
    for constant in left_out:
        (large if _size(constant) >= wire.INLINE_BYTES else small).append(constant)
    with _replacing(path) as out:
        with _replacing(data_path) as data:
            for constant in large:
                data.write(b"\0" * (-data.tell() % _ALIGNMENT))
                offset = data.tell()
                data.writelines(_raw_chunks(constant))
                tensor = without_values(constant)
                tensor.data_location = TensorProto.EXTERNAL
                for key, value in (("location", data_path.name), ("offset", offset), ("length", data.tell() - offset)):
                    tensor.external_data.add(key=key, value=str(value))
                model.graph.initializer.append(tensor)
        out.writelines(_stream(model, small))
    return [path, data_path]


def to_bytes(graph: Graph, *, extra_outputs: tuple[Tensor, ...] = ()) -> bytes:
    """The whole model as bytes, as :func:`save` writes it; only for models under 2 GB."""
    model, left_out = to_proto(graph, extra_outputs=extra_outputs)
    return b"".join(_stream(model, left_out))


def _read(path: Path) -> tuple[onnx.ModelProto, wire.Stripped, mmap.mmap]:
    """The model's message without its large weights, where those lie, and the map that they lie in."""
    source = path.name
    buffer = _map(path, source)
    view = memoryview(buffer)
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
    return model, stripped, buffer


def _map(path: Path, source: str) -> mmap.mmap:
    try:
        if stat.S_ISFIFO(path.stat().st_mode):  # opening one would wait for a writer
            raise InputError(str(path), "is a pipe, which cannot be mapped", "give a file")
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
        where = place(self.source, tensor)
        entry = pairs(tensor.external_data)
        location = entry.get("location", "")
        if not location:
            raise InputError(where, "has external data without a location", CORRUPTED)
        shape, kind = checked_signature(tensor, self.source)
        if kind == TensorProto.STRING:
            raise InputError(where, "holds strings as external data, which ONNX does not allow", CORRUPTED)
        needed = raw_bytes(shape, kind)
        try:
            offset = int(entry.get("offset", 0) or 0)
            length = int(entry.get("length", needed) or needed)
        except ValueError:
            raise InputError(where, "has an offset or a length that is no number", CORRUPTED) from None
        if offset < 0:
            raise InputError(where, f"starts at byte {offset} of '{location}'", CORRUPTED)
        if length != needed:
            raise InputError(where, f"claims {length} bytes of '{location}' where {needed} are needed", CORRUPTED)
        mapped = self._map(location, where)
        have = 0 if mapped is None else len(mapped)
        if mapped is None or offset + length > have:
            raise InputError(
                where,
                f"needs bytes {offset} to {offset + length} of '{location}', which has {have}",
                "the data file is truncated; copy it again",
            )
        view = memoryview(mapped)[offset : offset + length]
        return Stored(shape, kind, raw=view, mapping=(mapped, offset))

    def _map(self, location: str, where: str) -> mmap.mmap | None:
        """The file at ``location``, ``None`` where it is empty."""
        if location in self._maps:
            return self._maps[location]
        root = self.folder.resolve()
        try:
            target = (self.folder / location).resolve()
            regular = target.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, a loop of links, a null character
            # Python's own words for the last two change from version to version.
            reason = error.strerror if isinstance(error, OSError) else "no path can be made of it"
            raise InputError(where, f"names the file {location!r}, which is none ({reason})", CORRUPTED) from None
        # A model from elsewhere must not make the compiler read (or publish) files that are not its own.
        if Path(location).is_absolute() or not target.is_relative_to(root):
            what = f"points to '{location}', outside the model's folder"
            raise InputError(where, what, "put its data file beside the model")
        if not regular:
            raise InputError(where, f"needs '{location}', which does not exist", "copy the data file beside the model")
        if target.stat().st_size == 0:
            return None
        return self._maps.setdefault(location, _map(target, location))


def _stream(model: onnx.ModelProto, constants: list[Constant]) -> Iterator[bytes | memoryview]:
    """The serialized model with ``constants`` as further initializers, never held as a whole."""
    rest = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name == "graph":
            continue
        if field.is_repeated:
            getattr(rest, field.name).MergeFrom(value)
        else:
            setattr(rest, field.name, value)
    graph = model.graph.SerializeToString(deterministic=True)
    length = len(graph)
    heads = []
    for constant in constants:
        if constant.dtype.kind == "O":  # strings have no raw form
            heads.append(onnx.GraphProto(initializer=[constant_proto(constant)]).SerializeToString(deterministic=True))
        else:
            size = _size(constant)
            heads.append(wire.initializer_head(without_values(constant).SerializeToString(), size))
            length += size
        length += len(heads[-1])
    yield wire.message_head(rest.SerializeToString(deterministic=True), length)
    yield graph
    for constant, head in zip(constants, heads, strict=True):
        yield head
        if constant.dtype.kind != "O":
            yield from _raw_chunks(constant)


def _size(constant: Constant) -> int:
    """Bytes of a constant's raw form; 0 for strings, which have none."""
    return 0 if constant.dtype.kind == "O" else raw_bytes(constant.shape, data_type(constant))


def _raw_chunks(constant: Constant) -> Iterator[bytes | memoryview]:
    """A constant's little-endian bytes in pieces."""
    stored = constant.stored
    if stored is None or stored.raw is None:
        if element_bits(data_type(constant)) < 8:
            yield numpy_helper.from_array(constant.values).raw_data
            return
        array = np.ascontiguousarray(constant.values)
        if sys.byteorder == "big":
            array = array.byteswap()
        yield memoryview(array.reshape(-1).view(np.uint8))
        return
    yield from stored.chunks()


class _replacing:
    """A file that takes ``path``'s place when the block ends well, and is gone when it does not."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> BinaryIO:
        handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        self.temporary = Path(name)
        self.file = os.fdopen(handle, "wb", buffering=1 << 20)
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
