"""Where a file departs from its graph: each operator is run alone, on what the graph computes in front of it.

End to end, a deep integer network turns a single rounding the other way into many; operator by operator it does not.
So this tells a fault of the lowering from a network that amplifies rounding, and names the node at fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgec.backends.coral import layout
from edgec.backends.coral.flatbuffer import File, Operator
from edgec.backends.coral.interpreter import run_stored
from edgec.backends.coral.lowering import Lowered
from edgec.backends.coral.value import Value
from edgec.ir.execution import Session
from edgec.ir.graph import Graph, Variable


@dataclass(frozen=True)
class Departure:
    """An operator alone against the graph.

    Attributes:
        operator: the operator, the last of a few where the graph has no tensor between them.
        error: root mean square difference, in steps of its output's integers; for floats, over the output's own size.
    """

    operator: Operator
    error: float


def departures(graph: Graph, lowered: Lowered, feeds: Mapping[str, np.ndarray]) -> list[Departure]:
    """Every operator whose output the graph has too, the worst first."""
    held = _held(lowered)
    taps = [tensor for tensor, _ in held.values() if not any(tensor is t for t in (*graph.inputs, *graph.outputs))]
    values = {**feeds, **Session(graph, taps=taps).run(feeds)}
    known = {place: _stored(values[tensor.name], value) for place, (tensor, value) in held.items()}
    maker = {place: operator for operator in lowered.file.operators for place in operator.outputs}
    found = []
    for operator in lowered.file.operators:
        for place in operator.outputs:
            if place in known:
                found.append(Departure(operator, _error(lowered.file, maker, known, place)))
    return sorted(found, key=lambda departure: -departure.error)


def _held(lowered: Lowered) -> dict[int, tuple[Variable, Value]]:
    """The ONNX tensor that each tensor of the file holds, where there is one with the same numbers."""
    held: dict[int, tuple[Variable, Value]] = {}
    for tensor, value in lowered.values.items():
        if value.place < 0 or not isinstance(tensor, Variable):
            continue
        integers = tensor.dtype is not None and tensor.dtype.kind in "iu"
        if integers == (value.quantization is not None):
            held.setdefault(value.place, (tensor, value))
    return held


def _stored(values: np.ndarray, value: Value) -> np.ndarray:
    """An ONNX tensor's numbers as the file stores them."""
    if values.dtype == np.uint8:
        values = (values.astype(np.int16) - 128).astype(np.int8)
    flat = values.reshape(-1)[layout.indices(value.order)]
    return np.ascontiguousarray(flat.reshape(value.stored))


def _error(file: File, maker: Mapping[int, Operator], known: Mapping[int, np.ndarray], place: int) -> float:
    """How far one tensor is from the graph's when it is computed from the nearest tensors that the graph has."""
    needed: list[Operator] = []
    sources: dict[int, None] = {}
    pending = list(maker[place].inputs)
    needed.append(maker[place])
    while pending:
        current = pending.pop()
        if current in sources or current < 0 or file.tensors[current].data is not None:
            continue
        if current in known or current not in maker:
            sources[current] = None
        elif maker[current] not in needed:
            needed.append(maker[current])
            pending += maker[current].inputs
    part = File(file.tensors, [op for op in file.operators if op in needed], list(sources), [place])
    if any(source not in known for source in sources):
        return 0.0
    (found,) = run_stored(part.to_bytes(), [known[source] for source in sources])
    wanted = known[place].astype(np.float64)
    error = float(np.sqrt(np.mean((found.astype(np.float64) - wanted) ** 2)))
    if file.tensors[place].quantization is not None:
        return error
    return error / max(float(np.sqrt(np.mean(wanted**2))), 1e-30)
