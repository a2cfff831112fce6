"""Where a file departs from its graph: each operator is run alone, on what the graph computes in front of it.

End to end, a deep integer network turns a single rounding the other way into many; operator by operator it does not.
So this tells a fault of the lowering from a network that amplifies rounding, and names the node at fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgec.backends.coral import layout
from edgec.backends.coral.flatbuffer import File, Operator, Tensor
from edgec.backends.coral.interpreter import run_stored
from edgec.backends.coral.lowering import Lowered
from edgec.backends.coral.value import Value
from edgec.ir.execution import Session
from edgec.ir.graph import Graph, Variable

#: What one operator alone may be off, root mean square: steps of its integers, or a part of its output's size.
STEPS_DEPARTED, FLOAT_DEPARTED = 1.0, 1e-3
#: And how many times what a rounding of its inputs alone makes: sums are added up in another order.
ROUNDINGS = 256
#: The absolute accuracy of float kernels that are approximations, with room (LiteRT's LOGISTIC: 1e-7, measured).
KERNEL_ACCURACY = {"LOGISTIC": 1e-6, "TANH": 1e-6, "SOFTMAX": 1e-6, "LOG_SOFTMAX": 1e-5, "GELU": 1e-5, "ELU": 1e-6}
_ULP = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Departure:
    """An operator alone against the graph.

    Attributes:
        operator: the operator, the last of a few where the graph has no tensor between them.
        error: root mean square difference, in steps of its output's integers; of floats as it is; of indices and
            booleans the part that differs.
        allowed: what the rounding and the accuracy of the kernels explain, in the same unit.
    """

    operator: Operator
    error: float
    allowed: float

    @property
    def departs(self) -> bool:
        """Whether it does not compute what the graph computes."""
        return self.error > self.allowed


@dataclass(frozen=True)
class Departures:
    """Every operator whose output the graph has too.

    Attributes:
        measured: the one that exceeds most what it is allowed first.
        unmeasured: operators that read what the graph has nowhere.
    """

    measured: list[Departure]
    unmeasured: list[Operator]


def departures(graph: Graph, lowered: Lowered, feeds: Mapping[str, np.ndarray]) -> Departures:
    """Runs every operator whose output the graph has too."""
    held = _held(lowered)
    taps = [tensor for tensor, _ in held.values() if not any(tensor is t for t in (*graph.inputs, *graph.outputs))]
    values = {**feeds, **Session(graph, taps=taps).run(feeds)}
    known = {place: _stored(values[tensor.name], value) for place, (tensor, value) in held.items()}
    maker = {place: operator for operator in lowered.file.operators for place in operator.outputs}
    measured, unmeasured = [], []
    for operator in lowered.file.operators:
        for place in operator.outputs:
            if place not in known:
                continue
            part = _part(lowered.file, maker, known, place)
            if part is None:
                unmeasured.append(operator)
            else:
                measured.append(_departure(operator, lowered.file.tensors[place], part, known, place))
    return Departures(sorted(measured, key=lambda d: -d.error / max(d.allowed, 1e-300)), unmeasured)


def _held(lowered: Lowered) -> dict[int, tuple[Variable, Value]]:
    """The ONNX tensor that each tensor of the file holds, where there is one with the same numbers."""
    held: dict[int, tuple[Variable, Value]] = {}
    for tensor, value in lowered.values.items():
        if value.place < 0 or not isinstance(tensor, Variable):
            continue
        dtype = np.dtype(np.float32 if tensor.dtype is None else tensor.dtype)
        alike = dtype.kind in "iu" if value.quantization is not None else (dtype == value.dtype or dtype.kind == "f")
        if alike:
            held.setdefault(value.place, (tensor, value))
    return held


def _stored(values: np.ndarray, value: Value) -> np.ndarray:
    """An ONNX tensor's numbers as the file stores them."""
    if values.dtype == np.uint8 and value.quantization is not None:
        values = (values.astype(np.int16) - 128).astype(np.int8)
    flat = values.reshape(-1)[layout.indices(value.order)]
    kind = np.int8 if value.quantization is not None else value.dtype
    return np.ascontiguousarray(flat.reshape(value.stored), kind)


def _part(file: File, maker: Mapping[int, Operator], known: Mapping[int, np.ndarray], place: int) -> File | None:
    """What computes one tensor from the nearest tensors that the graph has; ``None`` where it has not all of them."""
    needed = [maker[place]]
    sources: dict[int, None] = {}
    pending = list(maker[place].inputs)
    while pending:
        current = pending.pop()
        if current in sources or current < 0 or file.tensors[current].data is not None:
            continue
        if current in known or current not in maker:
            sources[current] = None
        elif maker[current] not in needed:
            needed.append(maker[current])
            pending += maker[current].inputs
    if any(source not in known for source in sources):
        return None
    return File(file.tensors, [op for op in file.operators if op in needed], list(sources), [place])


def _departure(
    operator: Operator, tensor: Tensor, part: File, known: Mapping[int, np.ndarray], place: int
) -> Departure:
    """How far one tensor is from the graph's when it is computed from what the graph has in front of it."""
    contents, inputs, wanted = part.to_bytes(), [known[source] for source in part.inputs], known[place]
    (computed,) = run_stored(contents, inputs)
    if tensor.quantization is not None:
        return Departure(operator, _difference(computed, wanted), STEPS_DEPARTED)
    accuracy = sum(KERNEL_ACCURACY.get(op.kind, 0.0) for op in part.operators)
    size = float(np.sqrt(np.mean(wanted.astype(np.float64) ** 2))) if tensor.dtype.kind == "f" else 0.0
    error, allowed = _difference(computed, wanted), accuracy + FLOAT_DEPARTED * size
    if error > allowed:
        # What rounding the inputs alone changes says how far two ways to add up may be apart.
        random = np.random.Generator(np.random.PCG64(0))
        rounded = [_rounded(values, random) for values in inputs]
        allowed += ROUNDINGS * _difference(run_stored(contents, rounded)[0], computed)
    return Departure(operator, error, allowed)


def _difference(computed: np.ndarray, wanted: np.ndarray) -> float:
    if wanted.dtype.kind in "iub" and wanted.dtype != np.int8:
        return float(np.mean(computed != wanted))
    return float(np.sqrt(np.mean((computed.astype(np.float64) - wanted.astype(np.float64)) ** 2)))


def _rounded(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Floats moved by up to a unit in the last place; integers as they are."""
    if values.dtype != np.float32:
        return values
    return values * (1 + _ULP * random.uniform(-1, 1, values.shape)).astype(np.float32)
