"""The tensorrt backend: a network becomes a bundle that builds, checks and times its engines on the board.

Nothing of it was run on a Jetson here. What can be checked without one is: the files are held against what TensorRT of
the board's versions takes (:mod:`.lint`), compiled by TensorRT-RTX where that is installed (:mod:`.rtx`), and run in
onnxruntime with every tensor rounded to FP16.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgec.backends.dilated_pooling import DilatedPooling
from edgec.backends.protocol import ALONE, Beside, Emitted, Feeds, Runner
from edgec.backends.tensorrt.bundle import UNBUILT, BundledModel, Manifest, read_manifest, write_driver
from edgec.backends.tensorrt.byte_tensors import as_taken, widen_ports
from edgec.backends.tensorrt.dynamic_batch import batch_axes
from edgec.backends.tensorrt.golden_samples import write_golden
from edgec.backends.tensorrt.legalize import TensorRTOperators
from edgec.backends.tensorrt.lint import lint
from edgec.backends.tensorrt.models import Model, as_computed, is_quantized, models_of
from edgec.backends.tensorrt.open_bundle import largest_share, open_golden, open_model
from edgec.backends.tensorrt.parser_types import UINT8_FROM
from edgec.backends.tensorrt.rtx import LACKED, Checked, installed, rtx_check
from edgec.backends.tensorrt.shape_profiles import ShapeProfile, check_inputs, configured, profiles_of
from edgec.backends.tensorrt.versions import profile_of
from edgec.ir.cost import Cost
from edgec.ir.errors import EmitError
from edgec.ir.execution import Session, seeded_feeds
from edgec.ir.files import save
from edgec.ir.graph import Graph
from edgec.ir.signal import sqnr_scores
from edgec.ir.valid_files import as_written
from edgec.passes.framework import input_domain
from edgec.passes.framework.base import Pass
from edgec.passes.framework.target import Target

CHECK = "check.json"
# What an engine may differ beyond what was measured here: its kernels add up in another order.
_MARGIN_DB, _MOST_DB = 6.0, 60.0
_REFUSED_BY_RTX = "replace what it names in the network, or end the network before it with --cut"
# Of the memory estimate: TensorRT and the CUDA context, copies of the weights while an engine is built, workspace.
_RUNTIME_BYTES, _WEIGHT_COPIES, _ACTIVATION_COPIES = 512 << 20, 3, 4


class TensorRTBackend:
    """Jetson boards and desktop GPUs, by bundles for TensorRT."""

    name: ClassVar[str] = "tensorrt"

    def missing(self) -> list[str]:
        """What this machine lacks to do everything, a sentence each."""
        if installed():
            return []
        return ["TensorRT-RTX is not installed, so no RTX compile check was made: pip install 'edgec[trt]'."]

    def configured(self, target: Target, options: Mapping[str, Any], where: Callable[..., str]) -> Target:
        """The target with what the recipe says of it: ``profiles``."""
        profile_of(target)  # a third party's file is held to its types before anything runs
        return configured(target, options, where)

    def pinned(self, target: Target) -> Mapping[str, tuple[int, ...]]:
        """The shapes that open inputs get: the least of their profiles."""
        return {name: profile.least for name, profile in profiles_of(target).items()}

    def accept(self, graph: Graph, target: Target) -> None:
        """Holds the profiles against a network that is to be compiled.

        Raises:
            UsageError: they do not fit its inputs.
            EmitError: its samples do not stay apart.
        """
        if profiles_of(target):
            check_inputs(graph, target)
            alive = graph.copy()
            alive.remove_dead()
            batch_axes(alive, target.name)

    def legalization(self, target: Target) -> Sequence[Pass]:
        """Rewrites operators that the board's oldest TensorRT does not know, or not in that form."""
        return [DilatedPooling(), TensorRTOperators(profile_of(target).oldest, target.name)]

    def emit(
        self, graph: Graph, target: Target, folder: Path, probes: Sequence[Feeds], beside: Beside = ALONE
    ) -> Emitted:
        """Writes the bundle and checks its models.

        Raises:
            EmitError: TensorRT of the board refuses a model, or one does not fit the board's memory.
        """
        profile = profile_of(target)
        quantized = graph if is_quantized(graph) else None
        floats = beside.floats
        plain = graph if quantized is None else None if floats is None or is_quantized(floats) else floats
        feeds = list(probes) or seeded_feeds(graph)
        samples = beside.samples or feeds
        notes = [f"{target.title} has no 8-bit arithmetic: the bundle is FP16."] if target.scheme is None else []
        before: dict[str, np.dtype] = {}
        if profile.oldest.version < UINT8_FROM:
            graph, plain, before = _widened(graph, plain)
            quantized = graph if quantized is not None else None
            feeds, samples = [as_taken(graph, one) for one in feeds], [as_taken(graph, one) for one in samples]
            notes += [
                f"'{name}' is {_dtype_of(graph, name)} instead of {dtype}: {profile.oldest.tensorrt} has no {dtype}."
                for name, dtype in before.items()
            ]
        models = models_of(profile, plain, quantized, samples)
        profiles = profiles_of(target)
        if profiles:
            models = [open_model(model, feeds, profiles, target.name) for model in models]
        findings = [(model, finding) for model in models for finding in lint(model.written, model.rules)]
        for model, finding in findings:
            if finding.fatal:
                raise EmitError(f"{target.name}: {model.file}: {finding.where}", finding.what, finding.fix)
            notes.append(f"{model.file}: {finding.where} {finding.what}; {finding.fix}.")
        estimates = {model.file: _estimate(model.graph, largest_share(model.graph, profiles)) for model in models}
        _check_memory(target, estimates)
        folder.mkdir(parents=True, exist_ok=True)
        for model in models:
            save(model.written, folder / model.file)
        exact = plain if plain is not None else graph
        emitted = {
            model.file: as_written(folder / model.file, feeds, f"{target.name}: {model.file}") for model in models
        }
        reference = Session(exact)
        outputs = [reference.run(one) for one in feeds]
        inputs, results = write_golden(folder, feeds, outputs)
        if profiles:
            inputs, results = open_golden(folder, exact, feeds, inputs, results, profiles)
        with ThreadPoolExecutor(2) as pool:  # TensorRT-RTX runs in processes of its own
            running = _compile_checks(models, folder, profiles, pool)
            measured = {model.file: _measured(model, feeds, outputs) for model in models}
            run = {file: _sqnr(outputs, ran) for file, ran in emitted.items()}
            checks = {file: future.result() for file, future in running.items()}
        _check_computed(target, measured, checks)
        report = {
            "inputs": [{**_port(port.name, port.shape, port.dtype, before), "folded": _folded(graph, port.name),
                        "profile": port.profile} for port in inputs],
            "outputs": [_port(port.name, port.shape, port.dtype, before) for port in results],
            "models": {model.file: {**_described(model, measured, estimates, checks),
                                    "sqnr_db_of_file": _decibel(run[model.file])} for model in models},
            "lint": [{"file": m.file, "rule": f.rule, "where": f.where, "what": f.what} for m, f in findings],
            "memory_is_estimated": "512 MiB for TensorRT and CUDA, 3 times the weights, 4 times the activations",
            "sqnr_db_means": "onnxruntime with every tensor rounded to the file's precision, against the float network",
            "sqnr_db_of_file_means": "onnxruntime with the file as it lies here, against the float network; "
                                     "null where they are equal, or its CPU has no kernel for an operator in FP16",
        }  # fmt: skip
        (folder / CHECK).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        bundled = [_bundled(model, measured[model.file], estimates[model.file]) for model in models]
        manifest = Manifest(graph.name or target.name, profile.board, inputs, results, bundled)
        driver = write_driver(folder, manifest)
        best = models[0]
        fits = None if target.memory_bytes is None else estimates[best.file] <= target.memory_bytes
        beyond = best.float32_layers
        if beyond:
            notes.append(f"{len(beyond)} layers stay FP32, for FP16 would overflow: {', '.join(beyond[:3])}.")
        notes += [*_in_float(checks), *_unchecked(models), UNBUILT]
        given = Session(graph)
        apart = _measured(best, feeds, [given.run(one) for one in feeds])
        golden = [file for port in (*inputs, *results) for file in port.golden]
        files = [*(model.file for model in models), *golden, CHECK, *driver]
        return Emitted(files, best.file, apart, fits, notes, report)

    def runner(self, graph: Graph, folder: Path) -> Runner:
        """Runs the first model of the bundle in onnxruntime, with every tensor rounded to its precision."""
        manifest = read_manifest(folder)
        computed = as_computed(folder, manifest, manifest.models[0])
        session = Session(computed)
        return lambda feeds: session.run(as_taken(computed, feeds))

    def invoker(self, model: Path) -> Callable[[], None] | None:
        """Nothing: how fast a GPU is, a CPU does not say."""
        return None


def _measured(model: Model, feeds: Sequence[Feeds], outputs: Sequence[Feeds]) -> float:
    session = Session(model.as_half())
    return sqnr_scores(outputs, [session.run(one) for one in feeds]).value()


def _estimate(graph: Graph, batches: float) -> int:
    """Of a network that may be run on so many of its batches at once."""
    cost = Cost(graph)
    weights = sum(constant.nbytes for constant in graph.constants())
    activations = round(batches * (cost.peak_activation_bytes or 0))
    return _RUNTIME_BYTES + _WEIGHT_COPIES * weights + _ACTIVATION_COPIES * activations


def _check_memory(target: Target, estimates: dict[str, int]) -> None:
    least = min(estimates.values())
    if target.memory_bytes is not None and least > target.memory_bytes:
        what = (
            f"needs {least / 2**30:.1f} GiB by estimate, and {target.title} has {target.memory_bytes / 2**30:.1f} GiB"
        )
        raise EmitError(f"{target.name}: the network", what, "compress it further, or name another board")


def _compile_checks(
    models: Sequence[Model], folder: Path, profiles: Mapping[str, ShapeProfile], pool: Executor
) -> dict[str, Future[Checked]]:
    """The RTX compile check of the first model of each precision, which is the newest form of it."""
    running: dict[str, Future[Checked]] = {}
    done: set[str] = set()
    shapes = {name: (profile.least, profile.usual, profile.most) for name, profile in profiles.items()}
    for model in models if installed() else ():
        if not _unbuildable(model) and model.precision not in done and not model.fallback:
            done.add(model.precision)
            running[model.file] = pool.submit(rtx_check, folder / model.file, model.integer_layers, shapes)
    return running


def _unbuildable(model: Model) -> list[str]:
    """Operators for which TensorRT-RTX cannot build a model that TensorRT can."""
    return sorted({node.op for node in model.written.nodes} & LACKED)


def _unchecked(models: Sequence[Model]) -> list[str]:
    """What to say where no compile check could be made."""
    lacked = sorted({op for model in models for op in _unbuildable(model)}) if installed() else []
    if not lacked:
        return []
    return [f"TensorRT-RTX has no {' and no '.join(lacked)}, which TensorRT has: no RTX compile check was made."]


def _check_computed(target: Target, measured: Mapping[str, float], checks: Mapping[str, Checked]) -> None:
    for file, sqnr in measured.items():
        if sqnr == -np.inf:
            what = "gives numbers that are not finite in the precision that it is for"
            raise EmitError(f"{target.name}: {file}", what, "scale the network's values down")
    for file, checked in checks.items():
        where = f"{target.name}: {file}: RTX compile check"
        if checked.error is not None:
            raise EmitError(where, f"TensorRT-RTX refuses it ({checked.error})", _REFUSED_BY_RTX)


def _in_float(checks: Mapping[str, Checked]) -> list[str]:
    """What to say of layers that are quantized and that TensorRT-RTX runs in float all the same."""
    floats = dict.fromkeys(name for checked in checks.values() for name in checked.floats)
    if not floats:
        return []
    count = f"{len(floats)} quantized layers" if len(floats) > 1 else "1 quantized layer"
    return [
        f"TensorRT-RTX runs {count} in float ({', '.join(list(floats)[:3])}); the board's TensorRT may, too:"
        " keep them in float with quantize: {skip: [...]}."
    ]


def _described(
    model: Model, measured: dict[str, float], estimates: dict[str, int], checks: dict[str, Checked]
) -> dict[str, Any]:
    cost = Cost(model.graph)
    work = {node.name: entry.macs or 0 for node, entry in cost.by_node.items()}
    sqnr, promised = measured[model.file], model.integer_layers
    total = sum(work.values())
    return {
        "precision": model.precision,
        "strongly_typed": model.typed,
        "sqnr_db": None if sqnr == float("inf") else round(sqnr, 2),
        "memory_bytes": estimates[model.file],
        "float32_layers": list(model.float32_layers),
        "int8_share_of_macs": round(sum(work.get(name, 0) for name in promised) / total, 4) if total else None,
        "rtx_compile_check": checks[model.file].as_dict(work) if model.file in checks else None,
    }


def _bundled(model: Model, sqnr: float, memory: int) -> BundledModel:
    allowed = min(sqnr, _MOST_DB) - _MARGIN_DB
    # Of a signal with that much noise, the cosine of the angle to what it was.
    cosine = 1 / np.sqrt(1 + 10 ** (-allowed / 10))
    made = BundledModel(model.file, model.precision, memory, round(float(cosine), 6), round(allowed, 2))
    return replace(
        made,
        fallback=model.fallback,
        strongly_typed=model.typed,
        tensorrt=model.versions,
        float32_layers=() if model.typed else model.float32_layers,
    )


def _port(name: str, shape: Sequence[int], dtype: str, before: Mapping[str, np.dtype]) -> dict[str, Any]:
    """An input or output; ``instead_of`` is the type that the network had there, where the parser has it not."""
    instead = str(before[name]) if name in before else None
    return {"name": name, "shape": list(shape), "dtype": dtype, "instead_of": instead}


def _widened(graph: Graph, plain: Graph | None) -> tuple[Graph, Graph | None, dict[str, np.dtype]]:
    """Copies whose inputs and outputs are of types that every TensorRT has, and the types that they had."""
    wide = graph.copy()
    before = widen_ports(wide)
    if plain is None or plain is graph:
        return wide, None if plain is None else wide, before
    float_twin = plain.copy()
    widen_ports(float_twin)
    return wide, float_twin, before


def _dtype_of(graph: Graph, name: str) -> str:
    return next(str(t.dtype) for t in (*graph.inputs, *graph.outputs) if t.name == name)


def _sqnr(outputs: Sequence[Feeds], ran: Sequence[Feeds] | None) -> float | None:
    return None if ran is None else sqnr_scores(outputs, ran).value()


def _decibel(value: float | None) -> float | None:
    return None if value is None or value == float("inf") else round(value, 2)


def _folded(graph: Graph, name: str) -> dict[str, list[float]] | None:
    """What of the preprocessing is in the network: scale and offset, one or one a channel."""
    known = input_domain.folded(graph, name)
    return None if known is None else {"scale": known[0].tolist(), "offset": known[1].tolist()}
