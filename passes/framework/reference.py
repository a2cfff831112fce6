"""The original model's answers on a few probes, frozen before any pass runs, and comparison with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgec.ir.execution import Session
from edgec.ir.graph import Graph
from edgec.ir.signal import sqnr_scores
from edgec.passes.framework import input_domain

Outputs = Sequence[Mapping[str, np.ndarray]]


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
        """Signal to noise of ``outputs`` against the original's, in dB over all probes.

        Outputs whose shape differs from the original's are left out (:func:`.signal.sqnr_scores`).
        """
        return sqnr_scores(self.outputs, outputs).value()
