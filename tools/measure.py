"""Latency and memory of an emitted model, measured in a process of its own.

``python -m edgec.tools.measure BACKEND MODEL`` prints one line of JSON. A process of its own, because the memory that
the compiler holds would hide the model's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgec.ir.errors import InternalError

_WARM_UP = 5
_LEAST_RUNS = 20
_MOST_RUNS = 1000
_SECONDS = 1.0


@dataclass(frozen=True)
class Speed:
    """What one model takes on this machine's CPU, on one thread.

    Attributes:
        latency_ms: median time of one inference, in milliseconds.
        memory_bytes: growth of the process's peak resident memory from before the model was loaded, in bytes.
        runs: how many inferences were timed.
    """

    latency_ms: float
    memory_bytes: int
    runs: int


def measure(backend: str, model: Path) -> Speed | None:
    """Times ``model`` in a new process; ``None`` where a time here says nothing about the device.

    Raises:
        InternalError: that process failed; the line holds the end of what it said.
    """
    # -P: what happens to lie in the current folder (a numpy.py, say) is no module of the measurement.
    command = [sys.executable, "-P", "-m", "edgec.tools.measure", backend, str(model)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False, env=environment
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise InternalError(str(model), f"could not be timed ({said[-1] if said else 'no message'})")
    found = json.loads(done.stdout.splitlines()[-1])
    return None if found is None else Speed(**found)


def _measure_here(backend: str, model: Path) -> Speed | None:
    from edgec.backends.registry import backend as find

    found = find(backend)
    # The runtime's own libraries are not the model's memory: they are in before counting starts.
    import onnxruntime  # noqa: F401
    from ai_edge_litert import interpreter  # noqa: F401

    _forget_peak()
    before = _resident("VmRSS")
    invoke = found.invoker(model)
    if invoke is None:
        return None
    for _ in range(_WARM_UP):
        invoke()
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < _LEAST_RUNS or (time.perf_counter() < end and len(times) < _MOST_RUNS):
        start = time.perf_counter()
        invoke()
        times.append(time.perf_counter() - start)
    return Speed(round(float(np.median(times)) * 1e3, 4), max(0, _resident("VmHWM") - before), len(times))


def _forget_peak() -> None:
    """Sets the kernel's record of peak memory back (proc(5), ``clear_refs``)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise InternalError("/proc/self/status", f"has no {field}")


if __name__ == "__main__":
    speed = _measure_here(sys.argv[1], Path(sys.argv[2]))
    print(json.dumps(None if speed is None else asdict(speed)))
