"""What can watch the pipeline: numbered dumps, printing after a pass, printing what changed, times."""

from __future__ import annotations

import difflib
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from edgec.ir.errors import EmitError
from edgec.ir.files import save
from edgec.ir.graph import Graph
from edgec.ir.printer import print_graph
from edgec.passes.framework.legalization import Legalization

if TYPE_CHECKING:
    from edgec.passes.framework.planner import Planned
    from edgec.passes.framework.record import Record


class Instrument:
    """Told of every pass; does nothing by itself."""

    def start(self, graph: Graph) -> None:
        """``graph`` is the model as the frontend gave it."""

    def before(self, item: Planned, graph: Graph) -> None:
        """``item`` is about to run on ``graph``."""

    def after(self, item: Planned, before: Graph, graph: Graph, record: Record) -> None:
        """``item`` turned ``before`` into ``graph`` and was verified."""

    def failed(self, item: Planned, graph: Graph, error: Exception) -> None:
        """``item`` failed and left ``graph`` as it is."""


class Dumps(Instrument):
    """Numbered files in a folder: the text and the model after every pass, and what a failed pass left.

    A backend's own pass that changed nothing leaves none.

    Args:
        folder: where to; made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, graph: Graph) -> None:
        """Dumps the model as the frontend gave it, number 00."""
        self._write("input", graph)

    def after(self, item: Planned, before: Graph, graph: Graph, record: Record) -> None:
        if isinstance(item.step, Legalization) and not record.did:
            return
        self._write(f"{record.target}-{item.step.name}" if record.target else item.step.name, graph)

    def failed(self, item: Planned, graph: Graph, error: Exception) -> None:
        self._write(f"{item.step.name}-failed", graph, model=False)

    def _write(self, what: str, graph: Graph, *, model: bool = True) -> None:
        stem = f"{self.count:02}-{what}"
        self.count += 1
        try:
            (self.folder / f"{stem}.txt").write_text(print_graph(graph), encoding="utf-8")
            if model:
                save(graph, self.folder / f"{stem}.onnx")
        except OSError as error:
            reason = (error.strerror or "unknown reason").lower()
            raise EmitError(str(self.folder), f"cannot be written ({reason})", "dump to another folder") from error


class PrintAfter(Instrument):
    """Prints the graph after the passes of these names."""

    def __init__(self, names: Container[str], stream: TextIO) -> None:
        self.names = names
        self.stream = stream

    def after(self, item: Planned, before: Graph, graph: Graph, record: Record) -> None:
        if item.step.name in self.names:
            print(f"// after {item.place} '{item.step.name}'", file=self.stream)
            print(print_graph(graph), file=self.stream)


class PrintChanged(Instrument):
    """Prints, after every pass that changed something, the lines that it changed."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def after(self, item: Planned, before: Graph, graph: Graph, record: Record) -> None:
        old, new = print_graph(before).splitlines(), print_graph(graph).splitlines()
        if old == new:
            print(f"// {item.place} '{item.step.name}' changed nothing", file=self.stream)
            return
        print(f"// {item.place} '{item.step.name}' changed", file=self.stream)
        for line in difflib.unified_diff(old, new, lineterm="", n=1):
            if not line.startswith(("---", "+++")):
                print(line, file=self.stream)


class Times(Instrument):
    """Keeps how long each pass took, verification included, and prints a table when asked to."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, float]] = []

    def after(self, item: Planned, before: Graph, graph: Graph, record: Record) -> None:
        self.rows.append(
            (item.place, f"{item.step.name} ({record.target})" if record.target else item.step.name, record.seconds)
        )

    def print(self, stream: TextIO) -> None:
        """One line a pass and the total, in seconds."""
        for place, name, seconds in self.rows:
            print(f"{seconds:9.3f} s  {place:12} {name}", file=stream)
        print(f"{sum(row[2] for row in self.rows):9.3f} s  all passes", file=stream)
