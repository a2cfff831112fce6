"""Compiles one ONNX file with TensorRT-RTX, ahead of time and without a GPU, and says what became of its layers.

``python -m edgec.backends.tensorrt.rtx_compile MODEL PROFILES`` prints one line of JSON. A process of its own, because
a builder that crashes takes its process with it. The engine's layers, with the types of what they read, are in the
builder's verbose log, which is the only place that shows them where no GPU is.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What the builder takes for a target where there is none; INT8 kernels are the same kind on all that it has.
_CAPABILITY = "SM86"
_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: (?P<inputs>.*?), (?:Constants|Outputs): ")
_DATATYPE = re.compile(r"Datatype: (\w+)")
_ORIGIN, _BETWEEN = "[ONNX Layer: ", "\x1f"


def compiled(model: Path, profiles: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, Any]:
    """Builds an engine of ``model`` in memory.

    Args:
        model: an ONNX file.
        profiles: by input with a dynamic shape, its least, usual and largest one.

    Returns:
        ``version``; ``error``, or null; and where there is none ``seconds``, ``engine_bytes`` and ``layers``: for each
        layer of the engine its ``kind``, the ``datatypes`` of what it reads, and the ``nodes`` that it came from.
    """
    import tensorrt_rtx as trt

    lines: list[tuple[Any, str]] = []

    class Log(trt.ILogger):
        def log(self, severity: Any, message: str) -> None:
            lines.append((severity, message))

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    found: dict[str, Any] = {"version": trt.__version__, "error": None}
    if not parser.parse_from_file(str(model)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        return {**found, "error": _said(str(errors[0].desc()) if errors else "the parser says nothing")}
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, _CAPABILITY), 0)
    if profiles:
        profile = builder.create_optimization_profile()
        for name, shapes in profiles.items():
            profile.set_shape(name, *map(tuple, shapes))
        config.add_optimization_profile(profile)
    start = time.perf_counter()
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        errors = [text for severity, text in lines if severity in (trt.Logger.ERROR, trt.Logger.INTERNAL_ERROR)]
        return {**found, "error": _said(errors[-1] if errors else "the builder says nothing")}
    seconds = round(time.perf_counter() - start, 3)
    layers = [layer for _, text in lines for line in text.splitlines() if (layer := layer_of(line)) is not None]
    return {**found, "seconds": seconds, "engine_bytes": int(engine.nbytes), "layers": layers}


def layer_of(line: str) -> dict[str, Any] | None:
    """A line of the log that describes a layer of the engine; ``None`` where it is another one."""
    found = _LAYER.match(line)
    if found is None:
        return None
    origins = line.rpartition("Metadata: ")[2].strip().split(_BETWEEN)
    return {
        "kind": found["kind"],
        "datatypes": _DATATYPE.findall(found["inputs"]),
        "nodes": [origin[len(_ORIGIN) : -1] for origin in origins if origin.startswith(_ORIGIN)],
    }


def _said(text: str) -> str:
    return " ".join(text.split())[:300]


if __name__ == "__main__":
    print(json.dumps(compiled(Path(sys.argv[1]), json.loads(sys.argv[2]))))
