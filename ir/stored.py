"""Weights where the model's file keeps them, and how many bytes an element type takes there."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from onnx.numpy_helper import to_array

_CHUNK = 16 << 20
# Pages of smaller weights stay: letting go of them costs more than they take.
_RELEASED = 64 << 10


class Stored:
    """A weight where the model's file keeps it: decoded when asked for, written back byte for byte when untouched.

    Args:
        shape: dimensions.
        data_type: ``onnx.TensorProto.DataType`` of the elements.
        raw: the little-endian bytes, usually a slice of a memory map; ``None`` for a tensor kept as a proto.
        proto: the tensor as onnx decoded it, for the types that have no raw form (strings, typed fields).
        mapping: the memory map that ``raw`` is a slice of, and where it starts there; saving lets go of its pages.
    """

    __slots__ = ("_array", "data_type", "dtype", "mapping", "proto", "raw", "shape")

    def __init__(
        self,
        shape: tuple[int, ...],
        data_type: int,
        raw: memoryview | None = None,
        proto: TensorProto | None = None,
        mapping: tuple[mmap.mmap, int] | None = None,
    ) -> None:
        self.shape = shape
        self.data_type = data_type
        self.dtype = numpy_dtype(data_type)
        self.raw = raw
        self.proto = proto
        self.mapping = mapping
        self._array: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take in memory."""
        return math.prod(self.shape) * int(self.dtype.itemsize)

    def load(self) -> np.ndarray:
        """The elements as a read-only array; a view of the file wherever the type has whole bytes."""
        if self._array is None:
            if self.raw is None:
                assert self.proto is not None
                self._array = _strings(self.proto) if self.dtype.kind == "O" else to_array(self.proto)
            elif self.data_type in PACKED:
                proto = TensorProto(dims=self.shape, data_type=self.data_type, raw_data=bytes(self.raw))
                self._array = to_array(proto)
            else:
                self._array = np.frombuffer(self.raw, self.dtype).reshape(self.shape)
            self._array.flags.writeable = False
        return self._array

    def chunks(self) -> Iterator[memoryview]:
        """The raw bytes in pieces of whole elements; pages of a map are let go once a piece was dealt with."""
        assert self.raw is not None
        if len(self.raw) < _RELEASED or self.mapping is None:
            yield self.raw
            return
        mapped, offset = self.mapping
        for start in range(0, len(self.raw), _CHUNK):
            yield self.raw[start : start + _CHUNK]
            if hasattr(mmap, "MADV_DONTNEED"):
                first = (offset + start) // mmap.PAGESIZE * mmap.PAGESIZE
                length = min(_CHUNK, len(self.raw) - start) + offset + start - first
                mapped.madvise(mmap.MADV_DONTNEED, first, length)


def numpy_dtype(data_type: int) -> np.dtype:
    """numpy's type for an ``onnx.TensorProto.DataType``; object for strings.

    Raises:
        KeyError: onnx knows no such type.
    """
    found = _NUMPY.get(data_type)
    if found is None:
        found = _NUMPY[data_type] = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type))
    return found


def onnx_dtype(dtype: Any) -> int:
    """``onnx.TensorProto.DataType`` of a numpy type."""
    key = np.dtype(dtype)
    found = _ONNX.get(key)
    if found is None:
        text = key.kind in "OUST"
        found = TensorProto.STRING if text else onnx.helper.np_dtype_to_tensor_dtype(key)
        _ONNX[key] = int(found)
    return int(found)


def raw_bytes(shape: Iterable[int], data_type: int) -> int:
    """Bytes that ``raw_data`` of that shape and ``TensorProto.DataType`` has; the sub-byte types are packed."""
    return (math.prod(shape) * element_bits(data_type) + 7) // 8


def element_bits(data_type: int) -> int:
    """Bits that one element takes in ``raw_data``."""
    found = _BITS.get(data_type)
    if found is None:
        found = _BITS[data_type] = PACKED.get(data_type) or numpy_dtype(data_type).itemsize * 8
    return found


def _strings(proto: TensorProto) -> np.ndarray:
    """The strings of a tensor; as bytes where they are no UTF-8, which ONNX allows."""
    made = np.empty(len(proto.string_data), object)
    for index, item in enumerate(proto.string_data):
        try:
            made[index] = item.decode()
        except UnicodeDecodeError:
            made[index] = item
    return made.reshape(tuple(proto.dims))


# Types with less than a byte an element, and their bits: two and more share bytes, and numpy holds them unpacked.
PACKED: dict[int, int] = {
    getattr(TensorProto, name): bits
    for name, bits in (
        ("INT4", 4),
        ("UINT4", 4),
        ("FLOAT4E2M1", 4),
        ("INT2", 2),
        ("UINT2", 2),
        ("FLOAT6E2M3", 6),
        ("FLOAT6E3M2", 6),
    )
    if hasattr(TensorProto, name)
}
_NUMPY: dict[int, np.dtype] = {}
_ONNX: dict[np.dtype, int] = {}
_BITS: dict[int, int] = {}
