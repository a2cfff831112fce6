"""Tensors, equal only to themselves, with constants whose weights stay in the model's file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import onnx

from edgec.ir.stored import PACKED, Stored
from edgec.ir.uses import Inputs, Outputs

if TYPE_CHECKING:
    from edgec.ir.graph import Node

# What a tensor keeps when it becomes one of the other kind.
_OF_BOTH = frozenset({"name", "inputs", "outputs", "doc_string", "metadata", "quantization"})

Shape: TypeAlias = "list[int | str | None]"


#: What most nodes and tensors have: nothing, which cannot be written to. Assign a dictionary to give one some.
NO_METADATA: Mapping[str, str] = MappingProxyType({})


class Variable:
    """A tensor computed when the network runs.

    Attributes:
        shape: one entry a dimension: a number, a symbol's name, or ``None`` where unknown; ``None`` for unknown rank.
        dtype: numpy's type (ml_dtypes' for the small floats), ``None`` where unknown.
        inputs: the node that computes it, or none.
        outputs: the nodes that read it, once for each use.
        type: ``tensor_type``, or what ONNX calls what is not a tensor.
        type_proto: the whole type, for what is not a tensor (sequences, optionals, maps).
        quantization: the tensors of the model's quantization annotation, by key such as ``SCALE_TENSOR``.
    """

    name: str
    inputs: Inputs[Node]
    outputs: Outputs[Node]
    dtype: np.dtype[Any] | None
    shape: Shape | None
    type: str
    type_proto: onnx.TypeProto | None = None
    doc_string: str = ""
    metadata: Mapping[str, str] = NO_METADATA
    quantization: Mapping[str, Tensor] | None = None

    def __init__(
        self, name: str, dtype: Any = None, shape: Sequence[int | str | None] | None = None, type: str = "tensor_type"
    ) -> None:
        self.name = name
        self.inputs, self.outputs = Inputs(), Outputs()
        self.inputs.owner = self.outputs.owner = self
        self.dtype = None if dtype is None else np.dtype(dtype)
        self.shape = None if shape is None else list(shape)
        self.type = type

    @staticmethod
    def empty() -> Variable:
        """The place of an input that is omitted."""
        return Variable("")

    def to_constant(self, values: np.ndarray) -> Constant:
        """Turns this very tensor into a constant, so that all who read it see the change."""
        kept = {key: held for key, held in vars(self).items() if key in _OF_BOTH}
        made = cast("Constant", self)
        vars(made).clear()
        vars(made).update(kept)
        self.__class__ = Constant  # type: ignore[assignment]
        made.values = values
        return made

    def __repr__(self) -> str:
        return f"Variable({self.name!r}, {self.dtype}, {self.shape})"


class Constant:
    """A tensor known when the network is compiled.

    ``values`` is read-only: weights may lie in the user's file. Assign a new array to change them.
    """

    name: str
    inputs: Inputs[Node]
    outputs: Outputs[Node]
    doc_string: str = ""
    metadata: Mapping[str, str] = NO_METADATA
    quantization: Mapping[str, Tensor] | None = None

    def __init__(self, name: str, values: np.ndarray | Stored) -> None:
        self.name = name
        self.inputs, self.outputs = Inputs(), Outputs()
        self.inputs.owner = self.outputs.owner = self
        self.hold(values)

    @property
    def values(self) -> np.ndarray:
        """The elements, read-only."""
        return self._values.load() if isinstance(self._values, Stored) else self._values

    @values.setter
    def values(self, values: np.ndarray) -> None:
        self.hold(values)

    def hold(self, values: np.ndarray | Stored) -> None:
        """Makes this array the elements, or what lies at a place in a file (:attr:`held` of a constant)."""
        if isinstance(values, np.ndarray):
            values = values.view() if values.dtype.kind not in "UST" else values.astype(object)
            values.flags.writeable = False
        elif not isinstance(values, Stored):
            raise TypeError(f"constant '{self.name}': values must be a numpy array, not {type(values).__name__}")
        self._values: np.ndarray | Stored = values

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
        kept = {key: held for key, held in vars(self).items() if key in _OF_BOTH}
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        made = cast("Variable", self)
        vars(made).clear()
        vars(made).update(kept)
        self.__class__ = Variable  # type: ignore[assignment]
        made.dtype, made.shape, made.type = dtype, list(shape), "tensor_type"
        return made

    def __repr__(self) -> str:
        return f"Constant({self.name!r}, {self.dtype}, {list(self.shape)})"


Tensor: TypeAlias = "Variable | Constant"
