"""Vela, Arm's compiler for Ethos-U, run on a TFLite file, and what it says read.

It is the package ``ethos-u-vela`` (Apache-2.0), which runs on any machine. It moves the operators that the NPU runs
into one of its own, leaves the others to the CPU's kernels, and estimates cycles from a model of the NPU and its
memories. Source of the forms: its own reports, version 5.2.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgec.ir.errors import EmitError

LIMIT_SECONDS = 900
COMPILED = "model_vela.tflite"
_PROGRAM = "import sys; from ethosu.vela.vela import main; sys.exit(main(sys.argv[1:]))"
_ON_CPU = re.compile(r"Warning \([^)]*\) operator: (\w+), ofm: '([^']*)'\nReason: ([^\n]*)")


@dataclass(frozen=True)
class Compiled:
    """What Vela made of a file.

    Attributes:
        file: what it wrote, in the folder.
        figures: its estimates: milliseconds of an inference, KiB of memories, cycles, operators left to the CPU.
        on_cpu: operators that the NPU does not run: kind, the tensor that it computes, and why.
    """

    file: str
    figures: dict[str, Any]
    on_cpu: list[tuple[str, str, str]]


def missing() -> list[str]:
    """What is missing to compile for Ethos-U, in words."""
    if find_spec("ethosu") is not None:
        return []
    return ["Vela is not installed, so nothing says what the NPU would run: pip install 'edgec[vela]'"]


def compile_file(folder: Path, accelerator: str, system: str, memory: str) -> Compiled | None:
    """Compiles ``model.tflite`` in a folder; ``None`` where Vela is not installed.

    Args:
        folder: of the file; ``model_vela.tflite`` is left there.
        accelerator: such as ``ethos-u65-256``.
        system, memory: the names of Vela's system configuration and memory mode.

    Raises:
        EmitError: Vela fails, or takes too long.
    """
    if missing():
        return None
    scratch = folder / "vela"
    options = ["--accelerator-config", accelerator, "--system-config", system, "--memory-mode", memory]
    config = ["--config", "Arm/vela.ini"]
    shown = ["--show-cpu-operations", "--verbose-performance"]
    command = [sys.executable, "-c", _PROGRAM, "model.tflite", "--output-dir", "vela", *config, *options, *shown]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        fix = "compile for another target"
        raise EmitError("model.tflite", f"Vela takes over {LIMIT_SECONDS} seconds", fix) from None
    try:
        if done.returncode or not (scratch / COMPILED).is_file():
            said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
            what = f"Vela fails ({said[-1].strip() if said else f'status {done.returncode}'})"
            raise EmitError("model.tflite", what, "cut the network before what it fails at, or take another target")
        figures = _figures(scratch)
        (scratch / COMPILED).replace(folder / COMPILED)
    finally:
        for path in scratch.glob("*") if scratch.is_dir() else ():
            path.unlink()
        if scratch.is_dir():
            scratch.rmdir()
    return Compiled(COMPILED, figures, _ON_CPU.findall(done.stdout))


def _figures(folder: Path) -> dict[str, Any]:
    """The estimates that Vela leaves as CSV."""
    [summary] = folder.glob("*_summary_*.csv")
    with summary.open(newline="", encoding="utf-8") as stream:
        row = next(csv.DictReader(stream))
    [layers] = folder.glob("*_per-layer.csv")
    with layers.open(newline="", encoding="utf-8") as stream:
        cpu = sum(entry["Target"] == "CPU" for entry in csv.DictReader(stream))
    return {
        "accelerator": row["accelerator_configuration"],
        "system": row["system_config"],
        "memory_mode": row["memory_mode"],
        "clock_mhz": float(row["core_clock"]) / 1e6,
        "inference_ms": round(float(row["inference_time"]) * 1e3, 4),
        "cycles": int(float(row["cycles_total"])),
        "sram_kib": round(float(row["sram_memory_used"]), 3),
        "dram_kib": round(float(row["dram_memory_used"]), 3),
        "flash_kib": round(float(row["off_chip_flash_memory_used"]) + float(row["on_chip_flash_memory_used"]), 3),
        "macs": int(float(row["nn_macs"])),
        "cpu_operators": cpu,
    }
