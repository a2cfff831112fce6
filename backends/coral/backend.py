"""The coral backend: a float or QDQ graph becomes model.tflite, checked by running it and judged for the Edge TPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict

from edgec.backends.coral import check, compiler, interpreter, metadata, ports, verdict
from edgec.backends.coral.board_folder import write_board_files
from edgec.backends.coral.flatbuffer import File
from edgec.backends.coral.input_shift import InputShift
from edgec.backends.coral.interpreter import Interpreter
from edgec.backends.coral.legalize import TFLiteOperators
from edgec.backends.coral.lowering import Lowered, Lowering
from edgec.backends.coral.rules import load_rules
from edgec.backends.counted_padding import CountedPadding
from edgec.backends.dilated_pooling import DilatedPooling
from edgec.backends.profiles import validated
from edgec.backends.protocol import ALONE, Beside, Emitted, Feeds, Runner
from edgec.ir.errors import EmitError
from edgec.ir.execution import seeded_feeds
from edgec.ir.graph import Graph
from edgec.ir.hashing import sha256
from edgec.ir.shapes import Shapes
from edgec.passes.framework import input_domain
from edgec.passes.framework.base import Pass
from edgec.passes.framework.context import Context
from edgec.passes.framework.legalization import Legalization
from edgec.passes.framework.target import Count, Target

MODEL = "model.tflite"
CHECK = "check.json"


def lower(graph: Graph, board: str = "", cuttable: frozenset[str] | None = None) -> Lowered:
    """Lowers a graph, float or QDQ, to a TFLite file.

    Args:
        graph: what is lowered.
        board: the target's name, which errors begin with.
        cuttable: names of the tensors that the user's model has; ``None`` where ``graph`` is that model.

    Raises:
        EmitError: a node has no TFLite counterpart; the line names it and what would help.
        InputError: the operators contradict each other's shapes.
    """
    load_rules()
    if any(t.shape is None for node in graph.nodes for t in node.outputs if t.name):
        Shapes(graph).annotate(graph)
    try:
        return Lowering(graph=graph, cuttable=cuttable).run()
    except EmitError as error:
        where = f"{board}: {error.where}" if board else error.where
        raise EmitError(where, error.what, error.fix) from None


@dataclass(frozen=True)
class Written:
    """A TFLite file in its folder.

    Attributes:
        file: what is in it.
        files: what was written for it, check.json included, which the caller writes.
        report: what check.json says of any: inputs, outputs, operators, what was measured.
        notes: what the user should know.
        sqnr_db: the file in LiteRT against the graph.
    """

    file: File
    files: list[str]
    report: dict[str, Any]
    notes: list[str]
    sqnr_db: float


def write(graph: Graph, target: Target, folder: Path, probes: Sequence[Feeds], given: Beside = ALONE) -> Written:
    """Writes model.tflite and what goes with it to the board, and compares it in LiteRT with ``graph``.

    Raises:
        EmitError: an operator cannot be lowered, or the file does not compute what the graph computes.
    """
    lowered = lower(graph, target.name)
    folded = {port.name: _folded(graph, port.name) for port in lowered.inputs}
    contents = _described(graph, lowered, folded, given.results)
    feeds = list(probes) or seeded_feeds(graph)
    checked = check.check(graph, lowered, contents, feeds)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_bytes(contents)
    beside = write_board_files(folder, lowered, contents, feeds, given)
    report: dict[str, Any] = {
        "files": {MODEL: sha256(folder / MODEL)},
        "inputs": [{**entry, "folded": folded[entry["name"]]} for entry in ports.described(lowered.inputs)],
        "outputs": ports.described(lowered.outputs),
        "operators": _counts(lowered),
        "check": checked.report,
    }
    notes = [*lowered.notes, *checked.notes]
    return Written(lowered.file, [MODEL, CHECK, *beside], report, notes, checked.sqnr_db)


@dataclass(frozen=True)
class Lowerable(Legalization):
    """Lowers the float network, to see before anything is calibrated that all of it can be."""

    name: ClassVar[str] = "lowerable"

    def rewrite(self, graph: Graph, ctx: Context) -> int:
        """Changes nothing.

        Raises:
            EmitError: an operator cannot be lowered.
        """
        users = ctx.config.original
        names = None if users is None else frozenset(tensor.name for tensor in users.variables())
        lower(graph, "" if ctx.target is None else ctx.target.name, names)
        return 0


@dataclass(frozen=True)
class _Options:
    """What stands under ``options`` in the file of a target of this backend."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    sram_usable_bytes: Count | None = None


def _usable_memory(target: Target) -> int:
    """Bytes of on-chip memory that weights may fill."""
    options = validated(_Options, target.options, f"target '{target.name}': options")
    return options.sram_usable_bytes or target.parameter_bytes or verdict.USABLE_SRAM


class CoralBackend:
    """Coral boards, by TFLite."""

    name: ClassVar[str] = "coral"

    def missing(self) -> list[str]:
        """What this machine lacks to do everything, a sentence each."""
        return compiler.missing()

    def legalization(self, target: Target) -> Sequence[Pass]:
        """Rewrites what TFLite's integer kernels lack, and lowers the float graph once to see that all of it can be."""
        load_rules()
        return [InputShift(), DilatedPooling(), TFLiteOperators(), CountedPadding(), Lowerable()]

    def emit(
        self, graph: Graph, target: Target, folder: Path, probes: Sequence[Feeds], beside: Beside = ALONE
    ) -> Emitted:
        """Writes model.tflite and check.json, and what the Edge TPU compiler makes where it is on PATH.

        Args:
            graph: float or QDQ; see :mod:`edgec.backends.coral.qdq` for what is expected of the latter.
            target: the board.
            folder: where the files go.
            probes: feeds as the graph takes them; seeded noise where there are none.
            beside: what its outputs mean.

        Raises:
            EmitError: an operator cannot be lowered, or the file does not compute what the graph computes.
        """
        usable = _usable_memory(target)
        written = write(graph, target, folder, probes, beside)
        judged = verdict.verdict(written.file, usable)
        compiled = compiler.compile_file(folder)
        report = {**written.report, "edge_tpu": judged.as_dict()}
        notes = list(written.notes)
        fits: bool | None = judged.fits if target.parameter_bytes is not None else None
        files = list(written.files)
        if compiled is None:
            notes += judged.notes()
        else:
            report["edgetpu_compiler"] = compiled.log
            files += compiled.files
            fits = fits if compiled.fits is None else compiled.fits
        report["notes"] = notes
        (folder / CHECK).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        return Emitted(files, MODEL, written.sqnr_db, fits, notes, report)

    def runner(self, graph: Graph, folder: Path) -> Runner:
        """Runs model.tflite on feeds in float and in ONNX's layout, of the graph's batch or multiples of it."""
        report = json.loads((folder / CHECK).read_text(encoding="utf-8"))
        contents = (folder / MODEL).read_bytes()
        return Interpreter(contents, ports.read(report["inputs"]), ports.read(report["outputs"])).run

    def invoker(self, model: Path) -> Callable[[], None]:
        """One inference of a TFLite file on fixed noise, on one thread of this machine's CPU."""
        return interpreter.invoker(model)


def _described(graph: Graph, lowered: Lowered, folded: Mapping[str, Any], results: Mapping[str, Any] | None) -> bytes:
    """The file, with TFLite metadata and, where outputs are classes, their names."""
    outputs = metadata.of_outputs(lowered.outputs, results)
    told = metadata.encode(graph.name, metadata.of_inputs(lowered.inputs, folded, results), outputs)
    contents = lowered.file.to_bytes(metadata={metadata.NAME: told})
    if results is not None and any(facts.labels for facts in outputs):
        return metadata.with_labels(contents, results["labels"])
    return contents


def _folded(graph: Graph, name: str) -> dict[str, list[float]] | None:
    """The preprocessing that is part of the network behind an input; ``None`` where there is none."""
    known = input_domain.folded(graph, name)
    return None if known is None else {"scale": known[0].tolist(), "offset": known[1].tolist()}


def _counts(lowered: Lowered) -> dict[str, int]:
    kinds = [operator.kind for operator in lowered.file.operators]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}
