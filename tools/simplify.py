"""``edgec simplify``: a network with everything computed that can be, as a file for whoever reads ONNX."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgec.frontends.model import Pins, open_model
from edgec.frontends.sources import Source, opened
from edgec.ir.errors import InputError, UsageError, printable
from edgec.ir.execution import seeded_feeds
from edgec.ir.files import save
from edgec.ir.graph import Graph, Variable
from edgec.ir.valid_files import as_written
from edgec.passes.fold.fold import Fold
from edgec.passes.framework.context import Context
from edgec.passes.framework.pass_manager import PassManager
from edgec.passes.framework.planner import Planned
from edgec.passes.framework.reference import Reference
from edgec.passes.framework.settling import settle
from edgec.tools.options import print_notes
from edgec.tools.output import writing

# Sizes that open dimensions are tried with: the first axis is a batch, others often a side of an image.
_BATCH, _SIDES = 1, (64, 224, 32, 16)
_PROBES = 2


@dataclass(frozen=True)
class SimplifyJob:
    """What to simplify.

    Attributes:
        model: where the model comes from.
        output: the file to write.
        pins: shapes, or values, by input name; what is open stays so without any.
        check: run both networks and compare them.
    """

    model: Source
    output: Path
    pins: Pins
    check: bool = True


def simplify(job: SimplifyJob) -> None:
    """Folds a network, compares it with what it was, writes it, and prints what changed.

    Raises:
        InputError: the model cannot be used, or not run with any guess at its open dimensions.
        InternalError: the outputs moved.
    """
    notes: list[str] = []
    if job.model.file is not None and job.output.exists() and job.output.samefile(job.model.file):
        fix = "give another file with -o: weights are read from this one meanwhile"
        raise UsageError(f"-o {job.output}", "is the model itself", fix)
    with opened(job.model) as path:
        graph = open_model(path, job.pins, notes=notes, keep_open=True)
        before = Counter(node.op for inside in graph.graphs() for node in inside.nodes)
        size = graph_bytes(graph)
        step = Planned(Fold(share_weights=True, keep_batch=False), "simplify", job.model.name)
        if job.check:
            reference, said = _reference(graph, job.model.name)
            PassManager(reference, repro=job.output.parent / "repro").run(graph, [step])
        else:
            step.step.run(graph, Context(graph))
            settle(graph, step.where)
            said = "not compared (--no-check)"
        after = Counter(node.op for inside in graph.graphs() for node in inside.nodes)
        with writing(job.output, fix="give another file with -o"):
            save(graph, job.output)
        if job.check:
            as_written(job.output, [], job.output.name, error=InputError)
    print_notes(job.model.name, notes)
    fewer = [f"{op} {before[op]} -> {after[op]}" for op in sorted(before | after) if before[op] != after[op]]
    changes = f" ({', '.join(fewer[:8])}{', ...' if len(fewer) > 8 else ''})" if fewer else ""
    print(f"{printable(job.output.name)}: {before.total()} -> {after.total()} nodes{changes}")
    print(f"weights: {size:,} -> {graph_bytes(graph):,} bytes; outputs: {said}")


def graph_bytes(graph: Graph) -> int:
    """Bytes of all constants."""
    return sum(constant.nbytes for constant in graph.constants())


def _reference(graph: Graph, source: str) -> tuple[Reference, str]:
    """The network's own outputs on noise, and how they were found, for words."""
    fault: InputError | None = None
    for side in _SIDES:
        probes = [_noise(graph, seed, side) for seed in range(_PROBES)]
        try:
            reference = Reference(graph, probes)
        except InputError as error:
            fault = error
            continue
        shapes = {name: "x".join(map(str, values.shape)) for name, values in probes[0].items()}
        open_ones = [t.name for t in graph.inputs if any(not isinstance(size, int) for size in t.shape or [None])]
        taken = ", ".join(f"{printable(name)} as {shapes[name]}" for name in open_ones)
        return reference, f"equal on {_PROBES} random samples" + (f", with {taken}" if taken else "")
    assert fault is not None
    what = f"its open dimensions were taken for {_SIDES[-1]}, and onnxruntime does not run it so: {fault.what}"
    raise InputError(
        source, what, "give --input, such as --input image:1x3x224x224, or leave out the check: --no-check"
    )


def _noise(graph: Graph, seed: int, side: int) -> dict[str, np.ndarray]:
    """Noise for inputs, of which open dimensions are guessed."""
    symbols: dict[str, int] = {}
    closed = Graph(name=graph.name)
    for tensor in graph.inputs:
        shape = []
        for place, size in enumerate(tensor.shape or []):
            guess = _BATCH if place == 0 else side
            shape.append(size if isinstance(size, int) else symbols.setdefault(size, guess) if size else guess)
        closed.inputs.append(Variable(tensor.name, tensor.dtype, shape))
    return seeded_feeds(closed, seed, 1)[0]
