"""What a pipeline made: the network, what it costs, and how far it is from the original."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgec.backends.protocol import Emitted
    from edgec.ir.graph import Graph
    from edgec.passes.framework.context import RunConfig
    from edgec.passes.framework.record import Record
    from edgec.tools.quality import Quality
    from edgec.tools.samples import Samples


@dataclass(frozen=True)
class Result:
    """A network that passes rewrote.

    Attributes:
        graph: the network.
        records: what each pass did, in order.
        before, after: what the original and the network cost: ``params``, ``macs``, ``weight_bytes``, ``nodes``, ...
        sqnr_db: the network against the original, in dB, on ``samples`` samples that no pass was fitted to; ``None``
            where there were too few to set some aside. On noise where there are no data.
        sqnr_interval: the 95 % interval of that; ``None`` where one sample alone was measured.
        samples: how many samples that was measured on.
        source: whose they are: ``calibration`` or ``train`` (set aside from them), ``noise``, or ``fitted``.
        notes: what should be known of the figures, in sentences.
    """

    graph: Graph
    records: Sequence[Record]
    before: Mapping[str, int]
    after: Mapping[str, int]
    sqnr_db: float | None
    sqnr_interval: tuple[float, float] | None
    samples: int
    source: str
    notes: Sequence[str]
    _floats: Graph
    _quality: Quality
    _config: RunConfig

    @classmethod
    def of(
        cls,
        original: Graph,
        floats: Graph,
        graph: Graph,
        records: Sequence[Record],
        quality: Quality,
        samples: Samples,
        config: RunConfig,
    ) -> Result:
        """Measures what passes left.

        Args:
            original: the network that came in.
            floats: the network in front of the passes that depend on the target.
            graph: the network behind all of them.
            records: of the passes.
            quality: measures.
            samples: the data.
            config: of the run, with its target.
        """
        from edgec.ir.cost import Cost
        from edgec.passes.calibration.evaluate import runner

        reached, entries = quality.measured(runner(graph))
        interval = entries["sqnr_interval"]
        return cls(
            graph,
            tuple(records),
            Cost(original).as_dict(),
            Cost(graph).as_dict(),
            None if reached.sqnr is None else reached.sqnr.value(),
            None if interval is None else (interval[0], interval[1]),
            len(quality.probes.feeds) * quality.probes.each,
            quality.probes.source,
            (*samples.notes, *quality.notes(entries)),
            floats,
            quality,
            config,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the network as an ONNX file.

        Raises:
            edgec.ir.errors.EmitError: it cannot be written.
        """
        from edgec.ir.errors import EmitError
        from edgec.ir.files import save

        try:
            save(self.graph, path)
        except OSError as error:
            raise EmitError(os.fspath(path), f"cannot be written ({error.strerror})", "save to another path") from error

    def emit(self, folder: str | os.PathLike[str]) -> Emitted:
        """Writes the files for the pipeline's target into a folder, and checks them by running them.

        Args:
            folder: it must not be there yet, or be empty; nothing is left there where the files cannot be written.

        Raises:
            edgec.ir.errors.UsageError: the pipeline has no target, or something lies in the folder.
            edgec.ir.errors.EmitError: the target cannot take the network.
        """
        from edgec.backends.protocol import Beside
        from edgec.backends.registry import backend
        from edgec.ir.errors import UsageError
        from edgec.passes.framework.context import Context

        target = self._config.target
        if target is None:
            raise UsageError("Result.emit", "the pipeline has no target", "make it with Pipeline(..., target=...)")
        place = Path(folder)
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise UsageError(str(place), "is not an empty folder", "name another folder, or empty it")
        feeds = self._quality.reference().feeds(self.graph)
        ctx = Context(self.graph, self._config)
        samples = ctx.feeds(self.graph, "calibration") if "calibration" in ctx.data else ()
        beside = Beside(self._floats.copy(), samples)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".edgec-", dir=place.parent) as scratch:
            made = Path(scratch) / place.name
            made.mkdir()
            emitted = backend(target.backend).emit(self.graph.copy(), target, made, feeds, beside)
            made.replace(place)
        return emitted

    def _repr_html_(self) -> str:
        """For notebooks: the costs beside each other, and what each pass kept."""
        from edgec.tools.summary import amount

        rows = "".join(
            f"<tr><th>{name.replace('_', ' ')}</th><td>{amount(before)}</td><td>{amount(self.after[name])}</td></tr>"
            for name, before in self.before.items()
        )
        passes = "".join(
            f"<tr><th>{escape(record.name)}</th><td>{record.seconds:.2f} s</td><td>{record.sqnr_db:.1f} dB</td></tr>"
            for record in self.records
        )
        return (
            f"<p>{escape(self._words())}</p>"
            f"<table><tr><th></th><th>original</th><th>now</th></tr>{rows}</table>"
            f"<table><tr><th>pass</th><th>took</th><th>left</th></tr>{passes}</table>"
        )

    def __repr__(self) -> str:
        return f"Result({self.graph!r}, {self._words()})"

    def _words(self) -> str:
        if self.sqnr_db is None:
            return "not measured: there were too few samples to set some aside"
        between = "" if self.sqnr_interval is None else " ({:.1f} to {:.1f})".format(*self.sqnr_interval)
        kind = "noise" if self.source == "noise" else "samples that nothing was fitted to"
        return f"{self.sqnr_db:.1f} dB{between} to the original, on {self.samples} of {kind}"
