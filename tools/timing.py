"""Latency and memory of the networks of a run, by the report's names."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.ir.files import save
from edgec.ir.graph import Graph
from edgec.tools.measure import Speed, measure
from edgec.tools.output import writing
from edgec.tools.progress import Progress


@dataclass(frozen=True)
class Timing:
    """Times networks, or leaves it.

    Attributes:
        wanted: whether they are timed; the report's entries are null otherwise.
        progress: what the user is told.
    """

    wanted: bool
    progress: Progress

    def entries(self, backend: str, model: Path | Graph, label: str) -> dict[str, Any]:
        """``latency_ms`` and ``memory_bytes`` of a network.

        Args:
            backend: what runs it.
            model: its file, or a graph that is saved first.
            label: which network it is, as the user is told.
        """
        speed: Speed | None = None
        if self.wanted:
            self.progress.stage(f"timing {label}")
            speed = measure(backend, model) if isinstance(model, Path) else _saved_and_measured(backend, model)
        return {
            "latency_ms": None if speed is None else speed.latency_ms,
            "memory_bytes": None if speed is None else speed.memory_bytes,
        }


def _saved_and_measured(backend: str, graph: Graph) -> Speed | None:
    with tempfile.TemporaryDirectory(prefix="edgec-") as scratch:
        path = Path(scratch) / "model.onnx"
        with writing(path):
            save(graph, path)
        return measure(backend, path)
