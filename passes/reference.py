"""The original model's answers on a few probes, frozen before any pass runs, and comparison with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.ir.execution import Session, sqnr_db, stacked
from edgec.ir.graph import Graph
from edgec.passes import input_domain

Outputs = Sequence[Mapping[str, np.ndarray]]

# An exact pass reorders sums. The error of a sum grows with the square root of its length times the type's epsilon;
# 2^10 epsilons of the output's largest magnitude leave room for a million terms.
_EXACT_EPSILONS = 1024
# Through 8-bit tensors a difference in the last bit of a sum can move a value by a whole step.
_EXACT_QUANTIZED = 0.02


@dataclass(frozen=True)
class Difference:
    """How far one output moved: by how much at most, and how much was allowed."""

    output: str
    largest: float
    allowed: float


class Reference:
    """The original model on the probes.

    Args:
        graph: the original model.
        probes: feeds as the original model takes them.
    """

    def __init__(self, graph: Graph, probes: Sequence[Mapping[str, np.ndarray]]) -> None:
        self.probes = [dict(feeds) for feeds in probes]
        self.names = [tensor.name for tensor in graph.outputs]
        self.outputs = self.run(graph)

    def feeds(self, graph: Graph) -> list[dict[str, np.ndarray]]:
        """The probes as ``graph`` takes them."""
        return [input_domain.enter(graph, feeds) for feeds in self.probes]

    def run(self, graph: Graph) -> list[dict[str, np.ndarray]]:
        """``graph`` on the probes, in onnxruntime without its optimizations."""
        session = Session(graph)
        return [session.run(feeds) for feeds in self.feeds(graph)]

    def sqnr_db(self, outputs: Outputs) -> float:
        """Signal to noise of ``outputs`` against the original's, in dB over all probes."""
        return sqnr_db(stacked(self.outputs), stacked(outputs))


def coarsest(graph: Graph) -> float:
    """The epsilon of the least precise float type among a network's inputs and constants; 0.0 where there is none.

    An output may be declared more precise than what it is computed from: exporters leave a Cast to double in a head.
    """
    kinds = {np.dtype(t.dtype) for t in (*graph.inputs, *graph.constants()) if t.dtype is not None}
    return max((float(np.finfo(kind).eps) for kind in kinds if kind.kind == "f"), default=0.0)


def differences(before: Outputs, after: Outputs, *, quantized: bool, epsilon: float = 0.0) -> list[Difference]:
    """The outputs of an exact pass that moved by more than rounding explains; the worst of each name.

    Args:
        before, after: outputs by name, a mapping for each probe.
        quantized: whether values go through 8-bit tensors.
        epsilon: of the coarsest type on the way (:func:`coarsest`); that of an output itself counts in any case.
    """
    found = []
    for name, old in stacked(before).items():
        new = stacked(after)[name]
        if old.dtype.kind != "f":
            moved = float(np.count_nonzero(old != new))
            if moved:
                found.append(Difference(name, moved, 0.0))
            continue
        precision = max(float(np.finfo(old.dtype).eps), epsilon)
        allowed_share = _EXACT_QUANTIZED if quantized else _EXACT_EPSILONS * precision
        finite = np.isfinite(old)
        scale = float(np.max(np.abs(old), where=finite, initial=0.0))
        with np.errstate(invalid="ignore"):
            apart = np.abs(old.astype(np.float64) - new.astype(np.float64))
        apart = np.where(old == new, 0.0, apart)  # infinities that agree
        largest = float(np.max(np.where(np.isnan(old) & np.isnan(new), 0.0, apart), initial=0.0))
        if not largest <= allowed_share * scale:
            found.append(Difference(name, largest, allowed_share * scale))
    return found
