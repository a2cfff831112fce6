"""Running a graph in onnxruntime, with a tap on any tensor."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.files import INTERNAL_LIMIT, save, to_bytes
from edgec.ir.graph import Graph, Tensor, producer
from edgec.ir.sample_axis import batch_size

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = [
    "Feeds",
    "Session",
    "batch_size",
    "filled",
    "first_line",
    "runtime_errors",
    "seeded_feeds",
    "sqnr_db",
    "stacked",
    "started",
]

Feeds = Mapping[str, np.ndarray]

_MEND = "export the network again, or end it before that node with --cut"
# Where in onnxruntime's own source a check stands, and in which function.
_SOURCE_PLACE = re.compile(r"\S*/onnxruntime_src/\S+:\d+ .*?\)(?: const)? (?=\S)")


class Session:
    """A graph made ready to run.

    Args:
        graph: what to run; later changes to it are not seen.
        taps: tensors inside it whose values are wanted besides the outputs.
        threads: how many threads an operator may use.
        optimize: let onnxruntime fuse and rewrite. Off by default: what is compared is our graph, not its.
        integer: run Q/DQ pairs on integer kernels, int8 activations included (onnxruntime's own choice on x86 is to
            compute those in float32, whose rounding moves values across quantization steps).
        blocked: let convolutions run in onnxruntime's blocked layout, which takes half of the time; nothing else is
            fused, and Q/DQ pairs are computed as they stand. For what is summed up over many values: the last bits of a
            sum of products differ, and a value that lies between two steps may be rounded to the other one.

    Raises:
        InputError: onnxruntime does not take the graph; the line holds its reason.
    """

    def __init__(
        self,
        graph: Graph,
        taps: Sequence[Tensor] = (),
        *,
        threads: int = 1,
        optimize: bool = False,
        integer: bool = False,
        blocked: bool = False,
    ) -> None:
        import onnxruntime as ort

        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 4
        settings.use_deterministic_compute = True
        if integer:
            settings.add_session_config_entry("session.qdqisint8allowed", "1")
        if blocked:
            settings.add_session_config_entry("session.disable_quant_qdq", "1")
        level = ort.GraphOptimizationLevel
        any_optimized = optimize or integer or blocked
        settings.graph_optimization_level = level.ORT_ENABLE_ALL if any_optimized else level.ORT_DISABLE_ALL
        extra = tuple(taps)
        self._folder: Any = None
        try:
            if sum(c.nbytes for c in graph.constants()) > INTERNAL_LIMIT:
                self._folder = tempfile.TemporaryDirectory(prefix="edgec-")
                path = Path(self._folder.name) / "model.onnx"
                save(graph, path, external=True, extra_outputs=extra)
                self._session = started(path, settings, graph, extra)
            else:
                self._session = started(to_bytes(graph, extra_outputs=extra), settings, graph, extra)
        except runtime_errors() as error:
            raise InputError("onnxruntime", f"does not take the model ({first_line(error)})", _MEND) from None
        self._options = ort.RunOptions()
        self._options.only_execute_path_to_fetches = True
        self._mends = {t.name: _without(t) for t in graph.outputs if getattr(t, "type_proto", None) is not None}
        self.inputs = [item.name for item in self._session.get_inputs()]
        self.outputs = [item.name for item in self._session.get_outputs()]

    def run(
        self, feeds: Feeds, *, wanted: Sequence[str] = (), constants: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Outputs and taps by name.

        Args:
            feeds: values of the inputs.
            wanted: the only outputs and taps to compute; all where it is empty. What they do not need does not run.
            constants: values that stand for those of constants which the graph lists among its inputs, in this run.

        Raises:
            InputError: an input is missing or of another shape or type, or an output is no tensor.
        """
        names = list(wanted) or self.outputs
        try:
            given = {name: feeds[name] for name in self.inputs}
            values = self._session.run(list(wanted) or None, {**given, **(constants or {})}, self._options)
        except KeyError as error:
            raise InputError(
                "the data", f"has no values for the model's input {error}", "name the array for it"
            ) from None
        except runtime_errors() as error:
            raise InputError("onnxruntime", f"cannot run the model ({first_line(error)})", _MEND) from None
        for name, value in zip(names, values, strict=True):
            if not isinstance(value, np.ndarray):
                what = "is a sequence, or an optional without a value; edgec compares tensors only"
                raise InputError(f"output '{name}'", what, self._mends.get(name, _MEND))
        return dict(zip(names, values, strict=True))


def _without(output: Tensor) -> str:
    """What to do about an output that is no tensor."""
    maker = producer(output)
    before = [] if maker is None else [tensor.name for tensor in maker.inputs if tensor.inputs]
    if not before:
        return "take it out of the model's outputs"
    return f"end the network before it with {' '.join(f'--cut {name}' for name in before)}"


def started(model: bytes | Path, settings: ort.SessionOptions, graph: Graph, taps: Sequence[Tensor] = ()) -> Any:
    """An onnxruntime session on the CPU.

    Args:
        model: the serialized graph, or its file.
        settings: of the session.
        graph: what is in ``model``.
        taps: its tensors that are outputs of ``model`` besides its own.
    """
    import onnxruntime as ort

    # onnxruntime 1.31 fuses a Conv that has a bias into the Add that reads it even where the Conv's own output is asked
    # for, and then misses it; it does so where its blocked layout does not take the Conv: for 61 channels, not for 64.
    read_too = any(tensor.outputs for tensor in (*graph.outputs, *taps))
    return ort.InferenceSession(
        model if isinstance(model, bytes) else str(model),
        settings,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["ConvAddActivationFusion"] if read_too else None,
    )


def runtime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a model or feeds that it does not take."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    # The plain RuntimeError is what its own faults come as, from where it makes a session.
    return (RuntimeError, *(getattr(state, name) for name in names if hasattr(state, name)))


def first_line(error: Exception) -> str:
    """The reason in an onnxruntime error, without its status prefix and the place in onnxruntime's source."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    reason = text.split(" : ", 3)[-1].strip() if text.startswith("[ONNXRuntimeError]") else text
    return _SOURCE_PLACE.sub("", reason)


def seeded_feeds(graph: Graph, seed: int = 0, samples: int = 4) -> list[dict[str, np.ndarray]]:
    """Noise for every input, for when there are no data: uniform in [0, 1) for floats, small numbers for integers.

    Raises:
        InputError: an input has no static shape.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    made = []
    for _ in range(samples):
        feeds = {}
        for tensor in graph.inputs:
            if tensor.shape is None or any(not isinstance(d, int) for d in tensor.shape):
                raise InputError(
                    f"input '{tensor.name}'", "has no static shape", f"pin it with --input {tensor.name}:1x3x224x224"
                )
            shape = tuple(int(d) for d in tensor.shape if isinstance(d, int))
            dtype = np.dtype(tensor.dtype)
            if dtype.kind == "f":
                feeds[tensor.name] = np.asarray(random.random(shape, np.float32)).astype(dtype)
            elif dtype.kind == "b":
                feeds[tensor.name] = np.asarray(random.integers(0, 2, shape)).astype(dtype)
            else:
                feeds[tensor.name] = np.asarray(random.integers(0, 8, shape)).astype(dtype)
        made.append(feeds)
    return made


def filled(values: np.ndarray, size: int) -> np.ndarray:
    """A batch that is short, filled up to ``size`` with its own last sample: a static model takes full ones only."""
    missing = size - len(values)
    return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)]) if missing > 0 else values


def stacked(runs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The outputs of several runs by name, the runs on a new first axis."""
    return {name: np.stack([run[name] for run in runs]) for name in runs[0]}


def sqnr_db(reference: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """Signal to quantization-noise ratio over all outputs of one run, in dB.

    It is infinite where they are equal, and minus infinity where they cannot be compared: shapes that differ, values
    that are not finite.

    Defined as 10 log10(sum x^2 / sum (x - y)^2) with x the reference; each output is weighed alike by normalizing
    its power to one first, so that a large tensor does not hide a small one.
    """
    signal = noise = 0.0
    for name, x in reference.items():
        if not x.size:
            continue
        if other[name].shape != x.shape:
            return float("-inf")
        y = other[name].astype(np.float64)
        x = x.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite make the noise so
            power = float(np.mean(x * x))
            noise += float(np.mean((x - y) ** 2)) / (power or 1.0)
        signal += 1.0 if power else 0.0
    if noise == 0.0:
        return float("inf")
    return float(10 * np.log10(max(signal, 1e-300) / noise)) if np.isfinite(noise) else float("-inf")
