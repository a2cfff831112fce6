"""onnxruntime on a CPU: the graph as it is, checked by running it as a user would, with optimizations on.

onnxruntime turns Q/DQ pairs into integer kernels when it loads a model. On x86 CPUs without VNNI its kernel for uint8
activations and int8 weights adds two products in 16 bits, which saturates with weights of full range, so what is
measured here is the optimized model against the same graph computed operator by operator.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgec.backends.counted_padding import CountedPadding
from edgec.backends.dilated_pooling import DilatedPooling
from edgec.backends.protocol import ALONE, Beside, Emitted, Feeds, Runner
from edgec.ir.errors import EmitError
from edgec.ir.execution import Session, seeded_feeds, started
from edgec.ir.files import load, save
from edgec.ir.graph import Graph
from edgec.ir.hashing import sha256
from edgec.ir.signal import Run, sqnr_scores
from edgec.ir.valid_files import as_written
from edgec.passes.framework.base import Pass
from edgec.passes.framework.target import Target

MODEL = "model.onnx"
CHECK = "check.json"
# Integer kernels that only round differently stay above this. Saturating ones fall below it, or little above: an
# autoencoder whose AUROC fell from 0.84 to 0.67 by it differed by 24.5 dB, so without VNNI more is wanted.
_SUSPICIOUS_DB, _SATURATING_DB = 20.0, 40.0


class CpuBackend:
    """Writes one ONNX file for onnxruntime."""

    name: ClassVar[str] = "cpu"

    def missing(self) -> list[str]:
        """Nothing: onnxruntime is a dependency of edgec."""
        return []

    def legalization(self, target: Target) -> Sequence[Pass]:
        """Rewrites what onnxruntime's integer kernels compute in another way than its float kernels."""
        return [DilatedPooling(), CountedPadding()]

    def emit(
        self, graph: Graph, target: Target, folder: Path, probes: Sequence[Feeds], beside: Beside = ALONE
    ) -> Emitted:
        """Writes ``model.onnx`` and ``check.json`` into ``folder``.

        The file is read back and run with onnxruntime's optimizations on; ``sqnr_db`` is that against ``graph``
        without them, over ``probes``, or over seeded noise where there are none. The network before and more samples
        are not needed.

        Raises:
            EmitError: the file is not valid ONNX, or onnxruntime does not run it.
            InputError: onnxruntime does not take the graph.
        """
        folder.mkdir(parents=True, exist_ok=True)
        written = [path.name for path in save(graph, folder / MODEL)]
        feeds = list(probes) or seeded_feeds(graph)
        reference = Session(graph)
        expected = [reference.run(item) for item in feeds]
        measured = _as_emitted(folder / MODEL, feeds, target)
        signal = sqnr_scores(expected, measured)
        sqnr = signal.value()
        integer = any(node.op == "QuantizeLinear" for node in graph.nodes)
        reduced = target.scheme is not None and target.scheme.reduce_range
        notes = _notes(sqnr, saturates=not reduced and has_vnni() is False) if integer else []
        size = sum((folder / name).stat().st_size for name in written)
        check: dict[str, Any] = {
            "files": {name: sha256(folder / name) for name in written},
            "bytes": size,
            "largest_difference": {name: _largest(name, expected, measured) for name in expected[0]},
            "other_shape_in_runs": dict(signal.mismatched),
            "probes": len(feeds),
            "quantized": integer,
            "sqnr_db": round(sqnr, 3) if np.isfinite(sqnr) else None,
            "sqnr_db_means": "onnxruntime with its optimizations against without; null where equal",
        }
        (folder / CHECK).write_text(json.dumps(check, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        fits = None if target.memory_bytes is None else size <= target.memory_bytes
        return Emitted([*written, CHECK], MODEL, sqnr, fits, notes, check)

    def runner(self, graph: Graph, folder: Path) -> Runner:
        """Runs ``model.onnx`` in onnxruntime, optimized, on one thread."""
        return Session(load(folder / MODEL), threads=1, optimize=True).run

    def invoker(self, model: Path) -> Callable[[], None]:
        """One inference on fixed noise, on one thread, by onnxruntime from the file itself."""
        import onnxruntime as ort

        settings = ort.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        graph = load(model)
        session = started(model, settings, graph)
        feeds = seeded_feeds(graph, samples=1)[0]
        return lambda: session.run(None, feeds)


def _as_emitted(path: Path, feeds: Sequence[Feeds], target: Target) -> list[dict[str, np.ndarray]]:
    """What the file gives, which has to be valid ONNX and to run in onnxruntime."""
    where = f"{target.name}: {path.name}"
    outputs = as_written(path, feeds, where, optimize=True)
    if outputs is None:
        what = "uses an operator that onnxruntime's CPU has no kernel for in that type"
        raise EmitError(where, what, "compute in float32 in the network")
    return outputs


def has_vnni() -> bool | None:
    """Whether this CPU multiplies and adds 8-bit integers without saturation; ``None`` where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), None)
    return None if flags is None else any(flag.endswith("vnni") for flag in flags)


def _notes(sqnr: float, *, saturates: bool) -> list[str]:
    """What to say of integer kernels that differ by so many dB; ``saturates``: whether this CPU's may saturate."""
    if sqnr >= (_SATURATING_DB if saturates else _SUSPICIOUS_DB):
        return []
    start = f"onnxruntime's integer kernels differ from the quantized graph by {sqnr:.1f} dB on this machine"
    if saturates:
        return [
            f"{start}, because its CPU has no VNNI and sums of products saturate; "
            "the target 'cpu-avx2' avoids it at the price of one bit of the weights."
        ]
    return [f"{start}; measure the metric on this kind of machine before shipping the model."]


def _largest(name: str, expected: Sequence[Run], measured: Sequence[Run]) -> float | None:
    """How far an output moved at most where its shape is what was expected; ``None`` where values are not finite."""
    largest = 0.0
    for run, other in zip(expected, measured, strict=True):
        if run[name].shape == other[name].shape and run[name].dtype.kind not in "OSU":
            with np.errstate(invalid="ignore"):
                apart = np.abs(run[name].astype(np.float64) - other[name].astype(np.float64))
                # Infinities that agree are equal, as are two NaN.
                apart = np.where((run[name] == other[name]) | (np.isnan(apart) & np.isnan(run[name])), 0.0, apart)
            largest = float(np.maximum(largest, apart.max(initial=0.0)))
    return largest if np.isfinite(largest) else None
