"""LSTM, GRU and RNN with a fixed number of steps, step by step as the operators that they consist of.

TFLite's own recurrent kernels want scales of their own for every gate, and the Edge TPU runs none of them. Unrolled,
a cell is fully connected layers, sums, products and tables (Sigmoid, Tanh), which are calibrated, rounded and placed
on the device like those of any other network. The weights are in the file once, whatever the number of steps. What
each operator computes is written in ONNX's operator specification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.backends.coral.legalize import known, rewrites, shaped
from edgec.backends.coral.lowering import Lowering, lowers, refusal
from edgec.ir.graph import Graph, Node, Tensor, Variable, static_shape

#: More steps are not unrolled: the file would hold more operators than a device loads.
MOST_STEPS = 256
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
#: From what a step reads, the state and the cell before it (``None``: zero) and a label to those behind it.
_Step = Callable[[Tensor, "Tensor | None", "Tensor | None", str], "tuple[Tensor, Tensor | None]"]
_KNOWN_ACTIVATIONS = frozenset({"Relu", "Sigmoid", "Tanh"})


@rewrites("LSTM", "GRU", "RNN")
def unroll(graph: Graph, node: Node) -> bool:
    """A node for every gate of every step; nothing where the steps are not known."""
    layer = _Layer.of(node)
    if layer is None:
        return False
    low = _Writer(graph, node, layer)
    runs = [low.direction(place) for place in range(layer.directions)]
    outputs: list[Tensor] = []
    for place, tensor in enumerate(node.outputs):
        if not (tensor.outputs or tensor in graph.outputs):
            outputs.append(tensor)
        elif place == 0:
            outputs.append(low.sequence([run.states for run in runs], tensor))
        else:
            outputs.append(low.last([run.state if place == 1 else run.cell for run in runs], tensor))
    graph.replace(node, outputs)
    return True


@dataclass(frozen=True)
class _Layer:
    """A recurrent layer whose steps and weights are known.

    Attributes:
        kind: ``LSTM``, ``GRU`` or ``RNN``.
        steps, batch, width: of the sequence.
        hidden: width of the state.
        directions: 1 or 2.
        activations: of one direction after the other.
    """

    kind: str
    steps: int
    batch: int
    width: int
    hidden: int
    directions: int
    reverse: bool
    activations: Sequence[str]

    @classmethod
    def of(cls, node: Node) -> _Layer | None:
        """What a node says; ``None`` where it cannot be unrolled."""
        if node.attrs.get("layout", 0):  # onnxruntime does not run it either
            return None
        x, weights, recurrent = node.inputs[0], known(node.inputs[1]), known(node.inputs[2])
        shape = x.shape
        if weights is None or recurrent is None or shape is None or not all(isinstance(s, int) for s in shape):
            return None
        if any(_given(node, place) is not None and known(node.inputs[place]) is None for place in (3, 4, 7)):
            return None
        steps, batch, width = static_shape(x)
        lengths = known(node.inputs[4]) if _given(node, 4) is not None else None
        if not 1 <= steps <= MOST_STEPS or (lengths is not None and not (lengths == steps).all()):
            return None
        directions = len(weights)
        names = [_text(name) for name in node.attrs.get("activations") or _ACTIVATIONS[node.op] * directions]
        if not set(names) <= _KNOWN_ACTIVATIONS or x.dtype != np.float32:
            return None
        reverse = _text(node.attrs.get("direction", "forward")) == "reverse"
        return cls(node.op, steps, batch, width, recurrent.shape[2], directions, reverse, names)

    def order(self, direction: int) -> Iterator[int]:
        """The steps of a direction, as it takes them."""
        backward = self.reverse or direction == 1
        return iter(range(self.steps - 1, -1, -1) if backward else range(self.steps))


@dataclass
class _Run:
    """What one direction computes: the state behind each step by its place in the sequence, and what is left."""

    states: list[Tensor]
    state: Tensor
    cell: Tensor


class _Writer:
    """Writes the steps of one node into its graph."""

    def __init__(self, graph: Graph, node: Node, layer: _Layer) -> None:
        self.graph, self.node, self.layer = graph, node, layer
        self.clip = float(node.attrs.get("clip", 0.0))
        x = node.inputs[0]
        self.rows = self.reshape(x, (layer.steps * layer.batch, layer.width), "rows")

    # -- what nodes are made of ---------------------------------------------------------------------------------------

    def op(self, op: str, inputs: Sequence[Tensor], shape: Sequence[int], label: str, **attrs: Any) -> Variable:
        """A node with one output of this shape."""
        out = self.graph.op(op, inputs, name=f"{self.node.name}.{label}", **attrs)
        out.dtype, out.shape = np.dtype(np.float32), list(shape)
        return out

    def const(self, label: str, values: np.ndarray | float) -> Tensor:
        """A constant of the layer."""
        return self.graph.const(
            f"{self.node.name}.{label}",
            np.ascontiguousarray(values, None if isinstance(values, np.ndarray) else np.float32),
        )

    def reshape(self, x: Tensor, shape: Sequence[int], label: str) -> Variable:
        """The same elements in another shape."""
        return self.op("Reshape", [x, self.const(f"{label}.shape", np.array(shape, np.int64))], shape, label)

    def split(self, x: Tensor, axis: int, count: int, shape: Sequence[int], label: str) -> list[Tensor]:
        """Equal parts of a tensor along an axis."""
        if count == 1:
            return [x]
        sizes = self.const(f"{label}.sizes", np.full(count, shape[axis], np.int64))
        parts = self.graph.op("Split", [x, sizes], name=f"{self.node.name}.{label}", outputs=count, axis=axis)
        for part in parts:
            part.dtype, part.shape = np.dtype(np.float32), list(shape)
        return list(parts)

    def both(self, op: str, a: Tensor, b: Tensor, label: str) -> Variable:
        """An elementwise operator on two states."""
        return self.op(op, [a, b], self.cell_shape, label)

    def activated(self, x: Tensor, place: int, label: str) -> Variable:
        """A gate behind its activation, clipped first where the layer clips."""
        if self.clip:
            bounds = [self.const("low", -self.clip), self.const("high", self.clip)]
            x = self.op("Clip", [x, *bounds], self.cell_shape, f"{label}.clip")
        return self.op(self.activations[place], [x], self.cell_shape, label)

    @property
    def cell_shape(self) -> tuple[int, int]:
        """Of a state: (batch, hidden)."""
        return self.layer.batch, self.layer.hidden

    # -- one direction ------------------------------------------------------------------------------------------------

    def direction(self, place: int) -> _Run:
        """All steps of a direction."""
        layer, gates = self.layer, _GATES[self.layer.kind]
        each = len(layer.activations) // layer.directions
        self.activations = layer.activations[place * each : (place + 1) * each]
        weights, recurrent, bias = self._weights(place)
        label = f"direction{place}" if layer.directions > 1 else "steps"
        split_bias = layer.kind == "GRU" and bool(self.node.attrs.get("linear_before_reset", 0))
        own = bias.sum(axis=0)
        if split_bias:  # the bias of the hidden gate's recurrent part is reset with it
            own[2 * layer.hidden :] = bias[0][2 * layer.hidden :]
        row = self.const(f"{label}.bias", own.astype(np.float32))
        wide = gates * layer.hidden
        inside = self.op(
            "Gemm", [self.rows, self.const(f"{label}.weight", weights.T), row], (layer.steps * layer.batch, wide), label
        )
        steps = self.split(inside, 0, layer.steps, (layer.batch, wide), f"{label}.inputs")
        state, cell = self._initial(5, place, label), self._initial(6, place, label) if layer.kind == "LSTM" else None
        states: dict[int, Tensor] = {}
        cells = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}
        step = cells[layer.kind](place, recurrent, bias[1], label)
        for number in layer.order(place):
            state, cell = step(steps[number], state, cell, f"{label}.{number}")
            states[number] = state
        assert state is not None
        return _Run([states[number] for number in range(layer.steps)], state, state if cell is None else cell)

    def _weights(self, place: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Those of a direction: of what it reads, of its state, and the two biases (2, gates x hidden)."""
        weights, recurrent = known(self.node.inputs[1]), known(self.node.inputs[2])
        assert weights is not None
        assert recurrent is not None
        width = _GATES[self.layer.kind] * self.layer.hidden
        given = _given(self.node, 3)
        bias = np.zeros((2, width), np.float32)
        if given is not None:
            values = known(given)
            assert values is not None
            bias = values[place].reshape(2, width)
        return weights[place], recurrent[place], bias

    def _initial(self, which: int, place: int, label: str) -> Tensor | None:
        """The state that a direction begins with; ``None`` where that is zero."""
        given = _given(self.node, which)
        if given is None:
            return None
        values = known(given)
        layer = self.layer
        if values is not None:
            return self.const(f"{label}.initial{which}", values[place]) if values[place].any() else None
        parts = self.split(given, 0, layer.directions, (1, *self.cell_shape), f"{label}.initial{which}.parts")
        return self.reshape(parts[place], self.cell_shape, f"{label}.initial{which}")

    def _product(self, state: Tensor, matrix: Tensor, width: int, label: str, bias: Tensor | None = None) -> Variable:
        inputs = [state, matrix] if bias is None else [state, matrix, bias]
        return self.op("Gemm", inputs, (self.layer.batch, width), label)

    def _lstm(self, place: int, recurrent: np.ndarray, bias: np.ndarray, label: str) -> _Step:
        """i, o, f = s(.), C = f C + i g(.), H = o h(C), with peepholes from C where there are some."""
        wide, size = 4 * self.layer.hidden, self.layer.hidden
        matrix = self.const(f"{label}.recurrent", recurrent.T)
        given = _given(self.node, 7)
        holes = None if given is None else known(given)
        peep = (
            None
            if holes is None or not holes.any()
            else [self.const(f"{label}.peephole{n}", holes[place][n * size : (n + 1) * size]) for n in range(3)]
        )
        coupled = bool(self.node.attrs.get("input_forget", 0))

        def seeing(gate: Tensor, cell: Tensor | None, which: int, name: str) -> Tensor:
            if peep is None or cell is None:
                return gate
            return self.both("Add", gate, self.both("Mul", cell, peep[which], f"{name}.peep"), f"{name}.seen")

        def step(inside: Tensor, state: Tensor | None, cell: Tensor | None, name: str) -> tuple[Tensor, Tensor | None]:
            if state is not None:
                product = self._product(state, matrix, wide, f"{name}.recurrent")
                inside = self.op("Add", [inside, product], (self.layer.batch, wide), f"{name}.sum")
            i, o, f, c = self.split(inside, 1, 4, self.cell_shape, f"{name}.gates")
            write = self.activated(seeing(i, cell, 0, f"{name}.i"), 0, f"{name}.input")
            new = self.both("Mul", write, self.activated(c, 1, f"{name}.candidate"), f"{name}.new")
            if cell is not None:
                if coupled:
                    one = self.const("one", 1.0)
                    keep = self.both("Sub", one, write, f"{name}.forget")
                else:
                    keep = self.activated(seeing(f, cell, 2, f"{name}.f"), 0, f"{name}.forget")
                new = self.both("Add", self.both("Mul", keep, cell, f"{name}.kept"), new, f"{name}.cell")
            read = self.activated(seeing(o, new, 1, f"{name}.o"), 0, f"{name}.output")
            shown = self.op(self.activations[2], [new], self.cell_shape, f"{name}.shown")
            return self.both("Mul", read, shown, f"{name}.state"), new

        return step

    def _gru(self, place: int, recurrent: np.ndarray, bias: np.ndarray, label: str) -> _Step:
        """z, r = s(.), h = g(.. r ..), H = (1 - z) h + z H."""
        size, batch = self.layer.hidden, self.layer.batch
        reset_last = bool(self.node.attrs.get("linear_before_reset", 0))
        first = self.const(f"{label}.recurrent", recurrent[: 2 * size].T)
        hidden = self.const(f"{label}.hidden", recurrent[2 * size :].T)
        row = self.const(f"{label}.hidden.bias", bias[2 * size :]) if reset_last else None

        def step(inside: Tensor, state: Tensor | None, cell: Tensor | None, name: str) -> tuple[Tensor, Tensor | None]:
            z, r, h = self.split(inside, 1, 3, self.cell_shape, f"{name}.gates")
            if state is not None:
                both = self._product(state, first, 2 * size, f"{name}.recurrent")
                z_part, r_part = self.split(both, 1, 2, self.cell_shape, f"{name}.parts")
                z, r = self.both("Add", z, z_part, f"{name}.z"), self.both("Add", r, r_part, f"{name}.r")
            update = self.activated(z, 0, f"{name}.update")
            if state is not None:
                reset = self.activated(r, 0, f"{name}.reset")
                if reset_last:
                    product = self._product(state, hidden, size, f"{name}.hidden", row)
                    part = self.both("Mul", reset, product, f"{name}.left")
                else:
                    kept = self.both("Mul", reset, state, f"{name}.left")
                    part = self._product(kept, hidden, size, f"{name}.hidden")
                h = self.both("Add", h, part, f"{name}.h")
            elif row is not None:  # r times the bias alone
                zero = self.op("Mul", [self.activated(r, 0, f"{name}.reset"), row], (batch, size), f"{name}.left")
                h = self.both("Add", h, zero, f"{name}.h")
            new = self.activated(h, 1, f"{name}.candidate")
            # (1 - z) h + z H = h + z (H - h)
            if state is None:
                one = self.const("one", 1.0)
                return self.both("Mul", self.both("Sub", one, update, f"{name}.rest"), new, f"{name}.state"), None
            apart = self.both("Sub", state, new, f"{name}.apart")
            return self.both("Add", new, self.both("Mul", update, apart, f"{name}.kept"), f"{name}.state"), None

        return step

    def _rnn(self, place: int, recurrent: np.ndarray, bias: np.ndarray, label: str) -> _Step:
        """H = f(.)."""
        matrix = self.const(f"{label}.recurrent", recurrent.T)

        def step(inside: Tensor, state: Tensor | None, cell: Tensor | None, name: str) -> tuple[Tensor, Tensor | None]:
            if state is not None:
                product = self._product(state, matrix, self.layer.hidden, f"{name}.recurrent")
                inside = self.both("Add", inside, product, f"{name}.sum")
            return self.activated(inside, 0, f"{name}.state"), None

        return step

    # -- what the node gives ------------------------------------------------------------------------------------------

    def sequence(self, directions: Sequence[Sequence[Tensor]], like: Tensor) -> Variable:
        """The state behind every step: (steps, directions, batch, hidden)."""
        layer = self.layer
        sides = []
        for number, states in enumerate(directions):
            rows = (layer.steps * layer.batch, layer.hidden)
            joined = states[0] if len(states) == 1 else self.op("Concat", states, rows, f"states{number}", axis=0)
            sides.append(self.reshape(joined, (layer.steps, 1, *self.cell_shape), f"sequence{number}"))
        whole = (layer.steps, layer.directions, *self.cell_shape)
        joined = sides[0] if len(sides) == 1 else self.op("Concat", sides, whole, "sequence", axis=1)
        return shaped(joined, like)

    def last(self, states: Sequence[Tensor], like: Tensor) -> Variable:
        """The state behind the last step: (directions, batch, hidden)."""
        sides = [self.reshape(state, (1, *self.cell_shape), f"last{number}") for number, state in enumerate(states)]
        whole = (len(sides), *self.cell_shape)
        joined = sides[0] if len(sides) == 1 else self.op("Concat", sides, whole, "last", axis=0)
        return shaped(joined, like)


def _given(node: Node, place: int) -> Tensor | None:
    """An input that may be left out."""
    if place >= len(node.inputs) or not node.inputs[place].name:
        return None
    return node.inputs[place]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@lowers("LSTM", "GRU", "RNN")
def refuse(low: Lowering, node: Node) -> None:
    """Says why a layer was not unrolled."""
    shape = low.shape_of(node.inputs[0])
    unknown = next(
        (place for place in (1, 2, 3, 4, 7) if _given(node, place) and known(node.inputs[place]) is None), None
    )
    if unknown is not None:
        what = f"'{node.inputs[unknown].name}' is computed by the network"
    elif shape is not None and shape[0] > MOST_STEPS:
        raise refusal(
            node,
            f"it takes {shape[0]} steps, and at most {MOST_STEPS} are unrolled",
            f"{low.cut_or_replace(node)}, or give it a shorter sequence",
        )
    elif _given(node, 4) is not None:
        what = "its sequences differ in length"
    else:
        what = "its activations are not Sigmoid, Tanh and Relu"
    raise refusal(node, f"{what}, so it cannot be unrolled", low.cut_or_replace(node))
