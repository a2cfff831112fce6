"""Google's Edge TPU compiler, where it is on PATH: run on the file, and its log read.

It is an x86-64 Linux binary from Google's own package source and is not needed to emit; without it the verdict stays
an estimate. Source of the log's form: coral.ai, "Edge TPU Compiler"; read, not run here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.ir.errors import EmitError

PROGRAM = "edgetpu_compiler"
LIMIT_SECONDS = 1800

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZES = {
    "on_chip_used_bytes": "On-chip memory used for caching model parameters",
    "on_chip_remaining_bytes": "On-chip memory remaining for caching model parameters",
    "off_chip_bytes": "Off-chip memory used for streaming uncached model parameters",
}
_COUNTS = {
    "subgraphs": "Number of Edge TPU subgraphs",
    "operators": "Total number of operations",
    "mapped": "Number of operations that will run on Edge TPU",
    "on_cpu": "Number of operations that will run on CPU",
}


@dataclass(frozen=True)
class Compiled:
    """What the compiler said.

    Attributes:
        files: what it left, relative to the folder.
        log: its figures: sizes in bytes, counts, and ``rows`` of (operator, count, status).
    """

    files: list[str]
    log: dict[str, Any]

    @property
    def fits(self) -> bool | None:
        """Whether no parameter streams from off the chip; ``None`` where the log does not say."""
        streamed = self.log.get("off_chip_bytes")
        return None if streamed is None else streamed == 0


def missing() -> list[str]:
    """What is missing to compile for the Edge TPU, in words."""
    if shutil.which(PROGRAM):
        return []
    return [
        f"{PROGRAM} is not on PATH: model.tflite is emitted and checked, and what the Edge TPU would run is estimated; "
        "see coral.ai/docs/edgetpu/compiler"
    ]


def compile_file(folder: Path, model: str = "model.tflite") -> Compiled | None:
    """Compiles ``model`` in ``folder``; ``None`` where the compiler is not installed.

    Raises:
        EmitError: the compiler fails, or takes over half an hour.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        return None
    command = [program, "--show_operations", "--out_dir", str(folder), str(folder / model)]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise EmitError(
            PROGRAM, f"it took over {LIMIT_SECONDS // 60} minutes", "take it off PATH to go without"
        ) from None
    except OSError as error:
        raise EmitError(PROGRAM, f"it cannot be run ({error.strerror})", "take it off PATH to go without") from None
    text = done.stdout + done.stderr
    stem = Path(model).stem
    # Its own log lies beside the model and repeats what it printed; ours has the contract's name.
    (folder / f"{stem}_edgetpu.log").unlink(missing_ok=True)
    (folder / "edgetpu.log").write_text(text, encoding="utf-8")
    made = f"{stem}_edgetpu.tflite"
    if done.returncode != 0 or not (folder / made).is_file():
        reason = next((line for line in reversed(text.splitlines()) if line.strip()), f"status {done.returncode}")
        raise EmitError(PROGRAM, f"it refused model.tflite ({reason.strip()})", "take it off PATH to go without")
    return Compiled(["edgetpu.log", made], parse_log(text))


def parse_log(text: str) -> dict[str, Any]:
    """The figures of the compiler's log; what it does not print is left out."""
    found: dict[str, Any] = {}
    for key, label in _SIZES.items():
        match = re.search(re.escape(label) + r":\s*([\d.]+)\s*(B|KiB|MiB|GiB)", text)
        if match:
            found[key] = round(float(match[1]) * _UNITS[match[2]])
    for key, label in _COUNTS.items():
        match = re.search(re.escape(label) + r":\s*(\d+)", text)
        if match:
            found[key] = int(match[1])
    rows = re.findall(r"^([A-Z][A-Z0-9_]+)\s+(\d+)\s+(\S.*?)\s*$", text, re.MULTILINE)
    found["rows"] = [{"operator": kind, "count": int(count), "status": status} for kind, count, status in rows]
    return found
