"""Engines: one for each model, built here, kept for the next run."""

import json
import shutil
import time
from pathlib import Path
from typing import Any, Dict, Optional

from edgec.backends.tensorrt.driver.board import MIB, memory
from edgec.backends.tensorrt.driver.files import sha256, write_json
from edgec.backends.tensorrt.driver.refusals import BUILD, Refusal
from edgec.backends.tensorrt.driver.shapes import build_flags, profile_name
from edgec.backends.tensorrt.driver.trtexec import Trtexec, ran_out_of_memory, why

ENGINES = Path("engines")
LEAST_WORKSPACE, MOST_WORKSPACE = 32 * MIB, 2048 * MIB
OBEY, LAYERS = "--precisionConstraints=obey", "--layerPrecisions"
PRECISION_FLAGS = {"fp16": ["--fp16"], "int8": ["--int8", "--fp16"], "fp32": ["--noTF32"]}


def kept(engine: Path) -> Optional[Dict[str, Any]]:
    """What is known of an engine that an earlier run left; none where it is not whole."""
    try:
        known = dict(json.loads(Path(f"{engine}.json").read_text(encoding="utf-8")))
        return known if known["sha256"] == sha256(engine) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def build(
    tool: Trtexec, manifest: Dict[str, Any], board: Dict[str, Any], model: Dict[str, Any], rebuild: bool
) -> Dict[str, Any]:
    """The engine of a model: the one that an earlier run left, where it is whole, or a new one.

    It is named by all that it is tied to: the model's hash, TensorRT, the GPU, the precision and the batch sizes.
    """
    digest = manifest["files"][model["file"]]
    where = f"trt{tool.shown}-sm{board['compute_capability'].replace('.', '')}"
    stem = f"{Path(model['file']).stem}-{digest[:12]}-{where}-{model['precision']}{profile_name(manifest)}"
    engine = ENGINES / f"{stem}.engine"
    known = None if rebuild else kept(engine)
    if known is not None:
        return dict(known, reused=True)
    precision = ["--stronglyTyped"] if model.get("strongly_typed") else PRECISION_FLAGS[model["precision"]]
    for flag in precision:
        if flag not in tool.options:
            what = f"trtexec of TensorRT {tool.shown} has no {flag}"
            raise Refusal(BUILD, model["file"], what, "emit the bundle for the TensorRT that the board has")
    layers = [] if model.get("strongly_typed") else model.get("float32_layers", [])
    if layers and model["precision"] != "fp32":
        # FP16 does not hold what these layers compute.
        named = ",".join(f"{layer}:fp32" for layer in layers)
        precision = [*precision, OBEY, f"{LAYERS}={named}"]
        if LAYERS not in tool.options:
            what = f"trtexec of TensorRT {tool.shown} has no {LAYERS}, and {len(layers)} layers overflow in FP16"
            raise Refusal(BUILD, model["file"], what, "the FP32 fallback is tried instead")
    part = Path(f"{engine}.part")
    free = (board["memory_bytes"] if board["gpu_has_own_memory"] else memory())["free"]
    workspace = min(max((free - model["memory_bytes"]) // 2, LEAST_WORKSPACE), MOST_WORKSPACE)
    # A smaller workspace may do where memory runs out: fewer kernels are tried.
    for size in sorted({workspace, LEAST_WORKSPACE}, reverse=True):
        pool = tool.only(f"--memPoolSize=workspace:{size // MIB}") or tool.only(f"--workspace={size // MIB}")
        cache = tool.only(f"--timingCacheFile={ENGINES / where}.cache")
        flags = [*precision, *build_flags(manifest), *pool, *cache]
        flags += tool.only("--skipInference") or tool.only("--buildOnly")
        start = time.time()
        status, text = tool.call(f"{stem}-build", [f"--onnx={model['file']}", f"--saveEngine={part}", *flags])
        if not ran_out_of_memory(status, text):
            break
    if status != 0:
        raise Refusal(BUILD, model["file"], *why(status, text))
    if not part.exists() or part.stat().st_size == 0 or shutil.disk_usage(".").free == 0:
        raise Refusal(BUILD, model["file"], "its engine was not written whole", "free some space and run again")
    made = {"engine": str(engine), "sha256": sha256(part), "seconds": round(time.time() - start, 1), "flags": flags}
    write_json(Path(f"{engine}.json"), made)
    part.replace(engine)
    return dict(made, reused=False)
