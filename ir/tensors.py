"""Tensors: graphsurgeon's, equal only to themselves, with constants whose weights stay in the model's file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from edgec.ir.stored import PACKED, Stored
from edgec.ir.uses import Inputs, Outputs

Shape: TypeAlias = "list[int | str | None]"


class Identity:
    """Equality and hash by identity, for classes whose base compares by name."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Variable(Identity, gs.Variable):
    """A tensor computed when the network runs.

    Attributes:
        shape: one entry a dimension: a number, a symbol's name, or ``None`` where unknown; ``None`` for unknown rank.
        dtype: numpy's type (ml_dtypes' for the small floats), ``None`` where unknown.
        type_proto: the whole type, for what is not a tensor (sequences, optionals, maps).
        quantization: the tensors of the model's quantization annotation, by key such as ``SCALE_TENSOR``.
    """

    type_proto: onnx.TypeProto | None = None
    doc_string: str = ""
    metadata: Mapping[str, str] = {}  # replaced, never mutated
    quantization: Mapping[str, Tensor] | None = None

    def __init__(
        self, name: str, dtype: Any = None, shape: Sequence[int | str | None] | None = None, type: str = "tensor_type"
    ) -> None:
        # Straight into the dictionary: graphsurgeon's __setattr__ costs more than everything else on a large graph.
        held = self.__dict__
        held["name"] = name
        held["inputs"] = ins = Inputs()
        held["outputs"] = outs = Outputs()
        ins.owner = outs.owner = self
        held["dtype"] = None if dtype is None else np.dtype(dtype)
        held["shape"] = None if shape is None else list(shape)
        held["type"] = type

    @staticmethod
    def empty() -> Variable:
        """The place of an input that is omitted."""
        return Variable("")

    def to_constant(self, values: np.ndarray, export_dtype: Any = None) -> Constant:
        """Turns this very tensor into a constant, so that all who read it see the change."""
        for key in ("dtype", "shape", "type", "type_proto"):
            self.__dict__.pop(key, None)
        self.__class__ = Constant
        self.__dict__.update(data_location=None, _export_dtype=None)
        self.values = values if export_dtype is None else values.astype(export_dtype)
        return self

    def __repr__(self) -> str:
        return f"Variable({self.name!r}, {self.dtype}, {self.shape})"


class Constant(Identity, gs.Constant):
    """A tensor known when the network is compiled.

    ``values`` is read-only: weights may lie in the user's file. Assign a new array to change them.
    """

    doc_string: str = ""
    metadata: Mapping[str, str] = {}
    quantization: Mapping[str, Tensor] | None = None

    def __init__(self, name: str, values: np.ndarray | Stored) -> None:
        held = self.__dict__
        held["name"] = name
        held["inputs"] = ins = Inputs()
        held["outputs"] = outs = Outputs()
        ins.owner = outs.owner = self
        held["data_location"] = held["_export_dtype"] = None
        self.values = values

    @property
    def values(self) -> np.ndarray:
        """The elements, read-only."""
        return self._values.load() if isinstance(self._values, Stored) else self._values

    @values.setter
    def values(self, values: np.ndarray | Stored) -> None:
        if isinstance(values, np.ndarray):
            values = values.view() if values.dtype.kind not in "UST" else values.astype(object)
            values.flags.writeable = False
        elif not isinstance(values, Stored):
            raise TypeError(f"constant '{self.name}': values must be a numpy array, not {type(values).__name__}")
        self.__dict__["_values"] = values

    @property
    def stored(self) -> Stored | None:
        """Where the file keeps it, while it is untouched."""
        return self._values if isinstance(self._values, Stored) else None

    @property
    def held(self) -> np.ndarray | Stored:
        """The array, or the place in the file while it is untouched; either can make another constant."""
        return self._values

    @property
    def shape(self) -> tuple[int, ...]:
        return self._values.shape

    @property
    def dtype(self) -> np.dtype:
        return self._values.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take in memory; nothing is loaded to tell."""
        return int(self._values.nbytes)

    def pieces(self) -> Iterator[np.ndarray]:
        """The elements as flat arrays, one after the other: a large weight need not be in memory as a whole."""
        stored = self.stored
        if stored is None or stored.raw is None or stored.data_type in PACKED:
            yield self.values.reshape(-1)
            return
        for chunk in stored.chunks():
            yield np.frombuffer(chunk, stored.dtype)

    def to_variable(self, dtype: Any = None, shape: Sequence[int | str | None] = ()) -> Variable:
        """Turns this very tensor into a variable; ``dtype`` is by default what it had."""
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        for key in ("_values", "data_location", "_export_dtype"):
            del self.__dict__[key]
        self.__class__ = Variable
        self.__dict__.update(dtype=dtype, shape=list(shape), type="tensor_type")
        return self

    def __repr__(self) -> str:
        return f"Constant({self.name!r}, {self.dtype}, {list(self.shape)})"


Tensor: TypeAlias = "Variable | Constant"
