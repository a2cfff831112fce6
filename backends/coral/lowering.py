"""The walk over the graph: each ONNX node is handed to the rule for its operator, which adds to the TFLite file.

A rule finds its inputs as :class:`~edgec.backends.coral.value.Value`, asks for them in the memory order that its
TFLite operator needs, and leaves its outputs as values. Three things are looked up ahead, along the tensors that a
node's output runs through: a Relu or Clip that can join the operator, the QuantizeLinear that says in which integers
the output is wanted, and a reader that wants the channels in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from math import inf, prod

import numpy as np

from edgec.backends.coral import layout
from edgec.backends.coral.emission import LARGEST_RANK, Clamp, Emission
from edgec.backends.coral.flatbuffer import ELEMENT_TYPES, File
from edgec.backends.coral.quantization import INT8_HIGH, INT8_LOW, UNBOUNDED, Quantization, per_tensor
from edgec.backends.coral.reading import ANY_ORDER, IMAGE_OPERATORS, SAME_INDEX, TWO_TENSORS, reading_order
from edgec.backends.coral.value import FLOAT32, Value, constant
from edgec.backends.cut_advice import carriers, depends_on_inputs
from edgec.ir.errors import EmitError, InternalError
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers, static_shape
from edgec.ir.rules import registering

Rule = Callable[["Lowering", Node], None]

#: The rule for each ONNX operator; filled by :data:`lowers`.
RULES: dict[str, Rule] = {}

_ONNX_INT8 = 3
#: How much coarser the steps may be that a tensor is brought to first where its readers want different ones.
COARSER = 3.0
#: numpy's most dimensions.
LARGEST_VIEW = 64
#: Inputs of up to so many dimensions are tried in every order.
LARGEST_TRIED = 5


#: Registers the rule for these ONNX operators.
lowers = registering(RULES)


@dataclass(frozen=True)
class Port:
    """An input or output of the file, against the graph's.

    Attributes:
        name: the ONNX tensor's, and the file's.
        shape: ONNX shape.
        permutation: ONNX dimensions in the order in which the file stores them.
        quantization: of int8; ``None`` where the file has no scale for it.
        dtype: the type in the file; int8 where there is a quantization.
        onnx_dtype: the type in the graph. Where it is one of integers and the file holds int8 with a quantization, the
            file's are the same integers, less 128 for uint8.
    """

    name: str
    shape: tuple[int, ...]
    permutation: tuple[int, ...]
    quantization: Quantization | None
    dtype: np.dtype = FLOAT32
    onnx_dtype: np.dtype = FLOAT32


@dataclass
class Lowered:
    """A lowered graph.

    Attributes:
        file: the TFLite file.
        inputs, outputs: its signature against the graph's.
        notes: what the user should know: requantizations, transpositions, what stayed in float.
        values: where each tensor of the graph is in the file.
    """

    file: File
    inputs: list[Port]
    outputs: list[Port]
    notes: list[str]
    values: dict[Tensor, Value]


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
class Lowering(Emission):
    """The state of one walk.

    Attributes:
        graph: what is lowered.
        values: where each tensor is that the walk has passed.
        absorbed: nodes that became part of the operator before them.
        cuttable: tensors that the user's model has, for errors to name; ``None`` where ``graph`` is that model.
    """

    graph: Graph = field(default_factory=Graph)
    values: dict[Tensor, Value] = field(default_factory=dict)
    absorbed: set[Node] = field(default_factory=set)
    cuttable: frozenset[str] | None = None

    # -- the walk ---------------------------------------------------------------------------------------------------

    def run(self) -> Lowered:
        """Lowers the whole graph.

        Raises:
            EmitError: a node has no TFLite counterpart, or a shape is not known.
        """
        self.channels_last = any(
            node.op in IMAGE_OPERATORS and len(self.shape_of(node.inputs[0]) or ()) == 3 for node in self.graph.nodes
        )
        self._outputs = set(self.graph.outputs)
        self._is_quantized = any(node.op == "QuantizeLinear" for node in self.graph.nodes)
        inputs = [self._input(tensor) for tensor in self.graph.inputs if isinstance(tensor, Variable)]
        for node in self.graph.nodes:
            if node in self.absorbed:
                continue
            rule = _rule(node)
            if rule is None:
                raise refusal(node, "the coral backend cannot lower it", self.cut_or_replace(node))
            self.source = node.name or node.outputs[0].name
            if any(isinstance(t, Variable) and 0 in (self.shape_of(t) or ()) for t in node.inputs):
                raise refusal(node, "a tensor that it reads has no elements", "remove it from the model")
            rule(self, node)
            self._refuse_missing(node)
        outputs = [self._output(tensor) for tensor in self.graph.outputs]
        return Lowered(self.file, inputs, outputs, list(dict.fromkeys(self.notes)), self.values)

    def _refuse_missing(self, node: Node) -> None:
        """Refuses a node with an output that is read and that its rule leaves no value for."""
        for tensor in node.outputs[1:]:
            if tensor.name and tensor not in self.values and (tensor.outputs or tensor in self._outputs):
                raise refusal(
                    node,
                    f"its output '{tensor.name}' is read, and the coral backend computes only the first",
                    self.cut_or_replace(node),
                )

    def _input(self, tensor: Variable) -> Port:
        shape = self.shape_of(tensor)
        if shape is None:
            raise EmitError(
                f"input '{tensor.name}'",
                f"its shape {tensor.shape} is not static",
                f"pin it with --input {tensor.name}:{_pinned(tensor.shape)}",
            )
        kind = FLOAT32 if tensor.dtype is None else np.dtype(tensor.dtype)
        # The file computes in float32 whatever the precision of the model.
        dtype = FLOAT32 if kind.kind == "f" else kind
        if dtype not in ELEMENT_TYPES:
            raise EmitError(
                f"input '{tensor.name}'",
                f"TFLite's operators do not take its type {kind}",
                "make it int32 or float32 in the model, with a Cast behind it",
            )
        if len(shape) > LARGEST_RANK:
            raise EmitError(
                f"input '{tensor.name}'",
                f"it has {len(shape)} dimensions, and TFLite's tensors at most {LARGEST_RANK}",
                "merge dimensions with a Reshape in the model",
            )
        permutation = self._input_permutation(tensor, shape)
        quantization = self.wanted_integers(tensor) if dtype.kind == "f" else self._integers_entering(tensor, dtype)
        stored = tuple(shape[axis] for axis in permutation)
        place = self.file.tensor(tensor.name, stored, np.int8 if quantization else dtype, quantization)
        self.file.inputs.append(place)
        order = layout.permuted(shape, permutation)
        real = FLOAT32 if quantization else dtype
        self.values[tensor] = Value(tensor.name, shape, order, stored, place, None, quantization, dtype=real)
        return Port(tensor.name, shape, permutation, quantization, np.dtype(np.int8) if quantization else dtype, kind)

    def _integers_entering(self, tensor: Variable, dtype: np.dtype) -> Quantization | None:
        """The int8 in which an integer input enters a quantized network; ``None`` where it enters as it is.

        A camera's bytes that the graph makes floats and quantizes are int8 with scale 1, uint8 less 128; integers that
        it dequantizes are int8 with the scale that it gives them. Either way they are the bytes of the file's input.
        """
        if dtype not in (np.dtype(np.uint8), np.dtype(np.int8)) or tensor in self._outputs:
            return None
        scales: list[Quantization] = []
        for node, read in self._moved_readers(tensor):
            if read in self._outputs:
                return None
            if node.op == "Cast" and self.wanted_integers(node.outputs[0]) is not None:
                scales.append(per_tensor(1.0, -128 if dtype == np.uint8 else 0))
            elif node.op == "DequantizeLinear" and self._is_quantized:
                scales.append(self.read_quantization(node, dtype))
            else:
                return None
        alike = scales and all(scales[0].same(other) for other in scales) and not scales[0].per_channel
        return scales[0] if alike else None

    def _moved_readers(self, tensor: Tensor) -> list[tuple[Node, Tensor]]:
        """The nodes that compute with a tensor, behind those that only move it, and what each of them reads."""
        pairs: list[tuple[Node, Tensor]] = []
        for node in consumers(tensor):
            moves = node.op in SAME_INDEX or node.op in ("Transpose", "Identity")
            pairs += self._moved_readers(node.outputs[0]) if moves else [(node, tensor)]
        return pairs

    def _input_permutation(self, tensor: Variable, shape: tuple[int, ...]) -> tuple[int, ...]:
        """An input is stored as its first reader that cares wants it, so that no TRANSPOSE comes first.

        One that the graph itself turns, by a Transpose or a Reshape of one channel, keeps the order that it comes in.
        """
        usual = self.default_permutation(len(shape))
        wanted = self.wanted_order(tensor, shape, pairs=True)
        if wanted is not None and len(shape) <= LARGEST_TRIED:
            for guess in (usual, *permutations(range(len(shape)))):
                if layout.permuted(shape, guess) == wanted:
                    return guess
        readers = self._readers(tensor)
        if readers and all(node.op == "Transpose" for node in readers) and len(shape) == 4:
            turned = {tuple(node.attrs.get("perm", range(3, -1, -1))) for node in readers}
            if len(turned) == 1:
                (permutation,) = turned
                return tuple(permutation[axis] for axis in layout.CHANNELS_LAST)
        return usual

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
        kind = FLOAT32 if tensor.dtype is None else np.dtype(tensor.dtype)
        if kind.kind in "iu" and value.quantization is not None:
            value = self.bare(value, kind)
        if 0 in value.shape:
            raise EmitError(f"output '{tensor.name}'", "it has no elements", "remove it from the model")
        permutation = layout.permutation_of(value.order, value.shape)
        if permutation is None:
            permutation = self.default_permutation(len(value.shape))
        value = self.arranged(self.real(value) if value.is_constant else value, permutation)
        if value.is_constant or value.place in self.file.inputs or value.place in self.file.outputs:
            value = self.copied(value)
        self.file.outputs.append(value.place)
        self.file.tensors[value.place].name = tensor.name
        dtype = np.dtype(np.int8) if value.quantization else value.dtype
        return Port(tensor.name, value.shape, permutation, value.quantization, dtype, kind)

    # -- what a rule asks about the graph ---------------------------------------------------------------------------

    def shape_of(self, tensor: Tensor) -> tuple[int, ...] | None:
        """The static ONNX shape of a tensor, ``None`` where it is not known."""
        if tensor in self.values:
            return self.values[tensor].shape
        shape = tensor.shape
        if shape is None or not all(isinstance(s, int | np.integer) and s >= 0 for s in shape):
            return None
        return static_shape(tensor)

    def value(self, tensor: Tensor) -> Value:
        """The value of a tensor that the walk has passed, or of a constant."""
        if tensor not in self.values:
            if not isinstance(tensor, Constant):
                raise InternalError("coral", f"tensor '{tensor.name}' is read before it is computed")
            data, half = tensor.values, tensor.dtype == np.float16
            # The file computes in float32 whatever the precision of the model.
            if data.dtype != np.float32 and np.issubdtype(data.dtype, np.floating):
                data = data.astype(np.float32)
            self.values[tensor] = constant(tensor.name, data, half=half)
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
        tensor = node.inputs[place] if place < len(node.inputs) else None
        # An input of the graph may be asked for before the walk has come to it.
        unknown = isinstance(tensor, Variable) and bool(tensor.name) and tensor not in self.values
        value = None if unknown else self.optional(node, place)
        if value is None and not unknown:
            return None
        if value is None or value.data is None:
            raise refusal(
                node,
                f"its {what} is computed by the network",
                self.make_constant(node, node.inputs[place]),
            )
        return value.real() if value.quantization is not None else value.data

    def wanted_integers(self, tensor: Tensor) -> Quantization | None:
        """The integers that every reader of a tensor wants it in, ``None`` where one wants it in float."""
        if tensor in self.graph.outputs:
            return None
        readers = consumers(tensor)
        if not readers or any(node.op != "QuantizeLinear" for node in readers):
            return None
        wanted = [self.read_quantization(node) for node in readers]
        # Readers that want different integers get them from the widest by a QUANTIZE each, unless that loses steps.
        widest = max(wanted, key=lambda q: float(q.scale.max()))
        return widest if all(other.same(widest) or _within(other, widest) for other in wanted) else None

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
                "quantize to int8 or uint8 with one scale for a tensor or a channel",
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
        integers = tensor.dtype is not None and np.dtype(tensor.dtype).kind in "iu"
        while not integers and tensor not in self._outputs and len(tensor.outputs) == 1:
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

    def wanted_order(
        self, tensor: Tensor, shape: Sequence[int], reach: int = 60, pairs: bool = False
    ) -> layout.Order | None:
        """The memory order in which the first reader that cares wants a tensor; ``None`` where none cares.

        Args:
            tensor: the tensor.
            shape: its ONNX shape.
            reach: how many nodes to look ahead.
            pairs: look through operators of two tensors too, of which the other one will have to follow.
        """
        if reach == 0:
            return None
        for node in consumers(tensor):
            if node.op in IMAGE_OPERATORS and tensor is node.inputs[0] and len(shape) in (3, 4):
                return reading_order(node, shape)
            through = pairs and node.op in TWO_TENSORS and self.shape_of(node.outputs[0]) == tuple(shape)
            if through or (node.op in ANY_ORDER and tensor is node.inputs[0]):
                found = self.wanted_order(node.outputs[0], shape, reach - 1, pairs)
            elif node.op in SAME_INDEX and tensor is node.inputs[0]:
                inner = self.shape_of(node.outputs[0])
                # Inference miscounts some pools (ceil_mode): what follows from that is no order of this tensor.
                known = inner is not None and prod(inner) == prod(shape)
                seen = inner if known and inner is not None else None
                found = None if seen is None else self.wanted_order(node.outputs[0], seen, reach - 1, pairs)
            elif node.op == "Transpose":
                found = self._wanted_transposed(node, shape, reach - 1, pairs)
            else:
                continue
            if found is not None:
                return found
        return None

    def cut_before(self, node: Node) -> str:
        """The fix for a node that has to go: where to end the network; where that is nowhere, to replace the node."""
        refused = [node, *(other for other in self.graph.nodes if _rule(other) is None)]
        names = carriers(self.graph, refused, self.cuttable)
        if not names:
            return "replace it in the model"
        return f"cut the network before it with {' '.join(f'--cut {name}' for name in names)}"

    def cut_or_replace(self, node: Node) -> str:
        """The same, where the node could be replaced as well."""
        fix = self.cut_before(node)
        return fix if fix.startswith("replace") else f"{fix}, or replace it in the model"

    def make_constant(self, node: Node, tensor: Tensor) -> str:
        """The fix for a tensor that has to be known: to fold it where that is possible."""
        if isinstance(tensor, Constant) or not depends_on_inputs(self.graph, tensor):
            return "put the pass 'fold' into the recipe, and pin open shapes with --input"
        return self.cut_or_replace(node)

    def finish(self, to: Destination, value: Value, clamp: Clamp = UNBOUNDED) -> None:
        """Leaves the value of a destination, behind the clamp that the operator could not take in."""
        value = self.clamped(value, clamp)
        self.set(to.tensor, value)

    def take_view(self, shape: Sequence[int]) -> None:
        """Refuses a shape of more dimensions than arrays can have.

        Raises:
            EmitError: it has more.
        """
        if len(shape) > LARGEST_VIEW:
            raise EmitError(
                f"node '{self.source}'",
                f"it gives {len(shape)} dimensions, and arrays have at most {LARGEST_VIEW}",
                "merge dimensions in the model",
            )

    def set(self, tensor: Tensor, value: Value) -> None:
        """Leaves the value of an ONNX tensor."""
        self.values[tensor] = value

    def _wanted_transposed(self, node: Node, shape: Sequence[int], reach: int, pairs: bool) -> layout.Order | None:
        """The order wanted behind a Transpose, in the indices in front of it."""
        turn = list(node.attrs.get("perm") or range(len(shape) - 1, -1, -1))
        if len(turn) != len(shape):
            return None
        turned = [shape[axis] for axis in turn]
        wanted = self.wanted_order(node.outputs[0], turned, reach, pairs)
        return None if wanted is None else layout.transposed(wanted, turned, np.argsort(turn).tolist())


def _rule(node: Node) -> Rule | None:
    return RULES.get(node.op) if node.domain in ("", "ai.onnx") else None


def _pinned(shape: Sequence[object] | None) -> str:
    """A shape to pin an input to, for an example: what is open is 1 in front and 224 behind it."""
    sizes = shape if shape else ["batch", 3, "height", "width"]
    known = [
        size if isinstance(size, int) and size >= 0 else 1 if not place else 224 for place, size in enumerate(sizes)
    ]
    return "x".join(map(str, known))


def _within(one: Quantization, other: Quantization) -> bool:
    """Whether what the first of two quantizations holds is held by the second, in steps not much coarser."""
    if one.per_channel or other.per_channel or float(other.scale[0]) > COARSER * float(one.scale[0]):
        return False
    ends = [float(q.real(np.array([end], np.int8))[0]) for q in (one, other) for end in (INT8_LOW, INT8_HIGH)]
    step = float(other.scale[0])
    return ends[2] <= ends[0] + step and ends[1] <= ends[3] + step


def refusal(node: Node, what: str, fix: str) -> EmitError:
    """The error for a node that cannot be lowered."""
    return EmitError(f"node '{node.name or node.outputs[0].name}' ({node.op})", what, fix)
