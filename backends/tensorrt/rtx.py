"""The RTX compile check: an emitted model is built by TensorRT-RTX, and what was promised INT8 is looked up there.

It needs the extra ``edgec[trt]`` (tensorrt-rtx-cu12) and no GPU. It proves that a current TensorRT parses the network
and runs in INT8 what was quantized for that. It is no Jetson engine, and says nothing of a Jetson's speed or of
TensorRT 8.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 600

#: What TensorRT has and TensorRT-RTX refuses to build ("has no runners that implement it", version 1.7): a network with
#: one of them says nothing by not being built.
LACKED = frozenset({"NonMaxSuppression"})
# Layers that copy, cast or compute element by element carry the names of what they are fused with.
_COMPUTING = frozenset({"correlation", "gemm", "convolution", "correlation_transpose", "deconvolution", "matmul"})


@dataclass(frozen=True)
class Checked:
    """What came of it.

    Attributes:
        version: of TensorRT-RTX.
        error: what it refused the model for; ``None`` where it did not.
        engine_bytes: of the engine; 0 where there is none.
        int8: the promised layers that run in INT8.
        floats: those that do not.
    """

    version: str
    error: str | None
    engine_bytes: int = 0
    int8: tuple[str, ...] = ()
    floats: tuple[str, ...] = field(default=())

    def as_dict(self, work: Mapping[str, int]) -> dict[str, Any]:
        """For check.json, with the share of the promised multiply-accumulates that are INT8."""
        total = sum(work.get(name, 0) for name in (*self.int8, *self.floats))
        share = sum(work.get(name, 0) for name in self.int8) / total if total else None
        return {
            "tensorrt_rtx": self.version,
            "error": self.error,
            "engine_bytes": self.engine_bytes,
            "int8_layers": len(self.int8),
            "float_layers": list(self.floats),
            "int8_share_of_promised_macs": None if share is None else round(share, 4),
        }


def installed() -> bool:
    """Whether TensorRT-RTX is."""
    return importlib.util.find_spec("tensorrt_rtx") is not None


def rtx_check(
    model: Path, promised: Sequence[str], profiles: Mapping[str, Sequence[Sequence[int]]] | None = None
) -> Checked:
    """Builds ``model`` in a process of its own.

    Args:
        model: an ONNX file.
        promised: names of its nodes that are to run in INT8.
        profiles: by input with a dynamic shape, its least, usual and largest one.
    """
    program = "edgec.backends.tensorrt.rtx_compile"
    command = [sys.executable, "-P", "-m", program, str(model), json.dumps(profiles or {})]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return Checked("unknown", f"did not end within {LIMIT_SECONDS} s")
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        return Checked("unknown", f"ended with {done.returncode} ({said[-1] if said else 'it said nothing'})")
    found = json.loads(done.stdout.splitlines()[-1])
    if found["error"] is not None:
        return Checked(found["version"], found["error"])
    integer = in_int8(found["layers"])
    return Checked(
        found["version"],
        None,
        found["engine_bytes"],
        tuple(name for name in promised if name in integer),
        tuple(name for name in promised if name not in integer),
    )


def in_int8(layers: Sequence[Mapping[str, Any]]) -> set[str]:
    """The nodes whose layer of the engine multiplies integers.

    What it reads first is Int8 then; a shortcut that it adds need not be.
    """
    return {
        name
        for layer in layers
        if layer["kind"] in _COMPUTING and layer["datatypes"][:1] == ["Int8"]
        for name in layer["nodes"]
    }
