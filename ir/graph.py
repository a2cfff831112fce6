"""The graph that passes rewrite: onnx-graphsurgeon's, with its parts made identity-equal and its slow verbs replaced.

What a pass author knows of graphsurgeon (``node.inputs``, ``tensor.outputs``, ``node.i()``, ``node.attrs``) works here.
Three things differ. Parts are equal only to themselves and can be hashed, so detaching one of two alike nodes detaches
the right one. Constants are read-only views of the model's file until an array is assigned to ``values``. And new parts
are made by the verbs of :class:`Graph` (``op``, ``const``, ``replace``, ``erase``, ``replace_uses``), which cost no more
on a large graph than on a small one; graphsurgeon's ``layer``, ``toposort``, ``cleanup`` and ``fold_constants`` are not
to be called. This is the only module that imports onnx_graphsurgeon.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from mmap import mmap
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.util.misc import SynchronizedList

Shape: TypeAlias = "list[int | str | None]"


class Stored(LazyValues):
    """A weight where the model's file keeps it: decoded when asked for, written back byte for byte when untouched.

    Args:
        shape: dimensions.
        data_type: ``onnx.TensorProto.DataType`` of the elements.
        raw: the little-endian bytes, usually a slice of a memory map; ``None`` for a tensor kept as a proto.
        proto: the tensor as onnx decoded it, for the types that have no raw form (strings, typed fields).
        mapping: the memory map that ``raw`` is a slice of, and where it starts there; saving lets go of its pages.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        data_type: int,
        raw: memoryview | None = None,
        proto: onnx.TensorProto | None = None,
        mapping: tuple[mmap, int] | None = None,
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
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def load(self) -> np.ndarray:
        """The elements as a read-only array; a view of the file wherever the type has whole bytes."""
        if self._array is None:
            if self.raw is None:
                self._array = onnx.numpy_helper.to_array(self.proto)
            elif self.data_type in _PACKED:
                proto = onnx.TensorProto(dims=self.shape, data_type=self.data_type, raw_data=bytes(self.raw))
                self._array = onnx.numpy_helper.to_array(proto)
            else:
                self._array = np.frombuffer(self.raw, self.dtype).reshape(self.shape)
            self._array.flags.writeable = False
        return self._array


class _Identity:
    """Equality and hash by identity, for classes whose base compares by name."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Variable(_Identity, gs.Variable):
    """A tensor computed when the network runs.

    Attributes:
        shape: one entry a dimension: a number, a symbol's name, or ``None`` where unknown; ``None`` for unknown rank.
        dtype: numpy's type (ml_dtypes' for the small floats), ``None`` where unknown.
        type_proto: the whole type, for what is not a tensor (sequences, optionals, maps).
        quantization: the tensors of the model's quantization annotation, by key such as ``SCALE_TENSOR``.
    """

    type_proto: onnx.TypeProto | None = None
    doc_string: str = ""
    metadata: Mapping[str, str] = {}  # noqa: RUF012  (replaced, never mutated)
    quantization: Mapping[str, Tensor] | None = None

    def __init__(
        self, name: str, dtype: Any = None, shape: Sequence[int | str | None] | None = None, type: str = "tensor_type"
    ) -> None:
        # Straight into the dictionary: graphsurgeon's __setattr__ costs more than everything else on a large graph.
        self.__dict__.update(
            name=name,
            inputs=_uses(self, "outputs"),
            outputs=_uses(self, "inputs"),
            dtype=None if dtype is None else np.dtype(dtype),
            shape=None if shape is None else list(shape),
            type=type,
        )

    @staticmethod
    def empty() -> Variable:
        """The place of an input that is omitted."""
        return Variable("")

    def __repr__(self) -> str:
        return f"Variable({self.name!r}, {self.dtype}, {self.shape})"


class Constant(_Identity, gs.Constant):
    """A tensor known when the network is compiled.

    ``values`` is read-only: weights may lie in the user's file. Assign a new array to change them.
    """

    doc_string: str = ""
    metadata: Mapping[str, str] = {}  # noqa: RUF012
    quantization: Mapping[str, Tensor] | None = None

    def __init__(self, name: str, values: np.ndarray | Stored) -> None:
        self.__dict__.update(
            name=name,
            inputs=_uses(self, "outputs"),
            outputs=_uses(self, "inputs"),
            data_location=None,
            _export_dtype=None,
        )
        self.values = values

    @property
    def values(self) -> np.ndarray:
        """The elements, read-only."""
        return self._values.load() if isinstance(self._values, Stored) else self._values

    @values.setter
    def values(self, values: np.ndarray | Stored) -> None:
        if isinstance(values, np.ndarray):
            values = values.view()
            values.flags.writeable = False
        elif not isinstance(values, Stored):
            raise TypeError(f"constant '{self.name}': values must be a numpy array, not {type(values).__name__}")
        self.__dict__["_values"] = values

    @property
    def stored(self) -> Stored | None:
        """Where the file keeps it, while it is untouched."""
        return self._values if isinstance(self._values, Stored) else None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._values.shape)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self._values.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take in memory; nothing is loaded to tell."""
        return int(self._values.nbytes)

    def __repr__(self) -> str:
        return f"Constant({self.name!r}, {self.dtype}, {list(self.shape)})"


Tensor: TypeAlias = "Variable | Constant"


class Node(_Identity, gs.Node):
    """One operator: ``op`` of ``domain`` with ``attrs``, from ``inputs`` to ``outputs``."""

    doc_string: str = ""
    overload: str = ""
    metadata: Mapping[str, str] = {}  # noqa: RUF012

    def __init__(
        self,
        op: str,
        name: str = "",
        attrs: dict[str, Any] | None = None,
        inputs: Iterable[Tensor] = (),
        outputs: Iterable[Tensor] = (),
        domain: str = "",
    ) -> None:
        ins, outs = _uses(self, "outputs"), _uses(self, "inputs")
        self.__dict__.update(
            op=op, name=name, attrs={} if attrs is None else attrs, inputs=ins, outputs=outs, domain=domain
        )
        list.extend(ins, inputs)
        list.extend(outs, outputs)
        for tensor in ins:
            list.append(tensor.outputs, self)
        for tensor in outs:
            list.append(tensor.inputs, self)

    def subgraphs(self, recursive: bool = False) -> Iterator[Graph]:
        """The graphs in its attributes (If, Loop, Scan); with ``recursive`` those inside them too."""
        for value in self.attrs.values():
            found = value if isinstance(value, list) else [value]
            for graph in found:
                if isinstance(graph, Graph):
                    yield graph
                    if recursive:
                        for node in graph.nodes:
                            yield from node.subgraphs(recursive=True)

    def __repr__(self) -> str:
        names = ", ".join(t.name for t in self.inputs)
        return f"Node({self.name!r}: {', '.join(t.name for t in self.outputs)} = {self.op}({names}))"


class Graph(gs.Graph):
    """A model, or a subgraph of one.

    Attributes:
        nodes: in execution order.
        inputs, outputs: the signature; an input that has a default is a :class:`Constant`.
        opsets: version by operator domain; ``opset`` is that of the standard domain.
        metadata: the model's metadata properties.
        carried: the rest of the model's proto (producer, domain, version, training information), kept for export.
        graph_metadata: the graph's own metadata properties.
    """

    def __init__(
        self,
        nodes: Sequence[Node] = (),
        inputs: Sequence[Tensor] = (),
        outputs: Sequence[Tensor] = (),
        name: str = "graph",
        doc_string: str = "",
        opset: int = 17,
        opsets: Mapping[str, int] | None = None,
        ir_version: int | None = None,
    ) -> None:
        self.__dict__["opsets"] = {"": opset} if opsets is None else dict(opsets)
        super().__init__(list(nodes), list(inputs), list(outputs), name=name, doc_string=doc_string)
        if opsets is None:
            self.opset = opset
        else:
            self.__dict__["opsets"] = dict(opsets)
        self.ir_version = ir_version
        self.metadata: dict[str, str] = {}
        self.graph_metadata: dict[str, str] = {}
        self.carried: onnx.ModelProto | None = None
        self._taken: set[str] = set()
        self._taken_at = -1
        self._next: dict[str, int] = {}
        self._nested: list[Graph] = []
        self._nested_at = -1

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return self.opsets.get("", self.opsets.get("ai.onnx", 0))

    @opset.setter
    def opset(self, version: int) -> None:
        # graphsurgeon's constructor assigns its own default; the version given to ours is set after it.
        self.opsets.pop("ai.onnx", None)
        self.opsets[""] = int(version)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"Graph({self.name!r}, {len(self.nodes)} nodes)"

    __str__ = __repr__

    # -- names ------------------------------------------------------------------------------------------------------

    def fresh(self, name: str) -> str:
        """A name like ``name`` that no node or tensor of this graph or its subgraphs has."""
        if self._taken_at != len(self.nodes):
            self._taken = set(_names(self))
            self._taken_at = len(self.nodes)
        candidate = name
        while not candidate or candidate in self._taken:
            number = self._next[name] = self._next.get(name, 0) + 1
            candidate = f"{name}.{number}"
        self._taken.add(candidate)
        return candidate

    # -- verbs ------------------------------------------------------------------------------------------------------

    @overload
    def op(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        *,
        name: str = ...,
        outputs: Literal[1] = ...,
        domain: str = ...,
        before: Node | None = ...,
        **attrs: Any,
    ) -> Variable: ...

    @overload
    def op(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        *,
        name: str = ...,
        outputs: int | Sequence[Variable],
        domain: str = ...,
        before: Node | None = ...,
        **attrs: Any,
    ) -> list[Variable]: ...

    def op(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        *,
        name: str = "",
        outputs: int | Sequence[Variable] = 1,
        domain: str = "",
        before: Node | None = None,
        **attrs: Any,
    ) -> Variable | list[Variable]:
        """Adds a node and returns what it computes.

        Args:
            op: the operator.
            inputs: its inputs; ``None`` for one that is omitted.
            name: the node's name, made unique; its outputs are named for it.
            outputs: how many outputs, or the variables themselves. One output is returned bare, otherwise a list.
            before: the node to put it in front of; appended when not given (sort the graph afterwards).
            attrs: attributes, as Python values.
        """
        label = self.fresh(name or op.lower())
        if isinstance(outputs, int):
            single = outputs == 1
            made = [Variable(self.fresh(f"{label}.out{i}" if i else f"{label}.out")) for i in range(outputs)]
        else:
            single, made = False, list(outputs)
        ins = [Variable.empty() if t is None else t for t in inputs]
        node = Node(op, label, {k: v for k, v in attrs.items() if v is not None}, ins, made, domain)
        if before is None:
            self.nodes.append(node)
        else:
            self.nodes.insert(self.nodes.index(before), node)
        self._taken_at = len(self.nodes) if self._taken_at == len(self.nodes) - 1 else -1
        plain = not any(node.subgraphs())
        self._nested_at = len(self.nodes) if plain and self._nested_at == len(self.nodes) - 1 else -1
        return made[0] if single else made

    def const(self, name: str, values: Any) -> Constant:
        """A new constant whose name is ``name``, made unique."""
        return Constant(self.fresh(name), np.asarray(values))

    def replace_uses(self, old: Tensor, new: Tensor) -> None:
        """Makes every consumer of ``old`` read ``new``, subgraphs included; a graph output keeps its name.

        Linear in the number of uses. ``new``'s own producer goes on reading ``old``, so that
        ``replace_uses(x, op(x))`` puts an operator behind ``x``.
        """
        if old is new:
            return
        own = {id(node) for node in new.inputs}
        kept = [node for node in old.outputs if id(node) in own]
        moved = [node for node in old.outputs if id(node) not in own]
        list.clear(old.outputs)
        list.extend(old.outputs, kept)
        for node in dict.fromkeys(moved):
            for place, tensor in enumerate(node.inputs):
                if tensor is old:
                    list.__setitem__(node.inputs, place, new)
        list.extend(new.outputs, moved)
        for graph in (self, *self._subgraphs()):
            for place, tensor in enumerate(graph.outputs):
                if tensor is old:
                    self._hand_over_name(graph, place, old, new)

    def _subgraphs(self) -> list[Graph]:
        """Every graph inside this one; looked for again only when nodes came or went other than by our verbs."""
        if self._nested_at != len(self.nodes):
            self._nested = [sub for node in self.nodes for sub in node.subgraphs(recursive=True)]
            self._nested_at = len(self.nodes)
        return self._nested

    def _hand_over_name(self, graph: Graph, place: int, old: Tensor, new: Tensor) -> None:
        """``new`` becomes the output ``old`` was, under its name; where it cannot take the name, an Identity does."""
        taken = any(t is new for t in (*self.inputs, *graph.outputs)) or isinstance(new, Constant)
        if taken or old.name == "" or not old.inputs:
            if new.name == old.name:
                graph.outputs[place] = new
                return
            name, old_shape, old_dtype = old.name, old.shape, old.dtype
            if any(t is old for t in (*self.inputs, *graph.inputs)):
                # The old tensor is an input and an output at once: the signature already had to pass it through.
                raise ValueError(f"'{name}' is an input and an output of the graph; its uses cannot be replaced")
            old.name = self.fresh(f"{name}.before")
            alias = Variable(name, old_dtype, None if old_shape is None else list(old_shape))
            graph.nodes.append(Node("Identity", self.fresh(f"{name}.identity"), {}, [new], [alias]))
            graph.outputs[place] = alias
            return
        name = old.name
        old.name = self.fresh(f"{name}.before")
        new.name = name
        if isinstance(new, Variable):
            new.dtype = old.dtype if new.dtype is None else new.dtype
            new.shape = new.shape if new.shape is not None or old.shape is None else list(old.shape)
        graph.outputs[place] = new

    def replace(self, node: Node, outputs: Sequence[Tensor] | Tensor) -> None:
        """Puts ``outputs`` in the place of what ``node`` computed, one for one, and erases the node."""
        new = [outputs] if isinstance(outputs, Variable | Constant) else list(outputs)
        if len(new) != len(node.outputs):
            raise ValueError(f"node '{node.name}' has {len(node.outputs)} outputs, but {len(new)} replace them")
        for old, tensor in zip(list(node.outputs), new, strict=True):
            self.replace_uses(old, tensor)
        self.erase(node)

    def erase(self, node: Node) -> None:
        """Takes a node out; what it computed must have no consumer left."""
        used = next((t for t in node.outputs if t.outputs or any(t is o for o in self.outputs)), None)
        if used is not None:
            raise ValueError(f"node '{node.name}' cannot be erased: its output '{used.name}' is still used")
        plain = not any(node.subgraphs())
        detach(node)
        self.nodes.remove(node)
        self._taken_at = len(self.nodes) if self._taken_at == len(self.nodes) + 1 else -1
        self._nested_at = len(self.nodes) if plain and self._nested_at == len(self.nodes) + 1 else -1

    # -- views ------------------------------------------------------------------------------------------------------

    def constants(self) -> list[Constant]:
        """Every constant in use, once, in the order of first use; those of subgraphs included."""
        found: dict[Constant, None] = {}
        for tensor in _tensors(self):
            if isinstance(tensor, Constant):
                found[tensor] = None
        return list(found)

    def variables(self) -> list[Variable]:
        """Every named variable of this graph, once, inputs first; those of subgraphs included."""
        found: dict[Variable, None] = {}
        for tensor in _tensors(self):
            if isinstance(tensor, Variable) and tensor.name:
                found[tensor] = None
        return list(found)

    def tensor(self, name: str) -> Tensor | None:
        """The tensor of that name, or ``None``. Looks through the whole graph: not for loops."""
        return next((t for t in _tensors(self) if t.name == name), None)

    def node(self, name: str) -> Node | None:
        """The node of that name, or ``None``. Looks through the whole graph: not for loops."""
        return next((n for n in self.nodes if n.name == name), None)

    def copy(self, tensor_map: dict[Tensor, Tensor] | None = None) -> Graph:
        """A graph of its own that shares the weights' memory (arrays are read-only, so sharing is safe)."""
        known: dict[Tensor, Tensor] = {} if tensor_map is None else tensor_map
        twin = Graph(name=self.name, doc_string=self.doc_string, opsets=self.opsets, ir_version=self.ir_version)
        twin.metadata, twin.graph_metadata = dict(self.metadata), dict(self.graph_metadata)
        twin.carried, twin._functions = self.carried, self._functions

        def of(tensor: Tensor) -> Tensor:
            if tensor not in known:
                known[tensor] = _copy_tensor(tensor)
                if tensor.quantization is not None:
                    known[tensor].quantization = {k: of(v) for k, v in tensor.quantization.items()}
            return known[tensor]

        twin.inputs = [of(t) for t in self.inputs]
        # Outputs of nodes are made before anything reads them, so that a subgraph finds what it captures.
        for node in self.nodes:
            for tensor in node.outputs:
                of(tensor)
        for node in self.nodes:
            attrs = {key: _copy_attribute(value, known) for key, value in node.attrs.items()}
            made = Node(node.op, node.name, attrs, map(of, node.inputs), map(of, node.outputs), node.domain)
            extras = {k: v for k, v in node.__dict__.items() if k in ("doc_string", "overload", "metadata")}
            made.__dict__.update(extras)
            twin.nodes.append(made)
        twin.outputs = [of(t) for t in self.outputs]
        return twin

    # -- ordering (ir/order.py) -------------------------------------------------------------------------------------

    def sort(self) -> Graph:
        """Puts the nodes in execution order; a graph that is in order already is left as it is."""
        from edgec.ir.order import sort

        sort(self)
        return self

    def remove_dead(self) -> int:
        """Removes nodes that no output depends on; returns how many."""
        from edgec.ir.order import remove_dead

        return remove_dead(self)


def producer(tensor: Tensor) -> Node | None:
    """The node that computes ``tensor``; ``None`` for an input or a constant."""
    return tensor.inputs[0] if tensor.inputs else None


def consumers(tensor: Tensor) -> list[Node]:
    """The nodes that read ``tensor``, each once, in the order in which they took it up."""
    return list(dict.fromkeys(tensor.outputs))


def detach(node: Node) -> None:
    """Frees a node from its tensors; it stays in whatever list holds it."""
    for tensor in node.inputs:
        list.remove(tensor.outputs, node)
    for tensor in node.outputs:
        list.remove(tensor.inputs, node)
    list.clear(node.inputs)
    list.clear(node.outputs)


def numpy_dtype(data_type: int) -> Any:
    """numpy's type for an ``onnx.TensorProto.DataType``; object for strings."""
    return _NUMPY.get(data_type) or _NUMPY.setdefault(data_type, onnx.helper.tensor_dtype_to_np_dtype(data_type))


def onnx_dtype(dtype: Any) -> int:
    """``onnx.TensorProto.DataType`` of a numpy type."""
    key = np.dtype(dtype)
    if key not in _ONNX:
        text = key.kind in "OUS"
        _ONNX[key] = onnx.TensorProto.STRING if text else onnx.helper.np_dtype_to_tensor_dtype(key)
    return _ONNX[key]


_NUMPY: dict[int, Any] = {}
_ONNX: dict[np.dtype, int] = {}
# Types with less than a byte an element: two or four share one, and numpy holds them unpacked.
_PACKED = frozenset(
    getattr(onnx.TensorProto, name)
    for name in ("INT4", "UINT4", "FLOAT4E2M1", "INT2", "UINT2")
    if hasattr(onnx.TensorProto, name)
)


def _uses(owner: Any, field: str) -> SynchronizedList:
    made = SynchronizedList.__new__(SynchronizedList)
    made.parent_obj = owner
    made.field_name = field
    return made


def _tensors(graph: Graph) -> Iterator[Tensor]:
    yield from graph.inputs
    for node in graph.nodes:
        for tensor in (*node.inputs, *node.outputs):
            yield tensor
            if tensor.quantization is not None:
                yield from tensor.quantization.values()
        for subgraph in node.subgraphs():
            yield from _tensors(subgraph)
    yield from graph.outputs


def _names(graph: Graph) -> Iterator[str]:
    for tensor in _tensors(graph):
        yield tensor.name
    for node in graph.nodes:
        yield node.name
        for subgraph in node.subgraphs(recursive=True):
            yield from (inner.name for inner in subgraph.nodes)


def _copy_tensor(tensor: Tensor) -> Tensor:
    made: Tensor
    if isinstance(tensor, Constant):
        made = Constant(tensor.name, tensor._values)
    else:
        made = Variable(tensor.name, tensor.dtype, tensor.shape, tensor.type)
    extras = ("type_proto", "doc_string", "metadata")
    made.__dict__.update({k: v for k, v in tensor.__dict__.items() if k in extras})
    return made


def _copy_attribute(value: Any, known: dict[Tensor, Tensor]) -> Any:
    if isinstance(value, Graph):
        return value.copy(known)
    if isinstance(value, list):
        return [_copy_attribute(item, known) for item in value]
    return value
