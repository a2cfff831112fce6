"""The check of an emitted file: it is run, with XNNPACK and with the reference kernels, against the graph it is from.

The graph runs in onnxruntime with optimizations off, which computes a QDQ graph in float32 between roundings; an
integer file is also compared with onnxruntime's own integer kernels. What is allowed: a sum that lies a hair from a
half is rounded up by one and down by the other, and a deep network carries such single steps on and on. (On
EfficientNet-Lite0 one to seven of the 400,000 numbers behind the first convolution differ, and 25 to 30 dB are left at
the end. onnxruntime's integer kernels are as far from its float ones, and equal to the file bit by bit.) A file
that is wrong is far from both: it is refused when the error is large against the signal (under
:data:`INTEGER_REFUSED` dB) and against the output's step (over :data:`STEPS_REFUSED` steps, root mean square).
A file of integers, and any other that is not near its graph, is taken apart (:mod:`edgec.backends.coral.localize`): it
is refused when an operator alone departs from the graph, and passes with a note when none does. Float files differ by
the order of additions and by the accuracy of kernels that are approximations; an output that is smaller than that is
rounding, and no fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

import numpy as np

from edgec.backends.coral.flatbuffer import File
from edgec.backends.coral.interpreter import Interpreter
from edgec.backends.coral.localize import Departures, departures
from edgec.backends.coral.lowering import Lowered, Port
from edgec.ir.errors import EmitError
from edgec.ir.execution import Session, sqnr_db, stacked
from edgec.ir.graph import Graph

#: dB under which an integer file is refused, if the error is more than STEPS_REFUSED steps too; noted under the next.
INTEGER_REFUSED, INTEGER_NOTED = 15.0, 25.0
STEPS_REFUSED = 4.0
#: The same for float32 files, whose error has no step.
FLOAT_REFUSED, FLOAT_NOTED = 40.0, 80.0
#: Operators that LiteRT's reference resolver does not register.
WITHOUT_REFERENCE = frozenset(["CEIL", "ELU", "ROUND"])
#: The longest row that the reference SOFTMAX takes on integers: it ends the process where exponentials, each at most 1,
#: sum up to 512 or more (the exponent in its RoundingDivideByPOT passes 31; LiteRT 2.3).
LONGEST_REFERENCE_SOFTMAX = 511

Feeds = Mapping[str, np.ndarray]


@dataclass
class Checked:
    """What was measured.

    Attributes:
        sqnr_db: the file in LiteRT with XNNPACK against the graph, on integer kernels where the file is of integers;
            infinite where equal.
        report: for check.json.
        notes: what the user should know.
    """

    sqnr_db: float
    report: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def check(graph: Graph, lowered: Lowered, contents: bytes, probes: Sequence[Feeds]) -> Checked:
    """Runs the file on every probe, and with the reference kernels on the first.

    Raises:
        EmitError: the file does not compute what the graph computes.
    """
    session = Session(graph)
    wanted = stacked([_outputs(session.run(feeds), lowered.outputs) for feeds in probes])
    fast = Interpreter(contents, lowered.inputs, lowered.outputs)
    found = stacked([fast.run(feeds) for feeds in probes])
    plain = _plain(contents, lowered, probes[0])
    whole = wanted
    integers = _of_integers(lowered.file)
    if integers:
        optimized = Session(graph, integer=True)
        whole = stacked([_outputs(optimized.run(feeds), lowered.outputs) for feeds in probes])
    notes: list[str] = []
    if plain is None:
        notes.append("LiteRT has no reference kernels for an operator of this file: it was run with XNNPACK only")
    # One wrong operator may hide behind what the outputs lose anyway, so that a file of integers is always taken apart.
    apart = departures(graph, lowered, probes[0]) if integers else None
    outputs = {}
    for port in lowered.outputs:
        x, y = wanted[port.name], found[port.name]
        if not np.isfinite(x).all():
            notes.append(f"output '{port.name}' of the graph itself is not finite on the probes: it was not compared")
            continue
        outputs[port.name] = _measured(port, x, y)
        if integers:
            outputs[port.name]["integer_sqnr_db"] = _number(sqnr_db({port.name: whole[port.name]}, {port.name: y}))
        if _judge(port, outputs[port.name], integers, notes):
            apart = departures(graph, lowered, probes[0]) if apart is None else apart
            _refuse_departed(apart, port, outputs[port.name]["sqnr_db"])
            notes.append(_amplified(port, outputs[port.name]["sqnr_db"], integers))
        if plain is not None:
            x, y = found[port.name][0], plain[port.name]
            kernels = sqnr_db({port.name: x}, {port.name: y})
            outputs[port.name]["reference_kernels_sqnr_db"] = _number(kernels)
            if kernels < (INTEGER_NOTED if integers else FLOAT_NOTED):
                notes.append(
                    f"output '{port.name}': XNNPACK and the reference kernels agree to {kernels:.1f} dB only; "
                    "trust the device, not this machine"
                )
    if apart is not None:
        _refuse_departed(apart, None)
    compared = {name: values for name, values in wanted.items() if name in outputs}
    total = floats = sqnr_db(compared, found) if compared else float("-inf")
    report: dict[str, Any] = {"probes": len(probes), "outputs": outputs}
    if whole is not wanted and compared:
        total = sqnr_db({name: whole[name] for name in outputs}, found)
        report["float32_emulation_sqnr_db"] = _number(floats)
    report["sqnr_db"] = _number(total)
    report["sqnr_db_means"] = (
        "the file in LiteRT against the graph in onnxruntime, on integer kernels where the file is of integers; "
        "null where they are equal bit by bit"
    )
    return Checked(total, report, notes)


def _plain(contents: bytes, lowered: Lowered, feeds: Feeds) -> dict[str, np.ndarray] | None:
    """Outputs of the reference kernels, ``None`` where those cannot run the file."""
    if not has_reference(lowered.file):
        return None
    return Interpreter(contents, lowered.inputs, lowered.outputs, reference=True).run(feeds)


def has_reference(file: File) -> bool:
    """Whether LiteRT's reference kernels can run every operator of a file."""
    for operator in file.operators:
        if operator.kind in WITHOUT_REFERENCE:
            return False
        source = file.tensors[operator.inputs[0]] if operator.kind == "SOFTMAX" else None
        if source is not None and source.quantization is not None and source.shape[-1] > LONGEST_REFERENCE_SOFTMAX:
            return False
    return True


def _outputs(values: Feeds, ports: Sequence[Port]) -> dict[str, np.ndarray]:
    return {port.name: values[port.name] for port in ports}


def _measured(port: Port, wanted: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    error = found.astype(np.float64) - wanted.astype(np.float64)
    measured: dict[str, Any] = {
        "sqnr_db": _number(sqnr_db({port.name: wanted}, {port.name: found})),
        "max_error": float(np.abs(error).max(initial=0.0)),
    }
    if port.quantization is not None:
        step = float(port.quantization.scale[0])
        measured["max_error_steps"] = round(float(np.abs(error).max(initial=0.0)) / step)
        measured["rms_error_steps"] = float(np.sqrt(np.mean(error**2))) / step
    return measured


def _judge(port: Port, measured: Mapping[str, Any], integers: bool, notes: list[str]) -> bool:
    """Whether an output is as far off as a faulty file's; one that is merely poor is noted."""
    if measured["sqnr_db"] is None or measured.get("integer_sqnr_db", 0.0) is None:
        return False
    db = max(measured["sqnr_db"], measured.get("integer_sqnr_db", measured["sqnr_db"]))
    if integers:
        wrong, poor = db < INTEGER_REFUSED and measured.get("rms_error_steps", inf) > STEPS_REFUSED, db < INTEGER_NOTED
    else:
        wrong, poor = db < FLOAT_REFUSED, db < FLOAT_NOTED
    if poor and not wrong:
        notes.append(f"output '{port.name}' is {db:.1f} dB from the graph that it was made from")
    return wrong


def _of_integers(file: File) -> bool:
    """Whether an activation of a file is quantized, so that its outputs carry the rounding of integers."""
    return any(tensor.quantization is not None for tensor in file.tensors if tensor.data is None)


def _refuse_departed(apart: Departures, port: Port | None, db: float | None = None) -> None:
    """Refuses a file of which an operator alone does not compute what the graph computes.

    Args:
        apart: the file taken apart.
        port: an output that is far off, which what could not be taken apart may have caused; ``None`` for none.
        db: how far off.

    Raises:
        EmitError: an operator departs.
    """
    worst = apart.measured[0] if apart.measured else None
    departed = worst is not None and worst.departs
    if not departed and (port is None or (apart.measured and not apart.unmeasured)):
        return
    named = f"{worst.operator.kind} of node '{worst.operator.source}' departs" if departed and worst else ""
    if port is None:
        where, fault = "model.tflite", f"{named} from the graph that it was made from"
    else:
        where = f"model.tflite: output '{port.name}'"
        fault = f"it is {db:.1f} dB from the graph that it was made from{': ' * bool(named)}{named}"
    raise EmitError(where, fault, "this is a fault of the coral backend: report it with the model")


def _amplified(port: Port, db: float, integers: bool) -> str:
    """What to say of an output that is far off although no operator is."""
    said = f"output '{port.name}' is {db:.1f} dB from the graph that it was made from, though every operator alone is "
    if integers:
        return said + (
            "within rounding of it: the network amplifies single steps; quantize it more finely, or leave its most "
            "sensitive layers in float"
        )
    return said + "within rounding of it: what it gives is smaller than the rounding of float32 in front of it"


def _number(value: float) -> float | None:
    """A figure for JSON, which has no infinity: ``None`` for an exact match."""
    return value if isfinite(value) else None
